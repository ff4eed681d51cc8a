//go:build !js

package room_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/transfer"
)

// storageFailed waits for the end of a delivery at both ends, since those marks, by a failure of the recipient's storage.
func storageFailed(t *testing.T, ann, bob *person, anns, bobs int) {
	t.Helper()
	any := func(room.TransferFinished) bool { return true }
	if r := waitAfter(bob, bobs, "the end", any).Result; r.Code != fault.StorageFailed {
		t.Fatalf("recipient: %+v", r)
	}
	if e := entry(t, waitAfter(ann, anns, "the end", any).Result, bob); e.State != room.DeliveryFailed || e.Code != fault.StorageFailed {
		t.Fatalf("sender: %+v", e)
	}
}

// notAgain checks that a recipient was asked once, and got nothing that it had.
func (p *person) notAgain() {
	p.t.Helper()
	asked := 0
	for _, e := range p.since(0) {
		switch e := e.(type) {
		case room.OfferReceived:
			asked++
		case room.TransferProgress:
			if n := e.Transfer.Deliveries[0].Repeated; n > 0 {
				p.t.Errorf("%d bytes came again", n)
			}
		}
	}
	if asked > 1 {
		p.t.Errorf("asked %d times", asked)
	}
}

// TestStorageFails: one operation of the recipient's disk fails midway, and another during the first retry. The next one sends what is lacking.
func TestStorageFails(t *testing.T) {
	for _, c := range []struct {
		operation, then string
		lost            int64 // bytes that were on their way, at most
	}{
		{"write", "", 4 * mib}, {"commit", "", 0}, {"put", "", 4 * mib}, {"write", "read", 4 * mib}, {"commit", "write", 0}, {"put", "put", 4 * mib},
		{"commit", "put", 0}, {"commit", "commit", 0},
	} {
		t.Run(c.operation+" "+c.then, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			ann, l, bob := w.pair()
			file := content(8*mib, 1)
			s := newStepped(t, file)
			id := ann.send(outFile("a.bin", s), outFile("empty", source{}))
			bob.accept(ann)
			s.raise(4 * mib)
			ann.stored(bob, 4*mib)
			bob.plug.fails.Store(&failing{c.operation, true})
			s.raise(8 * mib)
			storageFailed(t, ann, bob, 0, 0)
			wrote := bob.plug.writes.Load()
			if c.then != "" {
				bob.plug.fails.Store(&failing{c.then, c.then == "write" || c.then == "commit"})
				anns, bobs := ann.mark(), bob.mark()
				if err := ann.room.Retry(id, bob.id()); err != nil {
					t.Fatal(err)
				}
				storageFailed(t, ann, bob, anns, bobs)
				bob.plug.fails.Store(nil)
			}
			if err := ann.room.Retry(id, bob.id()); err != nil {
				t.Fatal(err)
			}
			bob.check(bob.done(id), file)
			ann.done(id)
			bob.notAgain()
			if n := bob.bulk.Load(); n > 8*mib+c.lost+slack {
				t.Errorf("%d bytes of records, when at most %d were lacking", n, 8*mib+c.lost)
			}
			if n := bob.plug.writes.Load() - wrote; c.operation == "commit" && n < 32 { // or a second flush says yes to what the first has dropped
				t.Errorf("%d writes after a flush that failed", n)
			}
			w.crash(bob, ann)
			bob = l.born() // the journal is whole
			if r := bob.resumed(); r.ID != id.Transfer.String() || !r.Finished {
				t.Errorf("%+v", r)
			}
			bob.check(bob.finished(id), file)
		})
	}
}

// TestStorageFailsReload: the recipient's process is begun anew instead, and nobody retries.
func TestStorageFailsReload(t *testing.T) {
	for _, operation := range []string{"write", "commit", "put"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			ann, l, bob := w.pair()
			file := content(8*mib, 1)
			s := newStepped(t, file)
			id := ann.send(outFile("a.bin", s))
			bob.accept(ann)
			s.raise(4 * mib)
			ann.stored(bob, 4*mib)
			bob.plug.fails.Store(&failing{operation, false})
			s.raise(8 * mib)
			storageFailed(t, ann, bob, 0, 0)
			w.crash(bob, ann)
			bob = l.born()
			bob.check(bob.done(id), file)
			ann.done(id)
			bob.notAgain()
			if n := bob.bulk.Load(); n > 4*mib+slack {
				t.Errorf("%d bytes of records, when %d were on disk", n, 4*mib)
			}
		})
	}
}

