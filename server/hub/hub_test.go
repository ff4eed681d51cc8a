package hub

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"tallow/internal/core/wire"
	"tallow/server/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	roomA  = wire.ID{0xa}
	roomB  = wire.ID{0xb}
	alice  = wire.ID{1}
	bob    = wire.ID{2}
	carol  = wire.ID{3}
	secret = wire.Hash{0x5e}
)

func claimOf(member wire.ID) wire.ID { return wire.ID{0xc1, member[0]} }

func enterAs(room, member wire.ID) wire.Enter {
	return wire.Enter{Room: room, Member: member, Token: secret, Claim: claimOf(member)}
}

// run starts a hub behind a real HTTP server. Changes apply before the first connection.
func run(t *testing.T, changes ...func(*Config, *timing)) (*Hub, string) {
	t.Helper()
	cfg := Config{
		MaxMembers: 3, MaxRooms: 10,
		Gate: limit.New(limit.Limits{Total: 100}),
		ClientAddr: func(r *http.Request) netip.Addr {
			if from := r.Header.Get("Test-From"); from != "" {
				return netip.MustParseAddr(from)
			}
			return netip.MustParseAddrPort(r.RemoteAddr).Addr()
		},
		ICEServers: func(room, member wire.ID, now time.Time) wire.ICEServers {
			return wire.ICEServers{RelayOnly: true, TTL: 60, Servers: []wire.ICEServer{
				{URLs: []string{"turn:192.0.2.1:3478"}, Username: member.String(), Credential: room.String()},
			}}
		},
		Log: slog.New(slog.DiscardHandler),
	}
	timing := timing{farewell: time.Second}
	for _, change := range changes {
		change(&cfg, &timing)
	}
	h, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.timing.override(timing)
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		defer cancel()
		h.Close(ctx)
		s.Close()
	})
	return h, s.URL
}

func (t *timing) override(o timing) {
	for _, f := range []struct{ to, from *time.Duration }{
		{&t.enter, &o.enter}, {&t.idle, &o.idle}, {&t.message, &o.message}, {&t.write, &o.write},
		{&t.farewell, &o.farewell}, {&t.forget, &o.forget}, {&t.hold, &o.hold}, {&t.remember, &o.remember},
	} {
		if *f.from != 0 {
			*f.to = *f.from
		}
	}
	if o.messages != 0 {
		t.messages, t.messageBurst = o.messages, o.messageBurst
	}
	if o.bytes != 0 {
		t.bytes, t.byteBurst = o.bytes, o.byteBurst
	}
	if o.queueBytes != 0 {
		t.queueBytes = o.queueBytes
	}
	if o.totalBytes != 0 {
		t.totalBytes = o.totalBytes
	}
}

type client struct {
	t  *testing.T
	ws *websocket.Conn
	nc net.Conn
}

func dial(t *testing.T, url string) *client {
	t.Helper()
	return dialFrom(t, url, "")
}

// dialFrom connects from another address.
func dialFrom(t *testing.T, url, from string) *client {
	t.Helper()
	c := &client{t: t}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		c.nc = nc
		return nc, err
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		Subprotocols: []string{wire.HubSubprotocol}, HTTPClient: &http.Client{Transport: transport}, HTTPHeader: http.Header{"Test-From": {from}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(wire.MaxHubMessage)
	c.ws = ws
	t.Cleanup(func() { ws.CloseNow() })
	return c
}

func (c *client) send(p []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 60*time.Second)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageBinary, p); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) next() []byte {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 60*time.Second)
	defer cancel()
	_, p, err := c.ws.Read(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *client) enter(m wire.Enter) wire.Entered {
	c.t.Helper()
	c.send(m.Append(nil))
	e, err := wire.ParseEntered(c.next())
	if err != nil {
		c.t.Fatal(err)
	}
	return e
}

func enter(t *testing.T, url string, room, member wire.ID) *client {
	t.Helper()
	c := dial(t, url)
	c.enter(enterAs(room, member))
	return c
}

func (c *client) presence(kind wire.HubType, want wire.ID) {
	c.t.Helper()
	if got, err := wire.ParsePresence(c.next(), kind); err != nil || got != want {
		c.t.Fatalf("presence of %v, %v; want type %#x of %v", got, err, kind, want)
	}
}

// closing checks that the last message is a Closing with the code, and that status 1000 follows.
func (c *client) closing(code wire.ClosingCode) wire.Closing {
	c.t.Helper()
	m, err := wire.ParseClosing(c.next())
	if err != nil || m.Code != code {
		c.t.Fatalf("closing %+v, %v; want code %d", m, err, code)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 60*time.Second)
	defer cancel()
	if _, p, err := c.ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		c.t.Fatalf("after Closing: %x, %v", p, err)
	}
	return m
}

