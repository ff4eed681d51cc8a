package room

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// The routes of a link.
const (
	routeDirect = "direct"
	routeRelay  = "relay"
)

const (
	// pingEvery is how often an open link is asked for a sign of life. One that gives none for silence after a Ping is lost; one that is in
	// doubt by then, when its restarts have come to nothing.
	pingEvery = 2 * time.Second
	silence   = 10 * time.Second
	// maxLapse is how much of the time between two ticks counts as silence: after a long one it is we who were not there.
	maxLapse = 3 * time.Second
	// flowing is how many bytes the transport must have received between two looks to be taken for a sign of life: over a
	// slow path a record takes longer than silence lasts.
	flowing = 2048
	// connTimeout bounds one operation on a connection, such as making an offer.
	connTimeout = 20 * time.Second
	// maxVerified is how many members that have left are remembered as verified, maxConduct how many for their offences.
	maxVerified = 1024
	maxConduct  = 1024
)

// member is another member of the room. It belongs to the loop.
type member struct {
	id          wire.ID
	hash        wire.Hash
	name        string
	negotiation *peer.Negotiation
	conns       map[uint32]*connection
	link        *peer.Link // open, or nil
	started     bool
	verified    bool
	words       [4]string
	since       time.Time                    // of the present lack of a link
	joined      time.Time                    // when it last sent a join (known to the owner)
	shown       shown                        // as last reported
	sent        map[wire.PayloadType]wire.ID // the newest envelope of each kind that another one of the kind supersedes
	checks      *rate.Limiter                // of signatures in its envelopes
	withdrawals *rate.Limiter                // of offers of its own
	carried     carried                      // manual rooms

	quality *peer.QualityMeter
	pings   [maxPings]ping // the last ones, by token
	ping    uint64         // the token of the newest
	pinged  time.Time      // when it was sent
	pingOut bool           // and nothing has come since
	heard   time.Time
	quiet   time.Duration // since the Ping that is out, as far as we were there to hear
	ticked  time.Time
	figures // see stats.go
	path    path
}

func newMember(r *Room, id wire.ID, hash wire.Hash) *member {
	m := &member{id: id, hash: hash, conns: map[uint32]*connection{}, sent: map[wire.PayloadType]wire.ID{}, since: r.cfg.Now(),
		verified: r.verified[hash], checks: newChecks(), withdrawals: rate.NewLimiter(withdrawalsEach, withdrawalsBurst), quality: peer.NewQualityMeter(r.cfg.Quality),
		negotiation: peer.NewNegotiation(peer.NegotiationConfig{Room: r.keys, Self: r.identity, Peer: id, PeerKeyHash: hash,
			Epoch: r.roster.Epoch, Conduct: r.conduct[hash], Manual: r.cfg.Manual, ReconnectAttempts: r.cfg.ReconnectAttempts,
			Capabilities: r.capabilities()})}
	m.negotiation.SetAway(r.away())
	delete(r.verified, hash)
	delete(r.conduct, hash)
	return m
}

func (m *member) open() bool { return m.link != nil }

// current is the connection of the open link, or nil.
func (m *member) current() *connection {
	if m.link == nil {
		return nil
	}
	return m.conns[m.negotiation.OpenAttempt()]
}

// expected reports whether there is a link, or one is being made and has not come to nothing so far.
func (m *member) expected() bool {
	state, _ := m.negotiation.State()
	return state == peer.LinkOpen || state == peer.LinkConnecting
}

// inflates reports whether the member takes compressed chunks.
func (m *member) inflates() bool { return m.link.PeerCapabilities()&wire.CapabilityDeflate != 0 }

// start brings a link about, if there is none, and tries the one that there is: the network may have come back.
func (m *member) start(r *Room) {
	m.started = true
	m.renew(r)
}

// payload takes what one of the member's envelopes held.
func (m *member) payload(r *Room, t wire.PayloadType, body []byte, pair bool) bool {
	effects, acknowledge := m.negotiation.Receive(r.cfg.Now(), t, body, pair)
	m.do(r, effects)
	return acknowledge
}

