package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/cloudflare/circl/kem/xwing"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"tallow/internal/core/wire"
)

var update = flag.Bool("update", false, "write testdata anew")

// Embedded, so that the tests need no file system in a browser.
//
//go:embed testdata
var testdata embed.FS

// vector is named values in the order in which they arise: byte strings in hexadecimal, texts as they are.
type vector []struct{ name, value string }

func (v *vector) text(name, value string) {
	*v = append(*v, struct{ name, value string }{name, value})
}
func (v *vector) hex(name string, value []byte) { v.text(name, hex.EncodeToString(value)) }

func (v vector) encode() []byte {
	var b bytes.Buffer
	b.WriteString("{\n")
	for i, f := range v {
		name, _ := json.Marshal(f.name)
		value, _ := json.Marshal(f.value)
		comma := ","
		if i == len(v)-1 {
			comma = ""
		}
		fmt.Fprintf(&b, "  %s: %s%s\n", name, value, comma)
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// golden compares a vector with the committed one, or writes it.
func golden(t *testing.T, name string, v vector) {
	t.Helper()
	path := "testdata/" + name
	got := v.encode()
	if !json.Valid(got) {
		t.Fatalf("%s: not JSON", name)
	}
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := testdata.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	if len(gotLines) != len(wantLines) {
		t.Errorf("%s: %d lines, want %d", name, len(gotLines), len(wantLines))
	}
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Errorf("%s:%d:\ngot  %.300s\nwant %.300s", name, i+1, gotLines[i], wantLines[i])
		}
	}
}

// What follows is PROTOCOL.md written down a second time, from HMAC and the primitives up. The vectors' intermediate
// values come from here, and the package's results must agree.

func refHMAC(key []byte, message ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, m := range message {
		h.Write(m)
	}
	return h.Sum(nil)
}

func refExpand(prk []byte, label, context string, n int) []byte {
	info := []byte("tallow v1 " + label + "\x00" + context)
	var out, block []byte
	for i := byte(1); len(out) < n; i++ {
		block = refHMAC(prk, block, info, []byte{i})
		out = append(out, block...)
	}
	return out[:n]
}

func refHash(parts ...string) []byte {
	sum := sha256.Sum256([]byte(strings.Join(parts, "")))
	return sum[:]
}

func refTH(messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(m))), m...)
	}
	return refHash(string(b))
}

func refVerify(keys []byte, label string, message, signature []byte) bool {
	m := []byte("tallow v1 " + label + "\x00" + string(message))
	var ml mldsa65.PublicKey
	return len(keys) == 1984 && len(signature) == 3373 && ml.UnmarshalBinary(keys[32:]) == nil &&
		ed25519.Verify(keys[:32], m, signature[:64]) && mldsa65.Verify(&ml, m, nil, signature[64:])
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the package has %x, PROTOCOL.md gives %x", what, got, want)
	}
}

func TestLinkVectors(t *testing.T) {
	l := testLink()
	k := l.Keys()
	var v vector
	v.hex("K", l.Secret[:])
	v.hex("A", l.Owner[:])
	v.text("fragment", l.Fragment())
	prk := refHMAC([]byte("tallow v1 room"), l.Secret[:])
	v.hex("prk", prk)
	v.hex("room id", refExpand(prk, "room id", "", 16))
	v.hex("token", refExpand(prk, "join token", "", 32))
	v.hex("envkey", refExpand(prk, "envelope", "", 32))
	v.hex("psk", refExpand(prk, "psk", "", 32))
	same(t, "fragment", []byte(l.Fragment()),
		[]byte("v1."+base64.RawURLEncoding.EncodeToString(append(l.Secret[:], l.Owner[:]...))))
	same(t, "room id", k.ID[:], refExpand(prk, "room id", "", 16))
	same(t, "token", k.Token[:], refExpand(prk, "join token", "", 32))
	same(t, "envkey", k.envelope[:], refExpand(prk, "envelope", "", 32))
	same(t, "psk", k.psk[:], refExpand(prk, "psk", "", 32))
	golden(t, "link.json", v)
}

