package room

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

const (
	maxOffersPerMember = 8        // that wait for an answer
	withdrawalsEach    = 1        // offers a second that a member may make and withdraw: each has been shown
	withdrawalsBurst   = 64       // and at once
	maxStoring         = 8        // messages whose chunks are verified and written to a disk at a time
	maxTransfers       = 64       // kept, those that are over included, of which the oldest goes first; and accepted at a time
	maxManifests       = 16 << 20 // bytes of manifests of a member's unanswered offers; they have wire.MaxFiles files at most
)

// TransferID names a transfer: only its sender can continue it.
type TransferID = transfer.Key

// outgoing is an outgoing transfer and what the room does for it.
type outgoing struct {
	machine   *transfer.Outgoing
	files     []OutFile
	rereading bool               // restored: whether its files are what they were is being looked at
	given     []OutFile          // restored: those of its files that it has again, while others are lacking
	paths     []string           // safe, as the recipients make them
	names     map[wire.ID]string // of recipients whose link was lost: they may be gone
	keys      map[wire.ID][]byte // of recipients that there has been a link to
	journal   *journal           // nil: nothing outlives the room
	notKept   bool               // it cannot be written
	dirty     bool
	stages    stages
	ended     bool
	order     uint64

	published time.Time

	mu   sync.Mutex
	read []transfer.Event // reads that have ended, and are still to be told the machine
}

// incoming is an incoming transfer and what the room does for it.
type incoming struct {
	machine *transfer.Incoming
	store   *store
	disk    *disk  // where store lies
	name    string // the sender's, when its link was lost
	shown   bool   // as an offer
	left    bool   // to another room: nothing that happens here counts
	dirty   bool
	from    *connection // over which its sender was heard last, nil in an earlier room
	stages  stages
	ended   bool
	order   uint64

	published time.Time
}

// stages is how many of a transfer's deliveries have begun, are being verified, and are being made durable. Each can be short, and is reported at
// once, so that nobody misses it; what a peer could flap between, pauses say, waits for the next tick.
type stages struct{ begun, verifying, saving int }

// advance reports whether a delivery has come further.
func (s *stages) advance(list []transfer.Progress) bool {
	was := *s
	*s = stages{}
	for _, p := range list {
		switch p.State {
		case transfer.Saving:
			s.saving++
		case transfer.Verifying:
			s.verifying++
		case transfer.Transferring, transfer.Paused:
			s.begun++
		}
	}
	s.verifying += s.saving
	s.begun += s.verifying
	return s.begun > was.begun || s.verifying > was.verifying || s.saving > was.saving
}

// Send offers files to members of the room: to those that are named or, by default, to every member whose state is PeerOpen or PeerConnecting.
// Whoever has no open link is waited for as when one is lost (transfer.Grace).
func (r *Room) Send(files []OutFile, options SendOptions) (snapshot Transfer, err error) {
	if len(files) == 0 {
		return snapshot, fault.Newf(fault.InvalidArgument, "room: nothing to send")
	}
	if err := checkLimits(options.LimitPerRecipient, options.Limit); err != nil {
		return snapshot, err
	}
	files = slices.Clone(files)
	entries := make([]wire.FileEntry, len(files))
	var total uint64
	for i := range files {
		f := &files[i]
		if f.Kind == wire.KindText {
			f.Source = text(f.Text)
		}
		if f.Kind != wire.KindDirectory && f.Source == nil {
			return snapshot, fault.Newf(fault.InvalidArgument, "room: file %d without content", i)
		}
		entries[i] = wire.FileEntry{Kind: f.Kind, MediaType: f.Type, Modified: uint64(max(f.Modified, 0)), Path: strings.ToValidUTF8(f.Path, "_")}
		if f.Kind != wire.KindDirectory {
			entries[i].Size = uint64(f.Source.Size())
		}
		total += entries[i].Size
	}
	size := options.ChunkSize
	if size == 0 {
		size = chunk.SizeFor(total)
	}
	if !wire.ValidChunkSize(size) {
		return snapshot, fault.Newf(fault.InvalidArgument, "room: chunk size %d", size)
	}
	manifest, err := chunk.NewManifest(size, entries)
	if err != nil {
		return snapshot, fault.New(fault.TooLarge, err)
	}
	err = r.attempt(func() error {
		to := slices.Clone(options.To)
		var passed []wire.ID // who is here and was not picked is no late joiner
		for _, id := range r.order {
			switch {
			case options.To == nil && r.members[id].expected():
				to = append(to, id)
			case options.To != nil && options.LateJoiners && !slices.Contains(to, id):
				passed = append(passed, id)
			}
		}
		switch {
		case len(to) == 0 && !options.LateJoiners:
			return fault.New(fault.NoRecipients, nil)
		case len(to) > r.maxRecipients():
			return fault.New(fault.TooManyRecipients, nil)
		}
		for i, id := range to {
			if r.members[id] == nil || slices.Contains(to[:i], id) {
				return fault.Newf(fault.UnknownPeer, "room: no member %s, or named twice", id)
			}
		}
		o := &outgoing{files: files, paths: chunk.SafePaths(entries), names: map[wire.ID]string{}, keys: map[wire.ID][]byte{}, order: r.nextOrder(), machine: transfer.NewOutgoing(transfer.OutgoingConfig{
			Key: transfer.Key{Sender: r.self, Transfer: newID()}, Manifest: manifest, Recipients: to,
			LateJoiners: options.LateJoiners, Passed: passed, Limit: options.LimitPerRecipient, TotalLimit: options.Limit, Shared: &r.shared,
			Schedule: transfer.Star{}, Plain: options.Plain, Keep: r.cfg.Resume})}
		r.makeRoom()
		r.outgoing[o.machine.Key()] = o
		if r.cfg.Resume {
			r.noteOutgoing(o, o.machine.Journal(r.cfg.Now()))
		}
		for _, id := range to {
			if m := r.members[id]; m.open() {
				r.offerTo(o, m)
			} else {
				r.stepOutgoing(o, transfer.LinkDown{Peer: id})
			}
		}
		snapshot = r.outgoingSnapshot(o)
		return nil
	})
	return snapshot, err
}

