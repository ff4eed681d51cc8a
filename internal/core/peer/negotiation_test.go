package peer

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
	"tallow/internal/raced"
)

// members are two members of a room: the initiator and the responder.
type members struct {
	room       *seal.RoomKeys
	identities [2]*seal.Identity
	rand       io.Reader // of their handshakes; nil: crypto/rand
}

func newMembers(t testing.TB) members {
	t.Helper()
	var m members
	for i := range m.identities {
		identity, err := seal.NewIdentity([32]byte{byte(i + 1)})
		if err != nil {
			t.Fatal(err)
		}
		m.identities[i] = identity
	}
	if a, b := m.identities[0].ID(), m.identities[1].ID(); string(a[:]) > string(b[:]) {
		slices.Reverse(m.identities[:])
	}
	m.room = seal.NewLink(m.identities[0].ID()).Keys()
	return m
}

func (m members) config(i int, epoch uint64) NegotiationConfig {
	other := m.identities[1-i]
	return NegotiationConfig{Room: m.room, Self: m.identities[i], Peer: other.ID(), PeerKeyHash: other.KeyHash(), Epoch: epoch}
}

func sdp(digit byte) string {
	return "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=fingerprint:sha-256 " + strings.TrimSuffix(strings.Repeat(fmt.Sprintf("%02X:", digit), 32), ":") + "\r\n"
}

// simulation is two negotiations, a hub between them and a path, in simulated time.
type simulation struct {
	t       *testing.T
	members members
	start   time.Time
	now     time.Time
	events  []event // by time
	sides   [2]*side
	random  *rand.Rand
	// hub says when copies of an envelope arrive.
	hub func(from int, p SendPayload) []time.Duration
	// path says whether connections come about.
	path bool
	// barren names the sides whose connections fail early where there was no path when they began.
	barren []int
	// forge changes what a side's offer or answer says, when not nil.
	forge  func(from int, t wire.PayloadType, body []byte) []byte
	script []string // what happened
}

type event struct {
	at time.Time
	do func()
}

// side is one of the two, from its start to its crash.
type side struct {
	*Negotiation
	index   int
	outbox  map[int]wire.PayloadType // envelopes that are not acknowledged, by number
	next    int
	seen    map[*SendPayload]bool // processed
	links   map[uint32]*simLink   // connections that have not been closed
	crashed bool
	unmade  int // restarts that its platform makes no description for
}

type simLink struct {
	side      *side
	number    uint32
	handshake Handshake
	remote    *simLink
	opened    bool

	generation uint32 // of the newest restart
	path       bool   // it has one
}

func newSimulation(t *testing.T) *simulation {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	s := &simulation{t: t, members: newMembers(t), start: start, now: start, path: true,
		hub: func(int, SendPayload) []time.Duration { return []time.Duration{50 * time.Millisecond} }}
	s.restart(0)
	s.restart(1)
	return s
}

func (s *simulation) at(d time.Duration, fn func()) {
	e := event{s.now.Add(d), fn}
	i := len(s.events)
	for i > 0 && s.events[i-1].at.After(e.at) {
		i--
	}
	s.events = slices.Insert(s.events, i, e)
}

// run lets time pass.
func (s *simulation) run(d time.Duration) {
	for end := s.now.Add(d); s.now.Before(end); s.now = s.now.Add(100 * time.Millisecond) {
		for len(s.events) > 0 && !s.events[0].at.After(s.now) {
			e := s.events[0]
			s.events = s.events[1:]
			e.do()
		}
		for _, side := range s.sides {
			s.do(side, side.Tick(s.now))
		}
	}
}

func (s *simulation) log(format string, args ...any) {
	s.script = append(s.script, fmt.Sprintf("%6.1fs ", s.now.Sub(s.start).Seconds())+fmt.Sprintf(format, args...))
}

// restart makes a side anew, as a reload of its page does. What its links were connected to learns of it much later.
func (s *simulation) restart(i int) {
	if old := s.sides[i]; old != nil {
		old.crashed = true
		s.log("%d crashes", i)
		for _, l := range old.links {
			s.cut(l, 12*time.Second)
		}
	}
	s.sides[i] = &side{Negotiation: NewNegotiation(s.members.config(i, 1)), index: i, outbox: map[int]wire.PayloadType{},
		seen: map[*SendPayload]bool{}, links: map[uint32]*simLink{}}
}

// cut tells the other end of a link, later, that it is gone.
func (s *simulation) cut(l *simLink, after time.Duration) {
	if remote := l.remote; remote != nil {
		s.at(after, func() { s.do(remote.side, remote.side.Failed(s.now, remote.number, fault.PeerGone)) })
	}
}

