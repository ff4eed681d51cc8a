package wire

// Control messages: PROTOCOL.md section 9.

// ControlType is the first byte of a control message.
type ControlType uint8

// The types of control messages.
const (
	ControlReveal       ControlType = 1
	ControlProfile      ControlType = 2
	ControlPing         ControlType = 3
	ControlPong         ControlType = 4
	ControlRekey        ControlType = 5
	ControlRekeyed      ControlType = 6
	ControlBye          ControlType = 7
	ControlRoster       ControlType = 8
	ControlReceived     ControlType = 9
	ControlOffer        ControlType = 16
	ControlManifestPart ControlType = 17
	ControlHave         ControlType = 18
	ControlAccept       ControlType = 19
	ControlDecline      ControlType = 20
	ControlCredit       ControlType = 21
	ControlReceipt      ControlType = 22
	ControlCancel       ControlType = 23
	ControlFileFailed   ControlType = 24
	ControlPause        ControlType = 25
	ControlSaving       ControlType = 26
)

// Limits of transfers.
const (
	MaxParticipants = 64
	MaxFiles        = 100_000
	MaxManifest     = 16 << 20
	MaxManifestPart = 32768
	MaxHaveRuns     = 4096
	MaxTotalSize    = 1<<53 - 1
	MinChunkSize    = 64 << 10
	MaxChunkSize    = 4 << 20
	maxBitmap       = (MaxFiles + 7) / 8
	maxRosterBody   = 16384
)

// ByeCode says why a member closes a link.
type ByeCode uint8

// The reasons of Bye.
const (
	ByeLeft      ByeCode = 1
	ByeRemoved   ByeCode = 2
	ByeViolation ByeCode = 3
	ByeReplaced  ByeCode = 4
	ByeRest      ByeCode = 5 // no link is wanted; the member stays in the room
)

// FailureCode says why a transfer or a file ended early.
type FailureCode uint8

// The reasons of Cancel and FileFailed.
const (
	FailureCancelled         FailureCode = 1
	FailureFileChanged       FailureCode = 2
	FailureFileUnreadable    FailureCode = 3
	FailureDiskFull          FailureCode = 4
	FailureStorageFailed     FailureCode = 5
	FailureIntegrity         FailureCode = 6
	FailureProtocolViolation FailureCode = 7
	FailureSenderGone        FailureCode = 8
	FailureTooLarge          FailureCode = 9
	FailureInternal          FailureCode = 10
)

// ControlMessage is one of the messages of this file.
type ControlMessage interface {
	ControlType() ControlType
	// Append appends the message with its type byte.
	Append(b []byte) []byte
}

// Reveal is M4: the responder's contribution to the safety words.
type Reveal struct{ Contribution [32]byte }

// Profile is how a member wants to be shown.
type Profile struct{ Name string }

// Ping asks for a Pong with the same token; for the round-trip time and as a sign of life.
type Ping struct{ Token uint64 }

// Pong answers Ping.
type Pong struct{ Token uint64 }

// Rekey starts a new epoch.
type Rekey struct {
	Epoch        uint32
	KEMPublicKey []byte
}

// Rekeyed answers Rekey.
type Rekeyed struct {
	Epoch         uint32
	KEMCiphertext []byte
}

// Bye closes the link.
type Bye struct{ Code ByeCode }

// RosterUpdate carries a roster to a member whose link to the owner is open, so that no hub can withhold it.
type RosterUpdate struct{ Body []byte } // of a Roster, signature included

// Received says how many bytes of the peer's bulk messages have arrived on this link. It is what the peer's pace hangs on.
type Received struct{ Bytes uint64 } // of records, headers included

// TransferOffer offers files. Its manifest follows in ManifestPart messages.
type TransferOffer struct {
	Transfer       ID
	LateJoiners    bool
	ChunkSize      uint32
	Files          uint32
	TotalSize      uint64
	ManifestLength uint32
	ManifestHash   Hash
	Participants   []ID
}

// ManifestPart is a piece of a manifest. Pieces come in order and without gaps.
type ManifestPart struct {
	Transfer ID
	Offset   uint32
	Data     []byte
}

// Run is a number of consecutive chunks.
type Run struct{ First, Count uint32 }

// Have names chunks of a file that the recipient has verified on disk.
type Have struct {
	Sender, Transfer ID
	File             uint32
	Runs             []Run // ascending, disjoint, none empty
}

