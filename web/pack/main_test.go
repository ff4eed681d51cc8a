package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPack(t *testing.T) {
	dir := t.TempDir()
	web, out := filepath.Join(dir, "web"), filepath.Join(dir, "dist")
	for _, d := range []string{web, out} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	wasm, exec := filepath.Join(dir, "a.wasm"), filepath.Join(dir, "wasm_exec.js")
	page := strings.Repeat("<p>hello</p>", 100)
	write(t, wasm, "\x00asm")
	write(t, exec, "exec")
	write(t, filepath.Join(web, "index.html"), page)
	write(t, filepath.Join(web, "tallow.d.ts"), "export {}")
	write(t, filepath.Join(web, "icon.png"), "png")
	write(t, filepath.Join(web, "embed.go"), "package web")
	write(t, filepath.Join(out, "stale.js.br"), "stale")
	write(t, filepath.Join(out, ".gitkeep"), "")
	if err := pack(wasm, web, exec, out); err != nil {
		t.Fatal(err)
	}

	var names []string
	entries, _ := os.ReadDir(out)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	want := ".gitkeep build.json build.json.br build.json.gz icon.png index.html index.html.br index.html.gz " +
		"tallow.d.ts tallow.d.ts.br tallow.d.ts.gz tallow.wasm tallow.wasm.br tallow.wasm.gz wasm_exec.js wasm_exec.js.br wasm_exec.js.gz"
	if got := strings.Join(names, " "); got != want {
		t.Fatalf("dist holds\n%s, want\n%s", got, want)
	}
	br, err := io.ReadAll(brotli.NewReader(bytes.NewReader(read(t, filepath.Join(out, "index.html.br")))))
	if err != nil || string(br) != page {
		t.Fatalf("brotli variant: %v", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(read(t, filepath.Join(out, "index.html.gz"))))
	if err != nil {
		t.Fatal(err)
	}
	if gz, err := io.ReadAll(z); err != nil || string(gz) != page {
		t.Fatalf("gzip variant: %v", err)
	}
	// sha256 of "\0asm"
	if got := string(read(t, filepath.Join(out, "build.json"))); got != `{"wasmSHA256":"cd5d4935a48c0672cb06407bb443bc0087aff947c6b864bac886982c73b3027f"}`+"\n" {
		t.Fatalf("build.json: %s", got)
	}

	// An unchanged source is not compressed again; a changed one is, even if it is older.
	variant := filepath.Join(out, "index.html.br")
	before, _ := os.Stat(variant)
	if err := pack(wasm, web, exec, out); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(variant); !os.SameFile(before, after) {
		t.Fatal("an unchanged file was compressed again")
	}
	write(t, filepath.Join(web, "index.html"), "new")
	older := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(web, "index.html"), older, older); err != nil {
		t.Fatal(err)
	}
	if err := pack(wasm, web, exec, out); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, filepath.Join(out, "index.html"))); got != "new" {
		t.Fatalf("a changed file was not copied: %q", got)
	}
	br, err = io.ReadAll(brotli.NewReader(bytes.NewReader(read(t, variant))))
	if err != nil || string(br) != "new" {
		t.Fatalf("stale brotli variant %q, %v", br, err)
	}
}
