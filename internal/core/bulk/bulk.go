// Package bulk is the work on chunk-sized byte strings whose fast implementation differs by platform: AES-256-GCM and
// SHA-256, and the pool of buffers that they work on. The native implementation is here; the browser's, over WebCrypto,
// is in internal/bridge. Both pass the conformance suite in bulktest.
package bulk

import "errors"

// Sizes of keys, nonces, tags and hashes.
const (
	KeySize   = 32
	NonceSize = 12
	TagSize   = 16
	HashSize  = 32
)

// ErrOpen says that a ciphertext is not authentic.
var ErrOpen = errors.New("bulk: message authentication failed")

// Engine does the work. Its methods may block the calling goroutine and may be called from several.
// Buffers passed in must not be changed until the method returns.
type Engine interface {
	// NewAEAD returns AES-256-GCM under a key of KeySize bytes. It keeps no reference to key.
	NewAEAD(key []byte) (AEAD, error)
	// Sum256 is the SHA-256 of p.
	Sum256(p []byte) ([HashSize]byte, error)
}

// AEAD is AES-256-GCM under one key. It never sees the same nonce twice for Seal: that is the caller's duty.
type AEAD interface {
	// Seal writes the ciphertext of plaintext and its tag to dst, which has len(plaintext)+TagSize bytes and does not
	// overlap plaintext.
	Seal(dst, nonce, plaintext, aad []byte) error
	// Open writes the plaintext of ciphertext (with its tag) to dst, which has len(ciphertext)-TagSize bytes and does
	// not overlap ciphertext. An inauthentic ciphertext is ErrOpen, and dst then holds nothing of it.
	Open(dst, nonce, ciphertext, aad []byte) error
	// Destroy forgets the key. No other method may be called afterwards, or be running.
	Destroy()
}
