//go:build !js

package signaling

import (
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"

	"tallow/internal/core/wire"
)

var _ connection = (*socket)(nil)

// socket is a WebSocket.
type socket struct{ conn *websocket.Conn }

// client keeps no connections: the one that becomes a WebSocket is no longer its. It goes on dialing for a while when the
// request has been given up, so its dialer has a limit of its own.
var client = &http.Client{Transport: &http.Transport{
	Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialWithin}).DialContext, DisableKeepAlives: true}}

func dial(ctx context.Context, url string) (*socket, error) {
	conn, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{wire.HubSubprotocol}})
	if err != nil {
		return nil, err
	}
	return &socket{conn}, nil
}

func (s *socket) write(ctx context.Context, p []byte) error {
	return s.conn.Write(ctx, websocket.MessageBinary, p)
}

func (s *socket) close(broken bool) {
	if broken { // Close would wait for an answer that nobody reads
		s.conn.CloseNow()
		return
	}
	s.conn.Close(websocket.StatusNormalClosure, "")
}