func (c *client) tell(to wire.ID, envelope string) {
	c.t.Helper()
	c.send(wire.Relay{Member: to, Envelope: []byte(envelope)}.Append(nil, wire.HubSend))
}

func (c *client) told(from wire.ID, envelope string) {
	c.t.Helper()
	m, err := wire.ParseRelay(c.next(), wire.HubDeliver)
	if err != nil || m.Member != from || string(m.Envelope) != envelope {
		c.t.Fatalf("got %q from %v, %v; want %q from %v", m.Envelope, m.Member, err, envelope, from)
	}
}

// alive checks that the connection serves, and that nothing else was on its way.
func (c *client) alive() {
	c.t.Helper()
	c.send([]byte{byte(wire.HubPing)})
	if p := c.next(); wire.ParseBare(p, wire.HubPong) != nil {
		c.t.Fatalf("got %.50x instead of Pong", p)
	}
}

func TestMembersMeet(t *testing.T) {
	h, url := run(t)
	a := dial(t, url)
	e := a.enter(enterAs(roomA, alice))
	if e.MaxMembers != 3 || len(e.Present) != 0 {
		t.Fatalf("first member is told %+v", e)
	}
	if !e.ICE.RelayOnly || e.ICE.TTL != 60 || len(e.ICE.Servers) != 1 || e.ICE.Servers[0].Username != alice.String() {
		t.Fatalf("ICE servers %+v", e.ICE)
	}
	b := dial(t, url)
	if e := b.enter(enterAs(roomA, bob)); len(e.Present) != 1 || e.Present[0] != alice {
		t.Fatalf("second member is told %+v", e)
	}
	a.presence(wire.HubPresent, bob)
	elsewhere := enter(t, url, roomB, carol)

	a.tell(bob, "hello")
	b.told(alice, "hello")
	b.tell(alice, strings.Repeat("x", wire.MaxEnvelope))
	a.told(bob, strings.Repeat("x", wire.MaxEnvelope))

	// Nobody there, and somebody in another room: dropped in silence.
	a.tell(wire.ID{99}, "anyone?")
	a.tell(carol, "another room")
	a.alive()
	elsewhere.alive()

	a.send([]byte{byte(wire.HubRefresh)})
	if ice, err := wire.ParseICEServers(a.next()); err != nil || ice.Servers[0].Credential != roomA.String() {
		t.Fatalf("refreshed %+v, %v", ice, err)
	}
	eventually(t, func() bool { return h.Stats().Relayed == 2 }) // counted when it is passed on, which its recipient may see first
	if s := h.Stats(); s.Connections != 3 || s.Rooms != 2 || s.Members != 3 || s.Relayed != 2 || s.Absent != 2 {
		t.Fatalf("stats %+v", s)
	}

	b.ws.Close(websocket.StatusNormalClosure, "")
	a.presence(wire.HubAbsent, bob)
	a.alive()
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name  string
		first []byte
		code  wire.ClosingCode
	}{
		{"wrong token", wire.Enter{Room: roomA, Member: bob, Token: wire.Hash{1}, Claim: claimOf(bob)}.Append(nil), wire.ClosingForbidden},
		{"wrong claim", wire.Enter{Room: roomA, Member: alice, Token: secret, Claim: wire.ID{1}}.Append(nil), wire.ClosingForbidden},
		{"not Enter", []byte{byte(wire.HubPing)}, wire.ClosingBadRequest},
		{"short Enter", enterAs(roomA, bob).Append(nil)[:50], wire.ClosingBadRequest},
		{"another version", append([]byte{byte(wire.HubEnter), 2}, enterAs(roomA, bob).Append(nil)[2:]...), wire.ClosingUnsupportedVersion},
		{"empty", []byte{}, wire.ClosingBadRequest},
		{"oversize", make([]byte, wire.MaxHubMessage+1), wire.ClosingBadRequest},
		{"huge", make([]byte, 8<<20), wire.ClosingBadRequest},
	}
	_, url := run(t)
	a := enter(t, url, roomA, alice)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, url)
			// What the hub no longer reads may fail to be written.
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			if err := c.ws.Write(ctx, websocket.MessageBinary, tt.first); err != nil && len(tt.first) <= wire.MaxHubMessage {
				t.Fatal(err)
			}
			if m := c.closing(tt.code); len(tt.first) > wire.MaxHubMessage && m.Reason != "message is too long" {
				t.Fatalf("reason %q", m.Reason)
			}
		})
	}
	// Who was there has noticed nothing.
	a.alive()
}

