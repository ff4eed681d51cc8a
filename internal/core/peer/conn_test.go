package peer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
	"tallow/internal/heap"
	"tallow/internal/raced"
)

// The conformance suite of Conn and Channel. Natively lab is a virtual network, in the browser the browser's own.

// end is a connection under test with what its callbacks told.
type end struct {
	Conn
	candidates chan wire.Candidate
	states     chan ConnState
}

func newEnd(t *testing.T, l *lab) *end {
	t.Helper()
	return newEndWith(t, l, ConnConfig{})
}

func newEndWith(t *testing.T, l *lab, cfg ConnConfig) *end {
	t.Helper()
	e := &end{candidates: make(chan wire.Candidate, 64), states: make(chan ConnState, 16)}
	cfg.Pool = new(bulk.Pool)
	cfg.Candidate = func(c wire.Candidate) { e.candidates <- c }
	cfg.State = func(s ConnState) { e.states <- s }
	c, err := l.conn(cfg)
	if err != nil {
		t.Fatal(err)
	}
	e.Conn = c
	t.Cleanup(func() { _ = c.Close() })
	return e
}

// carry takes candidates from one end to the other until the test is over.
func carry(t *testing.T, from, to *end) {
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		for {
			select {
			case c := <-from.candidates:
				if err := to.AddCandidate(ctx, c); err != nil && !errors.Is(err, ErrClosed) && ctx.Err() == nil {
					t.Errorf("AddCandidate(%+v): %v", c, err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() { stop(); done.Wait() })
}

// testPatience is how long a step may take on a machine that is busy with other things.
const testPatience = 2 * time.Minute

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	t.Cleanup(cancel)
	return ctx
}

// negotiate passes an offer from a to b and the answer back.
func negotiate(t *testing.T, a, b *end, restart bool) {
	t.Helper()
	ctx := testContext(t)
	offer, err := a.Offer(ctx, restart)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.Answer(ctx, offer)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetAnswer(ctx, answer); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(testPatience):
		t.Fatalf("%s: nothing for %v", what, testPatience)
	}
}

func waitOpen(t *testing.T, ends ...*end) {
	t.Helper()
	for _, e := range ends {
		wait(t, "control opens", e.Channel(wire.Control).Opened())
		wait(t, "bulk opens", e.Channel(wire.Bulk).Opened())
	}
}

func connect(t *testing.T, l *lab) (a, b *end) {
	t.Helper()
	a, b = newEnd(t, l), newEnd(t, l)
	carry(t, a, b)
	carry(t, b, a)
	negotiate(t, a, b, false)
	waitOpen(t, a, b)
	return a, b
}

func write(t *testing.T, c Channel, size int, number uint64) {
	t.Helper()
	if err := c.WriteRecord(testContext(t), testRecord(size, number)); err != nil {
		t.Fatalf("record %d of %d bytes: %v", number, size, err)
	}
}

func read(t *testing.T, c Channel, size int, number uint64) {
	t.Helper()
	if err := readRecord(testContext(t), c, size, number); err != nil {
		t.Fatal(err)
	}
}

func readRecord(ctx context.Context, c Channel, size int, number uint64) error {
	got, err := c.ReadRecord(ctx)
	if err != nil {
		return fmt.Errorf("record %d of %d bytes: %w", number, size, err)
	}
	defer got.Release()
	if len(got.B) != size {
		return fmt.Errorf("record %d: %d bytes, want %d", number, len(got.B), size)
	}
	if sequence := binary.BigEndian.Uint64(got.B[9:]); sequence != number {
		return fmt.Errorf("record %d came where %d should", sequence, number)
	}
	if sha256.Sum256(got.B) != sha256.Sum256(testRecord(size, number)) {
		return fmt.Errorf("record %d of %d bytes: not the same bytes", number, size)
	}
	return nil
}

func TestConnRecords(t *testing.T) {
	for _, l := range labs(t) {
		t.Run(l.name, func(t *testing.T) {
			a, b := connect(t, l)
			controlSizes := []int{wire.RecordHeaderSize, 100, wire.MaxRecord(wire.Control), 18}
			var done sync.WaitGroup
			pass := func(from, to *end, ch wire.Channel, sizes []int, rounds int) {
				ctx := testContext(t)
				done.Go(func() {
					for i := range rounds * len(sizes) {
						record := testRecord(sizes[i%len(sizes)], uint64(i))
						if err := from.Channel(ch).WriteRecord(ctx, record); err != nil {
							t.Errorf("write: %v", err)
							return
						}
						clear(record) // WriteRecord has copied it
					}
				})
				done.Go(func() {
					for i := range rounds * len(sizes) {
						if err := readRecord(ctx, to.Channel(ch), sizes[i%len(sizes)], uint64(i)); err != nil {
							t.Errorf("channel %d: %v", ch, err)
							return
						}
					}
				})
			}
			pass(a, b, wire.Bulk, recordSizes, 1)
			pass(b, a, wire.Bulk, recordSizes, 1)
			pass(a, b, wire.Control, controlSizes, 10)
			pass(b, a, wire.Control, controlSizes, 10)
			done.Wait()
		})
	}
}

func TestConnStates(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	for _, e := range []*end{a, b} {
		var seen []ConnState
		for len(seen) == 0 || seen[len(seen)-1] != ConnConnected {
			select {
			case s := <-e.states:
				seen = append(seen, s)
			case <-time.After(testPatience):
				t.Fatalf("never connected: %v", seen)
			}
		}
		for _, s := range seen[:len(seen)-1] {
			if s != ConnConnecting {
				t.Errorf("states %v", seen)
			}
		}
	}
}

// TestConnSlowReader writes 24 MiB that nobody reads yet, and then reads.
func TestConnSlowReader(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	const size, count = 256 << 10, 96
	from, to := a.Channel(wire.Bulk), b.Channel(wire.Bulk)
	written := make(chan int, count)
	var done sync.WaitGroup
	defer done.Wait()
	ctx := testContext(t)
	done.Go(func() {
		defer close(written)
		for i := range count {
			if err := from.WriteRecord(ctx, testRecord(size, uint64(i))); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			if n := from.Buffered(); n > HighWater+size {
				t.Errorf("%d bytes buffered", n)
			}
			written <- i
		}
	})
	ahead := 0
	stall := time.Hour // the writes do not wait for reads
	if slowsRemote {
		stall = 2 * time.Second
	}
stalled:
	for ahead < count {
		select {
		case _, more := <-written:
			if !more {
				break stalled
			}
			ahead++
		case <-time.After(stall):
			break stalled
		}
	}
	if slows := ahead < count; slows != slowsRemote {
		t.Errorf("%d of %d records were written before one was read", ahead, count)
	}
	// Unread and one that waits for room there, what the remote's SCTP has received and keeps, and what waits here: as above, the last is
	// taken while there is no more than HighWater.
	const received = 1 << 20 // pion/sctp's receive buffer
	if limit := maxUnread + size + received + HighWater + size; ahead*size > limit {
		t.Errorf("%d bytes on the way, want at most %d", ahead*size, limit)
	}
	for i := range count {
		if err := readRecord(ctx, to, size, uint64(i)); err != nil {
			t.Error(err)
			_ = a.Close()
			return
		}
	}
}

// TestConnWriteCancelled ends the context of a blocked write: no half record is left behind.
func TestConnWriteCancelled(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	from, to := a.Channel(wire.Bulk), b.Channel(wire.Bulk)
	const size = 1<<20 + 5
	n, cancelled := uint64(0), false
	for ; n < 20 && !cancelled; n++ {
		ctx, cancel := context.WithCancel(context.Background())
		if from.Buffered() > HighWater {
			cancel()
		}
		err := from.WriteRecord(ctx, testRecord(size, n))
		cancel()
		if cancelled = errors.Is(err, context.Canceled); err != nil && !cancelled {
			t.Fatal(err)
		} else if cancelled {
			break
		}
	}
	if !cancelled {
		t.Fatal("no write had to wait")
	}
	done := make(chan error, 1)
	go func() { done <- from.WriteRecord(context.Background(), testRecord(size, n)) }()
	for i := range n + 1 {
		read(t, to, size, i)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := to.ReadRecord(expired); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	write(t, from, 100, n+1)
	read(t, to, 100, n+1)
}

// couple is a pacing that lets two messages out, one after the other, and could wait for a megabyte, but for no time.
type couple struct {
	out     int
	arrived chan uint64
	first   chan struct{}
}

func (p *couple) Next(ctx context.Context, n int) (int, error) {
	if p.out++; p.out == 1 {
		return n, nil
	}
	select {
	case <-p.first:
	case <-ctx.Done():
	}
	if p.out > 2 {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return n, nil
}

func (p *couple) Arrived(total uint64) { p.arrived <- total }

func (p *couple) Due() (total uint64, within time.Duration) { return 1 << 20, 0 }

// TestConnArrived: a message that comes when no others are waited for any more is told of, although its record is not whole.
func TestConnArrived(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	from, to := a.Channel(wire.Bulk), b.Channel(wire.Bulk)
	p := &couple{arrived: make(chan uint64, 2), first: make(chan struct{})}
	from.Pace(p)
	to.Pace(p)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _, _ = to.ReadRecord(ctx) })
	done.Go(func() { _ = from.WriteRecord(ctx, testRecord(1<<20, 0)) })
	for i := range 2 {
		select {
		case total := <-p.arrived:
			if want := uint64(i+1) * wire.MessageSize; total != want {
				t.Errorf("told of %d bytes, want %d", total, want)
			}
		case <-time.After(testPatience):
			t.Errorf("not told of message %d", i)
		}
		if i == 0 {
			close(p.first)
		}
	}
	cancel()
	done.Wait()
}

func TestConnChannelClose(t *testing.T) {
	for _, l := range labs(t) {
		t.Run(l.name, func(t *testing.T) {
			a, b := connect(t, l)
			from, to := a.Channel(wire.Bulk), b.Channel(wire.Bulk)
			const count = 8
			for i := range uint64(count) {
				write(t, from, 200_000, i)
			}
			for range 2 {
				if err := from.Close(); err != nil {
					t.Fatal(err)
				}
			}
			wait(t, "own done", from.Done())
			if _, err := from.ReadRecord(testContext(t)); !errors.Is(err, ErrClosed) {
				t.Errorf("own read: %v", err)
			}
			if err := from.WriteRecord(testContext(t), testRecord(100, 0)); !errors.Is(err, ErrClosed) {
				t.Errorf("own write: %v", err)
			}
			wait(t, "remote done", to.Done())
			for i := range uint64(count) {
				read(t, to, 200_000, i)
			}
			if _, err := to.ReadRecord(testContext(t)); !errors.Is(err, ErrClosed) {
				t.Errorf("remote read: %v", err)
			}
			if err := to.WriteRecord(testContext(t), testRecord(100, 0)); !errors.Is(err, ErrClosed) {
				t.Errorf("remote write: %v", err)
			}
			write(t, b.Channel(wire.Control), 100, 7)
			read(t, a.Channel(wire.Control), 100, 7)
		})
	}
}

func TestConnClose(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	ctx := testContext(t)
	var blocked sync.WaitGroup
	blocked.Go(func() {
		if _, err := a.Channel(wire.Bulk).ReadRecord(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("blocked read: %v", err)
		}
	})
	var closing sync.WaitGroup
	for range 3 {
		closing.Go(func() {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	closing.Wait()
	blocked.Wait()
	for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
		wait(t, "own done", a.Channel(ch).Done())
		wait(t, "remote done", b.Channel(ch).Done())
		if _, err := b.Channel(ch).ReadRecord(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("remote read: %v", err)
		}
	}
	_, offer := a.Offer(ctx, false)
	_, answer := a.Answer(ctx, "")
	_, stats := a.Stats(ctx)
	for what, err := range map[string]error{
		"Offer": offer, "Answer": answer, "Stats": stats, "SetAnswer": a.SetAnswer(ctx, ""),
		"AddCandidate": a.AddCandidate(ctx, wire.Candidate{}), "SetICEServers": a.SetICEServers(ctx, wire.ICEServers{}),
		"WriteRecord": a.Channel(wire.Bulk).WriteRecord(ctx, testRecord(100, 0)),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestConnCloseUnconnected closes connections at each stage before they connect.
func TestConnCloseUnconnected(t *testing.T) {
	l := labs(t)[0]
	ctx := testContext(t)
	a, b, c := newEnd(t, l), newEnd(t, l), newEnd(t, l)
	offer, err := a.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Answer(ctx, offer); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*end{a, b, c} {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		wait(t, "done", e.Channel(wire.Bulk).Done())
		select {
		case <-e.Channel(wire.Bulk).Opened():
			t.Error("opened")
		default:
		}
	}
}

func TestConnMalformed(t *testing.T) {
	l := labs(t)[0]
	for _, test := range malformed {
		t.Run(test.name, func(t *testing.T) {
			a, b := connect(t, l)
			write(t, a.Channel(test.channel), 100, 0)
			for _, message := range test.messages {
				sendRaw(t, a.Channel(test.channel).(*dataChannel), message)
			}
			expectEnd(t, b.Channel(test.channel), ErrFraming)
			wait(t, "sender's done", a.Channel(test.channel).Done())
		})
	}
	t.Run("text", func(t *testing.T) {
		a, b := connect(t, l)
		write(t, a.Channel(wire.Control), 100, 0)
		sendText(t, a.Channel(wire.Control).(*dataChannel), string(testRecord(100, 1)))
		expectEnd(t, b.Channel(wire.Control), ErrFraming)
		wait(t, "sender's done", a.Channel(wire.Control).Done())
	})
}

// expectEnd reads one good record, and then why the channel was closed.
func expectEnd(t *testing.T, c Channel, why error) {
	t.Helper()
	read(t, c, 100, 0)
	for range 2 {
		if _, err := c.ReadRecord(testContext(t)); !errors.Is(err, why) {
			t.Fatalf("read: %v, want %v", err, why)
		}
	}
	wait(t, "done", c.Done())
	if err := c.WriteRecord(testContext(t), testRecord(100, 0)); !errors.Is(err, why) {
		t.Errorf("write: %v, want %v", err, why)
	}
}

func TestConnWriteNoRecord(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	for _, record := range [][]byte{nil, {0, 0, 0, 0}, testRecord(100, 0)[:99], append(testRecord(100, 0), 0), testRecord(wire.MaxRecord(wire.Control)+1, 0)} {
		if a.Channel(wire.Control).WriteRecord(testContext(t), record) == nil {
			t.Errorf("wrote %d bytes that are no record", len(record))
		}
	}
	write(t, a.Channel(wire.Control), 100, 0)
	read(t, b.Channel(wire.Control), 100, 0)
}

// TestConnLateCandidates: those of one end come before the description they belong to, those of the other long after.
func TestConnLateCandidates(t *testing.T) {
	l := labs(t)[0]
	ctx := testContext(t)
	a, b := newEnd(t, l), newEnd(t, l)
	offer, err := a.Offer(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	gather := func(e *end) (all []wire.Candidate) {
		for {
			select {
			case c := <-e.candidates:
				if all = append(all, c); c.Candidate == "" {
					return all
				}
				if c.UsernameFragment == "" || !c.Fits() {
					t.Errorf("candidate %+v", c)
				}
			case <-ctx.Done():
				t.Fatal("gathering does not end")
			}
		}
	}
	add := func(e *end, all []wire.Candidate) {
		for _, c := range all {
			if err := e.AddCandidate(ctx, c); err != nil {
				t.Fatalf("AddCandidate(%+v): %v", c, err)
			}
		}
	}
	add(b, gather(a))
	answer, err := b.Answer(ctx, offer)
	if err != nil {
		t.Fatal(err)
	}
	late := gather(b)
	if err := a.SetAnswer(ctx, answer); err != nil {
		t.Fatal(err)
	}
	add(a, late)
	waitOpen(t, a, b)
	write(t, a.Channel(wire.Bulk), 100, 0)
	read(t, b.Channel(wire.Bulk), 100, 0)
}

func TestConnTooManyCandidates(t *testing.T) {
	e := newEnd(t, labs(t)[0])
	ctx := testContext(t)
	for range MaxEarlyCandidates {
		if err := e.AddCandidate(ctx, wire.Candidate{Candidate: "candidate:1 1 udp 1 192.0.2.1 9 typ host"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.AddCandidate(ctx, wire.Candidate{}); !errors.Is(err, ErrTooManyCandidates) {
		t.Fatal(err)
	}
}

func TestConnRestart(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	turn := wire.ICEServers{Servers: []wire.ICEServer{{URLs: []string{"turn:192.0.2.1:3478?transport=udp"}, Username: "1:a", Credential: "secret"}}}
	for _, e := range []*end{a, b} {
		if err := e.SetICEServers(testContext(t), turn); err != nil {
			t.Fatal(err)
		}
		if err := e.SetICEServers(testContext(t), wire.ICEServers{}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(2) {
		if _, err := a.Offer(testContext(t), true); err != nil { // which nobody answers
			t.Fatal(err)
		}
		negotiate(t, a, b, true)
		write(t, a.Channel(wire.Bulk), 300_000, i)
		read(t, b.Channel(wire.Bulk), 300_000, i)
		a, b = b, a
		write(t, a.Channel(wire.Control), 100, i)
		read(t, b.Channel(wire.Control), 100, i)
	}
}

func TestConnStats(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	const size = 1 << 20
	write(t, a.Channel(wire.Bulk), size, 0)
	read(t, b.Channel(wire.Bulk), size, 0)
	ctx := testContext(t)
	for {
		sent, err := a.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		received, err := b.Stats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if sent.BytesSent < size || received.BytesReceived < size || sent.PacketsSent < 100 || received.PacketsReceived < 100 {
			if ctx.Err() == nil {
				continue // counters may lag
			}
			t.Errorf("sent %+v, received %+v", sent, received)
		}
		for _, s := range []ConnStats{sent, received} {
			if s.LocalType != "host" || s.RemoteType != "host" && s.RemoteType != "prflx" || s.Protocol != "udp" {
				t.Errorf("route of %+v", s)
			}
		}
		if sent.BytesSent > 2*size {
			t.Errorf("sent %+v", sent)
		}
		if again, err := a.Stats(ctx); err != nil || again.Pair != sent.Pair || sent.Pair == 0 {
			t.Errorf("pair %d, then %d, %v", sent.Pair, again.Pair, err)
		}
		return
	}
}

// TestConnStatsOfAllPairs: what is counted is the connection's, whichever pair has carried it, and also while there is none.
func TestConnStatsOfAllPairs(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	total := uint64(0)
	for i, size := range []int{1 << 20, 300_000, 50_000} {
		if i > 0 {
			if s, err := a.Stats(testContext(t)); err != nil || s.BytesSent < total {
				t.Errorf("%+v, %v after %d bytes", s, err, total)
			}
			negotiate(t, a, b, true)
			if s, err := a.Stats(testContext(t)); err != nil || s.BytesSent < total {
				t.Errorf("%+v, %v after %d bytes and a restart", s, err, total)
			}
		}
		write(t, a.Channel(wire.Bulk), size, uint64(i))
		read(t, b.Channel(wire.Bulk), size, uint64(i))
		total += uint64(size)
		for ctx := testContext(t); ; {
			sent, err := a.Stats(ctx)
			if err != nil {
				t.Fatal(err)
			}
			received, err := b.Stats(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if sent.BytesSent >= total && received.BytesReceived >= total && sent.BytesSent < 2*total {
				break
			}
			if ctx.Err() != nil { // counters may lag
				t.Fatalf("%+v, %+v after %d bytes", sent, received, total)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// TestConnRefusesOtherChannels: a channel that the remote opens by itself is closed.
func TestConnRefusesOtherChannels(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	expectRefused(t, a.Conn.(*conn))
	write(t, a.Channel(wire.Control), 100, 0)
	read(t, b.Channel(wire.Control), 100, 0)
}

// TestLinkCycles opens and closes 200 links, with data under way, and finds nothing that any of them has left: no goroutine, no memory,
// and in the browser no function, object or connection.
func TestLinkCycles(t *testing.T) {
	links := 200
	if raced.Enabled {
		links = 50
	}
	const perLink = 4 << 10 // bytes of the heap that may be left: what the test itself keeps of each cycle is less
	m := newMembers(t)
	cycle := func(t *testing.T) {
		a, b := connect(t, labs(t)[0]) // a virtual network never gives an address back
		i, r := m.shakeHands(t, nil)
		p := openPair(t, [2]Conn{a, b}, i, r, new(countingEngine))
		p.a.link.SendControl(wire.Ping{})
		if err := p.a.sendBulk(0, 2); err != nil {
			t.Error(err)
		}
		p.b.await(3)
		p.b.link.SendBulk(bulkPing()) // perhaps on its way at the close
		p.a.link.Close(wire.ByeLeft)
		p.b.ended()
	}
	for range 10 {
		t.Run("", cycle) // what the runtime and the libraries start and keep once is no leak
	}
	leaks, before := leakCheck(t), heap.InUse()
	for range links {
		t.Run("", cycle)
	}
	leaks()
	after := heap.InUse()
	t.Logf("%d bytes of heap, %d before", after, before)
	if after > before+int64(links)*perLink {
		t.Errorf("the heap has grown by %d bytes", after-before)
	}
}

// TestCloseHangs: an operation that never ends keeps nobody from closing the connection, and everything that waits for it ends then.
func TestCloseHangs(t *testing.T) {
	c := newEnd(t, labs(t)[0]).Conn.(*conn)
	begun, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	results := make(chan error, 2)
	go func() {
		results <- c.exclusively(context.Background(), "hang", func() error {
			close(begun)
			<-end
			return nil
		})
	}()
	wait(t, "the operation", begun)
	ended, cancel := context.WithCancel(testContext(t))
	cancel()
	if err := c.SetICEServers(ended, wire.ICEServers{}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	go func() { results <- c.SetICEServers(context.Background(), wire.ICEServers{}) }()
	closed := make(chan struct{})
	go func() {
		_ = c.Close()
		close(closed)
	}()
	wait(t, "Close", closed)
	for range 2 {
		select {
		case err := <-results:
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		case <-time.After(testPatience):
			t.Fatal("an operation outlives the connection")
		}
	}
}