// goodbye says that one end of a link wants none any more. Without a path that does not arrive.
func (s *simulation) goodbye(l *simLink) {
	r, taken, took := l.remote, l.path, time.Second
	if taken {
		took = 100 * time.Millisecond
		s.at(50*time.Millisecond, func() {
			if r.side.links[r.number] == r {
				s.do(r.side, r.side.Rest(s.now, fault.PeerGone))
				s.do(r.side, r.side.Ended(s.now, r.number, true))
			}
		})
	}
	s.at(took, func() { s.do(l.side, l.side.Ended(s.now, l.number, taken)) })
}

func (s *simulation) do(side *side, effects []Effect) {
	if side.crashed {
		return
	}
	for _, e := range effects {
		switch e := e.(type) {
		case SendPayload:
			s.send(side, e)
		case OpenConn:
			s.log("%d opens connection %d", side.index, e.Attempt)
			side.links[e.Attempt] = &simLink{side: side, number: e.Attempt}
			s.at(30*time.Millisecond, func() {
				if side.crashed || side.links[e.Attempt] == nil {
					return
				}
				s.do(side, side.LocalCandidate(s.now, e.Attempt, wire.Candidate{Candidate: "early"}))
				if e.Offer == "" {
					s.do(side, side.OfferMade(s.now, e.Attempt, sdp(1)))
				} else {
					s.do(side, side.AnswerMade(s.now, e.Attempt, sdp(2)))
				}
				s.do(side, side.LocalCandidate(s.now, e.Attempt, wire.Candidate{Candidate: "late"}))
			})
			if !s.path && slices.Contains(s.barren, side.index) {
				s.at(500*time.Millisecond, func() { s.do(side, side.Failed(s.now, e.Attempt, fault.ConnectionFailed)) })
			}
		case ApplyAnswer, AddCandidates:
		case StartLink:
			l := side.links[e.Attempt]
			l.handshake = e.Handshake
			s.at(100*time.Millisecond, func() { s.connect(l) })
		case CloseConn:
			s.log("%d closes connection %d: %s", side.index, e.Attempt, e.Code)
			l := side.links[e.Attempt]
			if l == nil {
				s.t.Fatalf("connection %d closed twice", e.Attempt)
			}
			delete(side.links, e.Attempt)
			if e.Code == fault.Cancelled && l.opened {
				s.goodbye(l)
			} else {
				s.cut(l, 50*time.Millisecond)
			}
		case RestartConn, ApplyRestart, Violated:
			s.restarts(side, e)
		case StateChanged:
			state, code := side.State()
			s.log("%d is %d %s", side.index, state, code)
		}
	}
}

// connect brings the path and the confirming handshake about, once both ends are there.
func (s *simulation) connect(l *simLink) {
	var i, r *simLink
	for _, o := range s.sides[1-l.side.index].links {
		if o.handshake != nil && o.handshake.Session() != nil && l.handshake.Session() != nil && o.handshake.Session().ID() == l.handshake.Session().ID() {
			i, r = l, o
			if l.side.index == 1 {
				i, r = o, l
			}
		}
	}
	if !s.path || i == nil || i.opened || i.side.links[i.number] != i || r.side.links[r.number] != r || i.side.crashed || r.side.crashed {
		return
	}
	i.opened, i.remote, r.opened, r.remote = true, r, true, i
	i.path, r.path = true, true
	m3, err := i.handshake.(*seal.Initiator).Confirm()
	if err != nil {
		s.t.Fatal(err)
	}
	m4, err := r.handshake.(*seal.Responder).Confirm(m3)
	if err != nil {
		s.t.Fatal(err)
	}
	s.do(r.side, r.side.LinkOpened(s.now, r.number))
	s.at(20*time.Millisecond, func() {
		if i.side.links[i.number] != i {
			return // closed meanwhile
		}
		if err := i.handshake.(*seal.Initiator).Reveal(m4); err != nil {
			s.t.Fatal(err)
		}
		s.do(i.side, i.side.LinkOpened(s.now, i.number))
	})
}

// send does what the room and its outbox do.
func (s *simulation) send(side *side, p SendPayload) {
	if s.forge != nil {
		p.Body = s.forge(side.index, p.Type, p.Body)
	}
	if p.Type != wire.PayloadCandidates {
		for n, t := range side.outbox {
			if t == p.Type {
				delete(side.outbox, n)
			}
		}
	}
	number := side.next
	side.next++
	side.outbox[number] = p.Type
	s.log("%d sends %d", side.index, p.Type)
	envelope := &p
	wait := time.Duration(0)
	for _, gap := range []time.Duration{0, 1, 2, 4, 8, 8} {
		wait += gap * time.Second
		s.at(wait, func() {
			if _, waiting := side.outbox[number]; !waiting || side.crashed {
				return
			}
			for _, delay := range s.hub(side.index, p) {
				s.at(delay, func() {
					to := s.sides[1-side.index]
					if s.deliver(to, envelope) {
						for _, delay := range s.hub(to.index, SendPayload{Type: wire.PayloadAck}) {
							s.at(delay, func() { delete(side.outbox, number) })
						}
					}
				})
			}
		})
	}
}

