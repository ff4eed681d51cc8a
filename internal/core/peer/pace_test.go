package peer

import (
	"context"
	"testing"
	"time"

	"tallow/internal/core/wire"
)

// path simulates links that share one bottleneck: a queue that is served in order at a rate, after which each message
// takes the link's own delay; reports take it back.
type path struct {
	now   time.Time
	rate  float64 // bytes per second
	busy  time.Time
	links []*simulated
}

type simulated struct {
	pacer    pacer
	reporter reporter
	delay    time.Duration
	own      float64 // bytes per second of this link's own bottleneck after the shared one; 0: none
	ownBusy  time.Time
	arrivals []arrival // messages on their way
	reports  []arrival // reports on their way
	received uint64
	longest  time.Duration // the longest time that a message took, delays aside
	measure  bool
	quiet    bool // nothing to send
	mute     bool // what arrives is not reported
	dribble  bool // what arrives is reported byte by byte
	alarm    bool // what is reported has its pacer want a probe
}

// arrival is what arrives when, as the total then.
type arrival struct {
	at    time.Time
	total uint64
}

const tick = time.Millisecond

// run lets everybody send as much as the window allows for that long.
func (p *path) run(d time.Duration) {
	for rest := d; rest > 0; rest -= tickEvery {
		p.serve(min(rest, tickEvery))
		pacers := make([]*pacer, len(p.links))
		for i, l := range p.links {
			if l.alarm {
				l.pacer.low = lowRounds
			}
			pacers[i] = &l.pacer
		}
		balance(p.now, pacers)
	}
}

const tickEvery = 100 * time.Millisecond // as in the room

func (p *path) serve(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(tick) {
		for _, l := range p.links {
			for len(l.arrivals) > 0 && !l.arrivals[0].at.After(p.now) {
				l.received = l.arrivals[0].total
				l.arrivals = l.arrivals[1:]
				if l.received >= l.reporter.due() && !l.mute {
					l.reporter.report(p.now, l.received)
					l.reports = append(l.reports, arrival{p.now.Add(l.delay), l.received})
				}
			}
			if l.dribble && l.pacer.received < l.received {
				l.reports = []arrival{{p.now, l.pacer.received + 1}}
			}
			for len(l.reports) > 0 && !l.reports[0].at.After(p.now) {
				l.pacer.reported(p.now, l.reports[0].total)
				l.reports = l.reports[1:]
			}
		}
		// Who comes first changes from tick to tick.
		for i := range p.links {
			l := p.links[(i+int(p.now.UnixMilli()))%len(p.links)]
			if l.quiet {
				l.pacer.idle(p.now)
				continue
			}
			for n := l.pacer.message(); l.pacer.may(n); n = l.pacer.message() {
				l.pacer.sending(p.now, n)
				at := serve(p.now, &p.busy, n, p.rate)
				if l.own > 0 {
					at = serve(at, &l.ownBusy, n, l.own)
				}
				if l.measure {
					l.longest = max(l.longest, at.Sub(p.now))
				}
				l.arrivals = append(l.arrivals, arrival{at.Add(l.delay), l.pacer.sent})
			}
		}
	}
}

// serve is when a message that comes at a time leaves a bottleneck.
func serve(at time.Time, busy *time.Time, n int, rate float64) time.Time {
	if busy.Before(at) {
		*busy = at
	}
	*busy = busy.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	return *busy
}

func newPath(rate float64, delays ...time.Duration) *path {
	p := &path{now: time.Unix(1_700_000_000, 0), rate: rate}
	for _, d := range delays {
		l := &simulated{delay: d}
		l.pacer.measured(2 * d)
		p.links = append(p.links, l)
	}
	return p
}

const mbit = 1e6 / 8

