package peer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// restarts does what the room and the browser do for a restart. It gives the link a path again when both ends have come to the same one.
func (s *simulation) restarts(side *side, e Effect) {
	switch e := e.(type) {
	case RestartConn:
		s.log("%d restarts connection %d: %d", side.index, e.Attempt, e.Generation)
		l := side.links[e.Attempt]
		if l == nil {
			s.t.Fatalf("connection %d is closed", e.Attempt)
		}
		l.generation = e.Generation
		if side.unmade > 0 {
			side.unmade--
			return
		}
		s.at(30*time.Millisecond, func() {
			if !side.crashed {
				s.do(side, side.RestartMade(s.now, e.Attempt, e.Generation, sdp(byte(side.index+1))))
			}
		})
	case ApplyRestart:
		s.log("%d applies a restart", side.index)
		l := side.links[e.Attempt]
		s.at(100*time.Millisecond, func() {
			if r := l.remote; r != nil && s.path && l.generation == r.generation && side.links[l.number] == l && r.side.links[r.number] == r {
				l.path, r.path = true, true
				for _, end := range []*simLink{l, r} {
					s.do(end.side, end.side.Alive(s.now, end.number))
				}
			}
		})
	case Violated:
		s.log("%d is wronged over connection %d", side.index, e.Attempt)
		s.do(side, side.Failed(s.now, e.Attempt, fault.ProtocolViolation))
	}
}

// lose takes the path from the open link. The sides named notice.
func (s *simulation) lose(noticed ...int) {
	for _, side := range s.sides {
		side.links[side.OpenAttempt()].path = false
	}
	s.script = nil
	for _, i := range noticed {
		s.do(s.sides[i], s.sides[i].Doubt(s.now, s.sides[i].OpenAttempt(), false))
	}
}

// opened is a simulation with an open link.
func opened(t *testing.T) *simulation {
	s := newSimulation(t)
	s.begin()
	s.run(5 * time.Second)
	s.expectOpen()
	s.script = nil
	return s
}

// withholdRestarts has the hub deliver nothing of a restart from now on.
func (s *simulation) withholdRestarts() {
	others := s.hub
	s.hub = func(from int, p SendPayload) []time.Duration {
		if p.Type >= wire.PayloadRestart && p.Type <= wire.PayloadRestartRequest {
			return nil
		}
		return others(from, p)
	}
}

// expectMended checks that both have a link with a path, and do not doubt it.
func (s *simulation) expectMended() {
	s.t.Helper()
	s.expectOpen()
	for _, side := range s.sides {
		if side.Doubted() || !side.links[side.OpenAttempt()].path {
			s.fatal("side %d: doubted %v, path %v", side.index, side.Doubted(), side.links[side.OpenAttempt()].path)
		}
	}
}

// TestRestart: a link in doubt gets another path under the same keys, by one restart, whoever notices.
func TestRestart(t *testing.T) {
	for name, noticed := range map[string][]int{"initiator": {0}, "responder": {1}, "both at once": {0, 1}, "both, the other way round": {1, 0}} {
		t.Run(name, func(t *testing.T) {
			s := opened(t)
			for range 3 { // each with a generation of its own
				s.lose(noticed...)
				s.run(900 * time.Millisecond)
				s.expectMended()
				if n, made := s.count("0 restarts"), s.count("1 restarts"); n != 1 || made != 1 {
					s.fatal("%d restarts and %d answers", n, made)
				}
				s.run(time.Minute)
				s.expectMended()
				if s.count("opens connection")+s.count("sends 4")+s.count("sends 5") > 0 {
					s.fatal("another connection")
				}
			}
		})
	}
}

// TestRestartUnmade: a restart whose offer comes to nothing is harmless: the responder's request for the same one is heard.
func TestRestartUnmade(t *testing.T) {
	s := opened(t)
	s.sides[0].unmade = 1
	s.lose(1)
	s.run(5 * time.Second) // one more request
	s.expectMended()
	if n := s.count("0 restarts"); n != 2 || s.count("opens connection") > 0 {
		s.fatal("%d restarts", n)
	}
}

