package transfer

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// The fuzz targets read their input as moves of a hostile peer, of the person and of the disk. Chunks are tiny, and so is credit,
// so that every bound is near.
const fuzzChunk = 16

var (
	fuzzKey   = Key{wire.ID{9}, wire.ID{8}}
	fuzzSizes = []int{2*fuzzChunk + 3, 5, 0, 70 * fuzzChunk}
	// fuzzFields are what an attacker puts where a number goes.
	fuzzFields = []uint32{0, 1, 2, 3, 4, 5, 69, 70, fuzzChunk, 1 << 20, math.MaxUint32}
)

// moves is a fuzz input that is read from the front. At its end it gives zeros.
type moves struct{ p []byte }

func (m *moves) pick(n int) int {
	if len(m.p) == 0 {
		return 0
	}
	b := m.p[0]
	m.p = m.p[1:]
	return int(b) % n
}

func (m *moves) field() uint32 { return fuzzFields[m.pick(len(fuzzFields))] }

func (m *moves) take() []byte {
	n := min(m.pick(256), len(m.p))
	p := m.p[:n]
	m.p = m.p[n:]
	return p
}

func (m *moves) bitmap() wire.Bitmap {
	if m.pick(8) == 0 {
		return wire.Bitmap(bytes.Clone(m.take()))
	}
	return wire.Bitmap{byte(m.pick(16))}
}

func (m *moves) id(ids ...wire.ID) wire.ID { return ids[m.pick(len(ids))] }

// fuzzFiles is the file set: contents and manifest.
func fuzzFiles(t *testing.T) (files [][]byte, m *chunk.Manifest) {
	var entries []wire.FileEntry
	for i, n := range fuzzSizes {
		files = append(files, bytes.Repeat([]byte{byte(i + 1), 7}, n/2+1)[:n])
		entries = append(entries, wire.FileEntry{Size: uint64(n), Path: "f"})
	}
	m, err := chunk.NewManifest(fuzzChunk, entries)
	if err != nil {
		t.Fatal(err)
	}
	return files, m
}

func chunkOf(m *chunk.Manifest, files [][]byte, r chunk.Ref) []byte {
	at := m.Offset(r)
	return files[r.File][at : at+int64(m.Length(r))]
}

// control is any control message, with fields of the attacker's choice.
func (m *moves) control(ids ...wire.ID) wire.ControlMessage {
	ids = append(ids, wire.ID{77})
	switch m.pick(12) {
	case 0:
		runs, next := []wire.Run{}, uint64(0)
		for range m.pick(4) {
			r := wire.Run{First: m.field(), Count: m.field()}
			if uint64(r.First) < next || r.Count == 0 { // the parser takes no other
				break
			}
			next = uint64(r.First) + uint64(r.Count)
			runs = append(runs, r)
		}
		return wire.Have{Sender: m.id(ids...), Transfer: m.id(ids...), File: m.field(), Runs: runs}
	case 1:
		return wire.Accept{Transfer: m.id(ids...), Credit: m.amount(), Files: m.bitmap(), Complete: m.bitmap()}
	case 2:
		return wire.Decline{Transfer: m.id(ids...)}
	case 3:
		return wire.Credit{Transfer: m.id(ids...), Granted: m.amount(), Stored: m.amount()}
	case 4:
		return wire.Receipt{Transfer: m.id(ids...), Root: wire.Hash{byte(m.pick(2))}, Files: m.bitmap()}
	case 5:
		return wire.Cancel{Sender: m.id(ids...), Transfer: m.id(ids...), Code: wire.FailureCode(1 + m.pick(10))}
	case 6:
		sender, id, reasons := m.id(ids...), m.id(ids...), m.pick(8)
		return wire.Pause{Sender: sender, Transfer: id, Paused: reasons&1 != 0, Full: reasons > 5}
	case 7:
		return wire.FileFailed{Transfer: m.id(ids...), File: m.field(), Code: wire.FailureCode(1 + m.pick(10))}
	case 8:
		return wire.ManifestPart{Transfer: m.id(ids...), Offset: m.field(), Data: append([]byte{1}, m.take()...)}
	case 9:
		return wire.TransferOffer{Transfer: m.id(ids...), ChunkSize: fuzzChunk, Files: m.field(), ManifestLength: m.field()}
	case 10:
		return wire.Saving{Transfer: m.id(ids...)}
	default:
		if c, err := wire.ParseControl(m.take()); err == nil {
			return c
		}
		return wire.Ping{}
	}
}

