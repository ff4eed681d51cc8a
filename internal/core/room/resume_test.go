//go:build !js

package room_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/transfer/diskstore"
	"tallow/internal/core/wire"
)

// life is what of a person outlives a process: keys and a disk.
type life struct {
	w    *world
	name string
	seed [32]byte
	dir  string
	link *seal.Link // nil: the first life of an owner
	now  func() time.Time

	forgets bool     // Config.Resume is false
	stays   bool     // its disk removes nothing
	fails   *failing // from the start
}

func (w *world) life(name string, link *seal.Link) *life {
	return &life{w: w, name: name, seed: [32]byte([]byte(name + "                                ")), dir: w.t.TempDir(), link: link, now: time.Now}
}

// pair is Ann with a room, and Bob in the first of his lives there.
func (w *world) pair() (ann *person, l *life, bob *person) {
	w.t.Helper()
	return w.pairAt(time.Now)
}

// lives is a room's owner and a guest, each in the first of their lives.
func (w *world) lives(owner, guest string) (first, second *life, one, other *person) {
	w.t.Helper()
	first = w.life(owner, nil)
	one = first.born()
	second = w.life(guest, first.link)
	other = second.born()
	one.meet(other)
	return first, second, one, other
}

// pairAt is a pair for whom it is that time, whose lives set makes what they are.
func (w *world) pairAt(now func() time.Time, set ...func(*life)) (ann *person, l *life, bob *person) {
	w.t.Helper()
	begin := func(l *life) *person {
		l.now = now
		for _, f := range set {
			f(l)
		}
		return l.born()
	}
	owner := w.life("Ann", nil)
	ann = begin(owner)
	l = w.life("Bob", owner.link)
	bob = begin(l)
	ann.meet(bob)
	return ann, l, bob
}

// born enters the room in a new process.
func (l *life) born() *person {
	l.w.t.Helper()
	p, cfg := l.w.person(l.name)
	storage, err := diskstore.Open(l.dir)
	if err != nil {
		l.w.t.Fatal(err)
	}
	p.dir, p.storage, p.plug = l.dir, storage, &plug{Durable: storage}
	p.plug.fails.Store(l.fails)
	p.plug.stays = l.stays
	cfg.Seed, cfg.Resume, cfg.Storage, cfg.ServerURL, cfg.Now = &l.seed, !l.forgets, p.plug, l.w.url+"/?"+p.address, l.now
	var r *room.Room
	if l.link == nil {
		if r, err = room.Create(l.w.t.Context(), cfg); err == nil {
			link := r.Link()
			l.link = &link
		}
	} else {
		r, err = room.Join(l.w.t.Context(), *l.link, cfg)
	}
	if err != nil {
		l.w.t.Fatalf("%s enters: %v", l.name, err)
	}
	p.room = r
	l.w.t.Cleanup(func() { r.Leave(context.Background()) })
	return p
}

// crash ends a person's process without a word: it reaches nobody, nor its disk. The others notice at once.
func (w *world) crash(p *person, others ...*person) {
	p.plug.pull()
	id := p.id()
	w.mu.Lock()
	w.dead[p.address] = true
	if t := w.taps[id]; t != nil {
		t.cut()
	}
	w.mu.Unlock()
	for _, o := range others {
		o.cutLinks()
	}
}

// plug is what a process and its disk are connected by.
type plug struct {
	transfer.Durable
	mu     sync.RWMutex
	pulled bool
	writes atomic.Int64                  // to files
	open   atomic.Int64                  // files
	held   atomic.Pointer[chan struct{}] // unless nil, notes wait until it is closed
	broken atomic.Bool                   // it takes files and no journals
	full   atomic.Bool                   // it has no room for journals
	lacked atomic.Int64                  // how often it had no room for one
	stays  bool                          // it removes nothing
	noEnds atomic.Bool                   // it has no room for notes of an end
	fails  atomic.Pointer[failing]
}

// failing is what a disk does not do, once or for good.
type failing struct {
	operation string // write, read, commit, put, or, of 8 MiB, read the end
	once      bool
}

var errDisk = errors.New("input/output error")

// fail is nil unless the operation fails.
func (p *plug) fail(operation string) error {
	f := p.fails.Load()
	if f == nil || f.operation != operation || f.once && !p.fails.CompareAndSwap(f, nil) {
		return nil
	}
	return errDisk
}

var errCrashed = errors.New("the process has crashed")

// pull returns when no operation is under way, and lets none begin.
func (p *plug) pull() {
	p.mu.Lock()
	p.pulled = true
	p.mu.Unlock()
}

// hold has notes wait until what it returns is called.
func (p *plug) hold() (release func()) {
	held := make(chan struct{})
	p.held.Store(&held)
	return sync.OnceFunc(func() { close(held) })
}

func (p *plug) do(operation func() error) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.pulled {
		return errCrashed
	}
	return operation()
}

func (p *plug) Create(ctx context.Context, delivery, name string, size int64) (f transfer.StoredFile, err error) {
	err = p.do(func() error { f, err = p.Durable.Create(ctx, delivery, name, size); return err })
	return p.plugged(f, err)
}