// maxRecipients is how many recipients one transfer may have.
func (r *Room) maxRecipients() int {
	if r.roster.MaxMembers > 1 {
		return int(r.roster.MaxMembers) - 1
	}
	return r.cfg.MaxRecipients
}

// closeSources lets go of its files.
func (o *outgoing) closeSources() {
	closeSources(o.files)
	closeSources(o.given)
}

// closeSources lets go of files that nobody asks for any more.
func closeSources(files []OutFile) {
	for _, f := range files {
		if c, ok := f.Source.(io.Closer); ok {
			c.Close()
		}
	}
}

// text is the Source of a text.
type text string

// ReadAt implements io.ReaderAt.
func (t text) ReadAt(p []byte, off int64) (int, error) {
	return strings.NewReader(string(t)).ReadAt(p, off)
}

// Size implements transfer.Source.
func (t text) Size() int64 { return int64(len(t)) }

func (r *Room) nextOrder() uint64 {
	var last uint64
	for _, o := range r.outgoing {
		last = max(last, o.order)
	}
	for _, in := range r.incoming {
		last = max(last, in.order)
	}
	return last + 1
}

// makeRoom forgets the oldest transfers that are over when there are too many. What is under way, or suspended until its other end is back, is never
// forgotten: it reports whether that leaves room for another offer. Unanswered offers have bounds of their own.
func (r *Room) makeRoom() bool {
	type ended struct {
		key   transfer.Key
		order uint64
	}
	var over []ended
	taken := 0
	for k, o := range r.outgoing {
		if o.ended && o.machine.Over() && !o.rereading {
			over = append(over, ended{k, o.order})
		}
	}
	for k, in := range r.incoming {
		switch {
		case in.ended && !in.machine.Suspended():
			over = append(over, ended{k, in.order})
		case in.machine.Accepted():
			taken++
		}
	}
	slices.SortFunc(over, func(a, b ended) int { return cmp.Compare(a.order, b.order) })
	for len(over) > 0 && len(r.outgoing)+len(r.incoming) >= maxTransfers {
		oldest := over[0].key
		over = over[1:]
		if o := r.outgoing[oldest]; o != nil {
			o.closeSources()
		}
		delete(r.outgoing, oldest)
		delete(r.incoming, oldest)
	}
	return taken < maxTransfers
}

// Bounded is a Storage that holds at most so many bytes, whatever is removed from it.
type Bounded interface {
	transfer.Storage
	Limit() int64 // -1: none
}

// Accept takes an offer: all of its files, or those named. It fails with DiskFull for more than the storage can ever hold. What its disk has
// no room for now is accepted: what the system says of free space is an estimate, and the delivery waits until there is room.
func (r *Room) Accept(key transfer.Key, files []uint32) (Transfer, error) {
	return r.AcceptInto(nil, key, files)
}

