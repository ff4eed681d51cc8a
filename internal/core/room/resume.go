package room

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// What outlives this room: each transfer has a journal in storage (package transfer says what is in it), and the next room of the same
// identity goes on from there.

const (
	// KeepUnfinished is how long after it was last gone on with an unfinished transfer is deleted, and how long after it has arrived what the
	// person does not have yet (Room.HandedOver).
	KeepUnfinished = 7 * 24 * time.Hour
	// KeepHandedOver is how long what was received lies about when the person has it: whoever copies it elsewhere needs less.
	KeepHandedOver = time.Hour
	// maxRestored bounds the unfinished transfers that a room begins with, the newest, what is done and not handed over, and the receipts; others wait
	// in storage for the next time.
	maxRestored = maxTransfers / 2
	// retryJournal is how often journals are tried again when there was no room for them.
	retryJournal = 5 * time.Second
)

// journal writes a transfer's journal, in order, one write at a time.
type journal struct {
	ctx      context.Context
	storage  transfer.Durable
	delivery string
	start    func(func()) // runs what the room waits for
	lost     func(bool)   // unless nil, told when it cannot be written, and when it can again; it must not wait
	mended   bool         // what could not be written is kept for mend

	mu      sync.Mutex // held for moments only: the room's loop takes it
	turn    *sync.Cond // a write has ended
	queue   []byte
	at      int64 // where the queue goes
	written int64
	busy    bool
	gone    bool
	err     error
	failed  bool // the last write
}

// newJournal is nil where nothing is to outlive the room; all methods take that.
func (r *Room) newJournal(delivery string, size int64) *journal {
	storage, durable := r.cfg.Storage.(transfer.Durable)
	if !r.cfg.Resume || !durable {
		return nil
	}
	j := &journal{ctx: r.ctx, storage: storage, delivery: delivery, start: r.running.Go, at: size, written: size}
	j.turn = sync.NewCond(&j.mu)
	return j
}

// note appends records. They are written soon, or, where there was no room, with retry.
func (j *journal) note(records []byte) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone || j.err != nil && !j.comesAgain() {
		return
	}
	j.queue = append(j.queue, records...)
	if !j.busy && j.err == nil {
		j.busy = true
		j.start(j.write)
	}
}

// comesAgain reports whether what could not be written is kept.
func (j *journal) comesAgain() bool { return j.mended || errors.Is(j.err, transfer.ErrStorageFull) }

func (j *journal) write() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.drain()
}

// drain writes the queue. mu is held, but not while it waits for the disk.
func (j *journal) drain() {
	for len(j.queue) > 0 && !j.gone && j.err == nil {
		p, at := j.queue, j.at
		j.queue, j.at = nil, j.at+int64(len(p))
		j.mu.Unlock()
		err := j.storage.Put(j.ctx, j.delivery, transfer.JournalName, p, at)
		j.mu.Lock()
		if failed := err != nil; failed != j.failed {
			j.failed = failed
			if j.lost != nil {
				j.lost(failed)
			}
		}
		if j.err = err; err != nil && j.comesAgain() { // with retry or mend
			j.queue, j.at = append(p, j.queue...), at
		} else if err == nil {
			j.written = at + int64(len(p))
		}
		j.turn.Broadcast()
	}
	j.busy = false
	j.turn.Broadcast()
}

// retry writes what found no room.
func (j *journal) retry() {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if errors.Is(j.err, transfer.ErrStorageFull) && !j.busy && !j.gone {
		j.err, j.busy = nil, true
		j.start(j.write)
	}
}

// mend goes on with a journal that could not be written or, with all, was not made durable: then all of it is written again, as it is.
func (j *journal) mend(all bool) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.busy {
		j.turn.Wait()
	}
	if j.gone || j.err == nil && !all {
		return nil
	}
	j.busy = true
	if at := j.at; all && at > 0 {
		j.mu.Unlock()
		p, err := j.storage.Get(j.ctx, j.delivery, transfer.JournalName)
		if err == nil {
			if whole, bad := transfer.ParseJournal(p); bad != nil || whole.Size < at {
				err = transfer.ErrJournal
			}
		}
		j.mu.Lock()
		if err != nil {
			j.drain() // what was noted meanwhile, unless it is broken
			return err
		}
		j.queue, j.at = append(p[:at:at], j.queue...), 0
	}
	j.err = nil
	j.drain()
	return j.err
}