func TestPacerFillsThePath(t *testing.T) {
	for _, c := range []struct {
		name  string
		rate  float64
		delay time.Duration
	}{
		{"4 Mbit/s, 5 ms", 4 * mbit, 5 * time.Millisecond},
		{"8 Mbit/s, 50 ms", 8 * mbit, 50 * time.Millisecond},
		{"100 Mbit/s, 25 ms", 100 * mbit, 25 * time.Millisecond},
		{"100 Mbit/s, 100 ms", 100 * mbit, 100 * time.Millisecond},
		{"1 Mbit/s, 50 ms", mbit, 50 * time.Millisecond},
		{"1 Mbit/s, 200 ms", mbit, 200 * time.Millisecond},
	} {
		p := newPath(c.rate, c.delay)
		p.run(5 * time.Second) // to learn
		l := p.links[0]
		l.measure = true
		before := l.received
		p.run(10 * time.Second)
		if share := float64(l.received-before) / 10 / c.rate; share < 0.97 {
			t.Errorf("%s: %.2f of the path is used", c.name, share)
		}
		// A message takes its own time, and that of what may be queued before it.
		own := time.Duration(2 * wire.MinMessageSize / c.rate * float64(time.Second))
		if limit := mostSlack + slack + 2*own; l.longest > limit || c.rate <= 8*mbit && l.longest > 2*slack+2*own {
			t.Errorf("%s: a message waits for %v", c.name, l.longest)
		}
	}
}

// TestPacerFollowsThePath: a path that becomes slower is not flooded for long, one that becomes faster is used.
func TestPacerFollowsThePath(t *testing.T) {
	p := newPath(20*mbit, 20*time.Millisecond)
	l := p.links[0]
	for _, rate := range []float64{20 * mbit, 2 * mbit, 50 * mbit} {
		p.rate = rate
		p.run(6 * time.Second)
		before := l.received
		l.measure, l.longest = true, 0
		p.run(5 * time.Second)
		l.measure = false
		if share := float64(l.received-before) / 5 / rate; share < 0.95 {
			t.Errorf("%.0f Mbit/s: %.2f of the path is used", rate/mbit, share)
		}
		if own := time.Duration(4 * wire.MinMessageSize / rate * float64(time.Second)); l.longest > mostSlack+slack+own {
			t.Errorf("%.0f Mbit/s: a message waits for %v", rate/mbit, l.longest)
		}
	}
}

// TestPacerOthersDelay: delay that is not ours, another's queue on the path say, or a busy processor's, does not have the pacer give way
// until nothing is left; and when it is gone, our queue is as short as before.
func TestPacerOthersDelay(t *testing.T) {
	for _, rate := range []float64{2 * mbit, 20 * mbit, 50 * mbit} {
		p := newPath(rate, 10*time.Millisecond)
		l := p.links[0]
		p.run(5 * time.Second)
		for _, delay := range []time.Duration{10, 150, 300, 10} {
			l.delay = delay * time.Millisecond
			p.run(2 * probeGap)
			before := l.received
			l.measure, l.longest = true, 0
			p.run(10 * time.Second)
			l.measure = false
			if share := float64(l.received-before) / 10 / rate; share < 0.6 {
				t.Errorf("%.0f Mbit/s, %v: %.2f of the path is used", rate/mbit, l.delay, share)
			}
			own := time.Duration(4 * wire.MinMessageSize / rate * float64(time.Second))
			if limit := mostSlack + 2*slack + own; delay == 10 && l.longest > limit {
				t.Errorf("%.0f Mbit/s, %v: a message waits for %v", rate/mbit, l.delay, l.longest)
			}
		}
	}
}

// TestPacerIdle: who has little to send learns nothing wrong of the path.
func TestPacerIdle(t *testing.T) {
	p := newPath(20*mbit, 20*time.Millisecond)
	p.run(5 * time.Second)
	l := p.links[0]
	before := l.pacer.window()
	for range 100 { // a message every 100 ms
		l.pacer.idle(p.now)
		l.pacer.sending(p.now, wire.MinMessageSize)
		p.now = p.now.Add(100 * time.Millisecond)
		l.pacer.reported(p.now, l.pacer.sent)
	}
	if after := l.pacer.window(); after < before*8/10 { // the step is part of it
		t.Errorf("the window went from %d to %d", before, after)
	}
}

