package peer

import (
	"math"
	"time"

	"tallow/internal/core/wire"
)

const (
	// startWindow is what all open links together may have on their way before anything is known of the path, and after a pause.
	startWindow = 128 << 10
	// alike is what the links in use may have on their way besides what their rates allow them, in equal parts, which are from leastAlike to mostAlike each.
	alike      = 64 << 10
	leastAlike = 2 * wire.MinMessageSize
	mostAlike  = 4 * wire.MinMessageSize
	// Reports are about reportGap apart, and about from leastReport to mostReport bytes. The rate behind that is smoothed over reportSpan.
	leastReport = wire.MinMessageSize
	mostReport  = 8 * wire.MessageSize
	reportGap   = 25 * time.Millisecond
	reportSpan  = 200 * time.Millisecond
	// slack is how long the queue on the path may be: what keeps it busy while reports and the two programs take their time.
	// Fast paths are fast because they end in processors, whose programs run when they get to; there it grows to the platform's mostSlack
	// at fastRate and beyond, for a link that is alone in use.
	slack    = 100 * time.Millisecond
	fastRate = 8 << 20 // bytes per second
	// mostRTT is what a longer round trip counts as: with any more, a window is full at all but the slowest rates.
	mostRTT = time.Minute
	// assumedRTT is taken for the path's round-trip time until it is known.
	assumedRTT = 50 * time.Millisecond
	// probeGap is how long what a probe has found counts, where that is not the shortest ever; lowRounds is after how many rounds at less
	// than two thirds of the rate before there is another probe, jointGap how often at most links probe together (a quarter of it where
	// one is alone, or does not know its path; but joint ones no more than that in the long run, whoever they are for, with jointBurst at once, as
	// those that come one after the other need), loneProbe for how long one is in use before its path is looked at once in probeGap where it is
	// alone, probeMost how long one waits for the others, probeEnd how long for a Pong or for something of what is on its way, and pingLead how long at least
	// the second Ping has the path to itself: bulk that waits is sealed already, and would overtake it.
	probeGap   = time.Minute
	loneProbe  = 5 * time.Second
	lowRounds  = 3
	jointGap   = 25 * time.Second
	jointBurst = 4
	probeMost  = time.Second
	probeEnd   = 10 * time.Second
	pingLead   = 50 * time.Millisecond
	// stale is for how long at least a link whose peer reports nothing counts in what is balanced between links, and what one had on its way that has
	// had nothing to send counts for its next window. Peers report in smaller steps after that (PROTOCOL.md section 8).
	stale = time.Second
)

