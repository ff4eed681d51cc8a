package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

const (
	// CreditBudget is how many bytes a recipient lets come before its disk has taken them, divided among the transfers that are coming in. It must
	// cover rate times round-trip time, and stays below what a browser's channel holds unread (peer.MaxUnread).
	CreditBudget = 16 << 20
	// MaxCredit bounds them over all transfers, and so the recipient's memory. It is more, because what was granted when there were fewer stays
	// granted: with 64 transfers whose senders use none of it that is 1 + 1/2 + … + 1/64 < 5 budgets, and with the least that each has less than 6.
	MaxCredit = 6 * CreditBudget
)

// Incoming is a recipient's end of a transfer.
type Incoming struct {
	key      Key
	transfer wire.ID // what it is called between the two: the key's, or a retry's
	offer    wire.TransferOffer
	encoded  []byte // the manifest as far as it has come
	manifest *chunk.Manifest
	paths    []string // safe, one per file
	files    []inFile
	window   uint64

	state    State
	code     fault.Code
	reason   string // the person's, of a decline
	failure  wire.FailureCode
	up       bool
	offered  bool // the offer has come over the present link
	asked    bool // Accept has been sent over the present link
	held     bool // the sender has paused
	paused   bool // the person has paused
	since    time.Time
	wanted   wire.Bitmap
	total    uint64
	stored   uint64
	pending  int    // Stores under way
	waiting  uint64 // their cost, whichever link they came over
	spent    uint64
	granted  uint64
	reported uint64 // stored, as last told
	told     time.Time
	end      *wire.End
	omitted  int       // wanted files that End leaves out and for which FileFailed has not come yet
	done     *wire.End // what has been committed and receipted
	summed   *wire.End // what Verify is under way for, or has been
	saving   bool      // a Commit is under way
	repeated uint64    // bytes that came and were on disk already
	kept     bool      // Keep
	noted    bool      // Keep
	broken   bool      // the storage has failed, and what is there is kept
	doubt    bool      // what is on disk has to be held against what was announced before it counts
	checking bool      // it is being
	lapsed   bool      // the sender may not know what is here, and offer it under another id
	flushed  bool      // a Commit has been asked for, and may have failed
	settling bool      // as a journal says, all that End names had been verified
	short    shortage  // of room on the disk
	meter    meter

	now     time.Time
	effects []Effect
}

type inFile struct {
	hashes []wire.Hash // as announced, in order; of a file that is wanted
	stored chunk.Set
	taken  chunk.Set // stored, or on the way to the disk
	bytes  uint64
	root   *wire.Hash
	failed wire.FailureCode
}

// NewIncoming makes the machine for an offer. The offer becomes ready (Ready) when its manifest has come.
func NewIncoming(key Key, offer wire.TransferOffer, now time.Time) *Incoming {
	return &Incoming{key: key, transfer: key.Transfer, offer: offer, up: true, offered: true, since: now, window: CreditBudget}
}

// RestoreIncoming goes on with what another process or page began, as far as its journal goes. The room verifies what is on disk (Announced) and
// says so with Restored; until then nothing is asked for. One that is done needs nothing of anybody, and where the person has its files
// (Journal.HandedOver) the machine only answers a repeated offer.
func RestoreIncoming(j *Journal, now time.Time) *Incoming {
	in := NewIncoming(j.Key, j.offer, now)
	in.up, in.offered, in.kept, in.noted, in.end, in.transfer = false, false, true, true, j.end, j.transfer
	if j.Done() {
		in.state, in.done = Done, j.end
	}
	if j.HandedOver() {
		return in
	}
	in.setManifest(j.Manifest)
	in.want(j.wanted)
	if j.Done() {
		in.restoreDone(j)
		return in
	}
	in.state, in.settling, in.flushed = Interrupted, j.saving, j.flushed
	in.doubt, in.checking, in.lapsed = true, true, true
	for i := range in.files {
		in.files[i].hashes, in.files[i].failed = j.hashes[i].list, j.failed[uint32(i)]
	}
	return in
}