// removed ends everything with a member that is no longer in the roster: the owner has removed it, or dropped it because
// it had gone.
func (m *member) removed(r *Room) {
	// Only the owner knows which it was; the roster may overtake the goodbye of a member that has left.
	code, bye := fault.PeerGone, fault.PeerGone
	if r.owner != nil && r.owner.isRemoved(m.id) {
		code, bye = fault.Removed, fault.Removed
	} else if r.owner == nil && m.open() {
		bye = fault.Removed
	}
	if m.verified && len(r.verified) < maxVerified {
		r.verified[m.hash] = true
	}
	m.unlink(r)
	r.linkDown(m, true, code)
	m.do(r, m.negotiation.Close(r.cfg.Now(), bye))
	r.remember(m.hash, m.negotiation.Conduct())
	r.outbox.Forget(m.id)
	last := m.snapshot(r)
	last.State = PeerClosed
	r.event(PeerLeft{last})
}

// remember keeps what a member that leaves has done, so that to join again is no way out of a penalty. Of too many, the one whose penalty
// ends first is forgotten.
func (r *Room) remember(who wire.Hash, conduct peer.Conduct) {
	if conduct.Offences == 0 {
		return
	}
	r.conduct[who] = conduct
	if len(r.conduct) > maxConduct {
		first := who
		for h, c := range r.conduct {
			if c.Barred.Before(r.conduct[first].Barred) {
				first = h
			}
		}
		delete(r.conduct, first)
	}
}

// shut says goodbye.
func (m *member) shut(r *Room) {
	m.negotiation.Close(r.cfg.Now(), fault.RoomClosed) // its effects are what follows, with another goodbye
	for _, c := range m.conns {
		c.end(wire.ByeLeft)
	}
	m.link = nil
}

// goodbye takes a Bye that came over a connection.
func (m *member) goodbye(r *Room, c *connection, code wire.ByeCode) {
	switch code {
	case wire.ByeReplaced:
		if !c.negotiation.Underway() { // else by the newer link, which opens about now and closes this one
			m.do(r, c.negotiation.Left(r.cfg.Now(), c.number))
		}
		return
	case wire.ByeViolation:
		m.violated(r, c)
		return
	case wire.ByeRemoved:
		if m.id == r.link.Owner {
			r.close(fault.Removed)
		} else if r.owner == nil {
			r.sendJoin() // a newer roster lacks us: if that is not because the owner wants it so, we are admitted again
		}
	case wire.ByeLeft:
		if c.negotiation.Underway() { // it is back already, and the goodbye is that of the page before
			r.linkDown(m, true, fault.PeerGone)
			m.do(r, c.negotiation.Left(r.cfg.Now(), c.number))
			return
		}
		if r.owner != nil && !m.joined.After(c.openedAt) {
			r.owner.drop(m.id)
		}
	}
	m.rest(r, fault.PeerGone) // what it says if it comes back begins anew
}

// violated ends a link over which either end has broken the protocol, and the transfers over it. If the link is the member's no more, say because the peer
// has called it lost in the meantime, the peer is left alone all the same.
func (m *member) violated(r *Room, c *connection) {
	if c.violated || r.state == StateClosed {
		return // each link counts once
	}
	c.violated = true
	r.event(Problem{fault.ProtocolViolation, m.id.String()})
	if m.conns[c.number] == c {
		r.linkDown(m, true, fault.ProtocolViolation)
		m.do(r, c.negotiation.Failed(r.cfg.Now(), c.number, fault.ProtocolViolation))
		return
	}
	present := r.members[m.id]
	if present == nil { // it has left
		conduct, again := r.conduct[m.hash] // it may have been back, and have left with more
		if !again {
			conduct = m.negotiation.Conduct()
		}
		conduct.Offend(r.cfg.Now())
		r.remember(m.hash, conduct)
		return
	}
	present.do(r, present.negotiation.Offended(r.cfg.Now()))
}

func (m *member) setICE(r *Room, ice wire.ICEServers) {
	for _, c := range m.conns {
		c.relayOnly = c.relayOnly && r.relayOnly() // a demand that is lifted binds nobody
		c.work(func() {
			c.try(func(ctx context.Context) error { return c.conn.SetICEServers(ctx, ice) })
		})
	}
}

