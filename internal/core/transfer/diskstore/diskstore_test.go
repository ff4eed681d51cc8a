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
