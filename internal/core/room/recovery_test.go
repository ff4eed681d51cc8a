//go:build !js

package room_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// restarting is a member whose ICE restarts are counted, and perhaps changed on their way out.
type restarting struct {
	*person
	clock  *clock
	change func(sdp string) string // nil: as they are
	freeze *sync.Once              // from the first restart on, no time passes: whatever mends the link is that restart

	mu              sync.Mutex
	made, connected int           // restarts, and connections
	broken          chan struct{} // unless nil, the next restart breaks the connection and closes it
}

func (m *restarting) config(cfg *room.Config) {
	cfg.Now = m.clock.Now
	next := cfg.NewConn
	cfg.NewConn = func(c peer.ConnConfig) (peer.Conn, error) {
		m.mu.Lock()
		m.connected++
		m.mu.Unlock()
		conn, err := next(c)
		return &restartingConn{Conn: conn, m: m}, err
	}
}

func (m *restarting) counts() (made, connected int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made, m.connected
}

type restartingConn struct {
	peer.Conn
	m        *restarting
	answered bool
}

func (c *restartingConn) Offer(ctx context.Context, restart bool) (string, error) {
	if restart && c.breaks() {
		return "", peer.ErrClosed
	}
	sdp, err := c.Conn.Offer(ctx, restart)
	return c.out(sdp, restart), err
}

func (c *restartingConn) Answer(ctx context.Context, offer string) (string, error) {
	restart := c.answered
	if restart && c.breaks() {
		return "", peer.ErrClosed
	}
	sdp, err := c.Conn.Answer(ctx, offer)
	c.answered = true
	return c.out(sdp, restart), err
}

// breaks has the connection break, if it is to.
func (c *restartingConn) breaks() bool {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if c.m.broken == nil {
		return false
	}
	c.Conn.Close()
	close(c.m.broken)
	c.m.broken = nil
	return true
}

func (c *restartingConn) out(sdp string, restart bool) string {
	if !restart {
		return sdp
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.made++
	if c.m.freeze != nil {
		c.m.freeze.Do(func() { c.m.clock.run(0) })
	}
	if c.m.change != nil {
		sdp = c.m.change(sdp)
	}
	return sdp
}

// restartingPair is a room of two with a clock of its own.
func restartingPair(w *world, change func(*room.Config)) (ann, bob *restarting) {
	w.t.Helper()
	clock := newClock()
	ann, bob = &restarting{clock: clock}, &restarting{clock: clock}
	with := func(m *restarting) func(*room.Config) {
		return func(cfg *room.Config) {
			m.config(cfg)
			if change != nil {
				change(cfg)
			}
		}
	}
	ann.person = w.create("Ann", with(ann))
	p := w.joinWith("Bob", ann.room.Link(), with(bob))
	bob.person = p
	meetAll(ann.person, bob.person)
	return ann, bob
}

// TestRestartMends: a member moves to another place in the network in the middle of a transfer. ICE is restarted, the link and its keys
// stay, and nothing of the file goes twice.
func TestRestartMends(t *testing.T) {
	for name, moves := range map[string]func(ann, bob *restarting) []*person{
		"the sender":    func(ann, _ *restarting) []*person { return []*person{ann.person} },
		"the recipient": func(_, bob *restarting) []*person { return []*person{bob.person} },
		"both":          func(ann, bob *restarting) []*person { return []*person{ann.person, bob.person} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			ann, bob := restartingPair(w, nil)
			file := content(4*mib, 1)
			id, g := ann.halfway(file, bob.person)
			marks := []int{ann.mark(), bob.mark()}
			words := ann.room.Peers()[0].SafetyWords
			freeze := new(sync.Once)
			for _, m := range []*restarting{ann, bob} {
				m.mu.Lock()
				m.freeze = freeze
				m.mu.Unlock()
			}
			for _, p := range moves(ann, bob) {
				w.move(p)
			}
			g.open()
			// From then on time passes ten times slower, so that a slow machine has no fresh connection made beside.
			done := make(chan struct{})
			var thawing sync.WaitGroup
			thawing.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(100 * time.Millisecond):
						ann.clock.skip(10 * time.Millisecond)
					}
				}
			})
			defer thawing.Wait()
			defer close(done)
			bob.check(bob.finished(id), file)
			ann.clock.run(1)
			if e := entry(t, ann.finished(id), bob.person); e.State != room.DeliveryDone {
				t.Errorf("ledger: %+v", e)
			}
			ann.kept(marks[0], bob.person)
			bob.kept(marks[1], ann.person)
			for _, m := range []*restarting{ann, bob} {
				if made, connected := m.counts(); made == 0 || connected != 1 {
					t.Errorf("%s: %d restarts, %d connections", m.name, made, connected)
				}
			}
			// Who was not in doubt yet counts none.
			if a, b := ann.figures(bob.person).Reconnects, bob.figures(ann.person).Reconnects; a > 1 || b > 1 || a+b == 0 {
				t.Errorf("%d and %d reconnections are counted", a, b)
			}
			if n := bob.bulk.Load(); n > int64(len(file))+128<<10 {
				t.Errorf("%d bytes of records for a file of %d", n, len(file))
			}
			if now := ann.room.Peers()[0].SafetyWords; strings.Join(now, " ") != strings.Join(words, " ") {
				t.Error("other keys")
			}
		})
	}
}