func (p *plug) Open(ctx context.Context, delivery, name string) (f transfer.StoredFile, err error) {
	err = p.do(func() error { f, err = p.Durable.Open(ctx, delivery, name); return err })
	return p.plugged(f, err)
}

func (p *plug) plugged(f transfer.StoredFile, err error) (transfer.StoredFile, error) {
	if err != nil {
		return nil, err
	}
	p.open.Add(1)
	return &pluggedFile{StoredFile: f, plug: p}, nil
}

func (p *plug) Remove(ctx context.Context, delivery string) error {
	if p.stays {
		return errDisk
	}
	return p.do(func() error { return p.Durable.Remove(ctx, delivery) })
}

func (p *plug) Put(ctx context.Context, delivery, name string, b []byte, at int64) error {
	if held := p.held.Load(); held != nil {
		<-*held
	}
	return p.do(func() error {
		if p.broken.Load() {
			return errors.New("the disk is broken")
		}
		if err := p.fail("put"); err != nil {
			return err
		}
		if p.full.Load() || p.noEnds.Load() && notesEnd(b) {
			p.lacked.Add(1)
			return transfer.ErrStorageFull
		}
		return p.Durable.Put(ctx, delivery, name, b, at)
	})
}

// notesEnd reports whether one of these records notes an end, of either side of a delivery.
func notesEnd(b []byte) bool {
	for len(b) > 8 {
		if kind := b[8]; kind == 5 || kind == 6 {
			return true
		}
		b = b[8+binary.BigEndian.Uint32(b):]
	}
	return false
}

type pluggedFile struct {
	transfer.StoredFile
	plug *plug
	once sync.Once
}

func (f *pluggedFile) Close() error {
	f.once.Do(func() { f.plug.open.Add(-1) })
	return f.StoredFile.Close()
}

func (f *pluggedFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.plug.do(func() error {
		if err = f.plug.fail("write"); err == nil {
			n, err = f.StoredFile.WriteAt(b, off)
		}
		return err
	})
	f.plug.writes.Add(1)
	return n, err
}

func (f *pluggedFile) Commit(ctx context.Context) error {
	return f.plug.do(func() error {
		if err := f.plug.fail("commit"); err != nil {
			return err
		}
		return f.StoredFile.Commit(ctx)
	})
}

func (f *pluggedFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.plug.fail("read"); err != nil {
		return 0, err
	}
	if off+int64(len(b)) == 8*mib {
		if err := f.plug.fail("read the end"); err != nil {
			return 0, err
		}
	}
	return f.StoredFile.ReadAt(b, off)
}

// stepped is a source that can be read up to a limit.
type stepped struct {
	source
	reads atomic.Int64
	mu    sync.Mutex
	turn  *sync.Cond
	limit int64
}

func newStepped(t *testing.T, s source) *stepped {
	g := &stepped{source: s}
	g.turn = sync.NewCond(&g.mu)
	t.Cleanup(func() { g.raise(int64(len(s))) })
	return g
}

func (s *stepped) raise(limit int64) {
	s.mu.Lock()
	s.limit = max(s.limit, limit)
	s.turn.Broadcast()
	s.mu.Unlock()
}

func (s *stepped) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	for off+int64(len(p)) > s.limit {
		s.turn.Wait()
	}
	s.mu.Unlock()
	s.reads.Add(1)
	return s.source.ReadAt(p, off)
}

// told is how much a recipient has on disk, as far as p, the sender, knows.
func (p *person) told(recipient *person) (bytes int64) {
	for _, e := range p.since(0) {
		if e, ok := e.(room.TransferProgress); ok {
			for _, d := range e.Transfer.Deliveries {
				if d.Peer == recipient.room.Self().ID {
					bytes = max(bytes, d.Bytes)
				}
			}
		}
	}
	return bytes
}

// done waits until a transfer has ended well. It may have ended before, for want of somebody.
func (p *person) done(id room.TransferID) room.Result {
	p.t.Helper()
	return wait(p, "the transfer to succeed", func(e room.TransferFinished) bool {
		ok := e.Result.ID == id.Transfer.String() && e.Result.Code == ""
		for _, d := range e.Transfer.Deliveries {
			ok = ok && d.State == room.DeliveryDone
		}
		return ok
	}).Result
}

func (p *person) resumed() room.Transfer {
	p.t.Helper()
	return wait(p, "the transfer of before", func(room.TransferResumed) bool { return true }).Transfer
}

// spoil changes a byte of each first file of the deliveries on a disk.
func spoil(t *testing.T, dir string, at int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*", room.StoredName))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && int64(len(b)) > at {
			b[at] ^= 1
			err = os.WriteFile(name, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// holdsNoSecret looks for keys in everything on a disk.
func holdsNoSecret(t *testing.T, dir string, secrets ...[]byte) {
	t.Helper()
	looked := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(b, s) {
				t.Errorf("a secret lies in %s", path)
			}
		}
		looked++
		return err
	})
	if err != nil || looked < 2 {
		t.Errorf("looked into %d files: %v", looked, err)
	}
}

// slack is what records cost besides their chunks, and a chunk that is fetched again.
const slack = 512 << 10

