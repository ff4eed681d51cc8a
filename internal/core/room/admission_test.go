//go:build !js

package room_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

func TestLocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	if err := bob.room.Lock(true); fault.Of(err) != fault.NotOwner {
		t.Errorf("a guest locks: %v", err)
	}
	if err := ann.room.Lock(true); err != nil {
		t.Fatal(err)
	}
	if _, err := w.tryJoin("Eve", ann.room.Link()); fault.Of(err) != fault.RoomLocked {
		t.Errorf("joined a locked room: %v", err)
	}
	if err := ann.room.Lock(false); err != nil {
		t.Fatal(err)
	}
	cleo := w.join("Cleo", ann.room.Link())
	meetAll(ann, bob, cleo)
}

func TestApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", func(c *room.Config) { c.Admission = room.AdmitApproval })
	type joined struct {
		p   *person
		err error
	}
	ask := func(name string) (<-chan joined, wire.ID) {
		result := make(chan joined, 1)
		go func() {
			p, err := w.tryJoin(name, ann.room.Link())
			result <- joined{p, err}
		}()
		e := wait(ann, name+"'s request", func(e room.JoinRequested) bool { return e.Name == name })
		id, err := parseID(e.ID)
		if err != nil {
			t.Fatal(err)
		}
		return result, id
	}
	bobs, bob := ask("Bob")
	eves, eve := ask("Eve")
	if n := len(ann.room.Peers()); n != 0 {
		t.Errorf("%d members before approval", n)
	}
	// Who waits is not forgotten when the server is, and the owner is not asked again.
	w.stopHub()
	mark := ann.mark()
	w.startHub()
	waitAfter(ann, mark, "the server", func(e room.RoomChanged) bool { return e.State == room.StateOpen })
	if err := ann.room.Approve(eve, false); err != nil {
		t.Fatal(err)
	}
	if r := <-eves; fault.Of(r.err) != fault.JoinDenied {
		t.Errorf("Eve: %v", r.err)
	}
	if err := ann.room.Approve(eve, true); fault.Of(err) != fault.UnknownPeer {
		t.Errorf("approved twice: %v", err)
	}
	if err := ann.room.Approve(bob, true); err != nil {
		t.Fatal(err)
	}
	r := <-bobs
	if r.err != nil {
		t.Fatal(r.err)
	}
	meetAll(ann, r.p)
	for _, e := range ann.since(mark) {
		if asked, ok := e.(room.JoinRequested); ok {
			t.Errorf("%s was asked about again", asked.Name)
		}
	}

	// One who gives up waiting is let go.
	ctx, cancel := context.WithCancel(context.Background())
	p, cfg := w.person("Dan")
	result := make(chan error, 1)
	go func() { _, err := room.Join(ctx, ann.room.Link(), cfg); result <- err }()
	wait(p, "to be pending", func(e room.RoomChanged) bool { return e.State == room.StatePending })
	cancel()
	if err := <-result; fault.Of(err) != fault.Cancelled {
		t.Errorf("Dan: %v", err)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", nil)
	seed := [32]byte{7}
	bob := w.joinWith("Bob", ann.room.Link(), func(c *room.Config) { c.Seed = &seed })
	cleo := w.join("Cleo", ann.room.Link())
	meetAll(ann, bob, cleo)
	file := content(2*mib, 1)
	g := newGated(t, file, mib)
	id := cleo.send(outFile("a.bin", g))
	ann.accept(cleo)
	bob.accept(cleo)
	cleo.stored(bob, mib)
	if err := cleo.room.Remove(bob.id()); fault.Of(err) != fault.NotOwner {
		t.Errorf("a guest removes: %v", err)
	}
	if err := ann.room.Remove(wire.ID{1}); fault.Of(err) != fault.UnknownPeer {
		t.Errorf("removed a stranger: %v", err)
	}
	bobID := bob.id()
	if err := ann.room.Remove(bobID); err != nil {
		t.Fatal(err)
	}
	wait(bob, "to be removed", func(e room.RoomChanged) bool { return e.State == room.StateClosed && e.Code == fault.Removed })
	for _, p := range []*person{ann, cleo} {
		wait(p, "Bob to be gone", func(e room.PeerLeft) bool { return e.Peer.ID == bobID.String() })
	}
	if r := bob.finished(id); r.Code == "" { // by the owner's word, or by Cleo's
		t.Errorf("Bob's transfer: %s", r.Code)
	}
	g.open()
	ann.check(ann.finished(id), file)
	<-bob.room.Done()
	if err := bob.room.Lock(true); fault.Of(err) != fault.RoomClosed {
		t.Errorf("after the end: %v", err)
	}
	if _, err := w.tryJoinWith("Bob", ann.room.Link(), func(c *room.Config) { c.Seed = &seed }); fault.Of(err) != fault.Removed {
		t.Errorf("came back: %v", err)
	}
}

