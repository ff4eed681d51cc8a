package transfer_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

var errDisk = errors.New("input/output error")

// expectSuspended checks that both ends say that the storage has failed, and that the recipient has kept what it has.
func (s *sim) expectSuspended(p *simPeer) {
	s.t.Helper()
	out, in := s.out.Progress()[0], p.in.Progress()
	if out.State != transfer.Failed || out.Code != fault.StorageFailed || in.State != transfer.Failed || in.Code != fault.StorageFailed || !s.finished || !p.finished {
		s.t.Fatalf("sender: %+v, recipient: %+v", out, in)
	}
	if !p.in.Suspended() || p.gone || p.journal == nil || s.journal == nil || p.broken != nil {
		s.t.Fatalf("suspended %v, discarded %v, broken %v", p.in.Suspended(), p.gone, p.broken)
	}
}

// TestStorageFails: one write or one Commit fails. Both ends say so, and nothing is lost: however the sender offers it again, while messages and writes of
// before are under way or not, nobody is asked again, and what is on disk is not sent again.
func TestStorageFails(t *testing.T) {
	retry := func(s *sim, p *simPeer) {
		early := s.rand.IntN(2) == 0 // while messages and writes are under way
		s.run(func() bool { return early && s.state(p.id) == transfer.Failed })
		s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
	}
	again := map[string]func(s *sim, p *simPeer){
		"a retry":      retry,
		"another link": func(s *sim, p *simPeer) { s.cut(p, false); s.connect(p) },
		"a retry that waits for a link": func(s *sim, p *simPeer) {
			s.cut(p, false)
			s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
			s.connect(p)
		},
		"a link that is lost after the retry": func(s *sim, p *simPeer) {
			retry(s, p)
			s.runSteps(s.rand.IntN(10))
			s.cut(p, false)
			s.connect(p)
		},
		"a crash": func(s *sim, p *simPeer) {
			s.run(nil)
			s.expectSuspended(p)
			p.crash(p.journal)
			s.connect(p)
		},
		"a crash after the retry": func(s *sim, p *simPeer) {
			retry(s, p)
			s.runSteps(s.rand.IntN(10))
			p.crash(p.journal)
			s.connect(p)
		},
		"a crash of the sender": func(s *sim, p *simPeer) {
			s.run(nil)
			s.expectSuspended(p)
			s.crashSender(s.journal)
			s.connect(p)
			s.step(transfer.SourcesReady{})
		},
	}
	for name, again := range again {
		for seed := range rounds() {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				s := newKeptSim(t, seed, 1, 700_000, 0, 65_536, 1, 300_000)
				p := s.peers[member(0)]
				asked := 0
				p.answer = func(p *simPeer) { asked++; p.step(transfer.AcceptFiles{}) }
				s.connect(p)
				if p.onWrite = seed%3 > 0; p.onWrite {
					stop := s.rand.IntN(12)
					s.run(func() bool { return len(p.writes) >= stop && p.in != nil && p.in.Accepted() })
				}
				p.once = errDisk
				s.run(func() bool { return p.once == nil })
				held := maps.Clone(p.writes)
				if seed%4 == 1 {
					for ref := range held { // a chunk that was said to be written and is not
						p.disk[ref.File][s.manifest.Offset(ref)] ^= 1
						delete(held, ref)
						delete(p.writes, ref)
						break
					}
				}
				clear(p.received)
				again(s, p)
				before := maps.Clone(p.received) // of messages that were on their way
				s.run(nil)
				for ref := range held {
					if p.received[ref] > before[ref] {
						t.Errorf("chunk %v is on disk and was sent again", ref)
					}
				}
				s.expectDone(p)
				if in := p.in.Progress(); asked != 1 || in.Repeated != 0 || p.gone {
					t.Errorf("asked %d times, discarded %v: %+v", asked, p.gone, in)
				}
				j, err := transfer.ParseJournal(p.journal)
				if err != nil || !j.Done() || j.Key != p.in.Key() || int(j.Size) != len(p.journal) {
					t.Errorf("the journal is not whole: %v", err)
				}
			})
		}
	}
}

