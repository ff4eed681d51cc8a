package bytes

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"unsafe"

	"tallow/internal/core/host"
	"tallow/internal/core/transfer"
)

//go:wasmimport tallow file_size
func fileSize(handle uint32) float64

//go:wasmimport tallow file_read
func fileRead(op, handle uint32, at float64, p unsafe.Pointer, length uint32)

//go:wasmimport tallow file_end
func fileEnd(handle uint32)

// Source is a File or Blob of the page.
type Source struct {
	file  host.Handle
	size  int64
	close sync.Once
}

var _ transfer.Source = (*Source)(nil)

// NewSource takes over the handle of a File or Blob. Its size is that of now.
func NewSource(file host.Handle) *Source {
	return &Source{file: file, size: int64(fileSize(uint32(file)))}
}

// Size implements transfer.Source.
func (s *Source) Size() int64 { return s.size }

// ReadAt implements io.ReaderAt. Reads that each begin where the one called before ends are the fast way; they may overlap in
// time. A file that is shorter than it was, or gone, is
// transfer.ErrSourceChanged; one that the browser refuses to read is transfer.ErrSourceUnreadable, and in Chromium so is one that was
// written to since it was chosen: the next reads may still succeed, the one that reaches the end does not.
func (s *Source) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("bytes: negative offset")
	}
	want := int(min(int64(len(p)), max(0, s.size-off)))
	if want > 0 {
		n, err := readFile(s.file, p[:want], off)
		switch {
		case err != nil:
			return 0, err
		case n < want:
			return n, fmt.Errorf("bytes: read: %w: it is shorter", transfer.ErrSourceChanged)
		}
	}
	if want < len(p) {
		return want, io.EOF
	}
	return want, nil
}

func readFile(file host.Handle, p []byte, off int64) (int, error) {
	status, value := host.Call(func(op uint32) { fileRead(op, uint32(file), float64(off), pointer(p), uint32(len(p))) })
	runtime.KeepAlive(p)
	if status == statusOK {
		return int(value), nil
	}
	text := takeText(host.Handle(value))
	switch status {
	case statusNotFound:
		return 0, fmt.Errorf("bytes: read: %w: %s", transfer.ErrSourceChanged, text)
	case statusUnreadable:
		return 0, fmt.Errorf("bytes: read: %w: %s", transfer.ErrSourceUnreadable, text)
	default:
		return 0, fmt.Errorf("bytes: read: %s", text)
	}
}

// Close lets go of the file. No read may follow, or be running.
func (s *Source) Close() error {
	s.close.Do(func() {
		fileEnd(uint32(s.file))
		s.file.Release()
	})
	return nil
}
