package seal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"tallow/internal/core/wire"
)

// ErrSDP means a session description without one SHA-256 DTLS fingerprint, with another one besides, or too long.
var ErrSDP = errors.New("seal: unusable session description")

// Fingerprint is the SHA-256 DTLS fingerprint of a session description (RFC 8122), which must hold it, on any number of lines, and
// no other. Wherever else a line has the word is an error too, so that no two parsers can disagree. The error wraps ErrSDP.
func Fingerprint(sdp string) (fingerprint [32]byte, err error) {
	found := false
	for line := range strings.SplitSeq(sdp, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.ContainsAny(line, "\r\x00") {
			return [32]byte{}, fmt.Errorf("%w: stray control character", ErrSDP)
		}
		if !strings.Contains(strings.ToLower(line), "fingerprint") {
			continue
		}
		f, ok := parseFingerprint(line)
		if !ok {
			return [32]byte{}, fmt.Errorf("%w: fingerprint that is not SHA-256", ErrSDP)
		}
		if found && f != fingerprint {
			return [32]byte{}, fmt.Errorf("%w: different fingerprints", ErrSDP)
		}
		fingerprint, found = f, true
	}
	if !found {
		return [32]byte{}, fmt.Errorf("%w: no fingerprint", ErrSDP)
	}
	return fingerprint, nil
}

func parseFingerprint(line string) (f [32]byte, ok bool) {
	value, ok := strings.CutPrefix(line, "a=fingerprint:")
	algorithm, digits, found := strings.Cut(value, " ")
	if !ok || !found || !strings.EqualFold(algorithm, "sha-256") || len(digits) != 3*len(f)-1 {
		return f, false
	}
	for i := range f {
		if i > 0 && digits[3*i-1] != ':' {
			return f, false
		}
		if _, err := hex.Decode(f[i:i+1], []byte(digits[3*i:3*i+2])); err != nil {
			return f, false
		}
	}
	return f, true
}

// checkSDP is Fingerprint for a description that this program is about to send.
func checkSDP(sdp string) ([32]byte, error) {
	if len(sdp) > wire.MaxSDP || !utf8.ValidString(sdp) {
		return [32]byte{}, fmt.Errorf("%w: more than %d bytes or no UTF-8", ErrSDP, wire.MaxSDP)
	}
	return Fingerprint(sdp)
}
