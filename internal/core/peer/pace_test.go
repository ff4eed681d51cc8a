package peer

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"tallow/internal/core/wire"
)

// path simulates links that share one bottleneck: a queue that is served in order at a rate, after which each message
// takes the link's own delay; reports take it back. Before it is SCTP, which begins with little. What a link knows of its path it has from Pings.
type path struct {
	now   time.Time
	rate  float64 // bytes per second
	burst float64 // bytes that pass at once after a pause
	busy  time.Time
	links []*simulated
}

type simulated struct {
	pacer    pacer
	reporter reporter
	delay    time.Duration
	own      float64 // bytes per second of this link's own bottleneck after the shared one; 0: none
	ownBusy  time.Time
	apart    bool      // it has only its own
	buffer   []message // before SCTP
	buffered int       // bytes in it
	flying   int       // bytes that SCTP has on their way
	allowed  int       // and may have
	arrivals []arrival // messages on their way
	acks     []arrival // SCTP's, on their way; each a message's bytes
	pongs    []time.Time
	probes   []arrival // Pongs of a probe's Pings, on their way
	pinged   time.Time
	reports  []arrival // reports on their way
	received uint64
	longest  time.Duration // the longest time that a message took, delays aside
	measure  bool
	quiet    bool    // nothing to send
	limit    float64 // bytes per second that there are to send; 0: no bound
	budget   float64
	piece    int // bytes that there are to send at once; 0: no bound
	gap      time.Duration
	left     int           // of the piece
	gone     time.Time     // when the last has gone out
	empty    bool          // it has been told that there is nothing to send
	mute     bool          // what arrives is not reported
	hoards   bool          // nothing is reported before all has arrived that may be on its way
	dribble  bool          // what arrives is reported byte by byte
	alarm    bool          // what is reported has its pacer want a probe
	deaf     bool          // Pings of probes are not answered
	evasive  bool          // only the first of each probe is, and late
	flaps    bool          // it restarts ICE whenever its path is known, and answers late
	remakes  bool          // it is deaf, and when others have waited for that it ends and is made anew
	asleep   time.Duration // how long the peer's clock has stood still
	late     time.Duration // how much later than it could the next Pong of a second Ping comes
	held     time.Time     // what comes back arrives no sooner, as a packet of it was lost, or the program has other things to do
}

// message is one that SCTP has not taken yet: of so many bytes, the last of which is that one of all.
type message struct {
	n     int
	total uint64
}

// initial is how many bytes SCTP has on their way at first; it doubles in each round in which it has more to send.
const initial = 12_000

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
		p.balance()
	}
}

func (p *path) balance() {
	pacers := make([]*pacer, len(p.links))
	for i, l := range p.links {
		if l.alarm {
			l.pacer.low = lowRounds
		}
		pacers[i] = &l.pacer
	}
	balance(p.now, pacers)
	for _, l := range p.links {
		if l.remakes && l.pacer.joint && l.pacer.probe != notProbing && p.now.Sub(l.pacer.probedAt) >= probeMost {
			*l = simulated{delay: l.delay, own: l.own, deaf: true, remakes: true, alarm: l.alarm}
		}
		if l.flaps && l.pacer.known {
			l.pacer.forget(p.now)
		}
		token, ask := l.pacer.asks()
		second := l.pacer.probe == measuring
		if !ask || l.deaf || l.evasive && second {
			continue
		}
		at := p.through(l, 0).Add(2 * l.delay)
		switch {
		case l.evasive, l.flaps && l.pacer.joint:
			at = at.Add(probeMost)
		case second:
			at, l.late = at.Add(l.late), 0
		}
		l.probes = append(l.probes, arrival{at, token})
	}
}

const (
	tickEvery = 100 * time.Millisecond // as in the room
	pingEvery = 2 * time.Second
)

func (p *path) serve(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(tick) {
		due := false // what balance does
		for _, l := range p.links {
			before := l.pacer.ready(p.now)
			for len(l.arrivals) > 0 && !l.arrivals[0].at.After(p.now) {
				l.received = l.arrivals[0].total
				l.arrivals = l.arrivals[1:]
				here := p.now.Add(-l.asleep)
				if due, _ := l.reporter.due(here); l.received >= due && !l.mute && !l.hoards {
					l.reporter.report(here, l.received)
					l.reports = append(l.reports, arrival{p.now.Add(l.delay), l.received})
				}
			}
			if flying := l.pacer.sent - l.pacer.received; l.hoards && flying > 0 && l.received == l.pacer.sent &&
				len(l.reports) == 0 && (l.quiet || flying+uint64(l.pacer.message()) > l.pacer.window()) {
				l.reports = append(l.reports, arrival{p.now.Add(l.delay), l.received})
			}
			if l.dribble && l.pacer.received < l.received {
				l.reports = []arrival{{p.now, l.pacer.received + 1}}
			}
			for len(l.reports) > 0 && !later(l.reports[0].at, l.held).After(p.now) {
				l.pacer.reported(p.now, l.reports[0].total)
				l.reports = l.reports[1:]
			}
			for len(l.acks) > 0 && !l.acks[0].at.After(p.now) {
				n := int(l.acks[0].total)
				l.acks = l.acks[1:]
				if l.flying+l.buffered > l.allowed {
					l.allowed += n
				}
				l.flying -= n
			}
			for len(l.pongs) > 0 && !later(l.pongs[0], l.held).After(p.now) {
				l.pacer.measured(p.now.Sub(l.pinged))
				l.pongs = nil
			}
			for len(l.probes) > 0 && !later(l.probes[0].at, l.held).After(p.now) {
				l.pacer.pong(p.now, l.probes[0].total)
				l.probes = l.probes[1:]
			}
			if p.now.Sub(l.pinged) >= pingEvery && len(l.pongs) == 0 {
				l.pinged = p.now
				l.pongs = []time.Time{p.through(l, 0).Add(2 * l.delay)}
			}
			due = due || l.pacer.ready(p.now) && !before
		}
		if due {
			p.balance()
		}
		// Who comes first changes from tick to tick.
		for i := range p.links {
			l := p.links[(i+int(p.now.UnixMilli()))%len(p.links)]
			l.budget = min(l.budget+l.limit*tick.Seconds(), wire.MessageSize)
			for {
				n := l.next(p.now)
				if n == 0 {
					break
				}
				l.empty = false
				l.pacer.resume(p.now)
				if n = min(n, l.pacer.message()); !l.pacer.may(n) || l.buffered > HighWater {
					break
				}
				if l.left -= n; l.limit > 0 {
					l.budget -= float64(n)
				}
				l.send(p.now, n)
				if l.left <= 0 {
					l.gone = p.now
				}
			}
			l.allowed = max(l.allowed, initial)
			for len(l.buffer) > 0 && (l.flying == 0 || l.flying+l.buffer[0].n <= l.allowed) {
				m := l.buffer[0]
				l.buffer = l.buffer[1:]
				l.buffered -= m.n
				l.flying += m.n
				at := p.through(l, m.n)
				if l.measure {
					l.longest = max(l.longest, at.Sub(p.now))
				}
				at = at.Add(l.delay)
				l.arrivals = append(l.arrivals, arrival{at, m.total})
				l.acks = append(l.acks, arrival{at.Add(l.delay), uint64(m.n)})
			}
		}
	}
}

