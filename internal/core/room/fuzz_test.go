//go:build !js

package room

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/signaling"
	"tallow/internal/core/wire"
)

// FuzzPayloads gives an owner and a guest a sequence of payloads that have opened, in the name of anybody. A step is a
// sender, a type with a flag for pair envelopes, how far the clock goes on, and a body with its length.
func FuzzPayloads(f *testing.F) {
	owner, bob, stranger := newIdentity(f, 2), newIdentity(f, 3), newIdentity(f, 4)
	self, err := seal.NewIdentity([32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	own, link := seal.Link{Secret: [32]byte{1}, Owner: self.ID()}, seal.Link{Secret: [32]byte{1}, Owner: owner.ID()}
	room := link.Keys().ID
	step := func(from, kind, seconds byte, body []byte) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{from, kind, seconds}, uint16(len(body))), body...)
	}
	hello := wire.Hello{Member: bob.ID(), Nonce: wire.Hash{1}}.Append(nil)
	join := seal.SignJoin(stranger, wire.Join{Room: room, Nonce: wire.ID{1}, Name: "Eve"})
	roster := seal.SignRoster(owner, wire.Roster{Room: room, Epoch: 2, Members: []wire.Hash{owner.KeyHash(), bob.KeyHash()}})
	refuse := wire.Refuse{Room: room, Member: bob.ID(), Code: wire.RefuseRemoved}
	candidates := wire.Candidates{List: []wire.Candidate{{Candidate: "candidate:1"}}}.Append(nil)
	f.Add(step(2, byte(wire.PayloadJoin), 1, join))
	f.Add(step(0, byte(wire.PayloadRoster), 0, roster))
	f.Add(step(0, byte(wire.PayloadRefuse), 0, seal.SignRefuse(owner, refuse)))
	f.Add(append(step(1, byte(wire.PayloadHello), 2, hello), step(1, byte(wire.PayloadAnswer), 1, make([]byte, 100))...))
	f.Add(append(step(1, byte(wire.PayloadKnock), 9, wire.Knock{Member: bob.ID()}.Append(nil)), step(1, byte(wire.PayloadOffer), 0, make([]byte, 9000))...))
	f.Add(append(step(1, byte(wire.PayloadCandidates), 0, candidates), step(1, byte(wire.PayloadCandidates)|0x80, 0, candidates)...))
	f.Add(step(1, byte(wire.PayloadRestart)|0x80, 60, wire.Restart{Generation: 1}.Append(nil)))
	f.Fuzz(func(t *testing.T, p []byte) {
		ann := newStill(t, 1, &own, Config{MaxRecipients: 2}, bob)
		guest := newStill(t, 5, &link, Config{}, owner, bob)
		senders := []wire.ID{owner.ID(), bob.ID(), stranger.ID(), ann.self, guest.self}
		for len(p) >= 5 {
			from, kind, pair, seconds := senders[int(p[0])%len(senders)], wire.PayloadType(p[1]&0x7f), p[1]&0x80 != 0, p[2]
			n := min(int(binary.BigEndian.Uint16(p[3:])), len(p)-5)
			body := p[5 : 5+n]
			p = p[5+n:]
			for _, s := range []*still{ann, guest} {
				s.now = s.now.Add(time.Duration(seconds) * time.Second)
				s.payload(from, s.members[from], kind, body, pair)
				s.deliver(from, body)
				s.signal(signaling.Present{Member: from})
				s.settle()
			}
		}
		for _, s := range []*still{ann, guest} {
			for id := range s.members {
				if id != owner.ID() && id != bob.ID() && id != stranger.ID() {
					t.Errorf("%s is a member", id)
				}
			}
		}
	})
}

// FuzzValue: what a caller carries is refused with a code, or is the same again when it is put together from its parts.
func FuzzValue(f *testing.F) {
	one := wire.Envelope{Kind: wire.RoomEnvelope, ID: wire.ID{1}, Ciphertext: make([]byte, 40)}.Append(nil)
	f.Add(appendValue([][]byte{one}))
	f.Add(appendValue([][]byte{one, one}))
	f.Add("AQAA")
	f.Fuzz(func(t *testing.T, value string) {
		envelopes, err := parseValue(value)
		switch {
		case err != nil && fault.Of(err) != fault.InvalidArgument:
			t.Errorf("untyped: %v", err)
		case err == nil && (len(envelopes) > maxCarried || appendValue(envelopes) != strings.NewReplacer("\r", "", "\n", "").Replace(value)): // a mail may break lines
			t.Errorf("%d envelopes, and another value", len(envelopes))
		}
	})
}
