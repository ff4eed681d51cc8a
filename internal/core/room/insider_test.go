//go:build !js

package room_test

import (
	"context"
	"crypto/rand"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// TestStaysOut: one whom the owner keeps out gets a refusal, and no answer from anybody to anything else, whatever it
// says with its own keys, the link, and the hub's help.
func TestStaysOut(t *testing.T) {
	t.Parallel()
	seed := [32]byte{66}
	eve, err := seal.NewIdentity(seed)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		others  int // that the room takes
		prepare func(t *testing.T, w *world, ann *person)
		code    wire.RefuseCode
	}{
		"removed": {10, func(t *testing.T, w *world, ann *person) {
			p := w.joinWith("Eve", ann.room.Link(), func(c *room.Config) { c.Seed = &seed })
			meetAll(ann, p)
			if err := ann.room.Remove(p.id()); err != nil {
				t.Fatal(err)
			}
			<-p.room.Done()
		}, wire.RefuseRemoved},
		"surplus": {2, func(*testing.T, *world, *person) {}, wire.RefuseFull},
		"locked out": {10, func(t *testing.T, _ *world, ann *person) {
			if err := ann.room.Lock(true); err != nil {
				t.Fatal(err)
			}
		}, wire.RefuseLocked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 20, 0)
			in := newInsider(w)
			ann := w.create("Ann", func(cfg *room.Config) { cfg.MaxRecipients = c.others })
			in.learn(ann.room.Link())
			bob, cleo := w.join("Bob", ann.room.Link()), w.join("Cleo", ann.room.Link())
			meetAll(ann, bob, cleo)
			c.prepare(t, w, ann)
			for _, p := range []*person{bob, cleo} { // they have heard of it
				settled(ann, p)
			}
			all := []*person{ann, bob, cleo}
			var marks, before []int
			for _, p := range all {
				marks, before = append(marks, p.mark()), append(before, in.answers(p.id(), eve.ID()))
			}

			refusals := len(in.heard(ann.id(), eve.ID(), wire.PayloadRefuse))
			epochs := []uint64{0, 1, uint64(time.Now().Add(time.Hour).UnixMilli()), 1<<64 - 1}
			for _, epoch := range epochs {
				join := wire.Join{Room: in.keys.ID, Epoch: epoch, Name: "Bob"}
				rand.Read(join.Nonce[:])
				in.forge(eve.ID(), ann.id(), wire.PayloadJoin, seal.SignJoin(eve, join))
			}
			for _, body := range in.heard(bob.id(), ann.id(), wire.PayloadJoin) {
				in.forge(eve.ID(), ann.id(), wire.PayloadJoin, body)
			}
			rosters := append(in.heard(ann.id(), bob.id(), wire.PayloadRoster), in.heard(ann.id(), cleo.id(), wire.PayloadRoster)...)
			for _, p := range all {
				for _, body := range rosters { // in some of them Eve may be listed
					in.forge(ann.id(), p.id(), wire.PayloadRoster, body)
					in.forge(eve.ID(), p.id(), wire.PayloadRoster, body)
				}
				in.forge(eve.ID(), p.id(), wire.PayloadKnock, wire.Knock{Member: eve.ID()}.Append(nil))
				in.forge(eve.ID(), p.id(), wire.PayloadHello, wire.Hello{Member: eve.ID(), Nonce: wire.Hash{1}}.Append(nil))
				for _, body := range in.heard(bob.id(), cleo.id(), wire.PayloadOffer) {
					in.forge(eve.ID(), p.id(), wire.PayloadOffer, body)
				}
			}
			for _, body := range in.await(ann.id(), eve.ID(), refusals+len(epochs), wire.PayloadRefuse)[refusals:] {
				if refuse, err := seal.VerifyRefuse(in.keys.ID, ann.id(), body); err != nil || refuse.Code != c.code {
					t.Errorf("refused with %d, want %d (%v)", refuse.Code, c.code, err)
				}
			}
			settled(ann, bob)
			settled(bob, cleo)
			settled(cleo, ann)
			for i, p := range all {
				p.stayed(marks[i])
				if n := in.answers(p.id(), eve.ID()) - before[i]; n > 0 {
					t.Errorf("%s has answered Eve %d times", p.name, n)
				}
				if n := len(p.room.Peers()); n != 2 {
					t.Errorf("%s sees %d members", p.name, n)
				}
			}
		})
	}
}

