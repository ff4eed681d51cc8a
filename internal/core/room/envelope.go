package room

import (
	"crypto/rand"
	"errors"

	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// errNoSession: a pair's envelope, and no such pair's keys, or not yet.
var errNoSession = errors.New("room: an envelope of no session")

func newID() (id wire.ID) {
	rand.Read(id[:])
	return id
}

// send seals a payload for a member and sends it until it is acknowledged: under the session's key, or the room's if
// that is nil. In a manual room the caller gets what belongs to a handshake. It returns the envelope's id.
func (r *Room) send(to wire.ID, session *seal.Session, t wire.PayloadType, body []byte) wire.ID {
	id := newID()
	payload := append([]byte{byte(t)}, body...)
	var envelope []byte
	if session != nil {
		envelope = session.SealEnvelope(id, payload)
	} else {
		envelope = r.keys.SealEnvelope(r.self, to, id, payload)
	}
	if m := r.members[to]; m != nil && r.carries(t) {
		r.carry(m, t, body, envelope)
	} else if t != wire.PayloadAck {
		r.post(to, id, envelope)
	} else if r.connected {
		r.client.Send(to, envelope)
	}
	return id
}

// post sends an envelope until it is acknowledged.
func (r *Room) post(to, id wire.ID, envelope []byte) {
	r.outbox.Add(r.cfg.Now(), to, id, envelope)
	if r.connected {
		r.client.Send(to, envelope)
	}
}

// open opens an envelope from a member, m, or from somebody whom the roster does not list. Who it is from is the carrier's word until then.
func (r *Room) open(from wire.ID, m *member, envelope []byte) (session *seal.Session, id wire.ID, t wire.PayloadType, body []byte, err error) {
	e, err := wire.ParseEnvelope(envelope)
	if err != nil {
		return nil, id, 0, nil, err
	}
	var payload []byte
	if e.Kind == wire.RoomEnvelope {
		payload, err = r.keys.OpenEnvelope(from, r.self, envelope)
	} else if m != nil && m.negotiation.Session(e.Session) != nil {
		session = m.negotiation.Session(e.Session)
		payload, err = session.OpenEnvelope(envelope)
	} else {
		err = errNoSession
	}
	if err == nil {
		t, body, err = wire.ParsePayload(payload)
	}
	return session, e.ID, t, body, err
}

// deliver takes an envelope from the hub. Who it is from is the hub's word until it has opened.
func (r *Room) deliver(from wire.ID, envelope []byte) {
	m := r.members[from]
	session, id, t, body, err := r.open(from, m, envelope)
	if err != nil {
		r.dropped++
		return
	}
	if t == wire.PayloadAck {
		if ack, err := wire.ParseAck(body); err == nil {
			r.outbox.Ack(from, ack.Envelope)
		}
		return
	}
	if !r.inbox.Seen(from, id) {
		if m != nil && r.carries(t) {
			r.arrived(m, t, envelope)
		} else if !r.payload(from, m, t, body, session != nil) {
			return
		}
		r.inbox.Add(from, id)
	}
	r.send(from, session, wire.PayloadAck, wire.Ack{Envelope: id}.Append(nil))
}

// payload takes what an envelope held and reports whether it is to be acknowledged: false asks for it to come again.
func (r *Room) payload(from wire.ID, m *member, t wire.PayloadType, body []byte, pair bool) bool {
	switch t {
	case wire.PayloadJoin:
		return r.owner == nil || pair || r.owner.join(r, from, body)
	case wire.PayloadRoster:
		return from != r.link.Owner || pair || r.owner != nil || r.rosterReceived(body, false)
	case wire.PayloadRefuse:
		return from != r.link.Owner || pair || r.owner != nil || r.refused(body)
	}
	if m == nil {
		// Somebody whom our roster does not list may be in the next one, which is on its way.
		return false
	}
	if (t == wire.PayloadOffer || t == wire.PayloadAnswer) && !r.mayVerify(from) {
		return false
	}
	return m.payload(r, t, body, pair)
}