func TestBadMessages(t *testing.T) {
	for name, p := range map[string][]byte{
		"second Enter":   enterAs(roomA, alice).Append(nil),
		"unknown type":   {0x7f},
		"empty envelope": append([]byte{byte(wire.HubSend)}, bob[:]...),
		"ping with body": {byte(wire.HubPing), 0},
		"server's type":  {byte(wire.HubDeliver)},
		"oversize":       make([]byte, wire.MaxHubMessage+1),
	} {
		t.Run(name, func(t *testing.T) {
			_, url := run(t)
			c := enter(t, url, roomA, alice)
			c.send(p)
			c.closing(wire.ClosingBadRequest)
		})
	}
	t.Run("text", func(t *testing.T) {
		_, url := run(t)
		c := enter(t, url, roomA, alice)
		if err := c.ws.Write(t.Context(), websocket.MessageText, []byte{byte(wire.HubPing)}); err != nil {
			t.Fatal(err)
		}
		c.closing(wire.ClosingBadRequest)
	})
}

func TestSubprotocolIsNeeded(t *testing.T) {
	_, url := run(t)
	ws, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	(&client{t: t, ws: ws}).closing(wire.ClosingUnsupportedVersion)
}

func TestOrigins(t *testing.T) {
	_, url := run(t, func(c *Config, _ *timing) { c.Origins = []string{"https://friend.example", "http://[::1]:8080"} })
	for origin, welcome := range map[string]bool{
		url: true, "https://friend.example": true, "http://[::1]:8080": true, "http://1:8080": false, "http://friend.example": false,
		"https://evil.example": false, "https://friend.example.evil.example": false, "null": false,
	} {
		ws, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{
			Subprotocols: []string{wire.HubSubprotocol}, HTTPHeader: http.Header{"Origin": {origin}},
		})
		if welcome != (err == nil) {
			t.Errorf("origin %s: %v", origin, err)
		}
		if err == nil {
			ws.CloseNow()
		}
	}
}

func TestReplaced(t *testing.T) {
	_, url := run(t)
	a := enter(t, url, roomA, alice)
	b := enter(t, url, roomA, bob)
	a.presence(wire.HubPresent, bob)

	again := enter(t, url, roomA, bob)
	if m := b.closing(wire.ClosingReplaced); m.RetryAfter != 0 {
		t.Fatal("a replaced client is asked to come again")
	}
	a.presence(wire.HubPresent, bob)
	a.tell(bob, "still there?")
	again.told(alice, "still there?")
	a.alive() // the older connection's end did not make bob absent
}

func TestClaimIsRememberedWhileAbsent(t *testing.T) {
	_, url := run(t)
	a := enter(t, url, roomA, alice)
	b := enter(t, url, roomA, bob)
	a.presence(wire.HubPresent, bob)
	b.ws.Close(websocket.StatusNormalClosure, "")
	a.presence(wire.HubAbsent, bob)

	thief := dial(t, url)
	thief.send(wire.Enter{Room: roomA, Member: bob, Token: secret, Claim: wire.ID{0xbd}}.Append(nil))
	thief.closing(wire.ClosingForbidden)
	enter(t, url, roomA, bob)
	a.presence(wire.HubPresent, bob)
}

// visit enters as a stranger and leaves in order.
func visit(a *client, url, from string, id wire.ID) {
	a.t.Helper()
	c := dialFrom(a.t, url, from)
	c.enter(enterAs(roomA, id))
	a.presence(wire.HubPresent, id)
	c.ws.Close(websocket.StatusNormalClosure, "")
	a.presence(wire.HubAbsent, id)
}

