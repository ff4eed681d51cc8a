// Package storagetest is the conformance suite of transfer.Storage.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tallow/internal/core/transfer"
)

// TestStorage holds a storage, empty and with room for 64 MiB, against the contract of transfer.Storage. It leaves it empty.
func TestStorage(t *testing.T, s transfer.Storage) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, transfer.Storage)
	}{
		{"write and read", testWriteRead},
		{"bounds", testBounds},
		{"concurrent", testConcurrent},
		{"many files", testMany},
		{"replace", testReplace},
		{"commit", testCommit},
		{"close", testClose},
		{"remove", testRemove},
		{"full", testFull},
		{"context", testContext},
		{"names", testNames},
		{"isolation", testIsolation},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

// TestDurable checks that files outlive their storage. reopen opens the same storage, empty at first; the one before has been
// closed, if it is an io.Closer.
func TestDurable(t *testing.T, reopen func(*testing.T) transfer.Durable) {
	ctx := t.Context()
	data := pattern(1, 300_000)
	s := reopen(t)
	for _, f := range []struct {
		name     string
		data     []byte
		commit   bool
		reserved int64
	}{{"0", data[:200_000], false, 300_000}, {"1", data, true, 300_000}, {"2", nil, true, 0}} {
		file := create(t, s, "aa", f.name, f.reserved)
		write(t, file, f.data, 0)
		if f.commit {
			if err := file.Commit(ctx); err != nil {
				t.Fatal(err)
			}
		}
		// Left open: the page has died.
	}
	checkList(t, s, "aa/0 300000", "aa/1 300000", "aa/2 0")
	testPut(t, s)
	closeStorage(t, s)

	s = reopen(t)
	defer closeStorage(t, s)
	checkGet(t, s, "bb", "journal", data[:90_000])
	remove(t, s, "bb")
	checkList(t, s, "aa/0 300000", "aa/1 300000", "aa/2 0")
	if _, err := s.Open(ctx, "aa", "3"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of a missing file: %v", err)
	}
	if _, err := s.Open(ctx, "bb", "0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open in a missing delivery: %v", err)
	}
	checkList(t, s, "aa/0 300000", "aa/1 300000", "aa/2 0")
	for _, name := range []string{"0", "1"} {
		file, err := s.Open(ctx, "aa", name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "0" {
			checkRead(t, file, append(bytes.Clone(data[:200_000]), make([]byte, 100_000)...))
			write(t, file, data[200_000:], 200_000)
		}
		checkRead(t, file, data)
		if err := errors.Join(file.Commit(ctx), file.Close()); err != nil {
			t.Error(err)
		}
	}
	remove(t, s, "aa")
	checkList(t, s)
}

// testPut leaves the first 90,000 bytes of pattern 1 in bb/journal.
func testPut(t *testing.T, s transfer.Durable) {
	ctx := t.Context()
	data := pattern(1, 300_000)
	put := func(name string, p []byte, at int) {
		t.Helper()
		if err := s.Put(ctx, "bb", name, p, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"journal", "receipt"} {
		if _, err := s.Get(ctx, "bb", name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Get of what is not there: %v", err)
		}
		put(name, nil, 0) // deleting it
	}
	put("journal", data[:100_000], 0)
	put("journal", data[100_000:100_001], 100_000)
	checkGet(t, s, "bb", "journal", data[:100_001])
	put("receipt", data[:3], 0)
	put("journal", data[50_000:90_000], 50_000) // what follows is cut off
	put("receipt", nil, 0)
	checkGet(t, s, "bb", "journal", data[:90_000])
	if _, err := s.Get(ctx, "bb", "receipt"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of what was deleted: %v", err)
	}
	for _, bad := range []string{"", "..", "A", "a/b"} {
		_, err := s.Get(ctx, "bb", bad)
		if err == nil || s.Put(ctx, "bb", bad, data, 0) == nil || s.Put(ctx, bad, "journal", data, 0) == nil {
			t.Errorf("the name %q was taken", bad)
		}
	}
	put("extra", data[:5], 0)
	put("extra", nil, 0)
	checkList(t, s, "aa/0 300000", "aa/1 300000", "aa/2 0", "bb/journal 90000")
}

func checkGet(t *testing.T, s transfer.Durable, delivery, name string, want []byte) {
	t.Helper()
	if got, err := s.Get(t.Context(), delivery, name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("Get: %d bytes for %d, %v", len(got), len(want), err)
	}
}

func testWriteRead(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "0a")
	for i, size := range []int{0, 1, 65_536, 65_537, 1 << 20, 3<<20 + 5} {
		f := create(t, s, "0a", strconv.Itoa(i), int64(size))
		checkRead(t, f, make([]byte, size))
		data := pattern(uint64(i), size)
		// From the end to the start, in pieces of odd sizes.
		for end := size; end > 0; {
			start := max(0, end-40_009)
			write(t, f, data[start:end], int64(start))
			end = start
		}
		checkRead(t, f, data)
		for _, r := range [][2]int{{0, 1}, {size / 3, size / 2}, {size - 1, size}} {
			if r[0] < 0 || r[1] > size || r[0] > r[1] {
				continue
			}
			got := make([]byte, r[1]-r[0])
			if n, err := f.ReadAt(got, int64(r[0])); n != len(got) || err != nil || !bytes.Equal(got, data[r[0]:r[1]]) {
				t.Errorf("ReadAt %d to %d of %d: %d, %v", r[0], r[1], size, n, err)
			}
		}
		if err := f.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkRead(t, f, data)
		closeFile(t, f)
	}
}

func testBounds(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "0b")
	f := create(t, s, "0b", "0", 1000)
	data := pattern(2, 1000)
	write(t, f, data, 0)
	for _, off := range []int64{-1, 901, 1000, 1001, 1 << 40} {
		if n, err := f.WriteAt(make([]byte, 100), off); err == nil || n != 0 {
			t.Errorf("WriteAt of 100 bytes at %d of 1000: %d, %v", off, n, err)
		}
	}
	for _, committed := range []bool{false, true} {
		if committed {
			if err := f.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.ReadAt(make([]byte, 1), -1); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("ReadAt at -1: %v", err)
		}
		for _, c := range []struct {
			off  int64
			want int
		}{{901, 99}, {1000, 0}, {1001, 0}, {1 << 40, 0}} {
			got := bytes.Repeat([]byte{0xee}, 100)
			n, err := f.ReadAt(got, c.off)
			if n != c.want || err != io.EOF {
				t.Errorf("ReadAt of 100 bytes at %d of 1000: %d, %v", c.off, n, err)
			}
			if n > 0 && !bytes.Equal(got[:n], data[c.off:]) || !bytes.Equal(got[n:], bytes.Repeat([]byte{0xee}, 100-n)) {
				t.Errorf("ReadAt at %d: wrong bytes", c.off)
			}
		}
		checkRead(t, f, data)
	}
	closeFile(t, f)
	if _, err := s.Create(t.Context(), "0b", "1", -1); err == nil {
		t.Error("Create of -1 bytes")
	}
}

