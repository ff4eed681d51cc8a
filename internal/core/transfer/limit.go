package transfer

import "time"

const (
	// burst is what a limit saves up that is not used. heldBurst is what it saves up for a sender that waits for nothing but the limit, and
	// comes by too seldom: in a hidden tab time passes once a second.
	burst     = 250 * time.Millisecond
	heldBurst = 2 * time.Second
)

// bucket is a token bucket over bytes of files. It fills with the time that has passed, whenever somebody looks. A chunk goes out
// when it is not overdrawn, however long the chunk: limits are often shorter than one.
type bucket struct {
	rate   float64 // bytes per second; 0: no limit
	tokens float64
	most   float64 // that may be saved up
	at     time.Time
}

// allows reports whether a chunk may go out at that rate.
func (b *bucket) allows(now time.Time, rate int64) bool {
	if b.rate != float64(rate) {
		*b = bucket{rate: float64(rate), tokens: min(b.tokens, float64(rate)*burst.Seconds()), at: now}
	}
	if rate == 0 {
		return true
	}
	b.rest(now)
	if b.tokens < 0 {
		b.most = b.rate * heldBurst.Seconds()
	}
	return b.tokens >= 0
}

// rest lets time pass, and notes that nobody waits for the limit: from now on it saves up little. What was saved up for a sender stays,
// as it takes some time to go.
func (b *bucket) rest(now time.Time) {
	filled := b.tokens + b.rate*max(0, now.Sub(b.at).Seconds())
	b.tokens, b.at = max(b.tokens, min(filled, b.most)), now
	b.most = max(b.rate*burst.Seconds(), b.tokens)
}

// take notes that n bytes go out.
func (b *bucket) take(n uint32) {
	if b.rate > 0 {
		b.tokens -= float64(n)
	}
}

// Shared is what the outgoing transfers of a room share: a limit, and whose turn it is. It belongs to the goroutine that steps them.
//
// Turns are start-time fair queueing (Goyal, Vin and Cheng, 1996): each delivery has a virtual time, the bytes that it has been sent,
// but who had nothing to ask for, or took less than it could get, does not catch up later. Whoever is least goes first, so those that
// wait get equal shares, of a limit too, and what one cannot use goes to the others.
type Shared struct {
	limit  int64 // bytes per second; 0: none
	bucket bucket
	turn   uint64
}

// SetLimit changes the limit on all transfers together, in bytes per second; 0: none. Each of them has to be stepped then.
func (s *Shared) SetLimit(now time.Time, limit int64) {
	s.Allows(now) // what the former has let out until now
	s.limit = limit
	s.Allows(now)
}

// Limited reports whether there is a limit. Without one nobody waits for a Grant.
func (s *Shared) Limited() bool { return s.limit > 0 }

// Rest notes that no transfer waits for the limit, or for one of its own.
func (s *Shared) Rest(now time.Time) { s.bucket.rest(now) }

// Allows reports whether a transfer that waits may be granted a chunk.
func (s *Shared) Allows(now time.Time) bool { return s.bucket.allows(now, s.limit) }