func (in *Incoming) restoreDone(j *Journal) {
	for i := range in.files {
		f := &in.files[i]
		f.failed = j.failed[uint32(i)]
		if root, ok := j.Arrived(uint32(i)); ok {
			f.root, f.bytes = &root, in.manifest.Files[i].Size
			in.stored += f.bytes
		}
	}
	in.state, in.code = in.outcome()
}

// Keep says, before anything is accepted, that what is stored outlives its sender's absence, and whether it is noted (Note) and so outlives this process.
// Then a delivery whose sender is gone is only suspended; if it is noted, so is one whose storage has failed.
func (in *Incoming) Keep(noted bool) { in.kept, in.noted = true, noted }

// Transfer is what the transfer is called between the two: its key's id, or, once the sender has retried it, another.
func (in *Incoming) Transfer() wire.ID { return in.transfer }

// Announced is the hashes of a file as far as they are known, for Restored.
func (in *Incoming) Announced(file uint32) []wire.Hash { return in.files[file].hashes }

// Checking reports whether Restored is awaited.
func (in *Incoming) Checking() bool { return in.checking }

// Flushed reports whether a Commit has been asked for, and may have failed. Then the system may hold what is written for durable that is not: it says yes
// when it is asked again, unless it is written again.
func (in *Incoming) Flushed() bool { return in.flushed }

// Suspended reports whether the delivery has ended only because its sender is gone or its storage has failed, and goes on when the sender offers it again.
func (in *Incoming) Suspended() bool {
	return in.kept && in.wanted != nil && in.done == nil && in.state == Failed && (in.code == fault.PeerGone || in.code == fault.StorageFailed && in.broken)
}

// Continues reports whether an offer under an id that is not known is this delivery, which the sender retries. So it is where the sender may not know what
// is here: after a failure of the storage, or a restart; or, over a new link, that it has retried.
func (in *Incoming) Continues(m wire.TransferOffer) bool {
	forgotten := !in.offered && in.transfer != in.key.Transfer
	return (in.lapsed || forgotten) && in.noted && in.wanted != nil && in.done == nil && !in.over() && in.sameFiles(m)
}

func (in *Incoming) sameFiles(m wire.TransferOffer) bool {
	return m.ManifestHash == in.offer.ManifestHash && m.ChunkSize == in.offer.ChunkSize && m.Files == in.offer.Files &&
		m.TotalSize == in.offer.TotalSize && m.ManifestLength == in.offer.ManifestLength
}

// Lost reports whether the delivery has ended because its sender is gone or its storage has failed, and nothing is left of it: what that offers again is
// new.
func (in *Incoming) Lost() bool {
	return in.state == Failed && (in.code == fault.PeerGone || in.failure == wire.FailureStorageFailed) && in.done == nil && !in.Suspended()
}

// ShareCredit divides CreditBudget among the transfers that are coming in and are not suspended, the eldest first. Each has room for two chunks at least, or, while there
// would be more than MaxCredit together, none: it waits until ShareCredit is called and there is. What has been granted stays granted.
func ShareCredit(list []*Incoming) {
	left := uint64(MaxCredit)
	for _, in := range list {
		left -= min(left, in.outstanding())
	}
	going := 0
	for _, in := range list {
		if !in.Suspended() {
			going++
		}
	}
	for _, in := range list {
		if in.Suspended() {
			in.window = 0
			continue
		}
		in.window = max(CreditBudget/uint64(going), 2*in.largest())
		if more := in.window - min(in.window, in.outstanding()); more <= left {
			left -= more
		} else {
			in.window = 0
		}
	}
}

// outstanding is what may still come, and what has come and waits for the disk.
func (in *Incoming) outstanding() uint64 {
	if in.asked {
		return in.waiting + in.granted - in.spent
	}
	return in.waiting
}

// largest is the most that one message can cost.
func (in *Incoming) largest() uint64 { return wire.MessageCost + wire.ChunkCost(in.offer.ChunkSize) }

// Committed reports whether files of this transfer are verified on disk: then a repeated offer gets its receipt.
func (in *Incoming) Committed() bool { return in.done != nil }

// Key is the transfer's key.
func (in *Incoming) Key() Key { return in.key }

// Ready reports whether the manifest is complete, so that a person can be asked.
func (in *Incoming) Ready() bool { return in.manifest != nil }

