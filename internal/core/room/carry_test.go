//go:build !js

package room_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
)

// manual is two members of a manual room, the one with the lower id, which makes the offer, first.
func (w *world) manual() (a, b *person) {
	w.t.Helper()
	return w.manualWith(func(c *room.Config) { c.Manual = true })
}

func (w *world) manualWith(change func(*room.Config)) (a, b *person) {
	w.t.Helper()
	a = w.create("Ann", change)
	b = w.joinWith("Bob", a.room.Link(), change)
	wait(a, "Bob", func(e room.PeerJoined) bool { return e.Peer.State == room.PeerClosed })
	if a.room.Self().ID > b.room.Self().ID {
		return b, a
	}
	return a, b
}

// made is the next value that a person's room makes.
func (p *person) made(mark *int) room.SignalMade {
	p.t.Helper()
	e := waitAfter(p, *mark, "a value", func(room.SignalMade) bool { return true })
	for i, other := range p.since(*mark) {
		if other == e {
			*mark += i + 1
			break
		}
	}
	return e
}

func (p *person) state(mark int, of *person, want room.PeerState) {
	p.t.Helper()
	id := of.room.Self().ID
	waitAfter(p, mark, fmt.Sprintf("%s to be %s", of.name, want), func(e room.PeerChanged) bool { return e.Peer.ID == id && e.Peer.State == want })
}

// connect carries values until both have a link, beginning with one's, and returns how many there were.
func connect(one, other *person, trickle bool) (values int) {
	one.t.Helper()
	marks := [2]int{one.mark(), other.mark()}
	from := marks
	pair := [2]*person{one, other}
	if err := one.room.Connect(other.id(), trickle); err != nil {
		one.t.Fatal(err)
	}
	for i := 0; ; i = 1 - i {
		var next room.SignalMade
		for next = pair[i].made(&marks[i]); next.Candidate; next = pair[i].made(&marks[i]) {
			if !trickle {
				one.t.Error("a candidate of its own")
			}
			if err := pair[1-i].room.Signal(pair[i].id(), next.Value, trickle); err != nil {
				one.t.Error(err)
			}
		}
		values++
		if err := pair[1-i].room.Signal(pair[i].id(), next.Value, trickle); err != nil {
			one.t.Fatal(err)
		}
		if last := 3; values == last && one.room.Self().ID > other.room.Self().ID || values == last+1 {
			break
		}
	}
	one.state(from[0], other, room.PeerOpen)
	other.state(from[1], one, room.PeerOpen)
	return values
}

// TestCarried: two members of a manual room meet by values that the caller carries, whoever begins, and transfer; a link that is ended says goodbye and stays
// closed; another one comes the same way.
func TestCarried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	a, b := w.manual()
	var offered, toOffer = 4, 3 // Knock, Hello, Offer, Answer; without the Knock
	if n := connect(a, b, false); n != offered {
		t.Errorf("%d values", n)
	}
	file := content(300_000, 1)
	id := a.send(outFile("a.bin", file))
	b.accept(a)
	b.check(b.finished(id), file)

	marks := [2]int{a.mark(), b.mark()}
	if err := b.room.Disconnect(a.id()); err != nil {
		t.Fatal(err)
	}
	for i, p := range []*person{b, a} {
		p.state(marks[1-i], []*person{a, b}[i], room.PeerClosing)
		p.state(marks[1-i], []*person{a, b}[i], room.PeerClosed)
	}
	if n := connect(b, a, false); n != toOffer {
		t.Errorf("%d values", n)
	}
	marks = [2]int{a.mark(), b.mark()}
	a.room.Leave(context.Background())
	a.state(marks[0], b, room.PeerClosing)
	a.state(marks[0], b, room.PeerClosed)
	b.state(marks[1], a, room.PeerClosing) // and then not in the room, if that is the owner's
}

