package chunk

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"tallow/internal/core/wire"
)

// FuzzManifest: what ParseManifest takes has chunks that lie within its files and add up to them.
func FuzzManifest(f *testing.F) {
	for _, files := range [][]wire.FileEntry{
		{{Size: 65537, Path: "a"}, {Kind: wire.KindDirectory, Path: "d"}, {Kind: wire.KindText, Size: 5, Path: "t"}},
		{{Size: MaxChunks * wire.MinChunkSize, Path: "a"}},
		{{Size: wire.MaxTotalSize, Path: "a"}}, // too many chunks
		{{Path: "a"}},
	} {
		var encoded []byte
		var total uint64
		for _, e := range files {
			encoded, total = e.Append(encoded), total+e.Size
		}
		f.Add(encoded, uint32(wire.MinChunkSize), uint32(len(files)), total)
		f.Add(encoded, uint32(wire.MaxChunkSize), uint32(len(files)), total)
	}
	f.Fuzz(func(t *testing.T, encoded []byte, chunkSize, files uint32, total uint64) {
		if !wire.ValidChunkSize(chunkSize) || total > wire.MaxTotalSize { // wire.ParseControl has refused such an offer
			return
		}
		m, err := ParseManifest(wire.TransferOffer{ChunkSize: chunkSize, Files: files, TotalSize: total, ManifestHash: sha256.Sum256(encoded)}, encoded)
		if err != nil {
			if !errors.Is(err, ErrManifest) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("untyped: %v", err)
			}
			return
		}
		var chunks, sum uint64
		for i, e := range m.Files {
			n := m.Chunks(uint32(i))
			chunks, sum = chunks+uint64(n), sum+e.Size
			if n == 0 {
				if e.Size > 0 {
					t.Errorf("file of %d bytes has no chunk", e.Size)
				}
				continue
			}
			last := Ref{uint32(i), n - 1}
			if length := m.Length(last); length == 0 || length > chunkSize || uint64(m.Offset(last))+uint64(length) != e.Size {
				t.Errorf("file of %d bytes: the last chunk has %d at %d", e.Size, length, m.Offset(last))
			}
		}
		if chunks > MaxChunks || sum != m.Total || uint64(len(SafePaths(m.Files))) != uint64(len(m.Files)) {
			t.Errorf("%d chunks, %d bytes of %d", chunks, sum, m.Total)
		}
	})
}

// FuzzSet drives a have-map against a plain list of what it must hold.
func FuzzSet(f *testing.F) {
	f.Add([]byte{0, 0, 5, 1, 0, 5, 2, 0, 64, 130, 3, 1, 0, 0})
	f.Add([]byte{2, 0, 60, 8, 2, 0, 62, 8, 0, 0, 64, 0, 1, 0, 61, 0})
	f.Add([]byte{2, 0, 60, 8, 2, 0, 0, 255, 1, 0, 63, 2, 3, 255, 200})
	f.Fuzz(func(t *testing.T, script []byte) {
		var s Set
		var want [1 << 11]bool
		for len(script) >= 4 {
			i := uint32(binary.BigEndian.Uint16(script[1:])) % (1 << 10)
			switch n := uint32(script[3]); script[0] % 3 {
			case 0:
				if s.Add(i) == want[i] {
					t.Fatalf("Add(%d) with %v", i, want[i])
				}
				want[i] = true
			case 1:
				s.Remove(i)
				want[i] = false
			case 2:
				s.AddRun(wire.Run{First: i, Count: n})
				for j := range n {
					want[i+j] = true
				}
			}
			script = script[4:]
		}
		count := uint32(0)
		for i, have := range want {
			if have {
				count++
			}
			if s.Has(uint32(i)) != have {
				t.Fatalf("Has(%d) = %v", i, !have)
			}
		}
		if s.Count() != count {
			t.Fatalf("Count %d, want %d", s.Count(), count)
		}
		next := uint32(0)
		for _, run := range s.Runs(len(want)) {
			if run.Count == 0 || run.First < next {
				t.Fatalf("runs %v", s.Runs(len(want)))
			}
			next = run.First + run.Count + 1 // adjacent runs would be one
			count -= run.Count
		}
		if count != 0 || s.Has(1<<32-1) {
			t.Fatalf("the runs differ from the set by %d", int32(count))
		}
	})
}