func (s *simulation) deliver(to *side, p *SendPayload) (acknowledge bool) {
	if to.seen[p] {
		return true
	}
	if p.Session != nil && to.Session(p.Session.ID()) == nil {
		return false // does not open
	}
	effects, acknowledge := to.Receive(s.now, p.Type, p.Body, p.Session != nil)
	s.do(to, effects)
	to.seen[p] = acknowledge
	return acknowledge
}

func (s *simulation) begin() {
	for _, side := range s.sides {
		s.do(side, side.Start(s.now))
	}
}

// expectOpen checks that both have one connection, and the same.
func (s *simulation) expectOpen() {
	s.t.Helper()
	a, b := s.sides[0], s.sides[1]
	if a.OpenAttempt() == 0 || b.OpenAttempt() == 0 {
		s.fatal("not open")
	}
	l := a.links[a.OpenAttempt()]
	if l == nil || l.remote == nil || l.remote != b.links[b.OpenAttempt()] {
		s.fatal("not the same link")
	}
	if len(a.links) != 1 || len(b.links) != 1 {
		s.fatal("%d and %d connections", len(a.links), len(b.links))
	}
	for _, side := range s.sides {
		if state, _ := side.State(); state != LinkOpen {
			s.fatal("side %d is in state %d", side.index, state)
		}
	}
}

func (s *simulation) fatal(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(s.script, "\n"))
}

func (s *simulation) count(what string) (n int) {
	for _, line := range s.script {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

func TestNegotiationOpens(t *testing.T) {
	for name, begin := range map[string]func(*simulation){
		"both start":     (*simulation).begin,
		"responder only": func(s *simulation) { s.do(s.sides[1], s.sides[1].Start(s.now)) },
		"initiator only": func(s *simulation) { s.do(s.sides[0], s.sides[0].Start(s.now)) },
		"again and again": func(s *simulation) {
			for i := range 20 {
				s.at(time.Duration(i)*70*time.Millisecond, s.begin)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSimulation(t)
			begin(s)
			s.run(6 * time.Second)
			s.expectOpen()
			if n := s.count("0 opens"); n != 1 {
				s.fatal("%d attempts", n)
			}
			s.run(2 * time.Minute)
			if s.count("closes") != 0 {
				s.fatal("the link did not last")
			}
		})
	}
}

// TestNegotiationRenewed: the network is back while an attempt that began without it still hopes. Whoever hears of it has another one begin, but
// not in place of one that has just begun.
func TestNegotiationRenewed(t *testing.T) {
	for name, who := range map[string][]int{"both": {0, 1}, "initiator": {0}, "responder": {1}} {
		t.Run(name, func(t *testing.T) {
			s := newSimulation(t)
			s.path = false
			s.begin()
			s.run(time.Second)
			s.path = true
			for _, i := range who {
				s.do(s.sides[i], s.sides[i].Start(s.now))
			}
			s.run(4 * time.Second)
			if n := s.count("0 opens"); n != 1 {
				s.fatal("%d attempts, one in place of a fresh one", n-1)
			}
			s.path = false
			s.run(4 * time.Second)
			s.path = true
			for _, i := range who {
				s.do(s.sides[i], s.sides[i].Start(s.now))
			}
			s.run(4 * time.Second)
			s.expectOpen()
			if n := s.count("0 opens"); n != 2 {
				s.fatal("%d attempts", n)
			}
			s.run(time.Minute)
			s.expectOpen()
			if n := s.count("0 opens"); n != 2 {
				s.fatal("the link did not last: %d attempts", n)
			}
		})
	}
}

// TestNegotiationWithoutRelay: what would carry a connection is away for a while, and nobody is told when it is back. Attempts fail soon, at one end
// or at both, and others follow often enough.
func TestNegotiationWithoutRelay(t *testing.T) {
	step := 3700 * time.Millisecond
	if raced.Enabled {
		step *= 4
	}
	for name, fails := range map[string][]int{"both": {0, 1}, "initiator": {0}, "responder": {1}} {
		for away := 5 * time.Second; away < 2*time.Minute; away += step {
			t.Run(fmt.Sprint(name, away), func(t *testing.T) {
				s := newSimulation(t)
				s.path, s.barren = false, fails
				s.begin()
				s.run(away)
				s.path = true
				s.run(8 * time.Second)
				s.expectOpen()
			})
		}
	}
}

// TestNegotiationHub lets the hub drop, repeat, delay and reorder, and the sides crash. Once that stops, there is a link.
func TestNegotiationHub(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSimulation(t)
			random := rand.New(rand.NewPCG(uint64(seed), 7))
			calm := s.hub
			s.hub = func(int, SendPayload) (copies []time.Duration) {
				for random.IntN(3) > 0 && len(copies) < 3 {
					copies = append(copies, time.Duration(random.IntN(3000))*time.Millisecond)
				}
				return copies
			}
			s.begin()
			for range random.IntN(4) {
				s.run(time.Duration(random.IntN(6000)) * time.Millisecond)
				s.restart(random.IntN(2))
				s.begin()
			}
			s.run(10 * time.Second)
			s.hub = calm
			s.run(90 * time.Second)
			s.expectOpen()
		})
	}
}

