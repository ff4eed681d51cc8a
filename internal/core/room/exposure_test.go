//go:build !js

package room_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/wire"
)

var aRelay = []wire.ICEServer{{URLs: []string{"turn:relay.example:3478"}, Username: "user", Credential: "password"}}

func (p *person) exposure() []room.Exposure {
	p.t.Helper()
	list, err := p.room.Exposure()
	if err != nil {
		p.t.Fatal(err)
	}
	return list
}

func TestExposureOfConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ice := []wire.ICEServer{
		{URLs: []string{"stun:127.0.0.1:3478", "stun:stun.example"}},
		{URLs: []string{"turn:127.0.0.1:3478?transport=udp", "turns:relay.example:443?transport=tcp", "turn:[2001:db8::1]:3478"}, Username: "user", Credential: "password"},
	}
	common := []room.Exposure{
		{What: room.ExposedSignaling, To: room.ToServer, Detail: w.url},
		{What: room.ExposedPlainServer, To: room.ToNetwork, Detail: w.url},
	}
	stun := []room.Exposure{
		{What: room.ExposedSTUN, To: room.ToServer, Detail: "stun:127.0.0.1:3478"},
		{What: room.ExposedSTUN, To: room.ToThirdParty, Detail: "stun:stun.example"},
	}
	turn := []room.Exposure{
		{What: room.ExposedTURN, To: room.ToServer, Detail: "turn:127.0.0.1:3478?transport=udp"},
		{What: room.ExposedPlainRelay, To: room.ToNetwork, Detail: "turn:127.0.0.1:3478?transport=udp"},
		{What: room.ExposedTURN, To: room.ToThirdParty, Detail: "turns:relay.example:443?transport=tcp"},
		{What: room.ExposedTURN, To: room.ToThirdParty, Detail: "turn:[2001:db8::1]:3478"},
		{What: room.ExposedPlainRelay, To: room.ToNetwork, Detail: "turn:[2001:db8::1]:3478"},
	}
	direct := []room.Exposure{{What: room.ExposedDirect, To: room.ToMembers}}
	for name, tt := range map[string]struct {
		ice       []wire.ICEServer
		relayOnly bool
		want      []room.Exposure
	}{
		"no servers": {nil, false, slices.Concat(common, direct)},
		"servers":    {ice, false, slices.Concat(common, stun, turn, direct)},
		"relay only": {ice, true, slices.Concat(common, turn)},
	} {
		ann := w.create("Ann", func(c *room.Config) { c.ICE, c.RelayOnly = tt.ice, tt.relayOnly })
		if got := ann.exposure(); !slices.Equal(got, tt.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, tt.want)
		}
	}
}

func TestExposureOfConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", nil)
	bob := w.join("Bob", ann.room.Link())
	meetAll(ann, bob)
	route := wait(ann, "a route", func(e room.PeerChanged) bool { return e.Peer.Route != "" }).Peer
	if route.Route != "direct" || route.Protocol != "udp" {
		t.Errorf("route %q over %q", route.Route, route.Protocol)
	}
	got := ann.exposure()
	for _, want := range []room.Exposure{
		{What: room.ExposedCandidate, To: room.ToMembers, Detail: "host"},
		{What: room.ExposedRoute, To: room.ToMembers, Detail: bob.room.Self().ID},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%+v lacks %+v", got, want)
		}
	}
}

// The server may demand relays, and lift its own demand, but not the member's choice.
func TestRelayOnlyDemanded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	for name, tt := range map[string]struct{ own, before, during, after bool }{
		"own choice": {true, true, true, true},
		"demanded":   {false, false, true, false},
	} {
		ann := w.create(name, func(c *room.Config) { c.RelayOnly = tt.own })
		if got := ann.room.RelayOnly(); got != tt.before {
			t.Errorf("%s: at first %v", name, got)
		}
		w.tell(ann.id(), wire.ICEServers{RelayOnly: true, Servers: aRelay}.Append(nil))
		wait(ann, "relay only", func(e room.RoomChanged) bool { return e.RelayOnly && e.State == room.StateOpen })
		if got := ann.room.RelayOnly(); got != tt.during {
			t.Errorf("%s: while demanded %v", name, got)
		}
		mark := ann.mark()
		w.tell(ann.id(), wire.ICEServers{Servers: []wire.ICEServer{{URLs: []string{"stun:last.example"}}, aRelay[0]}}.Append(nil))
		if !tt.after {
			waitAfter(ann, mark, "the demand to be lifted", func(e room.RoomChanged) bool { return !e.RelayOnly })
		}
		w.tell(ann.id(), wire.ICEServers{Servers: []wire.ICEServer{{URLs: []string{"turn:last.example"}}}}.Append(nil))
		eventually(t, "the last word is heard", func() bool {
			return slices.ContainsFunc(ann.exposure(), func(e room.Exposure) bool { return e.Detail == "turn:last.example" })
		})
		if got := ann.room.RelayOnly(); got != tt.after {
			t.Errorf("%s: at the end %v", name, got)
		}
	}
}

