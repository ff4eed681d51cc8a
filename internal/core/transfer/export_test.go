package transfer

import (
	"encoding/binary"
	"hash/crc32"
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
