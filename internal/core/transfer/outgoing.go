package transfer

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

const (
	// window is how many bulk messages for one recipient may wait for the transport: enough to keep it busy while the
	// machine turns, few enough to keep control over what goes next.
	window = 3
	// maxReads is how many chunks are read at a time: many small ones, of which more than maxReads together have at most smallReadBytes.
	maxReads       = 4
	maxSmallReads  = 64
	smallReadBytes = 512 << 10
	// cacheBytes and cacheChunks bound the chunks kept for recipients that come to them a little later; the larger counts.
	cacheBytes  = 16 << 20
	cacheChunks = 12
	// manyCached is from how many chunks on the cache is cleared by more than the one that is needed.
	manyCached = 256
	// readAhead is how many bytes are read before a recipient has room for them, or this many files and chunks.
	readAhead      = 2 << 20
	readAheadSteps = 256
	// maxStale is how many attempts before a retry a recipient is told the end of: whoever retries without end forgets the oldest.
	maxStale = 8
)

// Outgoing is the sender's end of a transfer.
type Outgoing struct {
	key       Key
	manifest  *chunk.Manifest
	schedule  Schedule
	offer     wire.TransferOffer
	files     []outFile
	peers     []*recipient
	limit     int64 // bytes per second and recipient; 0: none
	total     int64 // bytes per second to all of them; 0: none
	bucket    bucket
	shared    *Shared
	limited   bool // a recipient waits for a limit
	paused    bool
	finished  bool
	kept      bool      // what is noted outlives this process
	wanting   bool      // restored, and without its files: nothing is read
	discarded bool      // the journal
	passed    []wire.ID // those who were there and not picked: they are no late joiners

	granted bool   // one message may go out under the shared limit
	waits   bool   // somebody waits for that
	due     uint64 // since when, in virtual time

	cache   map[chunk.Ref]*cached
	cached  int    // bytes in the cache, being read or ready
	reading int    // chunks being read
	unread  int    // bytes of those
	turn    uint64 // counts uses of the cache, for the least recently used

	compression compression

	now     time.Time
	effects []Effect
}

type outFile struct {
	hashes []wire.Hash
	known  chunk.Set
	root   *wire.Hash
	failed wire.FailureCode // 0: no
}

type cached struct {
	buffer *bulk.Buffer // nil: being read
	packed *bulk.Buffer // the same compressed, or nil
	length int          // of both
	used   uint64
	id     uint64 // of this reading: a file may change between two

	seen      bool // it has been thought of compressing it
	deflating bool
	dense     bool // compressed it is hardly smaller
}

// recipient is one delivery.
type recipient struct {
	id       wire.ID
	transfer wire.ID // what the transfer is called between the two: the key's, or a retry's
	state    State
	code     fault.Code
	reason   string
	offered  time.Time // when, for the first time
	finished time.Time // when it ended

	up       bool
	accepted bool             // over the present link
	held     bool             // the recipient has paused
	full     bool             // its disk is full
	since    time.Time        // of the lack of a link
	untold   wire.FailureCode // why we ended it while there was no link, or 0
	noted    bool             // a journal has it, as accepted at first, or cannot be written; otherwise, where it is kept, no chunk is sent

	wanted    wire.Bitmap
	complete  wire.Bitmap // of which it has every hash and chunk
	total     uint64
	have      map[uint32]*chunk.Set
	at        chunk.Ref // the first chunk that may be lacking
	reached   chunk.Ref // where at has come to over former links: what comes before has been sent, or was not needed
	announced uint32    // hashes of file at.File that it has been told, or that are in runs
	runs      []wire.HashRun
	hashes    int // in runs
	credit    uint64
	spent     uint64
	stored    uint64
	queued    int       // bulk messages that wait for the transport
	ended     bool      // End has been sent over the present link
	signed    *wire.End // the last one, over whichever link: a receipt for it counts
	receipt   *wire.Receipt
	earlier   []*recipient // attempts before a retry for which there is a receipt
	stale     []*recipient // others, the end of which it may not have been told
	late      bool         // it joined late
	restored  bool         // and has not accepted since: what its receipt is for may not have been noted
	claim     *claim       // what it says it has signed then

	turn   uint64 // when its next chunk is due, in the virtual time of Shared
	bucket bucket
	meter  meter
}

// claim is a receipt that is to be held against the files, for want of a note of what it is for.
type claim struct {
	receipt wire.Receipt
	wanted  wire.Bitmap // nil: not noted either
}

// OutgoingConfig configures an outgoing transfer.
type OutgoingConfig struct {
	Key         Key
	Manifest    *chunk.Manifest
	Recipients  []wire.ID
	LateJoiners bool
	Passed      []wire.ID // with LateJoiners: who is not offered it all the same, having been there and not been picked
	Limit       int64     // bytes per second and recipient; 0: none
	TotalLimit  int64     // bytes per second to all of them; 0: none
	Shared      *Shared   // with the room's other transfers; nil: there are none
	Schedule    Schedule
	Keep        bool // what is noted (Note) outlives this process
	Plain       bool // nothing is compressed
}

// NewOutgoing makes the machine. It does nothing until Step is called: with LinkUp for each recipient that is there.
func NewOutgoing(c OutgoingConfig) *Outgoing {
	o := &Outgoing{
		key: c.Key, manifest: c.Manifest, passed: c.Passed, schedule: c.Schedule, limit: c.Limit, total: c.TotalLimit, shared: c.Shared,
		files: make([]outFile, len(c.Manifest.Files)), kept: c.Keep,
		cache: map[chunk.Ref]*cached{}, compression: compression{off: c.Plain, least: leastDeflate},
		offer: wire.TransferOffer{
			Transfer: c.Key.Transfer, LateJoiners: c.LateJoiners, ChunkSize: c.Manifest.ChunkSize,
			Files: uint32(len(c.Manifest.Files)), TotalSize: c.Manifest.Total,
			ManifestLength: uint32(len(c.Manifest.Encoded)), ManifestHash: c.Manifest.Hash,
			Participants: c.Recipients,
		},
	}
	if o.shared == nil {
		o.shared = &Shared{}
	}
	for _, id := range c.Recipients {
		o.peers = append(o.peers, &recipient{id: id, transfer: c.Key.Transfer})
	}
	return o
}