// TestRestartHub lets the hub drop, repeat, delay and reorder, or be away. Once that stops, the link has a path, or there is another.
func TestRestartHub(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 10
	}
	restarted := 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := opened(t)
			random := rand.New(rand.NewPCG(uint64(seed), 9))
			calm := s.hub
			s.hub = func(int, SendPayload) (copies []time.Duration) {
				for seed%4 > 0 && random.IntN(3) > 0 && len(copies) < 3 {
					copies = append(copies, time.Duration(random.IntN(3000))*time.Millisecond)
				}
				return copies
			}
			s.lose([][]int{{0}, {1}, {0, 1}}[random.IntN(3)]...)
			s.run(time.Duration(random.IntN(10_000)) * time.Millisecond)
			for _, side := range s.sides { // the hub lets them in again
				s.do(side, side.Start(s.now))
				s.do(side, side.Doubt(s.now, side.OpenAttempt(), true))
			}
			s.hub = calm
			s.run(time.Minute)
			s.expectMended()
			if s.count("opens connection") == 0 {
				restarted++
			}
		})
	}
	if restarted == 0 {
		t.Error("no link was kept")
	}
}

// TestRestartRenewed: the network is back, and the next restart does not wait for its turn; but they keep a distance.
func TestRestartRenewed(t *testing.T) {
	for i := range 2 {
		s := opened(t)
		side := s.sides[i]
		s.path = false
		s.lose(i)
		want := [2]string{"0 restarts", "1 sends 12"}[i]
		if n := s.count(want); n != 1 {
			s.fatal("%d at the beginning", n)
		}
		for range 20 {
			s.do(side, side.Doubt(s.now, side.OpenAttempt(), true))
			s.run(100 * time.Millisecond)
		}
		if n := s.count(want); n != 2 {
			s.fatal("%d after two seconds", n)
		}
		s.path = true
		s.do(side, side.Doubt(s.now, side.OpenAttempt(), true))
		s.run(2500 * time.Millisecond)
		s.expectMended()
	}
}

// TestRestartByTurns: a member that is silent and speaks up by turns, or that the hub says is back all the time, brings about ever fewer restarts;
// and once it has kept quiet for long, a path that is lost is mended at once.
func TestRestartByTurns(t *testing.T) {
	for name, turn := range map[string]func(s *simulation, side *side){
		"silent by turns": func(s *simulation, side *side) {
			s.do(side, side.Doubt(s.now, side.OpenAttempt(), false))
			s.run(time.Second)
			s.do(side, side.Alive(s.now, side.OpenAttempt()))
		},
		"and wants restarts": func(s *simulation, side *side) {
			s.do(side, side.Doubt(s.now, side.OpenAttempt(), false))
			for range 20 {
				if side.index == 0 {
					effects, _ := side.Receive(s.now, wire.PayloadRestartRequest, wire.AppendRestartRequest(nil, side.open.recovery.generation+1), true)
					s.do(side, effects)
				}
				s.run(time.Second)
			}
			s.do(side, side.Alive(s.now, side.OpenAttempt()))
		},
		"said to be back": func(s *simulation, side *side) {
			s.do(side, side.Doubt(s.now, side.OpenAttempt(), false))
			for range 5 {
				s.run(200 * time.Millisecond)
				s.do(side, side.Doubt(s.now, side.OpenAttempt(), true))
			}
			s.do(side, side.Alive(s.now, side.OpenAttempt()))
		},
	} {
		for i := range 2 {
			t.Run(fmt.Sprintf("%s/%d", name, i), func(t *testing.T) {
				s := opened(t)
				s.hub = func(int, SendPayload) []time.Duration { return nil }
				s.script = nil
				side, what := s.sides[i], [2]string{"0 restarts", "1 sends 12"}[i]
				for end := s.now.Add(20 * time.Minute); s.now.Before(end); s.run(2 * time.Second) {
					turn(s, side)
				}
				most := 50 // two a minute, and those of the beginning
				if name == "and wants restarts" {
					most = 350 // of which each doubt of twenty seconds has four that are its own, for fifty of them
				}
				if n := s.count(what); n < 5 || n > most {
					s.fatal("%d restarts in twenty minutes", n)
				}
				s.run(10 * time.Minute)
				before := s.count(what)
				s.do(side, side.Doubt(s.now, side.OpenAttempt(), false))
				if s.count(what) != before+1 {
					s.fatal("not at once")
				}
			})
		}
	}
	t.Run("beside", func(t *testing.T) { // which the hub does not put off
		for i := range 2 {
			s := opened(t)
			s.path = false
			s.lose(i)
			for range 35 {
				s.run(100 * time.Millisecond)
				s.do(s.sides[i], s.sides[i].Doubt(s.now, s.sides[i].OpenAttempt(), true))
			}
			if s.count(fmt.Sprintf("%d sends %d", i, wire.PayloadKnock+wire.PayloadType(i))) == 0 {
				s.fatal("no fresh handshake")
			}
		}
	})
}

