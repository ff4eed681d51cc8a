//go:build !js

package room_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/transport/v5/vnet"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/wire"
)

func (p *person) figures(of *person) room.PeerStats {
	p.t.Helper()
	s, err := p.room.Stats(p.t.Context(), of.id())
	if err != nil {
		p.t.Fatalf("%s asks for the figures of %s: %v", p.name, of.name, err)
	}
	return s
}

// TestStats: what went over the wire, what of it was payload, and what was sent again after a link was lost.
func TestStats(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cem")
	ann, bob, cem := all[0], all[1], all[2]
	file := content(4*mib, 1)
	chunks := uint64(4 * mib / (256 << 10))

	id, gate := ann.halfway(file, bob)
	if s := ann.figures(bob); s.Uptime <= 0 {
		t.Errorf("halfway: %+v", s)
	}
	before, _ := ann.figures(bob), bob.figures(ann) // what is not read before a link is lost is lost as well
	mark := ann.mark()
	ann.cutLinks()
	for _, p := range []*person{bob, cem} {
		waitAfter(ann, mark, "the loss of "+p.name, func(e room.PeerChanged) bool { return e.Peer.ID == p.room.Self().ID && e.Peer.State != room.PeerOpen })
		waitAfter(ann, mark, p.name+" again", func(e room.PeerChanged) bool {
			return e.Peer.ID == p.room.Self().ID && e.Peer.State == room.PeerOpen && e.Peer.RTT > 0
		})
	}
	gate.open()
	bob.check(bob.finished(id), file)
	if err := ann.room.CancelDelivery(id, cem.id()); err != nil { // who has never answered
		t.Fatal(err)
	}
	ann.finished(id)

	sent, received := ann.figures(bob), bob.figures(ann)
	t.Logf("sent %+v", sent)
	t.Logf("received %+v", received)
	for name, wrong := range map[string]bool{
		"payload sent":     sent.PayloadSent < 4*mib || sent.PayloadSent != sent.ChunksSent*(256<<10),
		"chunks sent":      sent.ChunksSent < chunks || sent.ChunksSent-sent.ChunksResent > chunks,
		"payload received": received.PayloadReceived != 4*mib || received.PayloadSent != 0,
		"chunks verified":  received.ChunksVerified != chunks || sent.ChunksVerified != 0,
		"bytes":            sent.BytesSent < 4*mib || received.BytesReceived < 4*mib || sent.BytesSent < before.BytesSent,
		"packets":          sent.PacketsSent < 4*mib/1500 || received.PacketsReceived < 4*mib/1500 || sent.PacketsReceived <= 0,
		"mean rate":        sent.MeanSendRate <= 0 || received.MeanReceiveRate < received.MeanSendRate,
		"route":            sent.Route != "direct" || sent.Protocol != "udp",
		"round trip":       sent.RTT <= 0 || sent.CurrentRTT <= 0,
		"reconnects":       sent.Reconnects < 1 || received.Reconnects < 1,
		"uptime":           sent.Uptime <= 0,
		"state":            sent.State != room.PeerOpen || sent.Peer != bob.room.Self().ID,
	} {
		if wrong {
			t.Errorf("%s: sent %+v, received %+v", name, sent, received)
		}
	}
	if both, err := ann.room.AllStats(t.Context()); err != nil || len(both) != 2 || both[0].Peer == both[1].Peer {
		t.Errorf("all: %+v, %v", both, err)
	}
	if _, err := ann.room.Stats(t.Context(), ann.id()); fault.Of(err) != fault.UnknownPeer {
		t.Errorf("of oneself: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ann.room.Stats(gone, bob.id()); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	ann.room.Leave(t.Context())
	if _, err := ann.room.AllStats(t.Context()); fault.Of(err) != fault.RoomClosed {
		t.Errorf("after the end: %v", err)
	}
}

// TestReconnectsCounted: the first link is no reconnection, and the one after it is one. Time stands, as a busy machine could doubt a link.
func TestReconnectsCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock := newClock()
	clock.run(0)
	still := func(c *room.Config) { c.Now = clock.Now }
	ann := w.create("Ann", still)
	bob := w.joinWith("Bob", ann.room.Link(), still)
	meetAll(ann, bob)
	counted := func(want int) {
		t.Helper()
		for _, pair := range [][2]*person{{ann, bob}, {bob, ann}} {
			if s := pair[0].figures(pair[1]); s.Reconnects != want || s.State != room.PeerOpen {
				t.Errorf("%s, want %d reconnections: %+v", pair[0].name, want, s)
			}
		}
	}
	counted(0)
	marks := map[*person]int{ann: ann.mark(), bob: bob.mark()}
	becomes := func(what string, open bool) {
		t.Helper()
		for p := range marks {
			waitAfter(p, marks[p], what, func(e room.PeerChanged) bool { return (e.Peer.State == room.PeerOpen) == open })
			marks[p] = p.mark()
		}
	}
	ann.cutLinks()
	becomes("the loss", false)
	clock.skip(2 * time.Second) // until another attempt
	becomes("another link", true)
	counted(1)
}

// TestRestartsCounted: a restart counts as a reconnection for whoever took the path for lost, and not for one that has missed nothing. Whose time
// stands has no doubts.
func TestRestartsCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 0)
	ann, bob := &restarting{clock: newClock(), freeze: new(sync.Once)}, &restarting{clock: newClock()}
	ann.person = w.create("Ann", ann.config)
	bob.person = w.joinWith("Bob", ann.room.Link(), bob.config)
	meetAll(ann.person, bob.person)
	bob.clock.run(0)
	block := func(blocked bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dead[bob.address] = blocked
	}
	block(true)
	ann.clock.run(2)
	eventually(t, "both have restarted", func() bool {
		a, _ := ann.counts()
		b, _ := bob.counts()
		return a > 0 && b > 0
	})
	block(false)
	eventually(t, "Ann counts it", func() bool { return ann.figures(bob.person).Reconnects > 0 })
	if a, b := ann.figures(bob.person).Reconnects, bob.figures(ann.person).Reconnects; a != 1 || b != 0 {
		t.Errorf("Ann counts %d reconnections, Bob %d", a, b)
	}
}

