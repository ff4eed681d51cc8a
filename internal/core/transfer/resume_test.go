package transfer_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// newKeptSim is a sim whose ends have journals.
func newKeptSim(t *testing.T, seed uint64, recipients int, sizes ...int) *sim {
	s := newSim(t, seed, recipients, false, sizes...)
	s.keep = true
	s.out = transfer.NewOutgoing(transfer.OutgoingConfig{Key: s.key, Manifest: s.manifest, Recipients: s.order, Schedule: transfer.Star{}, Keep: true})
	s.journal = s.out.Journal(s.now)
	return s
}

// rounds is how many runs at random a test makes.
func rounds() uint64 {
	if os.Getenv("TALLOW_SOAK") == "1" {
		return 500
	}
	return 12
}

// crash ends a recipient's process: nothing stays but its disk and as much of its journal.
func (p *simPeer) crash(journal []byte) {
	p.s.t.Helper()
	p.up, p.control, p.bulk, p.back, p.tasks, p.broken = false, nil, nil, nil, nil, nil
	p.s.step(transfer.LinkDown{Peer: p.id})
	j, err := transfer.ParseJournal(journal)
	if err != nil {
		p.in, p.gone = nil, false // then it is a new offer
		clear(p.disk)
		return
	}
	p.journal = bytes.Clone(journal[:j.Size])
	p.in = transfer.RestoreIncoming(j, p.s.now)
	if !j.Done() {
		p.tasks = append(p.tasks, func() { p.step(transfer.Restored{Have: p.verified()}) })
	}
}

// verified is which of the announced chunks are on disk.
func (p *simPeer) verified() (have []chunk.Ref) {
	m := p.s.manifest
	for i := range m.Files {
		for index, hash := range p.in.Announced(uint32(i)) {
			ref := chunk.Ref{File: uint32(i), Index: uint32(index)}
			disk := p.disk[ref.File]
			if at := m.Offset(ref); disk != nil && sha256.Sum256(disk[at:at+int64(m.Length(ref))]) == hash {
				have = append(have, ref)
			}
		}
	}
	return have
}

// crashSender ends the sender's process: nothing stays but as much of its journal.
func (s *sim) crashSender(journal []byte) {
	s.t.Helper()
	s.tasks, s.finished = nil, false
	clear(s.unnoted)
	for _, p := range s.peers {
		p.up, p.control, p.bulk, p.back = false, nil, nil, nil
		clear(p.sent) // by whoever knew it
		if p.in != nil {
			p.step(transfer.LinkDown{Peer: s.key.Sender})
		}
	}
	j, err := transfer.ParseJournal(journal)
	if err != nil {
		s.t.Fatal(err)
	}
	s.journal = bytes.Clone(journal[:j.Size])
	s.out = transfer.RestoreOutgoing(j, nil, transfer.Star{}, s.now)
}

// TestRecipientCrash: at every kind of moment. What is on disk is not sent again, and nobody is asked again.
func TestRecipientCrash(t *testing.T) {
	for seed := range rounds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newKeptSim(t, seed, 2, 700_000, 0, 65_536, 1, 300_000)
			p := s.peers[member(0)]
			asked := 0
			wanted := []uint32{0, 1, 2, 4}
			if seed%2 == 1 {
				wanted = []uint32{0, 1, 2} // not the last one
			}
			p.answer = func(p *simPeer) { asked++; p.step(transfer.AcceptFiles{Files: wanted}) }
			for _, id := range s.order {
				s.connect(s.peers[id])
			}
			for range 4 {
				stop := len(p.writes) + s.rand.IntN(6)
				s.run(func() bool { return p.in != nil && p.in.Accepted() && len(p.writes) >= stop })
				if p.settled != nil {
					break
				}
				held := maps.Clone(p.writes)
				clear(p.received)
				p.crash(p.journal)
				if s.rand.IntN(2) == 0 { // the link may be there before what is on disk has been verified
					s.connect(p)
				} else {
					s.run(func() bool { return !p.in.Checking() })
					s.connect(p)
				}
				s.run(func() bool { return p.in.Progress().State != transfer.Transferring || s.rand.IntN(20) == 0 })
				for ref := range held {
					if p.received[ref] > 0 {
						t.Fatalf("chunk %v is on disk and was sent again", ref)
					}
				}
			}
			s.run(nil)
			s.expectDone(s.peers[member(1)])
			if asked != 1 || s.state(p.id) != transfer.Done || p.in.Progress().State != transfer.Done {
				t.Fatalf("asked %d times: %+v, %+v", asked, s.out.Progress(), p.in.Progress())
			}
			for _, i := range wanted {
				if !bytes.Equal(p.disk[i], s.files[i]) {
					t.Errorf("file %d differs", i)
				}
			}
			for ref, n := range p.writes {
				if n != 1 {
					t.Errorf("chunk %v was written %d times", ref, n)
				}
			}
		})
	}
}

