// Package hub introduces the members of a room to each other: it relays their sealed envelopes, says who is there, and
// forgets. It follows PROTOCOL.md section 4 and reads nothing but what stands there.
//
// All of its state is in memory: rooms, and in each the hash of its token and the hash of each member's claim. A
// connection has a reading goroutine, and a writing one only while something waits to be written.
package hub

import (
	"container/list"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"tallow/internal/core/wire"
	"tallow/server/limit"
)

// MaxMembersLimit is the most that Config.MaxMembers may be: what fits into an Entered.
const MaxMembersLimit = 2048

// Config is what a hub needs. Every field but Origins must be set.
type Config struct {
	MaxMembers int                                                       // present in a room at the same time, 2 to MaxMembersLimit
	MaxRooms   int                                                       // remembered at the same time, empty ones included
	Gate       *limit.Gate                                               // bounds connections
	Origins    []string                                                  // of pages that may connect, besides the same origin: "https://host", or "*"
	ClientAddr func(*http.Request) netip.Addr                            // whose share a connection counts to
	ICEServers func(room, member wire.ID, now time.Time) wire.ICEServers // offered to a member; called from many goroutines
	Log        *slog.Logger                                              // gets no ids, addresses, tokens or envelopes
}

// timing is separate from Config so that tests can be quick; the values of the protocol are in New.
type timing struct {
	enter    time.Duration // from connection to Enter
	idle     time.Duration // silence
	message  time.Duration // from the first to the last byte of a message
	write    time.Duration // one message into the socket
	farewell time.Duration // for Closing, and again for the peer's answer to the close
	forget   time.Duration // an empty room is remembered
	hold     time.Duration // the place of a member whose connection broke is kept from strangers
	remember time.Duration // the claim of an absent member counts, at least, while its room lives

	messages, messageBurst float64 // per second and connection
	bytes, byteBurst       float64
	queueBytes             int // of envelopes waiting for one connection
	totalBytes             int // waiting for all connections, and being read from them
}

// Hub is a signaling hub. It serves WebSocket requests as an http.Handler.
type Hub struct {
	cfg    Config
	timing timing
	ctx    context.Context // never ends: deadlines are the socket's, which costs an idle connection nothing
	counts counts
	memory budget // of what waits for connections, and of long messages being read

	origins  []string      // patterns
	refusals chan struct{} // bounds connections that are told why they get no place

	mu       sync.Mutex
	closed   bool
	conns    map[*conn]struct{}
	rooms    map[wire.ID]*room
	empty    list.List // of the rooms in which nobody is, the longest empty one first
	running  sync.WaitGroup
	occupied int // members present, over all rooms
}

// room is guarded by its hub's mutex.
type room struct {
	id      wire.ID
	token   wire.Hash // of the join token
	seats   []seat    // of members known: those present, and those whose claim is remembered; see Hub.sit
	present int
	emptied time.Time
	empty   *list.Element // place in Hub.empty, or nil
}

type seat struct {
	member wire.ID
	claim  wire.Hash    // of the claim
	from   netip.Prefix // to whose share of the room's seats it counts
	conn   *conn        // nil when the member is not present
	left   time.Time
	held   time.Time // until when its place is kept from strangers
}

type counts struct {
	relayed, relayedBytes, absent, dropped atomic.Uint64
	closings                               [closingCodes]atomic.Uint64
}

const (
	closingCodes = int(wire.ClosingServerFull) + 1
	mostRefusals = 64

	// A room knows up to knownPerPlace members for each that can be present, and up to newPerPlace that first came from one
	// address, so that it takes several addresses to leave no seat. Small rooms count as if they had leastPlaces.
	knownPerPlace, newPerPlace, leastPlaces = 8, 2, 8
	// tolerance is how many places beyond MaxMembers there are for members whose own have been taken meanwhile.
	tolerance = 1
)

