package room

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/wire"
)

// In a manual room the handshake's envelopes go out as values that the caller carries, and come back in as such: by hand, by any other
// channel, or over the hub after all (Relay). They are the envelopes that would pass the hub, sealed and judged the same way.
// Nothing is repeated or acknowledged but what goes over the hub.

const (
	// gathering is how long an offer or answer waits for the last of its candidates.
	gathering = 5 * time.Second
	// maxCarried bounds the envelopes of a value. Those that cannot be judged yet are tried again after againEvery, up to maxTries: a
	// roster may have to come first, or some time has to pass between two attempts.
	maxCarried = 32
	againEvery = time.Second
	maxTries   = 15

	valueVersion = 1
)

// carried is what passes between us and a member of a manual room.
type carried struct {
	trickle bool     // candidates are values of their own
	held    [][]byte // an offer or answer, and the candidates that it has so far
	heldAt  time.Time
	hello   []byte // the envelope of our last Hello
	greeted []byte // the Hello that the last attempt of ours has begun with
}

// appendValue is PROTOCOL.md section 5, as the caller carries it.
func appendValue(envelopes [][]byte) string {
	b := []byte{valueVersion}
	for _, e := range envelopes {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(e))), e...)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseValue(value string) (envelopes [][]byte, err error) {
	bad := func(why string) ([][]byte, error) {
		return nil, fault.Newf(fault.InvalidArgument, "room: a signaling value %s", why)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(b) == 0 || b[0] != valueVersion {
		return bad("is damaged, or of another version")
	}
	for b = b[1:]; len(b) > 0; {
		if len(b) < 2 || len(envelopes) == maxCarried {
			return bad("has a wrong length")
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n > len(b) {
			return bad("is cut off")
		}
		if _, err := wire.ParseEnvelope(b[:n]); err != nil {
			return bad("holds no envelope")
		}
		envelopes, b = append(envelopes, b[:n]), b[n:]
	}
	if len(envelopes) == 0 {
		return bad("is empty")
	}
	return envelopes, nil
}

// carries reports whether envelopes of the type are carried by the caller here.
func (r *Room) carries(t wire.PayloadType) bool {
	return r.cfg.Manual && t >= wire.PayloadKnock && t != wire.PayloadAck
}

// carry hands an envelope for the member to the caller, with others that belong to it.
func (r *Room) carry(m *member, t wire.PayloadType, body, envelope []byte) {
	c := &m.carried
	switch {
	case (t == wire.PayloadOffer || t == wire.PayloadAnswer) && !c.trickle:
		c.held, c.heldAt = [][]byte{envelope}, r.cfg.Now()
	case t == wire.PayloadCandidates && c.held != nil:
		c.held = append(c.held, envelope)
		if len(c.held) == maxCarried || endsCandidates(body) {
			r.handOver(m)
		}
	default:
		if t == wire.PayloadKnock || t == wire.PayloadHello {
			c.held = nil // of an attempt that is over
		}
		if t == wire.PayloadHello {
			c.hello = envelope
		}
		r.event(SignalMade{m.id.String(), appendValue([][]byte{envelope}), t > wire.PayloadAnswer})
	}
}

func endsCandidates(body []byte) bool {
	m, err := wire.ParseCandidates(body)
	return err == nil && m.List[len(m.List)-1].Candidate == ""
}

// handOver hands over an offer or answer with the candidates that it has.
func (r *Room) handOver(m *member) {
	r.event(SignalMade{m.id.String(), appendValue(m.carried.held), false})
	m.carried.held = nil
}

// arrived hands an envelope that came over the hub to the caller, who gives it back in Signal. It has opened, so that it comes from
// somebody who holds the link, at least.
func (r *Room) arrived(m *member, t wire.PayloadType, envelope []byte) {
	kind := SignalAnswer
	if state, _ := m.negotiation.State(); t > wire.PayloadAnswer {
		kind = SignalCandidate
	} else if state == peer.LinkClosed || state == peer.LinkFailed {
		kind = SignalOffer
	}
	r.event(SignalArrived{m.id.String(), appendValue([][]byte{envelope}), kind})
}

// take takes the envelopes of a value, in order, as far as they can be judged, and returns the rest.
func (r *Room) take(m *member, envelopes [][]byte) (rest [][]byte, err error) {
	for i, envelope := range envelopes {
		session, _, t, body, err := r.open(m.id, m, envelope)
		if errors.Is(err, errNoSession) && m.negotiation.Underway() {
			return envelopes[i:], nil // the answer that makes the session may be on its way
		}
		if err != nil || !r.carries(t) {
			return nil, fault.Newf(fault.HandshakeFailed, "room: a signaling value does not open: %w", err)
		}
		if (t == wire.PayloadOffer || t == wire.PayloadAnswer) && !r.mayVerify(m.id) {
			return envelopes[i:], nil
		}
		// Where both ends have begun, the Hello that there is already answers the Knock, and comes a second time.
		c := &m.carried
		if t == wire.PayloadKnock && c.hello != nil && m.negotiation.Invites() {
			r.event(SignalMade{m.id.String(), appendValue([][]byte{c.hello}), false})
			continue
		}
		if t == wire.PayloadHello && bytes.Equal(body, c.greeted) && m.negotiation.Underway() {
			continue
		}
		effects, judged := m.negotiation.Receive(r.cfg.Now(), t, body, session != nil)
		m.do(r, effects)
		if t == wire.PayloadHello && judged && len(effects) > 0 {
			c.greeted = body
		}
		switch {
		case !judged:
			return envelopes[i:], nil
		case t <= wire.PayloadAnswer && len(effects) == 0:
			return nil, fault.Newf(fault.HandshakeFailed, "room: a signaling value that is refused, or that nothing here waits for")
		}
	}
	return nil, nil
}

// tickCarried lets time pass for what is carried.
func (r *Room) tickCarried(m *member, now time.Time) {
	c := &m.carried
	if c.held != nil && now.Sub(c.heldAt) >= gathering {
		r.handOver(m)
	}
}

// onMember runs fn on a member, in the loop.
func (r *Room) onMember(id wire.ID, fn func(m *member) error) error {
	return r.attempt(func() error {
		m := r.members[id]
		if m == nil {
			return fault.New(fault.UnknownPeer, nil)
		}
		return fn(m)
	})
}

// Connect brings a link about: after Disconnect, and in a manual room, where what it makes comes as SignalMade. With trickle each
// candidate is a value of its own; without it, an offer or answer waits for its candidates, 5 s at most. The errors are
// UnknownPeer, RateLimited for a member that is left alone for what it did, and RoomClosed.
func (r *Room) Connect(id wire.ID, trickle bool) error {
	return r.onMember(id, func(m *member) error {
		now := r.cfg.Now()
		if r.cfg.Manual && m.negotiation.Conduct().Barred.After(now) {
			return fault.New(fault.RateLimited, nil)
		}
		m.carried.trickle = trickle
		m.do(r, m.negotiation.Connect(now))
		return nil
	})
}

// Disconnect says goodbye to a member, which stays in the room, and closes the link when what was queued has left, after a second at
// most. It stays closed until either side calls Connect. Transfers with the member end.
func (r *Room) Disconnect(id wire.ID) error {
	return r.onMember(id, func(m *member) error {
		m.rest(r, fault.Cancelled)
		return nil
	})
}

// Signal takes a value that the member's room has made, and that the caller has carried here; trickle is that of Connect. What it leads to
// comes as events. It waits a while for what has to come first. Errors besides those of Connect: InvalidArgument for what is no value or in a room
// that is not manual, HandshakeFailed for a value that does not open or is refused, RateLimited for one that comes too soon.
func (r *Room) Signal(id wire.ID, value string, trickle bool) error {
	envelopes, err := r.parseCarried(value)
	if err != nil {
		return err
	}
	for range maxTries {
		err := r.onMember(id, func(m *member) (err error) {
			m.carried.trickle = trickle
			envelopes, err = r.take(m, envelopes)
			return err
		})
		if err != nil || len(envelopes) == 0 {
			return err
		}
		select {
		case <-time.After(againEvery):
		case <-r.ctx.Done():
			return fault.New(fault.RoomClosed, nil)
		}
	}
	return fault.New(fault.RateLimited, nil)
}

// Relay sends a value over the hub, until the member's room has it.
func (r *Room) Relay(id wire.ID, value string) error {
	envelopes, err := r.parseCarried(value)
	if err != nil {
		return err
	}
	return r.onMember(id, func(m *member) error {
		for _, envelope := range envelopes {
			e, err := wire.ParseEnvelope(envelope)
			if err != nil {
				return fault.New(fault.Internal, err)
			}
			r.post(m.id, e.ID, envelope)
		}
		return nil
	})
}

func (r *Room) parseCarried(value string) ([][]byte, error) {
	if !r.cfg.Manual {
		return nil, fault.Newf(fault.InvalidArgument, "room: its signaling is not carried by the caller")
	}
	return parseValue(value)
}

// rest ends the link to a member that stays in the room, or may come back, and whatever would bring it back by itself.
func (m *member) rest(r *Room, code fault.Code) {
	m.unlink(r)
	m.carried = carried{}
	r.linkDown(m, true, fault.PeerGone)
	m.do(r, m.negotiation.Rest(r.cfg.Now(), code))
	m.sentNoMore(r)
}
