package peer

import (
	"net/netip"
	"strings"
	"unicode"

	"tallow/internal/core/wire"
)

// Relay only: a connection that may use nothing but relays tells of no other address, and takes none. The browser's own policy
// (iceTransportPolicy) is about gathering only, and browsers differ in what they still write into descriptions; so what leaves and what
// comes in is checked here as well.

// relayCandidate is a candidate line as it may leave, or come in, where only relays may be used: ok is false unless it is a relay's. Its address must
// be literal, since whoever serves a name sees who looks it up. What it says besides about where it was gathered (related address, network) goes.
func relayCandidate(line string) (relayed string, ok bool) {
	f := strings.Fields(line)
	if len(f) < 8 || !strings.HasPrefix(f[0], "candidate:") || f[6] != "typ" || f[7] != "relay" {
		return "", false
	}
	address, err := netip.ParseAddr(f[4])
	if err != nil || address.Zone() != "" {
		return "", false
	}
	nowhere := "0.0.0.0"
	if address.Is6() {
		nowhere = "::"
	}
	out := append(f[:8:8], "raddr", nowhere, "rport", "0")
	for rest := f[8:]; len(rest) >= 2; rest = rest[2:] {
		switch rest[0] {
		case "generation", "ufrag", "tcptype":
			out = append(out, rest[0], rest[1])
		}
	}
	return strings.Join(out, " "), true
}

// relayDescription is a description as it may leave, or come in, where only relays may be used: without other candidates, and with no address in
// the lines that name a default one. strays are the types of the candidates left out. Browsers differ in what they still take for a line, or a candidate,
// so what is not written as it should be goes, too.
func relayDescription(sdp string) (relayed string, strays []string) {
	var b strings.Builder
	for _, line := range strings.FieldsFunc(sdp, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if len(line) < 2 || line[0] < 'a' || line[0] > 'z' || line[1] != '=' || strings.Contains(line, "\x00") {
			continue
		}
		switch value := line[2:]; line[0] {
		case 'o':
			f := append(strings.Fields(value), "-", "0", "0")
			line = "o=" + strings.Join(f[:3], " ") + " IN IP4 0.0.0.0"
		case 'c':
			line = "c=IN IP4 0.0.0.0"
		case 'm':
			if f := strings.Fields(value); len(f) > 2 && f[1] != "0" { // 0 refuses the section, 9 says that candidates come
				f[1] = "9"
				line = "m=" + strings.Join(f, " ")
			}
		case 'a':
			switch attributeName(value) {
			case "candidate":
				candidate, ok := relayCandidate(value)
				if !ok {
					strays = append(strays, CandidateType(value))
					continue
				}
				line = "a=" + candidate
			case "remote-candidates", "rtcp":
				continue
			}
		}
		b.WriteString(line)
		b.WriteString("\r\n")
	}
	return b.String(), strays
}

// attributeName is what the most lenient parser takes for an attribute's name: Firefox's skips colons and blanks before it, and the case of letters.
func attributeName(value string) string {
	blank := func(r rune) bool { return r == ':' || r <= ' ' || unicode.IsSpace(r) }
	name := strings.TrimLeftFunc(value, blank)
	if end := strings.IndexFunc(name, blank); end >= 0 {
		name = name[:end]
	}
	return strings.ToLower(name)
}

// CandidateType is the type that a candidate line names: host, srflx, prflx or relay; "" if it names none of these.
func CandidateType(line string) string {
	if f := strings.Fields(line); len(f) > 7 {
		switch f[7] {
		case "host", "srflx", "prflx", "relay":
			return f[7]
		}
	}
	return ""
}

// usable are the servers that a connection may ask. Where only relays may be used, no other server is told that we are there.
func usable(ice wire.ICEServers, relayOnly bool) []wire.ICEServer {
	if !relayOnly {
		return ice.Servers
	}
	var list []wire.ICEServer
	for _, s := range ice.Servers {
		var urls []string
		for _, url := range s.URLs {
			if wire.IsTURN(url) {
				urls = append(urls, url)
			}
		}
		if len(urls) > 0 {
			s.URLs = urls
			list = append(list, s)
		}
	}
	return list
}
