package peer

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pion/webrtc/v4"

	"tallow/internal/core/wire"
)

func TestRelayCandidate(t *testing.T) {
	for name, tt := range map[string]struct{ line, want string }{
		"Chromium": {
			"candidate:2154 1 udp 41885695 203.0.113.5 50014 typ relay raddr 192.168.1.7 rport 50000 generation 0 ufrag Ab1+ network-id 1 network-cost 10",
			"candidate:2154 1 udp 41885695 203.0.113.5 50014 typ relay raddr 0.0.0.0 rport 0 generation 0 ufrag Ab1+",
		},
		"Firefox": {
			"candidate:3 1 UDP 92217087 203.0.113.5 50014 typ relay raddr 192.168.1.7 rport 50000",
			"candidate:3 1 UDP 92217087 203.0.113.5 50014 typ relay raddr 0.0.0.0 rport 0",
		},
		"IPv6": {
			"candidate:3 1 udp 92217087 2001:db8::5 50014 typ relay raddr fd00::7 rport 50000 generation 0",
			"candidate:3 1 udp 92217087 2001:db8::5 50014 typ relay raddr :: rport 0 generation 0",
		},
		"an unknown extension": {
			"candidate:3 1 udp 1 203.0.113.5 50014 typ relay home 192.168.1.7 ufrag x odd",
			"candidate:3 1 udp 1 203.0.113.5 50014 typ relay raddr 0.0.0.0 rport 0 ufrag x",
		},
		"host":            {"candidate:1 1 udp 2122260223 192.168.1.7 50000 typ host generation 0", ""},
		"mDNS":            {"candidate:1 1 udp 2122260223 4f1c5a9e-1b2c-4d5e-8f90-1a2b3c4d5e6f.local 50000 typ host", ""},
		"srflx":           {"candidate:2 1 udp 1686052607 198.51.100.9 50000 typ srflx raddr 192.168.1.7 rport 50000", ""},
		"prflx":           {"candidate:2 1 udp 1686052607 198.51.100.9 50000 typ prflx raddr 192.168.1.7 rport 50000", ""},
		"TCP host":        {"candidate:2 1 tcp 1518280447 192.168.1.7 9 typ host tcptype active", ""},
		"a name":          {"candidate:3 1 udp 1 who-asks.example 50014 typ relay raddr 0.0.0.0 rport 0", ""},
		"mDNS, as relay":  {"candidate:3 1 udp 1 4f1c5a9e.local 50014 typ relay", ""},
		"a zone":          {"candidate:3 1 udp 1 fe80::1%eth0 50014 typ relay", ""},
		"an unknown type": {"candidate:3 1 udp 1 203.0.113.5 50014 typ tunnel", ""},
		"relay elsewhere": {"candidate:3 1 udp 1 192.168.1.7 5 typ host typ relay", ""},
		"too short":       {"candidate:3 1 udp 1 203.0.113.5 50014 typ", ""},
		"no candidate":    {"a=candidate:3 1 udp 1 203.0.113.5 50014 typ relay", ""},
		"empty":           {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := relayCandidate(tt.line)
			if got != tt.want || ok != (tt.want != "") {
				t.Fatalf("got  %q %v\nwant %q", got, ok, tt.want)
			}
		})
	}
}

// What two browsers say of a connection, gathered without regard to the policy.
const (
	chromiumDescription = "v=0\r\no=- 4611731400430051336 2 IN IP4 192.168.1.7\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS\r\n" +
		"m=application 50000 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 198.51.100.9\r\n" +
		"a=candidate:1 1 udp 2122260223 192.168.1.7 50000 typ host generation 0 network-id 1 network-cost 10\r\n" +
		"a=candidate:2 1 udp 1686052607 198.51.100.9 50000 typ srflx raddr 192.168.1.7 rport 50000 generation 0\r\n" +
		"a=candidate:3 1 udp 41885695 203.0.113.5 50014 typ relay raddr 198.51.100.9 rport 50000 generation 0\r\n" +
		"a=ice-ufrag:Ab1+\r\na=ice-pwd:oT5X2Vr0xgeH6k0n2V3y4z5A\r\na=ice-options:trickle\r\na=fingerprint:sha-256 00:11\r\na=setup:actpass\r\na=mid:0\r\n" +
		"a=sctp-port:5000\r\na=max-message-size:262144\r\n"
	chromiumRelayed = "v=0\r\no=- 4611731400430051336 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS\r\n" +
		"m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n" +
		"a=candidate:3 1 udp 41885695 203.0.113.5 50014 typ relay raddr 0.0.0.0 rport 0 generation 0\r\n" +
		"a=ice-ufrag:Ab1+\r\na=ice-pwd:oT5X2Vr0xgeH6k0n2V3y4z5A\r\na=ice-options:trickle\r\na=fingerprint:sha-256 00:11\r\na=setup:actpass\r\na=mid:0\r\n" +
		"a=sctp-port:5000\r\na=max-message-size:262144\r\n"
	firefoxDescription = "v=0\no=mozilla...THIS_IS_SDPARTA-99.0 12 0 IN IP6 fd00::7\ns=-\nt=0 0\nm=application 0 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP6 fd00::7\n" +
		"a=rtcp:50001 IN IP6 fd00::7\na=remote-candidates:1 192.168.1.7 50000\na=candidate:0 1 UDP 2122252543 4f1c.local 50000 typ host\na=end-of-candidates\n"
	firefoxRelayed = "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 12 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\n" +
		"a=end-of-candidates\r\n"
)

