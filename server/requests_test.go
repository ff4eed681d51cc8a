package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tallow/internal/core/wire"
	"tallow/server/hub"
	"tallow/server/limit"
)

// Requests that a proxy in front may understand otherwise get one answer, after which the connection ends: nobody can put
// a request of their own before the next client's.
func TestOddRequests(t *testing.T) {
	const smuggled = "GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n"
	body := fmt.Sprintf("Content-Length: %d\r\n", len(smuggled))
	many := func(lines int) (header strings.Builder) {
		for i := range lines {
			fmt.Fprintf(&header, "X-%d: x\r\n", i)
		}
		return header
	}
	thousands := many(10_000)
	s := start(t)
	for name, tt := range map[string]struct {
		head   string // of a request in front of the smuggled one; the empty line is yet to come
		status int
	}{
		"a body":                    {"GET / HTTP/1.1\r\nHost: a\r\n" + body, 413},
		"a body of WebSockets":      {"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" + body, 413},
		"chunks":                    {"GET /version HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n", 413},
		"length and chunks":         {"POST / HTTP/1.1\r\nHost: a\r\n" + body + "Transfer-Encoding: chunked\r\n", 413},
		"a body that is not sent":   {"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + body, 413},
		"two lengths":               {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" + body, 400},
		"a length with a sign":      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +34\r\n", 400},
		"an encoding nobody knows":  {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n" + body, 501},
		"two encodings":             {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 501},
		"a space after a name":      {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 34\r\n", 400},
		"a line that is no header":  {"GET / HTTP/1.1\r\nHost: a\r\nnothing\r\n", 400},
		"NUL in a value":            {"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n", 400},
		"no host":                   {"GET / HTTP/1.1\r\n", 400},
		"two hosts":                 {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400},
		"a policy for a host":       {"GET / HTTP/1.1\r\nHost: a; script-src *\r\n", 400},
		"no version":                {"GET /\r\n", 400},
		"a version to come":         {"GET / HTTP/3.0\r\nHost: a\r\n", 505},
		"HTTP/2 in the clear":       {"PRI * HTTP/2.0\r\n", 413},
		"a long header":             {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n", 431},
		"many headers":              {"GET / HTTP/1.1\r\nHost: a\r\n" + thousands.String(), 431},
		"a long path":               {"GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: a\r\n", 431},
		"HTTP/1.0 with a body":      {"GET / HTTP/1.0\r\n" + body, 413},
		"a method of another trade": {"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: a\r\n" + body, 413},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			go io.WriteString(c, tt.head+"\r\n"+smuggled) // which the server may not read to its end
			answers, err := io.ReadAll(c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays")
			}
			if n := bytes.Count(answers, []byte("HTTP/1.")); n != 1 || !bytes.Contains(answers, fmt.Appendf(nil, " %d ", tt.status)) {
				t.Errorf("%d answers, want one with %d:\n%s", n, tt.status, answers)
			}
		})
	}
	if code, _ := s.get("/healthz"); code != 200 {
		t.Fatalf("/healthz: %d", code)
	}
}

// FuzzRequest: whatever a request holds, it is answered with a file that is served or a short refusal, the headers on it
// are those that must be, and it cannot say where it comes from.
func FuzzRequest(f *testing.F) {
	served := files()
	bodies := [][]byte{}
	for _, file := range served {
		bodies = append(bodies, file.Data)
	}
	a, err := newAssets(served, []string{"https://friend.example"})
	if err != nil {
		f.Fatal(err)
	}
	var from []netip.Addr
	members, err := hub.New(f.Context(), hub.Config{
		MaxMembers: 2, MaxRooms: 1, Gate: limit.New(limit.Limits{Total: 1}), Log: slog.New(slog.DiscardHandler),
		ClientAddr: func(r *http.Request) netip.Addr {
			from = append(from, clientAddr(r, prefixesOf("10.0.0.0/8")))
			return netip.Addr{}
		},
		ICEServers: func(_, _ wire.ID, _ time.Time) wire.ICEServers { return wire.ICEServers{} },
	})
	if err != nil {
		f.Fatal(err)
	}
	h := handler(a, members, true)
	// An upgrade goes no further than its first line: there is no connection beneath it.
	statuses := []int{101, 200, 304, 307, 400, 403, 404, 405, 413, 426, 501}
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /tallow.wasm HTTP/1.1\r\nHost: a:80\r\nRange: bytes=1-2,0-\r\nAccept-Encoding: br;q=0.5, *;q=1e999, gzip;q=-1,;\r\n\r\n",
		"HEAD /tallow.js HTTP/1.1\r\nHost: a\r\nOrigin: https://friend.example\r\nIf-None-Match: W/\"x\", *\r\n\r\n",
		"GET //a/..//%2e%2e/%5cb?x#y HTTP/1.1\r\nHost: [::1]:80\r\nX-Forwarded-For: 1.2.3.4, [::1]:5, x\r\nForwarded: for=1.2.3.4\r\n\r\n",
		"GET http://a;b/index.html.br HTTP/1.1\r\nHost: c\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: http://a\r\nSec-WebSocket-Protocol: x\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /version HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return // the library answers
		}
		r.RemoteAddr = "192.0.2.1:5"
		w := httptest.NewRecorder()
		from = nil
		h.ServeHTTP(w, r)
		got, header := w.Result(), w.Result().Header
		if !slices.Contains(statuses, got.StatusCode) {
			t.Errorf("status %d", got.StatusCode)
		}
		// /healthz and /version have bodies of their own.
		isFile := func(b []byte) bool { return bytes.Equal(b, w.Body.Bytes()) }
		if header.Get("ETag") != "" && r.Method == http.MethodGet && got.StatusCode == 200 && !slices.ContainsFunc(bodies, isFile) || w.Body.Len() > 1000+2*len(data) {
			t.Errorf("body %q", w.Body)
		}
		if policy := header.Get("Content-Security-Policy"); strings.Count(policy, ";") != strings.Count(contentSecurityPolicy(""), ";") ||
			strings.Count(policy, "script-src") != 1 || header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Cache-Control") == "" {
			t.Errorf("headers %v", header)
		}
		if to := header.Get("Location"); to != "" && (to[0] != '/' || len(to) > 1 && (to[1] == '/' || to[1] == '\\')) {
			t.Errorf("sent on to %q", to)
		}
		for _, addr := range from {
			if addr != netip.MustParseAddr("192.0.2.1") {
				t.Errorf("believed to be at %v", addr)
			}
		}
	})
}
