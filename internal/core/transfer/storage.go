package transfer

import (
	"context"
	"errors"
	"io"
	"strings"
)

// Errors of storage. A Source or Storage wraps them, so that callers can branch.
var (
	// ErrStorageFull says that the disk or the origin's quota has no room.
	ErrStorageFull = errors.New("transfer: storage is full")
	// ErrStorageSpoilt says that there was no room, and that what had been written is lost with that: it ends the delivery as disk-full.
	ErrStorageSpoilt = errors.New("transfer: storage is full, and what was stored is lost")
	// ErrSourceChanged says that a file is not what it was when it was offered, or is gone.
	ErrSourceChanged = errors.New("transfer: file changed since it was offered")
	// ErrSourceUnreadable says that a file cannot be read.
	ErrSourceUnreadable = errors.New("transfer: file cannot be read")
)

// Source is a file to send. ReadAt is called from several goroutines.
type Source interface {
	io.ReaderAt
	// Size is the file's length in bytes when it was chosen.
	Size() int64
}

// Storage keeps what a recipient receives. Its methods block and may be called from several goroutines. Every implementation passes
// the conformance suite in storagetest, but for what is given to Room.AcceptInto, which need not be readable.
type Storage interface {
	// Free is how many bytes can still be stored, or -1 when that is unknown.
	Free(ctx context.Context) (int64, error)
	// Create makes a file of size bytes, zeros until they are written. delivery groups the files of a delivery; both names
	// must be PlainName. An existing file is replaced; one that is still open (not yet closed) is an error. Where it is known that there is no
	// room for size bytes it is ErrStorageFull; that there is some is no promise, and a write may find none.
	Create(ctx context.Context, delivery, name string, size int64) (StoredFile, error)
	// InMemory reports whether all that is stored, committed or not, is lost with this process or page.
	InMemory() bool
	// Remove deletes a delivery and all its files, open ones too: their methods fail with fs.ErrClosed then. Removing what is not there is
	// no error.
	Remove(ctx context.Context, delivery string) error
}

// Durable is a Storage whose files, unless it is InMemory, outlive the process or page that wrote them.
type Durable interface {
	Storage
	// List is what is stored, in no particular order.
	List(ctx context.Context) ([]StoredName, error)
	// Open opens an existing file to go on writing it, or to read it. A file that is not there is fs.ErrNotExist.
	Open(ctx context.Context, delivery, name string) (StoredFile, error)
	// Put writes p at an offset of a small file beside a delivery's own, which is made if need be, and lets it end there. When it returns, the
	// bytes outlive the process, though not yet a loss of power. Nothing at 0 deletes the file, once what else the delivery has outlives that, as
	// far as the platform can tell.
	Put(ctx context.Context, delivery, name string, p []byte, at int64) error
	// Get returns all of such a file. One that is not there is fs.ErrNotExist.
	Get(ctx context.Context, delivery, name string) ([]byte, error)
}

// StoredName names a file in a Durable.
type StoredName struct {
	Delivery, Name string
	Size           int64 // bytes, as given to Create
}

// StoredFile is a file in Storage. WriteAt and ReadAt may be called at the same time for ranges that do not overlap.
type StoredFile interface {
	io.ReaderAt // io.EOF at the end, as in io.ReaderAt
	io.WriterAt // writing beyond the size is an error
	// Commit makes what has been written durable, as far as the Storage is, and what Put has put beside it, and ends writing; reading goes on.
	// After it the platform's own way to hand the file to the person works (in the browser: a disk-backed File). A second Commit does nothing.
	Commit(ctx context.Context) error
	// Close releases what the file holds open. It does not delete it. The other methods fail with fs.ErrClosed afterwards; a
	// second Close does nothing.
	Close() error
}

// PlainName tells the names that a Storage takes for deliveries and files: 1 to 200 lower-case letters and digits, never
// something that a stranger chose.
func PlainName(name string) bool {
	return name != "" && len(name) <= 200 && strings.Trim(name, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
