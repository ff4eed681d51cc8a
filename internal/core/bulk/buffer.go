package bulk

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Buffer is a pooled byte string, shared by reference counting.
type Buffer struct {
	B    []byte
	pool *Pool
	full []byte
	refs atomic.Int32
}

// Retain adds a reference and returns the buffer.
func (b *Buffer) Retain() *Buffer {
	if b.refs.Add(1) <= 1 {
		panic("bulk: Retain of a released buffer")
	}
	return b
}

// Release drops a reference. With the last one the memory goes back to the pool. It is a no-op on nil.
func (b *Buffer) Release() {
	if b == nil {
		return
	}
	switch n := b.refs.Add(-1); {
	case n == 0:
		b.pool.put(b)
	case n < 0:
		panic("bulk: buffer released twice")
	}
}

// Pool keeps buffers for reuse. Wasm's memory never shrinks, and a fresh buffer costs more than a copy, so what has been
// allocated is kept, up to a bound in all.
type Pool struct {
	mu   sync.Mutex
	free [classes][]*Buffer
	kept int // bytes in free
}

const (
	minClass  = 10                        // 1 KiB
	maxClass  = 23                        // 8 MiB: beyond the largest record
	maxPooled = 1 << maxClass             // larger buffers are left to the garbage collector
	classes   = 4*(maxClass-minClass) + 1 // four sizes per power of two
	maxKept   = 64 << 20                  // bytes kept free
)

// classOf is the smallest class whose buffers hold n bytes, and their size. Four classes per power of two waste at most
// a quarter: a record is a chunk, a power of two, and a little more.
func classOf(n int) (class, size int) {
	n = max(n, 1<<minClass)
	e := bits.Len(uint(n - 1)) // 2^(e-1) < n <= 2^e
	if n == 1<<minClass {
		return 0, n
	}
	base := 1 << (e - 1)
	step := base / 4
	q := (n - base + step - 1) / step // 1 to 4
	return (e-1-minClass)*4 + q, base + q*step
}

// Get returns a buffer with B of n bytes, whose contents are arbitrary, and one reference.
func (p *Pool) Get(n int) *Buffer {
	class, size := classOf(n)
	if class >= classes {
		b := &Buffer{full: make([]byte, n), pool: p}
		b.B = b.full
		b.refs.Store(1)
		return b
	}
	p.mu.Lock()
	var b *Buffer
	if list := p.free[class]; len(list) > 0 {
		b = list[len(list)-1]
		p.free[class] = list[:len(list)-1]
		p.kept -= size
	}
	p.mu.Unlock()
	if b == nil {
		b = &Buffer{full: make([]byte, size), pool: p}
	}
	b.B = b.full[:n]
	b.refs.Store(1)
	return b
}

func (p *Pool) put(b *Buffer) {
	class, size := classOf(len(b.full))
	if class >= classes || size != len(b.full) {
		return
	}
	b.B = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept+size <= maxKept {
		p.kept += size
		p.free[class] = append(p.free[class], b)
	}
}
