package transfer

import (
	"encoding/binary"
	"hash/crc32"

	"tallow/internal/core/wire"
)

// Checksummed puts the right checksums into what may be a journal.
func Checksummed(p []byte) []byte {
	p = append([]byte{}, p...)
	for rest := p; len(rest) >= 8; {
		n := binary.BigEndian.Uint32(rest)
		if uint64(n) > uint64(len(rest)-8) {
			break
		}
		binary.BigEndian.PutUint32(rest[4:], crc32.ChecksumIEEE(rest[8:8+n]))
		rest = rest[8+n:]
	}
	return p
}

// MaxStale bounds the attempts that a recipient is told the end of once more.
const MaxStale = maxStale

// Held is how many bytes the sender caches, and how many messages for a recipient are with the transport.
func (o *Outgoing) Held(peer wire.ID) (cached, queued int) { return o.cached, o.peer(peer).queued }

// Waiting is how many messages wait for room on the disk.
func (in *Incoming) Waiting() int { return len(in.short.stores) }

// SmallestWindow has the delivery go on with as little credit as one can have.
func (in *Incoming) SmallestWindow() { in.window = 2 * in.largest() }
