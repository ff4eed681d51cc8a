//go:build !js

package room_test

import (
	"bytes"
	"testing"

	"github.com/pion/transport/v5/vnet"

	"tallow/internal/core/bulk"
	"tallow/internal/core/bulk/bulktest"
	"tallow/internal/core/room"
	"tallow/internal/core/wire"
)

// plainEngine is an engine without compression, as in a browser without such streams.
func plainEngine(c *room.Config) { c.Engine = struct{ bulk.Engine }{bulk.Go{}} }

// slow is a downlink on which a chunk takes two seconds, so that compressing one pays however busy the processor is.
func slow(t *testing.T) func(vnet.NIC) vnet.NIC {
	return func(nic vnet.NIC) vnet.NIC {
		q, err := vnet.NewQueue(nic, vnet.NewTBFQueue(1e6, 3000, 64*mib))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = q.Close() })
		return q
	}
}

// TestCompressedDelivery: what compressing leaves hardly anything of takes a fraction of the bytes, if sender and recipient can and nobody has
// switched it off; random data takes what it always did; and all of it arrives.
func TestCompressedDelivery(t *testing.T) {
	t.Parallel()
	easy, random := source(bytes.Repeat([]byte("0123456789abcdef"), 3*mib/16)), content(mib/4, 1)
	for _, test := range []struct {
		name             string
		sender, receiver func(*room.Config)
		plain            bool
		packed           bool
	}{
		{"both can", nil, nil, false, true},
		{"the sender cannot", plainEngine, nil, false, false},
		{"the recipient cannot", nil, plainEngine, false, false},
		{"switched off", nil, nil, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 10, 0)
			ann := w.create("Ann", test.sender)
			if test.packed {
				w.nic = slow(t)
			}
			bob := w.joinWith("Bob", ann.room.Link(), test.receiver)
			meetAll(ann, bob)
			before := bob.bulk.Load()
			snapshot, err := ann.room.Send([]room.OutFile{outFile("easy.txt", easy), outFile("random.bin", random)}, room.SendOptions{Plain: test.plain})
			if err != nil {
				t.Fatal(err)
			}
			id, _ := bob.accept(ann)
			if id.Transfer.String() != snapshot.ID {
				t.Fatal("another transfer")
			}
			bob.check(bob.finished(id), easy, random)
			came := bob.bulk.Load() - before
			if total := int64(len(easy) + len(random)); test.packed && came > total*3/4 || !test.packed && came < total {
				t.Errorf("%d bytes came for %d", came, total)
			}
			stats, err := ann.room.AllStats(t.Context())
			if err != nil || len(stats) != 1 || stats[0].PayloadSent != uint64(len(easy)+len(random)) {
				t.Errorf("stats: %+v, %v", stats, err)
			}
		})
	}
}

// TestCompressionNotAgreed: a member that has not said that it takes compressed chunks cuts off who sends one.
func TestCompressionNotAgreed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10, 0)
	ann := w.create("Ann", plainEngine)
	g := w.another("Eve", ann.room.Link(), ann)
	if c := g.room.LinkTo(ann.id()).PeerCapabilities(); c != 0 {
		t.Fatalf("capabilities %#x", c)
	}
	mark := ann.mark()
	f := g.forge(ann, []string{"b.bin"}, bulktest.Text(2*wire.MinChunkSize))
	g.present(ann, f)
	g.tell(ann, f.hashes(0), f.packed(0, 0, nil))
	ann.cut(mark, g)
	if len(ann.onDisk()) > 0 {
		t.Error("something was written")
	}
}
