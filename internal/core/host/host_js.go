package host

import (
	"math"
	"sync"
	"syscall/js"
	"unsafe"
)

// completion is how web/host.js reports: the layout is shared with it.
type completion struct {
	target uint32
	status int32
	value  uint64 // a float64's bits
}

// next copies the oldest completion to out and returns 1, or returns 0 when there is none.
//
//go:wasmimport tallow next
func next(out unsafe.Pointer) uint32

// release forgets an object.
//
//go:wasmimport tallow release
func release(handle uint32)

var table struct {
	sync.Mutex
	last    uint32
	targets map[uint32]func(status int32, value float64)
}

var attach js.Value

// Boot connects Go with the host object of web/host.js: its attach function, and its wake, which from now on runs Drain.
// The program calls it once, before anything else of this package.
func Boot(object js.Value) {
	attach = object.Get("attach")
	object.Set("wake", js.FuncOf(func(js.Value, []js.Value) any {
		Drain()
		return nil
	}))
}

// Attach hands an object to the host, for imports that take its number. Release it with Handle.Release.
func Attach(v js.Value) Handle { return Handle(attach.Invoke(v).Int()) }

// Handle is the number of an object that the host keeps. 0 is none.
type Handle uint32

// Release forgets the object. Pending operations on it still complete.
func (h Handle) Release() { release(uint32(h)) }

// Listen registers fn for the completions that the host reports under the returned number. fn runs on the browser's
// event and must not block. stop ends it.
func Listen(fn func(status int32, value float64)) (target uint32, stop func()) {
	table.Lock()
	defer table.Unlock()
	if table.targets == nil {
		table.targets = map[uint32]func(int32, float64){}
	}
	for {
		table.last++
		if _, taken := table.targets[table.last]; !taken && table.last != 0 {
			break
		}
	}
	target = table.last
	table.targets[target] = fn
	return target, func() {
		table.Lock()
		defer table.Unlock()
		delete(table.targets, target)
	}
}

// Call runs start with the number of a new operation, and blocks until the host completes it. It takes no context: memory that start has
// passed must stay untouched until then. So it is for operations that the host is sure to complete. Those of a connection are not, as a browser
// leaves some of their promises unsettled once it is closed: these need Listen, and another way to end.
func Call(start func(op uint32)) (status int32, value float64) {
	type result struct {
		status int32
		value  float64
	}
	done := make(chan result, 1)
	op, stop := Listen(func(status int32, value float64) {
		select {
		case done <- result{status, value}:
		default:
		}
	})
	defer stop()
	start(op)
	r := <-done
	return r.status, r.value
}

// Drain hands out what the host has completed.
func Drain() {
	c := new(completion)
	for next(unsafe.Pointer(c)) == 1 {
		table.Lock()
		fn := table.targets[c.target]
		table.Unlock()
		if fn != nil {
			fn(c.status, math.Float64frombits(c.value))
		}
	}
}