// TestCarriedBoth: both begin, and both of their values are carried. What is made already answers what the other has made, at once, and what comes twice
// disturbs nothing.
func TestCarriedBoth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	a, b := w.manual()
	from := [2]int{a.mark(), b.mark()}
	marks := from
	carry := func(to, of *person, value room.SignalMade) {
		t.Helper()
		if err := to.room.Signal(of.id(), value.Value, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(a.room.Connect(b.id(), false), b.room.Connect(a.id(), false)); err != nil {
		t.Fatal(err)
	}
	knock, hello := a.made(&marks[0]), b.made(&marks[1])
	carry(b, a, knock)
	if again := b.made(&marks[1]); again != hello {
		t.Error("another Hello")
	}
	carry(a, b, hello)
	carry(a, b, hello)
	carry(b, a, a.made(&marks[0]))
	carry(a, b, b.made(&marks[1]))
	a.state(from[0], b, room.PeerOpen)
	b.state(from[1], a, room.PeerOpen)
	for i, p := range []*person{a, b} {
		for _, e := range p.since(marks[i]) {
			if e, ok := e.(room.SignalMade); ok {
				t.Errorf("%s: one value more: %+v", p.name, e)
			}
		}
	}
}

// TestCarriedRefused: what is no value of that member's for us is refused, typed, and changes nothing.
func TestCarriedRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	a, b := w.manual()
	mark := b.mark()
	if err := b.room.Connect(a.id(), false); err != nil {
		t.Fatal(err)
	}
	hello := b.made(&mark).Value
	raw, _ := base64.RawURLEncoding.DecodeString(hello)
	changed := func(change func(b []byte) []byte) string {
		return base64.RawURLEncoding.EncodeToString(change(append([]byte{}, raw...)))
	}
	for name, c := range map[string]struct {
		value string
		want  fault.Code
	}{
		"nothing":         {"", fault.InvalidArgument},
		"not base64":      {"*" + hello, fault.InvalidArgument},
		"another version": {changed(func(b []byte) []byte { b[0]++; return b }), fault.InvalidArgument},
		"no envelope":     {changed(func(b []byte) []byte { return b[:1] }), fault.InvalidArgument},
		"cut off":         {changed(func(b []byte) []byte { return b[:len(b)-1] }), fault.InvalidArgument},
		"too many": {changed(func(b []byte) []byte {
			for one := b[1:]; len(b) < 40*len(one); {
				b = append(b, one...)
			}
			return b
		}), fault.InvalidArgument},
		"damaged": {changed(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), fault.HandshakeFailed},
	} {
		if err := a.room.Signal(b.id(), c.value, false); fault.Of(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if err := b.room.Signal(a.id(), hello, false); fault.Of(err) != fault.HandshakeFailed {
		t.Errorf("our own value: %v", err)
	}
	stranger := a.id()
	stranger[0] ^= 1
	for name, err := range map[string]error{"connect": a.room.Connect(stranger, false), "disconnect": a.room.Disconnect(stranger),
		"signal": a.room.Signal(stranger, hello, false), "relay": a.room.Relay(stranger, hello)} {
		if fault.Of(err) != fault.UnknownPeer {
			t.Errorf("%s with a stranger: %v", name, err)
		}
	}
	if p := a.room.Peers()[0]; p.State != room.PeerClosed {
		t.Errorf("refused values have made it %s", p.State)
	}
	mark = a.mark()
	if err := a.room.Signal(b.id(), hello, false); err != nil {
		t.Errorf("the intact value: %v", err)
	}
	offer := a.made(&mark).Value
	if err := b.room.Signal(a.id(), offer, false); err != nil {
		t.Errorf("the offer: %v", err)
	}
	if err := b.room.Signal(a.id(), offer, false); fault.Of(err) != fault.HandshakeFailed {
		t.Errorf("the same offer again: %v", err)
	}
	auto := w.group("Cleo", "Dan")
	if err := auto[0].room.Signal(auto[1].id(), hello, false); fault.Of(err) != fault.InvalidArgument {
		t.Errorf("in a room that carries by itself: %v", err)
	}
}

// TestCarriedByHub: the hub carries the values after all, each candidate by itself, and none is taken before the caller says so.
func TestCarriedByHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	a, b := w.manual()
	if err := a.room.Connect(b.id(), true); err != nil {
		t.Fatal(err)
	}
	kinds := [2]map[room.SignalKind]int{{}, {}}
	var carrying sync.WaitGroup
	for i, p := range []*person{a, b} {
		other := []*person{b, a}[i]
		carrying.Go(func() {
			for mark := 0; ; mark++ {
				switch e := waitAfter(p, mark, "a link", func(room.Event) bool { return true }).(type) {
				case room.SignalMade:
					if err := p.room.Relay(other.id(), e.Value); err != nil {
						t.Error(err)
					}
				case room.SignalArrived:
					kinds[i][e.Kind]++
					if err := p.room.Signal(other.id(), e.Value, true); err != nil {
						t.Errorf("%s takes %s: %v", p.name, e.Kind, err)
					}
				case room.PeerChanged:
					if e.Peer.State == room.PeerOpen {
						return
					}
				}
			}
		})
	}
	carrying.Wait()
	// Knock to b; Hello and the answer to a; the offer to b.
	if a, b := kinds[0], kinds[1]; b[room.SignalOffer] != 1 || b[room.SignalAnswer] != 1 || a[room.SignalAnswer] != 2 || a[room.SignalCandidate]+b[room.SignalCandidate] == 0 {
		t.Errorf("values %v and %v", a, b)
	}
}

// TestCarriedSlowly: the connection of the one that has answered gives up before its answer arrives. The answer still counts.
func TestCarriedSlowly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	states := make(chan func(peer.ConnState), 1)
	change := func(c *room.Config) {
		next := c.NewConn
		c.Manual = true
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			select {
			case states <- cfg.State:
			default:
			}
			return next(cfg)
		}
	}
	a, b := w.manualWith(change)
	marks := [2]int{a.mark(), b.mark()}
	from := marks
	if err := b.room.Connect(a.id(), false); err != nil {
		t.Fatal(err)
	}
	give := func(from, to *person, mark *int) {
		t.Helper()
		if err := to.room.Signal(from.id(), from.made(mark).Value, false); err != nil {
			t.Fatal(err)
		}
	}
	give(b, a, &marks[1])
	<-states // a's
	give(a, b, &marks[0])
	answer := b.made(&marks[1]).Value
	if os.Getenv("TALLOW_SOAK") != "" { // nothing but time tells what the platform makes of it
		time.Sleep(45 * time.Second)
	}
	(<-states)(peer.ConnFailed)
	if err := a.room.Signal(b.id(), answer, false); err != nil {
		t.Fatal(err)
	}
	a.state(from[0], b, room.PeerOpen)
	b.state(from[1], a, room.PeerOpen)
	for _, e := range b.since(from[1]) {
		if e, ok := e.(room.PeerChanged); ok && e.Peer.State == room.PeerFailed {
			t.Error("it was given up meanwhile")
		}
	}
}