// AcceptInto is Accept for what is to be kept in a storage of the delivery's own, which takes what it can and outlives nothing: no other room goes on with
// the delivery, and when this one closes it ends. On success the storage is the room's, which removes what it has not received whole. nil is that of the room.
func (r *Room) AcceptInto(into transfer.Storage, key transfer.Key, files []uint32) (snapshot Transfer, err error) {
	var need uint64
	check := func() (*incoming, error) {
		in := r.incoming[key]
		if in == nil || !in.machine.Ready() || in.ended || in.machine.Accepted() {
			return nil, fault.New(fault.UnknownTransfer, nil)
		}
		return in, nil
	}
	err = r.attempt(func() error {
		in, err := check()
		if err != nil {
			return err
		}
		m := in.machine.Manifest()
		wanted := wire.NewBitmap(len(m.Files))
		for _, f := range files {
			if int(f) >= len(m.Files) || wanted.Has(f) {
				return fault.Newf(fault.InvalidArgument, "room: no file %d, or named twice", f)
			}
			wanted.Set(f)
			need += m.Files[f].Size
		}
		switch {
		case files == nil:
			need = m.Total
		case len(files) == 0:
			return fault.Newf(fault.InvalidArgument, "room: no file of the offer is accepted")
		}
		return nil
	})
	if err != nil {
		return snapshot, err
	}
	if s, ok := r.cfg.Storage.(Bounded); ok && into == nil && s.Limit() >= 0 && uint64(s.Limit()) < need {
		return snapshot, fault.Newf(fault.DiskFull, "room: %d bytes at most, not %d", s.Limit(), need)
	}
	err = r.attempt(func() error {
		in, err := check()
		if err != nil {
			return err
		}
		if into != nil {
			in.store, in.disk = newStore(r.ctx, into, in.store.delivery), new(disk) // without the journal, of which nothing is written yet
			in.machine.Keep(false)
		}
		r.shareCredit(in)
		r.stepIncoming(in, transfer.AcceptFiles{Files: files})
		in.store.arrange(in.machine.Manifest(), in.machine.Wanted())
		if m := r.members[key.Sender]; m != nil {
			in.store.journal.note(transfer.NameRecord(key.Sender, m.name))
		}
		snapshot = r.incomingSnapshot(in)
		return nil
	})
	return snapshot, err
}

// Decline refuses an offer, with a reason for the sender of at most 200 bytes.
func (r *Room) Decline(key transfer.Key, reason string) error {
	if len(reason) > 200 || strings.ToValidUTF8(reason, "") != reason {
		return fault.Newf(fault.InvalidArgument, "room: reason too long")
	}
	return r.attempt(func() error {
		in := r.incoming[key]
		if in == nil || in.ended || in.machine.Accepted() {
			return fault.New(fault.UnknownTransfer, nil)
		}
		r.stepIncoming(in, transfer.DeclineOffer{Reason: reason})
		return nil
	})
}

// Cancel ends a transfer for everyone.
func (r *Room) Cancel(key transfer.Key) error { return r.stepTransfer(key, transfer.CancelAll{}) }

// StopOffering offers an outgoing transfer to nobody who is admitted from now on. It finishes when the deliveries that there are have ended.
func (r *Room) StopOffering(key transfer.Key) error {
	return r.withOutgoing(key, func(o *outgoing) error { r.stepOutgoing(o, transfer.StopOffering{}); return nil })
}

// SetPaused holds a transfer, or lets it go on.
func (r *Room) SetPaused(key transfer.Key, paused bool) error {
	return r.stepTransfer(key, transfer.SetPaused{Paused: paused})
}

func (r *Room) stepTransfer(key transfer.Key, e transfer.Event) error {
	return r.attempt(func() error {
		if o := r.outgoing[key]; o != nil {
			r.stepOutgoing(o, e)
		} else if in := r.incoming[key]; in != nil {
			r.stepIncoming(in, e)
		} else {
			return fault.New(fault.UnknownTransfer, nil)
		}
		return nil
	})
}

// CancelDelivery ends an outgoing transfer for one recipient.
func (r *Room) CancelDelivery(key transfer.Key, to wire.ID) error {
	return r.withOutgoing(key, func(o *outgoing) error { r.stepOutgoing(o, transfer.CancelPeer{Peer: to}); return nil })
}

// Retry offers an outgoing transfer again to a recipient whose delivery has failed, was declined or cancelled.
func (r *Room) Retry(key transfer.Key, to wire.ID) error {
	return r.withOutgoing(key, func(o *outgoing) error {
		r.stepOutgoing(o, transfer.RetryPeer{Peer: to, Transfer: newID()})
		if m := r.members[to]; m == nil {
			r.stepOutgoing(o, transfer.LinkDown{Peer: to, Final: true, Code: fault.PeerGone})
		} else if !m.open() {
			r.stepOutgoing(o, transfer.LinkDown{Peer: to})
		}
		return nil
	})
}