// TestRestartAlive: a link that comes to life again is not replaced by what was begun beside it.
func TestRestartAlive(t *testing.T) {
	for _, until := range []string{"0 sends 4", "1 sends 5", "0 opens connection", "0 sends 6", "1 opens connection"} {
		t.Run(until, func(t *testing.T) {
			s := opened(t)
			s.withholdRestarts()
			was := [2]uint32{s.sides[0].OpenAttempt(), s.sides[1].OpenAttempt()}
			s.lose(0, 1)
			for deadline := s.now.Add(time.Minute); s.count(until) == 0; s.run(20 * time.Millisecond) {
				if s.now.After(deadline) {
					s.fatal("it does not come to that")
				}
			}
			for i, side := range s.sides {
				side.links[was[i]].path = true
				s.do(side, side.Alive(s.now, was[i]))
			}
			s.run(2 * time.Minute)
			s.expectMended()
			if now := [2]uint32{s.sides[0].OpenAttempt(), s.sides[1].OpenAttempt()}; now != was {
				s.fatal("another link")
			}
		})
	}
}

// TestRestartExhausted: a link in doubt gets so many restarts, further and further apart, and ends. Its member is shown as failed, once as many
// attempts without a link have come to nothing; and comes back with the path.
func TestRestartExhausted(t *testing.T) {
	for attempts, at := range map[int][]time.Duration{1: {0}, 2: {0, 4 * time.Second}, 0: {0, 4 * time.Second, 9 * time.Second, 17 * time.Second}} {
		t.Run(fmt.Sprint(attempts), func(t *testing.T) {
			s := newSimulation(t)
			s.sides[0].cfg.ReconnectAttempts = attempts
			s.begin()
			s.run(5 * time.Second)
			s.expectOpen()
			s.path = false
			s.hub = func(int, SendPayload) []time.Duration { return nil }
			s.lose(0)
			var made []time.Duration
			started, side := s.now, s.sides[0]
			for seen := 0; side.OpenAttempt() != 0; s.run(100 * time.Millisecond) {
				if n := s.count("0 restarts"); n > seen {
					seen, made = n, append(made, max(0, s.now.Sub(started)-100*time.Millisecond))
				}
				if s.now.Sub(started) > time.Minute {
					s.fatal("it does not end")
				}
			}
			if !slices.Equal(made, at) {
				s.fatal("restarts at %v, want %v", made, at)
			}
			if state, code := side.State(); state != LinkConnecting || code != fault.ConnectionFailed {
				s.fatal("state %d %s", state, code)
			}
			s.run(2 * time.Minute)
			if state, code := side.State(); state != LinkFailed || code != fault.ConnectionFailed {
				s.fatal("state %d %s", state, code)
			}
			s.path = true
			s.hub = func(int, SendPayload) []time.Duration { return []time.Duration{50 * time.Millisecond} }
			s.run(time.Minute)
			s.expectMended()
		})
	}
}

// TestRestartAway: what cannot be sent is not made. The doubt stands, and a link that comes to life by itself stays what it was; one whose path
// is lost is restarted at once when the server is back, and ends as soon as any where it does not come back.
func TestRestartAway(t *testing.T) {
	away := func(t *testing.T, i int) (*simulation, *side) {
		s := opened(t)
		calm := s.hub
		s.hub = func(from int, p SendPayload) []time.Duration {
			if s.sides[from].away {
				return nil
			}
			return calm(from, p)
		}
		for _, side := range s.sides {
			side.SetAway(true)
		}
		s.lose(i)
		return s, s.sides[i]
	}
	unmade := func(s *simulation) {
		s.t.Helper()
		if n := s.count("0 restarts") + s.count("1 sends 12"); n > 0 {
			s.fatal("%d restarts without a server", n)
		}
	}
	for i := range 2 {
		t.Run(fmt.Sprint("alive ", i), func(t *testing.T) {
			s, side := away(t, i)
			s.run(15 * time.Second)
			unmade(s)
			for _, side := range s.sides {
				side.links[side.OpenAttempt()].path = true
			}
			s.do(side, side.Alive(s.now, side.OpenAttempt()))
			s.run(time.Minute)
			unmade(s)
			s.expectMended()
		})
		t.Run(fmt.Sprint("back ", i), func(t *testing.T) {
			s, side := away(t, i)
			s.run(15 * time.Second)
			unmade(s)
			for _, side := range s.sides {
				side.SetAway(false)
			}
			s.do(side, side.Doubt(s.now, side.OpenAttempt(), true))
			s.run(900 * time.Millisecond)
			s.expectMended()
			if n := s.count("0 restarts"); n != 1 || s.count("opens connection") > 0 {
				s.fatal("%d restarts", n)
			}
		})
		t.Run(fmt.Sprint("for good ", i), func(t *testing.T) {
			s, side := away(t, i)
			started := s.now
			for side.OpenAttempt() != 0 {
				s.run(100 * time.Millisecond)
			}
			if took := s.now.Sub(started); took > 21*time.Second || took < 19*time.Second { // as in TestRestartExhausted
				s.fatal("the link ended after %v", took)
			}
			unmade(s)
			s.run(2 * time.Minute)
			if state, code := side.State(); state != LinkFailed || code != fault.ConnectionFailed {
				s.fatal("state %d %s", state, code)
			}
		})
	}
}

