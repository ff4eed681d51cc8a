// Package diskstore is transfer.Storage in a directory of the operating system, for native peers.
package diskstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"tallow/internal/core/transfer"
)

// Storage keeps files under directory/delivery/name. It holds no descriptor between two calls, so that ten thousand small
// files cost none.
type Storage struct {
	directory string

	mu   sync.Mutex
	open map[string]*File // by path, until Close or Remove
}

var _ transfer.Durable = (*Storage)(nil)

// Open opens a directory, and makes it if need be. One Storage at a time may use it.
func Open(directory string) (*Storage, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	return &Storage{directory: directory, open: map[string]*File{}}, nil
}

// Free implements transfer.Storage.
func (s *Storage) Free(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return free(s.directory)
}

// InMemory implements transfer.Storage.
func (s *Storage) InMemory() bool { return false }

// Create implements transfer.Storage. The space is checked, not reserved.
func (s *Storage) Create(ctx context.Context, delivery, name string, size int64) (transfer.StoredFile, error) {
	if size < 0 {
		return nil, fmt.Errorf("diskstore: create: size %d", size)
	}
	if room, err := s.Free(ctx); err != nil {
		return nil, err
	} else if room >= 0 && size > room {
		return nil, fmt.Errorf("diskstore: create: %w: %d bytes are free", transfer.ErrStorageFull, room)
	}
	f, err := s.claim(delivery, name)
	if err != nil {
		return nil, err
	}
	f.size = size
	if err := f.create(); err != nil {
		return nil, errors.Join(wrap("create", err), f.Close())
	}
	return f, nil
}

// Open implements transfer.Durable.
func (s *Storage) Open(ctx context.Context, delivery, name string) (transfer.StoredFile, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := s.claim(delivery, name)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, errors.Join(wrap("open", err), f.Close())
	}
	f.size = info.Size()
	return f, nil
}

// Put implements transfer.Durable.
func (s *Storage) Put(ctx context.Context, delivery, name string, p []byte, at int64) error {
	path, err := s.beside(ctx, delivery, name)
	if err != nil {
		return err
	}
	if len(p) == 0 && at == 0 {
		if err := s.sync(delivery); err != nil { // what takes its place must not be lost with it
			return wrap("put", err)
		}
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return wrap("put", err)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return wrap("put", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return wrap("put", err)
	}
	_, err = file.WriteAt(p, at)
	if err == nil {
		err = file.Truncate(at + int64(len(p)))
	}
	return wrap("put", errors.Join(err, file.Close()))
}

// Get implements transfer.Durable.
func (s *Storage) Get(ctx context.Context, delivery, name string) ([]byte, error) {
	path, err := s.beside(ctx, delivery, name)
	if err != nil {
		return nil, err
	}
	p, err := os.ReadFile(path)
	return p, wrap("get", err)
}

func (s *Storage) beside(ctx context.Context, delivery, name string) (string, error) {
	if !transfer.PlainName(delivery) || !transfer.PlainName(name) {
		return "", fmt.Errorf("diskstore: names %q, %q", delivery, name)
	}
	return filepath.Join(s.directory, delivery, name), ctx.Err()
}

// claim registers the one File that a path may have.
func (s *Storage) claim(delivery, name string) (*File, error) {
	if !transfer.PlainName(delivery) || !transfer.PlainName(name) {
		return nil, fmt.Errorf("diskstore: names %q, %q", delivery, name)
	}
	f := &File{storage: s, delivery: delivery, path: filepath.Join(s.directory, delivery, name)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[f.path] != nil {
		return nil, errors.New("diskstore: the file is in use")
	}
	s.open[f.path] = f
	return f, nil
}

// Remove implements transfer.Storage.
func (s *Storage) Remove(ctx context.Context, delivery string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !transfer.PlainName(delivery) {
		return fmt.Errorf("diskstore: delivery name %q", delivery)
	}
	s.mu.Lock()
	for path, f := range s.open {
		if f.delivery == delivery {
			delete(s.open, path)
		}
	}
	s.mu.Unlock()
	return wrap("remove", os.RemoveAll(filepath.Join(s.directory, delivery)))
}

// List implements transfer.Durable.
func (s *Storage) List(ctx context.Context) ([]transfer.StoredName, error) {
	var list []transfer.StoredName
	deliveries, err := os.ReadDir(s.directory)
	if err != nil {
		return nil, wrap("list", err)
	}
	for _, delivery := range deliveries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !delivery.IsDir() || !transfer.PlainName(delivery.Name()) {
			continue
		}
		files, err := os.ReadDir(filepath.Join(s.directory, delivery.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, wrap("list", err)
		}
		for _, file := range files {
			info, err := file.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, wrap("list", err)
			}
			list = append(list, transfer.StoredName{Delivery: delivery.Name(), Name: file.Name(), Size: info.Size()})
		}
	}
	return list, nil
}

// File is a file in a Storage.
type File struct {
	storage        *Storage
	delivery, path string
	size           int64
	committed      bool // guarded by storage.mu
}

var _ transfer.StoredFile = (*File)(nil)

// Path is where the file lies.
func (f *File) Path() string { return f.path }

func (f *File) create() error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(f.size), file.Close())
}

