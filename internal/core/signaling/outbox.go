package signaling

import (
	"slices"
	"time"

	"tallow/internal/core/wire"
)

// Bounds of an Outbox, in envelopes.
const (
	maxOutbox       = 256
	maxPerAddressee = 64
)

// waits are the times from sending an envelope to its first repeat, from each repeat to the next, and from the last one
// to giving up (PROTOCOL.md section 5).
var waits = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 8 * time.Second, 8 * time.Second}

// Outgoing is an envelope on its way to a member.
type Outgoing struct {
	To, ID   wire.ID
	Envelope []byte
}

// Outbox holds envelopes until they are acknowledged and says when to repeat them: PROTOCOL.md section 5. It is a pure
// machine: its user sends, and owns the clock. The zero value is empty and ready.
//
// It holds at most 256 envelopes, at most 64 to each addressee.
type Outbox struct {
	list []waiting // in the order of Add
}

type waiting struct {
	Outgoing
	next int // index into waits of the wait that begins when this one is due
	due  time.Time
}

// Add notes that an envelope has been sent; an Ack itself does not belong here. The outbox keeps the slice, which must
// not change. Beyond 64 envelopes to one addressee its oldest goes; beyond 256 in all, the oldest to the addressee that
// has most. An envelope that the wire would refuse, empty or longer than wire.MaxEnvelope, is not taken.
func (o *Outbox) Add(now time.Time, to, id wire.ID, envelope []byte) {
	if !sendable(envelope) {
		return
	}
	o.Ack(to, id)
	if o.count(to) >= maxPerAddressee {
		o.dropOldest(to)
	} else if len(o.list) >= maxOutbox {
		o.dropOldest(o.busiest())
	}
	o.list = append(o.list, waiting{Outgoing{to, id, envelope}, 1, now.Add(waits[0])})
}

// Ack takes out the envelope of that id and reports whether it was there. Only an acknowledgement by the addressee
// counts.
func (o *Outbox) Ack(from, id wire.ID) bool {
	before := len(o.list)
	o.list = slices.DeleteFunc(o.list, func(w waiting) bool { return w.To == from && w.ID == id })
	return len(o.list) < before
}

// Forget takes out everything to a member that is gone.
func (o *Outbox) Forget(to wire.ID) {
	o.list = slices.DeleteFunc(o.list, func(w waiting) bool { return w.To == to })
}

// Due returns what is to be sent again now, oldest first, and takes out what was never acknowledged. However late it is
// called, an envelope is repeated once and the next wait begins now.
func (o *Outbox) Due(now time.Time) (repeat []Outgoing) {
	o.list = slices.DeleteFunc(o.list, func(w waiting) bool { return !now.Before(w.due) && w.next == len(waits) })
	for i := range o.list {
		w := &o.list[i]
		if !now.Before(w.due) {
			repeat = append(repeat, w.Outgoing)
			w.due = now.Add(waits[w.next])
			w.next++
		}
	}
	return repeat
}

// Reset makes everything due at once and starts the waits over: the hub is back. While it is away, calling Due would use
// up the repeats.
func (o *Outbox) Reset(now time.Time) {
	for i := range o.list {
		o.list[i].next, o.list[i].due = 0, now
	}
}

func (o *Outbox) count(to wire.ID) (n int) {
	for _, w := range o.list {
		if w.To == to {
			n++
		}
	}
	return n
}

func (o *Outbox) busiest() (to wire.ID) {
	counts := map[wire.ID]int{}
	for _, w := range o.list { // in order, so that the result does not depend on the map's
		if counts[w.To]++; counts[w.To] > counts[to] || counts[to] == 0 {
			to = w.To
		}
	}
	return to
}

func (o *Outbox) dropOldest(to wire.ID) {
	if i := slices.IndexFunc(o.list, func(w waiting) bool { return w.To == to }); i >= 0 {
		o.list = slices.Delete(o.list, i, i+1)
	}
}

func sendable(envelope []byte) bool { return len(envelope) > 0 && len(envelope) <= wire.MaxEnvelope }
