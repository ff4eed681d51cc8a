package seal

import (
	"bytes"
	"errors"
	"testing"

	"tallow/internal/core/wire"
)

func envelopeFields(t testing.TB, envelope []byte) []field {
	return fields(t, envelope, "kind", 1, "id", 16, "session", 16, "salt", 32,
		"ciphertext", len(envelope)-wire.EnvelopeOverhead, "tag", wire.TagSize)
}

func TestRoomEnvelope(t *testing.T) {
	room := testLink().Keys()
	a, b, c := members()[0].ID(), members()[1].ID(), members()[2].ID()
	id := wire.ID{1}
	for _, size := range []int{1, 100, wire.MaxPayload} {
		payload := draw(deterministic("payload"), size)
		envelope := room.SealEnvelope(a, b, id, payload)
		if len(envelope) != size+wire.EnvelopeOverhead {
			t.Errorf("%d bytes become %d", size, len(envelope))
		}
		got, err := room.OpenEnvelope(a, b, envelope)
		if err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}

	envelope := room.SealEnvelope(a, b, id, []byte("payload"))
	if bytes.Equal(envelope, room.SealEnvelope(a, b, id, []byte("payload"))) {
		t.Error("two envelopes have the same salt")
	}
	refused := func(name string, room *RoomKeys, from, to wire.ID, p []byte) error {
		got, err := room.OpenEnvelope(from, to, p)
		if !errors.Is(err, ErrEnvelope) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		return err
	}
	refused("author and addressee swapped", room, b, a, envelope)
	refused("another author", room, c, b, envelope)
	refused("another addressee", room, a, c, envelope)
	otherLink := testLink()
	otherLink.Secret[0] ^= 1
	refused("another room", otherLink.Keys(), a, b, envelope)
	otherKeyOnly, otherIDOnly := *room, *room
	otherKeyOnly.envelope[0] ^= 1
	otherIDOnly.ID[0] ^= 1
	refused("another key", &otherKeyOnly, a, b, envelope)
	refused("another room id", &otherIDOnly, a, b, envelope)
	parts := envelopeFields(t, envelope)
	try := func(p []byte) error { return refused("damaged", room, a, b, p) }
	damage(t, envelope, parts, try)
	splice(t, envelope, room.SealEnvelope(a, b, wire.ID{2}, []byte("Payload")), parts, try)
}

func TestPairEnvelope(t *testing.T) {
	p := testPair(t, 2)
	if _, err := p.i.Answer(p.m2); err != nil {
		t.Fatal(err)
	}
	// Both have the keys before M3, and after the end.
	for _, stage := range []string{"before M3", "at the end"} {
		i, r := p.i.Session(), p.r.Session()
		if _, ok := i.Epoch(); ok != (stage == "at the end") {
			t.Fatalf("%s: traffic keys: %v", stage, ok)
		}
		payload := []byte("candidate")
		for _, c := range []struct {
			name     string
			from, to *Session
		}{{"I to R", i, r}, {"R to I", r, i}} {
			envelope := c.from.SealEnvelope(wire.ID{1}, payload)
			got, err := c.to.OpenEnvelope(envelope)
			if err != nil || !bytes.Equal(got, payload) {
				t.Errorf("%s, %s: %v", stage, c.name, err)
			}
			if _, err := c.from.OpenEnvelope(envelope); !errors.Is(err, ErrEnvelope) {
				t.Errorf("%s, %s: reflected: %v", stage, c.name, err)
			}
		}
		if stage == "at the end" {
			break
		}
		var err error
		if p.m3, err = p.i.Confirm(); err != nil {
			t.Fatal(err)
		}
		if p.m4, err = p.r.Confirm(p.m3); err != nil {
			t.Fatal(err)
		}
		if err := p.i.Reveal(p.m4); err != nil {
			t.Fatal(err)
		}
	}

	i, r := p.i.Session(), p.r.Session()
	envelope := i.SealEnvelope(wire.ID{1}, []byte("candidate"))
	refused := func(name string, s *Session, p []byte) error {
		got, err := s.OpenEnvelope(p)
		if !errors.Is(err, ErrEnvelope) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		return err
	}
	parts := envelopeFields(t, envelope)
	try := func(p []byte) error { return refused("damaged", r, p) }
	damage(t, envelope, parts, try)
	splice(t, envelope, i.SealEnvelope(wire.ID{2}, []byte("Candidate")), parts, try)

	ic, rc := configs()
	ic.Rand, rc.Rand = nil, nil
	other := newPair(t, ic, rc).run(t, 5)
	splice(t, envelope, other.i.Session().SealEnvelope(wire.ID{1}, []byte("candidate")), parts, try)
	refused("another session of the same pair", other.r.Session(), envelope)
	renamed := bytes.Clone(envelope)
	id := other.r.SessionID()
	copy(renamed[17:], id[:])
	refused("another session, renamed", other.r.Session(), renamed)

	room := ic.Room
	if _, err := room.OpenEnvelope(ic.Self.ID(), rc.Self.ID(), envelope); !errors.Is(err, ErrEnvelope) {
		t.Errorf("a room key opens a pair envelope: %v", err)
	}
	refused("a room envelope", r, room.SealEnvelope(ic.Self.ID(), rc.Self.ID(), wire.ID{1}, []byte("candidate")))

	// What is sealed after Destroy opens for nobody, least of all under a key of zeros.
	zeros := i.clone()
	zeros.signal = [2][32]byte{}
	i.Destroy()
	late := i.SealEnvelope(wire.ID{2}, []byte("late"))
	refused("sealed after Destroy", r, late)
	zeros.direction, zeros.self, zeros.peer = zeros.direction.Other(), zeros.peer, zeros.self
	refused("sealed after Destroy, key of zeros", zeros, late)
	r.Destroy()
	refused("opened after Destroy", r, envelope)
}
