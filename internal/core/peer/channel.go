package peer

import (
	"context"
	"fmt"
	"sync"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

// dataChannel implements Channel. What it needs of the platform is in transport, made by channel_native.go or channel_js.go.
type dataChannel struct {
	opened, done chan struct{}
	low          chan struct{} // one token: the transport's queue has fallen to LowWater
	pool         *bulk.Pool
	id           wire.Channel

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
	for message := range messages(record) {
		if err := c.ended(); err != nil {
			return err
		}
		if err := c.send(message); err != nil {
			c.hangUp()
			return ErrClosed
		}
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
