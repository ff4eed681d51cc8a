package room

import (
	"golang.org/x/time/rate"

	"tallow/internal/core/wire"
)

// Who holds the link can seal envelopes that only a signature shows to be forged, and in the browser each check of one costs
// milliseconds. So there is a limit to them: for each member, for each stranger, and for all strangers together. What is
// beyond it gets no Ack and comes again. The limit for each keeps one flood from costing others their turn as long as the hub
// tells who sends. That is all the fairness there is: five strangers use up what all have, and a hub can make up as many, or say
// that another's is the flood. The limit for all holds whatever the hub says.
const (
	checksEach      = 2  // a second
	checksEachBurst = 16 // a member's mesh in the making
	checksAll       = 10
	checksAllBurst  = wire.MaxRoster // a whole room that comes at once
	maxStrangers    = 256
)

func newChecks() *rate.Limiter { return rate.NewLimiter(checksEach, checksEachBurst) }

// checks is the limit for strangers.
type checks struct {
	all  *rate.Limiter
	each map[wire.ID]*rate.Limiter
}

func newStrangers() checks {
	return checks{rate.NewLimiter(checksAll, checksAllBurst), map[wire.ID]*rate.Limiter{}}
}

// mayVerify reports whether a signature in an envelope of the sender's may be verified now, and counts it.
func (r *Room) mayVerify(from wire.ID) bool {
	now := r.cfg.Now()
	if m := r.members[from]; m != nil {
		return m.checks.AllowN(now, 1)
	}
	own := r.checks.each[from]
	if own == nil {
		if len(r.checks.each) == maxStrangers {
			clear(r.checks.each) // each then has a full burst again, but the limit for all still holds
		}
		own = newChecks()
		r.checks.each[from] = own
	}
	// What is refused for others' sake costs the sender no turn.
	return own.TokensAt(now) >= 1 && r.checks.all.AllowN(now, 1) && own.AllowN(now, 1)
}
