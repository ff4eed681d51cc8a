//go:build !js

package room_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// evil is a hub that changes what it delivers. With an insider's key it opens and reseals what only that key seals.
type evil struct {
	w        *world
	attack   attack
	identity *seal.Identity // the insider's own: Eve's
	touched  chan struct{}  // closed at the first letter that it touches

	// Guarded by w.mu.
	keys   *seal.RoomKeys // nil: it has no insider, or no room yet
	left   int            // letters that it will still touch
	count  int            // letters that it has touched
	past   []letter
	held   []letter
	hellos map[[2]wire.ID][]byte         // the last M0 from one to another
	offers map[[2]wire.ID][]byte         // and M1
	heard  map[wire.PayloadType][]letter // what members have said, before any change; 0: under a pair's key
	passed bytes.Buffer                  // everything, both ways
}

// letter is an envelope that the hub delivers.
type letter struct {
	from, to wire.ID
	envelope []byte
	kind     wire.PayloadType // 0: does not open
	body     []byte           // a change in it is sealed anew, under the same id
}

// attack is what an evil hub does.
type attack struct {
	name    string
	insider bool // holds the room's key
	// endless: it never stops, and nobody gets in, or no link opens (then waiting for the end costs a while).
	endless bool
	fails   fault.Code // endless: why Join fails; "": no link opens
	touches int        // how many letters it touches otherwise; 0: 40
	only    wire.PayloadType
	change  func(e *evil, l letter) []letter
	message func(e *evil, to wire.ID, m []byte) [][]byte // all but letters
}

func (e *evil) fromHub(to wire.ID, m []byte) [][]byte {
	e.passed.Write(m)
	r, err := wire.ParseRelay(m, wire.HubDeliver)
	if err != nil {
		if e.attack.message != nil && e.left > 0 {
			e.left--
			return e.attack.message(e, to, m)
		}
		return [][]byte{m}
	}
	l := letter{from: r.Member, to: to, envelope: r.Envelope}
	if e.keys != nil {
		if p, err := e.keys.OpenEnvelope(l.from, to, l.envelope); err == nil {
			l.kind, l.body, _ = wire.ParsePayload(p)
		}
	}
	if l.kind != 0 || e.keys != nil && l.envelope[0] == byte(wire.PairEnvelope) {
		e.heard[l.kind] = append(e.heard[l.kind], l)
	}
	switch pair := [2]wire.ID{l.from, to}; l.kind {
	case wire.PayloadHello:
		e.hellos[pair] = l.body
	case wire.PayloadOffer:
		e.offers[pair] = l.body
	}
	if e.attack.change == nil || e.left == 0 || e.attack.insider && l.kind == 0 || e.attack.only != 0 && l.kind != e.attack.only {
		return [][]byte{m}
	}
	before := slices.Clone(l.body)
	e.left--
	if e.count++; e.count == 1 {
		close(e.touched)
	}
	letters := e.attack.change(e, l)
	e.past = append(e.past, l)
	var here [][]byte
	for _, o := range letters {
		if o.kind != 0 && !bytes.Equal(o.body, before) {
			sealed, _ := wire.ParseEnvelope(l.envelope)
			o.envelope = e.keys.SealEnvelope(o.from, o.to, sealed.ID, append([]byte{byte(o.kind)}, o.body...))
		}
		m := wire.Relay{Member: o.from, Envelope: o.envelope}.Append(nil, wire.HubDeliver)
		if o.to == to {
			here = append(here, m)
		} else if tap := e.w.taps[o.to]; tap != nil {
			tap.client.Write(e.w.t.Context(), websocket.MessageBinary, m)
		}
	}
	return here
}

func (e *evil) toHub(_ wire.ID, m []byte) [][]byte {
	e.passed.Write(m)
	return [][]byte{m}
}

// other is a member that is connected, and neither of the letter's.
func (e *evil) other(l letter) wire.ID {
	for id := range e.w.taps {
		if id != l.from && id != l.to {
			return id
		}
	}
	return wire.ID{0xee}
}

func transcript(messages ...[]byte) []byte {
	h := sha256.New()
	for _, m := range messages {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(m))))
		h.Write(m)
	}
	return h.Sum(nil)
}

// half makes an attack of one on every other letter: repeats get through, and more than the beginning is attacked.
func half(change func(*evil, letter) []letter) func(*evil, letter) []letter {
	return func(e *evil, l letter) []letter {
		if e.count%2 == 0 {
			return []letter{l}
		}
		return change(e, l)
	}
}