// far lets the packets to a person take longer.
func (w *world) far(change *atomic.Pointer[vnet.DelayFilter]) func(vnet.NIC) vnet.NIC {
	return func(nic vnet.NIC) vnet.NIC {
		filter, err := vnet.NewDelayFilter(nic)
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() {
			// A router that has something for a filter that is closed waits for ever.
			w.mu.Lock()
			w.over = true
			w.mu.Unlock()
			time.Sleep(100 * time.Millisecond) // what it had let through by then has arrived
			filter.Close()
		})
		change.Store(filter)
		return filter
	}
}

// TestQualityFollowsThePath: over a path of 210 ms it becomes fair, over one of 400 ms poor, and good again.
func TestQualityFollowsThePath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	const rate = 2 // of their clock
	c := newClock()
	c.run(rate)
	fast := func(cfg *room.Config) { cfg.Now = c.Now }
	var path atomic.Pointer[vnet.DelayFilter]
	ann := w.create("Ann", fast)
	w.nic = w.far(&path)
	bob := w.joinWith("Bob", ann.room.Link(), fast)
	meetAll(ann, bob)
	marks := map[*person]int{}
	becomes := func(q ...room.PeerQuality) {
		t.Helper()
		for _, p := range []*person{ann, bob} {
			waitAfter(p, marks[p], string(q[0]), func(e room.PeerChanged) bool {
				return e.Peer.State == room.PeerOpen && slices.Contains(q, e.Peer.Quality)
			})
			marks[p] = p.mark()
		}
	}
	becomes(room.QualityExcellent, room.QualityGood)
	path.Load().SetDelay(210 * time.Millisecond / rate)
	becomes(room.QualityFair)
	if s := ann.figures(bob); s.CurrentRTT < 210 {
		t.Errorf("a round trip of %v ms over a path of 210", s.CurrentRTT)
	}
	path.Load().SetDelay(400 * time.Millisecond / rate)
	becomes(room.QualityPoor)
	path.Load().SetDelay(0)
	becomes(room.QualityExcellent, room.QualityGood)
}

