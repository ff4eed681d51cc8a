package peer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// TestLinkStates holds each state and event against this table, and what may never happen against all of it.
func TestLinkStates(t *testing.T) {
	const table = `
		             begins      opens    lost        gives-up  leaves   ends
		connecting   connecting  open     connecting  failed    closed   connecting
		open         open        open     connecting  open      closing  open
		closing      closing     closing  closing     closing   closing  closed
		closed       connecting  closed   closed      closed    closed   closed
		failed       connecting  open     failed      failed    closed   failed`
	states := map[string]LinkState{"connecting": LinkConnecting, "open": LinkOpen, "closing": LinkClosing, "closed": LinkClosed, "failed": LinkFailed}
	events := map[string]LinkEvent{"begins": LinkBegins, "opens": LinkOpens, "lost": LinkLost, "gives-up": LinkGivesUp, "leaves": LinkLeaves, "ends": LinkEnds}
	lines := strings.Split(strings.TrimSpace(table), "\n")
	head := strings.Fields(lines[0])
	if len(lines) != int(linkStates)+1 || len(head) != int(linkEvents) || len(states) != int(linkStates) || len(events) != int(linkEvents) {
		t.Fatal("the table does not have every pair")
	}
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		for i, want := range cells[1:] {
			if got := states[cells[0]].After(events[head[i]]); got != states[want] {
				t.Errorf("%s, %s: %d, want %s", cells[0], head[i], got, want)
			}
		}
	}
}

// rested is a simulation in which one side has ended the open link, and the other has answered its goodbye.
func rested(t *testing.T, by int) *simulation {
	s := newSimulation(t)
	s.begin()
	s.run(5 * time.Second)
	s.expectOpen()
	for _, side := range []*side{s.sides[by], s.sides[1-by]} {
		number := side.OpenAttempt()
		s.do(side, side.Rest(s.now, fault.Cancelled))
		if effects, acknowledge := side.Receive(s.now, wire.PayloadKnock, nil, false); len(effects) > 0 || acknowledge {
			s.fatal("it hears while it says goodbye: %v", effects)
		}
		s.do(side, side.Ended(s.now, number, true))
	}
	s.script = nil
	return s
}

func (s *simulation) expectState(want LinkState) {
	s.t.Helper()
	for _, side := range s.sides {
		if state, code := side.State(); state != want {
			s.fatal("side %d is in state %d %s, want %d", side.index, state, code, want)
		}
	}
}

// TestNegotiationRest: a link that was ended stays so, whatever the room suggests, until either side wants it again; from then on it
// is made again when it is lost.
func TestNegotiationRest(t *testing.T) {
	for by := range 2 {
		for wants := range 2 {
			t.Run(fmt.Sprintf("by %d, wanted by %d", by, wants), func(t *testing.T) {
				s := rested(t, by)
				s.expectState(LinkClosed)
				for range 60 {
					s.begin()
					s.run(time.Second)
				}
				if len(s.script) > 0 {
					s.fatal("something began by itself")
				}
				s.do(s.sides[wants], s.sides[wants].Connect(s.now))
				if state, _ := s.sides[wants].State(); state != LinkConnecting {
					s.fatal("state %d", state)
				}
				s.run(5 * time.Second)
				s.expectOpen()
				s.do(s.sides[by], s.sides[by].Failed(s.now, s.sides[by].OpenAttempt(), fault.PeerGone))
				s.run(30 * time.Second)
				s.expectOpen()
			})
		}
	}
	// What anybody with the link can make leads to one attempt at most; a Knock has the two meet again, since a rest is no ban.
	t.Run("forged", func(t *testing.T) {
		for i, kind := range []wire.PayloadType{wire.PayloadHello, wire.PayloadKnock} {
			s := rested(t, 0)
			body := wire.Hello{Member: s.members.identities[1].ID(), Nonce: wire.Hash{1}}.Append(nil)
			if kind == wire.PayloadKnock {
				body = wire.Knock{Member: s.members.identities[0].ID()}.Append(nil)
			}
			s.run(linkGap)
			effects, _ := s.sides[i].Receive(s.now, kind, body, false)
			s.do(s.sides[i], effects)
			if state, _ := s.sides[i].State(); state != LinkConnecting {
				s.fatal("state %d", state)
			}
			s.run(5 * time.Minute)
			if kind == wire.PayloadHello {
				s.expectState(LinkClosed)
				if n := s.count("0 opens"); n != 1 {
					s.fatal("%d attempts", n)
				}
			} else { // to the initiator the Hello says that the other side wants a link
				s.expectOpen()
			}
		}
	})
}