// However many strangers come and go, nobody can be made unknown and then be replaced.
func TestClaimsAreNotCrowdedOut(t *testing.T) {
	h, url := run(t)
	a := enter(t, url, roomA, alice)
	visit(a, url, "", bob)
	const places = leastPlaces // of a room of three
	// One address does not get far.
	stranger := byte(10)
	for range newPerPlace * places {
		visit(a, url, "192.0.2.1", wire.ID{stranger})
		stranger++
	}
	c := dialFrom(t, url, "192.0.2.1")
	c.send(enterAs(roomA, wire.ID{stranger}).Append(nil))
	if m := c.closing(wire.ClosingRateLimited); m.RetryAfter == 0 {
		t.Fatal("says not to come again")
	}
	// Several together take all seats, and no claim.
	for i := 2; len(h.known(roomA)) < knownPerPlace*places; i++ {
		for range min(newPerPlace*places, knownPerPlace*places-len(h.known(roomA))) {
			visit(a, url, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String(), wire.ID{stranger})
			stranger++
		}
	}
	late := wire.ID{stranger}
	c = dialFrom(t, url, "192.0.2.99")
	c.send(enterAs(roomA, late).Append(nil))
	if m := c.closing(wire.ClosingRoomFull); m.RetryAfter == 0 {
		t.Fatal("says not to come again")
	}
	thief := dialFrom(t, url, "192.0.2.99")
	thief.send(wire.Enter{Room: roomA, Member: bob, Token: secret, Claim: wire.ID{0xbd}}.Append(nil))
	thief.closing(wire.ClosingForbidden)
	visit(a, url, "", bob)

	// Time makes room: first for the address that has its share, from what that had, then for any.
	h.age(roomA, wire.ID{12}, h.timing.remember)
	visit(a, url, "192.0.2.1", late)
	h.age(roomA, wire.ID{30}, h.timing.remember)
	visit(a, url, "192.0.2.99", wire.ID{stranger + 1})
	known := h.known(roomA)
	for id, want := range map[wire.ID]bool{{12}: false, {30}: false, bob: true, alice: true, late: true, {stranger + 1}: true} {
		if known[id] != want {
			t.Errorf("%v is known: %v", id, known[id])
		}
	}
}

func (h *Hub) known(room wire.ID) map[wire.ID]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make(map[wire.ID]bool)
	for _, s := range h.rooms[room].seats {
		list[s.member] = true
	}
	return list
}

// age makes a member absent for that much longer.
func (h *Hub) age(room, member wire.ID, d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.rooms[room].seat(member)
	s.left, s.held = s.left.Add(-d), s.held.Add(-d)
}

// A member whose connection breaks finds its place again.
func TestPlacesAreKept(t *testing.T) {
	h, url := run(t)
	dave, erin := wire.ID{4}, wire.ID{5}
	members := map[wire.ID]*client{}
	for _, id := range []wire.ID{alice, bob, carol} {
		members[id] = enter(t, url, roomA, id)
	}
	present := 3
	lose := func(id wire.ID) {
		t.Helper()
		members[id].nc.Close()
		present--
		eventually(t, func() bool { return h.Stats().Members == present })
	}
	back := func(id wire.ID) {
		t.Helper()
		members[id] = enter(t, url, roomA, id)
		present++
	}
	refused := func(id wire.ID, again bool) {
		t.Helper()
		c := dial(t, url)
		c.send(enterAs(roomA, id).Append(nil))
		if m := c.closing(wire.ClosingRoomFull); (m.RetryAfter > 0) != again {
			t.Fatalf("come again after %d s", m.RetryAfter)
		}
	}
	lose(bob)
	refused(dave, false)
	back(bob)
	// After a while somebody else can have the place; there is one more for who comes back.
	lose(bob)
	h.age(roomA, bob, h.timing.hold)
	back(dave)
	back(bob)
	refused(erin, false)
	// Whom even that one does not help is told to try again.
	lose(bob)
	lose(carol)
	h.age(roomA, bob, h.timing.hold)
	h.age(roomA, carol, h.timing.hold)
	back(erin)
	back(bob)
	refused(carol, true)
	lose(erin)
	refused(carol, true) // hers is kept now
	h.age(roomA, erin, h.timing.hold)
	back(carol)
}

func TestRoomFull(t *testing.T) {
	_, url := run(t)
	a := enter(t, url, roomA, alice)
	b := enter(t, url, roomA, bob)
	enter(t, url, roomA, carol)
	late := dial(t, url)
	late.send(enterAs(roomA, wire.ID{4}).Append(nil))
	late.closing(wire.ClosingRoomFull)
	a.presence(wire.HubPresent, bob)
	a.presence(wire.HubPresent, carol)
	// A full room still lets its members come back, and a place that becomes free can be taken.
	enter(t, url, roomA, bob)
	b.presence(wire.HubPresent, carol)
	b.closing(wire.ClosingReplaced)
	a.presence(wire.HubPresent, bob)
	a.ws.Close(websocket.StatusNormalClosure, "")
	eventually(t, func() bool {
		c := dial(t, url)
		c.send(enterAs(roomA, wire.ID{4}).Append(nil))
		return wire.TypeOf(c.next()) == wire.HubEntered
	})
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within a minute")
		}
	}
}

