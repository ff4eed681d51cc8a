package peer

import (
	"iter"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

// messages cuts a record into the messages that carry it (PROTOCOL.md section 8).
func messages(record []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(record) > wire.MessageSize {
			if !yield(record[:wire.MessageSize]) {
				return
			}
			record = record[wire.MessageSize:]
		}
		yield(record)
	}
}

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
	if err != nil || n != min(size, wire.MessageSize) {
		return ErrFraming
	}
	a.record, a.filled = a.pool.Get(size), 0
	return nil
}

// part is where the next message's bytes belong: the message must be of exactly this length. It is nil between records,
// where begin comes first.
func (a *assembler) part() []byte {
	if a.record == nil {
		return nil
	}
	return a.record.B[a.filled:min(a.filled+wire.MessageSize, len(a.record.B))]
}

// missing is how many messages make the record whole: 1 between records, whatever its length will be.
func (a *assembler) missing() int {
	if a.record == nil {
		return 1
	}
	return (len(a.record.B) - a.filled + wire.MessageSize - 1) / wire.MessageSize
}

// advance says that part has been filled, and returns the record if it is whole now.
func (a *assembler) advance() *bulk.Buffer {
	if a.filled += len(a.part()); a.filled < len(a.record.B) {
		return nil
	}
	record := a.record
	a.record = nil
	return record
}

// drop forgets a record that has begun.
func (a *assembler) drop() {
	a.record.Release()
	a.record = nil
}
