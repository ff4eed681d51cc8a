package transfer_test

import (
	"bytes"
	"crypto/sha256"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// bitmap is a set of files, of n.
func bitmap(n int, files ...uint32) wire.Bitmap {
	b := wire.NewBitmap(n)
	for _, f := range files {
		b.Set(f)
	}
	return b
}

// says has a member send a control message to the sender.
func (s *sim) says(from wire.ID, messages ...wire.ControlMessage) {
	for _, m := range messages {
		s.step(transfer.Received{Peer: from, Message: m})
	}
}

// absorb lets the member take whatever it is sent, until nothing more comes.
func (s *sim) absorb(p *simPeer) (taken []simBulk) {
	for len(p.bulk)+len(s.tasks) > 0 && p.up {
		taken = append(taken, p.bulk...)
		sent := len(p.bulk)
		p.bulk = nil
		for range sent {
			s.step(transfer.Sent{Peer: p.id})
		}
		for len(s.tasks) > 0 {
			task := s.tasks[0]
			s.tasks = s.tasks[1:]
			task()
		}
	}
	return taken
}

// endOf is the End that is among messages.
func endOf(t *testing.T, messages []simBulk) wire.End {
	t.Helper()
	for _, m := range messages {
		if wire.BulkTypeOf(m.message) == wire.BulkEnd {
			end, err := wire.ParseEnd(m.message)
			if err != nil {
				t.Fatal(err)
			}
			return end
		}
	}
	t.Fatal("no End")
	return wire.End{}
}

// TestMaliciousRecipient: what a recipient claims costs the sender nothing but the claims, a lie that shows ends its link, and the other
// recipient gets every byte.
func TestMaliciousRecipient(t *testing.T) {
	const id8 = 8 // of the sim's transfer
	id, other := wire.ID{id8}, wire.ID{77}
	sender := wire.ID{9}
	all, none := bitmap(2, 0, 1), bitmap(2)
	accept := wire.Accept{Transfer: id, Credit: 1 << 40, Files: all, Complete: none}
	have := func(file uint32, runs ...wire.Run) wire.Have {
		return wire.Have{Sender: sender, Transfer: id, File: file, Runs: runs}
	}
	signature := make([]byte, wire.SignatureSize)
	for _, test := range []struct {
		name     string
		do       func(s *sim, evil *simPeer)
		violates bool
	}{
		{"complete without ever having been told a hash", func(s *sim, evil *simPeer) {
			s.says(evil.id, wire.Accept{Transfer: id, Credit: 1 << 40, Files: all, Complete: all})
		}, false},
		{"everything is there already", func(s *sim, evil *simPeer) {
			s.says(evil.id, have(0, wire.Run{Count: 3}), have(1, wire.Run{Count: 1}), accept)
			if endOf(s.t, s.absorb(evil)).Files.Empty() {
				s.t.Error("End without a file")
			}
		}, false},
		{"have beyond the file", func(s *sim, evil *simPeer) { s.says(evil.id, have(0, wire.Run{First: 1, Count: 1 << 31})) }, true},
		{"have that overflows", func(s *sim, evil *simPeer) {
			s.says(evil.id, have(0, wire.Run{First: math.MaxUint32, Count: math.MaxUint32}))
		}, true},
		{"have of no file", func(s *sim, evil *simPeer) { s.says(evil.id, have(9)) }, true},
		{"two have-maps of a file", func(s *sim, evil *simPeer) { s.says(evil.id, have(0), have(0)) }, true},
		{"have after accepting", func(s *sim, evil *simPeer) { s.says(evil.id, accept, have(0)) }, true},
		{"bitmap of another length", func(s *sim, evil *simPeer) {
			s.says(evil.id, wire.Accept{Transfer: id, Files: bitmap(20), Complete: bitmap(20)})
		}, true},
		{"bitmap of files that do not exist", func(s *sim, evil *simPeer) {
			s.says(evil.id, wire.Accept{Transfer: id, Files: wire.Bitmap{7}, Complete: none})
		}, true},
		{"complete files that do not exist", func(s *sim, evil *simPeer) {
			s.says(evil.id, wire.Accept{Transfer: id, Files: all, Complete: wire.Bitmap{0xff}})
		}, true},
		{"accept of nothing", func(s *sim, evil *simPeer) { s.says(evil.id, wire.Accept{Transfer: id, Files: none, Complete: none}) }, true},
		{"two accepts", func(s *sim, evil *simPeer) { s.says(evil.id, accept, accept) }, true},
		{"declined after accepting", func(s *sim, evil *simPeer) { s.says(evil.id, accept, wire.Decline{Transfer: id}) }, true},
		{"credit before accepting", func(s *sim, evil *simPeer) { s.says(evil.id, wire.Credit{Transfer: id, Granted: 1 << 40}) }, true},
		{"credit taken back", func(s *sim, evil *simPeer) {
			s.says(evil.id, accept, wire.Credit{Transfer: id, Granted: 1<<40 - 1})
		}, true},
		{"more stored than there is", func(s *sim, evil *simPeer) {
			s.says(evil.id, accept, wire.Credit{Transfer: id, Granted: 1 << 40, Stored: 3*chunkSize + 6})
		}, true},
		{"receipt out of nothing", func(s *sim, evil *simPeer) {
			s.says(evil.id, wire.Receipt{Transfer: id, Files: all, Signature: signature})
		}, true},
		{"receipt before the end", func(s *sim, evil *simPeer) {
			s.says(evil.id, accept, wire.Receipt{Transfer: id, Files: all, Signature: signature})
		}, true},
		{"receipt for another root", func(s *sim, evil *simPeer) {
			s.says(evil.id, have(0, wire.Run{Count: 3}), have(1, wire.Run{Count: 1}), accept)
			end := endOf(s.t, s.absorb(evil))
			end.Root[31] ^= 1
			s.says(evil.id, wire.Receipt{Transfer: id, Root: end.Root, Files: end.Files, Signature: signature})
		}, true},
		{"receipt for other files", func(s *sim, evil *simPeer) {
			s.says(evil.id, have(0, wire.Run{Count: 3}), have(1, wire.Run{Count: 1}), accept)
			end := endOf(s.t, s.absorb(evil))
			s.says(evil.id, wire.Receipt{Transfer: id, Root: end.Root, Files: bitmap(2, 1), Signature: signature})
		}, true},
		{"requests about another transfer", func(s *sim, evil *simPeer) {
			s.says(evil.id, wire.Accept{Transfer: other, Credit: 1 << 40, Files: all, Complete: none},
				wire.Have{Sender: sender, Transfer: other, File: 9}, wire.Credit{Transfer: other, Granted: 1}, wire.Decline{Transfer: other},
				wire.Receipt{Transfer: other, Files: all, Signature: signature}, wire.Cancel{Sender: sender, Transfer: other, Code: 1},
				wire.Pause{Sender: sender, Transfer: other, Paused: true})
		}, false},
		{"requests in another sender's name", func(s *sim, evil *simPeer) {
			s.says(evil.id, wire.Have{Sender: evil.id, Transfer: id, File: 9}, wire.Cancel{Sender: evil.id, Transfer: id, Code: 1},
				wire.Pause{Sender: other, Transfer: id, Paused: true})
			if state := s.state(evil.id); state != transfer.Offered {
				s.t.Errorf("the delivery is %v", state)
			}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t, 1, 2, false, 3*chunkSize, 5)
			evil := s.peers[member(0)]
			s.connect(evil)
			evil.control = nil
			test.do(s, evil)
			if (evil.broken != nil) != test.violates {
				t.Errorf("violation: %v, want %v", evil.broken, test.violates)
			}
			p := s.out.Progress()[0]
			if violated := p.State == transfer.Failed && p.Code == fault.ProtocolViolation; violated != test.violates || p.State == transfer.Done {
				t.Errorf("the delivery is %+v", p)
			}
			evil.bulk = nil
			s.connect(s.peers[member(1)])
			s.run(func() bool { evil.bulk, evil.control = nil, nil; return s.state(member(1)).Final() })
			s.expectDone(s.peers[member(1)])
		})
	}
}

