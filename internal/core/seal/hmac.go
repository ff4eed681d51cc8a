package seal

import (
	"crypto/sha256"
	"hash"
)

// hmacInto is HMAC-SHA-256 (RFC 2104) of the parts, one after the other, under a key of at most a block. It is written out because crypto/hmac
// leaves the key behind, padded, and a digest the last bytes that it has taken.
func hmacInto(sum *[sha256.Size]byte, key []byte, parts ...[]byte) {
	must(len(key) <= sha256.BlockSize, "HMAC with too long a key")
	var pad [sha256.BlockSize]byte
	inner, outer := sha256.New(), sha256.New()
	copy(pad[:], key)
	for i := range pad {
		pad[i] ^= 0x36
	}
	inner.Write(pad[:])
	for i := range pad {
		pad[i] ^= 0x36 ^ 0x5c
	}
	outer.Write(pad[:])
	for _, p := range parts {
		inner.Write(p)
	}
	outer.Write(inner.Sum(sum[:0]))
	outer.Sum(sum[:0])
	wipe(pad[:])
	wipeDigest(inner)
	wipeDigest(outer)
}

// wipeDigest overwrites the state of a digest, and its block of input: whole blocks pass that by, so two parts of one fill it.
func wipeDigest(digest hash.Hash) {
	var zeros [sha256.BlockSize]byte
	digest.Reset()
	digest.Write(zeros[:1])
	digest.Write(zeros[1:])
	digest.Reset()
}
