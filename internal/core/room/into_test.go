//go:build !js

package room_test

import (
	"os"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/transfer/diskstore"
)

// TestAcceptInto: what goes into a storage of its own leaves nothing in that of the room. A sender who was gone for long is waited for there, too; when the room
// ends otherwise than by leaving it, all that has come is removed, unless it had arrived.
func TestAcceptInto(t *testing.T) {
	t.Parallel()
	empty := func(directory string) bool {
		left, err := os.ReadDir(directory)
		return err == nil && len(left) == 0
	}
	for _, ends := range []bool{false, true} {
		w := newWorld(t, 11, 0)
		clock := newClock()
		ann, second, bob := w.pairAt(clock.Now)

		directory := t.TempDir()
		into, err := diskstore.Open(directory)
		if err != nil {
			t.Fatal(err)
		}
		file := content(2*mib, 1)
		g := newGated(t, file, mib)
		id := ann.send(outFile("a.bin", g))
		wait(bob, "an offer", func(room.OfferReceived) bool { return true })
		if _, err := bob.room.AcceptInto(into, id, nil); err != nil {
			t.Fatal(err)
		}
		ann.stored(bob, mib)
		if empty(directory) || !empty(second.dir) {
			t.Fatal("it is not where it was to be")
		}
		if ends {
			second.born() // the same identity enters from elsewhere
			wait(bob, "to be replaced", func(e room.RoomChanged) bool { return e.Code == fault.Replaced })
			if code := bob.finished(id).Code; code != fault.Cancelled {
				t.Errorf("the delivery ended with %q", code)
			}
			eventually(t, "nothing is left", func() bool { return empty(directory) })
			continue
		}
		w.mu.Lock()
		w.dead[bob.address] = true
		w.taps[bob.id()].cut()
		w.mu.Unlock()
		clock.run(20)
		wait(bob, "the sender to be gone", func(e room.TransferFinished) bool { return e.Result.Code == fault.PeerGone })
		clock.run(1)
		w.mu.Lock()
		delete(w.dead, bob.address)
		w.mu.Unlock()
		bob.room.Nudge()
		g.open()
		result := bob.done(id)
		bob.dir = directory
		bob.check(result, file)
		ann.done(id)
		if !empty(second.dir) {
			t.Error("something is left in the room's storage")
		}
	}
}
