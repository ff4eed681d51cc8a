package transfer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// A journal is what a transfer needs to go on in another page or process: the offer, the manifest, what was accepted, the hashes
// announced or read so far, and how deliveries have ended. It holds no key and no file's contents. It is only ever appended to:
//
//	record = length u32 (of the body) ‖ CRC-32 u32 (IEEE, of the body) ‖ body
//	body   = type u8 ‖ fields
//
//	1 start      version u8 = 2, outgoing u8 (0, 1), sender 16, when u64 (ms since 1970), Offer (a control message)
//	2 manifest   as it travels
//	3 wanted     file bitmap: what the recipient has accepted
//	4 hashes     file u32, first chunk u32, hashes 32 each
//	5 end        End (a bulk message)
//	6 recipient  member 16, transfer 16, offered u64, ended u64, state u8, code bytes8, reason bytes8, wanted bytes16, signed u8,
//	             [root 32, file bitmap bytes16], [Receipt]; a retry is one of another transfer: then the receipt before it still counts, or
//	             the recipient may have to be told of the end before it
//	7 name       member 16, name (the rest)
//	8 opened     when u64: it has been gone on with
//	9 keys       member 16, keys 1984: of a recipient that has signed a receipt
//	10 late      late joiners u8 (0, 1), members 16 each who were there and are not offered it
//	11 plain     nothing is compressed
//	12 done      when u64, [file u32, failure u8] each: the End before it is verified and durable, but for these files that were accepted
//	13 forgotten member 16: no recipient any more
//	14 saving    as done: what End names is verified, and nothing but its becoming durable lies before that
//	15 retried   transfer 16: what it is called between the two from here on; an End before it is none
//
// What is on disk is not in it: a chunk counts again when what is there has the hash that was announced. So a chunk whose writing a crash cut
// short is fetched again, and neither the order in which the system wrote things down nor a rotten disk can make wrong bytes right.
const journalVersion = 2

const (
	recordStart = iota + 1
	recordManifest
	recordWanted
	recordHashes
	recordEnd
	recordRecipient
	recordName
	recordOpened
	recordKeys
	recordLate
	recordPlain
	recordDone
	recordForgotten
	recordSaving
	recordRetried
)

// JournalName and ReceiptName are the names in Storage of a delivery's journal, and of what is left of it once it is verified and durable and the
// person has the files: enough to answer a repeated offer with the receipt.
const (
	JournalName = "journal"
	ReceiptName = "receipt"
)

// ErrJournal says that a journal lacks its beginning, or is of another version.
var ErrJournal = errors.New("transfer: unusable journal")

// Journal is a journal as read.
type Journal struct {
	Key      Key
	Outgoing bool
	Opened   time.Time // when it was begun, gone on with last, or done; of a receipt, when the files were handed over
	Manifest *chunk.Manifest
	Names    map[wire.ID]string
	Keys     map[wire.ID][]byte
	Size     int64 // bytes up to where it is whole

	offer      wire.TransferOffer
	transfer   wire.ID // as Incoming.Transfer
	wanted     wire.Bitmap
	hashes     []journalFile
	end        *wire.End
	recipients []*recipient
	passed     []wire.ID
	plain      bool
	saving     bool
	flushed    bool // it was saving, whatever has come since
	done       bool
	failed     map[uint32]wire.FailureCode // once saving or done
}

type journalFile struct {
	list  []wire.Hash
	known chunk.Set
}