// TestJournalTruncated cuts a recipient's journal off at every byte: what is left is whole. And around the end of each record (soak: at every byte)
// the delivery goes on from there, with what is on disk spoilt, to the right bytes.
func TestJournalTruncated(t *testing.T) {
	begin := func() (*sim, *simPeer) {
		s := newKeptSim(t, 5, 1, 200_000, 70_000)
		p := s.peers[member(0)]
		s.connect(p)
		s.run(func() bool { return len(p.writes) == 5 })
		return s, p
	}
	_, p := begin()
	journal := bytes.Clone(p.journal)
	whole := int64(0)
	for n := range len(journal) + 1 {
		before := whole
		if j, err := transfer.ParseJournal(journal[:n]); err == nil {
			if whole = j.Size; whole < before || whole > int64(n) {
				t.Fatalf("cut off at %d: %d bytes are whole, and %d were before", n, whole, before)
			}
		} else if !errors.Is(err, transfer.ErrJournal) {
			t.Fatal(err)
		}
		if whole == before && n > 0 && n < len(journal) && os.Getenv("TALLOW_SOAK") != "1" {
			continue
		}
		s, p := begin()
		if !bytes.Equal(p.journal, journal) {
			t.Fatal("the run is not the same each time")
		}
		p.disk[0][65_536] ^= 1 // a chunk that was being written, or a bad disk
		p.crash(journal[:n])
		s.connect(p)
		s.run(nil)
		if s.state(p.id) != transfer.Done || !bytes.Equal(p.disk[0], s.files[0]) || !bytes.Equal(p.disk[1], s.files[1]) {
			t.Fatalf("cut off at %d of %d: %+v, %v", n, len(journal), s.out.Progress(), p.broken)
		}
	}
	for at := range journal { // a record that is not what was written ends the journal
		bad := bytes.Clone(journal)
		bad[at] ^= 0x10
		if j, err := transfer.ParseJournal(bad); err == nil && j.Size > int64(at) {
			t.Fatalf("byte %d was changed, and %d bytes are taken for whole", at, j.Size)
		}
	}
}