// TestOutsider: whoever is not among the participants is neither heard nor served.
func TestOutsider(t *testing.T) {
	s := newSim(t, 1, 1, false, 3*chunkSize, 5)
	evil, p := s.add(member(5)), s.peers[member(0)]
	s.connect(evil)
	s.connect(p)
	id, sender, all := s.key.Transfer, s.key.Sender, bitmap(2, 0, 1)
	s.run(func() bool { return len(p.writes) > 0 })
	s.says(evil.id, wire.Have{Sender: sender, Transfer: id, File: 0}, wire.Accept{Transfer: id, Credit: 1 << 40, Files: all, Complete: bitmap(2)},
		wire.Credit{Transfer: id, Granted: 1 << 40}, wire.Receipt{Transfer: id, Files: all, Signature: make([]byte, wire.SignatureSize)},
		wire.Decline{Transfer: id}, wire.Pause{Sender: sender, Transfer: id, Paused: true}, wire.Cancel{Sender: sender, Transfer: id, Code: 1})
	if len(evil.control)+len(evil.bulk) > 0 {
		t.Errorf("an outsider is sent %d control and %d bulk messages", len(evil.control), len(evil.bulk))
	}
	s.run(nil)
	s.expectDone(p)
	if n := len(s.out.Progress()); n != 1 {
		t.Errorf("%d recipients", n)
	}
}