// ParseJournal reads a journal up to where it is whole: a crash may have cut off its last record. Too little of it is ErrJournal.
func ParseJournal(p []byte) (*Journal, error) {
	j := &Journal{Names: map[wire.ID]string{}, Keys: map[wire.ID][]byte{}}
	for rest := p; len(rest) >= 8; rest = p[j.Size:] {
		n := binary.BigEndian.Uint32(rest)
		if n == 0 || uint64(n) > uint64(len(rest)-8) {
			break
		}
		body := rest[8 : 8+n]
		if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(rest[4:]) || !j.record(body[0], body[1:]) {
			break
		}
		j.Size += 8 + int64(n)
	}
	switch {
	case j.offer.Files == 0:
		return nil, fmt.Errorf("%w: no start", ErrJournal)
	case j.end == nil && j.Manifest == nil, j.Manifest != nil && !j.Outgoing && j.wanted == nil:
		return nil, fmt.Errorf("%w: no manifest, or nothing accepted", ErrJournal)
	}
	return j, nil
}

// record takes one record. It reports false for one that does not fit: the journal ends before it.
func (j *Journal) record(kind byte, p []byte) bool {
	if kind == recordOpened && j.offer.Files == 0 { // formerly noted of what was not accepted yet, too
		return true
	}
	if (kind == recordStart) != (j.offer.Files == 0) || j.done {
		return false
	}
	switch kind {
	case recordStart:
		if len(p) < 1+1+16+8 || p[0] != journalVersion || p[1] > 1 {
			return false
		}
		m, err := wire.ParseControl(p[26:])
		offer, ok := m.(wire.TransferOffer)
		if err != nil || !ok {
			return false
		}
		j.Outgoing, j.offer, j.Key, j.transfer = p[1] == 1, offer, Key{wire.ID(p[2:18]), offer.Transfer}, offer.Transfer
		j.Opened = fromMillis(p[18:])
	case recordManifest:
		m, err := chunk.ParseManifest(j.offer, bytes.Clone(p)) // not all of the journal is kept
		if err != nil || j.Manifest != nil {
			return false
		}
		j.Manifest, j.hashes = m, make([]journalFile, len(m.Files))
	case recordWanted:
		b := wire.Bitmap(p)
		if j.Manifest == nil || !b.Fits(len(j.Manifest.Files)) || b.Empty() {
			return false
		}
		j.wanted = bytes.Clone(b)
	case recordHashes:
		return j.addHashes(p)
	case recordEnd:
		end, err := wire.ParseEnd(bytes.Clone(p))
		if err != nil || end.Transfer != j.transfer || !end.Files.Fits(int(j.offer.Files)) || end.Files.Empty() {
			return false
		}
		j.end, j.saving, j.failed = &end, false, nil
	case recordRecipient:
		r, ok := parseRecipient(bytes.Clone(p), int(j.offer.Files))
		if !ok || len(j.recipients) == wire.MaxParticipants && j.recipient(r.id) == nil {
			return false
		}
		r.late = !slices.Contains(j.offer.Participants, r.id)
		if old := j.recipient(r.id); old != nil {
			if old.transfer == r.transfer {
				r.earlier, r.stale = old.earlier, old.stale
			} else {
				r.follow(old)
			}
			*old = *r
		} else {
			j.recipients = append(j.recipients, r)
		}
	case recordName:
		if len(p) < 16 || len(p) > 16+wire.MaxName || len(j.Names) > wire.MaxParticipants {
			return false
		}
		j.Names[wire.ID(p)] = string(p[16:])
	case recordOpened:
		if len(p) != 8 {
			return false
		}
		j.openedAt(p)
	case recordKeys:
		if len(p) != 16+wire.KeysSize || len(j.Keys) > wire.MaxParticipants {
			return false
		}
		j.Keys[wire.ID(p)] = bytes.Clone(p[16:])
	case recordLate:
		if len(p)%16 != 1 || len(p) > 1+16*wire.MaxRoster || p[0] > 1 {
			return false
		}
		j.offer.LateJoiners, j.passed = p[0] == 1, nil
		for p = p[1:]; len(p) > 0; p = p[16:] {
			j.passed = append(j.passed, wire.ID(p))
		}
	case recordPlain:
		j.plain = true
		return len(p) == 0
	case recordDone:
		if !j.addOutcome(p) {
			return false
		}
		j.done = true
		j.openedAt(p)
	case recordSaving:
		if !j.addOutcome(p) {
			return false
		}
		j.saving, j.flushed = true, true
	case recordRetried:
		if len(p) != 16 || j.Outgoing || j.wanted == nil {
			return false
		}
		j.transfer, j.end, j.saving, j.failed = wire.ID(p), nil, false, nil
	case recordForgotten:
		if len(p) != 16 {
			return false
		}
		id := wire.ID(p)
		j.recipients = slices.DeleteFunc(j.recipients, func(r *recipient) bool { return r.id == id })
		delete(j.Names, id)
		delete(j.Keys, id)
	default:
		return false
	}
	return true
}

