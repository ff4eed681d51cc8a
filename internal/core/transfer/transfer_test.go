package transfer_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

const chunkSize = wire.MinChunkSize

// shapes are file sets around the edges of chunks, with many small files that share messages.
var shapes = map[string][]int{
	"empty":    {0},
	"one byte": {1},
	"chunk":    {chunkSize},
	"edges":    {chunkSize - 1, chunkSize, chunkSize + 1, 0, 1},
	"large":    {40*chunkSize + 17},
	"small":    {1, 2, 3, 0, 5000, 70, 80, 90, 100, 0, 11, 12, 13, 3 * chunkSize, 9, 9, 9},
}

func TestDelivery(t *testing.T) {
	for name, sizes := range shapes {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(20) {
				s := newSim(t, seed, 3, false, sizes...)
				s.peers[member(2)].slow = 5
				for _, id := range s.order {
					s.connect(s.peers[id])
				}
				s.run(nil)
				for _, id := range s.order {
					s.expectDone(s.peers[id])
				}
				if !s.finished {
					t.Error("not finished")
				}
			}
		})
	}
}

// TestInterrupted cuts links at random points; what was on the recipient's disk, or on its way there, is never sent again.
func TestInterrupted(t *testing.T) {
	again := 0
	for seed := range uint64(150) {
		s := newSim(t, seed, 2, false, shapes["small"]...)
		p, other := s.peers[member(0)], s.peers[member(1)]
		s.connect(p)
		s.connect(other)
		for range 4 {
			s.runSteps(s.rand.IntN(60))
			if s.finished {
				break
			}
			arrived := maps.Clone(p.received) // on disk, or on its way there
			s.cut(p, false)
			clear(p.received)
			s.now = s.now.Add(time.Second)
			if s.rand.IntN(2) == 0 { // the stores of the old link end before the new one, or during it
				for len(p.tasks) > 0 {
					task := p.tasks[0]
					p.tasks = p.tasks[1:]
					task()
				}
			}
			s.connect(p)
			s.runSteps(400)
			for ref := range arrived {
				if p.received[ref] > 0 {
					t.Fatalf("seed %d: chunk %v had arrived and came again", seed, ref)
				}
			}
		}
		s.run(nil)
		s.expectDone(p)
		s.expectDone(other)
		if n := p.in.Progress().Repeated; n > 0 {
			t.Errorf("%d bytes counted as repeated", n)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		again += s.again
	}
	if again == 0 {
		t.Error("no chunk was ever lost with its link")
	}
}

// TestInterruptedTwice: what a recipient has is told anew over each link.
func TestInterruptedTwice(t *testing.T) {
	s := newSim(t, 1, 1, false, shapes["large"]...)
	p := s.peers[member(0)]
	s.connect(p)
	for _, chunks := range []int{3, 10, 20} {
		s.run(func() bool { return len(p.writes) > chunks })
		s.cut(p, false)
		s.connect(p)
	}
	s.run(nil)
	s.expectDone(p)
}

// TestVanishing: one recipient that is gone costs the others nothing, and is failed after the grace.
func TestVanishing(t *testing.T) {
	s := newSim(t, 1, 3, false, shapes["large"]...)
	for _, id := range s.order {
		s.connect(s.peers[id])
	}
	gone := s.peers[member(1)]
	s.run(func() bool { return len(gone.writes) > 3 })
	s.cut(gone, false)
	s.run(nil)
	s.expectDone(s.peers[member(0)])
	s.expectDone(s.peers[member(2)])
	if s.finished || s.state(gone.id) != transfer.Interrupted {
		t.Fatalf("before the grace: %+v", s.out.Progress())
	}
	s.now = s.now.Add(transfer.Grace + time.Second)
	s.step(transfer.Tick{})
	gone.step(transfer.Tick{})
	if p := s.out.Progress()[1]; !s.finished || p.State != transfer.Failed || p.Code != fault.PeerGone {
		t.Errorf("after the grace: %+v", p)
	}
	if p := gone.in.Progress(); p.State != transfer.Failed || p.Code != fault.PeerGone || len(gone.disk) != 0 {
		t.Errorf("at the recipient: %+v, %d files left", p, len(gone.disk))
	}
	// It comes back and is offered it again; nothing was kept, so it is asked again.
	gone.finished = false
	clear(gone.writes)
	s.finished = false
	s.connect(gone)
	s.run(nil)
	s.expectDone(gone)
}

func TestDecline(t *testing.T) {
	s := newSim(t, 1, 2, false, shapes["edges"]...)
	s.peers[member(0)].answer = func(p *simPeer) { p.step(transfer.DeclineOffer{Reason: "not now"}) }
	s.connect(s.peers[member(0)])
	s.connect(s.peers[member(1)])
	s.run(nil)
	if p := s.out.Progress()[0]; p.State != transfer.Declined || p.Code != fault.Declined || p.Reason != "not now" {
		t.Errorf("declined: %+v", p)
	}
	s.expectDone(s.peers[member(1)])
	if !s.finished {
		t.Error("not finished")
	}
}

// TestPartialAccept: only what was asked for is sent, and the receipt names just that.
func TestPartialAccept(t *testing.T) {
	s := newSim(t, 1, 1, false, 10, 2*chunkSize, 20)
	p := s.peers[member(0)]
	p.answer = func(p *simPeer) { p.step(transfer.AcceptFiles{Files: []uint32{0, 2}}) }
	s.connect(p)
	s.run(nil)
	if s.state(p.id) != transfer.Done || len(p.disk) != 2 || p.disk[1] != nil {
		t.Errorf("%+v, %d files", s.out.Progress(), len(p.disk))
	}
	if r := s.out.Receipt(p.id); r == nil || r.Files.Has(1) || !r.Files.Has(0) || !r.Files.Has(2) {
		t.Errorf("receipt %+v", r)
	}
}

func TestCancel(t *testing.T) {
	for _, test := range []struct {
		name             string
		cancel           func(s *sim, p *simPeer)
		sender, receiver fault.Code
	}{
		{"one, by the sender", func(s *sim, p *simPeer) { s.step(transfer.CancelPeer{Peer: p.id}) }, fault.Cancelled, fault.CancelledByPeer},
		{"by the recipient", func(s *sim, p *simPeer) { p.step(transfer.CancelAll{}) }, fault.CancelledByPeer, fault.Cancelled},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t, 3, 2, false, shapes["large"]...)
			p := s.peers[member(0)]
			s.connect(p)
			s.connect(s.peers[member(1)])
			s.run(func() bool { return len(p.writes) > 2 })
			test.cancel(s, p)
			s.run(nil)
			if got := s.out.Progress()[0]; got.State != transfer.Cancelled || got.Code != test.sender {
				t.Errorf("sender: %+v", got)
			}
			if got := p.in.Progress(); got.State != transfer.Cancelled || got.Code != test.receiver {
				t.Errorf("recipient: %+v", got)
			}
			if len(p.disk) != 0 {
				t.Error("what was stored is still there")
			}
			s.expectDone(s.peers[member(1)])
		})
	}
}