// TestRecipientRestart: the recipient's process dies while bytes flow, several times. Nobody is asked again, and what the sender knew to be on disk is
// not sent again.
func TestRecipientRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, l, bob := w.pair()
	file := content(8*mib, 1)
	s := newStepped(t, file)
	id := ann.send(outFile("a.bin", s), outFile("empty", source{}))
	bob.accept(ann)
	var told int64
	for _, step := range []struct{ limit, crash int64 }{{mib, 1}, {3 * mib, 2 * mib}, {6 * mib, 6 * mib}} {
		s.raise(step.limit)
		ann.stored(bob, step.crash)
		w.crash(bob, ann)
		if n := bob.bulk.Load(); n > step.limit-told+slack {
			t.Errorf("%d bytes of records, when only %d were lacking", n, step.limit-told)
		}
		told = ann.told(bob)
		spoil(t, l.dir, 100) // a chunk that was being written, or a bad disk: it is fetched again
		bob = l.born()
		if r := bob.resumed(); r.ID != id.Transfer.String() || !r.Incoming || r.Deliveries[0].Name != "Ann" || r.Deliveries[0].Peer != ann.room.Self().ID {
			t.Fatalf("%+v", r)
		}
	}
	holdsNoSecret(t, l.dir, l.seed[:], l.link.Secret[:])
	s.raise(8 * mib)
	bob.check(bob.done(id), file)
	ann.done(id)
	if n := bob.bulk.Load(); n > 8*mib-told+slack {
		t.Errorf("%d bytes of records, when only %d were lacking", n, 8*mib-told)
	}
	for _, e := range bob.since(0) {
		if o, ok := e.(room.OfferReceived); ok {
			t.Errorf("asked again: %+v", o)
		}
	}
}

// TestSenderRestart: the sender's process dies in the middle, and both ends' do. The files are given again.
func TestSenderRestart(t *testing.T) {
	for _, c := range []struct {
		name       string
		owner      bool // the sender is
		both       bool
		change     int64 // of a byte of the file; -1: none
		unfinished int64 // of the file, when it dies
		modified   int64 // what is given again; before, it was 1
	}{
		{"a member", false, false, -1, 3 * mib, 1},
		{"the owner, and the recipient", true, true, -1, 3 * mib, 0},
		{"changed where it was read before", false, false, 100, 2 * mib, 0},
		{"changed where nobody had read it", false, false, 4 * mib, 2 * mib, 2},
		{"everything was read", false, false, -1, 5 * mib, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			first, second, ann, bob := w.lives("Ann", "Bob")
			recipient, sender, from, to := ann, bob, second, first
			if c.owner {
				recipient, sender, from, to = bob, ann, first, second
			}
			sender.meet(recipient)
			file, small := content(5*mib, 1), content(1000, 2)
			s := newStepped(t, file)
			modified := func(path string, s transfer.Source, at int64) room.OutFile {
				f := outFile(path, s)
				f.Modified = at
				return f
			}
			id := sender.send(modified("small.bin", small, 1), modified("dir/a.bin", s, 1))
			recipient.accept(sender)
			s.raise(c.unfinished)
			if c.unfinished < 5*mib {
				sender.stored(recipient, c.unfinished)
			} else {
				sender.stored(recipient, mib)
			}
			before := recipient.bulk.Load()
			stored := sender.told(recipient)
			w.crash(sender, recipient)
			if c.both {
				w.crash(recipient)
				before = 0
			}
			if c.owner { // who comes back first
				sender = from.born()
				recipient = to.born()
			} else {
				sender = from.born()
			}
			r := sender.resumed()
			if r.Incoming || !r.Waiting || r.ID != id.Transfer.String() || len(r.Deliveries) != 1 || r.Deliveries[0].Name != to.name || r.Files[1].Path != "dir/a.bin" {
				t.Fatalf("%+v", r)
			}
			again := append(source{}, file...)
			if c.change >= 0 {
				again[c.change] ^= 1
			}
			// All of this one had been read: nothing of it can be another file's.
			touched := modified("small.bin", small, 2)
			if lacking, err := sender.room.Continue(id, []room.OutFile{touched, outFile("b.bin", again)}, false); err != nil || !slices.Equal(lacking, []uint32{1}) {
				t.Errorf("without one of the files: %v, %v", lacking, err)
			}
			if lacking, err := sender.room.Continue(id, []room.OutFile{modified("a.bin", again, c.modified)}, false); err != nil || len(lacking) > 0 {
				t.Fatal(lacking, err)
			}
			if _, err := sender.room.Continue(id, []room.OutFile{outFile("a.bin", again), outFile("small.bin", small)}, false); fault.Of(err) != fault.UnknownTransfer {
				t.Errorf("twice: %v", err)
			}
			if c.change >= 0 {
				end := wait(recipient, "the end", func(e room.TransferFinished) bool { return e.Result.Code == fault.FileChanged }).Result
				if end.Files[1].Complete || end.Files[1].Code != fault.FileChanged {
					t.Errorf("%+v", end)
				}
				end.Code = ""
				recipient.check(end, small)
				wait(sender, "the end", func(e room.TransferFinished) bool {
					l := e.Result.Ledger[0]
					return l.Code == fault.FileChanged && l.Files[0].Outcome == "verified" && l.Files[1].Outcome == "failed"
				})
				return
			}
			recipient.check(recipient.done(id), small, file)
			sender.done(id)
			if n := recipient.bulk.Load() - before; n > 5*mib-stored+slack {
				t.Errorf("%d bytes of records, when only %d were lacking", n, 5*mib-stored)
			}
			eventually(t, from.name+" keeps nothing", func() bool {
				left, err := os.ReadDir(from.dir)
				return err == nil && len(left) == 0
			})
		})
	}
}