func testConcurrent(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "0c")
	const size, piece = 2 << 20, 70_001
	var group sync.WaitGroup
	files := make([]transfer.StoredFile, 3)
	for i := range files {
		files[i] = create(t, s, "0c", strconv.Itoa(i), size)
		data := pattern(uint64(i), size)
		for off := 0; off < size; off += piece {
			group.Go(func() {
				part := data[off:min(off+piece, size)]
				if n, err := files[i].WriteAt(part, int64(off)); n != len(part) || err != nil {
					t.Errorf("WriteAt: %d, %v", n, err)
				}
				got := make([]byte, len(part))
				if n, err := files[i].ReadAt(got, int64(off)); n != len(part) || err != nil || !bytes.Equal(got, part) {
					t.Errorf("ReadAt what was just written: %d, %v", n, err)
				}
			})
		}
	}
	group.Wait()
	for i, f := range files {
		group.Go(func() {
			if err := f.Commit(t.Context()); err != nil {
				t.Error(err)
			}
			checkRead(t, f, pattern(uint64(i), size))
		})
	}
	group.Wait()
	for _, f := range files {
		closeFile(t, f)
	}
}

// testMany has far more files open than a browser opens handles, and uses them in turn.
func testMany(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "0d")
	files := make([]transfer.StoredFile, 150)
	for i := range files {
		files[i] = create(t, s, "0d", strconv.Itoa(i), 2000)
	}
	for round := range 2 {
		for i, f := range files {
			write(t, f, pattern(uint64(i), 2000)[round*1000:][:1000], int64(round)*1000)
		}
	}
	for i, f := range files {
		checkRead(t, f, pattern(uint64(i), 2000))
		if err := f.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range files {
		checkRead(t, f, pattern(uint64(i), 2000))
		closeFile(t, f)
	}
}

