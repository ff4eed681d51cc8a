// Package bulktest is the conformance suite of bulk.Engine.
package bulktest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"

	"tallow/internal/core/bulk"
)

// TestEngine holds an engine against the contract of bulk.Engine and bulk.AEAD: published vectors, Go's own cryptography at many
// sizes, refusals, and what must stay untouched.
func TestEngine(t *testing.T, engine bulk.Engine) {
	t.Run("AES-GCM vectors", func(t *testing.T) { testSealVectors(t, engine) })
	t.Run("SHA-256 vectors", func(t *testing.T) { testSumVectors(t, engine) })
	t.Run("sizes", func(t *testing.T) { testSizes(t, engine) })
	t.Run("offsets", func(t *testing.T) { testOffsets(t, engine) })
	t.Run("inauthentic", func(t *testing.T) { testInauthentic(t, engine) })
	t.Run("wrong lengths", func(t *testing.T) { testLengths(t, engine) })
	t.Run("concurrent", func(t *testing.T) { testConcurrent(t, engine) })
	t.Run("memory growth", func(t *testing.T) { testGrowth(t, engine) })
	t.Run("destroy", func(t *testing.T) { testDestroy(t, engine) })
}

// From "The Galois/Counter Mode of Operation", McGrew and Viega, appendix B, test cases 13 to 16.
var sealVectors = []struct{ name, key, nonce, plaintext, aad, ciphertext, tag string }{
	{
		name:  "13",
		key:   strings.Repeat("00", 32),
		nonce: strings.Repeat("00", 12),
		tag:   "530f8afbc74536b9a963b4f1c4cb738b",
	}, {
		name:       "14",
		key:        strings.Repeat("00", 32),
		nonce:      strings.Repeat("00", 12),
		plaintext:  strings.Repeat("00", 16),
		ciphertext: "cea7403d4d606b6e074ec5d3baf39d18",
		tag:        "d0d1c8a799996bf0265b98b5d48ab919",
	}, {
		name:  "15",
		key:   "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
		nonce: "cafebabefacedbaddecaf888",
		plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
			"1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
		ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
			"8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
		tag: "b094dac5d93471bdec1a502270e3cc6c",
	}, {
		name:  "16",
		key:   "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
		nonce: "cafebabefacedbaddecaf888",
		plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
			"1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
		aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
		ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
			"8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
		tag: "76fc6ece0f4e1768cddf8853bb2d551b",
	},
}

