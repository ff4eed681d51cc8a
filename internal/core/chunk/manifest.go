// Package chunk is a file set as chunks: the manifest, the announced hashes, the have-maps, the roots, and what a
// stranger's path may become. See PROTOCOL.md section 10.
package chunk

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"tallow/internal/core/wire"
)

// DefaultSize is the chunk size to start with, in bytes.
const DefaultSize = 256 << 10

// MaxChunks is the most chunks of a transfer: it bounds the hash list that a recipient keeps.
const MaxChunks = 1 << 22

// Errors of manifests.
var (
	// ErrManifest says that a manifest does not fit its offer or the limits.
	ErrManifest = errors.New("chunk: bad manifest")
	// ErrTooLarge says that a file set exceeds what a transfer can hold.
	ErrTooLarge = errors.New("chunk: file set too large")
)

// SizeFor is the chunk size for a file set of total bytes: the default, until the hash list would pass 2 MiB.
func SizeFor(total uint64) uint32 {
	size := uint32(DefaultSize)
	for size < wire.MaxChunkSize && total/uint64(size) > 1<<16 {
		size *= 2
	}
	return size
}

// Ref names a chunk of a transfer.
type Ref struct{ File, Index uint32 }

// Before reports whether the chunk comes before another one in the order of the transfer.
func (r Ref) Before(other Ref) bool {
	return r.File < other.File || r.File == other.File && r.Index < other.Index
}

// Manifest is the file set of a transfer.
type Manifest struct {
	ChunkSize uint32
	Files     []wire.FileEntry
	Total     uint64    // bytes of all files
	Encoded   []byte    // as it travels
	Hash      wire.Hash // of Encoded
}

// NewManifest makes the manifest of files.
func NewManifest(chunkSize uint32, files []wire.FileEntry) (*Manifest, error) {
	m := &Manifest{ChunkSize: chunkSize, Files: files}
	if len(files) == 0 || len(files) > wire.MaxFiles {
		return nil, fmt.Errorf("%w: %d files", ErrTooLarge, len(files))
	}
	for _, f := range files {
		if len(f.Path) == 0 || len(f.Path) > wire.MaxPath || len(f.MediaType) > wire.MaxMediaType {
			return nil, fmt.Errorf("%w: path or media type too long", ErrTooLarge)
		}
		if f.Kind == wire.KindText && f.Size > wire.MaxText || f.Size > wire.MaxTotalSize {
			return nil, fmt.Errorf("%w: text or file too long", ErrTooLarge)
		}
		m.Total += f.Size
		m.Encoded = f.Append(m.Encoded)
	}
	if m.Total > wire.MaxTotalSize || len(m.Encoded) > wire.MaxManifest {
		return nil, ErrTooLarge
	}
	m.Hash = sha256.Sum256(m.Encoded)
	return m, m.checkChunks()
}

// ParseManifest checks an encoded manifest against its offer.
func ParseManifest(offer wire.TransferOffer, encoded []byte) (*Manifest, error) {
	m := &Manifest{ChunkSize: offer.ChunkSize, Total: offer.TotalSize, Encoded: encoded, Hash: sha256.Sum256(encoded)}
	if m.Hash != offer.ManifestHash {
		return nil, fmt.Errorf("%w: hash differs", ErrManifest)
	}
	var err error
	if m.Files, err = wire.ParseManifest(encoded, offer.Files, offer.TotalSize); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return m, m.checkChunks()
}

func (m *Manifest) checkChunks() error {
	var n uint64
	for _, f := range m.Files {
		n += (f.Size + uint64(m.ChunkSize) - 1) / uint64(m.ChunkSize)
	}
	if n > MaxChunks {
		return fmt.Errorf("%w: %d chunks", ErrTooLarge, n)
	}
	return nil
}

// Chunks is the number of chunks of a file.
func (m *Manifest) Chunks(file uint32) uint32 {
	return uint32((m.Files[file].Size + uint64(m.ChunkSize) - 1) / uint64(m.ChunkSize))
}

// Length is the number of bytes of a chunk, which must exist.
func (m *Manifest) Length(r Ref) uint32 {
	return uint32(min(uint64(m.ChunkSize), m.Files[r.File].Size-uint64(m.Offset(r))))
}

// Offset is where a chunk starts in its file.
func (m *Manifest) Offset(r Ref) int64 { return int64(r.Index) * int64(m.ChunkSize) }

// All is the set of all files.
func (m *Manifest) All() wire.Bitmap {
	b := wire.NewBitmap(len(m.Files))
	for i := range m.Files {
		b.Set(uint32(i))
	}
	return b
}

// FileRoot is the root of a file whose hash list is complete.
func (m *Manifest) FileRoot(file uint32, hashes []wire.Hash) wire.Hash {
	h := sha256.New()
	h.Write([]byte("tallow v1 file"))
	h.Write(be32(m.ChunkSize))
	h.Write(be64(m.Files[file].Size))
	for i := range hashes {
		h.Write(hashes[i][:])
	}
	return wire.Hash(h.Sum(nil))
}

// DeliveryRoot is the root of a delivery of the given files; root gives each file's.
func (m *Manifest) DeliveryRoot(sender, transfer wire.ID, files wire.Bitmap, root func(file uint32) wire.Hash) wire.Hash {
	h := sha256.New()
	h.Write([]byte("tallow v1 delivery"))
	h.Write(sender[:])
	h.Write(transfer[:])
	h.Write(m.Hash[:])
	for i := range m.Files {
		if f := uint32(i); files.Has(f) {
			r := root(f)
			h.Write(be32(f))
			h.Write(r[:])
		}
	}
	return wire.Hash(h.Sum(nil))
}

func be32(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }
func be64(v uint64) []byte { return append(be32(uint32(v>>32)), be32(uint32(v))...) }
