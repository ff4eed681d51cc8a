package hub

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"

	"tallow/internal/core/wire"
)

// conn is one client's connection. Its goroutine reads, acts and, at the end, says goodbye; whoever else wants it to
// end calls stop, which wakes that goroutine.
type conn struct {
	hub     *Hub
	ws      *websocket.Conn
	socket  *socket
	release func() // gives the place at the gate back

	messages, bytes *rate.Limiter // of the reading goroutine

	// Set by Hub.enter, in the reading goroutine and under the hub's mutex, and not changed after.
	room   *room
	member wire.ID

	mu      sync.Mutex
	why     *wire.Closing // asked to stop
	ended   bool          // takes no more messages
	queue   [][]byte
	queued  int           // cost of queue
	drained chan struct{} // closed by the writing goroutine at its end; nil when there is none
}

func newConn(h *Hub, ws *websocket.Conn, s *socket, release func()) *conn {
	return &conn{
		hub: h, ws: ws, socket: s, release: release,
		messages: rate.NewLimiter(rate.Limit(h.timing.messages), int(h.timing.messageBurst)),
		bytes:    rate.NewLimiter(rate.Limit(h.timing.bytes), int(h.timing.byteBurst)),
	}
}

// run serves the connection to its end; with a refusal, only says that.
func (c *conn) run(refusal *wire.Closing) {
	defer c.release()
	why := refusal
	if why == nil {
		why = c.serve()
	}
	c.hub.leave(c)
	code := wire.ClosingCode(0)
	if why != nil {
		code = why.Code
	}
	c.hub.counts.closings[code].Add(1)
	c.hub.cfg.Log.Debug("connection ends", "code", code)
	c.farewell(why)
}

// serve reads and acts until there is a reason to close, which it returns, or the client is gone.
func (c *conn) serve() *wire.Closing {
	first, why := c.read(c.hub.timing.enter)
	if first == nil {
		return why
	}
	m, err := wire.ParseEnter(first)
	if errors.Is(err, wire.ErrVersion) {
		return closing(wire.ClosingUnsupportedVersion, "protocol version is not supported")
	} else if err != nil {
		return closing(wire.ClosingBadRequest, "Enter must come first")
	}
	if why := c.hub.enter(c, m); why != nil {
		return why
	}
	for {
		p, why := c.read(c.hub.timing.idle)
		if p == nil {
			return why
		}
		switch t := wire.TypeOf(p); t {
		case wire.HubSend:
			m, err := wire.ParseRelay(p, t)
			if err != nil {
				return closing(wire.ClosingBadRequest, "malformed Send")
			}
			c.hub.deliver(c, m.Member, m.Envelope)
		case wire.HubPing, wire.HubRefresh:
			if wire.ParseBare(p, t) != nil {
				return closing(wire.ClosingBadRequest, "message has fields")
			}
			if t == wire.HubPing {
				c.send([]byte{byte(wire.HubPong)})
			} else {
				c.send(c.hub.cfg.ICEServers(c.room.id, c.member, time.Now()).Append(nil))
			}
		default:
			return closing(wire.ClosingBadRequest, "unexpected message")
		}
	}
}

// read returns the next message, or nil and the reason to close; that is nil too when the client is gone.
func (c *conn) read(within time.Duration) ([]byte, *wire.Closing) {
	c.readBy(within)
	kind, r, err := c.ws.Reader(c.hub.ctx)
	if err != nil {
		return nil, c.readError(err)
	}
	c.readBy(c.hub.timing.message)
	// The buffer grows with what has come, not with what a frame's header promises.
	p, err := io.ReadAll(io.LimitReader(r, wire.MaxHubMessage+1))
	if err != nil {
		return nil, c.readError(err)
	}
	now := time.Now()
	switch {
	case len(p) > wire.MaxHubMessage:
		return nil, closing(wire.ClosingBadRequest, "message is too long")
	case len(p) == 0 || kind != websocket.MessageBinary:
		return nil, closing(wire.ClosingBadRequest, "message is not binary")
	case !c.messages.AllowN(now, 1) || !c.bytes.AllowN(now, len(p)):
		return nil, closing(wire.ClosingRateLimited, "too many messages")
	}
	return p, nil
}

func (c *conn) readError(err error) *wire.Closing {
	c.mu.Lock()
	why := c.why
	c.mu.Unlock()
	switch {
	case why != nil:
		return why
	case errors.Is(err, os.ErrDeadlineExceeded):
		return closing(wire.ClosingIdle, "silence")
	default:
		c.hub.cfg.Log.Debug("read", "error", err)
		return nil
	}
}