// Manifest is the transfer's file set, once Ready.
func (in *Incoming) Manifest() *chunk.Manifest { return in.manifest }

// Paths are the files' paths, made safe and distinct, once Ready.
func (in *Incoming) Paths() []string { return in.paths }

// Offer is the offer as it came.
func (in *Incoming) Offer() wire.TransferOffer { return in.offer }

// Accepted reports whether the person has accepted.
func (in *Incoming) Accepted() bool { return in.wanted != nil }

// Wanted is the set of files accepted.
func (in *Incoming) Wanted() wire.Bitmap { return in.wanted }

// Paused reports whether the person has paused it.
func (in *Incoming) Paused() bool { return in.paused }

// Progress is how far the delivery is.
func (in *Incoming) Progress() Progress {
	p := Progress{in.key.Sender, in.state, in.code, "", in.total, in.stored, in.meter.speed, in.repeated}
	if in.state == Transferring && (in.held || in.paused) || (in.state == Transferring || in.state == Verifying) && in.full() {
		p.State = Paused
	}
	if in.full() && !in.state.Final() {
		p.Code = fault.DiskFull
	}
	return p
}

// File is how many bytes of a file are on disk, its root once all of it is, and why it failed.
func (in *Incoming) File(file uint32) (stored uint64, root *wire.Hash, failed fault.Code) {
	f := &in.files[file]
	return f.bytes, f.root, failureCodes[f.failed]
}

// Complete reports whether a file is verified on disk.
func (in *Incoming) Complete(file uint32) bool { return in.done != nil && in.done.Files.Has(file) }

// Step takes an event.
func (in *Incoming) Step(now time.Time, event Event) []Effect {
	in.now, in.effects = now, nil
	switch e := event.(type) {
	case LinkUp:
		// If the sender does not offer it again over this link, it has forgotten it.
		in.up, in.offered, in.asked, in.since = true, false, false, now
	case LinkDown:
		in.linkDown(e)
	case Received:
		in.received(e.Message)
	case ReceivedBulk:
		in.receivedBulk(e)
	case Stored:
		in.storedChunks(e)
	case Verified:
		in.verified(e)
	case Committed:
		in.committed(e)
	case Restored:
		in.restored(e)
	case AcceptFiles:
		in.accept(e.Files)
	case DeclineOffer:
		if in.wanted == nil && !in.state.Final() {
			in.reason = e.Reason
			in.finish(Declined, fault.Declined)
			in.tell()
		}
	case CancelAll:
		in.fail(wire.FailureCancelled)
	case SetPaused:
		if in.paused != e.Paused && !in.state.Final() {
			in.paused = e.Paused
			in.tellPaused()
			in.do(Changed{})
		}
		if !e.Paused {
			in.tryDisk()
		}
	case SpaceFreed:
		in.tryDisk()
	case Tick:
		in.tick()
	default:
		panic(fmt.Sprintf("transfer: incoming: event %T", event))
	}
	return in.effects
}

// tellPaused tells the sender what holds the delivery at this end.
func (in *Incoming) tellPaused() {
	in.control(wire.Pause{Sender: in.key.Sender, Transfer: in.transfer, Paused: in.paused, Full: in.full()})
}

func (in *Incoming) do(e Effect) { in.effects = append(in.effects, e) }

func (in *Incoming) control(m wire.ControlMessage) {
	if in.up {
		in.do(SendControl{in.key.Sender, m})
	}
}

// finish brings the delivery to a final state. What has been stored of an unfinished one is discarded, unless it may go on.
func (in *Incoming) finish(s State, code fault.Code) {
	if in.over() {
		return
	}
	in.state, in.code = s, code
	if in.Suspended() {
		in.window = 0 // others share it
		in.do(Changed{})
		in.do(Finished{})
		return
	}
	in.Close()
	switch {
	case in.done != nil && in.kept:
		in.do(Settled{in.outcomeRecord(recordDone)})
	case in.done == nil && in.wanted != nil:
		in.do(Discard{})
	}
	if in.wanted == nil { // a manifest can be large, and a member can make offers without end
		in.encoded, in.manifest, in.paths, in.files = nil, nil, nil, nil
	}
	for i := range in.files { // a root is enough from here on
		f := &in.files[i]
		f.hashes, f.stored, f.taken = nil, chunk.Set{}, chunk.Set{}
	}
	in.do(Changed{})
	in.do(Finished{})
}