// flip changes a bit of an envelope, each time of another byte.
func flip(e *evil, l letter) []letter {
	l.envelope = slices.Clone(l.envelope)
	l.envelope[e.count*37%len(l.envelope)] ^= 1 << (e.count % 8)
	return []letter{l}
}

// tamper makes an attack of a change to the bodies of one type.
func tamper(change func(e *evil, l letter) []byte) func(*evil, letter) []letter {
	return func(e *evil, l letter) []letter {
		l.body = change(e, l)
		return []letter{l}
	}
}

func offerWith(change func(e *evil, m *wire.Offer)) func(*evil, letter) []letter {
	return tamper(func(e *evil, l letter) []byte {
		m, _, err := wire.ParseOffer(l.body)
		if err != nil {
			return l.body
		}
		change(e, &m)
		return m.Append(nil)
	})
}

func answerWith(change func(e *evil, m *wire.Answer)) func(*evil, letter) []letter {
	return tamper(func(e *evil, l letter) []byte {
		m, _, _, err := wire.ParseAnswer(l.body)
		if err != nil {
			return l.body
		}
		change(e, &m)
		return m.Append(nil)
	})
}

func rosterWith(change func(e *evil, l letter, m *wire.Roster)) func(*evil, letter) []letter {
	return tamper(func(e *evil, l letter) []byte {
		m, _, err := wire.ParseRoster(l.body)
		if err != nil {
			return l.body
		}
		change(e, l, &m)
		return m.Append(nil)
	})
}

// ownFingerprint puts the attacker's certificate in place of the member's.
func ownFingerprint(sdp string) string {
	const mark = "a=fingerprint:sha-256 "
	i := strings.Index(sdp, mark) + len(mark)
	own := "00:11"
	if sdp[i:i+5] == own {
		own = "22:33"
	}
	return strings.ReplaceAll(sdp, sdp[i:i+95], own+sdp[i+5:i+95])
}

// resignOffer makes M1 the insider's own: its keys, its signature over the right transcript.
func resignOffer(e *evil, m *wire.Offer) {
	m.Keys, m.Signature = e.identity.PublicKeys(), nil
	m.Signature = e.identity.Sign(seal.LabelOffer, transcript(e.hellos[[2]wire.ID{m.Responder, m.Initiator}], m.Append(nil)))
}

func resignAnswer(e *evil, m *wire.Answer) {
	pair := [2]wire.ID{m.Initiator, m.Responder}
	mac := m.MAC
	m.Keys, m.Signature, m.MAC = e.identity.PublicKeys(), nil, nil
	m.Signature = e.identity.Sign(seal.LabelAnswer, transcript(e.hellos[[2]wire.ID{m.Responder, m.Initiator}], e.offers[pair], m.Append(nil)))
	m.MAC = mac
}

