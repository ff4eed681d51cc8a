package transfer

import (
	"time"

	"tallow/internal/core/wire"
)

// A disk that is full holds a delivery up instead of ending it: what has come stays in memory, where credit bounds it, and is written when there
// is room; the sender is told, and sends nothing meanwhile.

const (
	// FullGrace is how long a disk may be full, without a byte written, before the delivery fails as disk-full.
	FullGrace = 24 * time.Hour
	// firstAttempt and lastAttempt are after how long writing is tried again: twice as long each time.
	firstAttempt = time.Second
	lastAttempt  = time.Minute
)

// shortage is what waits for room on the disk.
type shortage struct {
	since  time.Time // zero: there is room
	stores []Store   // each with a reference to its buffer
	commit bool      // a Commit waits
	check  bool      // a Recheck does, which writes what may not have become durable
	trying bool      // one of them is being tried
	wait   time.Duration
	next   time.Time // when one is tried
}

// full reports whether the disk is full, as far as is known.
func (in *Incoming) full() bool { return !in.short.since.IsZero() }

// noRoom notes that something found no room, after s.stores, s.commit or s.check has got it.
func (in *Incoming) noRoom() {
	s := &in.short
	switch {
	case !in.full():
		s.since, s.wait = in.now, firstAttempt
		in.tellPaused()
		in.do(Changed{})
	case s.trying && in.now.Sub(s.since) > FullGrace: // never without having tried: the machine may have slept that long
		in.fail(wire.FailureDiskFull)
		return
	case s.trying:
		s.wait = min(2*s.wait, lastAttempt)
	}
	s.trying, s.next = false, in.now.Add(s.wait)
}

// tryDisk tries one of what waits; if that finds room, the rest follows.
func (in *Incoming) tryDisk() {
	s := &in.short
	if !in.full() || s.trying || in.over() {
		return
	}
	s.trying = true
	if s.commit {
		s.commit = false
		in.do(Commit{Files: in.end.Files})
		return
	}
	if s.check {
		s.check, in.checking = false, true
		in.do(Recheck{})
		return
	}
	first := s.stores[0]
	s.stores = s.stores[1:]
	in.do(first)
}

// someRoom notes that something has been written.
func (in *Incoming) someRoom() {
	if !in.short.trying {
		return // it was under way before the disk was full
	}
	stores := in.short.stores
	in.short = shortage{}
	in.tellPaused()
	for _, s := range stores {
		in.do(s)
	}
	in.do(Changed{})
}

// Close lets go of what waits for room.
func (in *Incoming) Close() {
	for _, s := range in.short.stores {
		s.Buffer.Release()
		in.pending--
		in.waiting -= s.Cost
	}
	in.short = shortage{}
}