func TestIdentityVectors(t *testing.T) {
	seed := [32]byte(draw(deterministic("identity"), 32))
	id, err := NewIdentity(seed)
	if err != nil {
		t.Fatal(err)
	}
	prk := refHMAC([]byte("tallow v1 identity"), seed[:])
	edSeed, mlSeed := refExpand(prk, "ed25519", "", 32), refExpand(prk, "ml-dsa-65", "", 32)
	ml, _ := mldsa65.NewKeyFromSeed((*[32]byte)(mlSeed))
	keys := append(bytes.Clone(ed25519.NewKeyFromSeed(edSeed)[32:]), ml.Bytes()...)
	claim := refExpand(prk, "hub claim", "", 16)
	keyHash := refHash("tallow v1 member", string(keys))
	message := []byte("a message")
	signature := id.Sign(LabelReceipt, message)

	var v vector
	v.hex("seed", seed[:])
	v.hex("prk", prk)
	v.hex("ed seed", edSeed)
	v.hex("ml seed", mlSeed)
	v.hex("claim", claim)
	v.hex("keys", keys)
	v.hex("key hash", keyHash)
	v.hex("id", keyHash[:16])
	v.text("label", string(LabelReceipt))
	v.hex("message", message)
	v.hex("signature", signature)
	same(t, "keys", id.PublicKeys(), keys)
	gotHash, gotID, gotClaim := id.KeyHash(), id.ID(), id.Claim()
	same(t, "key hash", gotHash[:], keyHash)
	same(t, "id", gotID[:], keyHash[:16])
	same(t, "claim", gotClaim[:], claim)
	if !refVerify(keys, "receipt", message, signature) {
		t.Error("the signature does not verify")
	}
	golden(t, "identity.json", v)
}

func TestAdmissionVectors(t *testing.T) {
	room, owner, newcomer := testLink().Keys(), members()[0], members()[1]
	nonce := wire.ID(draw(deterministic("nonce"), 16))
	join := SignJoin(newcomer, wire.Join{Room: room.ID, Nonce: nonce, Epoch: 6, Name: "Zoë"})
	roster := SignRoster(owner, wire.Roster{Room: room.ID, Epoch: 7, MaxMembers: 11, ReplyTo: nonce,
		Members: []wire.Hash{owner.KeyHash(), newcomer.KeyHash()}})
	refuse := SignRefuse(owner, wire.Refuse{Room: room.ID, Member: newcomer.ID(), Nonce: nonce, Code: wire.RefuseLocked})
	var v vector
	v.hex("room id", room.ID[:])
	for _, m := range []struct {
		name string
		by   *Identity
		body []byte
	}{{"join", newcomer, join}, {"roster", owner, roster}, {"refuse", owner, refuse}} {
		v.hex(m.name, m.body)
		at := len(m.body) - 3373
		if !refVerify(m.by.PublicKeys(), m.name, m.body[:at], m.body[at:]) {
			t.Errorf("%s does not verify", m.name)
		}
	}
	golden(t, "admission.json", v)
}

// refOpen opens an envelope as PROTOCOL.md section 5 has it.
func refOpen(key []byte, room, from, to wire.ID, envelope []byte) ([]byte, error) {
	salt := envelope[33:65]
	k := refExpand(key, "envelope key", string(salt), 44)
	block, err := aes.NewCipher(k[:32])
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	aad := "tallow v1 envelope" + string(envelope[:1]) + string(room[:]) + string(from[:]) + string(to[:]) + string(envelope[1:33])
	return gcm.Open(nil, k[32:], envelope[65:], []byte(aad))
}

