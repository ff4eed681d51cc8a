package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"slices"
	"testing"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

// testRecord is a record of size bytes that says its number, and whose other bytes depend on it.
func testRecord(size int, number uint64) []byte {
	record := wire.RecordHeader{Length: uint32(size - 4), Type: wire.RecordData, Sequence: number}.Append(nil)
	record = slices.Grow(record, size)[:size]
	state := number*2654435761 + uint64(size)
	for i := wire.RecordHeaderSize; i < size; i++ {
		state = state*6364136223846793005 + 1442695040888963407
		record[i] = byte(state >> 56)
	}
	return record
}

// feed gives the assembler a message as the platforms do, and returns the record that it completes.
func feed(a *assembler, message []byte) (*bulk.Buffer, error) {
	if a.part() == nil {
		if err := a.begin(message[:min(4, len(message))], len(message)); err != nil {
			return nil, err
		}
	}
	if len(message) > len(a.part()) {
		return nil, ErrFraming
	}
	copy(a.part(), message)
	return a.advance(len(message))
}

// messages cuts a record into messages as long as can be.
func messages(record []byte) iter.Seq[[]byte] { return slices.Chunk(record, wire.MessageSize) }

var recordSizes = []int{wire.RecordHeaderSize, 18, 1000, wire.MessageSize - 1, wire.MessageSize, wire.MessageSize + 1,
	2 * wire.MessageSize, 2*wire.MessageSize + 1, 256<<10 + 33, 1 << 20, wire.MaxRecord(wire.Bulk) - 1, wire.MaxRecord(wire.Bulk)}

func TestFraming(t *testing.T) {
	a := assembler{pool: new(bulk.Pool), channel: wire.Bulk}
	for i, size := range recordSizes {
		record := testRecord(size, uint64(i))
		var got *bulk.Buffer
		count := 0
		for message := range messages(record) {
			if got != nil {
				t.Fatalf("size %d: a message after the record was whole", size)
			}
			if want := (size-count*wire.MessageSize-1)/wire.MessageSize + 1; count > 0 && a.missing() != want || count == 0 && a.missing() != 1 {
				t.Errorf("size %d: %d messages missing after %d", size, a.missing(), count)
			}
			var err error
			if got, err = feed(&a, message); err != nil {
				t.Fatalf("size %d, message %d: %v", size, count, err)
			}
			count++
		}
		if want := (size + wire.MessageSize - 1) / wire.MessageSize; count != want {
			t.Errorf("size %d: %d messages, want %d", size, count, want)
		}
		if got == nil || !bytes.Equal(got.B, record) {
			t.Fatalf("size %d: not the same record", size)
		}
		got.Release()
	}
}

// malformed are message sequences that carry no record. Only the last message of each is wrong.
var malformed = []struct {
	name     string
	channel  wire.Channel
	messages [][]byte
}{
	{"empty", wire.Bulk, [][]byte{{}}},
	{"shorter than the length", wire.Bulk, [][]byte{{0, 0, 1}}},
	{"length below a header", wire.Bulk, [][]byte{lengthOnly(wire.RecordHeaderSize-1, wire.RecordHeaderSize-1)}},
	{"length zero", wire.Bulk, [][]byte{{0, 0, 0, 0}}},
	{"length over the limit of bulk", wire.Bulk, [][]byte{lengthOnly(wire.MaxRecord(wire.Bulk)+1, wire.MessageSize)}},
	{"length over the limit of control", wire.Control, [][]byte{lengthOnly(wire.MaxRecord(wire.Control)+1, wire.MaxRecord(wire.Control)+1)}},
	{"length of 4 GiB", wire.Bulk, [][]byte{{0xff, 0xff, 0xff, 0xff}}},
	{"two records in a message", wire.Bulk, [][]byte{slices.Concat(testRecord(100, 0), testRecord(100, 1))}},
	{"one byte too many", wire.Bulk, [][]byte{append(testRecord(100, 0), 0)}},
	{"cut short", wire.Bulk, [][]byte{testRecord(100, 0)[:99]}},
	{"first message short", wire.Bulk, [][]byte{testRecord(3*wire.MessageSize, 0)[:wire.MinMessageSize-1]}},
	{"first message long", wire.Bulk, [][]byte{testRecord(3*wire.MessageSize, 0)[:wire.MessageSize+1]}},
	{"middle message short", wire.Bulk, [][]byte{testRecord(3*wire.MessageSize, 0)[:wire.MessageSize], make([]byte, wire.MinMessageSize-1)}},
	{"middle message long", wire.Bulk, [][]byte{testRecord(3*wire.MessageSize, 0)[:wire.MessageSize], make([]byte, wire.MessageSize+1)}},
	{"middle message empty", wire.Bulk, [][]byte{testRecord(3*wire.MessageSize, 0)[:wire.MessageSize], {}}},
	{"last message short", wire.Bulk, [][]byte{testRecord(wire.MessageSize+10, 0)[:wire.MessageSize], make([]byte, 9)}},
	{"last message long", wire.Bulk, [][]byte{testRecord(wire.MessageSize+10, 0)[:wire.MessageSize], make([]byte, 11)}},
}

