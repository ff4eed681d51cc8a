package peer

import (
	"slices"
	"time"
)

// Quality is how well a link works, worst first.
type Quality uint8

// The qualities of a link.
const (
	QualityDisconnected Quality = iota // nothing comes from the other end
	QualityPoor
	QualityFair
	QualityGood
	QualityExcellent
)

// QualityThresholds are the round-trip times below which a link is excellent, good and fair.
type QualityThresholds struct{ Excellent, Good, Fair time.Duration }

// DefaultQualityThresholds apply unless others are given.
var DefaultQualityThresholds = QualityThresholds{100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}

// Valid reports whether each threshold is above the one before.
func (t QualityThresholds) Valid() bool {
	return 0 < t.Excellent && t.Excellent < t.Good && t.Good < t.Fair
}

const (
	// qualitySilence is how long nothing may come before a link counts as disconnected, as far as we were there to hear it. With
	// ticks a second apart, as in a hidden tab, that is noticed within 10 s.
	qualitySilence = 8 * time.Second
	// maxQualityLapse is how much of the time between two ticks counts as silence: after a long one it is we who were not there.
	maxQualityLapse = 3 * time.Second
	// loadSettles is how long after the last load a round trip may still have waited behind it.
	loadSettles = 5 * time.Second
	// probedWithin is how long a path that may be new has for its first round trip to be one that shares the path with nothing.
	probedWithin = probeEnd
	// betterAfter is how many round trips in a row it takes for a better level.
	betterAfter = 4
)

// lossSteps are the shares of loss at which a link is taken to be one level worse, and two; and below which no longer.
var lossSteps = [...]struct{ from, until float64 }{{0.05, 0.02}, {0.15, 0.10}}

// QualityMeter judges a link by the round trips of its Pings, loss and silence. It is a pure machine: the link's owner tells it
// what happens, and time passes only through the arguments.
//
// Round trips are smoothed as in RFC 6298, with a weight of 1/4 since they are seconds apart, after a median of three: one that
// waited for a retransmission says little about the path. One that shared the link with load says more about our own queues than
// about the path: it lowers the estimate if it is below it, and never raises it. So a path that gets slower in the
// middle of a transfer is called so when the transfer pauses, or ends; loss and silence count at any time, and another path begins anew, with what
// the link's probe of it has found.
//
// A level changes for the worse at its threshold, and for the better only at a distance from it that grows with the jitter, and when it
// has stayed there, so that noise around a threshold changes nothing.
type QualityMeter struct {
	thresholds QualityThresholds
	open       bool
	cut        bool // the connection beneath says that nothing gets through

	quiet  time.Duration // since the last sign of life, as far as we were there
	ticked time.Time
	loaded time.Time // when the link was last seen to carry load
	moved  time.Time // when the path may have changed

	recent [3]time.Duration // round trips, oldest first; 0: none yet
	rtt    time.Duration    // smoothed; 0: unknown
	former bool             // rtt and level are of a path that there may be no longer
	jitter time.Duration    // RTTVAR of RFC 6298
	level  Quality          // by rtt; valid when that is known
	better int              // round trips in a row that spoke for a better one
	worse  int              // levels that loss takes
}

// NewQualityMeter makes a meter. Without valid thresholds it takes the default ones.
func NewQualityMeter(t QualityThresholds) *QualityMeter {
	if !t.Valid() {
		t = DefaultQualityThresholds
	}
	return &QualityMeter{thresholds: t}
}

// Opened begins anew with a link that has just opened.
func (q *QualityMeter) Opened(now time.Time) {
	*q = QualityMeter{thresholds: q.thresholds, open: true, ticked: now}
}

// Closed says that there is no link: nothing is known of the next one.
func (q *QualityMeter) Closed() { *q = QualityMeter{thresholds: q.thresholds} }

// Connected says whether the connection beneath gets anything through, by its own account.
func (q *QualityMeter) Connected(connected bool) { q.cut = !connected }

// Heard says that something has come from the other end.
func (q *QualityMeter) Heard() { q.quiet = 0 }

// Loaded says that the link carries more than small messages, either way.
func (q *QualityMeter) Loaded(now time.Time) { q.loaded = now }

