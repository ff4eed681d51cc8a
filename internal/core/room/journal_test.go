//go:build !js

package room

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"tallow/internal/core/transfer"
)

// unreadable is a storage whose journal cannot be read, with a file of a byte.
type unreadable struct {
	transfer.Durable
	reading func()
	written int
	created int
}

func (u *unreadable) Open(context.Context, string, string) (transfer.StoredFile, error) {
	u.reading()
	return aByte{}, nil
}

func (u *unreadable) Create(context.Context, string, string, int64) (transfer.StoredFile, error) {
	u.created++
	return nil, errors.New("input/output error")
}

func (u *unreadable) Get(context.Context, string, string) ([]byte, error) {
	u.reading()
	return nil, errors.New("input/output error")
}

func (u *unreadable) Put(_ context.Context, _, _ string, b []byte, at int64) error {
	u.written = int(at) + len(b)
	return nil
}

type aByte struct{ transfer.StoredFile }

func (aByte) ReadAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return 0, io.EOF
	}
	return len(p), nil
}

// TestJournalNotMended: what is noted while a journal is read in vain is written all the same.
func TestJournalNotMended(t *testing.T) {
	u := &unreadable{}
	j := &journal{ctx: t.Context(), storage: u, start: func(f func()) { t.Error("a second writer") }, at: 3, written: 3, mended: true}
	j.turn = sync.NewCond(&j.mu)
	u.reading = func() { j.note([]byte("more")) }
	if err := j.mend(true); err == nil || u.written != 7 || j.written != 7 {
		t.Errorf("%v, %d bytes are written", err, u.written)
	}
}

// TestReopened: nobody makes a file, which deletes what is there, while that is being opened.
func TestReopened(t *testing.T) {
	u := &unreadable{}
	s := &store{ctx: t.Context(), storage: u, size: 1}
	made := make(chan error)
	u.reading = func() {
		go func() {
			_, err := s.file()
			made <- err
		}()
		select {
		case <-made:
			t.Error("the file is said to be there, or not, too early")
		case <-time.After(20 * time.Millisecond):
		}
	}
	if there, err := s.reopen(); !there || err != nil {
		t.Errorf("%v, %v", there, err)
	}
	if err := <-made; err != nil || u.created != 0 {
		t.Errorf("%v, made %d times", err, u.created)
	}
}
