package room

import (
	"maps"
	"slices"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

const (
	maxPending = 32          // newcomers that wait for approval
	maxNonces  = 1024        // of joins, remembered against replay
	maxRemoved = 1024        // the oldest is forgotten first
	denial     = time.Minute // a newcomer that was denied may ask again after it
	// claimAhead is how far beyond the owner's clock a claimed epoch counts.
	claimAhead = 24 * time.Hour
	// linkless is how long a member stays in the roster that has gone, seatless how long where a newcomer wants its place; it is given
	// the time to ask for the roster again, too.
	linkless = 60 * time.Second
	seatless = 15 * time.Second
	asking   = rejoinEvery + 5*time.Second
	// joinGap is how close upon each other joins may go out: the hub can provoke them. rejoinEvery is how often a member
	// without a link to the owner asks for the newest roster; it may have been dropped from it.
	joinGap     = time.Second
	rejoinEvery = 30 * time.Second
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
	denied   map[wire.ID]time.Time // when
	removed  []wire.ID             // oldest first
	nonces   []wire.ID
	claimed  uint64 // the highest epoch that a member has seen
	changed  bool   // there is something to publish
	replies  []reply
	standing []byte // the roster that stands, signed, answering no join; nil: not signed yet
}

// reply is a join that wants a roster.
type reply struct{ to, nonce wire.ID }

// sentJoin is the join that is out.
type sentJoin struct {
	nonce, envelope wire.ID
	at              time.Time
	again           bool // another one is due
}

type pendingJoin struct {
	hash  wire.Hash
	nonce wire.ID
	name  string
}

func newOwnership(identity *seal.Identity, cfg Config) *ownership {
	o := &ownership{identity: identity, approval: cfg.Admission == AdmitApproval, limit: cfg.MaxRecipients + 1,
		admitted: []wire.Hash{identity.KeyHash()}, names: map[wire.ID]string{}, pending: map[wire.ID]pendingJoin{},
		denied: map[wire.ID]time.Time{}}
	if s := cfg.Saved; s != nil {
		o.locked = s.Locked
		o.removed = slices.Clone(s.Removed[max(len(s.Removed)-maxRemoved, 0):])
		if len(s.Members) > 1 && s.Members[0] == identity.KeyHash() {
			o.admitted = append(o.admitted, s.Members[1:min(len(s.Members), o.limit)]...)
		}
	}
	return o
}

func memberID(h wire.Hash) wire.ID { return wire.ID(h[:len(wire.ID{})]) }

func (o *ownership) isAdmitted(h wire.Hash) bool { return slices.Contains(o.admitted, h) }

func (o *ownership) isRemoved(id wire.ID) bool { return slices.Contains(o.removed, id) }

// remove takes a member out of the roster, at the next flush, and remembers that it may not come back.
func (o *ownership) remove(id wire.ID) {
	if len(o.removed) == maxRemoved {
		o.removed = o.removed[1:]
	}
	o.removed = append(o.removed, id)
	o.drop(id)
}

// join takes a newcomer's request. What costs little to check comes first, the signature last.
func (o *ownership) join(r *Room, from wire.ID, body []byte) (acknowledge bool) {
	join, _, err := wire.ParseJoin(body)
	var hash wire.Hash
	if err == nil {
		hash, err = seal.KeyHash(join.Keys)
	}
	switch {
	case err != nil:
		r.dropped++
		return true
	case memberID(hash) != from, from == r.self, slices.Contains(o.nonces, join.Nonce):
		return true
	case !r.mayVerify(from):
		return false
	}
	if join, err = seal.VerifyJoin(r.keys.ID, body); err != nil {
		r.dropped++
		return true
	}
	o.decide(r, from, hash, join)
	return true
}

// decide answers a genuine join.
func (o *ownership) decide(r *Room, from wire.ID, hash wire.Hash, join wire.Join) {
	if len(o.nonces) == maxNonces {
		o.nonces = o.nonces[1:]
	}
	o.nonces = append(o.nonces, join.Nonce)
	if ahead := uint64(r.cfg.Now().Add(claimAhead).UnixMilli()); join.Epoch <= ahead {
		o.claimed = max(o.claimed, join.Epoch)
	}
	join.Name = legible(join.Name)
	switch {
	case o.isRemoved(from):
		o.refuse(r, from, join.Nonce, wire.RefuseRemoved)
	case o.isAdmitted(hash):
		o.names[from] = join.Name
		if m := r.members[from]; m != nil {
			m.joined = r.cfg.Now()
		}
		o.replies = append(o.replies, reply{from, join.Nonce})
		o.changed = o.changed || o.claimed > r.roster.Epoch
	case o.locked:
		o.refuse(r, from, join.Nonce, wire.RefuseLocked)
	case len(o.admitted) >= o.limit && o.seat(r) == nil:
		o.refuse(r, from, join.Nonce, wire.RefuseFull)
	case o.approval && r.cfg.Now().Sub(o.denied[from]) < denial:
		o.refuse(r, from, join.Nonce, wire.RefuseDenied)
	case o.approval:
		p, known := o.pending[from]
		if !known && len(o.pending) >= maxPending {
			o.refuse(r, from, join.Nonce, wire.RefuseFull)
			return
		}
		o.pending[from] = pendingJoin{hash, join.Nonce, join.Name}
		o.refuse(r, from, join.Nonce, wire.RefusePending)
		if !known || p.name != join.Name {
			r.event(JoinRequested{from.String(), join.Name})
		}
	default:
		o.admit(r, from, pendingJoin{hash, join.Nonce, join.Name})
	}
}

// admit lets a newcomer in. There is a seat for it, or one that can be made.
func (o *ownership) admit(r *Room, id wire.ID, p pendingJoin) {
	if len(o.admitted) >= o.limit {
		o.drop(o.seat(r).id)
		o.flush(r) // the newcomer is a change of its own: nobody is to miss that the other has gone
	}
	o.admitted = append(o.admitted, p.hash)
	o.names[id] = p.name
	o.replies = append(o.replies, reply{id, p.nonce})
	o.changed = true
}

// deny remembers for a while that a newcomer was denied: it may have repeated its join, by itself, before it learns of it.
func (o *ownership) deny(id wire.ID, now time.Time) {
	maps.DeleteFunc(o.denied, func(_ wire.ID, at time.Time) bool { return now.Sub(at) >= denial })
	if len(o.denied) < maxPending {
		o.denied[id] = now
	}
}

// seat is the member whose place a newcomer may have: the one that has been gone for longest, if that is long enough.
func (o *ownership) seat(r *Room) *member {
	now := r.cfg.Now()
	var gone *member
	for _, h := range o.admitted[1:] {
		m := r.members[memberID(h)]
		if m == nil || m.open() {
			continue
		}
		since := m.goneSince(r)
		if now.Sub(since) >= seatless && now.Sub(m.joined) >= asking && (gone == nil || since.Before(gone.goneSince(r))) {
			gone = m
		}
	}
	return gone
}

// goneSince is when a member without a link last gave a sign of life, or would have had no way to: one that has no path to us but still asks for
// the roster is there, and may well have links to others, and while the server is away from us nobody can ask.
func (m *member) goneSince(r *Room) time.Time {
	last := m.since
	for _, t := range []time.Time{m.joined, r.enteredAt} {
		if t.After(last) {
			last = t
		}
	}
	return last
}

func (o *ownership) refuse(r *Room, to, nonce wire.ID, code wire.RefuseCode) {
	r.send(to, nil, wire.PayloadRefuse, seal.SignRefuse(o.identity, wire.Refuse{Room: r.keys.ID, Member: to, Nonce: nonce, Code: code}))
}

// flush publishes what has changed and answers the joins that came meanwhile: many that arrive at once share one roster.
func (o *ownership) flush(r *Room) {
	switch {
	case o.changed:
		o.publish(r)
	case len(o.replies) > 0:
		o.answer(r, r.roster)
	}
}

// publish signs a new roster and sends it to everyone in it.
func (o *ownership) publish(r *Room) {
	o.changed = false
	roster := wire.Roster{Room: r.keys.ID, Epoch: max(r.roster.Epoch+1, uint64(r.cfg.Now().UnixMilli()), o.claimed+1),
		Locked: o.locked, Approval: o.approval, MaxMembers: uint8(o.limit), Members: slices.Clone(o.admitted)}
	answered := o.answer(r, roster)
	o.standing = nil
	for _, h := range o.admitted[1:] {
		id := memberID(h)
		m := r.members[id]
		linked := m != nil && m.open()
		if linked {
			o.tell(m, roster)
		}
		if !answered[id] {
			r.send(id, nil, wire.PayloadRoster, o.sign(roster))
		}
	}
	r.setRoster(roster)
}

// tell sends the roster that stands over the link to a member: no hub can withhold it.
func (o *ownership) tell(m *member, roster wire.Roster) {
	m.link.SendControl(wire.RosterUpdate{Body: o.sign(roster)})
}

func (o *ownership) sign(roster wire.Roster) []byte {
	if o.standing == nil {
		o.standing = seal.SignRoster(o.identity, roster)
	}
	return o.standing
}

// answer sends the roster to those whose joins wait for it, with their nonces.
func (o *ownership) answer(r *Room, roster wire.Roster) (answered map[wire.ID]bool) {
	answered = map[wire.ID]bool{}
	for _, reply := range o.replies {
		if slices.ContainsFunc(roster.Members, func(h wire.Hash) bool { return memberID(h) == reply.to }) {
			roster.ReplyTo = reply.nonce
			r.send(reply.to, nil, wire.PayloadRoster, seal.SignRoster(o.identity, roster))
			answered[reply.to] = true
		}
	}
	o.replies = nil
	return answered
}

// drop takes a member out of the roster, at the next flush.
func (o *ownership) drop(id wire.ID) {
	i := slices.IndexFunc(o.admitted, func(h wire.Hash) bool { return memberID(h) == id })
	if i > 0 {
		o.admitted = slices.Delete(slices.Clone(o.admitted), i, i+1)
		delete(o.names, id)
		o.changed = true
	}
}

// tick drops members that have gone.
func (o *ownership) tick(r *Room, now time.Time) {
	for _, h := range o.admitted[1:] {
		if m := r.members[memberID(h)]; m != nil && !m.open() && r.connected && now.Sub(m.goneSince(r)) > linkless {
			o.drop(m.id)
		}
	}
}

// sendJoin asks the owner for the roster: to be in it, or, being in it, for the newest.
func (r *Room) sendJoin() {
	now := r.cfg.Now()
	if !r.join.at.IsZero() && now.Sub(r.join.at) < joinGap {
		r.join.again = true
		return
	}
	r.outbox.Ack(r.link.Owner, r.join.envelope) // its answer would be to another nonce
	r.join = sentJoin{nonce: newID(), at: now}
	r.join.envelope = r.send(r.link.Owner, nil, wire.PayloadJoin, seal.SignJoin(r.identity, wire.Join{Room: r.keys.ID, Nonce: r.join.nonce,
		Epoch: r.roster.Epoch, Name: r.cfg.Name}))
}

// rejoin sends a join that is due.
func (r *Room) rejoin(now time.Time) {
	owner := r.members[r.link.Owner]
	if since := now.Sub(r.join.at); since >= joinGap && r.join.again || since >= rejoinEvery && (owner == nil || !owner.open()) {
		r.sendJoin()
	}
}

// rosterReceived takes a roster: over the link to the owner, or from an envelope, whose author may be anybody.
func (r *Room) rosterReceived(body []byte, linked bool) (acknowledge bool) {
	roster, _, err := wire.ParseRoster(body)
	listed := slices.Contains(roster.Members, r.identity.KeyHash())
	entering := r.roster.Epoch == 0
	switch {
	case err != nil:
		r.dropped++
		return true
	case roster.Epoch <= r.roster.Epoch, entering && (!listed || roster.ReplyTo != r.join.nonce):
		return true
	case !linked && !r.mayVerify(r.link.Owner):
		return false
	}
	if roster, err = seal.VerifyRoster(r.keys.ID, r.link.Owner, body); err != nil {
		r.dropped++
		return true
	}
	if !listed {
		r.close(fault.Removed)
		return true
	}
	r.setRoster(roster)
	if entering {
		r.setState(StateOpen, "")
		r.answer(nil)
	}
	return true
}

func (r *Room) refused(body []byte) (acknowledge bool) {
	refuse, _, err := wire.ParseRefuse(body)
	// A removal answers no join. It is final, so that an old one says nothing new.
	removal := refuse.Code == wire.RefuseRemoved && refuse.Nonce == wire.ID{}
	switch {
	case err != nil:
		r.dropped++
		return true
	case refuse.Member != r.self, refuse.Nonce != r.join.nonce && !removal:
		return true
	case !r.mayVerify(r.link.Owner):
		return false
	}
	if refuse, err = seal.VerifyRefuse(r.keys.ID, r.link.Owner, body); err != nil {
		r.dropped++
		return true
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
	return true
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
			m.name, m.joined = r.owner.names[id], r.cfg.Now()
		}
		m.shown = m.shows()
		r.event(PeerJoined{m.snapshot(r)})
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
			o.locked, o.changed = locked, true
			o.flush(r)
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
			o.deny(id, r.cfg.Now())
		case len(o.admitted) >= o.limit && o.seat(r) == nil:
			o.refuse(r, id, p.nonce, wire.RefuseFull)
			delete(o.pending, id)
			return fault.New(fault.RoomFull, nil)
		default:
			o.admit(r, id, p)
			o.flush(r)
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
		o.remove(id)
		o.flush(r)
		o.refuse(r, id, wire.ID{}, wire.RefuseRemoved)
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