// pacer decides how much may be on its way to the peer over the bulk channel: sent, and not yet reported as received. A queue
// without such a bound is as long as the slowest buffer on the path, which overflows; then SCTP, whose sender side this
// program cannot see, goes back to a fraction of the path's rate.
//
// The window is what the path carries in its own round-trip time, and a queue of some slack, as in FAST TCP (Wei, Jin, Low and Hegde,
// 2006): in equilibrium the queue on the path has just that length, and links that share it get of it what they have in it.
// The window hangs on reports that arrive, not on a timer, so that a hidden tab is as fast as another; the time that balance is called at only has
// probes begin and end, and links compared, and a peer nudged whose clock has slept. It is a pure machine.
//
// Delay that is not our queue (somebody else's, a processor's that has much to do, or a path's that has become longer) would have it give
// way until nothing is left, as every such scheme does. So it probes the path's own time, as BBR does (Cardwell and others, 2016): for a
// moment nothing more goes out, on any link in use, and what a Ping takes when all has arrived is not ours.
type pacer struct {
	sent, received uint64        // bytes of records over the bulk channel
	step           uint64        // that the peer reports in
	doubted        bool          // it may be more, as the peer's clock may not have seen a pause
	resumed        uint64        // what had been sent when a pause has ended, until a report of more
	nudge          bool          // one message may go out whatever is on its way
	sentAt         time.Time     // when the last message went out
	base           time.Duration // what the path takes without our queue
	rate           float64       // bytes per second that the peer receives, smoothed over rounds; 0: unknown
	most           uint64        // the most bytes that have been on their way at once lately, and have arrived
	flight         uint64        // the most that have been since the round began
	share          float64       // of the slack; 0 counts as 1
	behind         float64       // by how many powers of two the others are faster, see compare; from -1 to 1
	links          int           // that are open, this one among them
	inUse          int           // of them
	rounded        bool          // a round has ended since the share has moved
	round          mark
	busyAt         time.Time     // since when there has been no pause
	emptyAt        time.Time     // since when there is nothing to send; zero: there is something
	waiting        bool          // for that, as the window has room
	waitedAt       time.Time     // when it last waited, or began to
	halvedAt       time.Time     // when most last was for that
	floor          time.Duration // the shortest that base has been
	span           time.Duration // of the last full round
	peak           float64       // the highest rate since the last probe
	low            int           // rounds at less than two thirds of it
	known          bool          // the path need not be probed: that has been done with all that was under way, or came to nothing
	joint          bool          // others are probed with it
	fresh          bool          // the path is new, and has not been probed yet
	probe          probe
	probedAt       time.Time // when the last probe began
	joinedTo       time.Time // up to when the ones with others are used up, where each counts for jointGap
	pinged         time.Time // when its last Ping was asked for
	token          uint64    // of it
	ask            bool      // for it to go out
	awaits         bool      // its Pong
	reportedAt     time.Time
	progressAt     time.Time // when the last report was of more than the one before
}

// probe is the state of a probe. Nothing more goes out, and a Ping follows what is on its way, as peers do not report the last bytes. When all has arrived
// on all links that are probed together, a second Ping finds next to nothing of ours before it (due, which peers do not report yet), and what goes out
// after it is behind it. A link that comes into use while others drain is probed with them. One that does later is not held; the time that is found may
// then be too long, and is asked for again.
type probe uint8

const (
	notProbing probe = iota
	draining
	measuring
)

// mark is the moment at which a round begins; it ends when everything that had been sent by then has been received.
type mark struct {
	at             time.Time
	sent, received uint64
	flight         uint64    // the most bytes that were on their way at once in the round before
	little         bool      // was on its way: a probe or a pause has just ended
	first          time.Time // when the first message of the round itself went out
}

// window is how many bytes may be on their way.
func (p *pacer) window() uint64 {
	// What comes in steps needs room for the steps, and what the peer waits for must be on its way although a message of up to an
	// eighth of the window may not fit.
	least := p.due() + max(wire.MinMessageSize, p.due()/4)
	start := max(startWindow/uint64(max(1, p.links)), least)
	if p.rate == 0 {
		return start
	}
	// Many paths let a burst pass at once and are slow from then on, so that the first round's rate may be many times the path's. Reports that had to
	// wait and come together look as fast. What has been on its way and has arrived is what a path is known to bear.
	highest := min(max(start, p.most*5/3), HighWater)
	base := p.base
	if base == 0 {
		base = assumedRTT
	}
	share := p.share
	if share == 0 {
		share = 1
	}
	share = min(share*math.Exp2(p.behind), mostShare)
	each := min(max(alike/uint64(max(1, p.inUse)), leastAlike), mostAlike)
	fills := p.rate * (base + 5*reportGap/2 + time.Duration(share*float64(p.queue(p.rate)))).Seconds()
	return min(max(uint64(fills)+each, least), highest)
}

// queue is how long the queue on the path may be at a rate, where the link's share is 1. Links that share a path must not have one that grows with
// their own rate: the fastest would come to have nearly all.
func (p *pacer) queue(rate float64) time.Duration {
	if p.inUse > 1 {
		return slack
	}
	return slack + time.Duration(min(1, rate/fastRate)*float64(mostSlack-slack))
}

