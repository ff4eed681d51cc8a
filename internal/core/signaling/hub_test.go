//go:build !js

package signaling

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"tallow/internal/core/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is the hub's end of a connection.
type place struct {
	t  *testing.T
	ws *websocket.Conn
}

// hubHandler serves connections with a function that gets their number, from 0. What the function leaves open is cut.
func hubHandler(t *testing.T, serve func(n int, p *place)) http.Handler {
	var connections atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
			Subprotocols: []string{wire.HubSubprotocol}, InsecureSkipVerify: true})
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		ws.SetReadLimit(wire.MaxHubMessage + 1)
		defer ws.CloseNow()
		serve(int(connections.Add(1)-1), &place{t, ws})
	})
}

// read returns the next message, or nil when the client has gone.
func (p *place) read() []byte {
	kind, b, err := p.ws.Read(context.Background())
	if err != nil {
		if code := websocket.CloseStatus(err); code != -1 && code != websocket.StatusNormalClosure {
			p.t.Errorf("the client closed with status %d", code)
		}
		return nil
	}
	if kind != websocket.MessageBinary {
		p.t.Error("the client sent text")
	}
	return b
}

func (p *place) send(b []byte) {
	p.ws.Write(context.Background(), websocket.MessageBinary, b) // the client may have gone
}

// enter lets the client in, if it asks as it should.
func (p *place) enter(present ...wire.ID) bool {
	if m, err := wire.ParseEnter(p.read()); err != nil || m != testEnter {
		p.t.Errorf("Enter: %v, %v", m, err)
		return false
	}
	p.send(wire.Entered{MaxMembers: 12, Present: present, ICE: testICE}.Append(nil))
	return true
}

// serve answers pings and refreshes, and hands out the rest, until the client goes.
func (p *place) serve(relay func(wire.Relay)) {
	for {
		b := p.read()
		if b == nil {
			return
		}
		switch wire.TypeOf(b) {
		case wire.HubPing:
			p.send([]byte{byte(wire.HubPong)})
		case wire.HubRefresh:
			p.send(testICE.Append(nil))
		case wire.HubSend:
			m, err := wire.ParseRelay(b, wire.HubSend)
			if err != nil {
				p.t.Errorf("Send: %v", err)
			} else if relay != nil {
				relay(m)
			}
		default:
			p.t.Errorf("message of type %#x", b[0])
		}
	}
}

var testEnter = wire.Enter{Room: name(1), Member: name(2), Token: wire.Hash{3}, Claim: name(4)}

var testICE = wire.ICEServers{TTL: 60, Servers: []wire.ICEServer{{URLs: []string{"stun:hub.example"}, Username: "u", Credential: "c"}}}

// memory is a network in memory to one HTTP server, so that a bubble's clock governs it. While down it refuses; while
// lossy it loses what is sent to make a connection; one takes as long as slow says.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	down   atomic.Bool
	lossy  atomic.Bool
	slow   time.Duration
	dials  atomic.Int64
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

func (m *memory) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	m.dials.Add(1)
	if m.down.Load() {
		return nil, errors.New("refused")
	}
	if m.lossy.Load() {
		<-m.closed // http.Transport goes on dialing for a request that is given up
		return nil, errors.New("lost")
	}
	select {
	case <-time.After(m.slow):
	case <-m.closed:
		return nil, net.ErrClosed
	}
	here, there := net.Pipe()
	select {
	case m.conns <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

// memoryHub serves a hub in memory, for the client too, until the test ends.
func memoryHub(t *testing.T, serve func(n int, p *place)) *memory {
	m := &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: hubHandler(t, serve)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(m)
	}()
	before := client
	client = &http.Client{Transport: &http.Transport{DialContext: m.dial, DisableKeepAlives: true}}
	t.Cleanup(func() {
		client = before
		close(m.closed)
		server.Close()
		<-served
	})
	return m
}
