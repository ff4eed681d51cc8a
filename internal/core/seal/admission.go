package seal

import (
	"errors"
	"fmt"

	"tallow/internal/core/wire"
)

// ErrAdmission is wrapped by the errors of VerifyJoin, VerifyRoster and VerifyRefuse, besides the cause.
var ErrAdmission = errors.New("seal: admission message refused")

var (
	errRoom      = errors.New("another room")
	errOwner     = fmt.Errorf("%w: not the owner's", ErrKeys)
	errFirst     = errors.New("the owner is not listed first")
	errDuplicate = errors.New("a member is listed twice")
)

// SignJoin fills in the newcomer's keys and signature and returns the body.
func SignJoin(self *Identity, m wire.Join) []byte {
	m.Keys, m.Signature = self.keys, nil
	m.Signature = self.Sign(LabelJoin, m.Append(nil))
	return m.Append(nil)
}

// VerifyJoin opens the body of a Join. The newcomer is whom KeyHash(join.Keys) names, not whoever the hub says it came
// from. Whether the nonce is new is the caller's to check.
func VerifyJoin(room wire.ID, p []byte) (wire.Join, error) {
	m, covered, err := wire.ParseJoin(p)
	if err == nil && m.Room != room {
		err = errRoom
	}
	if err == nil {
		err = VerifySignature(m.Keys, LabelJoin, covered, m.Signature)
	}
	if err != nil {
		return wire.Join{}, fmt.Errorf("%w: join: %w", ErrAdmission, err)
	}
	return m, nil
}

// SignRoster fills in the owner's keys and signature and returns the body. It panics on a list that VerifyRoster would refuse.
func SignRoster(owner *Identity, m wire.Roster) []byte {
	must(checkMembers(owner.ID(), m.Members) == nil, "a roster lists the owner first and nobody twice")
	m.Keys, m.Signature = owner.keys, nil
	m.Signature = owner.Sign(LabelRoster, m.Append(nil))
	return m.Append(nil)
}

// VerifyRoster opens the body of a Roster of the owner that the link names. That the epoch is higher than the last, that it
// answers the newcomer's nonce and lists it, is the caller's to check.
func VerifyRoster(room, owner wire.ID, p []byte) (wire.Roster, error) {
	m, covered, err := wire.ParseRoster(p)
	if err == nil {
		err = verifyOwner(room, owner, m.Room, m.Keys, LabelRoster, covered, m.Signature)
	}
	if err == nil {
		err = checkMembers(owner, m.Members)
	}
	if err != nil {
		return wire.Roster{}, fmt.Errorf("%w: roster: %w", ErrAdmission, err)
	}
	return m, nil
}

// SignRefuse fills in the owner's keys and signature and returns the body.
func SignRefuse(owner *Identity, m wire.Refuse) []byte {
	m.Keys, m.Signature = owner.keys, nil
	m.Signature = owner.Sign(LabelRefuse, m.Append(nil))
	return m.Append(nil)
}

// VerifyRefuse opens the body of a Refuse of the owner that the link names. That it names the newcomer and answers its
// nonce is the caller's to check.
func VerifyRefuse(room, owner wire.ID, p []byte) (wire.Refuse, error) {
	m, covered, err := wire.ParseRefuse(p)
	if err == nil {
		err = verifyOwner(room, owner, m.Room, m.Keys, LabelRefuse, covered, m.Signature)
	}
	if err != nil {
		return wire.Refuse{}, fmt.Errorf("%w: refuse: %w", ErrAdmission, err)
	}
	return m, nil
}

func verifyOwner(room, owner, gotRoom wire.ID, keys []byte, label Label, covered, signature []byte) error {
	if gotRoom != room {
		return errRoom
	}
	if hashKeysID(keys) != owner {
		return errOwner
	}
	return VerifySignature(keys, label, covered, signature)
}

func hashKeysID(keys []byte) wire.ID { return idOf(hashKeys(keys)) }

func checkMembers(owner wire.ID, members []wire.Hash) error {
	if len(members) == 0 || idOf(members[0]) != owner {
		return errFirst
	}
	seen := make(map[wire.ID]bool, len(members))
	for _, m := range members {
		if seen[idOf(m)] {
			return errDuplicate
		}
		seen[idOf(m)] = true
	}
	return nil
}