// TestStorageFailsForGood: each retry ends as the first attempt did, and whoever gives it up has nothing of it left on the disk.
func TestStorageFailsForGood(t *testing.T) {
	t.Parallel()
	for name, giveUp := range map[string]func(ann, bob *person, id room.TransferID) error{
		"the recipient": func(_, bob *person, id room.TransferID) error { return bob.room.Cancel(id) },
		"the sender":    func(ann, _ *person, id room.TransferID) error { return ann.room.Cancel(id) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			ann, l, bob := w.pair()
			s := newStepped(t, content(4*mib, 1))
			id := ann.send(outFile("a.bin", s))
			bob.accept(ann)
			s.raise(2 * mib)
			ann.stored(bob, 2*mib)
			bob.plug.fails.Store(&failing{"write", false})
			s.raise(4 * mib)
			storageFailed(t, ann, bob, 0, 0)
			for range 3 {
				anns, bobs := ann.mark(), bob.mark()
				if err := ann.room.Retry(id, bob.id()); err != nil {
					t.Fatal(err)
				}
				storageFailed(t, ann, bob, anns, bobs)
			}
			bob.notAgain()
			if err := giveUp(ann, bob, id); err != nil {
				t.Fatal(err)
			}
			eventually(t, "an empty disk", func() bool {
				left, err := os.ReadDir(l.dir)
				return err == nil && len(left) == 0
			})
		})
	}
}

// TestStorageFailsUnreadable: of what had been stored the end cannot be read. That chunk is lacking, and the rest is not sent again.
func TestStorageFailsUnreadable(t *testing.T) {
	for _, reload := range []bool{false, true} {
		t.Run(fmt.Sprint(reload), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			ann, l, bob := w.pair()
			file := content(8*mib, 1)
			id := ann.send(outFile("a.bin", file))
			bob.plug.fails.Store(&failing{"commit", true})
			bob.accept(ann)
			storageFailed(t, ann, bob, 0, 0)
			if reload {
				w.crash(bob, ann)
				l.fails = &failing{"read the end", false}
				bob = l.born()
			} else {
				bob.plug.fails.Store(&failing{"read the end", false})
				if err := ann.room.Retry(id, bob.id()); err != nil {
					t.Fatal(err)
				}
			}
			result := bob.done(id)
			bob.plug.fails.Store(nil)
			bob.check(result, file)
			ann.done(id)
			bob.notAgain()
			if n := bob.bulk.Load(); reload && n > mib+slack || n > 9*mib+slack {
				t.Errorf("%d bytes of records, when one chunk was lacking", n)
			}
		})
	}
}

// TestStorageFailsFull: there is no room for what has to be written again. The delivery waits, and goes on when there is some.
func TestStorageFailsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, _, bob := w.pair()
	file := content(mib, 1)
	id := ann.send(outFile("a.bin", file))
	bob.plug.fails.Store(&failing{"commit", true})
	bob.accept(ann)
	storageFailed(t, ann, bob, 0, 0)
	bob.plug.full.Store(true)
	marked := bob.mark()
	if err := ann.room.Retry(id, bob.id()); err != nil {
		t.Fatal(err)
	}
	waitAfter(bob, marked, "the full disk", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].Code == fault.DiskFull })
	bob.room.SpaceFreed()
	bob.plug.full.Store(false)
	bob.room.SpaceFreed()
	bob.check(bob.done(id), file)
	ann.done(id)
	bob.notAgain()
}

// TestStorageFailsReceipt: what was retried, and is done and handed over before its sender knows, is answered with its receipt.
func TestStorageFailsReceipt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	bobs, anns, bob, ann := w.lives("Bob", "Ann")
	ann.meet(bob)
	file := content(mib, 1)
	id := ann.send(outFile("a.bin", file))
	bob.plug.fails.Store(&failing{"commit", false})
	bob.accept(ann)
	storageFailed(t, ann, bob, 0, 0)
	before, marked := ann.mark(), bob.mark()
	if err := ann.room.Retry(id, bob.id()); err != nil {
		t.Fatal(err)
	}
	storageFailed(t, ann, bob, before, marked)
	w.crash(ann, bob)
	w.crash(bob)
	bob = bobs.born()
	result := bob.done(id)
	bob.check(result, file)
	if err := bob.room.HandedOver(result.Delivery); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the receipt", func() bool {
		left, err := filepath.Glob(filepath.Join(bobs.dir, "*", transfer.ReceiptName))
		return err == nil && len(left) == 1
	})
	w.crash(bob)
	bob = bobs.born()
	ann = anns.born()
	ann.resumed()
	if _, err := ann.room.Continue(id, []room.OutFile{outFile("a.bin", file)}, false); err != nil && fault.Of(err) != fault.UnknownTransfer {
		t.Fatal(err)
	}
	ann.done(id)
	for _, e := range bob.since(0) {
		if o, ok := e.(room.OfferReceived); ok {
			t.Errorf("asked again: %+v", o)
		}
	}
}

// TestRestartAmongEqual: a recipient that restarts while its sender has offered the same files again goes on with what it had, under that name.
func TestRestartAmongEqual(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, l, bob := w.pair()
	file := content(4*mib, 1)
	s := newStepped(t, file)
	id := ann.send(outFile("a.bin", s))
	bob.accept(ann)
	s.raise(2 * mib)
	ann.stored(bob, 2*mib)
	w.crash(bob, ann)
	for range 5 {
		ann.send(outFile("a.bin", s))
	}
	s.raise(4 * mib)
	bob = l.born()
	bob.check(bob.done(id), file)
	ann.done(id)
	eventually(t, "the others' offers", func() bool {
		asked := 0
		for _, e := range bob.since(0) {
			if _, ok := e.(room.OfferReceived); ok {
				asked++
			}
		}
		return asked == 5
	})
}
