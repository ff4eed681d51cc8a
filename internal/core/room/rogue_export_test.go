package room

import (
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// LinkTo is the open link to a member, or nil: for a member that says what its room never would.
func (r *Room) LinkTo(id wire.ID) (l *peer.Link) {
	r.do(func() {
		if m := r.members[id]; m != nil {
			l = m.link
		}
	})
	return l
}

// Identity is what the room signs with.
func (r *Room) Identity() *seal.Identity { return r.identity }

// Kept is how many transfers the room keeps anything of.
func (r *Room) Kept() (n int) {
	r.do(func() { n = len(r.incoming) + len(r.outgoing) })
	return n
}

// Offences is how often a member has broken the protocol, were it a member no more.
func (r *Room) Offences(id wire.ID) (n int) {
	r.do(func() {
		for _, c := range r.conduct {
			n += c.Offences
		}
		if m := r.members[id]; m != nil {
			n = m.negotiation.Conduct().Offences
		}
	})
	return n
}

// Again is Disconnect and Connect that have come together.
func (r *Room) Again(id wire.ID) {
	r.do(func() {
		m := r.members[id]
		m.rest(r, fault.Cancelled)
		m.do(r, m.negotiation.Connect(r.cfg.Now()))
	})
}