func testReplace(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "0e")
	f := create(t, s, "0e", "0", 5000)
	write(t, f, pattern(1, 5000), 0)
	if _, err := s.Create(t.Context(), "0e", "0", 10); err == nil {
		t.Error("Create of a file that is still open")
	}
	checkRead(t, f, pattern(1, 5000))
	if err := f.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	closeFile(t, f)
	for _, size := range []int64{100, 9000} {
		f = create(t, s, "0e", "0", size)
		checkRead(t, f, make([]byte, size))
		write(t, f, pattern(2, int(size)), 0)
		checkRead(t, f, pattern(2, int(size)))
		closeFile(t, f)
	}
}

func testCommit(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "0f")
	f := create(t, s, "0f", "0", 100)
	write(t, f, pattern(1, 100), 0)
	for range 2 {
		if err := f.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := f.WriteAt([]byte{1}, 0); n != 0 || err == nil {
		t.Errorf("WriteAt after Commit: %d, %v", n, err)
	}
	checkRead(t, f, pattern(1, 100))
	closeFile(t, f)
}

func testClose(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "1a")
	f := create(t, s, "1a", "0", 100)
	closeFile(t, f)
	closeFile(t, f)
	checkClosed(t, f)
	// Closing again what has a successor leaves that alone.
	successor := create(t, s, "1a", "0", 100)
	closeFile(t, f)
	write(t, successor, pattern(1, 100), 0)
	checkRead(t, successor, pattern(1, 100))
	closeFile(t, successor)
}

func testRemove(t *testing.T, s transfer.Storage) {
	ctx := t.Context()
	remove(t, s, "1b")
	open, committed, other := create(t, s, "1b", "0", 100), create(t, s, "1b", "1", 100), create(t, s, "1b0", "0", 100)
	write(t, open, pattern(1, 100), 0)
	write(t, other, pattern(2, 100), 0)
	if err := committed.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	remove(t, s, "1b")
	checkClosed(t, open)
	checkClosed(t, committed)
	closeFile(t, open)
	closeFile(t, committed)
	checkRead(t, other, pattern(2, 100))
	closeFile(t, other)
	remove(t, s, "1b0")
	remove(t, s, "1b0")
	f := create(t, s, "1b", "0", 100)
	checkRead(t, f, make([]byte, 100))
	closeFile(t, f)
	remove(t, s, "1b")
}

func testFull(t *testing.T, s transfer.Storage) {
	free, err := s.Free(t.Context())
	if err != nil || free < -1 {
		t.Fatalf("Free: %d, %v", free, err)
	}
	if free < 0 {
		return // unknown: then Create cannot know either
	}
	if free < 64<<20 {
		t.Fatalf("only %d bytes are free", free)
	}
	defer remove(t, s, "1c")
	if _, err := s.Create(t.Context(), "1c", "0", free+1<<40); !errors.Is(err, transfer.ErrStorageFull) {
		t.Errorf("Create of more than is free: %v, want ErrStorageFull", err)
	}
	// The refusal leaves the storage, and the name, usable.
	f := create(t, s, "1c", "0", 1000)
	write(t, f, pattern(1, 1000), 0)
	checkRead(t, f, pattern(1, 1000))
	closeFile(t, f)
}

func testContext(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "1d")
	f := create(t, s, "1d", "0", 10)
	defer closeFile(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, free := s.Free(ctx)
	_, created := s.Create(ctx, "1d", "1", 10)
	for i, err := range []error{free, created, s.Remove(ctx, "1d"), f.Commit(ctx)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v, want context.Canceled", i, err)
		}
	}
	write(t, f, pattern(1, 10), 0)
}

// hostileNames are none that a storage takes: they leave their directory, or mean something to some file system.
var hostileNames = []string{"", ".", "..", "../1e", "..\\1e", "/1e", "a/b", "a\\b", "1e/0", "A", "ä", "a b", "a.", "a:b", "~", "-", "%2e%2e", "a\x00", "0\n",
	strings.Repeat("a", 201)}