// TestNegotiationRestUnsaid: the other side does not hear that a link is not wanted any more, or that none is, and goes on trying. The link that comes
// about tells it, and is over at once.
func TestNegotiationRestUnsaid(t *testing.T) {
	for by := range 2 {
		for name, begun := range map[string]time.Duration{"open": 5 * time.Second, "connecting": time.Second} {
			t.Run(fmt.Sprintf("by %d, %s", by, name), func(t *testing.T) {
				s := newSimulation(t)
				s.path = name == "open"
				s.begin()
				s.run(begun)
				s.path = false
				one, other := s.sides[by], s.sides[1-by]
				if name == "open" {
					s.expectOpen()
					s.lose(1 - by)
				}
				s.do(one, one.Rest(s.now, fault.Cancelled))
				s.run(40 * time.Second)
				if state, _ := other.State(); state == LinkClosed || one.OpenAttempt() != 0 {
					s.fatal("the other side has heard")
				}
				s.path, s.script = true, nil
				s.run(time.Minute)
				s.expectState(LinkClosed)
				if n := s.count(fmt.Sprintf("%d is %d ", 1-by, LinkOpen)); n != 1 {
					s.fatal("the other side was told %d times", n)
				}
				s.script = nil
				for range 60 {
					s.begin()
					s.run(time.Second)
				}
				if len(s.script) > 0 {
					s.fatal("something began by itself")
				}
				s.do(other, other.Connect(s.now)) // it counts again what the other side wants
				s.run(5 * time.Second)
				s.expectOpen()
				s.run(time.Minute)
				s.expectOpen()
			})
		}
	}
	t.Run("wanted again", func(t *testing.T) {
		for by := range 2 {
			s := opened(t)
			s.path = false
			s.lose(1 - by)
			s.do(s.sides[by], s.sides[by].Rest(s.now, fault.Cancelled))
			s.run(5 * time.Second)
			s.path = true
			s.do(s.sides[by], s.sides[by].Connect(s.now))
			s.run(time.Minute)
			s.expectOpen()
		}
	})
}

// TestNegotiationConnectWhileClosing: a link that is wanted while the last one says goodbye comes when that is over, unless it is not wanted after all.
func TestNegotiationConnectWhileClosing(t *testing.T) {
	for i := range 2 {
		for _, after := range []bool{true, false} {
			s := opened(t)
			side := s.sides[i]
			s.do(side, side.Rest(s.now, fault.Cancelled))
			s.do(side, side.Connect(s.now))
			if state, _ := side.State(); state != LinkClosing {
				s.fatal("state %d", state)
			}
			if !after {
				s.do(side, side.Rest(s.now, fault.Cancelled))
			}
			s.run(10 * time.Second)
			if after {
				s.expectOpen()
			} else {
				s.expectState(LinkClosed)
			}
		}
	}
}

// byHand is a simulation in which nothing begins by itself.
func byHand(t *testing.T, delay time.Duration) *simulation {
	s := newSimulation(t)
	for i, side := range s.sides {
		c := s.members.config(i, 1)
		c.Manual = true
		side.Negotiation = NewNegotiation(c)
	}
	s.hub = func(_ int, p SendPayload) []time.Duration { return []time.Duration{delay} }
	return s
}

// TestNegotiationManualDoubt: where nothing begins by itself, a link in doubt can be replaced by one that is wanted; and what was under way beside a
// link that ends by a violation is shown to be over.
func TestNegotiationManualDoubt(t *testing.T) {
	for wants := range 2 {
		for _, beside := range []string{"an invitation", "an attempt", "the link"} {
			t.Run(fmt.Sprintf("%s, wanted by %d", beside, wants), func(t *testing.T) {
				s := byHand(t, 50*time.Millisecond)
				s.do(s.sides[0], s.sides[0].Connect(s.now))
				s.run(5 * time.Second)
				s.expectOpen()
				s.path = beside == "the link"
				s.hub = func(_ int, p SendPayload) []time.Duration {
					if p.Type >= wire.PayloadRestart {
						return nil
					}
					return []time.Duration{50 * time.Millisecond}
				}
				s.lose(0, 1)
				s.run(restartTime + time.Second)
				side := s.sides[wants]
				s.lose(0, 1)
				s.script = nil
				s.do(side, side.Connect(s.now))
				if !side.invited {
					s.fatal("nothing began")
				}
				if beside == "the link" {
					s.run(8 * time.Second)
					s.expectOpen()
					return
				}
				if beside == "an attempt" {
					s.run(restartTime + 2*time.Second)
					if !side.Underway() {
						s.fatal("no attempt")
					}
				}
				s.do(side, side.Failed(s.now, side.OpenAttempt(), fault.ProtocolViolation))
				if state, code := side.State(); state != LinkFailed || code != fault.ProtocolViolation || side.Underway() {
					s.fatal("state %d %s", state, code)
				}
			})
		}
	}
}

