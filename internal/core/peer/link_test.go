package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
	"tallow/internal/raced"
)

// shakeHands takes a handshake to M2.
func shakeHands(t *testing.T) (i *seal.Initiator, r *seal.Responder) {
	t.Helper()
	return newMembers(t).shakeHands(t, nil)
}

// shakeHands takes a handshake to M2. offered, if there is one, gets a look before the answer is taken.
func (m members) shakeHands(t *testing.T, offered func(i *seal.Initiator)) (i *seal.Initiator, r *seal.Responder) {
	t.Helper()
	config := func(side int) seal.HandshakeConfig {
		c := m.config(side, 1)
		return seal.HandshakeConfig{Room: c.Room, Self: c.Self, Peer: c.Peer, PeerKeyHash: c.PeerKeyHash, Epoch: c.Epoch, Rand: m.rand}
	}
	i, err := seal.NewInitiator(config(0))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = seal.NewResponder(config(1)); err != nil {
		t.Fatal(err)
	}
	offer, err := i.Offer(r.Hello(), sdp(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Offer(offer); err != nil {
		t.Fatal(err)
	}
	answer, err := r.Answer(sdp(2))
	if err != nil {
		t.Fatal(err)
	}
	if offered != nil {
		offered(i)
	}
	if _, err := i.Answer(answer); err != nil {
		t.Fatal(err)
	}
	return i, r
}

// clock is a clock that stands still unless it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// countingEngine counts keys and looks for a nonce that is used twice under one.
type countingEngine struct {
	bulk.Go
	mu      sync.Mutex
	live    int // keys that are not destroyed
	most    int
	made    int
	nonces  map[string]bool // key and nonce of everything sealed
	repeats int
}

func (e *countingEngine) NewAEAD(key []byte) (bulk.AEAD, error) {
	a, err := e.Go.NewAEAD(key)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.nonces == nil {
		e.nonces = map[string]bool{}
	}
	e.live++
	e.made++
	e.most = max(e.most, e.live)
	return &countingAEAD{AEAD: a, engine: e, key: string(key)}, err
}

type countingAEAD struct {
	bulk.AEAD
	engine    *countingEngine
	key       string
	destroyed bool
}

func (a *countingAEAD) Seal(dst, nonce, plaintext, aad []byte) error {
	a.engine.mu.Lock()
	if a.engine.nonces[a.key+string(nonce)] || a.destroyed {
		a.engine.repeats++
	}
	a.engine.nonces[a.key+string(nonce)] = true
	a.engine.mu.Unlock()
	return a.AEAD.Seal(dst, nonce, plaintext, aad)
}

func (a *countingAEAD) Destroy() {
	a.engine.mu.Lock()
	defer a.engine.mu.Unlock()
	if !a.destroyed {
		a.destroyed = true
		a.engine.live--
	}
	a.AEAD.Destroy()
}

// recorder is a LinkHandler that notes everything, and says goodbye when the peer does.
type recorder struct {
	t    *testing.T
	link *Link

	mu      sync.Mutex
	opened  bool
	closed  bool
	err     error
	control []wire.ControlMessage
	bulk    [][]byte
	took    chan struct{} // a token for each message
	open    chan struct{}
	end     chan struct{}
	hold    chan struct{} // not nil: Control and Bulk wait until it is closed
	closing sync.WaitGroup
}

func newRecorder(t *testing.T) *recorder {
	return &recorder{t: t, took: make(chan struct{}, 1<<16), open: make(chan struct{}), end: make(chan struct{})}
}

func (r *recorder) Opened() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opened || r.closed || len(r.control)+len(r.bulk) > 0 {
		r.t.Error("Opened out of turn")
	}
	r.opened = true
	close(r.open)
}

func (r *recorder) message() {
	if r.hold != nil {
		<-r.hold
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.opened || r.closed {
		r.t.Error("a message before Opened or after Closed")
	}
}

func (r *recorder) Control(m wire.ControlMessage) {
	r.message()
	r.mu.Lock()
	r.control = append(r.control, m)
	r.mu.Unlock()
	if bye, ok := m.(wire.Bye); ok {
		r.closing.Go(func() { r.link.Close(bye.Code) })
	}
	r.took <- struct{}{}
}

func (r *recorder) Bulk(b *bulk.Buffer) {
	r.message()
	r.mu.Lock()
	r.bulk = append(r.bulk, slices.Clone(b.B))
	r.mu.Unlock()
	r.took <- struct{}{}
}

func (r *recorder) Closed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		r.t.Error("Closed twice")
	}
	r.closed, r.err = true, err
	close(r.end)
}

func (r *recorder) received() (control []wire.ControlMessage, bulk [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.control), slices.Clone(r.bulk)
}

// await waits for so many messages more.
func (r *recorder) await(n int) {
	r.t.Helper()
	for range n {
		wait(r.t, "a message", r.took)
	}
}

// ended waits for the end of the link.
func (r *recorder) ended() error {
	r.t.Helper()
	wait(r.t, "the end", r.end)
	return r.err
}