var attacks = []attack{
	// The hub alone can only damage what it cannot read.
	{name: "flips bits", change: half(flip)},
	{name: "truncates", change: half(func(e *evil, l letter) []letter {
		l.envelope = l.envelope[:1+e.count*53%len(l.envelope)]
		return []letter{l}
	})},
	{name: "appends", change: half(func(_ *evil, l letter) []letter {
		l.envelope = append(slices.Clone(l.envelope), 0)
		return []letter{l}
	})},
	{name: "changes the version of what it can", change: half(func(_ *evil, l letter) []letter {
		l.envelope = slices.Clone(l.envelope)
		l.envelope[0] ^= 3 // room envelopes become pair envelopes
		return []letter{l}
	})},
	{name: "names another sender", change: half(func(e *evil, l letter) []letter {
		l.from = e.other(l)
		return []letter{l}
	})},
	{name: "delivers to another", change: half(func(e *evil, l letter) []letter {
		l.to = e.other(l)
		return []letter{l}
	})},
	{name: "swaps heads", change: half(func(e *evil, l letter) []letter { // id, session and salt of another envelope
		if n := len(e.past); n > 0 {
			l.envelope = slices.Concat(e.past[n-1].envelope[:65], l.envelope[65:])
		}
		return []letter{l}
	})},
	{name: "reflects", change: func(_ *evil, l letter) []letter {
		return []letter{l, {from: l.to, to: l.from, envelope: l.envelope}}
	}},
	{name: "drops", change: func(e *evil, l letter) []letter {
		if e.count%3 > 0 {
			return nil
		}
		return []letter{l}
	}},
	{name: "duplicates", change: func(_ *evil, l letter) []letter { return []letter{l, l, l, l} }},
	{name: "replays", touches: 80, change: func(e *evil, l letter) []letter {
		return append(slices.Clone(e.past[max(0, len(e.past)-20):]), l)
	}},
	{name: "reorders", touches: 80, change: func(e *evil, l letter) []letter {
		if e.held = append(e.held, l); len(e.held) < 4 {
			return nil
		}
		letters := e.held
		e.held = nil
		slices.Reverse(letters)
		return letters
	}},
	{name: "invents presence", touches: 30, message: func(e *evil, to wire.ID, m []byte) [][]byte {
		if entered, err := wire.ParseEntered(m); err == nil {
			for i := range 500 {
				entered.Present = append(entered.Present, wire.ID{byte(i), byte(i >> 8), 1})
			}
			m = entered.Append(nil)
		}
		messages := [][]byte{m}
		for id := range e.w.taps {
			invented := wire.ID{0xbb, byte(e.left)}
			messages = append(messages, append([]byte{byte(wire.HubAbsent)}, id[:]...), append([]byte{byte(wire.HubPresent)}, invented[:]...))
		}
		return messages
	}},
	{name: "names its own ICE servers", touches: 30, message: func(_ *evil, _ wire.ID, m []byte) [][]byte {
		if entered, err := wire.ParseEntered(m); err == nil {
			entered.ICE = wire.ICEServers{Servers: []wire.ICEServer{{URLs: []string{"stun:10.1.99.99:3478"}}}}
			m = entered.Append(nil)
		}
		return [][]byte{m}
	}},
	{name: "breaks the protocol", touches: 3, message: func(e *evil, _ wire.ID, m []byte) [][]byte {
		return [][]byte{{0xff, byte(e.left)}, m[:len(m)-1], m}
	}},
	{name: "damages everything", endless: true, fails: fault.OwnerAway, change: flip},
	{name: "delivers nothing", endless: true, fails: fault.OwnerAway, change: func(*evil, letter) []letter { return nil }},

	// With an insider it changes what is inside, too.
	{name: "another name in the join", insider: true, only: wire.PayloadJoin, touches: 1, change: tamper(func(_ *evil, l letter) []byte {
		m, _, _ := wire.ParseJoin(l.body)
		m.Name = "Eve"
		return m.Append(nil)
	})},
	{name: "its own keys in the join", insider: true, only: wire.PayloadJoin, touches: 1, change: tamper(func(e *evil, l letter) []byte {
		m, _, _ := wire.ParseJoin(l.body)
		return seal.SignJoin(e.identity, m)
	})},
	{name: "one more in the roster", insider: true, only: wire.PayloadRoster, touches: 2, change: rosterWith(func(e *evil, _ letter, m *wire.Roster) {
		m.Epoch += 1000
		m.Members = append(m.Members, e.identity.KeyHash())
	})},
	{name: "its own roster", insider: true, only: wire.PayloadRoster, endless: true, fails: fault.OwnerAway,
		change: tamper(func(e *evil, l letter) []byte {
			m, _, _ := wire.ParseRoster(l.body)
			m.Members[0] = e.identity.KeyHash()
			return seal.SignRoster(e.identity, m)
		})},
	{name: "its own roster with the owner in it", insider: true, only: wire.PayloadRoster, endless: true, fails: fault.OwnerAway,
		change: rosterWith(func(e *evil, _ letter, m *wire.Roster) {
			m.Epoch, m.Members = m.Epoch+1, append(m.Members, e.identity.KeyHash())
			m.Keys, m.Signature = e.identity.PublicKeys(), nil
			m.Signature = e.identity.Sign(seal.LabelRoster, m.Append(nil))
		})},
	{name: "old rosters", insider: true, only: wire.PayloadRoster, touches: 6, change: func(e *evil, l letter) []letter {
		for _, p := range e.past {
			if p.to == l.to {
				return []letter{p}
			}
		}
		return []letter{l}
	}},
	{name: "a refusal of its own", insider: true, only: wire.PayloadRoster, touches: 1, change: func(e *evil, l letter) []letter {
		roster, _, _ := wire.ParseRoster(l.body)
		refuse := wire.Refuse{Room: roster.Room, Member: l.to, Nonce: roster.ReplyTo, Code: wire.RefuseDenied}
		forged := letter{from: l.from, to: l.to, kind: wire.PayloadRefuse, body: seal.SignRefuse(e.identity, refuse), envelope: l.envelope}
		return []letter{forged, l}
	}},
	{name: "another Hello", insider: true, only: wire.PayloadHello, touches: 3, change: tamper(func(_ *evil, l letter) []byte {
		m, _ := wire.ParseHello(l.body)
		m.Nonce[0] ^= 1
		return m.Append(nil)
	})},
	{name: "another version of Hello", insider: true, only: wire.PayloadHello, touches: 3, change: tamper(func(_ *evil, l letter) []byte {
		return append([]byte{2}, l.body[1:]...)
	})},
	{name: "its own fingerprint in the offer", insider: true, only: wire.PayloadOffer, endless: true,
		change: offerWith(func(_ *evil, m *wire.Offer) { m.SDP = ownFingerprint(m.SDP) })},
	{name: "its own offer", insider: true, only: wire.PayloadOffer, endless: true,
		change: offerWith(func(e *evil, m *wire.Offer) {
			m.SDP = ownFingerprint(m.SDP)
			resignOffer(e, m)
		})},
	{name: "its own signature in the offer", insider: true, only: wire.PayloadOffer, touches: 3,
		change: offerWith(func(e *evil, m *wire.Offer) {
			keys := m.Keys
			resignOffer(e, m)
			m.Keys = keys
		})},
	{name: "its own KEM key", insider: true, only: wire.PayloadOffer, touches: 3,
		change: offerWith(func(_ *evil, m *wire.Offer) { m.KEMPublicKey = bytes.Repeat([]byte{1}, len(m.KEMPublicKey)) })},
	{name: "its own fingerprint in the answer", insider: true, only: wire.PayloadAnswer, endless: true,
		change: answerWith(func(_ *evil, m *wire.Answer) { m.SDP = ownFingerprint(m.SDP) })},
	{name: "its own answer", insider: true, only: wire.PayloadAnswer, endless: true,
		change: answerWith(func(e *evil, m *wire.Answer) {
			m.SDP = ownFingerprint(m.SDP)
			resignAnswer(e, m)
		})},
	{name: "another ciphertext", insider: true, only: wire.PayloadAnswer, touches: 2,
		change: answerWith(func(_ *evil, m *wire.Answer) { m.KEMCiphertext[0] ^= 1 })},
	{name: "another commitment", insider: true, only: wire.PayloadAnswer, touches: 2,
		change: answerWith(func(_ *evil, m *wire.Answer) { m.Commitment[0] ^= 1 })},
	{name: "Acks for what it drops", insider: true, touches: 12, change: func(e *evil, l letter) []letter {
		if l.kind == wire.PayloadJoin || l.kind == wire.PayloadRoster {
			return []letter{l} // else nobody gets in before it is over
		}
		sealed, _ := wire.ParseEnvelope(l.envelope)
		return []letter{{from: l.to, to: l.from, kind: wire.PayloadAck, body: wire.Ack{Envelope: sealed.ID}.Append(nil), envelope: l.envelope}}
	}},
}

