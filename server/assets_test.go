package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func files() fstest.MapFS {
	m := fstest.MapFS{".gitkeep": {}, "notes.txt": {Data: []byte("not served")}}
	for name, text := range map[string]string{
		"index.html": "<!doctype html>", "index.html.br": "page br", "index.html.gz": "page gz",
		"tallow.wasm": "\x00asm", "tallow.wasm.br": "wasm br", "tallow.wasm.gz": "wasm gz",
		"tallow.js": "export {}", "tallow.js.gz": "js gz", "icon.png": "png",
	} {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func get(t *testing.T, h http.Handler, method, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func served(t *testing.T, allowOrigins ...string) http.Handler {
	t.Helper()
	a, err := newAssets(files(), allowOrigins)
	if err != nil {
		t.Fatal(err)
	}
	return secure(a, false)
}

func TestNegotiation(t *testing.T) {
	h := served(t)
	for _, tt := range []struct{ path, accept, encoding, body string }{
		{"/", "gzip, deflate, br, zstd", "br", "page br"},
		{"/", "gzip", "gzip", "page gz"},
		{"/", "BR;q=0, GZIP;q=0.5", "gzip", "page gz"},
		{"/", "*", "br", "page br"},
		{"/", "*;q=0, gzip", "gzip", "page gz"},
		{"/", "br;q=rubbish", "", "<!doctype html>"},
		{"/", "identity", "", "<!doctype html>"},
		{"/", "", "", "<!doctype html>"},
		{"/tallow.wasm", "br", "br", "wasm br"},
		{"/tallow.js", "br, gzip", "gzip", "js gz"},
		{"/icon.png", "br, gzip", "", "png"},
	} {
		var header []string
		if tt.accept != "" {
			header = []string{"Accept-Encoding", tt.accept}
		}
		r := get(t, h, "GET", tt.path, header...)
		if got := text(t, r); r.StatusCode != 200 || r.Header.Get("Content-Encoding") != tt.encoding || got != tt.body {
			t.Errorf("%s for %q: %d %q %q", tt.path, tt.accept, r.StatusCode, r.Header.Get("Content-Encoding"), got)
		}
		if r.Header.Get("Content-Length") != fmt.Sprint(len(tt.body)) || r.Header.Get("Vary") != "Accept-Encoding" || r.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s for %q: %v", tt.path, tt.accept, r.Header)
		}
	}
}

func TestContentTypes(t *testing.T) {
	h := served(t)
	for path, want := range map[string]string{
		"/": "text/html; charset=utf-8", "/tallow.wasm": "application/wasm", "/tallow.js": "text/javascript; charset=utf-8", "/icon.png": "image/png",
	} {
		if got := get(t, h, "GET", path, "Accept-Encoding", "br").Header.Get("Content-Type"); got != want {
			t.Errorf("%s is %q", path, got)
		}
	}
}

func TestOnlyFilesAreServed(t *testing.T) {
	h := served(t)
	for _, path := range []string{"/missing", "/notes.txt", "/.gitkeep", "/index.html", "/index.html.br", "/tallow.wasm.gz", "/../go.mod", "//", "/tallow.js/"} {
		if r := get(t, h, "GET", path); r.StatusCode != 404 {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
	if r := get(t, h, "POST", "/"); r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", r.StatusCode)
	}
}

func TestRevalidation(t *testing.T) {
	h := served(t)
	br, plain := get(t, h, "GET", "/", "Accept-Encoding", "br").Header.Get("ETag"), get(t, h, "GET", "/").Header.Get("ETag")
	if br == plain || !strings.HasPrefix(br, `"`) {
		t.Fatalf("ETags %s and %s are not those of two representations", br, plain)
	}
	for header, want := range map[string]int{
		br: 304, "W/" + br: 304, `"other", ` + br: 304, "*": 304, plain: 200, `"other"`: 200,
	} {
		r := get(t, h, "GET", "/", "Accept-Encoding", "br", "If-None-Match", header)
		body := text(t, r)
		if r.StatusCode != want || want == 304 && (body != "" || r.Header.Get("ETag") != br || r.Header.Get("Content-Length") != "") {
			t.Errorf("If-None-Match %s: %d %q %v", header, r.StatusCode, body, r.Header)
		}
	}
	r := get(t, h, "HEAD", "/", "Accept-Encoding", "br")
	if r.StatusCode != 200 || text(t, r) != "" || r.Header.Get("ETag") != br || r.Header.Get("Content-Length") != "7" {
		t.Errorf("HEAD: %d %v", r.StatusCode, r.Header)
	}
}

func TestSecurityHeaders(t *testing.T) {
	h := served(t)
	for _, path := range []string{"/", "/tallow.wasm", "/missing"} {
		r := get(t, h, "GET", path)
		for header, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob: data:; " +
				"connect-src 'self' ws://example.com wss://example.com; worker-src 'self'; manifest-src 'self'; base-uri 'none'; " +
				"form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types tallow-worker",
			"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := r.Header.Get(header); got != want {
				t.Errorf("%s: %s is %q", path, header, got)
			}
		}
		if !strings.Contains(r.Header.Get("Permissions-Policy"), "camera=()") {
			t.Errorf("%s: Permissions-Policy is %q", path, r.Header.Get("Permissions-Policy"))
		}
	}
	// A Host header writes no policy.
	if p := contentSecurityPolicy("a; script-src *"); strings.Contains(p, "a;") || strings.Contains(p, "ws://") {
		t.Errorf("policy %q", p)
	}
}

// Every answer of the public port has the headers that leave scripts no foothold, and none is kept as if it were a file.
func TestEveryAnswerIsSecured(t *testing.T) {
	a, err := newAssets(files(), nil)
	if err != nil {
		t.Fatal(err)
	}
	members := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", http.StatusUpgradeRequired) })
	s := httptest.NewUnstartedServer(nil)
	s.Config = newServer(handler(a, members, true), nil, slog.New(slog.DiscardHandler))
	s.Start()
	defer s.Close()
	client := &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	etag := get(t, served(t), "GET", "/").Header.Get("ETag")
	for _, tt := range []struct {
		method, path string
		status       int
		cache        string
	}{
		{"GET", "/", 200, "no-cache"},
		{"HEAD", "/tallow.wasm", 200, "no-cache"},
		{"GET", "/ ", 304, "no-cache"},
		{"GET", "/healthz", 200, "no-store"},
		{"GET", "/version", 200, "no-store"},
		{"GET", "/missing", 404, "no-store"},
		{"POST", "/", 405, "no-store"},
		{"POST", "/version", 404, "no-store"},
		{"GET", "/a/../", 307, "no-store"},
		{"GET", "//evil.example/..", 307, "no-store"},
		{"GET", "/ws", 426, "no-store"},
		{"GET", "/ws/any", 426, "no-store"},
		{"OPTIONS", "*", 400, "no-store"},
		{"TRACE", "/healthz", 404, "no-store"},
		{"PUT", "/body", 413, "no-store"},
	} {
		r := &http.Request{Method: tt.method, URL: &url.URL{Scheme: "http", Host: s.Listener.Addr().String(), Opaque: tt.path}, Header: http.Header{}}
		switch {
		case tt.status == 304:
			r.URL.Opaque = "/"
			r.Header.Set("If-None-Match", etag)
		case tt.status == 413:
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader("body")), 4
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatalf("%s %s: %v", tt.method, tt.path, err)
		}
		answer.Body.Close()
		h := answer.Header
		if answer.StatusCode != tt.status || h.Get("Cache-Control") != tt.cache {
			t.Errorf("%s %s: %d, kept %q", tt.method, tt.path, answer.StatusCode, h.Get("Cache-Control"))
		}
		if to := h.Get("Location"); (to != "") != (tt.status == 307) || to != "" && (to[0] != '/' || strings.HasPrefix(to, "//")) {
			t.Errorf("%s %s: sent on to %q", tt.method, tt.path, to)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Strict-Transport-Security") != hsts ||
			!strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'; ") || len(h.Values("Set-Cookie")) > 0 || h.Get("Server") != "" {
			t.Errorf("%s %s: %v", tt.method, tt.path, h)
		}
	}
}