// testNames: nothing but a plain name is ever looked at.
func testNames(t *testing.T, s transfer.Storage) {
	defer remove(t, s, "1e")
	f := create(t, s, "1e", "0", 100)
	defer closeFile(t, f)
	write(t, f, pattern(1, 100), 0)
	for _, name := range hostileNames {
		if _, err := s.Create(t.Context(), "1e", name, 1); err == nil {
			t.Errorf("a file named %q is created", name)
		}
		if _, err := s.Create(t.Context(), name, "0", 1); err == nil {
			t.Errorf("a delivery named %q is created", name)
		}
		if err := s.Remove(t.Context(), name); err == nil {
			t.Errorf("a delivery named %q is removed", name)
		}
		if d, ok := s.(transfer.Durable); ok {
			if _, err := d.Open(t.Context(), "1e", name); err == nil {
				t.Errorf("a file named %q is opened", name)
			}
			if _, err := d.Open(t.Context(), name, "0"); err == nil {
				t.Errorf("a delivery named %q is opened", name)
			}
		}
	}
	checkRead(t, f, pattern(1, 100))
}

// testIsolation: no two pairs of names are the same file, however much they resemble each other, and a delivery is removed alone.
func testIsolation(t *testing.T, s transfer.Storage) {
	names := [][2]string{{"1f", "0"}, {"1", "f0"}, {"1f0", "0"}, {"1f", "00"}, {"1f00", "0"}, {"01f", "0"}}
	var files []transfer.StoredFile
	for i, n := range names {
		f := create(t, s, n[0], n[1], 1000)
		write(t, f, pattern(uint64(i), 1000), 0)
		files = append(files, f)
	}
	for i, f := range files {
		checkRead(t, f, pattern(uint64(i), 1000))
	}
	remove(t, s, "1f")
	for i, f := range files {
		if names[i][0] == "1f" {
			checkClosed(t, f)
		} else {
			checkRead(t, f, pattern(uint64(i), 1000))
		}
		closeFile(t, f)
	}
	for _, n := range names {
		remove(t, s, n[0])
	}
}

func create(t *testing.T, s transfer.Storage, delivery, name string, size int64) transfer.StoredFile {
	t.Helper()
	f, err := s.Create(t.Context(), delivery, name, size)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return f
}

func write(t *testing.T, f transfer.StoredFile, data []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(data, off); n != len(data) || err != nil {
		t.Fatalf("WriteAt of %d bytes at %d: %d, %v", len(data), off, n, err)
	}
}

// checkRead reads one byte more than there should be.
func checkRead(t *testing.T, f transfer.StoredFile, want []byte) {
	t.Helper()
	got := make([]byte, len(want)+1)
	n, err := f.ReadAt(got, 0)
	if n != len(want) || err != io.EOF {
		t.Errorf("ReadAt of %d bytes: %d, %v, want %d, EOF", len(got), n, err, len(want))
	} else if !bytes.Equal(got[:n], want) {
		t.Error("ReadAt: wrong bytes")
	}
}

func closeFile(t *testing.T, f transfer.StoredFile) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func checkClosed(t *testing.T, f transfer.StoredFile) {
	t.Helper()
	_, written := f.WriteAt([]byte{1}, 0)
	_, read := f.ReadAt(make([]byte, 1), 0)
	for i, err := range []error{written, read, f.Commit(t.Context())} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%d: %v, want fs.ErrClosed", i, err)
		}
	}
}

func remove(t *testing.T, s transfer.Storage, delivery string) {
	t.Helper()
	if err := s.Remove(t.Context(), delivery); err != nil {
		t.Errorf("Remove: %v", err)
	}
}

func checkList(t *testing.T, s transfer.Durable, want ...string) {
	t.Helper()
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range list {
		got = append(got, fmt.Sprintf("%s/%s %d", f.Delivery, f.Name, f.Size))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("List: %s, want %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

func closeStorage(t *testing.T, s transfer.Storage) {
	t.Helper()
	if c, ok := s.(io.Closer); ok {
		if err := c.Close(); err != nil {
			t.Errorf("Close of the storage: %v", err)
		}
	}
}

// pattern is n bytes that depend on the seed.
func pattern(seed uint64, n int) []byte {
	var key [32]byte
	key[0] = byte(seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}