// next is how many bytes there are to send now. As a link does, it tells once that there are none.
func (l *simulated) next(now time.Time) (n int) {
	switch n = wire.MessageSize; {
	case l.quiet, l.limit > 0 && l.budget < float64(l.pacer.message()):
		n = 0
	case l.piece > 0 && l.left <= 0 && (now.Sub(l.gone) < l.gap || !l.empty):
		n = 0
	case l.piece > 0:
		if l.left <= 0 {
			l.left = l.piece
		}
		n = l.left
	}
	if n == 0 && !l.empty {
		l.empty = true
		l.pacer.idle(now)
		if l.piece > 0 && l.gap == 0 {
			return l.next(now)
		}
	}
	return n
}

// send hands a message to SCTP.
func (l *simulated) send(now time.Time, n int) {
	l.pacer.sending(now, n)
	l.buffer = append(l.buffer, message{n, l.pacer.sent})
	l.buffered += n
}

// through is when n bytes of a link that come now have passed its bottlenecks.
func (p *path) through(l *simulated, n int) time.Time {
	at := p.now
	if !l.apart {
		at = serve(at, &p.busy, n, p.rate, p.burst)
	}
	if l.own > 0 {
		at = serve(at, &l.ownBusy, n, l.own, 0)
	}
	return at
}

// serve is when a message that comes at a time leaves a bottleneck: a token bucket, as shapers are.
func serve(at time.Time, busy *time.Time, n int, rate, burst float64) time.Time {
	takes := func(bytes float64) time.Duration { return time.Duration(bytes / rate * float64(time.Second)) }
	if full := at.Add(-takes(burst)); busy.Before(full) {
		*busy = full
	}
	*busy = busy.Add(takes(float64(n)))
	if busy.Before(at) {
		return at
	}
	return *busy
}

func newPath(rate float64, delays ...time.Duration) *path {
	p := &path{now: time.Unix(1_700_000_000, 0), rate: rate}
	for _, d := range delays {
		l := &simulated{delay: d}
		l.pacer.idle(p.now) // until it begins
		p.links = append(p.links, l)
	}
	return p
}

const mbit = 1e6 / 8

// beginning is how long a message may wait on a path of 1 Mbit/s for what a link begins with.
const beginning = time.Duration(startWindow * 5 / 4 / mbit * float64(time.Second))

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
		p.run(loneProbe + 3*time.Second) // to learn
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

// TestPacerManyOnAFastPath: ten links that are open, of which one or all begin, fill a fast path, also where what begins with few messages is reported as one.
func TestPacerManyOnAFastPath(t *testing.T) {
	for _, rate := range []float64{20 * mbit, 100 * mbit, 300 * mbit, 1000 * mbit} {
		for _, delay := range []time.Duration{5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond} {
			for _, busy := range []int{1, 10} {
				p := newPath(rate, slices.Repeat([]time.Duration{delay}, 10)...)
				for i, l := range p.links {
					l.quiet = i >= busy
				}
				p.balance()
				p.run(5 * time.Second)
				want := 0.85 * min(1, HighWater*float64(busy)/(2*delay.Seconds()*rate)) // of what the transport's buffers hold
				if _, used := p.spread(5 * time.Second); used < want {
					t.Errorf("%.0f Mbit/s, %v, %d of 10: %.3f of the path is used", rate/mbit, delay, busy, used)
				}
			}
		}
	}
}

