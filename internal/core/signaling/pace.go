package signaling

import (
	"math/bits"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"tallow/internal/core/wire"
)

// Timing of a connection to the hub: PROTOCOL.md section 4.
const (
	dialWithin   = 15 * time.Second
	pingEvery    = 20 * time.Second
	answerWithin = 10 * time.Second
	// answerNudged is answerWithin when there is reason to think that the network has changed; or answerTrips of the hub's last round trips, if
	// that is more: what gives the reason may be our own load on a slow path.
	answerNudged = 2 * time.Second
	answerTrips  = 4
	// lateGrace is how long messages have to be read that arrived while a frozen page could not.
	lateGrace = time.Second
	// closeWithin bounds writing what is queued and the closing handshake together.
	closeWithin = time.Second

	firstBackoff = 500 * time.Millisecond
	mostBackoff  = 15 * time.Second
	// steadyAfter is how long a connection must have lasted for the next backoff to start over.
	steadyAfter = 10 * time.Second
	// mostRetryAfter bounds what the hub may ask for.
	mostRetryAfter = 10 * time.Minute
	// redialAfter is how old an attempt must be for a nudge to start it over; twice as old each time, or the slow would never come in.
	redialAfter = 4 * time.Second
)

// backoff is the time between attempts to connect: random between firstBackoff and three times the last one, up to
// mostBackoff ("decorrelated jitter", Brooker, Exponential Backoff and Jitter, 2015), so that the clients of a hub that
// was away do not come back all at once.
type backoff struct{ last time.Duration }

// next returns how long to wait; random is in [0, 1).
func (b *backoff) next(random float64) time.Duration {
	b.last = max(b.last, firstBackoff)
	b.last = min(mostBackoff, firstBackoff+time.Duration(random*float64(3*b.last-firstBackoff)))
	return b.last
}

func (b *backoff) reset() { b.last = 0 }

// address is where the next attempt goes after so many that have failed. Firefox holds back a connection to a path to which others have failed,
// half as long again after each, up to a minute (RFC 6455, 7.2.3), whatever pace we keep and whatever says that the network is back. The hub is
// at every path below its own, too. After 4, 8, 16 failures and so on it is the hub's own, for proxies that know no other: too seldom to be held back for long.
func address(url string, failed int) string {
	if failed == 0 || failed >= 4 && bits.OnesCount(uint(failed)) == 1 {
		return url
	}
	base, query, found := strings.Cut(url, "?")
	base = strings.TrimSuffix(base, "/") + "/" + strconv.FormatUint(rand.Uint64(), 36)
	if found {
		base += "?" + query
	}
	return base
}

// retryAfter is the wait that the hub asks for, and up to a quarter more.
func retryAfter(m wire.Closing, random float64) time.Duration {
	d := min(mostRetryAfter, time.Duration(m.RetryAfter)*time.Second)
	return d + time.Duration(random*float64(d/4))
}

// heartbeat decides when to ping and when the hub counts as gone. It counts messages instead of comparing times, because
// a browser's clock is coarse.
type heartbeat struct {
	asked    time.Time // when the last ping, or Enter, was sent
	heard    uint64    // how many messages had come by then
	deadline time.Time // for the next one
	grace    time.Time // until when a late look at the clock is not held against the hub; zero: it was not late
}

// ask notes that a message was sent which the hub must answer.
func (h *heartbeat) ask(now time.Time, heard uint64, within time.Duration) {
	*h = heartbeat{asked: now, heard: heard, deadline: now.Add(within)}
}

// nudge makes the hub, whose last round trip took rtt, answer soon. It reports whether to ping.
func (h *heartbeat) nudge(now time.Time, heard uint64, rtt time.Duration) (ping bool) {
	within := min(max(answerNudged, answerTrips*rtt), answerWithin)
	if heard == h.heard {
		if soon := now.Add(within); soon.Before(h.deadline) {
			h.deadline = soon
		}
		return false
	}
	h.ask(now, heard, within)
	return true
}

// step reports what to do now, heard messages having come so far: ping, or take the hub for gone. Otherwise next is
// when to look again. It may be called at any time: timers of a hidden page are late.
func (h *heartbeat) step(now time.Time, heard uint64) (ping, gone bool, next time.Time) {
	switch {
	case heard != h.heard && now.Sub(h.asked) >= pingEvery:
		h.ask(now, heard, answerWithin)
		return true, false, h.deadline
	case heard != h.heard:
		return false, false, h.asked.Add(pingEvery)
	case now.Before(h.deadline):
		return false, false, h.deadline
	case h.grace.IsZero() && now.Sub(h.deadline) >= lateGrace:
		h.grace = now.Add(lateGrace)
		return false, false, h.grace
	case now.Before(h.grace):
		return false, false, h.grace
	default:
		return false, true, time.Time{}
	}
}
