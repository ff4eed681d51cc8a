package room

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"tallow/internal/core/chunk"
	"tallow/internal/core/wire"
)

type sized int64

func (sized) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }
func (s sized) Size() int64                     { return int64(s) }

// TestMatching: no file is taken for two, and none for another that is as good.
func TestMatching(t *testing.T) {
	for _, c := range []struct {
		manifest, given string
		want            []int
	}{
		{"a:1 b:2", "b:2 a:1", []int{1, 0}},
		{"x/a:1 x/b:2", "b:2 a:1", []int{1, 0}},
		{"x/a:1 x/a:1", "x/a:1 x/a:1", []int{0, 1}},
		{"x/a:1 x/a:1", "x/a:1", []int{0, -1}},
		{"x/a:1 y/a:1", "a:1", []int{-1, -1}},
		{"x/a:1 y/a:1", "a:1 a:1", []int{-1, -1}},
		{"x/a:1 y/a:1", "y/a:1 a:1", []int{1, 0}},
		{"x/a:1 y/a:2", "a:2 a:1", []int{1, 0}},
		{"a:1", "a:2", []int{0}}, // it has changed
		{"x/a:1", "a:2", []int{-1}},
		{"x/a:1", "a:1 y/a:1", []int{-1}},
	} {
		parse := func(s string, take func(path string, size int64)) {
			for _, f := range strings.Fields(s) {
				path, size, _ := strings.Cut(f, ":")
				var n int64
				fmt.Sscan(size, &n)
				take(path, n)
			}
		}
		m := &chunk.Manifest{}
		parse(c.manifest, func(path string, size int64) {
			m.Files = append(m.Files, wire.FileEntry{Kind: wire.KindFile, Path: path, Size: uint64(size)})
		})
		var given []OutFile
		parse(c.given, func(path string, size int64) {
			given = append(given, OutFile{Kind: wire.KindFile, Path: path, Source: sized(size)})
		})
		if got := matching(m, given); !slices.Equal(got, c.want) {
			t.Errorf("%s among %s: %v, want %v", c.manifest, c.given, got, c.want)
		}
	}
}
