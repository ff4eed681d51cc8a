package peer

import (
	"crypto/rand"
	"crypto/sha3"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall/js"
	"testing"
	"unsafe"

	"github.com/cloudflare/circl/kem/xwing"

	"tallow/internal/bridge/bytes"
	"tallow/internal/core/bulk"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// secrets are byte strings to look for in Go's memory. They are kept in JavaScript's, out of the memory that is searched.
type secrets struct {
	mu     sync.Mutex
	opened bool // only KEM keys are made from now on
	seed   int  // where the handshake's encapsulation seed is in wanted: two halves, each in three forms
	names  []string
	wanted js.Value
}

// note has a secret searched for, also as HMAC pads a key.
func (s *secrets) note(name string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range []byte{0, 0x36, 0x5c} {
		data := js.Global().Get("Uint8Array").New(len(b))
		for i := range b {
			b[i] ^= x
		}
		js.CopyBytesToJS(data, b)
		for i := range b {
			b[i] ^= x
		}
		s.wanted.Call("push", data)
		s.names = append(s.names, name)
		name = strings.TrimSuffix(name, ", padded") + ", padded"
	}
}

// noteShared notes the secret that an encapsulation with the seed shares with the owner of the public key.
func (s *secrets) noteShared(name string, public, seed []byte) {
	var key xwing.PublicKey
	if err := key.Unpack(public); err != nil {
		panic(err)
	}
	ciphertext, shared := make([]byte, xwing.CiphertextSize), make([]byte, xwing.SharedKeySize)
	clearStack() // has it grown in time: one that grows later leaves a copy behind
	key.EncapsulateTo(ciphertext, shared, seed)
	s.note(name, shared)
	clear(shared)
	clearStack()
}

// clearStack overwrites what calls have left on the stack.
//
//go:noinline
func clearStack() {
	var frames [64 << 10]byte
	clear(frames[:])
	runtime.KeepAlive(&frames)
}

// field is a field that another package does not show, where it lies: no copy of it is made.
func field(v any, path ...string) []byte {
	field := reflect.ValueOf(v)
	for _, name := range path {
		field = reflect.Indirect(field).FieldByName(name)
	}
	if field.Kind() == reflect.Slice {
		return field.Bytes()
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(field.UnsafeAddr())), field.Type().Size())
}

// found is the names of those that are in memory.
func (s *secrets) found() (names []string) {
	found := page.Call("search", s.wanted)
	for i, name := range s.names {
		if found.Index(i).Length() > 0 {
			names = append(names, name)
		}
	}
	return names
}

// notingEngine notes every key.
type notingEngine struct {
	bulk.Engine
	*secrets
}

func (e notingEngine) NewAEAD(key []byte) (bulk.AEAD, error) {
	e.note("traffic key", key)
	return e.Engine.NewAEAD(key)
}

// notingRand notes what an encapsulation gets, and each KEM key's seed.
type notingRand struct {
	*secrets
	initiator *seal.Session // of the Rekey that a later encapsulation answers
}

func (r *notingRand) Read(p []byte) (int, error) {
	n, err := rand.Read(p)
	if len(p) == 64 {
		r.note("ML-KEM encapsulation seed", p[:32])
		r.note("ephemeral X25519 key", p[32:])
		if r.opened {
			rekey, err := wire.ParseControl(field(r.initiator, "rekeyMessage"))
			if err != nil {
				return 0, err
			}
			r.noteShared("rekey's shared secret", rekey.(wire.Rekey).KEMPublicKey, p)
		} else {
			r.seed = r.wanted.Length() - 6
		}
	} else if r.opened {
		r.note("rekey's KEM seed", p)
	}
	return n, err
}

// lingering are the secrets of which the memory may hold a copy that nobody can overwrite: docs/security.md lists them. This one is what
// ML-KEM answers a wrong ciphertext with; it decrypts nothing. circl copies the key that it is part of.
var lingering = []string{"ML-KEM rejection key"}