func (c *conn) readBy(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil { // stop's deadline stands
		c.socket.SetReadDeadline(time.Now().Add(d))
	}
}

// stop makes the reading goroutine close the connection for the reason given, unless there is one already.
func (c *conn) stop(why *wire.Closing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked(why)
}

func (c *conn) stopLocked(why *wire.Closing) {
	if c.why == nil && !c.ended {
		c.why = why
		c.socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// cut ends the connection without a word.
func (c *conn) cut() { c.socket.Conn.Close() }

// send queues a message, which the caller does not touch again. It never blocks: who reads too slowly to empty the
// queue loses the connection.
func (c *conn) send(message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.why != nil {
		return
	}
	if c.queued+cost(message) > c.hub.timing.queueBytes {
		c.queue, c.queued = nil, 0
		c.stopLocked(closing(wire.ClosingRateLimited, "reads too slowly"))
		return
	}
	c.enqueue(message)
}

func (c *conn) enqueue(message []byte) {
	c.queue = append(c.queue, message)
	c.queued += cost(message)
	if c.drained == nil {
		c.drained = make(chan struct{})
		go c.drain(c.drained)
	}
}

// cost is about what a queued message takes of memory.
func cost(message []byte) int { return len(message) + 64 }

// drain writes what is queued, and ends.
func (c *conn) drain(drained chan struct{}) {
	defer close(drained)
	for {
		c.mu.Lock()
		if len(c.queue) == 0 {
			c.queue, c.drained = nil, nil
			c.mu.Unlock()
			return
		}
		message := c.queue[0]
		c.queue = c.queue[1:]
		c.queued -= cost(message)
		if !c.ended { // farewell's deadline stands
			c.socket.SetWriteDeadline(time.Now().Add(c.hub.timing.write))
		}
		c.mu.Unlock()
		if err := c.ws.Write(c.hub.ctx, websocket.MessageBinary, message); err != nil {
			c.mu.Lock()
			c.queue, c.queued, c.drained = nil, 0, nil
			c.stopLocked(closing(wire.ClosingRateLimited, "reads too slowly"))
			c.mu.Unlock()
			return
		}
	}
}

// farewell writes what is queued and why, and closes. Without a reason the client has gone already.
func (c *conn) farewell(why *wire.Closing) {
	by := time.Now().Add(c.hub.timing.farewell)
	c.mu.Lock()
	c.ended = true
	c.socket.SetWriteDeadline(by)
	if why == nil {
		c.queue, c.queued = nil, 0
	} else {
		c.enqueue(why.Append(nil))
	}
	drained := c.drained
	c.mu.Unlock()
	if why == nil {
		c.ws.CloseNow()
	}
	if drained != nil {
		<-drained
	}
	if why != nil {
		c.socket.linger.Store(int64(c.hub.timing.farewell))
		c.socket.SetDeadline(time.Now().Add(c.hub.timing.farewell))
		c.ws.Close(websocket.StatusNormalClosure, "")
	}
}

// socket is the connection beneath a WebSocket, kept for its deadlines.
type socket struct {
	net.Conn
	linger atomic.Int64 // nanoseconds that Close waits for the peer to close
}

// Close closes. Data that nobody has read would make the kernel reset the connection and the peer lose what was
// written last, so Close first ends its own direction and reads the other one to its end.
func (s *socket) Close() error {
	if d := time.Duration(s.linger.Load()); d > 0 {
		if half, ok := s.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			s.Conn.SetReadDeadline(time.Now().Add(d))
			io.Copy(io.Discard, struct{ io.Reader }{s.Conn})
		}
	}
	return s.Conn.Close()
}

// hijacker gives the WebSocket a socket, and buffers that are small because an idle connection keeps them.
type hijacker struct {
	http.ResponseWriter
	socket *socket
}

const bufferSize = 512

// Hijack implements http.Hijacker.
func (w *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.socket = &socket{Conn: nc}
	// What came along with the request has been read already.
	early := make([]byte, buffered.Reader.Buffered())
	if _, err := io.ReadFull(buffered, early); err != nil {
		nc.Close()
		return nil, nil, err
	}
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), w.socket), max(bufferSize, len(early)))
	if _, err := r.Peek(len(early)); err != nil {
		nc.Close()
		return nil, nil, err
	}
	return w.socket, bufio.NewReadWriter(r, bufio.NewWriterSize(w.socket, bufferSize)), nil
}
