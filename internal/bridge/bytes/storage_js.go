package bytes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"tallow/internal/core/host"
	"tallow/internal/core/transfer"
)

// MemoryLimit is how many bytes a Storage holds where the browser offers no private file system.
const MemoryLimit = 512 << 20

// maxInFlight is how many reads and writes of file contents may be pending in one Storage. Each holds a buffer as large as it is; more
// are no faster (BenchmarkStorageWrite).
const maxInFlight = 4

//go:wasmimport tallow storage_open
func storageOpen(op uint32, name unsafe.Pointer, length uint32, memoryLimit float64, wait uint32)

//go:wasmimport tallow storage_refusal
func storageRefusal(storage uint32) (text uint32)

//go:wasmimport tallow storage_create
func storageCreate(op, storage, id uint32, path unsafe.Pointer, length uint32, size float64)

//go:wasmimport tallow storage_reopen
func storageReopen(op, storage, id uint32, path unsafe.Pointer, length uint32)

//go:wasmimport tallow storage_write
func storageWrite(op, storage, id uint32, at float64, p unsafe.Pointer, length uint32)

//go:wasmimport tallow storage_read
func storageRead(op, storage, id uint32, at float64, p unsafe.Pointer, length uint32)

//go:wasmimport tallow storage_commit
func storageCommit(op, storage, id uint32)

//go:wasmimport tallow storage_close
func storageClose(op, storage, id uint32)

//go:wasmimport tallow storage_file
func storageFile(op, storage, id uint32)

//go:wasmimport tallow storage_remove
func storageRemove(op, storage uint32, delivery unsafe.Pointer, length uint32)

//go:wasmimport tallow storage_list
func storageList(op, storage uint32)

//go:wasmimport tallow storage_free
func storageFree(op, storage uint32)

//go:wasmimport tallow storage_sweep
func storageSweep(op, storage uint32, ms, unfinished float64)

//go:wasmimport tallow storage_put
func storagePut(op, storage uint32, path unsafe.Pointer, pathLength uint32, at float64, p unsafe.Pointer, length uint32)

//go:wasmimport tallow storage_get
func storageGet(op, storage uint32, path unsafe.Pointer, length uint32)

//go:wasmimport tallow storage_end
func storageEnd(op, storage uint32)

// Storage is a directory of the origin private file system, or memory of the page where the browser offers none.
type Storage struct {
	handle  host.Handle
	refusal string
	slots   chan struct{} // one per read or write in flight

	mu     sync.Mutex // guards the rest
	closed bool
	lastID uint32
	using  sync.WaitGroup // operations in flight; Add only under mu while not closed
}

var _ transfer.Durable = (*Storage)(nil)

// OpenStorage opens the directory of a name (lower-case letters and digits), and makes it if need be. It belongs to this Storage until
// Close, or until the page goes away: meanwhile another one, in this tab or another, gets ErrInUse.
func OpenStorage(ctx context.Context, name string) (*Storage, error) {
	return openDirectory(ctx, name, 0)
}

// ReopenStorage is OpenStorage for one that the page before this one may be about to let go of: it waits some seconds.
func ReopenStorage(ctx context.Context, name string) (*Storage, error) {
	return openDirectory(ctx, name, 1)
}

func openDirectory(ctx context.Context, name string, wait uint32) (*Storage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !transfer.PlainName(name) {
		return nil, fmt.Errorf("bytes: storage name %q", name)
	}
	text := []byte(name)
	status, value := host.Call(func(op uint32) { storageOpen(op, pointer(text), uint32(len(text)), MemoryLimit, wait) })
	runtime.KeepAlive(text)
	if status != statusOK {
		return nil, storageFailure("open storage", status, value)
	}
	s := &Storage{handle: host.Handle(value), slots: make(chan struct{}, maxInFlight)}
	if text := storageRefusal(uint32(s.handle)); text != 0 {
		s.refusal = takeText(host.Handle(text))
	}
	return s, nil
}

// Refusal is why the browser keeps the files in memory, up to MemoryLimit and only while the page lives. It is empty when they are on
// disk. The text is for logs.
func (s *Storage) Refusal() string { return s.refusal }