// retryJournals writes what found no room.
func (r *Room) retryJournals(now time.Time) {
	r.retriedAt = now
	for _, o := range r.outgoing {
		o.journal.retry()
	}
	for _, in := range r.incoming {
		in.store.journal.retry()
	}
}

// position is where the journal will end when all that was noted is written.
func (j *journal) position() int64 {
	if j == nil {
		return 0
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.at + int64(len(j.queue))
}

// wait returns when the journal is written up to a position, or will never be.
func (j *journal) wait(position int64) error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.written < position && j.err == nil && !j.gone {
		j.turn.Wait()
	}
	if j.written >= position {
		return nil // whatever has become of later notes
	}
	return j.err
}

// end returns when all that was noted is written, or will never be, and lets nothing more be written.
func (j *journal) end() {
	j.wait(j.position())
	j.stop()
}

// stop lets nothing more be written.
func (j *journal) stop() {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.gone = true
	j.turn.Broadcast()
	for j.busy {
		j.turn.Wait()
	}
}

// settle writes the last records. If it fails, the next room finds everything on disk and ends the transfer once more.
func (j *journal) settle(last []byte) {
	if j == nil {
		return
	}
	j.note(last)
	j.retry()
	j.start(j.end)
}

// HandOver puts a receipt in the place of the journal of a delivery that is done, in a room that nobody is in: the person has its files. Again, it
// notes the new time.
func HandOver(ctx context.Context, storage transfer.Durable, delivery string, now time.Time) error {
	p, err := storage.Get(ctx, delivery, transfer.JournalName)
	again := errors.Is(err, fs.ErrNotExist)
	if again {
		p, err = storage.Get(ctx, delivery, transfer.ReceiptName)
	}
	if err != nil {
		return err
	}
	j, err := transfer.ParseJournal(p)
	if err == nil && (!j.Done() || j.HandedOver() != again) {
		err = transfer.ErrJournal
	}
	if err == nil {
		err = storage.Put(ctx, delivery, transfer.ReceiptName, j.Receipt(now), 0)
	}
	if err == nil && !again {
		err = storage.Put(ctx, delivery, transfer.JournalName, nil, 0)
	}
	return err
}

// HandedOver notes that the person has what was received in a delivery (Result.Delivery): no later room comes back to it, and it is deleted
// KeepHandedOver later. The error is UnknownTransfer for one that is not kept here.
func (r *Room) HandedOver(delivery string) error {
	return r.attempt(func() error {
		s := r.received[delivery]
		if s == nil {
			return fault.New(fault.UnknownTransfer, nil)
		}
		r.settle(s)
		return nil
	})
}

func (r *Room) settle(s *store) {
	now := r.cfg.Now()
	s.handed = now // again, too: the first time may have come to nothing
	if storage, durable := s.storage.(transfer.Durable); r.cfg.Resume && durable {
		r.running.Go(func() {
			s.journal.end()
			s.beside.Lock()
			defer s.beside.Unlock()
			if !s.discarded {
				HandOver(context.WithoutCancel(r.ctx), storage, s.delivery, now) // if it fails, the person is asked once more
			}
		})
	}
}

// forsake leaves what was received to whoever sweeps the storage: no room comes back to it.
func (r *Room) forsake(s *store) {
	if storage, durable := s.storage.(transfer.Durable); r.cfg.Resume && durable && s.handed.IsZero() {
		r.running.Go(func() {
			s.journal.stop()
			s.beside.Lock()
			defer s.beside.Unlock()
			if !s.discarded {
				storage.Put(context.WithoutCancel(r.ctx), s.delivery, transfer.JournalName, nil, 0) // else it stays longer
			}
		})
	}
}

// Discard deletes what was received in a delivery (Result.Delivery). The error is UnknownTransfer for one that is not kept here, or the storage's.
func (r *Room) Discard(delivery string) error {
	removed := make(chan error, 1)
	err := r.attempt(func() error {
		s := r.received[delivery]
		if s == nil {
			return fault.New(fault.UnknownTransfer, nil)
		}
		delete(r.received, delivery)
		r.running.Go(func() {
			removed <- s.discard()
			r.box.post(r.spaceFreed)
		})
		return nil
	})
	if err == nil {
		err = <-removed
	}
	return err
}