// TestFileFails: a file that changes or cannot be read fails for everybody, the others arrive, and that is no success.
func TestFileFails(t *testing.T) {
	for _, test := range []struct {
		err  error
		code fault.Code
	}{{transfer.ErrSourceChanged, fault.FileChanged}, {transfer.ErrSourceUnreadable, fault.FileUnreadable}} {
		for seed := range uint64(30) {
			s := newSim(t, seed, 1, false, 3*chunkSize, 4*chunkSize, 5)
			s.readErr = func(r chunk.Ref) error {
				if r.File == 1 && r.Index == 2 {
					return test.err
				}
				return nil
			}
			p := s.peers[member(0)]
			s.connect(p)
			s.run(nil)
			if got := s.out.Progress()[0]; got.State != transfer.Failed || got.Code != test.code {
				t.Fatalf("seed %d: sender: %+v", seed, got)
			}
			if got := p.in.Progress(); got.State != transfer.Failed || got.Code != test.code {
				t.Fatalf("seed %d: recipient: %+v, broken by %v", seed, got, p.broken)
			}
			if r := s.out.Receipt(p.id); r == nil || !r.Files.Has(0) || r.Files.Has(1) || !r.Files.Has(2) {
				t.Fatalf("seed %d: receipt %+v", seed, r)
			}
			if !p.in.Complete(0) || p.in.Complete(1) || !p.in.Complete(2) {
				t.Fatalf("seed %d: complete", seed)
			}
		}
	}
}

