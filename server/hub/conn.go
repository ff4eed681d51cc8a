package hub

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
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
	from    netip.Prefix
	release func() // gives the place at the gate back

	messages, bytes *rate.Limiter // of the reading goroutine

	// Set by Hub.enter, in the reading goroutine and under the hub's mutex, and not changed after.
	room   *room
	member wire.ID

	resigned bool // the client closed in order, which gives its place up; of the reading goroutine

	mu        sync.Mutex
	why       *wire.Closing // asked to stop
	ended     bool          // takes no more messages
	queue     []queued
	control   int             // cost of what waits and is no envelope; what is being written included, here and below
	envelopes int             // cost of the envelopes that wait
	authors   map[wire.ID]int // the same by author; nil when nothing waits
	drained   chan struct{}   // closed by the writing goroutine at its end; nil when there is none
}

// queued is a message that waits to be written.
type queued struct {
	message  []byte
	envelope bool
	author   wire.ID // of the envelope
}

// cost is about what it takes of memory.
func (q queued) cost() int { return len(q.message) + 96 }

// newConn makes a connection; its WebSocket is yet to come.
func newConn(h *Hub, from netip.Prefix, release func()) *conn {
	return &conn{
		hub: h, from: from, release: release,
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
	p, why, err := c.readAll(r)
	if err != nil {
		return nil, c.readError(err)
	} else if why != nil {
		return nil, why
	}
	switch {
	case len(p) > wire.MaxHubMessage:
		return nil, closing(wire.ClosingBadRequest, "message is too long")
	case len(p) == 0 || kind != websocket.MessageBinary:
		return nil, closing(wire.ClosingBadRequest, "message is not binary")
	case !c.messages.Allow():
		return nil, closing(wire.ClosingRateLimited, "too many messages")
	}
	return p, nil
}

// readAll reads a message, up to a byte more than may be. What a frame's header promises takes no memory before it comes,
// and a long message only from the hub's budget.
func (c *conn) readAll(r io.Reader) ([]byte, *wire.Closing, error) {
	p, err := io.ReadAll(io.LimitReader(r, shortMessage))
	if err != nil || len(p) < shortMessage {
		return p, nil, err
	}
	if !c.hub.memory.take(wire.MaxHubMessage, c.hub.timing.totalBytes) {
		return nil, closing(wire.ClosingServerFull, "no memory for a long message"), nil
	}
	defer c.hub.memory.giveBack(wire.MaxHubMessage)
	all := make([]byte, wire.MaxHubMessage+1)
	n, err := io.ReadFull(r, all[copy(all, p):])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // the message is shorter than the buffer
	}
	return all[:len(p)+n], nil, err
}

// shortMessage is the length from which a message is long.
const shortMessage = 4096

// countFrame counts a WebSocket ping or pong as a message. It reports whether there may be one; if not, it stops the
// connection.
func (c *conn) countFrame() bool {
	ok := c.messages.Allow()
	if !ok {
		c.stop(closing(wire.ClosingRateLimited, "too many messages"))
	}
	return ok
}