// TestQualityOfAnotherPath: once the connection may have another path the first round trip says how well it works, with no regard to former ones.
func TestQualityOfAnotherPath(t *testing.T) {
	t.Parallel()
	type change struct {
		restart, unseen bool                  // before that, and before she has looked at her path for the first time
		then            func(ann *movedConns) // tells her that it is another one
		late            bool                  // she has to look
	}
	for name, change := range map[string]change{
		"it says that it works again":                                             {then: func(ann *movedConns) { ann.states(peer.ConnConnected) }},
		"it goes over a relay now":                                                {then: func(ann *movedConns) { ann.relayed.Store(true) }, late: true},
		"another pair, long after a restart that has changed no state":            {restart: true, then: func(ann *movedConns) { ann.pair.Store(2) }, late: true},
		"another pair, long after a restart of a path that was not looked at yet": {restart: true, unseen: true, then: func(ann *movedConns) { ann.pair.Store(2) }, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			const rate = 2 // of their clock
			c := newClock()
			c.run(rate)
			var path atomic.Pointer[vnet.DelayFilter]
			var anns, bobs movedConns
			anns.unseen.Store(change.unseen)
			ann := w.create("Ann", func(cfg *room.Config) { cfg.Now = c.Now; anns.of(cfg) })
			w.nic = w.far(&path)
			bob := w.joinWith("Bob", ann.room.Link(), func(cfg *room.Config) { cfg.Now = c.Now; bobs.of(cfg) })
			meetAll(ann, bob)
			known := func() bool { s := ann.figures(bob); return s.RTT > 0 && (s.Route != "") != anns.unseen.Load() }
			eventually(t, "the route is known", known)
			if change.restart {
				anns.silent.Store(true)
				var told time.Time
				eventually(t, "there has been a restart", func() bool {
					if time.Since(told) > time.Second { // what comes from Ann meanwhile takes the doubt away, as the path is there
						told = time.Now()
						bobs.states(peer.ConnFailed)
					}
					return bob.figures(ann).Reconnects > 0
				})
				anns.unseen.Store(false)
				eventually(t, "the route is known again", known)
				time.Sleep(time.Second) // for the probe that follows it to be over
			}
			path.Load().SetDelay(400 * time.Millisecond / rate)
			mark := ann.mark()
			change.then(&anns)
			var smoothed float64 // from what comes before Ann has looked
			e := waitAfter(ann, mark, "a round trip of the new path", func(e room.PeerChanged) bool {
				if e.Peer.Quality == room.QualityDisconnected || e.Peer.RTT == 0 {
					t.Errorf("%+v meanwhile", e.Peer)
				}
				if e.Peer.RTT < 400 {
					smoothed = e.Peer.RTT
				}
				return e.Peer.RTT >= 400
			})
			if smoothed > 50 && !change.late || smoothed > 350 || e.Peer.Quality != room.QualityPoor {
				t.Errorf("%s, %v ms after %v, of a path of 400", e.Peer.Quality, e.Peer.RTT, smoothed)
			}
		})
	}
}

// movedConns are a person's connections, whose path changes when the test says so.
type movedConns struct {
	mu      sync.Mutex
	told    []func(peer.ConnState)
	silent  atomic.Bool // they tell of no change of their state
	unseen  atomic.Bool // nor has anybody statistics of them
	relayed atomic.Bool
	pair    atomic.Uint64
}

// of has somebody's connections be these.
func (m *movedConns) of(cfg *room.Config) {
	m.pair.Store(1)
	newConn := cfg.NewConn
	cfg.NewConn = func(given peer.ConnConfig) (peer.Conn, error) {
		state := given.State
		given.State = func(s peer.ConnState) {
			if !m.silent.Load() {
				state(s)
			}
		}
		m.mu.Lock()
		m.told = append(m.told, given.State)
		m.mu.Unlock()
		conn, err := newConn(given)
		return &movedConn{conn, m}, err
	}
}

// states has all of them tell of a state.
func (m *movedConns) states(s peer.ConnState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, tell := range m.told {
		tell(s)
	}
}

type movedConn struct {
	peer.Conn
	all *movedConns
}

func (c *movedConn) Stats(ctx context.Context) (peer.ConnStats, error) {
	s, err := c.Conn.Stats(ctx)
	if c.all.unseen.Load() {
		return peer.ConnStats{}, errors.New("no statistics")
	}
	s.Pair = c.all.pair.Load()
	if c.all.relayed.Load() {
		s.RemoteType = "relay"
	}
	return s, err
}

