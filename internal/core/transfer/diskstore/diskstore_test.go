//go:build !js

package diskstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"tallow/internal/core/transfer"
	"tallow/internal/core/transfer/diskstore"
	"tallow/internal/core/transfer/storagetest"
)

func open(t *testing.T, directory string) *diskstore.Storage {
	t.Helper()
	s, err := diskstore.Open(directory)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDurable(t *testing.T) {
	directory := t.TempDir()
	storagetest.TestDurable(t, func(t *testing.T) transfer.Durable { return open(t, directory) })
}

// TestStorage also checks that nothing is made outside the directory, whatever names the suite comes up with.
func TestStorage(t *testing.T) {
	directory := t.TempDir()
	s := open(t, filepath.Join(directory, "inner"))
	storagetest.TestStorage(t, s)
	entries, err := os.ReadDir(directory)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestFullAtCommit: what could not be made durable is not waited for, as the next attempt would succeed, whatever has become of it.
func TestFullAtCommit(t *testing.T) {
	s := open(t, t.TempDir())
	f, err := s.Create(t.Context(), "d", "files", 3)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("abc"), 0); err != nil {
		t.Fatal(err)
	}
	defer diskstore.OnSync(func(string) error { return syscall.ENOSPC })()
	if err := f.Commit(t.Context()); !errors.Is(err, transfer.ErrStorageSpoilt) || errors.Is(err, transfer.ErrStorageFull) {
		t.Error(err)
	}
}

// TestOutlivesPower: Commit makes durable the file, what was put beside it, and that they are there at all. Before a journal is deleted, so is what
// takes its place.
func TestOutlivesPower(t *testing.T) {
	directory := t.TempDir()
	s := open(t, directory)
	in := func(name string) string { return filepath.Join(directory, "d", name) }
	synced := map[string]int{}
	order := 0
	defer diskstore.OnSync(func(path string) error {
		order++
		synced[path] = order
		if _, err := os.Stat(in("journal")); err != nil {
			t.Errorf("%s is made durable when the journal is gone", path)
		}
		return nil
	})()
	expect := func(paths ...string) {
		t.Helper()
		last := 0
		for _, path := range paths {
			if at := synced[path]; at <= last {
				t.Errorf("%s is not made durable, or too early: %v", path, synced)
			} else {
				last = at
			}
		}
		clear(synced)
	}
	f, err := s.Create(t.Context(), "d", "files", 3)
	if err == nil {
		_, err = f.WriteAt([]byte("abc"), 0)
	}
	if err == nil {
		err = s.Put(t.Context(), "d", "journal", []byte("j"), 0)
	}
	if err != nil || len(synced) > 0 {
		t.Fatalf("%v; synchronised before Commit: %v", err, synced)
	}
	if err := f.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(in("files"), in("journal"), in(""), directory)
	if err := s.Put(t.Context(), "d", "receipt", []byte("r"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "d", "journal", nil, 0); err != nil {
		t.Fatal(err)
	}
	expect(in("receipt"), in(""))
	if _, err := os.Stat(in("journal")); !os.IsNotExist(err) {
		t.Error(err)
	}
}