// TestAbsurdCredit: however much a recipient grants, the transport holds no more than a few messages for it, and the cache no more
// than its bound.
func TestAbsurdCredit(t *testing.T) {
	s := newSim(t, 1, 1, false, 400*chunkSize)
	evil := s.peers[member(0)]
	s.connect(evil)
	s.says(evil.id, wire.Accept{Transfer: s.key.Transfer, Credit: math.MaxUint64, Files: bitmap(1, 0), Complete: bitmap(1)})
	for range 1000 { // it takes nothing
		for len(s.tasks) > 0 {
			task := s.tasks[0]
			s.tasks = s.tasks[1:]
			task()
		}
		s.says(evil.id, wire.Credit{Transfer: s.key.Transfer, Granted: math.MaxUint64})
		s.step(transfer.Tick{})
	}
	if n := len(evil.bulk); n == 0 || n > 8 {
		t.Errorf("%d messages wait for the transport", n)
	}
}

// hostileSender is a recipient that has accepted two of three files of a transfer, and whose sender has turned.
type hostileSender struct {
	*sim
	*simPeer
}

func newHostileSender(t *testing.T) hostileSender {
	s := newSim(t, 1, 1, false, 2*chunkSize+100, 5, 700)
	p := s.peers[member(0)]
	p.answer = func(*simPeer) {}
	s.connect(p)
	s.run(nil)
	p.step(transfer.AcceptFiles{Files: []uint32{0, 2}})
	return hostileSender{s, p}
}

// send has the recipient take messages, and its disk do what it is told.
func (h hostileSender) send(messages ...any) {
	for _, m := range messages {
		switch m := m.(type) {
		case wire.ControlMessage:
			h.simPeer.step(transfer.Received{Peer: h.key.Sender, Message: m})
		case wire.Hashes:
			h.bulk = append(h.bulk, simBulk{m.Append(nil)})
		case wire.Chunks:
			h.bulk = append(h.bulk, simBulk{append(m.AppendHead(nil), m.Data...)})
		case wire.End:
			m.Signature = make([]byte, wire.SignatureSize)
			h.bulk = append(h.bulk, simBulk{m.Append(nil)})
		}
		if len(h.bulk) > 0 {
			h.deliverBulk()
		}
	}
	for len(h.simPeer.tasks) > 0 {
		task := h.simPeer.tasks[0]
		h.simPeer.tasks = h.simPeer.tasks[1:]
		task()
	}
}

func (h hostileSender) data(file, index uint32) []byte {
	return h.files[file][int(index)*chunkSize : min(len(h.files[file]), (int(index)+1)*chunkSize)]
}

// chunks is a message with chunks of honest data.
func (h hostileSender) chunks(refs ...chunk.Ref) wire.Chunks {
	m := wire.Chunks{Sender: h.key.Sender, Transfer: h.key.Transfer}
	for _, r := range refs {
		d := h.data(r.File, r.Index)
		m.Entries = append(m.Entries, wire.ChunkEntry{File: r.File, Index: r.Index, RawLength: uint32(len(d)), Length: uint32(len(d))})
		m.Data = append(m.Data, d...)
	}
	return m
}

// hashes announces hashes of honest data.
func (h hostileSender) hashes(file, first uint32, n int) wire.Hashes {
	run := wire.HashRun{File: file, First: first}
	for i := range uint32(n) {
		sum := sha256.Sum256(h.data(file, first+i))
		run.List = append(run.List, sum[:]...)
	}
	return wire.Hashes{Sender: h.key.Sender, Transfer: h.key.Transfer, Runs: []wire.HashRun{run}}
}