// TestQualityOfSilence: whom nothing comes from any more is shown as disconnected while the link is still open, and no longer once
// something comes.
func TestQualityOfSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	mark := ann.mark()
	w.mu.Lock()
	w.dead[bob.address] = true
	w.mu.Unlock()
	e := waitAfter(ann, mark, "silence", func(e room.PeerChanged) bool { return e.Peer.Quality == room.QualityDisconnected })
	if e.Peer.State != room.PeerOpen {
		t.Fatalf("the link ended before anybody noticed: %+v", e.Peer)
	}
	mark = ann.mark()
	w.mu.Lock()
	delete(w.dead, bob.address)
	w.mu.Unlock()
	waitAfter(ann, mark, "a sign of life", func(e room.PeerChanged) bool {
		return e.Peer.State == room.PeerOpen && e.Peer.Quality != room.QualityDisconnected
	})
}

// TestQualityOfDeafness: the same where packets still pass, so that only time tells: within 10 s, also where it passes but once a second, as in a
// hidden tab.
func TestQualityOfDeafness(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock, deaf := newClock(), make(chan struct{})
	ann := w.create("Ann", func(c *room.Config) {
		c.Now = clock.Now
		newConn := c.NewConn
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			conn, err := newConn(cfg)
			return &deafConn{conn, deaf}, err
		}
	})
	bob := w.join("Bob", ann.room.Link())
	meetAll(ann, bob)
	// The first look at what the transport has received, which tells the route, takes the bytes that made the connection for a sign of life.
	wait(ann, "an answer to a Ping, and the first look", func(e room.PeerChanged) bool { return e.Peer.RTT > 0 && e.Peer.Route != "" })
	ann.figures(bob) // it is over
	clock.run(0)
	w.mu.Lock()
	w.fromHub = func(wire.ID, []byte) [][]byte { return nil } // nor is a restart agreed upon, which would show that he is there
	w.mu.Unlock()
	close(deaf)
	for began := clock.Now(); ; {
		clock.skip(time.Second)
		s, passed := ann.figures(bob), clock.Now().Sub(began)
		if s.State != room.PeerOpen {
			t.Fatalf("the link ended before anybody noticed: %+v", s)
		}
		if s.Quality == room.QualityDisconnected {
			t.Logf("noticed after %v", passed)
			return
		}
		if passed >= 10*time.Second {
			t.Fatalf("not noticed after %v: %+v", passed, s)
		}
	}
}

// TestQualityOfLoss: a path that loses much is worse than its round trip.
func TestQualityOfLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 20)
	ann := w.create("Ann", func(c *room.Config) { // whatever the round trip is, it is excellent
		c.Quality = peer.QualityThresholds{Excellent: time.Hour, Good: 2 * time.Hour, Fair: 3 * time.Hour}
	})
	bob := w.join("Bob", ann.room.Link())
	var s room.PeerStats
	for mark := 0; s.Loss < 0.15 || s.Quality != room.QualityFair; s = ann.figures(bob) {
		waitAfter(ann, mark, "loss to show", func(e room.PeerChanged) bool { return e.Peer.RTT > 0 })
		mark = ann.mark()
	}
	t.Logf("%+v", s)
}

// TestQualityThresholds: what is excellent is the application's to say.
func TestQualityThresholds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	strict := func(c *room.Config) { c.Quality = peer.QualityThresholds{Excellent: 1, Good: 2, Fair: 3} }
	ann := w.create("Ann", strict)
	bob := w.join("Bob", ann.room.Link())
	wait(ann, "strict words", func(e room.PeerChanged) bool { return e.Peer.Quality == room.QualityPoor })
	wait(bob, "kind words", func(e room.PeerChanged) bool { return e.Peer.RTT > 0 && e.Peer.Quality != room.QualityDisconnected })
	_, cfg := w.person("Eve")
	cfg.Quality = peer.QualityThresholds{Excellent: 3, Good: 2, Fair: 1}
	if _, err := room.Create(t.Context(), cfg); fault.Of(err) != fault.InvalidArgument {
		t.Errorf("thresholds upside down: %v", err)
	}
}
