// Package limit bounds what one network address can take of a server: places at the same time, and new ones per second.
package limit

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ErrFull says that all places are taken, whoever asks.
var ErrFull = errors.New("limit: no place left")

// ErrAddress says that this address has its share, or asks too often.
var ErrAddress = errors.New("limit: address exceeds its share")

// mostAddresses is how many addresses a gate remembers at once: some 20 MB.
const mostAddresses = 1 << 17

// Limits are the bounds of a Gate. Zero means no bound.
type Limits struct {
	Total      int     // places taken at the same time
	PerAddress int     // the same, by one address
	Rate       float64 // places that one address may take per second
	Burst      int     // places that it may take at once after a pause; at least 1 where Rate is set
}

// Gate hands out places. One address is what Customer says, because that is what one customer gets.
// It is safe for concurrent use.
type Gate struct {
	limits Limits

	mu     sync.Mutex
	taken  int
	shares map[netip.Prefix]*share
	sweep  int // number of shares at which the ones that say nothing any more are forgotten
}

type share struct {
	taken  int
	bucket *rate.Limiter // nil without Rate
}

// New makes a gate.
func New(l Limits) *Gate {
	if l.Rate > 0 && l.Burst < 1 {
		l.Burst = 1
	}
	return &Gate{limits: l, shares: make(map[netip.Prefix]*share), sweep: 1024}
}

// Take takes a place for addr. The error is ErrFull or ErrAddress; without one the caller owes a Release.
func (g *Gate) Take(addr netip.Addr) error {
	now := time.Now()
	key := Customer(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.shares[key]
	if s == nil {
		if len(g.shares) >= g.sweep {
			g.forget(now)
		}
		if len(g.shares) >= mostAddresses {
			return ErrFull
		}
		s = &share{}
		if g.limits.Rate > 0 {
			s.bucket = rate.NewLimiter(rate.Limit(g.limits.Rate), g.limits.Burst)
		}
		g.shares[key] = s
	}
	// The bucket is asked first: attempts count, not successes.
	if s.bucket != nil && !s.bucket.AllowN(now, 1) {
		return ErrAddress
	}
	if g.limits.PerAddress > 0 && s.taken >= g.limits.PerAddress {
		return ErrAddress
	}
	if g.limits.Total > 0 && g.taken >= g.limits.Total {
		return ErrFull
	}
	g.taken++
	s.taken++
	return nil
}

// Release gives back a place that Take took for the same address.
func (g *Gate) Release(addr netip.Addr) {
	key := Customer(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.shares[key]
	if s == nil || s.taken == 0 {
		panic("limit: Release without Take")
	}
	g.taken--
	s.taken--
	if s.taken == 0 && s.bucket == nil {
		delete(g.shares, key)
	}
}

// forget drops the shares that hold no place and whose bucket is full again, which a new share would equal.
func (g *Gate) forget(now time.Time) {
	for key, s := range g.shares {
		if s.taken == 0 && (s.bucket == nil || s.bucket.TokensAt(now) >= float64(g.limits.Burst)) {
			delete(g.shares, key)
		}
	}
	g.sweep = max(1024, 2*len(g.shares))
}

// Customer is what counts as one address: an IPv4 address, or a /64 of IPv6. All invalid addresses are one.
func Customer(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // the invalid address
	}
	return p
}