// over reports whether nothing can change any more how the delivery has ended.
func (in *Incoming) over() bool { return in.state.Final() && !in.Suspended() }

// fail ends the delivery from this end and tells the sender why.
func (in *Incoming) fail(code wire.FailureCode) {
	if in.over() {
		return
	}
	in.failure = code
	if code == wire.FailureCancelled {
		in.finish(Cancelled, fault.Cancelled)
	} else {
		in.finish(Failed, failureCodes[code])
	}
	in.tell()
}

// tell tells the sender how the delivery ended: at once, or when it offers it again over a new link.
func (in *Incoming) tell() {
	switch {
	case in.done != nil:
		if in.asked || in.offered {
			in.do(SendReceipt{in.key.Sender, in.done.Root, in.done.Files})
		}
	case in.state == Declined:
		in.control(wire.Decline{Transfer: in.transfer, Reason: in.reason})
	case in.failure != 0:
		in.control(wire.Cancel{Sender: in.key.Sender, Transfer: in.transfer, Code: in.failure})
	default: // the sender ended it, or a violation did
		in.control(wire.Cancel{Sender: in.key.Sender, Transfer: in.transfer, Code: wire.FailureCancelled})
	}
}

func (in *Incoming) violation(format string, args ...any) {
	in.do(Violation{in.key.Sender, fmt.Errorf(format, args...)})
	in.finish(Failed, fault.ProtocolViolation)
}

func (in *Incoming) linkDown(e LinkDown) {
	in.up, in.offered, in.asked = false, false, false
	switch {
	case in.state.Final(), in.saving: // what is verified is kept, whatever becomes of the link
	case e.Final:
		in.finish(Failed, e.Code)
	case in.state != Interrupted:
		in.state, in.since = Interrupted, in.now
		in.do(Changed{})
	}
}

func (in *Incoming) received(message wire.ControlMessage) {
	_, isOffer := message.(wire.TransferOffer)
	_, isCancel := message.(wire.Cancel)
	if in.state.Final() && !isOffer && !(isCancel && in.Suspended()) {
		return // it crossed our ending it
	}
	switch m := message.(type) {
	case wire.TransferOffer:
		in.offerAgain(m)
	case wire.ManifestPart:
		in.manifestPart(m)
	case wire.Cancel:
		in.state, in.broken, in.failure = Interrupted, false, 0 // the sender's storage is none of which anything is kept
		if m.Code == wire.FailureCancelled {
			in.finish(Cancelled, fault.CancelledByPeer)
		} else {
			in.finish(Failed, failureCodes[m.Code])
		}
	case wire.FileFailed:
		if int(m.File) >= len(in.files) || in.end != nil && in.end.Files.Has(m.File) {
			in.violation("failure of a file that is unknown, or complete")
			return
		}
		f := &in.files[m.File]
		if in.end != nil && f.failed == 0 && in.wanted.Has(m.File) {
			in.omitted--
		}
		f.failed = m.Code
		in.check()
		in.do(Changed{})
	case wire.Pause:
		if m.Full {
			in.violation("a sender's full disk")
			return
		}
		in.held = m.Paused
		in.do(Changed{})
	default:
		in.violation("unexpected %T", m)
	}
}

// offerAgain takes the offer again, over a new link or as one that Continues: the sender wants to know what is here, or how it ended.
func (in *Incoming) offerAgain(m wire.TransferOffer) {
	retried := m.Transfer != in.transfer && in.Continues(m)
	if !retried && (m.Transfer != in.transfer || in.offered || !in.sameFiles(m)) {
		in.violation("offer repeated or changed")
		return
	}
	if retried {
		in.transfer, in.settling, in.held = m.Transfer, false, false
		if !in.saving {
			in.end = nil
		}
		in.do(Note{Records: bytesRecord(nil, recordRetried, m.Transfer[:])})
	}
	in.offered, in.lapsed = true, false
	in.resume()
	if in.kept && in.wanted != nil && !in.state.Final() { // not with the link: the sender may have forgotten it
		in.do(Note{Records: OpenedRecord(in.now)})
	}
	switch {
	case in.state.Final():
		in.tell()
	case in.saving: // the receipt will follow
	case in.doubt: // the answer will follow
		in.recheck()
	case in.wanted != nil:
		in.sendAccept()
	default:
		in.state = Offered
		if in.manifest == nil {
			in.encoded = nil
		}
	}
	in.do(Changed{})
}

