package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"tallow/internal/core/wire"
	"tallow/server/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// instance is a server that runs as main runs it.
type instance struct {
	t      *testing.T
	url    string
	client *http.Client
	log    *lockedBuffer
	stop   context.CancelFunc
	ended  chan error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, args ...string) *instance {
	t.Helper()
	c, err := parse(nil, append([]string{"-addr", "127.0.0.1:0", "-turn-addr", "127.0.0.1:0"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	out, in := io.Pipe()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true}
	s := &instance{t: t, client: &http.Client{Transport: transport}, log: &lockedBuffer{}, stop: stop, ended: make(chan error, 1)}
	go func() {
		err := run(ctx, c, files(), in, s.log)
		in.CloseWithError(err)
		s.ended <- err
	}()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.end()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "listening on ")
	if !ok {
		t.Fatalf("first line %q", line)
	}
	s.url = url
	return s
}

// end stops the server and waits for it; more than once, too.
func (s *instance) end() {
	s.t.Helper()
	s.stop()
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Error(err)
		}
		s.ended <- nil
	case <-time.After(shutdownTime + 5*time.Second):
		s.t.Fatal("the server does not end")
	}
}

func (s *instance) get(path string) (int, string) {
	s.t.Helper()
	r, err := s.client.Get(s.url + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func (s *instance) enter(member wire.ID) (*websocket.Conn, wire.Entered) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, s.url+"/ws", &websocket.DialOptions{
		Subprotocols: []string{wire.HubSubprotocol}, HTTPClient: s.client, HTTPHeader: http.Header{"Origin": {s.url}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ws.CloseNow() })
	if err := ws.Write(ctx, websocket.MessageBinary, wire.Enter{Room: wire.ID{9}, Member: member}.Append(nil)); err != nil {
		s.t.Fatal(err)
	}
	_, p, err := ws.Read(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	m, err := wire.ParseEntered(p)
	if err != nil {
		s.t.Fatal(err)
	}
	return ws, m
}

func TestServer(t *testing.T) {
	for scheme, args := range map[string][]string{"http": nil, "https": {"-tls-self-signed"}} {
		t.Run(scheme, func(t *testing.T) {
			s := start(t, args...)
			if !strings.HasPrefix(s.url, scheme+"://127.0.0.1:") {
				t.Fatalf("listens on %s", s.url)
			}
			if code, body := s.get("/healthz"); code != 200 || body != "ok\n" {
				t.Errorf("/healthz: %d %q", code, body)
			}
			if code, body := s.get("/"); code != 200 || body != "<!doctype html>" {
				t.Errorf("/: %d %q", code, body)
			}
			code, body := s.get("/version")
			var v struct{ Go, WasmSHA256 string }
			if err := json.Unmarshal([]byte(body), &v); code != 200 || err != nil || !strings.HasPrefix(v.Go, "go1.") ||
				v.WasmSHA256 != "cd5d4935a48c0672cb06407bb443bc0087aff947c6b864bac886982c73b3027f" {
				t.Errorf("/version: %d %q", code, body)
			}

			ws, m := s.enter(wire.ID{1})
			if m.MaxMembers != 11 || m.ICE.RelayOnly || m.ICE.TTL != 12*3600 || len(m.ICE.Servers) != 2 {
				t.Fatalf("%+v", m)
			}
			if u := m.ICE.Servers[0].URLs; len(u) != 1 || !strings.HasPrefix(u[0], "stun:127.0.0.1:") {
				t.Errorf("STUN %q", u)
			}
			turn := m.ICE.Servers[1]
			addr := strings.TrimSuffix(strings.TrimPrefix(turn.URLs[0], "turn:"), "?transport=udp")
			if turn.URLs[1] != "turn:"+addr+"?transport=tcp" || turn.Username == "" || turn.Credential == "" {
				t.Errorf("TURN %+v", turn)
			}
			if c, err := net.Dial("tcp", addr); err != nil {
				t.Errorf("TURN over TCP: %v", err)
			} else {
				c.Close()
			}

			s.stop()
			_, p, err := ws.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if m, err := wire.ParseClosing(p); err != nil || m.Code != wire.ClosingShuttingDown || m.RetryAfter == 0 {
				t.Fatalf("%+v, %v", m, err)
			}
			if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
				t.Fatal(err)
			}
			s.end()
			if log := s.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, turn.Username) {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

func TestUnfinishedRequestsDoNotHoldUpTheEnd(t *testing.T) {
	s := start(t)
	host := strings.TrimPrefix(s.url, "http://")
	for range 3 {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, "GET / HTTP/1.1\r\n") // and never the rest
	}
	began := time.Now()
	s.end()
	if d := time.Since(began); d > shutdownTime {
		t.Fatalf("took %v", d)
	}
}

func TestMetrics(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := start(t, "-metrics-addr", addr)
	s.enter(wire.ID{1})
	r, err := s.client.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\ntallow_hub_members 1\n", "\ntallow_hub_rooms 1\n", "\ntallow_turn_allocations 0\n", "\ntallow_hub_closings_total{code=\"5\"} 0\n", "\ngo_goroutines "} {
		if !strings.Contains(string(b), want) {
			t.Errorf("metrics lack %q", want)
		}
	}
	if code, _ := s.get("/metrics"); code != 404 {
		t.Errorf("metrics are public: %d", code)
	}
}

func TestOperatorsICEServers(t *testing.T) {
	s := start(t, "-relay-only", "-ice-servers",
		`[{"urls":"turn:a.example","username":"u","credential":"c"},{"urls":["turn:b.example"],"secret":"north star"}]`)
	_, m := s.enter(wire.ID{1})
	if !m.ICE.RelayOnly || len(m.ICE.Servers) != 3 { // no STUN: an address that nobody may use is not asked for
		t.Fatalf("%+v", m.ICE)
	}
	if a := m.ICE.Servers[1]; a.URLs[0] != "turn:a.example" || a.Username != "u" || a.Credential != "c" {
		t.Errorf("%+v", a)
	}
	b := m.ICE.Servers[2]
	unix, pseudonym, _ := strings.Cut(b.Username, ":")
	var expiry int64
	if err := json.Unmarshal([]byte(unix), &expiry); err != nil {
		t.Fatal(err)
	}
	if _, want := relay.Credentials([]byte("north star"), pseudonym, time.Unix(expiry, 0)); b.Credential != want {
		t.Errorf("%+v", b)
	}
	_, again := s.enter(wire.ID{1})
	_, other := s.enter(wire.ID{2})
	if _, p, _ := strings.Cut(again.ICE.Servers[2].Username, ":"); p != pseudonym {
		t.Error("a member has another pseudonym when it enters again")
	}
	if _, p, _ := strings.Cut(other.ICE.Servers[2].Username, ":"); p == pseudonym {
		t.Error("two members have one pseudonym")
	}
}

func TestWithoutTURN(t *testing.T) {
	s := start(t, "-turn=false")
	if _, m := s.enter(wire.ID{1}); len(m.ICE.Servers) != 0 || m.ICE.TTL != 0 {
		t.Fatalf("%+v", m.ICE)
	}
}

// What each member is told fits into a message, or nobody is.
func TestConfigIsTooLong(t *testing.T) {
	server := fmt.Sprintf(`{"urls":["turn:%[1]s","turn:%[1]s","turn:%[1]s","turn:%[1]s","turn:%[1]s"]}`, strings.Repeat("x", 500))
	for members, ok := range map[string]bool{"11": true, "2048": false} {
		c, err := parse(nil, "-addr", "127.0.0.1:0", "-turn-addr", "127.0.0.1:0", "-max-members", members,
			"-ice-servers", "["+strings.Repeat(server+",", 13)+server+"]")
		if err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := run(ended, c, files(), io.Discard, io.Discard); (err == nil) != ok {
			t.Errorf("%s members: %v", members, err)
		}
	}
}

// On loopback, something else on TURN's port is no reason not to start.
func TestTURNPortTaken(t *testing.T) {
	taken, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 3478})
	if err == nil {
		defer taken.Close()
	}
	s := start(t, "-turn-addr", "")
	_, m := s.enter(wire.ID{1})
	if u := m.ICE.Servers[0].URLs[0]; u == "stun:127.0.0.1:3478" || !strings.HasPrefix(u, "stun:127.0.0.1:") {
		t.Fatalf("STUN at %s", u)
	}
	if !strings.Contains(s.log.String(), "port is taken") {
		t.Fatalf("log:\n%s", s.log)
	}
}

func TestAddressTaken(t *testing.T) {
	s := start(t)
	c, err := parse(nil, "-addr", strings.TrimPrefix(s.url, "http://"), "-turn-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), c, files(), io.Discard, io.Discard); err == nil {
		t.Fatal("two servers on one port")
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:80": "127.0.0.1:80", "0.0.0.0:8080": "localhost:8080", "[::]:8080": "localhost:8080", "[::1]:80": "[::1]:80",
	} {
		if got := reachable(netip.MustParseAddrPort(addr)); got != want {
			t.Errorf("%s is reached at %s", addr, got)
		}
	}
}
