package transfer_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// TestChangesOfMind: whatever one recipient does, or is done to it, the others are sent exactly what they are sent in an undisturbed run.
func TestChangesOfMind(t *testing.T) {
	retry := func(s *sim, p *simPeer) {
		p.finished = false
		clear(p.writes)
		s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
	}
	midway := func(s *sim, p *simPeer) { s.run(func() bool { return len(p.writes) >= 3 }) }
	accept := func(p *simPeer) { p.step(transfer.AcceptFiles{}) }
	for name, change := range map[string]func(s *sim, p *simPeer){
		"none": func(*sim, *simPeer) {},
		"declines, and accepts when it is offered again": func(s *sim, p *simPeer) {
			p.answer = func(p *simPeer) { p.step(transfer.DeclineOffer{Reason: "no"}) }
			s.run(func() bool { return s.state(p.id) == transfer.Declined })
			p.answer = accept
			retry(s, p)
		},
		"answers last": func(s *sim, p *simPeer) {
			p.answer = func(*simPeer) {}
			s.run(nil)
			accept(p)
		},
		"pauses": func(s *sim, p *simPeer) {
			midway(s, p)
			p.step(transfer.SetPaused{Paused: true})
			s.run(nil)
			p.step(transfer.SetPaused{})
		},
		"cancels, and is offered it again": func(s *sim, p *simPeer) {
			midway(s, p)
			p.step(transfer.CancelAll{})
			s.run(func() bool { return s.state(p.id) == transfer.Cancelled })
			retry(s, p)
		},
		"is cancelled, and offered it again": func(s *sim, p *simPeer) {
			midway(s, p)
			s.step(transfer.CancelPeer{Peer: p.id})
			retry(s, p)
		},
		"is cancelled for good": func(s *sim, p *simPeer) {
			midway(s, p)
			s.step(transfer.CancelPeer{Peer: p.id})
		},
		"loses its link twice": func(s *sim, p *simPeer) {
			for range 2 {
				midway(s, p)
				s.cut(p, false)
				s.connect(p)
			}
		},
		"fails, and is offered it again": func(s *sim, p *simPeer) {
			midway(s, p)
			p.storeErr = errors.New("disk on fire")
			s.run(func() bool { return s.state(p.id) == transfer.Failed })
			p.storeErr = nil
			retry(s, p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range rounds() {
				s := newSim(t, seed, 3, false, 12*chunkSize+17, 0, 5, 700, 3*chunkSize)
				for _, id := range s.order {
					s.connect(s.peers[id])
				}
				p := s.peers[member(0)]
				change(s, p)
				s.run(nil)
				if name != "is cancelled for good" && (s.state(p.id) != transfer.Done || !bytes.Equal(p.disk[0], s.files[0]) || !bytes.Equal(p.disk[4], s.files[4])) {
					t.Errorf("seed %d: it ends with %+v", seed, s.out.Progress()[0])
				}
				want := traffic{chunks: 13 + 1 + 1 + 3, payload: s.total(), hashes: 13 + 1 + 1 + 3}
				want.control[wire.ControlOffer], want.control[wire.ControlManifestPart] = 1, 1
				for _, id := range []wire.ID{member(1), member(2)} {
					s.expectDone(s.peers[id])
					if got := s.peers[id].traffic; got != want {
						t.Errorf("seed %d: recipient %v was sent %+v, want %+v", seed, id[1], got, want)
					}
				}
			}
		})
	}
}

func (s *sim) total() (n int) {
	for _, f := range s.files {
		n += len(f)
	}
	return n
}

// newLateSim is a sim with journals that waits for late joiners. Those who are passed over do not count as such.
func newLateSim(t *testing.T, recipients int, passed ...wire.ID) *sim {
	s := newSim(t, 3, recipients, true, shapes["edges"]...)
	s.keep = true
	s.out = transfer.NewOutgoing(transfer.OutgoingConfig{Key: s.key, Manifest: s.manifest, Recipients: s.order, LateJoiners: true, Passed: passed,
		Schedule: transfer.Star{}, Keep: true})
	s.journal = s.out.Journal(s.now)
	return s
}

// asked counts how often a recipient is asked, and has it answer.
func (p *simPeer) asked(answer transfer.Event) *int {
	n := 0
	p.answer = func(p *simPeer) {
		n++
		if answer != nil {
			p.step(answer)
		}
	}
	return &n
}

// comes has a member without any memory enter the room.
func (s *sim) comes(i int) *simPeer {
	p := s.add(member(i))
	s.connect(p)
	s.run(nil)
	return p
}