// may reports whether a message of n bytes may be sent now. One always may when none is on its way, but for a probe.
func (p *pacer) may(n int) bool {
	flying := p.sent - p.received
	switch {
	case p.probe != notProbing:
		return false
	case flying == 0 || p.nudge:
		return true
	}
	return flying+uint64(n) <= p.window()
}

// due is how many bytes the peer may wait for before it reports, unless that is doubted: it doubles its step at most, up to mostReport.
func (p *pacer) due() uint64 { return min(max(2*p.step, leastReport), mostReport) }

// message is how long the next message should be at most: short on a slow path, where a message of the control channel
// waits for the one before it.
func (p *pacer) message() int {
	return min(max(int(p.window()/8)/wire.MinMessageSize*wire.MinMessageSize, wire.MinMessageSize), wire.MessageSize)
}

// sending notes that a message goes out.
func (p *pacer) sending(now time.Time, n int) {
	if p.sent == 0 { // the first round teaches the rate, with however little
		p.round, p.busyAt = mark{at: now}, now
	}
	if p.sent == p.round.sent {
		p.round.first = now
	}
	p.sent += uint64(n)
	p.flight = max(p.flight, p.sent-max(p.received, p.resumed))
	p.sentAt, p.nudge = now, false
}

// resume notes that something is to be sent, perhaps after a pause. To wait in a probe is none, but one may have begun in a pause.
func (p *pacer) resume(now time.Time) {
	if p.waiting {
		flying := p.sent - p.received
		if flying == 0 || flying < p.due() && now.Sub(p.waitedAt) > max(p.base, p.span) {
			// The path has been idle, too: what the peer does not report yet arrived long ago.
			p.round = mark{at: now, sent: p.sent, received: p.sent, flight: p.round.flight, little: true}
		} else {
			p.waitedAt = now
		}
		// A path that is not filled may have become slower unseen (RFC 2861). What is in use is not taken away.
		if now.Sub(p.halvedAt) > p.patience() {
			p.most, p.halvedAt = max(p.most/2, min(p.most, max(p.flight, p.round.flight))), now
		}
	}
	if !p.emptyAt.IsZero() && now.Sub(p.emptyAt) > p.patience() || p.probe == notProbing && p.silent(now) {
		p.begin(now)
	}
	p.emptyAt, p.waiting = time.Time{}, false
}

// begin has the link begin with little again, if there has been no progress lately and next to nothing is on its way. The path may have become slower meanwhile
// (RFC 2861), and the round has long been over. Nor does the peer go on in its step, as it sees that, too: it reports what comes next, or next but one
// (reporter.due).
func (p *pacer) begin(now time.Time) {
	if (p.most > 0 || p.step > 0) && p.sent-p.received < p.due() && now.Sub(p.progressAt) > p.patience() {
		p.most, p.flight, p.round = 0, 0, mark{at: now, sent: p.sent, received: p.sent, little: true}
		p.step, p.resumed, p.doubted, p.nudge = 0, p.sent, true, true
		p.busyAt = now
	}
}

// doubt has one message more go out where nothing is reported of what has been sent since a pause: the clocks of some machines stand still while they sleep,
// and then the last report is not old by the peer's. It is by the time at which that message comes.
func (p *pacer) doubt(now time.Time) {
	if p.doubted && p.sent != p.received && now.Sub(later(p.sentAt, p.reportedAt)) >= stale {
		p.nudge = true
	}
}

// idle notes that there is nothing to send. Where there is room in the window, the rate then says nothing about the path.
func (p *pacer) idle(now time.Time) {
	if p.emptyAt.IsZero() {
		p.emptyAt = now
	}
	p.wait(now)
}

// wait has the link wait from now on if there is nothing to send, and room.
func (p *pacer) wait(now time.Time) {
	if !p.emptyAt.IsZero() && !p.waiting && p.may(p.message()) {
		p.waitedAt, p.waiting = now, true
	}
}

// supplied reports whether there has been something to send since then whenever there was room.
func (p *pacer) supplied(since time.Time) bool { return !p.waiting && p.waitedAt.Before(since) }