const hostCandidate = "1 1 udp 2122260223 192.168.1.7 50000 typ host"

func TestRelayDescription(t *testing.T) {
	for name, tt := range map[string]struct {
		sdp, want string
		strays    []string
	}{
		"Chromium":       {chromiumDescription, chromiumRelayed, []string{"host", "srflx"}},
		"Firefox":        {firefoxDescription, firefoxRelayed, []string{"host"}},
		"as it was":      {chromiumRelayed, chromiumRelayed, nil},
		"short lines":    {"o=-\nc=\nm=\na=candidate:\na=\n=\na", "o=- - 0 IN IP4 0.0.0.0\r\nc=IN IP4 0.0.0.0\r\nm=\r\na=\r\n", []string{""}},
		"no description": {"", "", nil},

		// What one parser or another takes for a candidate all the same.
		"capitals":                    {"a=CANDIDATE:" + hostCandidate, "", []string{"host"}},
		"a capital":                   {"a=Candidate:" + hostCandidate, "", []string{"host"}},
		"a blank":                     {"a= candidate:" + hostCandidate, "", []string{"host"}},
		"a tab":                       {"a=\tcandidate:" + hostCandidate, "", []string{"host"}},
		"a colon":                     {"a=:candidate:" + hostCandidate, "", []string{"host"}},
		"colons and blanks":           {"a=: :\t:candidate:" + hostCandidate, "", []string{""}},
		"a blank after the name":      {"a=candidate " + hostCandidate, "", []string{""}},
		"a blank before the colon":    {"a=candidate :" + hostCandidate, "", []string{""}},
		"a relay's, in capitals":      {"a=CANDIDATE:3 1 udp 1 203.0.113.5 50014 typ relay", "", []string{"relay"}},
		"a capital type":              {"A=candidate:" + hostCandidate, "", nil},
		"blanks before the type":      {" a=candidate:" + hostCandidate + "\n\ta=candidate:" + hostCandidate, "", nil},
		"a blank after the type":      {"a =candidate:" + hostCandidate, "", nil},
		"lines that end with CR only": {"a=mid:0\ra=candidate:" + hostCandidate + "\ra=setup:active\r", "a=mid:0\r\na=setup:active\r\n", []string{"host"}},
		"NUL":                         {"a=mid:0\n\x00a=candidate:" + hostCandidate + "\na=\x00candidate:" + hostCandidate + "\na=candidate\x00:" + hostCandidate, "a=mid:0\r\n", nil},
		"other lines with addresses": {"a=RTCP:50001 IN IP4 192.168.1.7\na= rtcp:50001 IN IP4 192.168.1.7\na=rtcp 50001 IN IP4 192.168.1.7\na=Remote-Candidates:1 192.168.1.7 50000\n" +
			"a=:remote-candidates:1 192.168.1.7 50000\nC=IN IP4 192.168.1.7\n c=IN IP4 192.168.1.7\nO=- 1 1 IN IP4 192.168.1.7", "", nil},
		"names that only begin so": {"a=rtcp-mux\na=rtcp-fb:1 nack\na=candidates:x\na=end-of-candidates\n", "a=rtcp-mux\r\na=rtcp-fb:1 nack\r\na=candidates:x\r\na=end-of-candidates\r\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, strays := relayDescription(tt.sdp)
			if got != tt.want || !slices.Equal(strays, tt.strays) {
				t.Fatalf("got %q\n%q\nwant %q\n%q", strays, got, tt.strays, tt.want)
			}
		})
	}
}