// TestOnlyFileFails: nothing is left to deliver.
func TestOnlyFileFails(t *testing.T) {
	s := newSim(t, 1, 1, false, 3*chunkSize)
	s.readErr = func(chunk.Ref) error { return transfer.ErrSourceUnreadable }
	s.connect(s.peers[member(0)])
	s.run(nil)
	if got := s.out.Progress()[0]; got.Code != fault.FileUnreadable || !s.finished {
		t.Errorf("sender: %+v", got)
	}
	if got := s.peers[member(0)].in.Progress(); got.Code != fault.FileUnreadable {
		t.Errorf("recipient: %+v", got)
	}
}

func TestDiskFails(t *testing.T) {
	s := newSim(t, 1, 2, false, 9*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.connect(s.peers[member(1)])
	s.run(func() bool { return len(p.writes) > 1 })
	p.storeErr = errors.New("disk on fire")
	s.run(nil)
	if got := s.out.Progress()[0]; got.State != transfer.Failed || got.Code != fault.StorageFailed {
		t.Errorf("sender: %+v, want %s", got, fault.StorageFailed)
	}
	s.expectDone(s.peers[member(1)])
}

func TestPause(t *testing.T) {
	for name, pause := range map[string]func(s *sim, p *simPeer, on bool){
		"sender":    func(s *sim, p *simPeer, on bool) { s.step(transfer.SetPaused{Paused: on}) },
		"recipient": func(s *sim, p *simPeer, on bool) { p.step(transfer.SetPaused{Paused: on}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 1, 1, false, shapes["large"]...)
			p := s.peers[member(0)]
			s.connect(p)
			s.run(func() bool { return len(p.writes) > 2 })
			pause(s, p, true)
			s.run(nil)
			stored := len(p.writes)
			if s.state(p.id) != transfer.Paused || p.in.Progress().State != transfer.Paused {
				t.Fatalf("%v, %v", s.state(p.id), p.in.Progress().State)
			}
			s.run(nil)
			if len(p.writes) != stored {
				t.Error("chunks flow while paused")
			}
			pause(s, p, false)
			s.run(nil)
			s.expectDone(p)
		})
	}
}

func TestLateJoiner(t *testing.T) {
	s := newSim(t, 1, 1, true, shapes["edges"]...)
	s.connect(s.peers[member(0)])
	s.run(nil)
	s.expectDone(s.peers[member(0)])
	if s.finished {
		t.Error("finished although others may come")
	}
	late := s.add(member(1))
	s.connect(late)
	s.run(nil)
	s.expectDone(late)
	closed := newSim(t, 1, 1, false, 1)
	closed.add(member(5))
	closed.connect(closed.peers[member(5)])
	if len(closed.out.Progress()) != 1 {
		t.Error("a transfer without late joiners took one")
	}
}

// TestMemory: what is sent and not stored never exceeds the credit, and the cache its bound.
func TestMemory(t *testing.T) {
	s := newSim(t, 1, 1, false, 700*chunkSize)
	p := s.peers[member(0)]
	p.slow = 1 << 30 // the disk does nothing
	s.connect(p)
	for range 30_000 {
		stuck := len(s.tasks)+len(p.control)+len(p.bulk)+len(p.back) == 0
		if stuck {
			break
		}
		steps := 50
		s.run(func() bool {
			steps--
			return steps < 0 || len(s.tasks)+len(p.control)+len(p.bulk)+len(p.back) == 0
		})
	}
	var waiting int
	for range p.received {
		waiting += chunkSize
	}
	if waiting == 0 || waiting > 17<<20 {
		t.Errorf("%d bytes wait for a disk that does nothing", waiting)
	}
}