// TestNegotiationReload crashes each side, at each stage: the other does not know yet.
func TestNegotiationReload(t *testing.T) {
	for side := range 2 {
		for _, after := range []time.Duration{0, 100, 150, 200, 300, 500, 12000} {
			t.Run(fmt.Sprintf("%d after %d ms", side, after), func(t *testing.T) {
				s := newSimulation(t)
				s.begin()
				s.run(after * time.Millisecond)
				s.restart(side)
				s.do(s.sides[side], s.sides[side].Start(s.now))
				s.run(20 * time.Second)
				s.expectOpen()
			})
		}
	}
}

// TestNegotiationFlood has an insider with the hub on its side forge what room envelopes may hold, all the time.
func TestNegotiationFlood(t *testing.T) {
	s := newSimulation(t)
	var offer, answer []byte
	s.forge = func(_ int, kind wire.PayloadType, body []byte) []byte {
		switch kind {
		case wire.PayloadOffer:
			offer = body
		case wire.PayloadAnswer:
			answer = body
		}
		return body
	}
	s.begin()
	s.run(5 * time.Second)
	s.expectOpen()

	genuine := s.sides[1].ID()
	flood := func() {
		for _, to := range s.sides {
			for _, forged := range []SendPayload{
				{Type: wire.PayloadKnock, Body: wire.Knock{Member: s.members.identities[1-to.index].ID()}.Append(nil)},
				{Type: wire.PayloadHello, Body: wire.Hello{Member: s.members.identities[1-to.index].ID(), Nonce: wire.Hash{byte(s.random.Uint32())}}.Append(nil)},
				{Type: wire.PayloadHello, Body: wire.Hello{Member: wire.ID{9}}.Append(nil)},
				{Type: wire.PayloadHello, Body: []byte("no Hello")},
				{Type: wire.PayloadOffer, Body: offer},
				{Type: wire.PayloadOffer, Body: offer[:len(offer)-1]},
				{Type: wire.PayloadAnswer, Body: answer},
				{Type: wire.PayloadCandidates, Body: wire.Candidates{Negotiation: to.open.nonce(), List: []wire.Candidate{{Candidate: "forged"}}}.Append(nil)},
			} {
				effects, _ := to.Receive(s.now, forged.Type, forged.Body, false)
				for _, e := range effects {
					if a, ok := e.(AddCandidates); ok && a.List[0].Candidate == "forged" {
						s.fatal("a forged candidate")
					}
				}
				s.do(to, effects)
			}
		}
	}
	s.random = rand.New(rand.NewPCG(1, 1))
	s.script = nil
	open := func(i int) bool { return s.sides[i].OpenAttempt() != 0 }
	for range 600 {
		flood()
		s.run(100 * time.Millisecond)
		// The two learn of a new link one after the other; that either has none for longer is what a flood must not bring about.
		if !open(0) && !open(1) {
			s.fatal("the flood has closed the link")
		}
	}
	// The gap between them doubles each time.
	if n := s.count("0 opens"); n > 3 {
		s.fatal("%d attempts in a minute", n)
	}
	if n := s.count("1 sends 5"); n > 4 {
		s.fatal("%d Hellos in a minute", n)
	}
	s.run(time.Minute)
	s.expectOpen()
	if s.sides[1].ID() != genuine {
		t.Fatal("another identity")
	}
}

// TestNegotiationFloodWhileConnecting: forged Hellos do not end an attempt in which the peer has proven itself.
func TestNegotiationFloodWhileConnecting(t *testing.T) {
	s := newSimulation(t)
	s.begin()
	for range 30 {
		if a := s.sides[0].attempt; a != nil && a.linked {
			effects, acknowledge := s.sides[0].Receive(s.now, wire.PayloadHello, wire.Hello{Member: s.members.identities[1].ID()}.Append(nil), false)
			if len(effects) > 0 || acknowledge {
				s.fatal("the attempt ended: %v", effects)
			}
		}
		s.run(100 * time.Millisecond)
	}
	s.expectOpen()
}