// TestEventsMend: a member moves to another place in the network in the middle of a transfer. The rooms' clock stands, since a hidden tab's
// timers come once a minute: what the platform says has the link mended.
func TestEventsMend(t *testing.T) {
	for name, nudged := range map[string]bool{"the connection's state": false, "the browser": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 0)
			ann, bob := restartingPair(w, func(cfg *room.Config) {
				next := cfg.NewConn
				cfg.NewConn = func(c peer.ConnConfig) (peer.Conn, error) {
					if !nudged {
						return next(c)
					}
					c.State = nil // it is the browser alone that speaks
					conn, err := next(c)
					return uncountedConn{conn}, err
				}
			})
			file := content(4*mib, 1)
			id, g := ann.halfway(file, bob.person)
			ann.clock.run(0)
			w.move(bob.person)
			g.open()
			if nudged {
				time.Sleep(2 * time.Second) // in which what had arrived is taken
				// Of the silence after a Ping, a second suffices for a link that the browser's word has had probed, and for no other.
				ann.clock.skip(time.Second)
				bob.room.Nudge()
				bob.room.State() // the loop has taken it
				ann.clock.skip(time.Second)
			}
			bob.check(bob.finished(id), file)
			if e := entry(t, ann.finished(id), bob.person); e.State != room.DeliveryDone {
				t.Errorf("ledger: %+v", e)
			}
			for _, m := range []*restarting{ann, bob} {
				if made, connected := m.counts(); made == 0 || connected != 1 {
					t.Errorf("%s: %d restarts, %d connections", m.name, made, connected)
				}
			}
		})
	}
}

// TestLostIsTold: the platform of one end gives the connection up when ICE is restarted, as Firefox does without an interface, and nothing comes
// over the path. The other end hears of it over the hub, and lets its link go while no time passes in which it would find out by itself.
func TestLostIsTold(t *testing.T) {
	for name, ends := range map[string]func(ann, bob *restarting) (breaks, told *restarting){
		"by the sender":    func(ann, bob *restarting) (breaks, told *restarting) { return ann, bob },
		"by the recipient": func(ann, bob *restarting) (breaks, told *restarting) { return bob, ann },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 2, 0)
			ann, bob := restartingPair(w, nil)
			file := content(4*mib, 1)
			id, g := ann.halfway(file, bob.person)
			broken := make(chan struct{})
			breaks, told := ends(ann, bob)
			breaks.mu.Lock()
			breaks.broken = broken
			breaks.mu.Unlock()
			ann.clock.run(0)
			mark := told.mark()
			w.move(bob.person)
			g.open()
			<-broken
			told.state(mark, breaks.person, room.PeerConnecting)
			ann.clock.run(1)
			bob.check(bob.finished(id), file)
			if e := entry(t, ann.finished(id), bob.person); e.State != room.DeliveryDone {
				t.Errorf("ledger: %+v", e)
			}
		})
	}
}