func TestPacerRefusesImpossibleReports(t *testing.T) {
	var p pacer
	now := time.Unix(1_700_000_000, 0)
	p.sending(now, 1000)
	if p.reported(now, 1001) || !p.reported(now, 600) || p.reported(now, 599) || !p.reported(now, 1000) {
		t.Error("a report of more than was sent, or of less than before, was believed")
	}
}

// TestPacerNeverWaitsForNothing: whatever the peer's step has become, what it waits for may be sent; also where a clock moves
// coarsely, or not at all.
func TestPacerNeverWaitsForNothing(t *testing.T) {
	for _, gaps := range [][]time.Duration{
		{0, time.Millisecond, 30 * time.Millisecond, time.Second, 10 * time.Second},
		{0, 0, 0, 100 * time.Millisecond},
		{0},
	} {
		var p pacer
		var r reporter
		now := time.Unix(1_700_000_000, 0)
		for i := range 10_000 {
			for n := p.message() - i%1000; p.may(n); n = p.message() - i%1000 {
				p.sending(now, n)
			}
			if p.sent < r.due() {
				t.Fatalf("%v, step %d: %d sent, and the peer reports at %d", gaps, i, p.sent, r.due())
			}
			now = now.Add(gaps[i*7919%len(gaps)])
			received := min(p.sent, max(r.due(), p.received+uint64(i%5)*wire.MinMessageSize))
			r.report(now, received)
			if !p.reported(now, received) {
				t.Fatal("refused")
			}
		}
	}
}

// TestPacerShares: links that share a bottleneck get the same of it, whenever they begin, and one that is slow for reasons of its
// own takes only what it can use. Those that are further away get a little less.
func TestPacerShares(t *testing.T) {
	apart := 0.96
	if mostSlack > slack { // longer queues hide more of what the paths differ by
		apart = 0.85
	}
	for _, c := range []struct {
		apart time.Duration
		jain  float64
	}{{0, 0.995}, {10 * time.Millisecond, apart}} {
		delays := make([]time.Duration, 10)
		for i := range delays {
			delays[i] = 5*time.Millisecond + time.Duration(i)*c.apart
		}
		p := newPath(16*mbit, delays...)
		all := p.links
		slow := all[3]
		slow.own = 0.5 * mbit
		p.links = all[:5]
		p.run(3 * time.Second)
		p.links = all // the others come later
		p.run(10 * time.Second)
		before := make([]uint64, len(all))
		for i, l := range all {
			before[i] = l.received
		}
		p.run(10 * time.Second)
		var sum, squares, total float64
		for i, l := range all {
			rate := float64(l.received-before[i]) / 10
			total += rate
			if l == slow {
				if rate < 0.9*slow.own {
					t.Errorf("%v: the slow one gets %.2f of what it can use", c.apart, rate/slow.own)
				}
				continue
			}
			sum += rate
			squares += rate * rate
		}
		if jain := sum * sum / (9 * squares); jain < c.jain {
			t.Errorf("%v: Jain's index is %.4f", c.apart, jain)
		}
		if total < 0.97*p.rate {
			t.Errorf("%v: %.2f of the path is used", c.apart, total/p.rate)
		}
	}
}

// share is which part of the path's rate a link gets in so much time.
func (p *path) share(l *simulated, d time.Duration) float64 {
	before := l.received
	p.run(d)
	return float64(l.received-before) / d.Seconds() / p.rate
}