// countBytes counts what has been read from the socket: frames take bytes even if the message that they are fragments of
// gets no longer by them. It stops the connection that sends too many.
func (c *conn) countBytes(n int) {
	if !c.bytes.AllowN(time.Now(), n) {
		c.stop(closing(wire.ClosingRateLimited, "too many bytes"))
	}
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
		c.resigned = websocket.CloseStatus(err) == websocket.StatusNormalClosure
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

// send queues a message that the client must get, which the caller does not touch again. It never blocks: a client for
// which there is no room loses the connection.
func (c *conn) send(message []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.why != nil {
		return
	}
	q := queued{message: message}
	var why *wire.Closing
	switch {
	case c.control+q.cost() > mostControl:
		why = closing(wire.ClosingRateLimited, "reads too slowly")
	case !c.hub.memory.take(q.cost(), c.hub.timing.totalBytes):
		why = closing(wire.ClosingServerFull, "no memory for a message")
	default:
		c.control += q.cost()
		c.enqueue(q)
		return
	}
	c.clear()
	c.stopLocked(why)
}

// mostControl bounds what waits for a client besides envelopes: several of the longest messages there are.
const mostControl = 4 * wire.MaxHubMessage

// deliver queues an envelope, or drops it where there is no room: its author repeats it. It never blocks. It reports
// whether the envelope is queued.
//
// An author may have a third of what is free waiting: a quarter of the queue when it is alone, a quarter of what the
// others have left when they have filled it (the dynamic thresholds of Choudhury and Hahne, 1998).
func (c *conn) deliver(author wire.ID, message []byte) bool {
	q := queued{message: message, envelope: true, author: author}
	c.mu.Lock()
	defer c.mu.Unlock()
	free := c.hub.timing.queueBytes - c.envelopes
	// A quarter of the hub's memory is for what must not be dropped.
	if c.ended || c.why != nil || c.authors[author]+q.cost() > free/3 || !c.hub.memory.take(q.cost(), c.hub.timing.totalBytes/4*3) {
		return false
	}
	if c.authors == nil {
		c.authors = make(map[wire.ID]int)
	}
	c.authors[author] += q.cost()
	c.envelopes += q.cost()
	c.enqueue(q)
	return true
}

func (c *conn) enqueue(q queued) {
	c.queue = append(c.queue, q)
	if c.drained == nil {
		c.drained = make(chan struct{})
		go c.drain(c.drained)
	}
}

// settle takes a message that waits no longer off the books.
func (c *conn) settle(q queued) {
	c.hub.memory.giveBack(q.cost())
	if !q.envelope {
		c.control -= q.cost()
		return
	}
	c.envelopes -= q.cost()
	if c.authors[q.author] -= q.cost(); c.authors[q.author] == 0 {
		delete(c.authors, q.author)
	}
}

// clear drops what waits.
func (c *conn) clear() {
	for _, q := range c.queue {
		c.settle(q)
	}
	c.queue = nil
}

// drain writes what is queued, and ends.
func (c *conn) drain(drained chan struct{}) {
	defer close(drained)
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) > 0 {
		q := c.queue[0]
		c.queue[0] = queued{}
		c.queue = c.queue[1:]
		if !c.ended { // farewell's deadline stands
			c.socket.SetWriteDeadline(time.Now().Add(c.hub.timing.write))
		}
		c.mu.Unlock()
		err := c.ws.Write(c.hub.ctx, websocket.MessageBinary, q.message)
		c.mu.Lock()
		c.settle(q)
		if err != nil {
			c.clear()
			c.stopLocked(closing(wire.ClosingRateLimited, "reads too slowly"))
		}
	}
	if !c.ended {
		// The library answers pings whenever they come, and an old deadline would fail its write.
		c.socket.SetWriteDeadline(time.Time{})
	}
	c.queue, c.authors, c.drained = nil, nil, nil
}

// farewell writes what is queued and why, and closes. Without a reason the client has gone already.
func (c *conn) farewell(why *wire.Closing) {
	by := time.Now().Add(c.hub.timing.farewell)
	c.mu.Lock()
	c.ended = true
	c.socket.SetWriteDeadline(by)
	if why == nil {
		c.clear()
	} else {
		q := queued{message: why.Append(nil)}
		c.hub.memory.take(q.cost(), math.MaxInt) // as little as it is, it is told at any time
		c.control += q.cost()
		c.enqueue(q)
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

// budget is memory that is shared. Its methods may be called from any goroutine.
type budget struct{ used atomic.Int64 }

// take takes n bytes, unless more than most would be used then.
func (b *budget) take(n, most int) bool {
	if b.used.Add(int64(n)) > int64(most) {
		b.giveBack(n)
		return false
	}
	return true
}

func (b *budget) giveBack(n int) { b.used.Add(-int64(n)) }

// socket is the connection beneath a WebSocket, kept for its deadlines.
type socket struct {
	net.Conn
	count  func(n int)  // is told how many bytes have been read
	linger atomic.Int64 // nanoseconds that Close waits for the peer to close
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.count(n)
	return n, err
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
	count  func(n int) // the socket's
	socket *socket
}

const bufferSize = 512

// Hijack implements http.Hijacker.
func (w *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.socket = &socket{Conn: nc, count: w.count}
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