// end is the honest End for files.
func (h hostileSender) end(files ...uint32) wire.End {
	set := bitmap(len(h.files), files...)
	return wire.End{Transfer: h.key.Transfer, Files: set,
		Root: h.manifest.DeliveryRoot(h.key.Sender, h.key.Transfer, set, func(f uint32) wire.Hash {
			var list []wire.Hash
			for i := range h.manifest.Chunks(f) {
				list = append(list, sha256.Sum256(h.data(f, i)))
			}
			return h.manifest.FileRoot(f, list)
		})}
}

// everything is an honest delivery without its End.
func (h hostileSender) everything() []any {
	at := func(i uint32) chunk.Ref { return chunk.Ref{Index: i} }
	return []any{h.hashes(0, 0, 3), h.hashes(2, 0, 1), h.chunks(at(0)), h.chunks(at(1)), h.chunks(at(2)), h.chunks(chunk.Ref{File: 2})}
}

// TestMaliciousSender: what was not announced, not wanted, not granted, or is not what was announced never reaches the disk; what
// is there is right; and nothing is made durable that is not whole.
func TestMaliciousSender(t *testing.T) {
	key := transfer.Key{Sender: wire.ID{9}, Transfer: wire.ID{8}}
	a := func(i uint32) chunk.Ref { return chunk.Ref{Index: i} }
	b, c := chunk.Ref{File: 1}, chunk.Ref{File: 2}
	damaged := func(m wire.Chunks) wire.Chunks {
		m.Data = bytes.Clone(m.Data)
		m.Data[len(m.Data)-1] ^= 1
		return m
	}
	lying := func(m wire.Chunks, change func(*wire.ChunkEntry)) wire.Chunks {
		change(&m.Entries[0])
		return m
	}
	const good, violation, ended = "", fault.ProtocolViolation, fault.FileChanged
	for _, test := range []struct {
		name    string
		send    func(h hostileSender) []any
		code    fault.Code // how the delivery ends; "": it goes on, and can still be completed
		breaks  bool       // the link is cut
		written int        // chunks that have come to the disk
	}{
		{"chunk without its hash", func(h hostileSender) []any { return []any{h.chunks(a(0))} }, good, false, 0},
		{"chunk of a file that was not asked for", func(h hostileSender) []any { return []any{h.hashes(1, 0, 1), h.chunks(b)} }, good, false, 0},
		{"chunk that came already", func(h hostileSender) []any {
			return []any{h.hashes(0, 0, 1), h.chunks(a(0)), h.chunks(a(0)), damaged(h.chunks(a(0)))}
		}, good, false, 1},
		{"chunk twice in a message", func(h hostileSender) []any { return []any{h.hashes(2, 0, 1), damaged(h.chunks(c, c))} }, good, false, 1},
		{"chunk of another transfer", func(h hostileSender) []any {
			m, hashes := h.chunks(a(0)), h.hashes(0, 0, 1)
			m.Transfer, hashes.Transfer = wire.ID{1}, wire.ID{1}
			return []any{hashes, m}
		}, good, false, 0},
		{"full disk of its own", func(h hostileSender) []any {
			return []any{wire.Pause{Sender: h.key.Sender, Transfer: h.key.Transfer, Full: true}}
		}, violation, true, 0},
		{"chunk of no file", func(h hostileSender) []any {
			return []any{lying(h.chunks(c), func(e *wire.ChunkEntry) { e.File = 7 })}
		}, violation, true, 0},
		{"chunk beyond the file", func(h hostileSender) []any {
			return []any{lying(h.chunks(a(0)), func(e *wire.ChunkEntry) { e.Index = 3 })}
		}, violation, true, 0},
		{"chunk whose index overflows", func(h hostileSender) []any {
			return []any{lying(h.chunks(c), func(e *wire.ChunkEntry) { e.Index = math.MaxUint32 })}
		}, violation, true, 0},
		{"chunk of a wrong length", func(h hostileSender) []any {
			return []any{lying(h.chunks(c), func(e *wire.ChunkEntry) { e.File = 0 })}
		}, violation, true, 0},
		{"compressed chunk", func(h hostileSender) []any {
			return []any{h.hashes(2, 0, 1), lying(h.chunks(c), func(e *wire.ChunkEntry) { e.Compressed = true })}
		}, violation, true, 0},
		{"compressed chunk that claims to be large", func(h hostileSender) []any {
			return []any{h.hashes(0, 0, 1), lying(h.chunks(c), func(e *wire.ChunkEntry) { *e = wire.ChunkEntry{Compressed: true, RawLength: chunkSize, Length: 700} })}
		}, violation, true, 0},
		{"more than a message may hold", func(h hostileSender) []any { return []any{h.hashes(0, 0, 3), h.chunks(a(0), a(1))} }, violation, true, 0},
		{"wrong data", func(h hostileSender) []any { return []any{h.hashes(0, 0, 3), h.chunks(a(0)), damaged(h.chunks(a(1)))} }, fault.Integrity, true, 1},
		{"wrong index", func(h hostileSender) []any {
			return []any{h.hashes(0, 0, 3), lying(h.chunks(a(0)), func(e *wire.ChunkEntry) { e.Index = 1 })}
		}, fault.Integrity, true, 0},
		{"wrong data behind good in one message", func(h hostileSender) []any {
			return []any{h.hashes(0, 0, 3), h.hashes(2, 0, 1), damaged(h.chunks(c, a(2)))}
		}, fault.Integrity, true, 1},
		{"reordered hashes", func(h hostileSender) []any {
			m := h.hashes(0, 0, 3)
			m.Runs[0].List = append(m.Runs[0].List[32:], m.Runs[0].List[:32]...)
			return []any{m, h.chunks(a(0))}
		}, fault.Integrity, true, 0},
		{"hashes of another file", func(h hostileSender) []any {
			m := h.hashes(2, 0, 1)
			m.Runs[0].File = 0
			return []any{m, h.chunks(a(0))}
		}, fault.Integrity, true, 0},
		{"hashes that contradict", func(h hostileSender) []any {
			m := h.hashes(0, 0, 3)
			m.Runs[0].List[40] ^= 1
			return []any{h.hashes(0, 0, 2), m}
		}, ended, false, 0},
		{"gap in the hashes", func(h hostileSender) []any { return []any{h.hashes(0, 1, 1)} }, violation, true, 0},
		{"hashes beyond the file", func(h hostileSender) []any {
			m := h.hashes(0, 0, 3)
			m.Runs[0].List = append(m.Runs[0].List, make([]byte, 32)...)
			return []any{m}
		}, violation, true, 0},
		{"hashes that overflow", func(h hostileSender) []any {
			m := h.hashes(0, 0, 1)
			m.Runs[0].First = math.MaxUint32
			return []any{m}
		}, violation, true, 0},
		{"hashes of no file", func(h hostileSender) []any {
			m := h.hashes(0, 0, 1)
			m.Runs[0].File = 9
			return []any{m}
		}, violation, true, 0},
		{"end before everything was announced", func(h hostileSender) []any { return []any{h.hashes(0, 0, 2), h.end(0)} }, violation, true, 0},
		{"end before everything was sent", func(h hostileSender) []any {
			return append(append(h.everything()[:5], h.chunks(a(0))), h.end(0, 2))
		}, violation, true, 3},
		{"end with a file that was not asked for", func(h hostileSender) []any { return append(h.everything(), h.end(0, 1, 2)) }, violation, true, 4},
		{"end without a file", func(h hostileSender) []any { return append(h.everything(), h.end()) }, violation, true, 4},
		{"end with a bad bitmap", func(h hostileSender) []any {
			m := h.end(0, 2)
			m.Files = wire.Bitmap{0xff}
			return append(h.everything(), m)
		}, violation, true, 4},
		{"end with a bitmap of another length", func(h hostileSender) []any {
			m := h.end(0, 2)
			m.Files = append(m.Files, 0)
			return append(h.everything(), m)
		}, violation, true, 4},
		{"end with another root", func(h hostileSender) []any {
			m := h.end(0, 2)
			m.Root = h.end(0).Root
			return append(h.everything(), m)
		}, fault.Integrity, true, 4},
		{"end with the root of another transfer", func(h hostileSender) []any {
			m := h.end(0, 2)
			m.Root = h.manifest.DeliveryRoot(h.key.Sender, wire.ID{1}, m.Files, func(uint32) wire.Hash { return wire.Hash{} })
			return append(h.everything(), m)
		}, fault.Integrity, true, 4},
		{"end with a file that failed", func(h hostileSender) []any {
			return append(h.everything(), wire.FileFailed{Transfer: key.Transfer, File: 2, Code: wire.FailureFileChanged}, h.end(0, 2))
		}, violation, true, 4},
		{"failure of a file after its end", func(h hostileSender) []any {
			last := len(h.everything()) - 1 // still on its way to the disk
			return append(h.everything()[:last], h.chunks(c), h.end(0, 2), wire.FileFailed{Transfer: key.Transfer, File: 2, Code: wire.FailureFileChanged})
		}, violation, true, 0},
		{"two ends", func(h hostileSender) []any { return append(h.everything(), h.end(0), h.end(0, 2)) }, violation, true, 4},
		{"hashes after the end", func(h hostileSender) []any { return append(h.everything(), h.end(0), h.hashes(0, 0, 3)) }, violation, true, 4},
		{"chunk after the end", func(h hostileSender) []any { return append(h.everything()[:5], h.end(0), h.chunks(c)) }, violation, true, 3},
		{"failure of no file", func(h hostileSender) []any {
			return []any{wire.FileFailed{Transfer: key.Transfer, File: 3, Code: wire.FailureFileChanged}}
		}, violation, true, 0},
		{"a recipient's message", func(h hostileSender) []any { return []any{wire.Credit{Transfer: key.Transfer, Granted: 1}} }, violation, true, 0},
		{"offer repeated over one link", func(h hostileSender) []any { return []any{h.in.Offer()} }, violation, true, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHostileSender(t)
			h.send(test.send(h)...)
			if (h.broken != nil) != test.breaks {
				t.Errorf("link cut for %v, want %v", h.broken, test.breaks)
			}
			p := h.in.Progress()
			if p.Code != test.code || p.State.Final() != (test.code != good) {
				t.Errorf("%+v, want %q", p, test.code)
			}
			if h.commits > 0 || h.in.Committed() {
				t.Error("made durable")
			}
			if test.code != good && (len(h.disk) > 0 || !h.gone) {
				t.Error("what was stored is still there")
			}
			if test.code == good && len(h.writes) != test.written {
				t.Errorf("%d chunks on disk, want %d", len(h.writes), test.written)
			}
			if len(h.writes) > test.written {
				t.Errorf("%d chunks were written, want at most %d", len(h.writes), test.written)
			}
			if test.code != good {
				return
			}
			// It was nothing that an honest sender could not go on from.
			h.send(append(h.everything(), h.end(0, 2))...)
			if h.in.Progress().State != transfer.Done {
				t.Fatalf("not to be completed: %+v, %v", h.in.Progress(), h.broken)
			}
			for _, f := range []uint32{0, 2} {
				if !bytes.Equal(h.disk[f], h.files[f]) {
					t.Errorf("file %d differs", f)
				}
			}
			for ref, n := range h.writes {
				if n != 1 || ref.File == 1 {
					t.Errorf("chunk %v written %d times", ref, n)
				}
			}
		})
	}
}