// TestStorageFailsForGood: each retry fails again, with as few messages, and writes nothing down without end; then the disk works.
func TestStorageFailsForGood(t *testing.T) {
	s := newKeptSim(t, 3, 1, 20*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) == 4 })
	p.storeErr = errDisk
	s.run(nil)
	s.expectSuspended(p)
	size := len(p.journal)
	for i := range 3 * transfer.MaxStale {
		clear(p.received)
		s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77, byte(i)}})
		s.run(nil)
		s.expectSuspended(p)
		if p.checks != i+1 || len(p.received) > 0 {
			t.Fatalf("%d checks after %d retries, %d chunks sent", p.checks, i+1, len(p.received))
		}
	}
	if more := len(p.journal) - size; more > 3*transfer.MaxStale*64 {
		t.Errorf("the journal has grown by %d bytes", more)
	}
	p.storeErr = nil
	s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{78}})
	s.run(nil)
	s.expectDone(p)
}

// TestStorageFailsThenEnds: what has been kept is discarded when either end gives it up, before the retry or while what is on disk is looked at, and when
// anything else than the storage fails.
func TestStorageFailsThenEnds(t *testing.T) {
	retry := func(s *sim, p *simPeer) {
		s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
		s.run(func() bool { return p.in.Checking() })
	}
	for name, end := range map[string]func(s *sim, p *simPeer){
		"the recipient":                     func(s *sim, p *simPeer) { p.step(transfer.CancelAll{}) },
		"the sender":                        func(s *sim, p *simPeer) { s.step(transfer.CancelPeer{Peer: p.id}) },
		"the sender, for all":               func(s *sim, p *simPeer) { s.step(transfer.CancelAll{}) },
		"the sender, without a link":        func(s *sim, p *simPeer) { s.cut(p, false); s.step(transfer.CancelAll{}); s.connect(p) },
		"the recipient, during the check":   func(s *sim, p *simPeer) { retry(s, p); p.step(transfer.CancelAll{}) },
		"the sender, during the check":      func(s *sim, p *simPeer) { retry(s, p); s.step(transfer.CancelPeer{Peer: p.id}) },
		"a file that has changed meanwhile": func(s *sim, p *simPeer) { s.files[0][0] ^= 1; s.crashSenderUnaware(); retry(s, p) },
		"the disk is full, and spoilt":      func(s *sim, p *simPeer) { p.once, p.onWrite = transfer.ErrStorageSpoilt, true; retry(s, p) },
		"the sender, before the retry came": func(s *sim, p *simPeer) {
			s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
			s.cut(p, false)
			s.step(transfer.CancelAll{})
			s.connect(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newKeptSim(t, 5, 1, 20*chunkSize)
			p := s.peers[member(0)]
			s.connect(p)
			s.run(func() bool { return len(p.writes) == 4 })
			p.once, p.onWrite = errDisk, true
			s.run(nil)
			s.expectSuspended(p)
			end(s, p)
			s.run(nil)
			state := s.state(p.id)
			if !p.gone || p.in.Suspended() || !p.in.Progress().State.Final() || state != transfer.Cancelled && state != transfer.Failed || !s.out.Over() {
				t.Errorf("discarded %v, sender %+v, recipient %+v", p.gone, s.out.Progress(), p.in.Progress())
			}
		})
	}
}

// crashSenderUnaware has the sender forget the hashes of what it has read, as one does that was restored from a journal that it could not write.
func (s *sim) crashSenderUnaware() {
	s.out = transfer.NewOutgoing(transfer.OutgoingConfig{Key: s.key, Manifest: s.manifest, Recipients: s.order, Schedule: transfer.Star{}, Keep: true})
	s.finished = false
	for _, p := range s.peers {
		s.cut(p, false)
		clear(p.sent)
		s.connect(p)
	}
}

