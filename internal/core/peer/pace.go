package peer

import (
	"time"

	"tallow/internal/core/wire"
)

const (
	// startWindow is the window before anything is known of the path, leastWindow the least one: less than two messages
	// would leave the path idle while a report is on its way.
	startWindow = 256 << 10
	leastWindow = 2 * wire.MinMessageSize
	// Reports are about reportGap apart, and about from leastReport to mostReport bytes. The rate behind that is smoothed over reportSpan.
	leastReport = wire.MinMessageSize
	mostReport  = 8 * wire.MessageSize
	reportGap   = 25 * time.Millisecond
	reportSpan  = 200 * time.Millisecond
	// slack is how long the queue on the path may be: what keeps it busy while reports and the two programs take their time.
	// Fast paths are fast because they end in processors, whose programs run when they get to; there it grows to mostSlack at
	// fastRate and beyond.
	slack     = 100 * time.Millisecond
	mostSlack = 500 * time.Millisecond
	fastRate  = 8 << 20 // bytes per second
	// assumedRTT is taken for the path's round-trip time until it is known.
	assumedRTT = 50 * time.Millisecond
)

// pacer decides how much may be on its way to the peer over the bulk channel: sent, and not yet reported as received. A queue
// without such a bound is as long as the slowest buffer on the path, which overflows; then SCTP, whose sender side this
// program cannot see, goes back to a fraction of the path's rate.
//
// The window is what the path carries in its own round-trip time, and a queue of some slack, as in FAST TCP (Wei, Jin, Low and Hegde,
// 2006): in equilibrium the queue on the path has just that length, and links that share it get of it what they have in it.
// Everything hangs on reports that arrive, nothing on a timer, so that a hidden tab is as fast as another. It is a pure machine.
type pacer struct {
	sent, received uint64 // bytes of records over the bulk channel
	step           uint64 // of the last report
	base           time.Duration
	rate           float64 // bytes per second that the peer receives, smoothed over rounds; 0: unknown
	share          float64 // of the slack; 0 counts as 1
	round          mark
	idleAt         time.Time
}

// mark is the moment at which a round begins; it ends when everything that had been sent by then has been received.
type mark struct {
	at             time.Time
	sent, received uint64
}

// window is how many bytes may be on their way.
func (p *pacer) window() uint64 {
	// What comes in steps needs room for the steps. The peer doubles its own at most, and what it waits for must be on its way
	// although a message of up to an eighth of the window may not fit.
	least := leastWindow + 5*p.step/2
	if p.rate == 0 {
		return max(startWindow, least)
	}
	base := p.base
	if base == 0 {
		base = assumedRTT
	}
	share := p.share
	if share == 0 {
		share = 1
	}
	queue := slack + time.Duration(min(1, p.rate/fastRate)*float64(mostSlack-slack))
	return min(uint64(p.rate*(base.Seconds()+share*queue.Seconds()))+least, HighWater)
}

// may reports whether a message of n bytes may be sent now. One always may when none is on its way.
func (p *pacer) may(n int) bool {
	flying := p.sent - p.received
	return flying == 0 || flying+uint64(n) <= p.window()
}

// message is how long the next message should be at most: short on a slow path, where a message of the control channel
// waits for the one before it.
func (p *pacer) message() int {
	return min(max(int(p.window()/8)/wire.MinMessageSize*wire.MinMessageSize, wire.MinMessageSize), wire.MessageSize)
}

// sending notes that a message goes out.
func (p *pacer) sending(now time.Time, n int) {
	if p.sent == p.received {
		p.round = mark{now, p.sent, p.received}
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
	p.step, p.received = received-p.received, received
	span := now.Sub(p.round.at)
	if received <= p.round.sent || span <= 0 {
		return true
	}
	sample := float64(received-p.round.received) / span.Seconds()
	switch limited := !p.idleAt.Before(p.round.at); {
	case limited && sample <= p.rate: // who had nothing to send has learnt how fast the path is at least
	case sample >= 2*p.rate || sample <= p.rate/2: // the first, or the path has changed
		p.rate = sample
	default:
		p.rate += (sample - p.rate) / 2
	}
	p.round = mark{now, p.sent, received}
	return true
}

// measured takes a round-trip time of the control channel.
func (p *pacer) measured(rtt time.Duration) {
	if p.base == 0 || rtt < p.base {
		p.base = max(rtt, time.Millisecond)
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

// mostShare bounds how far a link's window is bent towards what the others get.
const mostShare = 2

// shareOf is the share to tell the pacer of link i, of links that send at these rates: what a link gets of a queue that it
// shares is what it has in it, so a link that gets less than the mean may have more on its way, and the others less. What a link has to
// itself stays its own, as its window has slack.
func shareOf(rates []float64, i int) float64 {
	sum, n := 0.0, 0
	for _, rate := range rates {
		if rate > 0 {
			sum += rate
			n++
		}
	}
	if n < 2 || rates[i] == 0 {
		return 1
	}
	return min(max(sum/float64(n)/rates[i], 1/mostShare), mostShare)
}
