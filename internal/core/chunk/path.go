package chunk

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"tallow/internal/core/wire"
)

const (
	maxElement = 200 // bytes of a path element; file systems stop at 255
	maxDepth   = 32  // elements of a path
)

// SafePath turns the path that a stranger gave a file into a relative one that is safe to show and to create on any
// common system: no escape, no control or direction-changing characters, no reserved names or characters.
// It never returns an empty path or element.
func SafePath(path string) string {
	var elements []string
	for _, e := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		if e != "." && e != ".." {
			elements = append(elements, safeElement(e))
		}
	}
	if len(elements) == 0 {
		return "file"
	}
	if n := len(elements); n > maxDepth { // the name matters most
		elements = append(elements[:maxDepth-1], elements[n-1])
	}
	return strings.Join(elements, "/")
}

// SafePaths is SafePath for a whole file set, without collisions, whether or not the file system minds case: no two files have the same
// path, and no file has that of a folder.
func SafePaths(files []wire.FileEntry) []string {
	out := make([]string, len(files))
	folders := map[string]bool{}
	for i, f := range files {
		out[i] = SafePath(f.Path)
		for at := strings.IndexByte(out[i], '/'); at >= 0; {
			folders[fold(out[i][:at])] = true
			next := strings.IndexByte(out[i][at+1:], '/')
			if next < 0 {
				break
			}
			at += 1 + next
		}
	}
	taken := make(map[string]bool, len(files))
	next := map[string]int{} // the number to try for a name that is taken: a set of equal names costs no more than another
	for i, f := range files {
		safe := out[i]
		candidate, name := safe, fold(safe)
		for taken[fold(candidate)] || f.Kind != wire.KindDirectory && folders[fold(candidate)] {
			next[name] = max(next[name], 1) + 1
			candidate = numbered(safe, next[name])
		}
		taken[fold(candidate)] = true
		out[i] = candidate
	}
	return out
}

// Base is the last element of a safe path.
func Base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// fold maps names that some file system takes for the same to the same key. Normalisation forms are approximated by
// dropping combining marks, which at worst numbers a name that did not need it.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Mn, r) {
			return -1
		}
		return unicode.ToLower(unicode.ToUpper(r))
	}, s)
}

func numbered(path string, n int) string {
	stem, ext := splitExt(path)
	return stem + " (" + strconv.Itoa(n) + ")" + ext
}

// splitExt splits before the last dot of the last element, unless that begins the element or leaves a long extension.
func splitExt(path string) (stem, ext string) {
	dot := strings.LastIndexByte(path, '.')
	if dot <= strings.LastIndexByte(path, '/')+1 || len(path)-dot > 16 {
		return path, ""
	}
	return path[:dot], path[dot:]
}

func safeElement(e string) string {
	e = strings.Map(func(r rune) rune {
		switch {
		case r == '\u200c', r == '\u200d': // joiners: Persian, Indic scripts and emoji need them
			return r
		case r == utf8.RuneError, unicode.Is(unicode.Cc, r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Zl, r),
			unicode.Is(unicode.Zp, r), strings.ContainsRune(`<>:"|?*`, r):
			return '_'
		case unicode.Is(unicode.Zs, r):
			return ' '
		}
		return r
	}, e)
	e = strings.TrimLeft(strings.TrimRight(e, ". "), " ")
	if e == "" || reserved(e) {
		e = "_" + e
	}
	if len(e) > maxElement {
		stem, ext := splitExt(e)
		stem = stem[:maxElement-len(ext)]
		for !utf8.ValidString(stem) {
			stem = stem[:len(stem)-1]
		}
		e = strings.TrimRight(stem, ". ") + ext
	}
	return e
}

// reserved reports whether Windows takes a name for a device, with any extension.
func reserved(e string) bool {
	stem, _, _ := strings.Cut(strings.ToUpper(e), ".")
	stem = strings.TrimRight(stem, " ")
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	if rest, ok := strings.CutPrefix(stem, "COM"); ok || strings.HasPrefix(stem, "LPT") {
		if !ok {
			rest = stem[len("LPT"):]
		}
		return len(rest) == 1 && rest[0] >= '0' && rest[0] <= '9' || rest == "¹" || rest == "²" || rest == "³"
	}
	return false
}