// barrenConn finds no candidate, and soon says so.
type barrenConn struct {
	peer.Conn
	tell func(wire.Candidate)
}

func (c *barrenConn) Offer(ctx context.Context, restart bool) (string, error) {
	defer c.tell(wire.Candidate{})
	return c.Conn.Offer(ctx, restart)
}

func (c *barrenConn) Answer(ctx context.Context, offer string) (string, error) {
	defer c.tell(wire.Candidate{})
	return c.Conn.Answer(ctx, offer)
}

// TestRelayAway: relays only, and there is none that answers: an attempt fails as soon as that is known, and not by the clock, which stands.
func TestRelayAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock := newClock()
	clock.run(0)
	ann := w.create("Ann", func(c *room.Config) {
		c.RelayOnly, c.ICE, c.ReconnectAttempts, c.Now = true, aRelay, 1, clock.Now
		newConn := c.NewConn
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			tell := cfg.Candidate
			cfg.Candidate = nil
			conn, err := newConn(cfg)
			return &barrenConn{conn, tell}, err
		}
	})
	w.joinWith("Bob", ann.room.Link(), func(c *room.Config) { c.Now = clock.Now })
	wait(ann, "failure", func(e room.PeerChanged) bool {
		return e.Peer.State == room.PeerFailed && e.Peer.Code == fault.ConnectionFailed
	})
}

func TestNoRelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", func(c *room.Config) {
		c.RelayOnly, c.ICE = true, []wire.ICEServer{{URLs: []string{"stun:127.0.0.1:1"}}}
	})
	bob := w.join("Bob", ann.room.Link())
	wait(ann, "no-relay", func(e room.PeerChanged) bool { return e.Peer.Code == fault.NoRelay })
	if p := bob.room.Peers()[0]; p.State == room.PeerOpen {
		t.Errorf("connected all the same: %+v", p)
	}
}

func isLeak(e room.Problem) bool { return e.Code == fault.AddressLeak }

// A platform that gathers what it should not is reported, once for each type, and what it gathered stands in the exposure.
func TestStrayCandidates(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	var mu sync.Mutex
	attempts := 0
	ann := w.create("Ann", func(c *room.Config) {
		c.RelayOnly, c.ICE = true, aRelay
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			attempts++
			for _, candidateType := range []string{"host", "host", "srflx"} {
				cfg.Stray(candidateType)
			}
			if attempts == 2 {
				cfg.Stray("prflx")
			}
			return nil, errors.New("no connection")
		}
	})
	w.join("Bob", ann.room.Link())
	for _, candidateType := range []string{"host", "srflx", "prflx"} {
		eventually(t, "the exposure has it: "+candidateType, func() bool {
			return slices.Contains(ann.exposure(), room.Exposure{What: room.ExposedCandidate, To: room.ToNobody, Detail: candidateType, Leak: true})
		})
	}
	leaks := func() (n int) {
		for _, e := range ann.since(0) {
			if p, ok := e.(room.Problem); ok && isLeak(p) {
				n++
			}
		}
		return n
	}
	eventually(t, "each is reported", func() bool { return leaks() >= 3 })
	if n := leaks(); n != 3 {
		t.Errorf("%d leaks reported", n)
	}
}

// A direct connection although only relays may be used is ended.
func TestLeakingRoute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", func(c *room.Config) {
		c.RelayOnly, c.ICE = true, aRelay
		real := c.NewConn
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			cfg.RelayOnly, cfg.ICE = false, wire.ICEServers{} // a platform that does not care
			return real(cfg)
		}
	})
	bob := w.join("Bob", ann.room.Link())
	id := bob.room.Self().ID
	wait(ann, "the leak", func(e room.Problem) bool { return isLeak(e) && e.Peer == id })
	opened := false
	wait(ann, "the end of the connection", func(e room.PeerChanged) bool {
		opened = opened || e.Peer.ID == id && e.Peer.State == room.PeerOpen
		return opened && e.Peer.ID == id && e.Peer.State != room.PeerOpen
	})
}

// credentials are those that connections get, by number.
type credentials struct {
	mu    sync.Mutex
	given []int // to a connection that there was
	last  int   // to the newest connection at its making
}

func (g *credentials) watch(c *room.Config) {
	real := c.NewConn
	c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
		g.mu.Lock()
		g.last = number(cfg.ICE)
		g.mu.Unlock()
		cfg.ICE = wire.ICEServers{} // nobody is asked
		conn, err := real(cfg)
		return &renewedConn{conn, func(ice wire.ICEServers) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.given = append(g.given, number(ice))
		}}, err
	}
}

