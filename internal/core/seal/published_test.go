package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/kem/xwing"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"tallow/internal/core/wire"
)

// soak asks for the exhaustive forms, which take minutes.
var soak = os.Getenv("TALLOW_SOAK") == "1"

// TestXWingPublished makes the file spec/test-vectors.txt of draft-connolly-cfrg-xwing-kem, its appendix C, and compares its SHAKE128:
// https://github.com/dconnolly/draft-connolly-cfrg-xwing-kem. All randomness in it is what SHAKE128 of nothing gives.
func TestXWingPublished(t *testing.T) {
	random := sha3.NewSHAKE128()
	var file strings.Builder
	write := func(name string, value []byte) {
		digits := hex.EncodeToString(value)
		if len(name)+len(digits)+5 < 74 {
			fmt.Fprintf(&file, "%s     %s\n", name, digits)
			return
		}
		fmt.Fprintln(&file, name)
		for part := range slices.Chunk([]byte(digits), 72) {
			fmt.Fprintf(&file, "  %s\n", part)
		}
	}
	for i := range 3 {
		seed, encapsulationSeed := draw(random, xwing.SeedSize), draw(random, xwing.EncapsulationSeedSize)
		private, packed, err := generateKEM(bytes.NewReader(seed))
		if err != nil {
			t.Fatal(err)
		}
		public, err := parseKEMPublicKey(packed)
		if err != nil {
			t.Fatal(err)
		}
		ciphertext, shared, err := encapsulate(public, bytes.NewReader(encapsulationSeed))
		if err != nil {
			t.Fatal(err)
		}
		opened, err := decapsulate(private, ciphertext)
		if err != nil || !bytes.Equal(opened, shared) {
			t.Errorf("%d: decapsulated %x, %v", i, opened, err)
		}
		// The private key is the seed.
		for _, v := range []struct {
			name  string
			value []byte
		}{{"seed", seed}, {"sk", seed}, {"pk", packed}, {"eseed", encapsulationSeed}, {"ct", ciphertext}, {"ss", shared}} {
			write(v.name, v.value)
		}
		file.WriteByte('\n')
	}
	if got := shake(file.String()); got != "1bcd0057d861d6b866239936cadcaeee1ec0164dedc181c386e9e54fe46156fe" {
		t.Errorf("%s\n%s", got, file.String())
	}
}

// shake is the first 32 bytes of SHAKE128 in hexadecimal.
func shake(s string) string {
	return hex.EncodeToString(sha3.SumSHAKE128([]byte(s), 32))
}

// accumulated compares a hash over many results with the published one; the larger number is for the exhaustive form.
type accumulated struct {
	n    int
	want string
}

func (a accumulated) check(t *testing.T, add func(random, sum *sha3.SHAKE)) {
	t.Helper()
	random, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	for range a.n {
		add(random, sum)
	}
	if got := hex.EncodeToString(draw(sum, 32)); got != a.want {
		t.Errorf("%d results: %s, want %s", a.n, got, a.want)
	}
}

// TestMLKEM768Published runs the ML-KEM-768 inside X-Wing against the accumulated vectors of C2SP's CCTV:
// https://github.com/C2SP/CCTV/tree/main/ML-KEM. Half of the ciphertexts are no good: the secret is then that of implicit rejection.
func TestMLKEM768Published(t *testing.T) {
	vectors := accumulated{100, "1114b1b6699ed191734fa339376afa7e285c9e6acf6ff0177d346696ce564415"}
	if soak {
		vectors = accumulated{10_000, "8a518cc63da366322a8e7a818c7a0d63483cb3528d34a4cf42f35d5ad73f22fc"}
	}
	vectors.check(t, func(random, sum *sha3.SHAKE) {
		public, private := mlkem768.NewKeyFromSeed(draw(random, mlkem768.KeySeedSize))
		packed := make([]byte, mlkem768.PublicKeySize)
		public.Pack(packed)
		ciphertext, shared, opened := make([]byte, mlkem768.CiphertextSize), make([]byte, mlkem768.SharedKeySize), make([]byte, mlkem768.SharedKeySize)
		public.EncapsulateTo(ciphertext, shared, draw(random, mlkem768.EncapsulationSeedSize))
		private.DecapsulateTo(opened, ciphertext)
		if !bytes.Equal(opened, shared) {
			t.Errorf("decapsulated %x, want %x", opened, shared)
		}
		sum.Write(packed)
		sum.Write(ciphertext)
		sum.Write(shared)
		private.DecapsulateTo(opened, draw(random, mlkem768.CiphertextSize))
		sum.Write(opened)
	})
}