// TestPacerOneOfMany: links that are open and not in use do not slow down one that is, where round trips take long.
func TestPacerOneOfMany(t *testing.T) {
	p := newPath(5*mbit, slices.Repeat([]time.Duration{200 * time.Millisecond}, 10)...)
	for _, l := range p.links[1:] {
		l.quiet = true
	}
	p.balance()
	p.run(4 * time.Second)
	if _, used := p.spread(6 * time.Second); used < 0.7 {
		t.Errorf("%.3f of the path is used", used)
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
	before := l.pacer
	for range 100 { // a message every 100 ms
		l.pacer.idle(p.now)
		l.pacer.resume(p.now)
		l.pacer.sending(p.now, wire.MinMessageSize)
		p.now = p.now.Add(100 * time.Millisecond)
		l.pacer.reported(p.now, l.pacer.sent)
	}
	if l.pacer.rate < before.rate || l.pacer.base != before.base {
		t.Errorf("the rate went from %.0f to %.0f, the path's time from %v to %v", before.rate, l.pacer.rate, before.base, l.pacer.base)
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

// TestPacerImpossibleRoundTrips: whatever is measured, something may be on its way, and no more than is ever let out.
func TestPacerImpossibleRoundTrips(t *testing.T) {
	for _, rtt := range []time.Duration{math.MinInt64, -1, 0, math.MaxInt64 - 1, math.MaxInt64} {
		p := pacer{rate: 1 << 20}
		p.measured(rtt)
		if p.base < time.Millisecond || p.base > time.Hour || p.window() < wire.MinMessageSize || p.window() > HighWater {
			t.Errorf("after a round trip of %d: %v, a window of %d", rtt, p.base, p.window())
		}
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
			due, _ := r.due(now)
			if p.sent < due {
				t.Fatalf("%v, step %d: %d sent, and the peer reports at %d", gaps, i, p.sent, due)
			}
			now = now.Add(gaps[i*7919%len(gaps)])
			due, _ = r.due(now)
			received := min(p.sent, max(due, p.received+uint64(i%5)*wire.MinMessageSize))
			r.report(now, received)
			if !p.reported(now, received) {
				t.Fatal("refused")
			}
		}
	}
}

// TestPacerShares: links that share a bottleneck get the same of it, whenever they begin and however far their peers are, and one that is slow
// for reasons of its own takes only what it can use.
func TestPacerShares(t *testing.T) {
	for _, apart := range []time.Duration{0, 10 * time.Millisecond} {
		for _, settle := range []time.Duration{20 * time.Second, 31 * time.Second, time.Minute} {
			delays := make([]time.Duration, 10)
			for i := range delays {
				delays[i] = 5*time.Millisecond + time.Duration(i)*apart
			}
			p := newPath(16*mbit, delays...)
			all := p.links
			slow := all[3]
			slow.own = 0.5 * mbit
			p.links = all[:5]
			p.run(3 * time.Second)
			p.links = all // the others come later
			p.run(settle)
			jain, during := p.spread(10*time.Second, slow)
			before := slow.received
			_, used := p.spread(2*jointGap, slow)
			if rate := float64(slow.received-before) / (2 * jointGap).Seconds(); rate < 0.9*slow.own {
				t.Errorf("%v, %v: the slow one gets %.2f of what it can use", apart, settle, rate/slow.own)
			}
			want := 0.99
			if apart > 0 {
				want = 0.98
			}
			if jain < want {
				t.Errorf("%v, %v: Jain's index is %.4f", apart, settle, jain)
			}
			if during < 0.96 || used < 0.985 { // a probe may fall into ten seconds
				t.Errorf("%v, %v: %.4f and %.4f of the path are used", apart, settle, during, used)
			}
		}
	}
}

// TestPacerSharesAnyRate: links share alike how fast the path ever is, ten seconds after the last has come.
func TestPacerSharesAnyRate(t *testing.T) {
	for _, n := range []int{2, 4, 10} {
		for _, rate := range []float64{5, 20, 50, 100, 300} {
			for _, delay := range []time.Duration{2, 10, 50} { // ms
				p := newPath(rate*mbit, slices.Repeat([]time.Duration{delay * time.Millisecond}, n)...)
				all := p.links
				p.links = all[:n-1]
				p.run(3 * time.Second)
				p.links = all
				p.run(10 * time.Second)
				for from := 10; from < 40; from += 10 {
					if jain, used := p.spread(10 * time.Second); jain < 0.99 || used < 0.96 {
						t.Errorf("%d links, %.0f Mbit/s, %d ms: after %d s Jain's index is %.3f, and %.3f of the path is used", n, rate, delay, from, jain, used)
					}
				}
			}
		}
	}
}

// TestPacerSharesBesideSlow: links share alike, and use all that is left, also where most have paths of their own that are slower.
func TestPacerSharesBesideSlow(t *testing.T) {
	near, apart := []time.Duration{20, 20, 20, 20}, []time.Duration{5, 15, 25, 35} // ms
	for _, c := range []struct {
		rate, own float64 // Mbit/s
		slow      int
		delays    []time.Duration
	}{
		{40, 0.3, 6, near},
		{40, 0.3, 6, apart},
		{40, 0.3, 6, []time.Duration{5, 5, 5, 100}},
		{40, 0.3, 4, apart},
		{40, 3, 4, near},
		{40, 3, 4, apart},
		{16, 0.3, 6, apart},
		{100, 0.3, 6, []time.Duration{5, 35}},
		{20, 2, 9, near[:1]},
		{100, 3, 9, near[:1]},
		{150, 1, 9, []time.Duration{100}},
	} {
		var delays []time.Duration
		for _, delay := range c.delays {
			delays = append(delays, delay*time.Millisecond)
		}
		p := newPath(c.rate*mbit, append(delays, slices.Repeat([]time.Duration{10 * time.Millisecond}, c.slow)...)...)
		slow := p.links[len(delays):]
		for _, l := range slow {
			l.own = c.own * mbit
		}
		p.run(20 * time.Second)
		before := slow[0].received
		jain, used := p.spread(20*time.Second, slow...)
		if gets := float64(slow[0].received-before) / 20 / slow[0].own; jain < 0.99 || used < 0.95 || gets < 0.95 {
			t.Errorf("%v: Jain's index is %.3f, %.3f of the path is used, and a slow one gets %.3f of what it can use", c, jain, used, gets)
		}
	}
}

// TestPacerSharesBesideFast: links share alike, and wait for little, beside one that is far faster on a path of its own.
func TestPacerSharesBesideFast(t *testing.T) {
	for _, rate := range []float64{4, 10, 40} {
		for _, n := range []int{2, 4, 9} {
			p := newPath(rate*mbit, slices.Repeat([]time.Duration{10 * time.Millisecond}, n+1)...)
			fast := p.links[n]
			fast.own, fast.apart = 300*mbit, true
			p.run(20 * time.Second)
			before := fast.received
			for _, l := range p.links {
				l.measure = true
			}
			jain, all := p.spread(20*time.Second, fast)
			got := float64(fast.received-before) / 20
			own := time.Duration(float64(n*3*wire.MinMessageSize) / p.rate * float64(time.Second))
			if used := all - got/p.rate; jain < 0.98 || used < 0.95 || got < 0.95*fast.own || p.links[0].longest > 3*slack+own {
				t.Errorf("%d links, %.0f Mbit/s: Jain's index is %.3f, %.3f of the path is used and %.3f of the fast one's, and a message waits for %v", n, rate, jain, used, got/fast.own,
					p.links[0].longest)
			}
		}
	}
}

// TestPacerShortPauses: a link that has nothing to send now and then, for too short a time for its peer to report the rest, does not take that for the path's rate.
func TestPacerShortPauses(t *testing.T) {
	for _, rate := range []float64{1, 4, 40} {
		for _, delay := range []time.Duration{5, 25, 100, 200} { // ms
			for _, pause := range []time.Duration{100, 200, 300, 400, 600, 900} { // ms
				for _, work := range []int{2, 10} { // tenths of a second
					p := newPath(rate*mbit, delay*time.Millisecond)
					l := p.links[0]
					p.run(10 * time.Second)
					known := l.pacer.rate
					for range 16 / work * 5 {
						l.quiet = true
						p.run(pause * time.Millisecond)
						l.quiet = false
						for range work {
							if p.run(100 * time.Millisecond); l.pacer.rate < 0.6*known {
								t.Fatalf("%.0f Mbit/s, %d ms, work of %d00 ms, pauses of %d ms: a rate of %.2f Mbit/s after one of %.2f",
									rate, delay, work, pause, l.pacer.rate/mbit, known/mbit)
							}
						}
					}
				}
			}
		}
	}
}

// TestPacerLongerSinceIdle: a path that has become longer while nothing was sent, or that somebody else's queue has, is used all the same.
func TestPacerLongerSinceIdle(t *testing.T) {
	for _, rate := range []float64{2, 20, 100} {
		for _, delay := range []time.Duration{50, 150} { // ms
			p := newPath(rate*mbit, 2*time.Millisecond)
			l := p.links[0]
			l.quiet = true
			p.run(3 * time.Second)
			l.quiet, l.delay = false, delay*time.Millisecond
			p.run(2 * loneProbe)
			if share := p.share(l, 10*time.Second); share < 0.85 {
				t.Errorf("%.0f Mbit/s, %d ms: %.3f of the path is used", rate, 2*delay, share)
			}
			if probed := l.pacer.probedAt; p.share(l, probeGap/2) < 0.97 || l.pacer.probedAt != probed {
				t.Errorf("%.0f Mbit/s, %d ms: it is probed again", rate, 2*delay)
			}
		}
	}
}

// TestPacerLongerAndFaster: a link that is alone in use finds out within about a minute that its path is another, also where that is so much faster that its
// rate is no less, and the path had been looked at before.
func TestPacerLongerAndFaster(t *testing.T) {
	for _, c := range []struct {
		from, to float64       // Mbit/s
		delay    time.Duration // then, in ms
	}{{0.5, 100, 200}, {1, 20, 100}, {1, 100, 150}, {5, 50, 100}, {20, 20, 150}} {
		for _, open := range []int{1, 3} {
			for _, pause := range []bool{false, true} {
				p := newPath(c.from*mbit, slices.Repeat([]time.Duration{10 * time.Millisecond}, open)...)
				l := p.links[0]
				for _, other := range p.links[1:] {
					other.quiet = true
				}
				p.run(15 * time.Second)
				if pause {
					l.quiet = true
					p.run(5 * time.Second)
					l.quiet = false
				}
				p.rate, l.delay = c.to*mbit, c.delay*time.Millisecond
				p.run(probeGap + 10*time.Second)
				want := min(1, HighWater/(2*l.delay.Seconds()*p.rate))
				if share := p.share(l, 10*time.Second); share < 0.85*want {
					t.Errorf("%.1f to %.0f Mbit/s, 20 to %d ms, %d open, paused: %v: %.3f of the path is used, of %.3f", c.from, c.to, 2*c.delay, open, pause, share, want)
				}
			}
		}
	}
}

// TestPacerShortTransfers: a link that is alone does not probe its path for what is soon over.
func TestPacerShortTransfers(t *testing.T) {
	p := newPath(20*mbit, 10*time.Millisecond)
	l := p.links[0]
	for range 4 {
		l.quiet = false
		p.run(loneProbe - time.Second)
		l.quiet = true
		p.run(2 * stale)
	}
	if !l.pacer.probedAt.IsZero() {
		t.Error("it is probed")
	}
}

// TestPacerSparse: whoever sends something now and then, or is limited, has no window of a path of long ago.
func TestPacerSparse(t *testing.T) {
	limited := func(l *simulated) { l.limit = 80_000 }
	pieces := func(n int, gap time.Duration) func(*simulated) {
		return func(l *simulated) { l.piece, l.gap = n, gap }
	}
	for name, sparse := range map[string]func(*simulated){
		"500 bytes each 900 ms": pieces(500, 900*time.Millisecond), // which the peer reports late
		"1 kB each 500 ms":      pieces(1000, 500*time.Millisecond),
		"16 KiB each 150 ms":    pieces(16<<10, 150*time.Millisecond),
		"16 KiB each 300 ms":    pieces(16<<10, 300*time.Millisecond),
		"64 KiB each 650 ms":    pieces(64<<10, 650*time.Millisecond),
		"64 KiB each 800 ms":    pieces(64<<10, 800*time.Millisecond),
		"80 kB/s":               limited,
	} {
		for _, delay := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond} {
			p := newPath(100*mbit, delay)
			l := p.links[0]
			p.run(10 * time.Second)
			sparse(l)
			p.run(time.Minute)
			p.rate = mbit
			p.run(10 * time.Second)
			l.piece, l.limit, l.measure = 0, 0, true
			p.run(20 * time.Second)
			if l.longest > beginning {
				t.Errorf("%s, %v: a message waits for %v then", name, 2*delay, l.longest)
			}
		}
	}
}

// TestPacerBursts: who sends much at once now and then keeps the window for it.
func TestPacerBursts(t *testing.T) {
	for _, piece := range []int{256 << 10, 1 << 20} {
		for _, gap := range []time.Duration{300 * time.Millisecond, 800 * time.Millisecond} {
			for _, delay := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond} {
				p := newPath(100*mbit, delay)
				l := p.links[0]
				p.run(10 * time.Second)
				l.piece, l.gap = piece, gap
				p.run(10 * time.Second)
				want := 0.95 * float64(piece) / (gap + time.Duration(float64(piece)/p.rate*float64(time.Second))).Seconds() / p.rate
				if share := p.share(l, time.Minute); share < want {
					t.Errorf("%d KiB each %v, %v: %.4f of the path is used, of %.4f", piece>>10, gap, 2*delay, share, want)
				}
			}
		}
	}
}