// unlink notes that there is no link any more.
func (m *member) unlink(r *Room) {
	if m.link == nil {
		return
	}
	m.link, m.since, m.lastRTT = nil, r.cfg.Now(), 0
	m.pings, m.pingOut = [maxPings]ping{}, false
	m.quality.Closed()
	m.traffic.Closed(m.since)
	r.box.post(r.balance) // the others may have waited for it
}

func (m *member) tick(r *Room, now time.Time) {
	m.do(r, m.negotiation.Tick(now))
	if r.cfg.Manual {
		r.tickCarried(m, now)
	}
	m.quality.Tick(now)
	if m.link == nil {
		return
	}
	since := m.ticked
	if m.pinged.After(since) { // what passed before the Ping that is out is no silence
		since = m.pinged
	}
	lapse := min(max(now.Sub(since), 0), maxLapse)
	m.ticked = now
	if m.pingOut {
		m.quiet += lapse
		m.path.still += lapse
	} else {
		m.quiet, m.path.still = 0, 0
	}
	switch {
	case m.quiet > silence && (!m.negotiation.Doubted() || m.quiet > silence+m.negotiation.Patience()):
		m.link.Abort(fault.Newf(fault.PeerGone, "room: silence"))
	case !m.pingOut && m.pingDue(now):
		m.sendPing(now)
	}
	m.watchPath(r)
	if m.lookDue(now) && !m.looking {
		m.statsAt = now
		m.look(r, func() { m.looked(r, m.received) })
	}
}

func (m *member) pong(now time.Time, token uint64) {
	ping := &m.pings[token%maxPings]
	if token == 0 || ping.token != token {
		return
	}
	ping.token = 0 // each counts once
	m.lastRTT = max(now.Sub(ping.sent), 1)
	m.link.Measured(m.lastRTT)
	if m.volume() >= ping.volume+load || m.link.Conn().Channel(wire.Bulk).Buffered() >= load {
		m.quality.Loaded(now)
	}
	m.quality.Pong(ping.sent, now)
}

var peerStates = map[peer.LinkState]PeerState{
	peer.LinkConnecting: PeerConnecting,
	peer.LinkOpen:       PeerOpen,
	peer.LinkClosing:    PeerClosing,
	peer.LinkClosed:     PeerClosed,
	peer.LinkFailed:     PeerFailed,
}

func (m *member) snapshot(r *Room) Peer {
	p := Peer{ID: m.id.String(), Name: m.name, Owner: m.id == r.link.Owner, Verified: m.verified,
		RTT: milliseconds(m.quality.RTT()), Quality: QualityDisconnected, SafetyWords: []string{}}
	state, code := m.negotiation.State()
	p.State = peerStates[state]
	switch {
	case m.link != nil:
		p.Route, p.Protocol, p.Quality, p.SafetyWords = m.route, m.protocol, qualities[m.quality.Quality()], m.words[:]
	case state == peer.LinkFailed:
		p.Code = code
	}
	return p
}

