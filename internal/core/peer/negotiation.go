package peer

import (
	"bytes"
	"errors"
	"io"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

const (
	// attemptTimeout is how long an attempt may take, from Hello or Knock to the open link.
	attemptTimeout = 30 * time.Second
	// knockDelay is how long the initiator waits for a Hello before it asks for one: the responder sends it by itself.
	knockDelay = 2 * time.Second
	// Whoever holds the link and has the server on its side can forge Knock and Hello. So attempts start no closer upon each
	// other than helloGap, than provenGap where the peer has proven itself in the present one, and than linkGap while a
	// link is open and not in doubt, which an attempt replaces only when it has come to an open link itself. Each one that begins
	// while the link is open doubles linkGap, up to maxLinkGap: a member that has really lost the link is soon seen to be silent.
	helloGap   = time.Second
	provenGap  = 5 * time.Second
	linkGap    = 10 * time.Second
	maxLinkGap = 320 * time.Second
	// staleAfter is how old an attempt must be for the return of the network to bring about another one.
	staleAfter = 3 * time.Second
	// failedBackoff is the longest wait after an attempt that has failed: the peer has answered, so what is missing is a path.
	failedBackoff = 5 * time.Second
	// carriedTimeout takes the place of attemptTimeout where the caller carries the payloads: people may do it by hand.
	carriedTimeout = 10 * time.Minute
	// answerTimeout is how long a Hello waits for its offer before another is sent, knockEvery the least time between Knocks.
	answerTimeout = 15 * time.Second
	knockEvery    = 5 * time.Second
	// maxEarly is how many local candidates wait for the offer or answer that introduces them, maxRemote how many of the
	// peer's an attempt takes.
	maxEarly  = 64
	maxRemote = 256
	// patience is after how many offences in a row the member is shown as failed.
	patience = 4
	// A member that breaks the protocol over a link, or cannot confirm one, is left alone for minPenalty, and twice as long
	// each time, up to maxPenalty. A link that has been open for probation has it forgotten.
	minPenalty = time.Second
	maxPenalty = 5 * time.Minute
	probation  = 10 * time.Minute
)

// doubled is d, doubled so many times, but at most limit.
func doubled(d time.Duration, times int, limit time.Duration) time.Duration {
	for ; times > 0 && d < limit; times-- {
		d *= 2
	}
	return min(d, limit)
}

// backoff is how long to wait after so many failed attempts.
func backoff(failures int) time.Duration {
	steps := []time.Duration{0, time.Second, 2 * time.Second, 5 * time.Second}
	if failures < len(steps) {
		return steps[failures]
	}
	return 20 * time.Second
}

// NegotiationConfig says who negotiates with whom.
type NegotiationConfig struct {
	Room        *seal.RoomKeys
	Self        *seal.Identity
	Peer        wire.ID
	PeerKeyHash wire.Hash
	Epoch       uint64    // the highest roster epoch
	Rand        io.Reader // nil: crypto/rand
	Conduct     Conduct   // towards the machines before this one
	Manual      bool      // the caller carries the payloads: nothing ever begins by itself
	// ReconnectAttempts is how many ICE restarts an open link gets before it is given up, and after how many attempts without a link
	// the member is shown as failed: these go on, slowly. 0 is DefaultReconnectAttempts.
	ReconnectAttempts int
	Capabilities      uint32 // of this member: wire.CapabilityDeflate
}

// Conduct is what a member is left alone for. It outlasts a machine: otherwise whoever leaves and comes back had a clean slate.
type Conduct struct {
	Offences int       // links in a row that the member has ended by a violation
	Barred   time.Time // nothing begins before
}

// Offend counts an offence.
func (c *Conduct) Offend(now time.Time) {
	c.Barred = now.Add(doubled(minPenalty, c.Offences, maxPenalty))
	c.Offences++
}

// Negotiation brings about a link to one member, and another one when that is lost. It is a machine without I/O, clock or
// goroutine: PROTOCOL.md section 7, with trickling candidates. Attempts are numbered; what is reported about one that is
// over is ignored.
type Negotiation struct {
	cfg       NegotiationConfig
	initiator bool
	state     LinkState
	code      fault.Code
	over      bool            // Close has been called
	idle      bool            // nothing begins by itself: a link was not wanted any more, or the caller carries the payloads
	unsaid    bool            // the peer may not know that: it is told over the next link
	wanted    bool            // Connect has been called while a link is saying goodbye
	closing   uint32          // the attempt whose link is saying goodbye
	last      uint32          // the number of the newest attempt
	attempt   *attempt        // under way
	open      *attempt        // whose link is open
	hello     *seal.Responder // responder: the newest Hello, which no offer has answered
	helloAt   time.Time       // when it, or the one before that was answered, was sent
	invited   bool            // a Hello or Knock is out, for want of a link, and nothing has come of it yet
	invitedAt time.Time
	failures  int       // attempts in a row that came to nothing, unanswered ones included
	begunAt   time.Time // of the newest attempt
	disturbed int       // attempts, or Hellos, that began while the open link was open
	openedAt  time.Time // of the open link, or the last one
	conduct   Conduct
	retryAt   time.Time // when to begin again; zero: nothing planned
	away      bool      // nothing can be sent
	now       time.Time
	effects   []Effect
}

// attempt is one connection on the way to a link.
type attempt struct {
	number     uint32
	initiator  *seal.Initiator // one of the two is nil
	responder  *seal.Responder
	hello      []byte // initiator: M0
	begun      time.Time
	introduced bool // M1 (initiator) or M2 (responder) is out: candidates may go
	linked     bool // the handshake is the link's: the peer has proven itself
	stale      bool // the network may have come back since: another one may take its place
	early      []wire.Candidate
	remote     int // candidates of the peer's, for the present description
	recovery   recovery
}

func (a *attempt) nonce() wire.Hash {
	if a.initiator != nil {
		return a.initiator.Nonce()
	}
	return a.responder.Nonce()
}

func (a *attempt) session() *seal.Session {
	if a.initiator != nil {
		return a.initiator.Session()
	}
	return a.responder.Session()
}

func (a *attempt) destroy() {
	switch {
	case a.linked:
	case a.initiator != nil:
		a.initiator.Destroy()
	default:
		a.responder.Destroy()
	}
}

// Effect is something that the room does for a negotiation.
type Effect interface{ effect() }

// SendPayload sends a payload to the member: in a pair envelope of Session, or in a room envelope if that is nil.
type SendPayload struct {
	Type    wire.PayloadType
	Body    []byte
	Session *seal.Session
}

// OpenConn opens a connection, and makes an offer if Offer is empty, or an answer to it. The room reports OfferMade or
// AnswerMade, and the candidates with LocalCandidate.
type OpenConn struct {
	Attempt uint32
	Offer   string
}

// ApplyAnswer gives the connection the remote answer.
type ApplyAnswer struct {
	Attempt uint32
	SDP     string
}

// AddCandidates gives the connection remote candidates.
type AddCandidates struct {
	Attempt uint32
	List    []wire.Candidate
}

// StartLink starts the link over the connection.
type StartLink struct {
	Attempt   uint32
	Handshake Handshake
}

// CloseConn closes the attempt's connection, and its link if it has one.
type CloseConn struct {
	Attempt uint32
	Code    fault.Code
}

// StateChanged says that State has changed.
type StateChanged struct{}

func (SendPayload) effect()   {}
func (OpenConn) effect()      {}
func (ApplyAnswer) effect()   {}
func (AddCandidates) effect() {}
func (StartLink) effect()     {}
func (CloseConn) effect()     {}
func (StateChanged) effect()  {}

// NewNegotiation makes the machine; Start sets it going.
func NewNegotiation(cfg NegotiationConfig) *Negotiation {
	self := cfg.Self.ID()
	n := &Negotiation{cfg: cfg, initiator: bytes.Compare(self[:], cfg.Peer[:]) < 0, conduct: cfg.Conduct, idle: cfg.Manual}
	if n.idle {
		n.state = LinkClosed
	}
	return n
}

// Conduct is the member's so far. Of a link that is still open nothing is forgotten yet.
func (n *Negotiation) Conduct() Conduct { return n.conduct }

// State is the link's state and, if it failed, why.
func (n *Negotiation) State() (LinkState, fault.Code) { return n.state, n.code }

// OpenAttempt is the number of the attempt whose link is open, or 0.
func (n *Negotiation) OpenAttempt() uint32 {
	if n.open == nil {
		return 0
	}
	return n.open.number
}

// Invites reports whether a Hello of ours waits for its offer.
func (n *Negotiation) Invites() bool { return n.hello != nil }

// Underway reports whether an attempt is under way.
func (n *Negotiation) Underway() bool { return n.attempt != nil }

// Session is the session with the id, of the attempt under way or of the open link, or nil.
func (n *Negotiation) Session(id wire.ID) *seal.Session {
	for _, a := range []*attempt{n.attempt, n.open} {
		if a != nil {
			if s := a.session(); s != nil && s.ID() == id {
				return s
			}
		}
	}
	return nil
}

// SetEpoch tells of a newer roster that still lists the member.
func (n *Negotiation) SetEpoch(epoch uint64) {
	n.cfg.Epoch = epoch
	if n.hello != nil {
		n.hello.SetEpoch(epoch)
	}
}

// SetAway says that nothing that the negotiation sends gets anywhere for now, or that it does again.
func (n *Negotiation) SetAway(away bool) { n.away = away }

// Start begins an attempt soon, unless a link is open, an attempt under way that is not stale, or none wanted: when the member appears in the
// roster, or when something suggests that it is reachable again, on however little authority. A stale attempt ends only when another one begins.
func (n *Negotiation) Start(now time.Time) []Effect {
	n.begin(now)
	n.age()
	switch {
	case n.open != nil || n.hopeful() || n.over || n.idle || n.barred():
	case !n.initiator:
		if now.Sub(n.helloAt) >= helloGap {
			n.sayHello()
		}
	case n.retryAt.IsZero() || n.retryAt.After(now.Add(knockDelay)):
		n.retryIn(knockDelay) // the responder says Hello by itself
	}
	return n.effects
}

// Connect begins an attempt at once, because somebody wants a link: also after Rest, and where the caller carries the payloads.
func (n *Negotiation) Connect(now time.Time) []Effect {
	n.begin(now)
	n.connect()
	return n.effects
}

func (n *Negotiation) connect() {
	n.unsaid = false
	n.wanted = n.state == LinkClosing && !n.over // it has to be over first
	if n.wanted || n.over || n.settled() {
		return
	}
	n.idle = n.cfg.Manual
	n.step(LinkBegins, "")
	switch {
	case n.attempt != nil:
	case n.barred():
		n.awaitPenalty()
	case n.initiator:
		n.knock()
	default:
		n.sayHello()
	}
}

// Rest ends what there is, an open link with a goodbye. From then on nothing begins by itself: a link comes from Connect, or from
// the other end. It is no ban: whoever holds the link and has the hub on its side can make either end believe that the other one wants a link.
// Where it is this end that wants none any more (Cancelled), the peer has to hear of it, or it makes another one by itself: as long as it
// may not have, a link that comes about is ended again, with another goodbye.
func (n *Negotiation) Rest(now time.Time, code fault.Code) []Effect {
	n.begin(now)
	if !n.over {
		n.unsaid = code == fault.Cancelled && !n.cfg.Manual && (n.unsaid || n.state != LinkClosed)
		n.rest(code)
	}
	return n.effects
}

func (n *Negotiation) rest(code fault.Code) {
	n.leave(code)
	n.idle, n.wanted, n.failures, n.retryAt = true, false, 0, time.Time{}
}

// Close ends everything for good.
func (n *Negotiation) Close(now time.Time, code fault.Code) []Effect {
	n.begin(now)
	n.leave(code)
	n.over = true
	return n.effects
}

func (n *Negotiation) leave(code fault.Code) {
	n.drop(code)
	n.step(LinkLeaves, code)
	if n.open != nil {
		n.closing = n.open.number
		n.closeOpen(code)
	}
	n.uninvite()
}

// uninvite forgets the Hello or Knock that is out.
func (n *Negotiation) uninvite() {
	n.invited = false
	if n.hello != nil {
		n.hello.Destroy()
		n.hello = nil
	}
}

// Ended reports that nothing is left of the connection that CloseConn has ended, and whether the peer has taken the goodbye.
func (n *Negotiation) Ended(now time.Time, number uint32, taken bool) []Effect {
	n.begin(now)
	if n.state == LinkClosing && number == n.closing {
		n.step(LinkEnds, n.code)
		n.unsaid = n.unsaid && !taken
		if n.wanted {
			n.connect()
		}
	}
	return n.effects
}

// Tick lets time pass.
func (n *Negotiation) Tick(now time.Time) []Effect {
	n.begin(now)
	if n.over {
		return nil
	}
	if n.attempt != nil && now.Sub(n.attempt.begun) >= n.timeout() {
		n.failed(fault.ConnectionFailed)
	}
	n.mend()
	if n.idle {
		if n.invited && now.Sub(n.invitedAt) >= n.timeout() {
			n.uninvite()
			n.worry(fault.ConnectionFailed)
		}
		return n.effects
	}
	if !n.retryAt.IsZero() && !now.Before(n.retryAt) && !n.hopeful() && !n.settled() && !n.barred() {
		n.retryAt = time.Time{}
		if n.invited {
			n.failures++
			n.worry(fault.ConnectionFailed)
		}
		if n.initiator {
			n.knock()
		} else {
			n.sayHello()
		}
	}
	return n.effects
}

// Receive takes a payload that an envelope held. pair tells whether it was a pair envelope, of Session. acknowledge is false when the
// payload cannot be judged yet and should come again.
func (n *Negotiation) Receive(now time.Time, t wire.PayloadType, body []byte, pair bool) (effects []Effect, acknowledge bool) {
	n.begin(now)
	acknowledge = true
	switch {
	case n.over:
		return nil, true
	case n.state == LinkClosing:
		return nil, false
	}
	switch t {
	case wire.PayloadKnock:
		if m, err := wire.ParseKnock(body); err == nil && m.Member == n.cfg.Peer && !n.initiator && !n.barred() {
			if now.Sub(n.helloAt) < n.knockGap() {
				return nil, !n.cfg.Manual // a Knock that somebody carries has cost more than one of the hub's
			}
			if n.settled() {
				n.disturbed++
			}
			n.sayHello()
		}
	case wire.PayloadHello:
		if n.initiator {
			acknowledge = n.helloReceived(body)
		}
	case wire.PayloadOffer:
		if n.hello != nil && !n.barred() {
			acknowledge = n.offerReceived(body)
		}
	case wire.PayloadAnswer:
		if n.attempt != nil && n.attempt.initiator != nil && !n.attempt.linked {
			n.answerReceived(body)
		}
	case wire.PayloadCandidates:
		m, err := wire.ParseCandidates(body)
		switch {
		case err != nil || !pair && n.initiator:
		case n.attempt != nil && n.attempt.nonce() == m.Negotiation:
			n.addCandidates(n.attempt, m.List)
		case n.open != nil && n.open.nonce() == m.Negotiation:
			if pair {
				n.addCandidates(n.open, m.List)
			}
		case n.hello != nil:
			acknowledge = false // its offer is on the way
		}
	case wire.PayloadLost:
		if m, err := wire.ParseLost(body); err == nil && pair {
			n.lostThere(m.Negotiation)
		}
	case wire.PayloadRestart, wire.PayloadRestarted, wire.PayloadRestartRequest:
		if pair {
			acknowledge = n.restartReceived(t, body)
		}
	}
	return n.effects, acknowledge
}

// OfferMade reports the offer that OpenConn asked for.
func (n *Negotiation) OfferMade(now time.Time, number uint32, sdp string) []Effect {
	n.begin(now)
	if a := n.current(number); a != nil && a.initiator != nil && !a.introduced {
		offer, err := a.initiator.Offer(a.hello, sdp)
		if err != nil {
			n.failed(fault.HandshakeFailed)
			return n.effects
		}
		n.do(SendPayload{Type: wire.PayloadOffer, Body: offer})
		a.introduced = true
		n.introduce(a)
	}
	return n.effects
}

// AnswerMade reports the answer that OpenConn asked for.
func (n *Negotiation) AnswerMade(now time.Time, number uint32, sdp string) []Effect {
	n.begin(now)
	if a := n.current(number); a != nil && a.responder != nil && !a.introduced {
		answer, err := a.responder.Answer(sdp)
		if err != nil {
			n.failed(fault.HandshakeFailed)
			return n.effects
		}
		n.do(SendPayload{Type: wire.PayloadAnswer, Body: answer})
		a.introduced, a.linked = true, true
		n.introduce(a)
		n.do(StartLink{number, a.responder})
	}
	return n.effects
}

// LocalCandidate reports a candidate of the attempt's connection.
func (n *Negotiation) LocalCandidate(now time.Time, number uint32, c wire.Candidate) []Effect {
	n.begin(now)
	a := n.current(number)
	if a == nil && n.open != nil && n.open.number == number {
		a = n.open
	}
	if a != nil && c.Fits() {
		if !a.introduced && len(a.early) < maxEarly {
			a.early = append(a.early, c)
		} else if a.introduced {
			n.sendCandidates(a, []wire.Candidate{c})
		}
	}
	return n.effects
}

// LinkOpened reports that the attempt's link is open.
func (n *Negotiation) LinkOpened(now time.Time, number uint32) []Effect {
	n.begin(now)
	if a := n.current(number); a != nil {
		if n.open != nil {
			n.closeOpen(fault.Replaced)
		} else {
			n.disturbed = 0
		}
		n.attempt, n.open, n.failures, n.invited = nil, a, 0, false
		n.retryAt, n.openedAt = time.Time{}, now
		n.idle = n.cfg.Manual
		n.step(LinkOpens, "")
		if n.unsaid {
			n.rest(fault.Cancelled)
		}
	}
	return n.effects
}

// Failed reports that the attempt's connection or link has failed or ended.
func (n *Negotiation) Failed(now time.Time, number uint32, code fault.Code) []Effect {
	n.begin(now)
	switch {
	case n.current(number) != nil:
		proven := n.attempt.linked
		n.failed(code)
		if proven {
			n.penalise(code)
		}
	case n.open != nil && n.open.number == number:
		n.lost(code)
		n.penalise(code)
	}
	return n.effects
}

// Offended reports that the peer has broken the protocol over a link that has been given up since: it may be quicker to call the link lost than this end
// to find out. A newer link ends for it.
func (n *Negotiation) Offended(now time.Time) []Effect {
	n.begin(now)
	switch {
	case n.over:
		return nil
	case n.open != nil:
		n.giveUp(fault.ProtocolViolation)
	}
	n.penalise(fault.ProtocolViolation)
	return n.effects
}

// Left reports that the peer has ended the attempt's link with a goodbye.
func (n *Negotiation) Left(now time.Time, number uint32) []Effect {
	n.begin(now)
	switch {
	case n.current(number) != nil:
		n.failed(fault.PeerGone)
	case n.open != nil && n.open.number == number:
		n.giveUp(fault.PeerGone)
	}
	return n.effects
}

// lost gives up the open link. The peer hears of it over the hub: it may not have noticed, and would try to restart what is no more, and put off the new
// attempt for that. This end has no keys left that could open its Ack; so it is repeated until the next link is open.
func (n *Negotiation) lost(code fault.Code) {
	if !n.cfg.Manual && (code == fault.ConnectionFailed || code == fault.PeerGone) {
		n.do(SendPayload{Type: wire.PayloadLost, Session: n.open.session(), Body: wire.Lost{Negotiation: n.open.nonce()}.Append(nil)})
	}
	n.giveUp(code)
}

// lostThere gives up a link that the peer has not got any more. The peer can be reached: unless it loses each link as soon as that is open, the
// next attempt begins at once.
func (n *Negotiation) lostThere(negotiation wire.Hash) {
	switch {
	case n.open != nil && n.open.nonce() == negotiation:
		n.invited = false
		n.giveUp(fault.ConnectionFailed)
		n.age()
		if !n.hopeful() && n.now.Sub(n.openedAt) >= provenGap {
			n.retryIn(max(0, n.helloAt.Add(helloGap).Sub(n.now))) // a Hello of just now may have been taken
		}
	case n.attempt != nil && n.attempt.nonce() == negotiation:
		n.failed(fault.ConnectionFailed)
	}
}

// giveUp ends the open link and has another attempt begin soon, if none is under way.
func (n *Negotiation) giveUp(code fault.Code) {
	n.closeOpen(code)
	n.step(LinkLost, code)
	switch {
	case n.attempt != nil || n.invited:
	case n.idle:
		n.step(LinkLeaves, code) // nobody makes another one
	default:
		n.retryIn(backoff(1))
	}
}

// age has an attempt that has come to no link for a while be stale.
func (n *Negotiation) age() {
	if n.attempt != nil {
		n.attempt.stale = n.attempt.stale || n.now.Sub(n.attempt.begun) >= staleAfter
	}
}

// hopeful reports whether an attempt is under way that may still come to a link.
func (n *Negotiation) hopeful() bool { return n.attempt != nil && !n.attempt.stale }

// settled reports whether a link is open and not in doubt.
func (n *Negotiation) settled() bool { return n.open != nil && !n.Doubted() }

// closeOpen ends the open link, however that has come. One that was open for long has the offences before it forgotten.
func (n *Negotiation) closeOpen(code fault.Code) {
	if n.now.Sub(n.openedAt) >= probation {
		n.conduct.Offences = 0
	}
	n.do(CloseConn{n.open.number, code})
	n.open = nil
}

// barred reports whether the member is left alone.
func (n *Negotiation) barred() bool { return n.now.Before(n.conduct.Barred) }

// retryIn has an attempt begin after d, but not before the member's penalty ends.
func (n *Negotiation) retryIn(d time.Duration) {
	n.retryAt = n.now.Add(d)
	n.awaitPenalty()
}

// awaitPenalty has the next attempt begin no sooner than the member's penalty ends.
func (n *Negotiation) awaitPenalty() {
	if n.retryAt.Before(n.conduct.Barred) {
		n.retryAt = n.conduct.Barred
	}
}

// penalise leaves a member alone for a while that has shown over a link of its own that it does not keep to the protocol.
func (n *Negotiation) penalise(code fault.Code) {
	switch code {
	case fault.ProtocolViolation, fault.HandshakeFailed:
	case fault.AddressLeak: // it is our own platform that does it, and it would again
	default:
		return
	}
	n.conduct.Offend(n.now)
	n.uninvite() // nobody is to answer
	n.drop(code)
	if n.open == nil {
		n.awaitPenalty()
		if n.conduct.Offences >= patience {
			n.step(LinkGivesUp, code)
		}
		if n.idle {
			n.worry(code) // nothing is on its way any more
		}
	}
}

// timeout is how long an attempt may take, or, where nothing begins by itself, an invitation to one.
func (n *Negotiation) timeout() time.Duration {
	if n.cfg.Manual {
		return carriedTimeout
	}
	return attemptTimeout
}

func (n *Negotiation) begin(now time.Time) { n.now, n.effects = now, nil }
func (n *Negotiation) do(e Effect)         { n.effects = append(n.effects, e) }

func (n *Negotiation) current(number uint32) *attempt {
	if n.attempt != nil && n.attempt.number == number {
		return n.attempt
	}
	return nil
}

// step is the only place where the state changes. The reason changes with it, or with a later failure.
func (n *Negotiation) step(e LinkEvent, code fault.Code) {
	next := n.state.After(e)
	if next != n.state || next == LinkFailed && code != n.code {
		n.state, n.code = next, code
		n.do(StateChanged{})
	}
}

func (n *Negotiation) handshakeConfig() seal.HandshakeConfig {
	return seal.HandshakeConfig{Room: n.cfg.Room, Self: n.cfg.Self, Peer: n.cfg.Peer, PeerKeyHash: n.cfg.PeerKeyHash,
		Epoch: n.cfg.Epoch, Capabilities: n.cfg.Capabilities, Rand: n.cfg.Rand}
}

// knock asks the responder for a Hello.
func (n *Negotiation) knock() {
	n.do(SendPayload{Type: wire.PayloadKnock, Body: wire.Knock{Member: n.cfg.Self.ID()}.Append(nil)})
	n.invites()
	n.retryIn(max(backoff(n.failures+1), knockEvery))
}

// invites notes that a Hello or Knock is out.
func (n *Negotiation) invites() {
	n.invited, n.invitedAt = true, n.now
	if n.idle {
		n.step(LinkBegins, "")
	}
}

// knockGap is how long after the last Hello a Knock is heard. The initiator knocks only when it has neither link nor
// attempt, so what there is here is lost, if the Knock is genuine.
func (n *Negotiation) knockGap() time.Duration {
	switch {
	case n.settled():
		return n.linkGap()
	case n.attempt != nil || n.hello != nil:
		return knockEvery
	}
	return helloGap
}

// linkGap is how far apart attempts begin while a link is open.
func (n *Negotiation) linkGap() time.Duration { return doubled(linkGap, n.disturbed, maxLinkGap) }

// sayHello sends a fresh Hello. It changes nothing about an open link or an attempt: these end only for an offer that
// proves its author.
func (n *Negotiation) sayHello() {
	if n.hello != nil {
		n.hello.Destroy()
	}
	hello, err := seal.NewResponder(n.handshakeConfig())
	if err != nil {
		n.hello = nil
		n.step(LinkGivesUp, fault.Internal)
		return
	}
	n.hello, n.helloAt = hello, n.now
	n.do(SendPayload{Type: wire.PayloadHello, Body: hello.Hello()})
	if !n.settled() && n.attempt == nil {
		n.invites()
		n.retryIn(max(backoff(n.failures+1), answerTimeout))
	}
}

// worry shows the member as failed when too many attempts have come to nothing; where the caller carries the payloads, one is. Where no
// link was wanted, and the other end's attempt has come to nothing, all is as before.
func (n *Negotiation) worry(code fault.Code) {
	switch {
	case n.open != nil:
	case n.idle && !n.cfg.Manual:
		n.step(LinkLeaves, code)
	case n.idle || n.failures >= n.attempts():
		n.step(LinkGivesUp, code)
	}
}

func (n *Negotiation) begins() *attempt {
	n.last++
	n.retryAt, n.invited, n.begunAt = time.Time{}, false, n.now
	n.attempt = &attempt{number: n.last, begun: n.now}
	if n.idle {
		n.step(LinkBegins, "")
	}
	return n.attempt
}

func (n *Negotiation) helloReceived(body []byte) (acknowledge bool) {
	hello, err := wire.ParseHello(body)
	if err != nil || hello.Member != n.cfg.Peer {
		return true
	}
	gap := helloGap
	switch {
	case n.settled():
		gap = n.linkGap()
	case n.attempt != nil && n.attempt.linked:
		gap = provenGap
	}
	if n.last > 0 && n.now.Sub(n.begunAt) < gap || n.restarting() || n.barred() {
		return false // a genuine one comes again
	}
	handshake, err := seal.NewInitiator(n.handshakeConfig())
	if err != nil {
		n.step(LinkGivesUp, fault.Internal)
		return true
	}
	if n.settled() {
		n.disturbed++
	}
	n.supersede()
	a := n.begins()
	a.initiator, a.hello = handshake, body
	n.do(OpenConn{Attempt: a.number})
	return true
}

func (n *Negotiation) addCandidates(a *attempt, list []wire.Candidate) {
	list = list[:min(len(list), maxRemote-a.remote)]
	if a.remote += len(list); len(list) > 0 {
		n.do(AddCandidates{a.number, list})
	}
}

func (n *Negotiation) offerReceived(body []byte) (acknowledge bool) {
	sdp, err := n.hello.Offer(body)
	var refused *seal.HandshakeError
	switch {
	case errors.Is(err, seal.ErrEpochAhead):
		return false
	case errors.As(err, &refused) && !refused.Fatal, errors.Is(err, seal.ErrOrder):
		return true // anybody with the link may have made it
	case err != nil:
		n.hello = nil
		n.attemptFailed(fault.HandshakeFailed)
		return true
	}
	n.supersede()
	a := n.begins()
	a.responder, n.hello = n.hello, nil
	n.do(OpenConn{Attempt: a.number, Offer: sdp})
	return true
}

func (n *Negotiation) answerReceived(body []byte) {
	a := n.attempt
	sdp, err := a.initiator.Answer(body)
	var refused *seal.HandshakeError
	switch {
	case errors.As(err, &refused) && !refused.Fatal, errors.Is(err, seal.ErrOrder):
	case err != nil:
		n.failed(fault.HandshakeFailed)
	default:
		a.linked = true
		n.do(ApplyAnswer{a.number, sdp})
		n.do(StartLink{a.number, a.initiator})
	}
}

// introduce sends the candidates that have waited.
func (n *Negotiation) introduce(a *attempt) {
	for len(a.early) > 0 {
		count := min(len(a.early), wire.MaxCandidates)
		n.sendCandidates(a, a.early[:count])
		a.early = a.early[count:]
	}
}

func (n *Negotiation) sendCandidates(a *attempt, list []wire.Candidate) {
	n.do(SendPayload{Type: wire.PayloadCandidates, Session: a.session(),
		Body: wire.Candidates{Negotiation: a.nonce(), List: list}.Append(nil)})
}

// drop gives up the attempt under way, if any.
func (n *Negotiation) drop(code fault.Code) {
	if n.attempt != nil {
		n.do(CloseConn{n.attempt.number, code})
		n.attempt.destroy()
		n.attempt = nil
	}
}

// supersede gives up the attempt under way for a newer one: the peer has given it up already.
func (n *Negotiation) supersede() {
	if n.attempt != nil {
		n.failures++
		n.drop(fault.Replaced)
		n.worry(fault.ConnectionFailed)
	}
}

func (n *Negotiation) failed(code fault.Code) {
	n.drop(code)
	n.attemptFailed(code)
}

func (n *Negotiation) attemptFailed(code fault.Code) {
	n.failures++
	n.invited = false
	if !n.settled() && n.attempt == nil {
		n.retryIn(min(backoff(n.failures), failedBackoff))
		n.worry(code)
	}
}
