package peer

import (
	"fmt"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// rekeyed takes a raw pair whose link is the initiator's to where the link has sent Rekey and the peer has its answer, unsent.
func rekeyed(t *testing.T) (*recorder, *rawPeer, *clock, []byte) {
	t.Helper()
	link, raw, clock := rawPair(t, true)
	return link, raw, clock, nextRekey(t, link, raw, clock)
}

// nextRekey has the link send Rekey, and makes the answer.
func nextRekey(t *testing.T, link *recorder, raw *rawPeer, clock *clock) (reply []byte) {
	t.Helper()
	clock.advance(epochAge)
	link.link.SendBulk(BulkItem{Head: []byte{1}})
	message := raw.read(wire.Control, wire.RecordData, raw.epoch[wire.Control])
	raw.read(wire.Bulk, wire.RecordData, raw.epoch[wire.Control])
	reply, err := raw.session.AnswerRekey(message)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// confirmSwitch reads the link's key records.
func confirmSwitch(raw *rawPeer, epoch uint32) {
	raw.read(wire.Control, wire.RecordKey, epoch)
	raw.read(wire.Bulk, wire.RecordKey, epoch)
}

// TestLinkRekeyOutOfTurn sends what a responder that holds all keys must not, around a change of keys.
func TestLinkRekeyOutOfTurn(t *testing.T) {
	ping := wire.Ping{Token: 7}.Append(nil)
	for _, c := range []struct {
		name string
		do   func(t *testing.T, link *recorder, raw *rawPeer, clock *clock, reply []byte)
	}{
		{"key record on bulk ahead of any Rekey", nil},
		{"Rekeyed twice", func(t *testing.T, _ *recorder, raw *rawPeer, _ *clock, reply []byte) {
			raw.send(wire.Control, wire.RecordData, reply)
			raw.send(wire.Control, wire.RecordData, reply)
		}},
		{"the Rekeyed of the Rekey before", func(t *testing.T, link *recorder, raw *rawPeer, clock *clock, reply []byte) {
			raw.send(wire.Control, wire.RecordData, reply)
			raw.send(wire.Control, wire.RecordKey, nil)
			raw.send(wire.Bulk, wire.RecordKey, nil)
			confirmSwitch(raw, 0)
			raw.session.Retire(0)
			link.settle(1)
			nextRekey(t, link, raw, clock)
			raw.send(wire.Control, wire.RecordData, reply)
		}},
		{"the old key on control after the switch", func(t *testing.T, _ *recorder, raw *rawPeer, _ *clock, reply []byte) {
			raw.send(wire.Control, wire.RecordData, reply)
			old := *raw
			raw.send(wire.Control, wire.RecordKey, nil)
			old.sequence[wire.Control]++
			old.send(wire.Control, wire.RecordData, ping)
		}},
		{"the old key on bulk after the switch", func(t *testing.T, _ *recorder, raw *rawPeer, _ *clock, reply []byte) {
			raw.send(wire.Control, wire.RecordData, reply)
			old := *raw
			raw.send(wire.Bulk, wire.RecordKey, nil)
			old.send(wire.Bulk, wire.RecordData, ping)
		}},
		{"the new key on control before the switch", func(t *testing.T, _ *recorder, raw *rawPeer, _ *clock, reply []byte) {
			raw.send(wire.Control, wire.RecordData, reply)
			raw.epoch[wire.Control], raw.sequence[wire.Control] = 1, 0
			raw.send(wire.Control, wire.RecordData, ping)
		}},
		{"the new key on bulk before the switch", func(t *testing.T, _ *recorder, raw *rawPeer, _ *clock, reply []byte) {
			raw.send(wire.Control, wire.RecordData, reply)
			raw.epoch[wire.Bulk], raw.sequence[wire.Bulk] = 1, 0
			raw.send(wire.Bulk, wire.RecordData, ping)
		}},
		{"key record twice", func(t *testing.T, _ *recorder, raw *rawPeer, _ *clock, reply []byte) {
			raw.send(wire.Control, wire.RecordData, reply)
			raw.send(wire.Control, wire.RecordKey, nil)
			raw.send(wire.Control, wire.RecordKey, nil)
		}},
		{"key record on control ahead of Rekeyed", func(t *testing.T, _ *recorder, raw *rawPeer, _ *clock, _ []byte) {
			raw.send(wire.Control, wire.RecordKey, nil)
		}},
		{"the sequence goes on after the switch", func(t *testing.T, _ *recorder, raw *rawPeer, _ *clock, reply []byte) {
			raw.send(wire.Control, wire.RecordData, reply)
			raw.send(wire.Bulk, wire.RecordData, ping)
			raw.send(wire.Bulk, wire.RecordKey, nil)
			raw.sequence[wire.Bulk] = 2
			raw.send(wire.Bulk, wire.RecordData, ping)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var link *recorder
			if c.do == nil {
				var raw *rawPeer
				link, raw, _ = rawPair(t, true)
				if _, err := raw.session.Epoch(); !err {
					t.Fatal("no keys")
				}
				raw.send(wire.Bulk, wire.RecordKey, nil)
			} else {
				var raw *rawPeer
				var clock *clock
				var reply []byte
				link, raw, clock, reply = rekeyed(t)
				c.do(t, link, raw, clock, reply)
			}
			if err := link.ended(); fault.Of(err) != fault.ProtocolViolation {
				t.Errorf("ended with %v", err)
			}
			if control, _ := link.received(); len(control) > 0 {
				t.Errorf("released %v", control)
			}
		})
	}
}

// TestLinkRekeyReplayed: an initiator sends a Rekey again, before and after the keys have changed.
func TestLinkRekeyReplayed(t *testing.T) {
	for _, switched := range []bool{false, true} {
		t.Run(fmt.Sprintf("switched=%v", switched), func(t *testing.T) {
			link, raw, _ := rawPair(t, false)
			message, err := raw.session.StartRekey()
			if err != nil {
				t.Fatal(err)
			}
			raw.send(wire.Control, wire.RecordData, message)
			if err := raw.session.FinishRekey(raw.read(wire.Control, wire.RecordData, 0)); err != nil {
				t.Fatal(err)
			}
			confirmSwitch(raw, 0)
			if switched {
				raw.send(wire.Control, wire.RecordKey, nil)
				raw.send(wire.Bulk, wire.RecordKey, nil)
			}
			raw.send(wire.Control, wire.RecordData, message)
			if err := link.ended(); fault.Of(err) != fault.ProtocolViolation {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestLinkRekeyLate: an answer in the last moment counts, and a key record on bulk may come before it; what follows that waits.
func TestLinkRekeyLate(t *testing.T) {
	link, raw, clock, reply := rekeyed(t)
	clock.advance(rekeyTimeout)
	link.link.SendControl(wire.Ping{})
	raw.read(wire.Control, wire.RecordData, 0)
	raw.send(wire.Bulk, wire.RecordKey, nil)
	raw.send(wire.Bulk, wire.RecordData, []byte{1, 2, 3})
	raw.send(wire.Control, wire.RecordData, wire.Ping{Token: 1}.Append(nil))
	link.await(1)
	if control, bulk := link.received(); len(control) != 1 || len(bulk) != 0 {
		t.Fatalf("released %v and %v", control, bulk)
	}
	raw.send(wire.Control, wire.RecordData, reply)
	raw.send(wire.Control, wire.RecordKey, nil)
	link.await(1)
	confirmSwitch(raw, 0)
	link.link.SendControl(wire.Ping{Token: 2})
	raw.read(wire.Control, wire.RecordData, 1)
}

// TestLinkRekeyAhead: the answer to Rekey does not wait for what is queued, which may take longer than the peer waits for it. That goes out under the
// new keys.
func TestLinkRekeyAhead(t *testing.T) {
	link, raw, _ := rawPair(t, false)
	const count = 1000 // more than the pipe takes
	for i := range uint64(count) {
		link.link.SendControl(wire.Ping{Token: i})
	}
	message, err := raw.session.StartRekey()
	if err != nil {
		t.Fatal(err)
	}
	raw.send(wire.Control, wire.RecordData, message)
	raw.send(wire.Control, wire.RecordData, wire.Ping{}.Append(nil))
	link.await(1) // so that Rekey has been taken
	var next uint64
	for {
		p := raw.read(wire.Control, wire.RecordData, 0)
		m, err := wire.ParseControl(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := m.(wire.Rekeyed); ok {
			if err := raw.session.FinishRekey(p); err != nil {
				t.Fatal(err)
			}
			break
		}
		if m != (wire.Ping{Token: next}) {
			t.Fatalf("%v, when %d was to come", m, next)
		}
		next++
	}
	if next > count/2 {
		t.Errorf("the answer came after %d of %d messages", next, count)
	}
	raw.read(wire.Control, wire.RecordKey, 0)
	for ; next < count; next++ {
		if p := raw.read(wire.Control, wire.RecordData, 1); string(p) != string(wire.Ping{Token: next}.Append(nil)) {
			t.Fatalf("%x, when %d was to come", p, next)
		}
	}
}

// TestLinkRekeyWithheld: the responder answers, but never switches on bulk. The keys would never change again.
func TestLinkRekeyWithheld(t *testing.T) {
	for name, overdue := range map[string]func(*recorder, *clock){
		"by time":   func(_ *recorder, c *clock) { c.advance(2 * epochAge) },
		"by volume": func(r *recorder, _ *clock) { r.link.records.Store(2 * epochRecords) },
	} {
		t.Run(name, func(t *testing.T) {
			link, raw, clock, reply := rekeyed(t)
			raw.send(wire.Control, wire.RecordData, reply)
			raw.send(wire.Control, wire.RecordKey, nil)
			confirmSwitch(raw, 0)
			clock.advance(2*epochAge - 1)
			link.link.SendControl(wire.Ping{})
			raw.read(wire.Control, wire.RecordData, 1) // and no Rekey, which has to wait
			clock.advance(1 - 2*epochAge)
			overdue(link, clock)
			link.link.SendControl(wire.Ping{})
			if err := link.ended(); fault.Of(err) != fault.RekeyTimeout {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

// TestLinkRekeyByVolume counts records to the last one, whoever sends them and on whichever channel.
func TestLinkRekeyByVolume(t *testing.T) {
	for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
		for _, received := range []bool{false, true} {
			t.Run(fmt.Sprintf("channel=%d/received=%v", ch, received), func(t *testing.T) {
				link, raw, _ := rawPair(t, true)
				link.link.records.Store(epochRecords - 3)
				expect := func(want wire.ControlType) {
					if m := raw.read(wire.Control, wire.RecordData, 0); wire.ControlType(m[0]) != want {
						t.Fatalf("message of type %d, want %d", m[0], want)
					}
				}
				pass := func() {
					message := wire.Ping{}
					switch {
					case received:
						raw.send(ch, wire.RecordData, message.Append(nil))
						link.await(1)
					case ch == wire.Control:
						link.link.SendControl(message)
						expect(wire.ControlPing)
					default:
						link.link.SendBulk(BulkItem{Head: message.Append(nil)})
						raw.read(ch, wire.RecordData, 0)
					}
				}
				pass()
				link.link.SendControl(wire.Pong{}) // the last but one; looks at the count
				expect(wire.ControlPong)
				pass()
				if received {
					link.link.SendControl(wire.Pong{})
					expect(wire.ControlPong)
				}
				expect(wire.ControlRekey)
			})
		}
	}
}

// TestLinkRekeyTransfer crosses ten changes of keys in the midst of a stream of bulk messages. They flow while a Rekey is on its way,
// both ways, and while its answer is, from the initiator; every one arrives, in order and whole.
func TestLinkRekeyTransfer(t *testing.T) {
	p, a, b := newPipePair(t, newMembers(t), new(countingEngine))
	sent := [2]int{}
	flow := func(from *recorder, to *recorder, side int) {
		if err := from.sendBulk(sent[side], 10); err != nil {
			t.Fatal(err)
		}
		to.await(10)
		sent[side] += 10
	}
	for epoch := range uint32(10) {
		flow(p.a, p.b, 0)
		flow(p.b, p.a, 1)
		p.advance(epochAge)
		asking := b.channels[wire.Control].hold()
		flow(p.a, p.b, 0) // the first of these makes it send Rekey
		flow(p.b, p.a, 1)
		answering := a.channels[wire.Control].hold()
		asking()
		flow(p.a, p.b, 0)
		answering()
		flow(p.a, p.b, 0)
		flow(p.b, p.a, 1)
		p.settle(epoch + 1)
	}
	_, got := p.b.received()
	checkBulk(t, got, sent[0])
	_, got = p.a.received()
	checkBulk(t, got, sent[1])
	if p.engine.repeats != 0 {
		t.Error("a nonce was used twice")
	}
}
