//go:build !js

package room_test

import (
	"context"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/transfer"
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

// unreadable is a source that cannot be read.
type unreadable struct{ source }

func (unreadable) ReadAt([]byte, int64) (int, error) { return 0, transfer.ErrSourceUnreadable }

// TestLedgerOfRetry: what was signed before a retry can still be checked after it, and a result tells of each recipient once.
func TestLedgerOfRetry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	file := content(1000, 1)
	id := ann.send(outFile("a.bin", file), outFile("b.bin", unreadable{file}))
	bob.accept(ann)
	ann.finished(id)
	asked, ended := bob.mark(), ann.mark()
	if err := ann.room.Retry(id, bob.id()); err != nil {
		t.Fatal(err)
	}
	offer := waitAfter(bob, asked, "the offer again", func(room.OfferReceived) bool { return true }).Offer
	if err := bob.room.Decline(transferID(t, offer.From, offer.ID), ""); err != nil {
		t.Fatal(err)
	}
	result := waitAfter(ann, ended, "the end", func(e room.TransferFinished) bool { return e.Result.ID == id.Transfer.String() }).Result
	ledger, err := ann.room.Ledger(id)
	if err != nil || len(result.Ledger) != 1 || len(ledger.Entries) != 2 {
		t.Fatalf("%v, %+v, %+v", err, result.Ledger, ledger.Entries)
	}
	if e := ledger.Entries[1]; e.State != room.DeliveryDeclined || e.Transfer != offer.ID || e.Signature != "" {
		t.Errorf("the retry: %+v", e)
	}
	e := ledger.Entries[0]
	if e.State != room.DeliveryFailed || e.Code != fault.FileUnreadable || e.Transfer != id.Transfer.String() || e.Name != "Bob" || e.Bytes != 1000 || e.Ended == 0 ||
		e.Files[0].Outcome != "verified" || e.Files[1].Outcome != "failed" || e.Files[1].Code != fault.FileUnreadable {
		t.Errorf("before it: %+v", e)
	}
	if err := verifyReceipt(toJSON(t, ledger), 0, map[string]source{"a.bin": file}); err != nil {
		t.Error(err)
	}
}