// TestRetry: cancelled or broken off at a random point and offered again over the same link, while the messages of the first
// attempt are still on their way.
func TestRetry(t *testing.T) {
	for seed := range uint64(100) {
		s := newSim(t, seed, 2, false, shapes["small"]...)
		p := s.peers[member(0)]
		s.connect(p)
		s.connect(s.peers[member(1)])
		s.runSteps(s.rand.IntN(60))
		switch s.rand.IntN(3) {
		case 0:
			s.step(transfer.CancelPeer{Peer: p.id})
		case 1:
			if p.in != nil {
				p.step(transfer.CancelAll{})
			}
		default:
			s.step(transfer.CancelPeer{Peer: p.id})
			if s.rand.IntN(2) == 0 {
				s.cut(p, false)
				s.connect(p)
			}
		}
		if s.rand.IntN(2) == 0 {
			s.runSteps(s.rand.IntN(20))
		}
		s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
		clear(p.writes)
		s.run(nil)
		if p.broken != nil {
			t.Fatalf("seed %d: link broken: %v", seed, p.broken)
		}
		if state := s.state(p.id); state != transfer.Done && state != transfer.Cancelled {
			t.Fatalf("seed %d: %+v", seed, s.out.Progress())
		}
		s.expectDone(s.peers[member(1)])
	}
}

// TestSavingSurvives: a link that is lost while the recipient makes everything durable costs nothing, however long either takes.
func TestSavingSurvives(t *testing.T) {
	s := newSim(t, 1, 1, false, shapes["edges"]...)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return p.in != nil && p.in.Progress().State == transfer.Saving })
	commit := p.tasks
	p.tasks = nil
	s.cut(p, false)
	s.now = s.now.Add(transfer.Grace - time.Second)
	p.step(transfer.Tick{})
	s.step(transfer.Tick{})
	s.connect(p)
	s.run(nil)
	s.now = s.now.Add(2 * transfer.Grace)
	p.step(transfer.Tick{})
	s.step(transfer.Tick{})
	p.tasks = commit
	s.run(nil)
	s.expectDone(p)
}

// TestReceiptLost: the recipient is done, its receipt is lost with the link, and meanwhile a file fails at the sender.
func TestReceiptLost(t *testing.T) {
	s := newSim(t, 1, 1, false, 3*chunkSize, 5)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return p.finished })
	s.cut(p, false)
	s.readErr = func(chunk.Ref) error { return transfer.ErrSourceChanged }
	s.connect(p)
	s.run(nil)
	s.expectDone(p)
	if !s.finished {
		t.Error("not finished")
	}
}

// TestAcceptAfterReconnection: the person accepts when the link is back and the offer not yet repeated.
func TestAcceptAfterReconnection(t *testing.T) {
	s := newSim(t, 1, 1, false, shapes["edges"]...)
	p := s.peers[member(0)]
	p.answer = func(*simPeer) {}
	s.connect(p)
	s.run(nil)
	s.cut(p, false)
	s.connect(p)
	p.step(transfer.AcceptFiles{})
	s.run(nil)
	s.expectDone(p)
}

// TestEndedWhileApart: what ends while there is no link is told when there is one again, and nobody is asked twice.
func TestEndedWhileApart(t *testing.T) {
	asked := 0
	s := newSim(t, 1, 2, false, shapes["large"]...)
	p, q := s.peers[member(0)], s.peers[member(1)]
	q.answer = func(*simPeer) { asked++ }
	s.connect(p)
	s.connect(q)
	s.run(func() bool { return len(p.writes) > 2 && asked > 0 })
	s.cut(p, false)
	s.cut(q, false)
	s.step(transfer.CancelPeer{Peer: p.id})
	q.step(transfer.DeclineOffer{})
	s.connect(p)
	s.connect(q)
	before := asked
	s.run(nil)
	if got := p.in.Progress(); got.State != transfer.Cancelled || got.Code != fault.CancelledByPeer {
		t.Errorf("cancelled: %+v", got)
	}
	if got := s.out.Progress()[1]; got.State != transfer.Declined || asked != before {
		t.Errorf("declined: %+v, asked %d times more", got, asked-before)
	}
}