// TestRestartBeside: a member that answers no restart is met anew, beside the link and without regard to how long a link that is alive
// is protected.
func TestRestartBeside(t *testing.T) {
	for i := range 2 {
		s := opened(t)
		s.withholdRestarts()
		for _, side := range s.sides {
			side.disturbed = 9
			s.do(side, side.Doubt(s.now, side.OpenAttempt(), false))
			side.begunAt, side.helloAt = s.now, s.now
		}
		s.lose(i)
		s.run(besideAfter - 200*time.Millisecond)
		if s.count("opens connection") > 0 {
			s.fatal("too soon")
		}
		s.run(6 * time.Second)
		s.expectMended()
		if s.count("replaced") == 0 {
			s.fatal("the old link was not there until the new one was")
		}
	}
}

// breakLink has the platform of one side give its connection up, without a path that could tell the other.
func (s *simulation) breakLink(i int) {
	side := s.sides[i]
	l := side.links[side.OpenAttempt()]
	l.remote = nil
	s.do(side, side.Failed(s.now, l.number, fault.ConnectionFailed))
}

// TestLost: an end that tries to restart a link which the other one has given up hears of that, and lets it go for a new one at once.
func TestLost(t *testing.T) {
	for i := range 2 {
		s := opened(t)
		s.path = false
		s.lose(0, 1)
		s.run(500 * time.Millisecond)
		s.breakLink(i)
		s.path = true
		s.run(1200 * time.Millisecond) // sooner than the next restart, and than an attempt beside the link
		s.expectMended()
		if n := s.count("opens connection"); n != 2 {
			s.fatal("%d connections", n)
		}
		s.run(time.Minute)
		s.expectMended()
	}
}

// TestLostInAnyOrder: what is lost while nothing can be sent is told when it can, in whatever order that comes with a new attempt. It does no harm.
func TestLostInAnyOrder(t *testing.T) {
	for seed := range uint64(40) {
		s := opened(t)
		s.random = rand.New(rand.NewPCG(seed, 2))
		inTime := s.hub
		s.path = false
		s.hub = func(int, SendPayload) []time.Duration { return nil }
		s.lose(0, 1)
		s.run(3 * time.Second)
		s.breakLink(int(seed % 2))
		s.run(time.Duration(s.random.IntN(5000)) * time.Millisecond)
		s.path = true
		s.hub = func(from int, p SendPayload) []time.Duration {
			return []time.Duration{inTime(from, p)[0] + time.Duration(s.random.IntN(500))*time.Millisecond}
		}
		s.run(30 * time.Second)
		s.expectMended()
		s.script = nil
		s.run(time.Minute)
		s.expectMended()
		if s.count("opens connection") > 0 {
			s.fatal("another connection")
		}
	}
}

// TestLostAtOnce: a peer that loses each link as soon as it is open is not met again at once.
func TestLostAtOnce(t *testing.T) {
	for i := range 2 {
		s := opened(t)
		attempts := 0
		for open := uint32(0); s.now.Before(s.start.Add(65 * time.Second)); s.run(100 * time.Millisecond) {
			if now := s.sides[i].OpenAttempt(); now > open {
				open = now
				attempts++
				s.breakLink(i)
			}
		}
		if attempts == 0 || attempts > 40 {
			t.Errorf("%d links in a minute", attempts)
		}
	}
}