// TestMLDSA65Published runs ML-DSA-65, as an Identity uses it, against the accumulated vectors in the tests of Go's standard library:
// crypto/internal/fips140test, TestMLDSAAccumulated. The messages are empty, the signatures deterministic.
func TestMLDSA65Published(t *testing.T) {
	vectors := accumulated{100, "8358a1843220194417cadbc2651295cd8fc65125b5a5c1a239a16dc8b57ca199"}
	if soak {
		vectors = accumulated{10_000, "5ff5e196f0b830c3b10a9eb5358e7c98a3a20136cb677f3ae3b90175c3ace329"}
	}
	vectors.check(t, func(random, sum *sha3.SHAKE) {
		public, private := mldsa65.NewKeyFromSeed((*[32]byte)(draw(random, mldsa65.SeedSize)))
		signature := make([]byte, mldsa65.SignatureSize)
		if err := mldsa65.SignTo(private, nil, nil, false, signature); err != nil || !mldsa65.Verify(public, nil, nil, signature) {
			t.Errorf("the signature does not verify: %v", err)
		}
		sum.Write(public.Bytes())
		sum.Write(signature)
	})
}

// RFC 8032 section 7.1, the first three.
func TestEd25519Published(t *testing.T) {
	for _, c := range []struct{ secret, public, message, signature string }{
		{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
			"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
		{"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
			"3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
		{"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
			"fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
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

// RFC 5869, test case 1.
func TestExtractPublished(t *testing.T) {
	got := extract(unhex("000102030405060708090a0b0c"), bytes.Repeat([]byte{0x0b}, 22))
	if hex.EncodeToString(got) != "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5" {
		t.Errorf("%x", got)
	}
}

// TestEd25519Malleable: the group order added to S makes another signature of the same equation, which RFC 8032 section 5.1.7 has refused.
func TestEd25519Malleable(t *testing.T) {
	a := members()[0]
	signature := a.Sign(LabelEnd, nil)
	s := bytes.Clone(signature[32:64])
	slices.Reverse(s)
	order, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	order.Add(order, new(big.Int).Lsh(big.NewInt(1), 252))
	s = new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(s)
	slices.Reverse(s)
	copy(signature[32:], s)
	if err := VerifySignature(a.PublicKeys(), LabelEnd, nil, signature); !errors.Is(err, ErrSignature) {
		t.Errorf("a second signature: %v", err)
	}
}

// TestWrongLengths gives keys and signatures of every length but the right one; TestKEMRefuses does so for the KEM, TestParseLinkErrors
// for links, and damage for whole messages.
func TestWrongLengths(t *testing.T) {
	a := members()[0]
	v, err := NewVerifier(a.PublicKeys())
	if err != nil {
		t.Fatal(err)
	}
	keys, signature := append(bytes.Clone(a.PublicKeys()), 0, 0), append(a.Sign(LabelEnd, nil), 0, 0)
	for n := range len(signature) + 1 {
		if err := v.Verify(LabelEnd, nil, signature[:n]); n != wire.SignatureSize && !errors.Is(err, ErrSignature) {
			t.Errorf("signature of %d bytes: %v", n, err)
		}
	}
	for n := range len(keys) + 1 {
		if n == wire.KeysSize {
			continue
		}
		_, hashErr := KeyHash(keys[:n])
		got, err := NewVerifier(keys[:n])
		verifyErr := VerifySignature(keys[:n], LabelEnd, nil, signature[:wire.SignatureSize])
		if got != nil || !errors.Is(err, ErrKeys) || !errors.Is(hashErr, ErrKeys) || !errors.Is(verifyErr, ErrKeys) {
			t.Errorf("keys of %d bytes: %v, %v, %v", n, err, hashErr, verifyErr)
		}
	}
}