// InMemory implements transfer.Storage.
func (s *Storage) InMemory() bool { return s.refusal != "" }

// Limit implements room.Bounded: what is kept in memory.
func (s *Storage) Limit() int64 {
	if s.InMemory() {
		return MemoryLimit
	}
	return -1
}

// Free implements transfer.Storage.
func (s *Storage) Free(ctx context.Context) (int64, error) {
	value, err := s.call(ctx, "free", func(op uint32) { storageFree(op, uint32(s.handle)) })
	return int64(value), err
}

// Create implements transfer.Storage.
func (s *Storage) Create(ctx context.Context, delivery, name string, size int64) (transfer.StoredFile, error) {
	if size < 0 {
		return nil, fmt.Errorf("bytes: create: size %d", size)
	}
	f, path, err := s.newFile(delivery, name)
	if err != nil {
		return nil, err
	}
	f.size = size
	_, err = s.call(ctx, "create", func(op uint32) {
		storageCreate(op, uint32(s.handle), f.id, pointer(path), uint32(len(path)), float64(size))
	})
	runtime.KeepAlive(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Open implements transfer.Durable.
func (s *Storage) Open(ctx context.Context, delivery, name string) (transfer.StoredFile, error) {
	f, path, err := s.newFile(delivery, name)
	if err != nil {
		return nil, err
	}
	size, err := s.call(ctx, "open", func(op uint32) {
		storageReopen(op, uint32(s.handle), f.id, pointer(path), uint32(len(path)))
	})
	runtime.KeepAlive(path)
	if err != nil {
		return nil, err
	}
	f.size = int64(size)
	return f, nil
}

func (s *Storage) newFile(delivery, name string) (*File, []byte, error) {
	if !transfer.PlainName(delivery) || !transfer.PlainName(name) {
		return nil, nil, fmt.Errorf("bytes: names %q, %q", delivery, name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	return &File{storage: s, id: s.lastID}, []byte(delivery + "/" + name), nil
}

// Remove implements transfer.Storage.
func (s *Storage) Remove(ctx context.Context, delivery string) error {
	if !transfer.PlainName(delivery) {
		return fmt.Errorf("bytes: delivery name %q", delivery)
	}
	text := []byte(delivery)
	_, err := s.call(ctx, "remove", func(op uint32) { storageRemove(op, uint32(s.handle), pointer(text), uint32(len(text))) })
	runtime.KeepAlive(text)
	return err
}

// List implements transfer.Durable.
func (s *Storage) List(ctx context.Context) ([]transfer.StoredName, error) {
	value, err := s.call(ctx, "list", func(op uint32) { storageList(op, uint32(s.handle)) })
	if err != nil {
		return nil, err
	}
	var list []transfer.StoredName
	for line := range strings.Lines(takeText(host.Handle(value))) {
		path, size, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		delivery, name, _ := strings.Cut(path, "/")
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("bytes: list: %w", err)
		}
		list = append(list, transfer.StoredName{Delivery: delivery, Name: name, Size: n})
	}
	return list, nil
}

// Put implements transfer.Durable.
func (s *Storage) Put(ctx context.Context, delivery, name string, p []byte, at int64) error {
	path, err := besidePath(delivery, name)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, "put", func(op uint32) {
		storagePut(op, uint32(s.handle), pointer(path), uint32(len(path)), float64(at), pointer(p), uint32(len(p)))
	})
	runtime.KeepAlive(path)
	runtime.KeepAlive(p)
	return err
}

// Get implements transfer.Durable.
func (s *Storage) Get(ctx context.Context, delivery, name string) ([]byte, error) {
	path, err := besidePath(delivery, name)
	if err != nil {
		return nil, err
	}
	value, err := s.call(ctx, "get", func(op uint32) { storageGet(op, uint32(s.handle), pointer(path), uint32(len(path))) })
	runtime.KeepAlive(path)
	if err != nil {
		return nil, err
	}
	return takeBytes(host.Handle(value)), nil
}

func besidePath(delivery, name string) ([]byte, error) {
	if !transfer.PlainName(delivery) || !transfer.PlainName(name) {
		return nil, fmt.Errorf("bytes: names %q, %q", delivery, name)
	}
	return []byte(delivery + "/" + name), nil
}

// Sweep deletes what other Storages of this origin have left behind, in directories that no tab holds and that were last used at least
// age ago, or, for deliveries with a journal, as long ago as unfinished says. It returns how many directories it has deleted.
func (s *Storage) Sweep(ctx context.Context, age, unfinished time.Duration) (int, error) {
	n, err := s.call(ctx, "sweep", func(op uint32) {
		storageSweep(op, uint32(s.handle), float64(age.Milliseconds()), float64(unfinished.Milliseconds()))
	})
	return int(n), err
}

// Close waits for the operations in flight and ends the storage. The files of the private file system stay; those in memory
// are gone, but for the Files handed out.
func (s *Storage) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.using.Wait()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.using.Wait()
	status, value := host.Call(func(op uint32) { storageEnd(op, uint32(s.handle)) })
	s.handle.Release()
	if status != statusOK {
		return storageFailure("close storage", status, value)
	}
	return nil
}

// call runs an operation of the host unless ctx has ended.
func (s *Storage) call(ctx context.Context, operation string, start func(op uint32)) (float64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return s.run(operation, start)
}

// run runs an operation of the host, which completes it in any case, unless the storage is closed.
func (s *Storage) run(operation string, start func(op uint32)) (float64, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, fmt.Errorf("bytes: %s: %w", operation, fs.ErrClosed)
	}
	s.using.Add(1)
	s.mu.Unlock()
	defer s.using.Done()
	status, value := host.Call(start)
	if status != statusOK {
		return 0, storageFailure(operation, status, value)
	}
	return value, nil
}