// reported takes the peer's report. It is false for one that cannot be: of less than before, or of more than was sent.
func (p *pacer) reported(now time.Time, received uint64) bool {
	if received < p.received || received > p.sent {
		return false
	}
	if received > p.received {
		p.progressAt = now
	}
	step := received - p.received
	p.step, p.doubted, p.nudge = step, false, false
	if p.resumed > 0 && received > p.resumed {
		// It is of what came before the pause, too. By the peer's clock as well it comes a second or more after the one before, unless that is doubted, so
		// the next step is no more than this.
		p.step = max(min(step, leastReport), uint64(float64(step)*reportGap.Seconds()/stale.Seconds()))
		p.doubted, p.resumed = true, 0
	}
	p.received, p.reportedAt = received, now
	if span := now.Sub(p.round.at); received > p.round.sent && span > 0 {
		p.endRound(now, span)
	}
	p.wait(now)
	return true
}

// endRound takes what a round has taught.
func (p *pacer) endRound(now time.Time, span time.Duration) {
	p.measured(span)
	p.rounded = true
	sample := float64(p.received-p.round.received) / span.Seconds()
	spared := !p.supplied(p.round.at) && now.Sub(p.round.first) < p.base+mostShare*p.queue(p.rate)
	switch {
	case p.round.little || p.rate > 0 && p.probe != notProbing && sample > p.rate: // who begins again, or has the path to itself, learns nothing of it
	case sample <= p.rate && spared: // who had nothing to send has learnt how fast it is at least
	case sample >= 2*p.rate, // the first, or the path has become faster
		sample <= p.rate/2 && span > p.base+mostShare*p.queue(sample), // or slower: what comes in clumps has rounds with little, too
		sample > p.rate && span < p.base+slack/2:                      // or there is no queue yet
		p.rate = sample
	default:
		p.rate += (sample - p.rate) / 2
	}
	p.peak = max(p.peak, p.rate)
	full := !p.round.little && !spared
	if full {
		p.span = span
		p.most -= p.most / 4
	}
	p.most = max(p.most, p.round.flight)
	switch {
	case p.rate > p.peak*2/3:
		p.low = 0
	case full: // else it is not the path that it is slow for
		p.low++
	}
	p.round = mark{at: now, sent: p.sent, received: p.received, flight: p.flight}
	p.flight = p.sent - p.received
}

// wantsProbe reports whether the path should be probed.
func (p *pacer) wantsProbe(now time.Time) bool {
	return p.span > 0 && (p.low >= lowRounds || p.base > p.floor && now.Sub(p.probedAt) > probeGap)
}

// startProbe begins a probe, unless one is under way.
func (p *pacer) startProbe(now time.Time, joint bool) {
	if p.probe == notProbing {
		if joint {
			p.joinedTo = later(p.joinedTo, now).Add(jointGap)
		}
		p.probedAt, p.joint = now, joint
		p.ping(now, draining)
	}
}

// ping has a Ping go out.
func (p *pacer) ping(now time.Time, probe probe) {
	p.probe, p.pinged, p.ask = probe, now, true
	p.token++
	p.awaits = true
}

// asks returns, once, the token of a Ping that is to go out.
func (p *pacer) asks() (token uint64, ask bool) {
	ask, p.ask = p.ask, false
	return p.token, ask
}

// pong takes a Pong. It reports whether that is the path's own time since pinged: the first of a probe is behind what is on its way.
func (p *pacer) pong(now time.Time, token uint64) bool {
	if !p.awaits || token != p.token {
		return false
	}
	if p.awaits = false; p.probe == draining {
		return false
	}
	p.probed(now.Sub(p.pinged))
	return true
}

// probed takes what a probe has found. A Pong may be late for once, so that a longer path than was known is probed again soon.
func (p *pacer) probed(found time.Duration) {
	before := p.base
	p.measured(found)
	p.base = p.floor
	if found >= p.floor+slack {
		p.base = found
	}
	p.known = !p.fresh && (p.base == p.floor || found < before+slack) // a fresh one has been probed alone, and others' queue was in its way
	p.peak, p.low, p.fresh = p.rate, 0, false
}

