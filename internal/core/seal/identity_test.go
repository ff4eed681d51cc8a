package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestIdentity(t *testing.T) {
	a, b := members()[0], members()[1]
	hash, err := KeyHash(a.PublicKeys())
	if err != nil || hash != a.KeyHash() || idOf(hash) != a.ID() {
		t.Errorf("KeyHash: %x, %v", hash, err)
	}
	if a.Claim() == b.Claim() || a.Claim() == a.ID() {
		t.Error("claims are no secrets of their own")
	}
	if _, err := NewIdentity([32]byte{}); !errors.Is(err, ErrSeed) {
		t.Errorf("empty seed: %v", err)
	}
	if _, err := KeyHash(a.PublicKeys()[1:]); !errors.Is(err, ErrKeys) {
		t.Errorf("short keys: %v", err)
	}
}

func TestSignature(t *testing.T) {
	a, b := members()[0], members()[1]
	message := []byte("message")
	signature := a.Sign(LabelJoin, message)
	if !bytes.Equal(signature, a.Sign(LabelJoin, message)) {
		t.Error("signing is not deterministic")
	}
	if err := VerifySignature(a.PublicKeys(), LabelJoin, message, signature); err != nil {
		t.Fatal(err)
	}
	if err := VerifySignature(a.PublicKeys(), LabelRoster, message, signature); !errors.Is(err, ErrSignature) {
		t.Errorf("another label: %v", err)
	}
	if err := VerifySignature(a.PublicKeys(), LabelJoin, []byte("massage"), signature); !errors.Is(err, ErrSignature) {
		t.Errorf("another message: %v", err)
	}
	if err := VerifySignature(b.PublicKeys(), LabelJoin, message, signature); !errors.Is(err, ErrSignature) {
		t.Errorf("another member: %v", err)
	}
	if err := VerifySignature(a.PublicKeys()[1:], LabelJoin, message, signature); !errors.Is(err, ErrKeys) {
		t.Errorf("short keys: %v", err)
	}

	// Either half alone is not enough.
	other := b.Sign(LabelJoin, message)
	for name, s := range map[string][]byte{
		"Ed25519 of another":   append(bytes.Clone(other[:edSig]), signature[edSig:]...),
		"ML-DSA-65 of another": append(bytes.Clone(signature[:edSig]), other[edSig:]...),
		"empty":                nil,
		"Ed25519 only":         signature[:edSig],
		"a byte appended":      append(bytes.Clone(signature), 0),
	} {
		if err := VerifySignature(a.PublicKeys(), LabelJoin, message, s); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mixed := append(bytes.Clone(a.PublicKeys()[:edSize]), b.PublicKeys()[edSize:]...)
	if err := VerifySignature(mixed, LabelJoin, message, append(bytes.Clone(signature[:edSig]), other[edSig:]...)); err != nil {
		t.Errorf("mixed keys and signatures fit together: %v", err)
	}
	if hash, _ := KeyHash(mixed); hash == a.KeyHash() || hash == b.KeyHash() {
		t.Error("mixed keys pass for a member's")
	}
}

func TestEverySignatureByteCounts(t *testing.T) {
	a, message := members()[0], []byte("message")
	v, err := NewVerifier(a.PublicKeys())
	if err != nil {
		t.Fatal(err)
	}
	signature, other := a.Sign(LabelEnd, message), a.Sign(LabelReceipt, message)
	parts := fields(t, signature, "R", 32, "S", 32, "commitment hash", 48, "z and hints", mlSig-48)
	try := func(p []byte) error {
		err := v.Verify(LabelEnd, message, p)
		if !errors.Is(err, ErrSignature) {
			t.Errorf("untyped: %v", err)
		}
		return err
	}
	damage(t, signature, parts, try)
	splice(t, signature, other, parts, try)
}

func TestVerifierOwnsItsKeys(t *testing.T) {
	a := members()[0]
	keys := bytes.Clone(a.PublicKeys())
	v, err := NewVerifier(keys)
	if err != nil {
		t.Fatal(err)
	}
	clear(keys)
	if v.ID() != a.ID() || v.KeyHash() != a.KeyHash() || !bytes.Equal(v.PublicKeys(), a.PublicKeys()) {
		t.Error("the verifier changes with its input")
	}
	if err := v.Verify(LabelEnd, nil, a.Sign(LabelEnd, nil)); err != nil {
		t.Error(err)
	}
}

func TestIdentityDestroy(t *testing.T) {
	id, err := NewIdentity([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	id.Destroy()
	if !bytes.Equal(id.ed, make([]byte, len(id.ed))) || id.ml.Seed() != nil || !id.claim.IsZero() {
		t.Error("Destroy leaves keys")
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