// TestRetriedWhileApart: whoever comes back to a retry is told, too, that the attempts before it are over. So it is after a restart of the sender, and over
// a second link, since the first may have carried nothing.
func TestRetriedWhileApart(t *testing.T) {
	for name, crash := range map[string]func(s *sim){
		"apart":       func(*sim) {},
		"restarted":   func(s *sim) { s.crashSender(s.journal) },
		"written new": func(s *sim) { s.crashSender(s.out.Journal(s.now)) },
		"link lost":   func(s *sim) { s.connect(s.peers[member(0)]); s.cut(s.peers[member(0)], false) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newKeptSim(t, 1, 1, shapes["large"]...)
			p := s.peers[member(0)]
			s.connect(p)
			s.run(func() bool { return len(p.writes) > 2 })
			s.cut(p, false)
			for i := range transfer.MaxStale + 1 {
				s.step(transfer.CancelPeer{Peer: p.id})
				s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77, byte(i)}})
			}
			crash(s)
			p.control = nil
			s.connect(p)
			if got := p.control[0]; got != (wire.Cancel{Sender: s.key.Sender, Transfer: s.key.Transfer, Code: wire.FailureCancelled}) {
				t.Errorf("first of all it is told %+v", got)
			}
			if offer, ok := p.control[1].(wire.TransferOffer); !ok || offer.Transfer != (wire.ID{77, transfer.MaxStale}) { // of what was never offered nothing is said
				t.Errorf("and then %+v", p.control[1])
			}
			old := p.in
			p.deliverControl()
			if got := old.Progress(); got.State != transfer.Cancelled || !p.gone {
				t.Errorf("the attempt before is %+v, deleted: %v", got, p.gone)
			}
		})
	}
}

// TestManyRetries: what a recipient may not have been told is bounded.
func TestManyRetries(t *testing.T) {
	s := newKeptSim(t, 1, 1, shapes["edges"]...)
	p := s.peers[member(0)]
	p.answer = func(*simPeer) {}
	for i := range 3 * transfer.MaxStale {
		s.connect(p)
		s.cut(p, false)
		s.step(transfer.CancelPeer{Peer: p.id})
		s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77, byte(i)}})
	}
	for range 2 {
		var cancelled []wire.ID
		s.connect(p)
		for _, m := range p.control {
			if m, ok := m.(wire.Cancel); ok {
				cancelled = append(cancelled, m.Transfer)
			}
		}
		if len(cancelled) != transfer.MaxStale || cancelled[transfer.MaxStale-1] != (wire.ID{77, 3*transfer.MaxStale - 2}) {
			t.Errorf("it is told of %v", cancelled)
		}
		s.crashSender(s.journal)
	}
}

// TestSmallWindow: many transfers share the budget until little more than a chunk is left for each; none stalls.
func TestSmallWindow(t *testing.T) {
	s := newSim(t, 1, 1, false, 20*chunkSize, 7)
	p := s.peers[member(0)]
	p.answer = func(p *simPeer) {
		p.in.SmallestWindow()
		p.step(transfer.AcceptFiles{})
	}
	s.connect(p)
	for range 5000 { // without a Tick: nothing may wait for one
		if s.finished {
			break
		}
		done := s.idle()
		s.run(func() bool { d := done; done = s.idle(); return d || done })
		if done {
			break
		}
	}
	s.expectDone(p)
}

// TestSmallFiles: small files are read many at a time, and travel together.
func TestSmallFiles(t *testing.T) {
	sizes := make([]int, 1000)
	for i := range sizes {
		sizes[i] = 100 + i
	}
	s := newSim(t, 1, 1, false, sizes...)
	s.atOnce = true
	p := s.peers[member(0)]
	s.connect(p)
	s.run(nil)
	s.expectDone(p)
	if p.messages > len(sizes)/20 {
		t.Errorf("%d files in %d messages", len(sizes), p.messages)
	}
}

// TestRepeated: what comes although it is on the disk is counted, and nothing else is.
func TestRepeated(t *testing.T) {
	h := newHostileSender(t)
	h.send(h.hashes(0, 0, 3), h.chunks(chunk.Ref{}), h.chunks(chunk.Ref{Index: 1}))
	if n := h.in.Progress().Repeated; n != 0 {
		t.Errorf("%d bytes after none was repeated", n)
	}
	h.send(h.chunks(chunk.Ref{}), h.chunks(chunk.Ref{Index: 2}), h.chunks(chunk.Ref{}))
	if n := h.in.Progress().Repeated; n != 2*chunkSize {
		t.Errorf("%d bytes repeated, want %d", n, 2*chunkSize)
	}
}