// TestStorageFailsUnnoted: where nothing is noted a failure of the storage ends the delivery, and discards it.
func TestStorageFailsUnnoted(t *testing.T) {
	for _, keep := range []func(in *transfer.Incoming){func(*transfer.Incoming) {}, func(in *transfer.Incoming) { in.Keep(false) }} {
		s := newSim(t, 1, 1, false, 9*chunkSize)
		p := s.peers[member(0)]
		p.answer = func(p *simPeer) { keep(p.in); p.step(transfer.AcceptFiles{}) }
		s.connect(p)
		s.run(func() bool { return len(p.writes) > 1 })
		p.once, p.onWrite = errDisk, true
		s.run(nil)
		if out, in := s.out.Progress()[0], p.in.Progress(); out.Code != fault.StorageFailed || in.Code != fault.StorageFailed || !p.gone || p.in.Suspended() {
			t.Errorf("sender %+v, recipient %+v, discarded %v", out, in, p.gone)
		}
		s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}}) // is a new offer
		clear(p.writes)
		s.run(nil)
		s.expectDone(p)
	}
	s := newSim(t, 1, 1, false, 9*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) > 1 })
	p.once, p.onWrite = errDisk, true
	s.run(nil)
	s.cut(p, false)
	clear(p.writes)
	s.connect(p) // offers it anew
	s.run(nil)
	s.expectDone(p)
}

// TestStorageFailsWhileFull: what waited for room when the storage failed comes again, and its buffers are let go of.
func TestStorageFailsWhileFull(t *testing.T) {
	s := newKeptSim(t, 2, 1, 30*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) == 4 })
	p.storeErr = transfer.ErrStorageFull
	s.run(func() bool { return p.in.Waiting() > 2 })
	p.once, p.onWrite = errDisk, true
	s.run(func() bool { return p.once == nil })
	s.run(nil)
	s.expectSuspended(p)
	if p.in.Waiting() != 0 {
		t.Errorf("%d messages wait for room", p.in.Waiting())
	}
	p.storeErr = nil
	s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
	s.run(nil)
	s.expectDone(p)
	if !bytes.Equal(p.disk[0], s.files[0]) {
		t.Error("bytes differ")
	}
}

// TestFlushed: after a Commit that failed, or may have, what is on disk has to be written again; and only then.
func TestFlushed(t *testing.T) {
	s := newKeptSim(t, 2, 1, 3*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) == 1 })
	p.once, p.onWrite = errDisk, true
	s.run(nil)
	p.crash(p.journal)
	if p.in.Flushed() {
		t.Error("without a Commit")
	}
	s.connect(p)
	p.once, p.onWrite = errDisk, false
	s.run(func() bool { return p.once == nil })
	s.run(nil)
	s.expectSuspended(p)
	s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
	s.run(func() bool { return p.in.Checking() })
	flushed := p.in.Flushed()
	p.crash(p.journal)
	if !flushed || !p.in.Flushed() {
		t.Errorf("after a Commit: %v, and in the journal: %v", flushed, p.in.Flushed())
	}
	s.connect(p)
	s.run(nil)
	s.expectDone(p)
}

// TestStorageFailsFileFailed: nothing is verified while what is on disk is looked at, although the last that lacked for it comes then.
func TestStorageFailsFileFailed(t *testing.T) {
	s := newKeptSim(t, 2, 1, 3*chunkSize, 3*chunkSize)
	p := s.peers[member(0)]
	s.readErr = secondUnreadable
	s.connect(p)
	p.once = errDisk
	s.run(nil)
	s.expectSuspended(p)
	s.cut(p, false)
	s.connect(p)
	s.run(func() bool { return p.in.Checking() })
	tasks := len(p.tasks)
	p.step(transfer.Received{Peer: s.key.Sender, Message: wire.FileFailed{Transfer: s.key.Transfer, File: 1, Code: wire.FailureFileUnreadable}})
	if len(p.tasks) != tasks {
		t.Error("what is in doubt is verified")
	}
	s.run(nil)
	if got := s.progress(p.id); got.Code != fault.FileUnreadable || s.out.Receipt(p.id) == nil || p.commits != 2 {
		t.Errorf("%+v after %d flushes", got, p.commits)
	}
}