// resume lets a suspended delivery go on.
func (in *Incoming) resume() {
	if in.Suspended() {
		in.state, in.code, in.failure, in.broken, in.since = Interrupted, "", 0, false, in.now
		in.do(Resumed{})
	}
}

// recheck has what is on disk held against what was announced, when nothing is on its way there any more.
func (in *Incoming) recheck() {
	if in.doubt && !in.checking && !in.short.check && in.pending == 0 && !in.state.Final() {
		in.checking = true
		in.do(Recheck{})
	}
}

func (in *Incoming) manifestPart(m wire.ManifestPart) {
	if in.manifest != nil {
		return // of a repeated offer
	}
	if int(m.Offset) != len(in.encoded) || len(in.encoded)+len(m.Data) > int(in.offer.ManifestLength) {
		in.violation("manifest out of order")
		return
	}
	in.encoded = append(in.encoded, m.Data...)
	if len(in.encoded) < int(in.offer.ManifestLength) {
		return
	}
	manifest, err := chunk.ParseManifest(in.offer, in.encoded)
	if err != nil {
		in.violation("%w", err)
		return
	}
	in.setManifest(manifest)
	in.do(Changed{})
}

func (in *Incoming) setManifest(manifest *chunk.Manifest) {
	in.manifest, in.encoded = manifest, nil
	in.files = make([]inFile, len(manifest.Files))
	in.paths = chunk.SafePaths(manifest.Files)
}

func (in *Incoming) accept(files []uint32) {
	if in.manifest == nil || in.wanted != nil || in.state.Final() {
		return
	}
	wanted := in.manifest.All()
	if files != nil {
		wanted = wire.NewBitmap(len(in.files))
		for _, f := range files {
			if int(f) < len(in.files) {
				wanted.Set(f)
			}
		}
	}
	in.want(wanted)
	if in.kept {
		start := bytesRecord(startRecord(nil, false, in.key, in.offer, in.now), recordManifest, in.manifest.Encoded)
		in.do(Note{Records: bytesRecord(start, recordWanted, wanted)})
	}
	if in.offered {
		in.sendAccept()
	}
	in.do(Changed{})
}

func (in *Incoming) want(files wire.Bitmap) {
	in.wanted = files
	for i, f := range in.manifest.Files {
		if files.Has(uint32(i)) {
			in.total += f.Size
		}
	}
}

// restored takes what of the announced chunks is on disk as announced.
func (in *Incoming) restored(e Restored) {
	if !in.checking {
		return
	}
	in.checking = false
	switch {
	case in.over():
		return
	case errors.Is(e.Err, ErrStorageFull):
		in.short.check = true
		in.noRoom()
		return
	case e.Err != nil:
		in.storageFailed(e.Err)
		return
	}
	in.someRoom()
	in.doubt, in.since, in.stored = false, in.now, 0
	for i := range in.files {
		in.files[i].taken, in.files[i].stored = chunk.Set{}, chunk.Set{}
	}
	for _, ref := range e.Have {
		f := &in.files[ref.File]
		f.taken.Add(ref.Index)
		f.stored.Add(ref.Index)
	}
	complete := in.end != nil && in.end.Transfer == in.transfer // else it is of an id of before
	for i := range in.files {
		f := uint32(i)
		in.files[i].bytes = chunkBytes(in.manifest, f, &in.files[i].stored)
		in.stored += in.files[i].bytes
		complete = complete && (!in.end.Files.Has(f) || in.files[i].stored.Count() == in.manifest.Chunks(f))
	}
	in.do(Changed{})
	switch {
	case complete && (in.settling || bytes.Equal(in.end.Files, in.wanted)):
		in.resume() // it needs nothing of its sender any more
		in.check()
	case in.offered:
		in.sendAccept()
	default:
		in.end = nil
	}
}

