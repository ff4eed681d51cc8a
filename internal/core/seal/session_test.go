package seal

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/cloudflare/circl/kem/xwing"

	"tallow/internal/core/wire"
)

// rekey takes both sessions into the next epoch.
func rekey(t testing.TB, i, r *Session) (message, reply []byte) {
	t.Helper()
	message, err := i.StartRekey()
	if err != nil {
		t.Fatal(err)
	}
	if reply, err = r.AnswerRekey(message); err != nil {
		t.Fatal(err)
	}
	if err := i.FinishRekey(reply); err != nil {
		t.Fatal(err)
	}
	return message, reply
}

func TestRekey(t *testing.T) {
	p := testPair(t, 5)
	i, r := p.i.Session(), p.r.Session()
	seen := map[[32]byte]bool{}
	for epoch := range uint32(10) {
		for _, s := range []*Session{i, r} {
			if got, ok := s.Epoch(); !ok || got != epoch {
				t.Fatalf("epoch %d, want %d", got, epoch)
			}
		}
		sameTraffic(t, i, r, epoch)
		key, _, err := i.Traffic(wire.FromInitiator, wire.Control, epoch)
		if err != nil || seen[key] {
			t.Fatalf("epoch %d has the key of another, %v", epoch, err)
		}
		seen[key] = true
		rekey(t, i, r)
		sameTraffic(t, i, r, epoch) // both, until retired
		sameTraffic(t, i, r, epoch+1)
		for _, s := range []*Session{i, r} {
			old := s.previous
			s.Retire(epoch)
			if old.key != [32]byte{} {
				t.Error("a retired chain is not overwritten")
			}
			for _, gone := range []uint32{epoch, epoch + 2} {
				if key, iv, err := s.Traffic(wire.FromInitiator, wire.Bulk, gone); !errors.Is(err, ErrEpoch) || key != [32]byte{} || iv != [12]byte{} {
					t.Errorf("keys of epoch %d in epoch %d: %v", gone, epoch+1, err)
				}
			}
		}
	}
}

func TestRekeyOrder(t *testing.T) {
	p := testPair(t, 5)
	i, r := p.i.Session(), p.r.Session()
	if _, err := r.StartRekey(); !errors.Is(err, ErrOrder) {
		t.Errorf("the responder starts: %v", err)
	}
	if err := i.FinishRekey(nil); !errors.Is(err, ErrRekey) {
		t.Errorf("Rekeyed without Rekey: %v", err)
	}
	message, err := i.StartRekey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.StartRekey(); !errors.Is(err, ErrOrder) {
		t.Errorf("two at a time: %v", err)
	}
	if _, err := i.AnswerRekey(message); !errors.Is(err, ErrRekey) {
		t.Errorf("the initiator answers: %v", err)
	}
	if epoch, _ := i.Epoch(); epoch != 0 {
		t.Error("a new epoch before the answer")
	}
	reply, err := r.AnswerRekey(message)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AnswerRekey(message); !errors.Is(err, ErrRekey) {
		t.Errorf("the same Rekey again: %v", err)
	}
	if err := i.FinishRekey(reply); err != nil {
		t.Fatal(err)
	}
	if err := i.FinishRekey(reply); !errors.Is(err, ErrRekey) {
		t.Errorf("the same Rekeyed again: %v", err)
	}
	if i.rekey != nil {
		t.Error("the KEM key lingers")
	}
	if _, err := i.StartRekey(); !errors.Is(err, ErrOrder) {
		t.Errorf("the next before the old epoch is retired: %v", err)
	}
	i.Retire(1) // the newest stays
	if _, _, err := i.Traffic(wire.FromInitiator, wire.Bulk, 1); err != nil {
		t.Errorf("the newest epoch is gone: %v", err)
	}
	message, err = i.StartRekey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AnswerRekey(message); !errors.Is(err, ErrRekeyEarly) {
		t.Errorf("a responder that still reads the epoch before: %v", err)
	}
	r.Retire(0)
	if reply, err = r.AnswerRekey(message); err != nil {
		t.Fatalf("the same, later: %v", err)
	}
	if err := i.FinishRekey(reply); err != nil {
		t.Fatal(err)
	}
	sameTraffic(t, i, r, 2)
	r.Retire(0) // does not name the epoch before
	sameTraffic(t, i, r, 1)
}