// pair is two links over real connections.
type pair struct {
	*clock
	a, b   *recorder // the initiator's and the responder's
	engine *countingEngine
}

// wrappedConn has another control or bulk channel than the connection's own.
type wrappedConn struct {
	Conn
	channels [2]Channel
}

func (c *wrappedConn) Channel(ch wire.Channel) Channel {
	if c.channels[ch] != nil {
		return c.channels[ch]
	}
	return c.Conn.Channel(ch)
}

// linkOver starts a link.
func linkOver(t *testing.T, conn Conn, h Handshake, c *clock, engine bulk.Engine, change func(*LinkConfig)) *recorder {
	r := newRecorder(t)
	cfg := LinkConfig{Conn: conn, Handshake: h, Engine: engine, Pool: new(bulk.Pool), Now: c.Now, Handler: r}
	if change != nil {
		change(&cfg)
	}
	r.link = NewLink(cfg)
	r.link.Start()
	t.Cleanup(func() {
		r.link.Close(wire.ByeLeft)
		r.link.Destroy()
		r.closing.Wait()
	})
	return r
}

func newClock() *clock { return &clock{now: time.Unix(1e9, 0)} }

// newPair makes two open links. wrap may put something between a link and its connection.
func newPair(t *testing.T, wrap func(side int, c Conn) Conn) *pair {
	t.Helper()
	a, b := connect(t, labs(t)[0])
	conns := [2]Conn{a, b}
	if wrap != nil {
		conns[0], conns[1] = wrap(0, a), wrap(1, b)
	}
	i, r := shakeHands(t)
	return openPair(t, conns, i, r, new(countingEngine))
}

// openPair starts the links of a handshake and waits until they are open.
func openPair(t *testing.T, conns [2]Conn, i *seal.Initiator, r *seal.Responder, engine *countingEngine) *pair {
	t.Helper()
	p := &pair{clock: newClock(), engine: engine}
	p.a = linkOver(t, conns[0], i, p.clock, p.engine, nil)
	p.b = linkOver(t, conns[1], r, p.clock, p.engine, nil)
	wait(t, "a opens", p.a.open)
	wait(t, "b opens", p.b.open)
	return p
}

// bulkMessage is a bulk message that names its number, and its length by that.
func bulkMessage(n int) []byte {
	b := make([]byte, 100+n*7919%200_000)
	binary.BigEndian.PutUint64(b, uint64(n))
	for i := 8; i < len(b); i++ {
		b[i] = byte(n + i)
	}
	return b
}

// sendBulk sends so many bulk messages, with at most a few queued at a time, and reports the first that could not be sent.
func (r *recorder) sendBulk(from, count int) error {
	space := make(chan struct{}, 4)
	for n := from; n < from+count; n++ {
		select {
		case space <- struct{}{}:
		case <-r.end:
			return fmt.Errorf("message %d: %w", n, r.err)
		}
		message := bulkMessage(n)
		data := r.link.cfg.Pool.Get(len(message) - 10)
		copy(data.B, message[10:])
		r.link.SendBulk(BulkItem{Head: message[:10], Data: []*bulk.Buffer{data}, Sent: func() { <-space }})
	}
	for range cap(space) { // until all of them are with the transport
		select {
		case space <- struct{}{}:
		case <-r.end:
			return r.err
		}
	}
	return nil
}

func checkBulk(t *testing.T, got [][]byte, count int) {
	t.Helper()
	if len(got) != count {
		t.Fatalf("%d bulk messages, want %d", len(got), count)
	}
	for n, b := range got {
		if string(b) != string(bulkMessage(n)) {
			t.Fatalf("bulk message %d differs", n)
		}
	}
}

func checkPings(t *testing.T, got []wire.ControlMessage, count int) {
	t.Helper()
	for n := range count {
		if n >= len(got) || got[n] != (wire.Ping{Token: uint64(n)}) {
			t.Fatalf("%d control messages, want %d in order", len(got), count)
		}
	}
}

