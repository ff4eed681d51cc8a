//go:build !js

// Package arch holds the tree to its architecture: who may import whom (README.md, "Where things are").
package arch

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, goos, goarch string, patterns ...string) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-e", "-deps", "-json=ImportPath,Imports,Deps"}, patterns...)...)
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch)
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	packages := map[string]pkg{}
	for d := json.NewDecoder(out); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return packages
}

const core = "tallow/internal/core/"

// layers are the core's packages from the ground up: a package imports only those of lower layers.
var layers = [][]string{
	{"wire", "fault", "host", "bulk"},
	{"seal", "chunk"},
	{"transfer", "peer", "signaling"},
	{"room"},
}

// sole are the packages that alone may import a module.
var sole = map[string][]string{
	"github.com/cloudflare/circl":   {core + "seal"},
	"github.com/pion/webrtc":        {core + "peer"},
	"github.com/coder/websocket":    {core + "signaling", "tallow/server/hub"},
	"github.com/hack-pad/safejs":    {"tallow/internal/bridge"},
	"github.com/pion/turn":          {"tallow/server/relay"},
	"github.com/andybalholm/brotli": {"tallow/web/pack"},
}

// scripting are the packages that may touch JavaScript directly.
var scripting = []string{core + "host", core + "peer", core + "signaling", "tallow/internal/bridge", "tallow/internal/bridge/bytes"}

func TestImports(t *testing.T) {
	layer := map[string]int{}
	for i, names := range layers {
		for _, n := range names {
			layer[core+n] = i
		}
	}
	for _, platform := range [][2]string{{"linux", "amd64"}, {"js", "wasm"}} {
		patterns := []string{"./internal/core/...", "./internal/bridge/...", "./wasm"}
		if platform[0] == "linux" {
			patterns = append(patterns[:1], "./server/...", "./web/...")
		}
		for path, p := range list(t, platform[0], platform[1], patterns...) {
			if !strings.HasPrefix(path, "tallow") {
				continue
			}
			for _, imported := range p.Imports {
				for module, owners := range sole {
					if strings.HasPrefix(imported, module) && !slices.Contains(owners, path) {
						t.Errorf("%v: %s imports %s, which is only %v's to import", platform, path, imported, owners)
					}
				}
				if imported == "syscall/js" && !slices.Contains(scripting, path) {
					t.Errorf("%v: %s imports syscall/js", platform, path)
				}
				if !strings.HasPrefix(imported, "tallow") {
					continue
				}
				from, isCore := layer[path]
				to, toCore := layer[imported]
				switch {
				case isCore && toCore && to >= from:
					t.Errorf("%v: %s (layer %d) imports %s (layer %d)", platform, path, from, imported, to)
				case strings.HasPrefix(path, core) && !strings.HasPrefix(imported, core):
					t.Errorf("%v: the core's %s imports %s", platform, path, imported)
				case strings.HasPrefix(path, "tallow/server") && strings.HasPrefix(imported, core) && imported != core+"wire":
					t.Errorf("%v: the server's %s imports %s of the core", platform, path, imported)
				}
			}
		}
	}
}

// TestWire: the specification's messages need the standard library only.
func TestWire(t *testing.T) {
	for _, dep := range list(t, "js", "wasm", "./internal/core/wire")[core+"wire"].Deps {
		if strings.Contains(dep, ".") && !strings.HasPrefix(dep, "vendor/") {
			t.Errorf("wire depends on %s", dep)
		}
	}
}