// deafConn is a connection on which, from some moment on, nothing is heard on the control channel.
type deafConn struct {
	peer.Conn
	deaf <-chan struct{}
}

func (c *deafConn) Channel(ch wire.Channel) peer.Channel {
	if ch == wire.Control {
		return &deafChannel{c.Conn.Channel(ch), c.deaf}
	}
	return c.Conn.Channel(ch)
}

type deafChannel struct {
	peer.Channel
	deaf <-chan struct{}
}

func (c *deafChannel) ReadRecord(ctx context.Context) (*bulk.Buffer, error) {
	b, err := c.Channel.ReadRecord(ctx)
	select {
	case <-c.deaf:
		if err == nil {
			b.Release()
			<-ctx.Done()
			err = ctx.Err()
		}
		return nil, err
	default:
		return b, err
	}
}

// TestIgnoresRemoval: one who takes no notice of its removal, keeps its links and asks for new ones, is rid of all the
// same.
func TestIgnoresRemoval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	in := newInsider(w)
	ann := w.create("Ann", nil)
	in.learn(ann.room.Link())
	clock, deaf := newClock(), make(chan struct{})
	eve := w.joinWith("Eve", ann.room.Link(), func(c *room.Config) {
		make := c.NewConn
		c.Now = clock.Now
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			conn, err := make(cfg)
			if err != nil {
				return nil, err
			}
			return &deafConn{conn, deaf}, nil
		}
	})
	cleo := w.join("Cleo", ann.room.Link())
	meetAll(ann, eve, cleo)
	eveID, annID, cleoID := eve.id(), ann.id(), cleo.id()
	w.mu.Lock()
	w.fromHub = func(to wire.ID, m []byte) [][]byte {
		if relay, err := wire.ParseRelay(m, wire.HubDeliver); err == nil && to == eveID {
			if p, err := in.keys.OpenEnvelope(relay.Member, to, relay.Envelope); err == nil &&
				(wire.PayloadType(p[0]) == wire.PayloadRoster || wire.PayloadType(p[0]) == wire.PayloadRefuse) {
				return nil
			}
		}
		return [][]byte{m}
	}
	w.mu.Unlock()
	close(deaf)
	if err := ann.room.Remove(eveID); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*person{ann, cleo} {
		wait(p, "Eve to be gone", func(e room.PeerLeft) bool { return e.Peer.Name == "Eve" })
	}
	marks := []int{ann.mark(), cleo.mark()}
	before := in.answers(annID, eveID) + in.answers(cleoID, eveID)
	joins := len(in.heard(eveID, annID, wire.PayloadJoin))
	eve.room.Send([]room.OutFile{outFile("a.bin", content(1000, 1))}, room.SendOptions{}) // to whom it still takes for open
	clock.run(40)
	in.await(eveID, annID, joins+2, wire.PayloadJoin)
	asked := len(in.heard(eveID, cleoID, wire.PayloadKnock)) + len(in.heard(eveID, cleoID, wire.PayloadHello))
	in.await(eveID, cleoID, asked+2, wire.PayloadKnock, wire.PayloadHello)
	settled(ann, cleo)
	for i, p := range []*person{ann, cleo} {
		p.stayed(marks[i])
		for _, e := range p.since(marks[i]) {
			if o, ok := e.(room.OfferReceived); ok && o.Offer.From == eveID.String() {
				t.Errorf("%s was offered files by one who is removed", p.name)
			}
		}
	}
	if n := in.answers(annID, eveID) + in.answers(cleoID, eveID) - before; n > 0 {
		t.Errorf("one who is removed was answered %d times", n)
	}
}

// candidateConn shows the remote candidates that a connection is given.
type candidateConn struct {
	peer.Conn
	given func(wire.Candidate)
}

func (c *candidateConn) AddCandidate(ctx context.Context, candidate wire.Candidate) error {
	c.given(candidate)
	return c.Conn.AddCandidate(ctx, candidate)
}

