package peer

import (
	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

// assembler puts messages together into records, in buffers of the records' sizes. It hands out where a message belongs
// before the message is copied, so that its bytes go there directly. No message spans two records, so it holds at most
// one record, and that one's size was checked before it was allocated. It is not safe for concurrent use.
type assembler struct {
	pool    *bulk.Pool
	channel wire.Channel
	record  *bulk.Buffer // nil between records
	filled  int
}

// begin starts a record with its first message, which is n bytes long and starts with head (4 bytes, or all of them).
func (a *assembler) begin(head []byte, n int) error {
	size, err := wire.RecordSize(head, a.channel)
	if err != nil || !fits(n, size) {
		return ErrFraming
	}
	a.record, a.filled = a.pool.Get(size), 0
	return nil
}

// fits reports whether a message of n bytes may carry the next of the rest of a record.
func fits(n, rest int) bool {
	return n == rest && n <= wire.MessageSize || n < rest && n >= wire.MinMessageSize && n <= wire.MessageSize
}

// part is where the next message's bytes belong: as many as it has. It is nil between records, where begin comes first.
func (a *assembler) part() []byte {
	if a.record == nil {
		return nil
	}
	return a.record.B[a.filled:min(a.filled+wire.MessageSize, len(a.record.B))]
}

// missing is how many messages at least make the record whole: 1 between records, whatever its length will be.
func (a *assembler) missing() int {
	if a.record == nil {
		return 1
	}
	return (len(a.record.B) - a.filled + wire.MessageSize - 1) / wire.MessageSize
}

// advance says that n bytes have been put into part, and returns the record if it is whole now.
func (a *assembler) advance(n int) (*bulk.Buffer, error) {
	if !fits(n, len(a.record.B)-a.filled) {
		return nil, ErrFraming
	}
	if a.filled += n; a.filled < len(a.record.B) {
		return nil, nil
	}
	record := a.record
	a.record = nil
	return record, nil
}

// drop forgets a record that has begun.
func (a *assembler) drop() {
	a.record.Release()
	a.record = nil
}
