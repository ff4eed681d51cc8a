package room

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

const (
	maxOffersPerMember = 8        // that wait for an answer
	maxTransfers       = 64       // kept, ended ones included; the oldest ended one goes first
	maxManifests       = 16 << 20 // bytes of manifests of a member's unanswered offers
)

// TransferID names a transfer: only its sender can continue it.
type TransferID = transfer.Key

// deliveryName is what an incoming transfer is called in Storage.
func deliveryName(k TransferID) string { return k.Sender.String() + k.Transfer.String() }

// outgoing is an outgoing transfer and what the room does for it.
type outgoing struct {
	machine *transfer.Outgoing
	files   []OutFile
	paths   []string // safe, as the recipients make them
	dirty   bool
	ended   bool
	order   uint64
}

// incoming is an incoming transfer and what the room does for it.
type incoming struct {
	machine *transfer.Incoming
	store   *store
	shown   bool // as an offer
	dirty   bool
	ended   bool
	order   uint64
}

// Send offers files to members of the room.
func (r *Room) Send(files []OutFile, options SendOptions) (snapshot Transfer, err error) {
	entries := make([]wire.FileEntry, len(files))
	var total uint64
	for i := range files {
		f := &files[i]
		if f.Kind == wire.KindText {
			f.Source = text(f.Text)
		}
		entries[i] = wire.FileEntry{Kind: f.Kind, MediaType: f.Type, Modified: uint64(max(f.Modified, 0)), Path: strings.ToValidUTF8(f.Path, "_")}
		if f.Kind != wire.KindDirectory {
			entries[i].Size = uint64(f.Source.Size())
		}
		total += entries[i].Size
	}
	if len(files) == 0 || options.LimitPerRecipient < 0 {
		return snapshot, fault.Newf(fault.InvalidArgument, "room: nothing to send, or a negative limit")
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
		if to == nil {
			for _, id := range r.order {
				if r.members[id].open() {
					to = append(to, id)
				}
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
		paths := make([]string, len(entries))
		for i := range entries {
			paths[i] = entries[i].Path
		}
		o := &outgoing{files: files, paths: chunk.SafePaths(paths), order: r.nextOrder(), machine: transfer.NewOutgoing(transfer.OutgoingConfig{
			Key: transfer.Key{Sender: r.self, Transfer: newID()}, Manifest: manifest, Recipients: to,
			LateJoiners: options.LateJoiners, Limit: options.LimitPerRecipient, Schedule: transfer.Star{}})}
		r.makeRoom()
		r.outgoing[o.machine.Key()] = o
		for _, id := range to {
			if r.members[id].open() {
				r.stepOutgoing(o, transfer.LinkUp{Peer: id})
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

// makeRoom forgets the oldest ended transfer when there are too many.
func (r *Room) makeRoom() {
	if len(r.outgoing)+len(r.incoming) < maxTransfers {
		return
	}
	var oldest transfer.Key
	order := ^uint64(0)
	for k, o := range r.outgoing {
		if o.ended && o.order < order {
			oldest, order = k, o.order
		}
	}
	for k, in := range r.incoming {
		if in.ended && in.order < order {
			oldest, order = k, in.order
		}
	}
	delete(r.outgoing, oldest)
	delete(r.incoming, oldest)
}

// Accept takes an offer: all of its files, or those named. It fails with DiskFull when the storage says that they do not fit.
func (r *Room) Accept(key transfer.Key, files []uint32) (snapshot Transfer, err error) {
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
		for _, f := range files {
			if int(f) >= len(m.Files) {
				return fault.Newf(fault.InvalidArgument, "room: no file %d", f)
			}
			need += m.Files[f].Size
		}
		if files == nil {
			need = m.Total
		}
		return nil
	})
	if err != nil {
		return snapshot, err
	}
	free, err := r.cfg.Storage.Free(context.Background())
	switch {
	case err != nil:
		return snapshot, fault.New(fault.StorageFailed, err)
	case free >= 0 && uint64(free) < need:
		return snapshot, fault.Newf(fault.DiskFull, "room: %d bytes free for %d", free, need)
	}
	err = r.attempt(func() error {
		in, err := check()
		if err != nil {
			return err
		}
		r.stepIncoming(in, transfer.AcceptFiles{Files: files})
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
	return r.withOutgoing(key, func(o *outgoing) { r.stepOutgoing(o, transfer.CancelPeer{Peer: to}) })
}

// Retry offers an outgoing transfer again to a recipient whose delivery has failed, was declined or cancelled.
func (r *Room) Retry(key transfer.Key, to wire.ID) error {
	return r.withOutgoing(key, func(o *outgoing) {
		o.ended = false
		r.stepOutgoing(o, transfer.RetryPeer{Peer: to})
		if m := r.members[to]; m == nil {
			r.stepOutgoing(o, transfer.LinkDown{Peer: to, Final: true, Code: fault.PeerGone})
		} else if !m.open() {
			r.stepOutgoing(o, transfer.LinkDown{Peer: to})
		}
	})
}

// SetLimit changes an outgoing transfer's limit, in bytes per second and recipient; 0: none.
func (r *Room) SetLimit(key transfer.Key, bytesPerSecond int64) error {
	if bytesPerSecond < 0 {
		return fault.Newf(fault.InvalidArgument, "room: negative limit")
	}
	return r.withOutgoing(key, func(o *outgoing) { o.machine.SetLimit(bytesPerSecond) })
}

func (r *Room) withOutgoing(key transfer.Key, fn func(*outgoing)) error {
	return r.attempt(func() error {
		o := r.outgoing[key]
		if o == nil {
			return fault.New(fault.UnknownTransfer, nil)
		}
		fn(o)
		return nil
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
	for _, o := range r.outgoing {
		r.stepOutgoing(o, transfer.LinkUp{Peer: m.id})
	}
	for k, in := range r.incoming {
		if k.Sender == m.id {
			r.stepIncoming(in, transfer.LinkUp{Peer: m.id})
		}
	}
}

func (r *Room) linkDown(m *member, final bool, code fault.Code) {
	down := transfer.LinkDown{Peer: m.id, Final: final, Code: code}
	for _, o := range r.outgoing {
		r.stepOutgoing(o, down)
	}
	for k, in := range r.incoming {
		if k.Sender == m.id {
			r.stepIncoming(in, down)
		}
	}
}

// closeTransfers ends all transfers when the room closes.
func (r *Room) closeTransfers() {
	for _, o := range r.outgoing {
		r.stepOutgoing(o, transfer.CancelAll{})
		o.machine.Close()
	}
	for _, in := range r.incoming {
		r.stepIncoming(in, transfer.CancelAll{})
	}
}

// controlMessage takes a control message about a transfer.
func (r *Room) controlMessage(m *member, message wire.ControlMessage) {
	own := func(id wire.ID) transfer.Key { return transfer.Key{Sender: r.self, Transfer: id} }
	theirs := func(id wire.ID) transfer.Key { return transfer.Key{Sender: m.id, Transfer: id} }
	var key transfer.Key
	switch message := message.(type) {
	case wire.TransferOffer:
		r.offered(m, message)
		return
	case wire.ManifestPart:
		key = theirs(message.Transfer)
	case wire.FileFailed:
		key = theirs(message.Transfer)
	case wire.Accept:
		key = own(message.Transfer)
	case wire.Decline:
		key = own(message.Transfer)
	case wire.Credit:
		key = own(message.Transfer)
	case wire.Receipt:
		key = own(message.Transfer)
	case wire.Have:
		key = transfer.Key{Sender: message.Sender, Transfer: message.Transfer}
	case wire.Cancel:
		key = transfer.Key{Sender: message.Sender, Transfer: message.Transfer}
	case wire.Pause:
		key = transfer.Key{Sender: message.Sender, Transfer: message.Transfer}
	}
	// What is not known here has ended, or been declined, while the message was on its way. Only a transfer's two ends
	// are heard: the sender, and, in an outgoing one, its recipients.
	received := transfer.Received{Peer: m.id, Message: message}
	if key.Sender == r.self {
		if o := r.outgoing[key]; o != nil {
			r.stepOutgoing(o, received)
		}
	} else if in := r.incoming[key]; in != nil && key.Sender == m.id {
		r.stepIncoming(in, received)
	}
}

func (r *Room) offered(m *member, offer wire.TransferOffer) {
	key := transfer.Key{Sender: m.id, Transfer: offer.Transfer}
	if in := r.incoming[key]; in != nil && (!in.ended || in.machine.Progress().State == transfer.Done) {
		r.stepIncoming(in, transfer.Received{Peer: m.id, Message: offer})
		return
	}
	waiting, manifests := 0, int(offer.ManifestLength)
	for k, in := range r.incoming {
		if k.Sender == m.id && !in.ended && !in.machine.Accepted() {
			waiting++
			manifests += int(in.machine.Offer().ManifestLength)
		}
	}
	if waiting >= maxOffersPerMember || manifests > maxManifests {
		m.link.SendControl(wire.Decline{Transfer: offer.Transfer, Reason: "too many offers at once"})
		return
	}
	r.makeRoom()
	r.incoming[key] = &incoming{machine: transfer.NewIncoming(key, offer, r.cfg.Now()), order: r.nextOrder(),
		store: newStore(r.cfg.Storage, deliveryName(key))}
}

// bulkMessage takes a bulk message. buffer holds it.
func (r *Room) bulkMessage(m *member, sender, id wire.ID, message any, buffer *bulk.Buffer) {
	if in := r.incoming[transfer.Key{Sender: sender, Transfer: id}]; in != nil && sender == m.id {
		r.stepIncoming(in, transfer.ReceivedBulk{Peer: m.id, Message: message, Buffer: buffer})
	}
}

func (r *Room) stepOutgoing(o *outgoing, e transfer.Event) {
	for _, effect := range o.machine.Step(r.cfg.Now(), e) {
		switch effect := effect.(type) {
		case transfer.SendControl:
			r.sendControl(effect)
		case transfer.SendBulk:
			r.sendBulk(o, effect)
		case transfer.Read:
			r.read(o, effect)
		case transfer.Violation:
			r.violation(effect)
		case transfer.Changed:
			o.dirty = true
		case transfer.Finished:
			o.ended, o.dirty = true, false
			r.event(TransferFinished{r.outgoingSnapshot(o), r.outgoingResult(o)})
		}
	}
}

func (r *Room) stepIncoming(in *incoming, e transfer.Event) {
	for _, effect := range in.machine.Step(r.cfg.Now(), e) {
		switch effect := effect.(type) {
		case transfer.SendControl:
			r.sendControl(effect)
		case transfer.Store:
			r.running.Go(func() {
				done := in.store.write(effect, r.cfg.Engine, r.pool, r.stores)
				r.box.post(func() { r.stepIncoming(in, done) })
			})
		case transfer.Commit:
			files := in.machine.Manifest().Files
			r.running.Go(func() {
				err := in.store.commit(effect.Files, files)
				r.box.post(func() { r.stepIncoming(in, transfer.Committed{Err: err}) })
			})
		case transfer.SendReceipt:
			if m := r.members[effect.Peer]; m != nil && m.link != nil {
				id := in.machine.Key().Transfer
				m.link.SendControl(wire.Receipt{Transfer: id, Root: effect.Root, Files: effect.Files,
					Signature: r.identity.Sign(seal.LabelReceipt, wire.AppendDelivery(nil, effect.Peer, id, effect.Root, effect.Files))})
			}
		case transfer.Discard:
			r.running.Go(in.store.discard)
		case transfer.Violation:
			r.violation(effect)
		case transfer.Changed:
			in.dirty = true
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

func (r *Room) incomingFinished(in *incoming) {
	if !in.machine.Accepted() {
		if in.shown {
			r.event(OfferWithdrawn{From: in.machine.Key().Sender.String(), ID: in.machine.Key().Transfer.String(), Code: in.machine.Progress().Code})
		}
		return
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
	if e.End != nil {
		end := *e.End
		end.Signature = r.identity.Sign(seal.LabelEnd, wire.AppendDelivery(nil, r.self, end.Transfer, end.Root, end.Files))
		e.Head = end.Append(nil)
	}
	link := m.link
	link.SendBulk(bulkItem(e, func() {
		r.box.post(func() {
			if m.link == link {
				r.stepOutgoing(o, transfer.Sent{Peer: e.Peer})
			}
		})
	}))
}

func (r *Room) violation(e transfer.Violation) {
	if m := r.members[e.Peer]; m != nil && m.link != nil {
		m.link.Abort(fault.New(fault.ProtocolViolation, e.Why))
	}
}

// read reads and hashes a chunk.
func (r *Room) read(o *outgoing, e transfer.Read) {
	source := o.files[e.Chunk.File].Source
	r.running.Go(func() {
		done := transfer.ReadDone{Chunk: e.Chunk, Buffer: r.pool.Get(int(e.Length))}
		n, err := source.ReadAt(done.Buffer.B, e.Offset)
		if n == len(done.Buffer.B) {
			err = nil
		} else if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it has become shorter", transfer.ErrSourceChanged)
		}
		if err == nil {
			done.Hash, err = r.cfg.Engine.Sum256(done.Buffer.B)
		}
		if done.Err = err; err != nil {
			done.Buffer.Release()
			done.Buffer = nil
		}
		r.box.post(func() { r.stepOutgoing(o, done) })
	})
}

// store is where an incoming transfer's files lie.
type store struct {
	storage  transfer.Storage
	delivery string

	mu    sync.Mutex
	files map[uint32]transfer.StoredFile
	gone  bool
}

func newStore(storage transfer.Storage, delivery string) *store {
	return &store{storage: storage, delivery: delivery, files: map[uint32]transfer.StoredFile{}}
}

// file opens a file, the first time it is needed.
func (s *store) file(index uint32, size int64) (transfer.StoredFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return nil, fault.New(fault.Cancelled, nil)
	}
	if f := s.files[index]; f != nil {
		return f, nil
	}
	f, err := s.storage.Create(context.Background(), s.delivery, strconv.FormatUint(uint64(index), 10), size)
	if err == nil {
		s.files[index] = f
	}
	return f, err
}

// write verifies chunks and writes them. tokens bounds how many do so at a time.
func (s *store) write(e transfer.Store, engine bulk.Engine, pool *bulk.Pool, tokens chan struct{}) (done transfer.Stored) {
	tokens <- struct{}{}
	defer func() { <-tokens }()
	defer e.Buffer.Release()
	for _, c := range e.Chunks {
		done.Cost += wire.ChunkCost(c.RawLength)
	}
	for _, c := range e.Chunks {
		data := c.Data
		if c.Compressed {
			inflated := pool.Get(int(c.RawLength))
			defer inflated.Release()
			if !inflate(inflated.B, c.Data) {
				done.Bad = true
				return done
			}
			data = inflated.B
		}
		sum, err := engine.Sum256(data)
		if err == nil && wire.Hash(sum) != c.Hash {
			done.Bad = true
			return done
		}
		var f transfer.StoredFile
		if err == nil {
			f, err = s.file(c.Chunk.File, c.Size)
		}
		if err == nil {
			_, err = f.WriteAt(data, c.Offset)
		}
		if err != nil {
			done.Err = err
			return done
		}
		done.Done = append(done.Done, c.Chunk)
	}
	return done
}

// inflate fills dst exactly from a DEFLATE stream.
func inflate(dst, src []byte) bool {
	in := flate.NewReader(bytes.NewReader(src))
	defer in.Close()
	if _, err := io.ReadFull(in, dst); err != nil {
		return false
	}
	n, err := in.Read(make([]byte, 1))
	return n == 0 && err == io.EOF
}

// commit makes files durable, empty ones included.
func (s *store) commit(files wire.Bitmap, entries []wire.FileEntry) error {
	for i, e := range entries {
		if index := uint32(i); files.Has(index) && e.Kind != wire.KindDirectory {
			f, err := s.file(index, int64(e.Size))
			if err == nil {
				err = f.Commit(context.Background())
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// discard deletes what has been stored.
func (s *store) discard() {
	s.mu.Lock()
	s.gone = true
	for _, f := range s.files {
		f.Close()
	}
	s.files = nil
	s.mu.Unlock()
	s.storage.Remove(context.Background(), s.delivery) // what cannot be removed is swept at the next start
}

// stored returns the open files.
func (s *store) stored() map[uint32]transfer.StoredFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := make(map[uint32]transfer.StoredFile, len(s.files))
	for i, f := range s.files {
		files[i] = f
	}
	return files
}