// TestLostUnopened: a peer that has lost a link which has not opened here yet does not keep it waiting.
func TestLostUnopened(t *testing.T) {
	s := newSimulation(t)
	s.path = false
	s.begin()
	s.run(2 * time.Second)
	side := s.sides[1]
	if side.attempt == nil || !side.attempt.linked {
		s.fatal("no attempt in which the peer is proven")
	}
	effects, _ := side.Receive(s.now, wire.PayloadLost, wire.Lost{Negotiation: side.attempt.nonce()}.Append(nil), true)
	s.do(side, effects)
	if side.attempt != nil {
		s.fatal("it waits")
	}
}

// TestLostUntold: who has ended a link, with a goodbye or for a violation, or whose envelopes people carry, says nothing of a loss.
func TestLostUntold(t *testing.T) {
	for name, end := range map[string]func(n *Negotiation, now time.Time) []Effect{
		"left": func(n *Negotiation, now time.Time) []Effect { return n.Left(now, n.OpenAttempt()) },
		"violation": func(n *Negotiation, now time.Time) []Effect {
			return n.Failed(now, n.OpenAttempt(), fault.ProtocolViolation)
		},
		"manual": func(n *Negotiation, now time.Time) []Effect {
			n.cfg.Manual = true
			return n.Failed(now, n.OpenAttempt(), fault.ConnectionFailed)
		},
	} {
		s := opened(t)
		s.do(s.sides[0], end(s.sides[0].Negotiation, s.now))
		if n := s.count("sends 13"); n != 0 {
			t.Errorf("%s: %d times", name, n)
		}
		if s.sides[0].OpenAttempt() != 0 {
			t.Errorf("%s: still open", name)
		}
	}
}

// TestLostIgnored: only the peer can say that a link is lost, and only of that link.
func TestLostIgnored(t *testing.T) {
	for i := range 2 {
		s := opened(t)
		side := s.sides[i]
		for _, pair := range []bool{false, true} {
			nonce := side.open.nonce()
			if pair {
				nonce[0]++
			}
			effects, acknowledge := side.Receive(s.now, wire.PayloadLost, wire.Lost{Negotiation: nonce}.Append(nil), pair)
			if len(effects) > 0 || !acknowledge {
				t.Errorf("pair %v: %v, acknowledged %v", pair, effects, acknowledge)
			}
		}
		s.expectMended()
	}
}

// TestRestartViolation: a restart with another certificate, or none, is a violation at either end, and nothing of it is applied.
func TestRestartViolation(t *testing.T) {
	for name, changed := range map[string]string{"another certificate": sdp(9), "none": "v=0\r\n", "media besides": sdp(1) + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"} {
		for judge, kind := range []wire.PayloadType{wire.PayloadRestarted, wire.PayloadRestart} {
			t.Run(fmt.Sprintf("%s in %d", name, kind), func(t *testing.T) {
				s := opened(t)
				was := s.sides[judge].OpenAttempt()
				s.forge = func(_ int, t wire.PayloadType, body []byte) []byte {
					if t == kind {
						m, _ := wire.ParseRestart(body)
						m.SDP = changed
						return m.Append(nil)
					}
					return body
				}
				s.lose(1 - judge)
				s.run(600 * time.Millisecond)
				if s.sides[judge].OpenAttempt() != 0 || s.count(fmt.Sprintf("%d closes connection %d: protocol-violation", judge, was)) != 1 {
					s.fatal("it was taken")
				}
				if s.count("applies") > 0 || judge == 1 && s.count("1 restarts") > 0 {
					s.fatal("it was applied")
				}
				if s.sides[judge].Conduct().Offences != 1 {
					s.fatal("no penalty")
				}
			})
		}
	}
}