func TestCannotEnter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3, 0)
	ann := w.create("Ann", nil)
	link := ann.room.Link()
	for name, c := range map[string]struct {
		link   func() seal.Link
		change func(*room.Config)
		code   fault.Code
	}{
		"another secret": {func() seal.Link { l := link; l.Secret[0] ^= 1; return l }, nil, fault.OwnerAway},
		"another owner":  {func() seal.Link { l := link; l.Owner[0] ^= 1; return l }, nil, fault.OwnerAway},
		"no server":      {func() seal.Link { return link }, func(c *room.Config) { c.ServerURL = "ws://127.0.0.1:1/ws" }, fault.ServerUnreachable},
		"a long name":    {func() seal.Link { return link }, func(c *room.Config) { c.Name = string(make([]byte, wire.MaxName+1)) }, fault.InvalidArgument},
		"a broken name":  {func() seal.Link { return link }, func(c *room.Config) { c.Name = "\xff" }, fault.InvalidArgument},
		"too many":       {func() seal.Link { return link }, func(c *room.Config) { c.MaxRecipients = wire.MaxRoster }, fault.InvalidArgument},
		"no ICE server":  {func() seal.Link { return link }, func(c *room.Config) { c.ICE = []wire.ICEServer{{URLs: []string{"https:a.example"}}} }, fault.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := w.tryJoinWith("Bob", c.link(), c.change); fault.Of(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
	t.Run("no room for more at the server", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 2, 0)
		ann := w.create("Ann", nil)
		w.join("Bob", ann.room.Link())
		if _, err := w.tryJoin("Cleo", ann.room.Link()); fault.Of(err) != fault.RoomFull {
			t.Errorf("%v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, cfg := w.person("Dan")
		if _, err := room.Create(ctx, cfg); fault.Of(err) != fault.Cancelled {
			t.Errorf("%v", err)
		}
	})
}

// TestOwnerAway: nobody new enters, those who are in stay together, and when the owner is back, with what it has saved,
// everything is as before.
func TestOwnerAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", nil)
	bob, cleo := w.join("Bob", ann.room.Link()), w.join("Cleo", ann.room.Link())
	meetAll(ann, bob, cleo)
	link, seed := ann.room.Link(), ann.room.Seed()
	saved, err := ann.room.Saved()
	if err != nil {
		t.Fatal(err)
	}
	annID := ann.room.Self().ID
	if len(saved.Members) != 3 || saved.Secret != link.Secret {
		t.Fatalf("saved %+v", saved)
	}
	ann.room.Leave(context.Background())
	for _, p := range []*person{bob, cleo} {
		wait(p, "the owner to leave", func(e room.PeerChanged) bool { return e.Peer.ID == annID && e.Peer.State == room.PeerClosed })
	}
	if _, err := w.tryJoin("Dan", link); fault.Of(err) != fault.OwnerAway {
		t.Errorf("joined without the owner: %v", err)
	}
	file := content(mib, 1)
	id := bob.send(outFile("a.bin", file))
	cleo.accept(bob)
	cleo.check(cleo.finished(id), file)

	bobs, cleos := bob.mark(), cleo.mark()
	again := w.create("Ann again", func(c *room.Config) { c.Seed, c.Saved = &seed, &saved })
	if again.room.Link() != link || !again.room.IsOwner() || len(again.room.Peers()) != 2 {
		t.Errorf("the room is another one: %+v", again.room.Peers())
	}
	again.meet(bob, cleo)
	for p, mark := range map[*person]int{bob: bobs, cleo: cleos} {
		waitAfter(p, mark, "the owner", func(e room.PeerChanged) bool {
			return e.Peer.ID == annID && e.Peer.State == room.PeerOpen && e.Peer.Name == "Ann again" && e.Peer.Owner
		})
		for _, e := range p.since(mark) {
			if _, left := e.(room.PeerLeft); left {
				t.Errorf("%s lost somebody", p.name)
			}
		}
	}
	dan := w.join("Dan", link)
	meetAll(again, dan)
	cleo.meet(dan)

	// Joining with the owner's seed is the same as coming back.
	again.room.Leave(context.Background())
	third, err := w.tryJoinWith("Ann a third time", link, func(c *room.Config) { c.Seed, c.Saved = &seed, &saved })
	if err != nil || !third.room.IsOwner() {
		t.Fatal(err)
	}
	third.meet(bob)
}

// TestReload: a member's page is gone without a word, or with one, and comes back with the same identity.
func TestReload(t *testing.T) {
	t.Parallel()
	for _, polite := range []bool{true, false} {
		w := newWorld(t, 11, 0)
		ann := w.create("Ann", nil)
		seed := [32]byte{9}
		join := func() *person {
			p := w.joinWith("Bob", ann.room.Link(), func(c *room.Config) { c.Seed = &seed })
			return p
		}
		bob := join()
		cleo := w.join("Cleo", ann.room.Link())
		meetAll(ann, bob, cleo)
		marks := map[*person]int{ann: ann.mark(), cleo: cleo.mark()}
		if polite {
			bob.room.Leave(context.Background())
		} else {
			w.mu.Lock()
			w.dead[bob.address] = true
			w.mu.Unlock()
		}
		again := join()
		again.meet(ann, cleo)
		for p, mark := range marks {
			waitAfter(p, mark, "Bob again", func(e room.PeerChanged) bool {
				return e.Peer.ID == again.room.Self().ID && e.Peer.State == room.PeerOpen && e.Peer.Name == "Bob"
			})
		}
		if !polite {
			wait(bob, "to be replaced", func(e room.RoomChanged) bool { return e.State == room.StateClosed && e.Code == fault.Replaced })
		}
		file := content(1000, 1)
		id := ann.send(outFile("a.bin", file))
		again.accept(ann)
		again.check(again.finished(id), file)
	}
}

// TestSeats: who has been without a link for a while makes place for a newcomer, and is admitted again when there is one.
func TestSeats(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock := newClock()
	ann := w.create("Ann", func(c *room.Config) { c.MaxRecipients, c.Now = 2, clock.Now })
	bob, cleo := w.join("Bob", ann.room.Link()), w.join("Cleo", ann.room.Link())
	meetAll(ann, bob, cleo)
	if _, err := w.tryJoin("Dan", ann.room.Link()); fault.Of(err) != fault.RoomFull {
		t.Fatalf("a third guest: %v", err)
	}
	w.kill(bob)
	mark := ann.mark()
	clock.run(20)
	waitAfter(ann, mark, "Bob to be lost", func(e room.PeerChanged) bool { return e.Peer.Name == "Bob" && e.Peer.State != room.PeerOpen })
	clock.run(1)
	clock.skip(20 * time.Second) // less than it takes to be dropped
	dan := w.join("Dan", ann.room.Link())
	wait(ann, "Bob to make place", func(e room.PeerLeft) bool { return e.Peer.Name == "Bob" })
	dan.meet(ann)
}

// TestOwnerCutOff: the owner is off the network for longer than anybody stays in the roster who has gone. Nobody could tell it meanwhile that they are
// there, and their joins are late; when it is back they are members still, and a transfer between two others has not noticed.
func TestOwnerCutOff(t *testing.T) {
	for name, locked := range map[string]bool{"open": false, "locked": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			clock := newClock()
			ann := w.create("Ann", func(c *room.Config) { c.Now = clock.Now })
			link := ann.room.Link()
			bob, cleo := w.join("Bob", link), w.join("Cleo", link)
			meetAll(ann, bob, cleo)
			if err := ann.room.Lock(locked); err != nil {
				t.Fatal(err)
			}
			file := content(4*mib, 1)
			g := newGated(t, file, mib)
			sent, err := bob.room.Send([]room.OutFile{outFile("a.bin", g)}, room.SendOptions{To: []wire.ID{cleo.id()}})
			if err != nil {
				t.Fatal(err)
			}
			id, _ := cleo.accept(bob)
			bob.stored(cleo, mib)
			others := []*person{bob, cleo}
			marks := map[*person]int{ann: ann.mark(), bob: bob.mark(), cleo: cleo.mark()}

			annID, keys := ann.id(), link.Keys()
			away := func(away bool) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.out[annID], w.dead[ann.address] = away, away
				if tap := w.taps[annID]; away && tap != nil {
					tap.cut()
				}
			}
			ann.cutLinks()
			away(true)
			waitAfter(ann, marks[ann], "the loss of the server", func(e room.RoomChanged) bool { return e.State == room.StateDisconnected })
			for _, p := range others {
				id := p.room.Self().ID
				waitAfter(ann, marks[ann], "the loss of "+p.name, func(e room.PeerChanged) bool { return e.Peer.ID == id && e.Peer.State != room.PeerOpen })
				waitAfter(p, marks[p], "the loss of the owner", func(e room.PeerChanged) bool { return e.Peer.ID == annID.String() && e.Peer.State != room.PeerOpen })
			}
			clock.skip(100 * time.Second)
			w.meddle(nil, func(member wire.ID, message []byte) [][]byte {
				if relay, err := wire.ParseRelay(message, wire.HubSend); err == nil && relay.Member == annID {
					if p, err := keys.OpenEnvelope(member, annID, relay.Envelope); err == nil && wire.PayloadType(p[0]) == wire.PayloadJoin {
						return nil
					}
				}
				return [][]byte{message}
			})
			away(false)
			ann.room.Nudge()
			for _, p := range others {
				id := p.room.Self().ID
				waitAfter(ann, marks[ann], p.name+" again", func(e room.PeerChanged) bool {
					return e.Peer.ID == id && e.Peer.State == room.PeerOpen && e.Peer.RTT > 0
				})
			}
			w.meddle(nil, nil)
			g.open()
			cleo.check(cleo.finished(id), file)
			if e := entry(t, bob.finished(id), cleo); e.State != room.DeliveryDone || sent.ID != id.Transfer.String() {
				t.Errorf("ledger: %+v", e)
			}
			bob.kept(marks[bob], cleo)
			cleo.kept(marks[cleo], bob)
			for p, mark := range marks {
				for _, e := range p.since(mark) {
					if left, ok := e.(room.PeerLeft); ok {
						t.Errorf("%s lost %s", p.name, left.Peer.Name)
					}
				}
				if s := p.room.State(); s != room.StateOpen {
					t.Errorf("%s: the room is %s", p.name, s)
				}
			}
			if twice := bob.figures(cleo).ChunksResent; twice != 0 {
				t.Errorf("%d chunks went twice", twice)
			}
		})
	}
}

