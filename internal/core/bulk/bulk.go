// Package bulk is the work on chunk-sized byte strings whose fast implementation differs by platform: AES-256-GCM,
// SHA-256 and DEFLATE, and the pool of buffers that they work on. The native implementation is here; the browser's, over
// WebCrypto and its compression streams, is in internal/bridge. Both pass the conformance suite in bulktest.
package bulk

import "errors"

// Sizes of keys, nonces, tags and hashes.
const (
	KeySize   = 32
	NonceSize = 12
	TagSize   = 16
	HashSize  = 32
)

var (
	// ErrOpen says that a ciphertext is not authentic.
	ErrOpen = errors.New("bulk: message authentication failed")
	// ErrInflate says that something is not the compressed form of so many bytes.
	ErrInflate = errors.New("bulk: not the DEFLATE stream of so many bytes")
)

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

// Compressor is what an Engine is besides where the platform compresses: raw DEFLATE streams (RFC 1951). Its methods may block and run at
// the same time as others, as the Engine's do.
type Compressor interface {
	// Deflate writes the compressed form of p to dst, which does not overlap p, and returns its length: 0 if it does not fit.
	Deflate(dst, p []byte) (n int, err error)
	// Inflate writes to dst what p is the compressed form of. Anything but exactly len(dst) bytes, and a stream that does not end
	// exactly where p does, is ErrInflate, and dst then holds nothing of it. It takes little memory besides, whatever p claims to hold.
	Inflate(dst, p []byte) error
}