// TestRestartIgnored: what is no restart of this link's changes nothing: from whoever only holds the room's key, repeated, superseded, out of turn.
func TestRestartIgnored(t *testing.T) {
	s := opened(t)
	s.lose(0)
	s.run(2 * time.Second)
	s.lose(1)
	s.run(2 * time.Second)
	s.expectMended() // in generation 2
	body := func(generation uint32, digit byte) []byte {
		return wire.Restart{Generation: generation, SDP: sdp(digit)}.Append(nil)
	}
	for _, c := range []struct {
		name string
		to   int
		kind wire.PayloadType
		body []byte
		pair bool
	}{
		{"Restart under the room's key", 1, wire.PayloadRestart, body(3, 1), false},
		{"Restarted under the room's key", 0, wire.PayloadRestarted, body(2, 2), false},
		{"RestartRequest under the room's key", 0, wire.PayloadRestartRequest, wire.AppendRestartRequest(nil, 3), false},
		{"Restart again", 1, wire.PayloadRestart, body(2, 1), true},
		{"Restart again, with another certificate", 1, wire.PayloadRestart, body(2, 9), true},
		{"Restart of before", 1, wire.PayloadRestart, body(1, 1), true},
		{"Restart 0", 1, wire.PayloadRestart, body(0, 1), true},
		{"Restarted again", 0, wire.PayloadRestarted, body(2, 2), true},
		{"Restarted for none", 0, wire.PayloadRestarted, body(3, 2), true},
		{"RestartRequest that has crossed a Restart", 0, wire.PayloadRestartRequest, wire.AppendRestartRequest(nil, 2), true},
		{"RestartRequest from the future", 0, wire.PayloadRestartRequest, wire.AppendRestartRequest(nil, 4), true},
		{"Restart to the initiator", 0, wire.PayloadRestart, body(3, 2), true},
		{"Restarted to the responder", 1, wire.PayloadRestarted, body(2, 1), true},
		{"RestartRequest to the responder", 1, wire.PayloadRestartRequest, wire.AppendRestartRequest(nil, 3), true},
		{"no Restart", 1, wire.PayloadRestart, []byte{0, 0, 0}, true},
		{"no RestartRequest", 0, wire.PayloadRestartRequest, []byte{0, 0, 0, 3, 0}, true},
	} {
		before := s.sides[c.to].open.recovery
		effects, acknowledge := s.sides[c.to].Receive(s.now, c.kind, c.body, c.pair)
		if len(effects) > 0 || !acknowledge || s.sides[c.to].open.recovery != before {
			t.Errorf("%s: %v, acknowledged %v", c.name, effects, acknowledge)
		}
	}
	late := s.sides[0].OpenAttempt()
	for name, effects := range map[string][]Effect{
		"offer of before": s.sides[0].RestartMade(s.now, late, 1, sdp(1)),
		"another link's":  s.sides[0].RestartMade(s.now, late+1, 2, sdp(1)),
		"too long":        s.sides[0].RestartMade(s.now, late, 2, string(make([]byte, wire.MaxSDP+1))),
		"doubt of none":   s.sides[0].Doubt(s.now, late+1, true),
	} {
		if len(effects) > 0 {
			t.Errorf("%s: %v", name, effects)
		}
	}
}

// TestRestartUrged: a member that wants restarts all the time over a link that is alive gets ever fewer; what is too early is not acknowledged, and
// counts when it comes again. Each restart begins with fresh room for candidates.
func TestRestartUrged(t *testing.T) {
	for i, kind := range []wire.PayloadType{wire.PayloadRestartRequest, wire.PayloadRestart} {
		s := opened(t)
		side, made, refused := s.sides[i], 0, 0
		for end := s.now.Add(20 * time.Minute); s.now.Before(end); s.now = s.now.Add(100 * time.Millisecond) {
			generation := side.open.recovery.generation + 1
			body := wire.AppendRestartRequest(nil, generation)
			if kind == wire.PayloadRestart {
				body = wire.Restart{Generation: generation, SDP: sdp(1)}.Append(nil)
			}
			side.open.remote = maxRemote
			effects, acknowledge := side.Receive(s.now, kind, body, true)
			if e, restarts := find[RestartConn](effects); restarts {
				made++
				side.RestartMade(s.now, e.Attempt, e.Generation, sdp(byte(i+1)))
				if i == 1 && side.open.remote != 0 {
					t.Fatal("no room for candidates")
				}
			} else if acknowledge {
				t.Fatal("acknowledged, and ignored")
			} else {
				refused++
			}
		}
		if made < 9 || made > 13 || refused == 0 { // 1, 2, 4 … 320 s
			t.Errorf("%d restarts in twenty minutes", made)
		}
		// Once this end doubts the link, they come as they are wanted.
		s.do(side, side.Doubt(s.now, side.OpenAttempt(), false))
		s.now = s.now.Add(restartGap)
		body := wire.AppendRestartRequest(nil, side.open.recovery.offered+1)
		if kind == wire.PayloadRestart {
			body = wire.Restart{Generation: side.open.recovery.generation + 1, SDP: sdp(1)}.Append(nil)
		}
		if effects, acknowledge := side.Receive(s.now, kind, body, true); len(effects) == 0 || !acknowledge {
			t.Error("refused while the link is in doubt")
		}
	}
}