// TestStorm: many join at once.
func TestStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 20, 0)
	var mu sync.Mutex
	rosters := 0
	ann := w.create("Ann", nil)
	keys := ann.room.Link().Keys()
	owner := ann.id()
	w.meddle(nil, func(member wire.ID, message []byte) [][]byte {
		if member == owner {
			if relay, err := wire.ParseRelay(message, wire.HubSend); err == nil {
				if p, err := keys.OpenEnvelope(owner, relay.Member, relay.Envelope); err == nil && wire.PayloadType(p[0]) == wire.PayloadRoster {
					mu.Lock()
					rosters++
					mu.Unlock()
				}
			}
		}
		return [][]byte{message}
	})
	guests := make([]*person, 6)
	var joining sync.WaitGroup
	for i := range guests {
		joining.Go(func() {
			p, err := w.tryJoin(string(rune('A'+i)), ann.room.Link())
			if err != nil {
				t.Error(err)
			}
			guests[i] = p
		})
	}
	joining.Wait()
	if t.Failed() {
		return
	}
	ann.meet(guests...)
	guests[0].meet(guests[1:]...)
	if n := len(ann.room.Peers()); n != len(guests) {
		t.Errorf("%d members", n)
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d rosters were sent for %d joins", rosters, len(guests)) // 21 where no two arrive together, more with repeats
}