// Accept asks for files. It ends a series of Have.
type Accept struct {
	Transfer ID
	Credit   uint64
	Files    Bitmap
	Complete Bitmap // of these, the files of which the recipient has every hash and chunk
}

// Decline refuses an offer.
type Decline struct {
	Transfer ID
	Reason   string
}

// Credit raises how many bytes may be sent, and says how many are on disk.
type Credit struct {
	Transfer ID
	Granted  uint64 // running total for this link since Accept, in chunk costs
	Stored   uint64 // bytes of this transfer on the recipient's disk
}

// Receipt is the recipient's signed word that the files are verified and where they are.
type Receipt struct {
	Transfer  ID
	Root      Hash
	Files     Bitmap
	InMemory  bool // not on its disk: lost with its page, unless they are saved
	Signature []byte
}

// Cancel ends a transfer between the two members of the link.
type Cancel struct {
	Sender, Transfer ID
	Code             FailureCode
}

// FileFailed says that the sender cannot complete a file.
type FileFailed struct {
	Transfer ID
	File     uint32
	Code     FailureCode
}

// Pause stops or continues the flow of a transfer between the two members of the link. It goes on when neither reason stands.
type Pause struct {
	Sender, Transfer ID
	Paused           bool // by the author's user
	Full             bool // the author's disk is full; a recipient's only
}

// Saving says that everything is verified, and is being made durable; Receipt follows. It only tells: nothing depends on it.
type Saving struct{ Transfer ID }

// ControlType implements ControlMessage.
func (Reveal) ControlType() ControlType        { return ControlReveal }
func (Profile) ControlType() ControlType       { return ControlProfile }
func (Ping) ControlType() ControlType          { return ControlPing }
func (Pong) ControlType() ControlType          { return ControlPong }
func (Rekey) ControlType() ControlType         { return ControlRekey }
func (Rekeyed) ControlType() ControlType       { return ControlRekeyed }
func (Bye) ControlType() ControlType           { return ControlBye }
func (RosterUpdate) ControlType() ControlType  { return ControlRoster }
func (Received) ControlType() ControlType      { return ControlReceived }
func (TransferOffer) ControlType() ControlType { return ControlOffer }
func (ManifestPart) ControlType() ControlType  { return ControlManifestPart }
func (Have) ControlType() ControlType          { return ControlHave }
func (Accept) ControlType() ControlType        { return ControlAccept }
func (Decline) ControlType() ControlType       { return ControlDecline }
func (Credit) ControlType() ControlType        { return ControlCredit }
func (Receipt) ControlType() ControlType       { return ControlReceipt }
func (Cancel) ControlType() ControlType        { return ControlCancel }
func (FileFailed) ControlType() ControlType    { return ControlFileFailed }
func (Pause) ControlType() ControlType         { return ControlPause }
func (Saving) ControlType() ControlType        { return ControlSaving }

// Append implements ControlMessage.
func (m Reveal) Append(b []byte) []byte {
	return append(append(b, byte(ControlReveal)), m.Contribution[:]...)
}

func (m Profile) Append(b []byte) []byte {
	return appendBytes8(append(b, byte(ControlProfile)), m.Name, MaxName)
}

func (m Ping) Append(b []byte) []byte { return appendU64(append(b, byte(ControlPing)), m.Token) }
func (m Pong) Append(b []byte) []byte { return appendU64(append(b, byte(ControlPong)), m.Token) }

func (m Rekey) Append(b []byte) []byte {
	return appendFixed(appendU32(append(b, byte(ControlRekey)), m.Epoch), m.KEMPublicKey, KEMPublicKeySize)
}

func (m Rekeyed) Append(b []byte) []byte {
	return appendFixed(appendU32(append(b, byte(ControlRekeyed)), m.Epoch), m.KEMCiphertext, KEMCiphertextSize)
}

func (m Bye) Append(b []byte) []byte { return append(b, byte(ControlBye), byte(m.Code)) }

func (m RosterUpdate) Append(b []byte) []byte {
	return appendBytes16(append(b, byte(ControlRoster)), m.Body, maxRosterBody)
}

func (m Received) Append(b []byte) []byte {
	return appendU64(append(b, byte(ControlReceived)), m.Bytes)
}

