// Package wire is every message and record that Tallow puts on a wire: its layout, limits and versions, and
// nothing of what it means. It follows internal/core/PROTOCOL.md section by section and uses the standard library only.
//
// Each message type has an Append method, which appends its encoding to a buffer and panics on a value that its
// own program must not have built, and a ParseX function, which trusts nothing: a wrong length, an unknown value or a
// trailing byte is an error that wraps ErrMalformed, and no count is believed before the bytes behind it are there.
// Parsed byte slices alias the input.
package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Version is the protocol version that this code speaks.
const Version = 1

// ErrMalformed is wrapped by every parse error.
var ErrMalformed = errors.New("wire: malformed message")

// ErrVersion is wrapped, besides ErrMalformed, by the error for a message of another protocol version.
var ErrVersion = fmt.Errorf("%w: unsupported version", ErrMalformed)

// ID names a member, room, transfer, envelope or session: 16 bytes.
type ID [16]byte

// Hash is a SHA-256 hash.
type Hash [32]byte

// IsZero reports whether the id is all zeros, which names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// String is the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// decoder reads fields off a message. The first failure sticks; later reads give zero values.
type decoder struct {
	what string
	p    []byte
	err  error
}

func decode(what string, p []byte) *decoder { return &decoder{what: what, p: p} }

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s: %s", ErrMalformed, d.what, why)
	}
	d.p = nil
}

// bytes returns the next n bytes without copying them, or nil after a failure.
func (d *decoder) bytes(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n > len(d.p) {
		d.fail("too short")
		return nil
	}
	b := d.p[:n:n]
	d.p = d.p[n:]
	return b
}

func (d *decoder) u8() uint8 {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) id() (id ID)              { copy(id[:], d.bytes(len(id))); return id }
func (d *decoder) hash() (h Hash)           { copy(h[:], d.bytes(len(h))); return h }
func (d *decoder) version()                 { d.expect(d.u8()) }
func (d *decoder) rest() []byte             { return d.bytes(len(d.p)) }
func (d *decoder) bytes8(limit int) []byte  { return d.limited(int(d.u8()), limit) }
func (d *decoder) bytes16(limit int) []byte { return d.limited(int(d.u16()), limit) }

func (d *decoder) expect(version uint8) {
	if d.err == nil && version != Version {
		d.err = fmt.Errorf("%w %d in %s", ErrVersion, version, d.what)
		d.p = nil
	}
}

func (d *decoder) limited(n, limit int) []byte {
	if n > limit {
		d.fail("field too long")
	}
	return d.bytes(n)
}

func (d *decoder) text8(limit int) string  { return d.text(d.bytes8(limit)) }
func (d *decoder) text16(limit int) string { return d.text(d.bytes16(limit)) }

func (d *decoder) text(b []byte) string {
	if !utf8.Valid(b) {
		d.fail("text is not UTF-8")
	}
	return string(b)
}

// count checks that n elements of at least size bytes each can still follow.
func (d *decoder) count(n, least, most, size int) int {
	if d.err == nil && (n < least || n > most) {
		d.fail("count out of range")
	}
	if d.err == nil && n*size > len(d.p) {
		d.fail("too short")
	}
	if d.err != nil {
		return 0
	}
	return n
}

// oneOf checks a value against an inclusive range.
func (d *decoder) oneOf(v, low, high uint8) uint8 {
	if d.err == nil && (v < low || v > high) {
		d.fail("unknown value")
	}
	return v
}

// end is the error of the whole message: the first failure, or trailing bytes.
func (d *decoder) end() error {
	if d.err == nil && len(d.p) > 0 {
		d.fail("trailing bytes")
	}
	return d.err
}

func appendU16(b []byte, v uint16) []byte { return binary.BigEndian.AppendUint16(b, v) }
func appendU32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func appendU64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func appendBytes8[T ~string | ~[]byte](b []byte, v T, limit int) []byte {
	must(len(v) <= min(limit, 0xff), "field too long")
	return append(append(b, byte(len(v))), v...)
}

func appendBytes16[T ~string | ~[]byte](b []byte, v T, limit int) []byte {
	must(len(v) <= min(limit, 0xffff), "field too long")
	return append(appendU16(b, uint16(len(v))), v...)
}

// must guards this program's own invariants, never remote input.
func must(ok bool, why string) {
	if !ok {
		panic("wire: " + why)
	}
}
