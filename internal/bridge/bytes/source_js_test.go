package bytes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall/js"
	"testing"
	"time"

	"tallow/internal/core/host"
	"tallow/internal/core/transfer"
)

// pick is a Source of a file on this machine's disk, chosen through a file input.
func pick(t testing.TB, path string) *Source {
	t.Helper()
	file := await(js.Global().Get("tallowTest").Call("pick", path))
	if file.IsUndefined() {
		t.Fatal("no file was chosen")
	}
	s := NewSource(host.Attach(file))
	t.Cleanup(func() { s.Close() })
	return s
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// random is n bytes that repeat nowhere, but for a few MiB made fast enough for Wasm.
func random(n int) []byte {
	block := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(block)
	b := bytes.Repeat(block, n>>20+1)[:n]
	for at := 0; at+8 <= n; at += 1000 {
		binary.LittleEndian.PutUint64(b[at:], uint64(at))
	}
	return b
}

func TestSource(t *testing.T) {
	for _, size := range []int{0, 1, 65_536, 3<<20 + 7} {
		path, data := filepath.Join(t.TempDir(), "file"), random(size)
		writeFile(t, path, data)
		s := pick(t, path)
		if s.Size() != int64(size) {
			t.Fatalf("Size: %d, want %d", s.Size(), size)
		}
		got := make([]byte, size)
		const piece = 100_003
		var group sync.WaitGroup
		for off := 0; off < size; off += piece {
			group.Go(func() {
				part := got[off:min(off+piece, size)]
				if n, err := s.ReadAt(part, int64(off)); n != len(part) || err != nil {
					t.Errorf("ReadAt %d: %d, %v", off, n, err)
				}
			})
		}
		group.Wait()
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes: wrong contents", size)
		}
		for _, c := range []struct {
			off  int64
			want int
		}{{int64(size), 0}, {int64(size) + 1, 0}, {1 << 50, 0}, {max(0, int64(size)-5), min(5, size)}} {
			if n, err := s.ReadAt(make([]byte, 10), c.off); n != c.want || err != io.EOF {
				t.Errorf("ReadAt of 10 bytes at %d of %d: %d, %v", c.off, size, n, err)
			}
		}
		if _, err := s.ReadAt(make([]byte, 10), -1); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("ReadAt at -1: %v", err)
		}
	}
}

// TestSourcePatterns reads one file in ways that share streams, break them off and take them up again.
func TestSourcePatterns(t *testing.T) {
	const size = 17<<20 + 12_345 // more than one segment
	path, data := filepath.Join(t.TempDir(), "file"), random(size)
	writeFile(t, path, data)
	s := pick(t, path)
	read := func(t *testing.T, off, n int) {
		p := make([]byte, min(n, size-off))
		if got, err := s.ReadAt(p, int64(off)); got != len(p) || err != nil || !bytes.Equal(p, data[off:off+len(p)]) {
			t.Errorf("ReadAt of %d at %d: %d, %v, right: %t", len(p), off, got, err, bytes.Equal(p, data[off:off+len(p)]))
		}
	}
	t.Run("sequential", func(t *testing.T) {
		for off := 0; off < size; off += 1_000_003 {
			read(t, off, 1_000_003)
		}
	})
	t.Run("in flight", func(t *testing.T) {
		var group sync.WaitGroup
		var next chunks
		for range 4 {
			group.Go(func() {
				for {
					off := int(next.offset(262_144, 1<<40))
					if off >= size {
						return
					}
					read(t, off, 262_144)
				}
			})
		}
		group.Wait()
	})
	t.Run("from the middle", func(t *testing.T) {
		for off := size / 2; off < size/2+4_000_000; off += 300_001 {
			read(t, off, 300_001)
		}
	})
	t.Run("several readers", func(t *testing.T) {
		var group sync.WaitGroup
		for i := range 12 {
			group.Go(func() {
				for off := i * 100_000; off < 5_000_000; off += 400_000 + i {
					read(t, off, 400_000+i)
				}
			})
		}
		group.Wait()
	})
	t.Run("backwards", func(t *testing.T) {
		for off := size - 500_000; off > size-5_000_000; off -= 500_000 {
			read(t, off, 500_000)
		}
	})
}

// TestSourceLost changes files on the disk after they have been chosen, before or in the middle of a sequential reading.
func TestSourceLost(t *testing.T) {
	const size, piece = 20 << 20, 256 << 10
	later := time.Now().Add(10 * time.Second)
	for _, c := range []struct {
		name   string
		change func(path string) error
	}{
		{"deleted", os.Remove},
		{"truncated", func(path string) error { return os.Truncate(path, 100) }},
		{"touched", func(path string) error { return os.Chtimes(path, later, later) }},
	} {
		for _, when := range []int{0, piece, size / 2, size - 2*piece} {
			t.Run(fmt.Sprintf("%s at %d", c.name, when), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "file")
				writeFile(t, path, nil)
				if err := os.Truncate(path, size); err != nil {
					t.Fatal(err)
				}
				s := pick(t, path)
				p := make([]byte, piece)
				for off := 0; off < size; off += piece {
					if off == when {
						if err := c.change(path); err != nil {
							t.Fatal(err)
						}
					}
					_, err := s.ReadAt(p, int64(off))
					if err == nil {
						continue
					}
					if off < when || !errors.Is(err, transfer.ErrSourceChanged) && !errors.Is(err, transfer.ErrSourceUnreadable) {
						t.Errorf("at %d: %v", off, err)
					}
					return
				}
				t.Error("everything could be read")
			})
		}
	}
}