// TestPacerRecovers: how long nothing was reported for once says nothing of pauses later.
func TestPacerRecovers(t *testing.T) {
	for _, piece := range []int{16 << 10, 64 << 10} {
		p := newPath(100*mbit, 10*time.Millisecond)
		l := p.links[0]
		l.piece, l.gap = piece, 40*time.Millisecond
		p.run(10 * time.Second)
		l.held = p.now.Add(40 * time.Second)
		p.run(time.Minute + 40*time.Second)
		if l.pacer.span > time.Second {
			t.Errorf("pieces of %d: rounds of %v", piece, l.pacer.span)
		}
		l.quiet = true
		p.run(9 * time.Second)
		p.rate = mbit
		l.quiet, l.piece, l.measure = false, 0, true
		p.run(20 * time.Second)
		if l.longest > beginning {
			t.Errorf("pieces of %d: a message waits for %v after a pause", piece, l.longest)
		}
	}
}

// TestPacerPieces: a link that is given little at a time, and the next only a while after that has gone out, finds out all the same when its path has become
// longer.
func TestPacerPieces(t *testing.T) {
	for _, rate := range []float64{2, 20, 100} {
		for _, piece := range []int{8 << 10, 16 << 10, 64 << 10} {
			for _, gap := range []time.Duration{0, 1, 3, 5, 10, 40} { // ms
				for _, delay := range []time.Duration{60, 150, 300} { // ms
					p := newPath(rate*mbit, 10*time.Millisecond)
					l := p.links[0]
					l.piece, l.gap = piece, gap*time.Millisecond
					p.run(10 * time.Second)
					want := p.share(l, 5*time.Second)
					l.delay = delay * time.Millisecond
					p.run(2*jointGap + 10*time.Second)
					if share := p.share(l, 10*time.Second); share < 0.4*want {
						t.Errorf("%.0f Mbit/s, pieces of %d, the next %d ms later, %d ms: %.2f of the path is used, of %.2f", rate, piece, gap, 2*delay, share, want)
					}
				}
			}
		}
	}
}