// TestNegotiationDisturbed: somebody with the link and the hub can have an open link replaced, by a Knock that the responder
// believes, but ever more rarely; once the link is really lost, the next one comes as soon as ever.
func TestNegotiationDisturbed(t *testing.T) {
	s := newSimulation(t)
	s.begin()
	s.run(5 * time.Second)
	s.expectOpen()
	disturb := func(d time.Duration) (opened int) {
		s.script = nil
		for end := s.now.Add(d); s.now.Before(end); {
			to := s.sides[1]
			effects, _ := to.Receive(s.now, wire.PayloadKnock, wire.Knock{Member: s.members.identities[0].ID()}.Append(nil), false)
			s.do(to, effects)
			s.run(time.Second)
		}
		return s.count("0 opens")
	}
	if n := disturb(20 * time.Minute); n < 3 || n > 9 {
		s.fatal("%d links in twenty minutes", n)
	}
	s.run(time.Minute)
	s.expectOpen()
	s.do(s.sides[0], s.sides[0].Failed(s.now, s.sides[0].OpenAttempt(), fault.PeerGone))
	s.run(10 * time.Second)
	s.expectOpen()
	if n := disturb(time.Minute); n < 2 {
		s.fatal("a lost link has not made the gap short again: %d links in a minute", n)
	}
}

// TestNegotiationPenalty: a member that breaks the protocol over each link is given ever fewer, whatever it does itself. One that
// has kept to it for long begins anew.
func TestNegotiationPenalty(t *testing.T) {
	for judge := range 2 {
		for i, code := range []fault.Code{fault.ProtocolViolation, fault.HandshakeFailed, fault.ProtocolViolation} {
			late := i == 2 // the violator has called the link lost before it is known what it has done
			t.Run(fmt.Sprintf("judge=%d/%s/late=%t", judge, code, late), func(t *testing.T) {
				s := newSimulation(t)
				s.begin()
				s.run(5 * time.Second)
				s.expectOpen()
				honest := s.sides[judge]
				// reopened breaks the protocol and says how long no link is there; the violator asks for one all the time.
				reopened := func() time.Duration {
					start := s.now
					if late {
						effects, _ := honest.Receive(s.now, wire.PayloadLost, wire.Lost{Negotiation: honest.open.nonce()}.Append(nil), true)
						s.do(honest, effects)
						s.do(honest, honest.Offended(s.now))
					} else {
						s.do(honest, honest.Failed(s.now, honest.OpenAttempt(), code))
					}
					for honest.OpenAttempt() == 0 || s.sides[1-judge].OpenAttempt() == 0 {
						if s.now.Sub(start) > 2*maxPenalty {
							s.fatal("never again")
						}
						s.do(s.sides[1-judge], s.sides[1-judge].Start(s.now))
						s.run(200 * time.Millisecond)
					}
					s.script = nil
					return s.now.Sub(start)
				}
				penalty := minPenalty
				for n := range 12 {
					if took := reopened(); took < penalty || took > penalty+45*time.Second {
						s.fatal("after violation %d there was a link after %v, want %v and a little", n+1, took, penalty)
					}
					penalty = min(2*penalty, maxPenalty)
				}
				s.run(probation)
				s.expectOpen()
				if took := reopened(); took > minPenalty+45*time.Second {
					s.fatal("after a long probation: %v", took)
				}
			})
		}
	}
	t.Run("unconfirmed", func(t *testing.T) { // a member that comes to M2 and cannot confirm
		s := newSimulation(t)
		s.path = false
		s.begin()
		n, failed := s.sides[0].Negotiation, 0
		for end := s.now.Add(30 * time.Minute); s.now.Before(end); s.run(time.Second) {
			if n.attempt != nil && n.attempt.linked {
				s.do(s.sides[0], n.Failed(s.now, n.attempt.number, fault.HandshakeFailed))
				failed++
			}
		}
		if failed < 9 || failed > 16 {
			s.fatal("%d attempts in half an hour", failed)
		}
	})
	t.Run("goodbye", func(t *testing.T) {
		s := newSimulation(t)
		s.begin()
		s.run(5 * time.Second)
		n := s.sides[1].Negotiation
		for range 3 {
			s.do(s.sides[1], n.Failed(s.now, n.OpenAttempt(), fault.ProtocolViolation))
			s.run(30 * time.Second)
			s.expectOpen()
		}
		n.Failed(s.now, n.OpenAttempt(), fault.ProtocolViolation)
		n.Rest(s.now, fault.PeerGone)
		if effects := n.Connect(s.now); len(effects) != 1 || effects[0] != (StateChanged{}) {
			t.Errorf("a member that has said goodbye in between is met again at once: %v", effects)
		}
		if effects := n.Tick(s.now.Add(8 * minPenalty)); len(effects) == 0 {
			t.Error("the penalty does not end")
		}
	})
	t.Run("newer link", func(t *testing.T) { // than the one over which the protocol was broken
		s := newSimulation(t)
		s.begin()
		s.run(5 * time.Second)
		n := s.sides[1].Negotiation
		s.do(s.sides[1], n.Offended(s.now))
		if n.OpenAttempt() != 0 || !n.conduct.Barred.Equal(s.now.Add(minPenalty)) {
			s.fatal("barred until %v, attempt %d is open", n.conduct.Barred, n.OpenAttempt())
		}
		s.run(time.Minute)
		s.expectOpen()
	})
	for judge := range 2 {
		t.Run(fmt.Sprintf("link lost/judge=%d", judge), func(t *testing.T) { // while the member is barred for another attempt
			s := newSimulation(t)
			s.begin()
			s.run(5 * time.Second)
			n := s.sides[judge].Negotiation
			n.conduct.Offences = 5
			n.last++
			n.attempt = &attempt{number: n.last, begun: s.now, linked: true}
			n.Failed(s.now, n.last, fault.HandshakeFailed)
			end := s.now.Add(32 * minPenalty)
			if !n.conduct.Barred.Equal(end) || n.OpenAttempt() == 0 {
				s.fatal("barred until %v, attempt %d is open", n.conduct.Barred, n.OpenAttempt())
			}
			s.do(s.sides[judge], n.Failed(s.now, n.OpenAttempt(), fault.ConnectionFailed))
			for s.now.Before(end.Add(-200 * time.Millisecond)) {
				s.do(s.sides[1-judge], s.sides[1-judge].Start(s.now))
				if s.run(100 * time.Millisecond); n.attempt != nil || n.hello != nil || n.invited {
					s.fatal("met again before the penalty has ended")
				}
			}
			s.run(time.Minute)
			s.expectOpen()
		})
	}
}