// do carries out what the negotiation wants.
func (m *member) do(r *Room, effects []peer.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case peer.SendPayload:
			id := r.send(m.id, e.Session, e.Type, e.Body)
			if e.Type != wire.PayloadCandidates {
				r.outbox.Ack(m.id, m.sent[e.Type])
				m.sent[e.Type] = id
			}
		case peer.OpenConn:
			m.openConn(r, e)
		case peer.ApplyAnswer:
			if c := m.conns[e.Attempt]; c != nil {
				c.work(func() { c.negotiate(func(ctx context.Context) error { return c.conn.SetAnswer(ctx, e.SDP) }) })
			}
		case peer.RestartConn:
			if c := m.conns[e.Attempt]; c != nil {
				if e.Offer != "" {
					c.restarted()
				} else {
					m.unsend(r, wire.PayloadRestart) // while this one is being made: whoever took the one before would have it wait
				}
				c.work(func() { c.restart(e) })
			}
		case peer.ApplyRestart:
			if c := m.conns[e.Attempt]; c != nil {
				c.restarted()
				c.work(func() { c.try(func(ctx context.Context) error { return c.conn.SetAnswer(ctx, e.SDP) }) })
			}
		case peer.Violated:
			if c := m.conns[e.Attempt]; c != nil {
				m.violated(r, c)
			}
		case peer.AddCandidates:
			if c := m.conns[e.Attempt]; c != nil {
				c.work(func() {
					for _, candidate := range e.List {
						// A candidate that the platform does not like costs that path only.
						c.try(func(ctx context.Context) error { return c.conn.AddCandidate(ctx, candidate) })
					}
				})
			}
		case peer.StartLink:
			if c := m.conns[e.Attempt]; c != nil {
				c.work(func() { c.startLink(e.Handshake) })
			}
		case peer.CloseConn:
			if c := m.conns[e.Attempt]; c != nil {
				delete(m.conns, e.Attempt)
				if m.link != nil && m.link == c.link {
					m.unlink(r)
					r.linkDown(m, false, e.Code)
				}
				switch e.Code {
				case fault.Removed:
					c.end(wire.ByeRemoved)
				case fault.ProtocolViolation:
					c.end(wire.ByeViolation)
				case fault.Cancelled:
					c.end(wire.ByeRest)
				default:
					c.end(wire.ByeReplaced)
				}
			}
		case peer.StateChanged: // publishChanges compares snapshots, but may come when a goodbye is over already, or another link wanted
			state, _ := m.negotiation.State()
			if state == peer.LinkClosing || state == peer.LinkClosed && r.members[m.id] == m { // else it has left, and its end comes late
				r.publishPeer(m)
			}
		}
	}
}

// sentNoMore has the handshake's envelopes repeated no more: a Hello or Knock that comes now would only bring about another link.
func (m *member) sentNoMore(r *Room) {
	for t := range m.sent {
		m.unsend(r, t)
	}
}

// unsend has the last envelopes of these kinds repeated no more.
func (m *member) unsend(r *Room, kinds ...wire.PayloadType) {
	for _, t := range kinds {
		r.outbox.Ack(m.id, m.sent[t])
		delete(m.sent, t)
	}
}

// connection is one attempt's connection and, later, link. Operations on it block, so a goroutine of its own does them
// in order.
type connection struct {
	room        *Room
	member      *member
	negotiation *peer.Negotiation
	number      uint32
	relayOnly   bool // since it began, and still
	reachable   bool // it has told of a candidate

	ctx      context.Context // of its operations
	cancel   context.CancelFunc
	box      mailbox
	quit     chan struct{}
	once     sync.Once
	accused  sync.Once
	conn     peer.Conn  // the worker's
	worker   *peer.Link // the worker's
	link     *peer.Link // the loop's: the same, once open
	openedAt time.Time
	violated bool
}

