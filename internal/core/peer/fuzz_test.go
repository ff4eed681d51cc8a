package peer

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// FuzzLink gives the reading side of a link what a network might: its peer's messages, again, out of order and changed, records of
// the other channel and direction, and bytes that are nothing. Only what the peer has sealed comes out, and in its order.
func FuzzLink(f *testing.F) {
	names := []string{"data 0", "data 1", "key 2", "epoch 1 data 0", "epoch 1 data 1", "data 2", "of the other channel", "of the initiator",
		"in the clear", "epoch 1 key 0", "long 1/2", "long 2/2"}
	all := map[wire.Channel]map[string][]byte{wire.Control: testMessages(f, wire.Control), wire.Bulk: testMessages(f, wire.Bulk)}
	f.Add(true, []byte{0, 1, 2, 3, 4})
	f.Add(false, []byte{0, 1, 0, 2})
	f.Add(true, []byte{0, 10, 11, 5})
	f.Add(true, []byte{0, 0x81, 3, 2, 1})
	f.Add(false, []byte{0, 0xff, 17, 0, 0, 0, 13, 2})
	f.Fuzz(func(t *testing.T, onBulk bool, script []byte) {
		ch := wire.Control
		if onBulk {
			ch = wire.Bulk
		}
		var stream [][]byte
		for len(script) > 0 && len(stream) < 64 {
			op := script[0]
			script = script[1:]
			switch {
			case op == 0xff && len(script) > 0: // as many bytes as they come
				n := min(int(script[0]), len(script)-1)
				stream, script = append(stream, script[1:1+n]), script[1+n:]
			case op >= 0x80 && len(script) > 1: // changed somewhere
				message := bytes.Clone(all[ch][names[int(op)%len(names)]])
				if len(message) > 0 {
					message[int(script[0])%len(message)] ^= script[1]
				}
				stream, script = append(stream, message), script[2:]
			default:
				stream = append(stream, all[ch][names[int(op)%len(names)]])
			}
		}
		// The peer has sent one of two third records, or a key record.
		genuine := [][]byte{bytes.Repeat([]byte{0}, 20), bytes.Repeat([]byte{1}, 20), nil}
		released := 0
		err := readStream(t, ch, stream, func(plaintext []byte) {
			text := func(n byte) bool { return bytes.Equal(plaintext, bytes.Repeat([]byte{n}, 20)) }
			long := len(plaintext) == wire.MessageSize && bytes.Count(plaintext, []byte{1}) == len(plaintext)
			var ok bool
			switch released {
			case 0, 1:
				ok = bytes.Equal(plaintext, genuine[released]) || released == 1 && ch == wire.Bulk && long
			case 2:
				ok = text(2) || text(10)
			case 3:
				ok = text(11)
			}
			if !ok {
				t.Errorf("released %d bytes as record %d", len(plaintext), released)
			}
			released++
		})
		if !errors.Is(err, ErrClosed) && fault.Of(err) != fault.ProtocolViolation {
			t.Errorf("untyped: %v", err)
		}
	})
}

// FuzzNegotiation drives two negotiations with what a hub may do to their payloads, and a room and a browser may report in any
// order: no panic, at most one attempt and one open link, and everything that is kept has a bound.
func FuzzNegotiation(f *testing.F) {
	m := newMembers(f)
	f.Add([]byte{})
	open := []byte{0x11, 0x02, 0x05, 0, 0x12, 0x15, 1, 0x02, 0x07, 0, 0x17, 0} // Hello, Offer, Answer, and both links open
	f.Add(open)
	f.Add(append(open[:len(open):len(open)], 0x0c, 1, 0x1c, 1, 0x0c, 2, 0x1c, 2, 0x1c, 0, 0x12, 0x02))
	f.Add(append(open[:len(open):len(open)], 0x00, 100, 0x11, 0x04, 0, 0, 0x08, 0, 0, 0x1a))
	f.Fuzz(func(t *testing.T, script []byte) {
		w := &fuzzWorld{t: t, now: time.Unix(1e9, 0)}
		for i := range w.sides {
			w.sides[i] = &fuzzSide{Negotiation: NewNegotiation(m.config(i, 1)), conns: map[uint32]bool{}}
		}
		for n := 0; n < 64 && len(script) > 0; n++ {
			op, side := script[0]&15, w.sides[script[0]>>4&1]
			script = script[1:]
			next := func() (b byte) {
				if len(script) > 0 {
					b, script = script[0], script[1:]
				}
				return b
			}
			w.step(op, side, next)
			w.check(side)
		}
	})
}