// uncountedConn has no counters, so that what only the transport has seen is no sign of life.
type uncountedConn struct{ peer.Conn }

func (uncountedConn) Stats(context.Context) (peer.ConnStats, error) {
	return peer.ConnStats{}, errors.New("no counters")
}

// TestRestartWaitsForTheServer: the path and the server are lost together. Once the server is back the transfer goes on.
func TestRestartWaitsForTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, bob := restartingPair(w, nil)
	file := content(4*mib, 1)
	id, g := ann.halfway(file, bob.person)
	w.stopHub()
	w.move(bob.person)
	g.open()
	wait(ann.person, "the loss to be seen", func(e room.PeerChanged) bool {
		return e.Peer.State == room.PeerOpen && e.Peer.Quality == room.QualityDisconnected
	})
	w.startHub()
	for _, m := range []*restarting{ann, bob} {
		m.room.Nudge() // as the browser does
	}
	bob.check(bob.finished(id), file)
	if e := entry(t, ann.finished(id), bob.person); e.State != room.DeliveryDone {
		t.Errorf("ledger: %+v", e)
	}
	for _, e := range bob.since(0) {
		if p, ok := e.(room.TransferProgress); ok && p.Transfer.Deliveries[0].Repeated > 0 {
			t.Fatal("chunks came that were on disk")
		}
	}
}

// TestRestartSuperseded: a restart that never got through is not repeated once the server is back and another one is being made: whoever took it would
// have the fresh one wait.
func TestRestartSuperseded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock := newClock()
	made := &offers{hold: make(chan struct{})}
	config := func(cfg *room.Config) { cfg.Now = clock.Now; made.watch(cfg) }
	ann := w.create("Ann", config)
	bob := w.joinWith("Bob", ann.room.Link(), config)
	meetAll(ann, bob)
	if ann.room.Self().ID > bob.room.Self().ID {
		ann, bob = bob, ann // the one that makes the restarts
	}
	id, mark := ann.id(), ann.mark()
	w.meddle(nil, func(_ wire.ID, message []byte) [][]byte {
		if relay, err := wire.ParseRelay(message, wire.HubSend); err == nil {
			if e, err := wire.ParseEnvelope(relay.Envelope); err == nil && e.Kind != wire.RoomEnvelope {
				return nil
			}
		}
		return [][]byte{message}
	})
	w.move(bob)
	eventually(t, "a restart is made", func() bool { return made.count() == 1 })
	w.mu.Lock()
	w.out[id] = true
	w.taps[id].cut()
	w.mu.Unlock()
	waitAfter(ann, mark, "the loss of the server", func(e room.RoomChanged) bool { return e.State == room.StateDisconnected })
	w.meddle(nil, nil)
	clock.skip(1500 * time.Millisecond) // until another restart may be made
	mark = ann.mark()
	w.mu.Lock()
	w.out[id] = false
	w.mu.Unlock()
	ann.room.Nudge()
	waitAfter(ann, mark, "the server", func(e room.RoomChanged) bool { return e.State == room.StateOpen })
	time.Sleep(2 * time.Second) // in which what is due is repeated
	close(made.hold)
	eventually(t, "a restart is answered", func() bool { return made.answers() > 0 })
	made.mu.Lock()
	defer made.mu.Unlock()
	if made.answered[0] == made.sdp[0] {
		t.Error("the first restart was answered, which the second has superseded")
	}
}

// offers are the offers of a room's restarts, and which of them have been answered. All but the first are held.
type offers struct {
	mu            sync.Mutex
	sdp, answered []string
	hold          chan struct{}
}