// TestSenderCrash: the files are given again. Nobody gets twice what it has, receipts that were under way count, and who was done stays so.
func TestSenderCrash(t *testing.T) {
	for seed := range rounds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newKeptSim(t, seed, 3, 500_000, 0, 65_536, 300_001)
			s.peers[member(2)].slow = 5
			s.peers[member(1)].answer = func(p *simPeer) { p.step(transfer.AcceptFiles{Files: []uint32{2, 3}}) }
			for _, id := range s.order {
				s.connect(s.peers[id])
			}
			for range 3 {
				s.runSteps(s.rand.IntN(300))
				if s.finished {
					break
				}
				done := map[wire.ID]bool{}
				for _, p := range s.out.Progress() {
					done[p.Peer] = p.State == transfer.Done
				}
				s.crashSender(s.journal)
				for _, id := range s.order {
					if (s.state(id) == transfer.Done) != done[id] {
						t.Fatalf("the outcome of %v is forgotten: %+v", id[1], s.out.Progress())
					}
					s.connect(s.peers[id])
				}
				s.run(nil) // as far as it goes without files
				for _, p := range s.out.Progress() {
					if p.State != transfer.Done && p.State != transfer.Paused && p.State != transfer.Verifying {
						t.Fatalf("without its files: %+v", s.out.Progress())
					}
				}
				s.step(transfer.SourcesReady{})
			}
			s.run(nil)
			s.expectDone(s.peers[member(0)])
			s.expectDone(s.peers[member(2)])
			p := s.peers[member(1)]
			if s.state(p.id) != transfer.Done || !bytes.Equal(p.disk[2], s.files[2]) || !bytes.Equal(p.disk[3], s.files[3]) {
				t.Errorf("%+v", s.out.Progress())
			}
			if s.journal != nil || !s.finished {
				t.Error("the journal is still there")
			}
		})
	}
}

// TestSenderChanged: of files that are given again one is another. It fails for who lacks any of it; the rest arrives.
func TestSenderChanged(t *testing.T) {
	for _, change := range []string{"read before", "known", "unknown"} {
		t.Run(change, func(t *testing.T) {
			s := newKeptSim(t, 3, 1, 300_000, 100_000)
			p := s.peers[member(0)]
			s.connect(p)
			s.run(func() bool { return len(p.writes) == 2 })
			s.crashSender(s.journal)
			s.connect(p)
			switch change {
			case "read before": // the room has read it again
				s.step(transfer.SourceFailed{File: 0, Err: transfer.ErrSourceChanged})
			case "known": // as it is read: its hash was noted, though not sent to anybody yet
				runs, _ := s.out.Read(0)
				s.files[0][int(runs[0].Count-1)*wire.MinChunkSize] ^= 1
			case "unknown": // nothing tells that chunk from a right one, but it contradicts what was announced to nobody
				s.step(transfer.SourceFailed{File: 0, Err: fmt.Errorf("gone: %w", transfer.ErrSourceUnreadable)})
			}
			s.step(transfer.SourcesReady{})
			s.run(nil)
			want := fault.FileChanged
			if change == "unknown" {
				want = fault.FileUnreadable
			}
			if got := s.out.Progress()[0]; got.State != transfer.Failed || got.Code != want {
				t.Errorf("at the sender: %+v", got)
			}
			if got := p.in.Progress(); got.State != transfer.Failed || got.Code != want {
				t.Errorf("at the recipient: %+v", got)
			}
			if !p.in.Complete(1) || p.in.Complete(0) || !bytes.Equal(p.disk[1], s.files[1]) {
				t.Error("the other file did not arrive alone")
			}
		})
	}
}

// TestSuspended: whoever was gone for longer than the grace goes on where it was, whichever end that was. A cancelled one does not.
func TestSuspended(t *testing.T) {
	for _, cancelled := range []string{"", "sender", "recipient"} {
		t.Run("cancelled by the "+cancelled, func(t *testing.T) {
			s := newKeptSim(t, 2, 1, 900_000)
			p := s.peers[member(0)]
			s.connect(p)
			s.run(func() bool { return len(p.writes) >= 3 && len(p.tasks) >= 2 })
			s.cut(p, false)
			slow := p.tasks // the disk takes longer than the grace
			p.tasks = nil
			s.now = s.now.Add(transfer.Grace + time.Second)
			s.step(transfer.Tick{})
			p.step(transfer.Tick{})
			for _, task := range slow {
				task()
			}
			if s.state(p.id) != transfer.Failed || !s.finished || !p.finished || !p.in.Suspended() || p.gone || s.journal == nil || p.journal == nil {
				t.Fatalf("%+v, %+v", s.out.Progress(), p.in.Progress())
			}
			held := maps.Clone(p.writes)
			clear(p.received)
			want := transfer.Cancelled
			switch cancelled {
			case "":
				want = transfer.Done
			case "sender":
				s.step(transfer.CancelAll{})
			case "recipient":
				p.step(transfer.CancelAll{})
			}
			s.connect(p)
			s.run(nil)
			if s.state(p.id) != want || p.in.Progress().State != want || s.journal != nil || (p.journal == nil) != p.gone {
				t.Fatalf("%+v, %+v; journals of %d and %d bytes", s.out.Progress(), p.in.Progress(), len(s.journal), len(p.journal))
			}
			if cancelled == "" {
				s.expectDone(p)
			} else if !p.gone {
				t.Error("what was stored is still there")
			}
			for ref := range held {
				if p.received[ref] > 0 {
					t.Errorf("chunk %v is on disk and was sent again", ref)
				}
			}
		})
	}
}