// TestNegotiationGlare: whatever both try at once, crossing each other, the lower id makes the one offer that there is.
func TestNegotiationGlare(t *testing.T) {
	for _, delay := range []time.Duration{0, 50, 700, 1900, 2500} { // of the hub, in ms: up to more than knockDelay
		for _, lead := range []time.Duration{-2500, -2000, -1000, -50, 0, 50, 1000, 2000, 2500} { // of the initiator
			t.Run(fmt.Sprintf("%d ms, lead %d ms", delay, lead), func(t *testing.T) {
				s := newSimulation(t)
				s.hub = func(int, SendPayload) []time.Duration { return []time.Duration{delay * time.Millisecond} }
				offers := [2]int{}
				s.forge = func(from int, kind wire.PayloadType, body []byte) []byte {
					if kind == wire.PayloadOffer {
						offers[from]++
					}
					return body
				}
				for i, at := range []time.Duration{max(-lead, 0), max(lead, 0)} {
					s.at(at*time.Millisecond, func() { s.do(s.sides[i], s.sides[i].Connect(s.now)) })
				}
				s.run(25 * time.Second)
				s.expectOpen()
				if offers[0] < 1 || offers[0] > 2 || offers[1] != 0 {
					s.fatal("offers %v", offers)
				}
			})
		}
	}
	t.Run("roles", func(t *testing.T) { // each side is deaf to what only the other one takes
		s := newSimulation(t)
		sent := map[wire.PayloadType]SendPayload{}
		s.forge = func(_ int, kind wire.PayloadType, body []byte) []byte {
			sent[kind] = SendPayload{Type: kind, Body: slices.Clone(body)}
			return body
		}
		s.do(s.sides[0], s.sides[0].Connect(s.now))
		s.run(5 * time.Second)
		s.expectOpen()
		// In the other's name: its own would be refused for that alone.
		sent[wire.PayloadKnock] = SendPayload{Body: wire.Knock{Member: s.members.identities[1].ID()}.Append(nil)}
		sent[wire.PayloadHello] = SendPayload{Body: wire.Hello{Member: s.members.identities[0].ID(), Nonce: wire.Hash{1}}.Append(nil)}
		deaf := [2][]wire.PayloadType{{wire.PayloadKnock, wire.PayloadOffer}, {wire.PayloadHello, wire.PayloadAnswer}}
		for i, kinds := range deaf {
			for _, kind := range kinds {
				fresh := NewNegotiation(s.members.config(i, 1))
				fresh.Start(s.now)
				if effects, acknowledge := fresh.Receive(s.now.Add(time.Minute), kind, sent[kind].Body, false); sent[kind].Body == nil || len(effects) > 0 || !acknowledge {
					t.Errorf("side %d, payload %d: %v, acknowledged: %v", i, kind, effects, acknowledge)
				}
			}
		}
	})
}

// TestNegotiationManual: nothing begins but by Connect and what is carried; a person may take minutes for it, and a lost link stays lost.
func TestNegotiationManual(t *testing.T) {
	for wants := range 2 {
		s := byHand(t, 900*time.Millisecond)
		s.begin()
		s.run(time.Minute)
		s.expectState(LinkClosed)
		if len(s.script) > 0 {
			s.fatal("it began by itself")
		}
		s.do(s.sides[wants], s.sides[wants].Connect(s.now))
		s.run(10 * time.Second)
		s.expectOpen()
		for _, side := range s.sides {
			s.do(side, side.Failed(s.now, side.OpenAttempt(), fault.PeerGone))
		}
		s.script = nil
		s.run(20 * time.Minute)
		s.expectState(LinkClosed)
		if len(s.script) > 0 {
			s.fatal("it went on by itself")
		}
	}
	s := byHand(t, carriedTimeout) // the first value arrives too late, and nothing is repeated
	s.do(s.sides[1], s.sides[1].Connect(s.now))
	s.run(carriedTimeout - time.Second)
	if state, _ := s.sides[1].State(); state != LinkConnecting || s.count("1 sends") != 1 {
		s.fatal("state %d after most of the time", state)
	}
	s.run(2 * time.Second)
	if state, code := s.sides[1].State(); state != LinkFailed || code != fault.ConnectionFailed {
		s.fatal("state %d %s in the end", state, code)
	}
}
