package seal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"

	"tallow/internal/core/wire"
)

func TestHandshake(t *testing.T) {
	ic, rc := configs()
	ic.Rand, rc.Rand = nil, nil
	p := newPair(t, ic, rc).run(t, 5)
	if !p.i.Done() || !p.r.Done() {
		t.Fatal("not done")
	}
	if p.i.SafetyWords() != p.r.SafetyWords() || p.i.SafetyWords()[0] == "" {
		t.Errorf("safety words %v and %v", p.i.SafetyWords(), p.r.SafetyWords())
	}
	if p.i.SessionID() != p.r.SessionID() || p.i.SessionID().IsZero() {
		t.Errorf("sessions %v and %v", p.i.SessionID(), p.r.SessionID())
	}
	if p.i.Nonce() != p.r.Nonce() || p.i.Nonce() == [32]byte{} {
		t.Error("different nonces")
	}
	if p.i.PeerCapabilities() != rc.Capabilities || p.r.PeerCapabilities() != ic.Capabilities {
		t.Error("wrong capabilities")
	}
	if p.i.PeerKeys().ID() != rc.Self.ID() || p.r.PeerKeys().ID() != ic.Self.ID() {
		t.Error("wrong peers")
	}
	i, r := p.i.Session(), p.r.Session()
	if i.PeerFingerprint()[0] != 0xb2 || r.PeerFingerprint()[0] != 0xa1 {
		t.Error("wrong fingerprints")
	}
	sameTraffic(t, i, r, 0)
	if p.i.prk != nil || p.r.prk != nil || p.i.kem != nil || p.i.m0 != nil || p.r.m2 != nil {
		t.Error("secrets of the handshake linger")
	}

	again := newPair(t, ic, rc).run(t, 5)
	if again.i.SafetyWords() == p.i.SafetyWords() || again.i.SessionID() == p.i.SessionID() {
		t.Error("two handshakes have the same outcome")
	}

	// After the end, Destroy leaves the session to its owner.
	p.i.Destroy()
	if _, _, err := i.Traffic(wire.FromInitiator, wire.Bulk, 0); err != nil || !p.i.Done() {
		t.Errorf("Destroy after the end: %v", err)
	}
}

// sameTraffic checks that two sessions agree on an epoch's keys, and that no two of these are the same.
func sameTraffic(t *testing.T, a, b *Session, epoch uint32) {
	t.Helper()
	seen := map[[32]byte]bool{}
	for _, dir := range []wire.Direction{wire.FromInitiator, wire.FromResponder} {
		for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
			key, iv, err := a.Traffic(dir, ch, epoch)
			if err != nil {
				t.Fatal(err)
			}
			otherKey, otherIV, err := b.Traffic(dir, ch, epoch)
			if err != nil || key != otherKey || iv != otherIV {
				t.Errorf("direction %d, channel %d, epoch %d: different keys, %v", dir, ch, epoch, err)
			}
			var padded [32]byte
			copy(padded[:], iv[:])
			if seen[key] || seen[padded] || key == [32]byte{} || iv == [12]byte{} {
				t.Errorf("direction %d, channel %d, epoch %d: key or IV of another", dir, ch, epoch)
			}
			seen[key], seen[padded] = true, true
		}
	}
}

// refusal checks the error for a peer's message.
func refusal(t *testing.T, name string, err error, fatal bool, cause error) {
	t.Helper()
	var h *HandshakeError
	if !errors.As(err, &h) || !errors.Is(err, ErrHandshake) || h.Fatal != fatal || cause != nil && !errors.Is(err, cause) {
		t.Errorf("%s: %v, want a refusal, fatal %v, %v", name, err, fatal, cause)
	}
}

func TestRoles(t *testing.T) {
	ic, rc := configs()
	if _, err := NewInitiator(rc); !errors.Is(err, ErrPeer) {
		t.Errorf("initiator with the higher id: %v", err)
	}
	if _, err := NewResponder(ic); !errors.Is(err, ErrPeer) {
		t.Errorf("responder with the lower id: %v", err)
	}
	self := ic
	self.Peer, self.PeerKeyHash = ic.Self.ID(), ic.Self.KeyHash()
	if _, err := NewInitiator(self); !errors.Is(err, ErrPeer) {
		t.Errorf("with oneself: %v", err)
	}
	wrong := ic
	wrong.PeerKeyHash = members()[2].KeyHash()
	if _, err := NewInitiator(wrong); !errors.Is(err, ErrPeer) {
		t.Errorf("key hash of another: %v", err)
	}
}