func TestTwoRooms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	first, second := w.group("Ann", "Bob"), w.group("Cleo", "Dan")
	if _, err := first[0].room.Send([]room.OutFile{outFile("a", content(1, 1))}, room.SendOptions{To: []wire.ID{second[1].id()}}); fault.Of(err) != fault.UnknownPeer {
		t.Errorf("sent into another room: %v", err)
	}
	for i, all := range [][]*person{first, second} {
		file := content(mib, byte(i))
		id := all[0].send(outFile("a.bin", file))
		all[1].accept(all[0])
		all[1].check(all[1].finished(id), file)
	}
	first[0].room.Leave(context.Background())
	file := content(mib, 3)
	id := second[1].send(outFile("b.bin", file))
	second[0].accept(second[1])
	second[0].check(second[0].finished(id), file)
}

// TestSharedStorage: two members on one page receive the same transfer into the same storage.
func TestSharedStorage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", nil)
	bob := w.join("Bob", ann.room.Link())
	cleo := w.joinWith("Cleo", ann.room.Link(), func(c *room.Config) { c.Storage = bob.storage })
	cleo.dir = bob.dir
	ann.meet(bob, cleo)
	file := content(mib, 1)
	id := ann.send(outFile("a.bin", file))
	bob.accept(ann)
	cleo.accept(ann)
	results := []room.Result{bob.finished(id), cleo.finished(id)}
	bob.check(results[0], file)
	cleo.check(results[1], file)
	if results[0].Delivery == results[1].Delivery {
		t.Error("both have the same copy")
	}
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	file := outFile("a.bin", content(10, 1))
	send := func(to []wire.ID, limit int64, files ...room.OutFile) error {
		_, err := ann.room.Send(files, room.SendOptions{To: to, LimitPerRecipient: limit})
		return err
	}
	nobody := room.TransferID{Sender: ann.id(), Transfer: wire.ID{1}}
	_, accepted := ann.room.Accept(nobody, nil)
	_, chunk := ann.room.Send([]room.OutFile{file}, room.SendOptions{ChunkSize: 1000})
	_, total := ann.room.Send([]room.OutFile{file}, room.SendOptions{Limit: -1})
	for name, c := range map[string]struct {
		err  error
		code fault.Code
	}{
		"nothing":           {send(nil, 0), fault.InvalidArgument},
		"no content":        {send(nil, 0, outFile("a", nil)), fault.InvalidArgument},
		"negative limit":    {send(nil, -1, file), fault.InvalidArgument},
		"negative total":    {total, fault.InvalidArgument},
		"chunk size":        {chunk, fault.InvalidArgument},
		"nobody":            {send([]wire.ID{}, 0, file), fault.NoRecipients},
		"twice":             {send([]wire.ID{bob.id(), bob.id()}, 0, file), fault.UnknownPeer},
		"itself":            {send([]wire.ID{ann.id()}, 0, file), fault.UnknownPeer},
		"a stranger":        {send([]wire.ID{{1}}, 0, file), fault.UnknownPeer},
		"too many":          {send(slices.Repeat([]wire.ID{bob.id()}, 11), 0, file), fault.TooManyRecipients},
		"a long path":       {send(nil, 0, outFile(string(make([]byte, 5000)), content(1, 1))), fault.TooLarge},
		"accept":            {accepted, fault.UnknownTransfer},
		"decline":           {ann.room.Decline(nobody, ""), fault.UnknownTransfer},
		"reason":            {ann.room.Decline(nobody, string(make([]byte, 201))), fault.InvalidArgument},
		"cancel":            {ann.room.Cancel(nobody), fault.UnknownTransfer},
		"pause":             {ann.room.SetPaused(nobody, true), fault.UnknownTransfer},
		"cancel a delivery": {ann.room.CancelDelivery(nobody, bob.id()), fault.UnknownTransfer},
		"retry":             {ann.room.Retry(nobody, bob.id()), fault.UnknownTransfer},
		"limit":             {ann.room.SetLimit(nobody, 1), fault.UnknownTransfer},
		"a negative limit":  {ann.room.SetLimit(nobody, -1), fault.InvalidArgument},
		"a negative total":  {ann.room.SetTotalLimit(nobody, -1), fault.InvalidArgument},
		"the room's":        {ann.room.SetRoomLimit(-1), fault.InvalidArgument},
		"verified":          {ann.room.MarkVerified(wire.ID{1}, true), fault.UnknownPeer},
		"approve":           {ann.room.Approve(wire.ID{1}, true), fault.UnknownPeer},
		"approve as guest":  {bob.room.Approve(wire.ID{1}, true), fault.NotOwner},
	} {
		if fault.Of(c.err) != c.code {
			t.Errorf("%s: %v, want %s", name, c.err, c.code)
		}
	}

	id := ann.send(file)
	wait(bob, "an offer", func(room.OfferReceived) bool { return true })
	if len(bob.room.Offers()) != 1 {
		t.Errorf("offers %+v", bob.room.Offers())
	}
	for name, files := range map[string][]uint32{"no such file": {1}, "twice": {0, 0}, "none": {}} {
		if _, err := bob.room.Accept(id, files); fault.Of(err) != fault.InvalidArgument {
			t.Errorf("accepted %s: %v", name, err)
		}
	}
	if err := ann.room.MarkVerified(bob.id(), true); err != nil || !ann.room.Peers()[0].Verified {
		t.Errorf("not verified: %v", err)
	}
	bob.accept(ann)
	if _, err := bob.room.Accept(id, nil); fault.Of(err) != fault.UnknownTransfer {
		t.Errorf("accepted twice: %v", err)
	}
	bob.finished(id)

	// Leave, from several sides at once, then everything on a closed room.
	var leaving sync.WaitGroup
	for range 3 {
		leaving.Go(func() { ann.room.Leave(context.Background()) })
	}
	leaving.Wait()
	select {
	case <-ann.room.Done():
	default:
		t.Error("Leave has returned before the end")
	}
	mark := ann.mark()
	for i, e := range ann.since(mark - 3) { // the links end after the room: what is queued leaves first
		want := []room.PeerState{room.PeerClosing, "", room.PeerClosed}[i]
		if peer, ok := e.(room.PeerChanged); ok && peer.Peer.State != want || !ok && e != (room.RoomChanged{State: room.StateClosed}) {
			t.Errorf("event %d of the last three is %+v", i, e)
		}
	}
	for name, err := range map[string]error{"send": send(nil, 0, file), "lock": ann.room.Lock(true), "cancel": ann.room.Cancel(id), "decline": ann.room.Decline(id, "")} {
		if fault.Of(err) != fault.RoomClosed {
			t.Errorf("%s on a closed room: %v", name, err)
		}
	}
	if ann.room.State() != room.StateClosed || ann.room.Peers() != nil || ann.room.Offers() != nil {
		t.Error("a closed room has contents")
	}
	ann.room.Leave(context.Background())
	if ann.mark() != mark {
		t.Error("events after the end")
	}
}

// stuck is a connection on which nothing ever comes to an end by itself.
type stuck struct {
	peer.Conn
}

func (s *stuck) Offer(ctx context.Context, _ bool) (string, error) {
	<-ctx.Done()
	return "", ctx.Err()
}

func (s *stuck) Answer(ctx context.Context, _ string) (string, error) { return s.Offer(ctx, false) }

// TestLeaveStuck: Leave does not wait for what hangs.
func TestLeaveStuck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	opened := make(chan struct{}, 16)
	hang := func(c *room.Config) {
		make := c.NewConn
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			conn, err := make(cfg)
			opened <- struct{}{}
			return &stuck{Conn: conn}, err
		}
	}
	ann := w.create("Ann", hang)
	bob := w.joinWith("Bob", ann.room.Link(), hang)
	<-opened
	done := make(chan struct{})
	go func() {
		bob.room.Leave(context.Background())
		ann.room.Leave(context.Background())
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(15 * time.Second): // an operation alone may take 20
		t.Error("Leave waits for an operation that hangs")
		<-done
	}
}
