//go:build !js

package room_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// TestNotKept: a sender whose journal cannot be written is told so, and sends all the same; the others are told nothing.
func TestNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, _, bob := w.pair()
	bob.meet(ann)
	file := content(2*mib, 1)
	told := func(p *person) (n int) {
		for _, e := range p.since(0) {
			if e, ok := e.(room.TransferProgress); ok && e.Transfer.NotKept {
				n++
			}
		}
		return n
	}
	ann.done(func() room.TransferID { id, g := ann.halfway(file, bob); g.open(); return id }())
	if told(ann) > 0 {
		t.Error("told of a journal that was written")
	}
	ann.plug.broken.Store(true)
	id := ann.send(outFile("b.bin", file))
	wait(ann, "to be told, before anybody answers", func(e room.TransferProgress) bool {
		return e.Transfer.ID == id.Transfer.String() && e.Transfer.NotKept && e.Transfer.Deliveries[0].State == room.DeliveryOffered
	})
	offer := wait(bob, "the offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() }).Offer
	if _, err := bob.room.Accept(transferID(t, offer.From, offer.ID), nil); err != nil {
		t.Fatal(err)
	}
	bob.check(bob.done(id), file)
	ann.done(id)
	if told(bob) > 0 {
		t.Error("the recipient was told of it")
	}
}

// TestKeptLater: what has found no room in a journal is written once there is some, though nothing else happens, at both ends.
func TestKeptLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock := newClock()
	ann, _, bob := w.pairAt(clock.Now)
	bob.meet(ann)
	for _, p := range []*person{ann, bob} {
		p.plug.full.Store(true)
	}
	id := ann.send(outFile("a.bin", content(2*mib, 1)))
	wait(ann, "to be told", func(e room.TransferProgress) bool { return e.Transfer.NotKept })
	if err := ann.room.SetPaused(id, true); err != nil {
		t.Fatal(err)
	}
	offer := wait(bob, "the offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() }).Offer
	if _, err := bob.room.Accept(transferID(t, offer.From, offer.ID), nil); err != nil {
		t.Fatal(err)
	}
	has := func(p *person) bool {
		list, err := p.plug.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(list, func(s transfer.StoredName) bool { return s.Name == transfer.JournalName })
	}
	at := ann.mark()
	for _, p := range []*person{ann, bob} {
		eventually(t, "no room for a journal", func() bool { return p.plug.lacked.Load() > 0 })
		if has(p) {
			t.Fatalf("%s has a journal on a full disk", p.name)
		}
		p.plug.full.Store(false)
	}
	clock.skip(6 * time.Second)
	waitAfter(ann, at, "to be told again", func(e room.TransferProgress) bool { return !e.Transfer.NotKept })
	eventually(t, "both have their journals", func() bool { return has(ann) && has(bob) })
}

