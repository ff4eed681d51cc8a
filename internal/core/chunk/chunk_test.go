package chunk

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"tallow/internal/core/wire"
)

func TestSafePath(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"a.txt", "a.txt"},
		{"dir/sub/a.txt", "dir/sub/a.txt"},
		{"../../etc/passwd", "etc/passwd"},
		{"/etc/passwd", "etc/passwd"},
		{`..\..\windows\win.ini`, "windows/win.ini"},
		{`C:\boot.ini`, "C_/boot.ini"},
		{"", "file"},
		{".", "file"},
		{"../..", "file"},
		{"a//b/./c", "a/b/c"},
		{"nul\x00byte", "nul_byte"},
		{"\x1b[31mred", "_[31mred"},
		{"evil\u202egpj.exe", "evil_gpj.exe"},
		{"zero\u200bwidth", "zero_width"},
		{"family \U0001F468\u200d\U0001F469", "family \U0001F468\u200d\U0001F469"},
		{"line\u2028break", "line_break"},
		{"CON", "_CON"},
		{"con.txt", "_con.txt"},
		{"Lpt1", "_Lpt1"},
		{"COM¹.log", "_COM¹.log"},
		{"COM", "COM"},
		{"COM10", "COM10"},
		{"conin$", "_conin$"},
		{"console", "console"},
		{"trailing. . ", "trailing"},
		{"  leading", "leading"},
		{"...", "_"},
		{"dir/...", "dir/_"},
		{`a<b>c:d"e|f?g*h`, "a_b_c_d_e_f_g_h"},
		{"<img onerror=alert(1)>", "_img onerror=alert(1)_"},
		{"bad\xff\xfeutf8", "bad__utf8"},
		{"日本語/ファイル.txt", "日本語/ファイル.txt"},
		{"nbsp\u00a0name", "nbsp name"},
	} {
		if got := SafePath(test.in); got != test.want {
			t.Errorf("SafePath(%q) = %q, want %q", test.in, got, test.want)
		}
	}
	long := SafePath(strings.Repeat("ü", 10_000) + ".jpeg")
	if len(long) > 255 || !strings.HasSuffix(long, ".jpeg") || !utf8.ValidString(long) {
		t.Errorf("long name: %d bytes, %q", len(long), long)
	}
	if deep := SafePath(strings.Repeat("d/", 1000) + "name"); strings.Count(deep, "/") >= maxDepth || !strings.HasSuffix(deep, "/name") {
		t.Errorf("deep path: %q", deep)
	}
}

func TestSafePaths(t *testing.T) {
	in := []string{"a.txt", "A.TXT", "a.txt", "b/../a.txt", "é", "e\u0301", "x", "x (2)", "x", "straße", "STRASSE"}
	var files []wire.FileEntry
	for _, p := range in {
		files = append(files, wire.FileEntry{Path: p})
	}
	got := SafePaths(files)
	seen := map[string]bool{}
	for i, p := range got {
		if seen[fold(p)] {
			t.Errorf("%q collides: %q", in[i], got)
		}
		seen[fold(p)] = true
	}
	if got[0] != "a.txt" || got[1] != "A (2).TXT" || got[2] != "a (3).txt" {
		t.Errorf("%q", got)
	}
}

// TestSafePathsFolders: a file never has the path of a folder, a folder that is sent as such may.
func TestSafePathsFolders(t *testing.T) {
	got := SafePaths([]wire.FileEntry{{Path: "a"}, {Path: "A/b"}, {Path: "a/b/c"}, {Path: "A", Kind: wire.KindDirectory}})
	if want := []string{"a (2)", "A/b (2)", "a/b/c", "A"}; strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestSafePathsEqual: a stranger's manifest full of equal names must not cost time that grows with its square.
func TestSafePathsEqual(t *testing.T) {
	files := make([]wire.FileEntry, wire.MaxFiles)
	for i := range files {
		files[i].Path = "a.txt"
	}
	got := SafePaths(files)
	if got[wire.MaxFiles-1] != "a (100000).txt" {
		t.Errorf("the last one is %q", got[wire.MaxFiles-1])
	}
}

func FuzzSafePath(f *testing.F) {
	for _, s := range []string{"a/b", "../x", "CON.txt", "\u202e", strings.Repeat("a", 300), "a.b/.c", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := SafePath(s)
		for _, e := range strings.Split(p, "/") {
			if e == "" || e == "." || e == ".." || len(e) > 255 || reserved(e) || strings.HasSuffix(e, ".") || strings.ContainsAny(e, "\\:\x00\u202e") {
				t.Errorf("SafePath(%q) = %q", s, p)
			}
		}
		if !utf8.ValidString(p) || SafePath(p) != p {
			t.Errorf("SafePath(%q) = %q, and of that %q", s, p, SafePath(p))
		}
	})
}

