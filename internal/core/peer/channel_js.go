package peer

import (
	"context"
	"errors"
	"syscall/js"
	"time"
	"unsafe"

	"tallow/internal/core/bulk"
	"tallow/internal/core/host"
	"tallow/internal/core/wire"
)

var _ Channel = (*dataChannel)(nil)

// maxUnread is what web/host-channels.js keeps of a channel.
const maxUnread = 32 << 20

// mostSlack: browsers have the channels take turns, so what bulk has queued does not hold up control.
const mostSlack = 500 * time.Millisecond

// Events of web/host-channels.js.
const (
	eventOpen = iota + 1
	eventMessages
	eventLow
	eventClosed
	eventText
	eventOverrun
)

//go:wasmimport tallow channel_watch
func channelWatch(handle host.Handle, target uint32, low uint32)

//go:wasmimport tallow channel_send
func channelSend(handle host.Handle, p unsafe.Pointer, n uint32) int32

//go:wasmimport tallow channel_buffered
func channelBuffered(handle host.Handle) uint32

//go:wasmimport tallow channel_peek
func channelPeek(handle host.Handle, head unsafe.Pointer, need uint32, within float64) int32

//go:wasmimport tallow channel_receive
func channelReceive(handle host.Handle, p unsafe.Pointer, n uint32) int32

//go:wasmimport tallow channel_hang_up
func channelHangUp(handle host.Handle)

//go:wasmimport tallow channel_drop
func channelDrop(handle host.Handle)

var errSend = errors.New("peer: the browser refused to send")

// transport is an RTCDataChannel that web/host-channels.js watches. Received messages wait there until ReadRecord copies
// them into their record.
type transport struct {
	dc       js.Value
	handle   host.Handle // 0 when dropped
	stop     func()
	in       assembler
	head     *[4]byte
	readable chan struct{} // one token: messages wait
}

// newChannel watches an RTCDataChannel.
func newChannel(dc js.Value, id wire.Channel, pool *bulk.Pool) *dataChannel {
	c := newDataChannel(id, pool)
	c.transport = transport{
		dc: dc, handle: host.Attach(dc), in: assembler{pool: pool, channel: id}, head: new([4]byte), readable: make(chan struct{}, 1),
	}
	target, stop := host.Listen(c.event)
	c.stop = stop
	channelWatch(c.handle, target, LowWater)
	return c
}

func (c *dataChannel) event(event int32, _ float64) {
	switch event {
	case eventOpen:
		c.setOpened()
	case eventMessages:
		signal(c.readable)
	case eventLow:
		signal(c.low)
	case eventClosed:
		c.end(ErrClosed)
	case eventText:
		c.end(ErrFraming)
	case eventOverrun:
		c.end(ErrOverrun)
	}
}

// ReadRecord implements Channel.
func (c *dataChannel) ReadRecord(ctx context.Context) (*bulk.Buffer, error) {
	for {
		ended := c.ended() // before the look at the messages: none come after the end
		record, err := c.take()
		switch {
		case record != nil:
			return record, nil
		case err != nil:
			c.abort(err)
			return nil, c.ended()
		case ended != nil:
			return nil, ended
		}
		select {
		case <-c.readable:
		case <-c.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take copies waiting messages until a record is whole, which it returns, or none waits.
func (c *dataChannel) take() (*bulk.Buffer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.handle != 0 {
		need, within := c.needed()
		n := int(channelPeek(c.handle, unsafe.Pointer(c.head), uint32(need), within.Seconds()*1000))
		if n < 0 {
			break
		}
		if c.in.part() == nil {
			if err := c.in.begin(c.head[:min(n, len(c.head))], n); err != nil {
				return nil, err
			}
		}
		part := c.in.part()
		if n > len(part) || channelReceive(c.handle, unsafe.Pointer(&part[0]), uint32(n)) != int32(n) {
			return nil, ErrFraming
		}
		c.arrives(n)
		if record, err := c.in.advance(n); record != nil || err != nil {
			return record, err
		}
	}
	return nil, nil
}

// needed is how many messages are worth a look: those that the record lacks, or fewer where that many are to be reported. One that comes after within is
// worth it in any case.
func (c *dataChannel) needed() (n int, within time.Duration) {
	n, within = c.in.missing(), time.Hour
	if p := c.pacing.Load(); p != nil {
		var due uint64
		due, within = (*p).Due()
		n = min(n, int(max(due, c.arrived)-c.arrived+wire.MessageSize-1)/wire.MessageSize)
	}
	return n, within
}

// Buffered implements Channel.
func (c *dataChannel) Buffered() int { return int(channelBuffered(c.handle)) }

func (c *dataChannel) send(message []byte) error {
	if channelSend(c.handle, unsafe.Pointer(&message[0]), uint32(len(message))) < 0 {
		return errSend
	}
	return nil
}

// hangUp closes the channel; the event that it is closed ends it, after what the remote sent before.
func (c *dataChannel) hangUp() { channelHangUp(c.handle) }

// Close implements Channel.
func (c *dataChannel) Close() error {
	c.abort(ErrClosed)
	return nil
}

// abort closes the channel and drops what was received.
func (c *dataChannel) abort(why error) {
	c.end(why)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.handle == 0 {
		return
	}
	channelDrop(c.handle)
	c.handle.Release()
	c.handle = 0
	c.stop()
	c.in.drop()
}