func (m TransferOffer) Append(b []byte) []byte {
	must(len(m.Participants) > 0 && len(m.Participants) <= MaxParticipants, "number of participants")
	b = append(append(append(b, byte(ControlOffer)), m.Transfer[:]...), flag(m.LateJoiners, 1))
	b = appendU64(appendU32(appendU32(b, m.ChunkSize), m.Files), m.TotalSize)
	b = append(appendU32(b, m.ManifestLength), m.ManifestHash[:]...)
	b = append(b, byte(len(m.Participants)))
	for _, id := range m.Participants {
		b = append(b, id[:]...)
	}
	return b
}

func (m ManifestPart) Append(b []byte) []byte {
	b = appendU32(append(append(b, byte(ControlManifestPart)), m.Transfer[:]...), m.Offset)
	return appendBytes16(b, m.Data, MaxManifestPart)
}

func (m Have) Append(b []byte) []byte {
	must(len(m.Runs) <= MaxHaveRuns, "number of runs")
	b = append(append(append(b, byte(ControlHave)), m.Sender[:]...), m.Transfer[:]...)
	b = appendU16(appendU32(b, m.File), uint16(len(m.Runs)))
	for _, r := range m.Runs {
		b = appendU32(appendU32(b, r.First), r.Count)
	}
	return b
}

func (m Accept) Append(b []byte) []byte {
	b = append(append(b, byte(ControlAccept)), m.Transfer[:]...)
	b = appendBytes16(appendU64(b, m.Credit), m.Files, maxBitmap)
	return appendBytes16(b, m.Complete, maxBitmap)
}

func (m Decline) Append(b []byte) []byte {
	return appendBytes8(append(append(b, byte(ControlDecline)), m.Transfer[:]...), m.Reason, 200)
}

func (m Credit) Append(b []byte) []byte {
	return appendU64(appendU64(append(append(b, byte(ControlCredit)), m.Transfer[:]...), m.Granted), m.Stored)
}

func (m Receipt) Append(b []byte) []byte {
	b = append(append(append(b, byte(ControlReceipt)), m.Transfer[:]...), m.Root[:]...)
	return appendFixed(append(appendBytes16(b, m.Files, maxBitmap), flag(m.InMemory, 1)), m.Signature, SignatureSize)
}

// AppendSigned appends what the signature covers.
func (m Receipt) AppendSigned(b []byte, sender ID) []byte {
	return append(AppendDelivery(b, sender, m.Transfer, m.Root, m.Files), flag(m.InMemory, 1))
}

func (m Cancel) Append(b []byte) []byte {
	b = append(append(append(b, byte(ControlCancel)), m.Sender[:]...), m.Transfer[:]...)
	return append(b, byte(m.Code))
}

func (m FileFailed) Append(b []byte) []byte {
	return append(appendU32(append(append(b, byte(ControlFileFailed)), m.Transfer[:]...), m.File), byte(m.Code))
}

func (m Pause) Append(b []byte) []byte {
	b = append(append(append(b, byte(ControlPause)), m.Sender[:]...), m.Transfer[:]...)
	return append(b, flag(m.Paused, 1)|flag(m.Full, 2))
}

func (m Saving) Append(b []byte) []byte {
	return append(append(b, byte(ControlSaving)), m.Transfer[:]...)
}

