package signaling

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tallow/internal/core/wire"
)

// link is one connection to the hub. Three goroutines serve it: the client's, in watch, one that reads and one that
// writes. The reading one never waits for anything but the connection: in a browser what has not been read when the hub
// closes is lost, and what the hub says last matters most.
type link struct {
	client *Client
	socket connection
	ctx    context.Context // ends the connection without ceremony
	cancel context.CancelFunc

	ended   chan ending   // why, from whoever sees it first
	wake    chan struct{} // there is something to write
	finish  chan struct{} // closed: write what is queued, and stop
	written chan struct{} // closed: nothing will be written any more
	done    chan struct{} // closed: nothing will be read any more

	// Guarded by client.mu.
	entered bool
	out     [][]byte
	heard   uint64        // messages that came
	asked   time.Time     // when Enter or the first ping went out that waits for its answer; zero: none does
	rtt     time.Duration // until the last such answer; 0: there was none
}

func newLink(c *Client, s *socket) *link {
	s.conn.SetReadLimit(wire.MaxHubMessage + 1)
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.ctx))
	return &link{client: c, socket: s, ctx: ctx, cancel: cancel, ended: make(chan ending, 1), wake: make(chan struct{}, 1),
		finish: make(chan struct{}), written: make(chan struct{}), done: make(chan struct{})}
}

// enqueue queues a message. client.mu is held.
func (l *link) enqueue(message []byte) {
	if len(l.out) >= maxQueued {
		l.out = l.out[1:]
	}
	l.out = append(l.out, message)
	signal(l.wake)
}

// ping queues a ping, before everything else.
func (l *link) ping() {
	l.client.mu.Lock()
	defer l.client.mu.Unlock()
	if l.asked.IsZero() {
		l.asked = time.Now()
	}
	l.out = append([][]byte{{byte(wire.HubPing)}}, l.out...)
	signal(l.wake)
}

// end reports why the connection ends. Only the first report counts.
func (l *link) end(e ending) {
	select {
	case l.ended <- e:
	default:
	}
}

// watch returns when the connection has ended or the client is closed.
func (l *link) watch(started time.Time) ending {
	c := l.client
	var beat heartbeat
	beat.ask(started, 0, answerWithin) // Enter, and Entered
	timer := time.NewTimer(answerWithin)
	defer timer.Stop()
	for {
		nudged := false
		select {
		case <-c.ctx.Done():
			return ending{err: context.Canceled}
		case e := <-l.ended:
			return e
		case <-c.nudged:
			nudged = true
		case <-c.looked:
		case <-timer.C:
		}
		c.mu.Lock()
		heard, rtt := l.heard, l.rtt
		c.mu.Unlock()
		now := time.Now()
		if nudged && beat.nudge(now, heard, rtt) {
			l.ping()
		}
		ping, gone, next := beat.step(now, heard)
		if gone {
			return ending{err: ErrSilent}
		}
		if ping {
			l.ping()
		}
		timer.Reset(next.Sub(now))
	}
}

// read takes in what the hub sends, to the connection's end.
func (l *link) read() {
	defer close(l.done)
	for {
		p, err := l.socket.read(l.ctx)
		if err == nil {
			err = l.receive(p)
		}
		if err != nil {
			l.end(ending{err: err})
		}
		// After a violation the rest is read and ignored: closing needs a reader.
		if err != nil && !errors.Is(err, ErrProtocol) {
			return
		}
	}
}

// receive takes in a message.
func (l *link) receive(p []byte) error {
	c := l.client
	c.mu.Lock()
	l.heard++
	entered := l.entered
	t := wire.TypeOf(p)
	if (t == wire.HubEntered || t == wire.HubPong) && !l.asked.IsZero() {
		l.rtt, l.asked = time.Since(l.asked), time.Time{}
	}
	c.mu.Unlock()

	var e Event
	var err error
	if t == wire.HubClosing {
		m, err := wire.ParseClosing(p)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		l.end(ending{err: fmt.Errorf("signaling: closed by the hub: code %d, %q", m.Code, m.Reason), closing: m})
		return nil
	}
	if (t == wire.HubEntered) == entered {
		return fmt.Errorf("%w: message of type %#x out of turn", ErrProtocol, uint8(t))
	}
	switch t {
	case wire.HubEntered:
		var m wire.Entered
		m, err = wire.ParseEntered(p)
		e = Entered{m.MaxMembers, m.ICE, m.Present}
	case wire.HubDeliver:
		var m wire.Relay
		m, err = wire.ParseRelay(p, t)
		e = Delivered{m.Member, m.Envelope}
	case wire.HubICEServers:
		var m wire.ICEServers
		m, err = wire.ParseICEServers(p)
		e = ICEServers{m}
	case wire.HubPresent:
		var id wire.ID
		id, err = wire.ParsePresence(p, t)
		e = Present{id}
	case wire.HubAbsent:
		var id wire.ID
		id, err = wire.ParsePresence(p, t)
		e = Absent{id}
	case wire.HubPong:
		err = wire.ParseBare(p, t)
	default:
		return fmt.Errorf("%w: message of type %#x", ErrProtocol, uint8(t))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if e != nil && !c.post(l, e) {
		return fmt.Errorf("%w: too many messages at once", ErrProtocol)
	}
	return nil
}

// write sends what is queued.
func (l *link) write() {
	defer close(l.written)
	for {
		l.client.mu.Lock()
		var p []byte
		if len(l.out) > 0 {
			p, l.out = l.out[0], l.out[1:]
		}
		l.client.mu.Unlock()
		if p == nil {
			select {
			case <-l.wake:
				continue
			case <-l.finish:
				return
			case <-l.ctx.Done():
				return
			}
		}
		if err := l.socket.write(l.ctx, p); err != nil {
			l.end(ending{err: fmt.Errorf("signaling: write: %w", err)})
			return
		}
	}
}

// close writes what is queued, closes, and returns when the connection is gone.
func (l *link) close() {
	cut := time.AfterFunc(closeWithin, l.cancel)
	defer l.cancel()
	defer cut.Stop()
	close(l.finish)
	<-l.written
	broken := false
	select {
	case <-l.done:
		broken = true
	default:
	}
	l.socket.close(broken)
	<-l.done
}