func TestEnvelopeVectors(t *testing.T) {
	room := testLink().Keys()
	a, b := members()[0].ID(), members()[1].ID()
	p := testPair(t, 5)
	random := deterministic("envelope")
	var v vector
	v.hex("room id", room.ID[:])
	for _, c := range []struct {
		name     string
		box      box
		key      [32]byte
		from, to wire.ID
		open     func([]byte) ([]byte, error)
	}{
		{"room", room.box(a, b), room.envelope, a, b, func(e []byte) ([]byte, error) { return room.OpenEnvelope(a, b, e) }},
		{"pair from I", p.i.session.box(a, b, wire.FromInitiator), p.i.session.signal[0], a, b, p.r.session.OpenEnvelope},
		{"pair from R", p.r.session.box(b, a, wire.FromResponder), p.r.session.signal[1], b, a, p.i.session.OpenEnvelope},
	} {
		id, salt := wire.ID(draw(random, 16)), [32]byte(draw(random, 32))
		payload := append([]byte{byte(wire.PayloadAck)}, draw(random, 16)...)
		envelope := c.box.seal(id, salt, payload)
		v.hex(c.name+": k", c.key[:])
		v.hex(c.name+": from", c.from[:])
		v.hex(c.name+": to", c.to[:])
		v.hex(c.name+": id", id[:])
		v.hex(c.name+": session", c.box.session[:])
		v.hex(c.name+": salt", salt[:])
		v.hex(c.name+": key ‖ nonce", refExpand(c.key[:], "envelope key", string(salt[:]), 44))
		v.hex(c.name+": payload", payload)
		v.hex(c.name+": envelope", envelope)
		got, err := refOpen(c.key[:], room.ID, c.from, c.to, envelope)
		if err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%s: PROTOCOL.md opens it to %x, %v", c.name, got, err)
		}
		if got, err = c.open(envelope); err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%s: opens to %x, %v", c.name, got, err)
		}
	}
	golden(t, "envelope.json", v)
}

// recorder keeps what randomness a side has drawn.
type recorder struct {
	source io.Reader
	drawn  []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.source.Read(p)
	r.drawn = append(r.drawn, p[:n]...)
	return n, err
}

func (r *recorder) take(n int) []byte {
	b := r.drawn[:n]
	r.drawn = r.drawn[n:]
	return b
}