// TestPacerLongProbe: links that wait in a probe for one that does not answer have had no pause.
func TestPacerLongProbe(t *testing.T) {
	for _, every := range []time.Duration{tickEvery, time.Second} { // as in a hidden tab
		p := newPath(100*mbit, slices.Repeat([]time.Duration{50 * time.Millisecond}, 3)...)
		deaf, other := p.links[0], p.links[1]
		other.piece = 256 << 10 // between two of which there is nothing to send
		p.run(jointGap + 5*time.Second)
		window := other.pacer.window()
		deaf.deaf = true
		other.pacer.low = lowRounds
		p.balance()
		longest := time.Duration(0)
		for at, began := p.now, p.now; p.now.Sub(at) < jointGap; {
			p.serve(every)
			p.balance()
			if other.pacer.probe == notProbing {
				began = p.now
			}
			longest = max(longest, p.now.Sub(began))
			if other.pacer.window() < window/2 {
				t.Fatalf("balanced every %v: a window of %d after one of %d", every, other.pacer.window(), window)
			}
		}
		if longest < stale {
			t.Errorf("balanced every %v: nobody waited for more than %v", every, longest)
		}
	}
}

// TestPacerPauseAndProbe: a pause is one whatever probe was under way in it, and so is the time in which a path was being looked for.
func TestPacerPauseAndProbe(t *testing.T) {
	for name, do := range map[string]func(p *path, l *simulated){
		"no probe": func(p *path, l *simulated) { p.run(9 * time.Second) },
		"nobody answers": func(p *path, l *simulated) {
			l.deaf = true
			p.run(500 * time.Millisecond)
			l.pacer.startProbe(p.now, false)
			p.run(probeEnd - time.Second)
		},
		"answered at the end": func(p *path, l *simulated) {
			l.deaf = true
			p.run(500 * time.Millisecond)
			l.pacer.startProbe(p.now, false)
			p.run(probeEnd - time.Second)
			l.pacer.giveUp(p.now)
			p.run(200 * time.Millisecond)
		},
		"two paths, and something to send": func(p *path, l *simulated) {
			l.deaf = true
			p.run(500 * time.Millisecond)
			l.pacer.forget(p.now)
			l.quiet = false
			p.run(3 * time.Second)
			l.deaf = false
			l.pacer.forget(p.now)
		},
	} {
		p := newPath(100*mbit, 10*time.Millisecond)
		l := p.links[0]
		p.run(10 * time.Second)
		l.quiet = true
		do(p, l)
		p.rate = mbit
		l.quiet, l.measure, l.longest = false, true, 0
		p.run(20 * time.Second)
		if l.longest > beginning {
			t.Errorf("%s: a message waits for %v", name, l.longest)
		}
	}
}

// TestPacerWaits: a round in which there was room and nothing to send takes from the rate only what its own first message has taken too long for.
func TestPacerWaits(t *testing.T) {
	const ms = time.Millisecond
	n := wire.MessageSize
	for _, late := range []bool{false, true} {
		began := time.Unix(1_700_000_000, 0)
		at := func(d time.Duration) time.Time { return began.Add(d) }
		var p pacer
		p.resume(at(0))
		for p.may(n) {
			p.sending(at(0), n)
		}
		p.idle(at(10 * ms))
		if p.waiting {
			t.Error("it waits for something to send, with a full window")
		}
		p.reported(at(50*ms), p.sent-1)
		p.idle(at(60 * ms)) // once more
		if !p.waiting || p.waitedAt != at(50*ms) || p.emptyAt != at(10*ms) {
			t.Errorf("waits %v since %v, with nothing to send since %v", p.waiting, p.waitedAt.Sub(began), p.emptyAt.Sub(began))
		}
		before, sends := p.rate, 550*ms // into the round
		if late {
			sends = 10 * ms
		}
		p.resume(at(50*ms + sends))
		p.sending(at(50*ms+sends), n)
		p.idle(at(51*ms + sends))
		p.reported(at(650*ms), p.sent)
		if fell := p.rate < before; fell != late {
			t.Errorf("a message takes %v: a rate of %.0f after one of %.0f", 600*ms-sends, p.rate, before)
		}
	}
}

// TestPacerSilent: a link whose peer says nothing is out of use in the end, whatever its last round took.
func TestPacerSilent(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for span, within := range map[time.Duration]time.Duration{20 * time.Millisecond: stale, 2 * time.Second: 6 * time.Second, time.Minute: probeEnd} {
		p := pacer{sent: 2, received: 1, span: span, reportedAt: now}
		if !p.active(now.Add(within)) || p.active(now.Add(within+time.Millisecond)) {
			t.Errorf("a round of %v: in use for other than %v", span, within)
		}
	}
}

// TestPacerFirstRound: it teaches the rate, also if the path has changed before it.
func TestPacerFirstRound(t *testing.T) {
	for _, changed := range []bool{false, true} {
		p := newPath(10*mbit, 10*time.Millisecond)
		l := p.links[0]
		l.quiet = true
		p.run(time.Second)
		if changed {
			l.pacer.forget(p.now)
			p.run(time.Second)
		}
		l.quiet = false
		for p.serve(tick); l.pacer.received == 0; {
			p.serve(tick)
		}
		for first := l.pacer.received; l.pacer.received == first; {
			p.serve(tick)
		}
		if l.pacer.rate == 0 {
			t.Errorf("path changed %v: nothing is known of the rate", changed)
		}
	}
}

// TestPacerClumps: what comes back in clumps, as over radio, does not hold a link at a few messages, however long the path is.
func TestPacerClumps(t *testing.T) {
	for _, every := range []time.Duration{20, 30, 40, 60} { // ms
		for _, delay := range []time.Duration{10, 80, 100, 125} { // ms
			p := newPath(1000*mbit, slices.Repeat([]time.Duration{delay * time.Millisecond}, 10)...)
			for _, l := range p.links {
				l.own = 40 * mbit
			}
			before := make([]uint64, len(p.links))
			for at := time.Duration(0); at < 20*time.Second; at += every * time.Millisecond {
				if at < 10*time.Second {
					for i, l := range p.links {
						before[i] = l.received
					}
				}
				for _, l := range p.links {
					l.held = p.now.Add((every - 5) * time.Millisecond)
				}
				p.run(every * time.Millisecond)
			}
			for i, l := range p.links {
				if used := float64(l.received-before[i]) / 10 / l.own; used < 0.9 {
					t.Errorf("%d ms, what comes in %d ms together: link %d uses %.3f of its path", delay, every, i, used)
				}
			}
		}
	}
}

