// Package heap tells tests what the heap holds.
package heap

import "runtime"

// InUse is how many bytes the heap holds that are in use.
func InUse() int64 {
	runtime.GC()
	runtime.GC() // the first may have left the work of finalizers
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