// TestHandshakeVectors goes from M0 through the first rekeying.
func TestHandshakeVectors(t *testing.T) {
	ic, rc := configs()
	iRandom, rRandom := &recorder{source: ic.Rand}, &recorder{source: rc.Rand}
	ic.Rand, rc.Rand = iRandom, rRandom
	p := newPair(t, ic, rc).run(t, 5)
	rekeyMessage, rekeyed := rekey(t, p.i.Session(), p.r.Session())

	var v vector
	link := testLink()
	v.hex("K", link.Secret[:])
	v.hex("room id", ic.Room.ID[:])
	v.hex("psk", ic.Room.psk[:])
	seeds := deterministic("seeds")
	for range members() {
		seed := [32]byte(draw(seeds, 32))
		id, err := NewIdentity(seed)
		if err != nil {
			t.Fatal(err)
		}
		switch id.ID() {
		case ic.Self.ID():
			v.hex("seed of I", seed[:])
		case rc.Self.ID():
			v.hex("seed of R", seed[:])
		}
	}
	iID, rID := ic.Self.ID(), rc.Self.ID()
	v.hex("I", iID[:])
	v.hex("R", rID[:])
	v.text("roster epoch", "7")
	v.text("SDP in M1", testSDP("A1"))
	v.text("SDP in M2", testSDP("B2"))

	v.hex("random of R: M0 nonce", rRandom.take(32))
	v.hex("random of I: M1 nonce", iRandom.take(32))
	kemSeed := iRandom.take(32)
	v.hex("random of I: KEM key seed", kemSeed)
	v.hex("random of R: M2 nonce", rRandom.take(32))
	encapsulationSeed := rRandom.take(64)
	v.hex("random of R: KEM encapsulation seed", encapsulationSeed)
	rContribution := rRandom.take(32)
	v.hex("random of R: contribution", rContribution)
	iContribution := iRandom.take(32)
	v.hex("random of I: contribution", iContribution)

	m0, m1, m2, m3, m4 := p.m0, p.m1, p.m2, p.m3, p.m4
	m1Prime, m1Signature := m1[:len(m1)-3373], m1[len(m1)-3373:]
	m2Prime, m2DoublePrime, m2Signature, m2MAC := m2[:len(m2)-3405], m2[:len(m2)-32], m2[len(m2)-3405:len(m2)-32], m2[len(m2)-32:]
	m3Prime, m3DoublePrime, m3Signature, m3MAC := m3[:32], m3[:len(m3)-32], m3[32:len(m3)-32], m3[len(m3)-32:]
	v.hex("M0", m0)
	v.hex("H(M0)", refHash(string(m0)))
	v.hex("TH(M0, M1')", refTH(m0, m1Prime))
	v.hex("M1", m1)
	same(t, "H(M0) in M1", m1[57:89], refHash(string(m0)))
	if !refVerify(ic.Self.PublicKeys(), "offer", refTH(m0, m1Prime), m1Signature) {
		t.Error("the signature in M1 does not verify")
	}

	kemPrivate, kemPublic := xwing.DeriveKeyPairPacked(kemSeed)
	ss, ciphertext, err := xwing.Encapsulate(kemPublic, encapsulationSeed)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "decapsulated", xwing.Decapsulate(ciphertext, kemPrivate), ss)
	same(t, "KEM public key in M1", m1[89+32+1984:][:1216], kemPublic)
	same(t, "KEM ciphertext in M2", m2[49+32+1984:][:1120], ciphertext)
	commitment := refHash("tallow v1 commitment", string(rContribution))
	same(t, "commitment in M2", m2[49+32+1984+1120:][:32], commitment)
	prk := refHMAC(ic.Room.psk[:], ss)
	macR := refExpand(prk, "mac r", string(refTH(m0, m1, m2Prime)), 32)
	v.hex("ss", ss)
	v.hex("prk", prk)
	v.hex("commitment", commitment)
	v.hex("TH(M0, M1, M2')", refTH(m0, m1, m2Prime))
	v.hex("macR", macR)
	v.hex("TH(M0, M1, M2'')", refTH(m0, m1, m2DoublePrime))
	v.hex("M2", m2)
	if !refVerify(rc.Self.PublicKeys(), "answer", refTH(m0, m1, m2Prime), m2Signature) {
		t.Error("the signature in M2 does not verify")
	}
	same(t, "MAC in M2", m2MAC, refHMAC(macR, refTH(m0, m1, m2DoublePrime)))

	th2 := refTH(m0, m1, m2)
	macI := refExpand(prk, "mac i", string(th2), 32)
	v.hex("TH(M0, M1, M2)", th2)
	v.hex("session id", refExpand(prk, "session", string(th2), 16))
	v.hex("signaling key of I", refExpand(prk, "signal i", string(th2), 32))
	v.hex("signaling key of R", refExpand(prk, "signal r", string(th2), 32))
	v.hex("macI", macI)
	v.hex("TH(M0, M1, M2, M3')", refTH(m0, m1, m2, m3Prime))
	v.hex("TH(M0, M1, M2, M3'')", refTH(m0, m1, m2, m3DoublePrime))
	v.hex("M3", m3)
	if !refVerify(ic.Self.PublicKeys(), "confirm", refTH(m0, m1, m2, m3Prime), m3Signature) {
		t.Error("the signature in M3 does not verify")
	}
	same(t, "MAC in M3", m3MAC, refHMAC(macI, refTH(m0, m1, m2, m3DoublePrime)))
	same(t, "contribution in M3", m3Prime, iContribution)

	th3 := refTH(m0, m1, m2, m3)
	chain := refExpand(prk, "chain", string(th3), 32)
	v.hex("TH(M0, M1, M2, M3)", th3)
	v.hex("chain_0", chain)
	v.hex("M4", m4)
	same(t, "M4", m4, append([]byte{1}, rContribution...))
	safety := refExpand(refHMAC(th3, append(bytes.Clone(iContribution), rContribution...)), "safety words", "", 6)
	v.hex("safety", safety)
	var words []string
	bits := new(strings.Builder)
	for _, b := range safety {
		fmt.Fprintf(bits, "%08b", b)
	}
	for i := range 4 {
		var n int
		fmt.Sscanf(bits.String()[11*i:11*i+11], "%b", &n)
		words = append(words, strings.Fields(wordsText)[n])
	}
	v.text("safety words", strings.Join(words, " "))

	kemSeed2, encapsulationSeed2 := iRandom.take(32), rRandom.take(64)
	_, kemPublic2 := xwing.DeriveKeyPairPacked(kemSeed2)
	ss2, ciphertext2, err := xwing.Encapsulate(kemPublic2, encapsulationSeed2)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "Rekey", rekeyMessage, append([]byte{5, 0, 0, 0, 1}, kemPublic2...))
	same(t, "Rekeyed", rekeyed, append([]byte{6, 0, 0, 0, 1}, ciphertext2...))
	next := refExpand(refHMAC(chain, ss2), "chain", string(refHash(string(rekeyMessage), string(rekeyed))), 32)
	v.hex("random of I: KEM key seed of Rekey", kemSeed2)
	v.hex("random of R: KEM encapsulation seed of Rekeyed", encapsulationSeed2)
	v.hex("Rekey", rekeyMessage)
	v.hex("ss of Rekeyed", ss2)
	v.hex("Rekeyed", rekeyed)
	v.hex("chain_1", next)
	if len(iRandom.drawn)+len(rRandom.drawn) > 0 {
		t.Error("more randomness drawn than recorded here")
	}

	for epoch, c := range [][]byte{chain, next} {
		for dir, dirName := range []string{"I", "R"} {
			for ch, chName := range []string{"control", "bulk"} {
				context := string([]byte{byte(dir), byte(ch), 0, 0, 0, byte(epoch)})
				key, iv := refExpand(c, "key", context, 32), refExpand(c, "iv", context, 12)
				name := fmt.Sprintf("epoch %d, from %s, %s: ", epoch, dirName, chName)
				v.hex(name+"key", key)
				v.hex(name+"iv", iv)
				for _, s := range []*Session{p.i.Session(), p.r.Session()} {
					gotKey, gotIV, err := s.Traffic(wire.Direction(dir), wire.Channel(ch), uint32(epoch))
					if err != nil {
						t.Fatal(err)
					}
					same(t, name+"key", gotKey[:], key)
					same(t, name+"iv", gotIV[:], iv)
				}
			}
		}
	}
	for _, h := range []*handshake{&p.i.handshake, &p.r.handshake} {
		s := h.Session()
		same(t, "session id", s.id[:], refExpand(prk, "session", string(th2), 16))
		same(t, "signaling key of I", s.signal[0][:], refExpand(prk, "signal i", string(th2), 32))
		same(t, "signaling key of R", s.signal[1][:], refExpand(prk, "signal r", string(th2), 32))
		got := h.SafetyWords()
		same(t, "safety words", []byte(strings.Join(got[:], " ")), []byte(strings.Join(words, " ")))
	}
	golden(t, "handshake.json", v)
}

