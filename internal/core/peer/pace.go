package peer

import (
	"slices"
	"time"

	"tallow/internal/core/wire"
)

const (
	// startWindow is what all links together may have on their way before anything is known of the path.
	startWindow = 256 << 10
	// alike is what every link may have on its way besides what its rate allows it.
	alike = 2 * wire.MinMessageSize
	// Reports are about reportGap apart, and about from leastReport to mostReport bytes. The rate behind that is smoothed over reportSpan.
	leastReport = wire.MinMessageSize
	mostReport  = 8 * wire.MessageSize
	reportGap   = 25 * time.Millisecond
	reportSpan  = 200 * time.Millisecond
	// slack is how long the queue on the path may be: what keeps it busy while reports and the two programs take their time.
	// Fast paths are fast because they end in processors, whose programs run when they get to; there it grows to the platform's mostSlack
	// at fastRate and beyond.
	slack    = 100 * time.Millisecond
	fastRate = 8 << 20 // bytes per second
	// mostRTT is what a longer round trip counts as: with any more, a window is full at all but the slowest rates.
	mostRTT = time.Minute
	// assumedRTT is taken for the path's round-trip time until it is known.
	assumedRTT = 50 * time.Millisecond
	// probeGap is how long what a probe has found counts, where that is not the shortest ever; lowRounds is after how many rounds at less
	// than two thirds of the rate before there is another probe, jointGap how often at most links probe together (a quarter of it where
	// one has not been probed yet), and probeMost how long one waits for the others.
	probeGap  = time.Minute
	lowRounds = 3
	jointGap  = 25 * time.Second
	probeMost = time.Second
	// stale is for how long at least a link whose peer reports nothing counts in what is balanced between links.
	stale = time.Second
)

// pacer decides how much may be on its way to the peer over the bulk channel: sent, and not yet reported as received. A queue
// without such a bound is as long as the slowest buffer on the path, which overflows; then SCTP, whose sender side this
// program cannot see, goes back to a fraction of the path's rate.
//
// The window is what the path carries in its own round-trip time, and a queue of some slack, as in FAST TCP (Wei, Jin, Low and Hegde,
// 2006): in equilibrium the queue on the path has just that length, and links that share it get of it what they have in it.
// The window hangs on reports that arrive, not on a timer, so that a hidden tab is as fast as another; the time that balance is called at only has
// probes begin and end, and shares move. It is a pure machine.
//
// Delay that is not our queue (somebody else's, a processor's that has much to do, or a path's that has become longer) would have it give
// way until nothing is left, as every such scheme does. So it probes the path's own time, as BBR does (Cardwell and others, 2016): for a
// moment little is on its way, on any link in use, and how much sooner that arrives says how much of the delay is ours.
type pacer struct {
	sent, received uint64        // bytes of records over the bulk channel
	step           uint64        // of the last report
	base           time.Duration // what the path takes without our queue
	rate           float64       // bytes per second that the peer receives, smoothed over rounds; 0: unknown
	share          float64       // of the slack; 0 counts as 1
	links          int           // that are open, this one among them
	rounded        bool          // a round has ended since the share has moved
	round          mark
	idleAt         time.Time
	floor          time.Duration // the shortest that base has been
	last           round         // when the window was full
	peak           float64       // the highest rate since the last probe
	low            int           // rounds at less than two thirds of it
	known          bool          // the floor has been probed
	found          time.Duration // what little took in the last probe
	joint          bool          // others are probed with it
	fresh          bool          // the path is new, and has not been probed yet
	probe          probe
	probedAt       time.Time // when the last probe of all links began
	reportedAt     time.Time
}

// round is what a round has found: so many bytes were on their way, and the last of them took so long.
type round struct {
	bytes uint64
	span  time.Duration
}

// probe is the state of a probe: the queue drains, and at the next call of balance a message goes out, and what it takes is measured.
type probe uint8

const (
	notProbing probe = iota
	draining
	ready
	measuring
	held // it is over, and others' is not
)

// mark is the moment at which a round begins; it ends when everything that had been sent by then has been received.
type mark struct {
	at             time.Time
	sent, received uint64
}

// window is how many bytes may be on their way.
func (p *pacer) window() uint64 {
	// What comes in steps needs room for the steps, and what the peer waits for must be on its way although a message of up to an
	// eighth of the window may not fit.
	least := p.due() + max(wire.MinMessageSize, p.step/2)
	if p.rate == 0 {
		return max(startWindow/uint64(max(1, p.links)), least)
	}
	base := p.base
	if base == 0 {
		base = assumedRTT
	}
	share := p.share
	if share == 0 {
		share = 1
	}
	return min(max(uint64(p.rate*(base+5*reportGap/2+time.Duration(share*float64(p.queue()))).Seconds())+alike, least), HighWater)
}

