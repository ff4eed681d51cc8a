//go:build !js

package room_test

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// insider holds the room's link and has the hub on its side.
type insider struct {
	w    *world
	keys *seal.RoomKeys

	mu   sync.Mutex
	seen []overheard
	more chan struct{} // closed when there is more
}

// overheard is a payload that the insider could read.
type overheard struct {
	from, to wire.ID
	kind     wire.PayloadType
	body     []byte
}

func newInsider(w *world) *insider {
	in := &insider{w: w, more: make(chan struct{})}
	w.meddle(nil, func(member wire.ID, message []byte) [][]byte {
		relay, err := wire.ParseRelay(message, wire.HubSend)
		if err != nil || in.keys == nil {
			return [][]byte{message}
		}
		if p, err := in.keys.OpenEnvelope(member, relay.Member, relay.Envelope); err == nil {
			if kind, body, err := wire.ParsePayload(p); err == nil {
				in.mu.Lock()
				in.seen = append(in.seen, overheard{member, relay.Member, kind, slices.Clone(body)})
				close(in.more)
				in.more = make(chan struct{})
				in.mu.Unlock()
			}
		}
		return [][]byte{message}
	})
	return in
}

// learn gives the insider the link.
func (in *insider) learn(link seal.Link) {
	in.w.mu.Lock()
	defer in.w.mu.Unlock()
	in.keys = link.Keys()
}

// heard is the bodies of what passed between two members.
func (in *insider) heard(from, to wire.ID, kind wire.PayloadType) (bodies [][]byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, o := range in.seen {
		if o.from == from && o.to == to && o.kind == kind {
			bodies = append(bodies, o.body)
		}
	}
	return bodies
}

// await waits until so many of one of the kinds have passed.
func (in *insider) await(from, to wire.ID, n int, kinds ...wire.PayloadType) (bodies [][]byte) {
	in.w.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		in.mu.Lock()
		more := in.more
		in.mu.Unlock()
		bodies = nil
		for _, kind := range kinds {
			bodies = append(bodies, in.heard(from, to, kind)...)
		}
		if len(bodies) >= n {
			return bodies
		}
		select {
		case <-more:
		case <-timeout.C:
			in.w.t.Fatalf("%d payloads of %v in vain, want %d", len(bodies), kinds, n)
		}
	}
}

// answers is how much a member has said to another that only members say to each other.
func (in *insider) answers(from, to wire.ID) (n int) {
	for _, kind := range []wire.PayloadType{wire.PayloadRoster, wire.PayloadHello, wire.PayloadKnock, wire.PayloadOffer, wire.PayloadAnswer, wire.PayloadCandidates} {
		n += len(in.heard(from, to, kind))
	}
	return n
}

// forge delivers a payload in another's name.
func (in *insider) forge(from, to wire.ID, kind wire.PayloadType, body []byte) {
	var id wire.ID
	rand.Read(id[:])
	envelope := in.keys.SealEnvelope(from, to, id, append([]byte{byte(kind)}, body...))
	in.w.tell(to, wire.Relay{Member: from, Envelope: envelope}.Append(nil, wire.HubDeliver))
}

// stayed checks that p has kept its links since a mark.
func (p *person) stayed(mark int) {
	p.t.Helper()
	for _, e := range p.since(mark) {
		switch e := e.(type) {
		case room.PeerLeft:
			p.t.Errorf("%s lost %s", p.name, e.Peer.Name)
		case room.PeerJoined:
			p.t.Errorf("%s was shown %s", p.name, e.Peer.ID)
		case room.PeerChanged:
			if e.Peer.State != room.PeerOpen {
				p.t.Errorf("%s: the link to %s is %s", p.name, e.Peer.Name, e.Peer.State)
			}
		case room.RoomChanged:
			p.t.Errorf("%s: the room is %s %s", p.name, e.State, e.Code)
		case room.Problem:
			p.t.Errorf("%s: %+v", p.name, e)
		}
	}
}

// settled waits until a member has processed what it was told before: a transfer to it goes through.
func settled(from, to *person) {
	from.t.Helper()
	file := content(1000, 77)
	snapshot, err := from.room.Send([]room.OutFile{outFile("settled", file)}, room.SendOptions{To: []wire.ID{to.id()}})
	if err != nil {
		from.t.Fatal(err)
	}
	id := transferID(from.t, from.room.Self().ID, snapshot.ID)
	wait(to, "an offer", func(e room.OfferReceived) bool { return e.Offer.ID == snapshot.ID })
	if _, err := to.room.Accept(id, nil); err != nil {
		from.t.Fatal(err)
	}
	to.check(to.finished(id), file)
	from.finished(id)
}

