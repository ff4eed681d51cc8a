//go:build !js

package room_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/transport/v5/vnet"

	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/wire"
)

// TestPathChanged: what was learnt of a path does not count once the platform says that the connection works again, perhaps over another. The length
// of the sender's messages tells what it knows; whatever the machine, each takes its clock 50 ms, as on a slow path.
func TestPathChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 0)
	clock := newClock()
	messages := longest{clock: clock}
	var states []func(peer.ConnState)
	ann := w.create("Ann", func(c *room.Config) {
		c.Now = clock.Now
		newConn := c.NewConn
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			states = append(states, cfg.State)
			conn, err := newConn(cfg)
			return &pacedConn{conn, &messages}, err
		}
	})
	bob := w.join("Bob", ann.room.Link())
	meetAll(ann, bob)
	clock.run(0)
	send := func(n int) int64 {
		messages.Store(0)
		id := ann.send(outFile("a.bin", content(n, 1)))
		e := wait(bob, "the offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
		if _, err := bob.room.Accept(transferID(t, e.Offer.From, e.Offer.ID), nil); err != nil {
			t.Fatal(err)
		}
		bob.finished(id)
		return messages.Load()
	}
	send(400 << 10) // to learn
	before := send(60 << 10)
	for _, state := range states {
		state(peer.ConnConnected)
	}
	if after := send(60 << 10); after <= before {
		t.Errorf("messages of up to %d bytes over a path that nothing is known of, %d before", after, before)
	}
}

// longest is the length of the longest message that was let out. Each takes the clock a while.
type longest struct {
	atomic.Int64
	clock *clock
}

type pacedConn struct {
	peer.Conn
	messages *longest
}

func (c *pacedConn) Channel(ch wire.Channel) peer.Channel {
	if ch == wire.Bulk {
		return &pacedChannel{c.Conn.Channel(ch), c.messages}
	}
	return c.Conn.Channel(ch)
}

type pacedChannel struct {
	peer.Channel
	messages *longest
}

func (c *pacedChannel) Pace(p peer.Pacing) { c.Channel.Pace(&measuredPacing{p, c.messages}) }

type measuredPacing struct {
	peer.Pacing
	messages *longest
}

func (p *measuredPacing) Next(ctx context.Context, n int) (int, error) {
	p.messages.clock.skip(50 * time.Millisecond)
	n, err := p.Pacing.Next(ctx, n)
	p.messages.Store(max(p.messages.Load(), int64(n)))
	return n, err
}

// TestLongPath: on a path on which an answer takes longer than the next Ping waits, answers are taken all the same, and nobody takes the link
// for silent.
func TestLongPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 0)
	const rtt = 2500 * time.Millisecond
	var path atomic.Pointer[vnet.DelayFilter]
	ann := w.create("Ann", nil)
	w.nic = w.far(&path)
	bob := w.join("Bob", ann.room.Link())
	meetAll(ann, bob)
	marks := []int{ann.mark(), bob.mark()}
	path.Load().SetDelay(rtt)
	for i, p := range []*person{ann, bob} {
		o := []*person{bob, ann}[i]
		eventually(t, "the round trip is known", func() bool { return p.figures(o).CurrentRTT >= float64(rtt.Milliseconds()) })
		for _, e := range p.since(marks[i]) {
			if e, ok := e.(room.PeerChanged); ok && (e.Peer.State != room.PeerOpen || e.Peer.Quality == room.QualityDisconnected) {
				t.Errorf("%s: %+v", p.name, e.Peer)
			}
		}
	}
}
