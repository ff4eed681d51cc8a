package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"tallow/internal/core/wire"
	"tallow/server/relay"
	"tallow/web"
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
	return startWith(t, files(), args...)
}

func startWith(t *testing.T, files fs.FS, args ...string) *instance {
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
		err := run(ctx, c, files, in, s.log)
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
	return s.join(s.client, wire.Enter{Room: wire.ID{9}, Member: member})
}

// join enters by way of a client.
func (s *instance) join(by *http.Client, m wire.Enter) (*websocket.Conn, wire.Entered) {
	s.t.Helper()
	ws, answer, err := s.ask(by, m, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ws.CloseNow() })
	entered, err := wire.ParseEntered(answer)
	if err != nil {
		s.t.Fatal(err)
	}
	return ws, entered
}

func (s *instance) refused(by *http.Client, m wire.Enter, want wire.ClosingCode) {
	s.t.Helper()
	ws, answer, err := s.ask(by, m, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer ws.CloseNow()
	if c, err := wire.ParseClosing(answer); err != nil || c.Code != want {
		s.t.Fatalf("closing %+v, %v; want code %d", c, err, want)
	}
}

// ask connects and asks to enter. It returns the first answer; without an error the caller closes the connection.
func (s *instance) ask(by *http.Client, m wire.Enter, header http.Header) (*websocket.Conn, []byte, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Origin", s.url)
	ws, _, err := websocket.Dial(ctx, s.url+"/ws", &websocket.DialOptions{Subprotocols: []string{wire.HubSubprotocol}, HTTPClient: by, HTTPHeader: header})
	if err != nil {
		return nil, nil, err
	}
	ws.SetReadLimit(wire.MaxHubMessage)
	if err := ws.Write(ctx, websocket.MessageBinary, m.Append(nil)); err != nil {
		ws.CloseNow()
		return nil, nil, err
	}
	_, p, err := ws.Read(ctx)
	if err != nil {
		ws.CloseNow()
		return nil, nil, err
	}
	return ws, p, nil
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
			var v struct{ GoVersion, WasmSHA256 string }
			if err := json.Unmarshal([]byte(body), &v); code != 200 || err != nil || !strings.HasPrefix(v.GoVersion, "go1.") ||
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

// What the build left is what is served, in each encoding, and both places that name its hash name that of these bytes.
func TestServedIsBuilt(t *testing.T) {
	s := startWith(t, web.Dist())
	fetch := func(path, encoding string) []byte {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept-Encoding", encoding)
		answer, err := s.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body := io.Reader(answer.Body)
		switch got := answer.Header.Get("Content-Encoding"); {
		case answer.StatusCode != http.StatusOK || got != "" && got != encoding:
			t.Fatalf("%s as %s: %d, %q", path, encoding, answer.StatusCode, got)
		case got == "br":
			body = brotli.NewReader(body)
		case got == "gzip":
			if body, err = gzip.NewReader(body); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Fatalf("%s as %s: %v", path, encoding, err)
		}
		return b
	}
	err := fs.WalkDir(web.Dist(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || contentTypes[path.Ext(name)] == "" {
			return err
		}
		built, err := fs.ReadFile(web.Dist(), name)
		if err != nil {
			return err
		}
		if name == page {
			name = ""
		}
		for _, encoding := range []string{"identity", "br", "gzip"} {
			if !bytes.Equal(fetch("/"+name, encoding), built) {
				t.Errorf("%s as %s is not what was built", name, encoding)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%x", sha256.Sum256(fetch("/tallow.wasm", "br")))
	for _, path := range []string{"/version", "/build.json"} {
		var v struct{ WasmSHA256 string }
		if err := json.Unmarshal(fetch(path, "identity"), &v); err != nil || v.WasmSHA256 != want {
			t.Errorf("%s says %q, served is %s (%v)", path, v.WasmSHA256, want, err)
		}
	}
}

// Not even debug logs hold what a member is known by or lets itself in with, and other levels hold nothing of anybody.
func TestNothingIsLoggedAboutMembers(t *testing.T) {
	room, member, token, claim := wire.ID{0xab, 0xcd, 0xef}, wire.ID{0xba, 0xdc, 0xfe}, wire.Hash{0xac, 0xce, 0x55}, wire.ID{0xde, 0xad, 0xbe}
	for _, level := range []string{"info", "debug"} {
		s := start(t, "-log-level", level, "-tls-self-signed")
		m := wire.Enter{Room: room, Member: member, Token: token, Claim: claim}
		ws, entered := s.join(s.client, m)
		turn := entered.ICE.Servers[1]
		forged := m
		forged.Token[31]++
		s.refused(s.client, forged, wire.ClosingForbidden)
		forged = m
		forged.Claim[15]++
		s.refused(s.client, forged, wire.ClosingForbidden)
		err := ws.Write(t.Context(), websocket.MessageBinary, append([]byte{0x7f}, token[:]...))
		if err != nil {
			t.Fatal(err)
		}
		for err = nil; err == nil; { // to the end
			_, _, err = ws.Read(t.Context())
		}
		s.get("/path-of-" + room.String() + "?query=" + token.String())
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "https://")) // without TLS
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /%v HTTP/1.1\r\n\r\n", room)
		io.Copy(io.Discard, c)
		c.Close()
		addr := strings.TrimSuffix(strings.TrimPrefix(turn.URLs[0], "turn:"), "?transport=udp")
		if err := allocate(t, addr, turn.Username, turn.Credential); err != nil {
			t.Fatal(err)
		}
		if err := allocate(t, addr, turn.Username, "wrong"); err == nil {
			t.Fatal("allocated with a wrong password")
		}
		s.end()
		log := s.log.String()
		for what, text := range map[string]string{
			"room": room.String()[:6], "member": member.String()[:6], "token": token.String()[:6], "claim": claim.String()[:6],
			"password": turn.Credential,
		} {
			raw, _ := hex.DecodeString(text)
			for _, form := range []string{text, strings.ToUpper(text), base64.RawURLEncoding.EncodeToString(raw), fmt.Sprint(raw)} {
				if form != "" && form != "[]" && strings.Contains(log, form) {
					t.Errorf("the %s is in the log at level %s:\n%s", what, level, log)
				}
			}
		}
		for line := range strings.Lines(log) {
			if level == "info" && !strings.Contains(line, `msg="STUN and TURN" addr=`+addr+"\n") && !strings.Contains(line, `msg="shutting down"`) {
				t.Errorf("at level info: %s", line)
			}
		}
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

// Credentials expire for whoever gives them out: members renew them in time.
func TestOperatorsCredentialsExpire(t *testing.T) {
	s := start(t, "-turn=false", "-turn-ttl", "90s", "-ice-servers", `[{"urls":["turn:b.example"],"secret":"north star"}]`)
	if _, m := s.enter(wire.ID{1}); m.ICE.TTL != 90 || m.ICE.RelayOnly {
		t.Errorf("%+v", m.ICE)
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
	server := fmt.Sprintf(`{"urls":["stun:%[1]s","stun:%[1]s","stun:%[1]s","stun:%[1]s","stun:%[1]s"]}`, strings.Repeat("x", 500))
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
