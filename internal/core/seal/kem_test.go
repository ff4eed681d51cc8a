package seal

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"math/big"
	"reflect"
	"slices"
	"testing"

	"github.com/cloudflare/circl/kem/xwing"

	"tallow/internal/core/wire"
)

func TestLowOrder(t *testing.T) {
	scalar, err := ecdh.X25519().NewPrivateKey(draw(deterministic("scalar"), 32))
	if err != nil {
		t.Fatal(err)
	}
	zero := func(u []byte) bool { // what the standard library says of the shared secret
		public, err := ecdh.X25519().NewPublicKey(u)
		if err != nil {
			t.Fatal(err)
		}
		_, err = scalar.ECDH(public)
		return err != nil
	}
	for _, low := range lowOrderPoints {
		for _, top := range []byte{0, 0x80} {
			u := bytes.Clone(low[:])
			u[31] |= top
			if !lowOrder(u) || !zero(u) {
				t.Errorf("%x: refused %v, all zero %v", u, lowOrder(u), zero(u))
			}
		}
	}

	// Every residue of low order has been listed in every encoding below 2^255: those from p on stand for 0 to 18.
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	for k := range int64(19) {
		for _, n := range []*big.Int{big.NewInt(k), new(big.Int).Add(p, big.NewInt(k)), new(big.Int).Sub(p, big.NewInt(k+1))} {
			u := n.FillBytes(make([]byte, 32))
			slices.Reverse(u)
			if lowOrder(u) != zero(u) {
				t.Errorf("%x: refused %v, all zero %v", u, lowOrder(u), zero(u))
			}
		}
	}
	random := deterministic("points")
	for range 100 {
		if u := draw(random, 32); lowOrder(u) {
			t.Errorf("%x refused", u)
		}
	}
}

func TestKEMRefuses(t *testing.T) {
	private, public, err := generateKEM(deterministic("kem"))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parseKEMPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, _, err := encapsulate(parsed, deterministic("encapsulation"))
	if err != nil {
		t.Fatal(err)
	}
	for n := range wire.KEMPublicKeySize + 2 {
		if n != wire.KEMPublicKeySize {
			if _, err := parseKEMPublicKey(make([]byte, n)); !errors.Is(err, errKEMLength) {
				t.Fatalf("public key of %d bytes: %v", n, err)
			}
		}
		if n != wire.KEMCiphertextSize {
			if _, err := decapsulate(private, make([]byte, n)); !errors.Is(err, errKEMLength) {
				t.Fatalf("ciphertext of %d bytes: %v", n, err)
			}
		}
	}
	for _, low := range lowOrderPoints {
		for _, top := range []byte{0, 0x80} {
			low[31] = low[31]&0x7f | top
			if _, err := parseKEMPublicKey(append(public[:kemMLPK:kemMLPK], low[:]...)); !errors.Is(err, errLowOrder) {
				t.Errorf("public key with %x: %v", low, err)
			}
			if _, err := decapsulate(private, append(ciphertext[:kemMLCT:kemMLCT], low[:]...)); !errors.Is(err, errLowOrder) {
				t.Errorf("ciphertext with %x: %v", low, err)
			}
		}
	}
	large := bytes.Clone(public)
	large[0], large[1] = 0xff, 0xff // a coefficient of 4095, where 3328 is the largest
	if _, err := parseKEMPublicKey(large); !errors.Is(err, errKEMKey) {
		t.Errorf("coefficient out of range: %v", err)
	}
	if xwing.PublicKeySize != wire.KEMPublicKeySize || xwing.CiphertextSize != wire.KEMCiphertextSize {
		t.Error("circl and wire disagree about sizes")
	}
}

func TestWipe(t *testing.T) {
	a, b := []byte{1, 2}, []byte{3}
	wipe(a, nil, b)
	if a[0]|a[1]|b[0] != 0 {
		t.Error("not overwritten")
	}
}

// TestWipeKEM: a shallow copy shares what circl keeps behind pointers, and so shows whether that is overwritten.
func TestWipeKEM(t *testing.T) {
	private, _, err := generateKEM(deterministic("kem"))
	if err != nil {
		t.Fatal(err)
	}
	copied := *private
	wipeKEM(private)
	if *private != (xwing.PrivateKey{}) {
		t.Error("the key is not overwritten")
	}
	vector := reflect.ValueOf(&copied).Elem().FieldByName("m").FieldByName("sk").Elem()
	if !vector.IsZero() {
		t.Error("the secret vector of ML-KEM is not overwritten")
	}
}

// TestExpand holds the HKDF-Expand written out here against the standard library's.
func TestExpand(t *testing.T) {
	prk := bytes.Repeat([]byte{7}, 32)
	for _, n := range []int{0, 1, 6, 16, 31, 32, 33, 44, 64, 65, 255 * 32} {
		want, err := hkdf.Expand(sha256.New, prk, "tallow v1 label\x00context", n)
		if err != nil {
			t.Fatal(err)
		}
		if got := expand(prk, "label", []byte("context"), n); !bytes.Equal(got, want) {
			t.Errorf("%d bytes differ", n)
		}
	}
}

// TestHMAC holds the HMAC written out here against the standard library's, and looks for what it leaves behind.
func TestHMAC(t *testing.T) {
	secret := bytes.Repeat([]byte{9, 8, 7}, 100)
	for key := range sha256.BlockSize + 1 {
		for _, n := range []int{0, 1, 32, 55, 56, 63, 64, 65, 200} {
			var got [sha256.Size]byte
			hmacInto(&got, secret[:key], secret[:n/3], nil, secret[n/3:n])
			want := hmac.New(sha256.New, secret[:key])
			want.Write(secret[:n])
			if !hmac.Equal(got[:], want.Sum(nil)) {
				t.Errorf("a key of %d bytes and a message of %d: %x", key, n, got)
			}
		}
	}
	for _, n := range []int{0, 1, 32, 64, 100} {
		want, err := hkdf.Extract(sha256.New, secret[:n], secret[:32])
		if err != nil {
			t.Fatal(err)
		}
		if got := extract(secret[:32], secret[:n]); !bytes.Equal(got, want) {
			t.Errorf("extract of %d bytes: %x, want %x", n, got, want)
		}
		digest := sha256.New()
		digest.Write(secret[:n])
		wipeDigest(digest)
		if fresh := sha256.New(); !reflect.DeepEqual(digest, fresh) {
			t.Errorf("after %d bytes a wiped digest is %+v", n, digest)
		}
	}
}