// release has the window count again. The round that follows begins with little on its way, so its rate says nothing of the path.
func (p *pacer) release(now time.Time) {
	p.probe, p.reportedAt, p.round = notProbing, now, mark{at: now, sent: p.sent, received: p.received, little: true}
}

// giveUp ends a probe for which a Pong, or what was on its way, does not come. It is no reason for another, but for one in probeGap where
// the link is alone.
func (p *pacer) giveUp(now time.Time) {
	p.awaits, p.known, p.fresh = false, true, false
	p.peak, p.low = p.rate, 0
	if p.probe != notProbing {
		p.release(now)
	}
}

// movedAt is when a probe that something is awaited for last came further. What drains a slow path takes its time, and nobody else waits so long.
func (p *pacer) movedAt() time.Time {
	if p.probe == draining {
		return later(p.pinged, p.progressAt)
	}
	return p.pinged
}

// drained reports whether all has arrived for a probe, but for what the peer does not report yet; what went out before a pause has.
func (p *pacer) drained(now time.Time) bool {
	return p.probe == draining && !p.awaits && (p.sent-max(p.received, p.resumed) < p.due() || p.doubted && now.Sub(p.movedAt()) >= stale)
}

// ready reports whether a probe goes on at the next call of balance, unless others are waited for.
func (p *pacer) ready(now time.Time) bool { return p.probe == measuring && !p.awaits || p.drained(now) }

// measures reports whether nothing may follow the second Ping yet.
func (p *pacer) measures(now time.Time) bool {
	return p.probe == measuring && p.awaits && now.Sub(p.pinged) < pingLead
}

// active reports whether the link is in use: it is probed, or something is on its way and the peer reports.
func (p *pacer) active(now time.Time) bool {
	return p.probe != notProbing || p.sent != p.received && !p.silent(now)
}

// silent reports whether the peer has reported nothing for some time.
func (p *pacer) silent(now time.Time) bool { return now.Sub(p.reportedAt) > p.patience() }

// patience is for how long a link in use may have nothing reported, or nothing to send.
func (p *pacer) patience() time.Duration { return max(stale, min(3*p.span, probeEnd)) }