func checkLimits(bytesPerSecond ...int64) error {
	if slices.Min(bytesPerSecond) < 0 {
		return fault.Newf(fault.InvalidArgument, "room: negative limit")
	}
	return nil
}

// SetLimit changes an outgoing transfer's limit, in bytes of files per second and recipient; 0: none.
func (r *Room) SetLimit(key transfer.Key, bytesPerSecond int64) error {
	if err := checkLimits(bytesPerSecond); err != nil {
		return err
	}
	return r.withOutgoing(key, func(o *outgoing) error {
		o.machine.SetLimit(bytesPerSecond)
		r.stepOutgoing(o, transfer.Tick{})
		return nil
	})
}

// SetTotalLimit changes an outgoing transfer's limit, in bytes of files per second to all its recipients together; 0: none.
func (r *Room) SetTotalLimit(key transfer.Key, bytesPerSecond int64) error {
	if err := checkLimits(bytesPerSecond); err != nil {
		return err
	}
	return r.withOutgoing(key, func(o *outgoing) error {
		o.machine.SetTotalLimit(bytesPerSecond)
		r.stepOutgoing(o, transfer.Tick{})
		return nil
	})
}

// SetRoomLimit changes the limit on all that this member sends, in bytes of files per second; 0: none.
func (r *Room) SetRoomLimit(bytesPerSecond int64) error {
	if err := checkLimits(bytesPerSecond); err != nil {
		return err
	}
	return r.attempt(func() error {
		r.shared.SetLimit(r.cfg.Now(), bytesPerSecond)
		for _, o := range r.outgoing {
			r.stepOutgoing(o, transfer.Tick{})
		}
		return nil
	})
}

// grant lets out what the room's limit allows, in turn.
func (r *Room) grant() {
	for r.shared.Limited() {
		var next *outgoing
		var first uint64
		limited := false
		for _, o := range r.outgoing {
			limited = limited || o.machine.Limited()
			if turn, waits := o.machine.Waits(); waits && (next == nil || turn < first) {
				next, first = o, turn
			}
		}
		if !limited {
			r.shared.Rest(r.cfg.Now())
		}
		if next == nil || !r.shared.Allows(r.cfg.Now()) {
			return
		}
		r.stepOutgoing(next, transfer.Grant{})
	}
}

func (r *Room) withOutgoing(key transfer.Key, fn func(*outgoing) error) error {
	return r.attempt(func() error {
		o := r.outgoing[key]
		if o == nil {
			return fault.New(fault.UnknownTransfer, nil)
		}
		return fn(o)
	})
}

// MarkVerified notes whether the person has compared the safety words with a member. It sticks to the member's identity.
func (r *Room) MarkVerified(id wire.ID, verified bool) error {
	return r.attempt(func() error {
		m := r.members[id]
		if m == nil {
			return fault.New(fault.UnknownPeer, nil)
		}
		m.verified = verified
		return nil
	})
}

// Offers are the offers that wait for an answer.
func (r *Room) Offers() (list []Offer) {
	r.do(func() {
		for _, in := range r.incoming {
			if in.shown && !in.ended && !in.machine.Accepted() {
				list = append(list, offerSnapshot(in))
			}
		}
	})
	return list
}

func (r *Room) linkUp(m *member) {
	// In order: a recipient that has restarted would take a younger one of the same files for a retry of the elder.
	for _, o := range slices.SortedFunc(maps.Values(r.outgoing), func(a, b *outgoing) int { return cmp.Compare(a.order, b.order) }) {
		r.offerTo(o, m)
	}
	for k, in := range r.incoming {
		if k.Sender == m.id {
			r.stepIncoming(in, transfer.LinkUp{Peer: m.id})
		}
	}
}

// offerTo tells a transfer that there is a link to a member, who may be none of its recipients.
func (r *Room) offerTo(o *outgoing, m *member) {
	r.stepOutgoing(o, transfer.LinkUp{Peer: m.id, Inflates: r.compressor != nil && m.inflates(), Rate: m.link.Rate()})
	if o.machine.Serves(m.id) {
		if !o.machine.Wanting() {
			o.journal.note(transfer.OpenedRecord(r.cfg.Now()))
		}
		o.keys[m.id] = m.link.PeerKeys().PublicKeys()
	}
	if len(o.keys) > wire.MaxParticipants { // who comes and goes may be forgotten
		maps.DeleteFunc(o.keys, func(id wire.ID, _ []byte) bool { return !o.machine.Serves(id) })
		maps.DeleteFunc(o.names, func(id wire.ID, _ string) bool { return !o.machine.Serves(id) })
	}
}