// sendAccept asks for what is lacking.
func (in *Incoming) sendAccept() {
	complete := wire.NewBitmap(len(in.files))
	for i := range in.files {
		f := uint32(i)
		in.files[i].failed = 0 // a sender that has the files again may succeed; otherwise it says so again
		chunks := in.manifest.Chunks(f)
		// What is on its way to the disk need not come again: if it does not get there, the delivery ends.
		switch stored, taken := &in.files[i].stored, &in.files[i].taken; {
		case !in.wanted.Has(f):
		case stored.Count() == chunks && len(in.files[i].hashes) == int(chunks):
			complete.Set(f)
		case taken.Count() > 0:
			in.control(wire.Have{Sender: in.key.Sender, Transfer: in.transfer, File: f, Runs: taken.Runs(wire.MaxHaveRuns)})
		}
	}
	in.state, in.asked = Transferring, true
	in.end, in.settling, in.held = nil, false, false
	in.spent, in.reported = 0, in.stored
	in.granted = in.allowance()
	in.meter = meter{at: in.now, total: in.stored}
	in.control(wire.Accept{Transfer: in.transfer, Credit: in.granted, Files: in.wanted, Complete: complete})
	if in.paused || in.full() {
		in.tellPaused()
	}
}

func (in *Incoming) receivedBulk(e ReceivedBulk) {
	switch {
	case in.state.Final():
		return // it crossed our ending it
	case !in.asked:
		in.violation("data before it was accepted")
		return
	case in.end != nil:
		in.violation("data after the end")
		return
	}
	switch m := e.Message.(type) {
	case wire.Hashes:
		in.announced(m)
	case wire.Chunks:
		in.chunks(m, e)
	case wire.End:
		in.ended(m)
	default:
		panic(fmt.Sprintf("transfer: bulk message %T", m))
	}
}

func (in *Incoming) announced(m wire.Hashes) {
	for _, run := range m.Runs {
		if int(run.File) >= len(in.files) || uint64(run.First)+uint64(run.Count()) > uint64(in.manifest.Chunks(run.File)) {
			in.violation("hashes beyond the file")
			return
		}
		f := &in.files[run.File]
		if !in.wanted.Has(run.File) {
			continue
		}
		if int(run.First) > len(f.hashes) {
			in.violation("gap in the hashes")
			return
		}
		known := len(f.hashes)
		for i := range run.Count() {
			at := int(run.First) + i
			if at == len(f.hashes) {
				f.hashes = append(f.hashes, run.At(i))
			} else if f.hashes[at] != run.At(i) {
				// The sender's file is no longer the one that it began to send.
				in.fail(wire.FailureFileChanged)
				return
			}
		}
		if in.kept && len(f.hashes) > known {
			in.do(Note{Records: hashesRecord(nil, run.File, uint32(known), f.hashes[known:])})
		}
	}
}

func (in *Incoming) chunks(m wire.Chunks, e ReceivedBulk) {
	cost, raw := uint64(wire.MessageCost), uint64(0)
	for _, c := range m.Entries {
		if int(c.File) >= len(in.files) || c.Index >= in.manifest.Chunks(c.File) ||
			c.RawLength != in.manifest.Length(chunk.Ref{File: c.File, Index: c.Index}) {
			in.violation("chunk that does not exist")
			return
		}
		cost += wire.ChunkCost(c.RawLength)
		raw += uint64(c.RawLength)
		if c.Compressed && !e.Inflates {
			in.violation("compressed chunk, which was not agreed upon")
			return
		}
	}
	if in.spent += cost; in.spent > in.granted || raw > uint64(in.manifest.ChunkSize) {
		in.violation("more than was granted, or than a message may hold")
		return
	}
	store := Store{Chunks: make([]StoreChunk, 0, len(m.Entries)), Cost: cost}
	at := 0
	for _, c := range m.Entries {
		data := m.Data[at : at+int(c.Length)]
		at += int(c.Length)
		f := &in.files[c.File]
		ref := chunk.Ref{File: c.File, Index: c.Index}
		if int(c.Index) < len(f.hashes) && in.wanted.Has(c.File) && f.failed == 0 && f.taken.Add(c.Index) {
			store.Chunks = append(store.Chunks, StoreChunk{Chunk: ref, Offset: in.manifest.Offset(ref),
				Size: int64(in.manifest.Files[c.File].Size), Length: int(c.RawLength), Data: data, Compressed: c.Compressed, Hash: f.hashes[c.Index]})
		} else if f.stored.Has(c.Index) {
			in.repeated += uint64(c.RawLength)
		} // else it was not announced, is not wanted, or is on its way to the disk
	}
	if len(store.Chunks) == 0 {
		in.grant()
		return
	}
	store.Buffer = e.Buffer.Retain()
	in.pending++
	in.waiting += cost
	in.do(store)
}