// TestStorageFailsAtTheSender: a sender that says so of its own has given it up.
func TestStorageFailsAtTheSender(t *testing.T) {
	for name, before := range map[string]func(s *sim, p *simPeer){
		"during the check of a restart": func(s *sim, p *simPeer) { p.crash(p.journal) },
		"suspended":                     func(s *sim, p *simPeer) { p.once, p.onWrite = errDisk, true; s.run(nil); s.expectSuspended(p) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newKeptSim(t, 2, 1, 9*chunkSize)
			p := s.peers[member(0)]
			s.connect(p)
			s.run(func() bool { return len(p.writes) == 2 })
			before(s, p)
			p.step(transfer.Received{Peer: s.key.Sender, Message: wire.Cancel{Sender: s.key.Sender, Transfer: s.key.Transfer, Code: wire.FailureStorageFailed}})
			for _, task := range p.tasks {
				task()
			}
			if !p.gone || p.in.Suspended() || p.in.Progress().State != transfer.Failed {
				t.Errorf("discarded %v, suspended %v: %+v", p.gone, p.in.Suspended(), p.in.Progress())
			}
		})
	}
}

// TestStorageFailsThenFull: a disk that has no room for what is to be written again holds the delivery up, until there is room or somebody gives it up.
func TestStorageFailsThenFull(t *testing.T) {
	for name, end := range map[string]func(s *sim, p *simPeer){
		"time passes": func(s *sim, p *simPeer) {
			s.later(2*time.Minute, func() bool { return s.state(p.id) == transfer.Done })
		},
		"something was deleted": func(s *sim, p *simPeer) { p.step(transfer.SpaceFreed{}) },
		"another link":          func(s *sim, p *simPeer) { s.cut(p, false); s.connect(p); s.run(nil); p.step(transfer.SpaceFreed{}) },
		"cancelled":             func(s *sim, p *simPeer) { p.step(transfer.CancelAll{}) },
		"broken again":          func(s *sim, p *simPeer) { p.storeErr = errDisk; p.step(transfer.SpaceFreed{}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newKeptSim(t, 2, 1, 9*chunkSize)
			p := s.peers[member(0)]
			s.connect(p)
			p.once = errDisk
			s.run(nil)
			s.expectSuspended(p)
			p.storeErr = transfer.ErrStorageFull
			s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
			s.run(nil)
			p.step(transfer.SpaceFreed{}) // in vain
			s.run(nil)
			if in := p.in.Progress(); in.State.Final() || in.Code != fault.DiskFull || p.checks != 2 || p.gone {
				t.Fatalf("%+v after %d checks", in, p.checks)
			}
			p.storeErr = nil
			end(s, p)
			s.run(nil)
			switch name {
			case "cancelled":
				if !p.gone || s.state(p.id) != transfer.Cancelled && s.state(p.id) != transfer.Failed {
					t.Errorf("discarded %v, %+v", p.gone, s.progress(p.id))
				}
			case "broken again":
				s.expectSuspended(p)
			default:
				s.expectDone(p)
			}
		})
	}
}

