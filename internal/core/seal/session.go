package seal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cloudflare/circl/kem/xwing"

	"tallow/internal/core/wire"
)

// The errors of a session's epochs.
var (
	// ErrEpoch means that there are no keys for the epoch: not yet, or no longer.
	ErrEpoch = errors.New("seal: no keys for this epoch")
	// ErrRekey is wrapped by the errors for a peer's Rekey or Rekeyed that must not be: a violation.
	ErrRekey = errors.New("seal: rekeying failed")
	// ErrRekeyEarly is AnswerRekey's answer while the epoch before the current one has not been retired. The message may
	// be presented again after Retire.
	ErrRekeyEarly = errors.New("seal: the epoch before is still in use")
)

// Session is the keys of a pair of members, from M2 of their handshake on: those for envelopes at once, traffic keys once the
// handshake has come to M3. It takes no locks: one goroutine owns it.
type Session struct {
	id         wire.ID
	room       wire.ID
	self, peer wire.ID
	direction  wire.Direction // in which this member sends
	rand       io.Reader

	peerFingerprint [32]byte
	signal          [2][32]byte // k of pair envelopes, by the author's direction

	current  *chain // nil before M3 and after Destroy
	previous *chain // nil once retired

	rekey        *xwing.PrivateKey // of the Rekey under way, at the initiator
	rekeyMessage []byte
}

// chain is the chain_e of PROTOCOL.md sections 7 and 8.
type chain struct {
	epoch uint32
	key   [32]byte
}

// ID is the session id.
func (s *Session) ID() wire.ID { return s.id }

// Direction is the direction in which this member sends.
func (s *Session) Direction() wire.Direction { return s.direction }

// PeerFingerprint is the DTLS fingerprint of the peer's SDP, which no ICE restart may change.
func (s *Session) PeerFingerprint() [32]byte { return s.peerFingerprint }

// Epoch is the newest epoch that has keys, and false while there is none.
func (s *Session) Epoch() (epoch uint32, ok bool) {
	if s.current == nil {
		return 0, false
	}
	return s.current.epoch, true
}

// Traffic is the AES-256-GCM key and the IV of a direction, channel and epoch. The caller overwrites the key when it has
// served. The error is ErrEpoch.
func (s *Session) Traffic(dir wire.Direction, ch wire.Channel, epoch uint32) (key [32]byte, iv [12]byte, err error) {
	for _, c := range []*chain{s.current, s.previous} {
		if c != nil && c.epoch == epoch {
			context := []byte{byte(dir), byte(ch), byte(epoch >> 24), byte(epoch >> 16), byte(epoch >> 8), byte(epoch)}
			expandInto(key[:], c.key[:], "key", context)
			expandInto(iv[:], c.key[:], "iv", context)
			return key, iv, nil
		}
	}
	return key, iv, ErrEpoch
}

// StartRekey makes the control message Rekey, which only the initiator sends. ErrOrder while one is under way, or
// the epoch before has not been retired.
func (s *Session) StartRekey() (message []byte, err error) {
	if s.direction != wire.FromInitiator || s.current == nil || s.previous != nil || s.rekey != nil {
		return nil, ErrOrder
	}
	if s.current.epoch == math.MaxUint32 {
		return nil, ErrEpoch
	}
	private, public, err := generateKEM(s.rand)
	if err != nil {
		return nil, fmt.Errorf("seal: rekey: %w", err)
	}
	s.rekey = private
	s.rekeyMessage = wire.Rekey{Epoch: s.current.epoch + 1, KEMPublicKey: public}.Append(nil)
	return append([]byte(nil), s.rekeyMessage...), nil
}

// AnswerRekey takes the initiator's control message Rekey whole, derives the next epoch and makes the control message Rekeyed.
// The new epoch is then Epoch. The error is ErrRekey for a violation, ErrRekeyEarly, or ErrOrder.
func (s *Session) AnswerRekey(message []byte) (reply []byte, err error) {
	if s.current == nil {
		return nil, ErrOrder
	}
	if s.direction == wire.FromInitiator {
		return nil, fmt.Errorf("%w: Rekey from the responder", ErrRekey)
	}
	m, err := parseControl[wire.Rekey](message)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRekey, err)
	}
	if s.current.epoch == math.MaxUint32 || m.Epoch != s.current.epoch+1 {
		return nil, fmt.Errorf("%w: epoch %d", ErrRekey, m.Epoch)
	}
	if s.previous != nil {
		return nil, ErrRekeyEarly
	}
	public, err := parseKEMPublicKey(m.KEMPublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRekey, err)
	}
	ciphertext, shared, err := encapsulate(public, s.rand)
	if err != nil {
		return nil, fmt.Errorf("seal: rekey: %w", err)
	}
	reply = wire.Rekeyed{Epoch: m.Epoch, KEMCiphertext: ciphertext}.Append(nil)
	s.advance(shared, message, reply)
	return reply, nil
}

// FinishRekey takes the responder's control message Rekeyed whole and derives the next epoch, which is then Epoch. The
// error is ErrRekey, a violation, also when no Rekey is under way.
func (s *Session) FinishRekey(reply []byte) error {
	if s.rekey == nil {
		return fmt.Errorf("%w: unexpected Rekeyed", ErrRekey)
	}
	m, err := parseControl[wire.Rekeyed](reply)
	if err == nil && m.Epoch != s.current.epoch+1 {
		err = ErrEpoch
	}
	var shared []byte
	if err == nil {
		shared, err = decapsulate(s.rekey, m.KEMCiphertext)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRekey, err)
	}
	s.advance(shared, s.rekeyMessage, reply)
	s.dropRekey()
	return nil
}

// advance enters the next epoch and overwrites the shared secret.
func (s *Session) advance(shared, rekey, rekeyed []byte) {
	next := &chain{epoch: s.current.epoch + 1}
	prk := extract(s.current.key[:], shared)
	context := labelled("", rekey, rekeyed)
	expandInto(next.key[:], prk, "chain", context[:])
	wipe(prk, shared)
	s.previous, s.current = s.current, next
}

// Retire overwrites the chain of the epoch before the newest if its number is at most epoch. The newest stays: the
// next one comes from it.
func (s *Session) Retire(epoch uint32) {
	if s.previous != nil && s.previous.epoch <= epoch {
		wipe(s.previous.key[:])
		s.previous = nil
	}
}

// Destroy overwrites every key. Traffic then fails; an envelope sealed by mistake opens for nobody. It may be called again.
func (s *Session) Destroy() {
	for i := range s.signal {
		rand.Read(s.signal[i][:])
	}
	for _, c := range []*chain{s.current, s.previous} {
		if c != nil {
			wipe(c.key[:])
		}
	}
	s.current, s.previous = nil, nil
	s.dropRekey()
}

func (s *Session) dropRekey() {
	if s.rekey != nil {
		wipeKEM(s.rekey)
	}
	s.rekey, s.rekeyMessage = nil, nil
}

// parseControl parses a control message that must be of type T.
func parseControl[T wire.ControlMessage](p []byte) (m T, err error) {
	message, err := wire.ParseControl(p)
	if err != nil {
		return m, err
	}
	m, ok := message.(T)
	if !ok {
		return m, fmt.Errorf("%w: another type of message", wire.ErrMalformed)
	}
	return m, nil
}
