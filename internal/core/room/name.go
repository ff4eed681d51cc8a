package room

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// legible is a member's name as it is shown: without what is no character, is not seen, or turns the text around it.
func legible(name string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\u200c', r == '\u200d': // joiners: Persian, Indic scripts and emoji need them
			return r
		case r == utf8.RuneError, unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			return -1
		}
		return r
	}, name))
}