// TestLateJoiners: a transfer that was offered to nobody yet goes to whoever comes, and ends when its sender says so.
func TestLateJoiners(t *testing.T) {
	s := newLateSim(t, 0)
	s.run(nil)
	if s.finished || !s.out.Late() || len(s.out.Progress()) != 0 {
		t.Fatalf("before anybody has come: %+v", s.out.Progress())
	}
	for i := range 3 {
		s.expectDone(s.comes(i))
		if s.finished {
			t.Fatalf("finished after %d", i+1)
		}
	}
	slow := s.add(member(3))
	slow.answer = func(*simPeer) {}
	s.connect(slow)
	s.run(nil)
	s.step(transfer.StopOffering{})
	if s.finished || s.out.Late() {
		t.Fatal("an offer that waits for its answer has ended")
	}
	s.comes(4)
	if len(s.out.Progress()) != 4 {
		t.Error("offered to somebody who came afterwards")
	}
	slow.step(transfer.AcceptFiles{})
	s.run(nil)
	s.expectDone(slow)
	if !s.finished || s.journal != nil {
		t.Error("not finished")
	}

	alone := newLateSim(t, 0)
	alone.step(transfer.StopOffering{})
	if !alone.finished || alone.journal != nil {
		t.Error("nobody came, and it does not finish")
	}
	cancelled := newLateSim(t, 1)
	cancelled.connect(cancelled.peers[member(0)])
	cancelled.step(transfer.CancelAll{})
	cancelled.comes(1)
	if !cancelled.finished || len(cancelled.out.Progress()) != 1 {
		t.Errorf("cancelled: %+v", cancelled.out.Progress())
	}
}

// TestLateJoinersAgain: whoever comes again is asked only if it has not answered, and was not removed; those who were not picked never are. So it is
// after a restart of the sender.
func TestLateJoinersAgain(t *testing.T) {
	for _, restart := range []bool{false, true} {
		s := newLateSim(t, 0, member(9))
		passed := s.comes(9)
		done, declined, removed, away := s.add(member(0)), s.add(member(1)), s.add(member(2)), s.add(member(3))
		counts := map[*simPeer]*int{done: done.asked(transfer.AcceptFiles{}), declined: declined.asked(transfer.DeclineOffer{Reason: "not\u202e now"}),
			removed: removed.asked(nil), away: away.asked(nil), passed: passed.asked(nil)}
		for _, p := range []*simPeer{done, declined, removed, away} {
			s.connect(p)
			s.run(nil)
		}
		removed.up = false // it has been gone for long when it is removed
		s.step(transfer.LinkDown{Peer: removed.id})
		s.now = s.now.Add(transfer.Grace + time.Second)
		s.step(transfer.Tick{})
		s.step(transfer.LinkDown{Peer: removed.id, Final: true, Code: fault.Removed})
		for _, p := range []*simPeer{done, declined, away, passed} {
			s.cut(p, false)
		}
		if restart {
			s.crashSender(s.journal)
			s.step(transfer.SourcesReady{})
		}
		for p := range counts {
			p.in, p.gone = nil, false // a page of the same identity that knows nothing
			p.up = true
			s.step(transfer.LinkUp{Peer: p.id})
		}
		s.run(nil)
		for p, want := range map[*simPeer]int{done: 1, declined: 1, removed: 1, away: 2, passed: 0} {
			if *counts[p] != want {
				t.Errorf("restart %v: member %d was asked %d times, want %d", restart, p.id[1], *counts[p], want)
			}
		}
		for i, want := range []transfer.Progress{{Peer: done.id, State: transfer.Done}, {Peer: declined.id, State: transfer.Declined, Code: fault.Declined, Reason: "not\u202e now"},
			{Peer: removed.id, State: transfer.Failed, Code: fault.Removed}, {Peer: away.id, State: transfer.Offered}} {
			if got := s.out.Progress()[i]; got.Peer != want.Peer || got.State != want.State || got.Code != want.Code || got.Reason != want.Reason {
				t.Errorf("restart %v: %+v, want %+v", restart, got, want)
			}
		}
		if _, offered, ended := s.out.Delivery(done.id); offered.IsZero() || ended.Before(offered) || s.out.Receipt(done.id) == nil {
			t.Errorf("restart %v: offered %v, ended %v", restart, offered, ended)
		}
		s.expectDone(s.comes(5)) // it goes on being offered
		s.step(transfer.StopOffering{})
		if restart {
			s.crashSender(s.journal)
			if s.out.Late() {
				t.Error("what was stopped is offered again")
			}
		}
	}
}