// A policy that a script creates and the header does not name is an exception in the page.
func TestTrustedTypesPoliciesAreAllowed(t *testing.T) {
	scripts, err := filepath.Glob("../web/*.js")
	if err != nil {
		t.Fatal(err)
	}
	_, allowed, _ := strings.Cut(contentSecurityPolicy("example.com"), "; trusted-types ")
	found := 0
	for _, script := range scripts {
		b, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`createPolicy\("([^"]*)"`).FindAllSubmatch(b, -1) {
			found++
			if !slices.Contains(strings.Fields(allowed), string(m[1])) {
				t.Errorf("%s creates the policy %s, allowed are: %s", script, m[1], allowed)
			}
		}
	}
	if found == 0 {
		t.Fatal("no script creates a policy: then none should be allowed")
	}
}

func TestEmbedding(t *testing.T) {
	h := served(t, "https://friend.example")
	for _, tt := range []struct{ path, origin, allowed, resource string }{
		{"/tallow.js", "https://friend.example", "https://friend.example", "cross-origin"},
		{"/tallow.wasm", "https://friend.example", "https://friend.example", "cross-origin"},
		{"/tallow.js", "https://evil.example", "", "cross-origin"},
		{"/tallow.js", "", "", "cross-origin"},
		{"/", "https://friend.example", "", "same-origin"},
	} {
		r := get(t, h, "GET", tt.path, "Origin", tt.origin)
		if got := r.Header.Get("Access-Control-Allow-Origin"); got != tt.allowed {
			t.Errorf("%s from %q: allowed %q", tt.path, tt.origin, got)
		}
		if got := r.Header.Get("Cross-Origin-Resource-Policy"); got != tt.resource {
			t.Errorf("%s from %q: resource policy %q", tt.path, tt.origin, got)
		}
		if vary := r.Header.Values("Vary"); (len(vary) == 2) != (tt.path != "/") {
			t.Errorf("%s: Vary %q", tt.path, vary)
		}
	}
	if got := get(t, served(t, "*"), "GET", "/tallow.js", "Origin", "https://a.example").Header.Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("with *: %q", got)
	}
	if r := get(t, served(t), "GET", "/tallow.js", "Origin", "https://a.example"); r.Header.Get("Access-Control-Allow-Origin") != "" || r.Header.Get("Cross-Origin-Resource-Policy") != "same-origin" {
		t.Errorf("without -allow-origin: %v", r.Header)
	}
}

func TestNoPageNoServer(t *testing.T) {
	if _, err := newAssets(fstest.MapFS{".gitkeep": {}}, nil); !errors.Is(err, errNoPage) {
		t.Fatal(err)
	}
	a, err := newAssets(files(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte("\x00asm"))); a.wasmHash != want {
		t.Fatalf("hash %s, want %s", a.wasmHash, want)
	}
}