// TestPacerHeld: what comes back late and then at once looks as if the path were fast, and does not fill it for longer and longer.
func TestPacerHeld(t *testing.T) {
	for _, rate := range []float64{4, 8, 40} {
		for _, delay := range []time.Duration{1, 5, 20, 100} { // ms
			p := newPath(rate*mbit, delay*time.Millisecond)
			l := p.links[0]
			p.run(10 * time.Second)
			l.measure = true
			p.run(30 * time.Second)
			usual := l.longest
			for i := range 20 {
				l.held = p.now.Add(time.Duration(200+i*7%20*25) * time.Millisecond)
				p.run(time.Duration(4000+i*13%20*300) * time.Millisecond)
			}
			if l.longest > 2*usual+2*slack {
				t.Errorf("%.0f Mbit/s, %d ms: a message waits for %v, usually %v", rate, delay, l.longest, usual)
			}
		}
	}
}

// TestPacerLatePong: a Pong that is late for once, because a packet was lost or the peer's program was busy, gives its link more than its share for
// no longer than it takes to probe again.
func TestPacerLatePong(t *testing.T) {
	for _, late := range []time.Duration{200 * time.Millisecond, time.Second} {
		for _, n := range []int{4, 10} {
			p := newPath(16*mbit, slices.Repeat([]time.Duration{10 * time.Millisecond}, n)...)
			p.run(40 * time.Second)
			if late == time.Second { // on a path that has become longer, too
				for _, l := range p.links {
					l.delay = 100 * time.Millisecond
				}
				p.run(2 * time.Minute)
			}
			p.links[1].late, p.links[2].alarm = late, true
			for rest := 2 * jointGap; p.links[1].late != 0; rest -= tickEvery {
				if p.run(tickEvery); rest < 0 {
					t.Fatal("no probe")
				}
			}
			p.links[2].alarm = false
			p.run(jointGap / 2)
			if jain, _ := p.spread(20 * time.Second); jain < 0.98 {
				t.Errorf("%d links, %v: Jain's index is %.4f", n, late, jain)
			}
		}
	}
}

// TestPacerLatePongAlone: a link that is alone asks again soon, too, and does not let its queue grow for a minute.
func TestPacerLatePongAlone(t *testing.T) {
	for _, late := range []time.Duration{200 * time.Millisecond, time.Second} {
		p := newPath(16*mbit, 10*time.Millisecond)
		l := p.links[0]
		p.run(20 * time.Second)
		l.late, l.alarm = late, true
		for rest := 2 * jointGap; l.late != 0; rest -= tickEvery {
			if p.run(tickEvery); rest < 0 {
				t.Fatal("no probe")
			}
		}
		l.alarm = false
		p.run(jointGap / 2)
		l.measure, l.longest = true, 0
		if p.run(10 * time.Second); l.longest > mostSlack+slack {
			t.Errorf("a Pong %v late: 12 s after it a message waits for %v", late, l.longest)
		}
	}
}

// TestPacerBurst: where what comes first passes at once, as shapers have it, links do not take that for the path's rate.
func TestPacerBurst(t *testing.T) {
	for _, burst := range []float64{16 << 10, 64 << 10, 1 << 20} {
		p := newPath(8*mbit, slices.Repeat([]time.Duration{time.Millisecond}, 10)...)
		p.burst = burst
		p.balance() // so that each knows how many there are
		for _, l := range p.links {
			l.measure = true
		}
		p.run(10 * time.Second)
		for i, l := range p.links {
			if l.longest > 5*slack+mostSlack-slack {
				t.Errorf("bursts of %.0f bytes: a message of link %d waits for %v", burst, i, l.longest)
			}
		}
	}
}

// spread runs for so long and returns Jain's index of what the links get, but for some, and which part of the path's rate all of them use.
func (p *path) spread(d time.Duration, but ...*simulated) (jain, used float64) {
	before := make([]uint64, len(p.links))
	for i, l := range p.links {
		before[i] = l.received
	}
	p.run(d)
	var n, sum, squares, all float64
	for i, l := range p.links {
		got := float64(l.received - before[i])
		if all += got; !slices.Contains(but, l) {
			n, sum, squares = n+1, sum+got, squares+got*got
		}
	}
	return sum * sum / (n * squares), all / d.Seconds() / p.rate
}

// TestPacerNewcomers: links that come one after the other, or have another path, get as much as the rest soon.
func TestPacerNewcomers(t *testing.T) {
	p := newPath(8*mbit, slices.Repeat([]time.Duration{10 * time.Millisecond}, 5)...)
	for _, l := range p.links[2:] {
		l.quiet = true
	}
	p.run(8 * time.Second)
	for _, l := range p.links[2:] {
		l.quiet = false
		p.run(8 * time.Second)
	}
	p.links[0].pacer.forget(p.now)
	p.run(8 * time.Second)
	if jain, used := p.spread(8 * time.Second); jain < 0.97 || used < 0.85 {
		t.Errorf("Jain's index is %.4f, %.2f of the path is used", jain, used)
	}
}

// TestPacerTogether: links that begin one shortly after the other, so that some come into use while those before them are probed, share soon.
func TestPacerTogether(t *testing.T) {
	p := newPath(100*mbit, slices.Repeat([]time.Duration{2 * time.Millisecond}, 10)...)
	p.run(2 * time.Second)
	for _, l := range p.links {
		l.quiet = true
	}
	p.run(time.Minute)
	p.rate = 5 * mbit
	for _, l := range p.links {
		l.quiet = false
		p.serve(50 * time.Millisecond)
	}
	p.balance()
	for range 16 {
		p.run(500 * time.Millisecond)
		for i, l := range p.links {
			if l.pacer.base > 2*l.delay+slack {
				t.Fatalf("link %d takes %v for its path's time", i, l.pacer.base)
			}
		}
	}
	if jain, used := p.spread(8 * time.Second); jain < 0.95 || used < 0.85 {
		t.Errorf("Jain's index is %.4f, %.2f of the path is used", jain, used)
	}
}

