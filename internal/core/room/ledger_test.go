//go:build !js

package room_test

import (
	"context"
	"testing"

	"tallow/internal/core/room"
)

// TestLedger: what a recipient did not ask for has not failed, those who have left keep their names, and a retry that has nothing to
// do leaves a finished transfer finished.
func TestLedger(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	time := newClock()
	ann := w.create("Ann", func(c *room.Config) { c.Now = time.Now })
	bob, cleo := w.join("Bob", ann.room.Link()), w.join("Cleo", ann.room.Link())
	meetAll(ann, bob, cleo)
	file := content(2*mib, 1)
	g := newGated(t, file, mib)
	id := ann.send(outFile("a.bin", g), outFile("b.bin", file))
	for _, p := range []*person{bob, cleo} {
		wait(p, "an offer", func(room.OfferReceived) bool { return true })
		if _, err := p.room.Accept(id, []uint32{0}); err != nil {
			t.Fatal(err)
		}
		ann.stored(p, mib)
	}
	cleo.room.Leave(context.Background())
	wait(ann, "Cleo to leave", func(e room.PeerLeft) bool { return e.Peer.Name == "Cleo" })
	g.open()
	bob.finished(id)
	result := ann.finished(id)
	for _, e := range result.Ledger {
		if e.Peer == bob.room.Self().ID {
			if e.State != room.DeliveryDone || e.Files[0].Outcome != "verified" || e.Files[1].Outcome != "not-wanted" {
				t.Errorf("Bob: %+v", e)
			}
		} else if e.Name != "Cleo" || e.State == room.DeliveryDone || e.Files[0].Outcome != "failed" || e.Files[1].Outcome != "not-wanted" || e.Files[1].Code != "" {
			t.Errorf("Cleo: %+v", e)
		}
	}

	mark := ann.mark()
	if err := ann.room.Retry(id, bob.id()); err != nil {
		t.Fatal(err)
	}
	if err := ann.room.SetPaused(id, true); err != nil {
		t.Fatal(err)
	}
	for range 2 { // changes are published after some time
		time.skip(1e9)
		ann.room.Peers()
	}
	if err := ann.room.MarkVerified(bob.id(), true); err != nil { // an event to wait for, after them
		t.Fatal(err)
	}
	waitAfter(ann, mark, "Bob to be verified", func(e room.PeerChanged) bool { return e.Peer.Verified })
	for _, e := range ann.since(mark) {
		if p, ok := e.(room.TransferProgress); ok && p.Transfer.ID == result.ID {
			t.Errorf("the finished transfer goes on: %+v", p.Transfer.Deliveries)
		}
	}
}
