package bulk

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
)

// Go is the Engine of Go's own cryptography: the native one, and the browser's where WebCrypto is missing.
type Go struct{}

var _ Engine = Go{}

// Sum256 implements Engine.
func (Go) Sum256(p []byte) ([HashSize]byte, error) { return sha256.Sum256(p), nil }

// NewAEAD implements Engine.
func (Go) NewAEAD(key []byte) (AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("bulk: key of %d bytes", len(key))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &goAEAD{gcm}, nil
}

type goAEAD struct{ gcm cipher.AEAD }

func (a *goAEAD) Seal(dst, nonce, plaintext, aad []byte) error {
	if err := checkSizes(nonce, len(dst), len(plaintext)); err != nil {
		return err
	}
	a.gcm.Seal(dst[:0], nonce, plaintext, aad)
	return nil
}

func (a *goAEAD) Open(dst, nonce, ciphertext, aad []byte) error {
	if err := checkSizes(nonce, len(ciphertext), len(dst)); err != nil {
		return err
	}
	if _, err := a.gcm.Open(dst[:0], nonce, ciphertext, aad); err != nil {
		clear(dst)
		return ErrOpen
	}
	return nil
}

// Destroy drops the expanded key; Go gives no way to overwrite it (docs/security.md).
func (a *goAEAD) Destroy() { a.gcm = nil }

func checkSizes(nonce []byte, sealed, open int) error {
	if len(nonce) != NonceSize || sealed != open+TagSize {
		return fmt.Errorf("bulk: nonce of %d bytes, ciphertext of %d for plaintext of %d", len(nonce), sealed, open)
	}
	return nil
}
