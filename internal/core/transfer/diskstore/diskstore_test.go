//go:build !js

package diskstore_test

import (
	"os"
	"path/filepath"
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

func TestStorage(t *testing.T) { storagetest.TestStorage(t, open(t, t.TempDir())) }

func TestDurable(t *testing.T) {
	directory := t.TempDir()
	storagetest.TestDurable(t, func(t *testing.T) transfer.Durable { return open(t, directory) })
}

func TestNames(t *testing.T) {
	directory := t.TempDir()
	s := open(t, filepath.Join(directory, "inner"))
	for _, name := range []string{"", ".", "..", "../x", "a/b", "A", "ä", "a b", "a\x00"} {
		if _, err := s.Create(t.Context(), "1", name, 0); err == nil {
			t.Errorf("a file named %q is created", name)
		}
		if _, err := s.Create(t.Context(), name, "1", 0); err == nil {
			t.Errorf("a delivery named %q is created", name)
		}
		if err := s.Remove(t.Context(), name); err == nil {
			t.Errorf("a delivery named %q is removed", name)
		}
	}
	entries, err := os.ReadDir(directory)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}