// TestLateJoinersBound: at most 64 in all, who each are in every offer from then on.
func TestLateJoinersBound(t *testing.T) {
	s := newLateSim(t, 2)
	s.connect(s.peers[member(0)])
	s.run(nil)
	for i := 2; i < wire.MaxParticipants+3; i++ {
		s.comes(i)
	}
	list := s.out.Progress()
	if len(list) != wire.MaxParticipants || slices.ContainsFunc(list[2:], func(p transfer.Progress) bool { return p.State != transfer.Done }) {
		t.Fatalf("%d recipients", len(list))
	}
	if offer := s.peers[member(wire.MaxParticipants-1)].in.Offer(); len(offer.Participants) != wire.MaxParticipants || !offer.LateJoiners {
		t.Errorf("%d participants in the last offer", len(offer.Participants))
	}
	s.crashSender(s.journal)
	if len(s.out.Progress()) != wire.MaxParticipants || !s.out.Late() {
		t.Errorf("%d recipients after a restart", len(s.out.Progress()))
	}
}

// TestLateJoinersGone: those who come, say nothing and go keep nobody out, however many they are; those who have accepted keep their places. The
// journal of such a transfer stays whole.
func TestLateJoinersGone(t *testing.T) {
	s := newLateSim(t, 1)
	done := s.comes(1)
	for i := 2; i < 3*wire.MaxParticipants; i++ {
		p := s.add(member(i))
		p.answer = func(*simPeer) {}
		s.connect(p)
		s.run(nil)
		s.cut(p, true)
	}
	last := s.comes(200)
	s.expectDone(done)
	s.expectDone(last)
	if list := s.out.Progress(); len(list) != wire.MaxParticipants || list[0].Peer != member(0) || list[1].Peer != done.id {
		t.Errorf("%d recipients", len(list))
	}
	if n := len(last.in.Offer().Participants); n != wire.MaxParticipants {
		t.Errorf("%d participants in the last offer", n)
	}
	s.crashSender(s.journal)
	if len(s.out.Progress()) != wire.MaxParticipants || s.state(last.id) != transfer.Done {
		t.Errorf("after a restart: %d recipients", len(s.out.Progress()))
	}
}

// TestCancelledStaysSo: a crash between cancelling and deleting the journal has nobody offered the transfer again.
func TestCancelledStaysSo(t *testing.T) {
	s := newLateSim(t, 1)
	journal := s.journal
	for _, e := range s.out.Step(s.now, transfer.CancelAll{}) {
		if note, ok := e.(transfer.Note); ok {
			journal = append(journal, note.Records...)
		}
	}
	s.crashSender(journal)
	if s.out.Late() || !s.out.Over() {
		t.Error("what was cancelled is offered again")
	}
}

// TestStages: both ends show transferring, verifying, saving and done, in this order, and neither is done before the recipient's disk has everything.
func TestStages(t *testing.T) {
	for seed := range rounds() {
		s := newSim(t, seed, 1, false, shapes["edges"]...)
		p := s.peers[member(0)]
		s.connect(p)
		var here, there []transfer.State
		see := func(list *[]transfer.State, state transfer.State) {
			if n := len(*list); n == 0 || (*list)[n-1] != state {
				*list = append(*list, state)
			}
		}
		s.run(func() bool {
			see(&here, s.state(p.id))
			if p.in != nil {
				see(&there, p.in.Progress().State)
			}
			if (s.state(p.id) == transfer.Done || p.finished) && !p.in.Committed() {
				t.Fatalf("seed %d: done before the disk has answered", seed)
			}
			return false
		})
		see(&here, s.state(p.id))
		see(&there, p.in.Progress().State)
		want := []transfer.State{transfer.Offered, transfer.Transferring, transfer.Verifying, transfer.Saving, transfer.Done}
		if !slices.Equal(here, want) || !slices.Equal(there, want) {
			t.Fatalf("seed %d: the sender showed %v, the recipient %v", seed, here, there)
		}
	}
}

// TestVerifiedTwice: a link that is lost while the roots are computed has the sender begin anew; what was computed for the former End counts no more.
func TestVerifiedTwice(t *testing.T) {
	s := newSim(t, 2, 1, false, 3*chunkSize, 7)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool {
		return p.in != nil && p.in.Progress().State == transfer.Verifying && len(p.tasks) == 1 && len(p.writes) == 4
	})
	late := p.tasks
	p.tasks = nil
	s.cut(p, false)
	s.connect(p)
	s.run(func() bool { return p.in.Progress().State == transfer.Transferring })
	for _, task := range late {
		task()
	}
	if p.commits > 0 {
		t.Error("made durable for an End that is no more")
	}
	s.run(nil)
	s.expectDone(p)
	if p.commits != 1 || !bytes.Equal(p.disk[0], s.files[0]) {
		t.Errorf("%d commits", p.commits)
	}
}
