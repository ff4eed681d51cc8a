// Package signaling is the room client: a connection to the hub that mends itself, and envelopes repeated until
// acknowledged. It follows PROTOCOL.md sections 4 and 5 and knows no keys: what an envelope holds, and whether it opens,
// is its user's business.
package signaling

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coder/websocket"

	"tallow/internal/core/wire"
)

// ErrProtocol is wrapped by the error of a connection on which the hub sent what it must not.
var ErrProtocol = errors.New("signaling: the hub broke the protocol")

// ErrSilent is the error of a connection on which the hub no longer answers.
var ErrSilent = errors.New("signaling: the hub does not answer")

// Bounds of a client's queues, in messages.
const (
	maxQueued = 256  // to the hub; beyond it the oldest goes
	maxLarge  = 256  // from the hub, envelopes and ICE servers; beyond it an envelope goes, and is repeated by its sender
	maxEvents = 8192 // from the hub, everything; beyond it the connection ends
)

// Config is what a Client needs.
type Config struct {
	URL   string // of the hub's endpoint: ws or wss
	Enter wire.Enter
	// Events is called with each event, in order, from one goroutine. While it runs no other event comes, but the
	// connection goes on. It may call Send, Refresh and Nudge, but not Close, which waits for it.
	Events func(Event)
}

// Client is a member's place at the hub. Its methods may be called from any goroutine.
type Client struct {
	cfg     Config
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	nudged chan struct{}
	looked chan struct{} // something happened: look at the clock
	posted chan struct{} // there are events

	mu     sync.Mutex
	link   *link // the current connection; nil: none
	events []Event
	large  int // how many of events count against maxLarge
}

// Dial returns a client at once. It connects in the background, and again whenever the connection is lost, until
// a Disconnected is Final or it is closed.
func Dial(cfg Config) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{cfg: cfg, ctx: ctx, cancel: cancel,
		nudged: make(chan struct{}, 1), looked: make(chan struct{}, 1), posted: make(chan struct{}, 1)}
	c.running.Go(c.run)
	c.running.Go(c.dispatch)
	return c
}

// Send queues an envelope for a member. It never blocks. While there is no connection the envelope is dropped, and when
// 256 messages wait, the oldest of them: an Outbox repeats. An envelope that is empty or longer than wire.MaxEnvelope is
// dropped too.
func (c *Client) Send(to wire.ID, envelope []byte) {
	if !sendable(envelope) {
		return
	}
	c.queue(wire.Relay{Member: to, Envelope: envelope}.Append(nil, wire.HubSend))
}

// Refresh asks for fresh ICE servers. Without a connection it does nothing: Entered brings them.
func (c *Client) Refresh() { c.queue([]byte{byte(wire.HubRefresh)}) }

// Nudge says that the network may be back: a wait between attempts ends, except one that the hub asked for; an attempt
// that hangs starts over, later each time; and a connection has to show that it still works, within 2 s or four of its round trips.
func (c *Client) Nudge() { signal(c.nudged) }

// Close ends the connection after what is queued has been sent, at most about two seconds later, and returns when
// everything that the client owns has ended, a running call of Events included. No event comes after it, and none
// because of it. It is idempotent.
func (c *Client) Close() {
	c.cancel()
	c.running.Wait()
}

func (c *Client) queue(message []byte) {
	c.mu.Lock()
	if c.link != nil && c.link.entered {
		c.link.enqueue(message)
	}
	c.mu.Unlock()
	signal(c.looked)
}

// ending is how an attempt or a connection ended.
type ending struct {
	err     error
	closing wire.Closing // what the hub said; its zero value: nothing
	steady  bool         // it was connected for a while
	again   bool         // start over at once: nudged

	connected bool // for however short a time
}

// final reports whether the hub told us not to come back by ourselves.
func (e ending) final() bool { return e.closing.Code != 0 && e.closing.RetryAfter == 0 }