func TestRoomsAreBoundedAndForgotten(t *testing.T) {
	h, url := run(t, func(c *Config, _ *timing) { c.MaxRooms = 2 })
	a := enter(t, url, roomA, alice)
	enter(t, url, roomB, bob)
	c := dial(t, url)
	c.send(enterAs(wire.ID{0xc}, carol).Append(nil))
	if m := c.closing(wire.ClosingServerFull); m.RetryAfter == 0 {
		t.Fatal("a full server says not to come again")
	}
	// An empty room gives way.
	a.ws.Close(websocket.StatusNormalClosure, "")
	eventually(t, func() bool { return h.Stats().Members == 1 })
	enter(t, url, wire.ID{0xc}, carol)
	if s := h.Stats(); s.Rooms != 2 {
		t.Fatalf("stats %+v", s)
	}
}

func TestEmptyRoomIsForgotten(t *testing.T) {
	h, url := run(t, func(_ *Config, o *timing) { o.forget = 2 * time.Second })
	a := enter(t, url, roomA, alice)
	a.ws.Close(websocket.StatusNormalClosure, "")
	eventually(t, func() bool { return h.Stats().Members == 0 })
	if s := h.Stats(); s.Rooms != 1 {
		t.Fatalf("a room was forgotten at once: %+v", s)
	}
	eventually(t, func() bool { return h.Stats().Rooms == 0 })
	// With it went its token.
	dial(t, url).enter(wire.Enter{Room: roomA, Member: bob, Token: wire.Hash{7}, Claim: claimOf(bob)})
}

func TestConnectionsAreBounded(t *testing.T) {
	h, url := run(t, func(c *Config, _ *timing) { c.Gate = limit.New(limit.Limits{Total: 3, PerAddress: 2}) })
	a := enter(t, url, roomA, alice)
	b := enter(t, url, roomA, bob)
	if m := dial(t, url).closing(wire.ClosingRateLimited); m.RetryAfter == 0 {
		t.Fatal("says not to come again")
	}
	b.ws.Close(websocket.StatusNormalClosure, "")
	eventually(t, func() bool { return h.Stats().Connections == 1 })
	enter(t, url, roomA, bob)
	a.presence(wire.HubPresent, bob)

	_, url = run(t, func(c *Config, _ *timing) { c.Gate = limit.New(limit.Limits{Total: 1}) })
	enter(t, url, roomA, alice)
	dial(t, url).closing(wire.ClosingServerFull)
}

func TestRateLimits(t *testing.T) {
	t.Run("messages", func(t *testing.T) {
		_, url := run(t, func(_ *Config, o *timing) { o.messages, o.messageBurst = 0.001, 6 })
		c := enter(t, url, roomA, alice)
		for range 5 {
			c.alive()
		}
		c.send([]byte{byte(wire.HubPing)})
		if m := c.closing(wire.ClosingRateLimited); m.RetryAfter == 0 {
			t.Fatal("says not to come again")
		}
	})
	t.Run("bytes", func(t *testing.T) {
		_, url := run(t, func(_ *Config, o *timing) { o.bytes, o.byteBurst = 0.001, 100_000 })
		c := enter(t, url, roomA, alice)
		c.tell(bob, strings.Repeat("x", 60_000))
		c.alive()
		c.tell(bob, strings.Repeat("x", 60_000))
		c.closing(wire.ClosingRateLimited)
	})
}

// patient lets a client send as much as it likes.
func patient(o *timing) {
	o.farewell = 200 * time.Millisecond
	o.messages, o.messageBurst = 1e6, 1e6
	o.bytes, o.byteBurst = 1<<30, 1<<30
}

// flood sends more than the socket buffers of both ends hold until the hub drops envelopes.
func (c *client) flood(h *Hub, to wire.ID) {
	c.t.Helper()
	envelope := strings.Repeat("x", 60_000)
	for dropped := h.Stats().Dropped; h.Stats().Dropped == dropped; {
		if h.Stats().Relayed > 1000 {
			c.t.Fatal("a queue without bound: 60 MB wait for a reader that does not read")
		}
		c.tell(to, envelope)
	}
	for range 20 {
		c.tell(to, envelope)
	}
}

func TestSlowConsumerHarmsNobodyElse(t *testing.T) {
	h, url := run(t, func(_ *Config, o *timing) {
		patient(o)
		o.write = 300 * time.Millisecond
	})
	a := enter(t, url, roomA, alice)
	slow := enter(t, url, roomA, bob) // and reads no more
	c := enter(t, url, roomA, carol)
	a.presence(wire.HubPresent, bob)
	a.presence(wire.HubPresent, carol)
	slow.nc.(*net.TCPConn).SetReadBuffer(4096)

	a.flood(h, bob)
	eventually(t, func() bool {
		a.tell(bob, strings.Repeat("x", 60_000)) // the sockets' own buffers may still take some
		return h.Stats().Closings[wire.ClosingRateLimited] == 1
	})
	a.presence(wire.HubAbsent, bob)
	a.tell(carol, "hello")
	c.presence(wire.HubAbsent, bob)
	c.told(alice, "hello")
	eventually(t, func() bool { return h.Stats().Connections == 2 })
	eventually(t, func() bool { return h.Stats().Waiting == 0 })
}