// TestMakesRoom: of many transfers those that are over are forgotten, and none that goes on when its other end is back.
func TestMakesRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock := newClock()
	ann, _, bob := w.pairAt(clock.Now)
	file := content(2*mib, 1)
	id, g := ann.halfway(file, bob)
	w.mu.Lock()
	w.dead[bob.address] = true
	w.taps[bob.id()].cut()
	w.mu.Unlock()
	clock.run(20)
	for _, p := range []*person{ann, bob} {
		wait(p, "the other to be gone", func(e room.TransferFinished) bool { return e.Transfer.Deliveries[0].Code == fault.PeerGone })
	}
	clock.run(1)
	const more = 70 // than are kept
	for _, p := range []*person{ann, bob} {
		for range more {
			snapshot, err := p.room.Send([]room.OutFile{outFile("b.bin", source("b"))}, room.SendOptions{To: []wire.ID{}, LateJoiners: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := p.room.Cancel(transferID(t, p.room.Self().ID, snapshot.ID)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.mu.Lock()
	delete(w.dead, bob.address)
	w.mu.Unlock()
	bob.room.Nudge()
	g.open()
	bob.check(bob.done(id), file)
	ann.done(id)
}

// closing is a source that knows whether it was closed.
type closing struct {
	source
	closed atomic.Int32
}

func (c *closing) Close() error {
	c.closed.Add(1)
	return nil
}

// TestSourcesClosed: a file is let go of once its transfer is forgotten, when the room is left, and when it was given for nothing; not before, since a
// delivery may be tried again.
func TestSourcesClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	l := w.life("Ann", nil)
	ann := l.born()
	put := func(s *closing) room.TransferID {
		t.Helper()
		snapshot, err := ann.room.Send([]room.OutFile{outFile("a.bin", s)}, room.SendOptions{To: []wire.ID{}, LateJoiners: true})
		if err != nil {
			t.Fatal(err)
		}
		return transferID(t, ann.room.Self().ID, snapshot.ID)
	}
	sources := make([]closing, 66) // two more than are kept
	for i := range sources {
		sources[i].source = source("a")
		if err := ann.room.Cancel(put(&sources[i])); err != nil {
			t.Fatal(err)
		}
	}
	for i := range sources {
		if n := sources[i].closed.Load(); (n == 1) != (i < 2) {
			t.Errorf("file %d was closed %d times", i, n)
		}
	}
	waiting := &closing{source: source("abc")}
	id := put(waiting)
	eventually(t, "a journal", func() bool {
		paths, _ := filepath.Glob(filepath.Join(l.dir, "*", transfer.JournalName))
		return slices.ContainsFunc(paths, func(path string) bool {
			b, err := os.ReadFile(path)
			j, bad := transfer.ParseJournal(b)
			return err == nil && bad == nil && j.Key == id
		})
	})
	w.crash(ann)
	ann = l.born()
	ann.resumed()
	other, again := &closing{source: source("other")}, &closing{source: source("abc")}
	if _, err := ann.room.Continue(id, []room.OutFile{outFile("x.bin", other), outFile("a.bin", again)}, false); err != nil || other.closed.Load() != 1 || again.closed.Load() != 0 {
		t.Errorf("%v, closed %d and %d times", err, other.closed.Load(), again.closed.Load())
	}
	ann.room.Leave(context.Background())
	if n := again.closed.Load(); n != 1 {
		t.Errorf("closed %d times with the room", n)
	}
}

// TestAcceptedBound: what has been accepted is not forgotten for what is offered next: that is refused, until something is over.
func TestAcceptedBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	const most = 64
	var ids []room.TransferID
	for range most {
		id := ann.send(outFile("a.bin", newGated(t, content(64<<10, 1), 0)))
		wait(bob, "the offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
		if _, err := bob.room.Accept(id, nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if r := ann.finished(ann.send(outFile("b.bin", source("b")))); entry(t, r, bob).Code != fault.TooLarge {
		t.Errorf("one too many: %+v", r.Ledger)
	}
	if err := bob.room.Cancel(ids[most-1]); err != nil {
		t.Fatal(err)
	}
	id := ann.send(outFile("c.bin", source("c")))
	wait(bob, "the offer after that", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
	if _, err := bob.room.Accept(id, nil); err != nil {
		t.Fatal(err)
	}
	bob.check(bob.finished(id), source("c"))
}

// TestDiscardedCloses: what is discarded after a restart, before or after it was held against what was announced, is closed and gone.
func TestDiscardedCloses(t *testing.T) {
	t.Parallel()
	for _, verified := range []bool{false, true} {
		w := newWorld(t, 11, 0)
		ann, l, bob := w.pair()
		id, _ := ann.halfway(content(2*mib, 1), bob)
		w.crash(bob, ann)
		bob = l.born()
		bob.resumed()
		if verified {
			ann.meet(bob)
			wait(bob, "it to go on", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].State == room.DeliveryTransferring })
		}
		if err := bob.room.Cancel(id); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing is left", func() bool {
			left, err := os.ReadDir(l.dir)
			return err == nil && len(left) == 0 && bob.plug.open.Load() == 0
		})
	}
}

// TestFullAtTheEnd: the disk takes everything but the note of the end. The delivery waits, and is done when there is room for that.
func TestFullAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, mib} {
		w := newWorld(t, 11, 0)
		ann, _, bob := w.pair()
		bob.plug.noEnds.Store(true)
		file := content(size, 1)
		id := ann.send(outFile("a.bin", file))
		bob.accept(ann)
		wait(bob, "the full disk", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].Code == fault.DiskFull })
		bob.room.SpaceFreed()
		bob.plug.noEnds.Store(false)
		bob.room.SpaceFreed()
		bob.check(bob.done(id), file)
		ann.done(id)
	}
}