// queue is how long the queue on the path may be, where the link's share is 1.
func (p *pacer) queue() time.Duration {
	return slack + time.Duration(min(1, p.rate/fastRate)*float64(mostSlack-slack))
}

// may reports whether a message of n bytes may be sent now. One always may when none is on its way.
func (p *pacer) may(n int) bool {
	flying := p.sent - p.received
	switch {
	case flying == 0:
		return true
	case p.probe == draining:
		return flying+uint64(n) < p.due()
	case p.probe != notProbing: // no more than the peer needs to report
		return flying < p.due()
	}
	return flying+uint64(n) <= p.window()
}

// due is how many bytes the peer may wait for before it reports: it doubles its step at most.
func (p *pacer) due() uint64 { return max(2*p.step, leastReport) }

// message is how long the next message should be at most: short on a slow path, where a message of the control channel
// waits for the one before it.
func (p *pacer) message() int {
	return min(max(int(p.window()/8)/wire.MinMessageSize*wire.MinMessageSize, wire.MinMessageSize), wire.MessageSize)
}

// sending notes that a message goes out.
func (p *pacer) sending(now time.Time, n int) {
	if p.sent == p.received || p.probe == ready {
		p.round = mark{now, p.sent, p.received}
		if p.probe == ready {
			p.probe = measuring
		}
	}
	p.sent += uint64(n)
}

// idle notes that there was room in the window and nothing to send: the rate then says nothing about the path.
func (p *pacer) idle(now time.Time) { p.idleAt = now }

// reported takes the peer's report. It is false for one that cannot be: of less than before, or of more than was sent.
func (p *pacer) reported(now time.Time, received uint64) bool {
	if received < p.received || received > p.sent {
		return false
	}
	p.step, p.received, p.reportedAt = received-p.received, received, now
	span := now.Sub(p.round.at)
	if received <= p.round.sent || span <= 0 {
		return true
	}
	p.measured(span)
	p.rounded = true
	found := round{p.round.sent - p.round.received, span}
	sample := float64(received-p.round.received) / span.Seconds()
	idle := !p.idleAt.Before(p.round.at) && span < p.base+mostShare*p.queue()
	switch {
	case sample <= p.rate && (idle || p.probe != notProbing): // who had nothing to send has learnt how fast the path is at least
	case sample >= 2*p.rate || sample <= p.rate/2, // the first, or the path has changed
		sample > p.rate && span < p.base+slack/2: // or there is no queue yet
		p.rate = sample
	default:
		p.rate += (sample - p.rate) / 2
	}
	p.peak, p.low = max(p.peak, p.rate), p.low+1
	if p.rate > p.peak*2/3 {
		p.low = 0
	}
	switch {
	case p.probe == measuring:
		p.found = span
		p.endProbe(now, p.probed(found))
	case p.probe == notProbing && p.idleAt.Before(p.round.at):
		p.last = found
	}
	p.round = mark{now, p.sent, received}
	return true
}

// probed takes what a probe has found: what little, as compared with a full window, takes is drawn out to what nothing would take. It is
// false where the others' queue has grown meanwhile, so that the probe says nothing.
func (p *pacer) probed(found round) bool {
	if found.span > p.last.span+slack/2 {
		p.last = round{}
		return false
	}
	if found.bytes*4/3 > p.last.bytes || p.joint && !p.known { // what links found that have just begun is no measure
		return true
	}
	perByte := max(0, float64(p.last.span-found.span)/float64(p.last.bytes-found.bytes))
	p.base = found.span - time.Duration(perByte*float64(found.bytes+uint64(p.message())))
	if p.base < p.floor+slack { // a round has steps, and the others do not drain at the same moment
		p.base = p.floor
	}
	return true
}

// wantsProbe reports whether the path should be probed.
func (p *pacer) wantsProbe(now time.Time) bool {
	return p.last.bytes > 0 && (p.low >= lowRounds || p.base > p.floor && now.Sub(p.probedAt) > probeGap)
}

// startProbe begins a probe, unless one is under way.
func (p *pacer) startProbe(now time.Time, joint bool) {
	if p.probe == notProbing {
		p.probe, p.probedAt, p.joint = draining, now, joint
	}
}

// endProbe ends one. The round that follows begins with little on its way, so its rate says nothing of the path.
func (p *pacer) endProbe(now time.Time, found bool) {
	p.probe = held
	if !p.joint {
		p.known = !p.fresh
		p.release(now)
	}
	switch {
	case p.fresh:
		p.rate, p.fresh = 0, false
	case !found:
		return
	}
	p.peak, p.low = p.rate, 0
}

// release has the window count again.
func (p *pacer) release(now time.Time) { p.probe, p.idleAt = notProbing, now }

// drained reports whether a probe has as little on its way as it needs to go on, at the next call of balance.
func (p *pacer) drained() bool { return p.probe == draining && p.sent-p.received < p.due() }

