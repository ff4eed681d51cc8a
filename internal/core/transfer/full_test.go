package transfer_test

import (
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// later lets time pass, a tick at a time, until stop says so.
func (s *sim) later(limit time.Duration, stop func() bool) {
	for end := s.now.Add(limit); !stop() && s.now.Before(end); {
		s.now = s.now.Add(time.Minute)
		s.run(nil)
	}
}

// expectFull checks that both ends say that the recipient's disk is full, and that nothing more flows.
func (s *sim) expectFull(p *simPeer) {
	s.t.Helper()
	sender, own := s.progress(p.id), p.in.Progress()
	if sender.State != transfer.Paused || sender.Code != fault.DiskFull || own.State != transfer.Paused || own.Code != fault.DiskFull {
		s.t.Fatalf("the disk is full; sender: %+v, recipient: %+v", sender, own)
	}
}

func (s *sim) progress(id wire.ID) transfer.Progress {
	for _, p := range s.out.Progress() {
		if p.Peer == id {
			return p
		}
	}
	s.t.Fatal("no such recipient")
	return transfer.Progress{}
}

// TestDiskFull: a disk that fills up holds its own delivery up, both ends say so, and it goes on when there is room. Nothing is sent twice.
func TestDiskFull(t *testing.T) {
	room := func(s *sim, p *simPeer) { p.storeErr = nil }
	done := func(s *sim, p *simPeer) func() bool { return func() bool { return s.state(p.id) == transfer.Done } }
	for name, test := range map[string]struct {
		goOn   func(s *sim, p *simPeer)
		relink bool // over another link, for which what was on its way is lost
	}{
		"by itself":             {goOn: func(s *sim, p *simPeer) { room(s, p); s.later(10*time.Minute, done(s, p)) }},
		"something was deleted": {goOn: func(s *sim, p *simPeer) { room(s, p); p.step(transfer.SpaceFreed{}); s.run(nil) }},
		"on resume":             {goOn: func(s *sim, p *simPeer) { room(s, p); p.step(transfer.SetPaused{}); s.run(nil) }},
		"it still is, and then is not": {goOn: func(s *sim, p *simPeer) {
			for range 3 {
				p.step(transfer.SpaceFreed{})
				s.later(5*time.Minute, func() bool { return false })
				s.expectFull(p)
			}
			room(s, p)
			s.later(10*time.Minute, done(s, p))
		}},
		"over another link": {relink: true, goOn: func(s *sim, p *simPeer) {
			s.cut(p, false)
			s.connect(p)
			s.run(nil)
			s.expectFull(p)
			room(s, p)
			s.later(10*time.Minute, done(s, p))
		}},
		"paused meanwhile, which it stays": {goOn: func(s *sim, p *simPeer) {
			p.step(transfer.SetPaused{Paused: true})
			room(s, p)
			s.later(5*time.Minute, done(s, p))
			if got := s.progress(p.id); got.State != transfer.Paused || got.Code != "" {
				t.Fatalf("there is room, and the person has paused: %+v", got)
			}
			p.step(transfer.SetPaused{})
			s.run(nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range rounds() / 5 {
				s := newSim(t, seed, 3, false, 12*chunkSize+17, 0, 5, 700, 3*chunkSize)
				for _, id := range s.order {
					s.connect(s.peers[id])
				}
				p := s.peers[member(0)]
				s.run(func() bool { return len(p.writes) >= 3 })
				p.storeErr = transfer.ErrStorageFull
				s.run(nil)
				s.expectFull(p)
				test.goOn(s, p)
				want := traffic{chunks: 13 + 1 + 1 + 3, payload: s.total(), hashes: 13 + 1 + 1 + 3}
				want.control[wire.ControlOffer], want.control[wire.ControlManifestPart] = 1, 1
				for i, id := range s.order {
					peer := s.peers[id]
					s.expectDone(peer)
					if got := peer.traffic; got != want && !(test.relink && i == 0) {
						t.Errorf("seed %d: recipient %v was sent %+v, want %+v", seed, id[1], got, want)
					}
					for ref, n := range peer.received { // what waited for the disk included
						if n != 1 {
							t.Errorf("seed %d: chunk %v came %d times", seed, ref, n)
						}
					}
				}
			}
		})
	}
}

// TestDiskFullAtTheEnd: what is verified is made durable when there is room; the sender is told why that takes so long.
func TestDiskFullAtTheEnd(t *testing.T) {
	s := newSim(t, 1, 1, false, 3*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return p.commits > 0 })
	p.storeErr = transfer.ErrStorageFull
	s.run(nil)
	s.run(nil)
	if got := s.progress(p.id); got.State != transfer.Saving || got.Code != fault.DiskFull {
		t.Errorf("sender: %+v", got)
	}
	p.storeErr = nil
	s.later(10*time.Minute, func() bool { return s.state(p.id) == transfer.Done })
	s.expectDone(p)
}

// TestDiskFullForLong: after FullGrace without a byte written, and one more attempt, the delivery has failed; for the other recipient nothing changes.
// Progress starts it anew, and so does nothing else.
func TestDiskFullForLong(t *testing.T) {
	s := newSim(t, 1, 2, false, 9*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.connect(s.peers[member(1)])
	s.run(func() bool { return len(p.writes) > 1 })
	p.storeErr = transfer.ErrStorageFull
	s.run(nil)
	failed := func() bool { return s.state(p.id) == transfer.Failed }
	s.later(transfer.FullGrace-time.Hour, failed)
	s.expectFull(p)
	writes := len(p.writes)
	p.storeErr = nil
	p.step(transfer.SpaceFreed{})
	for len(p.writes) == writes { // one message's worth of room
		p.tasks[0]()
		p.tasks = p.tasks[1:]
	}
	p.storeErr = transfer.ErrStorageFull
	s.later(transfer.FullGrace-time.Hour, failed)
	s.expectFull(p)
	s.later(3*time.Hour, failed)
	if got := s.progress(p.id); got.State != transfer.Failed || got.Code != fault.DiskFull {
		t.Errorf("sender: %+v", got)
	}
	if got := p.in.Progress(); got.State != transfer.Failed || got.Code != fault.DiskFull || !p.gone {
		t.Errorf("recipient: %+v", got)
	}
	s.expectDone(s.peers[member(1)])
}

// TestDiskFullByDegrees: what finds room in part is progress, too.
func TestDiskFullByDegrees(t *testing.T) {
	s := newSim(t, 1, 1, false, 1000, 1000, 1000, 1000)
	p := s.peers[member(0)]
	p.storeErr = transfer.ErrStorageFull
	s.atOnce = true
	s.connect(p)
	s.run(nil)
	failed := func() bool { return s.state(p.id) == transfer.Failed }
	for i := range 3 {
		s.later(transfer.FullGrace-time.Hour, failed)
		s.expectFull(p)
		p.fits = 1
		p.step(transfer.SpaceFreed{})
		s.run(nil)
		if len(p.writes) != i+1 {
			t.Fatalf("%d files are written, want %d", len(p.writes), i+1)
		}
	}
	p.storeErr = nil
	s.later(10*time.Minute, func() bool { return s.state(p.id) == transfer.Done })
	s.expectDone(p)
}

// TestDiskFullAsleep: a machine that has slept through FullGrace tries before it gives up.
func TestDiskFullAsleep(t *testing.T) {
	s := newSim(t, 1, 1, false, 9*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) > 1 })
	p.storeErr = transfer.ErrStorageFull
	s.run(nil)
	s.now = s.now.Add(2 * transfer.FullGrace)
	p.storeErr = nil
	s.later(time.Minute, func() bool { return s.state(p.id) == transfer.Done })
	s.expectDone(p)
}