// RestoreOutgoing goes on with what another process or page began, as far as its journal goes. Deliveries that had ended stay so, unless for want of
// the recipient. shared may be nil, as in OutgoingConfig. Its files are wanting: until SourcesReady it is paused, and sends only what needs no reading.
func RestoreOutgoing(j *Journal, shared *Shared, schedule Schedule, now time.Time) *Outgoing {
	o := NewOutgoing(OutgoingConfig{Key: j.Key, Manifest: j.Manifest, Recipients: j.Recipients(), LateJoiners: j.offer.LateJoiners, Passed: j.passed,
		Plain: j.plain, Shared: shared, Schedule: schedule, Keep: true})
	o.wanting = true
	for i := range o.files {
		f := &o.files[i]
		f.hashes, f.known = j.hashes[i].list, j.hashes[i].known
	}
	for _, r := range o.peers {
		if old := j.recipient(r.id); old != nil {
			*r = *old
		}
		r.noted = true
		if !r.over() {
			r.state, r.code, r.since, r.restored = Interrupted, "", now, true
		}
		if r.receipt != nil {
			r.stored = o.confirmed(r.receipt)
			r.total = r.stored
		}
	}
	return o
}

// Journal is the transfer as it stands, as a journal.
func (o *Outgoing) Journal(now time.Time) []byte {
	b := bytesRecord(startRecord(nil, true, o.key, o.offer, now), recordManifest, o.manifest.Encoded)
	b = append(b, lateRecord(o.offer.LateJoiners, o.passed)...)
	for i := range o.files {
		f := &o.files[i]
		for _, run := range f.known.Runs(len(f.hashes)) {
			b = hashesRecord(b, uint32(i), run.First, f.hashes[run.First:run.First+run.Count])
		}
	}
	if o.compression.off {
		b = bytesRecord(b, recordPlain, nil)
	}
	for _, r := range o.peers {
		for _, old := range slices.Concat(r.earlier, r.stale) {
			b = recipientRecord(b, old)
		}
		b = recipientRecord(b, r)
	}
	return b
}

// Wanting reports whether the transfer waits for its files.
func (o *Outgoing) Wanting() bool { return o.wanting }

// Needs reports whether a recipient may lack something of a file. One that has not told what it has lacks everything.
func (o *Outgoing) Needs(file uint32) bool {
	return o.offer.LateJoiners || slices.ContainsFunc(o.peers, func(r *recipient) bool {
		return !r.over() && (r.wanted.Empty() || r.wanted.Has(file)) && !r.complete.Has(file)
	})
}

// Read is the chunks of a file that have been read already, and their hashes.
func (o *Outgoing) Read(file uint32) (known []wire.Run, hashes []wire.Hash) {
	f := &o.files[file]
	return f.known.Runs(len(f.hashes)), f.hashes
}

// Key is the transfer's key.
func (o *Outgoing) Key() Key { return o.key }

// Manifest is the transfer's file set.
func (o *Outgoing) Manifest() *chunk.Manifest { return o.manifest }

// Progress is how far each delivery is, in the order of the offer.
func (o *Outgoing) Progress() []Progress {
	list := make([]Progress, len(o.peers))
	for i, r := range o.peers {
		list[i] = Progress{r.id, r.state, r.code, r.reason, r.total, r.stored, r.meter.speed, 0}
		if r.wanted == nil {
			list[i].Total = o.manifest.Total
		}
		if r.state == Transferring && (o.paused || o.wanting || r.held || r.full) {
			list[i].State = Paused
		}
		if r.full && r.accepted && !r.state.Final() && !o.held() { // what its own user has done comes first
			list[i].Code = fault.DiskFull
		}
	}
	return list
}

// Paused reports whether the sender has paused it: whatever its deliveries show, SetPaused has it go on.
func (o *Outgoing) Paused() bool { return o.paused }

// Has reports whether the transfer goes by that id with one of the recipients: the key's, or a retry's.
func (o *Outgoing) Has(transfer wire.ID) bool {
	for _, r := range o.peers {
		if r.transfer == transfer {
			return true
		}
	}
	return false
}

// Receipt is what the recipient has signed, or nil.
func (o *Outgoing) Receipt(peer wire.ID) *wire.Receipt {
	if r := o.peer(peer); r != nil {
		return r.receipt
	}
	return nil
}

// Attempt is an attempt at a delivery that a retry came after.
type Attempt struct {
	Transfer       wire.ID // what the transfer was called between the two
	State          State
	Code           fault.Code
	Offered, Ended time.Time
	Stored         uint64 // bytes, on the recipient's disk
	Wanted         wire.Bitmap
	Receipt        *wire.Receipt
}

// Earlier is the attempts before the present one for which the recipient has signed a receipt.
func (o *Outgoing) Earlier(peer wire.ID) (list []Attempt) {
	if r := o.peer(peer); r != nil {
		for _, old := range r.earlier {
			list = append(list, Attempt{old.transfer, old.state, old.code, old.offered, old.finished, o.confirmed(old.receipt), old.wanted, old.receipt})
		}
	}
	return list
}

// confirmed is how many bytes a receipt is for.
func (o *Outgoing) confirmed(receipt *wire.Receipt) (n uint64) {
	for i, f := range o.manifest.Files {
		if receipt.Files.Has(uint32(i)) {
			n += f.Size
		}
	}
	return n
}

