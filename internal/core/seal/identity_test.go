package seal

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"testing"

	"tallow/internal/core/wire"
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
	a := members()[0]
	v, err := NewVerifier(a.PublicKeys())
	if err != nil {
		t.Fatal(err)
	}
	signature := a.Sign(LabelEnd, []byte("message"))
	step := 1
	if testing.Short() {
		step = 31
	}
	for i := 0; i < wire.SignatureSize; i += step {
		signature[i] ^= 1 << (i % 8)
		if v.Verify(LabelEnd, []byte("message"), signature) == nil {
			t.Errorf("a bit of byte %d flipped: accepted", i)
		}
		signature[i] ^= 1 << (i % 8)
	}
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

// RFC 8032 section 7.1.
func TestEd25519Published(t *testing.T) {
	for _, c := range []struct{ secret, public, message, signature string }{
		{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
		{"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
			"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
	} {
		key := ed25519.NewKeyFromSeed(unhex(c.secret))
		if got := hex.EncodeToString(key.Public().(ed25519.PublicKey)); got != c.public {
			t.Errorf("public key %s", got)
		}
		if got := hex.EncodeToString(ed25519.Sign(key, unhex(c.message))); got != c.signature {
			t.Errorf("signature %s", got)
		}
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}
