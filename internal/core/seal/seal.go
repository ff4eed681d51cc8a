// Package seal is all of Tallow's cryptography: link and room keys, identities and signatures, envelopes, the handshake of
// a pair, its key schedule, and the safety words. It follows internal/core/PROTOCOL.md sections 2, 3 and 5 to 8.
//
// A program makes a Link or parses one, derives RoomKeys from it, and has an Identity per room. Members admit each other
// with the signed messages of SignJoin, SignRoster and SignRefuse inside room envelopes. Two members then run an
// Initiator and a Responder against each other and end up with a Session each: the keys for the pair's envelopes, the traffic
// keys for its data channels, and their renewal.
//
// Nothing here does I/O, starts a goroutine or takes a lock; a value belongs to one goroutine at a time, except that
// Identity, RoomKeys and Verifier, once made and until destroyed, may be used by several. Whatever comes from the
// network is checked and answered with an error; panics guard only what this program itself must not do.
//
// Secrets are overwritten when they have served. In Go that is best effort: the runtime and the libraries below may
// have left copies on stacks and in registers' spill slots.
package seal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"

	"tallow/internal/core/wire"
)

// ErrOrder is returned by a step of a handshake or of a rekeying that is not due, or that comes after its end.
var ErrOrder = errors.New("seal: not the step that is due")

// extract is HKDF-Extract with SHA-256.
func extract(salt, ikm []byte) []byte {
	wipeStack()
	defer wipeStack()
	prk := new([sha256.Size]byte)
	hmacInto(prk, salt, ikm)
	return prk[:]
}

// expand is the Expand of PROTOCOL.md section 2.
func expand(prk []byte, label string, context []byte, n int) []byte {
	out := make([]byte, n)
	expandInto(out, prk, label, context)
	return out
}

// expandInto is expand for an array that is to hold the result and nothing else: HKDF-Expand of RFC 5869, written out because
// crypto/hkdf leaves a copy of each block behind.
func expandInto(out []byte, prk []byte, label string, context []byte) {
	must(len(out) <= 255*sha256.Size, "HKDF-Expand of too much")
	wipeStack()
	defer wipeStack()
	info := append([]byte("tallow v1 "+label+"\x00"), context...)
	block := new([sha256.Size]byte)
	var last []byte // none before the first
	for counter := byte(1); len(out) > 0; counter++ {
		hmacInto(block, prk, last, info, []byte{counter})
		last = block[:]
		out = out[copy(out, last):]
	}
	wipe(block[:])
}

// labelled is H(label ‖ parts).
func labelled(label string, parts ...[]byte) (sum wire.Hash) {
	h := sha256.New()
	io.WriteString(h, label)
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// transcript is the TH of PROTOCOL.md section 7.
func transcript(messages ...[]byte) []byte {
	h := sha256.New()
	var length [4]byte
	for _, m := range messages {
		binary.BigEndian.PutUint32(length[:], uint32(len(m)))
		h.Write(length[:])
		h.Write(m)
	}
	return h.Sum(nil)
}

// wipe overwrites secrets. It is not inlined, so that no compiler finds the stores to be dead.
//
//go:noinline
func wipe(secrets ...[]byte) {
	for _, s := range secrets {
		clear(s)
	}
}

// wipeStack overwrites what calls have left on the stack below their caller. Called before them too, it has the stack grown in time:
// one that grows later leaves a copy behind.
//
//go:noinline
func wipeStack() {
	var frames [32 << 10]byte
	wipe(frames[:])
}

// must guards this program's own invariants, never remote input.
func must(ok bool, why string) {
	if !ok {
		panic("seal: " + why)
	}
}