func (j *Journal) addHashes(p []byte) bool {
	if j.Manifest == nil || len(p) < 8+32 || (len(p)-8)%32 != 0 {
		return false
	}
	file, first, n := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]), uint32((len(p)-8)/32)
	if uint64(file) >= uint64(len(j.hashes)) || uint64(first)+uint64(n) > uint64(j.Manifest.Chunks(file)) {
		return false
	}
	f := &j.hashes[file]
	if !j.Outgoing && int(first) != len(f.list) { // announced in order
		return false
	}
	if j.Outgoing && f.list == nil {
		f.list = make([]wire.Hash, j.Manifest.Chunks(file))
	}
	for i := range n {
		h := wire.Hash(p[8+32*i:])
		if j.Outgoing {
			f.list[first+i] = h
		} else {
			f.list = append(f.list, h)
		}
	}
	f.known.AddRun(wire.Run{First: first, Count: n})
	return true
}

func (j *Journal) addOutcome(p []byte) bool {
	if j.Outgoing || j.wanted == nil || j.end == nil || len(p)%5 != 8%5 {
		return false
	}
	failed := map[uint32]wire.FailureCode{}
	for q := p[8:]; len(q) > 0; q = q[5:] {
		file, code := binary.BigEndian.Uint32(q), wire.FailureCode(q[4])
		if uint64(file) >= uint64(len(j.hashes)) || !j.wanted.Has(file) || j.end.Files.Has(file) || failureCodes[code] == "" {
			return false
		}
		failed[file] = code
	}
	for i := range j.hashes {
		f := uint32(i)
		if j.end.Files.Has(f) && (!j.wanted.Has(f) || len(j.hashes[i].list) != int(j.Manifest.Chunks(f))) {
			return false
		}
	}
	j.failed = failed
	return true
}

func (j *Journal) recipient(id wire.ID) *recipient {
	for _, r := range j.recipients {
		if r.id == id {
			return r
		}
	}
	return nil
}

// Done reports whether what is wanted is verified and durable already.
func (j *Journal) Done() bool { return j.done || j.HandedOver() }

// HandedOver reports whether the person has the files, so that only the receipt is left.
func (j *Journal) HandedOver() bool { return j.Manifest == nil }

// Receipt is what takes the place of the journal of a delivery that is done, when the person has its files.
func (j *Journal) Receipt(now time.Time) []byte {
	return bytesRecord(startRecord(nil, false, Key{j.Key.Sender, j.transfer}, j.offer, now), recordEnd, j.end.Append(nil))
}

// Arrived reports whether a file is verified and durable. The root is its own.
func (j *Journal) Arrived(file uint32) (root wire.Hash, ok bool) {
	if !j.done || !j.end.Files.Has(file) {
		return root, false
	}
	return j.Manifest.FileRoot(file, j.hashes[file].list), true
}

// Failed is why a file that was accepted has not arrived, once the rest is done.
func (j *Journal) Failed(file uint32) fault.Code { return failureCodes[j.failed[file]] }

// Bytes is what was wanted, and for how much of that hashes were known when the journal ended: about what had been transferred.
func (j *Journal) Bytes() (total, known uint64) {
	if j.Manifest == nil {
		return 0, 0
	}
	for i, f := range j.Manifest.Files {
		if j.Outgoing || j.wanted.Has(uint32(i)) {
			total += f.Size
			known += chunkBytes(j.Manifest, uint32(i), &j.hashes[i].known)
		}
	}
	return total, known
}

