package bulk

import (
	"sync"
	"testing"
)

func TestClassOf(t *testing.T) {
	previous, previousSize := 0, 0
	for n := 1; n <= 9<<20; n += 1 + n/300 {
		class, size := classOf(n)
		if size < n {
			t.Fatalf("classOf(%d): size %d", n, size)
		}
		if n > 1<<minClass && (size-n)*4 > n {
			t.Errorf("classOf(%d): size %d wastes more than a quarter", n, size)
		}
		if class < previous || (class == previous) != (size == previousSize) && previousSize != 0 {
			t.Errorf("classOf(%d): class %d of %d after class %d of %d", n, class, size, previous, previousSize)
		}
		if again, full := classOf(size); again != class || full != size {
			t.Errorf("classOf(%d): class %d of %d, want %d of %d", size, again, full, class, size)
		}
		if (class < classes) != (size <= maxPooled) {
			t.Errorf("classOf(%d): class %d, size %d", n, class, size)
		}
		previous, previousSize = class, size
	}
}

func TestPoolReuse(t *testing.T) {
	for _, n := range []int{0, 1, 1024, 1025, 262_144, 262_189, 4_259_840, maxPooled} {
		var pool Pool
		a := pool.Get(n)
		if len(a.B) != n {
			t.Fatalf("Get(%d): %d bytes", n, len(a.B))
		}
		a.Retain()
		a.Release()
		if b := pool.Get(n); b == a {
			t.Fatalf("Get(%d) hands out a buffer that is still held", n)
		}
		a.Release()
		if b := pool.Get(n); b != a || len(b.B) != n {
			t.Errorf("Get(%d) does not reuse the buffer", n)
		}
	}
}

func TestPoolBounds(t *testing.T) {
	var pool Pool
	const size = 1 << 20
	held := make([]*Buffer, maxKept/size+5)
	for i := range held {
		held[i] = pool.Get(size)
	}
	for _, b := range held {
		b.Release()
	}
	class, _ := classOf(size)
	if n := len(pool.free[class]); n != maxKept/size {
		t.Errorf("%d buffers of %d bytes are kept", n, size)
	}
	big := pool.Get(maxPooled + 1)
	if len(big.B) != maxPooled+1 {
		t.Errorf("%d bytes", len(big.B))
	}
	big.Release()
	if b := pool.Get(maxPooled + 1); b == big {
		t.Error("a buffer beyond the largest class is kept")
	}
}

func TestBufferMisuse(t *testing.T) {
	for _, n := range []int{10, maxPooled + 1} {
		var pool Pool
		b := pool.Get(n)
		b.Release()
		mustPanic(t, "second Release", b.Release)
		b = pool.Get(n)
		b.Release()
		mustPanic(t, "Retain after Release", func() { b.Retain() })
	}
	(*Buffer)(nil).Release()
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s does not panic", what)
		}
	}()
	f()
}

// TestPoolConcurrent checks that no two holders ever share a buffer.
func TestPoolConcurrent(t *testing.T) {
	var pool Pool
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for i := range 500 {
				b := pool.Get(1000 + i%3000)
				for j := range b.B {
					b.B[j] = byte(w)
				}
				var readers sync.WaitGroup
				for range 2 {
					b.Retain()
					readers.Go(func() {
						defer b.Release()
						for _, got := range b.B {
							if got != byte(w) {
								t.Errorf("worker %d finds %d", w, got)
								return
							}
						}
					})
				}
				readers.Wait()
				b.Release()
			}
		})
	}
	group.Wait()
}