// literal makes of an origin the pattern that matches it alone (path.Match).
var literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// New makes a hub. The context carries values only; a hub ends by Close.
func New(ctx context.Context, cfg Config) (*Hub, error) {
	if cfg.MaxMembers < 2 || cfg.MaxMembers > MaxMembersLimit {
		return nil, fmt.Errorf("hub: a room can have 2 to %d members, not %d", MaxMembersLimit, cfg.MaxMembers)
	}
	if cfg.MaxRooms < 1 {
		return nil, fmt.Errorf("hub: there must be room for a room")
	}
	// The longest message that depends on the configuration alone; credentials are as long for one member as for another.
	longest := wire.Entered{ICE: cfg.ICEServers(wire.ID{}, wire.ID{}, time.Now()), Present: make([]wire.ID, cfg.MaxMembers+tolerance-1)}
	if n := len(longest.Append(nil)); n > wire.MaxHubMessage {
		return nil, fmt.Errorf("hub: telling %d members of the ICE servers takes %d bytes, and a message can have %d: fewer of either are needed",
			cfg.MaxMembers, n, wire.MaxHubMessage)
	}
	origins := make([]string, len(cfg.Origins))
	for i, o := range cfg.Origins {
		if origins[i] = o; o != "*" {
			origins[i] = literal.Replace(o)
		}
	}
	return &Hub{
		cfg:     cfg,
		origins: origins,
		timing: timing{
			enter: 10 * time.Second, idle: 60 * time.Second, message: 10 * time.Second, write: 10 * time.Second,
			farewell: time.Second, forget: 10 * time.Minute, hold: 2 * time.Minute, remember: 10 * time.Minute,
			messages: 200, messageBurst: 1000, bytes: 8 << 20, byteBurst: 8 << 20, queueBytes: 1 << 20, totalBytes: 256 << 20,
		},
		ctx:      context.WithoutCancel(ctx),
		refusals: make(chan struct{}, mostRefusals),
		conns:    make(map[*conn]struct{}),
		rooms:    make(map[wire.ID]*room),
	}, nil
}

// ServeHTTP makes the request a connection of the hub, which lives on after it returns.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	addr := h.cfg.ClientAddr(r)
	var refusal *wire.Closing
	release := func() { h.cfg.Gate.Release(addr) }
	if err := h.cfg.Gate.Take(addr); err != nil {
		// A browser shows a page no HTTP status of a WebSocket: who is refused is told inside one, as long as that costs little.
		select {
		case h.refusals <- struct{}{}:
		default:
			w.Header().Set("Retry-After", "30")
			http.Error(w, "server is full", http.StatusServiceUnavailable)
			return
		}
		release = func() { <-h.refusals }
		refusal = refuse(err)
	}
	c := newConn(h, limit.Customer(addr), release)
	hijacked := &hijacker{ResponseWriter: w, count: c.countBytes}
	ws, err := websocket.Accept(hijacked, r, &websocket.AcceptOptions{
		Subprotocols:   []string{wire.HubSubprotocol},
		OriginPatterns: h.origins,
		OnPingReceived: func(context.Context, []byte) bool { return c.countFrame() },
		OnPongReceived: func(context.Context, []byte) { c.countFrame() },
	})
	if err != nil {
		h.cfg.Log.Debug("no WebSocket", "error", err)
		release()
		return
	}
	ws.SetReadLimit(-1) // conn checks it: the library would close with a status that browsers lose
	if refusal == nil && ws.Subprotocol() == "" {
		refusal = &wire.Closing{Code: wire.ClosingUnsupportedVersion, Reason: "subprotocol " + wire.HubSubprotocol + " is needed"}
	}
	c.ws, c.socket = ws, hijacked.socket
	h.start(c, refusal)
}

func refuse(err error) *wire.Closing {
	if err == limit.ErrAddress {
		return closing(wire.ClosingRateLimited, "too many connections from this address")
	}
	return closing(wire.ClosingServerFull, "no place for another connection")
}

func (h *Hub) start(c *conn, refusal *wire.Closing) {
	h.mu.Lock()
	if h.closed {
		refusal = closing(wire.ClosingShuttingDown, "shutting down")
	}
	h.conns[c] = struct{}{}
	// Close waits under the same lock, so none starts after the wait has.
	h.running.Add(1)
	h.mu.Unlock()
	go func() {
		defer h.running.Done()
		c.run(refusal)
		h.mu.Lock()
		delete(h.conns, c)
		h.mu.Unlock()
	}()
}

// Close tells every connection that the hub is shutting down and when to come again, and closes it. It returns when all
// have ended; those that have not when ctx ends are cut off.
func (h *Hub) Close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	for c := range h.conns {
		c.stop(closing(wire.ClosingShuttingDown, "shutting down"))
	}
	h.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.running.Wait()
	}()
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	h.mu.Lock()
	for c := range h.conns {
		c.cut()
	}
	h.mu.Unlock()
	<-ended
}