func (o *offers) watch(cfg *room.Config) {
	next := cfg.NewConn
	cfg.NewConn = func(c peer.ConnConfig) (peer.Conn, error) {
		conn, err := next(c)
		return &offeringConn{Conn: conn, offers: o}, err
	}
}

func (o *offers) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.sdp)
}

func (o *offers) answers() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.answered)
}

type offeringConn struct {
	peer.Conn
	offers *offers
	opened bool // it has answered what it began with
}

func (c *offeringConn) Offer(ctx context.Context, restart bool) (string, error) {
	sdp, err := c.Conn.Offer(ctx, restart)
	if restart {
		if c.offers.count() > 0 {
			select {
			case <-c.offers.hold:
			case <-ctx.Done():
			}
		}
		c.offers.mu.Lock()
		defer c.offers.mu.Unlock()
		c.offers.sdp = append(c.offers.sdp, sdp)
	}
	return sdp, err
}

func (c *offeringConn) Answer(ctx context.Context, offer string) (string, error) {
	if c.opened {
		c.offers.mu.Lock()
		c.offers.answered = append(c.offers.answered, offer)
		c.offers.mu.Unlock()
	}
	c.opened = true
	return c.Conn.Answer(ctx, offer)
}

// TestBlockedWithoutTheServer: nothing passes for some seconds while the server is away. ICE is not restarted, for want of anybody who would tell the other
// end: pion gives up its path for a restart. The link and the transfer go on over the path that they had.
func TestBlockedWithoutTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, bob := restartingPair(w, nil)
	file := content(4*mib, 1)
	id, g := ann.halfway(file, bob.person)
	marks := []int{ann.mark(), bob.mark()}
	w.stopHub()
	for i, m := range []*restarting{ann, bob} {
		waitAfter(m.person, marks[i], "the loss of the server", func(e room.RoomChanged) bool { return e.State == room.StateDisconnected })
	}
	block := func(blocked bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dead[bob.address] = blocked
	}
	block(true)
	time.Sleep(4 * time.Second) // no event tells of a doubt
	block(false)
	g.open()
	bob.check(bob.finished(id), file)
	if e := entry(t, ann.finished(id), bob.person); e.State != room.DeliveryDone {
		t.Errorf("ledger: %+v", e)
	}
	ann.kept(marks[0], bob.person)
	bob.kept(marks[1], ann.person)
	for _, pair := range [][2]*restarting{{ann, bob}, {bob, ann}} {
		m, o := pair[0], pair[1]
		if made, connected := m.counts(); made != 0 || connected != 1 {
			t.Errorf("%s: %d restarts, %d connections", m.name, made, connected)
		}
		if n := m.figures(o.person).Reconnects; n != 0 {
			t.Errorf("%s counts %d reconnections", m.name, n)
		}
	}
}

// TestRestartRogue: a member whose restart names another certificate is cut off; nothing of the restart is applied.
func TestRestartRogue(t *testing.T) {
	for _, offering := range []bool{true, false} {
		t.Run(map[bool]string{true: "in the offer", false: "in the answer"}[offering], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			ann, bob := restartingPair(w, nil)
			rogue, victim := ann, bob
			if a, b := ann.id(), bob.id(); (string(a[:]) < string(b[:])) != offering {
				rogue, victim = bob, ann
			}
			rogue.mu.Lock()
			rogue.change = func(sdp string) string {
				before, after, found := strings.Cut(sdp, "a=fingerprint:sha-256 ")
				if !found {
					t.Error("no fingerprint")
				}
				digit := "0"
				if after[0] == '0' {
					digit = "1"
				}
				return before + "a=fingerprint:sha-256 " + digit + after[1:]
			}
			rogue.mu.Unlock()
			mark := victim.mark()
			w.move(rogue.person)
			waitAfter(victim.person, mark, "the rogue to be cut off", func(e room.Problem) bool {
				return e.Code == fault.ProtocolViolation && e.Peer == rogue.room.Self().ID
			})
			if made, _ := victim.counts(); offering && made > 0 {
				t.Error("the restart was answered")
			}
		})
	}
}

