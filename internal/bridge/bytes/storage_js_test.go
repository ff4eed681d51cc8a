package bytes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall/js"
	"testing"
	"time"

	"tallow/internal/core/transfer"
	"tallow/internal/core/transfer/storagetest"
)

func openStorage(t testing.TB, name string) *Storage {
	t.Helper()
	s, err := OpenStorage(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openDisk opens a storage that must be on disk, and closes it at the end of the test.
func openDisk(t testing.TB, name string) *Storage {
	t.Helper()
	s := openStorage(t, name)
	t.Cleanup(func() { s.Close() })
	if s.InMemory() {
		t.Fatalf("the storage is in memory: %s", s.Refusal())
	}
	return s
}

// openMemory opens a storage while a feature is missing.
func openMemory(t testing.TB, name string, object js.Value, property string) *Storage {
	t.Helper()
	defer without(object, property)()
	s := openStorage(t, name)
	t.Cleanup(func() { s.Close() })
	if !s.InMemory() {
		t.Fatalf("the storage is not in memory without %s", property)
	}
	return s
}

// without hides a property of an object until it is called again.
func without(object js.Value, property string) (restore func()) {
	reflect := js.Global().Get("Reflect")
	define := func(value js.Value) {
		reflect.Call("defineProperty", object, property, map[string]any{"value": value, "configurable": true})
	}
	define(js.Undefined())
	return func() { reflect.Call("deleteProperty", object, property) }
}

func TestDisk(t *testing.T) { storagetest.TestStorage(t, openDisk(t, "disk")) }

func TestDiskDurable(t *testing.T) {
	storagetest.TestDurable(t, func(t *testing.T) transfer.Durable { return openDisk(t, "durable") })
}

func TestMemory(t *testing.T) {
	storagetest.TestStorage(t, openMemory(t, "memory", js.Global().Get("navigator"), "storage"))
}

func TestMemoryLimit(t *testing.T) {
	s := openMemory(t, "limit", js.Global().Get("navigator"), "storage")
	ctx := t.Context()
	if free, err := s.Free(ctx); err != nil || free != MemoryLimit {
		t.Errorf("Free: %d, %v", free, err)
	}
	if _, err := s.Create(ctx, "a", "0", MemoryLimit); err != nil {
		t.Fatal(err)
	}
	_, err := s.Create(ctx, "a", "1", 1)
	if !errors.Is(err, transfer.ErrStorageFull) || !strings.Contains(err.Error(), "512 MiB") {
		t.Errorf("one byte above the limit: %v", err)
	}
	if err := s.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, "a", "1", 1); err != nil {
		t.Errorf("after Remove: %v", err)
	}
}

// TestFallback simulates what older browsers, private windows and embedders lack.
func TestFallback(t *testing.T) {
	global := js.Global()
	for _, c := range []struct {
		name     string
		object   js.Value
		property string
	}{
		{"no storage manager", global.Get("navigator"), "storage"},
		{"no private file system", global.Get("navigator").Get("storage"), "getDirectory"},
		{"no workers", global, "Worker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			descriptor := global.Get("Object").Call("getOwnPropertyDescriptor", c.object, c.property)
			s := openMemory(t, "fallback", c.object, c.property)
			if !descriptor.IsUndefined() {
				global.Get("Object").Call("defineProperty", c.object, c.property, descriptor)
			}
			roundTrip(t, s)
		})
	}
	// And with everything there: the disk again.
	roundTrip(t, openDisk(t, "fallback"))
}

func roundTrip(t *testing.T, s *Storage) {
	t.Helper()
	f, err := s.Create(t.Context(), "ab", "0", 5)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	if err := errors.Join(f.Close(), s.Remove(t.Context(), "ab")); err != nil {
		t.Error(err)
	}
}

