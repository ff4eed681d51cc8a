package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// bulkPing is a bulk message as long as a Ping.
func bulkPing() BulkItem { return BulkItem{Head: make([]byte, len(wire.Ping{}.Append(nil)))} }

// exchange sends so many messages each way on each channel, and waits until all are there.
func (p *pair) exchange(control, bulk int) {
	p.a.t.Helper()
	for _, r := range []*recorder{p.a, p.b} {
		for n := range control {
			r.link.SendControl(wire.Ping{Token: uint64(n)})
		}
		for range bulk {
			r.link.SendBulk(bulkPing())
		}
	}
	p.a.await(control + bulk)
	p.b.await(control + bulk)
}

// rekey takes both ends into the epoch.
func (p *pair) rekey(epoch uint32) {
	p.a.t.Helper()
	p.advance(epochAge)
	p.exchange(1, 0)
	p.settle(epoch)
}

// recorded finds the record of an epoch and a sequence number.
func recorded(records [][]byte, ch wire.Channel, epoch uint32, sequence uint64) []byte {
	for _, record := range records {
		if h, _, err := wire.ParseRecord(record, ch); err == nil && h.Type != wire.RecordConfirm && h.Epoch == epoch && h.Sequence == sequence {
			return record
		}
	}
	return nil
}

// fitted is a record under the header that its receiver expects.
func fitted(record []byte, epoch uint32, sequence uint64) []byte {
	record = bytes.Clone(record)
	binary.BigEndian.PutUint32(record[5:], epoch)
	binary.BigEndian.PutUint64(record[9:], sequence)
	return record
}

// TestLinkReplay has records of this and of an earlier session of the same two members arrive again, where they belong least: as
// they were, and under the header that is expected next. Nothing of them is released, and the link ends.
func TestLinkReplay(t *testing.T) {
	const epoch, next = 1, 4 // what the victim expects
	m := newMembers(t)
	session := func(t *testing.T, count int) (*pair, [2]*pipe) {
		p, a, b := newPipePair(t, m, new(countingEngine))
		p.exchange(next+1, next+1)
		p.rekey(epoch)
		p.exchange(count, count)
		return p, [2]*pipe{a, b}
	}
	old, before := session(t, next+1)
	old.a.link.Close(wire.ByeLeft)
	for _, c := range []struct {
		name string
		// pick takes a record out of what both ends of the session, and of the one before, have written.
		pick func(now, before [2]*pipe, from int, ch wire.Channel) []byte
	}{
		{"the last record", func(now, _ [2]*pipe, from int, ch wire.Channel) []byte {
			return recorded(now[from].channels[ch].records(), ch, epoch, next-1)
		}},
		{"the epoch's first record", func(now, _ [2]*pipe, from int, ch wire.Channel) []byte {
			return recorded(now[from].channels[ch].records(), ch, epoch, 0)
		}},
		{"another epoch", func(now, _ [2]*pipe, from int, ch wire.Channel) []byte {
			return recorded(now[from].channels[ch].records(), ch, epoch-1, next)
		}},
		{"the key record", func(now, _ [2]*pipe, from int, ch wire.Channel) []byte {
			records := now[from].channels[ch].records()
			return records[slices.IndexFunc(records, func(r []byte) bool { return r[4] == byte(wire.RecordKey) })]
		}},
		{"another channel", func(now, _ [2]*pipe, from int, ch wire.Channel) []byte {
			return recorded(now[from].channels[1-ch].records(), 1-ch, epoch, next)
		}},
		{"another direction", func(now, _ [2]*pipe, from int, ch wire.Channel) []byte {
			return recorded(now[1-from].channels[ch].records(), ch, epoch, next)
		}},
		{"another session", func(_, before [2]*pipe, from int, ch wire.Channel) []byte {
			return recorded(before[from].channels[ch].records(), ch, epoch, next)
		}},
		{"another session's confirmation", func(_, before [2]*pipe, _ int, _ wire.Channel) []byte {
			return before[0].channels[wire.Control].records()[0]
		}},
	} {
		for from := range 2 {
			for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
				for _, fit := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/from=%d/channel=%d/fitted=%v", c.name, from, ch, fit), func(t *testing.T) {
						p, now := session(t, 0)
						ends := [2]*recorder{p.a, p.b}
						victim := ends[1-from]
						// send has one end send up to a sequence number.
						send := func(side int, ch wire.Channel, until uint64) {
							for recorded(now[side].channels[ch].records(), ch, epoch, until) == nil {
								if ch == wire.Control {
									ends[side].link.SendControl(wire.Ping{})
								} else {
									ends[side].link.SendBulk(bulkPing())
								}
								ends[1-side].await(1)
							}
						}
						// Everybody has sent the record that is expected next, but for the one whose turn it is.
						send(from, ch, next-1)
						send(from, 1-ch, next)
						send(1-from, ch, next)
						send(1-from, 1-ch, next)
						control, bulk := victim.received()
						record := c.pick(now, before, from, ch)
						if record == nil {
							t.Fatal("no such record")
						}
						if fit {
							record = fitted(record, epoch, next)
						}
						now[1-from].channels[ch].inject(record)
						if err := victim.ended(); fault.Of(err) != fault.ProtocolViolation {
							t.Errorf("ended with %v", err)
						}
						if c, b := victim.received(); len(c) != len(control) || len(b) != len(bulk) {
							t.Errorf("released %d and %d messages", len(c)-len(control), len(b)-len(bulk))
						}
					})
				}
			}
		}
	}
}

// TestLinkTruncated cuts a link off without a goodbye, between records and within one: an error, after exactly what had come whole.
func TestLinkTruncated(t *testing.T) {
	for _, within := range []bool{false, true} {
		t.Run(fmt.Sprintf("within=%v", within), func(t *testing.T) {
			p, a, b := newPipePair(t, newMembers(t), new(countingEngine))
			p.exchange(2, 2)
			if within {
				cut := slices.Collect(messages(testRecord(3*wire.MessageSize, 2)))
				for _, message := range cut[:2] {
					b.channels[wire.Bulk].in <- message
				}
			}
			_ = a.Close()
			for _, r := range []*recorder{p.a, p.b} {
				if err := r.ended(); fault.Of(err) != fault.PeerGone || !errors.Is(err, ErrClosed) {
					t.Errorf("ended with %v", err)
				}
				if control, bulk := r.received(); len(control) != 2 || len(bulk) != 2 {
					t.Errorf("released %d and %d messages", len(control), len(bulk))
				}
			}
		})
	}
}

// TestLinkNonces makes links between the same two members again and again, as pages do that are loaded again: no key ever
// seals two records under one nonce.
func TestLinkNonces(t *testing.T) {
	m, engine := newMembers(t), new(countingEngine)
	for n := range restarts {
		p, _, _ := newPipePair(t, m, engine)
		p.exchange(2, 2)
		if n%10 == 0 {
			p.rekey(1)
			p.exchange(2, 2)
		}
		p.a.link.Close(wire.ByeLeft)
		p.b.ended()
	}
	engine.mu.Lock()
	defer engine.mu.Unlock()
	if engine.repeats != 0 {
		t.Errorf("%d nonces were used twice", engine.repeats)
	}
	if want := restarts * 8; len(engine.nonces) < want {
		t.Errorf("only %d records were seen, want %d", len(engine.nonces), want)
	}
}