// TestLongVerification: what is on disk takes longer to verify than the grace, while the sender is there.
func TestLongVerification(t *testing.T) {
	s := newKeptSim(t, 4, 1, 400_000)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) == 3 })
	p.crash(p.journal)
	verify := p.tasks
	p.tasks = nil
	s.connect(p)
	s.run(func() bool { return len(p.control) == 0 })
	s.now = s.now.Add(transfer.Grace + time.Second)
	p.step(transfer.Tick{})
	if got := p.in.Progress(); got.State != transfer.Interrupted {
		t.Fatalf("%+v", got)
	}
	p.tasks = verify
	s.run(nil)
	s.expectDone(p)
}

// TestReceiptAfterCrash: what is left of a delivery that is done answers a repeated offer, and asks nobody.
func TestReceiptAfterCrash(t *testing.T) {
	s := newKeptSim(t, 4, 1, 200_000)
	p := s.peers[member(0)]
	p.answer = func(p *simPeer) { p.step(transfer.AcceptFiles{}) }
	s.connect(p)
	s.run(func() bool { return p.settled != nil })
	if s.state(p.id) == transfer.Done {
		t.Fatalf("%+v", s.out.Progress())
	}
	clear(p.received)
	j, err := transfer.ParseJournal(p.settled)
	if err != nil || !j.Done() || j.HandedOver() {
		t.Fatalf("%+v, %v", j, err)
	}
	receipt := j.Receipt(s.now)
	if j, err = transfer.ParseJournal(receipt); err != nil || !j.HandedOver() {
		t.Fatalf("%+v, %v", j, err)
	}
	p.crash(receipt)
	p.answer = func(*simPeer) { t.Error("asked again") }
	s.connect(p)
	s.run(nil)
	if s.state(p.id) != transfer.Done || len(p.received) > 0 {
		t.Errorf("%+v; %d chunks were sent again", s.out.Progress(), len(p.received))
	}
}