// Whom somebody floods keeps its connection, and hears the others.
func TestFloodedMemberStays(t *testing.T) {
	h, url := run(t, func(_ *Config, o *timing) { patient(o) })
	a := enter(t, url, roomA, alice)
	b := enter(t, url, roomA, bob)
	c := enter(t, url, roomA, carol)
	b.presence(wire.HubPresent, carol)
	a.flood(h, bob)
	c.tell(bob, "hello")
	b.send([]byte{byte(wire.HubPing)})
	for heard, answered := false, false; !heard || !answered; {
		switch p := b.next(); wire.TypeOf(p) {
		case wire.HubDeliver:
			m, err := wire.ParseRelay(p, wire.HubDeliver)
			if err != nil {
				t.Fatal(err)
			}
			heard = heard || m.Member == carol && string(m.Envelope) == "hello"
		case wire.HubPong:
			answered = true
		default:
			t.Fatalf("got %x", p)
		}
	}
}

// stalled is a connection that nothing is written to.
func stalled(t *testing.T) *conn {
	t.Helper()
	h, _ := run(t)
	c := newConn(h, netip.Prefix{}, func() {})
	c.socket, c.drained = &socket{Conn: &net.TCPConn{}}, make(chan struct{})
	return c
}

func TestQueueIsShared(t *testing.T) {
	c := stalled(t)
	fill := func(author byte) (bytes int) {
		for ; c.deliver(wire.ID{author}, make([]byte, 1000)); bytes += 1000 {
		}
		return bytes
	}
	all := c.hub.timing.queueBytes
	if n := fill(0); n < all/5 || n > all/4 {
		t.Fatalf("one author has %d bytes of %d", n, all)
	}
	for author := range byte(9) {
		fill(author + 1)
	}
	if !c.deliver(wire.ID{10}, make([]byte, 12_000)) { // the longest there is in practice is an Offer
		t.Fatal("the others of a full room leave nothing for the last one")
	}
	if c.why != nil {
		t.Fatalf("stopped: %+v", c.why)
	}
	c.send([]byte{byte(wire.HubPong)})
	if c.why != nil || c.control == 0 {
		t.Fatal("envelopes leave no room for what must be told")
	}
	c.mu.Lock()
	c.clear()
	c.mu.Unlock()
	if c.envelopes != 0 || c.control != 0 || len(c.authors) != 0 || c.hub.memory.used.Load() != 0 {
		t.Fatalf("%d and %d bytes, %d authors, %d bytes in all are left", c.envelopes, c.control, len(c.authors), c.hub.memory.used.Load())
	}
}

