package seal

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"tallow/internal/core/wire"
)

func TestJoin(t *testing.T) {
	room, self := wire.ID{1}, members()[2]
	join := wire.Join{Room: room, Nonce: wire.ID{2}, Epoch: 3, Name: "Ärin"}
	p := SignJoin(self, join)
	got, err := VerifyJoin(room, p)
	if err != nil {
		t.Fatal(err)
	}
	if got.Nonce != join.Nonce || got.Epoch != join.Epoch || got.Name != join.Name || !bytes.Equal(got.Keys, self.PublicKeys()) {
		t.Errorf("%+v", got)
	}
	refused := func(name string, room wire.ID, p []byte, cause error) error {
		got, err := VerifyJoin(room, p)
		if !errors.Is(err, ErrAdmission) || cause != nil && !errors.Is(err, cause) || !reflect.ValueOf(got).IsZero() {
			t.Errorf("%s: %v", name, err)
		}
		return err
	}
	refused("another room", wire.ID{2}, p, errRoom)
	version := bytes.Clone(p)
	version[0] = 2
	refused("another version", room, version, wire.ErrVersion)
	posing := bytes.Clone(p)
	copy(posing[41:], members()[0].PublicKeys())
	refused("another's keys", room, posing, ErrSignature)
	refused("a roster's signature", room, relabel(p, self, LabelRoster), ErrSignature)
	parts := fields(t, p, "version", 1, "room", 16, "nonce", 16, "epoch", 8, "Ed25519 key", edSize, "ML-DSA key", mlSize,
		"name length", 1, "name", len(join.Name), "Ed25519 signature", edSig, "ML-DSA signature", mlSig)
	try := func(p []byte) error { return refused("damaged", room, p, nil) }
	damage(t, p, parts, try)
	// Another join of the same member, and one of another member.
	for _, by := range []*Identity{self, members()[1]} {
		other := SignJoin(by, wire.Join{Room: room, Nonce: wire.ID{3}, Epoch: 4, Name: "Bruno"})
		splice(t, p, other, parts, try)
		splice(t, other, p, parts, try)
	}
}

// relabel signs a message for another purpose.
func relabel(p []byte, by *Identity, label Label) []byte {
	body := p[:len(p)-wire.SignatureSize]
	return append(bytes.Clone(body), by.Sign(label, body)...)
}