// TestMaliciousManifest: a manifest that is not the one offered, or that claims what no transfer can hold, ends the link before
// anybody is asked.
func TestMaliciousManifest(t *testing.T) {
	m, err := chunk.NewManifest(chunkSize, []wire.FileEntry{{Size: 3 * chunkSize, Path: "a"}, {Size: 5, Path: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	key := transfer.Key{Sender: wire.ID{9}, Transfer: wire.ID{8}}
	honest := wire.TransferOffer{Transfer: key.Transfer, ChunkSize: chunkSize, Files: 2, TotalSize: m.Total,
		ManifestLength: uint32(len(m.Encoded)), ManifestHash: m.Hash}
	part := func(offset uint32, data []byte) wire.ManifestPart {
		return wire.ManifestPart{Transfer: key.Transfer, Offset: offset, Data: data}
	}
	// huge is a file set of more chunks than a transfer may have.
	entry := wire.FileEntry{Size: (chunk.MaxChunks + 1) * chunkSize, Path: "x"}
	huge := entry.Append(nil)
	for _, test := range []struct {
		name  string
		offer func(*wire.TransferOffer)
		parts []wire.ManifestPart
	}{
		{"gap", nil, []wire.ManifestPart{part(1, m.Encoded[1:])}},
		{"overlap", nil, []wire.ManifestPart{part(0, m.Encoded[:9]), part(8, m.Encoded[8:])}},
		{"too long", nil, []wire.ManifestPart{part(0, append(slices.Clone(m.Encoded), 0))}},
		{"overflow", nil, []wire.ManifestPart{part(0, m.Encoded[:9]), part(math.MaxUint32, m.Encoded[:9])}},
		{"another hash", func(o *wire.TransferOffer) { o.ManifestHash[0]++ }, []wire.ManifestPart{part(0, m.Encoded)}},
		{"more files", func(o *wire.TransferOffer) { o.Files = wire.MaxFiles }, []wire.ManifestPart{part(0, m.Encoded)}},
		{"fewer files", func(o *wire.TransferOffer) { o.Files = 1 }, []wire.ManifestPart{part(0, m.Encoded)}},
		{"another size", func(o *wire.TransferOffer) { o.TotalSize-- }, []wire.ManifestPart{part(0, m.Encoded)}},
		{"too many chunks", func(o *wire.TransferOffer) {
			o.Files, o.TotalSize, o.ManifestLength, o.ManifestHash = 1, entry.Size, uint32(len(huge)), sha256.Sum256(huge)
		}, []wire.ManifestPart{part(0, huge)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			offer := honest
			if test.offer != nil {
				test.offer(&offer)
			}
			now := time.Unix(1, 0)
			in := transfer.NewIncoming(key, offer, now)
			violated := false
			for _, p := range test.parts {
				for _, e := range in.Step(now, transfer.Received{Peer: key.Sender, Message: p}) {
					if _, ok := e.(transfer.Violation); ok {
						violated = true
					}
				}
			}
			if !violated || in.Ready() || in.Progress().Code != fault.ProtocolViolation {
				t.Errorf("violation: %v; %+v", violated, in.Progress())
			}
		})
	}
}

// TestOverdraft: a sender that sends more than it was granted is cut off before the memory of its recipient suffers, over however many
// links it does so, while the disk takes nothing.
func TestOverdraft(t *testing.T) {
	const chunks = 2000
	key := transfer.Key{Sender: wire.ID{9}, Transfer: wire.ID{8}}
	m, err := chunk.NewManifest(chunkSize, []wire.FileEntry{{Size: chunks * chunkSize, Path: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1, 0)
	offer := wire.TransferOffer{Transfer: key.Transfer, ChunkSize: chunkSize, Files: 1, TotalSize: m.Total,
		ManifestLength: uint32(len(m.Encoded)), ManifestHash: m.Hash}
	var pool bulk.Pool
	b := pool.Get(1)
	hashes := func(first uint32, n int) wire.Hashes {
		return wire.Hashes{Sender: key.Sender, Transfer: key.Transfer, Runs: []wire.HashRun{{First: first, List: make([]byte, 32*n)}}}
	}
	for _, test := range []struct {
		name string
		obey bool // never exceeds what the present link was granted, and begins a new link for more
	}{{"one link", false}, {"many links", true}} {
		t.Run(test.name, func(t *testing.T) {
			in := transfer.NewIncoming(key, offer, now)
			granted, waiting, violated, last := uint64(0), uint64(0), false, transfer.Store{}
			step := func(e transfer.Event) {
				for _, effect := range in.Step(now, e) {
					switch effect := effect.(type) {
					case transfer.SendControl:
						switch m := effect.Message.(type) {
						case wire.Accept:
							granted = m.Credit
						case wire.Credit:
							granted = m.Granted
						}
					case transfer.Store:
						waiting += effect.Cost
						last = effect
					case transfer.Violation:
						violated = true
					}
				}
			}
			step(transfer.Received{Peer: key.Sender, Message: wire.ManifestPart{Transfer: key.Transfer, Data: m.Encoded}})
			step(transfer.AcceptFiles{})
			for first := uint32(0); first < chunks; first += 1000 {
				step(transfer.ReceivedBulk{Peer: key.Sender, Message: hashes(first, 1000), Buffer: b})
			}
			cost, spent := uint64(wire.MessageCost)+wire.ChunkCost(chunkSize), uint64(0)
			for i, links := uint32(0), 0; i < chunks && !violated && links < 5; {
				if test.obey && spent+cost > granted {
					step(transfer.LinkDown{Peer: key.Sender})
					step(transfer.LinkUp{Peer: key.Sender})
					step(transfer.Received{Peer: key.Sender, Message: offer})
					spent = 0
					links++
					continue
				}
				spent += cost
				step(transfer.ReceivedBulk{Peer: key.Sender, Message: wire.Chunks{Sender: key.Sender, Transfer: key.Transfer, Data: make([]byte, chunkSize),
					Entries: []wire.ChunkEntry{{Index: i, RawLength: chunkSize, Length: chunkSize}}}, Buffer: b})
				i++
			}
			if waiting == 0 || waiting > transfer.CreditBudget {
				t.Errorf("%d bytes wait for a disk that does nothing", waiting)
			}
			if violated == test.obey {
				t.Errorf("violation: %v", violated)
			}
			if !test.obey {
				return
			}
			// The disk wakes up, and credit comes again.
			before := granted
			step(transfer.Stored{Done: []chunk.Ref{last.Chunks[0].Chunk}, Cost: last.Cost})
			if granted <= before {
				t.Errorf("%d granted after %d", granted, before)
			}
		})
	}
}

// TestMaximalManifest: memory per unanswered offer, and what is left of one that has ended, however large its manifest.
func TestMaximalManifest(t *testing.T) {
	files := make([]wire.FileEntry, wire.MaxFiles) // all empty
	for i := range files {
		files[i].Path = "a"
	}
	m, err := chunk.NewManifest(chunkSize, files)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1, 0)
	key := transfer.Key{Sender: wire.ID{9}}
	offer := wire.TransferOffer{ChunkSize: chunkSize, Files: wire.MaxFiles, ManifestLength: uint32(len(m.Encoded)), ManifestHash: m.Hash}
	before := heap()
	in := transfer.NewIncoming(key, offer, now)
	step := func(e transfer.Event) []transfer.Effect { return in.Step(now, e) }
	for at := 0; at < len(m.Encoded); at += wire.MaxManifestPart {
		step(transfer.Received{Message: wire.ManifestPart{Offset: uint32(at), Data: bytes.Clone(m.Encoded[at:min(at+wire.MaxManifestPart, len(m.Encoded))])}})
	}
	if !in.Ready() {
		t.Fatalf("%+v", in.Progress())
	}
	if n := heap() - before; n > 64<<20 {
		t.Errorf("an offer of %d files takes %d bytes", wire.MaxFiles, n)
	}
	step(transfer.LinkDown{})
	now = now.Add(2 * transfer.Grace)
	step(transfer.Tick{})
	if !in.Progress().State.Final() {
		t.Fatalf("%+v", in.Progress())
	}
	if n := heap() - before; n > 1<<20 {
		t.Errorf("an offer that has ended takes %d bytes", n)
	}
	runtime.KeepAlive(in)

	// The whole of it, and failures one by one: the work must not grow with the square.
	in = transfer.NewIncoming(key, offer, now)
	step(transfer.Received{Message: wire.ManifestPart{Data: m.Encoded}})
	step(transfer.AcceptFiles{})
	end := wire.End{Files: wire.NewBitmap(wire.MaxFiles)}
	end.Files.Set(wire.MaxFiles - 1)
	end.Root = m.DeliveryRoot(key.Sender, key.Transfer, end.Files, func(f uint32) wire.Hash { return m.FileRoot(f, nil) })
	step(transfer.ReceivedBulk{Message: end})
	var effects []transfer.Effect
	for f := range uint32(wire.MaxFiles - 1) {
		if in.Progress().State != transfer.Verifying {
			t.Fatalf("before all has been said: %+v", in.Progress())
		}
		effects = step(transfer.Received{Message: wire.FileFailed{File: f, Code: wire.FailureFileChanged}})
	}
	for _, e := range effects {
		if verify, ok := e.(transfer.Verify); ok {
			step(verify.Sum())
		}
	}
	if in.Progress().State != transfer.Saving {
		t.Errorf("%+v", in.Progress())
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestRetryFileWithLateJoiners: a file that failed is read anew for a retry, also in a transfer that stays open.
func TestRetryFileWithLateJoiners(t *testing.T) {
	s := newSim(t, 1, 1, true, 4*chunkSize, 5)
	p := s.peers[member(0)]
	s.readErr = func(r chunk.Ref) error {
		if r == (chunk.Ref{Index: 3}) {
			return transfer.ErrSourceUnreadable
		}
		return nil
	}
	s.connect(p)
	s.run(nil)
	if got := s.out.Progress()[0]; got.State != transfer.Failed || got.Code != fault.FileUnreadable {
		t.Fatalf("%+v", got)
	}
	s.readErr, p.finished = nil, false
	clear(p.writes)
	clear(p.disk)
	s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
	s.run(nil)
	s.expectDone(p)
}