// FileFailure is why a file cannot be delivered to anyone, or "".
func (o *Outgoing) FileFailure(file uint32) fault.Code { return failureCodes[o.files[file].failed] }

// FileRoot is a file's root, once all of it has been read.
func (o *Outgoing) FileRoot(file uint32) (wire.Hash, bool) {
	f := &o.files[file]
	n := o.manifest.Chunks(file)
	if f.root == nil && f.known.Count() == n && f.failed == 0 {
		root := o.manifest.FileRoot(file, f.hashes)
		f.root = &root
	}
	if f.root == nil {
		return wire.Hash{}, false
	}
	return *f.root, true
}

// Unwanted reports whether the recipient has accepted the transfer without the file.
func (o *Outgoing) Unwanted(peer wire.ID, file uint32) bool {
	r := o.peer(peer)
	return r != nil && r.wanted != nil && !r.wanted.Has(file)
}

// Serves reports whether the member is a recipient.
func (o *Outgoing) Serves(peer wire.ID) bool { return o.peer(peer) != nil }

// Late reports whether whoever is admitted later is offered the transfer.
func (o *Outgoing) Late() bool { return o.offer.LateJoiners }

// Delivery is what a recipient's receipt is about: the transfer's id between the two, and when it was offered first and ended; zero: not yet.
func (o *Outgoing) Delivery(peer wire.ID) (id wire.ID, offered, ended time.Time) {
	r := o.peer(peer)
	return r.transfer, r.offered, r.finished
}

// Finished reports whether every delivery has ended.
func (o *Outgoing) Finished() bool { return o.finished }

// SetLimit changes the limit, in bytes per second and recipient; 0: none.
func (o *Outgoing) SetLimit(limit int64) { o.limit = limit }

// SetTotalLimit changes the limit on all recipients together, in bytes per second; 0: none.
func (o *Outgoing) SetTotalLimit(limit int64) { o.total = limit }

// Waits reports whether a recipient waits for a Grant, and when its turn is: whoever is least is to be granted first.
func (o *Outgoing) Waits() (turn uint64, waits bool) { return o.due, o.waits }

// Limited reports whether a recipient waits for a limit, whichever.
func (o *Outgoing) Limited() bool { return o.limited }

// Step takes events that have come at once.
func (o *Outgoing) Step(now time.Time, events ...Event) []Effect {
	o.now, o.effects = now, nil
	for _, e := range events {
		o.handle(e)
	}
	o.pump()
	o.finish()
	return o.effects
}

func (o *Outgoing) handle(event Event) {
	switch e := event.(type) {
	case LinkUp:
		o.compression.linked(e.Peer, e.Inflates, e.Rate)
		o.linkUp(e.Peer)
	case LinkDown:
		o.compression.linked(e.Peer, false, 0)
		o.linkDown(e)
	case Received:
		o.received(e)
	case Sent:
		o.compression.sent(e.Peer, e.Rate)
		if r := o.peer(e.Peer); r != nil && r.queued > 0 {
			r.queued--
		}
	case Deflated:
		o.deflated(e)
	case ReadDone:
		o.readDone(e)
	case CancelPeer:
		if r := o.peer(e.Peer); r != nil {
			o.cancel(r)
		}
	case CancelAll:
		o.stopOffering()
		for _, r := range o.peers {
			o.cancel(r)
		}
	case StopOffering:
		o.stopOffering()
	case RetryPeer:
		o.retry(e)
	case SetPaused:
		if o.paused != e.Paused {
			o.paused = e.Paused
			o.tellPaused()
		}
	case Noted:
		if r := o.peer(e.Peer); r != nil && r.transfer == e.Transfer {
			r.noted = true
		}
	case SourceFailed:
		o.failFile(e.File, e.Err)
	case SourcesReady:
		if o.wanting {
			o.wanting = false
			o.tellPaused()
		}
	case Tick:
		o.tick()
	case Grant:
		o.granted = true
	default:
		panic(fmt.Sprintf("transfer: outgoing: event %T", event))
	}
}

func (o *Outgoing) stopOffering() {
	if o.offer.LateJoiners {
		o.offer.LateJoiners = false
		if o.kept {
			o.do(Note{Records: lateRecord(false, o.passed)})
		}
		o.changed()
	}
}

// held reports whether nothing flows for a reason of ours.
func (o *Outgoing) held() bool { return o.paused || o.wanting }

func (o *Outgoing) tellPaused() {
	for _, r := range o.peers {
		if !r.state.Final() && r.accepted {
			o.control(r, wire.Pause{Sender: o.key.Sender, Transfer: r.transfer, Paused: o.held()})
		}
	}
	o.changed()
}

// suspended reports whether the delivery has ended only because the recipient is gone, or its storage has failed. It goes on over the next link.
func (r *recipient) suspended() bool {
	return r.state == Failed && (r.code == fault.PeerGone || r.code == fault.StorageFailed)
}

// over reports whether nothing can change any more how the delivery has ended, but a retry.
func (r *recipient) over() bool { return r.state.Final() && !r.suspended() }

func (o *Outgoing) noteRecipient(r *recipient) {
	if o.kept {
		o.do(Note{Records: recipientRecord(nil, r)})
	}
}

// noteAccepted lets chunks go out when that is written, for the first time in an attempt: what a recipient keeps of a transfer that its sender had
// forgotten would be of no use to it.
func (o *Outgoing) noteAccepted(r *recipient) {
	if !o.kept || r.noted {
		o.noteRecipient(r)
	} else {
		o.do(Note{Records: recipientRecord(nil, r), Then: &Noted{r.id, r.transfer}})
	}
}