// TestDoneAfterCrash: what is done and was not handed over is the same after a crash, files that failed included, and answers a repeated offer.
func TestDoneAfterCrash(t *testing.T) {
	s := newKeptSim(t, 4, 1, 200_000, 70_000, 0, 5)
	p := s.peers[member(0)]
	p.answer = func(p *simPeer) { p.step(transfer.AcceptFiles{Files: []uint32{0, 1, 2}}) }
	s.readErr = secondUnreadable
	s.connect(p)
	s.run(func() bool { return p.settled != nil })
	type file struct {
		stored   uint64
		root     wire.Hash
		complete bool
		code     fault.Code
	}
	told := func() (transfer.Progress, []file) {
		var files []file
		for i := range s.manifest.Files {
			stored, root, code := p.in.File(uint32(i))
			f := file{stored: stored, complete: p.in.Complete(uint32(i)), code: code}
			if root != nil {
				f.root = *root
			}
			files = append(files, f)
		}
		progress := p.in.Progress()
		progress.Speed = 0
		return progress, files
	}
	progress, files := told()
	if progress.State != transfer.Failed || progress.Code != fault.FileUnreadable || !files[0].complete || files[1].complete || files[1].code != fault.FileUnreadable {
		t.Fatalf("%+v, %+v", progress, files)
	}
	p.crash(p.settled)
	if again, list := told(); !p.in.Committed() || again.State != progress.State || again.Code != progress.Code || again.Total != progress.Total {
		t.Errorf("%+v, was %+v", again, progress)
	} else {
		for i := range files {
			if f := files[i]; (f.complete || f.code != "") && list[i] != f {
				t.Errorf("file %d is %+v, was %+v", i, list[i], f)
			}
		}
	}
	clear(p.received)
	p.answer = func(*simPeer) { t.Error("asked again") }
	s.connect(p)
	s.run(nil)
	if s.state(p.id) != transfer.Failed || len(p.received) > 0 {
		t.Errorf("%+v; %d chunks were sent again", s.out.Progress(), len(p.received))
	}
	for n := range p.settled { // cut off anywhere, it is done or is not
		if j, err := transfer.ParseJournal(p.settled[:n]); err == nil && j.Done() {
			t.Fatalf("done after %d of %d bytes", n, len(p.settled))
		}
	}
}

// TestCrashBeforeDone crashes when the sender has the receipt for a part of what was accepted, and the recipient has not noted yet that it is
// done: it keeps that part.
func TestCrashBeforeDone(t *testing.T) {
	for seed := range rounds() {
		s := newKeptSim(t, seed, 1, 200_000, 70_000, 100)
		p := s.peers[member(0)]
		p.answer = func(p *simPeer) { p.step(transfer.AcceptFiles{Files: []uint32{0, 1}}) }
		s.readErr = secondUnreadable
		s.connect(p)
		var journal []byte
		s.run(func() bool {
			if p.settled == nil {
				journal = bytes.Clone(p.journal)
			}
			return s.state(p.id) == transfer.Failed
		})
		if p.settled == nil || len(journal) == len(p.settled) {
			t.Fatal("it does not crash before")
		}
		p.crash(journal)
		p.answer = func(*simPeer) { t.Error("asked again") }
		if seed%2 == 0 {
			s.run(func() bool { return !p.in.Checking() })
		}
		s.connect(p)
		s.run(nil)
		if progress := p.in.Progress(); progress.State != transfer.Failed || progress.Code != fault.FileUnreadable || !p.in.Committed() || p.gone {
			t.Errorf("%+v, committed: %v, deleted: %v", progress, p.in.Committed(), p.gone)
		}
		if !p.in.Complete(0) || !bytes.Equal(p.disk[0], s.files[0]) {
			t.Error("the file with the receipt is not there")
		}
	}
}

// TestCrashWhileVerifying crashes when everything has been announced and not all is stored, with a file behind that is not wanted.
func TestCrashWhileVerifying(t *testing.T) {
	s := newKeptSim(t, 2, 1, 700_000, 10)
	p := s.peers[member(0)]
	p.answer = func(p *simPeer) { p.step(transfer.AcceptFiles{Files: []uint32{0}}) }
	s.connect(p)
	s.run(func() bool { return p.in != nil && p.in.Progress().State == transfer.Verifying })
	if len(p.writes) == 11 {
		t.Fatal("all is stored")
	}
	p.crash(p.journal)
	s.run(nil)
	if progress := p.in.Progress(); progress.State != transfer.Interrupted || p.gone {
		t.Fatalf("%+v, deleted: %v", progress, p.gone)
	}
	s.connect(p)
	s.run(nil)
	if s.state(p.id) != transfer.Done || p.in.Progress().State != transfer.Done || !bytes.Equal(p.disk[0], s.files[0]) {
		t.Errorf("%+v, %+v", s.out.Progress(), p.in.Progress())
	}
}

