package peer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

// dataChannel implements Channel. What it needs of the platform is in transport, made by channel_native.go or channel_js.go.
type dataChannel struct {
	opened, done chan struct{}
	low          chan struct{} // one token: the transport's queue has fallen to LowWater
	pool         *bulk.Pool
	id           wire.Channel

	pacing  atomic.Pointer[Pacing] // or nil; natively the remote's messages may come before it is there
	arrived uint64                 // bytes of messages; the reader's

	mu  sync.Mutex
	err error // why done is closed

	transport
}

func newDataChannel(id wire.Channel, pool *bulk.Pool) *dataChannel {
	return &dataChannel{
		opened: make(chan struct{}), done: make(chan struct{}), low: make(chan struct{}, 1), id: id, pool: pool,
	}
}

// Opened implements Channel.
func (c *dataChannel) Opened() <-chan struct{} { return c.opened }

// Done implements Channel.
func (c *dataChannel) Done() <-chan struct{} { return c.done }

// Pace implements Channel.
func (c *dataChannel) Pace(p Pacing) { c.pacing.Store(&p) }

// arrives counts a message.
func (c *dataChannel) arrives(n int) {
	c.arrived += uint64(n)
	if p := c.pacing.Load(); p != nil {
		(*p).Arrived(c.arrived)
	}
}

// WriteRecord implements Channel.
func (c *dataChannel) WriteRecord(ctx context.Context, record []byte) error {
	if size, err := wire.RecordSize(record, c.id); err != nil || size != len(record) {
		return fmt.Errorf("peer: write of %d bytes that are no record", len(record))
	}
	select {
	case <-c.opened:
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	// Only before the record: one that was cut short could not be followed by another.
	for c.ended() == nil && c.Buffered() > HighWater {
		select {
		case <-c.low:
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for begun := false; len(record) > 0; begun = true {
		n := min(len(record), wire.MessageSize)
		if p := c.pacing.Load(); p != nil {
			var err error
			if n, err = (*p).Next(ctx, n); err != nil {
				if begun {
					c.hangUp()
				}
				return err
			}
		}
		if err := c.ended(); err != nil {
			return err
		}
		if err := c.send(record[:n]); err != nil {
			c.hangUp()
			return ErrClosed
		}
		record = record[n:]
	}
	return nil
}

// ended is why the channel is closed, or nil.
func (c *dataChannel) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// setOpened closes opened. The platform calls it at most once.
func (c *dataChannel) setOpened() { close(c.opened) }

// end closes done, and reports whether it was open.
func (c *dataChannel) end(why error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	c.err = why
	close(c.done)
	return true
}

// signal leaves a token in a channel of capacity one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