// TestDiskFullAndOver: whatever ends a delivery whose disk is full, it ends, and what waited for the disk is let go of: a buffer that is
// released twice panics, and one that is not is missing in the pool.
func TestDiskFullAndOver(t *testing.T) {
	for name, end := range map[string]func(s *sim, p *simPeer){
		"cancelled":           func(s *sim, p *simPeer) { p.step(transfer.CancelAll{}) },
		"cancelled by sender": func(s *sim, p *simPeer) { s.step(transfer.CancelPeer{Peer: p.id}) },
		"sender gone":         func(s *sim, p *simPeer) { s.cut(p, true) },
		"room closed":         func(s *sim, p *simPeer) { p.in.Close(); s.step(transfer.CancelAll{}) },
		"disk broken": func(s *sim, p *simPeer) {
			p.storeErr = transfer.ErrSourceUnreadable // any other error
			p.step(transfer.SpaceFreed{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 1, 1, false, 40*chunkSize)
			p := s.peers[member(0)]
			s.connect(p)
			s.run(func() bool { return len(p.writes) > 1 })
			p.storeErr = transfer.ErrStorageFull
			s.run(nil)
			s.expectFull(p)
			end(s, p)
			s.run(nil)
			if !s.state(p.id).Final() || !p.in.Progress().State.Final() && name != "room closed" {
				t.Fatalf("sender: %+v, recipient: %+v", s.progress(p.id), p.in.Progress())
			}
			if n := p.in.Waiting(); n != 0 {
				t.Errorf("%d messages are still held", n)
			}
		})
	}
}