// TestMemoryHoldsNoKeys searches all of the memory for the keys of two ends that have changed keys and closed.
func TestMemoryHoldsNoKeys(t *testing.T) {
	engine, accelerated := bytes.NewEngine()
	if !accelerated {
		t.Fatal("no WebCrypto")
	}
	s := &secrets{wanted: js.Global().Get("Array").New()}
	t.Run("session", func(t *testing.T) { memorySession(t, s, engine) })
	control := make([]byte, 32)
	rand.Read(control)
	s.note("control", control)
	runtime.GC()
	runtime.GC()
	// Traffic keys, chains, what the handshake and the change of keys have besides, and what both share.
	if want := 3 * (16 + 4 + 10 + 3 + 2 + 1); len(s.names) != want {
		t.Errorf("%d secrets, want %d: %v", len(s.names), want, s.names)
	}
	found := s.found()
	if !slices.Contains(found, "control") {
		t.Error("the search does not find what is there")
	}
	for _, name := range found {
		if name != "control" && !slices.Contains(lingering, name) {
			t.Errorf("%s is still in memory", name)
		}
	}
	t.Logf("of %d secrets, found: %v", len(s.names), found)
	runtime.KeepAlive(control)
}

func memorySession(t *testing.T, s *secrets, engine bulk.Engine) {
	a, b := connect(t, labs(t)[0])
	m := newMembers(t)
	random := &notingRand{secrets: s}
	m.rand = random
	i, r := m.shakeHands(t, func(i *seal.Initiator) {
		expanded := sha3.SumSHAKE256(field(i, "kem", "seed"), 64)
		s.note("ML-KEM seed", expanded[:32])
		clear(expanded)
		s.note("KEM seed", field(i, "kem", "seed"))
		s.note("X25519 key", field(i, "kem", "x"))
		s.note("ML-KEM rejection key", field(i, "kem", "m", "z"))
		s.note("ML-KEM key", field(i, "kem", "m", "sk", "sh"))
		offer, _, err := wire.ParseOffer(field(i, "m1"))
		if err != nil {
			t.Fatal(err)
		}
		seed := make([]byte, 64)
		js.CopyBytesToGo(seed[:32], s.wanted.Index(s.seed))
		js.CopyBytesToGo(seed[32:], s.wanted.Index(s.seed+3))
		s.noteShared("shared secret", offer.KEMPublicKey, seed)
		clear(seed)
	})
	random.initiator = i.Session()
	s.note("prk", field(i, "prk"))
	signal := field(i.Session(), "signal")
	s.note("signaling key", signal[:32])
	s.note("signaling key", signal[32:])
	for _, session := range []*seal.Session{i.Session(), r.Session()} {
		session.SealEnvelope(wire.ID{1}, []byte("a candidate"))
	}
	clock := newClock()
	ra := linkOver(t, a, i, clock, notingEngine{engine, s}, nil)
	rb := linkOver(t, b, r, clock, notingEngine{engine, s}, nil)
	p := &pair{clock: clock, a: ra, b: rb}
	wait(t, "a opens", ra.open)
	wait(t, "b opens", rb.open)
	s.opened = true
	exchange := func(from int) {
		for _, r := range []*recorder{ra, rb} {
			r.link.SendControl(wire.Ping{})
			if err := r.sendBulk(from, 3); err != nil {
				t.Error(err)
			}
		}
		ra.await(4)
		rb.await(4)
	}
	exchange(0)
	for _, session := range []*seal.Session{i.Session(), r.Session()} {
		s.note("chain 0", field(session, "current", "key"))
	}
	clock.advance(epochAge)
	exchange(3)
	p.settle(1)
	for _, session := range []*seal.Session{i.Session(), r.Session()} {
		s.note("chain 1", field(session, "current", "key"))
	}
	exchange(6)
	ra.link.Close(wire.ByeLeft)
	rb.link.Close(wire.ByeLeft)
	ra.link.Destroy()
	rb.link.Destroy()
}