func TestOrder(t *testing.T) {
	p := testPair(t, 0)
	due := func(name string, err error) {
		if !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// others calls every step of both that is not the one due.
	others := func(stage, dueI, dueR string) {
		t.Helper()
		for name, call := range map[string]func() error{
			"Offer":   func() error { _, err := p.i.Offer(p.m0, testSDP("A1")); return err },
			"Answer":  func() error { _, err := p.i.Answer(p.m2); return err },
			"Confirm": func() error { _, err := p.i.Confirm(); return err },
			"Reveal":  func() error { return p.i.Reveal(p.m4) },
		} {
			if name != dueI {
				due(stage+": initiator's "+name, call())
			}
		}
		for name, call := range map[string]func() error{
			"Offer":   func() error { _, err := p.r.Offer(p.m1); return err },
			"Answer":  func() error { _, err := p.r.Answer(testSDP("B2")); return err },
			"Confirm": func() error { _, err := p.r.Confirm(p.m3); return err },
		} {
			if name != dueR {
				due(stage+": responder's "+name, call())
			}
		}
		if p.i.Session() != nil && dueI != "Reveal" && dueI != "" {
			_, _, err := p.i.Session().Traffic(wire.FromInitiator, wire.Control, 0)
			if !errors.Is(err, ErrEpoch) {
				t.Errorf("%s: traffic keys before M3: %v", stage, err)
			}
			_, err = p.i.Session().StartRekey()
			due(stage+": rekey before M3", err)
		}
		if s := p.r.Session(); s != nil && dueR != "" {
			_, err := s.AnswerRekey(nil)
			due(stage+": rekey before M3", err)
		}
	}
	var err error
	must := func(e error) {
		t.Helper()
		if e != nil {
			t.Fatal(e)
		}
	}
	others("start", "Offer", "Offer")
	p.m1, err = p.i.Offer(p.m0, testSDP("A1"))
	must(err)
	others("after M1", "Answer", "Offer")
	if p.i.PeerKeys() != nil || p.r.PeerKeys() != nil || p.i.Session() != nil || !p.i.SessionID().IsZero() {
		t.Error("something exists before its time")
	}
	_, err = p.r.Offer(p.m1)
	must(err)
	others("M1 taken", "Answer", "Answer")
	p.m2, err = p.r.Answer(testSDP("B2"))
	must(err)
	others("after M2", "Answer", "Confirm")
	_, err = p.i.Answer(p.m2)
	must(err)
	others("M2 taken", "Confirm", "Confirm")
	p.m3, err = p.i.Confirm()
	must(err)
	others("after M3", "Reveal", "Confirm")
	if p.i.SafetyWords() != [4]string{} || p.r.SafetyWords() != [4]string{} || p.i.Done() {
		t.Error("done before its time")
	}
	p.m4, err = p.r.Confirm(p.m3)
	must(err)
	others("after M4", "Reveal", "")
	must(p.i.Reveal(p.m4))
	others("done", "", "")
}

func TestOwnSDPRefused(t *testing.T) {
	p := testPair(t, 0)
	for _, sdp := range []string{"", "v=0\r\n", testSDP("A1") + string(make([]byte, wire.MaxSDP)), testSDP("A1") + "s=\xff\r\n"} {
		if _, err := p.i.Offer(p.m0, sdp); !errors.Is(err, ErrSDP) {
			t.Errorf("%.20q: %v", sdp, err)
		}
	}
	p.run(t, 1)
	if _, err := p.r.Offer(p.m1); err != nil {
		t.Fatal(err)
	}
	if _, err := p.r.Answer(""); !errors.Is(err, ErrSDP) {
		t.Error(err)
	}
	if _, err := p.r.Answer(testSDP("B2")); err != nil {
		t.Errorf("after a refused SDP: %v", err)
	}
}

func TestRandFails(t *testing.T) {
	ic, rc := configs()
	short := rc
	short.Rand = bytes.NewReader(make([]byte, 31))
	if _, err := NewResponder(short); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	for n := range 64 { // nonce and KEM key
		ic.Rand = bytes.NewReader(make([]byte, n))
		p := newPair(t, ic, rc)
		if _, err := p.i.Offer(p.m0, testSDP("A1")); err == nil {
			t.Fatalf("offer from %d bytes of randomness", n)
		}
	}
	ic.Rand = io.LimitReader(deterministic("initiator"), 64)
	p := newPair(t, ic, rc).run(t, 2)
	if _, err := p.i.Answer(p.m2); err != nil {
		t.Fatal(err)
	}
	if _, err := p.i.Confirm(); err == nil {
		t.Error("confirm without randomness")
	}
	for _, n := range []int64{32, 63, 64, 127, 128, 159} {
		ic, rc := configs()
		rc.Rand = io.LimitReader(rc.Rand, n)
		p := newPair(t, ic, rc).run(t, 1)
		if _, err := p.r.Offer(p.m1); err != nil {
			t.Fatal(err)
		}
		if _, err := p.r.Answer(testSDP("B2")); err == nil {
			t.Errorf("answer from %d bytes of randomness", n)
		}
	}
}

func offerFields(t testing.TB, m1 []byte) []field {
	return fields(t, m1, "version", 1, "room", 16, "I", 16, "R", 16, "epoch", 8, "H(M0)", 32, "nonce", 32,
		"Ed25519 key", edSize, "ML-DSA key", mlSize, "ML-KEM key", kemMLPK, "X25519 key", x25519Size, "capabilities", 4,
		"SDP length", 2, "SDP", len(testSDP("A1")), "Ed25519 signature", edSig, "ML-DSA signature", mlSig)
}

func answerFields(t testing.TB, m2 []byte) []field {
	return fields(t, m2, "version", 1, "room", 16, "I", 16, "R", 16, "nonce", 32,
		"Ed25519 key", edSize, "ML-DSA key", mlSize, "ML-KEM ciphertext", kemMLCT, "X25519 ciphertext", x25519Size, "commitment", 32,
		"capabilities", 4, "SDP length", 2, "SDP", len(testSDP("B2")), "Ed25519 signature", edSig, "ML-DSA signature", mlSig, "MAC", 32)
}

func confirmFields(t testing.TB, m3 []byte) []field {
	return fields(t, m3, "contribution", 32, "Ed25519 signature", edSig, "ML-DSA signature", mlSig, "MAC", 32)
}

// twoPairs are two sessions of the same pair, up to what n names; their messages are as long as each other's.
func twoPairs(t *testing.T, n int) (p, other *pair) {
	t.Helper()
	ic, rc := configs()
	ic.Rand, rc.Rand = deterministic("other initiator"), deterministic("other responder")
	ic.Epoch, rc.Epoch, ic.Capabilities, rc.Capabilities = 6, 6, 0x0a0b0c0d, 0x0e0f1011
	other = newPair(t, ic, rc)
	other.sdpI, other.sdpR = testSDP("C3"), testSDP("D4")
	return testPair(t, n), other.run(t, n)
}

func TestDamagedHello(t *testing.T) {
	p, other := twoPairs(t, 0)
	// A Hello proves nothing, so its nonce may be anything; but then the offer is worth nothing to the responder.
	try := func(m0 []byte) error {
		i := p.i.clone()
		i.config.Rand = deterministic("damage")
		before := i.outcome()
		m1, err := i.Offer(m0, testSDP("A1"))
		if err != nil {
			refusal(t, "damaged hello", err, false, nil)
			stands(t, "damaged hello", before, &i.handshake, string(m1))
			return err
		}
		if m0[0] != p.m0[0] || !bytes.Equal(m0[1:17], p.m0[1:17]) {
			t.Error("a hello of another version or member: accepted")
		}
		r := p.r.clone()
		before = r.outcome()
		sdp, err := r.Offer(m1)
		refusal(t, "the offer to a damaged hello", err, false, ErrHelloMismatch)
		stands(t, "the offer to a damaged hello", before, &r.handshake, sdp)
		return err
	}
	parts := fields(t, p.m0, "version", 1, "R", 16, "nonce", 32)
	damage(t, p.m0, parts, try)
	if try(other.m0) == nil {
		t.Error("the hello of another session: accepted")
	}
	p.run(t, 5)
}

func TestDamagedOffer(t *testing.T) {
	p, other := twoPairs(t, 1)
	parts := offerFields(t, p.m1)
	before := p.r.outcome()
	try := func(m1 []byte) error {
		sdp, err := p.r.Offer(m1)
		refusal(t, "damaged offer", err, false, nil)
		stands(t, "damaged offer", before, &p.r.handshake, sdp)
		return err
	}
	damage(t, p.m1, parts, try)
	splice(t, p.m1, other.m1, parts, try)
	splice(t, other.m1, p.m1, parts, try)
	if try(other.m1) == nil {
		t.Error("the offer of another session: accepted")
	}
	if _, err := p.r.Offer(p.m1); err != nil {
		t.Errorf("the genuine offer after damaged ones: %v", err)
	}
}

func TestDamagedAnswer(t *testing.T) {
	p, other := twoPairs(t, 2)
	parts := answerFields(t, p.m2)
	macAt := len(p.m2) - wire.MACSize
	before := p.i.outcome()
	try := func(m2 []byte) error {
		i := p.i
		// The signature does not cover the MAC: with only that one changed, the author is proven.
		onlyMAC := len(m2) == len(p.m2) && bytes.Equal(m2[:macAt], p.m2[:macAt])
		if onlyMAC {
			i = p.i.clone()
		}
		sdp, err := i.Answer(m2)
		refusal(t, "damaged answer", err, onlyMAC, nil)
		if !onlyMAC {
			stands(t, "damaged answer", before, &i.handshake, sdp)
			return err
		}
		if over(t, "damaged MAC", &i.handshake, nil, sdp); !errors.Is(err, errMAC) || i.kem != nil {
			t.Errorf("damaged MAC: %v", err)
		}
		return err
	}
	damage(t, p.m2, parts, try)
	splice(t, p.m2, other.m2, parts, try)
	splice(t, other.m2, p.m2, parts, try)
	if try(other.m2) == nil {
		t.Error("the answer of another session: accepted")
	}
	if _, err := p.i.Answer(p.m2); err != nil {
		t.Errorf("the genuine answer after damaged ones: %v", err)
	}
}

func TestDamagedConfirm(t *testing.T) {
	p, other := twoPairs(t, 3)
	parts := confirmFields(t, p.m3)
	try := func(m3 []byte) error {
		r := p.r.clone()
		session := r.Session()
		m4, err := r.Confirm(m3)
		refusal(t, "damaged confirm", err, true, nil)
		over(t, "damaged confirm", &r.handshake, session, string(m4))
		if _, err := r.Confirm(p.m3); !errors.Is(err, ErrOrder) {
			t.Errorf("after a failure: %v", err)
		}
		return err
	}
	damage(t, p.m3, parts, try)
	splice(t, p.m3, other.m3, parts, try)
	splice(t, other.m3, p.m3, parts, try)
	if try(other.m3) == nil {
		t.Error("the confirm of another session: accepted")
	}
	if _, err := p.r.Confirm(p.m3); err != nil {
		t.Error(err)
	}
}

func TestDamagedReveal(t *testing.T) {
	p, other := twoPairs(t, 4)
	try := func(m4 []byte) error {
		i := p.i.clone()
		session := i.Session()
		err := i.Reveal(m4)
		refusal(t, "damaged reveal", err, true, nil)
		over(t, "damaged reveal", &i.handshake, session, "")
		return err
	}
	damage(t, p.m4, fields(t, p.m4, "type", 1, "contribution", 32), try)
	refusal(t, "of another session", try(other.m4), true, errContribution)
	refusal(t, "another message", try(wire.Ping{Token: 1}.Append(nil)), true, wire.ErrMalformed)
	if err := p.i.Reveal(p.m4); err != nil {
		t.Error(err)
	}
}

const otherMedia = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"

var otherFingerprint = "a=fingerprint:sha-256 " + strings.Repeat("C3:", 31) + "C3\r\n"

// forgeOffer changes M1 and signs it anew, as the initiator itself could.
func forgeOffer(t *testing.T, p *pair, by *Identity, change func(*wire.Offer)) []byte {
	t.Helper()
	m, _, err := wire.ParseOffer(p.m1)
	if err != nil {
		t.Fatal(err)
	}
	change(&m)
	m.Signature = nil
	m.Signature = by.Sign(LabelOffer, transcript(p.m0, m.Append(nil)))
	return m.Append(nil)
}

func TestForgedOffer(t *testing.T) {
	low := func(m *wire.Offer) {
		m.KEMPublicKey = bytes.Clone(m.KEMPublicKey)
		clear(m.KEMPublicKey[kemMLPK:])
	}
	large := func(m *wire.Offer) {
		m.KEMPublicKey = bytes.Clone(m.KEMPublicKey)
		m.KEMPublicKey[0], m.KEMPublicKey[1] = 0xff, 0xff
	}
	self, insider := members()[0], members()[2]
	for _, c := range []struct {
		name   string
		by     *Identity
		change func(*wire.Offer)
		fatal  bool
		cause  error
	}{
		{"another room", self, func(m *wire.Offer) { m.Room[0] ^= 1 }, false, errMembers},
		{"another initiator", self, func(m *wire.Offer) { m.Initiator = insider.ID() }, false, errMembers},
		{"another responder", self, func(m *wire.Offer) { m.Responder = insider.ID() }, false, errMembers},
		{"roles swapped", self, func(m *wire.Offer) { m.Initiator, m.Responder = m.Responder, m.Initiator }, false, errMembers},
		{"another hello", self, func(m *wire.Offer) { m.HelloHash[0] ^= 1 }, false, ErrHelloMismatch},
		{"an insider's keys", insider, func(m *wire.Offer) { m.Keys = insider.PublicKeys() }, false, ErrKeys},
		{"an insider's signature", insider, func(m *wire.Offer) {}, false, ErrSignature},
		{"a newer roster", self, func(m *wire.Offer) { m.Epoch = 8 }, false, ErrEpochAhead},
		{"a newer roster, an insider's word", insider, func(m *wire.Offer) { m.Epoch = 8 }, false, ErrSignature},
		{"low order", self, low, true, errLowOrder},
		{"ML-KEM key out of range", self, large, true, errKEMKey},
		{"no fingerprint", self, func(m *wire.Offer) { m.SDP = "v=0\r\n" }, true, ErrSDP},
		{"two fingerprints", self, func(m *wire.Offer) { m.SDP += otherFingerprint }, true, ErrSDP},
		{"media besides", self, func(m *wire.Offer) { m.SDP += otherMedia }, true, ErrSDP},
	} {
		p := testPair(t, 1)
		_, err := p.r.Offer(forgeOffer(t, p, c.by, c.change))
		refusal(t, c.name, err, c.fatal, c.cause)
		if _, err := p.r.Offer(p.m1); (err != nil) != c.fatal {
			t.Errorf("%s: the genuine offer afterwards: %v", c.name, err)
		}
	}
}

func TestEpochAhead(t *testing.T) {
	ic, rc := configs()
	ic.Epoch = 8
	p := newPair(t, ic, rc).run(t, 1)
	_, err := p.r.Offer(p.m1)
	refusal(t, "epoch ahead", err, false, ErrEpochAhead)
	if p.r.PeerKeys() != nil {
		t.Error("the peer is taken for proven")
	}
	p.r.SetEpoch(8)
	p.r.SetEpoch(3) // never back
	if _, err := p.r.Offer(p.m1); err != nil {
		t.Errorf("the repeat, with the roster there: %v", err)
	}

	ic.Epoch = 6 // an older roster that lists both is good enough
	newPair(t, ic, rc).run(t, 5)
}

// forgeAnswer changes M2 and makes signature and MAC anew, as the responder itself could.
func forgeAnswer(t *testing.T, p *pair, by *Identity, change func(*wire.Answer)) []byte {
	t.Helper()
	m, _, _, err := wire.ParseAnswer(p.m2)
	if err != nil {
		t.Fatal(err)
	}
	change(&m)
	m.Signature, m.MAC = nil, nil
	context := transcript(p.m0, p.m1, m.Append(nil))
	m.Signature = by.Sign(LabelAnswer, context)
	m.MAC = p.r.mac("mac r", context, transcript(p.m0, p.m1, m.Append(nil)))
	return m.Append(nil)
}

func TestForgedAnswer(t *testing.T) {
	self, insider := members()[1], members()[2]
	low := func(m *wire.Answer) {
		m.KEMCiphertext = bytes.Clone(m.KEMCiphertext)
		clear(m.KEMCiphertext[kemMLCT:])
	}
	otherCiphertext := func(m *wire.Answer) {
		m.KEMCiphertext = bytes.Clone(m.KEMCiphertext)
		m.KEMCiphertext[0] ^= 1
	}
	for _, c := range []struct {
		name   string
		by     *Identity
		change func(*wire.Answer)
		fatal  bool
		cause  error
	}{
		{"another room", self, func(m *wire.Answer) { m.Room[0] ^= 1 }, false, errMembers},
		{"another initiator", self, func(m *wire.Answer) { m.Initiator = insider.ID() }, false, errMembers},
		{"another responder", self, func(m *wire.Answer) { m.Responder = insider.ID() }, false, errMembers},
		{"an insider's keys", insider, func(m *wire.Answer) { m.Keys = insider.PublicKeys() }, false, ErrKeys},
		{"an insider's signature", insider, func(m *wire.Answer) {}, false, ErrSignature},
		{"low order", self, low, true, errLowOrder},
		{"a ciphertext that is not for us", self, otherCiphertext, true, errMAC},
		{"no fingerprint", self, func(m *wire.Answer) { m.SDP = "v=0\r\n" }, true, ErrSDP},
		{"two fingerprints", self, func(m *wire.Answer) { m.SDP += otherFingerprint }, true, ErrSDP},
		{"media besides", self, func(m *wire.Answer) { m.SDP += otherMedia }, true, ErrSDP},
	} {
		p := testPair(t, 2)
		_, err := p.i.Answer(forgeAnswer(t, p, c.by, c.change))
		refusal(t, c.name, err, c.fatal, c.cause)
		if _, err := p.i.Answer(p.m2); (err != nil) != c.fatal {
			t.Errorf("%s: the genuine answer afterwards: %v", c.name, err)
		}
		if c.fatal && p.i.kem != nil {
			t.Errorf("%s: the KEM key lingers", c.name)
		}
	}

	// The forger works: what it leaves unchanged is accepted.
	p := testPair(t, 2)
	if _, err := p.i.Answer(forgeAnswer(t, p, self, func(*wire.Answer) {})); err != nil {
		t.Error(err)
	}
}

func TestCommitment(t *testing.T) {
	p := testPair(t, 2)
	m2 := forgeAnswer(t, p, members()[1], func(m *wire.Answer) { m.Commitment[0] ^= 1 })
	if _, err := p.i.Answer(m2); err != nil {
		t.Fatal(err)
	}
	if _, err := p.i.Confirm(); err != nil {
		t.Fatal(err)
	}
	m4 := wire.Reveal{Contribution: p.r.contribution}.Append(nil)
	refusal(t, "commitment to something else", p.i.Reveal(m4), true, errContribution)
	if p.i.SafetyWords() != [4]string{} {
		t.Error("safety words in spite of it")
	}
}

// TestContributionsWait: the initiator draws its contribution only when it holds the responder's commitment, however long that takes and
// whatever comes in its place; the responder reveals its own only for the initiator's.
func TestContributionsWait(t *testing.T) {
	p, earlier := twoPairs(t, 2)
	random := &recorder{source: p.i.config.Rand}
	p.i.config.Rand = random
	waits := func(when string) {
		t.Helper()
		if _, err := p.i.Confirm(); !errors.Is(err, ErrOrder) || len(random.drawn) > 0 || p.i.contribution != [32]byte{} {
			t.Errorf("%s: %v, %d bytes drawn", when, err, len(random.drawn))
		}
	}
	waits("before M2")
	_, err := p.i.Answer(earlier.m2)
	refusal(t, "M2 of an earlier attempt, delayed", err, false, ErrSignature)
	waits("after a delayed M2")
	changed := bytes.Clone(p.m2)
	m, _, _, err := wire.ParseAnswer(changed)
	if err != nil {
		t.Fatal(err)
	}
	changed[bytes.Index(changed, m.Commitment[:])] ^= 1
	_, err = p.i.Answer(changed)
	refusal(t, "another commitment", err, false, ErrSignature)
	waits("after another commitment")

	if m4, err := p.r.clone().Confirm(nil); m4 != nil || err == nil {
		t.Errorf("the responder reveals %x without M3, %v", m4, err)
	}
	if _, err := p.i.Answer(p.m2); err != nil {
		t.Fatal(err)
	}
	if m3, err := p.i.Confirm(); err != nil || len(random.drawn) != 32 || !bytes.Contains(m3, random.drawn) {
		t.Errorf("M3 with the commitment there: %v, %d bytes drawn", err, len(random.drawn))
	}
}

// TestOneGuess is a man in the middle whom both take for a member. It hands on each contribution, and the commitment, as far as it can:
// both ends then have the same contributions, but not the same words, and what it could still change is refused.
func TestOneGuess(t *testing.T) {
	config := func(self, peer *Identity) HandshakeConfig {
		return HandshakeConfig{Room: testLink().Keys(), Self: self, Peer: peer.ID(), PeerKeyHash: peer.KeyHash(), Epoch: 7}
	}
	i, man, r := members()[0], members()[1], members()[2]
	right := newPair(t, config(man, r), config(r, man)).run(t, 2)
	if _, err := right.i.Answer(right.m2); err != nil {
		t.Fatal(err)
	}
	left := newPair(t, config(i, man), config(man, i)).run(t, 2)
	m2 := forgeAnswer(t, left, man, func(m *wire.Answer) { m.Commitment = right.i.commitment })
	if _, err := left.i.Answer(m2); err != nil {
		t.Fatal(err)
	}
	if _, err := left.i.Confirm(); err != nil {
		t.Fatal(err)
	}

	right.i.config.Rand = bytes.NewReader(left.i.contribution[:])
	m3, err := right.i.Confirm()
	if err != nil {
		t.Fatal(err)
	}
	revealed, err := right.r.Confirm(m3)
	if err != nil {
		t.Fatal(err)
	}
	if err := left.i.Reveal(revealed); err != nil || left.i.contribution != right.i.contribution {
		t.Fatalf("the contributions differ: %v", err)
	}
	if !left.i.Done() || !right.r.Done() || left.i.SafetyWords() == right.r.SafetyWords() {
		t.Errorf("words %v and %v", left.i.SafetyWords(), right.r.SafetyWords())
	}
}

// TestSafetyWordsBind: every bit of both contributions and of the transcript changes the words.
func TestSafetyWordsBind(t *testing.T) {
	random := deterministic("words")
	salt, a, b := draw(random, 32), [32]byte(draw(random, 32)), [32]byte(draw(random, 32))
	seen := map[[4]string]bool{safety(salt, a, b): true, safety(salt, b, a): true}
	for _, part := range [][]byte{salt, a[:], b[:]} {
		for i := range 8 * len(part) {
			part[i/8] ^= 1 << (i % 8)
			seen[safety(salt, a, b)] = true
			part[i/8] ^= 1 << (i % 8)
		}
	}
	if len(seen) != 2+3*256 {
		t.Errorf("%d different words", len(seen))
	}
}

// Two members whose links differ in the secret, but not in the room id, as if the hub knew the id: the pre-shared key counts.
func TestWrongPSK(t *testing.T) {
	ic, rc := configs()
	other := *rc.Room
	other.psk[0] ^= 1
	rc.Room = &other
	p := newPair(t, ic, rc).run(t, 2)
	_, err := p.i.Answer(p.m2)
	refusal(t, "another pre-shared key", err, true, errMAC)
}

func TestWrongRoom(t *testing.T) {
	ic, rc := configs()
	l := testLink()
	l.Secret[0] ^= 1
	rc.Room = l.Keys()
	p := newPair(t, ic, rc).run(t, 1)
	_, err := p.r.Offer(p.m1)
	refusal(t, "another room", err, false, errMembers)
}

func TestWrongPeer(t *testing.T) {
	ic, rc := configs()
	third := members()[2]
	p := newPair(t, ic, rc).run(t, 2)

	// The responder expects another member, whose id the offer's author claims.
	rc3 := rc
	rc3.Self, rc3.Peer, rc3.PeerKeyHash = third, members()[1].ID(), members()[1].KeyHash()
	r3, err := NewResponder(rc3)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r3.Offer(p.m1)
	refusal(t, "an offer to another", err, false, errMembers)

	ic3 := ic
	ic3.Peer, ic3.PeerKeyHash = third.ID(), third.KeyHash()
	i3, err := NewInitiator(ic3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i3.Offer(r3.Hello(), testSDP("A1")); err != nil {
		t.Fatal(err)
	}
	_, err = i3.Answer(p.m2)
	refusal(t, "another's answer", err, false, errMembers)
}

func TestSwappedSessions(t *testing.T) {
	ic, rc := configs()
	ic.Rand, rc.Rand = nil, nil
	a, b := newPair(t, ic, rc).run(t, 4), newPair(t, ic, rc).run(t, 4)

	fresh := newPair(t, ic, rc).run(t, 1)
	_, err := fresh.r.Offer(a.m1)
	refusal(t, "M1 of another session", err, false, ErrHelloMismatch)
	// Even under the hash of this session's hello, an old signature is worth nothing.
	m, _, err := wire.ParseOffer(a.m1)
	if err != nil {
		t.Fatal(err)
	}
	m.HelloHash = sha256.Sum256(fresh.m0)
	_, err = fresh.r.Offer(m.Append(nil))
	refusal(t, "M1 of another session, renamed", err, false, ErrSignature)
	_, err = fresh.i.Answer(a.m2)
	refusal(t, "M2 of another session", err, false, ErrSignature)

	fresh.run3(t)
	_, err = fresh.r.clone().Confirm(a.m3)
	refusal(t, "M3 of another session", err, true, nil)
	refusal(t, "M4 of another session", a.i.Reveal(b.m4), true, errContribution)

	// A confirm whose MAC is right but whose signature is not the peer's: the pre-shared and KEM secrets alone do not do.
	posing := wire.Confirm{Contribution: [32]byte{1}}
	r := fresh.r
	posing.Signature = members()[2].Sign(LabelConfirm, transcript(r.m0, r.m1, r.m2, posing.Append(nil)))
	posing.MAC = r.mac("mac i", transcript(r.m0, r.m1, r.m2), transcript(r.m0, r.m1, r.m2, posing.Append(nil)))
	_, err = r.Confirm(posing.Append(nil))
	refusal(t, "M3 signed by another", err, true, ErrSignature)
}

// run3 goes on from M1.
func (p *pair) run3(t *testing.T) {
	t.Helper()
	if _, err := p.r.Offer(p.m1); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.m2, err = p.r.Answer(testSDP("B2")); err != nil {
		t.Fatal(err)
	}
	if _, err = p.i.Answer(p.m2); err != nil {
		t.Fatal(err)
	}
	if p.m3, err = p.i.Confirm(); err != nil {
		t.Fatal(err)
	}
}

// The peer's messages are the caller's buffers: changing them afterwards changes nothing.
func TestMessagesAreCopied(t *testing.T) {
	p := testPair(t, 0)
	m0 := bytes.Clone(p.m0)
	m1, err := p.i.Offer(m0, testSDP("A1"))
	if err != nil {
		t.Fatal(err)
	}
	clear(m0)
	sent := bytes.Clone(m1)
	clear(m1)
	if _, err := p.r.Offer(sent); err != nil {
		t.Fatal(err)
	}
	clear(sent)
	m2, err := p.r.Answer(testSDP("B2"))
	if err != nil {
		t.Fatal(err)
	}
	sent = bytes.Clone(m2)
	clear(m2)
	if _, err := p.i.Answer(sent); err != nil {
		t.Fatal(err)
	}
	clear(sent)
	m3, err := p.i.Confirm()
	if err != nil {
		t.Fatal(err)
	}
	m4, err := p.r.Confirm(m3)
	if err != nil {
		t.Fatal(err)
	}
	clear(m3)
	if err := p.i.Reveal(m4); err != nil || p.i.SafetyWords() != p.r.SafetyWords() {
		t.Error(err)
	}
	sameTraffic(t, p.i.Session(), p.r.Session(), 0)
}

func TestDestroyedHandshake(t *testing.T) {
	for n := range 5 {
		p := testPair(t, n)
		i, r := p.i.Session(), p.r.Session()
		p.i.Destroy()
		p.i.Destroy()
		if p.i.Done() || p.i.kem != nil || p.i.prk != nil || p.i.Session() != nil || i != nil && i.current != nil {
			t.Errorf("after M%d: the initiator keeps secrets", n)
		}
		if n < 4 {
			p.r.Destroy()
			if p.r.Done() || p.r.prk != nil || p.r.Session() != nil || r != nil && r.current != nil {
				t.Errorf("after M%d: the responder keeps secrets", n)
			}
		}
		if _, err := p.i.Confirm(); !errors.Is(err, ErrOrder) {
			t.Errorf("after M%d: %v", n, err)
		}
	}
}