// fuzzWorld is two negotiations, and all that they have sent.
type fuzzWorld struct {
	t     *testing.T
	now   time.Time
	sides [2]*fuzzSide
}

type fuzzSide struct {
	*Negotiation
	sent    []SendPayload
	read    int             // how many of the other side's have arrived here
	conns   map[uint32]bool // open connections; true: with a link
	effects []Effect
}

func (w *fuzzWorld) step(op byte, s *fuzzSide, next func() byte) {
	other := w.sides[0]
	if s == other {
		other = w.sides[1]
	}
	receive := func(p SendPayload, body []byte, pair bool) {
		s.effects, _ = s.Receive(w.now, p.Type, body, pair)
	}
	s.effects = nil
	switch op {
	case 0:
		w.now = w.now.Add(time.Duration(next()) * 100 * time.Millisecond)
		s.effects = s.Tick(w.now)
	case 1:
		s.effects = s.Start(w.now)
	case 2: // the next payload arrives
		if s.read < len(other.sent) {
			p := other.sent[s.read]
			s.read++
			receive(p, p.Body, p.Session != nil)
		}
	case 3: // any payload arrives, changed
		if len(other.sent) > 0 {
			p := other.sent[int(next())%len(other.sent)]
			body := bytes.Clone(p.Body)
			switch at, how := int(next())<<4, next(); {
			case how == 0:
				body = body[:at%(len(body)+1)]
			case how == 1:
				body = append(body, 0)
			default:
				body[at%len(body)] ^= how
			}
			receive(p, body, p.Session != nil)
		}
	case 4: // any payload arrives again, perhaps in another kind of envelope, or as another type
		if len(other.sent) > 0 {
			p := other.sent[int(next())%len(other.sent)]
			how := next()
			if how&2 != 0 {
				p.Type = wire.PayloadType(how >> 2)
			}
			receive(p, p.Body, (p.Session != nil) != (how&1 != 0))
		}
	case 5: // what a browser reports of the newest connection
		sdp := sdp(next()%16 + 'A' - 10)
		if s.initiator {
			s.effects = s.OfferMade(w.now, s.last, sdp)
		} else {
			s.effects = s.AnswerMade(w.now, s.last, sdp)
		}
	case 6:
		n := uint32(next())
		for range n {
			w.run(s, s.LocalCandidate(w.now, s.last-n%2, wire.Candidate{Candidate: fmt.Sprint(n)}))
		}
	case 7:
		if number := s.last - uint32(next()%2); s.conns[number] { // a link opens only where one was started
			s.effects = s.LinkOpened(w.now, number)
		}
	case 8:
		codes := []fault.Code{fault.ConnectionFailed, fault.ProtocolViolation, fault.HandshakeFailed, fault.PeerGone}
		s.effects = s.Failed(w.now, s.last-uint32(next()%3), codes[next()%4])
	case 9:
		s.SetEpoch(uint64(next()))
	case 10:
		s.effects = s.Close(w.now, fault.PeerGone)
	case 11: // many candidates
		list := make([]wire.Candidate, wire.MaxCandidates)
		var nonce wire.Hash
		if s.attempt != nil {
			nonce = s.attempt.nonce()
		}
		pair := next()&1 != 0
		for range 2 * maxRemote / wire.MaxCandidates {
			receive(SendPayload{Type: wire.PayloadCandidates}, wire.Candidates{Negotiation: nonce, List: list}.Append(nil), pair)
			w.run(s, s.effects)
		}
		s.effects = nil
	case 12: // somebody wants the link, or none; or one that was to end has ended
		switch how := next(); how % 3 {
		case 0:
			s.effects = s.Connect(w.now)
		case 1:
			s.effects = s.Rest(w.now, []fault.Code{fault.PeerGone, fault.Cancelled}[how/3%2])
		default:
			s.effects = s.Ended(w.now, s.last-uint32(how/3%2), how/6%2 > 0)
		}
	case 13: // the open link is in doubt, or is not
		number := s.last - uint32(next()%2)
		switch how := next(); how % 3 {
		case 0:
			s.effects = s.Alive(w.now, number)
		default:
			s.effects = s.Doubt(w.now, number, how%3 == 1)
		}
	case 14: // what a browser reports of a restart
		digit := byte(0xA1)
		if !s.initiator {
			digit = 0xB2
		}
		s.effects = s.RestartMade(w.now, s.last-uint32(next()%2), uint32(next()%4), sdp(digit+next()%2))
	case 15: // a restart, from one who has the keys
		p := SendPayload{Type: wire.PayloadRestart + wire.PayloadType(next()%3)}
		body := wire.Restart{Generation: uint32(next() % 4), SDP: sdp('A' - 10 + next()%16)}.Append(nil)
		if p.Type == wire.PayloadRestartRequest {
			body = body[:4]
		}
		receive(p, body, next()&1 == 0)
	case 16: // that a link is lost
		var nonce wire.Hash
		if s.open != nil && next()&1 == 0 {
			nonce = s.open.nonce()
		} else if s.attempt != nil {
			nonce = s.attempt.nonce()
		}
		receive(SendPayload{Type: wire.PayloadLost}, wire.Lost{Negotiation: nonce}.Append(nil), next()&1 == 0)
	default: // bytes that are nothing
		receive(SendPayload{Type: wire.PayloadType(op)}, bytes.Repeat([]byte{next()}, int(next())), op&1 != 0)
	}
	w.run(s, s.effects)
}

