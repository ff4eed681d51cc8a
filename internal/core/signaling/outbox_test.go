package signaling

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"tallow/internal/core/wire"
)

// name is the id of something small.
func name(n int) (id wire.ID) {
	id[14], id[15] = byte(n>>8), byte(n)
	return id
}

func ids(list []Outgoing) (n []int) {
	for _, o := range list {
		n = append(n, int(o.ID[14])<<8|int(o.ID[15]))
	}
	return n
}

// PROTOCOL.md section 5: after 1, 2, 4, 8 and 8 s, and given up then.
func TestOutboxRepeats(t *testing.T) {
	var o Outbox
	start := time.Unix(1000, 0)
	o.Add(start, name(1), name(7), []byte("envelope"))
	var log []time.Duration
	for at := time.Duration(0); len(o.list) > 0; at += time.Second {
		if repeat := o.Due(start.Add(at - time.Nanosecond)); len(repeat) > 0 {
			t.Fatalf("before %v: %v", at, repeat)
		}
		for _, m := range o.Due(start.Add(at)) {
			if m.To != name(1) || m.ID != name(7) || string(m.Envelope) != "envelope" {
				t.Fatalf("another envelope: %v", m)
			}
			log = append(log, at/time.Second)
		}
		if len(o.list) == 0 {
			log = append(log, at/time.Second)
		}
	}
	if want := []time.Duration{1, 3, 7, 15, 23, 31}; !slices.Equal(log, want) {
		t.Errorf("repeats, and the end, after %d s, want %d", log, want)
	}
}

func TestOutboxScript(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	var o Outbox
	due := func(s float64, want ...int) {
		t.Helper()
		if repeat := ids(o.Due(at(s))); !slices.Equal(repeat, want) {
			t.Fatalf("at %v s: repeat %v, want %v", s, repeat, want)
		}
	}
	o.Add(at(0), name(1), name(10), []byte{1})
	o.Add(at(0.5), name(2), name(20), []byte{2})
	o.Add(at(0.5), name(1), name(11), []byte{3})
	due(0.9)
	due(1, 10)
	if o.Ack(name(2), name(10)) {
		t.Error("an acknowledgement by another member counted")
	}
	if !o.Ack(name(1), name(10)) || o.Ack(name(1), name(10)) {
		t.Error("an acknowledgement counts once")
	}
	due(1.5, 20, 11)
	// Late, as in a hidden page: one repeat, and the next wait begins now.
	due(100, 20, 11)
	due(103.9)
	due(104, 20, 11)
	o.Reset(at(105))
	due(105, 20, 11)
	due(105.9)
	due(106, 20, 11) // the waits have started over
	o.Forget(name(1))
	due(108, 20)
	due(112, 20)
	due(120, 20)
	due(128, 20)
	due(136)
	if len(o.list) > 0 {
		t.Error("something is left")
	}
	// Adding again starts over.
	o.Add(at(200), name(1), name(1), []byte{1})
	due(201, 1)
	o.Add(at(202), name(1), name(1), []byte{1})
	due(202.9)
	due(203, 1)
}

func TestOutboxBounds(t *testing.T) {
	now := time.Unix(1000, 0)
	var o Outbox
	o.Add(now, name(1), name(1), nil)
	o.Add(now, name(1), name(1), make([]byte, wire.MaxEnvelope+1))
	if len(o.list) > 0 {
		t.Fatal("took an envelope that cannot be sent")
	}
	o.Add(now, name(2), name(999), make([]byte, wire.MaxEnvelope))
	for i := range 70 {
		o.Add(now, name(1), name(i), []byte{1})
	}
	if o.count(name(1)) != 64 || o.Ack(name(1), name(5)) || !o.Ack(name(1), name(6)) || !o.Ack(name(2), name(999)) {
		t.Error("beyond 64 to one addressee its oldest goes, and no other")
	}

	o = Outbox{}
	for i := range 64 {
		o.Add(now, name(1), name(i), []byte{1})
	}
	for i := range 192 {
		o.Add(now, name(100+i/32), name(i), []byte{1})
	}
	o.Add(now, name(300), name(1), []byte{1}) // the 257th
	if len(o.list) != 256 || o.count(name(1)) != 63 || o.Ack(name(1), name(0)) || o.count(name(300)) != 1 {
		t.Error("beyond 256 in all, the oldest to the busiest addressee goes")
	}
}

func TestOutboxKeepsBytes(t *testing.T) {
	var o Outbox
	now := time.Unix(1000, 0)
	envelope := bytes.Repeat([]byte{7}, 1000)
	o.Add(now, name(1), name(1), envelope)
	first := o.Due(now.Add(time.Second))
	second := o.Due(now.Add(3 * time.Second))
	if !bytes.Equal(first[0].Envelope, envelope) || !bytes.Equal(second[0].Envelope, envelope) {
		t.Error("a repeat differs")
	}
}

func TestInbox(t *testing.T) {
	var i Inbox
	if i.Seen(name(1), name(1)) {
		t.Error("an empty inbox has seen something")
	}
	for n := range 1024 {
		i.Add(name(1), name(n))
		i.Add(name(1), name(n)) // a repeat takes no place
	}
	i.Add(name(2), name(5000))
	if !i.Seen(name(1), name(0)) || !i.Seen(name(1), name(1023)) || i.Seen(name(2), name(0)) || i.Seen(name(1), name(5000)) {
		t.Error("the last 1,024 per sender, each sender by itself")
	}
	for n := range 10 {
		i.Add(name(1), name(2000+n))
	}
	for n := range 12 {
		if i.Seen(name(1), name(n)) != (n >= 10) {
			t.Errorf("id %d: seen is %v", n, n < 10)
		}
	}
	if !i.Seen(name(1), name(2009)) {
		t.Error("a new id was lost")
	}
	// 254 more senders fit; the next one takes the place of the one heard of longest ago, which is not the first one.
	i.Add(name(1), name(3000))
	for n := range 254 {
		i.Add(name(100+n), name(1))
	}
	if !i.Seen(name(2), name(5000)) {
		t.Error("256 senders do not fit")
	}
	i.Add(name(999), name(1))
	if i.Seen(name(2), name(5000)) || !i.Seen(name(1), name(3000)) || !i.Seen(name(999), name(1)) || len(i.senders) != 256 {
		t.Error("the wrong sender was forgotten")
	}
}