func TestWhatMustBeToldIsBounded(t *testing.T) {
	for most, code := range map[int]wire.ClosingCode{1 << 30: wire.ClosingRateLimited, 10_000: wire.ClosingServerFull} {
		c := stalled(t)
		c.hub.timing.totalBytes = most
		sent := 0
		for ; c.why == nil && sent < 2*mostControl; sent += 1000 {
			c.send(make([]byte, 1000))
		}
		if c.why == nil || c.why.Code != code || c.why.RetryAfter == 0 {
			t.Errorf("after %d bytes: %+v, want code %d", sent, c.why, code)
		}
		if n := c.hub.memory.used.Load(); n != 0 {
			t.Errorf("%d bytes are left", n)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const most = 400_000
	h, url := run(t, func(_ *Config, o *timing) {
		patient(o)
		o.queueBytes, o.totalBytes = 100*most, most
	})
	a := enter(t, url, roomA, alice)
	b := enter(t, url, roomA, bob)
	a.presence(wire.HubPresent, bob)
	b.nc.(*net.TCPConn).SetReadBuffer(4096)
	a.flood(h, bob)
	// Neither a message being read nor what must be told falls to what can be dropped.
	if s := h.Stats(); s.Waiting > most {
		t.Fatalf("%d bytes wait", s.Waiting)
	}
	a.tell(wire.ID{99}, strings.Repeat("x", 60_000))
	a.alive()

	// Beyond the budget there are no long messages, only short ones.
	b.nc.Close()
	a.presence(wire.HubAbsent, bob)
	eventually(t, func() bool { return h.Stats().Waiting == 0 })
	h.memory.take(most-10_000, most)
	a.alive()
	a.tell(carol, strings.Repeat("x", 60_000))
	a.closing(wire.ClosingServerFull)
	h.memory.giveBack(most - 10_000)
	eventually(t, func() bool { return h.Stats().Waiting == 0 })
}

// The library answers WebSocket pings, which must find no deadline of an earlier message.
func TestWebSocketPing(t *testing.T) {
	_, url := run(t, func(_ *Config, o *timing) { o.write = 500 * time.Millisecond })
	c := enter(t, url, roomA, alice)
	time.Sleep(600 * time.Millisecond)
	ponged := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		ponged <- c.ws.Ping(ctx)
	}()
	// The answer is read with whatever comes next.
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	go func() {
		select {
		case err := <-ponged:
			ponged <- err
			c.ws.Write(ctx, websocket.MessageBinary, []byte{byte(wire.HubPing)})
		case <-ctx.Done():
		}
	}()
	if _, p, err := c.ws.Read(ctx); err != nil || wire.ParseBare(p, wire.HubPong) != nil {
		t.Fatalf("%x, %v", p, err)
	}
	if err := <-ponged; err != nil {
		t.Fatal(err)
	}
}

func TestWebSocketPingsAreCounted(t *testing.T) {
	_, url := run(t, func(_ *Config, o *timing) { o.messages, o.messageBurst = 0.001, 6 })
	c := enter(t, url, roomA, alice)
	ctx, cancel := context.WithCancel(t.Context())
	var pings sync.WaitGroup
	for range 20 {
		pings.Go(func() { c.ws.Ping(ctx) })
	}
	c.closing(wire.ClosingRateLimited)
	cancel()
	pings.Wait()
}

func TestSilence(t *testing.T) {
	_, url := run(t, func(_ *Config, o *timing) { o.enter = 50 * time.Millisecond })
	dial(t, url).closing(wire.ClosingIdle)

	_, url = run(t, func(_ *Config, o *timing) { o.idle = 2 * time.Second })
	c := enter(t, url, roomA, alice)
	for range 4 {
		time.Sleep(600 * time.Millisecond)
		c.alive()
	}
	if m := c.closing(wire.ClosingIdle); m.RetryAfter == 0 {
		t.Fatal("says not to come again")
	}
}

func TestMessageThatNeverEnds(t *testing.T) {
	_, url := run(t, func(_ *Config, o *timing) { o.message = 100 * time.Millisecond })
	c := enter(t, url, roomA, alice)
	w, err := c.ws.Writer(t.Context(), websocket.MessageBinary)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 10_000)); err != nil { // beyond what the client's side holds back
		t.Fatal(err)
	}
	c.closing(wire.ClosingIdle)
}

// Fragments make a message no longer where they are empty, and frames all the same.
func TestFragmentsWithoutEnd(t *testing.T) {
	_, url := run(t, func(_ *Config, o *timing) { o.bytes, o.byteBurst = 0.001, 200_000 })
	a := enter(t, url, roomA, alice)
	c := enter(t, url, roomA, bob)
	a.presence(wire.HubPresent, bob)
	var flood sync.WaitGroup
	flood.Go(func() {
		first, more := []byte{byte(websocket.MessageBinary), 0x80, 0, 0, 0, 0}, []byte{0, 0x80, 0, 0, 0, 0}
		_, err := c.nc.Write(first)
		for err == nil { // until the hub closes
			_, err = c.nc.Write(bytes.Repeat(more, 1000))
		}
	})
	c.closing(wire.ClosingRateLimited)
	flood.Wait()
	a.presence(wire.HubAbsent, bob)
	a.alive()
}

