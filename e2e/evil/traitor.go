package main

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"log"
	"strings"

	"github.com/cloudflare/circl/kem/xwing"

	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// traitor holds the link: it reads room envelopes and seals what it likes in them. What it lacks are the members' signing keys, so it
// signs with its own.
type traitor struct {
	keys     *seal.RoomKeys
	psk      []byte
	identity *seal.Identity

	initiator      wire.ID
	hello, offer   []byte // as they were delivered
	answers, pairs map[wire.ID]bool
}

func newTraitor(link seal.Link) *traitor {
	var seed [32]byte
	rand.Read(seed[:])
	identity, err := seal.NewIdentity(seed)
	if err != nil {
		log.Fatal(err)
	}
	return &traitor{keys: link.Keys(), psk: expand(extract([]byte("tallow v1 room"), link.Secret[:]), "psk", nil), identity: identity,
		answers: map[wire.ID]bool{}, pairs: map[wire.ID]bool{}}
}

// insider are the attacks of a server that has the link. Each changes one type of payload, in every envelope.
var insider = map[string]struct {
	on     wire.PayloadType
	change func(*traitor, []byte) []byte
}{
	"join-version":   {wire.PayloadJoin, otherVersion},
	"join-signature": {wire.PayloadJoin, lastBit},
	"join-keys": {wire.PayloadJoin, func(t *traitor, body []byte) []byte {
		m, _, err := wire.ParseJoin(body)
		must(err)
		m.Keys, m.Signature = t.identity.PublicKeys(), nil
		return seal.SignJoin(t.identity, m)
	}},

	"roster-version": {wire.PayloadRoster, otherVersion},
	"roster-epoch":   {wire.PayloadRoster, roster(func(_ *traitor, m *wire.Roster) { m.Epoch++ })},
	"roster-members": {wire.PayloadRoster, roster(func(t *traitor, m *wire.Roster) { m.Members = append(m.Members, t.identity.KeyHash()) })},
	"roster-owner": {wire.PayloadRoster, func(t *traitor, body []byte) []byte {
		m, _, err := wire.ParseRoster(body)
		must(err)
		m.Members[0], m.Keys, m.Signature = t.identity.KeyHash(), t.identity.PublicKeys(), nil
		return seal.SignRoster(t.identity, m)
	}},
	"roster-old": {wire.PayloadRoster, roster(func(_ *traitor, m *wire.Roster) { m.ReplyTo[0] ^= 1 })},

	"hello-version": {wire.PayloadHello, otherVersion},
	"hello-nonce":   {wire.PayloadHello, lastBit},

	"offer-version":     {wire.PayloadOffer, otherVersion},
	"offer-signature":   {wire.PayloadOffer, lastBit},
	"offer-room":        {wire.PayloadOffer, offer(func(_ *traitor, m *wire.Offer) { m.Room[0] ^= 1 })},
	"offer-ids":         {wire.PayloadOffer, offer(func(_ *traitor, m *wire.Offer) { m.Initiator, m.Responder = m.Responder, m.Initiator })},
	"offer-epoch":       {wire.PayloadOffer, offer(func(_ *traitor, m *wire.Offer) { m.Epoch-- })},
	"offer-nonce":       {wire.PayloadOffer, offer(func(_ *traitor, m *wire.Offer) { m.Nonce[0] ^= 1 })},
	"offer-fingerprint": {wire.PayloadOffer, offer(func(_ *traitor, m *wire.Offer) { m.SDP = otherFingerprint(m.SDP) })},
	"offer-kem":         {wire.PayloadOffer, offer(func(_ *traitor, m *wire.Offer) { m.KEMPublicKey = ownKEM() })},
	"offer-keys": {wire.PayloadOffer, func(t *traitor, body []byte) []byte {
		m, _, err := wire.ParseOffer(body)
		must(err)
		m.Keys, m.KEMPublicKey, m.SDP, m.Signature = t.identity.PublicKeys(), ownKEM(), otherFingerprint(m.SDP), nil
		m.Signature = t.identity.Sign(seal.LabelOffer, transcript(t.hello, m.Append(nil)))
		return m.Append(nil)
	}},

	"answer-version":     {wire.PayloadAnswer, otherVersion},
	"answer-mac":         {wire.PayloadAnswer, lastBit},
	"answer-ids":         {wire.PayloadAnswer, answer(func(_ *traitor, m *wire.Answer) { m.Initiator, m.Responder = m.Responder, m.Initiator })},
	"answer-nonce":       {wire.PayloadAnswer, answer(func(_ *traitor, m *wire.Answer) { m.Nonce[0] ^= 1 })},
	"answer-commitment":  {wire.PayloadAnswer, answer(func(_ *traitor, m *wire.Answer) { m.Commitment[0] ^= 1 })},
	"answer-fingerprint": {wire.PayloadAnswer, answer(func(_ *traitor, m *wire.Answer) { m.SDP = otherFingerprint(m.SDP) })},
	"answer-ciphertext": {wire.PayloadAnswer, answer(func(t *traitor, m *wire.Answer) {
		m.KEMCiphertext, _ = t.encapsulate()
	})},
	// Everything but the responder's keys is right: the man in the middle's own secret, signature and MAC.
	"answer-keys": {wire.PayloadAnswer, func(t *traitor, body []byte) []byte {
		m, _, _, err := wire.ParseAnswer(body)
		must(err)
		ciphertext, secret := t.encapsulate()
		m.Keys, m.KEMCiphertext, m.SDP, m.Signature, m.MAC = t.identity.PublicKeys(), ciphertext, otherFingerprint(m.SDP), nil, nil
		context := transcript(t.hello, t.offer, m.Append(nil))
		m.Signature = t.identity.Sign(seal.LabelAnswer, context)
		mac := hmac.New(sha256.New, expand(extract(t.psk, secret), "mac r", context))
		mac.Write(transcript(t.hello, t.offer, m.Append(nil)))
		m.MAC = mac.Sum(nil)
		return m.Append(nil)
	}},
}