// Credentials that expire are renewed, for the connections that there are and for those to come.
func TestCredentialsRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	const lifetimes = 3
	issued := 0                // users are numbered
	servers := func() []byte { // with w.mu held, or before anybody listens
		issued++
		return wire.ICEServers{TTL: 1, Servers: []wire.ICEServer{{URLs: aRelay[0].URLs, Username: fmt.Sprint(issued), Credential: "password"}}}.Append(nil)
	}
	var got credentials
	ann := w.create("Ann", got.watch)
	bob := w.join("Bob", ann.room.Link())
	meetAll(ann, bob)
	self := ann.id()
	w.meddle(func(member wire.ID, message []byte) [][]byte {
		if member == self && wire.TypeOf(message) == wire.HubICEServers {
			message = servers()
		}
		return [][]byte{message}
	}, nil)
	w.mu.Lock()
	first := servers()
	w.mu.Unlock()
	w.tell(self, first)
	eventually(t, "several lifetimes pass", func() bool {
		got.mu.Lock()
		defer got.mu.Unlock()
		return len(got.given) > 2*lifetimes // each half of one
	})
	cleo := w.join("Cleo", ann.room.Link())
	meetAll(ann, cleo)
	got.mu.Lock()
	defer got.mu.Unlock()
	if !slices.IsSorted(got.given) || got.given[0] != 1 || got.last <= 2*lifetimes {
		t.Errorf("renewed %v, and a new connection got %d", got.given, got.last)
	}
}

// Credentials of the caller's own are the caller's to renew, for the connections that there are and for those to come.
func TestOwnCredentialsRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	own := func(n int) []wire.ICEServer {
		return []wire.ICEServer{{URLs: aRelay[0].URLs, Username: fmt.Sprint(n), Credential: "password"}}
	}
	var got credentials
	ann := w.create("Ann", func(c *room.Config) {
		c.ICE = own(1)
		got.watch(c)
	})
	bob := w.join("Bob", ann.room.Link())
	meetAll(ann, bob)
	got.mu.Lock()
	if got.last != 1 {
		t.Errorf("the first connection got %d", got.last)
	}
	got.mu.Unlock()
	if err := ann.room.SetICEServers(own(2)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection gets them", func() bool {
		got.mu.Lock()
		defer got.mu.Unlock()
		return len(got.given) > 0 && got.given[len(got.given)-1] == 2
	})
	w.tell(ann.id(), wire.ICEServers{TTL: 600, Servers: own(9)}.Append(nil)) // what the hub offers makes no difference
	cleo := w.join("Cleo", ann.room.Link())
	meetAll(ann, cleo)
	got.mu.Lock()
	if got.last != 2 || slices.Contains(got.given, 9) {
		t.Errorf("a new connection got %d, the others %v", got.last, got.given)
	}
	got.mu.Unlock()
	// Without any of one's own it is the hub's that are used again.
	if err := ann.room.SetICEServers(nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connections get the hub's", func() bool {
		got.mu.Lock()
		defer got.mu.Unlock()
		return got.given[len(got.given)-1] == 9
	})
	if err := ann.room.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ann.room.SetICEServers(own(3)); fault.Of(err) != fault.RoomClosed {
		t.Errorf("after the end: %v", err)
	}
}

// Servers that no connection can be given are refused, and where only relays may be used those without one; those before stay.
func TestOwnServersWithoutRelay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", func(c *room.Config) { c.RelayOnly, c.ICE = true, aRelay })
	before := ann.exposure()
	for name, c := range map[string]struct {
		own  []wire.ICEServer
		code fault.Code
	}{
		"STUN":                 {[]wire.ICEServer{{URLs: []string{"stun:127.0.0.1:1"}}}, fault.NoRelay},
		"what the hub has not": {nil, fault.NoRelay},
		"no credentials":       {[]wire.ICEServer{aRelay[0], {URLs: aRelay[0].URLs}}, fault.InvalidArgument},
		"another scheme":       {[]wire.ICEServer{aRelay[0], {URLs: []string{"https:relay.example"}}}, fault.InvalidArgument},
		"no URL":               {[]wire.ICEServer{aRelay[0], {}}, fault.InvalidArgument},
	} {
		if err := ann.room.SetICEServers(c.own); fault.Of(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now := ann.exposure(); !slices.Equal(now, before) {
		t.Errorf("%+v, was %+v", now, before)
	}
	other := []wire.ICEServer{{URLs: []string{"turn:127.0.0.1:2?transport=udp"}, Username: "user", Credential: "password"}}
	if err := ann.room.SetICEServers(other); err != nil {
		t.Fatal(err)
	}
	if now := ann.exposure(); !slices.ContainsFunc(now, func(e room.Exposure) bool { return e.What == room.ExposedTURN && e.Detail == other[0].URLs[0] }) {
		t.Errorf("the other relay is not exposed to: %+v", now)
	}
}

func number(ice wire.ICEServers) int {
	if len(ice.Servers) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(ice.Servers[0].Username)
	return n
}

// renewedConn tells of the servers that it is given.
type renewedConn struct {
	peer.Conn
	given func(wire.ICEServers)
}

func (c *renewedConn) SetICEServers(ctx context.Context, ice wire.ICEServers) error {
	c.given(ice)
	return c.Conn.SetICEServers(ctx, wire.ICEServers{})
}