// TestPacerStart: links that come to a slow path while others use it do not put so much there at once that SCTP, which knows the path without a queue, takes
// what has not been acknowledged for lost.
func TestPacerStart(t *testing.T) {
	const timeout = 400 * time.Millisecond // Chromium's shortest (dcsctp's rto_min)
	for _, busy := range []int{0, 1, 3} {
		p := newPath(5*mbit, slices.Repeat([]time.Duration{5 * time.Millisecond}, 10)...)
		for i, l := range p.links {
			l.quiet, l.allowed = i >= busy, HighWater // their SCTP has sent much before
		}
		p.run(10 * time.Second)
		for _, l := range p.links {
			l.quiet, l.measure = false, true
		}
		p.run(5 * time.Second)
		for i, l := range p.links {
			if took := l.longest + 2*l.delay; took > timeout {
				t.Errorf("with %d in use before, what link %d sends takes %v", busy, i, took)
			}
		}
	}
}

// TestBalanceStep: one round moves a link's share as far up as down, however slow or fast it was. A first round is slow where the peer is asked something
// first, and a share that this alone had doubled took half a minute to come back.
func TestBalanceStep(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, factor := range []float64{1.1, 2, 10, 1000} {
		slow, middle, fast := &pacer{rate: 1e6 / factor}, &pacer{rate: 1e6}, &pacer{rate: 1e6 * factor}
		links := []*pacer{slow, middle, fast}
		for _, p := range links {
			p.sent, p.reportedAt, p.rounded, p.known = 1, now, true, true
		}
		balance(now, links)
		if up, down := slow.share-1, 1-fast.share; middle.share != 1 || up <= 0 || up > shareGain+1e-9 || math.Abs(up-down) > 1e-9 {
			t.Errorf("at %v times the others' rate: shares of %v, %v and %v", factor, slow.share, middle.share, fast.share)
		}
		if slow.behind <= 0 || slow.behind > 1 || middle.behind < 0 || middle.behind >= slow.behind || fast.behind >= 0 || fast.behind < -1 {
			t.Errorf("at %v times the others' rate: %v, %v and %v behind", factor, slow.behind, middle.behind, fast.behind)
		}
	}
}

// TestWindowBent: a link that gets less than the others has a queue of mostShare at most, however it comes to that.
func TestWindowBent(t *testing.T) {
	window := func(share, behind float64) uint64 {
		p := pacer{rate: 1e6, base: 10 * time.Millisecond, most: HighWater, inUse: 3, share: share, behind: behind}
		return p.window()
	}
	if want := window(mostShare, 0); window(mostShare, 1) != want || window(1, 1) != want || window(1, 0.5) >= want || window(1, 0) <= window(1, -1) || window(1, -1) <= window(0.5, -1) {
		t.Errorf("windows of %d, %d, %d, %d, %d, %d and %d bytes", want, window(mostShare, 1), window(1, 1), window(1, 0.5), window(1, 0), window(1, -1), window(0.5, -1))
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
		{"stuck in a probe", func(l *simulated) { l.mute = true; l.pacer.startProbe(l.pacer.reportedAt, true) }},
		{"slow", func(l *simulated) { l.own = 0.5 * mbit }},
		{"never drained", func(l *simulated) { l.dribble, l.alarm = true, true }},
		{"without answers to Pings", func(l *simulated) { l.own, l.deaf, l.pacer.known = 0.5*mbit, true, false }},
		{"evasive", func(l *simulated) { l.own, l.evasive, l.pacer.known = 0.5*mbit, true, false }},
		{"restarting", func(l *simulated) { l.own, l.flaps = 0.5*mbit, true }},
		{"made anew again and again", func(l *simulated) { l.own, l.deaf, l.remakes, l.pacer.known = 0.5*mbit, true, true, false }},
		{"made anew, and in need of a probe", func(l *simulated) { l.own, l.deaf, l.remakes, l.alarm = 0.5*mbit, true, true, true }},
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
			want := 0.92 - a.own/rate
			if a.remakes { // it keeps the probe waiting
				want -= 0.03
			}
			if share < want {
				t.Errorf("%s, %d ms: the other gets %.3f of the path", c.name, delay, share)
			}
			if own := p.share(a, 2*jointGap) * rate; (a.deaf && !a.remakes || a.evasive) && own < a.own/4 { // a probe ends, whatever the peer does
				t.Errorf("%s, %d ms: it gets %.2f of what it can use", c.name, delay, own/a.own)
			}
		}
	}
}

// TestPacerHoarder: a peer that reports as seldom as it can has no more on its way for that than a peer may wait for.
func TestPacerHoarder(t *testing.T) {
	p := newPath(8*mbit, 20*time.Millisecond, 20*time.Millisecond)
	a, b := p.links[0], p.links[1]
	p.run(jointGap)
	a.hoards, b.measure = true, true
	for range 100 {
		p.run(time.Second)
		if n := a.pacer.window(); n > mostReport*5/4 {
			t.Fatalf("%d bytes may be on their way", n)
		}
	}
	if most := 2 * time.Duration(mostReport/p.rate*float64(time.Second)); b.longest > most {
		t.Errorf("another's message waits for %v", b.longest)
	}
}

// TestPacerManyProbes: who has the others probe as often as they do costs them no more than this, neither at once nor later.
func TestPacerManyProbes(t *testing.T) {
	const rate = 30 * mbit
	for _, delay := range []time.Duration{1, 20, 100, 200} {
		p := newPath(rate, delay*time.Millisecond, delay*time.Millisecond)
		a, b := p.links[0], p.links[1]
		p.run((jointBurst + 1) * jointGap)
		a.own, a.deaf, a.remakes, a.alarm = 0.5*mbit, true, true, true
		a.pacer.known = false
		if first, later := p.share(b, jointGap), p.share(b, 4*jointGap); first < 0.65 || later < 0.9 {
			t.Errorf("%d ms: the other gets %.3f of the path at first and %.3f later", delay, first, later)
		}
	}
}

// TestPacerManyOnAPoorPath: ten links do not flood a path of a megabit per second, neither at first nor later.
func TestPacerManyOnAPoorPath(t *testing.T) {
	p := newPath(mbit, slices.Repeat([]time.Duration{50 * time.Millisecond}, 10)...)
	for _, l := range p.links {
		l.quiet = true
	}
	p.run(time.Second)
	longest := func(d time.Duration) (longest time.Duration) {
		for _, l := range p.links {
			l.quiet, l.measure, l.longest = false, true, 0
		}
		p.run(d)
		for _, l := range p.links {
			longest = max(longest, l.longest)
		}
		return longest
	}
	first := longest(10 * time.Second)
	later := longest(60 * time.Second)
	// Each has three of the shortest messages on its way, and one more or less makes a difference.
	own := time.Duration(10 * 3 * wire.MinMessageSize / p.rate * float64(time.Second))
	if first > own+time.Second || later > own+6*slack {
		t.Errorf("a message waits for %v at first and for %v later", first, later)
	}
	if jain, used := p.spread(time.Minute); jain < 0.96 || used < 0.97 {
		t.Errorf("Jain's index is %.4f, %.2f of the path is used", jain, used)
	}
}

