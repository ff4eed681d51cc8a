package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/kem/xwing"

	"tallow/internal/core/wire"
)

// The errors of the handshake, each wrapped in a HandshakeError where a peer's message is the cause.
var (
	// ErrHandshake is wrapped by every HandshakeError.
	ErrHandshake = errors.New("seal: handshake failed")
	// ErrHelloMismatch means an offer that answers another Hello than this responder's.
	ErrHelloMismatch = errors.New("answers another Hello")
	// ErrEpochAhead means a genuine offer from a member with a newer roster. It is not to be acknowledged, so that it comes
	// again when the roster is there; see Responder.SetEpoch.
	ErrEpochAhead = errors.New("offer under a newer roster")
	// ErrPeer means a handshake that cannot be: with oneself, in the wrong role, or with a key hash of another member.
	ErrPeer = errors.New("seal: impossible peer")

	errMembers      = errors.New("another room or pair")
	errPeerKeys     = fmt.Errorf("%w: not those in the roster", ErrKeys)
	errMAC          = errors.New("wrong MAC")
	errContribution = errors.New("contribution does not match the commitment")
)

// HandshakeError says which message of the peer was refused and why.
type HandshakeError struct {
	Message string // Hello, Offer, Answer, Confirm or Reveal
	Err     error  // the cause
	// Fatal says that the peer itself made the message, so that the attempt is over (code handshake-failed) and its
	// secrets are gone. Otherwise anybody with the link may have made it, or it may yet become acceptable: the handshake
	// stands where it stood.
	Fatal bool
}

// Error implements error.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("%v: %s: %v", ErrHandshake, e.Message, e.Err)
}

// Unwrap gives ErrHandshake and the cause.
func (e *HandshakeError) Unwrap() []error { return []error{ErrHandshake, e.Err} }

// HandshakeConfig says who shakes hands with whom.
type HandshakeConfig struct {
	Room         *RoomKeys
	Self         *Identity
	Peer         wire.ID   // from the highest roster, never from the hub
	PeerKeyHash  wire.Hash // its entry there
	Epoch        uint64    // the highest roster epoch
	Capabilities uint32
	Rand         io.Reader // nil: crypto/rand; anything else is for test vectors
}

// step is what a handshake expects next.
type step int

const (
	stepOffer   step = iota // to make M1, or to get it
	stepAnswer              // M2
	stepConfirm             // M3
	stepReveal              // M4, at the initiator only
	stepDone
	stepFailed
)

// handshake is what both roles have.
type handshake struct {
	config HandshakeConfig
	next   step

	peer         *Verifier // from the moment that the peer has proven its keys
	capabilities uint32    // the peer's
	nonce        [32]byte  // of M1
	// The messages so far. M0 to M2 are payload bodies, M3 a record's content.
	m0, m1, m2 []byte
	prk        []byte
	session    *Session
	words      [4]string
}

