//go:build !js

package peer

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

var _ Channel = (*dataChannel)(nil)

const maxUnread = 8 << 20

// mostSlack: pion sends what both channels have queued in the order in which it came, so control would wait for more.
const mostSlack = slack

// transport is a detached pion data channel. A goroutine of its own reads messages straight into their record; while its
// queue is full it does not read, and SCTP's window closes.
type transport struct {
	dc *webrtc.DataChannel

	queueMu  sync.Mutex
	queue    []*bulk.Buffer
	queued   int // bytes
	discards bool
	readable chan struct{} // one token: the queue has grown
	space    chan struct{} // one token: the queue has shrunk
}

// newChannel makes a channel of the connection. loops counts its goroutine.
func newChannel(pc *webrtc.PeerConnection, id wire.Channel, pool *bulk.Pool, loops *loops) (*dataChannel, error) {
	dc, err := pc.CreateDataChannel(label(id), channelInit(id))
	if err != nil {
		return nil, err
	}
	c := newDataChannel(id, pool)
	c.transport = transport{dc: dc, readable: make(chan struct{}, 1), space: make(chan struct{}, 1)}
	dc.SetBufferedAmountLowThreshold(LowWater)
	dc.OnBufferedAmountLow(func() { signal(c.low) })
	dc.OnOpen(func() {
		raw, err := dc.DetachWithDeadline()
		if err != nil { // not before OnOpen, and detaching is enabled
			c.end(ErrClosed)
			return
		}
		if loops.run(func() { c.receive(raw) }) {
			c.setOpened()
		}
	})
	return c, nil
}

// receive reads until the channel ends.
func (c *dataChannel) receive(raw datachannel.ReadWriteCloserDeadliner) {
	first := c.pool.Get(wire.MessageSize)
	defer first.Release()
	in := assembler{pool: c.pool, channel: c.id}
	defer in.drop()
	for {
		part := in.part()
		into := part
		if part == nil {
			into = first.B
		}
		n, isText, err := raw.ReadDataChannel(into)
		switch {
		case c.ended() != nil: // by us: read on until the remote's half is closed too
			if err != nil {
				return
			}
			continue
		case errors.Is(err, io.ErrShortBuffer) || err == nil && isText:
			c.abort(ErrFraming)
			return
		case err != nil:
			c.end(ErrClosed)
			return
		case part == nil:
			if in.begin(into[:n], n) != nil {
				c.abort(ErrFraming)
				return
			}
			copy(in.part(), into[:n])
		}
		c.arrives(n)
		record, err := in.advance(n)
		if err != nil {
			c.abort(ErrFraming)
			return
		}
		if record != nil && !c.deliver(record) {
			record.Release()
		}
	}
}

// deliver queues a record, and waits for room first.
func (c *dataChannel) deliver(record *bulk.Buffer) bool {
	for {
		c.queueMu.Lock()
		switch {
		case c.discards:
			c.queueMu.Unlock()
			return false
		case len(c.queue) == 0 || c.queued+len(record.B) <= maxUnread || c.ended() != nil:
			c.queue = append(c.queue, record)
			c.queued += len(record.B)
			c.queueMu.Unlock()
			signal(c.readable)
			return true
		}
		c.queueMu.Unlock()
		select {
		case <-c.space:
		case <-c.done:
		}
	}
}

// ReadRecord implements Channel.
func (c *dataChannel) ReadRecord(ctx context.Context) (*bulk.Buffer, error) {
	for {
		err := c.ended() // before the look at the queue, which does not grow after the end
		c.queueMu.Lock()
		if len(c.queue) > 0 {
			record := c.queue[0]
			c.queue[0] = nil
			c.queue = c.queue[1:]
			c.queued -= len(record.B)
			c.queueMu.Unlock()
			signal(c.space)
			return record, nil
		}
		c.queueMu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-c.readable:
		case <-c.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Buffered implements Channel.
func (c *dataChannel) Buffered() int { return int(c.dc.BufferedAmount()) }

func (c *dataChannel) send(message []byte) error { return c.dc.Send(message) }

// hangUp closes the outgoing half; receive ends the channel when it has read what the remote sent before it closed its own.
func (c *dataChannel) hangUp() { _ = c.dc.Close() }

// Close implements Channel.
func (c *dataChannel) Close() error {
	c.abort(ErrClosed)
	c.discard()
	return nil
}

// abort closes the channel and keeps what was received before.
func (c *dataChannel) abort(why error) {
	if c.end(why) {
		c.hangUp()
	}
}

// discard drops what was received and is not read.
func (c *dataChannel) discard() {
	c.queueMu.Lock()
	defer c.queueMu.Unlock()
	for _, record := range c.queue {
		record.Release()
	}
	c.queue, c.queued, c.discards = nil, 0, true
}