// TestHubLies: what the hub says about presence shows nobody, closes nothing, and costs little.
func TestHubLies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	var mu sync.Mutex
	joins := 0
	all := w.group("Ann", "Bob", "Cleo")
	ann, bob, cleo := all[0], all[1], all[2]
	keys := ann.room.Link().Keys()
	w.meddle(nil, func(member wire.ID, message []byte) [][]byte {
		if relay, err := wire.ParseRelay(message, wire.HubSend); err == nil {
			if p, err := keys.OpenEnvelope(member, relay.Member, relay.Envelope); err == nil && wire.PayloadType(p[0]) == wire.PayloadJoin {
				mu.Lock()
				joins++
				mu.Unlock()
			}
		}
		return [][]byte{message}
	})
	marks := []int{ann.mark(), bob.mark()}
	presence := func(kind wire.HubType, id wire.ID) []byte { return append([]byte{byte(kind)}, id[:]...) }
	for i := range 300 {
		for _, p := range []*person{ann, bob} {
			w.tell(p.id(), presence(wire.HubAbsent, cleo.id()))
			w.tell(p.id(), presence(wire.HubPresent, wire.ID{byte(i), byte(i >> 8), 1}))
		}
		w.tell(bob.id(), presence(wire.HubAbsent, ann.id()))
		w.tell(bob.id(), presence(wire.HubPresent, ann.id()))
		w.tell(bob.id(), wire.Relay{Member: wire.ID{1}, Envelope: []byte("not an envelope")}.Append(nil, wire.HubDeliver))
		w.tell(bob.id(), wire.Relay{Member: ann.id(), Envelope: make([]byte, 200)}.Append(nil, wire.HubDeliver))
	}
	w.tell(bob.id(), presence(wire.HubAbsent, ann.id()))
	settled(ann, bob)
	settled(cleo, bob)
	ann.stayed(marks[0])
	bob.stayed(marks[1])
	mu.Lock()
	defer mu.Unlock()
	if joins > 60 { // one a second at most, and repeats
		t.Errorf("the hub has made Bob send %d joins", joins)
	}
}

// TestForgedAdmission: an insider replays and forges rosters, joins and refusals.
func TestForgedAdmission(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	in := newInsider(w)
	ann := w.create("Ann", nil)
	in.learn(ann.room.Link())
	bob, cleo, dan := w.join("Bob", ann.room.Link()), w.join("Cleo", ann.room.Link()), w.join("Dan", ann.room.Link())
	meetAll(ann, bob, cleo, dan)
	eve, err := seal.NewIdentity([32]byte{66})
	if err != nil {
		t.Fatal(err)
	}
	annID, bobID, cleoID, danID := ann.id(), bob.id(), cleo.id(), dan.id()

	if err := ann.room.Remove(cleoID); err != nil {
		t.Fatal(err)
	}
	dan.room.Leave(context.Background())
	for _, name := range []string{"Cleo", "Dan"} {
		for _, p := range []*person{ann, bob} {
			wait(p, name+" to be gone", func(e room.PeerLeft) bool { return e.Peer.Name == name })
		}
	}
	anns, bobs := ann.mark(), bob.mark()

	rosters := in.heard(annID, bobID, wire.PayloadRoster)
	if len(rosters) < 3 {
		t.Fatalf("%d rosters were overheard", len(rosters))
	}
	newest, err := seal.VerifyRoster(in.keys.ID, annID, rosters[len(rosters)-1])
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range rosters { // all that Bob has had: rollback
		in.forge(annID, bobID, wire.PayloadRoster, body)
		in.forge(bobID, annID, wire.PayloadRoster, body)
	}
	changed := slices.Clone(rosters[0])
	changed[1+16] = 0xff // the epoch
	in.forge(annID, bobID, wire.PayloadRoster, changed)
	foreign := newest
	foreign.Epoch, foreign.Members = newest.Epoch+1, []wire.Hash{eve.KeyHash()}
	in.forge(annID, bobID, wire.PayloadRoster, seal.SignRoster(eve, foreign))
	for _, code := range []wire.RefuseCode{wire.RefuseLocked, wire.RefuseRemoved} {
		in.forge(annID, bobID, wire.PayloadRefuse, seal.SignRefuse(eve, wire.Refuse{Room: in.keys.ID, Member: bobID, Code: code}))
	}
	for _, body := range in.heard(annID, cleoID, wire.PayloadRefuse) { // hers, not Bob's
		in.forge(annID, bobID, wire.PayloadRefuse, body)
	}

	joins := in.heard(danID, annID, wire.PayloadJoin)
	if len(joins) == 0 {
		t.Fatal("no join was overheard")
	}
	for _, body := range joins {
		in.forge(danID, annID, wire.PayloadJoin, body)     // again
		in.forge(eve.ID(), annID, wire.PayloadJoin, body)  // in another's name
		in.forge(danID, annID, wire.PayloadJoin, body[1:]) // damaged
	}
	for _, body := range in.heard(cleoID, annID, wire.PayloadJoin) {
		in.forge(cleoID, annID, wire.PayloadJoin, body)
	}
	settled(ann, bob)
	settled(bob, ann)
	ann.stayed(anns)
	bob.stayed(bobs)
	if n := len(bob.room.Peers()); n != 1 {
		t.Errorf("Bob sees %d members", n)
	}
}

