package seal

import (
	"bytes"
	"crypto/sha3"
	"errors"
	"io"
	"runtime"
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
	sdpI, sdpR         string
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
	return &pair{i: i, r: r, sdpI: testSDP("A1"), sdpR: testSDP("B2"), m0: r.Hello()}
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
		p.m1, err = p.i.Offer(p.m0, p.sdpI)
		check(err)
	}
	if n >= 2 {
		sdp, err := p.r.Offer(p.m1)
		check(err)
		if sdp != p.sdpI {
			t.Fatalf("the offer's SDP became %q", sdp)
		}
		p.m2, err = p.r.Answer(p.sdpR)
		check(err)
	}
	if n >= 3 {
		sdp, err := p.i.Answer(p.m2)
		check(err)
		if sdp != p.sdpR {
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

// damage calls try with the message damaged in every way: each bit flipped, truncated at each length, a byte appended. Unless soak is set,
// one bit of each byte must do, and all those of a field's first byte; of one byte in sixteen where that takes long: in signatures, of
// which TestEverySignatureByteCounts does each, and in a browser. try must say that it was refused, and how.
func damage(t *testing.T, message []byte, parts []field, try func(p []byte) error) {
	t.Helper()
	f := -1
	p := bytes.Clone(message)
	for i := range message {
		first := f+1 < len(parts) && parts[f+1].start == i
		for f+1 < len(parts) && parts[f+1].start == i {
			f++
		}
		for bit := range 8 {
			slow := runtime.GOOS == "js" || strings.HasSuffix(parts[f].name, " signature")
			if !soak && !first && (bit != i%8 || slow && i%16 > 0) {
				continue
			}
			p[i] ^= 1 << bit
			if try(p) == nil {
				t.Errorf("bit %d of byte %d, in %s, flipped: accepted", bit, i, parts[f].name)
			}
			p[i] = message[i]
		}
	}
	for n := range message {
		if try(message[:n:n]) == nil {
			t.Errorf("truncated to %d of %d bytes: accepted", n, len(message))
		}
	}
	for _, b := range []byte{0, 1, 0xff} {
		if try(append(bytes.Clone(message), b)) == nil {
			t.Errorf("a byte %d appended: accepted", b)
		}
	}
}

// splice calls try with the message in which a field, or two, are those of another message of the same kind. try is as in damage.
func splice(t *testing.T, message, other []byte, parts []field, try func(p []byte) error) {
	t.Helper()
	if len(message) != len(other) {
		t.Fatalf("messages of %d and %d bytes", len(message), len(other))
	}
	take := func(p []byte, f int) {
		end := len(p)
		if f+1 < len(parts) {
			end = parts[f+1].start
		}
		copy(p[parts[f].start:end], other[parts[f].start:end])
	}
	changed := 0
	for i := range parts {
		for j := range i + 1 {
			p := bytes.Clone(message)
			take(p, i)
			take(p, j)
			if bytes.Equal(p, message) || bytes.Equal(p, other) {
				continue
			}
			changed++
			if try(p) == nil {
				t.Errorf("%s and %s of another message: accepted", parts[i].name, parts[j].name)
			}
		}
	}
	if changed == 0 {
		t.Error("the messages do not differ")
	}
}

// outcome is what a step of a handshake may change.
type outcome struct {
	next         step
	peer         *Verifier
	capabilities uint32
	nonce        [32]byte
	m0, m1, m2   string
	prk          string
	session      *Session
	words        [4]string
}

func (h *handshake) outcome() outcome {
	return outcome{h.next, h.peer, h.capabilities, h.nonce, string(h.m0), string(h.m1), string(h.m2), string(h.prk), h.session, h.words}
}

// stands checks that a refused message has changed nothing and told nothing.
func stands(t *testing.T, name string, before outcome, h *handshake, sdp string) {
	t.Helper()
	if h.outcome() != before || sdp != "" {
		t.Errorf("%s: changed the handshake, or gave %q", name, sdp)
	}
}

// over checks that a failed handshake has nothing left: no keys, no words, and no step that is due.
func over(t *testing.T, name string, h *handshake, session *Session, sdp string) {
	t.Helper()
	if h.next != stepFailed || h.prk != nil || h.m0 != nil || h.m1 != nil || h.m2 != nil || h.session != nil || h.words != [4]string{} || sdp != "" {
		t.Errorf("%s: something is left of the handshake, or it gave %q", name, sdp)
	}
	if session == nil {
		return
	}
	if _, ok := session.Epoch(); ok {
		t.Errorf("%s: traffic keys are left", name)
	}
	if _, _, err := session.Traffic(wire.FromInitiator, wire.Bulk, 0); !errors.Is(err, ErrEpoch) {
		t.Errorf("%s: traffic keys: %v", name, err)
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