// TestRestartInVain: a path that is lost for good. The link ends after as many restarts as are wanted, or the time for them where there is no server,
// and so does the search for another one: the member is shown as failed, the delivery fails.
func TestRestartInVain(t *testing.T) {
	for name, server := range map[string]bool{"with the server": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRestartInVain(t, server)
		})
	}
}

func testRestartInVain(t *testing.T, server bool) {
	w := newWorld(t, 11, 0)
	const attempts = 3 // which end after more than the silence by which a link that is not in doubt is lost
	ann, bob := restartingPair(w, func(cfg *room.Config) {
		cfg.ReconnectAttempts = attempts
		cfg.ServerURL += "/?" + cfg.Name
	})
	if ann.room.Self().ID > bob.room.Self().ID {
		ann, bob = bob, ann // the one that makes the restarts is left alone
	}
	file := content(2*mib, 1)
	id, _ := ann.halfway(file, bob.person)
	before, _ := ann.counts()
	mark := ann.mark()
	w.mu.Lock()
	w.dead[bob.name] = true
	w.mu.Unlock()
	w.kill(bob.person) // nobody asks for restarts besides, or seems to be back
	if !server {
		w.stopHub()
		waitAfter(ann.person, mark, "the loss of the server", func(e room.RoomChanged) bool { return e.State == room.StateDisconnected })
	}
	ann.clock.run(4)
	changed := func(what string, match func(room.Peer) bool) {
		waitAfter(ann.person, mark, what, func(e room.PeerChanged) bool { return match(e.Peer) })
	}
	changed("the end of the link", func(p room.Peer) bool { return p.State == room.PeerConnecting })
	want := 0
	if server {
		want = attempts
	}
	if made, _ := ann.counts(); made-before != want {
		t.Errorf("%d restarts, want %d", made-before, want)
	}
	ann.clock.run(20)
	changed("the end of the search", func(p room.Peer) bool { return p.State == room.PeerFailed && p.Code == fault.ConnectionFailed })
	if e := entry(t, ann.finished(id), bob.person); e.State != room.DeliveryFailed || e.Code != fault.PeerGone {
		t.Errorf("ledger: %+v", e)
	}
}

// TestNudgeBeginsAnew: the browser says that the network is back while the attempt that began without it still hopes. Another one begins, and not by
// the clock, which stands.
func TestNudgeBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock := newClock()
	clock.run(0)
	still := func(c *room.Config) { c.Now = clock.Now }
	ann := w.create("Ann", still)
	began := make(chan struct{})
	var first sync.Once
	bob := w.joinWith("Bob", ann.room.Link(), func(c *room.Config) {
		still(c)
		newConn := c.NewConn
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			first.Do(func() { // it finds nothing
				cfg.ICE, cfg.RelayOnly = wire.ICEServers{Servers: aRelay}, true
				close(began)
			})
			return newConn(cfg)
		}
	})
	<-began
	eventually(t, "both have begun", func() bool {
		ann.mu.Lock()
		defer ann.mu.Unlock()
		return len(ann.conns) > 0
	})
	clock.skip(6 * time.Second) // more than a Hello has to wait in any case
	for _, p := range []*person{ann, bob} {
		p.room.Nudge()
	}
	meetAll(ann, bob)
}

// TestReconnectAttempts: what is out of bounds is refused.
func TestReconnectAttempts(t *testing.T) {
	for _, n := range []int{-1, room.MaxReconnectAttempts + 1} {
		_, err := room.Join(t.Context(), seal.Link{}, room.Config{ReconnectAttempts: n})
		if fault.Of(err) != fault.InvalidArgument {
			t.Errorf("%d: %v", n, err)
		}
	}
}