func newHandshake(c HandshakeConfig, role wire.Direction) (handshake, error) {
	self := c.Self.ID()
	initiator, responder := self, c.Peer
	if role == wire.FromResponder {
		initiator, responder = c.Peer, self
	}
	if bytes.Compare(initiator[:], responder[:]) >= 0 || idOf(c.PeerKeyHash) != c.Peer {
		return handshake{}, ErrPeer
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return handshake{config: c}, nil
}

// SetEpoch tells of a newer roster that still lists the peer.
func (h *handshake) SetEpoch(epoch uint64) { h.config.Epoch = max(h.config.Epoch, epoch) }

// Nonce is the offer's nonce, which names the negotiation in Candidates; zero before the offer.
func (h *handshake) Nonce() [32]byte { return h.nonce }

// PeerKeys is the peer's keys, and nil before it has proven that they are its own.
func (h *handshake) PeerKeys() *Verifier { return h.peer }

// PeerCapabilities is the capabilities in the peer's offer or answer.
func (h *handshake) PeerCapabilities() uint32 { return h.capabilities }

// Session is the pair's keys: nil before M2, without traffic keys before M3, nil after a failure. Once the handshake is
// done it is the caller's to destroy.
func (h *handshake) Session() *Session { return h.session }

// SessionID is the session's id, zero before M2.
func (h *handshake) SessionID() wire.ID {
	if h.session == nil {
		return wire.ID{}
	}
	return h.session.id
}

// Done reports whether the handshake is complete.
func (h *handshake) Done() bool { return h.next == stepDone }

// SafetyWords is four words that both members see alike unless someone sits between them, and empty ones until the handshake is done.
func (h *handshake) SafetyWords() [4]string { return h.words }

// checkPeer checks who a message says it is from, and its signature. Before it has passed, the message is anybody's.
func (h *handshake) checkPeer(keys []byte, label Label, message, signature []byte) (*Verifier, error) {
	if hash, err := KeyHash(keys); err != nil || hash != h.config.PeerKeyHash {
		return nil, errPeerKeys
	}
	peer, err := NewVerifier(keys)
	if err != nil {
		return nil, err
	}
	return peer, peer.Verify(label, message, signature)
}

func (h *handshake) refuse(message string, err error) error {
	return &HandshakeError{Message: message, Err: err}
}

func (h *handshake) fail(message string, err error) error {
	h.abort()
	return &HandshakeError{Message: message, Err: err, Fatal: true}
}

// abort ends the attempt, unless it is done.
func (h *handshake) abort() {
	if h.next == stepDone {
		return
	}
	h.end(stepFailed)
	if h.session != nil {
		h.session.Destroy()
		h.session = nil
	}
}

// end drops what only a running handshake needs.
func (h *handshake) end(last step) {
	h.next = last
	wipe(h.prk)
	h.prk, h.m0, h.m1, h.m2 = nil, nil, nil, nil
}

// extract mixes the KEM's shared secret, which it overwrites, with the room's pre-shared key.
func (h *handshake) extract(shared []byte) {
	h.prk = extract(h.config.Room.psk[:], shared)
	wipe(shared)
}

// open makes the session, once M2 is there.
func (h *handshake) open(direction wire.Direction, peerFingerprint [32]byte) {
	s := &Session{room: h.config.Room.ID, self: h.config.Self.ID(), peer: h.config.Peer, direction: direction,
		rand: h.config.Rand, peerFingerprint: peerFingerprint}
	context := transcript(h.m0, h.m1, h.m2)
	expandInto(s.id[:], h.prk, "session", context)
	expandInto(s.signal[wire.FromInitiator][:], h.prk, "signal i", context)
	expandInto(s.signal[wire.FromResponder][:], h.prk, "signal r", context)
	h.session = s
}

// openTraffic gives the session its first epoch, once M3 is there.
func (h *handshake) openTraffic(m3 []byte) {
	c := new(chain)
	expandInto(c.key[:], h.prk, "chain", transcript(h.m0, h.m1, h.m2, m3))
	h.session.current = c
}

func (h *handshake) mac(label string, context []byte, maced []byte) []byte {
	key := expand(h.prk, label, context, wire.MACSize)
	defer wipe(key)
	wipeStack()
	defer wipeStack()
	sum := new([wire.MACSize]byte)
	hmacInto(sum, key, maced)
	return sum[:]
}

func (h *handshake) members(role wire.Direction) (initiator, responder wire.ID) {
	if role == wire.FromInitiator {
		return h.config.Self.ID(), h.config.Peer
	}
	return h.config.Peer, h.config.Self.ID()
}

func safety(transcript []byte, initiators, responders [32]byte) [4]string {
	contributions := append(append([]byte(nil), initiators[:]...), responders[:]...)
	prk := extract(transcript, contributions)
	return safetyWords(expand(prk, "safety words", nil, 6))
}

func commit(contribution [32]byte) wire.Hash {
	return labelled("tallow v1 commitment", contribution[:])
}

// Initiator is the side with the lower id: PROTOCOL.md section 7. One Initiator answers one Hello: Offer, Answer,
// Confirm and Reveal, in this order.
type Initiator struct {
	handshake
	kem          *xwing.PrivateKey
	commitment   wire.Hash // the responder's
	contribution [32]byte
	safetySalt   []byte // TH(M0, M1, M2, M3)
}

// NewInitiator prepares a handshake with a peer of a higher id. The error is ErrPeer.
func NewInitiator(c HandshakeConfig) (*Initiator, error) {
	h, err := newHandshake(c, wire.FromInitiator)
	if err != nil {
		return nil, err
	}
	return &Initiator{handshake: h}, nil
}

// Offer takes the body of Hello (M0) and an SDP offer and makes the body of Offer (M1). It reads 32 bytes of Rand for
// the nonce and 32 for the KEM key. The errors are a HandshakeError, ErrSDP for the own SDP, ErrOrder, or that of Rand.
func (h *Initiator) Offer(hello []byte, sdp string) (offer []byte, err error) {
	if h.next != stepOffer {
		return nil, ErrOrder
	}
	m0, err := wire.ParseHello(hello)
	if err == nil && m0.Member != h.config.Peer {
		err = errMembers
	}
	if err != nil {
		return nil, h.refuse("Hello", err)
	}
	if _, err := checkSDP(sdp); err != nil {
		return nil, err
	}
	var nonce [32]byte
	if _, err := io.ReadFull(h.config.Rand, nonce[:]); err != nil {
		return nil, fmt.Errorf("seal: offer: %w", err)
	}
	private, public, err := generateKEM(h.config.Rand)
	if err != nil {
		return nil, fmt.Errorf("seal: offer: %w", err)
	}
	h.kem, h.nonce, h.m0 = private, nonce, bytes.Clone(hello)

	m := wire.Offer{Room: h.config.Room.ID, Epoch: h.config.Epoch, HelloHash: sha256.Sum256(hello), Nonce: nonce,
		Keys: h.config.Self.keys, KEMPublicKey: public, Capabilities: h.config.Capabilities, SDP: sdp}
	m.Initiator, m.Responder = h.members(wire.FromInitiator)
	m.Signature = h.config.Self.Sign(LabelOffer, transcript(h.m0, m.Append(nil)))
	h.m1 = m.Append(nil)
	h.next = stepAnswer
	return bytes.Clone(h.m1), nil
}

// Answer takes the body of Answer (M2) and gives the peer's SDP answer. The session exists then. The error is a HandshakeError
// or ErrOrder.
func (h *Initiator) Answer(p []byte) (sdp string, err error) {
	if h.next != stepAnswer {
		return "", ErrOrder
	}
	const name = "Answer"
	m, covered, maced, err := wire.ParseAnswer(p)
	if err != nil {
		return "", h.refuse(name, err)
	}
	initiator, responder := h.members(wire.FromInitiator)
	if m.Room != h.config.Room.ID || m.Initiator != initiator || m.Responder != responder {
		return "", h.refuse(name, errMembers)
	}
	context := transcript(h.m0, h.m1, covered)
	peer, err := h.checkPeer(m.Keys, LabelAnswer, context, m.Signature)
	if err != nil {
		return "", h.refuse(name, err)
	}

	fingerprint, err := Fingerprint(m.SDP)
	if err != nil {
		return "", h.fail(name, err)
	}
	shared, err := decapsulate(h.kem, m.KEMCiphertext)
	if err != nil {
		return "", h.fail(name, err)
	}
	h.dropKEM()
	h.extract(shared)
	if !hmac.Equal(m.MAC, h.mac("mac r", context, transcript(h.m0, h.m1, maced))) {
		return "", h.fail(name, errMAC)
	}
	h.peer, h.capabilities, h.commitment, h.m2 = peer, m.Capabilities, m.Commitment, bytes.Clone(p)
	h.open(wire.FromInitiator, fingerprint)
	h.next = stepConfirm
	return m.SDP, nil
}

// Confirm makes M3, the content of the first record on the control channel. The session has traffic keys then. It reads
// 32 bytes of Rand for the contribution. The error is ErrOrder, or that of Rand.
func (h *Initiator) Confirm() (m3 []byte, err error) {
	if h.next != stepConfirm {
		return nil, ErrOrder
	}
	if _, err := io.ReadFull(h.config.Rand, h.contribution[:]); err != nil {
		return nil, fmt.Errorf("seal: confirm: %w", err)
	}
	m := wire.Confirm{Contribution: h.contribution}
	m.Signature = h.config.Self.Sign(LabelConfirm, transcript(h.m0, h.m1, h.m2, m.Append(nil)))
	m.MAC = h.mac("mac i", transcript(h.m0, h.m1, h.m2), transcript(h.m0, h.m1, h.m2, m.Append(nil)))
	m3 = m.Append(nil)
	h.openTraffic(m3)
	h.safetySalt = transcript(h.m0, h.m1, h.m2, m3)
	h.end(stepReveal)
	return m3, nil
}

// Reveal takes the control message Reveal (M4), decrypted, and ends the handshake. The error is a HandshakeError or ErrOrder.
func (h *Initiator) Reveal(m4 []byte) error {
	if h.next != stepReveal {
		return ErrOrder
	}
	m, err := parseControl[wire.Reveal](m4)
	if err == nil && commit(m.Contribution) != h.commitment {
		err = errContribution
	}
	if err != nil {
		return h.fail("Reveal", err)
	}
	h.words = safety(h.safetySalt, h.contribution, m.Contribution)
	h.end(stepDone)
	return nil
}

// Destroy ends the attempt and overwrites its secrets; the session too, unless the handshake is done.
func (h *Initiator) Destroy() {
	h.dropKEM()
	h.abort()
}

func (h *Initiator) fail(message string, err error) error {
	h.dropKEM()
	return h.handshake.fail(message, err)
}

func (h *Initiator) dropKEM() {
	if h.kem != nil {
		wipeKEM(h.kem)
		h.kem = nil
	}
}

// Responder is the side with the higher id: PROTOCOL.md section 7. One Responder makes one Hello; a newer Hello is
// another Responder. Hello, Offer, Answer and Confirm, in this order.
type Responder struct {
	handshake
	kem          *xwing.PublicKey
	fingerprint  [32]byte // the initiator's
	contribution [32]byte
}

// NewResponder prepares a handshake with a peer of a lower id. It reads 32 bytes of Rand for the nonce of Hello. The error
// is ErrPeer, or that of Rand.
func NewResponder(c HandshakeConfig) (*Responder, error) {
	h, err := newHandshake(c, wire.FromResponder)
	if err != nil {
		return nil, err
	}
	m := wire.Hello{Member: c.Self.ID()}
	if _, err := io.ReadFull(h.config.Rand, m.Nonce[:]); err != nil {
		return nil, fmt.Errorf("seal: hello: %w", err)
	}
	h.m0 = m.Append(nil)
	return &Responder{handshake: h}, nil
}

// Hello is the body of Hello (M0), the same at every call; nil after the end.
func (h *Responder) Hello() []byte { return bytes.Clone(h.m0) }

// Offer takes the body of Offer (M1) and gives the peer's SDP offer. The error is a HandshakeError, which wraps
// ErrHelloMismatch or ErrEpochAhead where that is the cause, or ErrOrder.
func (h *Responder) Offer(p []byte) (sdp string, err error) {
	if h.next != stepOffer {
		return "", ErrOrder
	}
	const name = "Offer"
	m, covered, err := wire.ParseOffer(p)
	if err != nil {
		return "", h.refuse(name, err)
	}
	initiator, responder := h.members(wire.FromResponder)
	if m.Room != h.config.Room.ID || m.Initiator != initiator || m.Responder != responder {
		return "", h.refuse(name, errMembers)
	}
	if m.HelloHash != sha256.Sum256(h.m0) {
		return "", h.refuse(name, ErrHelloMismatch)
	}
	peer, err := h.checkPeer(m.Keys, LabelOffer, transcript(h.m0, covered), m.Signature)
	if err != nil {
		return "", h.refuse(name, err)
	}
	if m.Epoch > h.config.Epoch {
		return "", h.refuse(name, ErrEpochAhead)
	}

	fingerprint, err := Fingerprint(m.SDP)
	if err != nil {
		return "", h.fail(name, err)
	}
	kem, err := parseKEMPublicKey(m.KEMPublicKey)
	if err != nil {
		return "", h.fail(name, err)
	}
	h.peer, h.capabilities, h.nonce, h.m1 = peer, m.Capabilities, m.Nonce, bytes.Clone(p)
	h.kem, h.fingerprint = kem, fingerprint
	h.next = stepAnswer
	return m.SDP, nil
}

// Answer takes an SDP answer and makes the body of Answer (M2). The session exists then. It reads of Rand 32 bytes for the nonce, 64 for
// the KEM and 32 for the contribution. The errors are ErrSDP for the own SDP, ErrOrder, or that of Rand.
func (h *Responder) Answer(sdp string) (m2 []byte, err error) {
	if h.next != stepAnswer {
		return nil, ErrOrder
	}
	if _, err := checkSDP(sdp); err != nil {
		return nil, err
	}
	var nonce [32]byte
	if _, err := io.ReadFull(h.config.Rand, nonce[:]); err != nil {
		return nil, fmt.Errorf("seal: answer: %w", err)
	}
	ciphertext, shared, err := encapsulate(h.kem, h.config.Rand)
	if err != nil {
		return nil, fmt.Errorf("seal: answer: %w", err)
	}
	if _, err := io.ReadFull(h.config.Rand, h.contribution[:]); err != nil {
		wipe(shared)
		return nil, fmt.Errorf("seal: answer: %w", err)
	}
	h.extract(shared)

	m := wire.Answer{Room: h.config.Room.ID, Nonce: nonce, Keys: h.config.Self.keys, KEMCiphertext: ciphertext,
		Commitment: commit(h.contribution), Capabilities: h.config.Capabilities, SDP: sdp}
	m.Initiator, m.Responder = h.members(wire.FromResponder)
	context := transcript(h.m0, h.m1, m.Append(nil))
	m.Signature = h.config.Self.Sign(LabelAnswer, context)
	m.MAC = h.mac("mac r", context, transcript(h.m0, h.m1, m.Append(nil)))
	h.m2 = m.Append(nil)
	h.open(wire.FromResponder, h.fingerprint)
	h.next = stepConfirm
	return bytes.Clone(h.m2), nil
}

// Confirm takes M3, the content of the first record on the control channel, and makes the control message Reveal (M4), which goes out
// encrypted, before anything else. It ends the handshake. The error is a HandshakeError or ErrOrder.
func (h *Responder) Confirm(m3 []byte) (m4 []byte, err error) {
	if h.next != stepConfirm {
		return nil, ErrOrder
	}
	const name = "Confirm"
	m, covered, maced, err := wire.ParseConfirm(m3)
	if err != nil {
		return nil, h.fail(name, err)
	}
	if !hmac.Equal(m.MAC, h.mac("mac i", transcript(h.m0, h.m1, h.m2), transcript(h.m0, h.m1, h.m2, maced))) {
		return nil, h.fail(name, errMAC)
	}
	if err := h.peer.Verify(LabelConfirm, transcript(h.m0, h.m1, h.m2, covered), m.Signature); err != nil {
		return nil, h.fail(name, err)
	}
	h.openTraffic(m3)
	h.words = safety(transcript(h.m0, h.m1, h.m2, m3), m.Contribution, h.contribution)
	h.end(stepDone)
	return wire.Reveal{Contribution: h.contribution}.Append(nil), nil
}

// Destroy ends the attempt and overwrites its secrets; the session too, unless the handshake is done.
func (h *Responder) Destroy() { h.abort() }