// TestObject checks the File that a person saves: it has the contents, and outlives the StoredFile and the storage.
func TestObject(t *testing.T) {
	ctx := t.Context()
	memory := openMemory(t, "object", js.Global().Get("navigator"), "storage")
	for _, s := range []*Storage{openDisk(t, "object"), memory} {
		data := bytes.Repeat([]byte("0123456789"), 300_000)
		stored, err := s.Create(ctx, "ab", "0", int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		f := stored.(*File)
		if _, err := f.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Object(ctx); err == nil {
			t.Error("Object before Commit")
		}
		if err := f.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		handle, err := f.Object(ctx)
		if err != nil {
			t.Fatal(err)
		}
		source := NewSource(handle)
		defer source.Close()
		if err := errors.Join(f.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Object(ctx); err == nil {
			t.Error("Object after Close")
		}
		got, err := io.ReadAll(io.NewSectionReader(source, 0, source.Size()))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	s := openDisk(t, "object")
	if err := s.Remove(ctx, "ab"); err != nil {
		t.Error(err)
	}
}

func TestInUse(t *testing.T) {
	s := openDisk(t, "inuse")
	if _, err := OpenStorage(t.Context(), "inuse"); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one of the same name: %v, want ErrInUse", err)
	}
	roundTrip(t, s)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Free(t.Context()); err == nil {
		t.Error("Free after Close")
	}
	roundTrip(t, openDisk(t, "inuse"))
}

// TestCloseWaits closes a storage while writes are in flight: each ends, well or with fs.ErrClosed, and Close comes after them.
func TestCloseWaits(t *testing.T) {
	s := openDisk(t, "closing")
	f, err := s.Create(t.Context(), "ab", "0", 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	var mu sync.Mutex
	var closed, late int
	for i := range 16 {
		writers.Go(func() {
			_, err := f.WriteAt(make([]byte, 1<<20), int64(i)<<20)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && closed > 0 {
				late++
			}
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	closed++
	mu.Unlock()
	writers.Wait()
	if late > 0 {
		t.Errorf("%d writes succeeded after Close", late)
	}
	if err := f.Close(); err != nil {
		t.Errorf("Close of a file after its storage: %v", err)
	}
	s = openDisk(t, "closing")
	if err := s.Remove(t.Context(), "ab"); err != nil {
		t.Error(err)
	}
}

func TestSweep(t *testing.T) {
	ctx := t.Context()
	leftover, live := openDisk(t, "leftover"), openDisk(t, "live")
	for _, s := range []*Storage{leftover, live} {
		if f, err := s.Create(ctx, "ab", "0", 1000); err != nil {
			t.Fatal(err)
		} else if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := leftover.Close(); err != nil {
		t.Fatal(err)
	}
	s := openDisk(t, "sweeper")
	if n, err := s.Sweep(ctx, time.Hour, time.Hour); n != 0 || err != nil {
		t.Errorf("Sweep of what is an hour old: %d, %v", n, err)
	}
	if n, err := s.Sweep(ctx, 0, 0); n < 1 || err != nil {
		t.Errorf("Sweep of everything: %d, %v", n, err)
	}
	for _, c := range []struct {
		storage *Storage
		want    int
	}{{live, 1}, {openDisk(t, "leftover"), 0}} {
		list, err := c.storage.List(ctx)
		if len(list) != c.want || err != nil {
			t.Errorf("after Sweep: %v, %v, want %d files", list, err, c.want)
		}
	}
	if n, err := s.Sweep(ctx, 0, 0); n != 0 || err != nil {
		t.Errorf("Sweep while all are held: %d, %v", n, err)
	}
	if err := live.Remove(ctx, "ab"); err != nil {
		t.Error(err)
	}
}

// TestSweepUnfinished: deliveries with a journal stay longer, and those beside them do not; also where there was no room for the note of the time.
func TestSweepUnfinished(t *testing.T) {
	ctx := t.Context()
	unfinished, noteless, settled := openDisk(t, "unfinished"), openDisk(t, "noteless"), openDisk(t, "settled")
	for _, s := range []*Storage{unfinished, noteless, settled} {
		if err := s.Put(ctx, "ab", transfer.JournalName, []byte("something"), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*Storage{unfinished, noteless} {
		f, err := s.Create(ctx, "cd", "files", 1000)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Close(), s.Put(ctx, "cd", transfer.ReceiptName, []byte("all"), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(settled.Put(ctx, "ab", transfer.ReceiptName, []byte("all"), 0), settled.Put(ctx, "ab", transfer.JournalName, nil, 0)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unfinished.Close(), noteless.Close(), settled.Close()); err != nil {
		t.Fatal(err)
	}
	directory := await(js.Global().Get("navigator").Get("storage").Call("getDirectory"))
	for _, name := range []string{"tallow", "noteless"} {
		directory = await(directory.Call("getDirectoryHandle", name))
	}
	await(directory.Call("removeEntry", "used"))
	s := openDisk(t, "sweeper2")
	if _, err := s.Sweep(ctx, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"unfinished": 1, "noteless": 1, "settled": 0} {
		again, err := ReopenStorage(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := again.List(ctx); len(list) != want || err != nil {
			t.Errorf("%s: %v, %v, want %d files", name, list, err, want)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if n, err := s.Sweep(ctx, 0, 0); n < 1 || err != nil {
		t.Errorf("Sweep of everything: %d, %v", n, err)
	}
}

// TestWorkerLost checks that nothing hangs when the worker dies or never comes.
func TestWorkerLost(t *testing.T) {
	global := js.Global()
	genuine := global.Get("Worker")
	var worker js.Value
	constructor := js.FuncOf(func(_ js.Value, args []js.Value) any {
		worker = genuine.New(args[0])
		return worker
	})
	defer constructor.Release()
	global.Set("Worker", constructor)
	defer global.Set("Worker", genuine)
	s := openDisk(t, "lost")
	f, err := s.Create(t.Context(), "ab", "0", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	worker.Call("terminate")
	done := make(chan error)
	go func() {
		_, err := f.WriteAt(make([]byte, 1000), 0)
		done <- err
	}()
	// The browser says nothing of a worker that is gone; an error event is what there is.
	worker.Call("dispatchEvent", global.Get("ErrorEvent").New("error", map[string]any{"message": "lost"}))
	if err := <-done; err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("WriteAt: %v", err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 0); err == nil {
		t.Error("ReadAt without a worker")
	}
	if err := s.Close(); err == nil {
		t.Error("Close says nothing of the lost worker")
	}

	// A script that cannot be loaded shows in the same way, with a plain event.
	missing := js.FuncOf(func(_ js.Value, args []js.Value) any {
		worker := genuine.New(args[0])
		worker.Call("terminate")
		global.Call("setTimeout", worker.Get("dispatchEvent").Call("bind", worker, global.Get("Event").New("error")), 0)
		return worker
	})
	defer missing.Release()
	global.Set("Worker", missing)
	s = openStorage(t, "lost")
	defer s.Close()
	if s.Refusal() == "" {
		t.Error("a missing worker script goes unnoticed")
	}
	roundTrip(t, s)
}

func BenchmarkStorageWrite(b *testing.B) {
	for _, name := range []string{"disk", "memory"} {
		for _, flying := range []int{1, 2, 4} {
			b.Run(fmt.Sprintf("%s/256KiB/%d", name, flying), func(b *testing.B) {
				s := benchmarkStorage(b, name)
				const size, span = 256 << 10, 400 << 20
				f := benchmarkFile(b, s, span)
				var next chunks
				b.SetBytes(size)
				inFlight(b, flying, func() func() error {
					p := make([]byte, size)
					return func() error {
						_, err := f.WriteAt(p, next.offset(size, span))
						return err
					}
				})
			})
		}
	}
}

func BenchmarkStorageRead(b *testing.B) {
	for _, flying := range []int{1, 4} {
		for _, committed := range []bool{false, true} {
			b.Run(fmt.Sprintf("256KiB/%d/committed=%t", flying, committed), func(b *testing.B) {
				s := benchmarkStorage(b, "disk")
				const size, span = 256 << 10, 64 << 20
				f := benchmarkFile(b, s, span)
				for off := int64(0); off < span; off += size {
					if _, err := f.WriteAt(make([]byte, size), off); err != nil {
						b.Fatal(err)
					}
				}
				if committed {
					if err := f.Commit(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
				var next chunks
				b.SetBytes(size)
				inFlight(b, flying, func() func() error {
					p := make([]byte, size)
					return func() error {
						_, err := f.ReadAt(p, next.offset(size, span))
						return err
					}
				})
			})
		}
	}
}

// BenchmarkSmallFiles is the way of a small file: create, write, commit, close.
func BenchmarkSmallFiles(b *testing.B) {
	s := benchmarkStorage(b, "disk")
	var next chunks
	inFlight(b, 4, func() func() error {
		p := make([]byte, 4096)
		return func() error {
			f, err := s.Create(b.Context(), "ab", fmt.Sprint(next.offset(1, 1<<30)), 4096)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(p, 0)
			return errors.Join(err, f.Commit(b.Context()), f.Close())
		}
	})
}

func benchmarkStorage(b *testing.B, name string) *Storage {
	var s *Storage
	if name == "memory" {
		s = openMemory(b, "bench", js.Global().Get("navigator"), "storage")
	} else {
		s = openDisk(b, "bench")
	}
	b.Cleanup(func() {
		if err := errors.Join(s.Remove(context.Background(), "ab"), s.Close()); err != nil {
			b.Error(err)
		}
	})
	return s
}

func benchmarkFile(b *testing.B, s *Storage, size int64) transfer.StoredFile {
	f, err := s.Create(b.Context(), "ab", "0", size)
	if err != nil {
		b.Fatal(err)
	}
	return f
}

// chunks hands out offsets, round and round.
type chunks struct {
	mu   sync.Mutex
	next int64
}

func (c *chunks) offset(size, span int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.next % span
	c.next += size
	return at
}
