//go:build linux || darwin

package diskstore

import (
	"math"
	"syscall"
)

func free(directory string) (int64, error) {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(directory, &stat); err != nil {
		return 0, wrap("free", err)
	}
	return int64(min(stat.Bavail*uint64(stat.Bsize), math.MaxInt64)), nil
}