// PathChanged says that the connection may have another path, which the link probes. What was said stands until there is a round trip of this one, or it
// would come and go with each restart that finds the same path again.
func (q *QualityMeter) PathChanged(now time.Time) { q.moved, q.former = now, q.rtt != 0 }

// Tick lets time pass.
func (q *QualityMeter) Tick(now time.Time) {
	q.quiet += min(max(now.Sub(q.ticked), 0), maxQualityLapse)
	q.ticked = now
}

// Pong says that a Ping sent then has been answered now.
func (q *QualityMeter) Pong(sent, now time.Time) {
	q.Heard()
	if sent.Before(q.moved) || q.former && sent.Before(q.moved.Add(probedWithin)) {
		return // it may have waited until there was a path, or behind what had
	}
	sample := max(now.Sub(sent), 1)
	if q.rtt == 0 || q.former {
		q.begin(sample)
		return
	}
	if underLoad := !q.loaded.IsZero() && q.loaded.Add(loadSettles).After(sent); underLoad {
		if sample < q.rtt {
			q.rtt = sample
			q.judge()
		}
		return
	}
	q.recent = [...]time.Duration{q.recent[1], q.recent[2], sample}
	median := q.median()
	q.jitter += (max(sample-q.rtt, q.rtt-sample) - q.jitter) / 4
	q.rtt = max(q.rtt+(median-q.rtt)/4, 1)
	q.judge()
}

// Probed says that a Ping sent then, with next to nothing of ours before it on the path, has been answered now. What the first one has found may be too
// long all the same, as other links may not have known yet that it is sent.
func (q *QualityMeter) Probed(sent, now time.Time) {
	q.Heard()
	sample := max(now.Sub(sent), 1)
	switch {
	case sent.Before(q.moved):
	case q.rtt == 0 || q.former || sample < q.rtt && q.recent[1] == 0:
		q.begin(sample)
	case sample < q.rtt:
		q.rtt = sample
		q.judge()
	}
}

// begin takes the first round trip of a path.
func (q *QualityMeter) begin(sample time.Duration) {
	q.recent = [...]time.Duration{0, 0, sample}
	q.rtt, q.jitter, q.former = sample, sample/2, false
	q.level, q.better = 0, 0
	q.judge()
}

// median is that of the recent round trips; of two, the shorter.
func (q *QualityMeter) median() time.Duration {
	sorted := q.recent
	slices.Sort(sorted[:])
	known := sorted[:]
	for len(known) > 1 && known[0] == 0 {
		known = known[1:]
	}
	return known[(len(known)-1)/2]
}

// judge finds the level of the smoothed round trip.
func (q *QualityMeter) judge() {
	level := QualityPoor
	for i, threshold := range [...]time.Duration{q.thresholds.Fair, q.thresholds.Good, q.thresholds.Excellent} {
		candidate := QualityFair + Quality(i)
		if candidate > q.level && q.level != 0 {
			threshold -= min(max(q.jitter, threshold/8), threshold/2)
		}
		if q.rtt < threshold {
			level = candidate
		}
	}
	if level <= q.level {
		q.better = 0
	} else if q.better++; q.better < betterAfter && q.level != 0 {
		return
	}
	q.level = level
}

// Loss says which share of what was sent lately got lost, 0 to 1; below 0: unknown.
func (q *QualityMeter) Loss(share float64) {
	worse := 0
	for i, step := range lossSteps {
		if share >= step.from || q.worse > i && share >= step.until {
			worse = i + 1
		}
	}
	q.worse = worse
}

// Quality is the verdict. Before the first round trip it is good: neither praise nor alarm.
func (q *QualityMeter) Quality() Quality {
	switch {
	case !q.open || q.cut || q.quiet >= qualitySilence:
		return QualityDisconnected
	case q.rtt == 0:
		return QualityGood
	}
	return max(q.level-min(q.level, Quality(q.worse)), QualityPoor)
}

// RTT is the smoothed round-trip time of the path; 0: unknown.
func (q *QualityMeter) RTT() time.Duration { return q.rtt }
