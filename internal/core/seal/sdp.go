package seal

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"tallow/internal/core/wire"
)

// ErrSDP means a session description without one SHA-256 DTLS fingerprint, with another one besides, with media other than
// one section for data channels, or too long.
var ErrSDP = errors.New("seal: unusable session description")

// Fingerprint is the SHA-256 DTLS fingerprint of a session description (RFC 8122), which must hold it, on any number of lines, and
// no other. Wherever else a line has the word is an error too, so that no two parsers can disagree. The description must also have
// exactly one media section, for data channels (RFC 8841). The error wraps ErrSDP.
func Fingerprint(sdp string) (fingerprint [32]byte, err error) {
	found, media := false, 0
	for line := range strings.SplitSeq(strings.TrimSuffix(sdp, "\n"), "\n") {
		line = strings.TrimSuffix(line, "\r")
		switch {
		case strings.ContainsAny(line, "\r\x00"):
			return [32]byte{}, fmt.Errorf("%w: stray control character", ErrSDP)
		case len(line) < 2 || line[0] < 'a' || line[0] > 'z' || line[1] != '=':
			// Some browsers trim lines and take M for m.
			return [32]byte{}, fmt.Errorf("%w: no type at the start of a line", ErrSDP)
		case line[0] == 'm':
			if media++; media > 1 || !isDataChannels(line) {
				return [32]byte{}, fmt.Errorf("%w: media other than data channels", ErrSDP)
			}
		case strings.Contains(strings.ToLower(line), "fingerprint"):
			f, ok := parseFingerprint(line)
			if !ok {
				return [32]byte{}, fmt.Errorf("%w: fingerprint that is not SHA-256", ErrSDP)
			}
			if found && f != fingerprint {
				return [32]byte{}, fmt.Errorf("%w: different fingerprints", ErrSDP)
			}
			fingerprint, found = f, true
		}
	}
	if !found || media == 0 {
		return [32]byte{}, fmt.Errorf("%w: no fingerprint, or no media", ErrSDP)
	}
	return fingerprint, nil
}

// isDataChannels reports whether a media line is for data channels: "m=application 9 UDP/DTLS/SCTP webrtc-datachannel".
func isDataChannels(line string) bool {
	f := strings.Split(line, " ")
	if len(f) != 4 || f[0] != "m=application" || f[3] != "webrtc-datachannel" {
		return false
	}
	_, err := strconv.ParseUint(f[1], 10, 16)
	return err == nil && (f[2] == "UDP/DTLS/SCTP" || f[2] == "TCP/DTLS/SCTP")
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