// TestWithout: of a restarted sender's files one is gone that the recipient has, and one that it lacks. Nobody asks for the first; without the second
// the transfer goes on, and that file fails.
func TestWithout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	l := w.life("Ann", nil)
	ann := l.born()
	bob := w.life("Bob", l.link).born()
	ann.meet(bob)
	first, second, third := content(mib, 1), content(2*mib, 2), content(mib, 3)
	s := newStepped(t, second)
	id := ann.send(outFile("a.bin", first), outFile("b.bin", s), outFile("c.bin", third))
	bob.accept(ann)
	s.raise(mib)
	ann.stored(bob, 2*mib)
	w.crash(ann, bob)
	ann = l.born()
	ann.meet(bob)
	wait(bob, "the sender to lack its files", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].State == room.DeliveryPaused })
	wait(ann, "to know what is there", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].Bytes >= 2*mib })
	for _, given := range [][]room.OutFile{{outFile("b.bin", second)}, {outFile("x.bin", third)}} {
		if lacking, err := ann.room.Continue(id, given, false); err != nil || !slices.Equal(lacking, []uint32{2}) {
			t.Errorf("%v, %v", lacking, err)
		}
	}
	if _, err := ann.room.Continue(id, nil, true); err != nil {
		t.Fatal(err)
	}
	end := wait(bob, "the end", func(e room.TransferFinished) bool { return e.Result.Code == fault.FileUnreadable }).Result
	if end.Files[2].Complete || end.Files[2].Code != fault.FileUnreadable {
		t.Errorf("%+v", end)
	}
	end.Code = ""
	bob.check(end, first, second)
	wait(ann, "the end", func(e room.TransferFinished) bool {
		l := e.Result.Ledger[0]
		return l.Code == fault.FileUnreadable && l.Files[0].Outcome == "verified" && l.Files[1].Outcome == "verified" && l.Files[2].Outcome == "failed"
	})
}

// TestNotedBeforeTold: a recipient tells its sender of nothing that a crash at that moment would make it ask for again.
func TestNotedBeforeTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.life("Ann", nil).born()
	link := ann.room.Link()
	bob := w.life("Bob", &link).born()
	ann.meet(bob)
	bob.meet(ann)
	release := bob.plug.hold()
	t.Cleanup(release)
	file := content(mib, 1)
	id := ann.send(outFile("a.bin", file))
	bob.accept(ann)
	for end := time.After(patience); bob.plug.writes.Load() < 4; {
		select {
		case <-end:
			t.Fatal("nothing is written")
		default:
			ann.room.State() // which takes a moment
		}
	}
	for range 2 { // what Bob would have told is ahead of this
		sent := bob.send(outFile("b.bin", file))
		wait(ann, "an offer", func(e room.OfferReceived) bool { return e.Offer.ID == sent.Transfer.String() })
	}
	if n := ann.told(bob); n > 0 {
		t.Errorf("%d bytes were told of, and nothing is noted", n)
	}
	release()
	bob.check(bob.done(id), file)
	ann.done(id)
}

// TestNotedBeforeSent: nothing of a file goes out that a crash at that moment would make its sender know nothing of.
func TestNotedBeforeSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 13, 0)
	ann := w.life("Ann", nil).born()
	link := ann.room.Link()
	bob, cleo := w.life("Bob", &link).born(), w.life("Cleo", &link).born()
	ann.meet(bob, cleo)
	bob.meet(ann)
	file := content(mib, 1)
	source := newStepped(t, file)
	source.raise(mib)
	// begins has Bob accept what begin offers him, of which nothing may go out while Ann's disk waits, until then is done.
	begins := func(what string, begin func(), then func(id room.TransferID)) {
		t.Helper()
		release := ann.plug.hold()
		t.Cleanup(release)
		before, mark := ann.figures(bob).ChunksSent, bob.mark()
		begin()
		offer := waitAfter(bob, mark, "an offer", func(e room.OfferReceived) bool { return e.Offer.From == ann.room.Self().ID }).Offer
		id := transferID(t, offer.From, offer.ID)
		if _, err := bob.room.Accept(id, nil); err != nil {
			t.Fatal(err)
		}
		for end := time.After(patience); source.reads.Load() == 0; ann.room.State() { // which takes a moment
			select {
			case <-end:
				t.Fatal("nothing is read")
			default:
			}
		}
		for range 2 { // which takes longer than a chunk that has been read needs to go out
			sent := bob.sendTo([]wire.ID{ann.id()}, outFile("b.bin", content(1, 2)))
			wait(ann, "an offer", func(e room.OfferReceived) bool { return e.Offer.ID == sent.Transfer.String() })
		}
		if n := ann.figures(bob).ChunksSent - before; n > 0 {
			t.Errorf("%s: %d chunks are sent, and it is not noted", what, n)
		}
		then(id)
		release()
	}
	var id, retried room.TransferID
	begins("the first attempt", func() { id = ann.send(outFile("a.bin", source)) }, func(id room.TransferID) { // Cleo does not answer, so its journal stays
		if err := bob.room.Cancel(id); err != nil {
			t.Fatal(err)
		}
		wait(ann, "Bob's end", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].State == room.DeliveryCancelled })
	})
	begins("a retry", func() {
		if err := ann.room.Retry(id, bob.id()); err != nil {
			t.Fatal(err)
		}
	}, func(id room.TransferID) { retried = id })
	bob.check(bob.finished(retried), file)
}