func (in *Incoming) storedChunks(e Stored) {
	left := e.Left
	if left != nil && (in.over() || in.doubt) { // it comes again
		left.Buffer.Release()
		left = nil
	}
	if left == nil {
		in.pending--
		in.waiting -= e.Cost
	}
	if e.Bad { // whatever has become of the delivery
		in.do(Violation{in.key.Sender, errors.New("chunk that is not what was announced")})
	}
	switch {
	case in.over():
		return
	case in.doubt && !e.Bad:
		if errors.Is(e.Err, ErrStorageSpoilt) {
			in.storageFailed(e.Err)
		}
		in.recheck()
		return
	}
	for _, ref := range e.Done {
		f := &in.files[ref.File]
		if f.stored.Add(ref.Index) {
			n := uint64(in.manifest.Length(ref))
			f.bytes += n
			in.stored += n
		}
	}
	switch {
	case e.Bad:
		in.fail(wire.FailureIntegrity)
	case left != nil:
		if in.full() && len(e.Done) > 0 {
			in.short.since = in.now
		}
		in.short.stores = append(in.short.stores, *left)
		in.noRoom()
	case e.Err != nil:
		in.storageFailed(e.Err)
	default:
		in.someRoom()
		in.meter.update(in.now, in.stored)
		in.grant()
		in.check()
		in.do(Changed{})
	}
}

// allowance is how far the sender may go: what waits for the disk, from a former link too, never exceeds the window.
func (in *Incoming) allowance() uint64 {
	return in.spent + in.window - min(in.waiting, in.window)
}

// grant raises the credit when an eighth of the window is free, which makes few messages, or as soon as the sender may be out of it;
// at the end it tells how much is stored.
func (in *Incoming) grant() {
	more := in.allowance() > in.granted
	free := in.allowance() >= in.granted+in.window/8
	short := in.granted-in.spent < in.largest()
	complete := in.end != nil || in.stored == in.total
	if more && (free || short) || complete && in.stored != in.reported {
		in.sendCredit()
	}
}

func (in *Incoming) sendCredit() {
	if !in.asked {
		return // Accept will say it
	}
	in.granted, in.reported, in.told = max(in.granted, in.allowance()), in.stored, in.now
	in.control(wire.Credit{Transfer: in.transfer, Granted: in.granted, Stored: in.stored})
}

// Awaits reports whether an End would count now. Any other is ignored, or a violation, whatever its signature.
func (in *Incoming) Awaits() bool {
	return in.asked && in.end == nil && !in.state.Final()
}

func (in *Incoming) ended(m wire.End) {
	if !m.Files.Fits(len(in.files)) || m.Files.Empty() {
		in.violation("end with a bad file set")
		return
	}
	in.omitted = 0
	for i := range in.files {
		f := uint32(i)
		switch {
		case m.Files.Has(f) && (!in.wanted.Has(f) || in.files[i].failed != 0):
			in.violation("end with other files than were asked for")
			return
		case m.Files.Has(f) && len(in.files[i].hashes) != int(in.manifest.Chunks(f)):
			in.violation("end before all hashes were announced")
			return
		case !m.Files.Has(f) && in.wanted.Has(f) && in.files[i].failed == 0:
			in.omitted++
		}
	}
	m.Files = append(wire.Bitmap{}, m.Files...)
	m.Signature = append([]byte{}, m.Signature...)
	in.end = &m
	if in.kept {
		in.do(Note{Records: bytesRecord(nil, recordEnd, m.Append(nil))})
	}
	if in.state == Transferring {
		in.state = Verifying
	}
	in.check()
	in.do(Changed{})
}

