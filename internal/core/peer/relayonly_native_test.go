//go:build !js

package peer

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"
	"github.com/pion/turn/v5"
	"github.com/pion/webrtc/v4"

	"tallow/internal/core/wire"
)

const labRelay = "10.1.9.9"

// relay starts a TURN server in the lab's network.
func (l *lab) relay(t *testing.T) wire.ICEServers {
	t.Helper()
	network, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{labRelay}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.router.AddNet(network); err != nil {
		t.Fatal(err)
	}
	conn, err := network.ListenPacket("udp4", labRelay+":3478")
	if err != nil {
		t.Fatal(err)
	}
	server, err := turn.NewServer(turn.ServerConfig{
		Realm: "lab", LoggerFactory: logging.NewDefaultLoggerFactory(),
		AuthHandler: func(r *turn.RequestAttributes) (string, []byte, bool) {
			return r.Username, turn.GenerateAuthKey(r.Username, r.Realm, "password"), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: conn, RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{
			RelayAddress: net.ParseIP(labRelay), Address: labRelay, Net: network,
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return wire.ICEServers{Servers: []wire.ICEServer{
		{URLs: []string{"stun:" + labRelay + ":3478"}},
		{URLs: []string{"turn:" + labRelay + ":3478?transport=udp"}, Username: "user", Credential: "password"},
	}}
}

// gathered are an end's candidates of one gathering.
func gathered(t *testing.T, e *end) (list []wire.Candidate) {
	t.Helper()
	ctx := testContext(t)
	for {
		select {
		case c := <-e.candidates:
			if c.Candidate == "" {
				return list
			}
			list = append(list, c)
		case <-ctx.Done():
			t.Fatal("gathering does not end")
		}
	}
}

// A connection that may use only relays tells an ordinary one of nothing else, takes nothing else from it, and works.
func TestConnRelayOnly(t *testing.T) {
	for _, l := range labs(t)[:1] {
		ice := l.relay(t)
		demanded := ice
		demanded.RelayOnly = true
		for name, cfg := range map[string]ConnConfig{"own choice": {ICE: ice, RelayOnly: true}, "demanded": {ICE: demanded}} {
			t.Run(name, func(t *testing.T) {
				hidden := newEndWith(t, l, cfg)
				open := newEndWith(t, l, ConnConfig{ICE: ice})
				ctx := testContext(t)
				var told []string // by the hidden one
				offer, err := hidden.Offer(ctx, false)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := open.Answer(ctx, offer)
				if err != nil {
					t.Fatal(err)
				}
				types := map[string]bool{}
				for _, c := range gathered(t, open) {
					types[CandidateType(c.Candidate)] = true
					answer += "a=" + c.Candidate + "\r\n" // as a browser does that has them in time
					if err := hidden.AddCandidate(ctx, c); err != nil {
						t.Fatal(err)
					}
				}
				if !types["host"] || !types["relay"] {
					t.Fatalf("the open one offered %v", types)
				}
				if err := hidden.SetAnswer(ctx, answer); err != nil {
					t.Fatal(err)
				}
				for _, c := range gathered(t, hidden) {
					told = append(told, c.Candidate)
					if err := open.AddCandidate(ctx, c); err != nil {
						t.Fatal(err)
					}
				}
				waitOpen(t, hidden, open)
				stats, err := hidden.Stats(ctx)
				if err != nil || stats.LocalType != "relay" || stats.RemoteType != "relay" {
					t.Errorf("%+v, %v", stats, err)
				}
				for _, s := range hidden.Conn.(*conn).pc.GetStats() {
					if c, ok := s.(webrtc.ICECandidateStats); ok && c.CandidateType.String() != "relay" {
						t.Errorf("it has a %s: %s", c.Type, c.IP)
					}
				}
				again, err := hidden.Offer(ctx, true) // now the description has candidates of its own
				if err != nil {
					t.Fatal(err)
				}
				if len(told) == 0 {
					t.Fatal("nothing was told")
				}
				for _, line := range append(told, strings.Split(offer+again, "\r\n")...) {
					if strings.Contains(strings.ReplaceAll(line, labRelay, ""), "10.1.") || strings.Contains(line, "candidate:") && CandidateType(line) != "relay" {
						t.Errorf("told: %s", line)
					}
				}
			})
		}
	}
}

// A platform that gathers without regard to the policy: nobody hears of what it finds, in candidates or in descriptions, and it is reported.
func TestConnStrays(t *testing.T) {
	l := labs(t)[0]
	strays := make(chan string, 64)
	e := newEndWith(t, l, ConnConfig{ICE: l.relay(t), Stray: func(candidateType string) { strays <- candidateType }})
	c := e.Conn.(*conn)
	c.relayOnly.Store(true) // which the platform was not told
	ctx := testContext(t)
	first, err := e.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(first, "\r\n")
	for _, candidate := range gathered(t, e) {
		lines = append(lines, candidate.Candidate)
	}
	reported := map[string]bool{}
	for len(strays) > 0 {
		reported[<-strays] = true
	}
	if !reported["host"] {
		t.Fatalf("no host candidate was reported, but %v", reported)
	}
	second, err := e.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(strays) == 0 {
		t.Fatal("the description had no candidates of its own")
	}
	for len(strays) > 0 {
		<-strays
	}
	other := newEnd(t, l)
	answer, err := other.Answer(ctx, second)
	if err == nil {
		err = e.SetAnswer(ctx, answer)
	}
	if err != nil {
		t.Fatal(err)
	}
	for c.pc.ICEConnectionState() == webrtc.ICEConnectionStateNew { // until then pion takes any offer for a restart, and gathers anew
		if ctx.Err() != nil {
			t.Fatal("ICE does not begin")
		}
		time.Sleep(time.Millisecond)
	}
	offer, err := other.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	third, err := e.Answer(ctx, offer)
	if err != nil {
		t.Fatal(err)
	}
	if len(strays) == 0 {
		t.Fatal("the answer had no candidates of its own")
	}
	relays := 0
	for _, line := range append(lines, strings.Split(second+third, "\r\n")...) {
		isCandidate := strings.Contains(line, "candidate:")
		if strings.Contains(strings.ReplaceAll(line, labRelay, ""), "10.1.") || isCandidate && CandidateType(line) != "relay" {
			t.Errorf("told: %s", line)
		} else if isCandidate {
			relays++
		}
	}
	if relays < 3 {
		t.Errorf("%d relays were told", relays)
	}
}