// TestRetriedRestart: a retry goes on after a crash, although what was noted of the transfer before is still there.
func TestRetriedRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 14, 0)
	first := w.life("Ann", nil)
	first.stays = true
	ann := first.born()
	bob := w.life("Bob", first.link).born()
	ann.meet(bob)
	bob.meet(ann)
	id, _ := ann.halfway(content(2*mib, 1), bob)
	if err := bob.room.Cancel(id); err != nil {
		t.Fatal(err)
	}
	ann.finished(id)
	mark := bob.mark()
	if err := ann.room.Retry(id, bob.id()); err != nil {
		t.Fatal(err)
	}
	offer := waitAfter(bob, mark, "an offer", func(room.OfferReceived) bool { return true }).Offer
	mark = ann.mark()
	if _, err := bob.room.Accept(transferID(t, offer.From, offer.ID), nil); err != nil {
		t.Fatal(err)
	}
	waitAfter(ann, mark, "half of it", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].Bytes >= mib })
	for range 5 { // whichever of the two is found first
		w.crash(ann, bob)
		ann = first.born()
		ann.resumed()
	}
}

// TestOtherSender: under another key the same transfer is a new one, and what was begun is not touched.
func TestOtherSender(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, l, bob := w.pair()
	file := content(2*mib, 1)
	id, g := ann.halfway(file, bob)
	w.crash(bob, ann)
	bob = l.born()
	bob.resumed()
	ann.meet(bob)
	cleo := w.another("Cleo", *l.link, bob)
	f := cleo.forge(bob, []string{"a.bin"}, content(2*mib, 2))
	f.key.Transfer, f.offer.Transfer = id.Transfer, id.Transfer
	cleo.tell(bob, f.offer, wire.ManifestPart{Transfer: id.Transfer, Data: f.manifest.Encoded})
	e := wait(bob, "to be asked", func(e room.OfferReceived) bool { return e.Offer.From == cleo.room.Self().ID })
	if e.Offer.ID != id.Transfer.String() {
		t.Errorf("%+v", e.Offer)
	}
	if _, err := bob.room.Accept(f.key, nil); err != nil {
		t.Fatal(err)
	}
	cleo.tell(bob, f.hashes(0), f.chunk(0, 0), wire.Cancel{Sender: f.key.Sender, Transfer: id.Transfer, Code: wire.FailureCancelled})
	g.open()
	bob.check(bob.done(id), file)
}

// TestDiscarded: what its sender discards after a restart goes at the recipient too, and leaving the room leaves nothing.
func TestDiscarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	first, second, ann, bob := w.lives("Ann", "Bob")
	id, _ := bob.halfway(content(2*mib, 1), ann)
	w.crash(bob, ann)
	bob = second.born()
	bob.resumed()
	if err := bob.room.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if r := ann.finished(id); r.Code != fault.CancelledByPeer {
		t.Errorf("%+v", r)
	}
	bob.meet(ann)
	g := newGated(t, content(2*mib, 3), mib)
	id = bob.send(outFile("b.bin", g))
	wait(ann, "the next offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
	if _, err := ann.room.Accept(id, nil); err != nil {
		t.Fatal(err)
	}
	wait(bob, "some of it at Ann", func(e room.TransferProgress) bool {
		return e.Transfer.ID == id.Transfer.String() && e.Transfer.Deliveries[0].Bytes >= mib
	})
	go g.open() // a read must not hold up Leave for ever
	bob.room.Leave(context.Background())
	wait(ann, "the end of the other", func(e room.TransferFinished) bool { return e.Result.ID == id.Transfer.String() && e.Result.Code != "" })
	ann.room.Leave(context.Background())
	for _, l := range []*life{first, second} {
		if left, err := os.ReadDir(l.dir); err != nil || len(left) > 0 {
			t.Errorf("%s keeps %v, %v", l.name, left, err)
		}
	}
}

