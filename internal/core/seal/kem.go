package seal

import (
	"errors"
	"io"
	"reflect"
	"unsafe"

	"github.com/cloudflare/circl/kem/xwing"

	"tallow/internal/core/wire"
)

// The checks here come before any call of circl's X-Wing, which panics on a wrong length and accepts an X25519 value of
// low order: PROTOCOL.md section 2.

var (
	errKEMLength = errors.New("KEM input of a wrong length")
	errLowOrder  = errors.New("X25519 value of low order")
	errKEMKey    = errors.New("ML-KEM key out of range")
)

const x25519Size = 32

// generateKEM reads 32 bytes of rand.
func generateKEM(rand io.Reader) (*xwing.PrivateKey, []byte, error) {
	var seed [xwing.SeedSize]byte
	defer wipe(seed[:])
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return nil, nil, err
	}
	wipeStack()
	private, public := xwing.DeriveKeyPair(seed[:])
	wipeStack()
	packed := make([]byte, xwing.PublicKeySize)
	public.Pack(packed)
	return private, packed, nil
}

func parseKEMPublicKey(p []byte) (*xwing.PublicKey, error) {
	if len(p) != wire.KEMPublicKeySize {
		return nil, errKEMLength
	}
	if lowOrder(p[len(p)-x25519Size:]) {
		return nil, errLowOrder
	}
	public := new(xwing.PublicKey)
	if public.Unpack(p) != nil {
		return nil, errKEMKey
	}
	return public, nil
}

// encapsulate reads 64 bytes of rand.
func encapsulate(public *xwing.PublicKey, rand io.Reader) (ciphertext, shared []byte, err error) {
	var seed [xwing.EncapsulationSeedSize]byte
	defer wipe(seed[:])
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return nil, nil, err
	}
	ciphertext, shared = make([]byte, xwing.CiphertextSize), make([]byte, xwing.SharedKeySize)
	wipeStack()
	public.EncapsulateTo(ciphertext, shared, seed[:])
	wipeStack()
	return ciphertext, shared, nil
}

func decapsulate(private *xwing.PrivateKey, ciphertext []byte) (shared []byte, err error) {
	if len(ciphertext) != wire.KEMCiphertextSize {
		return nil, errKEMLength
	}
	if lowOrder(ciphertext[len(ciphertext)-x25519Size:]) {
		return nil, errLowOrder
	}
	shared = make([]byte, xwing.SharedKeySize)
	wipeStack()
	private.DecapsulateTo(shared, ciphertext)
	wipeStack()
	return shared, nil
}

// wipeKEM overwrites a private key. circl gives no way to do that, and keeps the secret vector of ML-KEM behind a pointer of its
// own.
func wipeKEM(private *xwing.PrivateKey) {
	wipeValue(reflect.ValueOf(private))
	*private = xwing.PrivateKey{}
}

func wipeValue(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			wipeValue(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			wipeValue(v.Field(i))
		}
	default:
		must(v.Kind() == reflect.Array, "part of a KEM key of another kind")
		wipe(unsafe.Slice((*byte)(unsafe.Pointer(v.UnsafeAddr())), v.Type().Size()))
	}
}

// lowOrderPoints are the u-coordinates, little-endian, of the points on Curve25519 and its twist whose order divides 8:
// five canonical encodings, and the two others below 2^255 that stand for 0 and 1.
var lowOrderPoints = [...][x25519Size]byte{
	{},
	{0: 1},
	{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
	{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
	prime(0xec), // p - 1
	prime(0xed), // p, the same as 0
	prime(0xee), // p + 1, the same as 1
}

// prime is 2^255 - 256 + low; 0xed gives the field's prime.
func prime(low byte) (p [x25519Size]byte) {
	for i := range p {
		p[i] = 0xff
	}
	p[0], p[31] = low, 0x7f
	return p
}

// lowOrder reports whether X25519 makes all zeros of the value with every scalar. X25519 ignores the topmost bit.
func lowOrder(u []byte) bool {
	p := [x25519Size]byte(u)
	p[31] &= 0x7f
	for _, low := range lowOrderPoints {
		if p == low {
			return true
		}
	}
	return false
}
