//go:build !js

package bulk

import (
	"bytes"
	"compress/flate"
	"io"
	"sync"
)

// In the browser compress/flate would be dead weight: there is its own.
var _ Compressor = Go{}

var (
	deflaters = sync.Pool{New: func() any {
		w, err := flate.NewWriter(nil, flate.DefaultCompression)
		if err != nil {
			panic(err) // the level is a constant
		}
		return w
	}}
	inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}
)

// Deflate implements Compressor.
func (Go) Deflate(dst, p []byte) (int, error) {
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	out := fixed{left: dst}
	w.Reset(&out)
	_, err := w.Write(p)
	if err == nil {
		err = w.Close()
	}
	if err == io.ErrShortBuffer {
		return 0, nil
	}
	return len(dst) - len(out.left), err
}

// Inflate implements Compressor.
func (Go) Inflate(dst, p []byte) error {
	from := bytes.NewReader(p) // an io.ByteReader: nothing behind the end of the stream is read
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	if err := r.(flate.Resetter).Reset(from, nil); err != nil {
		return err
	}
	_, err := io.ReadFull(r, dst)
	if err == nil {
		var more [1]byte
		if _, end := io.ReadFull(r, more[:]); end == io.EOF && from.Len() == 0 {
			return nil
		}
	}
	clear(dst)
	return ErrInflate
}

// fixed is a writer into memory that does not grow.
type fixed struct{ left []byte }

func (f *fixed) Write(p []byte) (int, error) {
	if len(p) > len(f.left) {
		return 0, io.ErrShortBuffer
	}
	f.left = f.left[copy(f.left, p):]
	return len(p), nil
}