// TestLongAbsence: a laptop is closed for longer than anybody waits, and opened again.
func TestLongAbsence(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	time := newClock()
	ann, _, bob := w.pairAt(time.Now)
	file := content(4*mib, 1)
	id, g := ann.halfway(file, bob)
	received := bob.bulk.Load()
	absent := func(away bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dead[bob.address] = away
		if tap := w.taps[bob.id()]; away && tap != nil {
			tap.cut()
		}
	}
	absent(true)
	time.run(20)
	gone := func(e room.TransferFinished) bool { return e.Transfer.Deliveries[0].Code == fault.PeerGone }
	wait(ann, "Bob to be gone", gone)
	wait(bob, "Ann to be gone", gone)
	time.run(1)
	mark := ann.mark()
	absent(false)
	bob.room.Nudge()
	waitAfter(ann, mark, "the transfer to go on", func(e room.TransferProgress) bool {
		return e.Transfer.Deliveries[0].State == room.DeliveryTransferring && e.Transfer.Deliveries[0].Bytes >= mib
	})
	g.open()
	bob.check(bob.done(id), file)
	ann.done(id)
	if n := bob.bulk.Load() - received; n > 3*mib+slack {
		t.Errorf("%d bytes of records, when only %d were lacking", n, 3*mib)
	}
}

// TestForgotten: what nobody has gone on with for a week is deleted, and so is what is not ours or cannot be read.
func TestForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	first := w.life("Ann", nil)
	ann := first.born()
	link := ann.room.Link()
	l := w.life("Bob", &link)
	bob := l.born()
	ann.meet(bob)
	ann.halfway(content(2*mib, 1), bob)
	journals, err := filepath.Glob(filepath.Join(first.dir, "*", transfer.JournalName))
	if err != nil || len(journals) != 1 {
		t.Fatal(journals, err)
	}
	other := ann.send(outFile("b.bin", content(mib, 2)))
	wait(bob, "the other offer", func(e room.OfferReceived) bool { return e.Offer.ID == other.Transfer.String() })
	w.crash(bob, ann)
	var foreign []byte // Ann's journal of what Bob has not accepted, among Bob's; it is written soon
	for end := time.After(patience); ; ann.room.State() {
		all, err := filepath.Glob(filepath.Join(first.dir, "*", transfer.JournalName))
		for _, path := range all {
			if path != journals[0] && err == nil {
				foreign, err = os.ReadFile(path)
			}
		}
		if j, bad := transfer.ParseJournal(foreign); err == nil && bad == nil && j.Outgoing && j.Key == other {
			break
		}
		select {
		case <-end:
			t.Fatal("no journal of the second transfer: ", all, err)
		default:
		}
	}
	err = os.Mkdir(filepath.Join(l.dir, "foreign"), 0o700)
	if err == nil {
		err = os.WriteFile(filepath.Join(l.dir, "foreign", transfer.JournalName), foreign, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.now = func() time.Time { return time.Now().AddDate(-26, 0, 0) } // the clock is wrong: nothing is deleted for that, nor later
	bob = l.born()
	bob.resumed()
	ann.meet(bob)
	wait(bob, "it to go on", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].State == room.DeliveryTransferring })
	w.crash(bob, ann)
	l.now = func() time.Time { return time.Now().Add(room.KeepUnfinished - time.Hour) }
	bob = l.born()
	if r := bob.resumed(); !r.Incoming {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(l.dir, "foreign")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not ours: %v", err)
	}
	w.crash(bob, ann)
	storage, err := diskstore.Open(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for delivery, journal := range map[string][]byte{"junk": {1, 2, 3}, "older": nil} {
		if journal != nil {
			err = storage.Put(ctx, delivery, transfer.JournalName, journal, 0)
		} else {
			_, err = storage.Create(ctx, delivery, "0", 100) // of which no journal tells
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	again := l.now()
	l.now = func() time.Time { return again.Add(room.KeepUnfinished + time.Hour) }
	l.born()
	if left, err := os.ReadDir(l.dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestForgottenBySender: what the sender does not offer any more is deleted after a week, however often the two meet. What it offers stays.
func TestForgottenBySender(t *testing.T) {
	t.Parallel()
	for _, forgotten := range []bool{true, false} {
		t.Run(fmt.Sprint(forgotten), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			clock := newClock()
			first := w.life("Ann", nil)
			first.now = clock.Now
			ann := first.born()
			second := w.life("Bob", first.link)
			bob := second.born()
			ann.meet(bob)
			id, g := bob.halfway(content(2*mib, 1), ann)
			w.crash(bob, ann)
			g.open()
			if forgotten {
				second.dir = t.TempDir()
			}
			next := func() {
				w.crash(ann)
				clock.skip(room.KeepUnfinished/2 + time.Hour)
				ann = first.born()
			}
			next()
			ann.resumed()
			bob = second.born()
			ann.meet(bob)
			other := bob.send(outFile("b.bin", source{1})) // after what it offers again
			wait(ann, "the other offer", func(e room.OfferReceived) bool { return e.Offer.ID == other.Transfer.String() })
			w.crash(bob, ann)
			next()
			if !forgotten {
				if r := ann.resumed(); r.ID != id.Transfer.String() {
					t.Errorf("%+v", r)
				}
			} else if left, err := os.ReadDir(first.dir); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
		})
	}
}

// reborn is a person whose room comes back to what was done in a life before.
func (l *life) reborn(id room.TransferID) (*person, room.Result) {
	l.w.t.Helper()
	p := l.born()
	if r := p.resumed(); r.ID != id.Transfer.String() || !r.Finished || r.Deliveries[0].State != room.DeliveryDone || r.Deliveries[0].Name != "Ann" {
		l.w.t.Fatalf("%+v", r)
	}
	return p, p.done(id)
}

// TestDoneRestart: what has arrived and was not handed over is there after a crash, and after another, until the person has it. From then on it
// only answers its sender, and is deleted an hour later, while the room is open or at the next restart.
func TestDoneRestart(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"discarded", "expires", "expires after a restart", "left", "forgotten"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			clock := newClock()
			ann := w.life("Ann", nil).born()
			link := ann.room.Link()
			l := w.life("Bob", &link)
			l.now = clock.Now
			bob := l.born()
			ann.meet(bob)
			file := content(2*mib, 1)
			id := ann.send(outFile("a.bin", file), outFile("empty", source{}))
			bob.accept(ann)
			bob.check(bob.done(id), file)
			ann.done(id)
			path := func(name string) string {
				found, err := filepath.Glob(filepath.Join(l.dir, "*", name))
				if err != nil || len(found) > 1 {
					t.Fatal(found, err)
				}
				return strings.Join(found, "")
			}
			eventually(t, "the journal says so", func() bool {
				p, err := os.ReadFile(path(transfer.JournalName))
				u, bad := room.Describe(p)
				return err == nil && bad == nil && u.Done && u.Files[0].Complete && u.Offsets[1] == 2*mib
			})
			gone := func(p *person) {
				t.Helper()
				eventually(t, "nothing is left", func() bool {
					left, err := os.ReadDir(l.dir)
					return err == nil && len(left) == 0 && p.plug.open.Load() == 0
				})
			}
			var result room.Result
			for range 2 {
				w.crash(bob, ann)
				clock.skip(room.KeepUnfinished/2 - time.Hour)
				bob, result = l.reborn(id)
				bob.check(result, file)
			}
			for _, e := range bob.since(0) {
				if o, ok := e.(room.OfferReceived); ok {
					t.Errorf("asked again: %+v", o)
				}
			}
			handOver := func() {
				t.Helper()
				if err := bob.room.HandedOver(result.Delivery); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the receipt", func() bool {
					b, err := os.ReadFile(path(transfer.ReceiptName))
					j, bad := transfer.ParseJournal(b)
					return err == nil && bad == nil && path(transfer.JournalName) == "" && clock.Now().Sub(j.Opened) < time.Minute
				})
			}
			switch end {
			case "discarded":
				if err := bob.room.Discard(result.Delivery); err != nil {
					t.Fatal(err)
				}
				if err := bob.room.HandedOver(result.Delivery); fault.Of(err) != fault.UnknownTransfer {
					t.Errorf("handed over what was discarded: %v", err)
				}
			case "expires":
				handOver()
				clock.skip(room.KeepHandedOver - time.Minute)
				bob.room.State()
				bob.check(result, file)
				clock.skip(2 * time.Minute)
				wait(bob, "it to be gone", func(e room.ReceivedExpired) bool { return e.Delivery == result.Delivery })
			case "expires after a restart":
				handOver()
				clock.skip(room.KeepHandedOver - time.Minute)
				handOver() // begins the time anew
				w.crash(bob, ann)
				clock.skip(room.KeepHandedOver - time.Minute)
				bob = l.born()
				ann.meet(bob)
				for _, e := range bob.since(0) {
					if r, ok := e.(room.TransferResumed); ok {
						t.Errorf("comes back to %+v", r.Transfer)
					}
				}
				if path(room.StoredName) == "" {
					t.Error("deleted before its hour is over")
				}
				clock.skip(room.KeepHandedOver + time.Minute)
			case "left": // nobody comes back, and whoever sweeps the storage finds no journal
				bob.room.Leave(context.Background())
				if path(transfer.JournalName) != "" || path(room.StoredName) == "" {
					t.Error("not left to whoever sweeps")
				}
				bob.check(result, file)
				return
			case "forgotten":
				w.crash(bob, ann)
				clock.skip(3 * time.Hour)
				bob = l.born()
			}
			gone(bob)
		})
	}
}

