//go:build !js

package room_test

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/transfer"
	"tallow/internal/core/transfer/diskstore"
)

// TestAcceptInto: what goes into a storage of its own leaves nothing in that of the room, and waits for no other. A sender who was gone for long is waited for there,
// too, also where the room remembers nothing; when the room ends otherwise than by leaving it, all that has come is removed, unless it had arrived.
func TestAcceptInto(t *testing.T) {
	t.Parallel()
	empty := func(directory string) bool {
		left, err := os.ReadDir(directory)
		return err == nil && len(left) == 0
	}
	for _, c := range []struct{ remembers, ends bool }{{true, false}, {false, false}, {true, true}} {
		w := newWorld(t, 11, 0)
		clock := newClock()
		ann, second, bob := w.pairAt(clock.Now, func(l *life) { l.forgets = !c.remembers })
		own := bob.dir

		directory := t.TempDir()
		into, err := diskstore.Open(directory)
		if err != nil {
			t.Fatal(err)
		}
		file := content(2*mib, 1)
		g := newGated(t, file, mib)
		id := ann.send(outFile("a.bin", g))
		wait(bob, "an offer", func(room.OfferReceived) bool { return true })
		if _, err := bob.room.AcceptInto(struct{ transfer.Storage }{into}, id, nil); err != nil {
			t.Fatal(err)
		}
		ann.stored(bob, mib)
		if empty(directory) || !empty(own) {
			t.Fatal("it is not where it was to be")
		}
		if c.ends {
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
		if !empty(own) {
			t.Error("something is left in the room's storage")
		}
		bob.room.Leave(t.Context())
		if empty(directory) {
			t.Error("what had arrived is gone with the room")
		}
	}
}

// TestAcceptIntoSlowly: a storage that takes nothing for now keeps no other delivery waiting.
func TestAcceptIntoSlowly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, _, bob := w.pair()
	directory := t.TempDir()
	into, err := diskstore.Open(directory)
	if err != nil {
		t.Fatal(err)
	}
	slow := &slowStorage{Storage: into, gate: make(chan struct{})}
	release := sync.OnceFunc(func() { close(slow.gate) })
	t.Cleanup(release)
	first, second := content(8*mib, 1), content(8*mib, 2)
	id := ann.send(outFile("a.bin", first))
	wait(bob, "an offer", func(room.OfferReceived) bool { return true })
	if _, err := bob.room.AcceptInto(slow, id, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all of it that comes is to be written", func() bool { return slow.waiting.Load() >= 8 })

	mark := bob.mark()
	other := ann.send(outFile("b.bin", second))
	waitAfter(bob, mark, "an offer", func(room.OfferReceived) bool { return true })
	if _, err := bob.room.Accept(other, nil); err != nil {
		t.Fatal(err)
	}
	bob.check(bob.done(other), second)

	release()
	result := bob.done(id)
	bob.dir = directory
	bob.check(result, first)
}

// slowStorage writes nothing before the gate is open.
type slowStorage struct {
	transfer.Storage
	gate    chan struct{}
	waiting atomic.Int32
}

type slowFile struct {
	transfer.StoredFile
	*slowStorage
}

func (s *slowStorage) Create(ctx context.Context, delivery, name string, size int64) (transfer.StoredFile, error) {
	f, err := s.Storage.Create(ctx, delivery, name, size)
	return slowFile{f, s}, err
}

func (f slowFile) WriteAt(p []byte, off int64) (int, error) {
	f.waiting.Add(1)
	<-f.gate
	return f.StoredFile.WriteAt(p, off)
}