// TestJournalTells: whose transfer it is and how far it had come; and junk tells nothing.
func TestJournalTells(t *testing.T) {
	s := newKeptSim(t, 4, 1, 200_000)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) == 2 })
	j, err := transfer.ParseJournal(p.journal)
	if err != nil || j.Key != s.key || j.Outgoing || j.Done() {
		t.Fatal(j, err)
	}
	if total, known := j.Bytes(); total != 200_000 || known == 0 || known > total {
		t.Errorf("%d of %d bytes", known, total)
	}
	for _, junk := range [][]byte{nil, {1}, make([]byte, 100), bytes.Repeat([]byte{0xff}, 100), p.journal[:100]} {
		if _, err := transfer.ParseJournal(junk); !errors.Is(err, transfer.ErrJournal) {
			t.Errorf("%d bytes of junk: %v", len(junk), err)
		}
	}
}

// FuzzJournal: whatever is in a journal, reading it does not panic, and what is taken from it can be gone on with.
func FuzzJournal(f *testing.F) {
	s := newKeptSim(&testing.T{}, 4, 2, 200_000, 0, 65_537)
	for _, id := range s.order {
		s.connect(s.peers[id])
	}
	s.run(func() bool { return len(s.peers[member(0)].writes) == 3 })
	f.Add(s.journal)
	f.Add(s.peers[member(0)].journal)
	s.run(func() bool { return s.peers[member(0)].settled != nil })
	f.Add(s.peers[member(0)].settled)
	if j, err := transfer.ParseJournal(s.peers[member(0)].settled); err == nil {
		f.Add(j.Receipt(time.Unix(1_800_000_000, 0)))
	}
	_, retried, receipt := retriedReceipt(&testing.T{})
	f.Add(retried.settled)
	f.Add(receipt)
	f.Fuzz(func(t *testing.T, p []byte) {
		p = transfer.Checksummed(p) // so that the fuzzer gets past the checksums
		j, err := transfer.ParseJournal(p)
		if err != nil {
			return
		}
		if again, err := transfer.ParseJournal(p[:j.Size]); err != nil || again.Size != j.Size {
			t.Fatalf("%d bytes are whole, of which %v, %v", j.Size, again, err)
		}
		now := time.Unix(1_800_000_000, 0)
		if j.Outgoing {
			if j.Manifest != nil {
				o := transfer.RestoreOutgoing(j, nil, transfer.Star{}, now)
				for _, id := range j.Recipients() {
					o.Step(now, transfer.LinkUp{Peer: id})
				}
				o.Step(now, transfer.SourcesReady{})
			}
			return
		}
		if j.Done() {
			offered := transfer.Key{Sender: j.Key.Sender, Transfer: transfer.RestoreIncoming(j, now).Transfer()}
			if r, err := transfer.ParseJournal(j.Receipt(now)); err != nil || !r.HandedOver() || r.Key != offered {
				t.Fatalf("the receipt is %v, %v", r, err)
			}
		}
		in := transfer.RestoreIncoming(j, now)
		in.Step(now, transfer.Restored{})
		in.Step(now, transfer.LinkUp{Peer: j.Key.Sender})
	})
}

// TestHalfDeliveryAfterCrash: part of a delivery is no success, although the sender has forgotten what had failed before its receipt came.
func TestHalfDeliveryAfterCrash(t *testing.T) {
	s := newKeptSim(t, 5, 1, 200_000, 100_000)
	p := s.peers[member(0)]
	s.readErr = secondUnreadable
	s.connect(p)
	s.run(func() bool { return p.commits > 0 })
	if s.out.Progress()[0].State.Final() {
		t.Fatalf("%+v", s.out.Progress())
	}
	s.readErr = nil
	s.crashSender(s.journal)
	s.connect(p)
	s.step(transfer.SourcesReady{})
	s.run(nil)
	if got := s.out.Progress()[0]; got.State != transfer.Failed || got.Code == "" {
		t.Errorf("%+v", got)
	}
}