// enter gives c a place in a room, tells it who is there and the others that it came, or says why not.
func (h *Hub) enter(c *conn, m wire.Enter) *wire.Closing {
	token, claim := wire.Hash(sha256.Sum256(m.Token[:])), wire.Hash(sha256.Sum256(m.Claim[:]))
	now := time.Now()
	ice := h.cfg.ICEServers(m.Room, m.Member, now)

	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgetUntil(now.Add(-h.timing.forget))
	r := h.rooms[m.Room]
	switch {
	case r == nil:
		if len(h.rooms) >= h.cfg.MaxRooms && !h.forgetOne() {
			return closing(wire.ClosingServerFull, "no place for another room")
		}
		r = &room{id: m.Room, token: token}
		h.rooms[m.Room] = r
	case !same(r.token, token):
		return closing(wire.ClosingForbidden, "token does not match")
	}
	s := r.seat(m.Member)
	switch {
	case s != nil && !same(s.claim, claim):
		return closing(wire.ClosingForbidden, "claim does not match")
	case s == nil && r.taken(now) >= h.cfg.MaxMembers:
		return closing(wire.ClosingRoomFull, "room is full")
	case s == nil:
		var why *wire.Closing
		if s, why = h.sit(r, seat{member: m.Member, claim: claim, from: c.from}, now); why != nil {
			return why
		}
	case !s.takes(now) && r.taken(now) >= h.cfg.MaxMembers+tolerance:
		// It belongs here, so it is not for the person to try again.
		return fullForNow("room is full for the moment")
	}
	if s.conn != nil {
		s.conn.stop(closing(wire.ClosingReplaced, "the member entered again"))
	} else {
		r.present++
		h.occupied++
	}
	s.conn = c
	c.room, c.member = r, m.Member
	if r.empty != nil {
		h.empty.Remove(r.empty)
		r.empty = nil
	}

	entered := wire.Entered{MaxMembers: uint16(h.cfg.MaxMembers), ICE: ice}
	present := wire.AppendPresence(nil, wire.HubPresent, m.Member)
	for i := range r.seats {
		if o := &r.seats[i]; o.conn != nil && o.conn != c {
			entered.Present = append(entered.Present, o.member)
			o.conn.send(present)
		}
	}
	c.send(entered.Append(nil))
	return nil
}

// leave takes c's place away, unless another connection has it by now, and tells the others.
func (h *Hub) leave(c *conn) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgetUntil(now.Add(-h.timing.forget))
	r := c.room
	if r == nil {
		return
	}
	s := r.seat(c.member)
	if s == nil || s.conn != c {
		return
	}
	s.conn, s.left, s.held = nil, now, now
	if !c.resigned {
		s.held = now.Add(h.timing.hold)
	}
	r.present--
	h.occupied--
	if r.present == 0 {
		r.emptied = now
		r.empty = h.empty.PushBack(r)
		return
	}
	absent := wire.AppendPresence(nil, wire.HubAbsent, c.member)
	for i := range r.seats {
		if o := r.seats[i].conn; o != nil {
			o.send(absent)
		}
	}
}

// deliver passes an envelope from c on to a member of its room. It is the only way that an envelope takes.
func (h *Hub) deliver(c *conn, to wire.ID, envelope []byte) {
	message := wire.Relay{Member: c.member, Envelope: envelope}.Append(make([]byte, 0, 1+len(to)+len(envelope)), wire.HubDeliver)
	h.mu.Lock()
	var addressee *conn
	if s := c.room.seat(to); s != nil {
		addressee = s.conn
	}
	h.mu.Unlock()
	if addressee == nil {
		h.counts.absent.Add(1)
		return
	}
	if !addressee.deliver(c.member, message) {
		h.counts.dropped.Add(1)
		return
	}
	h.counts.relayed.Add(1)
	h.counts.relayedBytes.Add(uint64(len(message)))
}

// forgetUntil forgets the rooms that have been empty since the time given or longer. The caller holds the mutex.
func (h *Hub) forgetUntil(t time.Time) {
	for e := h.empty.Front(); e != nil && !e.Value.(*room).emptied.After(t); e = h.empty.Front() {
		h.forgetOne()
	}
}

// forgetOne forgets the room that has been empty longest, and reports whether there was one. The caller holds the mutex.
func (h *Hub) forgetOne() bool {
	e := h.empty.Front()
	if e == nil {
		return false
	}
	delete(h.rooms, h.empty.Remove(e).(*room).id)
	return true
}

