//go:build !js

package room_test

import (
	"testing"
	"time"

	"tallow/internal/core/room"
	"tallow/internal/core/wire"
)

// TestRoomLimit: a limit on all that a member sends is shared equally by its deliveries, whatever transfers they are of; it can be changed
// under way. The clock stands still but for what the test adds, so what has gone out says exactly what the limit let through.
func TestRoomLimit(t *testing.T) {
	t.Parallel()
	const limit, chunkSize = 1_000_000, wire.MinChunkSize
	w := newWorld(t, 8, 0)
	clock := newClock()
	timed := func(c *room.Config) { c.Now = clock.Now }
	ann := w.create("Ann", timed)
	ben, cleo := w.joinWith("Ben", ann.room.Link(), timed), w.joinWith("Cleo", ann.room.Link(), timed)
	meetAll(ann, ben, cleo)
	clock.run(0)
	if err := ann.room.SetRoomLimit(limit); err != nil {
		t.Fatal(err)
	}
	a, b := content(6*mib, 1), content(6*mib, 2)
	offer := func(file source, to ...*person) room.TransferID {
		options := room.SendOptions{ChunkSize: chunkSize}
		for _, p := range to {
			options.To = append(options.To, p.id())
		}
		snapshot, err := ann.room.Send([]room.OutFile{outFile("a.bin", file)}, options)
		if err != nil {
			t.Fatal(err)
		}
		id := transferID(t, ann.room.Self().ID, snapshot.ID)
		for _, p := range to {
			offered := wait(p, "the offer", func(e room.OfferReceived) bool { return e.Offer.ID == snapshot.ID })
			if _, err := p.room.Accept(transferID(t, offered.Offer.From, offered.Offer.ID), nil); err != nil {
				t.Fatal(err)
			}
		}
		return id
	}
	first, second := offer(a, ben, cleo), offer(b, ben)

	// sent is what both have received, in all;
	sent := func() int64 { return ben.bulk.Load() + cleo.bulk.Load() }
	passed, let := time.Duration(0), 0.0
	pass := func(rate float64, d time.Duration) {
		t.Helper()
		for range d / (100 * time.Millisecond) {
			clock.skip(100 * time.Millisecond)
			passed += 100 * time.Millisecond
			let += rate / 10
			for deadline := time.Now().Add(patience); float64(sent()) < let-2*chunkSize; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d bytes in %v, %.0f may go", sent(), passed, let)
				}
			}
			if n := float64(sent()); n > 1.03*let+4*chunkSize { // a hundredth is heads and hashes
				t.Fatalf("%.0f bytes in %v, %.0f may go", n, passed, let)
			}
		}
	}
	pass(limit, 3*time.Second)
	if err := ann.room.SetRoomLimit(3 * limit); err != nil {
		t.Fatal(err)
	}
	pass(3*limit, 2*time.Second)
	// Who rests saves up a moment's worth, not what the time would have let through.
	pause := func(paused bool) {
		t.Helper()
		for _, id := range []room.TransferID{first, second} {
			if err := ann.room.SetPaused(id, paused); err != nil {
				t.Fatal(err)
			}
		}
	}
	pause(true)
	// What is under way is there before time goes on: a peer that reports it after that waits for the sender's next second, and there is none.
	for before := int64(-1); before != sent(); {
		before = sent()
		time.Sleep(1500 * time.Millisecond) // a lost packet comes again after a second
	}
	clock.skip(10 * time.Second)
	pause(false)
	let += 3 * limit / 4
	pass(3*limit, 500*time.Millisecond)
	if n := cleo.bulk.Load(); float64(n) < let/3-8*chunkSize || float64(n) > let/3*1.03+8*chunkSize {
		t.Errorf("one of three deliveries has had %d of %.0f bytes", n, let)
	}
	if err := ann.room.SetRoomLimit(0); err != nil {
		t.Fatal(err)
	}
	for id, file := range map[room.TransferID]source{first: a, second: b} {
		if result := ann.finished(id); len(result.Ledger) == 0 || result.Ledger[0].State != room.DeliveryDone {
			t.Errorf("%+v", result.Ledger)
		}
		ben.check(ben.finished(id), file)
	}
	cleo.check(cleo.finished(first), a)
}

// TestTransferLimits: a transfer's own limits are those that it is sent with, and can be lifted under way. No time passes at the sender until then, so
// what has a limit stands still after its first chunks, however much goes out beside it.
func TestTransferLimits(t *testing.T) {
	t.Parallel()
	const limit, chunkSize, size = 1000, wire.MinChunkSize, 4 * mib
	for name, c := range map[string]struct {
		options room.SendOptions
		lift    func(*room.Room, room.TransferID, int64) error
	}{
		"per recipient": {room.SendOptions{ChunkSize: chunkSize, LimitPerRecipient: limit}, (*room.Room).SetLimit},
		"total":         {room.SendOptions{ChunkSize: chunkSize, Limit: limit}, (*room.Room).SetTotalLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 8, 0)
			clock := newClock()
			ann := w.create("Ann", func(cfg *room.Config) { cfg.Now = clock.Now })
			ben, cleo := w.join("Ben", ann.room.Link()), w.join("Cleo", ann.room.Link())
			meetAll(ann, ben, cleo)
			clock.run(0)
			recipients := []*person{ben, cleo}
			file := content(size, 1)
			offer := func(options room.SendOptions) room.TransferID {
				snapshot, err := ann.room.Send([]room.OutFile{outFile("a.bin", file)}, options)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range recipients {
					offered := wait(p, "the offer", func(e room.OfferReceived) bool { return e.Offer.ID == snapshot.ID })
					if _, err := p.room.Accept(transferID(t, offered.Offer.From, offered.Offer.ID), nil); err != nil {
						t.Fatal(err)
					}
				}
				return transferID(t, ann.room.Self().ID, snapshot.ID)
			}
			held := offer(c.options)
			for range 2 {
				free := offer(room.SendOptions{ChunkSize: chunkSize})
				for _, p := range recipients {
					p.finished(free)
				}
			}
			if n := float64(ben.bulk.Load() + cleo.bulk.Load()); n > 1.03*4*size+6*chunkSize { // a hundredth is heads and hashes
				t.Errorf("%.0f bytes, where two deliveries to each are %d", n, 4*size)
			}
			clock.run(1)
			if err := c.lift(ann.room, held, 0); err != nil {
				t.Fatal(err)
			}
			for _, p := range recipients {
				p.check(p.finished(held), file)
			}
			ann.finished(held)
		})
	}
}
