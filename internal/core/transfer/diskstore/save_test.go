//go:build !js

package diskstore_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallow/internal/core/transfer/diskstore"
)

// TestSave puts files into a folder that has some already: nothing is overwritten, nothing escapes, and times are kept.
func TestSave(t *testing.T) {
	base := t.TempDir()
	outside, dir := filepath.Join(base, "outside"), filepath.Join(base, "into")
	for _, d := range []string{outside, filepath.Join(dir, "there")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"there/a.txt": "old", "there/a (2).txt": "old 2", "taken": "a file", "../outside/x": "out of reach"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	save := func(path string, text string) error {
		return diskstore.Save(dir, []diskstore.Entry{{Path: path, Modified: at, Data: strings.NewReader(text)}})
	}
	err := diskstore.Save(dir, []diskstore.Entry{
		{Path: "there/a.txt", Modified: at, Data: strings.NewReader("new")},
		{Path: "taken/b", Modified: at, Data: strings.NewReader("in the place of a file")},
		{Path: "taken/c/d", Modified: at, Data: strings.NewReader("likewise")},
		{Path: "new/empty", Data: strings.NewReader("")},
		{Path: "new/e\u0301 \u05d0 \U0001f600", Modified: at, Data: strings.NewReader("any script")},
		{Path: "hollow/inside", Modified: at},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := save("link/x", "caught"); err != nil {
		t.Error(err)
	}
	want := map[string]string{"there/a.txt": "old", "there/a (2).txt": "old 2", "there/a (3).txt": "new", "taken": "a file", "taken (2)/b": "in the place of a file",
		"taken (2)/c/d": "likewise", "link (2)/x": "caught", "new/empty": "", "new/e\u0301 \u05d0 \U0001f600": "any script"}
	got := map[string]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		got[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s: %q, not %q", name, got[name], text)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("there is also %v", got)
	}
	for _, name := range []string{"there/a (3).txt", "taken (2)/c/d", "hollow/inside"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.ModTime().Equal(at) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(outside, "x")); string(b) != "out of reach" {
		t.Errorf("%q, %v", b, err)
	}
}