// TestPacerLimited: who sends less than the path carries, because of a limit say, does not fill the queue of a path that has become slower.
func TestPacerLimited(t *testing.T) {
	p := newPath(10e6, 20*time.Millisecond)
	l := p.links[0]
	p.run(5 * time.Second)
	p.rate = 150e3
	l.limit = 200e3
	p.run(20 * time.Second)
	l.measure, l.longest = true, 0
	p.run(10 * time.Second)
	if limit := 5*slack + mostSlack; l.longest == 0 || l.longest > limit {
		t.Errorf("a message waits for %v, want %v at most", l.longest, limit)
	}
}

// TestPacerAfterPause: a path that has become slower while there was nothing to send is not flooded with what it carried before, whatever of that has not
// been reported; and it is used although the peer's clock has not seen the pause.
func TestPacerAfterPause(t *testing.T) {
	const pause = 30 * time.Second
	for _, kind := range []struct {
		name          string
		rate          float64
		asleep        bool // the peer's clock, nearly as long
		before, after bool // the path is known to be another before anything is sent, or shortly after that
	}{
		{name: "slower", rate: 2 * mbit},
		{name: "another path", rate: 2 * mbit, before: true},
		{name: "slower, asleep", rate: 2 * mbit, asleep: true},
		{name: "as fast, asleep", rate: 160 * mbit, asleep: true},
		{name: "another path soon, asleep", rate: 2 * mbit, asleep: true, after: true},
	} {
		for _, n := range []int{1, 4, 10} {
			for rest := 0; rest < 512<<10; rest += 120_000 {
				p := newPath(160*mbit, slices.Repeat([]time.Duration{10 * time.Millisecond}, n)...)
				p.run(5 * time.Second)
				for _, l := range p.links {
					l.quiet = true
				}
				p.run(500 * time.Millisecond)
				for _, l := range p.links { // of which the peer reports some, if it comes to its step
					for sent := 0; sent < rest; sent += 10_000 {
						l.send(p.now, 10_000)
					}
				}
				p.run(pause)
				p.rate = kind.rate
				forget := func(d time.Duration) {
					for _, l := range p.links {
						l.pacer.forget(p.now)
					}
					p.run(d)
				}
				if kind.before {
					forget(500 * time.Millisecond)
				}
				for _, l := range p.links {
					l.quiet, l.measure = false, true
					if kind.asleep {
						l.asleep = pause + 400*time.Millisecond
					}
				}
				p.run(200 * time.Millisecond)
				if kind.after {
					forget(0)
				}
				p.run(5 * time.Second)
				if _, used := p.spread(5 * time.Second); used < 0.85 {
					t.Errorf("%s, %d links, %d: %.2f of the path is used", kind.name, n, rest, used)
				}
				most := startWindow
				if kind.asleep { // then the peer may wait for all that a peer can
					most = mostReport * 5 / 4
				}
				limit := time.Duration(float64(most+n*wire.MinMessageSize)/p.rate*float64(time.Second)) + slack + mostSlack
				for _, l := range p.links {
					if l.longest > limit {
						t.Errorf("%s, %d links, %d: a message waits for %v", kind.name, n, rest, l.longest)
					}
				}
			}
		}
	}
}

// TestPacerAdapts: a link whose own path becomes bad takes what that carries, the others have the rest; and back.
func TestPacerAdapts(t *testing.T) {
	p := newPath(16*mbit, slices.Repeat([]time.Duration{10 * time.Millisecond}, 4)...)
	for _, own := range []float64{0, 1 * mbit, 0} {
		p.links[0].own = own
		p.run(30 * time.Second)
		before := p.links[1].received
		share, other := p.share(p.links[0], 10*time.Second), float64(p.links[1].received-before)/10/p.rate
		want := 0.25
		if own > 0 {
			want = own / p.rate
		}
		if rest := (1 - want) / 3; share < 0.9*want || share > 1.1*want || other < 0.9*rest {
			t.Errorf("with %.0f Mbit/s of its own it gets %.3f of the path and another %.3f", own/mbit, share, other)
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
				p.run(15*time.Second + 80*delay*time.Millisecond)
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

// TestPacerNewSlowPath: what a fast path has had on its way may take longer over a slow one than a Pong is waited for. That is no reason to take our own
// queue for the path's own time.
func TestPacerNewSlowPath(t *testing.T) {
	for _, rate := range []float64{0.5 * mbit, mbit, 2 * mbit} {
		p := newPath(64*mbit, 20*time.Millisecond)
		l := p.links[0]
		p.run(5 * time.Second)
		p.rate = rate
		for n := 0; n < HighWater; n += wire.MinMessageSize {
			l.pacer.sending(p.now, wire.MinMessageSize)
			l.buffer, l.buffered = append(l.buffer, message{wire.MinMessageSize, l.pacer.sent}), l.buffered+wire.MinMessageSize
		}
		l.pacer.forget(p.now)
		p.run(time.Duration(HighWater/rate*float64(time.Second)) + 20*time.Second)
		l.measure, l.longest = true, 0
		if share := p.share(l, 10*time.Second); share < 0.97 || l.longest > 5*slack {
			t.Errorf("%.1f Mbit/s: %.3f of the path is used, and a message waits for %v", rate/mbit, share, l.longest)
		}
	}
}

// TestPacerNoProgress: a peer that says the same again and again does not keep a probe from its end.
func TestPacerNoProgress(t *testing.T) {
	var p pacer
	now := time.Unix(1_700_000_000, 0)
	p.sending(now, wire.MessageSize)
	p.startProbe(now, false)
	for end := now.Add(probeEnd + time.Second); now.Before(end); now = now.Add(tickEvery) {
		if !p.reported(now, 0) {
			t.Fatal("refused")
		}
		balance(now, []*pacer{&p})
	}
	if p.probe != notProbing {
		t.Error("the probe has not ended")
	}
}

// told is what a channel has told.
type told struct{ total uint64 }

func (*told) Next(_ context.Context, n int) (int, error) { return n, nil }

func (p *told) Arrived(total uint64) { p.total = total }

func (p *told) Due() (total uint64, within time.Duration) { return p.total + 1, time.Second }

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