func TestSet(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var s Set
		want := map[uint32]bool{}
		for range r.IntN(300) {
			i := uint32(r.IntN(400))
			if s.Add(i) == want[i] {
				t.Fatalf("Add(%d) with %v", i, want[i])
			}
			want[i] = true
		}
		for range r.IntN(50) {
			i := uint32(r.IntN(400))
			s.Remove(i)
			delete(want, i)
		}
		if int(s.Count()) != len(want) {
			t.Fatalf("Count %d, want %d", s.Count(), len(want))
		}
		var again Set
		next := uint32(0)
		for _, run := range s.Runs(1 << 20) {
			if run.Count == 0 || run.First < next {
				t.Fatalf("runs %v", s.Runs(1<<20))
			}
			next = run.First + run.Count + 1 // adjacent runs would be one
			again.AddRun(run)
		}
		for i := range uint32(500) {
			if s.Has(i) != want[i] || again.Has(i) != want[i] {
				t.Fatalf("Has(%d) = %v, %v; want %v", i, s.Has(i), again.Has(i), want[i])
			}
		}
		if runs := s.Runs(3); len(runs) > 3 {
			t.Fatalf("Runs(3) gave %d", len(runs))
		}
	}
}

func TestManifest(t *testing.T) {
	files := []wire.FileEntry{{Size: 0, Path: "empty"}, {Size: 1, Path: "one"}, {Size: 65536, Path: "chunk"}, {Size: 65537, Path: "more", MediaType: "text/plain", Modified: 5}}
	m, err := NewManifest(65536, files)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint32{0, 1, 1, 2} {
		if got := m.Chunks(uint32(i)); got != want {
			t.Errorf("file %d: %d chunks, want %d", i, got, want)
		}
	}
	if m.Length(Ref{3, 0}) != 65536 || m.Length(Ref{3, 1}) != 1 || m.Offset(Ref{3, 1}) != 65536 {
		t.Error("length or offset of a chunk")
	}
	offer := wire.TransferOffer{ChunkSize: 65536, Files: 4, TotalSize: m.Total, ManifestLength: uint32(len(m.Encoded)), ManifestHash: m.Hash}
	parsed, err := ParseManifest(offer, m.Encoded)
	if err != nil || len(parsed.Files) != 4 || parsed.Files[3] != files[3] {
		t.Errorf("%v, %+v", err, parsed)
	}
	for what, change := range map[string]func(o *wire.TransferOffer){
		"hash":  func(o *wire.TransferOffer) { o.ManifestHash[0]++ },
		"files": func(o *wire.TransferOffer) { o.Files++ },
		"total": func(o *wire.TransferOffer) { o.TotalSize++ },
	} {
		o := offer
		change(&o)
		if _, err := ParseManifest(o, m.Encoded); !errors.Is(err, ErrManifest) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	if _, err := NewManifest(65536, []wire.FileEntry{{Size: (MaxChunks + 1) * 65536, Path: "x"}}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many chunks: %v", err)
	}
	if _, err := NewManifest(65536, nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("no files: %v", err)
	}
}

func TestSizeFor(t *testing.T) {
	for total, want := range map[uint64]uint32{0: 256 << 10, 16 << 30: 256 << 10, 16<<30 + 1<<18: 512 << 10, 1 << 40: 4 << 20, wire.MaxTotalSize: 4 << 20} {
		if got := SizeFor(total); got != want || !wire.ValidChunkSize(got) {
			t.Errorf("SizeFor(%d) = %d, want %d", total, got, want)
		}
	}
}

// TestRoots pins the roots: their definition is on the wire (PROTOCOL.md section 10). The values were computed with an independent
// program from that definition.
func TestRoots(t *testing.T) {
	m, err := NewManifest(65536, []wire.FileEntry{{Size: 0, Path: "a"}, {Size: 65537, Path: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	h := []wire.Hash{{1}, {2}}
	empty, file := m.FileRoot(0, nil), m.FileRoot(1, h)
	delivery := m.DeliveryRoot(wire.ID{3}, wire.ID{4}, m.All(), func(f uint32) wire.Hash { return []wire.Hash{empty, file}[f] })
	one := wire.NewBitmap(2)
	one.Set(1)
	part := m.DeliveryRoot(wire.ID{3}, wire.ID{4}, one, func(uint32) wire.Hash { return file })
	for what, got := range map[string]wire.Hash{emptyRoot: empty, fileRoot: file, deliveryRoot: delivery, partRoot: part} {
		if hex.EncodeToString(got[:]) != what {
			t.Errorf("root %v, want %s", got, what)
		}
	}
}

const (
	emptyRoot    = "10c625dc3ca38ea861252de7314bed0091f0b8e38a4cd85b29d18073d0f21f53"
	fileRoot     = "971e68ff1a043614fec1103bc19300f4e1e15486c591b14797db4a9ac72e72f9"
	deliveryRoot = "4872d0ef8c9a269620b0e35d77411e8fafe2dc51cda1d5c69a3959edc9a135ae"
	partRoot     = "4c06557e2ca3a0074bfd9a562992dc420f6560cf39c97c8069214cf19a595fb3"
)
