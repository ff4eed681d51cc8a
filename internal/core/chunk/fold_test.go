package chunk

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

var update = flag.Bool("update", false, "write fold.txt anew")

// canonical is what two names have in common that some file system takes for the same: full case folding, canonical decomposition, and
// nothing that is ignored.
func canonical(s string) string { return norm.NFD.String(folder.String(norm.NFD.String(s))) }

var folder = cases.Fold()

// wantFold is fold, from the packages that know all of Unicode.
func wantFold(s string) string {
	var b strings.Builder
	for _, r := range canonical(s) {
		if !unicode.Is(unicode.Mn, r) && !strings.ContainsRune(joiners, r) {
			b.WriteRune(simpleFold(r))
		}
	}
	return b.String()
}

// TestFoldTable holds fold against wantFold for every character; -update writes fold.txt.
func TestFoldTable(t *testing.T) {
	results := map[string][]rune{}
	for r := rune(0); r < 0x2fa20; r++ { // nothing decomposes beyond
		switch {
		case r == 0x3400 && !*update: // ideographs: themselves
			r = 0x9fff
		case r == 0xd800: // no characters
			r = 0xdfff
		}
		want := wantFold(string(r))
		if want != string(simpleFold(r)) && want != "" && (r < firstSyllable || r > lastSyllable) {
			results[want] = append(results[want], r)
		}
		if got := fold(string(r)); !*update && got != want {
			t.Errorf("%U %q: %q, want %q", r, r, got, want)
		}
	}
	if !*update {
		return
	}
	var lines []string
	for result, characters := range results {
		lines = append(lines, result+"\t"+string(characters)+"\n")
	}
	slices.Sort(lines)
	if err := os.WriteFile("fold.txt", []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}
