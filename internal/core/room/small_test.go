//go:build !js

package room_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tallow/internal/core/room"
	"tallow/internal/core/transfer"
	"tallow/internal/core/transfer/diskstore"
	"tallow/internal/core/wire"
)

// crowd is n small files, some of them empty, in folders, and what to send.
func crowd(n int) (contents []source, files []room.OutFile) {
	for i := range n {
		contents = append(contents, content(i*37%4000, byte(i)))
		files = append(files, outFile(fmt.Sprintf("crowd/%d/%d.bin", i%7, i), contents[i]))
	}
	return contents, files
}

// TestSmallFiles: thousands of small files lie in one file on disk, and come in messages of many.
func TestSmallFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	contents, files := crowd(3000)
	files = append(files, room.OutFile{Kind: wire.KindDirectory, Path: "crowd/hollow"})
	id := ann.send(files...)
	bob.accept(ann)
	result := bob.finished(id)
	bob.check(result, contents...)
	ann.done(id)
	if names, err := os.ReadDir(filepath.Join(bob.dir, result.Delivery)); err != nil || len(names) != 1 {
		t.Errorf("%d files on disk, %v", len(names), err)
	}
	if last := result.Files[3000]; last.Kind != "directory" || !last.Complete || result.Stored[3000] != nil {
		t.Errorf("the empty folder is %+v", last)
	}
}

// TestSomeFiles: of what is offered only what was accepted takes room on disk, and is where it is said to be.
func TestSomeFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	a, b, c, d := content(2*mib+1, 1), content(5, 2), content(mib, 3), content(70_000, 4)
	id := ann.send(outFile("a", a), outFile("b", b), outFile("c", c), outFile("d", d))
	wait(bob, "an offer", func(room.OfferReceived) bool { return true })
	if _, err := bob.room.Accept(id, []uint32{3, 1}); err != nil {
		t.Fatal(err)
	}
	result := bob.finished(id)
	if len(result.Files) != 2 || len(result.Stored) != 2 {
		t.Fatalf("%+v", result)
	}
	if info, err := os.Stat(filepath.Join(bob.dir, result.Delivery, room.StoredName)); err != nil || info.Size() != 70_005 {
		t.Errorf("%v, %v", info, err)
	}
	for index, want := range map[uint32]source{1: b, 3: d} {
		got := make([]byte, len(want))
		if n, err := result.Stored[index].ReadAt(got, 0); n != len(want) || string(got) != string(want) {
			t.Errorf("file %d: %d bytes, %v", index, n, err)
		}
	}
}

// TestSmallFilesRestart: the recipient's process dies among small files. Those that it had are not sent again, wherever they lie.
func TestSmallFilesRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann, l, bob := w.pair()
	contents, files := crowd(2000)
	var before int64
	for _, c := range contents[:1000] {
		before += int64(len(c))
	}
	wall := newStepped(t, content(mib, 1)) // nothing that follows it is sent before it can be read
	contents = append(contents[:1000:1000], append([]source{wall.source}, contents[1000:]...)...)
	files = append(files[:1000:1000], append([]room.OutFile{outFile("wall", wall)}, files[1000:]...)...)
	id := ann.send(files...)
	bob.accept(ann)
	ann.stored(bob, before)
	w.crash(bob, ann)
	bob = l.born()
	bob.resumed()
	wall.raise(mib)
	bob.check(bob.done(id), contents...)
	ann.done(id)
	if n := bob.bulk.Load(); n > mib+before+slack { // the second half is about as large as the first
		t.Errorf("%d bytes of records, when about %d were lacking", n, mib+before)
	}
}

// TestSaved: what was received goes into a folder with its structure and times.
func TestSaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	at := time.UnixMilli(1_234_567_890_000)
	a, b := outFile("photos/2009/a.jpg", content(300_000, 1)), outFile("photos/b.jpg", content(10, 2))
	a.Modified, b.Modified = at.UnixMilli(), at.UnixMilli()
	id := ann.send(a, b, room.OutFile{Kind: wire.KindDirectory, Path: "photos/hollow", Modified: at.UnixMilli()})
	bob.accept(ann)
	result := bob.finished(id)
	var entries []diskstore.Entry
	for _, f := range result.Files {
		e := diskstore.Entry{Path: f.Path, Modified: time.UnixMilli(f.Modified)}
		if part := result.Stored[f.Index]; part != nil {
			e.Data = part
		}
		entries = append(entries, e)
	}
	dir := t.TempDir()
	if err := diskstore.Save(dir, entries); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]transfer.Source{"photos/2009/a.jpg": a.Source, "photos/b.jpg": b.Source, "photos/hollow": nil} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || !info.ModTime().Equal(at) || info.IsDir() != (want == nil) {
			t.Fatalf("%s: %v, %v", name, info, err)
		}
		if want == nil {
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != string(want.(source)) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
}