func TestLinkBothWays(t *testing.T) {
	p := newPair(t, nil)
	if p.a.link.SafetyWords() != p.b.link.SafetyWords() || p.a.link.SafetyWords() == ([4]string{}) {
		t.Errorf("safety words %v and %v", p.a.link.SafetyWords(), p.b.link.SafetyWords())
	}
	const count = 40
	var sending sync.WaitGroup
	for _, r := range []*recorder{p.a, p.b} {
		sending.Go(func() {
			for n := range count {
				r.link.SendControl(wire.Ping{Token: uint64(n)})
			}
			if err := r.sendBulk(0, count); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	for _, r := range []*recorder{p.a, p.b} {
		r.await(2 * count)
		control, bulk := r.received()
		checkPings(t, control, count)
		checkBulk(t, bulk, count)
	}
	// Besides M4 there are reports of what has arrived.
	if s := p.a.link.Stats(); s.RecordsSent < 2*count || s.RecordsReceived < 2*count+1 || s.RecordsSent > 4*count || s.RecordsReceived > 4*count+1 {
		t.Errorf("stats %+v", s)
	}

	// What is queued before Close arrives, and the Bye after it. Closing again does nothing.
	for n := range 200 {
		p.a.link.SendControl(wire.Ping{Token: uint64(count + n)})
	}
	var closing sync.WaitGroup
	for range 3 {
		closing.Go(func() {
			if !p.a.link.Close(wire.ByeRemoved) {
				t.Error("the goodbye was taken, and is not said to be")
			}
		})
	}
	closing.Wait()
	if err := p.a.ended(); err != nil {
		t.Errorf("the closing end: %v", err)
	}
	if err := p.b.ended(); err != nil && fault.Of(err) != fault.PeerGone {
		t.Errorf("the other end: %v", err)
	}
	control, _ := p.b.received()
	checkPings(t, control, count+200)
	if last := control[count+200]; last != (wire.Bye{Code: wire.ByeRemoved}) {
		t.Errorf("the last message is %v", last)
	}
	p.a.link.SendControl(wire.Ping{})
	item := p.a.link.cfg.Pool.Get(10)
	p.a.link.SendBulk(BulkItem{Data: []*bulk.Buffer{item.Retain()}})
	item.Release() // it would panic had the link not released it once
	p.a.link.Close(wire.ByeLeft)
	p.a.link.Destroy()
	p.b.link.Destroy()
	if p.engine.live != 0 || p.engine.repeats != 0 {
		t.Errorf("%d keys left, %d nonces used twice", p.engine.live, p.engine.repeats)
	}
}

// TestLinkBye says goodbye from both ends at once, and under load: it arrives, and nobody waits for long.
func TestLinkBye(t *testing.T) {
	t.Run("crossing", func(t *testing.T) {
		p := newPair(t, nil)
		var closing sync.WaitGroup
		closing.Go(func() { p.a.link.Close(wire.ByeReplaced) })
		closing.Go(func() { p.b.link.Close(wire.ByeLeft) })
		closing.Wait()
		for _, r := range []*recorder{p.a, p.b} {
			if err := r.ended(); err != nil && fault.Of(err) != fault.PeerGone {
				t.Error(err)
			}
		}
	})
	t.Run("queued", func(t *testing.T) { // what was queued before it leaves first, whatever it waits for
		count := 2000
		if raced.Enabled || runtime.GOOS == "js" {
			count = 200 // or a busy machine does not get through them while the goodbye waits
		}
		p := newPair(t, nil)
		for range count {
			p.a.link.SendControl(wire.Ping{})
		}
		p.a.link.Close(wire.ByeLeft)
		p.b.ended()
		if control, _ := p.b.received(); len(control) != count+1 || control[count] != (wire.Bye{Code: wire.ByeLeft}) {
			t.Errorf("%d control messages", len(control))
		}
	})
	t.Run("under load", func(t *testing.T) {
		p := newPair(t, nil)
		var sending sync.WaitGroup
		sending.Go(func() { _ = p.a.sendBulk(0, 500) }) // it will not come to an end
		p.b.await(10)
		p.a.link.Close(wire.ByeLeft)
		sending.Wait()
		p.b.ended()
		control, got := p.b.received()
		if len(control) != 1 || control[0] != (wire.Bye{Code: wire.ByeLeft}) {
			t.Errorf("control messages %v", control)
		}
		checkBulk(t, got, len(got))
	})
	t.Run("the peer is gone", func(t *testing.T) {
		p := newPair(t, nil)
		p.b.link.Abort(errors.New("gone"))
		p.a.link.Close(wire.ByeLeft)
		p.a.ended()
		if err := p.b.ended(); fault.Of(err) != fault.PeerGone {
			t.Errorf("aborted with an error that is not public: %v", err)
		}
	})
}

// TestLinkNeverOpens ends links over connections that do not come about.
func TestLinkNeverOpens(t *testing.T) {
	i, r := shakeHands(t)
	lab := labs(t)[0]
	a, b := newEnd(t, lab), newEnd(t, lab)
	ra := linkOver(t, a, i, newClock(), bulk.Go{}, nil)
	rb := linkOver(t, b, r, newClock(), bulk.Go{}, nil)
	ra.link.SendControl(wire.Ping{})
	ra.link.Close(wire.ByeLeft)
	if err := ra.ended(); err != nil {
		t.Error(err)
	}
	rb.link.Abort(fault.New(fault.ConnectionFailed, nil))
	if err := rb.ended(); fault.Of(err) != fault.ConnectionFailed {
		t.Error(err)
	}
	// The goroutine that owns the session has ended.
	i, _ = shakeHands(t)
	c, d := connect(t, lab)
	rc := linkOver(t, c, i, newClock(), bulk.Go{}, func(cfg *LinkConfig) { cfg.Do = func(func()) bool { return false } })
	if err := rc.ended(); fault.Of(err) != fault.HandshakeFailed {
		t.Error(err)
	}
	_ = d.Close()
}

// gate is a channel whose writes wait.
type gate struct {
	Channel
	shut chan struct{}
}

func (g *gate) WriteRecord(ctx context.Context, record []byte) error {
	select {
	case <-g.shut:
		return g.Channel.WriteRecord(ctx, record)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestLinkQueueOverflow(t *testing.T) {
	for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
		t.Run(fmt.Sprint(ch), func(t *testing.T) {
			var g *gate
			p := newPair(t, func(side int, c Conn) Conn {
				if side == 0 || ch == wire.Control {
					return c
				}
				g = &gate{c.Channel(ch), make(chan struct{})}
				w := &wrappedConn{Conn: c}
				w.channels[ch] = g
				return w
			})
			if ch == wire.Control { // it opens over this one, so it is the peer that does not read
				p.a.hold = make(chan struct{})
				defer close(p.a.hold)
				message := wire.ManifestPart{Data: make([]byte, wire.MaxManifestPart)}
				for range maxControlQueue + 1000 {
					p.b.link.SendControl(message)
				}
			} else {
				for range maxBulkQueue + 10 {
					p.b.link.SendBulk(BulkItem{Head: []byte{1}})
				}
			}
			if err := p.b.ended(); fault.Of(err) != fault.ConnectionFailed {
				t.Errorf("%v", err)
			}
		})
	}
}

// meddler changes the records that arrive.
type meddler struct {
	Channel
	change func(n int, record []byte) [][]byte // what to make of record n
	n      int
	ready  [][]byte
}

func (m *meddler) ReadRecord(ctx context.Context) (*bulk.Buffer, error) {
	for len(m.ready) == 0 {
		b, err := m.Channel.ReadRecord(ctx)
		if err != nil {
			return nil, err
		}
		m.ready = m.change(m.n, slices.Clone(b.B))
		m.n++
		b.Release()
	}
	b := new(bulk.Pool).Get(len(m.ready[0]))
	copy(b.B, m.ready[0])
	m.ready = m.ready[1:]
	return b, nil
}

// TestLinkTampering changes the fourth record after opening in every way: what came before is delivered, nothing after.
func TestLinkTampering(t *testing.T) {
	const at = 3
	flip := func(offset int) func([]byte, []byte) [][]byte {
		return func(_, record []byte) [][]byte {
			if offset < 0 {
				offset += len(record)
			}
			record[offset] ^= 1
			return [][]byte{record}
		}
	}
	for _, c := range []struct {
		name   string
		change func(before, record []byte) [][]byte
	}{
		{"length", flip(3)},
		{"type", flip(4)},
		{"epoch", flip(8)},
		{"sequence", flip(16)},
		{"ciphertext", flip(wire.RecordHeaderSize)},
		{"tag", flip(-1)},
		{"truncated", func(_, record []byte) [][]byte {
			record = record[:len(record)-1]
			binary.BigEndian.PutUint32(record, uint32(len(record)-4))
			return [][]byte{record}
		}},
		{"too short", func(_, record []byte) [][]byte {
			record = record[:wire.RecordHeaderSize+1]
			binary.BigEndian.PutUint32(record, uint32(len(record)-4))
			return [][]byte{record}
		}},
		{"key record", func(_, record []byte) [][]byte { record[4] = byte(wire.RecordKey); return [][]byte{record} }},
		{"replayed", func(before, record []byte) [][]byte { return [][]byte{before, record} }},
		{"left out", func([]byte, []byte) [][]byte { return nil }},
		{"twice", func(_, record []byte) [][]byte { return [][]byte{record, record} }},
	} {
		for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
			t.Run(fmt.Sprintf("%s of %d", c.name, ch), func(t *testing.T) {
				p := newPair(t, func(side int, conn Conn) Conn {
					if side == 1 {
						return conn
					}
					var before []byte
					first := 0 // M4 is the first of control
					if ch == wire.Control {
						first = 1
					}
					w := &wrappedConn{Conn: conn}
					w.channels[ch] = &meddler{Channel: conn.Channel(ch), change: func(n int, record []byte) [][]byte {
						if n == first+at {
							return c.change(before, record)
						}
						before = slices.Clone(record)
						return [][]byte{record}
					}}
					return w
				})
				for n := range 8 {
					if ch == wire.Control {
						p.b.link.SendControl(wire.Ping{Token: uint64(n)})
					} else {
						p.b.link.SendBulk(BulkItem{Head: bulkMessage(n)})
					}
				}
				if err := p.a.ended(); fault.Of(err) != fault.ProtocolViolation {
					t.Errorf("ended with %v", err)
				}
				want := at
				if c.name == "twice" {
					want++
				}
				if control, bulk := p.a.received(); ch == wire.Control {
					checkPings(t, control, want)
					if len(control) != want {
						t.Errorf("%d were delivered", len(control))
					}
				} else {
					checkBulk(t, bulk, want)
				}
				if p.engine.repeats != 0 {
					t.Error("a nonce was used twice")
				}
			})
		}
	}
}

// rawPeer is the other end of a link without a Link: it holds the keys and can send whatever it likes.
type rawPeer struct {
	t        *testing.T
	conn     Conn
	session  *seal.Session
	sequence [2]uint64
	epoch    [2]uint32
}

func (p *rawPeer) seal(ch wire.Channel, kind wire.RecordType, plaintext []byte) (record []byte) {
	p.t.Helper()
	key, iv, err := p.session.Traffic(p.session.Direction(), ch, p.epoch[ch])
	if err != nil {
		p.t.Fatal(err)
	}
	aead, err := bulk.Go{}.NewAEAD(key[:])
	if err != nil {
		p.t.Fatal(err)
	}
	h := wire.RecordHeader{Length: uint32(wire.RecordHeaderSize - 4 + len(plaintext) + wire.TagSize), Type: kind, Epoch: p.epoch[ch], Sequence: p.sequence[ch]}
	record = append(h.Append(nil), make([]byte, len(plaintext)+wire.TagSize)...)
	nonce := wire.Nonce(iv, p.sequence[ch])
	if err := aead.Seal(record[wire.RecordHeaderSize:], nonce[:], plaintext, h.AppendAAD(nil, ch)); err != nil {
		p.t.Fatal(err)
	}
	p.sequence[ch]++
	if kind == wire.RecordKey {
		p.sequence[ch], p.epoch[ch] = 0, p.epoch[ch]+1
	}
	return record
}

func (p *rawPeer) write(ch wire.Channel, record []byte) {
	p.t.Helper()
	if err := p.conn.Channel(ch).WriteRecord(testContext(p.t), record); err != nil {
		p.t.Fatal(err)
	}
}

func (p *rawPeer) send(ch wire.Channel, kind wire.RecordType, plaintext []byte) {
	p.t.Helper()
	p.write(ch, p.seal(ch, kind, plaintext))
}

// read reads the next record, which must be of this kind and epoch, and opens it.
func (p *rawPeer) read(ch wire.Channel, kind wire.RecordType, epoch uint32) []byte {
	p.t.Helper()
	b, err := p.conn.Channel(ch).ReadRecord(testContext(p.t))
	if err != nil {
		p.t.Fatal(err)
	}
	defer b.Release()
	h, ciphertext, err := wire.ParseRecord(b.B, ch)
	if err != nil || h.Type != kind || h.Epoch != epoch {
		p.t.Fatalf("record %+v, %v; want type %d of epoch %d", h, err, kind, epoch)
	}
	key, iv, err := p.session.Traffic(p.session.Direction().Other(), ch, epoch)
	if err != nil {
		p.t.Fatal(err)
	}
	aead, _ := bulk.Go{}.NewAEAD(key[:])
	plaintext := make([]byte, len(ciphertext)-wire.TagSize)
	nonce := wire.Nonce(iv, h.Sequence)
	if err := aead.Open(plaintext, nonce[:], ciphertext, h.AppendAAD(nil, ch)); err != nil {
		p.t.Fatal(err)
	}
	return plaintext
}

// rawPair opens a link whose other end is raw: the responder if the link is the initiator's.
func rawPair(t *testing.T, linkInitiates bool) (*recorder, *rawPeer, *clock) {
	t.Helper()
	a, b := newPipe()
	i, r := shakeHands(t)
	c := newClock()
	if !linkInitiates {
		link := linkOver(t, b, r, c, bulk.Go{}, nil)
		t.Cleanup(func() { _ = a.Close() }) // nobody answers the link's Bye
		raw := &rawPeer{t: t, conn: a, session: i.Session()}
		confirm(t, raw, i, nil)
		if err := i.Reveal(raw.read(wire.Control, wire.RecordData, 0)); err != nil {
			t.Fatal(err)
		}
		wait(t, "open", link.open)
		return link, raw, c
	}
	link := linkOver(t, a, i, c, bulk.Go{}, nil)
	t.Cleanup(func() { _ = a.Close() })
	raw := &rawPeer{t: t, conn: b, session: r.Session()}
	raw.send(wire.Control, wire.RecordData, readConfirm(t, raw, r))
	wait(t, "open", link.open)
	return link, raw, c
}

// confirm sends M3, changed.
func confirm(t *testing.T, raw *rawPeer, i *seal.Initiator, change func([]byte)) {
	t.Helper()
	m3, err := i.Confirm()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(m3)
	}
	h := wire.RecordHeader{Length: uint32(wire.RecordHeaderSize - 4 + len(m3)), Type: wire.RecordConfirm}
	if err := raw.conn.Channel(wire.Control).WriteRecord(testContext(t), append(h.Append(nil), m3...)); err != nil {
		t.Fatal(err)
	}
}

// readConfirm takes M3 and makes M4.
func readConfirm(t *testing.T, raw *rawPeer, r *seal.Responder) (m4 []byte) {
	t.Helper()
	b, err := raw.conn.Channel(wire.Control).ReadRecord(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if m4, err = r.Confirm(b.B[wire.RecordHeaderSize:]); err != nil {
		t.Fatal(err)
	}
	return m4
}

// TestLinkHandshake changes M3 and M4.
func TestLinkHandshake(t *testing.T) {
	t.Run("M3", func(t *testing.T) {
		for name, change := range map[string]func([]byte){
			"contribution": func(m3 []byte) { m3[0] ^= 1 },
			"MAC":          func(m3 []byte) { m3[len(m3)-1] ^= 1 },
		} {
			t.Run(name, func(t *testing.T) {
				a, b := connect(t, labs(t)[0])
				i, r := shakeHands(t)
				link := linkOver(t, b, r, newClock(), bulk.Go{}, nil)
				confirm(t, &rawPeer{t: t, conn: a}, i, change)
				if err := link.ended(); fault.Of(err) != fault.HandshakeFailed || link.opened {
					t.Errorf("%v", err)
				}
			})
		}
	})
	t.Run("no M3", func(t *testing.T) {
		a, b := connect(t, labs(t)[0])
		_, r := shakeHands(t)
		link := linkOver(t, b, r, newClock(), bulk.Go{}, nil)
		write(t, a.Channel(wire.Control), 100, 0)
		if err := link.ended(); fault.Of(err) != fault.HandshakeFailed {
			t.Errorf("%v", err)
		}
	})
	t.Run("M4", func(t *testing.T) {
		for name, change := range map[string]func(*rawPeer, []byte){
			"contribution": func(raw *rawPeer, m4 []byte) { m4[5] ^= 1; raw.send(wire.Control, wire.RecordData, m4) },
			"a Ping":       func(raw *rawPeer, _ []byte) { raw.send(wire.Control, wire.RecordData, wire.Ping{}.Append(nil)) },
			"key record":   func(raw *rawPeer, _ []byte) { raw.send(wire.Control, wire.RecordKey, nil) },
			"in the clear": func(raw *rawPeer, m4 []byte) { write(t, raw.conn.Channel(wire.Control), 100, 0) },
		} {
			t.Run(name, func(t *testing.T) {
				a, b := connect(t, labs(t)[0])
				i, r := shakeHands(t)
				link := linkOver(t, a, i, newClock(), bulk.Go{}, nil)
				raw := &rawPeer{t: t, conn: b, session: r.Session()}
				change(raw, readConfirm(t, raw, r))
				if err := link.ended(); fault.Of(err) != fault.HandshakeFailed || link.opened {
					t.Errorf("%v", err)
				}
			})
		}
	})
}

// TestLinkViolations sends what a peer that holds the keys must not.
func TestLinkViolations(t *testing.T) {
	for _, c := range []struct {
		name     string
		initiate bool // the link under test is the initiator's
		do       func(*rawPeer)
	}{
		{"second Reveal", true, func(p *rawPeer) { p.send(wire.Control, wire.RecordData, wire.Reveal{}.Append(nil)) }},
		{"malformed", true, func(p *rawPeer) { p.send(wire.Control, wire.RecordData, []byte{200}) }},
		{"empty", false, func(p *rawPeer) { p.send(wire.Control, wire.RecordData, nil) }},
		{"M3 again", false, func(p *rawPeer) { p.send(wire.Control, wire.RecordConfirm, make([]byte, 100)) }},
		{"Rekeyed that nobody asked for", true, func(p *rawPeer) {
			p.send(wire.Control, wire.RecordData, wire.Rekeyed{Epoch: 1, KEMCiphertext: make([]byte, wire.KEMCiphertextSize)}.Append(nil))
		}},
		{"Rekey from the responder", true, func(p *rawPeer) {
			p.send(wire.Control, wire.RecordData, wire.Rekey{Epoch: 1, KEMPublicKey: make([]byte, wire.KEMPublicKeySize)}.Append(nil))
		}},
		{"Rekey for a later epoch", false, func(p *rawPeer) {
			p.send(wire.Control, wire.RecordData, wire.Rekey{Epoch: 2, KEMPublicKey: make([]byte, wire.KEMPublicKeySize)}.Append(nil))
		}},
		{"Rekey with a low-order key", false, func(p *rawPeer) {
			p.send(wire.Control, wire.RecordData, wire.Rekey{Epoch: 1, KEMPublicKey: make([]byte, wire.KEMPublicKeySize)}.Append(nil))
		}},
		{"key record without an exchange", false, func(p *rawPeer) { p.send(wire.Control, wire.RecordKey, nil) }},
		{"key record with content", false, func(p *rawPeer) { p.send(wire.Bulk, wire.RecordKey, []byte{1}) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			link, raw, _ := rawPair(t, c.initiate)
			c.do(raw)
			if err := link.ended(); fault.Of(err) != fault.ProtocolViolation {
				t.Errorf("%v", err)
			}
			if control, bulk := link.received(); len(control)+len(bulk) > 0 {
				t.Errorf("delivered %v %v", control, bulk)
			}
		})
	}
}

// TestLinkRekey changes keys by time and by volume, again and again, while both ends send on both channels.
func TestLinkRekey(t *testing.T) {
	p := newPair(t, nil)
	const rounds, count = 12, 15
	for round := range rounds {
		if round%2 == 0 {
			p.advance(epochAge)
		} else {
			p.a.link.records.Store(epochRecords)
		}
		var sending sync.WaitGroup
		for _, r := range []*recorder{p.a, p.b} {
			sending.Go(func() {
				for n := range count {
					r.link.SendControl(wire.Ping{Token: uint64(round*count + n)})
				}
				if err := r.sendBulk(round*count, count); err != nil {
					t.Error(err)
				}
			})
		}
		sending.Wait()
		p.a.await(2 * count)
		p.b.await(2 * count)
		p.settle(uint32(round + 1))
	}
	for _, r := range []*recorder{p.a, p.b} {
		control, bulk := r.received()
		checkPings(t, control, rounds*count)
		checkBulk(t, bulk, rounds*count)
	}
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	// Four keys an epoch at each end; no more than two epochs are alive at a time.
	if p.engine.made != 2*4*(rounds+1) || p.engine.live != 2*4 || p.engine.most > 2*2*4 {
		t.Errorf("%d keys were made, %d are alive, %d were at a time", p.engine.made, p.engine.live, p.engine.most)
	}
	if p.engine.repeats != 0 {
		t.Error("a nonce was used twice")
	}
}

// settle waits until both ends send and receive under the epoch, and have forgotten the one before.
func (p *pair) settle(epoch uint32) {
	p.a.t.Helper()
	p.a.settle(epoch)
	p.b.settle(epoch)
}

// settle is that of one end.
func (r *recorder) settle(epoch uint32) {
	r.t.Helper()
	timeout := time.NewTimer(testPatience)
	defer timeout.Stop()
	for {
		r.link.mu.Lock()
		done, changed := len(r.link.keys) == 1 && r.link.keys[epoch] != nil, r.link.changed
		r.link.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-timeout.C:
			r.t.Fatalf("epoch %d was not reached", epoch)
		}
	}
}

// TestLinkRekeyUnderway changes the keys every 20 messages of the initiator's, in the midst of a stream from either end.
func TestLinkRekeyUnderway(t *testing.T) {
	p := newPair(t, nil)
	const epochs, each = 4, 20 // several times what the transport queues, behind which each key record waits
	const count = (epochs + 1) * each
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := p.b.sendBulk(0, count); err != nil {
			t.Error(err)
		}
	})
	for epoch := range uint32(epochs + 1) {
		if epoch > 0 {
			p.a.settle(epoch - 1)
			p.a.link.records.Store(epochRecords)
		}
		if err := p.a.sendBulk(int(epoch)*each, each); err != nil {
			t.Error(err)
		}
	}
	sending.Wait()
	for _, r := range []*recorder{p.a, p.b} {
		r.await(count)
		_, bulk := r.received()
		checkBulk(t, bulk, count)
	}
	p.settle(epochs)
	if p.engine.repeats != 0 {
		t.Error("a nonce was used twice")
	}
}