// TestSlowDisk: a disk of 1 MB/s beside a fast one. The fast recipient is sent what it would be sent alone, and has it long before; what
// waits for the slow disk is bounded by credit, and what the sender keeps by its cache and by a few messages a link.
func TestSlowDisk(t *testing.T) {
	const rate = 1e6 // bytes per second; a step of the sim is a millisecond
	const size = 700 * chunkSize
	alone := newSim(t, 1, 1, false, size)
	alone.connect(alone.peers[member(0)])
	alone.run(nil)
	want := alone.peers[member(0)].traffic

	s := newSim(t, 1, 2, false, size)
	fast, slow := s.peers[member(0)], s.peers[member(1)]
	slow.diskRate = rate
	s.connect(fast)
	s.connect(slow)
	check := func() {
		waiting := len(slow.received) - len(slow.writes)
		if limit := transfer.CreditBudget/chunkSize + 1; waiting > limit {
			t.Fatalf("%d chunks wait for the slow disk, at most %d may", waiting, limit)
		}
		cached, queued := s.out.Held(slow.id)
		if cached > 16<<20 || queued > 4 || len(slow.bulk) > 4 { // three, and hashes ahead of the last
			t.Fatalf("the sender keeps %d bytes, and %d messages (%d) for the slow link", cached, queued, len(slow.bulk))
		}
	}
	s.run(func() bool { check(); return s.state(fast.id) == transfer.Done })
	s.expectDone(fast)
	if fast.traffic != want {
		t.Errorf("beside a slow disk the fast one was sent %+v, alone %+v", fast.traffic, want)
	}
	if n := len(slow.writes); n >= 350 {
		t.Errorf("the slow disk has %d of 700 chunks when the fast one is done", n)
	}
	s.run(func() bool { check(); return false })
	s.expectDone(slow)
	if slow.traffic != want {
		t.Errorf("the slow one was sent %+v, want %+v", slow.traffic, want)
	}
}

// TestDiskFullStopsTheFlow: the sender stops because it was told, long before it is out of credit.
func TestDiskFullStopsTheFlow(t *testing.T) {
	s := newSim(t, 1, 1, false, 700*chunkSize)
	p := s.peers[member(0)]
	s.connect(p)
	s.run(func() bool { return len(p.writes) > 1 })
	p.storeErr = transfer.ErrStorageFull
	s.run(nil)
	s.expectFull(p)
	if n := p.traffic.chunks; n >= transfer.CreditBudget/chunkSize/2 {
		t.Errorf("%d chunks were sent", n)
	}
	p.storeErr = nil
	s.later(10*time.Minute, func() bool { return s.state(p.id) == transfer.Done })
	s.expectDone(p)
}

// TestDiskFullForGood: where nothing is left of what was written, the delivery fails instead of waiting, in the middle and at the end.
func TestDiskFullForGood(t *testing.T) {
	for _, atTheEnd := range []bool{false, true} {
		s := newSim(t, 1, 1, false, 9*chunkSize)
		p := s.peers[member(0)]
		s.connect(p)
		s.run(func() bool { return p.commits > 0 || !atTheEnd && len(p.writes) > 1 })
		p.storeErr = transfer.ErrStorageSpoilt
		s.run(nil)
		if got := s.progress(p.id); got.State != transfer.Failed || got.Code != fault.DiskFull {
			t.Errorf("at the end %t: sender: %+v", atTheEnd, got)
		}
	}
}