// TestRelinkedWhileAsked: the link is lost while the person is being asked; what is accepted then is there after a crash all the same.
func TestRelinkedWhileAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, l, bob := w.pair()
	file := content(mib, 1)
	id := ann.send(outFile("a.bin", file))
	wait(bob, "an offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
	mark := bob.mark()
	bob.cutLinks()
	eventually(t, "the link is lost, and there is another", func() bool {
		lost := false
		for _, e := range bob.since(mark) {
			c, changed := e.(room.PeerChanged)
			if lost = lost || changed && c.Peer.State != room.PeerOpen; lost && changed && c.Peer.State == room.PeerOpen {
				return true
			}
		}
		return false
	})
	if _, err := bob.room.Accept(id, nil); err != nil {
		t.Fatal(err)
	}
	bob.check(bob.done(id), file)
	ann.done(id)
	eventually(t, "the journal says so", func() bool {
		found, err := filepath.Glob(filepath.Join(l.dir, "*", transfer.JournalName))
		if err != nil || len(found) != 1 {
			return false
		}
		p, err := os.ReadFile(found[0])
		u, bad := room.Describe(p)
		return err == nil && bad == nil && u.Done
	})
	w.crash(bob, ann)
	bob, result := l.reborn(id)
	bob.check(result, file)
}

