package chunk

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

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
		{"../..\\../a/..\\..", "a"},
		{"....//....//etc/passwd", "_/_/etc/passwd"},
		{". ./.. /...\u3000/x", "_/_/_/x"},
		{"..\u200d/x", ".._/x"},
		{"//server/share/x", "server/share/x"},
		{`\\?\C:\x`, "_/C_/x"},
		{`\\.\pipe\x`, "pipe/x"},
		{"file:///etc/passwd", "file_/etc/passwd"},
		{"notes.txt:stream:$DATA", "notes.txt_stream_$DATA"},
		{"dir::$INDEX_ALLOCATION/x", "dir__$INDEX_ALLOCATION/x"},
		{"\xc0\xae\xc0\xae\xc0\xafetc", "______etc"}, // "../etc", overlong
		{"\xe0\x80\xaf\xed\xa0\x80\xf4\x90\x80\x80", "__________"},
		{"%2e%2e%2fetc", "%2e%2e%2fetc"},
		{"~", "_"},
		{"~root/.ssh/authorized_keys", "_root/.ssh/authorized_keys"},
		{"SECRET~1.TXT", "SECRET_1.TXT"},
		{"-rf", "_-rf"},
		{"--checkpoint-action=exec=sh x.sh", "_--checkpoint-action=exec=sh x.sh"},
		{"a/-/b", "a/_-/b"},
		{".bashrc", ".bashrc"},
		{"..a/.b", "..a/.b"},
		{"line\nfeed\rreturn\ttab\x7fdelete\u0085next\u009bCSI", "line_feed_return_tab_delete_next_CSI"},
		{"\x1b]0;title\x07\x1b]8;;http://x\x07a", "_]0;title__]8;;http_/x_a"},
		{"a\u202ab\u202bc\u202cd\u202de\u2066f\u2067g\u2068h\u2069i\u061cj\u200ek\u200fl", "a_b_c_d_e_f_g_h_i_j_k_l"},
		{"a\ufeffb\u2060c\u00add\u180ee", "a_b_c_d_e"},
		{"tag\U000e0041s", "tag_s"},
		{"docu\u200dment.p\u200cdf", "docu_ment.p_df"},
		{"\u200d", "_"},
		{"\u3164\u115f\u1160\uffa0", "____"}, // letters that nobody sees
		{"\u2800", "_"},
		{"می\u200cخواهم", "می\u200cخواهم"},
		{"می\u200c\u200cخواهم\u200c", "می\u200c_خواهم"},
		{"🏳️\u200d🌈", "🏳️\u200d🌈"},
		{"private\uf022\U000f0000", "private__"}, // U+F022 is ':' to who mounts foreign disks
		{"\ufdd0\uffff\U0001fffe", "___"},
		{"PRN", "_PRN"}, {"aux.", "_aux"}, {"NUL ", "_NUL"}, {"nul.tar.gz", "_nul.tar.gz"}, {"nul .txt", "_nul .txt"},
		{"COM0", "_COM0"}, {"COM9.x", "_COM9.x"}, {"lpt³", "_lpt³"}, {"CONOUT$.txt", "_CONOUT$.txt"}, {"clock$", "_clock$"},
		{"d/CON/e", "d/_CON/e"}, {"CON:", "CON_"}, {"COM1\u00a0", "_COM1"}, {"COMX", "COMX"}, {"COM¹¹", "COM¹¹"}, {"nullify", "nullify"},
		{"desktop.ini", "_desktop.ini"}, {"a/Desktop.INI", "a/_Desktop.INI"}, {"AUTORUN.inf", "_AUTORUN.inf"}, {"thumbs.db .", "_thumbs.db"},
		{"my desktop.ini", "my desktop.ini"},
		{"x. . .", "x"}, {"x.\u2003", "x"}, {"a /b. /c", "a/b/c"}, {" .x", ".x"},
		{"<script>alert(1)</script>", "_script_alert(1)_/script_"},
		{`"><svg onload=alert(1)>`, "___svg onload=alert(1)_"},
	} {
		if got := SafePath(test.in); got != test.want {
			t.Errorf("SafePath(%q) = %q, want %q", test.in, got, test.want)
		}
	}
	for _, c := range []string{"x", "ü", "日", "😀", "e\u0301", ".", "a.", "x ", "\xff", "-", "~", "\u202e", "🏳️\u200d🌈", "CON"} {
		for _, ext := range []string{"", ".jpeg", ".a-very-long-extension", ".日本語"} {
			for _, start := range []string{"", "-", ".", "CON", "COM1" + strings.Repeat(" ", 300), "desktop.ini"} {
				in := start + strings.Repeat(c, 500) + ext
				checkSafe(t, in)
				if got := SafePath(in); ext == ".jpeg" && !strings.HasSuffix(got, ext) {
					t.Errorf("%.20q… ends in %q", in, got[len(got)-10:])
				}
			}
		}
	}
	checkSafe(t, strings.Repeat("ü", 10_000)+".jpeg")
	if deep := SafePath(strings.Repeat("d/", 1000) + "name"); strings.Count(deep, "/") >= maxDepth || !strings.HasSuffix(deep, "/name") {
		t.Errorf("deep path: %q", deep)
	}
}

