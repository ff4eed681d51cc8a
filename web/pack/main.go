// Command pack fills web/dist: it copies what is served and compresses it, so that the server never has to.
//
// It runs from the root of the repository. What dist has of a source already is left alone, what has no source any more
// is removed.
package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("pack: ")
	wasm := flag.String("wasm", "", "the compiled WebAssembly, served as tallow.wasm (required)")
	web := flag.String("web", "web", "folder of the page files")
	exec := flag.String("exec", "wasm_exec.js", "Go's JavaScript support file, of the toolchain that compiled the WebAssembly")
	out := flag.String("out", "web/dist", "folder to fill")
	flag.Parse()
	if *wasm == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := pack(*wasm, *web, *exec, *out); err != nil {
		log.Fatal(err)
	}
}

// served are the extensions of page files that are served; compressible those of files that have variants.
var (
	served       = []string{".html", ".js", ".css", ".svg", ".webmanifest", ".d.ts", ".png", ".ico"}
	compressible = []string{".html", ".js", ".css", ".svg", ".webmanifest", ".ts", ".wasm", ".json"}
)

func pack(wasm, web, exec, out string) error {
	sources, err := sources(wasm, web, exec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	keep := map[string]bool{".gitkeep": true}
	for name, source := range sources {
		keep[name] = true
		if err := derive(source, filepath.Join(out, name), copyTo); err != nil {
			return err
		}
	}
	if err := writeBuild(filepath.Join(out, "tallow.wasm"), filepath.Join(out, "build.json")); err != nil {
		return err
	}
	keep["build.json"] = true
	for name := range keep {
		if !slices.Contains(compressible, filepath.Ext(name)) {
			continue
		}
		plain := filepath.Join(out, name)
		if err := derive(plain, plain+".br", brotliTo); err != nil {
			return err
		}
		if err := derive(plain, plain+".gz", gzipTo); err != nil {
			return err
		}
	}
	return prune(out, keep)
}

// sources maps each served name to the file that it comes from.
func sources(wasm, web, exec string) (map[string]string, error) {
	m := map[string]string{"tallow.wasm": wasm, "wasm_exec.js": exec}
	entries, err := os.ReadDir(web)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type().IsRegular() && slices.ContainsFunc(served, func(ext string) bool { return strings.HasSuffix(e.Name(), ext) }) {
			m[e.Name()] = filepath.Join(web, e.Name())
		}
	}
	return m, nil
}

// derive makes target from source and gives it the source's modification time, by which it knows the next time that there
// is nothing to do. The target appears complete or not at all.
func derive(source, target string, make func(io.Writer, io.Reader) error) (err error) {
	from, err := os.Stat(source)
	if err != nil {
		return err
	}
	if to, err := os.Stat(target); err == nil && to.ModTime().Equal(from.ModTime()) {
		return nil
	}
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp, err := os.CreateTemp(filepath.Dir(target), ".pack-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = errors.Join(make(tmp, in), tmp.Chmod(0o644), tmp.Close(), os.Chtimes(tmp.Name(), from.ModTime(), from.ModTime()))
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return os.Rename(tmp.Name(), target)
}

func copyTo(w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, r)
	return err
}

func brotliTo(w io.Writer, r io.Reader) error {
	z := brotli.NewWriterLevel(w, brotli.BestCompression)
	_, err := io.Copy(z, r)
	return errors.Join(err, z.Close())
}

func gzipTo(w io.Writer, r io.Reader) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	_, err = io.Copy(z, r)
	return errors.Join(err, z.Close())
}

// writeBuild records the hash of the WebAssembly, by which a person can tell whether what is served is what was built.
func writeBuild(wasm, target string) error {
	b, err := os.ReadFile(wasm)
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]string{"wasmSHA256": fmt.Sprintf("%x", sha256.Sum256(b))})
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if old, err := os.ReadFile(target); err == nil && bytes.Equal(old, text) {
		return nil // unchanged: its compressed variants stay valid
	}
	return os.WriteFile(target, text, 0o644)
}

// prune removes what no source stands behind any more, so that nothing stale is embedded.
func prune(out string, keep map[string]bool) error {
	entries, err := os.ReadDir(out)
	if err != nil {
		return err
	}
	for _, e := range entries {
		plain := strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".br"), ".gz")
		if keep[plain] {
			continue
		}
		if err := os.Remove(filepath.Join(out, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
