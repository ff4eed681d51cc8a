//go:build !js

package room_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"tallow/internal/core/room"
	"tallow/internal/heap"
	"tallow/internal/raced"
)

// TestRoomCycles: 200 members join, one after the other, get a file and leave. The owner's room, which stays, is left with nothing of any of them:
// no goroutine, no memory.
func TestRoomCycles(t *testing.T) {
	members := 200
	if raced.Enabled {
		members = 50
	}
	const perMember = 2 << 10 // bytes of the heap that may be left: what rooms, hub and test remember of each is less
	w := newWorld(t, 140, 0)  // the hub lets in two members for each place from one address
	ann := w.create("Ann", nil)
	bob, cfg := w.person("Bob") // a virtual network never gives an address back
	cycle := func() {
		if err := bob.join(ann.room.Link(), cfg); err != nil {
			t.Fatal(err)
		}
		meetAll(ann, bob)
		id := ann.send(outFile("a.bin", content(1000, 1)))
		bob.accept(ann)
		bob.finished(id)
		ann.finished(id)
		left := bob.room.Self().ID
		bob.room.Leave(context.Background())
		wait(ann, "the goodbye", func(e room.PeerLeft) bool { return e.Peer.ID == left })
		for _, p := range []*person{ann, bob} { // forget it
			p.mu.Lock()
			p.conns, p.events = nil, nil
			p.mu.Unlock()
		}
	}
	for range 70 { // what the runtime and the libraries start and keep once is no leak, nor are the last transfers that a room remembers
		cycle()
	}
	before, memory := goleak.IgnoreCurrent(), heap.InUse()
	for range members {
		cycle()
	}
	goleak.VerifyNone(t, before)
	grown := heap.InUse() - memory
	t.Logf("%d bytes of heap for each member", grown/int64(members))
	if grown > int64(members)*perMember {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}
