package transfer_test

import (
	"testing"
	"time"

	"tallow/internal/core/transfer"
	"tallow/internal/raced"
)

// TestLimits: limits hold within 5 % over 10 s, the first second left out and changes not; over a minute where time passes but once a second, as in
// a hidden tab. Equal recipients get equal shares; one whose link is slow takes what it can use, and the rest goes to the others.
func TestLimits(t *testing.T) {
	const kB = 1000
	for _, c := range []struct {
		name                string
		perRecipient, total int64
		recipients          int
		slow                bool // the first
		tick                time.Duration
		span                time.Duration // seconds of each reading; 0: 10
	}{
		{name: "per recipient", perRecipient: 300 * kB, recipients: 3, tick: 100 * time.Millisecond},
		{name: "total", total: 1500 * kB, recipients: 10, tick: 100 * time.Millisecond},
		{name: "both", perRecipient: 500 * kB, total: 800 * kB, recipients: 4, tick: 100 * time.Millisecond},
		{name: "hidden", total: 200 * kB, recipients: 2, tick: time.Second, span: 60},
		{name: "a slow one", total: 1200 * kB, recipients: 4, slow: true, tick: 100 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			if raced.Enabled && c.recipients > 2 {
				t.Skip("long")
			}
			s := newSim(t, 1, c.recipients, false, 700*chunkSize)
			s.tick = c.tick
			s.out.SetLimit(c.perRecipient)
			s.out.SetTotalLimit(c.total)
			for i, id := range s.order {
				if c.slow && i == 0 {
					s.peers[id].link = 20
				}
				s.connect(s.peers[id])
			}
			// through lets so much time pass, and counts what each recipient is sent in it.
			through := func(d time.Duration) (each []float64, sum float64) {
				for _, id := range s.order {
					each = append(each, -float64(len(s.peers[id].received)))
				}
				for end := s.now.Add(d); s.now.Before(end) && !s.finished; {
					s.run(func() bool { return !s.now.Before(end) })
				}
				for i, id := range s.order {
					each[i] = (each[i] + float64(len(s.peers[id].received))) * chunkSize
					sum += each[i]
				}
				return each, sum
			}
			through(time.Second) // offers and answers
			for _, factor := range []int64{1, 2, 1} {
				s.out.SetLimit(factor * c.perRecipient)
				s.out.SetTotalLimit(factor * c.total)
				span := max(c.span, 10)
				each, sum := through(span * time.Second)
				want := float64(factor * c.total)
				if alone := float64(factor * c.perRecipient * int64(c.recipients)); want == 0 || alone > 0 && alone < want {
					want = alone
				}
				if ratio := sum / float64(span) / want; ratio < 0.95 || ratio > 1.05 {
					t.Errorf("%.3f of the limit of %.0f bytes per second is used", ratio, want)
				}
				if c.slow {
					if each[0] > 0.5*each[1] {
						t.Errorf("the slow one gets %.0f, another %.0f", each[0], each[1])
					}
					each = each[1:]
				}
				var all, squares float64
				for _, n := range each {
					all += n
					squares += n * n
				}
				if jain := all * all / (float64(len(each)) * squares); jain < 0.99 {
					t.Errorf("Jain's index is %.4f: %.0f", jain, each)
				}
			}
			s.out.SetLimit(0)
			s.out.SetTotalLimit(0)
			for _, p := range s.peers {
				p.link = 0
			}
			s.run(nil)
			for _, p := range s.peers {
				s.expectDone(p)
			}
		})
	}
}

// TestLimitSavesLittle: what is not used is not made up for later, by more than a moment's worth.
func TestLimitSavesLittle(t *testing.T) {
	for name, set := range map[string]func(*transfer.Outgoing, int64){
		"per recipient": (*transfer.Outgoing).SetLimit, "total": (*transfer.Outgoing).SetTotalLimit,
	} {
		t.Run(name, func(t *testing.T) { testLimitSavesLittle(t, set) })
	}
}

func testLimitSavesLittle(t *testing.T, set func(*transfer.Outgoing, int64)) {
	const limit = 500_000
	s := newSim(t, 1, 1, false, 700*chunkSize)
	p := s.peers[member(0)]
	set(s.out, limit)
	s.connect(p)
	until := func(d time.Duration) int {
		before := len(p.received)
		for end := s.now.Add(d); s.now.Before(end); {
			s.run(func() bool { return !s.now.Before(end) })
		}
		return (len(p.received) - before) * chunkSize
	}
	until(3 * time.Second)
	p.link = 100 // far below the limit
	if n := until(30 * time.Second); n > 30*limit/2 {
		t.Errorf("%d bytes over a slow link", n)
	}
	p.link = 0
	if n := until(4 * time.Second); n > 4*limit+limit/2+2*chunkSize {
		t.Errorf("%d bytes in the 4 seconds after a slow time", n)
	}
	s.step(transfer.SetPaused{Paused: true})
	s.now = s.now.Add(time.Hour)
	s.step(transfer.SetPaused{Paused: false})
	const most = 4*limit + limit/4 + 3*chunkSize // a moment's worth, and what was queued before
	if n := until(4 * time.Second); n > most {
		t.Errorf("%d bytes in the 4 seconds after an hour's pause", n)
	}
	s.cut(p, false)
	s.now = s.now.Add(30 * time.Second)
	s.connect(p)
	if n := until(4 * time.Second); n > most {
		t.Errorf("%d bytes in the 4 seconds after half a minute without a link", n)
	}
	credit := p.slow
	p.slow = 1 << 30 // stores nothing, so that the credit runs out
	until(30 * time.Second)
	p.slow = credit
	if n := until(4 * time.Second); n > most {
		t.Errorf("%d bytes in the 4 seconds after half a minute without credit", n)
	}
}
