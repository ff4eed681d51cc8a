package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coder/websocket"

	"tallow/internal/core/wire"
	"tallow/server/hub"
	"tallow/server/limit"
)

// isServed reports whether a new connection is: it is closed at once otherwise.
func isServed(t *testing.T, s *instance) (net.Conn, bool) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(5 * time.Second))
	io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	line, err := bufio.NewReader(c).ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("a connection is neither served nor closed")
	}
	return c, strings.Contains(line, "200")
}

func TestConnectionsOfAnAddressAreBounded(t *testing.T) {
	s := start(t, "-max-connections-per-ip", "1")
	first, ok := isServed(t, s)
	if _, second := isServed(t, s); !ok || !second {
		t.Fatal("refused within the bounds")
	}
	if _, ok := isServed(t, s); ok {
		t.Fatal("a connection too many is served")
	}
	first.Close()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, ok := isServed(t, s); ok {
			break
		} else if time.Now().After(end) {
			t.Fatal("a place that became free cannot be taken")
		}
	}

	// A proxy's connections are its clients'.
	s = start(t, "-max-connections-per-ip", "1", "-trusted-proxies", "127.0.0.1")
	for range 5 {
		if _, ok := isServed(t, s); !ok {
			t.Fatal("a proxy's connection is refused")
		}
	}
}

func TestConnectionsAreBoundedInTotal(t *testing.T) {
	c, err := parse(nil, "-max-connections", "1", "-max-connections-per-ip", "0", "-trusted-proxies", "10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	l := newListener(nil, c).(*listener)
	addr := netip.MustParseAddr("192.0.2.1")
	var release func()
	for range spareConnections + 1 {
		var ok bool
		if release, ok = l.admit(addr); !ok {
			t.Fatal("refused within the bounds")
		}
		addr = addr.Next()
	}
	for _, a := range []netip.Addr{addr, netip.MustParseAddr("10.0.0.1")} {
		if _, ok := l.admit(a); ok {
			t.Fatal("a connection too many is served")
		}
	}
	release()
	if _, ok := l.admit(addr); !ok {
		t.Fatal("a place that became free cannot be taken")
	}
}

// quick is a server whose timeouts are a hundred times as quick, not started yet.
func quick(t *testing.T, files fs.FS) *httptest.Server {
	t.Helper()
	static, err := newAssets(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	members, err := hub.New(t.Context(), hub.Config{
		MaxMembers: 2, MaxRooms: 1, Gate: limit.New(limit.Limits{}), Log: slog.New(slog.DiscardHandler),
		ClientAddr: func(*http.Request) netip.Addr { return netip.Addr{} },
		ICEServers: func(_, _ wire.ID, _ time.Time) wire.ICEServers { return wire.ICEServers{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = newServer(handler(static, members, false), nil, slog.New(slog.DiscardHandler))
	for _, d := range []*time.Duration{&server.Config.ReadHeaderTimeout, &server.Config.ReadTimeout, &server.Config.WriteTimeout, &server.Config.IdleTimeout} {
		*d /= 100
	}
	t.Cleanup(func() {
		members.Close(t.Context())
		server.Close()
	})
	return server
}

func dialQuick(t *testing.T, server *httptest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// Handshakes that never come to their end are ended, however they trickle in; so are HTTP/2 connections without a request.
func TestSlowHandshakes(t *testing.T) {
	server := quick(t, files())
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	for name, tt := range map[string]struct {
		overTLS bool
		begin   string
		more    string // again and again
	}{
		"no TLS":                        {false, "", ""},
		"the first byte of TLS":         {false, "\x16", ""},
		"TLS a byte at a time":          {false, "\x16\x03\x01\x40\x00\x01", "\x00"},
		"no request":                    {true, "", ""},
		"HTTP a byte at a time":         {true, "GET / HTTP/1.1\r\nX: ", "x"},
		"an upgrade a byte at a time":   {true, "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX: ", "x"},
		"HTTP/2 without requests":       {true, http2Preface, ""},
		"HTTP/2 with pings":             {true, http2Preface, "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"},
		"an HTTP/2 header that is held": {true, http2Preface + "\x00\x01\x00\x01\x00\x00\x00\x00\x01", ""},
		"HTTP/2 with half a header":     {true, http2Preface + "\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dialQuick(t, server)
			if tt.overTLS {
				conf := &tls.Config{InsecureSkipVerify: true}
				if strings.HasPrefix(tt.begin, http2Preface) {
					conf.NextProtos = []string{"h2"}
				}
				c = tls.Client(c, conf)
			}
			io.WriteString(c, tt.begin) // which on a busy machine may come too late already
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the connection stays")
				}
			}()
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-ended:
					return
				case <-pace.C:
					io.WriteString(c, tt.more)
				}
			}
		})
	}
}

// http2Preface is what an HTTP/2 client says first, and empty settings.
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// The server's timeouts end what hangs, and neither slow downloads nor WebSockets.
func TestTimeouts(t *testing.T) {
	large := bytes.Repeat([]byte("wasm"), 8<<20)
	server := quick(t, fstest.MapFS{page: {}, "tallow.wasm": {Data: large}})
	server.Start()
	dial := func() net.Conn { return dialQuick(t, server) }
	ws, _, err := websocket.Dial(t.Context(), server.URL+"/ws", &websocket.DialOptions{Subprotocols: []string{wire.HubSubprotocol}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(t.Context(), websocket.MessageBinary, wire.Enter{}.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ws.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"a header": "GET / HTTP/1.1\r\n",
		"a body":   "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx",
		"nothing":  "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		c := dial()
		io.WriteString(c, text)
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection that waits for %s stays", what)
		}
	}

	deaf := dial()
	for err == nil {
		_, err = io.WriteString(deaf, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection that reads no answer stays")
	}

	download := dial()
	io.WriteString(download, "GET /tallow.wasm HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	time.Sleep(2*server.Config.WriteTimeout + server.Config.ReadTimeout)
	got, err := io.ReadAll(download)
	if err != nil || !bytes.HasSuffix(got, large) {
		t.Errorf("a slow download ends after %d bytes: %v", len(got), err)
	}

	if err := ws.Write(t.Context(), websocket.MessageBinary, []byte{byte(wire.HubPing)}); err != nil {
		t.Fatal(err)
	}
	if _, p, err := ws.Read(t.Context()); err != nil || wire.TypeOf(p) != wire.HubPong {
		t.Fatalf("an old WebSocket: %x, %v", p, err)
	}
}