// forget forgets what was learnt of the path, as there is another. It begins with a probe: what is on its way, or would be, is no measure.
func (p *pacer) forget(now time.Time) {
	p.begin(now)
	p.base, p.floor, p.rate, p.most, p.flight, p.busyAt = 0, 0, 0, 0, 0, now
	p.peak, p.low = 0, 0
	p.span, p.fresh, p.joint, p.known, p.share, p.behind = 0, true, false, false, 1, 0
	p.ping(now, draining)
	p.round = mark{at: now, sent: p.sent, received: p.received}
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

// due is how many bytes must have been received for the next report, and for how long that holds; from then on it is few. A pause comes to an end
// with a report so, whatever step was right before: the sender, who knows that (resume), begins with little.
func (r *reporter) due(now time.Time) (total uint64, within time.Duration) {
	if within = stale - now.Sub(r.at); within > 0 {
		return r.reported + max(r.step, leastReport), within
	}
	return r.reported + leastReport, 0
}

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

// mostShare is how long a link's queue is at most, compared with one that is as fast as the others, and how far its share moves either way; with what it is
// ahead besides, the queue is a quarter at least. shareGain is how fast the share moves in a round where the others get twice or half as much, or more. A tenth
// of that besides pulls it back, or all would drift together.
const (
	mostShare = 2
	shareGain = 0.1
)

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// balance has links share alike what they share of a path: what a link gets of a queue that it shares is what it has in it, so a link that
// gets less than others comes to have more on its way, and they less. That is so at once, as far as it is behind: else windows that are in proportion to
// the rate would keep whatever shares there are. And it is so more and more while it stays behind, as what links know of their paths' own time differs:
// that is the share. What a link has to itself stays its own, as its window has slack. It also has them probe together: one alone would take the others' queues for the path's own delay, and each would make way for the
// other's growing. As reports can be made up, and links be made anew, that is not often, and links that are not in use count for nothing.
func balance(now time.Time, links []*pacer) {
	var rated []*pacer
	active, wanted, unknown, lone, often := 0, false, false, false, false
	drains, measures := false, false // a joint probe, still
	gap := jointGap
	var probedAt, jointAt time.Time
	for _, p := range links {
		if !p.active(now) {
			continue
		}
		active++
		if p.rate > 0 && !p.silent(now) {
			rated = append(rated, p)
		}
		if p.probe == notProbing && !p.awaits { // one at a time
			unknown = unknown || !p.known && p.span > 0 && (len(links) > 1 || p.base > p.floor) // alone, the shortest time ever is the path's
			// That may have become longer since, or somebody else's queue: where it costs little of the time, that is looked at.
			lone = p.span > 0 && now.Sub(p.probedAt) > probeGap && now.Sub(p.busyAt) > loneProbe // counts where there is only one
			wanted = wanted || p.wantsProbe(now)
		}
		if p.joint {
			took := now.Sub(p.probedAt)
			drains = drains || p.probe == draining && !p.drained(now) && took <= probeMost
			measures = measures || p.measures(now) && took <= probeMost+4*pingLead
			jointAt = later(jointAt, p.probedAt)
		}
		probedAt = later(probedAt, p.probedAt)
		often = often || p.joinedTo.Sub(now) > (jointBurst-1)*jointGap
	}
	switch {
	case active == 1: // which costs nobody else anything
		wanted, gap, jointAt = wanted || unknown || lone, jointGap/4, probedAt
	case often:
		wanted = false
	case unknown:
		wanted, gap = true, jointGap/4
	}
	probe := wanted && now.Sub(jointAt) > gap
	for _, p := range links {
		p.links, p.inUse = len(links), active
		p.doubt(now)
		switch {
		case p.drained(now) && !(p.joint && drains):
			p.ping(now, measuring)
		case p.probe == measuring && !(p.joint && measures || p.measures(now)):
			p.release(now)
		case (p.probe == draining || p.awaits) && now.Sub(p.movedAt()) > probeEnd:
			p.giveUp(now)
		}
		if !p.active(now) {
			p.share, p.behind = 1, 0
			continue
		}
		if p.share == 0 {
			p.share = 1
		}
		if p.rate > 0 {
			var near float64
			p.behind, near = compare(p, rated)
			if p.rounded {
				p.rounded = false
				p.share += shareGain * (near + (1-p.share)/10)
				p.share = min(max(p.share, 1.0/mostShare), mostShare)
			}
		}
		switch {
		case probe:
			p.startProbe(now, active > 1)
		case drains && p.probe == notProbing && !p.awaits:
			// It has come into use meanwhile, and would be in the way. That uses nothing up: those that come one after the other need their own, too.
			p.probedAt, p.joint = jointAt, true // probeMost counts from the first
			p.ping(now, draining)
		}
	}
}

// compare is by how many powers of two others are faster than a link, each counting for one at most: all of them, where the slow weigh less, as those that are
// slow on their own paths say nothing of one that is shared, and those that are about as fast, who are likely to share it. It is 0 where there are none.
func compare(p *pacer, others []*pacer) (all, near float64) {
	var weights, nearWeights float64
	for _, other := range others {
		apart := math.Log2(other.rate / p.rate)
		weight, nearWeight := math.Sqrt(other.rate), 1/(1+math.Pow(2*apart, 4))
		apart = min(max(apart, -1), 1)
		all, near = all+weight*apart, near+nearWeight*apart
		weights, nearWeights = weights+weight, nearWeights+nearWeight
	}
	if weights == 0 {
		return 0, 0
	}
	return all / weights, near / nearWeights
}