func testSealVectors(t *testing.T, engine bulk.Engine) {
	for _, v := range sealVectors {
		t.Run(v.name, func(t *testing.T) {
			aead := newAEAD(t, engine, unhex(t, v.key))
			plaintext := unhex(t, v.plaintext)
			want := unhex(t, v.ciphertext+v.tag)
			got := make([]byte, len(want))
			if err := aead.Seal(got, unhex(t, v.nonce), plaintext, unhex(t, v.aad)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("Seal: %x, want %x", got, want)
			}
			opened := make([]byte, len(plaintext))
			if err := aead.Open(opened, unhex(t, v.nonce), want, unhex(t, v.aad)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(opened, plaintext) {
				t.Errorf("Open: %x, want %x", opened, plaintext)
			}
		})
	}
}

// From FIPS 180-2, appendix B, and the digest of the empty string.
var sumVectors = []struct{ name, message, sum string }{
	{"empty", "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
	{"abc", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
	{"two blocks", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
	{"a million a", strings.Repeat("a", 1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
}

func testSumVectors(t *testing.T, engine bulk.Engine) {
	for _, v := range sumVectors {
		got, err := engine.Sum256([]byte(v.message))
		if err != nil || hex.EncodeToString(got[:]) != v.sum {
			t.Errorf("%s: %x, %v, want %s", v.name, got, err, v.sum)
		}
	}
	if got, err := engine.Sum256(nil); err != nil || hex.EncodeToString(got[:]) != sumVectors[0].sum {
		t.Errorf("nil: %x, %v", got, err)
	}
}

func testSizes(t *testing.T, engine bulk.Engine) {
	key := pattern(1, bulk.KeySize)
	aead, reference := newAEAD(t, engine, key), newReference(t, key)
	nonce, aad := pattern(2, bulk.NonceSize), pattern(3, 20)
	for _, size := range []int{0, 1, 15, 16, 17, 1023, 1024, 2047, 2048, 4096, 65_535, 65_536, 65_537, 256 << 10, 1<<20 + 1, 4 << 20} {
		plaintext := pattern(uint64(size), size)
		want := reference.Seal(nil, nonce, plaintext, aad)
		sealed := make([]byte, size+bulk.TagSize)
		if err := aead.Seal(sealed, nonce, plaintext, aad); err != nil {
			t.Fatalf("Seal of %d bytes: %v", size, err)
		}
		if !bytes.Equal(sealed, want) {
			t.Errorf("Seal of %d bytes differs from Go's", size)
		}
		opened := make([]byte, size)
		if err := aead.Open(opened, nonce, sealed, aad); err != nil {
			t.Fatalf("Open of %d bytes: %v", size, err)
		}
		if !bytes.Equal(opened, plaintext) {
			t.Errorf("Open of %d bytes differs from the plaintext", size)
		}
		if sum, err := engine.Sum256(plaintext); err != nil || sum != sha256.Sum256(plaintext) {
			t.Errorf("Sum256 of %d bytes: %x, %v", size, sum, err)
		}
	}
}

// testOffsets keeps every part of an operation in one buffer, at odd offsets, each next to the other: nothing but dst may change.
func testOffsets(t *testing.T, engine bulk.Engine) {
	key := pattern(4, bulk.KeySize)
	aead, reference := newAEAD(t, engine, key), newReference(t, key)
	for _, size := range []int{0, 1, 33, 3000, 65_536} {
		for shift := range 4 {
			arena := pattern(uint64(shift), shift+bulk.NonceSize+20+size+size+bulk.TagSize+7)
			rest := arena[shift:]
			take := func(n int) []byte {
				part := rest[:n:n]
				rest = rest[n:]
				return part
			}
			nonce, aad, plaintext, sealed := take(bulk.NonceSize), take(20), take(size), take(size+bulk.TagSize)
			want := bytes.Clone(arena)
			copy(want[shift+bulk.NonceSize+20+size:], reference.Seal(nil, nonce, plaintext, aad))
			if err := aead.Seal(sealed, nonce, plaintext, aad); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(arena, want) {
				t.Fatalf("Seal of %d bytes at offset %d wrote something else, or elsewhere", size, shift)
			}
			original := bytes.Clone(plaintext)
			clear(plaintext)
			if err := aead.Open(plaintext, nonce, sealed, aad); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(plaintext, original) || !bytes.Equal(arena, want) {
				t.Fatalf("Open of %d bytes at offset %d wrote something else, or elsewhere", size, shift)
			}
			sum, err := engine.Sum256(plaintext)
			if err != nil || sum != sha256.Sum256(original) || !bytes.Equal(arena, want) {
				t.Fatalf("Sum256 of %d bytes at offset %d: %x, %v", size, shift, sum, err)
			}
		}
	}
}

func testInauthentic(t *testing.T, engine bulk.Engine) {
	key := pattern(5, bulk.KeySize)
	aead, other := newAEAD(t, engine, key), newAEAD(t, engine, pattern(6, bulk.KeySize))
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0x80
		return b
	}
	for _, size := range []int{0, 1, 1000, 70_000} {
		nonce, aad, plaintext := pattern(7, bulk.NonceSize), pattern(8, 20), pattern(9, size)
		sealed := make([]byte, size+bulk.TagSize)
		if err := aead.Seal(sealed, nonce, plaintext, aad); err != nil {
			t.Fatal(err)
		}
		cases := []struct {
			name               string
			aead               bulk.AEAD
			nonce, sealed, aad []byte
		}{
			{"first byte", aead, nonce, flip(sealed, 0), aad},
			{"middle byte", aead, nonce, flip(sealed, len(sealed)/2), aad},
			{"first byte of the tag", aead, nonce, flip(sealed, size), aad},
			{"last byte of the tag", aead, nonce, flip(sealed, size+bulk.TagSize-1), aad},
			{"nonce", aead, flip(nonce, 11), sealed, aad},
			{"aad", aead, nonce, sealed, flip(aad, 19)},
			{"aad shortened", aead, nonce, sealed, aad[:19]},
			{"aad missing", aead, nonce, sealed, nil},
			{"key", other, nonce, sealed, aad},
		}
		for _, c := range cases {
			dst := pattern(10, size)
			if err := c.aead.Open(dst, c.nonce, c.sealed, c.aad); !errors.Is(err, bulk.ErrOpen) {
				t.Errorf("%d bytes, wrong %s: %v, want ErrOpen", size, c.name, err)
			}
			if !bytes.Equal(dst, make([]byte, size)) {
				t.Errorf("%d bytes, wrong %s: dst is not cleared", size, c.name)
			}
		}
		dst := make([]byte, size)
		if err := aead.Open(dst, nonce, sealed, aad); err != nil || !bytes.Equal(dst, plaintext) {
			t.Errorf("%d bytes: the genuine one does not open after the others: %v", size, err)
		}
	}
}

func testLengths(t *testing.T, engine bulk.Engine) {
	for _, n := range []int{0, 16, 24, 31, 33} {
		if _, err := engine.NewAEAD(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes is taken", n)
		}
	}
	aead := newAEAD(t, engine, pattern(11, bulk.KeySize))
	for _, c := range []struct{ nonce, sealed, open int }{
		{11, 16, 0}, {13, 16, 0}, {0, 16, 0}, {12, 15, 0}, {12, 17, 0}, {12, 0, 0}, {12, 32, 17}, {12, 16, 16},
	} {
		sealed, open, nonce := make([]byte, c.sealed), make([]byte, c.open), make([]byte, c.nonce)
		if err := aead.Seal(sealed, nonce, open, nil); err == nil {
			t.Errorf("Seal takes %+v", c)
		}
		if err := aead.Open(open, nonce, sealed, nil); err == nil || errors.Is(err, bulk.ErrOpen) {
			t.Errorf("Open of %+v: %v", c, err)
		}
	}
}

func testConcurrent(t *testing.T, engine bulk.Engine) {
	const workers, rounds = 16, 20
	keys := [][]byte{pattern(12, bulk.KeySize), pattern(13, bulk.KeySize)}
	aeads := []bulk.AEAD{newAEAD(t, engine, keys[0]), newAEAD(t, engine, keys[1])}
	references := []cipher.AEAD{newReference(t, keys[0]), newReference(t, keys[1])}
	var group sync.WaitGroup
	errs := make(chan error, workers)
	for w := range workers {
		group.Go(func() {
			errs <- func() error {
				for i := range rounds {
					size := (w*7919 + i*104_729) % 40_000
					plaintext := pattern(uint64(w*rounds+i), size)
					nonce := pattern(uint64(w*rounds+i), bulk.NonceSize)
					sealed := make([]byte, size+bulk.TagSize)
					if err := aeads[w%2].Seal(sealed, nonce, plaintext, nonce); err != nil {
						return err
					}
					if !bytes.Equal(sealed, references[w%2].Seal(nil, nonce, plaintext, nonce)) {
						return fmt.Errorf("worker %d, round %d: wrong ciphertext", w, i)
					}
					opened := make([]byte, size)
					if err := aeads[(w+1)%2].Open(opened, nonce, sealed, nonce); !errors.Is(err, bulk.ErrOpen) {
						return fmt.Errorf("worker %d, round %d: opened under another key: %v", w, i, err)
					}
					if err := aeads[w%2].Open(opened, nonce, sealed, nonce); err != nil {
						return err
					}
					if !bytes.Equal(opened, plaintext) {
						return fmt.Errorf("worker %d, round %d: wrong plaintext", w, i)
					}
					if sum, err := engine.Sum256(sealed); err != nil || sum != sha256.Sum256(sealed) {
						return fmt.Errorf("worker %d, round %d: wrong sum, %v", w, i, err)
					}
				}
				return nil
			}()
		})
	}
	group.Wait()
	for range workers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// testGrowth makes the heap grow while operations are pending. In Wasm that replaces the memory under every view of it.
func testGrowth(t *testing.T, engine bulk.Engine) {
	const pending, size = 6, 256 << 10
	key := pattern(14, bulk.KeySize)
	aead, reference := newAEAD(t, engine, key), newReference(t, key)
	plaintexts := make([][]byte, pending)
	for i := range plaintexts {
		plaintexts[i] = pattern(uint64(i), size)
	}
	var hold [][]byte
	for round := range 2 {
		var group sync.WaitGroup
		sealed, sums, errs := make([][]byte, pending), make([][bulk.HashSize]byte, pending), make([]error, pending)
		for i := range pending {
			plaintext := plaintexts[i]
			sealed[i] = make([]byte, size+bulk.TagSize)
			group.Go(func() {
				nonce := pattern(uint64(i), bulk.NonceSize)
				if errs[i] = aead.Seal(sealed[i], nonce, plaintext, nil); errs[i] != nil {
					return
				}
				runtime.Gosched()
				sums[i], errs[i] = engine.Sum256(plaintext)
			})
		}
		// Let each one start. Then grow, and write over the old garbage.
		for range pending {
			runtime.Gosched()
		}
		before := heapSys()
		for heapSys() == before {
			hold = append(hold, bytes.Repeat([]byte{0xee}, 8<<20))
		}
		group.Wait()
		for i := range pending {
			plaintext, nonce := plaintexts[i], pattern(uint64(i), bulk.NonceSize)
			switch {
			case errs[i] != nil:
				t.Fatal(errs[i])
			case !bytes.Equal(sealed[i], reference.Seal(nil, nonce, plaintext, nil)):
				t.Errorf("round %d: ciphertext %d did not land right", round, i)
			case sums[i] != sha256.Sum256(plaintext):
				t.Errorf("round %d: sum %d did not land right", round, i)
			}
		}
	}
	runtime.KeepAlive(hold)
}

func heapSys() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys
}

func testDestroy(t *testing.T, engine bulk.Engine) {
	key := pattern(15, bulk.KeySize)
	nonce, sealed, want := pattern(16, bulk.NonceSize), make([]byte, 100+bulk.TagSize), make([]byte, 100+bulk.TagSize)
	last := newAEAD(t, engine, key)
	if err := last.Seal(want, nonce, make([]byte, 100), nil); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		// The engine keeps no reference to the key, and no AEAD depends on another.
		passing := bytes.Clone(key)
		aead, err := engine.NewAEAD(passing)
		clear(passing)
		if err != nil {
			t.Fatal(err)
		}
		if err := aead.Seal(sealed, nonce, make([]byte, 100), nil); err != nil || !bytes.Equal(sealed, want) {
			t.Fatalf("%x, %v", sealed, err)
		}
		aead.Destroy()
	}
	if err := last.Seal(sealed, nonce, make([]byte, 100), nil); err != nil || !bytes.Equal(sealed, want) {
		t.Errorf("after Destroy of others: %x, %v", sealed, err)
	}
}

// newAEAD returns an AEAD that is destroyed at the end of the test.
func newAEAD(t *testing.T, engine bulk.Engine, key []byte) bulk.AEAD {
	t.Helper()
	aead, err := engine.NewAEAD(key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(aead.Destroy)
	return aead
}

func newReference(t *testing.T, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// pattern is n bytes that depend on the seed.
func pattern(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