func (m *moves) amount() uint64 {
	return []uint64{0, 1, 5000, 10_000, 100_000, 1 << 40, math.MaxUint64}[m.pick(7)]
}

// fuzzRecipient checks an Incoming against a disk that verifies.
type fuzzRecipient struct {
	t        *testing.T
	in       *Incoming
	manifest *chunk.Manifest
	files    [][]byte
	offer    wire.TransferOffer
	pool     bulk.Pool
	now      time.Time
	stores   []Store
	sum      func() Verified // of a Verify under way
	commit   *Commit
	saved    bool // the Commit has succeeded
	disk     map[chunk.Ref]wire.Hash
	room     int // for so many chunks, on a disk that is full
	finished int
	rechecks int // under way
}

func (r *fuzzRecipient) step(e Event) {
	was, suspended := r.in.state, r.in.Suspended()
	effects := r.in.Step(r.now, e)
	if len(effects) > 3*len(fuzzSizes)+8 {
		r.t.Fatalf("%d effects of a %T", len(effects), e)
	}
	for _, effect := range effects {
		switch effect := effect.(type) {
		case Store:
			if was.Final() && !r.in.Suspended() {
				r.t.Fatal("Store of what nobody waits for")
			}
			for _, c := range effect.Chunks {
				if !r.in.wanted.Has(c.Chunk.File) || c.Offset != r.manifest.Offset(c.Chunk) || c.Length != int(r.manifest.Length(c.Chunk)) ||
					len(c.Data) > c.Length || !c.Compressed && len(c.Data) != c.Length ||
					c.Size != int64(fuzzSizes[c.Chunk.File]) || c.Hash != r.in.files[c.Chunk.File].hashes[c.Chunk.Index] {
					r.t.Fatalf("Store of %v at %d", c.Chunk, c.Offset)
				}
			}
			r.stores = append(r.stores, effect)
		case Verify:
			if r.in.doubt {
				r.t.Fatal("Verify of what has to be looked at again")
			}
			r.sum = effect.Sum
		case Commit:
			if r.commit != nil || r.rechecks > 0 || r.in.doubt {
				r.t.Fatal("Commit of what has to be looked at again, or twice")
			}
			r.commit = &effect
			r.complete(effect.Files)
		case SendReceipt:
			if !r.saved || effect.Root != r.in.done.Root {
				r.t.Fatal("receipt for what is not there")
			}
		case Recheck:
			if r.rechecks++; r.rechecks > 1 || r.commit != nil || len(r.stores) > 0 {
				r.t.Fatalf("%d checks, while %d messages are on their way to the disk", r.rechecks, len(r.stores))
			}
		case Resumed:
			r.finished--
			suspended = false
			r.in.SmallestWindow()
		case Finished:
			if !suspended { // else it is over now
				r.finished++
			}
		}
	}
	r.check()
}

// complete checks that files may be made durable: every chunk is there, and what was announced has the root that was signed.
func (r *fuzzRecipient) complete(files wire.Bitmap) {
	root := r.manifest.DeliveryRoot(fuzzKey.Sender, r.in.end.Transfer, files, func(f uint32) wire.Hash {
		var list []wire.Hash
		for i := range r.manifest.Chunks(f) {
			h, ok := r.disk[chunk.Ref{File: f, Index: i}]
			if !ok {
				r.t.Fatalf("Commit without chunk %d of file %d", i, f)
			}
			list = append(list, h)
		}
		return r.manifest.FileRoot(f, list)
	})
	if root != r.in.end.Root || files.Empty() {
		r.t.Fatal("Commit of what was not signed")
	}
	for i := range r.in.files {
		if f := uint32(i); files.Has(f) && !r.in.wanted.Has(f) || r.in.wanted.Has(f) && !files.Has(f) && r.in.files[i].failed == 0 {
			r.t.Fatalf("Commit of %v, wanted %v", files, r.in.wanted)
		}
	}
}

func (r *fuzzRecipient) check() {
	in, waiting := r.in, uint64(0)
	for _, s := range slices.Concat(r.stores, in.short.stores) {
		waiting += s.Cost
	}
	hashes := 0
	for i := range in.files {
		hashes += len(in.files[i].hashes)
	}
	switch {
	case waiting != in.waiting || waiting > 2*in.largest() || !in.state.Final() && in.pending != len(r.stores)+len(in.short.stores):
		r.t.Fatalf("%d bytes of %d messages wait; the machine says %d of %d, of %d", waiting, len(r.stores), in.waiting, in.pending, in.window)
	case in.stored > in.total, in.total > r.manifest.Total, hashes > 3+1+70, len(in.encoded) > len(r.manifest.Encoded):
		r.t.Fatalf("%d of %d stored, %d hashes, %d bytes of manifest", in.stored, in.total, hashes, len(in.encoded))
	case in.spent > in.granted && !in.state.Final(), in.granted > in.spent+in.window && !in.state.Final():
		r.t.Fatalf("%d spent, %d granted", in.spent, in.granted)
	case r.finished > 1, (r.finished == 1) != in.state.Final():
		r.t.Fatalf("finished %d times in state %d", r.finished, in.state)
	case in.state == Done && (!r.saved || in.code != ""), in.state.Final() && in.state != Done && in.code == "":
		r.t.Fatalf("state %d %q, saved %v", in.state, in.code, r.saved)
	case in.omitted < 0:
		r.t.Fatal("omitted")
	case in.full() != (in.short.trying || in.short.commit || in.short.check || len(in.short.stores) > 0), in.full() && in.over():
		r.t.Fatalf("full: %v, in state %d: %+v", in.full(), in.state, in.short)
	}
	if in.state == Done {
		for i := range in.files {
			if f := uint32(i); in.wanted.Has(f) && !in.Complete(f) {
				r.t.Fatalf("done without file %d", i)
			}
		}
	}
}

// bulk delivers a bulk message as it comes off the wire, if it parses.
func (r *fuzzRecipient) bulk(p []byte) {
	b := r.pool.Get(len(p))
	defer b.Release()
	copy(b.B, p)
	var message any
	var err error
	switch wire.BulkTypeOf(p) {
	case wire.BulkHashes:
		message, err = wire.ParseHashes(b.B)
	case wire.BulkChunks:
		message, err = wire.ParseChunks(b.B)
	default:
		message, err = wire.ParseEnd(b.B)
	}
	if err == nil {
		r.step(ReceivedBulk{fuzzKey.Sender, message, b, true})
	}
}

func (r *fuzzRecipient) store(s Store, err error) {
	var done []chunk.Ref
	bad := false
	for i, c := range s.Chunks {
		if err != nil && i == r.room {
			break
		}
		if sha256.Sum256(c.Data) != c.Hash {
			bad = true
			break
		}
		if _, twice := r.disk[c.Chunk]; twice {
			r.t.Fatalf("chunk %v stored twice", c.Chunk)
		}
		r.disk[c.Chunk] = c.Hash
		done = append(done, c.Chunk)
	}
	r.step(s.Stored(done, bad, err))
}

// move makes one move.
func (r *fuzzRecipient) move(m *moves) {
	honest := func(f, i uint32) chunk.Ref { // some chunk that there is
		n := r.manifest.Chunks(f)
		return chunk.Ref{File: f, Index: i % max(n, 1)}
	}
	signature := make([]byte, wire.SignatureSize)
	switch m.pick(20) {
	case 0, 1: // honest hashes, of as much as fits
		f, first := uint32(m.pick(len(fuzzSizes))), m.field()
		run := wire.HashRun{File: f, First: first}
		for i := first; i < r.manifest.Chunks(f); i++ {
			h := sha256.Sum256(chunkOf(r.manifest, r.files, chunk.Ref{File: f, Index: i}))
			run.List = append(run.List, h[:]...)
		}
		if run.Count() > 0 {
			r.bulk(wire.Hashes{Sender: fuzzKey.Sender, Transfer: fuzzKey.Transfer, Runs: []wire.HashRun{run}}.Append(nil))
		}
	case 2: // others
		var h wire.Hashes
		for range 1 + m.pick(3) {
			h.Runs = append(h.Runs, wire.HashRun{File: m.field(), First: m.field(), List: make([]byte, 32*(1+m.pick(80)))})
		}
		r.bulk(h.Append(nil))
	case 3, 4, 5: // honest chunks, whether announced or not
		var c wire.Chunks
		f, first := uint32(m.pick(len(fuzzSizes))), uint32(m.pick(256))
		for i := range uint32(1 + m.pick(3)) {
			ref := honest(f, first+i)
			if r.manifest.Chunks(f) == 0 {
				return
			}
			d := chunkOf(r.manifest, r.files, ref)
			c.Entries = append(c.Entries, wire.ChunkEntry{File: f, Index: ref.Index, RawLength: uint32(len(d)), Length: uint32(len(d))})
			c.Data = append(c.Data, d...)
		}
		r.bulk(append(c.AppendHead(nil), c.Data...))
	case 6: // others
		var c wire.Chunks
		for range 1 + m.pick(4) {
			n := max(m.field(), 1) % 100
			c.Entries = append(c.Entries, wire.ChunkEntry{File: m.field(), Index: m.field(), Compressed: m.pick(4) == 0, RawLength: n, Length: n})
			c.Data = append(c.Data, make([]byte, n)...)
		}
		r.bulk(append(c.AppendHead(nil), c.Data...))
	case 7: // an End, honest or not
		end := wire.End{Transfer: r.in.transfer, Files: m.bitmap(), Signature: signature}
		if m.pick(4) > 0 {
			end.Root = r.manifest.DeliveryRoot(fuzzKey.Sender, r.in.transfer, end.Files, func(f uint32) wire.Hash {
				var list []wire.Hash
				for i := range r.manifest.Chunks(f) {
					list = append(list, sha256.Sum256(chunkOf(r.manifest, r.files, chunk.Ref{File: f, Index: i})))
				}
				return r.manifest.FileRoot(f, list)
			})
		}
		if len(end.Files) < 100 {
			r.bulk(end.Append(nil))
		}
	case 8: // whatever parses
		r.bulk(m.take())
	case 9, 10:
		message := m.control(fuzzKey.Sender, fuzzKey.Transfer)
		if part, ok := message.(wire.ManifestPart); ok && m.pick(2) == 0 { // the right one
			at := min(len(r.in.encoded), len(r.manifest.Encoded)-1)
			part.Offset, part.Data = uint32(at), r.manifest.Encoded[at:]
			message = part
		}
		if _, ok := message.(wire.TransferOffer); ok && m.pick(4) > 0 {
			message = r.offer
			if again := r.offer; r.in.lapsed {
				again.Transfer[0]++ // the room passes on no other id than that of a retry
				if r.in.Continues(again) {
					r.offer, message = again, again
				}
			}
		}
		r.step(Received{fuzzKey.Sender, message})
	case 11, 12: // the disk
		if i := m.pick(max(len(r.stores), 1)); i < len(r.stores) {
			s := r.stores[i]
			r.stores = append(r.stores[:i:i], r.stores[i+1:]...)
			r.store(s, nil)
		}
	case 13:
		if len(r.stores) > 0 && m.pick(8) == 0 {
			s := r.stores[0]
			r.stores = r.stores[1:]
			r.room = m.pick(2)
			r.store(s, [...]error{ErrStorageFull, ErrStorageFull, ErrStorageFull, errors.New("broken")}[m.pick(4)])
		} else if m.pick(8) == 0 {
			r.step(SpaceFreed{})
		}
	case 14:
		if r.rechecks > 0 {
			r.rechecks--
			e := Restored{}
			for ref := range r.disk {
				if m.pick(4) == 0 {
					delete(r.disk, ref) // it was not written after all
				} else {
					e.Have = append(e.Have, ref)
				}
			}
			e.Err = [...]error{nil, nil, ErrStorageFull, errors.New("broken")}[m.pick(4)]
			r.step(e)
		} else if r.sum != nil {
			done := r.sum()
			r.sum = nil
			r.step(done)
		} else if r.commit != nil {
			r.commit = nil
			var err error
			switch m.pick(8) {
			case 0, 1:
				err = ErrStorageFull
			case 2:
				err = errors.New("broken")
			}
			r.saved = err == nil
			r.step(Committed{err})
		}
	case 15:
		r.step(LinkDown{Peer: fuzzKey.Sender, Final: m.pick(8) == 0, Code: fault.PeerGone})
	case 16:
		r.step(LinkDown{Peer: fuzzKey.Sender})
		r.step(LinkUp{Peer: fuzzKey.Sender})
		if m.pick(4) > 0 {
			r.step(Received{fuzzKey.Sender, r.offer})
		}
	case 17:
		if m.pick(4) == 0 {
			r.step(AcceptFiles{[]uint32{uint32(m.pick(4))}})
		} else {
			r.step(AcceptFiles{})
		}
	case 18:
		switch m.pick(16) {
		case 0:
			r.step(DeclineOffer{})
		case 1:
			r.step(CancelAll{})
		default:
			r.step(SetPaused{m.pick(2) == 1})
		}
	default:
		r.now = r.now.Add(time.Duration(m.pick(40)) * time.Second)
		r.step(Tick{})
	}
}

// FuzzIncoming: whatever a sender does, nothing is stored that was not announced, nothing is made durable that is not whole and signed,
// what waits for the disk has a bound, and every delivery ends once.
func FuzzIncoming(f *testing.F) {
	f.Fuzz(func(t *testing.T, p []byte) {
		m := &moves{p}
		r := &fuzzRecipient{t: t, now: time.Unix(1_800_000_000, 0), disk: map[chunk.Ref]wire.Hash{}}
		r.files, r.manifest = fuzzFiles(t)
		r.offer = wire.TransferOffer{Transfer: fuzzKey.Transfer, ChunkSize: fuzzChunk, Files: uint32(len(fuzzSizes)), TotalSize: r.manifest.Total,
			ManifestLength: uint32(len(r.manifest.Encoded)), ManifestHash: r.manifest.Hash}
		r.in = NewIncoming(fuzzKey, r.offer, r.now)
		r.in.window = 2 * r.in.largest()
		if keep := m.pick(4); keep > 1 {
			r.in.Keep(keep == 2)
		}
		if m.pick(8) > 0 { // mostly it begins as it should
			r.step(Received{fuzzKey.Sender, wire.ManifestPart{Transfer: fuzzKey.Transfer, Data: r.manifest.Encoded}})
			r.step(AcceptFiles{})
		}
		for n := 0; len(m.p) > 0 && n < 2000; n++ {
			r.move(m)
		}
	})
}

// fuzzSender checks an Outgoing against what it may tell and send.
type fuzzSender struct {
	t        *testing.T
	out      *Outgoing
	manifest *chunk.Manifest
	files    [][]byte
	now      time.Time
	reads    []Read
	deflates []Deflate
	lent     []lent
	peers    map[wire.ID]*fuzzPeer
	notes    []Noted // still to be told of
	noted    map[Noted]bool
}

// lent is a buffer that the machine was given, from a pool of its own: it can be had again when everybody has released it.
type lent struct {
	pool   *bulk.Pool
	buffer *bulk.Buffer
	length int
}

// fuzzPeer is what a recipient may be sent.
type fuzzPeer struct {
	up, accepted bool
	inflates     bool
	transfer     wire.ID
	wanted       wire.Bitmap
	credit       uint64
	spent        uint64
	queued       int
	announced    map[chunk.Ref]bool
	end          *wire.End // over whichever link
}

func (s *fuzzSender) step(e Event) {
	effects := s.out.Step(s.now, e)
	for _, effect := range effects {
		switch effect := effect.(type) {
		case SendControl:
			p := s.peers[effect.Peer]
			if !p.up {
				s.t.Fatal("control message without a link")
			}
			if offer, ok := effect.Message.(wire.TransferOffer); ok {
				p.transfer = offer.Transfer
			}
		case SendBulk:
			s.sent(s.peers[effect.Peer], effect)
		case Read:
			s.reads = append(s.reads, effect)
			if effect.Offset != s.manifest.Offset(effect.Chunk) || effect.Length != s.manifest.Length(effect.Chunk) {
				s.t.Fatalf("Read of %v", effect)
			}
		case Deflate:
			s.deflates = append(s.deflates, effect)
			if !bytes.Equal(effect.Data, chunkOf(s.manifest, s.files, effect.Chunk)) || effect.Most >= len(effect.Data) {
				s.t.Fatalf("Deflate of %v", effect.Chunk)
			}
		case Note:
			if effect.Then != nil {
				s.notes = append(s.notes, *effect.Then)
			}
		case Violation:
			if s.peers[effect.Peer].up { // as the room does
				s.peers[effect.Peer].up = false
				defer s.step(LinkDown{Peer: effect.Peer, Final: true, Code: fault.ProtocolViolation})
			}
		}
	}
	s.check()
}

func (s *fuzzSender) sent(p *fuzzPeer, e SendBulk) {
	p.queued++
	if !p.up || !p.accepted || p.queued > window+2 {
		s.t.Fatalf("bulk message: up %v, accepted %v, %d queued", p.up, p.accepted, p.queued)
	}
	if e.End != nil {
		p.end = e.End
		root := s.manifest.DeliveryRoot(fuzzKey.Sender, p.transfer, e.End.Files, func(f uint32) wire.Hash {
			var list []wire.Hash
			for i := range s.manifest.Chunks(f) {
				list = append(list, sha256.Sum256(chunkOf(s.manifest, s.files, chunk.Ref{File: f, Index: i})))
			}
			return s.manifest.FileRoot(f, list)
		})
		if e.End.Transfer != p.transfer || e.End.Root != root || e.End.Files.Empty() {
			s.t.Fatalf("End %+v", e.End)
		}
		return
	}
	if len(e.Data) == 0 {
		h, err := wire.ParseHashes(e.Head)
		if err != nil || h.Transfer != p.transfer {
			s.t.Fatalf("%v: %v", h, err)
		}
		for _, run := range h.Runs {
			for i := range run.Count() {
				ref := chunk.Ref{File: run.File, Index: run.First + uint32(i)}
				if run.At(i) != sha256.Sum256(chunkOf(s.manifest, s.files, ref)) {
					s.t.Fatalf("hash of %v", ref)
				}
				p.announced[ref] = true
			}
		}
		return
	}
	message := e.Head
	for _, d := range e.Data {
		message = append(message, d.B...)
		d.Release()
	}
	c, err := wire.ParseChunks(message)
	if err != nil || c.Transfer != p.transfer {
		s.t.Fatal(err)
	}
	if s.out.kept && !s.noted[Noted{e.Peer, p.transfer}] {
		s.t.Fatal("chunks before it is noted that they were accepted")
	}
	p.spent += wire.MessageCost
	for _, entry := range c.Entries {
		ref := chunk.Ref{File: entry.File, Index: entry.Index}
		want := chunkOf(s.manifest, s.files, ref)
		if entry.Compressed {
			want = squashed(want)
		}
		if !p.announced[ref] || !p.wanted.Has(ref.File) || !bytes.Equal(c.Data[:entry.Length], want) || entry.Compressed && !p.inflates {
			s.t.Fatalf("chunk %v", ref)
		}
		c.Data = c.Data[entry.Length:]
		p.spent += wire.ChunkCost(entry.RawLength)
	}
	if p.spent > p.credit {
		s.t.Fatalf("%d sent of %d granted", p.spent, p.credit)
	}
}

func (s *fuzzSender) check() {
	o, cached, unread := s.out, 0, 0
	for _, entry := range o.cache {
		cached += entry.length
	}
	for _, read := range s.reads {
		unread += int(read.Length)
	}
	switch {
	case o.compression.running != len(s.deflates) || o.compression.running > maxDeflating:
		s.t.Fatalf("%d chunks are compressed, it says %d", len(s.deflates), o.compression.running)
	case cached != o.cached || o.reading != len(s.reads) || o.unread != unread:
		s.t.Fatalf("%d bytes cached, it says %d; %d reads, it says %d; of %d bytes, it says %d", cached, o.cached, len(s.reads), o.reading, unread, o.unread)
	case o.reading > 2*maxReads && unread > smallReadBytes+maxReads*int(s.manifest.ChunkSize), o.reading > maxSmallReads:
		s.t.Fatalf("%d reads of %d bytes", o.reading, unread)
	case !o.Late() && o.finished == slices.ContainsFunc(o.peers, func(r *recipient) bool { return !r.state.Final() }), o.Late() && o.finished:
		s.t.Fatalf("finished %v, with late joiners %v", o.finished, o.Late())
	case len(o.peers) > len(s.peers):
		s.t.Fatalf("%d recipients", len(o.peers))
	}
	for _, r := range o.peers {
		p := s.peers[r.id]
		switch {
		case len(r.have) > len(fuzzSizes), len(r.runs) > wire.MaxHashes, r.hashes > wire.MaxHashes:
			s.t.Fatalf("%d have-maps, %d hashes wait", len(r.have), r.hashes)
		case r.state == Done && (r.receipt == nil || p.end == nil || r.receipt.Root != p.end.Root || !bytes.Equal(r.receipt.Files, p.end.Files)):
			s.t.Fatal("done without a receipt for it")
		case r.state.Final() && r.state != Done && r.code == "":
			s.t.Fatalf("state %d without a reason", r.state)
		}
	}
}

func (s *fuzzSender) says(id wire.ID, message wire.ControlMessage) {
	p := s.peers[id]
	if !p.up {
		return
	}
	switch m := message.(type) { // what the machine may take it for, if it takes it
	case wire.Accept:
		if m.Transfer == p.transfer && !p.accepted {
			p.accepted, p.wanted, p.credit, p.spent, p.announced = true, m.Files, m.Credit, 0, map[chunk.Ref]bool{}
		}
	case wire.Credit:
		if m.Transfer == p.transfer && p.accepted {
			p.credit = max(p.credit, m.Granted)
		}
	}
	s.step(Received{id, message})
}

func (s *fuzzSender) move(m *moves, ids []wire.ID) {
	id := m.id(ids...)
	p := s.peers[id]
	switch m.pick(16) {
	case 0, 1, 2:
		s.says(id, m.control(fuzzKey.Sender, fuzzKey.Transfer, wire.ID{78}))
	case 3: // an Accept as it should be
		s.says(id, wire.Accept{Transfer: p.transfer, Credit: m.amount(), Files: wire.Bitmap{byte(1 + m.pick(15))}, Complete: wire.Bitmap{byte(m.pick(16))}})
	case 4:
		f := uint32(m.pick(len(fuzzSizes)))
		if n := s.manifest.Chunks(f); n > 0 {
			s.says(id, wire.Have{Sender: fuzzKey.Sender, Transfer: p.transfer, File: f, Runs: []wire.Run{{First: m.field() % n, Count: 1}}})
		}
	case 5:
		s.says(id, wire.Credit{Transfer: p.transfer, Granted: p.credit + uint64(m.pick(4))*5000, Stored: uint64(m.pick(3))})
	case 6:
		if p.end != nil {
			s.says(id, wire.Receipt{Transfer: p.transfer, Root: p.end.Root, Files: p.end.Files, Signature: make([]byte, wire.SignatureSize)})
		}
	case 7, 8:
		if p.up && p.queued > 0 {
			p.queued--
			s.step(Sent{id, 1e6})
		} else if len(s.notes) > 0 {
			note := s.notes[0]
			s.notes, s.noted[note] = s.notes[1:], true
			s.step(note)
		}
	case 9, 10, 11:
		if i, fails := m.pick(max(len(s.reads), 1)), m.pick(16) == 0; i < len(s.reads) {
			s.read(i, fails)
		} else if len(s.deflates) > 0 {
			s.deflate(fails)
		}
	case 12:
		p.up, p.accepted, p.queued = false, false, 0
		s.step(LinkDown{Peer: id, Final: m.pick(8) == 0, Code: fault.PeerGone})
	case 13:
		if !p.up {
			p.up = true
			s.step(LinkUp{Peer: id, Inflates: p.inflates, Rate: 1e6})
		}
	case 14:
		switch m.pick(9) {
		case 0:
			s.step(CancelAll{})
		case 1:
			s.step(CancelPeer{id})
		case 8:
			s.step(StopOffering{})
		case 2, 3, 4:
			if r := s.out.peer(id); r != nil && r.state.Final() && r.state != Done {
				p.end, p.accepted, p.queued = nil, false, 0
			}
			s.step(RetryPeer{id, wire.ID{78, byte(m.pick(4))}})
		case 5:
			s.out.SetLimit(int64(m.pick(3)) * 1000)
			s.out.SetTotalLimit(int64(m.pick(3)) * 1000)
			s.out.shared.SetLimit(s.now, int64(m.pick(2))*1000)
		case 6:
			if _, waits := s.out.Waits(); waits && s.out.shared.Allows(s.now) {
				s.step(Grant{})
			}
		default:
			s.step(SetPaused{m.pick(2) == 1})
		}
	default:
		s.now = s.now.Add(time.Duration(m.pick(40)) * time.Second)
		s.step(Tick{})
	}
}

func (s *fuzzSender) read(i int, fails bool) {
	read := s.reads[i]
	s.reads = append(s.reads[:i:i], s.reads[i+1:]...)
	done := ReadDone{Chunk: read.Chunk, Err: ErrSourceUnreadable}
	if !fails {
		pool := &bulk.Pool{}
		done = ReadDone{Chunk: read.Chunk, Buffer: pool.Get(int(read.Length))}
		copy(done.Buffer.B, chunkOf(s.manifest, s.files, read.Chunk))
		done.Hash = sha256.Sum256(done.Buffer.B)
		s.lent = append(s.lent, lent{pool, done.Buffer, int(read.Length)})
	}
	s.step(done)
}

// squashed stands for the compressed form.
func squashed(p []byte) []byte {
	sum := sha256.Sum256(p)
	return sum[:3]
}

// deflate has the oldest Deflate end; where it fails, the result is no smaller.
func (s *fuzzSender) deflate(fails bool) {
	e := s.deflates[0]
	s.deflates = s.deflates[1:]
	done := Deflated{Chunk: e.Chunk, ID: e.ID, Raw: len(e.Data), Begun: s.now, Ended: s.now.Add(time.Microsecond)}
	if small := squashed(e.Data); fails {
		s.now = s.now.Add(time.Second)
	} else if len(small) <= e.Most {
		pool := &bulk.Pool{}
		done.Buffer = pool.Get(len(small))
		copy(done.Buffer.B, small)
		s.lent = append(s.lent, lent{pool, done.Buffer, len(small)})
	}
	e.Buffer.Release()
	s.step(done)
}

// FuzzOutgoing: whatever recipients do, each is sent only what it asked for, was announced and has credit for, and compressed only what takes that; nobody is done without
// a receipt for just that; what waits and is cached has a bound; every buffer is given back.
func FuzzOutgoing(f *testing.F) {
	f.Fuzz(func(t *testing.T, p []byte) {
		m := &moves{p}
		s := &fuzzSender{t: t, now: time.Unix(1_800_000_000, 0), peers: map[wire.ID]*fuzzPeer{}, noted: map[Noted]bool{}}
		s.files, s.manifest = fuzzFiles(t)
		ids := []wire.ID{{1}, {2}, {3}} // the third is no recipient, unless it may join late
		for _, id := range ids {
			s.peers[id] = &fuzzPeer{transfer: fuzzKey.Transfer, inflates: id[0] != 2}
		}
		kind := m.pick(4)
		s.out = NewOutgoing(OutgoingConfig{Key: fuzzKey, Manifest: s.manifest, Recipients: ids[:2], LateJoiners: kind&1 > 0, Schedule: Star{}, Keep: kind&2 > 0})
		s.out.compression.least = 4
		for _, id := range ids {
			s.peers[id].up = true
			s.step(LinkUp{Peer: id, Inflates: s.peers[id].inflates})
		}
		for n := 0; len(m.p) > 0 && n < 2000; n++ {
			s.move(m, ids)
		}
		s.step(CancelAll{})
		for len(s.reads) > 0 {
			s.read(0, false)
		}
		for len(s.deflates) > 0 {
			s.deflate(false)
		}
		if !s.out.Finished() || len(s.out.cache) > 0 {
			t.Fatalf("finished %v, %d chunks cached", s.out.Finished(), len(s.out.cache))
		}
		for _, l := range s.lent {
			if l.pool.Get(l.length) != l.buffer {
				t.Fatal("a buffer was not given back")
			}
		}
	})
}