// TestEvilHub: whatever the hub does, with an insider or without, a run ends in a typed error or in the right bytes for
// those whom the owner let in; nobody else is shown, and nothing passes in the clear.
func TestEvilHub(t *testing.T) {
	t.Parallel()
	turns := make(chan struct{}, 8) // mostly they wait
	var running sync.WaitGroup
	for _, a := range attacks {
		running.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			t.Run(a.name, func(t *testing.T) { runAttack(t, a) })
		})
	}
	running.Wait()
}

func runAttack(t *testing.T, a attack) {
	w := newWorld(t, 20, 0)
	eve, err := seal.NewIdentity([32]byte{66})
	if err != nil {
		t.Fatal(err)
	}
	e := &evil{w: w, attack: a, identity: eve, hellos: map[[2]wire.ID][]byte{}, offers: map[[2]wire.ID][]byte{}, heard: map[wire.PayloadType][]letter{}, touched: make(chan struct{})}
	switch {
	case a.endless:
		e.left = 1 << 30
	case a.touches == 0:
		e.left = 40
	default:
		e.left = a.touches
	}
	w.meddle(e.fromHub, e.toHub)
	clock := newClock()
	ann := w.create("Ann", func(c *room.Config) { c.Now = clock.Now })
	link := ann.room.Link()
	if a.insider {
		w.mu.Lock()
		e.keys = link.Keys()
		w.mu.Unlock()
	}
	all := []*person{ann}
	clock.run(4)
	names := []string{"Bob", "Cleo"}
	if a.endless {
		names = names[:1]
	}
	for i, name := range names {
		var p *person
		err := error(fault.New(fault.OwnerAway, nil))
		for start := time.Now(); err != nil && time.Since(start) < patience; { // one who gives up comes back as the same member
			p, err = w.tryJoinWith(name, link, func(c *room.Config) { c.Now, c.Seed = clock.Now, &[32]byte{byte(i + 1)} })
			if code := fault.Of(err); code == fault.Internal || err != nil && code.Message() == "" {
				t.Errorf("%s: %v", name, err)
			}
			if a.endless && a.fails != "" {
				break
			}
		}
		switch {
		case a.endless && a.fails != "":
			if fault.Of(err) != a.fails {
				t.Errorf("%s: %v, want %s", name, err, a.fails)
			}
		case err != nil:
			t.Fatalf("%s joins: %v", name, err)
		default:
			all = append(all, p)
		}
	}
	switch {
	case a.endless && a.fails == "":
		select {
		case <-e.touched:
		case <-time.After(patience):
			t.Fatal("the hub has had nothing to touch")
		}
		clock.run(40) // it takes some attempts, each with its timeout, to show a member as failed
		for i, p := range all {
			id := all[1-i].room.Self().ID
			wait(p, "a member to fail", func(e room.PeerChanged) bool {
				return e.Peer.ID == id && e.Peer.State == room.PeerFailed && e.Peer.Code != ""
			})
		}
		for _, p := range all {
			for _, ev := range p.since(0) {
				if c, ok := ev.(room.PeerChanged); ok && (c.Peer.State == room.PeerOpen || len(c.Peer.SafetyWords) > 0) {
					t.Errorf("%s was shown %+v", p.name, c.Peer)
				}
			}
		}
		noProgress(t, e)
		if _, err := ann.room.Send([]room.OutFile{outFile("a", content(1, 1))}, room.SendOptions{}); fault.Of(err) != fault.NoRecipients {
			t.Errorf("sent to nobody: %v", err)
		}
	case !a.endless:
		meetAll(all...)
		clock.run(1)
		file := content(300_000, 5)
		id := ann.send(outFile("recognisable.bin", file))
		for _, p := range all[1:] {
			p.accept(ann)
			p.check(p.finished(id), file)
		}
		for _, entry := range ann.finished(id).Ledger {
			if entry.State != room.DeliveryDone {
				t.Errorf("ledger: %+v", entry)
			}
		}
		for _, p := range all {
			for _, ev := range p.since(0) {
				if j, ok := ev.(room.PeerJoined); ok && j.Peer.Name == "Eve" {
					t.Errorf("%s was shown a name that nobody has signed", p.name)
				}
			}
			peers := p.room.Peers()
			if len(peers) != len(all)-1 {
				t.Errorf("%s sees %d members", p.name, len(peers))
			}
			for _, m := range peers {
				for _, o := range all {
					if o.room.Self().ID != m.ID {
						continue
					}
					for _, back := range o.room.Peers() {
						if back.ID == p.room.Self().ID && !slices.Equal(back.SafetyWords, m.SafetyWords) {
							t.Errorf("%s sees %v, %s sees %v", p.name, m.SafetyWords, o.name, back.SafetyWords)
						}
					}
				}
			}
		}
		readNothing(t, e, link, "recognisable.bin", string(file[:24]))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.count == 0 && a.message == nil {
		t.Error("the hub has touched nothing")
	}
}

// noProgress checks that a forged offer was not answered, and that a forged answer gave no session: its keys would seal what
// the initiator says next.
func noProgress(t *testing.T, e *evil) {
	t.Helper()
	e.w.mu.Lock()
	defer e.w.mu.Unlock()
	answers := e.heard[wire.PayloadAnswer]
	if e.attack.only == wire.PayloadOffer && len(answers) > 0 {
		t.Error("a forged offer was answered")
	}
	for _, l := range e.heard[0] {
		if len(answers) > 0 && l.from == answers[0].to {
			t.Error("a forged answer was taken")
			break
		}
	}
}

// readNothing checks that nothing has passed the hub in the clear.
func readNothing(t *testing.T, e *evil, link seal.Link, words ...string) {
	t.Helper()
	e.w.mu.Lock()
	passed := e.passed.Bytes()
	e.w.mu.Unlock()
	for _, word := range append(words, "candidate:", "a=fingerprint", "a=ice-ufrag", "UDP/DTLS", string(link.Secret[:])) {
		for form, needle := range map[string]string{"": word, "hex ": hex.EncodeToString([]byte(word)), "base64 ": base64.RawURLEncoding.EncodeToString([]byte(word))} {
			if bytes.Contains(passed, []byte(needle)) {
				t.Errorf("the hub was shown %s%q", form, word)
			}
		}
	}
}

// TestHubReadsNothing: of a whole session, from the join to the last byte, the hub sees none of what it is about.
func TestHubReadsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	e := &evil{w: w, hellos: map[[2]wire.ID][]byte{}, offers: map[[2]wire.ID][]byte{}, heard: map[wire.PayloadType][]letter{}, touched: make(chan struct{})}
	in := newInsider(w) // the control: what there is to be seen
	control := w.toHub
	w.meddle(e.fromHub, func(member wire.ID, m []byte) [][]byte {
		e.toHub(member, m)
		return control(member, m)
	})
	ann := w.create("Ann the Recognisable", nil)
	in.learn(ann.room.Link())
	bob := w.join("Bob the Unmistakable", ann.room.Link())
	meetAll(ann, bob)
	file := content(300_000, 5)
	copy(file, "a content that nobody else has")
	id := ann.send(outFile("salaries of the board.xlsx", file))
	bob.accept(ann)
	bob.check(bob.finished(id), file)
	ann.finished(id)

	words := []string{ann.name, bob.name, "salaries of the board", "a content that nobody", string(file[1000:1024]), string(file[200_000:200_024]), ann.address, bob.address}
	for _, p := range []*person{ann, bob} {
		seed := p.room.Seed()
		identity, err := seal.NewIdentity(seed)
		if err != nil {
			t.Fatal(err)
		}
		keys := identity.PublicKeys()
		words = append(words, string(seed[:]), string(keys[:32]), string(keys[32:64]))
	}
	readNothing(t, e, ann.room.Link(), words...)

	var seen bytes.Buffer
	in.mu.Lock()
	for _, o := range in.seen {
		seen.Write(o.body)
	}
	in.mu.Unlock()
	for _, word := range []string{bob.name, "a=fingerprint", "UDP/DTLS"} {
		if !bytes.Contains(seen.Bytes(), []byte(word)) {
			t.Errorf("%q was not there to be seen: the test proves nothing", word)
		}
	}
}

