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

// TestLateTick: what has passed before a Ping is no silence after it, however late the tick that sends it comes. The link that nobody uses is not
// doubted: ICE is not restarted.
func TestLateTick(t *testing.T) {
	for name, wakes := range map[string]bool{"late": false, "late, and the browser says so": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 0)
			ann, bob := &restarting{clock: newClock()}, &restarting{clock: newClock()}
			ann.person = w.create("Ann", ann.config)
			bob.person = w.joinWith("Bob", ann.room.Link(), bob.config)
			meetAll(ann.person, bob.person)
			for _, m := range []*restarting{ann, bob, ann, bob} { // whoever of them makes the restarts
				mark := m.mark()
				answered := func() {
					waitAfter(m.person, mark, "an answer", func(e room.PeerChanged) bool { return e.Peer.RTT > 0 })
					mark = m.mark()
				}
				answered() // the next Ping is not out yet
				m.clock.skip(3 * time.Second)
				if wakes {
					m.room.Nudge()
				}
				answered()
				answered()
			}
			for _, pair := range [][2]*restarting{{ann, bob}, {bob, ann}} {
				m, o := pair[0], pair[1]
				if made, connected := m.counts(); made != 0 || connected != 1 {
					t.Errorf("%s: %d restarts, %d connections", m.name, made, connected)
				}
				if s := m.figures(o.person); s.Reconnects != 0 || s.State != room.PeerOpen {
					t.Errorf("%s: %+v", m.name, s)
				}
			}
		})
	}
}