func TestRoster(t *testing.T) {
	room, owner := wire.ID{1}, members()[0]
	list := []wire.Hash{owner.KeyHash(), members()[1].KeyHash()}
	roster := wire.Roster{Room: room, Epoch: 5, Approval: true, MaxMembers: 11, ReplyTo: wire.ID{9}, Members: list}
	p := SignRoster(owner, roster)
	got, err := VerifyRoster(room, owner.ID(), p)
	if err != nil {
		t.Fatal(err)
	}
	if got.Epoch != 5 || got.Locked || !got.Approval || got.MaxMembers != 11 || got.ReplyTo != roster.ReplyTo || !reflect.DeepEqual(got.Members, list) {
		t.Errorf("%+v", got)
	}
	refused := func(name string, room, owner wire.ID, p []byte, cause error) error {
		got, err := VerifyRoster(room, owner, p)
		if !errors.Is(err, ErrAdmission) || cause != nil && !errors.Is(err, cause) || !reflect.ValueOf(got).IsZero() {
			t.Errorf("%s: %v", name, err)
		}
		return err
	}
	refused("another room", wire.ID{2}, owner.ID(), p, errRoom)
	refused("another owner", room, members()[1].ID(), p, errOwner)

	// An insider signs a list that has the owner first.
	insider := members()[1]
	forged := roster
	forged.Keys = insider.PublicKeys()
	body := forged.Append(nil)
	refused("an insider's", room, owner.ID(), append(body, insider.Sign(LabelRoster, body)...), ErrKeys)
	forged.Keys = owner.PublicKeys()
	body = forged.Append(nil)
	refused("an insider's under the owner's keys", room, owner.ID(), append(body, insider.Sign(LabelRoster, body)...), ErrSignature)
	refused("a refusal's signature", room, owner.ID(), relabel(p, owner, LabelRefuse), ErrSignature)

	sign := func(list ...wire.Hash) []byte {
		m := roster
		m.Members, m.Keys = list, owner.PublicKeys()
		body := m.Append(nil)
		return append(body, owner.Sign(LabelRoster, body)...)
	}
	refused("owner not first", room, owner.ID(), sign(list[1], list[0]), errFirst)
	refused("owner not listed", room, owner.ID(), sign(list[1]), errFirst)
	refused("member twice", room, owner.ID(), sign(list[0], list[1], list[1]), errDuplicate)
	sameID := list[1]
	sameID[31] ^= 1
	refused("id twice", room, owner.ID(), sign(list[0], list[1], sameID), errDuplicate)

	parts := fields(t, p, "version", 1, "room", 16, "epoch", 8, "flags", 1, "max members", 1, "reply-to", 16, "count", 1,
		"first member", 32, "second member", 32, "Ed25519 key", edSize, "ML-DSA key", mlSize, "Ed25519 signature", edSig, "ML-DSA signature", mlSig)
	try := func(p []byte) error { return refused("damaged", room, owner.ID(), p, nil) }
	damage(t, p, parts, try)
	// Another roster of the owner, and one that an insider has signed.
	other := SignRoster(owner, wire.Roster{Room: room, Epoch: 6, Locked: true, MaxMembers: 12, ReplyTo: wire.ID{8},
		Members: []wire.Hash{owner.KeyHash(), members()[2].KeyHash()}})
	splice(t, p, other, parts, try)
	splice(t, other, p, parts, try)
	splice(t, p, SignRoster(insider, wire.Roster{Room: room, Epoch: 6, Members: []wire.Hash{insider.KeyHash(), list[0]}}), parts, try)
}

func TestRefuse(t *testing.T) {
	room, owner := wire.ID{1}, members()[0]
	refuse := wire.Refuse{Room: room, Member: members()[2].ID(), Nonce: wire.ID{4}, Code: wire.RefuseFull}
	p := SignRefuse(owner, refuse)
	got, err := VerifyRefuse(room, owner.ID(), p)
	if err != nil {
		t.Fatal(err)
	}
	if got.Member != refuse.Member || got.Nonce != refuse.Nonce || got.Code != refuse.Code {
		t.Errorf("%+v", got)
	}
	refused := func(name string, room, owner wire.ID, p []byte, cause error) error {
		got, err := VerifyRefuse(room, owner, p)
		if !errors.Is(err, ErrAdmission) || cause != nil && !errors.Is(err, cause) || !reflect.ValueOf(got).IsZero() {
			t.Errorf("%s: %v", name, err)
		}
		return err
	}
	refused("another room", wire.ID{2}, owner.ID(), p, errRoom)
	refused("another owner", room, members()[1].ID(), p, errOwner)
	refused("an insider's", room, owner.ID(), SignRefuse(members()[1], refuse), errOwner)
	refused("a roster's signature", room, owner.ID(), relabel(p, owner, LabelRoster), ErrSignature)
	parts := fields(t, p, "version", 1, "room", 16, "member", 16, "nonce", 16, "code", 1, "Ed25519 key", edSize, "ML-DSA key", mlSize,
		"Ed25519 signature", edSig, "ML-DSA signature", mlSig)
	try := func(p []byte) error { return refused("damaged", room, owner.ID(), p, nil) }
	damage(t, p, parts, try)
	other := SignRefuse(owner, wire.Refuse{Room: room, Member: members()[1].ID(), Nonce: wire.ID{5}, Code: wire.RefuseRemoved})
	splice(t, p, other, parts, try)
	splice(t, other, p, parts, try)
}