// TestCrossWiredRooms: the hub delivers each room's envelopes in the other. Both have the same K where an insider has made
// a room of its own with it.
func TestCrossWiredRooms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 20, 0)
	var mu sync.Mutex
	last := map[wire.ID][]byte{} // to a member
	partner := map[wire.ID]wire.ID{}
	w.meddle(func(member wire.ID, m []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		messages := [][]byte{m}
		if _, err := wire.ParseRelay(m, wire.HubDeliver); err == nil {
			last[member] = m
			if other := last[partner[member]]; other != nil {
				relay, _ := wire.ParseRelay(other, wire.HubDeliver)
				from := relay.Member
				if p, ok := partner[from]; ok {
					from = p
				}
				messages = append(messages, other, wire.Relay{Member: from, Envelope: relay.Envelope}.Append(nil, wire.HubDeliver))
			}
		}
		return messages
	}, nil)
	first, second := w.create("Ann", nil), w.create("Cleo", nil)
	cross := func(a, b *person) {
		mu.Lock()
		defer mu.Unlock()
		partner[a.id()], partner[b.id()] = b.id(), a.id()
	}
	cross(first, second)
	bob, dan := w.join("Bob", first.room.Link()), w.join("Dan", second.room.Link())
	cross(bob, dan)
	more, most := w.join("Eli", first.room.Link()), w.join("Fay", second.room.Link())
	for _, all := range [][]*person{{first, bob, more}, {second, dan, most}} {
		meetAll(all...)
		file := content(300_000, 3)
		id := all[1].send(outFile("a.bin", file))
		for _, p := range []*person{all[0], all[2]} {
			p.accept(all[1])
			p.check(p.finished(id), file)
		}
		for _, p := range all {
			if n := len(p.room.Peers()); n != 2 {
				t.Errorf("%s sees %d members", p.name, n)
			}
		}
	}
}