// TestNegotiationProbation: a link that was open for long has the offences before it forgotten, however it ends.
func TestNegotiationProbation(t *testing.T) {
	for name, end := range map[string]func(n *Negotiation, now time.Time) *Negotiation{
		"lost": func(n *Negotiation, now time.Time) *Negotiation {
			n.Failed(now, n.OpenAttempt(), fault.ConnectionFailed)
			return n
		},
		"goodbye": func(n *Negotiation, now time.Time) *Negotiation {
			n.Rest(now, fault.PeerGone)
			return n
		},
		"replaced": func(n *Negotiation, now time.Time) *Negotiation {
			n.last++
			n.attempt = &attempt{number: n.last, begun: now, linked: true}
			n.LinkOpened(now, n.last)
			return n
		},
	} {
		for _, short := range []time.Duration{0, time.Second} {
			s := newSimulation(t)
			s.begin()
			s.run(5 * time.Second)
			n := s.sides[0].Negotiation
			n.conduct.Offences = 3
			want := 0
			if short > 0 {
				want = 3
			}
			if got := end(n, n.openedAt.Add(probation-short)).Conduct().Offences; got != want {
				t.Errorf("%s %v before probation has ended: %d offences, want %d", name, short, got, want)
			}
		}
	}
}

func TestNegotiationEpochAhead(t *testing.T) {
	s := newSimulation(t)
	s.sides[0].SetEpoch(2)
	offers := 0
	hub := s.hub
	s.hub = func(from int, p SendPayload) []time.Duration {
		if p.Type == wire.PayloadOffer {
			offers++
		}
		return hub(from, p)
	}
	s.begin()
	s.run(4 * time.Second)
	if s.sides[1].attempt != nil || offers < 2 {
		s.fatal("the responder has taken an offer under a roster that it does not have, or has acknowledged it: %d offers", offers)
	}
	s.sides[1].SetEpoch(2)
	s.run(5 * time.Second)
	s.expectOpen()
	if s.count("0 opens") != 1 {
		s.fatal("another attempt")
	}
}

// direct drives one machine without a simulation.
type direct struct {
	t   *testing.T
	now time.Time
	*Negotiation
}

func (d *direct) after(wait time.Duration) []Effect {
	d.now = d.now.Add(wait)
	return d.Tick(d.now)
}

func find[E Effect](effects []Effect) (found E, ok bool) {
	for _, e := range effects {
		if f, is := e.(E); is {
			return f, true
		}
	}
	return found, false
}

func sent(effects []Effect, kind wire.PayloadType) (p SendPayload, ok bool) {
	for _, e := range effects {
		if f, is := e.(SendPayload); is && f.Type == kind {
			return f, true
		}
	}
	return p, false
}