func (o *Outgoing) peer(id wire.ID) *recipient {
	for _, r := range o.peers {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (o *Outgoing) do(e Effect) { o.effects = append(o.effects, e) }
func (o *Outgoing) changed()    { o.do(Changed{}) }

func (o *Outgoing) control(r *recipient, m wire.ControlMessage) {
	if r.up {
		o.do(SendControl{r.id, m})
	}
}

func (o *Outgoing) violation(r *recipient, format string, args ...any) {
	o.end(r, Failed, fault.ProtocolViolation)
	o.do(Violation{r.id, fmt.Errorf(format, args...)})
}

// end brings a delivery to a final state.
func (o *Outgoing) end(r *recipient, s State, code fault.Code) {
	if !r.over() {
		r.unclaim()
		r.state, r.code, r.finished = s, code, o.now
		r.have = nil
		o.noteRecipient(r)
		o.changed()
	}
}

func (o *Outgoing) cancel(r *recipient) {
	if r.over() {
		return
	}
	if r.up {
		o.sendCancel(r, wire.FailureCancelled)
	} else {
		r.untold = wire.FailureCancelled
	}
	o.end(r, Cancelled, fault.Cancelled)
}

func (o *Outgoing) sendCancel(r *recipient, code wire.FailureCode) {
	o.control(r, wire.Cancel{Sender: o.key.Sender, Transfer: r.transfer, Code: code})
}

// retry begins a delivery anew. A file that could not be read gets another chance when nobody still counts on its failure: one
// that is suspended does, too, and ends with part of the files first.
func (o *Outgoing) retry(e RetryPeer) {
	r := o.peer(e.Peer)
	if r == nil || !r.state.Final() || r.state == Done {
		return
	}
	active := false
	for _, other := range o.peers {
		active = active || !other.over()
	}
	for i := range o.files {
		f := &o.files[i]
		switch {
		case active || f.failed == 0:
		case o.signed(uint32(i)):
			f.failed = 0 // of what it was then, or it fails again: its root is what the receipt is checked by
		default:
			*f = outFile{}
		}
	}
	if r.up || !r.suspended() { // messages of before may be on their way; over the next link there are none
		next := recipient{id: r.id, transfer: e.Transfer, up: r.up, late: r.late}
		next.follow(r)
		*r = next
	}
	r.since = o.now
	o.resume()
	if r.up {
		o.linkUp(r.id)
	} else {
		r.state, r.code = Interrupted, ""
	}
	o.noteRecipient(r)
	o.changed()
}

// follow keeps what an attempt before a retry leaves: its receipt, or that the recipient may have to be told of its end.
func (r *recipient) follow(old *recipient) {
	r.earlier, r.stale = old.earlier, old.stale
	switch {
	case old.receipt != nil:
		before := *old
		before.earlier, before.stale = nil, nil
		r.earlier = append(r.earlier, &before)
	case old.mayWait():
		r.stale = append(r.stale, &recipient{id: old.id, transfer: old.transfer, state: old.state, code: old.code, offered: old.offered, finished: old.finished})
		r.stale = r.stale[max(len(r.stale)-maxStale, 0):]
	}
}

// mayWait reports whether the recipient was offered what has ended, and may not have been told.
func (r *recipient) mayWait() bool {
	return (r.state == Cancelled || r.state == Failed) && !r.offered.IsZero()
}

// signed reports whether there is a receipt for a file.
func (o *Outgoing) signed(file uint32) bool {
	has := func(r *recipient) bool { return r.receipt != nil && r.receipt.Files.Has(file) }
	return slices.ContainsFunc(o.peers, func(r *recipient) bool { return has(r) || slices.ContainsFunc(r.earlier, has) })
}

// resume makes a transfer run again that had ended. Its journal may be gone.
func (o *Outgoing) resume() {
	if !o.finished {
		return
	}
	o.finished = false
	if o.kept && o.discarded {
		o.discarded = false
		o.do(Note{Records: o.Journal(o.now)})
	}
	o.do(Resumed{})
}

// linkUp offers the transfer, again too: a recipient that has accepted already answers with what it has, one that is done with
// its receipt.
func (o *Outgoing) linkUp(id wire.ID) {
	r := o.peer(id)
	if r == nil {
		if !o.offer.LateJoiners || slices.Contains(o.passed, id) || len(o.peers) >= wire.MaxParticipants && !o.forget() {
			return
		}
		r = &recipient{id: id, transfer: o.key.Transfer, late: true}
		o.peers = append(o.peers, r)
		o.offer.Participants = append(o.offer.Participants[:len(o.offer.Participants):len(o.offer.Participants)], id)
		o.noteRecipient(r)
	}
	r.up, r.accepted, r.queued = true, false, 0
	r.have = nil // what it said over a former link is replaced
	r.unclaim()
	tellEnds := func(suspended bool) {
		for _, old := range r.stale {
			if old.suspended() == suspended {
				o.control(r, wire.Cancel{Sender: o.key.Sender, Transfer: old.transfer, Code: wire.FailureCancelled})
			}
		}
	}
	tellEnds(false)
	if r.over() {
		tellEnds(true)
		// After a restart nobody knows whether it was told. One that has sent a receipt has an end of its own, which it may be about to reach again.
		if r.receipt == nil && (r.untold != 0 || r.mayWait()) {
			o.sendCancel(r, cmp.Or(r.untold, wire.FailureCancelled))
			r.untold = 0
		}
		return
	}
	r.state, r.code, r.finished = Offered, "", time.Time{}
	if r.offered.IsZero() {
		r.offered = o.now
	}
	o.resume()
	offer := o.offer
	offer.Transfer = r.transfer
	o.control(r, offer)
	for at := 0; at < len(o.manifest.Encoded); at += wire.MaxManifestPart {
		part := o.manifest.Encoded[at:min(at+wire.MaxManifestPart, len(o.manifest.Encoded))]
		o.control(r, wire.ManifestPart{Transfer: r.transfer, Offset: uint32(at), Data: part})
	}
	tellEnds(true) // not before: a recipient that has kept something goes on with it
	o.changed()
}

// forget makes room for a late joiner: by forgetting one that has gone without having accepted anything. If it comes back after all it is a new one.
func (o *Outgoing) forget() bool {
	at := slices.IndexFunc(o.peers, func(r *recipient) bool {
		return r.late && !r.up && r.state == Failed && r.wanted == nil && len(r.earlier) == 0
	})
	if at < 0 {
		return false
	}
	id := o.peers[at].id
	o.peers = slices.Delete(o.peers, at, at+1)
	o.offer.Participants = slices.DeleteFunc(slices.Clone(o.offer.Participants), func(p wire.ID) bool { return p == id })
	if o.kept {
		o.do(Note{Records: bytesRecord(nil, recordForgotten, id[:])})
	}
	return true
}

func (o *Outgoing) linkDown(e LinkDown) {
	r := o.peer(e.Peer)
	if r == nil {
		return
	}
	r.up, r.accepted, r.queued = false, false, 0
	if r.state.Final() {
		if e.Final && e.Code == fault.Removed {
			o.end(r, Failed, e.Code) // it need not be waited for any more
		}
		return
	}
	if e.Final {
		o.end(r, Failed, e.Code)
	} else if r.state != Interrupted {
		r.state, r.since = Interrupted, o.now
		o.changed()
	}
}

func (o *Outgoing) received(e Received) {
	r := o.peer(e.Peer)
	cancel, _ := e.Message.(wire.Cancel)
	givenUp := cancel.Code == wire.FailureCancelled // which ends one that could go on
	if r == nil || !r.up || r.state.Final() && !(givenUp && r.suspended()) || KeyOf(e.Message, o.key.Sender, e.Peer) != (Key{o.key.Sender, r.transfer}) {
		return // it crossed our cancelling, or belongs to an attempt that is over
	}
	switch m := e.Message.(type) {
	case wire.Have:
		o.haveChunks(r, m)
	case wire.Accept:
		if o.accepted(r, m) {
			r.restored = false
			o.noteAccepted(r)
		}
	case wire.Decline:
		if r.accepted {
			o.violation(r, "declined after accepting")
			return
		}
		r.reason = m.Reason
		o.end(r, Declined, fault.Declined)
	case wire.Credit:
		if !r.accepted || m.Granted < r.credit || m.Stored > r.total {
			o.violation(r, "bad credit")
			return
		}
		r.credit, r.stored = m.Granted, m.Stored
		r.meter.update(o.now, r.stored)
		if r.ended && r.stored == r.total && r.state == Transferring {
			r.state = Verifying
		}
		o.changed()
	case wire.Saving:
		if r.accepted && r.ended && !r.state.Final() && r.state != Saving {
			r.state = Saving
			o.changed()
		}
	case wire.Receipt:
		o.receipt(r, m)
	case wire.Cancel:
		code, state := failureCodes[m.Code], Failed
		if m.Code == wire.FailureCancelled {
			state = Cancelled
		}
		o.end(r, state, code)
	case wire.Pause:
		r.held, r.full = m.Paused, m.Full
		o.changed()
	default:
		o.violation(r, "unexpected %T", m)
	}
}

func (o *Outgoing) haveChunks(r *recipient, m wire.Have) {
	if int(m.File) >= len(o.files) || r.accepted || r.have[m.File] != nil {
		o.violation(r, "bad have-map")
		return
	}
	have := &chunk.Set{}
	for _, run := range m.Runs {
		if uint64(run.First)+uint64(run.Count) > uint64(o.manifest.Chunks(m.File)) {
			o.violation(r, "have-map beyond the file")
			return
		}
		have.AddRun(run)
	}
	if r.have == nil {
		r.have = map[uint32]*chunk.Set{}
	}
	r.have[m.File] = have
}

// accepted reports false for a violation.
func (o *Outgoing) accepted(r *recipient, m wire.Accept) bool {
	if !m.Files.Fits(len(o.files)) || m.Files.Empty() || !m.Complete.Fits(len(o.files)) || r.accepted {
		o.violation(r, "bad accept")
		return false
	}
	r.state, r.accepted, r.held, r.full = Transferring, true, false, false
	r.wanted = append(wire.Bitmap{}, m.Files...)
	r.complete = append(wire.Bitmap{}, m.Complete...)
	r.credit, r.spent = m.Credit, 0
	if r.reached.Before(r.at) {
		r.reached = r.at
	}
	r.at, r.announced, r.runs, r.hashes, r.ended = chunk.Ref{}, 0, nil, 0, false
	r.total, r.stored = 0, 0
	for i := range o.files {
		f := uint32(i)
		if !r.wanted.Has(f) {
			continue
		}
		if o.files[i].failed != 0 {
			o.control(r, wire.FileFailed{Transfer: r.transfer, File: f, Code: o.files[i].failed})
		}
		if r.complete.Has(f) && o.files[i].known.Count() != o.manifest.Chunks(f) {
			// Its hashes have to be read first, for the root.
			r.complete.Clear(f)
			if r.have == nil {
				r.have = map[uint32]*chunk.Set{}
			}
			r.have[f] = &chunk.Set{}
			r.have[f].AddRun(wire.Run{Count: o.manifest.Chunks(f)})
		}
		r.total += o.manifest.Files[i].Size
		if r.complete.Has(f) {
			r.stored += o.manifest.Files[i].Size
		} else {
			r.stored += chunkBytes(o.manifest, f, r.have[f])
		}
	}
	r.meter = meter{at: o.now, total: r.stored}
	if o.held() {
		o.control(r, wire.Pause{Sender: o.key.Sender, Transfer: r.transfer, Paused: true})
	}
	o.changed()
	return true
}

// Awaits reports whether a receipt of the recipient's would count now. Any other is ignored, or a violation, whatever its signature.
func (o *Outgoing) Awaits(peer wire.ID, m wire.Receipt) bool {
	r := o.peer(peer)
	return r != nil && r.up && !r.state.Final() && m.Transfer == r.transfer && (r.confirms(m) || r.mayClaim())
}

// mayClaim reports whether the recipient may send a receipt for what was not noted.
func (r *recipient) mayClaim() bool { return r.restored && !r.accepted }

// confirms reports whether the receipt is for the last End that was signed.
func (r *recipient) confirms(m wire.Receipt) bool {
	return r.signed != nil && m.Root == r.signed.Root && string(m.Files) == string(r.signed.Files)
}

// unclaim forgets a claim that has been settled, or that comes again.
func (r *recipient) unclaim() {
	if r.claim != nil {
		r.wanted, r.claim = r.claim.wanted, nil
	}
}

func (o *Outgoing) receipt(r *recipient, m wire.Receipt) {
	m.Files = append(wire.Bitmap{}, m.Files...)
	m.Signature = append([]byte{}, m.Signature...)
	if !r.confirms(m) {
		if !r.mayClaim() {
			o.violation(r, "receipt for something else")
			return
		}
		// As if it had accepted just that, and had all of it: then all is read, and nothing is sent that it does not ignore.
		claim := &claim{m, r.wanted}
		if o.accepted(r, wire.Accept{Transfer: r.transfer, Credit: math.MaxUint64, Files: m.Files, Complete: m.Files}) {
			r.claim = claim
		}
		return
	}
	r.receipt, r.stored = &m, o.confirmed(&m)
	var failed wire.FailureCode
	for i := range o.files {
		if f := uint32(i); r.wanted.Has(f) && !m.Files.Has(f) {
			failed = cmp.Or(o.files[i].failed, wire.FailureFileUnreadable) // of one that failed before a restart nobody knows how
		}
	}
	if failed != 0 { // part of a delivery is never success
		o.end(r, Failed, failureCodes[failed])
	} else {
		o.end(r, Done, "")
	}
}

func (o *Outgoing) readDone(e ReadDone) {
	o.reading--
	o.unread -= int(o.manifest.Length(e.Chunk))
	entry := o.cache[e.Chunk]
	f := &o.files[e.Chunk.File]
	if e.Err == nil && f.known.Has(e.Chunk.Index) && f.hashes[e.Chunk.Index] != e.Hash {
		e.Err = ErrSourceChanged
	}
	if e.Err != nil || f.failed != 0 || entry == nil || entry.buffer != nil {
		e.Buffer.Release()
		if entry != nil && (e.Err != nil || f.failed != 0) {
			o.evict(e.Chunk, entry)
		}
		if e.Err != nil {
			o.failFile(e.Chunk.File, e.Err)
		}
		return
	}
	if f.known.Add(e.Chunk.Index) {
		if f.hashes == nil {
			f.hashes = make([]wire.Hash, o.manifest.Chunks(e.Chunk.File))
		}
		f.hashes[e.Chunk.Index] = e.Hash
		if o.kept {
			o.do(Note{Records: hashesRecord(nil, e.Chunk.File, e.Chunk.Index, f.hashes[e.Chunk.Index:e.Chunk.Index+1])})
		}
	}
	entry.buffer = e.Buffer
	o.touch(entry)
}

func (o *Outgoing) failFile(file uint32, err error) {
	f := &o.files[file]
	if f.failed != 0 {
		return
	}
	f.failed = wire.FailureFileUnreadable
	if errors.Is(err, ErrSourceChanged) {
		f.failed = wire.FailureFileChanged
	}
	for _, r := range o.peers {
		if r.accepted && !r.state.Final() && !r.ended && r.wanted.Has(file) {
			o.control(r, wire.FileFailed{Transfer: r.transfer, File: file, Code: f.failed})
		}
	}
	for ref, entry := range o.cache { // nobody wants them now, and a retry reads the file anew
		if ref.File == file && entry.buffer != nil {
			o.evict(ref, entry)
		}
	}
	o.changed()
}

func (o *Outgoing) tick() {
	for _, r := range o.peers {
		switch r.state {
		case Interrupted:
			if o.now.Sub(r.since) > Grace {
				o.end(r, Failed, fault.PeerGone)
			}
		case Transferring:
			before := r.meter.speed
			r.meter.update(o.now, r.stored)
			if r.meter.speed != before {
				o.changed()
			}
		}
	}
}

// finish ends the transfer when every delivery has ended.
func (o *Outgoing) finish() {
	if o.offer.LateJoiners || slices.ContainsFunc(o.peers, func(r *recipient) bool { return !r.state.Final() }) {
		return
	}
	if !o.finished {
		o.finished = true
		o.Close()
		o.do(Finished{})
	}
	if o.kept && !o.discarded && o.Over() {
		o.discarded = true
		o.do(Discard{})
	}
}

// Over reports whether every delivery has ended, and none of them may go on by itself.
func (o *Outgoing) Over() bool {
	return !o.offer.LateJoiners && !slices.ContainsFunc(o.peers, func(r *recipient) bool { return !r.over() })
}

// Close releases the cache. Reads under way are released as they come in.
func (o *Outgoing) Close() {
	for ref, entry := range o.cache {
		o.evict(ref, entry)
	}
}

// pump sends what can be sent and reads what will be needed.
func (o *Outgoing) pump() {
	granted := o.granted
	o.granted, o.waits, o.limited = false, false, false
	if o.paused {
		for _, r := range o.peers {
			r.bucket.rest(o.now)
		}
		o.bucket.rest(o.now)
		return
	}
	var candidates []Candidate
	var sends []Send
	for progress := true; progress; {
		progress, o.limited = false, false
		candidates, sends = candidates[:0], sends[:0]
		for _, r := range o.peers {
			if !o.flowing(r) || o.kept && !r.noted || r.queued >= window {
				r.bucket.rest(o.now)
				continue
			}
			next, what := o.next(r)
			switch {
			case what == nothing:
				o.sendEnd(r)
			case what == later || r.spent+wire.MessageCost+wire.ChunkCost(o.manifest.Length(next)) > r.credit:
				r.bucket.rest(o.now)
			case r.bucket.allows(o.now, o.limit):
				candidates = append(candidates, Candidate{r.id, next, max(r.turn, o.shared.turn)})
			default:
				o.limited = true
			}
		}
		sends = o.schedule.Next(sends, candidates)
		for _, s := range sends {
			r := o.peer(s.Peer)
			if !o.bucket.allows(o.now, o.total) {
				o.limited = true
				break
			}
			if o.shared.limit > 0 && !granted {
				o.limited = true
				o.wait(r, s.Chunk)
			} else if o.send(r, s.Chunk) {
				progress, granted = true, false
			}
		}
	}
	if !o.limited {
		o.bucket.rest(o.now)
	}
	o.readAhead()
}

// wait notes that a recipient waits for the shared limit, once what it is to get is there.
func (o *Outgoing) wait(r *recipient, next chunk.Ref) {
	entry := o.cache[next]
	if data, _ := o.content(r, next, entry); data == nil {
		o.fetch(next, entry)
	} else if turn := max(r.turn, o.shared.turn); !o.waits || turn < o.due {
		o.due, o.waits = turn, true
	}
}

func (o *Outgoing) flowing(r *recipient) bool {
	return r.state == Transferring && r.up && r.accepted && !r.held && !r.full && !r.ended
}

// lack is what a recipient lacks.
type lack uint8

const (
	nothing  lack = iota // everything has been sent
	sendable             // a chunk, or its hash
	later                // it cannot be said before the transport has taken some of what is queued
)

// next is the first chunk, in order, that the recipient lacks or whose hash is not known. On the way it announces the
// rest of files whose remaining chunks the recipient has.
func (o *Outgoing) next(r *recipient) (chunk.Ref, lack) {
	for int(r.at.File) < len(o.files) {
		f := &o.files[r.at.File]
		n := o.manifest.Chunks(r.at.File)
		wanted := f.failed == 0 && r.wanted.Has(r.at.File) && !r.complete.Has(r.at.File)
		if wanted && r.at.Index < n {
			have := r.have[r.at.File]
			if have == nil || !have.Has(r.at.Index) || !f.known.Has(r.at.Index) {
				return r.at, sendable
			}
			r.at.Index++
			continue
		}
		if wanted && r.announced < n {
			if r.queued >= window {
				return r.at, later
			}
			o.announce(r, n)
			continue // a long list takes several steps
		}
		r.at, r.announced = chunk.Ref{File: r.at.File + 1}, 0
	}
	return chunk.Ref{}, nothing
}

// announce adds to the next Hashes message what is known of the recipient's present file and it has not been told, at
// least up to chunk need unless that is too much for one message.
func (o *Outgoing) announce(r *recipient, need uint32) {
	f := &o.files[r.at.File]
	end := min(need, r.announced+wire.MaxHashes)
	for end < uint32(len(f.hashes)) && end-r.announced < wire.MaxHashes && f.known.Has(end) {
		end++
	}
	run := wire.HashRun{File: r.at.File, First: r.announced}
	for _, h := range f.hashes[r.announced:end] {
		run.List = append(run.List, h[:]...)
	}
	r.announced = end
	if r.hashes+run.Count() > wire.MaxHashes {
		o.flush(r)
	}
	r.runs = append(r.runs, run)
	r.hashes += run.Count()
}

// flush sends the hashes that announce has gathered; they go ahead of their chunks.
func (o *Outgoing) flush(r *recipient) {
	if len(r.runs) > 0 {
		r.queued++
		o.do(SendBulk{Peer: r.id, Head: wire.Hashes{Sender: o.key.Sender, Transfer: r.transfer, Runs: r.runs}.Append(nil)})
		r.runs, r.hashes = nil, 0
	}
}

// send sends the chunk, which is the recipient's next, and as many small ones after it as fit into a message. It reports whether
// it could: if not, the chunk is being read or compressed.
func (o *Outgoing) send(r *recipient, first chunk.Ref) bool {
	var m wire.Chunks
	var data []*bulk.Buffer
	total, again := uint32(0), 0
	for ref, what := first, sendable; what == sendable; ref, what = o.next(r) {
		n := o.manifest.Length(ref)
		cost := wire.ChunkCost(n)
		if len(data) == 0 {
			cost += wire.MessageCost
		}
		entry := o.cache[ref]
		content, compressed := o.content(r, ref, entry)
		if len(data) > 0 && (total+n > o.manifest.ChunkSize || len(m.Entries) == wire.MaxRun ||
			content == nil || r.spent+cost > r.credit || !o.allowed(r)) {
			break
		}
		if content == nil {
			o.fetch(ref, entry)
			return false
		}
		for r.announced <= ref.Index {
			o.announce(r, ref.Index+1)
		}
		r.at.Index++
		if have := r.have[ref.File]; have != nil && have.Has(ref.Index) {
			continue // only its hash was lacking
		}
		m.Entries = append(m.Entries, wire.ChunkEntry{File: ref.File, Index: ref.Index, Compressed: compressed, RawLength: n, Length: uint32(len(content.B))})
		data = append(data, content.Retain())
		o.touch(entry)
		total += n
		if ref.Before(r.reached) {
			again++
		}
		r.spent += cost
		o.took(r, n)
	}
	o.flush(r)
	if len(data) > 0 {
		m.Sender, m.Transfer = o.key.Sender, r.transfer
		r.queued++
		o.do(SendBulk{Peer: r.id, Head: m.AppendHead(nil), Data: data, Bytes: total, Again: again})
	}
	return true
}

// allowed reports whether the limits leave anything to the recipient.
func (o *Outgoing) allowed(r *recipient) bool {
	return r.bucket.allows(o.now, o.limit) && o.bucket.allows(o.now, o.total) && o.shared.Allows(o.now)
}

// took charges a chunk of n bytes that goes to the recipient.
func (o *Outgoing) took(r *recipient, n uint32) {
	for _, b := range []*bucket{&r.bucket, &o.bucket, &o.shared.bucket} {
		b.take(n)
	}
	o.shared.turn = max(o.shared.turn, r.turn)
	r.turn = o.shared.turn + uint64(n)
}

// sendEnd closes the delivery: everything wanted has been sent, except what failed.
func (o *Outgoing) sendEnd(r *recipient) {
	files := wire.NewBitmap(len(o.files))
	complete, failed := 0, wire.FailureCode(0)
	for i := range o.files {
		switch f := uint32(i); {
		case !r.wanted.Has(f):
		case o.files[i].failed != 0:
			failed = o.files[i].failed
		default:
			files.Set(f)
			complete++
		}
	}
	if complete == 0 && failed != 0 {
		o.sendCancel(r, failed)
		o.end(r, Failed, failureCodes[failed])
		return
	}
	root := o.manifest.DeliveryRoot(o.key.Sender, r.transfer, files, func(f uint32) wire.Hash {
		root, ok := o.FileRoot(f)
		if !ok {
			panic("transfer: a file was sent whose hashes are not all known")
		}
		return root
	})
	o.flush(r)
	r.ended, r.signed = true, &wire.End{Transfer: r.transfer, Root: root, Files: files}
	if c := r.claim; c != nil {
		r.unclaim()
		if r.wanted == nil {
			r.wanted = files
		}
		if r.confirms(c.receipt) {
			o.receipt(r, c.receipt)
		} else {
			o.end(r, Failed, cmp.Or(failureCodes[failed], fault.FileChanged))
		}
		return
	}
	o.noteRecipient(r)
	if r.stored == r.total {
		r.state = Verifying
	}
	r.queued++
	o.do(SendBulk{Peer: r.id, End: r.signed})
	o.changed()
}

func (o *Outgoing) touch(entry *cached) {
	o.turn++
	entry.used = o.turn
}

func (o *Outgoing) evict(ref chunk.Ref, entry *cached) {
	entry.buffer.Release()
	entry.packed.Release()
	o.cached -= entry.length
	delete(o.cache, ref)
}

// read starts reading a chunk, unless it is there or too much is being read. It makes room by dropping what has not been used for the
// longest time; reading ahead (not needed yet) never drops what has been read ahead.
func (o *Outgoing) read(ref chunk.Ref, needed bool) {
	n := int(o.manifest.Length(ref))
	if o.wanting || o.cache[ref] != nil || !o.mayRead(n) && (!needed || o.reading >= 2*maxReads) {
		return
	}
	limit := max(cacheBytes, cacheChunks*int(o.manifest.ChunkSize))
	if o.cached+n > limit && !o.drop(limit-n, needed) {
		return
	}
	entry := &cached{length: n}
	o.touch(entry)
	entry.id = o.turn
	o.cache[ref] = entry
	o.cached += n
	o.reading++
	o.unread += n
	o.do(Read{Chunk: ref, Offset: o.manifest.Offset(ref), Length: uint32(n)})
}

// mayRead reports whether a chunk of n bytes may be read beside the others.
func (o *Outgoing) mayRead(n int) bool {
	return o.reading < maxReads || o.reading < maxSmallReads && o.unread+n <= smallReadBytes
}

// drop evicts what has not been used for the longest time, until the cache holds at most so many bytes. It reports whether it could.
func (o *Outgoing) drop(most int, needed bool) bool {
	enough := most
	if len(o.cache) > manyCached {
		enough -= most / 16 // or every small file would have all of them looked through
	}
	var ready []chunk.Ref
	for ref, entry := range o.cache {
		if entry.buffer != nil {
			ready = append(ready, ref)
		}
	}
	slices.SortFunc(ready, func(a, b chunk.Ref) int { return cmp.Compare(o.cache[a].used, o.cache[b].used) })
	for _, ref := range ready {
		entry := o.cache[ref]
		if o.cached <= enough || !needed && o.turn-entry.used < uint64(len(o.cache)) {
			break
		}
		o.evict(ref, entry)
	}
	return o.cached <= most
}

// readAhead reads the chunks that the recipients will want next.
func (o *Outgoing) readAhead() {
	for _, r := range o.peers {
		if !o.flowing(r) {
			continue
		}
		ref, ahead := r.at, 0
		for steps := 0; steps < readAheadSteps && int(ref.File) < len(o.files) &&
			ahead < max(readAhead, int(o.manifest.ChunkSize)) && o.mayRead(1); steps++ {
			if o.files[ref.File].failed != 0 || !r.wanted.Has(ref.File) || r.complete.Has(ref.File) || ref.Index >= o.manifest.Chunks(ref.File) {
				ref = chunk.Ref{File: ref.File + 1}
				continue
			}
			if have := r.have[ref.File]; have == nil || !have.Has(ref.Index) {
				ahead += int(o.manifest.Length(ref))
				o.read(ref, false)
				if entry := o.cache[ref]; entry != nil && entry.buffer != nil {
					if data, _ := o.content(r, ref, entry); data == nil {
						o.fetch(ref, entry)
					}
				}
			}
			ref.Index++
		}
	}
}