func (c *Client) run() {
	var pace backoff
	patience, failed := redialAfter, 0
	for {
		end := c.connect(address(c.cfg.URL, failed), patience)
		if c.ctx.Err() != nil {
			return
		}
		if failed++; end.connected {
			failed = 0
		}
		if end.again {
			patience *= 2
			continue
		}
		patience = redialAfter
		c.post(nil, Disconnected{end.err, end.closing.Code, end.final()})
		if end.final() {
			return
		}
		if end.steady {
			pace.reset()
		}
		nudged, wait := c.nudged, pace.next(rand.Float64())
		if end.closing.Code != 0 {
			nudged, wait = nil, max(wait, retryAfter(end.closing, rand.Float64()))
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.ctx.Done():
		case <-nudged:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// connect makes one attempt, and returns when the connection has ended. From patience on, a nudge ends the attempt.
func (c *Client) connect(url string, patience time.Duration) ending {
	started := time.Now()
	ctx, cancel := context.WithTimeout(c.ctx, dialWithin)
	defer cancel()
	type result struct {
		s   *socket
		err error
	}
	dialed := make(chan result, 1)
	c.running.Go(func() {
		s, err := dial(ctx, url)
		dialed <- result{s, err}
	})
	again := false
	for {
		select {
		case <-c.nudged:
			if time.Since(started) >= patience {
				again = true
				cancel()
			}
		case r := <-dialed:
			if r.err != nil {
				return ending{err: fmt.Errorf("signaling: dial: %w", r.err), again: again}
			}
			return c.hold(r.s)
		}
	}
}

// hold enters the room over a connection, and returns when it has ended. What is left to do then, it leaves behind.
func (c *Client) hold(s *socket) ending {
	l := newLink(c, s)
	c.mu.Lock()
	c.link = l
	l.enqueue(c.cfg.Enter.Append(nil))
	l.asked = time.Now()
	c.mu.Unlock()
	c.running.Go(l.write)
	c.running.Go(l.read)

	started := time.Now()
	end := l.watch(started)
	end.connected = true
	end.steady = time.Since(started) >= steadyAfter
	c.mu.Lock()
	c.link = nil
	c.mu.Unlock()
	c.running.Go(l.close)
	return end
}

// post queues an event: of the client itself, or of a connection, which counts only while it is the current one. It
// reports whether there was room.
func (c *Client) post(l *link, e Event) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != l {
		return true
	}
	if l != nil && len(c.events) >= maxEvents {
		return false
	}
	switch e.(type) {
	case Entered:
		l.entered = true
	case Delivered:
		if c.large >= maxLarge {
			return true
		}
		c.large++
	case ICEServers:
		if c.large >= maxLarge {
			return false
		}
		c.large++
	}
	c.events = append(c.events, e)
	signal(c.posted)
	return true
}

// dispatch calls Events.
func (c *Client) dispatch() {
	for c.ctx.Err() == nil {
		c.mu.Lock()
		events := c.events
		c.events, c.large = nil, 0
		c.mu.Unlock()
		for _, e := range events {
			if c.ctx.Err() != nil {
				return
			}
			c.cfg.Events(e)
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-c.posted:
		case <-c.ctx.Done():
		}
	}
}

// connection is what both kinds of socket are.
type connection interface {
	read(ctx context.Context) ([]byte, error)
	// write may block; ctx ends the connection.
	write(ctx context.Context, p []byte) error
	// close makes read return when the closing handshake is over. There is none on a broken connection, where read has
	// returned already.
	close(broken bool)
}

func (s *socket) read(ctx context.Context) ([]byte, error) {
	kind, p, err := s.conn.Read(ctx)
	switch {
	case errors.Is(err, websocket.ErrMessageTooBig):
		return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
	case err != nil:
		return nil, err
	case kind != websocket.MessageBinary:
		return nil, fmt.Errorf("%w: not a binary message", ErrProtocol)
	case len(p) > wire.MaxHubMessage:
		return nil, fmt.Errorf("%w: message of %d bytes", ErrProtocol, len(p))
	}
	return p, nil
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