// TestDoneMissing: what the system has cleared is told as such, and can be discarded.
func TestDoneMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, l, bob := w.pair()
	id := ann.send(outFile("a.bin", content(mib, 1)))
	bob.accept(ann)
	bob.done(id)
	ann.done(id)
	stored, err := filepath.Glob(filepath.Join(l.dir, "*", room.StoredName))
	if err != nil || len(stored) != 1 {
		t.Fatal(stored, err)
	}
	eventually(t, "the journal says so", func() bool {
		p, err := os.ReadFile(filepath.Join(filepath.Dir(stored[0]), transfer.JournalName))
		u, bad := room.Describe(p)
		return err == nil && bad == nil && u.Done
	})
	w.crash(bob, ann)
	if err := os.Remove(stored[0]); err != nil {
		t.Fatal(err)
	}
	bob = l.born()
	r := wait(bob, "the end", func(e room.TransferFinished) bool { return e.Result.ID == id.Transfer.String() }).Result
	if r.Code != fault.StorageFailed || len(r.Files) > 0 {
		t.Errorf("%+v", r)
	}
	if err := bob.room.Discard(r.Delivery); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(l.dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// record is a record of a journal.
func record(kind byte, body []byte) []byte {
	body = append([]byte{kind}, body...)
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	return append(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(body)), body...)
}

// TestManyLeft: of more than a room begins with, the newest are gone on with, whatever receipts there are, and the others wait on disk. Of two
// that are the same transfer the one that has come further is kept or, of our own, the later one.
func TestManyLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	l := w.life("Ann", nil)
	ann := l.born()
	self := ann.id()
	w.crash(ann)
	manifest, err := chunk.NewManifest(wire.MinChunkSize, []wire.FileEntry{{Size: 3 * wire.MinChunkSize, Path: "a.bin"}})
	if err != nil {
		t.Fatal(err)
	}
	storage, err := diskstore.Open(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	put := func(delivery, name string, b []byte) {
		if err := storage.Put(t.Context(), delivery, name, b, 0); err != nil {
			t.Fatal(err)
		}
	}
	journal := func(i int, sender wire.ID, ago time.Duration) []byte {
		return transfer.NewOutgoing(transfer.OutgoingConfig{Key: transfer.Key{Sender: sender, Transfer: wire.ID{byte(i), 1}}, Manifest: manifest,
			Recipients: []wire.ID{{1}}, Schedule: transfer.Star{}, Keep: true}).Journal(time.Now().Add(-ago))
	}
	// start is the first record of the journal of an incoming transfer.
	start := func(i int, sender wire.ID, ago time.Duration) []byte {
		begin := journal(i, sender, ago)
		body := begin[8 : 8+binary.BigEndian.Uint32(begin)]
		body[2] = 0 // incoming
		return record(1, body[1:])
	}
	const restored, more = 32, 40 // than a room begins with
	for i := range more {
		put(fmt.Sprint("unfinished", i), transfer.JournalName, journal(i, self, time.Duration(i)*time.Hour))
		end := wire.End{Transfer: wire.ID{byte(i), 1}, Files: manifest.All(), Signature: make([]byte, wire.SignatureSize)}
		put(fmt.Sprint("receipt", i), transfer.ReceiptName, append(start(i, wire.ID{2}, time.Minute), record(5, end.Append(nil))...))
	}
	hash := record(4, make([]byte, 8+32))
	put("former", transfer.JournalName, append(journal(0, self, 50*time.Hour), hash...)) // the retry after it has read less
	incoming := func(ago time.Duration) []byte {
		return slices.Concat(start(99, wire.ID{3}, ago), record(2, manifest.Encoded), record(3, manifest.All()))
	}
	put("nothing", transfer.JournalName, incoming(0))
	put("something", transfer.JournalName, append(incoming(50*time.Hour), hash...))
	ann = l.born()
	bytes := map[string]int64{}
	eventually(t, "what is gone on with", func() bool {
		for _, e := range ann.since(0) {
			if r, ok := e.(room.TransferResumed); ok {
				bytes[r.Transfer.ID] = r.Bytes
			}
		}
		return len(bytes) >= restored
	})
	for i := range more {
		n, ok := bytes[wire.ID{byte(i), 1}.String()]
		if ok != (i < restored-1) || n > 0 {
			t.Errorf("transfer %d: gone on with: %v, %d bytes", i, ok, n)
		}
	}
	if n := bytes[wire.ID{99, 1}.String()]; n == 0 {
		t.Error("what had come further is not gone on with")
	}
	left, err := os.ReadDir(l.dir)
	if err != nil || len(left) != 2*more+1 {
		t.Errorf("%d deliveries are left, %v", len(left), err)
	}
	for _, gone := range []string{"former", "nothing"} {
		if _, err := os.Stat(filepath.Join(l.dir, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
}
