//go:build !js

package signaling

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"tallow/internal/core/wire"
)

// TestBrowser runs the tests of client_js_test.go in a browser, against hubs of all sorts that serve here.
func TestBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	runner, err := filepath.Abs("../../../e2e/gotest.mjs")
	if err != nil {
		t.Fatal(err)
	}
	// What this reads, the go command takes for inputs of the test when it looks for a cached result.
	inputs, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(inputs, runner) {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	end := make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/echo", hubHandler(t, func(n int, p *place) {
		if p.enter(name(5)) {
			p.serve(func(m wire.Relay) { p.send(m.Append(nil, wire.HubDeliver)) })
		}
	}))
	mux.Handle("/closing", hubHandler(t, func(n int, p *place) {
		if !p.enter() {
			return
		}
		for i := range 50 {
			p.send(wire.Relay{Member: name(i), Envelope: make([]byte, 20_000)}.Append(nil, wire.HubDeliver))
		}
		p.send(wire.Closing{Code: wire.ClosingForbidden, Reason: "because"}.Append(nil))
		p.ws.Close(websocket.StatusNormalClosure, "")
	}))
	mux.Handle("/text", hubHandler(t, func(n int, p *place) {
		p.enter()
		p.ws.Write(context.Background(), websocket.MessageText, []byte("text"))
		p.serve(nil)
	}))
	// Two that do not take part in the closing handshake: one says nothing, one breaks WebSocket's rules.
	for path, answer := range map[string]string{"/hang": "", "/garbage": strings.Repeat("\xff", 20)} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			h := &hijacker{ResponseWriter: w}
			hubHandler(t, func(n int, p *place) {
				p.enter()
				h.conn.Read(make([]byte, 1000)) // the client's close
				io.WriteString(h.conn, answer)
				time.Sleep(2 * closeWithin)
			}).ServeHTTP(h, r)
		})
	}
	// The first connection is never answered: its packets are lost.
	var connections atomic.Int64
	lossy := hubHandler(t, func(n int, p *place) { p.enter(); p.serve(nil) })
	mux.Handle("/lossy/", lossy)
	mux.HandleFunc("/lossy", func(w http.ResponseWriter, r *http.Request) {
		if connections.Add(1) == 1 {
			select {
			case <-end:
			case <-r.Context().Done():
			}
			return
		}
		lossy.ServeHTTP(w, r)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(end)

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run=^TestInBrowser", "-timeout=2m", "-exec=node "+runner, ".")
	cmd.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm", "TALLOW_TEST_HUB="+strings.Replace(server.URL, "http", "ws", 1))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: TestInBrowser") || strings.Contains(string(output), "--- SKIP") {
		t.Errorf("%v\n%s", err, output)
	}
}

// hijacker keeps the connection beneath a WebSocket.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = conn
	return conn, rw, err
}
