package bytes

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"unsafe"

	"tallow/internal/core/bulk"
	"tallow/internal/core/host"
)

//go:wasmimport tallow crypto_available
func cryptoAvailable() uint32

//go:wasmimport tallow crypto_import
func cryptoImport(op uint32, key unsafe.Pointer)

//go:wasmimport tallow crypto_seal
func cryptoSeal(op, key uint32, dst, nonce, plaintext unsafe.Pointer, length uint32, aad unsafe.Pointer, aadLength uint32)

//go:wasmimport tallow crypto_open
func cryptoOpen(op, key uint32, dst, nonce, ciphertext unsafe.Pointer, length uint32, aad unsafe.Pointer, aadLength uint32)

//go:wasmimport tallow crypto_digest
func cryptoDigest(op uint32, dst, data unsafe.Pointer, length uint32)

// smallSum is the length up to which Go's SHA-256 is faster than a round trip to WebCrypto (measured by BenchmarkSum256).
const smallSum = 4 << 10

// NewEngine returns the fastest engine there is. accelerated is false where the browser withholds WebCrypto (an insecure
// page): Go's own cryptography serves then, some twenty times slower, and the page should say so. It is a bulk.Compressor, too, where the
// browser has raw DEFLATE streams.
func NewEngine() (engine bulk.Engine, accelerated bool) {
	engine, accelerated = webCrypto{}, true
	if cryptoAvailable() == 0 {
		engine, accelerated = bulk.Go{}, false
	}
	if deflateAvailable() != 0 {
		engine = compressing{engine, webDeflate{}}
	}
	return engine, accelerated
}

type compressing struct {
	bulk.Engine
	bulk.Compressor
}

type webCrypto struct{}

var _ bulk.Engine = webCrypto{}

// NewAEAD implements bulk.Engine. The key is held by the browser, for it alone; no copy stays in Go's memory.
func (webCrypto) NewAEAD(key []byte) (bulk.AEAD, error) {
	if len(key) != bulk.KeySize {
		return nil, fmt.Errorf("bytes: key of %d bytes", len(key))
	}
	status, value := host.Call(func(op uint32) { cryptoImport(op, pointer(key)) })
	runtime.KeepAlive(key)
	if status != statusOK {
		return nil, cryptoFailure("import key", value)
	}
	return &webAEAD{key: host.Handle(value)}, nil
}

// Sum256 implements bulk.Engine.
func (webCrypto) Sum256(p []byte) (sum [bulk.HashSize]byte, err error) {
	if len(p) <= smallSum {
		return sha256.Sum256(p), nil
	}
	return digest(p)
}

func digest(p []byte) ([bulk.HashSize]byte, error) {
	sum := new([bulk.HashSize]byte)
	status, value := host.Call(func(op uint32) { cryptoDigest(op, unsafe.Pointer(sum), pointer(p), uint32(len(p))) })
	runtime.KeepAlive(p)
	if status != statusOK {
		return *sum, cryptoFailure("digest", value)
	}
	return *sum, nil
}

// webAEAD uses WebCrypto at every length, although Go's would be faster for a few hundred bytes: a Go cipher would leave the key
// in Wasm memory.
type webAEAD struct{ key host.Handle }

func (a *webAEAD) Seal(dst, nonce, plaintext, aad []byte) error {
	if err := checkSizes(nonce, len(dst), len(plaintext)); err != nil {
		return err
	}
	status, value := host.Call(func(op uint32) {
		cryptoSeal(op, uint32(a.key), pointer(dst), pointer(nonce), pointer(plaintext), uint32(len(plaintext)), pointer(aad), uint32(len(aad)))
	})
	runtime.KeepAlive([][]byte{dst, nonce, plaintext, aad})
	if status != statusOK {
		return cryptoFailure("seal", value)
	}
	return nil
}

func (a *webAEAD) Open(dst, nonce, ciphertext, aad []byte) error {
	if err := checkSizes(nonce, len(ciphertext), len(dst)); err != nil {
		return err
	}
	status, value := host.Call(func(op uint32) {
		cryptoOpen(op, uint32(a.key), pointer(dst), pointer(nonce), pointer(ciphertext), uint32(len(ciphertext)), pointer(aad), uint32(len(aad)))
	})
	runtime.KeepAlive([][]byte{dst, nonce, ciphertext, aad})
	switch status {
	case statusOK:
		return nil
	case statusInauthentic:
		clear(dst)
		return bulk.ErrOpen
	default:
		clear(dst)
		return cryptoFailure("open", value)
	}
}

func (a *webAEAD) Destroy() { a.key.Release() }

func checkSizes(nonce []byte, sealed, open int) error {
	if len(nonce) != bulk.NonceSize || sealed != open+bulk.TagSize {
		return fmt.Errorf("bytes: nonce of %d bytes, ciphertext of %d for plaintext of %d", len(nonce), sealed, open)
	}
	return nil
}

// cryptoFailure is the error of a completion with statusFailed.
func cryptoFailure(operation string, value float64) error {
	return fmt.Errorf("bytes: %s: %s", operation, takeText(host.Handle(value)))
}

// pointer is the address of b's bytes. As an unsafe.Pointer that goes to an import it makes b escape to the heap, where it stays in
// place while an operation is pending; a stack may move.
func pointer(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }
