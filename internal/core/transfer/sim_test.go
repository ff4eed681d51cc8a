package transfer_test

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/bulk/bulktest"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// sim runs one Outgoing and its Incomings against each other in one goroutine, with every message, read and write delayed
// and interleaved at random. Bytes are real: chunks are hashed, verified and stored.
type sim struct {
	t        *testing.T
	rand     *rand.Rand
	now      time.Time
	pool     bulk.Pool
	key      transfer.Key
	manifest *chunk.Manifest
	files    [][]byte
	out      *transfer.Outgoing
	finished bool
	readErr  func(r chunk.Ref) error
	peers    map[wire.ID]*simPeer
	order    []wire.ID
	tasks    []func()          // reads under way
	atOnce   bool              // all reads under way end in one step
	read     []transfer.Event  // those, with it
	deflates map[chunk.Ref]int // of whole chunks
	samples  int               // Deflates of less
	hold     bool              // whole chunks are not compressed before held is called
	held     []func()
	cost     time.Duration           // of compressing 64 KiB
	again    int                     // chunks that were sent to a recipient more than once
	unnoted  map[transfer.Noted]bool // acceptances of which the machine is not told yet that they are in the journal
	tick     time.Duration
	ticked   time.Time
	keep     bool   // both ends have journals
	journal  []byte // the sender's
}

type simPeer struct {
	s        *sim
	id       wire.ID
	in       *transfer.Incoming
	up       bool
	control  []wire.ControlMessage // to the recipient
	bulk     []simBulk
	back     []wire.ControlMessage // to the sender
	tasks    []func()              // stores under way
	disk     map[uint32][]byte
	writes   map[chunk.Ref]int  // stored
	received map[chunk.Ref]int  // come over the wire
	packed   map[chunk.Ref]bool // of these, compressed
	volume   int                // bytes of chunks that have come over the wire
	inflates bool
	rate     float64           // of its link, as measured
	sent     map[simChunk]bool // handed to a link
	answer   func(p *simPeer)  // what the person does with the offer
	storeErr error
	once     error // fails one Store, or one Commit
	onWrite  bool  // which
	checks   int   // Rechecks
	fits     int   // so many chunks are stored all the same
	gone     bool  // Discard has come
	commits  int
	finished bool
	broken   error // why it would have cut the link
	journal  []byte
	settled  []byte
	traffic  traffic
	messages int       // with chunks
	slow     int       // one in so many chances to do anything is taken
	link     int       // the same, for its link; 0: all are
	diskRate int       // bytes per second that its disk takes; 0: no limit
	ready    time.Time // when that takes the next
}

// simChunk is a chunk under the name that the transfer has with one recipient.
type simChunk struct {
	transfer wire.ID
	ref      chunk.Ref
}

type simBulk struct {
	message []byte
}

// traffic is what a recipient was sent.
type traffic struct {
	control                 [32]int // messages, by type
	chunks, payload, hashes int
}

var member = func(i int) wire.ID { return wire.ID{1, byte(i)} }

func newSim(t *testing.T, seed uint64, recipients int, late bool, sizes ...int) *sim {
	s := &sim{t: t, rand: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1_800_000_000, 0), key: transfer.Key{Sender: wire.ID{9}, Transfer: wire.ID{8}},
		peers: map[wire.ID]*simPeer{}, tick: 300 * time.Millisecond, deflates: map[chunk.Ref]int{}, unnoted: map[transfer.Noted]bool{}, cost: 2 * time.Millisecond}
	var entries []wire.FileEntry
	for i, n := range sizes {
		content := make([]byte, n)
		rand.NewChaCha8([32]byte{byte(i), byte(seed)}).Read(content)
		s.files = append(s.files, content)
		entries = append(entries, wire.FileEntry{Size: uint64(n), Path: fmt.Sprintf("dir/%d", i)})
	}
	var err error
	if s.manifest, err = chunk.NewManifest(wire.MinChunkSize, entries); err != nil {
		t.Fatal(err)
	}
	var ids []wire.ID
	for i := range recipients {
		ids = append(ids, member(i))
	}
	s.out = transfer.NewOutgoing(transfer.OutgoingConfig{Key: s.key, Manifest: s.manifest, Recipients: ids, LateJoiners: late, Schedule: transfer.Star{}})
	for _, id := range ids {
		s.add(id)
	}
	return s
}

func (s *sim) add(id wire.ID) *simPeer {
	p := &simPeer{s: s, id: id, disk: map[uint32][]byte{}, writes: map[chunk.Ref]int{}, received: map[chunk.Ref]int{}, packed: map[chunk.Ref]bool{}, sent: map[simChunk]bool{}, slow: 1,
		answer: func(p *simPeer) { p.step(transfer.AcceptFiles{}) }}
	s.peers[id] = p
	s.order = append(s.order, id)
	return p
}

func (s *sim) connect(p *simPeer) {
	p.up = true
	if p.in != nil {
		p.step(transfer.LinkUp{Peer: s.key.Sender})
	}
	s.step(transfer.LinkUp{Peer: p.id, Inflates: p.inflates, Rate: p.rate})
}

// cut loses the link and everything on it.
func (s *sim) cut(p *simPeer, final bool) {
	p.up, p.control, p.bulk, p.back = false, nil, nil, nil
	s.step(transfer.LinkDown{Peer: p.id, Final: final, Code: fault.PeerGone})
	if p.in != nil {
		p.step(transfer.LinkDown{Peer: s.key.Sender, Final: final, Code: fault.PeerGone})
	}
}

func (s *sim) step(events ...transfer.Event) {
	for _, effect := range s.out.Step(s.now, events...) {
		switch effect := effect.(type) {
		case transfer.SendControl:
			if p := s.peers[effect.Peer]; p.up {
				p.traffic.control[effect.Message.ControlType()]++
				p.control = append(p.control, effect.Message)
			}
		case transfer.SendBulk:
			p := s.peers[effect.Peer]
			if !p.up {
				s.t.Fatalf("bulk to a peer without a link")
			}
			message := effect.Head
			if effect.End != nil {
				end := *effect.End
				end.Signature = make([]byte, wire.SignatureSize)
				message = end.Append(nil)
			}
			for _, d := range effect.Data {
				message = append(message, d.B...)
				d.Release()
			}
			p.bulk = append(p.bulk, simBulk{message})
			s.countAgain(p, message, effect.Again)
		case transfer.Read:
			if s.out.Wanting() {
				s.t.Error("a read, while there are no files")
			}
			end := func() transfer.ReadDone {
				done := transfer.ReadDone{Chunk: effect.Chunk}
				if s.readErr != nil {
					done.Err = s.readErr(effect.Chunk)
				}
				if done.Err == nil {
					done.Buffer = s.pool.Get(int(effect.Length))
					copy(done.Buffer.B, s.files[effect.Chunk.File][effect.Offset:])
					done.Hash = sha256.Sum256(done.Buffer.B)
				}
				return done
			}
			if !s.atOnce {
				s.tasks = append(s.tasks, func() { s.step(end()) })
			} else if s.read = append(s.read, end()); len(s.read) == 1 {
				s.tasks = append(s.tasks, func() {
					read := s.read
					s.read = nil
					s.step(read...)
				})
			}
		case transfer.Deflate:
			s.deflate(effect)
		case transfer.Violation:
			s.peers[effect.Peer].broken = effect.Why
			s.cut(s.peers[effect.Peer], true)
		case transfer.Note:
			s.journal = append(s.journal, effect.Records...)
			if effect.Then != nil {
				s.unnoted[*effect.Then] = true
				s.tasks = append(s.tasks, func() {
					delete(s.unnoted, *effect.Then)
					s.step(*effect.Then)
				})
			}
		case transfer.Discard:
			s.journal = nil
		case transfer.Resumed:
			s.finished = false
		case transfer.Finished:
			s.finished = true
		}
	}
}

// deflate compresses a chunk, or a sample of it, in the simulated time.
func (s *sim) deflate(e transfer.Deflate) {
	if whole := len(e.Data) == len(e.Buffer.B); whole {
		s.deflates[e.Chunk]++
	} else {
		s.samples++
	}
	begun := s.now
	deflate := func() {
		done := transfer.Deflated{Chunk: e.Chunk, ID: e.ID, Raw: len(e.Data), Begun: begun, Ended: begun.Add(s.cost * time.Duration(len(e.Data)) / (64 << 10))}
		if packed := bulktest.Deflated(e.Data); len(packed) <= e.Most {
			done.Buffer = s.pool.Get(len(packed))
			copy(done.Buffer.B, packed)
		}
		e.Buffer.Release()
		s.step(done)
	}
	if s.hold && len(e.Data) == len(e.Buffer.B) {
		s.held = append(s.held, deflate)
	} else {
		s.tasks = append(s.tasks, deflate)
	}
}

// countAgain holds what the machine says of chunks that it sends again against what it has sent.
func (s *sim) countAgain(p *simPeer, message []byte, said int) {
	again := 0
	switch wire.BulkTypeOf(message) {
	case wire.BulkHashes:
		m, err := wire.ParseHashes(message)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, run := range m.Runs {
			p.traffic.hashes += run.Count()
		}
	case wire.BulkChunks:
		m, err := wire.ParseChunks(message)
		if err != nil {
			s.t.Fatal(err)
		}
		if s.unnoted[transfer.Noted{Peer: p.id, Transfer: m.Transfer}] {
			s.t.Error("chunks are sent before it is noted that they were accepted")
		}
		p.messages++
		p.traffic.chunks += len(m.Entries)
		p.traffic.payload += len(m.Data)
		for _, e := range m.Entries {
			c := simChunk{m.Transfer, chunk.Ref{File: e.File, Index: e.Index}}
			if p.sent[c] {
				again++
			}
			p.sent[c] = true
		}
	}
	if again != said {
		s.t.Errorf("%d chunks are sent again, and %d said to be", again, said)
	}
	s.again += again
}

func (p *simPeer) step(e transfer.Event) { p.stepOf(p.in, e) }

func (p *simPeer) stepOf(in *transfer.Incoming, e transfer.Event) {
	for _, effect := range in.Step(p.s.now, e) {
		switch effect := effect.(type) {
		case transfer.SendControl:
			if p.up {
				p.back = append(p.back, effect.Message)
			}
		case transfer.Store:
			in := p.in
			p.tasks = append(p.tasks, func() { p.store(in, effect) })
		case transfer.Verify:
			p.tasks = append(p.tasks, func() { p.stepOf(in, effect.Sum()) })
		case transfer.Commit:
			in := p.in
			p.commits++
			p.tasks = append(p.tasks, func() { p.stepOf(in, transfer.Committed{Err: p.failure(false)}) })
		case transfer.SendReceipt:
			if p.up {
				p.back = append(p.back, wire.Receipt{Transfer: p.in.Transfer(), Root: effect.Root, Files: effect.Files, Signature: make([]byte, wire.SignatureSize)})
			}
		case transfer.Note:
			p.journal = append(p.journal, effect.Records...)
		case transfer.Settled:
			p.journal = append(p.journal, effect.Records...)
			p.settled = p.journal
		case transfer.Recheck:
			p.checks++
			p.tasks = append(p.tasks, func() { p.stepOf(in, transfer.Restored{Have: p.verified(), Err: p.storeErr}) })
		case transfer.Resumed:
			p.finished = false
			transfer.ShareCredit([]*transfer.Incoming{in})
		case transfer.Discard:
			clear(p.disk)
			p.gone, p.journal = true, nil
		case transfer.Violation:
			p.broken = effect.Why
			if p.up {
				p.s.cut(p, true)
			}
		case transfer.Finished:
			p.finished = true
		}
	}
}

// failure is what the disk answers to a Store or a Commit.
func (p *simPeer) failure(write bool) error {
	if p.once != nil && p.onWrite == write {
		err := p.once
		p.once = nil
		return err
	}
	return p.storeErr
}

func (p *simPeer) store(in *transfer.Incoming, e transfer.Store) {
	if p.diskRate > 0 {
		p.ready = p.s.now.Add(time.Second * time.Duration(e.Cost) / time.Duration(p.diskRate))
	}
	var done []chunk.Ref
	bad, err := false, p.failure(true)
	for _, c := range e.Chunks {
		if err != nil {
			if p.fits == 0 {
				break
			}
			p.fits--
		}
		data := c.Data
		if c.Compressed {
			var err error
			if data, err = io.ReadAll(flate.NewReader(bytes.NewReader(c.Data))); err != nil || len(data) != c.Length {
				bad = true
				break
			}
		}
		if sha256.Sum256(data) != c.Hash {
			bad = true
			break
		}
		if p.gone {
			err = fs.ErrClosed
			break
		}
		if p.disk[c.Chunk.File] == nil {
			p.disk[c.Chunk.File] = make([]byte, c.Size)
		}
		copy(p.disk[c.Chunk.File][c.Offset:], data)
		p.writes[c.Chunk]++
		done = append(done, c.Chunk)
	}
	p.stepOf(in, e.Stored(done, bad, err))
}

// control delivers the oldest control message to the recipient.
func (p *simPeer) deliverControl() {
	m := p.control[0]
	p.control = p.control[1:]
	id := wire.ID{}
	switch m := m.(type) {
	case wire.TransferOffer:
		id = m.Transfer
		if p.in != nil && p.in.Continues(m) {
			break // as a retry
		}
		if key := (transfer.Key{Sender: p.s.key.Sender, Transfer: id}); p.in == nil || p.in.Key().Sender != key.Sender || p.in.Transfer() != id || p.in.Lost() {
			p.in, p.gone = transfer.NewIncoming(key, m, p.s.now), false
			if p.s.keep {
				p.in.Keep(true)
			}
			return
		}
	case wire.ManifestPart:
		id = m.Transfer
	case wire.FileFailed:
		id = m.Transfer
	case wire.Cancel:
		id = m.Transfer
	case wire.Pause:
		id = m.Transfer
	}
	if _, isOffer := m.(wire.TransferOffer); p.in == nil || id != p.in.Transfer() && !isOffer {
		return // of an attempt that is over
	}
	p.step(transfer.Received{Peer: p.s.key.Sender, Message: m})
	if p.in.Ready() && !p.in.Accepted() && !p.in.Progress().State.Final() {
		p.answer(p)
	}
}

func (p *simPeer) deliverBulk() {
	b := p.s.pool.Get(len(p.bulk[0].message))
	copy(b.B, p.bulk[0].message)
	p.bulk = p.bulk[1:]
	defer b.Release()
	var message any
	var id wire.ID
	var err error
	switch wire.BulkTypeOf(b.B) {
	case wire.BulkHashes:
		var m wire.Hashes
		m, err = wire.ParseHashes(b.B)
		message, id = m, m.Transfer
	case wire.BulkChunks:
		var m wire.Chunks
		m, err = wire.ParseChunks(b.B)
		for _, e := range m.Entries {
			ref := chunk.Ref{File: e.File, Index: e.Index}
			p.received[ref]++
			p.packed[ref] = e.Compressed
			p.volume += int(e.Length)
		}
		message, id = m, m.Transfer
	default:
		var m wire.End
		m, err = wire.ParseEnd(b.B)
		message, id = m, m.Transfer
	}
	if err != nil {
		p.s.t.Fatal(err)
	}
	if id == p.in.Transfer() {
		p.step(transfer.ReceivedBulk{Peer: p.s.key.Sender, Message: message, Buffer: b, Inflates: p.inflates})
	}
	if p.up {
		p.s.step(transfer.Sent{Peer: p.id, Rate: p.rate})
	}
}

