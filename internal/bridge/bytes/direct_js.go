package bytes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"tallow/internal/core/host"
	"tallow/internal/core/transfer"
)

//go:wasmimport tallow storage_direct
func storageDirect(folder uint32) (storage uint32)

// Direct is where the page writes what is received in one delivery straight into a folder that the person has picked (web/direct.js). Nothing of it is
// read again, nor outlives the page but what has arrived.
type Direct struct{ storage *Storage }

var _ transfer.Storage = Direct{}

// NewDirect takes over the handle of a DirectFolder.
func NewDirect(folder host.Handle) Direct {
	defer folder.Release()
	return Direct{&Storage{handle: host.Handle(storageDirect(uint32(folder))), slots: make(chan struct{}, maxInFlight)}}
}

// Free implements transfer.Storage: nobody says it of a folder.
func (Direct) Free(context.Context) (int64, error) { return -1, nil }

// InMemory implements transfer.Storage.
func (Direct) InMemory() bool { return false }

// Create implements transfer.Storage, but takes no room yet.
func (d Direct) Create(ctx context.Context, delivery, name string, size int64) (transfer.StoredFile, error) {
	file, err := d.storage.Create(ctx, delivery, name, size)
	if err != nil {
		return nil, err
	}
	return directFile{file}, nil
}

// Remove implements transfer.Storage, and ends this one. What has arrived is the person's, and stays.
func (d Direct) Remove(ctx context.Context, delivery string) error {
	err := d.storage.Remove(ctx, delivery)
	if errors.Is(err, fs.ErrClosed) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// Close ends one into which nothing was received.
func (d Direct) Close() error { return d.storage.Close() }

type directFile struct{ transfer.StoredFile }

// WriteAt implements io.WriterAt.
func (f directFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.StoredFile.WriteAt(p, off)
	return n, spoilt(err)
}

// Commit implements transfer.StoredFile.
func (f directFile) Commit(ctx context.Context) error { return spoilt(f.StoredFile.Commit(ctx)) }

// spoilt is the error of a file that the browser has dropped, because there was no room for all of it.
func spoilt(err error) error {
	if errors.Is(err, transfer.ErrStorageFull) {
		return fmt.Errorf("%w: %v", transfer.ErrStorageSpoilt, err)
	}
	return err
}