func (m *member) openConn(r *Room, e peer.OpenConn) {
	ice, relayOnly := r.ice, r.relayOnly()
	c := &connection{room: r, member: m, negotiation: m.negotiation, number: e.Attempt, relayOnly: relayOnly,
		quit: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(r.ctx)
	c.box.init()
	m.conns[e.Attempt] = c
	r.links.Go(func() {
		for {
			select {
			case <-c.box.ready:
				c.box.run()
			case <-c.quit:
				c.box.run()
				return
			}
		}
	})
	if relayOnly && !hasRelay(ice) {
		c.failed(fault.NoRelay)
		return
	}
	c.work(func() {
		conn, err := r.cfg.NewConn(peer.ConnConfig{ICE: ice, RelayOnly: relayOnly, Pool: r.pool,
			Candidate: func(candidate wire.Candidate) {
				c.post(func() {
					r.candidateTold(candidate.Candidate)
					m.do(r, c.negotiation.LocalCandidate(r.cfg.Now(), c.number, candidate))
					c.reachable = c.reachable || candidate.Candidate != ""
					if !c.reachable && c.relayOnly && c.link == nil { // no relay answers, and nothing else will do
						c.failed(fault.ConnectionFailed)
					}
				})
			},
			Stray: func(candidateType string) {
				c.post(func() {
					if c.relayOnly { // else it was right when it was gathered
						r.strayed(m, candidateType)
					}
				})
			},
			State: func(s peer.ConnState) { c.post(func() { c.stateChanged(s) }) }})
		if err != nil {
			c.failed(fault.ConnectionFailed)
			return
		}
		c.conn = conn
		c.negotiate(func(ctx context.Context) (err error) {
			var sdp string
			if e.Offer == "" {
				sdp, err = conn.Offer(ctx, false)
			} else {
				sdp, err = conn.Answer(ctx, e.Offer)
			}
			if err != nil {
				return err
			}
			c.post(func() {
				if e.Offer == "" {
					m.do(r, c.negotiation.OfferMade(r.cfg.Now(), c.number, sdp))
				} else {
					m.do(r, c.negotiation.AnswerMade(r.cfg.Now(), c.number, sdp))
				}
			})
			return nil
		})
	})
}

// work queues an operation for the connection's goroutine.
func (c *connection) work(fn func()) { c.box.post(fn) }

// post runs fn in the room's loop, unless the connection is over by then.
func (c *connection) post(fn func()) {
	c.room.box.post(func() {
		if c.member.conns[c.number] == c {
			fn()
		}
	})
}

func (c *connection) failed(code fault.Code) {
	c.post(func() { c.member.do(c.room, c.negotiation.Failed(c.room.cfg.Now(), c.number, code)) })
}

func (c *connection) try(fn func(context.Context) error) error {
	if c.conn == nil {
		return peer.ErrClosed
	}
	ctx, cancel := context.WithTimeout(c.ctx, connTimeout)
	defer cancel()
	return fn(ctx)
}

// negotiate is try for operations without which the connection is worth nothing.
func (c *connection) negotiate(fn func(context.Context) error) {
	if c.try(fn) != nil {
		c.failed(fault.ConnectionFailed)
	}
}

func (c *connection) startLink(h peer.Handshake) {
	if c.conn == nil {
		return
	}
	r := c.room
	c.worker = peer.NewLink(peer.LinkConfig{Conn: c.conn, Handshake: h, Engine: r.cfg.Engine, Pool: r.pool, Now: r.cfg.Now,
		Handler: c, Do: r.do, Ready: func() { r.box.post(r.balance) }, Probed: c.probed})
	c.worker.Start()
}

// end has the connection's goroutine close what there is, saying Bye over an open link. What is under way there is given up.
func (c *connection) end(bye wire.ByeCode) {
	c.once.Do(func() {
		c.cancel()
		c.work(func() {
			taken := false
			switch {
			case c.worker != nil:
				taken = c.worker.Close(bye)
			case c.conn != nil:
				c.conn.Close()
			}
			c.room.box.post(func() { c.member.do(c.room, c.negotiation.Ended(c.room.cfg.Now(), c.number, taken)) })
		})
		close(c.quit)
	})
}

// probed tells the meter what a round trip took that shared the path with nothing of ours.
func (c *connection) probed(sent, answered time.Time) {
	c.post(func() {
		if m := c.member; m.link != nil && m.link == c.link {
			m.quality.Probed(sent, answered)
		}
	})
}

// Opened implements peer.LinkHandler.
func (c *connection) Opened() {
	c.call(func() {
		r, m := c.room, c.member
		effects := c.negotiation.LinkOpened(r.cfg.Now(), c.number)
		if c.negotiation.OpenAttempt() != c.number {
			m.do(r, effects)
			return
		}
		link := c.worker
		m.do(r, effects) // closes the link that this one replaces
		c.link, m.link = link, link
		m.sentNoMore(r)
		now := r.cfg.Now()
		c.openedAt = now
		m.words = link.SafetyWords()
		m.heard, m.ticked, m.quiet, m.path = now, now, 0, path{}
		m.quality.Opened(now)
		m.figures.opened(now)
		m.sendPing(now) // before the link carries anything else
		link.SendControl(wire.Profile{Name: r.cfg.Name})
		if r.owner != nil {
			r.owner.tell(m, r.roster) // a hub may have kept it back while there was no link
		}
		r.linkUp(m)
		r.balance() // how many links there are is known before this one sends
	})
}

// Control implements peer.LinkHandler.
func (c *connection) Control(message wire.ControlMessage) {
	take := func() {
		m, now := c.member, c.room.cfg.Now()
		if m.link == nil || m.link != c.link {
			return // it is being closed
		}
		m.hear(c.room)
		switch message := message.(type) {
		case wire.Profile:
			m.name = legible(message.Name)
		case wire.Ping:
			m.link.SendControl(wire.Pong(message))
		case wire.Pong:
			m.pong(now, message.Token)
		case wire.Bye:
			m.goodbye(c.room, c, message.Code)
		case wire.RosterUpdate:
			if m.id == c.room.link.Owner {
				c.room.rosterReceived(message.Body, true)
			}
		default:
			m.path.used = now
			c.room.controlMessage(m, message)
		}
	}
	if receipt, ok := message.(wire.Receipt); ok {
		c.callVerified(func() bool { return c.room.awaitsReceipt(c.member, receipt) }, take,
			seal.LabelReceipt, receipt.AppendSigned(nil, c.room.self), receipt.Signature)
	} else {
		c.call(take)
	}
}

// Bulk implements peer.LinkHandler.
func (c *connection) Bulk(b *bulk.Buffer) {
	message, sender, id, err := parseBulk(b.B, c.member.id)
	if err != nil {
		c.violation()
		return
	}
	take := func() {
		c.member.hear(c.room)
		c.member.path.used = c.member.heard
		c.room.bulkMessage(c.member, sender, id, message, b)
	}
	if end, ok := message.(wire.End); ok {
		c.callVerified(func() bool { return c.room.awaitsEnd(c.member, id) }, take,
			seal.LabelEnd, wire.AppendDelivery(nil, sender, id, end.Root, end.Files), end.Signature)
	} else {
		c.call(take)
	}
}

func parseBulk(p []byte, from wire.ID) (message any, sender, transfer wire.ID, err error) {
	switch wire.BulkTypeOf(p) {
	case wire.BulkHashes:
		m, err := wire.ParseHashes(p)
		return m, m.Sender, m.Transfer, err
	case wire.BulkChunks:
		m, err := wire.ParseChunks(p)
		return m, m.Sender, m.Transfer, err
	default:
		m, err := wire.ParseEnd(p)
		return m, from, m.Transfer, err
	}
}

// callVerified is call for a signed message. The signature is verified only if the message is awaited: that takes the browser
// milliseconds, and a member can send such messages without end. Any other is taken at once, and ignored or a violation whatever
// its signature: between the look and that nothing may come that makes it an awaited one.
func (c *connection) callVerified(awaited func() bool, take func(), label seal.Label, message, signature []byte) {
	verify := false
	c.call(func() {
		if verify = awaited(); !verify {
			take()
		}
	})
	switch {
	case !verify:
	case c.worker.PeerKeys().Verify(label, message, signature) == nil:
		c.call(take)
	default:
		c.violation()
	}
}

// violation ends the link for what came over it: nothing that comes after it counts. A nil connection is none, and nothing happens.
func (c *connection) violation() {
	if c == nil {
		return
	}
	c.accused.Do(func() { // what comes until the link has ended is without bounds
		c.room.box.post(func() { c.member.violated(c.room, c) })
	})
}

// Closed implements peer.LinkHandler.
func (c *connection) Closed(err error) {
	link := c.worker
	c.room.box.post(func() {
		defer link.Destroy() // the peer may be told first, under its keys
		code := fault.Of(err)
		switch {
		case c.member.conns[c.number] == c:
			switch code {
			case fault.ProtocolViolation, fault.HandshakeFailed, fault.AddressLeak, fault.Internal:
				c.room.event(Problem{code, c.member.id.String()})
			}
			c.violated = code == fault.ProtocolViolation
			c.member.do(c.room, c.negotiation.Failed(c.room.cfg.Now(), c.number, code))
		case c.link != nil && code == fault.ProtocolViolation:
			c.member.violated(c.room, c)
		}
	})
}

// call runs fn in the loop if the link is still the member's, and waits for it: that is what holds a member that sends faster
// than we take.
func (c *connection) call(fn func()) {
	c.room.out.await(maxEvents, c.room.looped) // whoever takes our events is part of us
	c.room.do(func() {
		if c.member.conns[c.number] == c {
			fn()
		}
	})
}
