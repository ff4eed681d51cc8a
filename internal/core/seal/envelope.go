package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"tallow/internal/core/wire"
)

// ErrEnvelope is wrapped by every error of OpenEnvelope, besides wire.ErrMalformed where that is the cause. Such an
// envelope says nothing about its supposed author: drop and count it.
var ErrEnvelope = errors.New("seal: envelope does not open")

// SealEnvelope seals a payload of 1 to wire.MaxPayload bytes for a member under the room's key: PROTOCOL.md section 5,
// kind 1. The id is fresh for each envelope; a repeat is the same bytes, not sealed again.
func (k *RoomKeys) SealEnvelope(from, to, id wire.ID, payload []byte) []byte {
	return k.box(from, to).seal(id, newSalt(), payload)
}

// OpenEnvelope opens a room envelope. That it opens proves only that its author holds the link.
func (k *RoomKeys) OpenEnvelope(from, to wire.ID, envelope []byte) (payload []byte, err error) {
	return k.box(from, to).open(envelope)
}

func (k *RoomKeys) box(from, to wire.ID) box {
	return box{kind: wire.RoomEnvelope, key: &k.envelope, room: k.ID, from: from, to: to}
}

// SealEnvelope seals a payload of 1 to wire.MaxPayload bytes for the peer under the pair's key: PROTOCOL.md section 5, kind 2.
func (s *Session) SealEnvelope(id wire.ID, payload []byte) []byte {
	return s.box(s.self, s.peer, s.direction).seal(id, newSalt(), payload)
}

// OpenEnvelope opens the peer's pair envelope. That it opens proves that the peer made it in this session.
func (s *Session) OpenEnvelope(envelope []byte) (payload []byte, err error) {
	return s.box(s.peer, s.self, s.direction.Other()).open(envelope)
}

func (s *Session) box(from, to wire.ID, author wire.Direction) box {
	return box{kind: wire.PairEnvelope, key: &s.signal[author], room: s.room, from: from, to: to, session: s.id}
}

// box is what both ends of an envelope must agree on.
type box struct {
	kind           wire.EnvelopeKind
	key            *[32]byte
	room, from, to wire.ID
	session        wire.ID
}

func newSalt() (salt [32]byte) {
	rand.Read(salt[:])
	return salt
}

func (b box) seal(id wire.ID, salt [32]byte, payload []byte) []byte {
	must(len(payload) > 0 && len(payload) <= wire.MaxPayload, "length of an envelope's payload")
	e := wire.Envelope{Kind: b.kind, ID: id, Session: b.session, Salt: salt}
	head := e.Append(make([]byte, 0, wire.EnvelopeOverhead+len(payload)))
	aead, nonce := b.aead(salt)
	return aead.Seal(head, nonce, payload, b.aad(id))
}

func (b box) open(p []byte) ([]byte, error) {
	e, err := wire.ParseEnvelope(p)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	if e.Kind != b.kind || e.Session != b.session {
		return nil, fmt.Errorf("%w: another kind or session", ErrEnvelope)
	}
	aead, nonce := b.aead(e.Salt)
	payload, err := aead.Open(nil, nonce, e.Ciphertext, b.aad(e.ID))
	if err != nil {
		return nil, ErrEnvelope
	}
	return payload, nil
}

func (b box) aead(salt [32]byte) (aead cipher.AEAD, nonce []byte) {
	k := expand(b.key[:], "envelope key", salt[:], 32+12)
	defer wipe(k[:32])
	return newGCM(k[:32]), k[32:]
}

func (b box) aad(id wire.ID) []byte {
	aad := append([]byte("tallow v1 envelope"), byte(b.kind))
	for _, part := range []wire.ID{b.room, b.from, b.to, id, b.session} {
		aad = append(aad, part[:]...)
	}
	return aad
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	must(err == nil, "AES refused its key")
	aead, err := cipher.NewGCM(block)
	must(err == nil, "GCM refused its cipher")
	return aead
}
