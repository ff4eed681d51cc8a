package bytes

import (
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"tallow/internal/core/host"
	"tallow/internal/core/transfer"
)

// Statuses of completions, as in web/host-crypto.js, web/host-deflate.js and web/host-files.js. The value of a negative one is the handle of a text.
const (
	statusOK          = 0
	statusInauthentic = 1
	statusFailed      = -1
	statusNotFound    = -2
	statusUnreadable  = -3
	statusFull        = -4
	statusInUse       = -5
	statusClosed      = -6
)

// ErrInUse says that the storage of this name belongs to another tab, or to another instance in this one.
var ErrInUse = errors.New("bytes: storage is in use by another tab")

//go:wasmimport tallow text_length
func textLength(handle uint32) uint32

//go:wasmimport tallow text_copy
func textCopy(handle uint32, p unsafe.Pointer)

// takeText is the text that the host keeps under a handle, which it releases.
func takeText(handle host.Handle) string { return string(takeBytes(handle)) }

func takeBytes(handle host.Handle) []byte {
	defer handle.Release()
	p := make([]byte, textLength(uint32(handle)))
	textCopy(uint32(handle), pointer(p))
	return p
}

// storageFailure is the error of a completion of the storage that is no success.
func storageFailure(operation string, status int32, value float64) error {
	text := takeText(host.Handle(value))
	switch status {
	case statusFull:
		return fmt.Errorf("bytes: %s: %w: %s", operation, transfer.ErrStorageFull, text)
	case statusInUse:
		return fmt.Errorf("bytes: %s: %w: %s", operation, ErrInUse, text)
	case statusNotFound:
		return fmt.Errorf("bytes: %s: %w: %s", operation, fs.ErrNotExist, text)
	case statusClosed:
		return fmt.Errorf("bytes: %s: %w: %s", operation, fs.ErrClosed, text)
	default:
		return fmt.Errorf("bytes: %s: %s", operation, text)
	}
}