func (r *Room) linkDown(m *member, final bool, code fault.Code) {
	down := transfer.LinkDown{Peer: m.id, Final: final, Code: code}
	for _, o := range r.outgoing {
		if o.machine.Serves(m.id) && m.name != "" { // a link may end before it has told a name
			o.names[m.id] = m.name
		}
		r.stepOutgoing(o, down)
	}
	for k, in := range r.incoming {
		if k.Sender == m.id {
			if m.name != "" {
				in.name = m.name
			}
			r.stepIncoming(in, down)
		}
	}
}

// closeTransfers ends all transfers when the room closes. When it does so otherwise than by our leaving it or being removed, what has a journal can go
// on in another room of this identity.
func (r *Room) closeTransfers(code fault.Code) {
	over := !r.cfg.Resume || code == "" || code == fault.Removed
	for _, o := range r.outgoing {
		if over {
			r.stepOutgoing(o, transfer.CancelAll{})
		}
		o.machine.Close()
	}
	for _, in := range r.incoming {
		if over || in.store.journal == nil {
			r.stepIncoming(in, transfer.CancelAll{})
		} else if !in.machine.Committed() {
			in.left = true
			in.machine.Close()
			r.running.Go(in.store.close)
		}
	}
	if code == "" { // nobody comes back for it
		for _, s := range r.received {
			r.forsake(s)
		}
	}
}

// controlMessage takes a control message about a transfer.
func (r *Room) controlMessage(m *member, message wire.ControlMessage) {
	key := transfer.KeyOf(message, r.self, m.id)
	if offer, ok := message.(wire.TransferOffer); ok {
		r.offered(m, key, offer)
		return
	}
	// What is not known here has ended, or been declined, while the message was on its way. Only a transfer's two ends
	// are heard: the sender, and, in an outgoing one, its recipients.
	received := transfer.Received{Peer: m.id, Message: message}
	if key.Sender == r.self {
		if o := r.sent(key); o != nil {
			if receipt, ok := message.(wire.Receipt); ok && o.machine.Awaits(m.id, receipt) { // what it is to be checked by is there before it is
				o.journal.note(append(transfer.NameRecord(m.id, m.name), transfer.KeysRecord(m.id, o.keys[m.id])...))
			}
			r.stepOutgoing(o, received)
		}
	} else if in := r.coming(key); in != nil && key.Sender == m.id {
		r.hear(m, in, received)
	}
}

// awaitsReceipt reports whether a member's receipt counts, if its signature is right.
func (r *Room) awaitsReceipt(m *member, receipt wire.Receipt) bool {
	o := r.sent(transfer.KeyOf(receipt, r.self, m.id))
	return o != nil && o.machine.Awaits(m.id, receipt)
}

// awaitsEnd reports whether an End of a member's transfer counts, if its signature is right.
func (r *Room) awaitsEnd(m *member, id wire.ID) bool {
	in := r.coming(transfer.Key{Sender: m.id, Transfer: id})
	return in != nil && in.machine.Awaits()
}

// sent is the outgoing transfer that a recipient's message is about: a retry has an id of its own.
func (r *Room) sent(key transfer.Key) *outgoing {
	if o := r.outgoing[key]; o != nil {
		return o
	}
	for _, o := range r.outgoing {
		if o.machine.Has(key.Transfer) {
			return o
		}
	}
	return nil
}

// coming is the incoming transfer that its sender's message is about: a retry has an id of its own.
func (r *Room) coming(key transfer.Key) *incoming {
	if in := r.incoming[key]; in != nil && in.machine.Transfer() == key.Transfer {
		return in
	}
	for k, in := range r.incoming {
		if k.Sender == key.Sender && in.machine.Transfer() == key.Transfer {
			return in
		}
	}
	return nil
}

