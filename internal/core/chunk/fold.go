package chunk

import (
	_ "embed"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// What characters become in fold, where that is more than their simple case folding: lines of a result, a tab, and the characters.
// TestFoldTable makes it, from the decompositions and case foldings of Unicode: the packages that have them whole would make the
// program for the browser larger by several times as much.
//
//go:embed fold.txt
var foldText string

var foldTable = sync.OnceValue(func() map[rune]string {
	table := make(map[rune]string)
	for line := range strings.Lines(foldText) {
		result, characters, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		for _, r := range characters {
			table[r] = result
		}
	}
	return table
})

// fold maps names that some file system takes for the same to the same key: those that differ only in case (also "ß" and "SS"),
// canonically equivalent ones, and those that differ in what is not seen. Combining marks are dropped, which at worst numbers a name
// that did not need it.
func fold(s string) string {
	ascii := true
	for i := range len(s) {
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if ascii {
		return strings.ToLower(s)
	}
	var b strings.Builder
	for _, r := range s {
		if result, ok := foldTable()[r]; ok {
			b.WriteString(result)
		} else if r >= firstSyllable && r <= lastSyllable {
			foldSyllable(&b, r)
		} else if r = simpleFold(r); !strings.ContainsRune(joiners, r) && !unicode.Is(unicode.Mn, r) {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func simpleFold(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }

const (
	firstSyllable = 0xac00
	lastSyllable  = 0xd7a3
)

// foldSyllable takes a Hangul syllable apart: The Unicode Standard, section 3.12.
func foldSyllable(b *strings.Builder, r rune) {
	index := r - firstSyllable
	b.WriteRune(0x1100 + index/(21*28))
	b.WriteRune(0x1161 + index/28%21)
	if last := index % 28; last > 0 {
		b.WriteRune(0x11a7 + last)
	}
}
