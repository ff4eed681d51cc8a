package wire

// The handshake of a pair: PROTOCOL.md section 7. Append leaves out a signature or MAC that is empty, which gives the
// primed forms of the specification.

// Sizes of the handshake's fields.
const (
	KEMPublicKeySize  = 1216
	KEMCiphertextSize = 1120
	MACSize           = 32
	MaxSDP            = 16384
)

// Hello is M0, from the responder.
type Hello struct {
	Member ID
	Nonce  [32]byte
}

// Append appends the body.
func (m Hello) Append(b []byte) []byte {
	b = append(append(b, Version), m.Member[:]...)
	return append(b, m.Nonce[:]...)
}

// ParseHello parses the body.
func ParseHello(p []byte) (m Hello, err error) {
	d := decode("Hello", p)
	d.version()
	m = Hello{Member: d.id(), Nonce: d.hash()}
	return m, d.end()
}

// CapabilityDeflate says in Capabilities that the member takes compressed chunks. Bits that are not known are ignored.
const CapabilityDeflate = 1

// Offer is M1, from the initiator.
type Offer struct {
	Room, Initiator, Responder ID
	Epoch                      uint64 // the highest roster epoch that the initiator has
	HelloHash                  Hash
	Nonce                      [32]byte
	Keys                       []byte // the initiator's, KeysSize bytes
	KEMPublicKey               []byte // KEMPublicKeySize bytes
	Capabilities               uint32
	SDP                        string
	Signature                  []byte
}

// Append appends the body.
func (m Offer) Append(b []byte) []byte {
	b = append(append(b, Version), m.Room[:]...)
	b = append(append(b, m.Initiator[:]...), m.Responder[:]...)
	b = append(appendU64(b, m.Epoch), m.HelloHash[:]...)
	b = appendFixed(append(b, m.Nonce[:]...), m.Keys, KeysSize)
	b = appendFixed(b, m.KEMPublicKey, KEMPublicKeySize)
	b = appendBytes16(appendU32(b, m.Capabilities), m.SDP, MaxSDP)
	return appendSignature(b, m.Signature)
}

// ParseOffer parses the body. signed is the part that the signature covers.
func ParseOffer(p []byte) (m Offer, signed []byte, err error) {
	d := decode("Offer", p)
	d.version()
	m = Offer{Room: d.id(), Initiator: d.id(), Responder: d.id(), Epoch: d.u64(), HelloHash: d.hash(), Nonce: d.hash(),
		Keys: d.bytes(KeysSize), KEMPublicKey: d.bytes(KEMPublicKeySize), Capabilities: d.u32(), SDP: d.text16(MaxSDP)}
	signed, m.Signature = d.signature(p)
	return m, signed, d.end()
}

// Answer is M2, from the responder.
type Answer struct {
	Room, Initiator, Responder ID
	Nonce                      [32]byte
	Keys                       []byte // the responder's, KeysSize bytes
	KEMCiphertext              []byte // KEMCiphertextSize bytes
	Commitment                 Hash
	Capabilities               uint32
	SDP                        string
	Signature                  []byte
	MAC                        []byte
}

// Append appends the body.
func (m Answer) Append(b []byte) []byte {
	b = append(append(b, Version), m.Room[:]...)
	b = append(append(b, m.Initiator[:]...), m.Responder[:]...)
	b = appendFixed(append(b, m.Nonce[:]...), m.Keys, KeysSize)
	b = append(appendFixed(b, m.KEMCiphertext, KEMCiphertextSize), m.Commitment[:]...)
	b = appendBytes16(appendU32(b, m.Capabilities), m.SDP, MaxSDP)
	return append(appendSignature(b, m.Signature), m.MAC...)
}

// ParseAnswer parses the body. signed is the part that the signature covers, maced the part that the MAC covers.
func ParseAnswer(p []byte) (m Answer, signed, maced []byte, err error) {
	d := decode("Answer", p)
	d.version()
	m = Answer{Room: d.id(), Initiator: d.id(), Responder: d.id(), Nonce: d.hash(),
		Keys: d.bytes(KeysSize), KEMCiphertext: d.bytes(KEMCiphertextSize), Commitment: d.hash(),
		Capabilities: d.u32(), SDP: d.text16(MaxSDP)}
	signed, m.Signature = d.signature(p)
	maced, m.MAC = d.mac(p)
	return m, signed, maced, d.end()
}

// Confirm is M3, from the initiator.
type Confirm struct {
	Contribution [32]byte
	Signature    []byte
	MAC          []byte
}

// Append appends the body.
func (m Confirm) Append(b []byte) []byte {
	return append(appendSignature(append(b, m.Contribution[:]...), m.Signature), m.MAC...)
}

// ParseConfirm parses the body. signed is the part that the signature covers, maced the part that the MAC covers.
func ParseConfirm(p []byte) (m Confirm, signed, maced []byte, err error) {
	d := decode("Confirm", p)
	m.Contribution = d.hash()
	signed, m.Signature = d.signature(p)
	maced, m.MAC = d.mac(p)
	return m, signed, maced, d.end()
}

// mac reads a MAC and returns what of the message p precedes it.
func (d *decoder) mac(p []byte) (maced, mac []byte) {
	n := len(p) - len(d.p)
	return p[:n:n], d.bytes(MACSize)
}