func (r *Room) offered(m *member, key transfer.Key, offer wire.TransferOffer) {
	if !slices.Contains(offer.Participants, r.self) {
		m.current().violation()
		return
	}
	in := r.coming(key)
	if in == nil {
		for k, other := range r.incoming {
			if k.Sender == m.id && other.machine.Continues(offer) && (in == nil || other.order < in.order) {
				in = other
			}
		}
	}
	switch {
	case in != nil && !in.machine.Lost():
		r.hear(m, in, transfer.Received{Peer: m.id, Message: offer})
		return
	case in == nil && r.incoming[key] != nil:
		m.link.SendControl(wire.Cancel{Sender: m.id, Transfer: offer.Transfer, Code: wire.FailureCancelled}) // it goes on under another id
		return
	}
	waiting, manifests, files := 0, int(offer.ManifestLength), int(offer.Files)
	for k, in := range r.incoming {
		if k.Sender == m.id && !in.ended && !in.machine.Accepted() {
			waiting++
			manifests += int(in.machine.Offer().ManifestLength)
			files += int(in.machine.Offer().Files)
		}
	}
	withdrawable := m.withdrawals.TokensAt(r.cfg.Now()) // those that wait may be withdrawn, too
	if waiting >= maxOffersPerMember || withdrawable < float64(waiting+1) || manifests > maxManifests || files > wire.MaxFiles || !r.makeRoom() {
		// Not a Decline: nobody has been asked.
		m.link.SendControl(wire.Cancel{Sender: m.id, Transfer: offer.Transfer, Code: wire.FailureTooLarge})
		return
	}
	in = &incoming{machine: transfer.NewIncoming(key, offer, r.cfg.Now()), order: r.nextOrder(),
		store: newStore(r.ctx, r.cfg.Storage, newID().String()), disk: &r.disk} // nothing that a stranger chose, and never a name of before
	if in.store.journal = r.newJournal(in.store.delivery, 0); in.store.journal != nil {
		in.store.journal.mended = true
		in.machine.Keep(true)
	}
	r.incoming[key] = in
}

// bulkMessage takes a bulk message. buffer holds it.
func (r *Room) bulkMessage(m *member, sender, id wire.ID, message any, buffer *bulk.Buffer) {
	if _, ok := message.(wire.Hashes); ok && sender != m.id {
		m.current().violation()
		return
	}
	if in := r.coming(transfer.Key{Sender: sender, Transfer: id}); in != nil && sender == m.id {
		r.hear(m, in, transfer.ReceivedBulk{Peer: m.id, Message: message, Buffer: buffer, Inflates: r.compressor != nil})
	}
}

func (r *Room) stepOutgoing(o *outgoing, events ...transfer.Event) {
	for _, effect := range o.machine.Step(r.cfg.Now(), events...) {
		switch effect := effect.(type) {
		case transfer.SendControl:
			r.sendControl(effect)
		case transfer.SendBulk:
			r.sendBulk(o, effect)
		case transfer.Read:
			r.read(o, effect)
		case transfer.Deflate:
			r.deflate(o, effect)
		case transfer.Violation:
			if m := r.members[effect.Peer]; m != nil {
				m.current().violation()
			}
		case transfer.Note:
			if r.noteOutgoing(o, effect.Records); effect.Then != nil {
				r.whenNoted(o, func() { r.stepOutgoing(o, *effect.Then) })
			}
		case transfer.Discard:
			o.journal.discard()
			o.journal = nil
		case transfer.Resumed:
			o.ended = false
		case transfer.Changed:
			if o.dirty = true; o.stages.advance(o.machine.Progress()) {
				o.dirty = false
				r.event(TransferProgress{r.outgoingSnapshot(o)})
			}
		case transfer.Finished:
			o.ended, o.dirty = true, false
			r.event(TransferFinished{r.outgoingSnapshot(o), r.outgoingResult(o)})
		}
	}
}

// noteOutgoing appends to a transfer's journal, or begins one: a retry comes after the end of the one before.
func (r *Room) noteOutgoing(o *outgoing, records []byte) {
	if o.journal == nil {
		if r.keep(o, r.newJournal(newID().String(), 0)); o.journal == nil {
			return
		}
		for _, d := range o.machine.Progress() {
			name := o.names[d.Peer]
			if m := r.members[d.Peer]; m != nil {
				name = m.name
			}
			records = append(records, transfer.NameRecord(d.Peer, name)...)
			if keys := o.keys[d.Peer]; keys != nil {
				records = append(records, transfer.KeysRecord(d.Peer, keys)...)
			}
		}
	}
	o.journal.note(records)
}

// keep gives a transfer its journal. That it cannot be written is told in the next snapshot, and stops nothing.
func (r *Room) keep(o *outgoing, j *journal) {
	o.journal, o.notKept = j, false
	if j != nil {
		j.lost = func(lost bool) {
			r.box.post(func() {
				if o.journal == j { // else it is over
					o.notKept, o.dirty = lost, true
				}
			})
		}
	}
}

// whenNoted has fn run in the loop when all that was noted of a transfer is written, or cannot be.
func (r *Room) whenNoted(o *outgoing, fn func()) {
	notes, noted := o.journal, o.journal.position()
	r.running.Go(func() {
		notes.wait(noted)
		r.box.post(fn)
	})
}