// TestPairUndisturbed: an insider with the hub on its side opens nothing that two others say to each other after M2, and
// forges, replays and redirects it in vain: a transfer between them goes on over the same link, and no candidate of the
// insider's is taken.
func TestPairUndisturbed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	in := newInsider(w)
	// What passes between members beyond the room's key.
	type sealed struct {
		from, to wire.ID
		envelope []byte
	}
	var pairs []sealed // guarded by w.mu
	overhear := w.toHub
	w.meddle(nil, func(member wire.ID, m []byte) [][]byte {
		if relay, err := wire.ParseRelay(m, wire.HubSend); err == nil {
			if e, err := wire.ParseEnvelope(relay.Envelope); err == nil && e.Kind == wire.PairEnvelope {
				pairs = append(pairs, sealed{member, relay.Member, relay.Envelope})
			}
		}
		return overhear(member, m)
	})
	const nowhere = "10.1.99.99"
	var lured atomic.Bool
	ann := w.create("Ann", nil)
	in.learn(ann.room.Link())
	guest := func(name string) *person {
		p := w.joinWith(name, ann.room.Link(), func(c *room.Config) {
			make := c.NewConn
			c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
				conn, err := make(cfg)
				return &candidateConn{conn, func(c wire.Candidate) {
					if strings.Contains(c.Candidate, nowhere) {
						lured.Store(true)
					}
				}}, err
			}
		})
		return p
	}
	bob, cleo := guest("Bob"), guest("Cleo")
	meetAll(ann, bob, cleo)
	file := content(2*mib, 1)
	g := newGated(t, file, mib)
	snapshot, err := bob.room.Send([]room.OutFile{outFile("a.bin", g)}, room.SendOptions{To: []wire.ID{cleo.id()}})
	if err != nil {
		t.Fatal(err)
	}
	id := transferID(t, bob.room.Self().ID, snapshot.ID)
	cleo.accept(bob)
	bob.stored(cleo, mib)
	marks := []int{bob.mark(), cleo.mark()}

	w.mu.Lock()
	genuine := pairs
	w.mu.Unlock()
	if len(genuine) == 0 {
		t.Fatal("no pair envelope has passed: the test proves nothing")
	}
	deliver := func(from, to wire.ID, envelope []byte) {
		w.tell(to, wire.Relay{Member: from, Envelope: envelope}.Append(nil, wire.HubDeliver))
	}
	for _, s := range genuine {
		e, _ := wire.ParseEnvelope(s.envelope)
		asRoom := e
		asRoom.Kind, asRoom.Session = wire.RoomEnvelope, wire.ID{}
		for _, envelope := range [][]byte{s.envelope, asRoom.Append(nil)} {
			if _, err := in.keys.OpenEnvelope(s.from, s.to, envelope); err == nil {
				t.Error("the room's key opens a pair envelope")
			}
		}
		deliver(s.from, s.to, s.envelope) // again
		deliver(s.to, s.from, s.envelope) // back
		deliver(s.from, s.to, asRoom.Append(nil))
		deliver(ann.id(), s.to, s.envelope)
		flipped := append([]byte(nil), s.envelope...)
		flipped[len(flipped)-1] ^= 1
		deliver(s.from, s.to, flipped)
	}
	for _, way := range [][2]*person{{bob, cleo}, {cleo, bob}} {
		from, to := way[0].id(), way[1].id()
		for _, back := range [][2]wire.ID{{from, to}, {to, from}} {
			for _, body := range in.heard(back[0], back[1], wire.PayloadOffer) {
				offer, _, err := wire.ParseOffer(body)
				if err != nil {
					t.Fatal(err)
				}
				candidate := wire.Candidate{Candidate: "candidate:1 1 udp 2130706431 " + nowhere + " 9 typ host", SDPMid: "0"}
				in.forge(from, to, wire.PayloadCandidates, wire.Candidates{Negotiation: offer.Nonce, List: []wire.Candidate{candidate}}.Append(nil))
				restart := wire.Restart{Generation: 1, SDP: offer.SDP}.Append(nil)
				in.forge(from, to, wire.PayloadRestart, restart)
				in.forge(from, to, wire.PayloadRestarted, restart)
				in.forge(from, to, wire.PayloadRestartRequest, wire.AppendRestartRequest(nil, 1))
			}
		}
		for _, kind := range []wire.PayloadType{wire.PayloadHello, wire.PayloadKnock, wire.PayloadOffer, wire.PayloadAnswer, wire.PayloadCandidates} {
			for _, body := range in.heard(from, to, kind) {
				in.forge(from, to, kind, body)
			}
		}
	}
	g.open()
	cleo.check(cleo.finished(id), file)
	bob.finished(id)
	settled(cleo, bob)
	bob.stayed(marks[0])
	cleo.stayed(marks[1])
	if lured.Load() {
		t.Error("a candidate of the insider's was taken")
	}
}
