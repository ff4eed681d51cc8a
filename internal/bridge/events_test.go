package bridge

import (
	"errors"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// TestTranslate pins what web/tallow.js reads.
func TestTranslate(t *testing.T) {
	tr := newTranslator(7)
	delivery := room.Delivery{Peer: "aa", State: room.DeliveryTransferring}
	files := func(stored int64) []room.File {
		return []room.File{{Index: 0, Kind: "file", Name: "a", Path: "a", Size: 9}, {Index: 1, Kind: "file", Name: "b", Path: "b", Size: 9, Stored: stored}}
	}
	transfer := func(stored int64) room.Transfer {
		return room.Transfer{ID: "bb", Incoming: true, Files: files(stored), Deliveries: []room.Delivery{delivery}}
	}
	const (
		head       = `{"type":"progress","room":7,"id":"aabb",`
		deliveries = `"deliveries":[{"peer":"aa","name":"","state":"transferring","total":0,"bytes":0,"percent":0,"speed":0,"eta":0,"quality":"","repeated":0,"inMemory":false}]`
		fileA      = `{"index":0,"kind":"file","name":"a","path":"a","size":9,"type":"","lastModified":0,"stored":0,"complete":false,"root":""}`
		fileB      = `{"index":1,"kind":"file","name":"b","path":"b","size":9,"type":"","lastModified":0,"stored":5,"complete":false,"root":""}`
		fileB0     = `{"index":1,"kind":"file","name":"b","path":"b","size":9,"type":"","lastModified":0,"stored":0,"complete":false,"root":""}`
	)
	steps := []struct {
		event room.Event
		want  string
	}{
		{room.RoomChanged{State: room.StateClosed, Code: fault.Removed}, `{"type":"state","room":7,"state":"closed","code":"removed","relayOnly":false}`},
		{room.JoinRequested{ID: "cc", Name: "<b>"}, `{"type":"joinrequest","room":7,"id":"cc","name":"<b>"}`},
		{room.OfferWithdrawn{From: "aa", ID: "bb", Code: fault.PeerGone}, `{"type":"offerwithdrawn","room":7,"id":"aabb","code":"peer-gone"}`},
		{room.SignalMade{Peer: "ab", Value: "AQ", Candidate: true}, `{"type":"signal","room":7,"peer":"ab","value":"AQ","candidate":true}`},
		{room.SignalArrived{Peer: "ab", Value: "AQ", Kind: room.SignalAnswer}, `{"type":"signalarrived","room":7,"peer":"ab","value":"AQ","candidate":false,"kind":"answer"}`},
		{room.ReceivedExpired{Delivery: "dd"}, `{"type":"expired","room":7,"delivery":"dd"}`},
		{room.Problem{Code: fault.RateLimited}, `{"type":"problem","room":7,"code":"rate-limited"}`},
		// All files at first, then only those that changed.
		{room.TransferProgress{Transfer: transfer(0)}, head + `"files":[` + fileA + `,` + fileB0 + `],` + deliveries + `}`},
		{room.TransferProgress{Transfer: transfer(0)}, head + deliveries + `}`},
		{room.TransferProgress{Transfer: transfer(5)}, head + `"changed":[` + fileB + `],` + deliveries + `}`},
	}
	for i, step := range steps {
		if got := string(appendJSON(nil, tr.translate(step.event))); got != step.want {
			t.Errorf("step %d:\n got %s\nwant %s", i, got, step.want)
		}
	}

	finished := room.TransferFinished{Transfer: transfer(9), Result: room.Result{ID: "bb", Files: files(9), Delivery: "dd"}}
	e := tr.translate(finished).(transferEvent)
	if len(e.Files) != 2 || e.Changed != nil || e.Delivery != "dd" || e.Result == nil {
		t.Errorf("finished: %+v", e)
	}
	if len(tr.files) != 0 {
		t.Error("the files of an ended transfer are kept")
	}

	// Another member may use the same transfer id, and so may we: those are other transfers.
	tr.self = "ff"
	tr.translate(room.TransferProgress{Transfer: transfer(0)})
	theirs, ours := transfer(5), transfer(5)
	theirs.Deliveries = []room.Delivery{{Peer: "ee"}}
	ours.Incoming = false
	for want, other := range map[string]room.Transfer{"eebb": theirs, "ffbb": ours} {
		if e := tr.translate(room.TransferProgress{Transfer: other}).(transferEvent); e.ID != want || len(e.Files) != 2 {
			t.Errorf("same id, other sender: %+v", e)
		}
	}
}

func TestSettle(t *testing.T) {
	for _, test := range []struct {
		value any
		err   error
		want  string
	}{
		{nil, nil, `{"type":"settle","call":3}`},
		{struct{ Handle int }{1}, nil, `{"type":"settle","call":3,"value":{"handle":1}}`},
		{"not shown", fault.New(fault.NotOwner, nil), `{"type":"settle","call":3,"code":"not-owner","cause":"not-owner"}`},
		{nil, errors.New("odd"), `{"type":"settle","call":3,"code":"internal","cause":"odd"}`},
	} {
		if got := string(appendJSON(nil, settleEvent(3, test.value, test.err))); got != test.want {
			t.Errorf("%v, %v:\n got %s\nwant %s", test.value, test.err, got, test.want)
		}
	}
}

func TestParseLink(t *testing.T) {
	good := seal.NewLink(wire.ID{1}).Fragment()
	for _, test := range []struct {
		link string
		want fault.Code
	}{
		{"https://example.org/#" + good, ""},
		{good, ""},
		{good[:len(good)-1], fault.BadLink},
		{"", fault.BadLink},
		{"https://example.org/", fault.BadLink},
		{"v2." + good[3:], fault.LinkVersion},
	} {
		if _, err := parseLink(test.link); fault.Of(err) != test.want {
			t.Errorf("link of %d characters: %q, want %q", len(test.link), fault.Of(err), test.want)
		}
	}
}