// TestRetryKeepsReceipts: what a recipient has signed stays, however often it is offered the rest again and whatever becomes of that, and outlives the
// process.
func TestRetryKeepsReceipts(t *testing.T) {
	for _, rewritten := range []bool{false, true} {
		s := newKeptSim(t, 5, 2, 200_000, 100_000)
		p, other := s.peers[member(0)], s.peers[member(1)]
		other.answer = func(*simPeer) {} // so that the transfer goes on, and its journal
		s.readErr = secondUnreadable
		s.connect(p)
		s.connect(other)
		s.run(nil)
		if got := s.progress(p.id); got.State != transfer.Failed || s.out.Receipt(p.id) == nil || len(s.out.Earlier(p.id)) != 0 {
			t.Fatalf("%+v", got)
		}
		p.answer = func(p *simPeer) { p.step(transfer.DeclineOffer{}) }
		for i := range 2 {
			s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77, byte(i)}})
			s.run(nil)
		}
		expect := func(when string) {
			t.Helper()
			got := s.out.Earlier(p.id)
			if len(got) != 1 || got[0].Transfer != s.key.Transfer || !got[0].Receipt.Files.Has(0) || got[0].Receipt.Files.Has(1) || got[0].Stored != 200_000 || got[0].Code != fault.FileUnreadable || s.out.Receipt(p.id) != nil || s.state(p.id) != transfer.Declined {
				t.Errorf("%s: %+v, %+v", when, got, s.progress(p.id))
			}
		}
		expect("after a retry")
		if rewritten {
			s.journal = s.out.Journal(s.now)
		}
		s.crashSender(s.journal)
		expect("after a restart")
	}
}

// TestSignedStaysAsItWas: a file that somebody has signed a receipt for is that file, and no other, for whoever is offered it again.
func TestSignedStaysAsItWas(t *testing.T) {
	s := newKeptSim(t, 5, 2, 200_000)
	p, other := s.peers[member(0)], s.peers[member(1)]
	s.connect(p)
	s.cut(other, true)
	s.run(nil)
	s.expectDone(p)
	root, _ := s.out.FileRoot(0)
	s.files[0] = append([]byte{^s.files[0][0]}, s.files[0][1:]...)
	s.connect(other)
	for i := range 2 {
		s.step(transfer.RetryPeer{Peer: other.id, Transfer: wire.ID{77, byte(i)}})
		s.run(nil)
		now, _ := s.out.FileRoot(0)
		if got := s.progress(other.id); got.Code != fault.FileChanged || now != root {
			t.Errorf("%+v, and the root is %v, was %v", got, now, root)
		}
	}
}

