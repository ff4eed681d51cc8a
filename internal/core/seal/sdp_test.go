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

	const (
		session = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
		media   = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
	)
	for name, sdp := range map[string]string{
		"session level":      session + line + "\r\n" + media,
		"media level":        session + media + line + "\r\n",
		"line feeds only":    "v=0\n" + line + "\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\n",
		"no line end":        session + media + line,
		"twice the same":     session + line + "\r\n" + media + line + "\r\n",
		"twice, other case":  session + line + "\r\n" + media + "a=fingerprint:SHA-256 " + strings.ToUpper(digits) + "\r\n",
		"setup line besides": session + media + "a=setup:actpass\r\n" + line + "\r\n",
		"over TCP":           session + line + "\r\nm=application 443 TCP/DTLS/SCTP webrtc-datachannel\r\n",
	} {
		if got, err := Fingerprint(sdp); err != nil || got != want {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}

	// Each is refused for what it is named after: but for that, the description is good.
	good := session + media + line + "\r\n"
	for name, sdp := range map[string]string{
		"empty":                         "",
		"no fingerprint":                session + media,
		"two":                           good + other + "\r\n",
		"two algorithms":                good + "a=fingerprint:sha-1 " + digits[:59] + "\r\n",
		"another algorithm":             session + media + "a=fingerprint:sha-512 " + digits + "\r\n",
		"sha-1":                         session + media + "a=fingerprint:sha-1 " + digits[:59] + "\r\n",
		"too short":                     session + media + line[:len(line)-1] + "\r\n",
		"a byte less":                   session + media + line[:len(line)-3] + "\r\n",
		"too long":                      session + media + line + ":00\r\n",
		"trailing space":                session + media + line + " \r\n",
		"no hexadecimal":                session + media + strings.Replace(line, "FF", "FG", 1) + "\r\n",
		"sign":                          session + media + strings.Replace(line, "FF", "+F", 1) + "\r\n",
		"another separator":             session + media + strings.Replace(line, ":0a:", "-0a:", 1) + "\r\n",
		"no separator":                  session + media + "a=fingerprint:sha-256 " + strings.Repeat("0a", 47) + "0\r\n",
		"two spaces":                    session + media + strings.Replace(line, " ", "  ", 1) + "\r\n",
		"capital attribute":             good + strings.Replace(line, "fingerprint", "Fingerprint", 1) + "\r\n",
		"hidden in a line":              good + "s=x" + line + "\r\n",
		"behind a bare return":          good + "s=x\r" + line + "\r\n",
		"a bare return, anywhere":       good + "s=x\rs=y\r\n",
		"a NUL":                         good + "s=x\x00\r\n",
		"the word, where it is not":     good + "s=fingerprint\r\n",
		"two returns before the feed":   good[:len(good)-1] + "\r\n",
		"indented fingerprint":          good + " " + line + "\r\n",
		"no media":                      session + line + "\r\n",
		"audio":                         good + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
		"audio alone":                   session + line + "\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
		"video first":                   session + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" + media + line + "\r\n",
		"two for data channels":         good + media,
		"a rejected one besides":        good + strings.Replace(media, " 9 ", " 0 ", 1),
		"another application":           session + line + "\r\nm=application 9 UDP/BFCP *\r\n",
		"another format":                session + line + "\r\nm=application 9 UDP/DTLS/SCTP t38\r\n",
		"another format besides":        strings.Replace(good, "webrtc-datachannel", "webrtc-datachannel 0", 1),
		"without DTLS":                  strings.Replace(good, "UDP/DTLS/SCTP", "SCTP", 1),
		"without SCTP":                  strings.Replace(good, "UDP/DTLS/SCTP", "UDP/TLS/RTP/SAVPF", 1),
		"an old form":                   strings.Replace(good, "UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5000", 1),
		"no port":                       strings.Replace(good, " 9 ", " x ", 1),
		"two ports":                     strings.Replace(good, " 9 ", " 9/2 ", 1),
		"a capital M":                   good + "M=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
		"an indented M":                 good + "\tm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
		"a space before the equals":     good + "m =audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
		"a media line with a mark":      "\ufeff" + good,
		"a line without a type":         good + "audio\r\n",
		"an empty line":                 good + "\r\n",
		"an empty line in the middle":   session + "\r\n" + media + line + "\r\n",
		"the word on a media line":      strings.Replace(good, "webrtc-datachannel", "webrtc-datachannel"+" fingerprint", 1),
		"media behind a vertical tab":   good + "\vm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
		"media behind a line separator": good + "\u2028m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
	} {
		if got, err := Fingerprint(sdp); !errors.Is(err, ErrSDP) || got != [32]byte{} {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}
