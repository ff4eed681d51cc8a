package wire

// Admission to a room: PROTOCOL.md section 6. The Append methods leave the signature out where it is empty: what
// they append then is what the signature covers.

// Sizes of keys and signatures.
const (
	KeysSize      = 32 + 1952 // Ed25519 and ML-DSA-65 public keys
	SignatureSize = 64 + 3309 // Ed25519 and ML-DSA-65 signatures
)

// MaxName is the most bytes of a member's name.
const MaxName = 64

// MaxRoster is the most members in a roster.
const MaxRoster = 64

// Join asks the owner for a place in the roster.
type Join struct {
	Room      ID
	Nonce     ID
	Epoch     uint64 // the highest roster epoch that the newcomer has seen
	Keys      []byte // KeysSize bytes
	Name      string
	Signature []byte
}

// Append appends the body.
func (m Join) Append(b []byte) []byte {
	b = append(append(append(b, Version), m.Room[:]...), m.Nonce[:]...)
	b = appendFixed(appendU64(b, m.Epoch), m.Keys, KeysSize)
	return appendSignature(appendBytes8(b, m.Name, MaxName), m.Signature)
}

// ParseJoin parses the body. signed is the part that the signature covers.
func ParseJoin(p []byte) (m Join, signed []byte, err error) {
	d := decode("Join", p)
	d.version()
	m = Join{Room: d.id(), Nonce: d.id(), Epoch: d.u64(), Keys: d.bytes(KeysSize), Name: d.text8(MaxName)}
	signed, m.Signature = d.signature(p)
	return m, signed, d.end()
}

// Roster is the owner's list of members.
type Roster struct {
	Room       ID
	Epoch      uint64
	Locked     bool // nobody new enters
	Approval   bool // the owner is asked about each newcomer
	MaxMembers uint8
	ReplyTo    ID // the nonce of the join that it answers, or zero
	Members    []Hash
	Keys       []byte // the owner's, KeysSize bytes
	Signature  []byte
}

// Append appends the body.
func (m Roster) Append(b []byte) []byte {
	must(len(m.Members) > 0 && len(m.Members) <= MaxRoster, "number of members")
	b = appendU64(append(append(b, Version), m.Room[:]...), m.Epoch)
	b = append(b, flag(m.Locked, 1)|flag(m.Approval, 2), m.MaxMembers)
	b = append(append(b, m.ReplyTo[:]...), byte(len(m.Members)))
	for _, h := range m.Members {
		b = append(b, h[:]...)
	}
	return appendSignature(appendFixed(b, m.Keys, KeysSize), m.Signature)
}

// ParseRoster parses the body. signed is the part that the signature covers.
func ParseRoster(p []byte) (m Roster, signed []byte, err error) {
	d := decode("Roster", p)
	d.version()
	m = Roster{Room: d.id(), Epoch: d.u64()}
	flags := d.oneOf(d.u8(), 0, 3)
	m.Locked, m.Approval = flags&1 != 0, flags&2 != 0
	m.MaxMembers = d.u8()
	m.ReplyTo = d.id()
	for range d.count(int(d.u8()), 1, MaxRoster, len(Hash{})) {
		m.Members = append(m.Members, d.hash())
	}
	m.Keys = d.bytes(KeysSize)
	signed, m.Signature = d.signature(p)
	return m, signed, d.end()
}

// RefuseCode says why the owner does not admit a newcomer.
type RefuseCode uint8

// The reasons of Refuse.
const (
	RefuseLocked  RefuseCode = 1
	RefuseFull    RefuseCode = 2
	RefuseDenied  RefuseCode = 3
	RefusePending RefuseCode = 4 // not yet: the owner is being asked
	RefuseRemoved RefuseCode = 5
)

// Refuse tells a newcomer that it is not in the roster.
type Refuse struct {
	Room      ID
	Member    ID
	Nonce     ID // of the join that it answers
	Code      RefuseCode
	Keys      []byte // the owner's
	Signature []byte
}

// Append appends the body.
func (m Refuse) Append(b []byte) []byte {
	b = append(append(append(b, Version), m.Room[:]...), m.Member[:]...)
	b = append(append(b, m.Nonce[:]...), byte(m.Code))
	return appendSignature(appendFixed(b, m.Keys, KeysSize), m.Signature)
}

// ParseRefuse parses the body. signed is the part that the signature covers.
func ParseRefuse(p []byte) (m Refuse, signed []byte, err error) {
	d := decode("Refuse", p)
	d.version()
	m = Refuse{Room: d.id(), Member: d.id(), Nonce: d.id(),
		Code: RefuseCode(d.oneOf(d.u8(), uint8(RefuseLocked), uint8(RefuseRemoved))), Keys: d.bytes(KeysSize)}
	signed, m.Signature = d.signature(p)
	return m, signed, d.end()
}

// Knock asks the responder of a pair for a Hello.
type Knock struct{ Member ID }

// Append appends the body.
func (m Knock) Append(b []byte) []byte { return append(append(b, Version), m.Member[:]...) }

// ParseKnock parses the body.
func ParseKnock(p []byte) (m Knock, err error) {
	d := decode("Knock", p)
	d.version()
	m.Member = d.id()
	return m, d.end()
}

// signature reads a signature and returns what of the message p precedes it.
func (d *decoder) signature(p []byte) (signed, signature []byte) {
	n := len(p) - len(d.p)
	return p[:n:n], d.bytes(SignatureSize)
}

func appendFixed(b, v []byte, size int) []byte {
	must(len(v) == size, "length of a fixed field")
	return append(b, v...)
}

func appendSignature(b, signature []byte) []byte {
	must(len(signature) == 0 || len(signature) == SignatureSize, "length of a signature")
	return append(b, signature...)
}