// TestNegotiationCandidates: early ones wait, those of the peer reach the attempt that they name, and only so many.
func TestNegotiationCandidates(t *testing.T) {
	m := newMembers(t)
	now := time.Unix(1e9, 0)
	i, r := NewNegotiation(m.config(0, 1)), NewNegotiation(m.config(1, 1))
	hello, _ := sent(r.Start(now), wire.PayloadHello)
	opening, _ := i.Receive(now, wire.PayloadHello, hello.Body, false)
	conn, ok := find[OpenConn](opening)
	if !ok {
		t.Fatal("no connection")
	}
	for n := range 100 {
		if effects := i.LocalCandidate(now, conn.Attempt, wire.Candidate{Candidate: fmt.Sprint(n)}); len(effects) > 0 {
			t.Fatalf("a candidate before its offer: %v", effects)
		}
	}
	var lists [][]wire.Candidate
	var offer SendPayload
	for n, e := range i.OfferMade(now, conn.Attempt, sdp(1)) {
		switch p := e.(SendPayload); {
		case n == 0 && p.Type == wire.PayloadOffer:
			offer = p
		case p.Type == wire.PayloadCandidates && p.Session == nil:
			m, err := wire.ParseCandidates(p.Body)
			if err != nil || m.Negotiation != i.attempt.nonce() {
				t.Fatalf("candidates %v %v", m, err)
			}
			lists = append(lists, m.List)
		default:
			t.Fatalf("unexpected %v", e)
		}
	}
	if all := slices.Concat(lists...); len(all) != maxEarly || all[0].Candidate != "0" || all[maxEarly-1].Candidate != fmt.Sprint(maxEarly-1) {
		t.Errorf("%d early candidates, want the first %d", len(all), maxEarly)
	}

	some := wire.Candidates{Negotiation: i.attempt.nonce(), List: []wire.Candidate{{Candidate: "x"}}}
	if effects, acknowledge := r.Receive(now, wire.PayloadCandidates, some.Append(nil), false); len(effects) > 0 || acknowledge {
		t.Error("candidates ahead of their offer are to come again")
	}
	if effects, _ := r.Receive(now, wire.PayloadOffer, offer.Body, false); len(effects) != 1 {
		t.Fatalf("after the offer: %v", effects)
	}
	if effects, acknowledge := r.Receive(now, wire.PayloadCandidates, some.Append(nil), false); !acknowledge || len(effects) != 1 {
		t.Errorf("candidates after their offer: %v, %v", effects, acknowledge)
	}
	if effects, acknowledge := r.Receive(now, wire.PayloadCandidates, wire.Candidates{Negotiation: wire.Hash{1}, List: some.List}.Append(nil), false); len(effects) > 0 || !acknowledge {
		t.Errorf("candidates of another negotiation: %v, %v", effects, acknowledge)
	}
	if effects, acknowledge := r.Receive(now, wire.PayloadCandidates, []byte{1}, false); len(effects) > 0 || !acknowledge {
		t.Errorf("malformed candidates: %v, %v", effects, acknowledge)
	}
	taken := 1
	some.List = slices.Repeat(some.List, wire.MaxCandidates)
	for range 20 {
		effects, _ := r.Receive(now, wire.PayloadCandidates, some.Append(nil), false)
		if add, ok := find[AddCandidates](effects); ok {
			taken += len(add.List)
		}
	}
	if taken != maxRemote {
		t.Errorf("%d candidates of the peer's were taken, want %d", taken, maxRemote)
	}
	// The responder's candidates travel under the pair's key only.
	if effects, _ := i.Receive(now, wire.PayloadCandidates, some.Append(nil), false); len(effects) > 0 {
		t.Errorf("candidates in a room envelope to the initiator: %v", effects)
	}
	answered := r.AnswerMade(now, 1, sdp(2))
	if late, _ := sent(r.LocalCandidate(now, 1, wire.Candidate{}), wire.PayloadCandidates); late.Session == nil {
		t.Error("the responder's candidates must be sealed for the pair")
	}
	answer, _ := sent(answered, wire.PayloadAnswer)
	i.Receive(now, wire.PayloadAnswer, answer.Body, false)
	if late, _ := sent(i.LocalCandidate(now, 1, wire.Candidate{}), wire.PayloadCandidates); late.Session == nil {
		t.Error("after the answer the initiator's candidates must be sealed for the pair")
	}
}

// TestNegotiationPatience: no answer at all, then attempts without a path; the member is shown as failed, attempts go on
// ever more slowly, and when the path is there, it opens.
func TestNegotiationPatience(t *testing.T) {
	s := newSimulation(t)
	s.path = false
	s.begin()
	s.run(4 * time.Minute)
	for _, side := range s.sides {
		if state, code := side.State(); state != LinkFailed || code != fault.ConnectionFailed {
			s.fatal("side %d: state %d %s", side.index, state, code)
		}
		if len(side.links) > 1 {
			s.fatal("%d connections", len(side.links))
		}
	}
	if n := s.count("0 opens"); n < patience || n > 10 {
		s.fatal("%d attempts in four minutes", n)
	}
	s.path = true
	s.run(time.Minute)
	s.expectOpen()

	// A link that ends is made again, soon.
	s.do(s.sides[0], s.sides[0].Failed(s.now, s.sides[0].OpenAttempt(), fault.PeerGone))
	if state, _ := s.sides[0].State(); state != LinkConnecting {
		s.fatal("state %d", state)
	}
	s.run(15 * time.Second)
	s.expectOpen()
}