// TestPacerAlone: one slow, broken or hostile recipient never costs another anything.
func TestPacerAlone(t *testing.T) {
	const rate = 30 * mbit
	for _, c := range []struct {
		name string
		stop func(*simulated)
	}{
		{"ended", func(l *simulated) { l.quiet = true }},
		{"stuck", func(l *simulated) { l.mute = true }},
		{"ended in need of a probe", func(l *simulated) { l.quiet, l.pacer.low = true, lowRounds }},
		{"stuck in need of a probe", func(l *simulated) { l.mute, l.pacer.low = true, lowRounds }},
		{"stuck in a probe", func(l *simulated) { l.mute, l.pacer.probe = true, draining }},
		{"slow", func(l *simulated) { l.own = 0.5 * mbit }},
		{"never drained", func(l *simulated) { l.dribble, l.alarm = true, true }},
		{"always in need of a probe", func(l *simulated) { l.own, l.alarm = 0.5*mbit, true }},
	} {
		for _, delay := range []time.Duration{1, 20, 100, 200} { // one way, in ms
			p := newPath(rate, time.Millisecond, time.Millisecond)
			a, b := p.links[0], p.links[1]
			p.run(5 * time.Second)
			a.delay, b.delay = delay*time.Millisecond, delay*time.Millisecond
			p.run(3 * time.Second)
			c.stop(a)
			p.run(jointGap)
			share := p.share(b, 3*jointGap)
			if share < 0.92-a.own/rate {
				t.Errorf("%s, %d ms: the other gets %.3f of the path", c.name, delay, share)
			}
		}
	}
}

// TestPacerLongerPath: a path that becomes longer is still used, whatever the other link's path does.
func TestPacerLongerPath(t *testing.T) {
	const rate = 30 * mbit
	for _, delay := range []time.Duration{100, 150, 250} {
		for _, other := range []string{"as before", "longer too", "idle", "stuck"} {
			p := newPath(rate, time.Millisecond, time.Millisecond)
			a, b := p.links[0], p.links[1]
			p.run(5 * time.Second)
			a.delay = delay * time.Millisecond
			switch other {
			case "longer too":
				b.delay = a.delay
			case "idle":
				b.quiet = true
			case "stuck":
				b.mute = true
			}
			p.run(jointGap + 15*time.Second)
			before := b.received
			share := p.share(a, 20*time.Second)
			others := float64(b.received-before) / 20 / rate
			if share+others < 0.95 {
				t.Errorf("%d ms, the other %s: %.3f and %.3f of the path are used", delay, other, share, others)
			}
		}
	}
}

// TestPacerNewPath: after a restart the path may be another, longer, slower or faster: what was learnt of the former does not count, and
// the other link, whose path is as it was, has no say.
func TestPacerNewPath(t *testing.T) {
	const rate = 30 * mbit
	for _, other := range []string{"idle", "busy"} {
		for _, delay := range []time.Duration{1, 100, 150, 250} { // one way, in ms
			for _, own := range []float64{0, 2 * mbit} {
				p := newPath(rate, time.Millisecond, time.Millisecond)
				a, b := p.links[0], p.links[1]
				p.run(5 * time.Second)
				a.quiet, b.quiet = true, other == "idle"
				p.run(3 * time.Second) // nothing gets through, and then over another path
				a.quiet, a.delay, a.own = false, delay*time.Millisecond, own
				a.pacer.forget(p.now)
				p.run(12 * time.Second)
				a.measure = true
				share := p.share(a, 10*time.Second)
				want := 0.97
				switch {
				case own > 0:
					want = 0.9 * own / rate
				case other == "busy":
					want = 0.3
				}
				if share < want {
					t.Errorf("%d ms, of its own %.0f Mbit/s, the other %s: %.3f of the path is used", delay, own/mbit, other, share)
				}
				messages := time.Duration(4 * wire.MinMessageSize / (2 * mbit) * float64(time.Second))
				if limit := 2*slack + mostSlack + messages; other == "idle" && a.longest > limit {
					t.Errorf("%d ms, of its own %.0f Mbit/s: a message waits for %v", delay, own/mbit, a.longest)
				}
			}
		}
	}
}

// told is what a channel has told.
type told struct{ total uint64 }

func (*told) Next(_ context.Context, n int) (int, error) { return n, nil }

func (p *told) Arrived(total uint64) (due uint64) {
	p.total = total
	return total + 1
}

// TestPaceLate: natively a remote's messages may come before the link has set its pacing; they count, and nothing races.
func TestPaceLate(t *testing.T) {
	c := newDataChannel(wire.Bulk, nil)
	c.arrives(5)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for range 1000 {
			c.arrives(10)
		}
	}()
	var p told
	c.Pace(&p)
	<-read
	if c.arrives(1); p.total != 10_006 {
		t.Errorf("told of %d bytes", p.total)
	}
}