// TestDisconnectUnheard: the other side does not hear that the link is not wanted any more, and tries to get it back. Once it can, it hears.
func TestDisconnectUnheard(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	marks := [2]int{ann.mark(), bob.mark()}
	dead := func(dead bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dead[bob.address] = dead
	}
	dead(true)
	if err := ann.room.Disconnect(bob.id()); err != nil {
		t.Fatal(err)
	}
	ann.state(marks[0], bob, room.PeerClosed)
	if bob.room.Peers()[0].State == room.PeerClosed {
		t.Fatal("Bob has heard")
	}
	marks[0] = ann.mark()
	dead(false)
	bob.state(marks[1], ann, room.PeerClosed)
	ann.state(marks[0], bob, room.PeerClosed)
	for _, e := range ann.since(marks[0]) {
		if e, ok := e.(room.PeerChanged); ok && e.Peer.State == room.PeerOpen {
			t.Error("the link was open again")
		}
	}
	// Wanted while the last one may still be saying goodbye, it comes.
	for range 2 {
		marks = [2]int{ann.mark(), bob.mark()}
		if err := bob.room.Connect(ann.id(), false); err != nil {
			t.Fatal(err)
		}
		ann.state(marks[0], bob, room.PeerOpen)
		bob.state(marks[1], ann, room.PeerOpen)
		bob.room.Disconnect(ann.id())
	}
}

// TestDisconnect: in a room that connects by itself, too, a link that is ended stays so, and the member stays in the room.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cleo")
	ann, bob, cleo := all[0], all[1], all[2]
	for _, pair := range [][2]*person{{bob, ann}, {cleo, bob}} { // with the owner, who does not take it for leaving, and without
		one, other := pair[0], pair[1]
		marks := [2]int{one.mark(), other.mark()}
		if err := one.room.Disconnect(other.id()); err != nil {
			t.Fatal(err)
		}
		for _, s := range []room.PeerState{room.PeerClosing, room.PeerClosed} {
			one.state(marks[0], other, s)
			other.state(marks[1], one, s)
		}
		for _, p := range pair {
			if n := len(p.room.Peers()); n != 2 {
				t.Errorf("%s sees %d others", p.name, n)
			}
		}
		marks = [2]int{one.mark(), other.mark()}
		if err := other.room.Connect(one.id(), false); err != nil {
			t.Fatal(err)
		}
		one.state(marks[0], other, room.PeerOpen)
		other.state(marks[1], one, room.PeerOpen)
	}
}

// TestConnectAtOnce: what is being made is ended and wanted again within one run of the loop: that it was closed is told all the same.
func TestConnectAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	a, b := w.manual()
	mark := a.mark()
	if err := a.room.Connect(b.id(), false); err != nil {
		t.Fatal(err)
	}
	a.state(mark, b, room.PeerConnecting)
	mark = a.mark()
	a.room.Again(b.id())
	a.state(mark, b, room.PeerClosed)
	a.state(mark, b, room.PeerConnecting)
}
