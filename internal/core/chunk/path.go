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
// common system: no escape, no control, invisible or direction-changing characters, no reserved names or characters. Leading dots stay: hidden
// files are a part of what is sent. It never returns an empty path or element.
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

// SafePaths is SafePath for a whole file set, without collisions, whether or not the file system minds case or Unicode's
// normalisation forms: no two files have the same
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
			candidate = Numbered(safe, next[name])
		}
		taken[fold(candidate)] = true
		out[i] = candidate
	}
	return out
}

// Base is the last element of a safe path.
func Base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// Numbered is a path with a number, for one that is taken: "a/b (2).txt".
func Numbered(path string, n int) string {
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
	before := rune(0)
	e = strings.Map(func(r rune) rune {
		before = safeRune(before, r)
		return before
	}, e)
	e = cut(strings.TrimLeft(trimEnd(e), " "))
	// A leading '-' makes an option of a name, where a shell gives it to a program.
	if e == "" || e[0] == '-' || reserved(e) {
		e = cut("_" + e)
	}
	return e
}

const joiners = "\u200c\u200d"

// safeRune is what becomes of a character behind another one.
func safeRune(before, r rune) rune {
	switch {
	case strings.ContainsRune(joiners, r) && before > unicode.MaxASCII && !strings.ContainsRune(joiners, before):
		return r // Persian, Indic scripts and emoji need them; elsewhere they only hide
	case unicode.Is(unicode.Zs, r):
		return ' '
	case strings.ContainsRune(`<>:"|?*`, r), // Windows
		r == '~',                           // home to a shell, and a part of Windows' short names, by which a file can be had under two
		r == utf8.RuneError, r == '\u2800', // a blank that is no space
		unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp,
			unicode.Other_Default_Ignorable_Code_Point, unicode.Noncharacter_Code_Point):
		return '_'
	}
	return r
}

// trimEnd takes off what Windows ignores at the end of a name, and what nobody sees there.
func trimEnd(s string) string { return strings.TrimRight(s, ". "+joiners) }

// cut shortens an element to maxElement bytes, and keeps its extension.
func cut(e string) string {
	if len(e) <= maxElement {
		return e
	}
	stem, ext := splitExt(e)
	stem = stem[:maxElement-len(ext)]
	for !utf8.ValidString(stem) {
		stem = stem[:len(stem)-1]
	}
	return trimEnd(stem) + ext
}

// reserved reports whether Windows takes a name for a device, with any extension, or acts on a file of that name by itself.
func reserved(e string) bool {
	e = strings.ToUpper(e)
	switch e {
	case "DESKTOP.INI", "THUMBS.DB", "AUTORUN.INF": // desktop.ini fetches icons, also from a stranger's server
		return true
	}
	stem, _, _ := strings.Cut(e, ".")
	stem = strings.TrimRight(stem, " ")
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$":
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
