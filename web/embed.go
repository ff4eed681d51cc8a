// Package web is the page as it is served: everything that the build leaves in dist, embedded.
package web

import (
	"embed"
	"io/fs"
)

// The placeholder in dist lets a fresh clone compile; the build fills dist (web/pack).
//
//go:embed all:dist
var dist embed.FS

// Dist holds the served files by name, and for each compressible one its .br and .gz beside it. Before the first build it
// holds none of them.
func Dist() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic("web: " + err.Error()) // only an invalid path fails
	}
	return sub
}