// TestReceiptForUnnoted: a receipt for an End that the sender's journal does not have, for want of room, is held against the files, and no violation.
func TestReceiptForUnnoted(t *testing.T) {
	for _, test := range []struct {
		name    string
		files   []uint32 // accepted
		fails   bool     // file 1, before the crash
		changed bool     // a chunk that had not been noted
		state   transfer.State
		code    fault.Code
	}{
		{"all", []uint32{0, 1}, false, false, transfer.Done, ""},
		{"some", []uint32{0}, false, false, transfer.Done, ""},
		{"part of it", []uint32{0, 1}, true, false, transfer.Failed, fault.FileUnreadable},
		{"changed", []uint32{0, 1}, false, true, transfer.Failed, fault.FileChanged},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newKeptSim(t, 4, 1, 5*chunkSize, 100)
			s.readErr = func(r chunk.Ref) error {
				if test.fails && r.File == 1 {
					return transfer.ErrSourceUnreadable
				}
				return nil
			}
			p := s.peers[member(0)]
			p.answer = func(p *simPeer) { p.step(transfer.AcceptFiles{Files: test.files}) }
			s.connect(p)
			s.run(func() bool { // some of it is noted
				j, err := transfer.ParseJournal(s.journal)
				if err != nil {
					t.Fatal(err)
				}
				_, known := j.Bytes()
				return known > 0
			})
			noted := bytes.Clone(s.journal)
			s.run(func() bool { return p.settled != nil || p.finished })
			if s.state(p.id).Final() {
				t.Fatal("the receipt has come")
			}
			if test.changed {
				s.files[0][5*chunkSize-1] ^= 1
			}
			s.readErr = nil
			clear(p.received)
			s.crashSender(noted)
			s.connect(p)
			s.run(func() bool { return len(p.back) == 0 && len(p.control) == 0 })
			s.cut(p, false) // it comes once more
			s.connect(p)
			s.run(func() bool { return len(p.back) == 0 && len(p.control) == 0 })
			s.step(transfer.SourcesReady{})
			s.run(nil)
			if got := s.progress(p.id); got.State != test.state || got.Code != test.code || p.broken != nil {
				t.Errorf("%+v, link broken by %v", got, p.broken)
			}
			if (s.out.Receipt(p.id) != nil) == test.changed || len(p.received) > 0 {
				t.Errorf("receipt: %v; %d chunks were sent again", s.out.Receipt(p.id), len(p.received))
			}
		})
	}
}

// TestNoted: chunks of each attempt wait for its own note, and for no other.
func TestNoted(t *testing.T) {
	s := newKeptSim(t, 5, 1, 1000)
	first, late := member(0), member(5)
	out := transfer.NewOutgoing(transfer.OutgoingConfig{Key: s.key, Manifest: s.manifest, Recipients: []wire.ID{first}, LateJoiners: true,
		Schedule: transfer.Star{}, Keep: true})
	var notes []transfer.Noted
	step := func(e transfer.Event) (sent int) {
		for events := []transfer.Event{e}; len(events) > 0; {
			effects := out.Step(s.now, events...)
			events = nil
			for _, e := range effects {
				switch e := e.(type) {
				case transfer.Note:
					if e.Then != nil {
						notes = append(notes, *e.Then)
					}
				case transfer.SendBulk:
					sent++
				case transfer.Read:
					b := s.pool.Get(int(e.Length))
					events = append(events, transfer.ReadDone{Chunk: e.Chunk, Buffer: b})
				}
			}
		}
		return sent
	}
	begins := func(what string, id, as wire.ID) {
		t.Helper()
		before := slices.Clone(notes)
		accept := wire.Accept{Transfer: as, Credit: 1 << 30, Files: s.manifest.All(), Complete: wire.NewBitmap(1)}
		if step(transfer.Received{Peer: id, Message: accept}) > 0 {
			t.Errorf("%s: sent before it is noted", what)
		}
		if len(notes) != len(before)+1 {
			t.Fatalf("%s: %d notes", what, len(notes)-len(before))
		}
		for _, n := range before {
			if step(n) > 0 {
				t.Errorf("%s: sent for another's note", what)
			}
		}
	}
	step(transfer.LinkUp{Peer: first})
	begins("first", first, s.key.Transfer)
	step(transfer.CancelPeer{Peer: first})
	step(transfer.RetryPeer{Peer: first, Transfer: wire.ID{7}})
	begins("retry", first, wire.ID{7})
	step(transfer.LinkUp{Peer: late})
	notes = notes[:1:1] // the retry's comes last
	begins("late", late, s.key.Transfer)
	for _, n := range []transfer.Noted{{Peer: first, Transfer: wire.ID{7}}, notes[1]} {
		if step(n) == 0 {
			t.Errorf("nothing is sent when %v is noted", n)
		}
	}
	step(transfer.CancelPeer{Peer: first})
	step(transfer.RetryPeer{Peer: first, Transfer: wire.ID{6}})
	begins("second retry", first, wire.ID{6}) // of one that was noted
	step(transfer.CancelAll{})
}
