package seal

import (
	"errors"
	"strings"
	"testing"
)

func TestFingerprint(t *testing.T) {
	digits := strings.Repeat("0a:", 31) + "FF"
	line := "a=fingerprint:sha-256 " + digits
	other := "a=fingerprint:sha-256 " + strings.Repeat("0a:", 31) + "FE"
	var want [32]byte
	for i := range want {
		want[i] = 0x0a
	}
	want[31] = 0xff

	for name, sdp := range map[string]string{
		"session level":      "v=0\r\n" + line + "\r\nm=application\r\n",
		"media level":        "v=0\r\nm=application\r\n" + line + "\r\n",
		"line feeds only":    "v=0\n" + line + "\n",
		"no line end":        "v=0\r\n" + line,
		"twice the same":     "v=0\r\n" + line + "\r\nm=application\r\n" + line + "\r\n",
		"twice, other case":  "v=0\r\n" + line + "\r\n" + "a=fingerprint:SHA-256 " + strings.ToUpper(digits) + "\r\n",
		"setup line besides": "v=0\r\na=setup:actpass\r\n" + line + "\r\n",
	} {
		if got, err := Fingerprint(sdp); err != nil || got != want {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	for name, sdp := range map[string]string{
		"empty":                       "",
		"none":                        "v=0\r\n",
		"two":                         "v=0\r\n" + line + "\r\n" + other + "\r\n",
		"two algorithms":              line + "\r\na=fingerprint:sha-1 " + digits[:59] + "\r\n",
		"another algorithm":           "a=fingerprint:sha-512 " + digits + "\r\n",
		"sha-1":                       "a=fingerprint:sha-1 " + digits[:59] + "\r\n",
		"too short":                   line[:len(line)-1] + "\r\n",
		"a byte less":                 line[:len(line)-3] + "\r\n",
		"too long":                    line + ":00\r\n",
		"trailing space":              line + " \r\n",
		"no hexadecimal":              strings.Replace(line, "FF", "FG", 1) + "\r\n",
		"sign":                        strings.Replace(line, "FF", "+F", 1) + "\r\n",
		"another separator":           strings.Replace(line, ":0a:", "-0a:", 1) + "\r\n",
		"no separator":                "a=fingerprint:sha-256 " + strings.Repeat("0a", 47) + "0\r\n",
		"two spaces":                  strings.Replace(line, " ", "  ", 1) + "\r\n",
		"capital attribute":           line + "\r\n" + strings.Replace(other, "fingerprint", "Fingerprint", 1) + "\r\n",
		"indented":                    line + "\r\n " + other + "\r\n",
		"hidden in a line":            line + "\r\ns=x" + other + "\r\n",
		"behind a bare return":        line + "\r\ns=x\r" + other + "\r\n",
		"a bare return, anywhere":     line + "\r\ns=x\rs=y\r\n",
		"a NUL":                       line + "\r\ns=x\x00\r\n",
		"the word, where it is not":   line + "\r\ns=fingerprint\r\n",
		"two returns before the feed": line + "\r\r\n",
	} {
		if got, err := Fingerprint(sdp); !errors.Is(err, ErrSDP) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}