// check goes on when End has come, all chunks under way are stored, and FileFailed, which travels on the other channel, has come for
// each file that End leaves out.
func (in *Incoming) check() {
	if in.end == nil || in.pending > 0 || in.omitted > 0 || in.state.Final() || in.saving || in.doubt || in.summed == in.end {
		return
	}
	hashes := map[uint32][]wire.Hash{}
	for i := range in.files {
		f := uint32(i)
		if !in.end.Files.Has(f) {
			continue
		}
		if in.files[i].stored.Count() != in.manifest.Chunks(f) {
			in.violation("end before all chunks were sent")
			return
		}
		hashes[f] = in.files[i].hashes
	}
	key, manifest, end := Key{in.key.Sender, in.transfer}, in.manifest, in.end // none of which changes, nor do the hashes
	in.summed = end
	in.do(Verify{func() Verified {
		done := Verified{end: end, files: make(map[uint32]wire.Hash, len(hashes))}
		for f, list := range hashes {
			done.files[f] = manifest.FileRoot(f, list)
		}
		done.root = manifest.DeliveryRoot(key.Sender, key.Transfer, end.Files, func(f uint32) wire.Hash { return done.files[f] })
		return done
	}})
}

// verified goes on to making it durable, unless the sender has begun anew meanwhile, over another link.
func (in *Incoming) verified(e Verified) {
	if e.end != in.end || in.state.Final() || in.saving || in.doubt {
		return
	}
	if e.root != in.end.Root {
		in.do(Violation{in.key.Sender, errors.New("root that is not that of the hashes")})
		in.fail(wire.FailureIntegrity)
		return
	}
	for f, root := range e.files {
		in.files[f].root = &root
	}
	in.state, in.saving, in.flushed = Saving, true, true
	if in.asked {
		in.control(wire.Saving{Transfer: in.transfer})
	}
	if in.kept {
		in.do(Note{Records: in.outcomeRecord(recordSaving)})
	}
	in.do(Commit{Files: in.end.Files})
	in.do(Changed{})
}

func (in *Incoming) committed(e Committed) {
	if in.state.Final() {
		return
	}
	if errors.Is(e.Err, ErrStorageFull) {
		in.short.commit = true
		in.noRoom()
		return
	}
	in.saving = false
	if e.Err != nil {
		in.storageFailed(e.Err)
		return
	}
	in.someRoom()
	if in.end.Transfer != in.transfer { // the sender has retried it meanwhile, and is to sign that
		in.state, in.end, in.doubt, in.flushed = Interrupted, nil, true, false
		in.recheck()
		in.do(Changed{})
		return
	}
	in.done = in.end
	in.sendCredit()
	in.finish(in.outcome())
	in.tell()
}

// storageFailed ends the delivery. Where what has been stored is noted it is kept: but nothing of it counts before it has been looked at again.
func (in *Incoming) storageFailed(err error) {
	switch {
	case errors.Is(err, ErrStorageSpoilt):
		in.fail(wire.FailureDiskFull)
		return
	case in.noted:
		in.Close() // what waited for room comes again
		in.doubt, in.lapsed, in.asked, in.summed = true, true, false, nil
		if in.state.Final() {
			return // it is suspended already
		}
		in.broken = true
	}
	in.fail(wire.FailureStorageFailed)
}

// outcome is how a delivery has ended of which something is done: part of it is never success.
func (in *Incoming) outcome() (State, fault.Code) {
	for i := range in.files {
		if f := &in.files[i]; f.failed != 0 && in.wanted.Has(uint32(i)) {
			return Failed, failureCodes[f.failed]
		}
	}
	return Done, ""
}

func (in *Incoming) tick() {
	if !in.now.Before(in.short.next) {
		in.tryDisk()
	}
	switch in.state {
	case Interrupted:
		if in.now.Sub(in.since) > Grace && !in.doubt {
			in.finish(Failed, fault.PeerGone)
		}
	case Transferring:
		before := in.meter.speed
		in.meter.update(in.now, in.stored)
		if (in.stored != in.reported || in.allowance() > in.granted) && in.now.Sub(in.told) >= 250*time.Millisecond {
			in.sendCredit()
		}
		if in.meter.speed != before {
			in.do(Changed{})
		}
	}
}
