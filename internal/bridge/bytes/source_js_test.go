package bytes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall/js"
	"testing"
	"time"

	"tallow/internal/core/host"
	"tallow/internal/core/transfer"
)

// pick is a Source of a file on this machine's disk, chosen through a file input.
func pick(t testing.TB, path string) *Source {
	t.Helper()
	chosen := make(chan js.Value)
	then := js.FuncOf(func(_ js.Value, args []js.Value) any {
		go func() { chosen <- args[0] }()
		return nil
	})
	defer then.Release()
	js.Global().Get("tallowTest").Call("pick", path).Call("then", then)
	file := <-chosen
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

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
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

// TestSourceLost changes files on the disk after they have been chosen.
func TestSourceLost(t *testing.T) {
	data := random(200_000)
	for _, c := range []struct {
		name   string
		change func(path string) error
		want   []error
	}{
		{"deleted", os.Remove, []error{transfer.ErrSourceChanged}},
		{"truncated", func(path string) error { return os.Truncate(path, 100) }, []error{transfer.ErrSourceChanged, transfer.ErrSourceUnreadable}},
		{"rewritten", func(path string) error {
			later := time.Now().Add(10 * time.Second)
			return errors.Join(os.WriteFile(path, random(200_000), 0o600), os.Chtimes(path, later, later))
		}, []error{transfer.ErrSourceChanged, transfer.ErrSourceUnreadable}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			writeFile(t, path, data)
			s := pick(t, path)
			p := make([]byte, 1000)
			if _, err := s.ReadAt(p, 5000); err != nil || !bytes.Equal(p, data[5000:6000]) {
				t.Fatal(err)
			}
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			n, err := s.ReadAt(p, 5000)
			t.Logf("%d, %v", n, err)
			for _, want := range c.want {
				if errors.Is(err, want) {
					return
				}
			}
			t.Errorf("ReadAt: %d, %v, want one of %v", n, err, c.want)
		})
	}
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
