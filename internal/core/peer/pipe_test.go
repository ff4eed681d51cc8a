package peer

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

// pipe is one end of a connection in memory: what Conn promises of its channels, and no more of it. What passes can be seen,
// held up and added to.
type pipe struct {
	Conn
	channels [2]*pipeChannel
	done     chan struct{} // both ends'
	once     *sync.Once
}

type pipeChannel struct {
	in, out chan []byte // messages
	opened  chan struct{}
	done    chan struct{}
	close   func()
	id      wire.Channel
	read    assembler

	mu   sync.Mutex
	gate chan struct{} // not nil: what arrives waits until it is closed
	sent [][]byte      // the records that were written here
}

// newPipe makes a connection's two ends.
func newPipe() (a, b *pipe) {
	a = &pipe{done: make(chan struct{}), once: new(sync.Once)}
	b = &pipe{done: a.done, once: a.once}
	opened := make(chan struct{})
	close(opened)
	shut := func() { a.Close() }
	for ch := range a.channels {
		there, back := make(chan []byte, 256), make(chan []byte, 256)
		end := func(in, out chan []byte) *pipeChannel {
			return &pipeChannel{in: in, out: out, opened: opened, done: a.done, close: shut, id: wire.Channel(ch),
				read: assembler{pool: new(bulk.Pool), channel: wire.Channel(ch)}}
		}
		a.channels[ch], b.channels[ch] = end(back, there), end(there, back)
	}
	return a, b
}

func (p *pipe) Channel(ch wire.Channel) Channel { return p.channels[ch] }

func (p *pipe) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (c *pipeChannel) Opened() <-chan struct{} { return c.opened }
func (c *pipeChannel) Done() <-chan struct{}   { return c.done }
func (c *pipeChannel) Pace(Pacing)             {}
func (c *pipeChannel) Buffered() int           { return 0 }
func (c *pipeChannel) Close() error            { c.close(); return nil }

func (c *pipeChannel) WriteRecord(ctx context.Context, record []byte) error {
	c.mu.Lock()
	c.sent = append(c.sent, bytes.Clone(record))
	c.mu.Unlock()
	for message := range messages(record) {
		select {
		case c.out <- bytes.Clone(message):
		case <-c.done:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *pipeChannel) ReadRecord(ctx context.Context) (*bulk.Buffer, error) {
	for {
		var message []byte
		select {
		case message = <-c.in: // also after the end, what came before it
		default:
			select {
			case message = <-c.in:
			case <-c.done:
				if len(c.in) > 0 {
					continue
				}
				return nil, ErrClosed
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		c.mu.Lock()
		gate := c.gate
		c.mu.Unlock()
		if gate != nil {
			select {
			case <-gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		record, err := feed(&c.read, message)
		if err != nil {
			c.close()
			return nil, err
		}
		if record != nil {
			return record, nil
		}
	}
}

// hold keeps what arrives from now on on the way until release is called.
func (c *pipeChannel) hold() (release func()) {
	gate := make(chan struct{})
	c.mu.Lock()
	c.gate = gate
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		c.gate = nil
		c.mu.Unlock()
		close(gate)
	}
}

// records are those that were written here.
func (c *pipeChannel) records() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sent[:len(c.sent):len(c.sent)]
}

// inject has a record arrive here that the other end has not sent.
func (c *pipeChannel) inject(record []byte) {
	for message := range messages(record) {
		c.in <- bytes.Clone(message)
	}
}

// newPipePair makes two open links of the members over a connection in memory.
func newPipePair(t *testing.T, m members, engine *countingEngine) (p *pair, a, b *pipe) {
	t.Helper()
	a, b = newPipe()
	i, r := m.shakeHands(t, nil)
	return openPair(t, [2]Conn{a, b}, i, r, engine), a, b
}