// named is a line that a lenient parser takes for one that may name an address.
var named = regexp.MustCompile(`(?i)^[\s\x00]*a[\s\x00]*=[\s:\x00]*(candidate|remote-candidates|rtcp)([\s:\x00]|$)`)

func FuzzRelayDescription(f *testing.F) {
	for _, seed := range []string{chromiumDescription, firefoxDescription, "a=candidate:1 1 udp 1 192.168.1.7 1 typ relay", "a=candidate:\va=candidate:",
		"a=CANDIDATE:" + hostCandidate, "a= :candidate:" + hostCandidate, " A =\tcandidate " + hostCandidate + "\ra=\x00Rtcp:1", "a=:Remote-Candidates:1 192.168.1.7 1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sdp string) {
		relayed, _ := relayDescription(sdp)
		again, strays := relayDescription(relayed)
		if again != relayed || len(strays) > 0 {
			t.Fatalf("not stable: %q, then %q, %q", relayed, again, strays)
		}
		for _, line := range regexp.MustCompile(`[\r\n]+`).Split(relayed, -1) {
			odd := named.FindStringSubmatch(line)
			switch value, ok := strings.CutPrefix(line, "a="); {
			case odd == nil:
			case !strings.EqualFold(odd[1], "candidate") || !ok:
				t.Fatalf("left: %q", line)
			default:
				if _, ok := relayCandidate(value); !ok {
					t.Fatalf("left: %q", line)
				}
			}
		}
	})
}

func TestUsableServers(t *testing.T) {
	ice := wire.ICEServers{Servers: []wire.ICEServer{
		{URLs: []string{"stun:a.example"}},
		{URLs: []string{"stun:b.example", "TURN:b.example?transport=udp", "turns:b.example:443"}, Username: "u", Credential: "c"},
		{URLs: []string{"stuns:c.example"}},
	}}
	if got := usable(ice, false); len(got) != 3 {
		t.Errorf("%d servers", len(got))
	}
	got := usable(ice, true)
	if len(got) != 1 || !slices.Equal(got[0].URLs, []string{"TURN:b.example?transport=udp", "turns:b.example:443"}) || got[0].Username != "u" || got[0].Credential != "c" {
		t.Errorf("relay only: %+v", got)
	}
	if len(ice.Servers[1].URLs) != 3 {
		t.Error("the servers themselves were changed")
	}
}

// What the platform is told: relays only, and of no other server, at first and when servers are renewed; until the demand is lifted, if it was one.
func TestConnRelayPolicy(t *testing.T) {
	servers := func(user string, demanded bool) wire.ICEServers {
		return wire.ICEServers{RelayOnly: demanded, Servers: []wire.ICEServer{
			{URLs: []string{"stun:127.0.0.1:1"}},
			{URLs: []string{"turn:127.0.0.1:1"}, Username: user, Credential: "password"},
		}}
	}
	for name, own := range map[string]bool{"own choice": true, "demanded": false} {
		t.Run(name, func(t *testing.T) {
			e := newEndWith(t, labs(t)[0], ConnConfig{ICE: servers("first", !own), RelayOnly: own})
			expect := func(user string, relayOnly bool) {
				t.Helper()
				cfg := e.Conn.(*conn).pc.GetConfiguration()
				policy, urls := webrtc.ICETransportPolicyAll, []string{"stun:127.0.0.1:1", "turn:127.0.0.1:1"}
				if relayOnly {
					policy, urls = webrtc.ICETransportPolicyRelay, urls[1:]
				}
				var got []string
				for _, s := range cfg.ICEServers {
					got = append(got, s.URLs...)
				}
				if e.Conn.(*conn).relayOnly.Load() != relayOnly {
					t.Errorf("%s: what is told and taken is not held to it", user)
				}
				if cfg.ICETransportPolicy != policy || !slices.Equal(got, urls) || cfg.ICEServers[len(cfg.ICEServers)-1].Username != user {
					t.Errorf("%s: %v, %+v", user, cfg.ICETransportPolicy, cfg.ICEServers)
				}
			}
			expect("first", true)
			if err := e.SetICEServers(testContext(t), servers("second", !own)); err != nil {
				t.Fatal(err)
			}
			expect("second", true)
			if err := e.SetICEServers(testContext(t), servers("third", false)); err != nil {
				t.Fatal(err)
			}
			expect("third", own)
		})
	}
}