// File is a file in a Storage.
type File struct {
	storage *Storage
	id      uint32
	size    int64
}

var _ transfer.StoredFile = (*File)(nil)

// WriteAt implements io.WriterAt.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > f.size-int64(len(p)) {
		return 0, fmt.Errorf("bytes: write of %d bytes at %d to a file of %d", len(p), off, f.size)
	}
	f.storage.slots <- struct{}{}
	defer func() { <-f.storage.slots }()
	_, err := f.storage.run("write", func(op uint32) {
		storageWrite(op, uint32(f.storage.handle), f.id, float64(off), pointer(p), uint32(len(p)))
	})
	runtime.KeepAlive(p)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("bytes: negative offset")
	}
	want := p[:min(int64(len(p)), max(0, f.size-off))]
	f.storage.slots <- struct{}{}
	defer func() { <-f.storage.slots }()
	n, err := f.storage.run("read", func(op uint32) {
		storageRead(op, uint32(f.storage.handle), f.id, float64(off), pointer(want), uint32(len(want)))
	})
	runtime.KeepAlive(p)
	switch {
	case err != nil:
		return 0, err
	case int(n) < len(want):
		return int(n), fmt.Errorf("bytes: read %d of %d bytes at %d: %w", int(n), len(want), off, io.ErrUnexpectedEOF)
	case len(want) < len(p):
		return len(want), io.EOF
	}
	return len(p), nil
}

// Commit implements transfer.StoredFile.
func (f *File) Commit(ctx context.Context) error {
	_, err := f.storage.call(ctx, "commit", func(op uint32) { storageCommit(op, uint32(f.storage.handle), f.id) })
	return err
}

// Object returns the handle of a JavaScript File with the contents, once committed. The file stays readable as long as it is
// not removed. Its name and type say nothing: wrap it, new File([file], name, { type }), which copies no bytes. The caller
// releases the handle.
func (f *File) Object(ctx context.Context) (host.Handle, error) {
	value, err := f.storage.call(ctx, "file", func(op uint32) { storageFile(op, uint32(f.storage.handle), f.id) })
	return host.Handle(value), err
}

// Close implements transfer.StoredFile.
func (f *File) Close() error {
	_, err := f.storage.run("close", func(op uint32) { storageClose(op, uint32(f.storage.handle), f.id) })
	if errors.Is(err, fs.ErrClosed) {
		return nil // with its storage
	}
	return err
}
