package bridge

import (
	"tallow/internal/core/fault"
	"tallow/internal/core/room"
)

// head is what every event begins with.
type head struct {
	Type string `json:"type"`
	Room int    `json:"room"`
}

type stateEvent struct {
	head
	State room.State `json:"state"`
	Code  fault.Code `json:"code,omitempty"`
	Relay bool       `json:"relayOnly"`
}

type peerEvent struct {
	head
	Peer room.Peer `json:"peer"`
}

type joinEvent struct {
	head
	ID   string `json:"id"`
	Name string `json:"name"`
}

type offerEvent struct {
	head
	Offer room.Offer `json:"offer"`
}

type withdrawnEvent struct {
	head
	ID   string     `json:"id"`
	Code fault.Code `json:"code,omitempty"`
}

type signalEvent struct {
	head
	Peer      string          `json:"peer"`
	Value     string          `json:"value"`
	Candidate bool            `json:"candidate"`      // made here: it only adds to one before it
	Kind      room.SignalKind `json:"kind,omitempty"` // arrived
}

type problemEvent struct {
	head
	Code fault.Code `json:"code"`
	Peer string     `json:"peer,omitempty"`
}

// features is what the browser has, as open answers it.
type features struct {
	Crypto      string `json:"crypto"`
	Storage     string `json:"storage"`
	MemoryLimit int64  `json:"memoryLimit,omitempty"` // bytes; 0: none
}

type expiredEvent struct {
	head
	Delivery string `json:"delivery"`
}

// transferEvent is a transfer's snapshot. Files come once; after that only those that changed.
type transferEvent struct {
	head
	transferSnapshot
	Result   *room.Result `json:"result,omitempty"`
	Delivery string       `json:"delivery,omitempty"` // what was received, in storage
	Offsets  []int64      `json:"offsets,omitempty"`  // where in it each of the result's files begins
}

// resumedEvent is a transfer of an earlier page.
type resumedEvent struct {
	head
	transferSnapshot
	Incoming bool  `json:"incoming"`
	Waiting  bool  `json:"waiting"`
	Opened   int64 `json:"opened"` // ms since 1970
	Bytes    int64 `json:"bytes"`
}

type transferSnapshot struct {
	ID         string          `json:"id"`
	Files      []room.File     `json:"files,omitempty"`
	Changed    []room.File     `json:"changed,omitempty"`
	Deliveries []room.Delivery `json:"deliveries"`
	Late       bool            `json:"lateJoiners,omitempty"`
	Paused     bool            `json:"paused,omitempty"`
	NotKept    bool            `json:"notKept,omitempty"`
}

// translator turns a room's events into what JavaScript gets. There, a transfer's id is that of its sender and its own, which together
// are unique. The translator remembers the files of running transfers, so that a hundred thousand of them do not cross with
// every tick.
type translator struct {
	number int
	self   string // our id; set before the first transfer of ours
	files  map[string][]room.File
}

func newTranslator(number int) *translator {
	return &translator{number: number, files: map[string][]room.File{}}
}

// translate returns the event as JSON wants it.
func (t *translator) translate(e room.Event) any {
	h := func(kind string) head { return head{kind, t.number} }
	switch e := e.(type) {
	case room.RoomChanged:
		return stateEvent{h("state"), e.State, e.Code, e.RelayOnly}
	case room.PeerJoined:
		return peerEvent{h("peerjoin"), e.Peer}
	case room.PeerChanged:
		return peerEvent{h("peerchange"), e.Peer}
	case room.PeerLeft:
		return peerEvent{h("peerleave"), e.Peer}
	case room.JoinRequested:
		return joinEvent{h("joinrequest"), e.ID, e.Name}
	case room.OfferReceived:
		e.Offer.ID = e.Offer.From + e.Offer.ID
		return offerEvent{h("offer"), e.Offer}
	case room.OfferWithdrawn:
		return withdrawnEvent{h("offerwithdrawn"), e.From + e.ID, e.Code}
	case room.TransferProgress:
		return transferEvent{head: h("progress"), transferSnapshot: t.snapshot(e.Transfer)}
	case room.TransferFinished:
		s := t.snapshot(e.Transfer)
		delete(t.files, s.ID)
		s.Files, s.Changed = e.Transfer.Files, nil
		return transferEvent{h("finished"), s, &e.Result, e.Result.Delivery, offsets(e.Result)}
	case room.ReceivedExpired:
		return expiredEvent{h("expired"), e.Delivery}
	case room.SignalMade:
		return signalEvent{h("signal"), e.Peer, e.Value, e.Candidate, ""}
	case room.SignalArrived:
		return signalEvent{h("signalarrived"), e.Peer, e.Value, false, e.Kind}
	case room.TransferResumed:
		if !e.Transfer.Incoming {
			t.self = e.Sender
		}
		return resumedEvent{h("resumed"), t.snapshot(e.Transfer), e.Transfer.Incoming, e.Transfer.Waiting, e.Opened.UnixMilli(), e.Bytes}
	case room.Problem:
		return problemEvent{h("problem"), e.Code, e.Peer}
	default:
		return problemEvent{h("problem"), fault.Internal, ""}
	}
}

func offsets(r room.Result) []int64 {
	if len(r.Stored) == 0 {
		return nil
	}
	list := make([]int64, len(r.Files))
	for i, f := range r.Files {
		if part := r.Stored[f.Index]; part != nil {
			_, list[i], _ = part.Outer()
		}
	}
	return list
}

func (t *translator) snapshot(tr room.Transfer) transferSnapshot {
	s := transferSnapshot{ID: t.self + tr.ID, Deliveries: tr.Deliveries, Late: tr.LateJoiners, Paused: tr.Paused, NotKept: tr.NotKept}
	if tr.Incoming {
		s.ID = tr.Deliveries[0].Peer + tr.ID
	}
	before, known := t.files[s.ID]
	if !known || len(before) != len(tr.Files) {
		s.Files = tr.Files
	} else {
		for i, f := range tr.Files {
			if f != before[i] {
				s.Changed = append(s.Changed, f)
			}
		}
	}
	t.files[s.ID] = tr.Files
	return s
}
