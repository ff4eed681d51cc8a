package bytes

import (
	"runtime"
	"unsafe"

	"tallow/internal/core/bulk"
	"tallow/internal/core/host"
)

//go:wasmimport tallow deflate_available
func deflateAvailable() uint32

//go:wasmimport tallow deflate
func deflate(op uint32, dst unsafe.Pointer, capacity uint32, data unsafe.Pointer, length uint32)

//go:wasmimport tallow inflate
func inflate(op uint32, dst unsafe.Pointer, capacity uint32, data unsafe.Pointer, length uint32)

// webDeflate is the browser's CompressionStream and DecompressionStream.
type webDeflate struct{}

var _ bulk.Compressor = webDeflate{}

// Deflate implements bulk.Compressor.
func (webDeflate) Deflate(dst, p []byte) (int, error) {
	status, value := host.Call(func(op uint32) { deflate(op, pointer(dst), uint32(len(dst)), pointer(p), uint32(len(p))) })
	runtime.KeepAlive([][]byte{dst, p})
	if status != statusOK {
		return 0, cryptoFailure("deflate", value)
	}
	return int(value), nil
}

// Inflate implements bulk.Compressor.
func (webDeflate) Inflate(dst, p []byte) error {
	status, value := host.Call(func(op uint32) { inflate(op, pointer(dst), uint32(len(dst)), pointer(p), uint32(len(p))) })
	runtime.KeepAlive([][]byte{dst, p})
	switch status {
	case statusOK:
		return nil
	case statusInauthentic:
		clear(dst)
		return bulk.ErrInflate
	default:
		clear(dst)
		return cryptoFailure("inflate", value)
	}
}
