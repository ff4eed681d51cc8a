package room

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// StoredName is the name in Storage of the file of a delivery that holds what was received.
const StoredName = "files"

// store is where an incoming transfer's files lie: one after another, in the order of the manifest, in a single file. To make and to commit a
// file costs a browser's private file system some 8 ms, as long as 100 kB take to arrive, so ten thousand small ones of their own would be slow.
type store struct {
	ctx      context.Context
	storage  transfer.Storage
	delivery string
	journal  *journal // nil: it does not outlive the room

	// Set by arrange, before anything is written.
	manifest *chunk.Manifest
	offsets  []int64 // by file; of those that are not wanted the next one's
	size     int64

	handed time.Time // when the person had what was received; zero: not yet. The loop's

	beside    sync.Mutex // held while a receipt takes the place of the journal, or all is deleted
	discarded bool       // under beside

	mu   sync.Mutex // held for moments only: the room's loop takes it
	open *openFile  // nil before the first write
	gone bool
}

// openFile is a file that is being made, until made is closed.
type openFile struct {
	made chan struct{}
	file transfer.StoredFile
	err  error
}

func newStore(ctx context.Context, storage transfer.Storage, delivery string) *store {
	return &store{ctx: ctx, storage: storage, delivery: delivery}
}

// arrange lays the wanted files out. What an offer and its acceptance say, which the journal keeps, decides it all.
func (s *store) arrange(m *chunk.Manifest, wanted wire.Bitmap) {
	s.manifest, s.offsets, s.size = m, make([]int64, len(m.Files)), 0
	for i, f := range m.Files {
		s.offsets[i] = s.size
		if wanted.Has(uint32(i)) {
			s.size += int64(f.Size)
		}
	}
}

// file opens the file, the first time it is needed.
func (s *store) file() (transfer.StoredFile, error) {
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return nil, fault.New(fault.Cancelled, nil)
	}
	f := s.open
	first := f == nil
	if first {
		f = &openFile{made: make(chan struct{})}
		s.open = f
	}
	s.mu.Unlock()
	if first {
		f.file, f.err = s.storage.Create(s.ctx, s.delivery, StoredName, s.size)
		if errors.Is(f.err, transfer.ErrStorageFull) { // another time there may be room
			s.mu.Lock()
			if s.open == f {
				s.open = nil
			}
			s.mu.Unlock()
		}
		close(f.made)
	}
	<-f.made
	return f.file, f.err
}

// reopen opens what has been begun, by another room or before the storage failed, while nothing is being written. It reports whether that is there, and of
// the right size. An error says that nobody knows.
func (s *store) reopen() (bool, error) {
	durable, ok := s.storage.(transfer.Durable)
	if !ok || s.size == 0 {
		return false, nil
	}
	s.shut()
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return false, nil
	}
	f := &openFile{made: make(chan struct{}), err: errNotThere}
	s.open = f // nobody makes another meanwhile, which would delete it
	s.mu.Unlock()
	file, err := durable.Open(s.ctx, s.delivery, StoredName)
	if err == nil && s.whole(file) {
		f.file, f.err = file, nil
	} else {
		if err == nil {
			file.Close()
		} else if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		s.mu.Lock()
		if s.open == f {
			s.open = nil
		}
		s.mu.Unlock()
	}
	close(f.made)
	return f.file != nil, err
}

var errNotThere = errors.New("what was stored is not there")

// whole reports whether a file has its size: a crash may have come between making it and giving it that. One whose end cannot be read has.
func (s *store) whole(file io.ReaderAt) bool {
	if n, err := file.ReadAt(make([]byte, 1), s.size-1); n == 0 && (err == nil || errors.Is(err, io.EOF)) {
		return false
	}
	beyond, _ := file.ReadAt(make([]byte, 1), s.size)
	return beyond == 0
}

// section is where a file lies in what stored has returned.
func (s *store) section(stored io.ReaderAt, index uint32) *io.SectionReader {
	return io.NewSectionReader(stored, s.offsets[index], int64(s.manifest.Files[index].Size))
}

// write verifies chunks and writes them: those that follow one another, in the message and on disk, at once. It returns the first ones, which
// are done, and whether the one after them is not what was announced.
func (s *store) write(e transfer.Store, engine bulk.Engine, pool *bulk.Pool) ([]chunk.Ref, bool, error) {
	var done []chunk.Ref
	var run []byte // not written yet
	var at int64   // where it goes
	first := 0     // of its chunks
	flush := func(next int) error {
		if len(run) == 0 {
			return nil
		}
		file, err := s.file()
		if err == nil {
			_, err = file.WriteAt(run, at)
		}
		if err == nil {
			for _, c := range e.Chunks[first:next] {
				done = append(done, c.Chunk)
			}
		}
		return err
	}
	for i, c := range e.Chunks {
		data := c.Data
		var err error
		if c.Compressed {
			inflated := pool.Get(c.Length)
			defer inflated.Release() // a message holds at most a chunk's worth of them
			data = inflated.B
			err = engine.(bulk.Compressor).Inflate(data, c.Data) // the machine lets none through where it is not one
		}
		var sum [32]byte
		if err == nil {
			sum, err = engine.Sum256(data)
		}
		if errors.Is(err, bulk.ErrInflate) || err == nil && wire.Hash(sum) != c.Hash {
			return done, true, nil
		}
		offset := s.offsets[c.Chunk.File] + c.Offset
		if err == nil && (offset != at+int64(len(run)) || !follows(run, data)) {
			err = flush(i)
			run, at, first = data[:0], offset, i
		}
		if err != nil {
			return done, false, err
		}
		run = run[:len(run)+len(data)]
	}
	err := flush(len(e.Chunks))
	return done, false, err
}

// follows reports whether q begins in memory where p ends.
func follows(p, q []byte) bool {
	return len(p) > 0 && len(q) > 0 && cap(p) >= len(p)+len(q) && &p[:len(p)+1][len(p)] == &q[0]
}

// commit makes everything durable.
func (s *store) commit() error {
	f, err := s.file()
	if err != nil {
		return err
	}
	return f.Commit(s.ctx)
}

// discard deletes what has been stored.
func (s *store) discard() error {
	s.close()
	s.beside.Lock()
	defer s.beside.Unlock()
	s.discarded = true
	return s.storage.Remove(context.WithoutCancel(s.ctx), s.delivery) // what cannot be removed is swept at the next start
}

// close lets go of the file. Nothing is written any more.
func (s *store) close() {
	s.journal.stop()
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	s.shut()
}

// shut closes the file until it is opened again.
func (s *store) shut() {
	s.mu.Lock()
	f := s.open
	s.open = nil
	s.mu.Unlock()
	if f != nil {
		<-f.made
		if f.file != nil {
			f.file.Close()
		}
	}
}

// stored returns the file, if it is there.
func (s *store) stored() transfer.StoredFile {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return nil
	}
	select {
	case <-s.open.made:
		return s.open.file
	default:
		return nil
	}
}