// TestSourceLateError: a stream that ends in an error when all of it has come lends no read the bytes of another. Many are under way, as when sending.
func TestSourceLateError(t *testing.T) {
	data := random(40 << 20)
	path := filepath.Join(t.TempDir(), "file")
	writeFile(t, path, data)
	source := pick(t, path)
	defer source.Close()
	prototype := js.Global().Get("Blob").Get("prototype")
	stream := prototype.Get("stream")
	late := js.Global().Get("Function").New("stream", `return function () {
		const reader = stream.call(this).getReader();
		return new ReadableStream({
			async pull(controller) {
				const { value, done } = await reader.read();
				if (done) controller.error(new DOMException("late", "NotReadableError"));
				else controller.enqueue(value);
			},
		});
	}`).Invoke(stream)
	prototype.Set("stream", late)
	defer prototype.Set("stream", stream)
	const size = 1 << 20
	var next atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			p := make([]byte, size)
			for at := next.Add(size) - size; at < int64(len(data)); at = next.Add(size) - size {
				if _, err := source.ReadAt(p, at); err != nil || !bytes.Equal(p, data[at:at+size]) {
					t.Errorf("at %d: %v, right: %t", at, err, bytes.Equal(p, data[at:at+size]))
				}
			}
		})
	}
	group.Wait()
}

// TestSourceSmall reads many small files at once, of which some have changed: those are told, and the others' bytes are their own.
func TestSourceSmall(t *testing.T) {
	dir := t.TempDir()
	later := time.Now().Add(10 * time.Second)
	var sources []*Source
	var data [][]byte
	for i := range 40 {
		path := filepath.Join(dir, fmt.Sprint(i))
		data = append(data, random(i*1000 + 1)[i:])
		writeFile(t, path, data[i])
		sources = append(sources, pick(t, path))
	}
	blob := js.Global().Get("Blob")
	readings, arrayBuffer := 0, blob.Get("prototype").Get("arrayBuffer")
	counted := js.FuncOf(func(this js.Value, _ []js.Value) any {
		readings++
		return arrayBuffer.Call("call", this)
	})
	defer counted.Release()
	blob.Get("prototype").Set("arrayBuffer", counted)
	defer blob.Get("prototype").Set("arrayBuffer", arrayBuffer)
	read := func(t *testing.T, changed map[int]error) {
		var group sync.WaitGroup
		for i, s := range sources {
			group.Go(func() {
				p := make([]byte, s.Size())
				_, err := s.ReadAt(p, 0)
				switch want, is := changed[i]; {
				case is && !errors.Is(err, want) && !errors.Is(err, transfer.ErrSourceUnreadable):
					t.Errorf("file %d, which has changed: %v", i, err)
				case !is && (err != nil || !bytes.Equal(p, data[i])):
					t.Errorf("file %d: %v, right: %t", i, err, bytes.Equal(p, data[i]))
				}
			})
		}
		group.Wait()
	}
	read(t, nil)
	if readings > 4 {
		t.Errorf("%d readings for %d files", readings, len(sources))
	}
	// Two that are not as long as they say, as a browser might read them that does not look whether a file has changed.
	for i, length := range []int{500, 700} {
		of := blob.New([]any{string(bytes.Repeat([]byte{'a' + byte(i)}, 600))})
		js.Global().Get("Object").Call("defineProperty", of, "size", map[string]any{"value": length})
		sources = append(sources, NewSource(host.Attach(of)))
		data = append(data, bytes.Repeat([]byte{'a' + byte(i)}, length))
	}
	read(t, map[int]error{len(sources) - 1: transfer.ErrSourceChanged})
	for i, change := range map[int]func(path string) error{
		3: os.Remove, 17: func(path string) error { return os.Truncate(path, 100) }, 30: func(path string) error { return os.Chtimes(path, later, later) },
	} {
		if err := change(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	lost := transfer.ErrSourceChanged
	read(t, map[int]error{3: lost, 17: lost, 30: lost, len(sources) - 1: lost})
}

// TestSourceBlob reads a Blob that exists in memory only, and keeps no handle.
func TestSourceBlob(t *testing.T) {
	blob := js.Global().Get("Blob").New([]any{"hello ", "there"})
	s := NewSource(host.Attach(blob))
	got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil || string(got) != "hello there" {
		t.Errorf("%q, %v", got, err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkSource(b *testing.B) {
	const span = 64 << 20
	path := filepath.Join(b.TempDir(), "file")
	writeFile(b, path, random(span))
	s := pick(b, path)
	if _, err := s.ReadAt(make([]byte, 1), span-1); err != nil { // and it is in the cache
		b.Fatal(err)
	}
	for _, size := range []int64{64 << 10, 256 << 10, 1 << 20} {
		for _, flying := range []int{1, 2, 4, 8} {
			b.Run(fmt.Sprintf("%dKiB/%d", size>>10, flying), func(b *testing.B) {
				var next chunks
				b.SetBytes(size)
				inFlight(b, flying, func() func() error {
					p := make([]byte, size)
					return func() error {
						_, err := s.ReadAt(p, next.offset(size, span))
						return err
					}
				})
			})
		}
	}
}
