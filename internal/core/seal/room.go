package seal

import (
	"crypto/rand"

	"tallow/internal/core/wire"
)

// RoomKeys is what every holder of a link derives from it: PROTOCOL.md section 3.
type RoomKeys struct {
	ID    wire.ID   // the room's name on the hub
	Token wire.Hash // shown to the hub, which stores only its hash

	envelope [32]byte
	psk      [32]byte
}

// Keys derives the keys of the link's room.
func (l Link) Keys() *RoomKeys {
	prk := extract([]byte("tallow v1 room"), l.Secret[:])
	defer wipe(prk)
	k := new(RoomKeys)
	expandInto(k.ID[:], prk, "room id", nil)
	expandInto(k.Token[:], prk, "join token", nil)
	expandInto(k.envelope[:], prk, "envelope", nil)
	expandInto(k.psk[:], prk, "psk", nil)
	return k
}

// Destroy overwrites the keys, with random bytes: what is sealed afterwards by mistake nobody can open.
func (k *RoomKeys) Destroy() {
	for _, key := range [][]byte{k.Token[:], k.envelope[:], k.psk[:]} {
		rand.Read(key)
	}
}