// expire deletes what was handed over long enough ago.
func (r *Room) expire(now time.Time) {
	for delivery, s := range r.received {
		if age := now.Sub(s.handed); s.handed.IsZero() || age > -KeepHandedOver && age < KeepHandedOver { // clocks are set back
			continue
		}
		delete(r.received, delivery)
		r.running.Go(func() {
			s.discard()
			r.event(ReceivedExpired{delivery})
			r.box.post(r.spaceFreed)
		})
	}
}

// discard deletes the journal of an outgoing transfer.
func (j *journal) discard() {
	if j != nil {
		j.start(func() {
			j.stop()
			j.storage.Remove(context.WithoutCancel(j.ctx), j.delivery) // what cannot be removed is swept one day
		})
	}
}

// restore goes on with what an earlier room of this identity has left in storage. It is called before anybody can send anything. What cannot be
// read, is not ours, or is too old is deleted.
func (r *Room) restore() {
	storage, durable := r.cfg.Storage.(transfer.Durable)
	if !r.cfg.Resume || !durable {
		return
	}
	list, err := storage.List(r.ctx)
	if err != nil {
		return // then everything is new
	}
	left := map[string]string{} // by delivery: what tells about it; "": nothing does
	for _, f := range list {
		switch f.Name {
		case transfer.JournalName:
			left[f.Delivery] = f.Name
		case transfer.ReceiptName:
			left[f.Delivery] = cmp.Or(left[f.Delivery], f.Name)
		default:
			if _, told := left[f.Delivery]; !told {
				left[f.Delivery] = ""
			}
		}
	}
	found := map[transfer.Key]leftover{}
	for delivery, name := range left {
		j, err := r.readJournal(storage, delivery, name)
		switch {
		case errors.Is(err, transfer.ErrJournal), err == nil && j.Outgoing != (j.Key.Sender == r.self):
			storage.Remove(r.ctx, delivery)
			continue
		case err != nil:
			continue // another time
		}
		_, known := j.Bytes()
		this := leftover{delivery, name, j.Outgoing, j.Done(), j.HandedOver(), known, j.Opened}
		if other, twice := found[j.Key]; twice {
			if other.supersedes(this) {
				this, other = other, this
			}
			storage.Remove(r.ctx, other.delivery)
			this.opened = slices.MaxFunc([]time.Time{this.opened, other.opened}, time.Time.Compare)
		}
		found[j.Key] = this
	}
	// They are read once more rather than all held: there may be many, and manifests can be large.
	var unfinished, done, receipts int
	order := uint64(3 * maxRestored) // of the newest, which comes first
	for _, l := range slices.SortedFunc(maps.Values(found), func(a, b leftover) int { return b.opened.Compare(a.opened) }) {
		count := &unfinished
		switch {
		case l.handedOver:
			count = &receipts
		case l.done:
			count = &done
		}
		if *count == maxRestored && r.cfg.Now().Sub(l.opened) <= KeepUnfinished {
			continue
		}
		j, err := r.readJournal(storage, l.delivery, l.name)
		switch {
		case err != nil:
		case r.restoreTransfer(l.delivery, j, order):
			*count++
			order--
		default:
			storage.Remove(r.ctx, l.delivery)
		}
	}
}

// leftover is what a journal or receipt in storage is about.
type leftover struct {
	delivery, name   string
	outgoing         bool
	done, handedOver bool
	known            uint64 // bytes
	opened           time.Time
}

// supersedes reports whether it is the one of two of the same transfer to go on with: of an incoming one, what more has come of; of an outgoing one the later,
// which a retry has begun when the other was about to be removed.
func (l leftover) supersedes(other leftover) bool {
	switch {
	case l.outgoing:
		return l.opened.After(other.opened)
	case l.done != other.done:
		return l.done
	}
	return l.known > other.known
}