// hear has a transfer take what its sender says.
func (r *Room) hear(m *member, in *incoming, e transfer.Event) {
	in.from = m.current()
	r.stepIncoming(in, e)
}

func (r *Room) stepIncoming(in *incoming, e transfer.Event) {
	if in.left {
		if done, ok := e.(transfer.Stored); ok && done.Left != nil {
			done.Left.Buffer.Release()
		}
		return
	}
	for _, effect := range in.machine.Step(r.cfg.Now(), e) {
		switch effect := effect.(type) {
		case transfer.SendControl:
			r.sendControl(effect)
		case transfer.Store:
			in.store.journal.retry()
			noted := in.store.journal.position() // which includes the hashes of these chunks
			in.disk.stores = append(in.disk.stores, func() {
				stored, bad, err := in.store.write(effect, r.cfg.Engine, r.pool)
				if failed := in.store.journal.wait(noted); failed != nil && err == nil && !bad {
					stored, err = nil, failed
				}
				done := effect.Stored(stored, bad, err)
				r.box.post(func() {
					in.disk.storing--
					if m := r.members[in.machine.Key().Sender]; m != nil {
						m.stored(len(done.Done), effect.Bytes(done.Done))
					}
					r.stepIncoming(in, done)
					r.startStores(in.disk)
				})
			})
			r.startStores(in.disk)
		case transfer.Verify:
			r.running.Go(func() {
				done := effect.Sum()
				r.box.post(func() { r.stepIncoming(in, done) })
			})
		case transfer.Commit:
			in.store.journal.retry()
			noted := in.store.journal.position() // which includes what the receipt is for
			r.running.Go(func() {
				err := in.store.journal.wait(noted)
				if err == nil {
					err = in.store.commit()
				}
				r.box.post(func() { r.stepIncoming(in, transfer.Committed{Err: err}) })
			})
		case transfer.SendReceipt:
			if m := r.members[effect.Peer]; m != nil && m.link != nil {
				receipt := wire.Receipt{Transfer: in.machine.Transfer(), Root: effect.Root, Files: effect.Files, InMemory: in.store.storage.InMemory()}
				receipt.Signature = r.identity.Sign(seal.LabelReceipt, receipt.AppendSigned(nil, effect.Peer))
				m.link.SendControl(receipt)
			}
		case transfer.Note:
			in.store.journal.note(effect.Records)
		case transfer.Settled:
			in.store.journal.settle(effect.Records)
		case transfer.Recheck:
			r.verify(in)
		case transfer.Resumed:
			in.ended = false
			r.shareCredit(in)
		case transfer.Discard:
			r.running.Go(func() {
				in.store.discard()
				r.box.post(r.spaceFreed)
			})
		case transfer.Violation:
			in.from.violation() // verification may find it when the link is no more
		case transfer.Changed:
			if in.dirty = true; in.stages.advance([]transfer.Progress{in.machine.Progress()}) {
				in.dirty = false
				r.event(TransferProgress{r.incomingSnapshot(in)})
			}
		case transfer.Finished:
			in.ended, in.dirty = true, false
			r.incomingFinished(in)
		}
	}
	if in.machine.Ready() && !in.shown && !in.ended {
		in.shown = true
		r.event(OfferReceived{offerSnapshot(in)})
	}
}

// SpaceFreed tells that something was deleted from the disk, so that what waits for room is tried again at once.
func (r *Room) SpaceFreed() { r.do(r.spaceFreed) }

func (r *Room) spaceFreed() {
	r.retryJournals(r.cfg.Now())
	for _, in := range r.incoming {
		r.stepIncoming(in, transfer.SpaceFreed{})
	}
}

// disk is where deliveries are written, which waits for no other.
type disk struct {
	stores  []func() // chunks that wait to be verified and written
	storing int      // of them, under way
}

// startStores verifies and writes what has come, a few at a time; credit bounds how much waits.
func (r *Room) startStores(d *disk) {
	for d.storing < maxStoring && len(d.stores) > 0 {
		d.storing++
		r.running.Go(d.stores[0])
		d.stores = d.stores[1:]
	}
}

// shareCredit divides credit among the transfers that are coming in, next included. Those that are suspended get none, and what they still hold counts.
func (r *Room) shareCredit(next *incoming) {
	var active []*incoming
	for _, in := range r.incoming {
		if !in.ended && in.machine.Accepted() || in.machine.Suspended() || in == next {
			active = append(active, in)
		}
	}
	slices.SortFunc(active, func(a, b *incoming) int { return cmp.Compare(a.order, b.order) })
	machines := make([]*transfer.Incoming, len(active))
	for i, in := range active {
		machines[i] = in.machine
	}
	transfer.ShareCredit(machines)
}