// Wanted reports whether a file was accepted; of what we send, all are.
func (j *Journal) Wanted(file uint32) bool { return j.Outgoing || j.wanted.Has(file) }

// Recipients are the participants of the offer, those who joined late included.
func (j *Journal) Recipients() []wire.ID {
	var list []wire.ID
	for _, id := range j.offer.Participants {
		if id != j.Key.Sender { // which stands for nobody: see startRecord
			list = append(list, id)
		}
	}
	for _, r := range j.recipients {
		known := false
		for _, id := range list {
			known = known || id == r.id
		}
		if !known {
			list = append(list, r.id)
		}
	}
	return list
}

func fromMillis(p []byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(p) & (1<<53 - 1)))
}

// someMillis is fromMillis, but for 0, which is no time.
func someMillis(p []byte) time.Time {
	if binary.BigEndian.Uint64(p) == 0 {
		return time.Time{}
	}
	return fromMillis(p)
}

func appendMillis(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.BigEndian.AppendUint64(b, 0)
	}
	return binary.BigEndian.AppendUint64(b, uint64(max(t.UnixMilli(), 0)))
}

// beginRecord starts a record; endRecord completes what begins at that offset.
func beginRecord(b []byte, kind byte) []byte { return append(b, 0, 0, 0, 0, 0, 0, 0, 0, kind) }

func endRecord(b []byte, start int) []byte {
	body := b[start+8:]
	binary.BigEndian.PutUint32(b[start:], uint32(len(body)))
	binary.BigEndian.PutUint32(b[start+4:], crc32.ChecksumIEEE(body))
	return b
}

func startRecord(b []byte, outgoing bool, key Key, offer wire.TransferOffer, now time.Time) []byte {
	at := len(b)
	b = append(beginRecord(b, recordStart), journalVersion, 0)
	if outgoing {
		b[len(b)-1] = 1
	}
	offer.Transfer = key.Transfer
	if len(offer.Participants) == 0 { // for late joiners only; an offer on the wire has some
		offer.Participants = []wire.ID{key.Sender}
	}
	b = binary.BigEndian.AppendUint64(append(b, key.Sender[:]...), uint64(max(now.UnixMilli(), 0)))
	return endRecord(offer.Append(b), at)
}

func bytesRecord(b []byte, kind byte, p []byte) []byte {
	at := len(b)
	return endRecord(append(beginRecord(b, kind), p...), at)
}

func hashesRecord(b []byte, file, first uint32, list []wire.Hash) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(beginRecord(b, recordHashes), file), first)
	for i := range list {
		b = append(b, list[i][:]...)
	}
	return endRecord(b, at)
}

// NameRecord notes what a member is called.
func NameRecord(id wire.ID, name string) []byte {
	return bytesRecord(nil, recordName, append(id[:], name...))
}

// KeysRecord notes the keys of a member that has signed a receipt.
func KeysRecord(id wire.ID, keys []byte) []byte {
	return bytesRecord(nil, recordKeys, append(id[:], keys...))
}

// lateRecord notes whether late joiners are offered it, and who is none.
func lateRecord(late bool, passed []wire.ID) []byte {
	p := []byte{0}
	if late {
		p[0] = 1
	}
	for _, id := range passed {
		p = append(p, id[:]...)
	}
	return bytesRecord(nil, recordLate, p)
}

// openedAt takes the time at which it was gone on with. A clock that was wrong for a while, as on a machine without a battery for it, makes nothing
// older than it was.
func (j *Journal) openedAt(p []byte) {
	if at := fromMillis(p); at.After(j.Opened) {
		j.Opened = at
	}
}