// readJournal reads a delivery's journal or receipt; without a name there is none.
func (r *Room) readJournal(storage transfer.Durable, delivery, name string) (*transfer.Journal, error) {
	var p []byte
	if name != "" {
		var err error
		if p, err = storage.Get(r.ctx, delivery, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return transfer.ParseJournal(p)
}

// restoreTransfer begins with what restore has found. It is false for what is of no use any more.
func (r *Room) restoreTransfer(delivery string, j *transfer.Journal, order uint64) bool {
	now := r.cfg.Now()
	age := KeepUnfinished
	if j.HandedOver() {
		age = KeepHandedOver
	}
	// From the future: the clock is wrong now, as on a machine without a battery for it, and what somebody may still want is not deleted for that.
	if old := now.Sub(j.Opened); old > age || old < -age && j.HandedOver() {
		return false
	}
	_, known := j.Bytes()
	if j.Outgoing {
		notes := r.newJournal(delivery, j.Size)
		o := &outgoing{machine: transfer.RestoreOutgoing(j, &r.shared, transfer.Star{}, now), paths: chunk.SafePaths(j.Manifest.Files), names: j.Names,
			keys: j.Keys, order: order}
		r.keep(o, notes)
		if o.machine.Over() {
			return false
		}
		r.outgoing[j.Key] = o
		r.event(TransferResumed{r.self.String(), j.Opened, int64(known), r.outgoingSnapshot(o)})
		return true
	}
	in := &incoming{machine: transfer.RestoreIncoming(j, now), name: j.Names[j.Key.Sender], shown: true, ended: j.Done(), order: order,
		store: newStore(r.ctx, r.cfg.Storage, delivery), disk: &r.disk}
	r.incoming[j.Key] = in
	if j.Done() {
		r.received[delivery] = in.store
	}
	if j.HandedOver() {
		in.store.handed = j.Opened
		return true
	}
	in.store.arrange(in.machine.Manifest(), in.machine.Wanted())
	if !j.Done() {
		in.store.journal = r.newJournal(delivery, j.Size)
		in.store.journal.mended = true
		r.shareCredit(in)
	}
	r.event(TransferResumed{j.Key.Sender.String(), j.Opened, int64(known), r.incomingSnapshot(in)})
	r.unverified = append(r.unverified, in) // until we are in: an attempt to enter may be one of many
	return true
}

// Unfinished is what a journal tells of a transfer, without entering its room.
type Unfinished struct {
	Sender   string   `json:"sender"`
	ID       string   `json:"id"` // of the transfer
	Incoming bool     `json:"incoming"`
	Names    []string `json:"names"` // of the sender, or of the recipients
	Files    []File   `json:"files"` // those that are wanted
	Total    int64    `json:"total"`
	Bytes    int64    `json:"bytes"`             // about what had been transferred; to the recipient that was furthest
	Opened   int64    `json:"opened"`            // when it was begun or gone on with last, or was done, ms since 1970
	Done     bool     `json:"done"`              // what is complete of the files is verified on disk, and the person does not have it yet
	Offsets  []int64  `json:"offsets,omitempty"` // once done: where each of the files begins in that named StoredName
}

// Describe reads a journal.
func Describe(p []byte) (Unfinished, error) {
	j, err := transfer.ParseJournal(p)
	if err != nil {
		return Unfinished{}, err
	}
	if j.HandedOver() {
		return Unfinished{}, transfer.ErrJournal
	}
	total, known := j.Bytes()
	u := Unfinished{Sender: j.Key.Sender.String(), ID: j.Key.Transfer.String(), Incoming: !j.Outgoing, Names: []string{}, Files: []File{},
		Total: int64(total), Bytes: int64(known), Opened: j.Opened.UnixMilli(), Done: j.Done()}
	for _, name := range j.Names {
		u.Names = append(u.Names, name)
	}
	slices.Sort(u.Names)
	var at int64
	for _, f := range files(j.Manifest, chunk.SafePaths(j.Manifest.Files)) {
		if !j.Wanted(f.Index) {
			continue
		}
		if j.Done() {
			if root, ok := j.Arrived(f.Index); ok {
				f.Stored, f.Complete, f.Root = f.Size, true, root.String()
			}
			f.Code = j.Failed(f.Index)
			u.Offsets = append(u.Offsets, at)
			at += f.Size // as in store.arrange
		}
		u.Files = append(u.Files, f)
	}
	return u, nil
}

// reopen opens what is done and was not handed over, as it was when it had just been received.
func (r *Room) reopen(in *incoming) {
	r.running.Go(func() {
		there := in.store.size == 0
		if !there {
			there, _ = in.store.reopen()
		}
		if there {
			there = in.store.commit() == nil
		}
		r.box.post(func() {
			if r.ctx.Err() != nil || r.received[in.store.delivery] != in.store {
				return // the room is left, or it was discarded
			}
			if there {
				r.incomingFinished(in)
			} else { // the browser may have cleared it
				r.event(TransferFinished{r.incomingSnapshot(in), Result{ID: in.machine.Key().Transfer.String(), Code: fault.StorageFailed, Delivery: in.store.delivery}})
			}
		})
	})
}

// verify holds what is on disk against what was announced.
func (r *Room) verify(in *incoming) {
	if in.machine.Committed() {
		r.reopen(in)
		return
	}
	m := in.machine.Manifest()
	announced := make([][]wire.Hash, len(m.Files))
	for i := range announced {
		announced[i] = in.machine.Announced(uint32(i))
	}
	flushed := in.machine.Flushed()
	r.running.Go(func() {
		r.verifying.Lock() // one after another: each takes a chunk's memory
		defer r.verifying.Unlock()
		have, err := r.restored(in.store, m, announced, flushed)
		r.box.post(func() { r.stepIncoming(in, transfer.Restored{Have: have, Err: err}) })
	})
}

// restored is the chunks that are on disk as announced. A chunk that cannot be read is lacking; where none can, the disk is at fault. With again they,
// and the journal, are written again.
func (r *Room) restored(s *store, m *chunk.Manifest, announced [][]wire.Hash, again bool) (have []chunk.Ref, err error) {
	if err := s.journal.mend(again); err != nil {
		return nil, err
	}
	there, err := s.reopen()
	stored := s.stored() // which may be closed any time, and fails to read then
	if err != nil || !there || stored == nil {
		return nil, err
	}
	b := r.pool.Get(int(m.ChunkSize))
	defer b.Release()
	var unread error
	read := false
	for i, hashes := range announced {
		file := s.section(stored, uint32(i))
		for index, hash := range hashes {
			if err := r.ctx.Err(); err != nil {
				return nil, err
			}
			ref := chunk.Ref{File: uint32(i), Index: uint32(index)}
			p := b.B[:m.Length(ref)]
			sum, err := r.sumAt(file, p, m.Offset(ref))
			if err != nil {
				unread = err
				continue
			}
			read = true
			if sum != hash {
				continue
			}
			if again {
				if _, err := stored.WriteAt(p, s.offsets[i]+m.Offset(ref)); err != nil {
					return nil, err
				}
			}
			have = append(have, ref)
		}
	}
	if read {
		unread = nil
	}
	return have, unread
}

// sumAt fills p with what is at an offset, and hashes it.
func (r *Room) sumAt(file io.ReaderAt, p []byte, at int64) (wire.Hash, error) {
	if err := readFull(file, p, at); err != nil {
		return wire.Hash{}, err
	}
	sum, err := r.cfg.Engine.Sum256(p)
	return wire.Hash(sum), err
}

// Continue gives an outgoing transfer of an earlier room its files again (Transfer.Waiting). They are found by their paths, or else by name and
// size, and what was read of them before is read again: one that differs fails with file-changed, for this transfer, and nothing of it goes out.
// While files are lacking that somebody needs, it goes on waiting, with those given so far, and answers with the indices of the others. Without
// them it goes on if without is set: they fail with file-unreadable then, as texts do that are not given and were not delivered yet. Sources are
// closed as those of Send. The error is UnknownTransfer.
func (r *Room) Continue(key transfer.Key, files []OutFile, without bool) (lacking []uint32, err error) {
	return lacking, r.withOutgoing(key, func(o *outgoing) error {
		if !o.machine.Wanting() || o.files != nil {
			return fault.New(fault.UnknownTransfer, nil)
		}
		m := o.machine.Manifest()
		all := slices.Concat(files, o.given) // what was given last counts: it may put right what was given before
		o.given = nil
		found := make([]OutFile, len(m.Files))
		used := make([]bool, len(all))
		for i, n := range matching(m, all) {
			f, out := m.Files[i], &found[i]
			if n < 0 {
				out.Source = missing{f.Size}
				if f.Kind == wire.KindFile && f.Size > 0 && o.machine.Needs(uint32(i)) {
					lacking = append(lacking, uint32(i))
				}
				continue
			}
			*out, used[n] = all[n], true
			out.Path = f.Path // by which it is found again
			if f.Kind == wire.KindText {
				out.Source = text(out.Text)
			}
			o.given = append(o.given, *out)
		}
		for n := range all {
			if !used[n] {
				closeSources(all[n : n+1])
			}
		}
		if len(lacking) > 0 && !without {
			return nil
		}
		o.files, o.given = found, nil
		o.journal.note(transfer.OpenedRecord(r.cfg.Now()))
		r.reread(o, lacking)
		return nil
	})
}

// matching says which of the given files each of the manifest's is, and -1 for none; none is two of them. They are found by path, in order, or
// else as the only one left of that name and size.
func matching(m *chunk.Manifest, files []OutFile) []int {
	type place struct {
		kind wire.FileKind
		path string
	}
	type likeness struct {
		name string
		size uint64
	}
	paths, names, lacking := map[place][]int{}, map[likeness][]int{}, map[likeness]int{}
	for i, f := range files {
		at := place{f.Kind, strings.ToValidUTF8(f.Path, "_")}
		paths[at] = append(paths[at], i)
	}
	match, taken := make([]int, len(m.Files)), make([]bool, len(files))
	for i, f := range m.Files {
		match[i] = -1
		at := place{f.Kind, f.Path}
		for _, n := range paths[at] {
			if !taken[n] && (f.Kind != wire.KindText || uint64(len(files[n].Text)) == f.Size) {
				match[i], taken[n] = n, true
				break
			}
		}
		if len(paths[at]) > 0 && taken[paths[at][0]] {
			paths[at] = paths[at][1:]
		}
		if match[i] < 0 && f.Kind == wire.KindFile {
			lacking[likeness{chunk.Base(f.Path), f.Size}]++
		}
	}
	for n, f := range files {
		if f.Kind == wire.KindFile && f.Source != nil && !taken[n] {
			like := likeness{chunk.Base(f.Path), uint64(f.Source.Size())}
			names[like] = append(names[like], n)
		}
	}
	for i, f := range m.Files {
		like := likeness{chunk.Base(f.Path), f.Size}
		if match[i] < 0 && f.Kind == wire.KindFile && lacking[like] == 1 && len(names[like]) == 1 {
			match[i] = names[like][0]
		}
	}
	return match
}

// written reports whether a file has been written to since, as far as its times of modification are known.
func written(now int64, before uint64) bool {
	return now > 0 && before > 0 && uint64(now) != before
}

// missing is a file that was not given again.
type missing struct{ size uint64 }

// ReadAt implements io.ReaderAt.
func (missing) ReadAt([]byte, int64) (int, error) { return 0, transfer.ErrSourceUnreadable }

// Size implements transfer.Source.
func (m missing) Size() int64 { return int64(m.size) }

// reread looks whether the files are what they were: recipients have the chunks that had been read, and must not get the rest of another file.
// What had been read is hashed again; of the rest the time of modification tells. Those that are lacking fail.
func (r *Room) reread(o *outgoing, lacking []uint32) {
	m := o.machine.Manifest()
	type read struct {
		runs   []wire.Run
		hashes []wire.Hash
	}
	before := make([]read, len(m.Files))
	for i := range before {
		runs, hashes := o.machine.Read(uint32(i))
		before[i] = read{runs, slices.Clone(hashes)}
	}
	o.rereading = true
	r.running.Go(func() {
		var failed []transfer.Event
		b := r.pool.Get(int(m.ChunkSize))
		defer b.Release()
		for _, file := range lacking {
			failed = append(failed, transfer.SourceFailed{File: file, Err: transfer.ErrSourceUnreadable})
		}
		for i, was := range before {
			f, given := m.Files[i], o.files[i]
			if f.Kind == wire.KindDirectory {
				continue
			}
			source := given.Source
			if _, lacks := source.(missing); lacks {
				continue // it fails if it is ever read
			}
			unread := m.Chunks(uint32(i))
			for _, run := range was.runs {
				unread -= run.Count
			}
			var err error
			if uint64(source.Size()) != f.Size || unread > 0 && written(given.Modified, f.Modified) {
				err = transfer.ErrSourceChanged
			}
			for _, run := range was.runs {
				for at := run.First; at < run.First+run.Count && err == nil; at++ {
					if r.ctx.Err() != nil {
						return
					}
					var sum wire.Hash
					ref := chunk.Ref{File: uint32(i), Index: at}
					if sum, err = r.sumAt(source, b.B[:m.Length(ref)], m.Offset(ref)); err == nil && sum != was.hashes[at] {
						err = transfer.ErrSourceChanged
					}
				}
			}
			if err != nil {
				failed = append(failed, transfer.SourceFailed{File: uint32(i), Err: err})
			}
		}
		r.box.post(func() {
			o.rereading = false
			r.stepOutgoing(o, append(failed, transfer.SourcesReady{})...)
		})
	})
}