// TestFloods: an insider forges Knocks and Hellos in another's name, and says whatever a room envelope can hold, while
// a transfer is under way.
func TestFloods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	in := newInsider(w)
	ann := w.create("Ann", nil)
	in.learn(ann.room.Link())
	bob := w.join("Bob", ann.room.Link())
	meetAll(ann, bob)
	file := content(2*mib, 1)
	g := newGated(t, file, mib)
	id := ann.send(outFile("a.bin", g))
	bob.accept(ann)
	ann.stored(bob, mib)
	anns, bobs := ann.mark(), bob.mark()
	for i := range 150 {
		for _, pair := range [][2]wire.ID{{ann.id(), bob.id()}, {bob.id(), ann.id()}} {
			in.forge(pair[0], pair[1], wire.PayloadKnock, wire.Knock{Member: pair[0]}.Append(nil))
			in.forge(pair[0], pair[1], wire.PayloadHello, wire.Hello{Member: pair[0], Nonce: wire.Hash{byte(i)}}.Append(nil))
			in.forge(pair[0], pair[1], wire.PayloadRestart, []byte{1})
			in.forge(wire.ID{byte(i)}, pair[1], wire.PayloadHello, wire.Hello{Member: wire.ID{byte(i)}}.Append(nil))
			in.forge(wire.ID{byte(i)}, pair[1], wire.PayloadAck, wire.Ack{}.Append(nil))
		}
		if i%50 == 0 {
			time.Sleep(100 * time.Millisecond) // a flood that lasts
		}
	}
	g.open()
	bob.check(bob.finished(id), file)
	ann.finished(id)
	ann.stayed(anns)
	bob.stayed(bobs)
}

// TestUninvited: one who is not in the roster gets no answer to what it says
// beyond admission.
func TestUninvited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	in := newInsider(w)
	ann := w.create("Ann", func(c *room.Config) { c.Admission = room.AdmitApproval })
	in.learn(ann.room.Link())
	// Eve waits for approval, and shakes hands meanwhile.
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	p, cfg := w.person("Eve")
	go func() { _, err := room.Join(ctx, ann.room.Link(), cfg); done <- err }()
	e := wait(ann, "Eve's request", func(room.JoinRequested) bool { return true })
	id, err := parseID(e.ID)
	if err != nil {
		t.Fatal(err)
	}
	wait(p, "to be pending", func(e room.RoomChanged) bool { return e.State == room.StatePending })
	in.forge(id, ann.id(), wire.PayloadKnock, wire.Knock{Member: id}.Append(nil))
	in.forge(id, ann.id(), wire.PayloadHello, wire.Hello{Member: id}.Append(nil))
	cancel()
	if err := <-done; fault.Of(err) != fault.Cancelled {
		t.Error(err)
	}
	bobs := make(chan *person, 1)
	go func() {
		bob, err := w.tryJoin("Bob", ann.room.Link())
		if err != nil {
			t.Error(err)
		}
		bobs <- bob
	}()
	b := wait(ann, "Bob's request", func(e room.JoinRequested) bool { return e.Name == "Bob" })
	bobID, err := parseID(b.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := ann.room.Approve(bobID, true); err != nil {
		t.Fatal(err)
	}
	meetAll(ann, <-bobs)
	for _, kind := range []wire.PayloadType{wire.PayloadHello, wire.PayloadKnock, wire.PayloadOffer, wire.PayloadAck} {
		for range in.heard(ann.id(), id, kind) {
			if kind != wire.PayloadAck {
				t.Errorf("Ann answered one who is not in the roster with %d", kind)
			}
		}
	}
}
