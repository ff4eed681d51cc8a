package signaling

import (
	"context"
	"errors"
	"sync"
	"syscall/js"
	"time"

	"github.com/coder/websocket"

	"tallow/internal/core/wire"
)

var _ connection = (*socket)(nil)

// socket is a WebSocket and the browser's object behind it.
//
// The object is needed because the library (v1.8.15) does not do without it in a browser. Its Dial cannot be given up:
// it closes with status 1008, which the browser refuses, so the attempt stays, and Chromium makes the next one to the
// same host wait for it. Its Close waits for the close event under a lock that its handler of the error event takes
// too: when the network fails during the closing handshake, that handler never returns and the program stops. And its
// Write never blocks, whatever the browser has to buffer.
type socket struct {
	conn *websocket.Conn
	raw  js.Value
}

// mostBuffered is how many bytes the browser may have to send before write waits.
const mostBuffered = 256 << 10

// constructor guards the global WebSocket while dial has another value there.
var constructor sync.Mutex

func dial(ctx context.Context, url string) (*socket, error) {
	constructor.Lock()
	global := js.Global()
	original := global.Get("WebSocket")
	raw, err := construct(original, url)
	if err != nil {
		constructor.Unlock()
		return nil, err
	}
	// The library constructs its WebSocket first thing in Dial, and gets ours.
	stub := js.FuncOf(func(js.Value, []js.Value) any {
		global.Set("WebSocket", original)
		constructor.Unlock()
		return raw
	})
	defer stub.Release()
	global.Set("WebSocket", stub)
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{wire.HubSubprotocol}})
	if err != nil {
		raw.Call("close")
		return nil, err
	}
	return &socket{conn, raw}, nil
}

// construct makes a WebSocket. The browser throws at a URL that it does not like.
func construct(original js.Value, url string) (raw js.Value, err error) {
	if original.Type() != js.TypeFunction {
		return js.Value{}, errors.New("there is no WebSocket here")
	}
	defer func() {
		if thrown, ok := recover().(js.Error); ok {
			err = thrown
		}
	}()
	return original.New(url, []any{wire.HubSubprotocol}), nil
}

func (s *socket) write(ctx context.Context, p []byte) error {
	for s.raw.Get("bufferedAmount").Int() > mostBuffered { // there is no event for when it has shrunk
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return s.conn.Write(ctx, websocket.MessageBinary, p)
}

func (s *socket) close(bool) { s.raw.Call("close", int(websocket.StatusNormalClosure)) }
