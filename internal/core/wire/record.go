package wire

import "encoding/binary"

// Records on the data channels: PROTOCOL.md section 8.

// Channel is one of a link's two data channels; the value is its id in SCTP.
type Channel uint8

// The data channels.
const (
	Control Channel = 0
	Bulk    Channel = 1
)

// Direction says who sends.
type Direction uint8

// The directions.
const (
	FromInitiator Direction = 0
	FromResponder Direction = 1
)

// Other is the opposite direction.
func (d Direction) Other() Direction { return d ^ 1 }

// RecordType is the type of a record.
type RecordType uint8

// The types of records.
const (
	RecordConfirm RecordType = 1 // M3; the only one that is not encrypted
	RecordData    RecordType = 2
	RecordKey     RecordType = 3 // the last one of its epoch
)

// Sizes of records and of the messages that carry them.
const (
	RecordHeaderSize = 4 + 1 + 4 + 8
	TagSize          = 16
	// A record is cut into messages of at least MinMessageSize, except for the last one, and at most MessageSize bytes.
	MinMessageSize = 4096
	MessageSize    = 65536
	// MaxControl is the most bytes of a control message.
	MaxControl = 65000
	// MaxBulk is the most bytes of a bulk message.
	MaxBulk = MaxChunkSize + 65536 - RecordHeaderSize - TagSize
)

// MaxRecord is the most bytes of a record on a channel, its header included.
func MaxRecord(ch Channel) int {
	if ch == Bulk {
		return RecordHeaderSize + MaxBulk + TagSize
	}
	return RecordHeaderSize + MaxControl + TagSize
}

// RecordHeader precedes a record's ciphertext.
type RecordHeader struct {
	Length   uint32 // of what follows the length field: the rest of the header, the ciphertext and its tag
	Type     RecordType
	Epoch    uint32
	Sequence uint64
}

// Append appends the header.
func (h RecordHeader) Append(b []byte) []byte {
	return appendU64(appendU32(append(appendU32(b, h.Length), byte(h.Type)), h.Epoch), h.Sequence)
}

// AppendAAD appends what the record's AEAD authenticates besides the ciphertext.
func (h RecordHeader) AppendAAD(b []byte, ch Channel) []byte {
	b = appendU32(append(b, byte(h.Type), byte(ch)), h.Epoch)
	return appendU32(appendU64(b, h.Sequence), h.Length)
}

// ParseRecord splits a whole record into header and ciphertext.
func ParseRecord(p []byte, ch Channel) (h RecordHeader, ciphertext []byte, err error) {
	d := decode("record", p)
	h = RecordHeader{Length: d.u32(), Type: RecordType(d.oneOf(d.u8(), 1, 3)), Epoch: d.u32(), Sequence: d.u64()}
	ciphertext = d.rest()
	switch {
	case d.err != nil:
	case len(p) > MaxRecord(ch) || uint64(h.Length) != uint64(len(p)-4):
		d.fail("wrong length")
	case h.Type != RecordConfirm && len(ciphertext) < TagSize:
		d.fail("too short")
	}
	return h, ciphertext, d.end()
}

// RecordSize is the size of the whole record whose first message is p.
func RecordSize(p []byte, ch Channel) (int, error) {
	d := decode("record", p)
	n := d.u32()
	if d.err == nil && (n < RecordHeaderSize-4 || uint64(n)+4 > uint64(MaxRecord(ch))) {
		d.fail("length out of range")
	}
	return int(n) + 4, d.err
}

// Nonce is the AEAD nonce of a record: the epoch's IV xor the sequence number.
func Nonce(iv [12]byte, sequence uint64) [12]byte {
	binary.BigEndian.PutUint64(iv[4:], binary.BigEndian.Uint64(iv[4:])^sequence)
	return iv
}
