package seal

import (
	"bytes"
	"crypto/sha3"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/cloudflare/circl/kem/xwing"

	"tallow/internal/core/wire"
)

// deterministic is the randomness of a test: SHAKE256 of a name.
func deterministic(name string) io.Reader {
	h := sha3.NewSHAKE256()
	io.WriteString(h, "tallow test "+name)
	return h
}

func draw(r io.Reader, n int) []byte {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		panic(err)
	}
	return b
}

// members are three identities in the order of their ids.
var members = sync.OnceValue(func() (m [3]*Identity) {
	r := deterministic("seeds")
	for i := range m {
		id, err := NewIdentity([32]byte(draw(r, 32)))
		if err != nil {
			panic(err)
		}
		m[i] = id
	}
	less := func(a, b *Identity) bool { x, y := a.ID(), b.ID(); return bytes.Compare(x[:], y[:]) < 0 }
	for range m {
		for i := range m[1:] {
			if less(m[i+1], m[i]) {
				m[i], m[i+1] = m[i+1], m[i]
			}
		}
	}
	return m
})

// testLink is a link whose owner is the member with the lowest id.
var testLink = sync.OnceValue(func() Link {
	return Link{Secret: [32]byte(draw(deterministic("link"), 32)), Owner: members()[0].ID()}
})

func testSDP(letter string) string {
	return "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 " +
		strings.Repeat(letter+":", 31) + letter + "\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:5000\r\n"
}

// configs are those of an initiator and a responder that fit together.
func configs() (i, r HandshakeConfig) {
	room := testLink().Keys()
	a, b := members()[0], members()[1]
	i = HandshakeConfig{Room: room, Self: a, Peer: b.ID(), PeerKeyHash: b.KeyHash(), Epoch: 7, Capabilities: 0x01020304,
		Rand: deterministic("initiator")}
	r = HandshakeConfig{Room: room, Self: b, Peer: a.ID(), PeerKeyHash: a.KeyHash(), Epoch: 7, Capabilities: 0x05060708,
		Rand: deterministic("responder")}
	return i, r
}

// pair is both ends of a handshake and what has passed between them.
type pair struct {
	i                  *Initiator
	r                  *Responder
	m0, m1, m2, m3, m4 []byte
}

func newPair(t testing.TB, ic, rc HandshakeConfig) *pair {
	t.Helper()
	i, err := NewInitiator(ic)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewResponder(rc)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{i: i, r: r, m0: r.Hello()}
}

// run brings the handshake to where it has made the messages before M(n+1); what n names has not been taken by its addressee.
func (p *pair) run(t testing.TB, n int) *pair {
	t.Helper()
	check := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	var err error
	if n >= 1 {
		p.m1, err = p.i.Offer(p.m0, testSDP("A1"))
		check(err)
	}
	if n >= 2 {
		sdp, err := p.r.Offer(p.m1)
		check(err)
		if sdp != testSDP("A1") {
			t.Fatalf("the offer's SDP became %q", sdp)
		}
		p.m2, err = p.r.Answer(testSDP("B2"))
		check(err)
	}
	if n >= 3 {
		sdp, err := p.i.Answer(p.m2)
		check(err)
		if sdp != testSDP("B2") {
			t.Fatalf("the answer's SDP became %q", sdp)
		}
		p.m3, err = p.i.Confirm()
		check(err)
	}
	if n >= 4 {
		p.m4, err = p.r.Confirm(p.m3)
		check(err)
	}
	if n >= 5 {
		check(p.i.Reveal(p.m4))
	}
	return p
}

func testPair(t testing.TB, n int) *pair {
	t.Helper()
	ic, rc := configs()
	return newPair(t, ic, rc).run(t, n)
}

// clone gives a copy whose failure leaves the original alone.
func (h handshake) clone() handshake {
	h.prk = bytes.Clone(h.prk)
	if h.session != nil {
		h.session = h.session.clone()
	}
	return h
}

func (s *Session) clone() *Session {
	c := *s
	for _, p := range []**chain{&c.current, &c.previous} {
		if *p != nil {
			copied := **p
			*p = &copied
		}
	}
	if c.rekey != nil {
		c.rekey = cloneKEM(c.rekey)
	}
	return &c
}

// cloneKEM is not an assignment, which would share what circl keeps behind pointers.
func cloneKEM(k *xwing.PrivateKey) *xwing.PrivateKey {
	seed := make([]byte, xwing.PrivateKeySize)
	k.Pack(seed)
	c, _ := xwing.DeriveKeyPair(seed)
	return c
}

func (h *Initiator) clone() *Initiator {
	c := *h
	c.handshake = h.handshake.clone()
	if h.kem != nil {
		c.kem = cloneKEM(h.kem)
	}
	return &c
}

func (h *Responder) clone() *Responder {
	c := *h
	c.handshake = h.handshake.clone()
	return &c
}

// field is a part of a message, by its place.
type field struct {
	name  string
	start int
}

// fields lists the parts of a message from their lengths.
func fields(t testing.TB, message []byte, parts ...any) (f []field) {
	t.Helper()
	at := 0
	for i := 0; i < len(parts); i += 2 {
		f = append(f, field{parts[i].(string), at})
		at += parts[i+1].(int)
	}
	if at != len(message) {
		t.Fatalf("the fields add up to %d bytes, the message has %d", at, len(message))
	}
	return f
}

// damage calls try with the message damaged in every way of interest: each bit of one byte per field flipped, truncated
// at each length, a byte appended. try must say that it was refused, and how.
func damage(t *testing.T, message []byte, parts []field, try func(p []byte) error) {
	t.Helper()
	for _, f := range parts {
		for bit := range 8 {
			p := bytes.Clone(message)
			p[f.start] ^= 1 << bit
			if err := try(p); err == nil {
				t.Errorf("bit %d of %s flipped: accepted", bit, f.name)
			}
		}
	}
	for n := range len(message) {
		if try(message[:n:n]) == nil {
			t.Errorf("truncated to %d of %d bytes: accepted", n, len(message))
		}
	}
	if try(append(bytes.Clone(message), 0)) == nil {
		t.Error("a byte appended: accepted")
	}
}

const (
	edSize  = 32
	edSig   = 64
	idSize  = len(wire.ID{})
	mlSize  = wire.KeysSize - edSize
	mlSig   = wire.SignatureSize - edSig
	kemMLPK = wire.KEMPublicKeySize - x25519Size
	kemMLCT = wire.KEMCiphertextSize - x25519Size
)