// run does one thing after another, chosen at random, until nothing is left to do or stop says so.
func (s *sim) run(stop func() bool) {
	for range 200_000 {
		if stop != nil && stop() {
			return
		}
		var can []func()
		if len(s.tasks) > 0 {
			can = append(can, func() {
				i := s.rand.IntN(len(s.tasks))
				task := s.tasks[i]
				s.tasks = append(s.tasks[:i:i], s.tasks[i+1:]...)
				task()
			})
		}
		for _, id := range s.order {
			p := s.peers[id]
			if len(p.control) > 0 {
				can = append(can, p.deliverControl)
			}
			if len(p.bulk) > 0 && (p.link == 0 || s.rand.IntN(p.link) == 0) {
				can = append(can, p.deliverBulk)
			}
			if len(p.back) > 0 {
				can = append(can, func() {
					m := p.back[0]
					p.back = p.back[1:]
					s.step(transfer.Received{Peer: p.id, Message: m})
				})
			}
			if len(p.tasks) > 0 && s.rand.IntN(p.slow) == 0 && !s.now.Before(p.ready) {
				can = append(can, func() {
					i := s.rand.IntN(len(p.tasks))
					task := p.tasks[i]
					p.tasks = append(p.tasks[:i:i], p.tasks[i+1:]...)
					task()
				})
			}
		}
		s.now = s.now.Add(time.Millisecond)
		if len(can) == 0 {
			waiting := false
			for _, p := range s.peers {
				waiting = waiting || len(p.tasks) > 0
			}
			if waiting {
				if s.now.Sub(s.ticked) >= s.tick {
					s.ticked = s.now
					s.step(transfer.Tick{})
				}
				continue
			}
			// Nothing but time can help now.
			before := s.out.Progress()
			s.now = s.now.Add(s.tick)
			s.step(transfer.Tick{})
			for _, id := range s.order {
				if p := s.peers[id]; p.in != nil {
					p.step(transfer.Tick{})
				}
			}
			if s.finished || fmt.Sprint(before) == fmt.Sprint(s.out.Progress()) && s.idle() {
				return
			}
			continue
		}
		can[s.rand.IntN(len(can))]()
	}
	s.t.Fatalf("no end: %+v", s.out.Progress())
}

func (s *sim) idle() bool {
	for _, p := range s.peers {
		if len(p.control)+len(p.bulk)+len(p.back)+len(p.tasks) > 0 {
			return false
		}
	}
	return len(s.tasks) == 0
}

func (s *sim) state(id wire.ID) transfer.State {
	for _, p := range s.out.Progress() {
		if p.Peer == id {
			return p.State
		}
	}
	s.t.Fatal("no such recipient")
	return 0
}

// expectDone checks that the recipient has every byte, once.
func (s *sim) expectDone(p *simPeer) {
	s.t.Helper()
	if got := s.state(p.id); got != transfer.Done {
		s.t.Errorf("recipient %v: %+v, link broken by %v", p.id[1], s.out.Progress(), p.broken)
		return
	}
	if p.in.Progress().State != transfer.Done || !p.finished {
		s.t.Errorf("recipient %v itself is %+v", p.id[1], p.in.Progress())
	}
	for i, f := range s.files {
		if len(f) > 0 && !bytes.Equal(p.disk[uint32(i)], f) {
			s.t.Errorf("recipient %v: file %d differs", p.id[1], i)
		}
	}
	for ref, n := range p.writes {
		if n != 1 {
			s.t.Errorf("recipient %v: chunk %v written %d times", p.id[1], ref, n)
		}
	}
}

// secondUnreadable is for a sim's readErr.
func secondUnreadable(r chunk.Ref) error {
	if r.File == 1 {
		return transfer.ErrSourceUnreadable
	}
	return nil
}

// runSteps lets so many steps happen, if there are as many.
func (s *sim) runSteps(n int) {
	s.run(func() bool { n--; return n < 0 })
}