// To a wrong token there is one answer, whatever else is right or wrong and whoever is there, and nothing comes of it.
func TestGuesserLearnsNothing(t *testing.T) {
	h, url := run(t)
	dave, stranger := wire.ID{4}, wire.ID{5}
	guess := func(what string, room wire.ID) {
		t.Helper()
		before, known := h.Stats(), h.known(room)
		for name, m := range map[string]wire.Enter{
			"a stranger": {Member: stranger, Claim: claimOf(stranger)},
			"a member":   {Member: alice, Claim: claimOf(alice)},
			"its claim":  {Member: alice, Claim: wire.ID{0xbd}},
		} {
			for i, wrong := range []wire.Hash{{}, {0x5e, 1}, {0x5f}, {0x5e, 31: 1}} {
				m.Room, m.Token = room, wrong
				c := dial(t, url)
				c.send(m.Append(nil))
				if got := c.closing(wire.ClosingForbidden); got != (wire.Closing{Code: wire.ClosingForbidden, Reason: "token does not match"}) {
					t.Errorf("%s, as %s, guess %d: %+v", what, name, i, got)
				}
			}
		}
		eventually(t, func() bool { return h.Stats().Connections == before.Connections })
		if s := h.Stats(); s.Rooms != before.Rooms || s.Members != before.Members || !maps.Equal(h.known(room), known) {
			t.Errorf("%s: a guess changed %+v into %+v", what, before, s)
		}
	}
	a := enter(t, url, roomA, alice)
	guess("a room with a place", roomA)
	members := []*client{enter(t, url, roomA, bob), enter(t, url, roomA, carol)}
	guess("a full room", roomA)
	a.presence(wire.HubPresent, bob)
	a.presence(wire.HubPresent, carol)
	a.alive() // and has heard of nobody else
	gone := enter(t, url, roomB, dave)
	gone.ws.Close(websocket.StatusNormalClosure, "")
	eventually(t, func() bool { return h.Stats().Members == 1+len(members) })
	guess("a room that is remembered", roomB)
}

func TestClose(t *testing.T) {
	h, url := run(t)
	a := enter(t, url, roomA, alice)
	b := enter(t, url, roomA, bob)
	a.presence(wire.HubPresent, bob)
	a.tell(bob, "last words")
	b.told(alice, "last words")

	var closed bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		defer cancel()
		h.Close(ctx)
		closed = ctx.Err() == nil
	}()
	if m := a.closing(wire.ClosingShuttingDown); m.RetryAfter < 1 || m.RetryAfter > 3 {
		t.Fatalf("come again after %d s", m.RetryAfter)
	}
	// b may have been told first that a is gone.
	p := b.next()
	if wire.TypeOf(p) == wire.HubAbsent {
		p = b.next()
	}
	if m, err := wire.ParseClosing(p); err != nil || m.Code != wire.ClosingShuttingDown {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, _, err := b.ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Fatal(err)
	}
	<-done
	if !closed {
		t.Fatal("connections that answered had to be cut")
	}
	if n := h.Stats().Connections; n != 0 {
		t.Fatalf("%d connections are left", n)
	}
	dial(t, url).closing(wire.ClosingShuttingDown)
}

func TestCloseIsBounded(t *testing.T) {
	h, url := run(t, func(_ *Config, o *timing) { o.farewell = time.Minute })
	c := enter(t, url, roomA, alice) // and does not answer the close
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	h.Close(ctx)
	if d := time.Since(start); d > 30*time.Second {
		t.Fatalf("took %v", d)
	}
	c.closing(wire.ClosingShuttingDown)
}

// What was written last arrives although the peer was still sending.
func TestSocketCloseLosesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	peer, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := &socket{Conn: accepted}
	s.linger.Store(int64(200 * time.Millisecond))
	if _, err := peer.Write(make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(peer); err != nil || string(b) != "bye" {
		t.Fatalf("%q, %v", b, err)
	}
}

// A request that says nothing about WebSockets is answered, not hung up on.
func TestPlainRequest(t *testing.T) {
	h, url := run(t)
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusUpgradeRequired || h.Stats().Connections != 0 {
		t.Fatalf("status %d", res.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestNothingIsLoggedAboutMembers(t *testing.T) {
	var log bytes.Buffer
	h, url := run(t, func(c *Config, _ *timing) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	a := enter(t, url, roomA, alice)
	a.tell(alice, "to myself")
	a.told(alice, "to myself")
	a.send([]byte{0x7f})
	a.closing(wire.ClosingBadRequest)
	h.Close(t.Context())
	if log.Len() > 0 {
		t.Fatalf("logged: %s", log.String())
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{{MaxMembers: 1, MaxRooms: 1}, {MaxMembers: MaxMembersLimit + 1, MaxRooms: 1}, {MaxMembers: 2}} {
		if _, err := New(t.Context(), cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
	// What tells the members of each other and of the ICE servers fits into a message.
	for servers, ok := range map[int]bool{1: true, 16: false} {
		_, err := New(t.Context(), Config{MaxMembers: MaxMembersLimit, MaxRooms: 1, ICEServers: func(_, _ wire.ID, _ time.Time) wire.ICEServers {
			url := "turn:" + strings.Repeat("x", 500)
			return wire.ICEServers{Servers: slices.Repeat([]wire.ICEServer{{URLs: []string{url, url, url, url, url}}}, servers)}
		}})
		if (err == nil) != ok {
			t.Errorf("with %d ICE servers: %v", servers, err)
		}
	}
}
