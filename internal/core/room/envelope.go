package room

import (
	"crypto/rand"

	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

func newID() (id wire.ID) {
	rand.Read(id[:])
	return id
}

// send seals a payload for a member and sends it until it is acknowledged: under the session's key, or the room's if
// that is nil. It returns the envelope's id.
func (r *Room) send(to wire.ID, session *seal.Session, t wire.PayloadType, body []byte) wire.ID {
	id := newID()
	payload := append([]byte{byte(t)}, body...)
	var envelope []byte
	if session != nil {
		envelope = session.SealEnvelope(id, payload)
	} else {
		envelope = r.keys.SealEnvelope(r.self, to, id, payload)
	}
	if t != wire.PayloadAck {
		r.outbox.Add(r.cfg.Now(), to, id, envelope)
	}
	if r.connected {
		r.client.Send(to, envelope)
	}
	return id
}

// deliver takes an envelope from the hub. Who it is from is the hub's word until it has opened.
func (r *Room) deliver(from wire.ID, envelope []byte) {
	e, err := wire.ParseEnvelope(envelope)
	if err != nil {
		r.dropped++
		return
	}
	var session *seal.Session
	var payload []byte
	m := r.members[from]
	if e.Kind == wire.RoomEnvelope {
		payload, err = r.keys.OpenEnvelope(from, r.self, envelope)
	} else if m != nil && m.negotiation.Session(e.Session) != nil {
		session = m.negotiation.Session(e.Session)
		payload, err = session.OpenEnvelope(envelope)
	} else {
		r.dropped++
		return
	}
	if err != nil {
		r.dropped++
		return
	}
	t, body, err := wire.ParsePayload(payload)
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
	if !r.inbox.Seen(from, e.ID) {
		if !r.payload(from, m, t, body, session != nil) {
			return
		}
		r.inbox.Add(from, e.ID)
	}
	r.send(from, session, wire.PayloadAck, wire.Ack{Envelope: e.ID}.Append(nil))
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