// The committed messages are also read back, by a responder and an initiator that did not make them.
func TestHandshakeVectorsRead(t *testing.T) {
	if *update {
		t.Skip("testdata has just been written anew; run the tests again")
	}
	b, err := testdata.ReadFile("testdata/handshake.json")
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]string
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	p := testPair(t, 1)
	if _, err := p.r.Offer(unhex(v["M1"])); err != nil {
		t.Fatal(err)
	}
	if _, err := p.r.Answer(v["SDP in M2"]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.i.Answer(unhex(v["M2"])); err != nil {
		t.Fatal(err)
	}
	if _, err := p.i.Confirm(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.r.Confirm(unhex(v["M3"])); err != nil {
		t.Fatal(err)
	}
	if err := p.i.Reveal(unhex(v["M4"])); err != nil {
		t.Fatal(err)
	}
	words := p.i.SafetyWords()
	if got := strings.Join(words[:], " "); got != v["safety words"] || p.r.SafetyWords() != words {
		t.Errorf("safety words %q, want %q", got, v["safety words"])
	}
	for _, name := range []string{"M0", "M1", "M2"} {
		room := testLink().Keys()
		if _, err := room.OpenEnvelope(wire.ID{}, wire.ID{}, unhex(v[name])); !errors.Is(err, ErrEnvelope) {
			t.Errorf("%s passes for an envelope: %v", name, err)
		}
	}
}