func (r *Room) incomingFinished(in *incoming) {
	r.shareCredit(nil)
	if !in.machine.Accepted() {
		m := r.members[in.machine.Key().Sender]
		if m == nil || m.open() { // otherwise the sender still has to be told
			delete(r.incoming, in.machine.Key()) // a manifest can be large, and a member can make offers without end
		}
		if m != nil && in.machine.Progress().Code != fault.Declined {
			m.withdrawals.AllowN(r.cfg.Now(), 1) // which has an effect on the next offer
		}
		if in.shown {
			r.event(OfferWithdrawn{From: in.machine.Key().Sender.String(), ID: in.machine.Key().Transfer.String(), Code: in.machine.Progress().Code})
		}
		return
	}
	if in.machine.Committed() {
		r.received[in.store.delivery] = in.store
	}
	r.event(TransferFinished{r.incomingSnapshot(in), r.incomingResult(in)})
}

func (r *Room) sendControl(e transfer.SendControl) {
	if m := r.members[e.Peer]; m != nil && m.link != nil {
		m.link.SendControl(e.Message)
	}
}

func (r *Room) sendBulk(o *outgoing, e transfer.SendBulk) {
	m := r.members[e.Peer]
	if m == nil || m.link == nil {
		for _, d := range e.Data {
			d.Release()
		}
		return
	}
	link := m.link
	if e.End != nil {
		end := *e.End
		end.Signature = r.identity.Sign(seal.LabelEnd, wire.AppendDelivery(nil, r.self, end.Transfer, end.Root, end.Files))
		e.Head, e.End = end.Append(nil), nil
		if o.journal != nil { // a receipt that comes after a crash must find what it is for
			r.whenNoted(o, func() {
				if m.link == link {
					r.sendBulk(o, e)
				}
			})
			return
		}
	}
	m.chunksSent += uint64(len(e.Data))
	m.chunksResent += uint64(e.Again)
	m.payloadSent += uint64(e.Bytes)
	link.SendBulk(peer.BulkItem{Head: e.Head, Data: e.Data, Sent: func() {
		r.box.post(func() {
			if m.link == link {
				r.stepOutgoing(o, transfer.Sent{Peer: e.Peer, Rate: link.Rate()})
			}
		})
	}})
}

// read reads and hashes a chunk. The machine is told of all that have ended at once, so that small ones travel together.
func (r *Room) read(o *outgoing, e transfer.Read) {
	source := o.files[e.Chunk.File].Source
	r.running.Go(func() {
		done := transfer.ReadDone{Chunk: e.Chunk, Buffer: r.pool.Get(int(e.Length))}
		err := readFull(source, done.Buffer.B, e.Offset)
		if err == nil {
			done.Hash, err = r.cfg.Engine.Sum256(done.Buffer.B)
		}
		if done.Err = err; err != nil {
			done.Buffer.Release()
			done.Buffer = nil
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.read = append(o.read, done); len(o.read) > 1 {
			return // it has been posted
		}
		r.box.post(func() {
			o.mu.Lock()
			read := o.read
			o.read = nil
			o.mu.Unlock()
			r.stepOutgoing(o, read...)
		})
	})
}

// capabilities are this member's.
func (r *Room) capabilities() uint32 {
	if r.compressor == nil {
		return 0
	}
	return wire.CapabilityDeflate
}

// deflate compresses a chunk.
func (r *Room) deflate(o *outgoing, e transfer.Deflate) {
	r.running.Go(func() {
		done := transfer.Deflated{Chunk: e.Chunk, ID: e.ID, Raw: len(e.Data), Begun: r.cfg.Now()}
		most := r.pool.Get(e.Most)
		n, err := r.compressor.Deflate(most.B, e.Data)
		done.Ended, done.Err = r.cfg.Now(), err
		if err == nil && n > 0 { // in a buffer of its size: it may be kept for a while
			done.Buffer = r.pool.Get(n)
			copy(done.Buffer.B, most.B)
		}
		most.Release()
		e.Buffer.Release()
		r.box.post(func() { r.stepOutgoing(o, done) })
	})
}

// readFull reads all of p. A file without so many bytes has changed.
func readFull(source io.ReaderAt, p []byte, off int64) error {
	n, err := source.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it has become shorter", transfer.ErrSourceChanged)
	}
	return err
}
