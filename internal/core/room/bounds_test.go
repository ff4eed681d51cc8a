//go:build !js

package room

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/seal"
	"tallow/internal/core/signaling"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
	"tallow/internal/heap"
)

// still is a room without a server, a network or a loop: the test delivers to it, owns its clock, and takes its events.
type still struct {
	*Room
	now    time.Time
	events []Event
}

// newStill makes a room in which the others are listed; without a link, an own one.
func newStill(tb testing.TB, seed byte, link *seal.Link, cfg Config, others ...*seal.Identity) *still {
	tb.Helper()
	return newStillOf(tb, [32]byte{seed}, link, cfg, others...)
}

func newStillOf(tb testing.TB, seed [32]byte, link *seal.Link, cfg Config, others ...*seal.Identity) *still {
	tb.Helper()
	s := &still{now: time.UnixMilli(1_800_000_000_000)}
	cfg.Seed = &seed
	cfg.Engine = bulk.Go{}
	cfg.Now = func() time.Time { return s.now }
	cfg.Events = func(e Event) { s.events = append(s.events, e) }
	cfg.NewConn = func(peer.ConnConfig) (peer.Conn, error) { return nil, errors.New("no network") }
	r, err := newRoom(context.Background(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	s.Room, r.state, r.waiting = r, StateOpen, nil
	if link != nil {
		r.link = *link
	} else {
		r.link = seal.NewLink(r.self)
	}
	if r.self == r.link.Owner {
		r.owner = newOwnership(r.identity, r.cfg)
	}
	r.keys = r.link.Keys()
	r.once.Do(func() {}) // there is nothing to shut
	close(r.stopped)
	if r.owner != nil {
		for _, o := range others {
			r.owner.admitted = append(r.owner.admitted, o.KeyHash())
		}
		r.owner.publish(r)
	} else if len(others) > 0 {
		roster := wire.Roster{Room: r.keys.ID, Epoch: 1, Members: []wire.Hash{others[0].KeyHash(), r.identity.KeyHash()}}
		for _, o := range others[1:] {
			roster.Members = append(roster.Members, o.KeyHash())
		}
		r.setRoster(roster)
	}
	s.settle()
	tb.Cleanup(func() {
		for _, id := range r.order {
			r.members[id].shut(r)
		}
		r.cancel()
		r.links.Wait()
	})
	return s
}

// settle does what the loop would.
func (s *still) settle() {
	s.box.run()
	s.tick()
	if s.owner != nil {
		s.owner.flush(s.Room)
	}
	s.publishChanges()
	s.out.run()
}

// give delivers a payload in a room envelope and reports whether it has been taken: otherwise it would come again.
func (s *still) give(from wire.ID, t wire.PayloadType, body []byte) bool {
	id := newID()
	s.deliver(from, s.keys.SealEnvelope(from, s.self, id, append([]byte{byte(t)}, body...)))
	return s.inbox.Seen(from, id)
}

func newIdentity(tb testing.TB, seed byte) *seal.Identity {
	tb.Helper()
	id, err := seal.NewIdentity([32]byte{seed, 1})
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func number(n int) (id wire.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

// forgedJoin is a join that only its signature shows to be forged.
func forgedJoin(room wire.ID, n int) (from wire.ID, body []byte) {
	keys := make([]byte, wire.KeysSize)
	binary.BigEndian.PutUint64(keys[32:], uint64(n))
	hash, _ := seal.KeyHash(keys)
	m := wire.Join{Room: room, Nonce: number(n), Keys: keys, Name: "Eve", Signature: make([]byte, wire.SignatureSize)}
	return memberID(hash), m.Append(nil)
}

// TestJoinFlood: the owner verifies no more signatures than its limits allow, and newcomers get in all the same.
func TestJoinFlood(t *testing.T) {
	bob, cleo := newIdentity(t, 2), newIdentity(t, 3)
	ann := newStill(t, 1, nil, Config{MaxRecipients: 20})
	join := func(who *seal.Identity, nonce int) bool {
		return ann.give(who.ID(), wire.PayloadJoin, seal.SignJoin(who, wire.Join{Room: ann.keys.ID, Nonce: number(nonce), Name: "x"}))
	}

	// One sender, as the hub tells it: it uses up its own turn and nobody else's.
	eve, body := forgedJoin(ann.keys.ID, 0)
	for range 1000 {
		ann.give(eve, wire.PayloadJoin, body)
	}
	if ann.dropped != checksEachBurst {
		t.Errorf("%d signatures of one sender were verified at once, want %d", ann.dropped, checksEachBurst)
	}
	if !join(bob, 1) || !ann.owner.isAdmitted(bob.KeyHash()) {
		t.Error("Bob's join was not heard for the flood of another sender")
	}

	// As many senders as a lying hub likes.
	for i := range 1000 {
		from, body := forgedJoin(ann.keys.ID, 10+i)
		ann.give(from, wire.PayloadJoin, body)
	}
	if ann.dropped > checksAllBurst {
		t.Errorf("%d signatures of strangers were verified at once, want at most %d", ann.dropped, checksAllBurst)
	}
	if join(cleo, 2) {
		t.Error("a join beyond the limit was acknowledged unheard: it would not come again")
	}
	ann.settle()
	if !join(bob, 3) {
		t.Error("a member was not heard for the flood of strangers")
	}
	before := ann.dropped
	for second := range 5 {
		ann.now = ann.now.Add(time.Second)
		if second == 4 && !join(cleo, 2) {
			t.Error("Cleo's repeated join was not heard")
		}
		for i := range 100 {
			from, body := forgedJoin(ann.keys.ID, 10_000+1000*second+i)
			ann.give(from, wire.PayloadJoin, body)
		}
	}
	if n := ann.dropped - before; n > 5*checksAll {
		t.Errorf("%d signatures of strangers were verified in 5 s, want at most %d", n, 5*checksAll)
	}
	if n := len(ann.owner.admitted); n != 3 || !ann.owner.isAdmitted(cleo.KeyHash()) {
		t.Errorf("%d members; Bob asked twice, Cleo once", n)
	}
	if n := len(ann.checks.each); n > maxStrangers {
		t.Errorf("%d strangers are remembered", n)
	}
}

// TestChecksTogether: what a stranger is refused because others have used up what all have does not count against it.
func TestChecksTogether(t *testing.T) {
	ann := newStill(t, 1, nil, Config{})
	allowed := func(id wire.ID) (n int) {
		for range 100 {
			if ann.mayVerify(id) {
				n++
			}
		}
		return n
	}
	for i := range checksAllBurst {
		ann.mayVerify(number(i))
	}
	if n := allowed(number(-2)); n != 0 {
		t.Errorf("%d beyond what all have", n)
	}
	ann.now = ann.now.Add(time.Second)
	if n := allowed(number(-2)); n != checksAll {
		t.Errorf("%d a second later, want %d", n, checksAll)
	}
}

// TestCheapChecksFirst: what is refused for less than a signature costs none, and no turn either.
func TestCheapChecksFirst(t *testing.T) {
	owner, cleo := newIdentity(t, 2), newIdentity(t, 3)
	link := seal.NewLink(owner.ID())
	guest := newStill(t, 1, &link, Config{}, owner, cleo)
	ann := newStill(t, 4, nil, Config{}, cleo)
	roster := func(epoch uint64) []byte {
		return wire.Roster{Room: guest.keys.ID, Epoch: epoch, Members: guest.roster.Members, Keys: owner.PublicKeys(),
			Signature: make([]byte, wire.SignatureSize)}.Append(nil)
	}
	refuse := wire.Refuse{Room: guest.keys.ID, Member: guest.self, Nonce: number(7), Code: wire.RefuseLocked, Keys: owner.PublicKeys(),
		Signature: make([]byte, wire.SignatureSize)}
	stranger, forged := forgedJoin(ann.keys.ID, 1)
	known := seal.SignJoin(cleo, wire.Join{Room: ann.keys.ID, Nonce: number(8)})
	ann.give(cleo.ID(), wire.PayloadJoin, known)
	cleo.Destroy() // nothing of hers verifies below
	for name, c := range map[string]struct {
		to   *still
		from wire.ID
		kind wire.PayloadType
		body []byte
	}{
		"an old roster":           {guest, owner.ID(), wire.PayloadRoster, roster(1)},
		"another member's roster": {guest, cleo.ID(), wire.PayloadRoster, roster(9)},
		"another nonce's refusal": {guest, owner.ID(), wire.PayloadRefuse, refuse.Append(nil)},
		"a damaged roster":        {guest, owner.ID(), wire.PayloadRoster, roster(9)[1:]},
		"a roster for the owner":  {ann, cleo.ID(), wire.PayloadRoster, roster(9)},
		"a known nonce":           {ann, cleo.ID(), wire.PayloadJoin, known},
		"another's join":          {ann, number(3), wire.PayloadJoin, forged},
		"a join for a guest":      {guest, stranger, wire.PayloadJoin, forged},
	} {
		for range 2 * checksAllBurst {
			if !c.to.give(c.from, c.kind, c.body) {
				t.Errorf("%s used up the sender's turn", name)
				break
			}
		}
	}

	// What gets as far as the signature is limited, and is let in again when time has passed.
	for name, c := range map[string]struct {
		kind wire.PayloadType
		body []byte
	}{
		"rosters":  {wire.PayloadRoster, roster(9)},
		"refusals": {wire.PayloadRefuse, wire.Refuse{Room: guest.keys.ID, Member: guest.self, Code: wire.RefuseRemoved, Keys: owner.PublicKeys(), Signature: refuse.Signature}.Append(nil)},
		"offers":   {wire.PayloadOffer, []byte{1}},
		"answers":  {wire.PayloadAnswer, []byte{1}},
	} {
		guest.now = guest.now.Add(time.Hour)
		taken := 0
		for range 1000 {
			if guest.give(owner.ID(), c.kind, c.body) {
				taken++
			}
		}
		if taken != checksEachBurst {
			t.Errorf("%d of 1000 forged %s were looked at, want %d", taken, name, checksEachBurst)
		}
	}
	guest.now = guest.now.Add(time.Second)
	genuine := wire.Roster{Room: guest.keys.ID, Epoch: 10, Members: guest.roster.Members[:2]}
	if !guest.give(owner.ID(), wire.PayloadRoster, seal.SignRoster(owner, genuine)) || guest.roster.Epoch != 10 {
		t.Error("the owner's roster was not heard after the flood")
	}
}

// TestUnknownIDs: what any number of ids say, with or without the room's key, leaves nothing behind.
func TestUnknownIDs(t *testing.T) {
	owner := newIdentity(t, 2)
	link := seal.NewLink(owner.ID())
	guest := newStill(t, 1, &link, Config{}, owner)
	ann := newStill(t, 4, nil, Config{Admission: AdmitApproval})
	before := heap.InUse()
	kinds := []wire.PayloadType{wire.PayloadJoin, wire.PayloadRoster, wire.PayloadRefuse, wire.PayloadKnock, wire.PayloadHello,
		wire.PayloadOffer, wire.PayloadAnswer, wire.PayloadCandidates, wire.PayloadAck, wire.PayloadRestart}
	ids := 10_000
	if os.Getenv("TALLOW_SOAK") == "1" {
		ids = 100_000
	}
	for i := range ids {
		id := number(i)
		for _, s := range []*still{guest, ann} {
			s.signal(signaling.Present{Member: id})
			s.deliver(id, wire.Envelope{Kind: wire.PairEnvelope, ID: id, Session: id, Ciphertext: make([]byte, 40)}.Append(nil))
			if i%2 == 0 {
				s.deliver(id, wire.Envelope{Kind: wire.RoomEnvelope, ID: id, Ciphertext: make([]byte, 40)}.Append(nil))
			} else {
				s.give(id, kinds[i/2%len(kinds)], id[:])
			}
			s.out.run()
		}
	}
	for _, s := range []*still{guest, ann} {
		s.settle()
		if len(s.members) > 1 || len(s.checks.each) > maxStrangers || len(s.verified) > 0 {
			t.Errorf("%d members, %d strangers", len(s.members), len(s.checks.each))
		}
	}
	// An inbox holds 256 senders; here each has few ids.
	if grown := heap.InUse() - before; grown > 2<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	runtime.KeepAlive(guest)
	runtime.KeepAlive(ann)
}

// TestManyIdentities: more than there is room for ask for admission, genuinely.
func TestManyIdentities(t *testing.T) {
	for name, c := range map[string]struct {
		admission Admission
		members   int // in the roster, in the end
		pending   int
	}{
		"automatic":   {AdmitAll, 11, 0},
		"by approval": {AdmitApproval, 1, maxPending},
	} {
		ann := newStill(t, 1, nil, Config{Admission: c.admission})
		for i := range maxNonces {
			ann.owner.nonces = append(ann.owner.nonces, number(-i-2))
		}
		for i := range 100 {
			hash := wire.Hash(slices.Concat(slices.Repeat([]byte{byte(i), byte(i >> 8)}, 8), make([]byte, 16)))
			for try := range 2 { // of several names
				ann.owner.decide(ann.Room, memberID(hash), hash, wire.Join{Nonce: number(2*i + try), Name: string(rune('a' + try))})
			}
			ann.owner.deny(number(i), ann.now)
			ann.out.run()
		}
		ann.settle()
		o := ann.owner
		if len(o.admitted) != c.members || len(o.pending) != c.pending || len(o.nonces) > maxNonces || len(o.denied) > maxPending || len(o.names) > 11 {
			t.Errorf("%s: %d members, %d pending, %d nonces, %d denied, %d names", name, len(o.admitted), len(o.pending), len(o.nonces), len(o.denied), len(o.names))
		}
		asked := 0
		for _, e := range ann.events {
			if _, ok := e.(JoinRequested); ok {
				asked++
			}
		}
		if asked > 2*maxPending {
			t.Errorf("%s: the owner was asked %d times", name, asked)
		}
	}
}

// TestApprovalKeepsSeats: where the owner decides, asking alone costs nobody a place.
func TestApprovalKeepsSeats(t *testing.T) {
	bob, cleo := newIdentity(t, 2), newIdentity(t, 3)
	ann := newStill(t, 1, nil, Config{Admission: AdmitApproval, MaxRecipients: 1}, bob)
	ann.now = ann.now.Add(asking)
	ann.give(cleo.ID(), wire.PayloadJoin, seal.SignJoin(cleo, wire.Join{Room: ann.keys.ID, Nonce: number(1)}))
	ann.settle()
	if !ann.owner.isAdmitted(bob.KeyHash()) {
		t.Fatal("a newcomer has cost Bob his place by asking")
	}
	ann.owner.admit(ann.Room, cleo.ID(), ann.owner.pending[cleo.ID()])
	ann.settle()
	if ann.owner.isAdmitted(bob.KeyHash()) || !ann.owner.isAdmitted(cleo.KeyHash()) {
		t.Error("Cleo has not got Bob's place")
	}
}

// TestSeatsOutlastTheServer: while the owner has no server nobody can show that they are there, so that a full room has no place to give
// until it has been back for a while, and a member that has asked for the roster since keeps its own.
func TestSeatsOutlastTheServer(t *testing.T) {
	bob, cleo, dan := newIdentity(t, 2), newIdentity(t, 3), newIdentity(t, 4)
	ann := newStill(t, 1, nil, Config{MaxRecipients: 2}, bob, cleo)
	joins := 0
	join := func(who *seal.Identity) {
		joins++
		ann.give(who.ID(), wire.PayloadJoin, seal.SignJoin(who, wire.Join{Room: ann.keys.ID, Nonce: number(joins)}))
		ann.settle()
	}
	admitted := func(when string, want ...*seal.Identity) {
		t.Helper()
		for _, who := range []*seal.Identity{bob, cleo, dan} {
			if is := ann.owner.isAdmitted(who.KeyHash()); is != slices.Contains(want, who) {
				t.Errorf("%s: member %s is in: %t", when, who.ID(), is)
			}
		}
	}
	ann.client = &signaling.Client{} // which sends nothing
	ann.now = ann.now.Add(100 * time.Second)
	ann.signal(signaling.Entered{})
	ann.settle()
	admitted("back", bob, cleo)
	join(dan)
	admitted("a newcomer at once", bob, cleo)
	ann.now = ann.now.Add(seatless - time.Second)
	join(bob)
	ann.now = ann.now.Add(2 * time.Second)
	join(dan)
	admitted("a newcomer after a while", bob, dan)
	ann.now = ann.now.Add(rejoinEvery)
	join(cleo)
	admitted("while it was not time to ask again", bob, dan)
	ann.now = ann.now.Add(asking - rejoinEvery)
	join(cleo)
	admitted("once it was", cleo, dan)
	ann.now = ann.now.Add(linkless + time.Second)
	ann.settle()
	admitted("all are gone")
}

// TestVerifiedSticks: to the identity, for as long as the room is open; to no name.
func TestVerifiedSticks(t *testing.T) {
	owner, bob, other, third := newIdentity(t, 2), newIdentity(t, 3), newIdentity(t, 4), newIdentity(t, 5)
	link := seal.NewLink(owner.ID())
	guest := newStill(t, 1, &link, Config{}, owner, bob)
	roster := func(members ...*seal.Identity) {
		next := wire.Roster{Room: guest.keys.ID, Epoch: guest.roster.Epoch + 1, Members: []wire.Hash{owner.KeyHash(), guest.identity.KeyHash()}}
		for _, m := range members {
			next.Members = append(next.Members, m.KeyHash())
		}
		guest.setRoster(next)
		for _, m := range members {
			guest.members[m.ID()].name = "Bob"
		}
	}
	verified := func(m *seal.Identity) bool { return guest.members[m.ID()].snapshot(guest.Room).Verified }
	guest.members[bob.ID()].verified = true
	roster(other)
	roster(other, third)
	if verified(other) || verified(third) {
		t.Error("another identity under the same name is verified")
	}
	roster(bob, other)
	if !verified(bob) || verified(other) {
		t.Errorf("Bob came back: %v, the other: %v", verified(bob), verified(other))
	}
	guest.members[bob.ID()].verified = false
	roster()
	roster(bob)
	if verified(bob) {
		t.Error("what was taken back has stuck")
	}
	for i := range 2 * maxVerified {
		id := number(i)
		m := newMember(guest.Room, id, wire.Hash(slices.Concat(id[:], make([]byte, 16))))
		m.verified = true
		m.removed(guest.Room)
		guest.out.run()
	}
	if len(guest.verified) > maxVerified {
		t.Errorf("%d are remembered", len(guest.verified))
	}
}

// TestSavedOwnership: an owner that comes back knows whom it removed, and that the room is locked, before anybody asks.
func TestSavedOwnership(t *testing.T) {
	bob, cleo, dan := newIdentity(t, 2), newIdentity(t, 3), newIdentity(t, 4)
	ann := newStill(t, 1, nil, Config{}, bob, cleo)
	ann.owner.remove(bob.ID())
	ann.owner.locked = true
	ann.settle()
	save := func() (saved Saved, err error) {
		done := make(chan struct{})
		go func() { saved, err = ann.Saved(); close(done) }()
		for {
			select {
			case <-done:
				return saved, err
			case <-ann.box.ready:
				ann.box.run()
			}
		}
	}
	saved, err := save()
	if err != nil {
		t.Fatal(err)
	}
	back := newOwnership(ann.identity, Config{MaxRecipients: 10, Saved: &saved})
	if !back.locked || !back.isRemoved(bob.ID()) || len(back.removed) != 1 || !back.isAdmitted(cleo.KeyHash()) || back.isAdmitted(bob.KeyHash()) {
		t.Errorf("came back as %+v", back)
	}

	again := newStill(t, 1, nil, Config{Saved: &saved})
	for who, code := range map[*seal.Identity]wire.RefuseCode{bob: wire.RefuseRemoved, dan: wire.RefuseLocked} {
		again.give(who.ID(), wire.PayloadJoin, seal.SignJoin(who, wire.Join{Room: again.keys.ID, Nonce: newID()}))
		again.settle()
		if again.owner.isAdmitted(who.KeyHash()) {
			t.Errorf("one who should get refusal %d is in", code)
		}
	}
	if again.roster.Epoch == 0 || !again.roster.Locked {
		t.Errorf("the first roster: %+v", again.roster)
	}

	// Of a room that has closed nothing is answered: whoever kept that would have lost the lock, and who was removed.
	ann.state = StateClosed
	if _, err := save(); fault.Of(err) != fault.RoomClosed {
		t.Errorf("closed: %v", err)
	}
	close(ann.looped)
	if _, err := ann.Saved(); fault.Of(err) != fault.RoomClosed {
		t.Errorf("ended: %v", err)
	}
}

// TestRemovedBound: of too many who may not come back the oldest are forgotten, also by an owner that comes back itself.
func TestRemovedBound(t *testing.T) {
	ann := newStill(t, 1, nil, Config{})
	for i := range maxRemoved + 2 {
		ann.owner.remove(number(i))
	}
	saved := Saved{Members: ann.roster.Members, Removed: append([]wire.ID{number(-3)}, ann.owner.removed...)}
	for name, o := range map[string]*ownership{"before": ann.owner, "after": newOwnership(ann.identity, Config{MaxRecipients: 10, Saved: &saved})} {
		if len(o.removed) != maxRemoved || o.isRemoved(number(1)) || !o.isRemoved(number(2)) || !o.isRemoved(number(maxRemoved+1)) {
			t.Errorf("%s coming back: %d", name, len(o.removed))
		}
	}
}

// TestConductSticks: who leaves and joins again is still left alone for what it did, whoever else has done something.
func TestConductSticks(t *testing.T) {
	owner, bob := newIdentity(t, 2), newIdentity(t, 3)
	link := seal.NewLink(owner.ID())
	guest := newStill(t, 1, &link, Config{}, owner, bob)
	offend := func(m *member, c peer.Conduct) {
		m.negotiation = peer.NewNegotiation(peer.NegotiationConfig{Room: guest.keys, Self: guest.identity, Peer: m.id, PeerKeyHash: m.hash, Conduct: c})
		m.removed(guest.Room)
	}
	offend(guest.members[bob.ID()], peer.Conduct{Offences: 7, Barred: guest.now.Add(time.Minute)})
	for i := range 2 * maxConduct {
		id := number(i)
		m := newMember(guest.Room, id, wire.Hash(slices.Concat(id[:], make([]byte, 16))))
		offend(m, peer.Conduct{Offences: i % 2, Barred: guest.now.Add(time.Duration(i) * time.Microsecond)})
		guest.out.run()
	}
	if len(guest.conduct) > maxConduct {
		t.Errorf("%d are remembered", len(guest.conduct))
	}
	again := newMember(guest.Room, bob.ID(), bob.KeyHash())
	if c := again.negotiation.Conduct(); c.Offences != 7 || len(again.negotiation.Start(guest.now)) > 0 {
		t.Errorf("came back with %+v", c)
	}
	if _, twice := guest.conduct[bob.KeyHash()]; twice {
		t.Error("it is remembered twice")
	}
}

// TestLeftAndBarred: a member that has said goodbye and is left alone is not shown as connecting because it asks for a link.
func TestLeftAndBarred(t *testing.T) {
	owner, bob := newIdentity(t, 2), newIdentity(t, 3)
	link := seal.NewLink(owner.ID())
	guest := newStill(t, 1, &link, Config{}, owner, bob)
	for _, id := range guest.order {
		m := guest.members[id]
		m.negotiation = peer.NewNegotiation(peer.NegotiationConfig{Room: guest.keys, Self: guest.identity, Peer: m.id, PeerKeyHash: m.hash,
			Conduct: peer.Conduct{Offences: 1, Barred: guest.now.Add(time.Minute)}})
		m.rest(guest.Room, fault.PeerGone)
		ask := func() {
			guest.give(id, wire.PayloadHello, wire.Hello{Member: id, Nonce: wire.Hash{1}}.Append(nil))
			guest.give(id, wire.PayloadKnock, wire.Knock{Member: id}.Append(nil))
		}
		if ask(); m.snapshot(guest.Room).State != PeerClosed {
			t.Errorf("while it is left alone it is %s", m.snapshot(guest.Room).State)
		}
		guest.now = guest.now.Add(time.Minute)
		if ask(); m.snapshot(guest.Room).State != PeerConnecting {
			t.Errorf("after that it is %s", m.snapshot(guest.Room).State)
		}
	}
}

// TestNameSticks: a link that ends before it has told a name takes none from the ledger.
func TestNameSticks(t *testing.T) {
	owner := newIdentity(t, 2)
	link := seal.NewLink(owner.ID())
	guest := newStill(t, 1, &link, Config{}, owner)
	manifest, err := chunk.NewManifest(wire.MinChunkSize, []wire.FileEntry{{Path: "a", Size: 1}})
	if err != nil {
		t.Fatal(err)
	}
	out := &outgoing{names: map[wire.ID]string{}, machine: transfer.NewOutgoing(transfer.OutgoingConfig{Key: transfer.Key{Sender: guest.self},
		Manifest: manifest, Recipients: []wire.ID{owner.ID()}, Schedule: transfer.Star{}})}
	in := &incoming{machine: transfer.NewIncoming(transfer.Key{Sender: owner.ID()}, wire.TransferOffer{}, guest.now)}
	guest.outgoing[out.machine.Key()], guest.incoming[in.machine.Key()] = out, in
	for _, name := range []string{"Olga", ""} {
		m := newMember(guest.Room, owner.ID(), owner.KeyHash())
		m.name = name
		guest.linkDown(m, false, fault.PeerGone)
	}
	if out.names[owner.ID()] != "Olga" || in.name != "Olga" {
		t.Errorf("names %q and %q", out.names[owner.ID()], in.name)
	}
}

// TestDamagedEnvelopes: each is dropped and counted, gets no Ack, and changes nothing about an attempt; the intact one still counts.
func TestDamagedEnvelopes(t *testing.T) {
	owner := newIdentity(t, 2)
	link := seal.NewLink(owner.ID())
	seed := byte(3) // of one that is the initiator, to whom Hello is the beginning
	for id := newIdentity(t, seed).ID(); bytes.Compare(id[:], link.Owner[:]) >= 0; id = newIdentity(t, seed).ID() {
		seed++
	}
	guest := newStillOf(t, [32]byte{seed, 1}, &link, Config{}, owner)
	m := guest.members[owner.ID()]
	hello := append([]byte{byte(wire.PayloadHello)}, wire.Hello{Member: owner.ID(), Nonce: wire.Hash{1}}.Append(nil)...)
	id := newID()
	intact := guest.keys.SealEnvelope(owner.ID(), guest.self, id, hello)
	damaged := map[string][]byte{
		"from another":    guest.keys.SealEnvelope(guest.self, owner.ID(), id, hello),
		"of another room": seal.NewLink(owner.ID()).Keys().SealEnvelope(owner.ID(), guest.self, id, hello),
		"of no session":   wire.Envelope{Kind: wire.PairEnvelope, ID: id, Session: id, Ciphertext: make([]byte, 40)}.Append(nil),
		"of no type":      guest.keys.SealEnvelope(owner.ID(), guest.self, id, []byte{99}),
	}
	for i := range intact {
		b := slices.Clone(intact)
		b[i] ^= 1
		damaged["byte "+strconv.Itoa(i)], damaged["cut at "+strconv.Itoa(i)] = b, intact[:i]
	}
	for _, underway := range []bool{false, true} {
		for name, b := range damaged {
			before := guest.dropped
			guest.deliver(owner.ID(), b)
			if guest.dropped != before+1 || guest.inbox.Seen(owner.ID(), id) != underway || m.negotiation.Underway() != underway {
				t.Fatalf("%s: %d dropped, under way %v", name, guest.dropped-before, m.negotiation.Underway())
			}
		}
		guest.deliver(owner.ID(), intact)
		if !m.negotiation.Underway() {
			t.Fatal("the intact one has not been taken")
		}
	}
}

// TestEntryCode: who is kept out by what the server says learns why.
func TestEntryCode(t *testing.T) {
	for _, c := range []struct {
		closings []wire.ClosingCode // 0: the connection just ends
		want     fault.Code
	}{
		{[]wire.ClosingCode{0}, fault.ServerUnreachable},
		{[]wire.ClosingCode{wire.ClosingServerFull}, fault.ServerFull},
		{[]wire.ClosingCode{wire.ClosingRateLimited, 0}, fault.RateLimited},
		{[]wire.ClosingCode{wire.ClosingForbidden}, fault.ServerRefused},
		{[]wire.ClosingCode{wire.ClosingShuttingDown}, fault.ServerUnreachable},
		{[]wire.ClosingCode{wire.ClosingServerFull, wire.ClosingRateLimited}, fault.RateLimited},
		{[]wire.ClosingCode{200}, fault.ServerRefused},
	} {
		s := newStill(t, 1, nil, Config{})
		waiting := make(chan error, 1)
		s.state, s.since, s.waiting = StateConnecting, s.now, waiting
		for _, code := range c.closings {
			s.signal(signaling.Disconnected{Err: errors.New("closed"), Code: code})
		}
		s.now = s.now.Add(enterTimeout + time.Second)
		s.settle()
		select {
		case err := <-waiting:
			if fault.Of(err) != c.want {
				t.Errorf("%v: %v, want %s", c.closings, err, c.want)
			}
		default:
			t.Errorf("%v: still waiting", c.closings)
		}
	}
}