// checkSafe holds what SafePath makes of a path against what it promises.
func checkSafe(t *testing.T, in string) {
	t.Helper()
	p := SafePath(in)
	for _, e := range strings.Split(p, "/") {
		switch {
		case e == "", e == ".", e == "..", len(e) > maxElement, reserved(e), e[0] == '-', e[0] == ' ',
			strings.HasSuffix(e, "."), strings.HasSuffix(e, " "), strings.ContainsAny(e, "\\:~<>|?*\"\x00\u202e\u200b"):
			t.Errorf("SafePath(%.60q…) has an element %q", in, e)
		}
	}
	if strings.ContainsFunc(p, unicode.IsControl) || !utf8.ValidString(p) || strings.Count(p, "/") >= maxDepth || SafePath(p) != p {
		t.Errorf("SafePath(%.60q…) = %q, and of that %q", in, p, SafePath(p))
	}
}

// sameFile is a key that names have in common which some file system takes for the same: case folded in full, decomposed, without what
// is ignored. It knows all of Unicode, and nothing of fold.
func sameFile(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(joiners, r) || unicode.Is(unicode.Variation_Selector, r) {
			return -1
		}
		return r
	}, canonical(name))
}

func TestSafePaths(t *testing.T) {
	in := []string{"a.txt", "A.TXT", "a.txt", "b/../a.txt", "x", "x (2)", "x",
		"é", "e\u0301", "É", "E\u0301", // composed and not: the same to macOS
		"\u1e69", "s\u0323\u0307", "s\u0307\u0323", // marks in another order
		"straße", "STRASSE", "strasse", "stra\u1e9ee", "ﬁle", "FILE", // cases that are longer: the same to Android
		"\u212bngström", "ångstro\u0308m", "\u2126", "\u03c9", "K", "\u212a", // letters that are units
		"한글", "\u1112\u1161\u11ab\u1100\u1173\u11af", // syllables and their letters
		"\uf900", "\u8c48", "\u0958", "\u0915\u093c", "\u09cb", "\u09c7\u09be", "ᾳ", "αι", "α\u0345",
		"σίσυφος", "ΣΊΣΥΦΟΣ", "ıx", "Ix", "ix", "İx",
		"می\u200cخ", "میخ", "❤", "❤\ufe0f", // what is not seen
		"dir/é/x", "DIR/e\u0301/X", strings.Repeat("ä", 300), strings.Repeat("a\u0308", 300), "?", "*", "_"}
	var files []wire.FileEntry
	for _, p := range in {
		files = append(files, wire.FileEntry{Path: p})
	}
	got := SafePaths(files)
	seen := map[string]bool{}
	for i, p := range got {
		if seen[sameFile(p)] {
			t.Errorf("%q collides as %q", in[i], p)
		}
		seen[sameFile(p)] = true
		checkSafe(t, p)
	}
	if got[0] != "a.txt" || got[1] != "A (2).TXT" || got[2] != "a (3).txt" {
		t.Errorf("%q", got)
	}
	// What no file system confuses keeps its name.
	distinct := []string{"日本語", "東京都", "한글", "한국", "файл", "файлы", "résumé", "ａ.txt", "a.txt", "א", "ב", "ก", "ข", "😀", "😁"}
	files = nil
	for _, p := range distinct {
		files = append(files, wire.FileEntry{Path: p})
	}
	if got := SafePaths(files); !slices.Equal(got, distinct) {
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
	for _, s := range []string{"a/b", "../x", "CON.txt", "\u202e", "CON" + strings.Repeat(" ", 250) + "x.txt", "e\u0301", "\uf900", "ᾳ", "a\u200d", "-~", strings.Repeat("a", 300), "a.b/.c", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkSafe(t, s)
		again := norm.NFD.String(s)
		files := []wire.FileEntry{{Path: "x" + s}, {Path: "x" + again}, {Path: "X" + strings.ToUpper(s)}, {Path: "x" + strings.ToLower(s)}, {Path: "x" + s + "/y"}}
		seen := map[string]bool{}
		for _, p := range SafePaths(files) {
			if seen[sameFile(p)] {
				t.Errorf("%q collides in %q", p, SafePaths(files))
			}
			seen[sameFile(p)] = true
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