// active reports whether the link is in use: something is on its way, and the peer reports.
func (p *pacer) active(now time.Time) bool {
	return p.sent != p.received && now.Sub(p.reportedAt) < max(stale, 3*p.last.span)
}

// forget forgets what was learnt of the path, as there is another. It begins with a probe: what is on its way, or would be, is no measure.
func (p *pacer) forget(now time.Time) {
	p.base, p.floor, p.rate = 0, 0, 0
	p.last, p.probe, p.fresh, p.joint, p.known, p.share = round{}, draining, true, false, false, 1
	p.round = mark{now, p.sent, p.received}
}

// measured takes a round-trip time: the path is not longer.
func (p *pacer) measured(rtt time.Duration) {
	rtt = min(max(rtt, time.Millisecond), mostRTT)
	if p.floor == 0 || rtt < p.floor {
		p.floor = rtt
	}
	if p.base == 0 || rtt < p.base {
		p.base = rtt
	}
}

// reporter decides at the receiving end when to report: about once in reportGap, so that reports clock the sender, and cost
// little on a fast path.
type reporter struct {
	reported uint64
	at       time.Time
	rate     float64 // bytes per second, smoothed over reportSpan
	step     uint64
}

// due is how many bytes must have been received for the next report.
func (r *reporter) due() uint64 { return r.reported + max(r.step, leastReport) }

// report notes that a report goes out. The step at most doubles: the sender counts on it.
func (r *reporter) report(now time.Time, received uint64) {
	step := uint64(mostReport) // a clock that has not moved
	if gap := now.Sub(r.at).Seconds(); gap > 0 {
		sample := float64(received-r.reported) / gap
		r.rate += (sample - r.rate) * min(1, gap/reportSpan.Seconds())
		step = max(uint64(r.rate*reportGap.Seconds()), leastReport)
	}
	r.step = min(step, 2*max(r.step, leastReport), mostReport)
	r.reported, r.at = received, now
}

// mostShare bounds how far a link's window is bent towards what the others get, and shareGain is how fast: by so much
// per round where it gets twice or none of it. A tenth of that pulls it back, or all would drift together.
const (
	mostShare = 2
	shareGain = 0.1
)

// release ends a probe of several links. What a link that knows its path has found too much is the others' queue, of which the one has seen as much
// that does not.
func release(now time.Time, links []*pacer) {
	var others time.Duration
	for _, p := range links {
		if p.probe == held && p.known && (others == 0 || p.found-p.floor < others) {
			others = max(p.found-p.floor, 1)
		}
	}
	for _, p := range links {
		if p.probe == held {
			if !p.known {
				p.known = true
				p.measured(p.found - others)
			}
			p.release(now)
		}
	}
}

// balance has links share alike what they share of a path: what a link gets of a queue that it shares is what it has in it, so a link that
// gets less than the middle one comes to have more on its way, and the others less. What a link has to itself stays its own, as its window has
// slack. It also has them probe together: one alone would take the others' queues for the path's own delay, and each would make way for the
// other's growing. As reports can be made up, that is not often, and links that are not in use count for nothing.
func balance(now time.Time, links []*pacer) {
	var rates []float64
	active, wanted, probing := 0, false, false
	gap := jointGap
	var probedAt time.Time
	for _, p := range links {
		if !p.active(now) {
			continue
		}
		active++
		if p.rate > 0 {
			rates = append(rates, p.rate)
		}
		if p.probe == notProbing { // one that does not get to the end of a probe asks for no other
			if !p.known && p.last.bytes > 0 {
				wanted, gap = wanted || len(links) > 1, jointGap/4
			}
			wanted = wanted || p.wantsProbe(now)
		}
		probing = probing || p.probe != notProbing && p.probe != held && !p.fresh && now.Sub(p.probedAt) <= probeMost // nor is it waited for
		if p.probedAt.After(probedAt) {
			probedAt = p.probedAt
		}
	}
	middle := 0.0
	if n := len(rates); n > 0 {
		slices.Sort(rates)
		middle = (rates[(n-1)/2] + rates[n/2]) / 2
	}
	if !probing {
		release(now, links)
	}
	probe := wanted && (active == 1 || now.Sub(probedAt) > gap)
	for _, p := range links {
		p.links = len(links)
		if p.drained() { // at the same moment as others, but it waits for none
			p.probe = ready
		}
		if !p.active(now) {
			p.share = 1
			continue
		}
		if p.share == 0 {
			p.share = 1
		}
		if p.rounded && p.rate > 0 {
			p.rounded = false
			p.share += shareGain * (middle/p.rate - 1 + (1-p.share)/10)
			p.share = min(max(p.share, 1.0/mostShare), mostShare)
		}
		if probe {
			p.startProbe(now, active > 1)
		}
	}
}
