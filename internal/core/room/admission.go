package room

import (
	"slices"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

const (
	maxPending = 32   // newcomers that wait for approval
	maxNonces  = 1024 // of joins, remembered against replay
	maxRemoved = 1024
	// claimAhead is how far beyond the owner's clock a claimed epoch counts.
	claimAhead = 24 * time.Hour
	// linkless is how long a member stays in the roster without a link, and absent how long where the hub does not see it either.
	linkless = 60 * time.Second
	absent   = 15 * time.Second
)

// ownership is what only the owner of a room does: PROTOCOL.md section 6.
type ownership struct {
	identity *seal.Identity
	approval bool
	locked   bool
	limit    int // members, the owner included
	admitted []wire.Hash
	names    map[wire.ID]string
	pending  map[wire.ID]pendingJoin
	removed  map[wire.ID]bool
	nonces   []wire.ID
	claimed  uint64 // the highest epoch that a member has seen
}

type pendingJoin struct {
	hash  wire.Hash
	nonce wire.ID
	name  string
}

func newOwnership(identity *seal.Identity, cfg Config) *ownership {
	o := &ownership{identity: identity, approval: cfg.Admission == AdmitApproval, limit: cfg.MaxRecipients + 1,
		admitted: []wire.Hash{identity.KeyHash()}, names: map[wire.ID]string{}, pending: map[wire.ID]pendingJoin{},
		removed: map[wire.ID]bool{}}
	if cfg.Saved != nil && len(cfg.Saved.Members) > 1 && cfg.Saved.Members[0] == identity.KeyHash() {
		o.admitted = append(o.admitted, cfg.Saved.Members[1:min(len(cfg.Saved.Members), o.limit)]...)
	}
	return o
}

func memberID(h wire.Hash) wire.ID { return wire.ID(h[:len(wire.ID{})]) }

func (o *ownership) isAdmitted(h wire.Hash) bool { return slices.Contains(o.admitted, h) }

// join takes a newcomer's request.
func (o *ownership) join(r *Room, from wire.ID, body []byte) {
	join, err := seal.VerifyJoin(r.keys.ID, body)
	if err != nil {
		r.dropped++
		return
	}
	hash, err := seal.KeyHash(join.Keys)
	if err != nil || memberID(hash) != from || from == r.self || slices.Contains(o.nonces, join.Nonce) {
		return
	}
	if len(o.nonces) == maxNonces {
		o.nonces = o.nonces[1:]
	}
	o.nonces = append(o.nonces, join.Nonce)
	if ahead := uint64(r.cfg.Now().Add(claimAhead).UnixMilli()); join.Epoch <= ahead {
		o.claimed = max(o.claimed, join.Epoch)
	}
	switch {
	case o.removed[from]:
		o.refuse(r, from, join.Nonce, wire.RefuseRemoved)
	case o.isAdmitted(hash):
		o.names[from] = join.Name
		o.publish(r, join.Nonce, from)
	case o.locked:
		o.refuse(r, from, join.Nonce, wire.RefuseLocked)
	case len(o.admitted) >= o.limit:
		o.refuse(r, from, join.Nonce, wire.RefuseFull)
	case o.approval:
		if _, known := o.pending[from]; !known && len(o.pending) >= maxPending {
			o.refuse(r, from, join.Nonce, wire.RefuseFull)
			return
		}
		o.pending[from] = pendingJoin{hash, join.Nonce, join.Name}
		o.refuse(r, from, join.Nonce, wire.RefusePending)
		r.event(JoinRequested{from.String(), join.Name})
	default:
		o.admit(r, from, pendingJoin{hash, join.Nonce, join.Name})
	}
}

func (o *ownership) admit(r *Room, id wire.ID, p pendingJoin) {
	o.admitted = append(o.admitted, p.hash)
	o.names[id] = p.name
	o.publish(r, p.nonce, id)
}

func (o *ownership) refuse(r *Room, to, nonce wire.ID, code wire.RefuseCode) {
	r.send(to, nil, wire.PayloadRefuse, seal.SignRefuse(o.identity, wire.Refuse{Room: r.keys.ID, Member: to, Nonce: nonce, Code: code}))
}

// publish signs a new roster and sends it to everyone in it. reply is the nonce of the join of member to, which it answers.
func (o *ownership) publish(r *Room, reply, to wire.ID) {
	epoch := max(r.roster.Epoch+1, uint64(r.cfg.Now().UnixMilli()), o.claimed+1)
	roster := wire.Roster{Room: r.keys.ID, Epoch: epoch, Locked: o.locked, Approval: o.approval,
		MaxMembers: uint8(o.limit), Members: slices.Clone(o.admitted)}
	var common []byte
	for _, h := range o.admitted[1:] {
		id := memberID(h)
		if id == to {
			roster.ReplyTo = reply
			r.send(id, nil, wire.PayloadRoster, seal.SignRoster(o.identity, roster))
			roster.ReplyTo = wire.ID{}
			continue
		}
		if common == nil {
			common = seal.SignRoster(o.identity, roster)
		}
		r.send(id, nil, wire.PayloadRoster, common)
	}
	r.setRoster(roster)
}

// drop takes a member out of the roster.
func (o *ownership) drop(r *Room, id wire.ID) {
	i := slices.IndexFunc(o.admitted, func(h wire.Hash) bool { return memberID(h) == id })
	if i > 0 {
		o.admitted = slices.Delete(slices.Clone(o.admitted), i, i+1)
		delete(o.names, id)
		r.publishRoster(wire.ID{})
	}
}

// tick drops members that have gone.
func (o *ownership) tick(r *Room, now time.Time) {
	for _, h := range o.admitted[1:] {
		m := r.members[memberID(h)]
		if m == nil || m.open() {
			continue
		}
		if gone := now.Sub(m.since); gone > linkless || gone > absent && r.connected && !r.present[m.id] {
			o.drop(r, m.id)
			return
		}
	}
}

func (r *Room) publishRoster(reply wire.ID) { r.owner.publish(r, reply, wire.ID{}) }

// sendJoin asks the owner for the roster: to be in it, or, being in it, for the newest.
func (r *Room) sendJoin() {
	r.joinID = newID()
	r.outbox.Forget(r.link.Owner) // an older join; anything else for the owner is repeated by its own machine
	r.send(r.link.Owner, nil, wire.PayloadJoin, seal.SignJoin(r.identity, wire.Join{Room: r.keys.ID, Nonce: r.joinID,
		Epoch: r.roster.Epoch, Name: r.cfg.Name}))
}

func (r *Room) rosterReceived(body []byte) {
	roster, err := seal.VerifyRoster(r.keys.ID, r.link.Owner, body)
	if err != nil {
		r.dropped++
		return
	}
	listed := slices.Contains(roster.Members, r.identity.KeyHash())
	entering := r.roster.Epoch == 0
	switch {
	case roster.Epoch <= r.roster.Epoch, entering && (!listed || roster.ReplyTo != r.joinID):
	case !listed:
		r.close(fault.Removed)
	default:
		r.setRoster(roster)
		if entering {
			r.setState(StateOpen, "")
			r.answer(nil)
		}
	}
}

func (r *Room) refused(body []byte) {
	refuse, err := seal.VerifyRefuse(r.keys.ID, r.link.Owner, body)
	if err != nil || refuse.Member != r.self || refuse.Nonce != r.joinID {
		return
	}
	switch refuse.Code {
	case wire.RefusePending:
		if r.waiting != nil {
			r.setState(StatePending, "")
		}
	case wire.RefuseRemoved:
		r.close(fault.Removed)
	case wire.RefuseLocked:
		r.close(fault.RoomLocked)
	case wire.RefuseFull:
		r.close(fault.RoomFull)
	case wire.RefuseDenied:
		r.close(fault.JoinDenied)
	}
}

// setRoster makes the members those of a newer roster.
func (r *Room) setRoster(roster wire.Roster) {
	r.roster = roster
	listed := make(map[wire.ID]bool, len(roster.Members))
	order := r.order[:0:0]
	for _, h := range roster.Members {
		id := memberID(h)
		if id == r.self {
			continue
		}
		listed[id] = true
		order = append(order, id)
		if m := r.members[id]; m != nil {
			m.negotiation.SetEpoch(roster.Epoch)
			continue
		}
		m := newMember(r, id, h)
		r.members[id] = m
		if r.owner != nil {
			m.name = r.owner.names[id]
		}
		m.shown = m.snapshot(r)
		r.event(PeerJoined{m.shown})
	}
	for _, id := range r.order {
		if !listed[id] {
			r.members[id].removed(r)
			delete(r.members, id)
		}
	}
	r.order = order
	for _, id := range r.order {
		if m := r.members[id]; !m.started {
			m.start(r)
		}
	}
}

// Lock lets nobody new in, or does again. Owners only.
func (r *Room) Lock(locked bool) error {
	return r.asOwner(func(o *ownership) error {
		if o.locked != locked {
			o.locked = locked
			r.publishRoster(wire.ID{})
		}
		return nil
	})
}

// Approve admits a newcomer that waits, or refuses it. Owners only.
func (r *Room) Approve(id wire.ID, admit bool) error {
	return r.asOwner(func(o *ownership) error {
		p, ok := o.pending[id]
		switch {
		case !ok:
			return fault.New(fault.UnknownPeer, nil)
		case !admit:
			o.refuse(r, id, p.nonce, wire.RefuseDenied)
		case len(o.admitted) >= o.limit:
			o.refuse(r, id, p.nonce, wire.RefuseFull)
			delete(o.pending, id)
			return fault.New(fault.RoomFull, nil)
		default:
			o.admit(r, id, p)
		}
		delete(o.pending, id)
		return nil
	})
}

// Remove takes a member out of the room for good. Owners only.
func (r *Room) Remove(id wire.ID) error {
	return r.asOwner(func(o *ownership) error {
		if r.members[id] == nil {
			return fault.New(fault.UnknownPeer, nil)
		}
		if len(o.removed) < maxRemoved {
			o.removed[id] = true
		}
		o.refuse(r, id, wire.ID{}, wire.RefuseRemoved)
		o.drop(r, id)
		return nil
	})
}

func (r *Room) asOwner(fn func(*ownership) error) error {
	return r.attempt(func() error {
		if r.owner == nil {
			return fault.New(fault.NotOwner, nil)
		}
		return fn(r.owner)
	})
}