func lengthOnly(record, message int) []byte {
	b := make([]byte, message)
	binary.BigEndian.PutUint32(b, uint32(record-4))
	return b
}

func TestFramingMalformed(t *testing.T) {
	for _, test := range malformed {
		a := assembler{pool: new(bulk.Pool), channel: test.channel}
		for i, message := range test.messages {
			_, err := feed(&a, message)
			if last := i == len(test.messages)-1; last != errors.Is(err, ErrFraming) {
				t.Errorf("%s, message %d: %v", test.name, i, err)
			}
		}
		a.drop()
	}
}

func FuzzFraming(f *testing.F) {
	f.Add(testRecord(100, 1), uint16(100), true)
	f.Add(testRecord(2*wire.MessageSize, 1), uint16(wire.MessageSize-1), true)
	f.Add([]byte{0, 0, 0, 13}, uint16(4), false)
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16, onBulk bool) {
		channel := wire.Control
		if onBulk {
			channel = wire.Bulk
		}
		a := assembler{pool: new(bulk.Pool), channel: channel}
		var taken, released int
		for len(stream) > 0 {
			message := stream[:min(int(cut)+1, len(stream))]
			stream = stream[len(message):]
			record, err := feed(&a, message)
			if err != nil {
				break
			}
			taken += len(message)
			if record == nil {
				continue
			}
			if size, err := wire.RecordSize(record.B, channel); err != nil || size != len(record.B) || len(record.B) > wire.MaxRecord(channel) {
				t.Fatalf("a record of %d bytes", len(record.B))
			}
			released += len(record.B)
			record.Release()
		}
		if a.record == nil && taken != released {
			t.Fatalf("took %d bytes, gave %d", taken, released)
		}
		a.drop()
	})
}

func TestEarlyCandidates(t *testing.T) {
	const sdp = "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=ice-ufrag:new\r\n"
	var e earlyCandidates
	for i := range MaxEarlyCandidates {
		c := wire.Candidate{Candidate: "candidate:1", UsernameFragment: []string{"new", "old", ""}[i%3]}
		if now, err := e.offer(c); now || err != nil {
			t.Fatalf("candidate %d: %v, %v", i, now, err)
		}
	}
	if _, err := e.offer(wire.Candidate{}); !errors.Is(err, ErrTooManyCandidates) {
		t.Fatalf("one too many: %v", err)
	}
	ready := e.describe(sdp)
	if len(ready) != MaxEarlyCandidates*2/3+1 {
		t.Errorf("%d candidates fit the description", len(ready))
	}
	for _, c := range ready {
		if c.UsernameFragment == "old" {
			t.Error("a candidate of another description")
		}
	}
	for fragment, want := range map[string]bool{"new": true, "": true, "next": false} {
		if now, err := e.offer(wire.Candidate{UsernameFragment: fragment}); now != want || err != nil {
			t.Errorf("after the description, fragment %q: %v, %v", fragment, now, err)
		}
	}
	if ready := e.describe("a=ice-ufrag:next\r\n"); len(ready) != 1 {
		t.Errorf("%d candidates fit the next description", len(ready))
	}
}