func TestRekeyDamaged(t *testing.T) {
	p := testPair(t, 5)
	i, r := p.i.Session(), p.r.Session()
	message, err := i.StartRekey()
	if err != nil {
		t.Fatal(err)
	}
	try := func(m []byte) error { // both go on, but not alike
		i, r := i.clone(), r.clone()
		reply, err := r.AnswerRekey(m)
		if err != nil {
			if !errors.Is(err, ErrRekey) {
				t.Errorf("untyped: %v", err)
			}
			return err
		}
		if err := i.FinishRekey(reply); err != nil {
			t.Errorf("damaged Rekey: %v", err)
		}
		a, _, _ := i.Traffic(wire.FromInitiator, wire.Bulk, 1)
		b, _, _ := r.Traffic(wire.FromInitiator, wire.Bulk, 1)
		if a == b {
			return nil
		}
		return errors.New("keys differ")
	}
	if try(message) != nil {
		t.Fatal("the undamaged message fails")
	}
	parts := fields(t, message, "type", 1, "epoch", 4, "ML-KEM key", kemMLPK, "X25519 key", x25519Size)
	damage(t, message, parts, try)
	// What another session says in the same epoch.
	_, otherPair := twoPairs(t, 5)
	otherMessage, otherReply := rekey(t, otherPair.i.Session(), otherPair.r.Session())
	splice(t, message, otherMessage, parts, try)
	if try(otherMessage) == nil {
		t.Error("the Rekey of another session: accepted")
	}

	reply, err := r.AnswerRekey(message)
	if err != nil {
		t.Fatal(err)
	}
	parts = fields(t, reply, "type", 1, "epoch", 4, "ML-KEM ciphertext", kemMLCT, "X25519 ciphertext", x25519Size)
	tryReply := func(m []byte) error {
		i := i.clone()
		if err := i.FinishRekey(m); err != nil {
			if epoch, _ := i.Epoch(); !errors.Is(err, ErrRekey) || epoch != 0 {
				t.Errorf("untyped, or a new epoch: %v", err)
			}
			return err
		}
		a, _, _ := i.Traffic(wire.FromInitiator, wire.Bulk, 1)
		b, _, _ := r.Traffic(wire.FromInitiator, wire.Bulk, 1)
		if a == b {
			return nil
		}
		return errors.New("keys differ")
	}
	if tryReply(reply) != nil {
		t.Fatal("the undamaged reply fails")
	}
	damage(t, reply, parts, tryReply)
	splice(t, reply, otherReply, parts, tryReply)
	if tryReply(otherReply) == nil {
		t.Error("the Rekeyed of another session: accepted")
	}

	low := bytes.Clone(message)
	clear(low[5+kemMLPK:])
	_, err = testPair(t, 5).r.Session().AnswerRekey(low)
	if !errors.Is(err, ErrRekey) || !errors.Is(err, errLowOrder) {
		t.Errorf("low order in Rekey: %v", err)
	}
	low = bytes.Clone(reply)
	clear(low[5+kemMLCT:])
	if err := i.FinishRekey(low); !errors.Is(err, ErrRekey) || !errors.Is(err, errLowOrder) {
		t.Errorf("low order in Rekeyed: %v", err)
	}
}

// An old chain that falls into someone's hands does not give the next one, nor does the next give the old.
func TestRekeyNeedsTheKEM(t *testing.T) {
	p := testPair(t, 5)
	i, r := p.i.Session(), p.r.Session()
	message, err := i.StartRekey()
	if err != nil {
		t.Fatal(err)
	}
	thief := r.clone() // has everything the responder has before it answers
	thief.rand = deterministic("thief")
	reply, err := r.AnswerRekey(message)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := thief.AnswerRekey(message); err != nil {
		t.Fatal(err)
	}
	if err := i.FinishRekey(reply); err != nil {
		t.Fatal(err)
	}
	if thief.current.key == i.current.key {
		t.Error("the same chain without the same KEM secret")
	}
	// And the KEM alone does not do without the chain.
	p = testPair(t, 5)
	p.r.Session().current.key[0] ^= 1
	rekey(t, p.i.Session(), p.r.Session())
	if p.i.Session().current.key == p.r.Session().current.key {
		t.Error("the chain does not count")
	}
}

func TestLastEpoch(t *testing.T) {
	p := testPair(t, 5)
	i, r := p.i.Session(), p.r.Session()
	i.current.epoch, r.current.epoch = math.MaxUint32, math.MaxUint32
	if _, err := i.StartRekey(); !errors.Is(err, ErrEpoch) {
		t.Errorf("StartRekey: %v", err)
	}
	wrapped := wire.Rekey{Epoch: 0, KEMPublicKey: make([]byte, wire.KEMPublicKeySize)}.Append(nil)
	if _, err := r.AnswerRekey(wrapped); !errors.Is(err, ErrRekey) {
		t.Errorf("AnswerRekey: %v", err)
	}
}

func TestSessionDestroy(t *testing.T) {
	p := testPair(t, 5)
	i, r := p.i.Session(), p.r.Session()
	rekey(t, i, r)
	r.Retire(0)
	i.Retire(0)
	if _, err := i.StartRekey(); err != nil {
		t.Fatal(err)
	}
	current, kem, signal := i.current, i.rekey, i.signal
	i.Destroy()
	i.Destroy()
	if current.key != [32]byte{} || *kem != (xwing.PrivateKey{}) || i.signal[0] == signal[0] || i.signal[1] == signal[1] {
		t.Error("Destroy leaves keys")
	}
	if _, ok := i.Epoch(); ok {
		t.Error("an epoch after Destroy")
	}
	if _, _, err := i.Traffic(wire.FromInitiator, wire.Control, 1); !errors.Is(err, ErrEpoch) {
		t.Errorf("Traffic: %v", err)
	}
	if _, err := i.StartRekey(); !errors.Is(err, ErrOrder) {
		t.Errorf("StartRekey: %v", err)
	}
	r.Destroy()
	if _, err := r.AnswerRekey(nil); !errors.Is(err, ErrOrder) {
		t.Errorf("AnswerRekey: %v", err)
	}
	if err := i.FinishRekey(nil); !errors.Is(err, ErrRekey) {
		t.Errorf("FinishRekey: %v", err)
	}
}
