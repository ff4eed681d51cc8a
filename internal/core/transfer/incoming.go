package transfer

import (
	"errors"
	"fmt"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// CreditBudget is how many bytes a recipient lets come before its disk has taken them, over all transfers. It bounds its
// memory, stays below what a connection holds unread (peer.MaxUnread), and must cover rate times round-trip time.
const CreditBudget = 16 << 20

// Incoming is a recipient's end of a transfer.
type Incoming struct {
	key      Key
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
	saving   bool      // a Commit is under way
	repeated uint64    // bytes that came and were on disk already
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
	return &Incoming{key: key, offer: offer, up: true, offered: true, since: now, window: CreditBudget}
}

// SetShare tells how many transfers share the recipient's CreditBudget. What has been granted stays granted.
func (in *Incoming) SetShare(transfers int) {
	in.window = max(CreditBudget/uint64(transfers), 2*in.largest())
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

// Progress is how far the delivery is.
func (in *Incoming) Progress() Progress {
	p := Progress{in.key.Sender, in.state, in.code, "", in.total, in.stored, in.meter.speed, in.repeated}
	if in.state == Transferring && (in.held || in.paused) {
		p.State = Paused
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
	case Committed:
		in.committed(e)
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
			in.control(wire.Pause{Sender: in.key.Sender, Transfer: in.key.Transfer, Paused: e.Paused})
			in.do(Changed{})
		}
	case Tick:
		in.tick()
	default:
		panic(fmt.Sprintf("transfer: incoming: event %T", event))
	}
	return in.effects
}

func (in *Incoming) do(e Effect) { in.effects = append(in.effects, e) }

func (in *Incoming) control(m wire.ControlMessage) {
	if in.up {
		in.do(SendControl{in.key.Sender, m})
	}
}

// finish brings the delivery to a final state. What has been stored of an unfinished one is discarded.
func (in *Incoming) finish(s State, code fault.Code) {
	if in.state.Final() {
		return
	}
	in.state, in.code = s, code
	if in.done == nil && in.wanted != nil {
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

// fail ends the delivery from this end and tells the sender why.
func (in *Incoming) fail(code wire.FailureCode) {
	if in.state.Final() {
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
		in.control(wire.Decline{Transfer: in.key.Transfer, Reason: in.reason})
	case in.failure != 0:
		in.control(wire.Cancel{Sender: in.key.Sender, Transfer: in.key.Transfer, Code: in.failure})
	default: // the sender ended it, or a violation did
		in.control(wire.Cancel{Sender: in.key.Sender, Transfer: in.key.Transfer, Code: wire.FailureCancelled})
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
	if _, isOffer := message.(wire.TransferOffer); in.state.Final() && !isOffer {
		return // it crossed our ending it
	}
	switch m := message.(type) {
	case wire.TransferOffer:
		in.offerAgain(m)
	case wire.ManifestPart:
		in.manifestPart(m)
	case wire.Cancel:
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
		in.held = m.Paused
		in.do(Changed{})
	default:
		in.violation("unexpected %T", m)
	}
}

// offerAgain takes the offer again, over a new link: the sender wants to know what is here, or how it ended.
func (in *Incoming) offerAgain(m wire.TransferOffer) {
	same := m.ManifestHash == in.offer.ManifestHash && m.ChunkSize == in.offer.ChunkSize && m.Files == in.offer.Files &&
		m.TotalSize == in.offer.TotalSize && m.ManifestLength == in.offer.ManifestLength
	if !same || in.offered {
		in.violation("offer repeated or changed")
		return
	}
	in.offered = true
	switch {
	case in.state.Final():
		in.tell()
	case in.saving: // the receipt will follow
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
	in.manifest, in.encoded = manifest, nil
	in.files = make([]inFile, len(manifest.Files))
	in.paths = chunk.SafePaths(manifest.Files)
	in.do(Changed{})
}

func (in *Incoming) accept(files []uint32) {
	if in.manifest == nil || in.wanted != nil || in.state.Final() {
		return
	}
	if files == nil {
		in.wanted = in.manifest.All()
	} else {
		in.wanted = wire.NewBitmap(len(in.files))
		for _, f := range files {
			if int(f) < len(in.files) {
				in.wanted.Set(f)
			}
		}
	}
	for i, f := range in.manifest.Files {
		if in.wanted.Has(uint32(i)) {
			in.total += f.Size
		}
	}
	if in.offered {
		in.sendAccept()
	}
	in.do(Changed{})
}

// sendAccept asks for what is lacking.
func (in *Incoming) sendAccept() {
	complete := wire.NewBitmap(len(in.files))
	for i := range in.files {
		f := uint32(i)
		chunks := in.manifest.Chunks(f)
		// What is on its way to the disk need not come again: if it does not get there, the delivery ends.
		switch stored, taken := &in.files[i].stored, &in.files[i].taken; {
		case !in.wanted.Has(f):
		case stored.Count() == chunks && len(in.files[i].hashes) == int(chunks):
			complete.Set(f)
		case taken.Count() > 0:
			in.control(wire.Have{Sender: in.key.Sender, Transfer: in.key.Transfer, File: f, Runs: taken.Runs(wire.MaxHaveRuns)})
		}
	}
	in.state, in.asked = Transferring, true
	in.end, in.held = nil, false
	in.spent, in.reported = 0, in.stored
	in.granted = in.allowance()
	in.meter = meter{at: in.now, total: in.stored}
	in.control(wire.Accept{Transfer: in.key.Transfer, Credit: in.granted, Files: in.wanted, Complete: complete})
	if in.paused {
		in.control(wire.Pause{Sender: in.key.Sender, Transfer: in.key.Transfer, Paused: true})
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
	in.pending--
	in.waiting -= e.Cost
	if in.state.Final() {
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
		in.do(Violation{in.key.Sender, errors.New("chunk that is not what was announced")})
		in.fail(wire.FailureIntegrity)
	case errors.Is(e.Err, ErrStorageFull):
		in.fail(wire.FailureDiskFull)
	case e.Err != nil:
		in.fail(wire.FailureStorageFailed)
	default:
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
	in.control(wire.Credit{Transfer: in.key.Transfer, Granted: in.granted, Stored: in.stored})
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
	in.end = &m
	in.check()
}

// check goes on when End has come, all chunks under way are stored, and FileFailed, which travels on the other channel, has come for
// each file that End leaves out.
func (in *Incoming) check() {
	if in.end == nil || in.pending > 0 || in.omitted > 0 || in.state.Final() || in.saving {
		return
	}
	for i := range in.files {
		f := uint32(i)
		if !in.end.Files.Has(f) {
			continue
		}
		if in.files[i].stored.Count() != in.manifest.Chunks(f) {
			in.violation("end before all chunks were sent")
			return
		}
		if in.files[i].root == nil {
			root := in.manifest.FileRoot(f, in.files[i].hashes)
			in.files[i].root = &root
		}
	}
	root := in.manifest.DeliveryRoot(in.key.Sender, in.key.Transfer, in.end.Files, func(f uint32) wire.Hash { return *in.files[f].root })
	if root != in.end.Root {
		in.do(Violation{in.key.Sender, errors.New("root that is not that of the hashes")})
		in.fail(wire.FailureIntegrity)
		return
	}
	in.state, in.saving = Saving, true
	in.do(Commit{Files: in.end.Files})
	in.do(Changed{})
}

func (in *Incoming) committed(e Committed) {
	in.saving = false
	if in.state.Final() {
		return
	}
	if e.Err != nil {
		code := wire.FailureStorageFailed
		if errors.Is(e.Err, ErrStorageFull) {
			code = wire.FailureDiskFull
		}
		in.fail(code)
		return
	}
	in.done = in.end
	in.sendCredit()
	state, code := Done, fault.Code("")
	for i := range in.files {
		if f := &in.files[i]; f.failed != 0 && in.wanted.Has(uint32(i)) { // part of a delivery is never success
			state, code = Failed, failureCodes[f.failed]
			break
		}
	}
	in.finish(state, code)
	in.tell()
}

func (in *Incoming) tick() {
	switch in.state {
	case Interrupted:
		if in.now.Sub(in.since) > Grace {
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
