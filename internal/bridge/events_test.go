package bridge

import (
	"encoding/json"
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
		deliveries = `"deliveries":[{"peer":"aa","name":"","state":"transferring","total":0,"bytes":0,"percent":0,"speed":0,"eta":0,"quality":""}]`
		fileA      = `{"index":0,"kind":"file","name":"a","path":"a","size":9,"type":"","lastModified":0,"stored":0,"complete":false,"root":""}`
		fileB      = `{"index":1,"kind":"file","name":"b","path":"b","size":9,"type":"","lastModified":0,"stored":5,"complete":false,"root":""}`
		fileB0     = `{"index":1,"kind":"file","name":"b","path":"b","size":9,"type":"","lastModified":0,"stored":0,"complete":false,"root":""}`
	)
	steps := []struct {
		event room.Event
		want  string
	}{
		{room.RoomChanged{State: room.StateClosed, Code: fault.Removed}, `{"type":"state","room":7,"state":"closed","code":"removed"}`},
		{room.JoinRequested{ID: "cc", Name: "<b>"}, `{"type":"joinrequest","room":7,"id":"cc","name":"\u003cb\u003e"}`},
		{room.OfferWithdrawn{From: "aa", ID: "bb", Code: fault.PeerGone}, `{"type":"offerwithdrawn","room":7,"id":"aabb","code":"peer-gone"}`},
		{room.Problem{Code: fault.RateLimited}, `{"type":"problem","room":7,"code":"rate-limited"}`},
		// All files at first, then only those that changed.
		{room.TransferProgress{Transfer: transfer(0)}, head + `"files":[` + fileA + `,` + fileB0 + `],` + deliveries + `}`},
		{room.TransferProgress{Transfer: transfer(0)}, head + deliveries + `}`},
		{room.TransferProgress{Transfer: transfer(5)}, head + `"changed":[` + fileB + `],` + deliveries + `}`},
	}
	for i, step := range steps {
		got, err := json.Marshal(tr.translate(step.event))
		if err != nil || string(got) != step.want {
			t.Errorf("step %d: %v\n got %s\nwant %s", i, err, got, step.want)
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
		{map[string]int{"handle": 1}, nil, `{"type":"settle","call":3,"value":{"handle":1}}`},
		{"not shown", fault.New(fault.NotOwner, nil), `{"type":"settle","call":3,"code":"not-owner","cause":"not-owner"}`},
		{nil, errors.New("odd"), `{"type":"settle","call":3,"code":"internal","cause":"odd"}`},
	} {
		got, err := json.Marshal(settleEvent(3, test.value, test.err))
		if err != nil || string(got) != test.want {
			t.Errorf("%v, %v: %v\n got %s\nwant %s", test.value, test.err, err, got, test.want)
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

func TestHexadecimalArguments(t *testing.T) {
	var args struct {
		Peer id
		Seed *bytes32
	}
	if err := json.Unmarshal([]byte(`{"peer":"000102030405060708090a0b0c0d0e0f"}`), &args); err != nil || args.Peer[15] != 15 || args.Seed != nil {
		t.Errorf("%v %v %v", err, args.Peer, args.Seed)
	}
	for _, bad := range []string{`"00"`, `"000102030405060708090a0b0c0d0e0f10"`, `"zz0102030405060708090a0b0c0d0e0f"`, `7`} {
		if err := json.Unmarshal([]byte(`{"peer":`+bad+`}`), &args); err == nil {
			t.Errorf("id %s is accepted", bad)
		}
	}
	want := bytes32{1, 31: 2}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes32
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("%v: %s became %v", err, text, got)
	}
}