// meddle is another envelope in the place of one that is delivered, if the attack concerns it.
func (t *traitor) meddle(a *attack, from, to wire.ID, envelope []byte) ([]byte, bool) {
	e, err := wire.ParseEnvelope(envelope)
	if err != nil {
		return nil, false
	}
	if e.Kind == wire.PairEnvelope {
		if from == t.initiator && !t.pairs[e.ID] {
			t.pairs[e.ID] = true
			a.counts.Pairs++
		}
		return nil, false
	}
	payload, err := t.keys.OpenEnvelope(from, to, envelope)
	if err != nil {
		return nil, false
	}
	kind, body, err := wire.ParsePayload(payload)
	if err != nil {
		return nil, false
	}
	attack := insider[a.mode]
	concerned := attack.change != nil && attack.on == kind
	switch kind {
	case wire.PayloadHello:
		t.hello = body
	case wire.PayloadOffer:
		t.initiator, t.offer = from, body
	case wire.PayloadAnswer:
		if !t.answers[e.ID] {
			t.answers[e.ID] = true
			a.counts.Answers++
		}
	}
	if !concerned {
		return nil, false
	}
	changed := attack.change(t, bytes.Clone(body))
	// Under another id: the true envelope, which its author repeats, may still arrive when the attack is over.
	return t.keys.SealEnvelope(from, to, newID(), append([]byte{byte(kind)}, changed...)), true
}

// encapsulate makes a secret of the traitor's own for the initiator's key.
func (t *traitor) encapsulate() (ciphertext, secret []byte) {
	m, _, err := wire.ParseOffer(t.offer)
	must(err)
	secret, ciphertext, err = xwing.Encapsulate(m.KEMPublicKey, nil)
	must(err)
	return ciphertext, secret
}

func ownKEM() []byte {
	_, public, err := xwing.GenerateKeyPairPacked(nil)
	must(err)
	return public
}

func otherVersion(_ *traitor, body []byte) []byte {
	body[0]++
	return body
}

func lastBit(_ *traitor, body []byte) []byte {
	body[len(body)-1] ^= 1
	return body
}

func roster(change func(*traitor, *wire.Roster)) func(*traitor, []byte) []byte {
	return func(t *traitor, body []byte) []byte {
		m, _, err := wire.ParseRoster(body)
		must(err)
		change(t, &m)
		return m.Append(nil)
	}
}

func offer(change func(*traitor, *wire.Offer)) func(*traitor, []byte) []byte {
	return func(t *traitor, body []byte) []byte {
		m, _, err := wire.ParseOffer(body)
		must(err)
		change(t, &m)
		return m.Append(nil)
	}
}

func answer(change func(*traitor, *wire.Answer)) func(*traitor, []byte) []byte {
	return func(t *traitor, body []byte) []byte {
		m, _, _, err := wire.ParseAnswer(body)
		must(err)
		change(t, &m)
		return m.Append(nil)
	}
}

// otherFingerprint names a DTLS certificate that somebody else has.
func otherFingerprint(sdp string) string {
	lines := strings.Split(sdp, "\n")
	for i, line := range lines {
		if head, _, ok := strings.Cut(line, "sha-256 "); ok && strings.Contains(head, "fingerprint") {
			lines[i] = head + "sha-256 " + strings.TrimSuffix(strings.Repeat("AB:", 32), ":") + "\r"
		}
	}
	return strings.Join(lines, "\n")
}

// The derivations of PROTOCOL.md sections 2 and 7, written again: a traitor has no use for functions that refuse to lie.

func transcript(messages ...[]byte) []byte {
	h := sha256.New()
	for _, m := range messages {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(m))))
		h.Write(m)
	}
	return h.Sum(nil)
}

func extract(salt, secret []byte) []byte {
	prk, err := hkdf.Extract(sha256.New, secret, salt)
	must(err)
	return prk
}

func expand(prk []byte, label string, context []byte) []byte {
	key, err := hkdf.Expand(sha256.New, prk, "tallow v1 "+label+"\x00"+string(context), 32)
	must(err)
	return key
}

func must(err error) {
	if err != nil {
		log.Fatal(err) // the test sees that it is gone
	}
}