func TestNegotiationNobodyAnswers(t *testing.T) {
	m := newMembers(t)
	for i, kind := range []wire.PayloadType{wire.PayloadKnock, wire.PayloadHello} {
		d := &direct{t, time.Unix(1e9, 0), NewNegotiation(m.config(i, 1))}
		d.Start(d.now)
		invitations := i // the responder's first goes out at once
		var failedAt int
		for second := range 600 {
			if _, ok := sent(d.after(time.Second), kind); ok {
				invitations++
			}
			if state, _ := d.State(); state == LinkFailed && failedAt == 0 {
				failedAt = invitations
			}
			if second == 300 && d.attempt != nil {
				t.Fatal("an attempt")
			}
		}
		if failedAt != patience+1 {
			t.Errorf("side %d was shown as failed after %d invitations", i, failedAt)
		}
		if invitations < 25 || invitations > 45 {
			t.Errorf("side %d sent %d invitations in ten minutes", i, invitations)
		}
	}
}

// TestNegotiationHandshakeFailed: what the peer itself got wrong ends the attempt by that name; what anybody may have
// forged does not.
func TestNegotiationHandshakeFailed(t *testing.T) {
	for _, c := range []struct {
		name  string
		kind  wire.PayloadType
		forge func(m members, hello, body []byte) []byte
		code  fault.Code
	}{
		{"no fingerprint in the offer", wire.PayloadOffer, func(m members, hello, body []byte) []byte {
			o, _, _ := wire.ParseOffer(body)
			o.SDP, o.Signature = "v=0\r\n", nil
			return signOffer(m, hello, o)
		}, fault.HandshakeFailed},
		{"wrong MAC in the answer", wire.PayloadAnswer, func(_ members, _, body []byte) []byte {
			body = slices.Clone(body)
			body[len(body)-1] ^= 1
			return body
		}, fault.HandshakeFailed},
		{"wrong signature in the offer", wire.PayloadOffer, func(_ members, _, body []byte) []byte {
			body = slices.Clone(body)
			body[len(body)-1] ^= 1
			return body
		}, fault.ConnectionFailed},
		{"another member's keys", wire.PayloadOffer, func(m members, hello, body []byte) []byte {
			o, _, _ := wire.ParseOffer(body)
			o.Keys, o.Signature = slices.Clone(o.Keys), nil
			o.Keys[0] ^= 1
			return signOffer(m, hello, o)
		}, fault.ConnectionFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSimulation(t)
			var hello []byte
			s.forge = func(_ int, kind wire.PayloadType, body []byte) []byte {
				if kind == wire.PayloadHello {
					hello = body
				}
				if kind == c.kind {
					return c.forge(s.members, hello, body)
				}
				return body
			}
			s.begin()
			s.run(5 * time.Minute)
			seen := false
			for _, side := range s.sides {
				if side.OpenAttempt() != 0 {
					s.fatal("open")
				}
				state, code := side.State()
				if state != LinkFailed {
					s.fatal("side %d: state %d %s", side.index, state, code)
				}
				seen = seen || code == fault.HandshakeFailed
			}
			if seen != (c.code == fault.HandshakeFailed) {
				s.fatal("want %s", c.code)
			}
			s.forge = nil
			s.run(2 * time.Minute)
			s.expectOpen()
		})
	}
}

// signOffer signs a changed offer as the initiator would.
func signOffer(m members, hello []byte, o wire.Offer) []byte {
	h := sha256.New()
	for _, message := range [][]byte{hello, o.Append(nil)} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(message))))
		h.Write(message)
	}
	o.Signature = m.identities[0].Sign(seal.LabelOffer, h.Sum(nil))
	return o.Append(nil)
}

func TestNegotiationClose(t *testing.T) {
	s := newSimulation(t)
	s.begin()
	s.run(5 * time.Second)
	s.expectOpen()
	for _, side := range s.sides {
		number := side.OpenAttempt()
		s.do(side, side.Close(s.now, fault.PeerGone))
		if state, code := side.State(); state != LinkClosing || code != fault.PeerGone {
			s.fatal("state %d %s", state, code)
		}
		s.do(side, side.Ended(s.now, number+1, true))
		if state, _ := side.State(); state != LinkClosing {
			s.fatal("state %d when another connection has ended", state)
		}
		s.do(side, side.Ended(s.now, number, true))
		if state, code := side.State(); state != LinkClosed || code != fault.PeerGone || len(side.links) > 0 {
			s.fatal("state %d %s, %d connections", state, code, len(side.links))
		}
		if effects := side.Start(s.now); len(effects) > 0 {
			s.fatal("started again: %v", effects)
		}
		if effects, acknowledge := side.Receive(s.now, wire.PayloadHello, wire.Hello{Member: s.members.identities[1-side.index].ID()}.Append(nil), false); len(effects) > 0 || !acknowledge {
			s.fatal("answered: %v", effects)
		}
	}
	s.script = nil
	s.run(time.Minute)
	if len(s.script) > 0 {
		s.fatal("it went on")
	}
}

func (s *side) ID() wire.ID { return s.cfg.Self.ID() }