// TestLinkRekeyTimeout: the responder does not answer.
func TestLinkRekeyTimeout(t *testing.T) {
	link, raw, clock := rawPair(t, true)
	clock.advance(epochAge - 1)
	link.link.SendControl(wire.Ping{})
	if m := raw.read(wire.Control, wire.RecordData, 0); string(m) != string(wire.Ping{}.Append(nil)) {
		t.Fatalf("message %x", m)
	}
	clock.advance(1)
	link.link.SendBulk(BulkItem{Head: []byte{1}}) // sending on either channel is enough
	m, err := wire.ParseControl(raw.read(wire.Control, wire.RecordData, 0))
	if rekey, ok := m.(wire.Rekey); err != nil || !ok || rekey.Epoch != 1 {
		t.Fatalf("message %v, %v", m, err)
	}
	clock.advance(rekeyTimeout)
	link.link.SendControl(wire.Ping{})
	raw.read(wire.Control, wire.RecordData, 0)
	clock.advance(1)
	link.link.SendControl(wire.Ping{})
	if err := link.ended(); fault.Of(err) != fault.RekeyTimeout {
		t.Errorf("%v", err)
	}
}

// TestLinkRekeyOverdue: the initiator does not begin.
func TestLinkRekeyOverdue(t *testing.T) {
	for name, overdue := range map[string]func(*recorder, *clock){
		"by time":   func(_ *recorder, c *clock) { c.advance(epochAge) },
		"by volume": func(r *recorder, _ *clock) { r.link.records.Store(2 * epochRecords) },
	} {
		t.Run(name, func(t *testing.T) {
			link, raw, clock := rawPair(t, false)
			clock.advance(epochAge)
			link.link.SendControl(wire.Ping{})
			raw.read(wire.Control, wire.RecordData, 0)
			overdue(link, clock)
			link.link.SendControl(wire.Ping{})
			if err := link.ended(); fault.Of(err) != fault.RekeyTimeout {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestLinkRekeyEarly: an initiator that has all four directions switched may begin anew before the responder has; the
// responder waits with its answer.
func TestLinkRekeyEarly(t *testing.T) {
	link, raw, _ := rawPair(t, false)
	exchange := func() {
		message, err := raw.session.StartRekey()
		if err != nil {
			t.Fatal(err)
		}
		raw.send(wire.Control, wire.RecordData, message)
	}
	answered := func(epoch uint32) {
		if err := raw.session.FinishRekey(raw.read(wire.Control, wire.RecordData, epoch)); err != nil {
			t.Fatal(err)
		}
		raw.read(wire.Control, wire.RecordKey, epoch)
		raw.read(wire.Bulk, wire.RecordKey, epoch)
	}
	exchange()
	answered(0)
	raw.send(wire.Control, wire.RecordKey, nil)
	last := raw.seal(wire.Bulk, wire.RecordKey, nil)
	raw.session.Retire(0)
	exchange() // ahead of the key record on bulk, which is still in epoch 0
	link.link.SendControl(wire.Ping{Token: 1})
	if m := raw.read(wire.Control, wire.RecordData, 1); string(m) != string(wire.Ping{Token: 1}.Append(nil)) {
		t.Fatalf("the Rekey was answered early: %x", m)
	}
	raw.write(wire.Bulk, last)
	answered(1)
}

// TestLinkPace: what is on its way stays within bounds until the peer says that it has arrived, and a peer that says what cannot be is cut off.
func TestLinkPace(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	i, r := shakeHands(t)
	link := linkOver(t, a, i, newClock(), bulk.Go{}, nil)
	raw := &rawPeer{t: t, conn: b, session: r.Session()}
	raw.send(wire.Control, wire.RecordData, readConfirm(t, raw, r))
	wait(t, "open", link.open)

	const size, count = 100_000, 20
	sent := make(chan struct{}, count)
	for range count {
		link.link.SendBulk(BulkItem{Head: make([]byte, size), Sent: func() { sent <- struct{}{} }})
	}
	for range startWindow / (size + 100) { // these go out by themselves
		<-sent
		raw.read(wire.Bulk, wire.RecordData, 0)
	}
	link.link.mu.Lock()
	flying := link.link.pace.sent
	link.link.mu.Unlock()
	if flying > startWindow || flying < startWindow-wire.MessageSize {
		t.Errorf("%d bytes went out unasked", flying)
	}
	raw.send(wire.Control, wire.RecordData, wire.Received{Bytes: flying}.Append(nil))
	<-sent
	raw.read(wire.Bulk, wire.RecordData, 0)
	raw.send(wire.Control, wire.RecordData, wire.Received{Bytes: 1 << 40}.Append(nil))
	if err := link.ended(); fault.Of(err) != fault.ProtocolViolation {
		t.Errorf("ended with %v", err)
	}
}

// TestLinkProbed: when the path changes, the link says what a round trip takes that has nothing of ours before it, and not what one took that had.
func TestLinkProbed(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	i, r := shakeHands(t)
	c := newClock()
	ready, probed := make(chan struct{}, 10), make(chan time.Duration, 10)
	link := linkOver(t, a, i, c, bulk.Go{}, func(cfg *LinkConfig) {
		cfg.Ready = func() { ready <- struct{}{} }
		cfg.Probed = func(sent, answered time.Time) { probed <- answered.Sub(sent) }
	})
	raw := &rawPeer{t: t, conn: b, session: r.Session()}
	raw.send(wire.Control, wire.RecordData, readConfirm(t, raw, r))
	wait(t, "open", link.open)

	sent := make(chan struct{})
	link.link.SendBulk(BulkItem{Head: make([]byte, 50_000), Sent: func() { close(sent) }})
	wait(t, "bulk to be on its way", sent)
	link.link.PathChanged()
	pong := func(took time.Duration) {
		t.Helper()
		m, err := wire.ParseControl(raw.read(wire.Control, wire.RecordData, 0))
		ping, ok := m.(wire.Ping)
		if err != nil || !ok {
			t.Fatalf("%#v, %v", m, err)
		}
		c.advance(took)
		raw.send(wire.Control, wire.RecordData, wire.Pong(ping).Append(nil))
	}
	pong(900 * time.Millisecond) // it was behind that
	link.link.mu.Lock()
	flying := link.link.pace.sent
	link.link.mu.Unlock()
	raw.send(wire.Control, wire.RecordData, wire.Received{Bytes: flying}.Append(nil))
	wait(t, "all to have arrived", ready)
	Balance([]*Link{link.link})
	pong(350 * time.Millisecond)
	wait(t, "the end of the probe", ready)
	if took := <-probed; took != 350*time.Millisecond || len(probed) > 0 {
		t.Errorf("probed: %v, and %d more", took, len(probed))
	}
}