// state is whether the file is committed, or fs.ErrClosed.
func (f *File) state() (committed bool, err error) {
	f.storage.mu.Lock()
	defer f.storage.mu.Unlock()
	if f.storage.open[f.path] != f {
		return false, fs.ErrClosed
	}
	return f.committed, nil
}

// WriteAt implements io.WriterAt.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	committed, err := f.state()
	switch {
	case err != nil:
		return 0, wrap("write", err)
	case committed:
		return 0, errors.New("diskstore: write: the file is committed")
	case off < 0 || off > f.size-int64(len(p)):
		return 0, fmt.Errorf("diskstore: write of %d bytes at %d to a file of %d", len(p), off, f.size)
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY, 0)
	if err != nil {
		return 0, wrap("write", err)
	}
	n, err := file.WriteAt(p, off)
	return n, wrap("write", errors.Join(err, file.Close()))
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if _, err := f.state(); err != nil {
		return 0, wrap("read", err)
	}
	file, err := os.Open(f.path)
	if err != nil {
		return 0, wrap("read", err)
	}
	defer file.Close()
	n, err := file.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return n, io.EOF
	}
	return n, wrap("read", err)
}

// Commit implements transfer.StoredFile.
func (f *File) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	committed, err := f.state()
	if err != nil || committed {
		return wrap("commit", err)
	}
	if _, err := os.Stat(f.path); err != nil {
		return wrap("commit", err)
	}
	switch err := f.storage.sync(f.delivery); {
	case isFull(err): // what could not be written may have been dropped, and another sync would say that all is well
		return fmt.Errorf("diskstore: commit: %w: %w", transfer.ErrStorageSpoilt, err)
	case err != nil:
		return wrap("commit", err)
	}
	f.storage.mu.Lock()
	defer f.storage.mu.Unlock()
	if f.storage.open[f.path] != f { // removed meanwhile
		return wrap("commit", fs.ErrClosed)
	}
	f.committed = true
	return nil
}

// Close implements transfer.StoredFile.
func (f *File) Close() error {
	f.storage.mu.Lock()
	defer f.storage.mu.Unlock()
	if f.storage.open[f.path] == f {
		delete(f.storage.open, f.path)
	}
	return nil
}

// sync makes what a delivery has, and that it is there, outlive a loss of power.
func (s *Storage) sync(delivery string) error {
	at := filepath.Join(s.directory, delivery)
	files, err := os.ReadDir(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, file := range files {
		if gone := syncPath(filepath.Join(at, file.Name())); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return errors.Join(err, syncPath(at), syncPath(s.directory))
}

// syncPath makes what lies at a path, a file or a directory, outlive a loss of power. Tests look on.
var syncPath = func(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	flag := os.O_RDWR
	if info.IsDir() {
		if runtime.GOOS == "windows" {
			return nil // which has no such call
		}
		flag = os.O_RDONLY
	}
	file, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// wrap names the operation, and a full disk.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func wrap(operation string, err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("diskstore: %s: %w: %w", operation, transfer.ErrStorageFull, err)
	default:
		return fmt.Errorf("diskstore: %s: %w", operation, err)
	}
}