// OpenedRecord notes that a transfer is gone on with.
func OpenedRecord(now time.Time) []byte {
	return bytesRecord(nil, recordOpened, appendMillis(nil, now))
}

// outcomeRecord notes how far what End names has come, and why other files that were accepted have not.
func (in *Incoming) outcomeRecord(kind byte) []byte {
	p := appendMillis(nil, in.now)
	for i := range in.files {
		if code := in.files[i].failed; code != 0 && in.wanted.Has(uint32(i)) {
			p = append(binary.BigEndian.AppendUint32(p, uint32(i)), byte(code))
		}
	}
	return bytesRecord(nil, kind, p)
}

// recipientRecord notes how far a delivery of ours is: its transfer's id, what was wanted, the last End signed, and how and when it has ended.
func recipientRecord(b []byte, r *recipient) []byte {
	at := len(b)
	b = append(append(beginRecord(b, recordRecipient), r.id[:]...), r.transfer[:]...)
	b = append(appendMillis(appendMillis(b, r.offered), r.finished), byte(r.state))
	b = append(append(b, byte(len(r.code))), r.code...)
	b = append(append(b, byte(len(r.reason))), r.reason...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(r.wanted))), r.wanted...)
	if r.signed == nil {
		return endRecord(append(b, 0), at)
	}
	b = append(append(b, 1), r.signed.Root[:]...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(r.signed.Files))), r.signed.Files...)
	if r.receipt != nil {
		b = r.receipt.Append(b)
	}
	return endRecord(b, at)
}

func parseRecipient(p []byte, files int) (*recipient, bool) {
	take := func(n int) []byte {
		if n > len(p) {
			n, p = 0, nil
		}
		b := p[:n:n]
		p = p[n:]
		return b
	}
	bitmap := func() (wire.Bitmap, bool) {
		n := take(2)
		if len(n) < 2 {
			return nil, false
		}
		size := int(binary.BigEndian.Uint16(n))
		b := wire.Bitmap(take(size))
		return b, len(b) == size && (size == 0 || b.Fits(files))
	}
	text := func() (string, bool) {
		n := take(1)
		if len(n) < 1 {
			return "", false
		}
		s := take(int(n[0]))
		return string(s), len(s) == int(n[0])
	}
	head := take(16 + 16 + 8 + 8 + 1)
	if len(head) < 49 || head[48] > byte(Failed) {
		return nil, false
	}
	r := &recipient{id: wire.ID(head), transfer: wire.ID(head[16:]), offered: someMillis(head[32:]), finished: someMillis(head[40:]), state: State(head[48])}
	code, hasCode := text()
	reason, hasReason := text()
	wanted, ok := bitmap()
	flag := take(1)
	if !hasCode || !hasReason || !ok || len(flag) < 1 || flag[0] > 1 {
		return nil, false
	}
	r.code, r.reason = fault.Code(code), reason
	if len(wanted) > 0 {
		r.wanted = wanted
	}
	if flag[0] == 0 {
		return r, len(p) == 0 && r.state != Done
	}
	root := take(32)
	signed, ok := bitmap()
	if len(root) < 32 || !ok || len(signed) == 0 {
		return nil, false
	}
	r.signed = &wire.End{Transfer: r.transfer, Root: wire.Hash(root), Files: signed}
	if len(p) == 0 {
		return r, r.state != Done
	}
	m, err := wire.ParseControl(p)
	receipt, ok := m.(wire.Receipt)
	r.receipt = &receipt
	return r, err == nil && ok
}

// chunkBytes is how many bytes a set of a file's chunks is.
func chunkBytes(m *chunk.Manifest, file uint32, set *chunk.Set) uint64 {
	if set == nil {
		return 0
	}
	n := uint64(set.Count()) * uint64(m.ChunkSize)
	if last := m.Chunks(file); last > 0 && set.Has(last-1) {
		n -= uint64(m.ChunkSize - m.Length(chunk.Ref{File: file, Index: last - 1}))
	}
	return n
}