// run does what a room does.
func (w *fuzzWorld) run(s *fuzzSide, effects []Effect) {
	if limit := 8 + maxEarly/wire.MaxCandidates; len(effects) > limit {
		w.t.Fatalf("%d effects of one event", len(effects))
	}
	for _, e := range effects {
		switch e := e.(type) {
		case SendPayload:
			if len(s.sent) < 256 {
				s.sent = append(s.sent, e)
			}
		case OpenConn:
			if _, twice := s.conns[e.Attempt]; twice {
				w.t.Fatalf("connection %d opened twice", e.Attempt)
			}
			s.conns[e.Attempt] = false
		case StartLink:
			if linked, ok := s.conns[e.Attempt]; !ok || linked {
				w.t.Fatalf("a link over connection %d", e.Attempt)
			}
			s.conns[e.Attempt] = true
		case RestartConn:
			if s.open == nil || s.open.number != e.Attempt {
				w.t.Fatalf("a restart of connection %d, which has no open link", e.Attempt)
			}
		case CloseConn:
			if _, ok := s.conns[e.Attempt]; !ok {
				w.t.Fatalf("connection %d closed, which is not open", e.Attempt)
			}
			delete(s.conns, e.Attempt)
		}
	}
}

func (w *fuzzWorld) check(s *fuzzSide) {
	want := 0
	for _, a := range []*attempt{s.attempt, s.open} {
		if a == nil {
			continue
		}
		want++
		if _, ok := s.conns[a.number]; !ok {
			w.t.Fatalf("no connection for attempt %d", a.number)
		}
		if len(a.early) > maxEarly || a.remote > maxRemote {
			w.t.Fatalf("%d early and %d remote candidates", len(a.early), a.remote)
		}
	}
	if len(s.conns) != want {
		w.t.Fatalf("%d connections for %d attempts", len(s.conns), want)
	}
	state, _ := s.State()
	if (state == LinkOpen) != (s.open != nil) || s.open != nil && !s.open.linked {
		w.t.Fatalf("state %d, open %v", state, s.open != nil)
	}
	if (state == LinkClosed || state == LinkClosing) && (want > 0 || s.invited) {
		w.t.Fatalf("state %d, and yet something is under way", state)
	}
}