// seat is the place of a member, valid until the next sit, or nil if the room does not know it.
func (r *room) seat(member wire.ID) *seat {
	for i := range r.seats {
		if r.seats[i].member == member {
			return &r.seats[i]
		}
	}
	return nil
}

// takes reports whether a stranger finds the place of this member taken.
func (s *seat) takes(now time.Time) bool { return s.conn != nil || now.Before(s.held) }

// taken is how many places are.
func (r *room) taken(now time.Time) (n int) {
	for i := range r.seats {
		if r.seats[i].takes(now) {
			n++
		}
	}
	return n
}

// sit adds a seat for a member that the room does not know, or says why it cannot. It forgets nobody's claim but that of
// one who has been absent for long, and that only where a seat is needed: whoever could make the hub forget a claim could
// enter in that member's place. The caller holds the mutex.
func (h *Hub) sit(r *room, s seat, now time.Time) (*seat, *wire.Closing) {
	places := max(leastPlaces, h.cfg.MaxMembers)
	ofAddress := 0
	var oldest, oldestOfAddress *seat
	older := func(o, than *seat) bool { return than == nil || o.left.Before(than.left) }
	for i := range r.seats {
		o := &r.seats[i]
		forgettable := o.conn == nil && now.Sub(o.left) >= h.timing.remember
		if forgettable && older(o, oldest) {
			oldest = o
		}
		if o.from != s.from {
			continue
		}
		ofAddress++
		if forgettable && older(o, oldestOfAddress) {
			oldestOfAddress = o
		}
	}
	switch {
	case ofAddress >= newPerPlace*places:
		if oldestOfAddress == nil {
			return nil, closing(wire.ClosingRateLimited, "too many new members from this address")
		}
		*oldestOfAddress = s
		return oldestOfAddress, nil
	case len(r.seats) >= knownPerPlace*places:
		if oldest == nil {
			return nil, fullForNow("too many new members")
		}
		*oldest = s
		return oldest, nil
	default:
		r.seats = append(r.seats, s)
		return &r.seats[len(r.seats)-1], nil
	}
}

func same(a, b wire.Hash) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// closing is a Closing with the delay after which it makes sense to come again, if it does without the person.
func closing(code wire.ClosingCode, reason string) *wire.Closing {
	m := &wire.Closing{Code: code, Reason: reason}
	switch code {
	case wire.ClosingShuttingDown:
		m.RetryAfter = 1 + rand.Uint32N(3) // spread, or all come back at once
	case wire.ClosingRateLimited:
		m.RetryAfter = 5 + rand.Uint32N(6)
	case wire.ClosingServerFull:
		m.RetryAfter = whenFull()
	case wire.ClosingIdle:
		m.RetryAfter = 1
	}
	return m
}

// fullForNow is a room-full for whom the place will be free: it says when to come again.
func fullForNow(reason string) *wire.Closing {
	return &wire.Closing{Code: wire.ClosingRoomFull, Reason: reason, RetryAfter: whenFull()}
}

func whenFull() uint32 { return 20 + rand.Uint32N(21) }

// Stats are a hub's numbers at one moment; those that only grow count from its start.
type Stats struct {
	Connections, Rooms, Members int

	Relayed, RelayedBytes uint64                      // envelopes passed on, and their messages' bytes
	Absent                uint64                      // envelopes whose addressee was not there
	Dropped               uint64                      // envelopes for which the addressee's queue, or the hub's memory, had no room
	Waiting               int64                       // bytes that wait to be written, and of long messages being read
	Closings              map[wire.ClosingCode]uint64 // by code, 0 for connections that the client ended
}

// Stats are the hub's numbers.
func (h *Hub) Stats() Stats {
	s := Stats{
		Relayed: h.counts.relayed.Load(), RelayedBytes: h.counts.relayedBytes.Load(), Absent: h.counts.absent.Load(),
		Dropped: h.counts.dropped.Load(), Waiting: h.memory.used.Load(), Closings: make(map[wire.ClosingCode]uint64, closingCodes),
	}
	for code := range h.counts.closings {
		s.Closings[wire.ClosingCode(code)] = h.counts.closings[code].Load()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forgetUntil(time.Now().Add(-h.timing.forget))
	s.Connections, s.Rooms, s.Members = len(h.conns), len(h.rooms), h.occupied
	return s
}