// TestStorageFailsSaving: a retry finds a recipient that has restarted, and makes durable what is for the End before.
func TestStorageFailsSaving(t *testing.T) {
	for name, commit := range map[string]func(s *sim, p *simPeer){
		"durable": func(*sim, *simPeer) {},
		"full": func(s *sim, p *simPeer) {
			p.storeErr = transfer.ErrStorageFull
			s.run(nil)
			p.storeErr = nil
			p.step(transfer.SpaceFreed{})
		},
		"another link": func(s *sim, p *simPeer) { s.cut(p, false); s.run(nil); s.connect(p) },
		"a crash":      func(s *sim, p *simPeer) { p.crash(p.journal); s.connect(p) },
		"a failure, and another link": func(s *sim, p *simPeer) {
			p.once = errDisk
			s.run(nil)
			s.expectSuspended(p)
			s.cut(p, false)
			s.run(nil)
			s.connect(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newKeptSim(t, 2, 1, 9*chunkSize)
			p := s.peers[member(0)]
			asked := 0
			p.answer = func(p *simPeer) { asked++; p.step(transfer.AcceptFiles{}) }
			s.connect(p)
			p.once = errDisk
			s.run(nil)
			s.expectSuspended(p)
			s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
			p.crash(p.journal)
			s.run(func() bool { return p.commits == 2 })
			clear(p.received)
			s.connect(p)
			for len(p.control) > 0 {
				p.deliverControl()
			}
			commit(s, p)
			s.run(nil)
			s.expectDone(p)
			if asked != 1 || p.gone || len(p.received) > 0 {
				t.Errorf("asked %d times, discarded %v, %d chunks sent again", asked, p.gone, len(p.received))
			}
			if j, err := transfer.ParseJournal(p.journal); err != nil || !j.Done() || int(j.Size) != len(p.journal) {
				t.Errorf("the journal is not whole: %v", err)
			}
		})
	}
}

// TestRetryForgotten: a sender that crashes before its retries are noted offers it under an id of before.
func TestRetryForgotten(t *testing.T) {
	for _, noted := range []int{0, 1} { // retries
		s := newKeptSim(t, 2, 1, 9*chunkSize)
		p := s.peers[member(0)]
		asked := 0
		p.answer = func(p *simPeer) { asked++; p.step(transfer.AcceptFiles{}) }
		s.connect(p)
		s.run(func() bool { return len(p.writes) == 3 })
		p.storeErr = errDisk
		s.run(nil)
		var journal []byte
		for i := range 2 {
			if i == noted {
				journal = s.journal
			}
			s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77, byte(i)}})
			if i == 0 {
				s.run(nil)
				s.expectSuspended(p)
				p.storeErr = nil
			}
		}
		s.run(func() bool { return p.in.Transfer() == wire.ID{77, 1} && len(p.writes) > 4 })
		p.writes = map[chunk.Ref]int{}
		s.crashSender(journal)
		s.connect(p)
		s.step(transfer.SourcesReady{})
		s.run(nil)
		if state := s.state(p.id); state != transfer.Done || asked != 1 || p.gone || !bytes.Equal(p.disk[0], s.files[0]) {
			t.Errorf("%d noted: state %v, asked %d times, discarded %v", noted, state, asked, p.gone)
		}
	}
}

// retriedReceipt is what a recipient's journal comes to after a retry, once it is done and the person has the files.
func retriedReceipt(t *testing.T) (s *sim, p *simPeer, receipt []byte) {
	s = newKeptSim(t, 2, 1, 9*chunkSize)
	p = s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) == 3 })
	p.once, p.onWrite = errDisk, true
	s.run(nil)
	s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
	s.run(func() bool { return p.settled != nil })
	j, err := transfer.ParseJournal(p.settled)
	if err != nil {
		t.Fatal(err)
	}
	return s, p, j.Receipt(s.now)
}

// TestRetriedReceipt: what is left of a delivery that was retried is for the id that the sender offers.
func TestRetriedReceipt(t *testing.T) {
	s, p, receipt := retriedReceipt(t)
	if s.state(p.id).Final() {
		t.Fatal("the receipt has come already")
	}
	p.answer = func(*simPeer) { t.Error("asked again") }
	p.crash(receipt)
	s.connect(p)
	s.run(nil)
	if s.state(p.id) != transfer.Done || s.out.Receipt(p.id) == nil {
		t.Errorf("%+v", s.progress(p.id))
	}
}