// ParseControl parses a control message with its type byte.
func ParseControl(p []byte) (ControlMessage, error) {
	d := decode("control message", p)
	if len(p) > MaxControl {
		d.fail("too long")
	}
	var m ControlMessage
	switch t := ControlType(d.u8()); t {
	case ControlReveal:
		m = Reveal{d.hash()}
	case ControlProfile:
		m = Profile{d.text8(MaxName)}
	case ControlPing:
		m = Ping{d.u64()}
	case ControlPong:
		m = Pong{d.u64()}
	case ControlRekey:
		m = Rekey{d.u32(), d.bytes(KEMPublicKeySize)}
	case ControlRekeyed:
		m = Rekeyed{d.u32(), d.bytes(KEMCiphertextSize)}
	case ControlBye:
		m = Bye{ByeCode(d.oneOf(d.u8(), uint8(ByeLeft), uint8(ByeRest)))}
	case ControlRoster:
		m = RosterUpdate{d.bytes16(maxRosterBody)}
	case ControlReceived:
		m = Received{d.u64()}
	case ControlOffer:
		m = d.transferOffer()
	case ControlManifestPart:
		part := ManifestPart{d.id(), d.u32(), d.bytes16(MaxManifestPart)}
		if len(part.Data) == 0 {
			d.fail("empty part")
		}
		m = part
	case ControlHave:
		m = d.have()
	case ControlAccept:
		m = Accept{d.id(), d.u64(), d.bytes16(maxBitmap), d.bytes16(maxBitmap)}
	case ControlDecline:
		m = Decline{d.id(), d.text8(200)}
	case ControlCredit:
		m = Credit{d.id(), d.u64(), d.u64()}
	case ControlReceipt:
		m = Receipt{d.id(), d.hash(), d.bytes16(maxBitmap), d.oneOf(d.u8(), 0, 1) == 1, d.bytes(SignatureSize)}
	case ControlCancel:
		m = Cancel{d.id(), d.id(), d.failureCode()}
	case ControlFileFailed:
		m = FileFailed{d.id(), d.u32(), d.failureCode()}
	case ControlPause:
		p := Pause{Sender: d.id(), Transfer: d.id()}
		reasons := d.oneOf(d.u8(), 0, 3)
		p.Paused, p.Full = reasons&1 != 0, reasons&2 != 0
		m = p
	case ControlSaving:
		m = Saving{d.id()}
	default:
		d.fail("unknown type")
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	return m, nil
}

func (d *decoder) failureCode() FailureCode {
	return FailureCode(d.oneOf(d.u8(), uint8(FailureCancelled), uint8(FailureInternal)))
}

func (d *decoder) transferOffer() TransferOffer {
	m := TransferOffer{Transfer: d.id(), LateJoiners: d.oneOf(d.u8(), 0, 1) == 1,
		ChunkSize: d.u32(), Files: d.u32(), TotalSize: d.u64(), ManifestLength: d.u32(), ManifestHash: d.hash()}
	for range d.count(int(d.u8()), 1, MaxParticipants, len(ID{})) {
		m.Participants = append(m.Participants, d.id())
	}
	if d.err == nil {
		switch {
		case !ValidChunkSize(m.ChunkSize):
			d.fail("chunk size")
		case m.Files == 0 || m.Files > MaxFiles:
			d.fail("number of files")
		case m.TotalSize > MaxTotalSize:
			d.fail("total size")
		case m.ManifestLength == 0 || m.ManifestLength > MaxManifest:
			d.fail("manifest length")
		}
	}
	return m
}

func (d *decoder) have() Have {
	m := Have{Sender: d.id(), Transfer: d.id(), File: d.u32()}
	next := uint64(0)
	for range d.count(int(d.u16()), 0, MaxHaveRuns, 8) {
		r := Run{d.u32(), d.u32()}
		if uint64(r.First) < next || r.Count == 0 {
			d.fail("runs out of order")
		}
		next = uint64(r.First) + uint64(r.Count)
		m.Runs = append(m.Runs, r)
	}
	return m
}

// ValidChunkSize reports whether n is a chunk size: a power of two from MinChunkSize to MaxChunkSize.
func ValidChunkSize(n uint32) bool {
	return n >= MinChunkSize && n <= MaxChunkSize && n&(n-1) == 0
}

// Bitmap is a set of file indices: bit i%8 (least significant first) of byte i/8.
type Bitmap []byte

// NewBitmap returns an empty set for n files.
func NewBitmap(n int) Bitmap { return make(Bitmap, (n+7)/8) }

// Has reports whether i is in the set.
func (b Bitmap) Has(i uint32) bool { return int(i/8) < len(b) && b[i/8]&(1<<(i%8)) != 0 }

// Set adds i, which must be within what NewBitmap was made for.
func (b Bitmap) Set(i uint32) { b[i/8] |= 1 << (i % 8) }

// Clear removes i.
func (b Bitmap) Clear(i uint32) {
	if int(i/8) < len(b) {
		b[i/8] &^= 1 << (i % 8)
	}
}

// Empty reports whether the set has nothing in it.
func (b Bitmap) Empty() bool {
	for _, bits := range b {
		if bits != 0 {
			return false
		}
	}
	return true
}

// Fits reports whether the set has exactly the length for n files and no bit beyond.
func (b Bitmap) Fits(n int) bool {
	if len(b) != (n+7)/8 {
		return false
	}
	return n%8 == 0 || b[len(b)-1]>>(n%8) == 0
}
