package peer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

const (
	// An epoch ends after this long or this many records, whichever comes first: PROTOCOL.md section 8.
	epochAge     = 5 * time.Minute
	epochRecords = 1 << 20
	rekeyTimeout = 60 * time.Second
	// openTimeout is how long the confirming handshake may take, from the moment that the control channel is open.
	openTimeout = 20 * time.Second
	// goodbye is how long an orderly close waits for the peer to take what is queued and the Bye after it.
	goodbye = time.Second

	// The queues are filled by this program; a peer that does not read makes them grow. A resumed transfer queues a Have for
	// each of its files at once.
	maxControlQueue = wire.MaxFiles + 16384
	maxBulkQueue    = 4096

	// probeTokens and higher are the tokens of the link's own Pings, whose Pongs its handler does not see.
	probeTokens = 1 << 63
)

// Handshake is what the link needs of the handshake to confirm it: seal.Initiator and seal.Responder.
type Handshake interface {
	PeerKeys() *seal.Verifier
	PeerCapabilities() uint32
	Session() *seal.Session
	SafetyWords() [4]string
}

// LinkConfig is what a link is made of.
type LinkConfig struct {
	Conn      Conn
	Handshake Handshake // a *seal.Initiator that has taken M2 or a *seal.Responder that has made it; the link's from now on
	Engine    bulk.Engine
	Pool      *bulk.Pool
	Now       func() time.Time
	Handler   LinkHandler
	// Ready, unless nil, is called when a probe of the path has something to do, and Balance should be called soon: until then nothing is sent. It must
	// not block.
	Ready func()
	// Probed, unless nil, is called when a Ping has been answered that was sent with next to nothing of this end's before it on the path, as one is for each
	// PathChanged. It must not block.
	Probed func(sent, answered time.Time)
	// Do runs fn in the goroutine that seals and opens the pair's envelopes, to which the session belongs until Opened, and
	// waits for it. It reports false if that goroutine has ended and fn does not run. nil: fn runs where it is.
	Do func(fn func()) bool
}

// LinkHandler takes what happens on a link. Its methods are called from the link's goroutines: Opened first; then Control
// and Bulk, from one goroutine each, which blocks the channel for as long as the call takes; Closed last, once.
type LinkHandler interface {
	// Opened: the handshake is complete, the peer is who it should be.
	Opened()
	// Control takes a control message, with the exception of those that are the link's own (Reveal, Rekey, Rekeyed, Received, and the Pongs of its own Pings).
	Control(m wire.ControlMessage)
	// Bulk takes a bulk message. The handler retains the buffer if it needs it longer.
	Bulk(b *bulk.Buffer)
	// Closed: the link is gone, its connection closed. The error is a *fault.Error, or nil after Close.
	Closed(err error)
}

// LinkStats are the counters of a link.
type LinkStats struct {
	BytesSent, BytesReceived     uint64 // of records
	RecordsSent, RecordsReceived uint64
	Epoch                        uint32
}

// Link is the two encrypted channels to another member, once offer and answer have been exchanged.
type Link struct {
	cfg       LinkConfig
	session   *seal.Session
	initiator *seal.Initiator // one of the two is nil
	responder *seal.Responder
	direction wire.Direction // in which this end sends

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	opened chan struct{}
	bye    chan struct{} // closed when the peer has said Bye
	closed chan struct{}

	mu      sync.Mutex
	err     error // why it ended; nil: it has not
	leaving bool  // Close has been called
	control []controlItem
	bulk    []BulkItem
	wake    [2]chan struct{} // per channel, for its writer
	changed chan struct{}    // closed and replaced when keys change

	keys      map[uint32]*epochKeys
	newest    uint32        // the epoch to send under
	switched  [4]uint32     // epoch per channel and direction: index below
	started   time.Time     // of the newest epoch
	rekeying  bool          // initiator: a Rekey is out or its epoch not yet everywhere
	rekeySent time.Time     // initiator: when the Rekey went out that has no answer yet, or zero
	records   atomic.Uint64 // in the newest epoch

	pace     pacer
	reported chan struct{} // one token: a report has come, or the share has changed
	reporter reporter      // the bulk channel's reader's

	stats struct{ bytesSent, bytesReceived, recordsSent, recordsReceived atomic.Uint64 }
}

type controlItem struct {
	message wire.ControlMessage // or encoded
	encoded []byte
	first   bool // before what waits
	sent    func()
}

// BulkItem is a bulk message to send: Head, followed by the contents of Data. Data is released when it has been sent or dropped; Sent
// is called when the transport has it, and not if the link closes before.
type BulkItem struct {
	Head []byte
	Data []*bulk.Buffer
	Sent func()
}

func (b BulkItem) release() {
	for _, d := range b.Data {
		d.Release()
	}
}

// epochKeys is the keys of an epoch, by direction and channel.
type epochKeys struct {
	aead [2][2]bulk.AEAD
	iv   [2][2][12]byte
}

func (k *epochKeys) destroy() {
	for _, d := range k.aead {
		for _, a := range d {
			if a != nil {
				a.Destroy()
			}
		}
	}
}

// slot is the index into switched.
func slot(d wire.Direction, ch wire.Channel) int { return int(d)*2 + int(ch) }

// NewLink makes a link over a connection whose offer and answer have been applied. It takes over the connection and the
// handshake, and needs Start before anything else.
func NewLink(cfg LinkConfig) *Link {
	l := &Link{cfg: cfg, session: cfg.Handshake.Session(),
		opened: make(chan struct{}), bye: make(chan struct{}), closed: make(chan struct{}), changed: make(chan struct{}),
		keys: map[uint32]*epochKeys{}}
	l.wake = [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}
	l.reported = make(chan struct{}, 1)
	l.initiator, _ = cfg.Handshake.(*seal.Initiator)
	l.responder, _ = cfg.Handshake.(*seal.Responder)
	l.direction = l.session.Direction()
	l.ctx, l.cancel = context.WithCancel(context.Background())
	cfg.Conn.Channel(wire.Bulk).Pace(linkPacing{l})
	return l
}

// Start sets the link going. It ends by itself, with Handler.Closed, when the connection or the handshake fails.
func (l *Link) Start() {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		if err := l.confirm(); err != nil {
			l.fail(err)
			return
		}
		close(l.opened)
		l.cfg.Handler.Opened()
		l.wg.Add(4)
		for _, loop := range []func() error{l.writeControl, l.writeBulk, l.readControl, l.readBulk} {
			go func() {
				defer l.wg.Done()
				l.fail(loop())
			}()
		}
	}()
	go l.watch()
}

// SafetyWords are the words that both ends show; valid from Opened on.
func (l *Link) SafetyWords() [4]string { return l.cfg.Handshake.SafetyWords() }

// Destroy overwrites the link's keys. The goroutine that seals and opens the pair's envelopes calls it after Closed.
func (l *Link) Destroy() {
	if l.initiator != nil {
		l.initiator.Destroy()
	} else {
		l.responder.Destroy()
	}
	l.session.Destroy()
}

// PeerKeys verify the peer's signatures.
func (l *Link) PeerKeys() *seal.Verifier { return l.cfg.Handshake.PeerKeys() }

// PeerCapabilities are the capabilities that the peer has told in the handshake.
func (l *Link) PeerCapabilities() uint32 { return l.cfg.Handshake.PeerCapabilities() }

// Conn is the connection beneath.
func (l *Link) Conn() Conn { return l.cfg.Conn }

// Stats reads the counters.
func (l *Link) Stats() LinkStats {
	l.mu.Lock()
	epoch := l.newest
	l.mu.Unlock()
	return LinkStats{l.stats.bytesSent.Load(), l.stats.bytesReceived.Load(), l.stats.recordsSent.Load(), l.stats.recordsReceived.Load(), epoch}
}

// SendControl queues a control message. It never blocks; a queue that the peer lets grow without end closes the link.
func (l *Link) SendControl(m wire.ControlMessage) { l.queueControl(controlItem{message: m}) }

func (l *Link) queueControl(item controlItem) {
	l.mu.Lock()
	full := len(l.control) >= maxControlQueue
	switch {
	case full || l.err != nil:
	case item.first:
		l.control = slices.Insert(l.control, 0, item)
	default:
		l.control = append(l.control, item)
	}
	l.mu.Unlock()
	if full {
		l.fail(fault.Newf(fault.ConnectionFailed, "peer: control queue is full"))
		return
	}
	signal(l.wake[wire.Control])
}

// SendBulk queues a bulk message. It never blocks; the caller keeps the queue short by waiting for Sent.
func (l *Link) SendBulk(item BulkItem) {
	l.mu.Lock()
	refused := l.err != nil || len(l.bulk) >= maxBulkQueue
	if !refused {
		l.bulk = append(l.bulk, item)
	}
	l.mu.Unlock()
	if refused {
		item.release()
		l.fail(fault.Newf(fault.ConnectionFailed, "peer: bulk queue is full"))
		return
	}
	signal(l.wake[wire.Bulk])
}

// Close says Bye with the code, gives it and what is queued before it on the control channel a moment to arrive, and
// closes the link. It waits until everything has ended, at most a little more than a second; Handler.Closed gets nil. It is
// idempotent, and reports whether the peer has said Bye itself, or closed the connection once ours was on its way. The handler's methods must
// not call it.
func (l *Link) Close(code wire.ByeCode) (taken bool) {
	l.mu.Lock()
	l.leaving = true // however it ends from here on
	l.mu.Unlock()
	select {
	case <-l.bye: // the peer waits for us
		taken = true
	case <-l.opened:
		var sent atomic.Bool
		l.queueControl(controlItem{message: wire.Bye{Code: code}, sent: func() { sent.Store(true) }})
		timer := time.NewTimer(goodbye)
		defer timer.Stop()
		select {
		case <-l.bye: // in answer to ours, or it leaves by itself
			taken = true
		case <-l.ctx.Done(): // the peer has closed the connection
			taken = sent.Load()
		case <-timer.C:
		}
	default:
	}
	l.fail(nil)
	<-l.closed
	return taken
}

// Abort closes the link at once, with err for Handler.Closed. It does not wait.
func (l *Link) Abort(err error) { l.fail(err) }

var errClosedHere = errors.New("peer: closed by this end")

// fail ends the link. The first error counts, unless Close was called before.
func (l *Link) fail(err error) {
	l.mu.Lock()
	switch {
	case l.err != nil:
	case l.leaving || err == nil:
		l.err = errClosedHere
	default:
		l.err = err
	}
	l.mu.Unlock()
	l.cancel()
}

// watch tears the link down when it has failed.
func (l *Link) watch() {
	<-l.ctx.Done()
	l.cfg.Conn.Close()
	l.wg.Wait()
	l.mu.Lock()
	err := l.err
	for _, item := range l.bulk {
		item.release()
	}
	l.bulk, l.control = nil, nil
	for _, k := range l.keys {
		k.destroy()
	}
	l.keys = nil
	l.mu.Unlock()
	var public *fault.Error
	switch {
	case err == errClosedHere:
		err = nil
	case !errors.As(err, &public):
		err = fault.New(fault.PeerGone, err)
	}
	l.cfg.Handler.Closed(err)
	close(l.closed)
}

// confirm exchanges M3 and M4.
func (l *Link) confirm() error {
	control := l.cfg.Conn.Channel(wire.Control)
	for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
		select {
		case <-l.cfg.Conn.Channel(ch).Opened():
		case <-l.cfg.Conn.Channel(ch).Done():
			return fault.New(fault.ConnectionFailed, ErrClosed)
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
	ctx, cancel := context.WithTimeout(l.ctx, openTimeout)
	defer cancel()
	if l.initiator != nil {
		m3, err := l.step(l.initiator.Confirm)
		if err != nil {
			return fault.New(fault.HandshakeFailed, err)
		}
		h := wire.RecordHeader{Length: uint32(wire.RecordHeaderSize - 4 + len(m3)), Type: wire.RecordConfirm}
		if err := control.WriteRecord(ctx, append(h.Append(nil), m3...)); err != nil {
			return fault.New(fault.ConnectionFailed, err)
		}
		if err := l.install(0); err != nil {
			return err
		}
		l.enter(0)
		b, err := l.readRecord(ctx, wire.Control, new(uint64))
		if err != nil {
			return handshakeError(err)
		}
		defer b.Release()
		if _, err := l.step(func() ([]byte, error) { return nil, l.initiator.Reveal(b.B) }); err != nil {
			return fault.New(fault.HandshakeFailed, err)
		}
		return nil
	}
	b, err := control.ReadRecord(ctx)
	if err != nil {
		return handshakeError(err)
	}
	defer b.Release()
	h, m3, err := wire.ParseRecord(b.B, wire.Control)
	if err != nil || h.Type != wire.RecordConfirm || h.Epoch != 0 || h.Sequence != 0 {
		return fault.Newf(fault.HandshakeFailed, "peer: first record is no confirmation: %w", errors.Join(err, ErrFraming))
	}
	m4, err := l.step(func() ([]byte, error) { return l.responder.Confirm(m3) })
	if err != nil {
		return fault.New(fault.HandshakeFailed, err)
	}
	if err := l.install(0); err != nil {
		return err
	}
	l.enter(0)
	return l.writeRecord(wire.Control, wire.RecordData, 0, 0, m4, nil)
}

// step takes a step of the handshake where the pair's envelopes are sealed: a step that fails destroys the session.
func (l *Link) step(fn func() ([]byte, error)) (message []byte, err error) {
	if l.cfg.Do == nil {
		return fn()
	}
	if !l.cfg.Do(func() { message, err = fn() }) {
		return nil, ErrClosed
	}
	return message, err
}

// handshakeError gives an error during the handshake its code: what came was wrong, or nothing came.
func handshakeError(err error) error {
	var public *fault.Error
	switch {
	case errors.As(err, &public):
		return fault.New(fault.HandshakeFailed, err)
	case errors.Is(err, ErrFraming), errors.Is(err, ErrOverrun):
		return fault.New(fault.HandshakeFailed, err)
	default:
		return fault.New(fault.ConnectionFailed, err)
	}
}

// install makes the keys of an epoch, which the session has.
func (l *Link) install(epoch uint32) error {
	k := &epochKeys{}
	for _, d := range []wire.Direction{wire.FromInitiator, wire.FromResponder} {
		for _, ch := range []wire.Channel{wire.Control, wire.Bulk} {
			l.mu.Lock()
			key, iv, err := l.session.Traffic(d, ch, epoch)
			l.mu.Unlock()
			if err == nil {
				k.aead[d][ch], err = l.cfg.Engine.NewAEAD(key[:])
			}
			clear(key[:])
			if err != nil {
				k.destroy()
				return fault.New(fault.Internal, err)
			}
			k.iv[d][ch] = iv
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[epoch] = k
	l.keysChanged()
	return nil
}

// enter makes an epoch the one to send under.
func (l *Link) enter(epoch uint32) {
	l.mu.Lock()
	l.newest, l.started = epoch, l.cfg.Now()
	l.mu.Unlock()
	l.records.Store(0)
	signal(l.wake[wire.Control])
	signal(l.wake[wire.Bulk])
}

// hasSwitched notes that a channel and direction is in an epoch, and forgets the one before when all four are.
func (l *Link) hasSwitched(d wire.Direction, ch wire.Channel, epoch uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.switched[slot(d, ch)] = epoch
	for _, e := range l.switched {
		if e != epoch {
			return
		}
	}
	if old := l.keys[epoch-1]; epoch > 0 && old != nil {
		old.destroy()
		delete(l.keys, epoch-1)
		l.session.Retire(epoch - 1)
		l.rekeying = false
		l.keysChanged()
	}
}

// keysChanged wakes who waits for keys to come or go. l.mu is held.
func (l *Link) keysChanged() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) epoch(epoch uint32) *epochKeys {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys[epoch]
}

// writeRecord seals and sends head followed by data.
func (l *Link) writeRecord(ch wire.Channel, t wire.RecordType, epoch uint32, sequence uint64, head []byte, data []*bulk.Buffer) error {
	keys := l.epoch(epoch)
	if keys == nil {
		return fault.Newf(fault.Internal, "peer: no keys for epoch %d", epoch)
	}
	n := len(head)
	for _, d := range data {
		n += len(d.B)
	}
	plaintext := l.cfg.Pool.Get(n)
	defer plaintext.Release()
	at := copy(plaintext.B, head)
	for _, d := range data {
		at += copy(plaintext.B[at:], d.B)
	}
	record := l.cfg.Pool.Get(wire.RecordHeaderSize + n + wire.TagSize)
	defer record.Release()
	h := wire.RecordHeader{Length: uint32(len(record.B) - 4), Type: t, Epoch: epoch, Sequence: sequence}
	h.Append(record.B[:0])
	nonce := wire.Nonce(keys.iv[l.direction][ch], sequence)
	if err := keys.aead[l.direction][ch].Seal(record.B[wire.RecordHeaderSize:], nonce[:], plaintext.B, h.AppendAAD(nil, ch)); err != nil {
		return fault.New(fault.Internal, err)
	}
	if err := l.cfg.Conn.Channel(ch).WriteRecord(l.ctx, record.B); err != nil {
		return err
	}
	l.records.Add(1)
	l.stats.recordsSent.Add(1)
	l.stats.bytesSent.Add(uint64(len(record.B)))
	return nil
}

// readRecord reads the next data record of the channel's epoch and opens it; it goes through key records on the way.
// *sequence is the sequence number that it must have.
func (l *Link) readRecord(ctx context.Context, ch wire.Channel, sequence *uint64) (*bulk.Buffer, error) {
	from := l.direction.Other()
	for {
		record, err := l.cfg.Conn.Channel(ch).ReadRecord(ctx)
		if err != nil {
			if errors.Is(err, ErrFraming) || errors.Is(err, ErrOverrun) {
				err = fault.New(fault.ProtocolViolation, err)
			}
			return nil, err
		}
		h, ciphertext, err := wire.ParseRecord(record.B, ch)
		l.mu.Lock()
		epoch := l.switched[slot(from, ch)]
		l.mu.Unlock()
		if err != nil || h.Type == wire.RecordConfirm || h.Epoch != epoch || h.Sequence != *sequence {
			record.Release()
			return nil, fault.Newf(fault.ProtocolViolation, "peer: record out of order: %w", errors.Join(err, ErrFraming))
		}
		keys := l.epoch(epoch)
		plaintext := l.cfg.Pool.Get(len(ciphertext) - wire.TagSize)
		nonce := wire.Nonce(keys.iv[from][ch], h.Sequence)
		err = keys.aead[from][ch].Open(plaintext.B, nonce[:], ciphertext, h.AppendAAD(nil, ch))
		l.records.Add(1)
		l.stats.recordsReceived.Add(1)
		l.stats.bytesReceived.Add(uint64(len(record.B)))
		record.Release()
		if err != nil {
			plaintext.Release()
			return nil, fault.New(fault.ProtocolViolation, err)
		}
		*sequence++
		if h.Type == wire.RecordData {
			return plaintext, nil
		}
		empty := len(plaintext.B) == 0
		plaintext.Release()
		if !empty {
			return nil, fault.Newf(fault.ProtocolViolation, "peer: key record with content")
		}
		if err := l.follow(ctx, ch, epoch+1); err != nil {
			return nil, err
		}
		*sequence = 0
	}
}

// follow enters the peer's next epoch on a channel. On bulk its keys may still be on the way over control, if this end has asked
// for them.
func (l *Link) follow(ctx context.Context, ch wire.Channel, epoch uint32) error {
	for {
		l.mu.Lock()
		keys, asked, changed := l.keys[epoch], l.rekeying, l.changed
		l.mu.Unlock()
		switch {
		case keys != nil:
			l.hasSwitched(l.direction.Other(), ch, epoch)
			return nil
		case ch == wire.Control || !asked:
			return fault.Newf(fault.ProtocolViolation, "peer: key record without a key exchange")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// switchEpoch sends the key record when there is a newer epoch to send under.
func (l *Link) switchEpoch(ch wire.Channel, sequence *uint64) error {
	l.mu.Lock()
	epoch, newest := l.switched[slot(l.direction, ch)], l.newest
	l.mu.Unlock()
	if epoch == newest {
		return nil
	}
	if err := l.writeRecord(ch, wire.RecordKey, epoch, *sequence, nil, nil); err != nil {
		return err
	}
	*sequence = 0
	l.hasSwitched(l.direction, ch, newest)
	return nil
}

// rekey starts a new epoch when it is time. It is the initiator's to start, and checked whenever something is sent. Either end
// gives up on a peer that keeps it from coming.
func (l *Link) rekey() (*controlItem, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cfg.Now()
	overdue := now.Sub(l.started) >= 2*epochAge || l.records.Load() >= 2*epochRecords
	switch {
	case l.initiator == nil && overdue:
		return nil, fault.Newf(fault.RekeyTimeout, "peer: no Rekey when it was long due")
	case l.rekeying && !l.rekeySent.IsZero() && now.Sub(l.rekeySent) > rekeyTimeout:
		return nil, fault.Newf(fault.RekeyTimeout, "peer: no answer to Rekey")
	case l.rekeying && l.rekeySent.IsZero() && overdue:
		return nil, fault.Newf(fault.RekeyTimeout, "peer: no key record when it was long due")
	case l.initiator == nil || l.rekeying:
		return nil, nil
	}
	if now.Sub(l.started) < epochAge && l.records.Load() < epochRecords {
		return nil, nil
	}
	message, err := l.session.StartRekey()
	if err != nil {
		return nil, fault.New(fault.Internal, err)
	}
	l.rekeying, l.rekeySent = true, now
	return &controlItem{encoded: message}, nil
}

func (l *Link) writeControl() error {
	sequence := uint64(0)
	if l.responder != nil {
		sequence = 1 // M4 was the first
	}
	for {
		if err := l.switchEpoch(wire.Control, &sequence); err != nil {
			return err
		}
		l.mu.Lock()
		var next *controlItem
		if len(l.control) > 0 {
			next = &controlItem{}
			*next, l.control = l.control[0], l.control[1:]
			if len(l.control) == 0 {
				l.control = nil
			}
		}
		l.mu.Unlock()
		rekey, err := l.rekey()
		if err != nil {
			return err
		}
		for _, item := range []*controlItem{next, rekey} {
			if item == nil {
				continue
			}
			if item.encoded == nil {
				item.encoded = item.message.Append(nil)
			}
			if err := l.writeRecord(wire.Control, wire.RecordData, l.sendingEpoch(wire.Control), sequence, item.encoded, nil); err != nil {
				return err
			}
			sequence++
			if item.sent != nil {
				item.sent()
			}
		}
		if next == nil {
			select {
			case <-l.wake[wire.Control]:
			case <-l.ctx.Done():
				return l.ctx.Err()
			}
		}
	}
}

func (l *Link) sendingEpoch(ch wire.Channel) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.switched[slot(l.direction, ch)]
}

func (l *Link) writeBulk() error {
	sequence := uint64(0)
	for {
		if err := l.switchEpoch(wire.Bulk, &sequence); err != nil {
			return err
		}
		l.mu.Lock()
		var item BulkItem
		found := len(l.bulk) > 0
		if found {
			item, l.bulk = l.bulk[0], l.bulk[1:]
			if len(l.bulk) == 0 {
				l.bulk = nil
			}
		} else {
			l.pace.idle(l.cfg.Now())
		}
		l.mu.Unlock()
		if !found {
			select {
			case <-l.wake[wire.Bulk]:
			case <-l.ctx.Done():
				return l.ctx.Err()
			}
			continue
		}
		err := l.writeRecord(wire.Bulk, wire.RecordData, l.sendingEpoch(wire.Bulk), sequence, item.Head, item.Data)
		item.release()
		if err != nil {
			return err
		}
		sequence++
		if item.Sent != nil {
			item.Sent()
		}
		if l.initiator != nil && (l.records.Load() >= epochRecords || l.cfg.Now().Sub(l.startedAt()) >= epochAge) {
			signal(l.wake[wire.Control]) // its writer starts a new epoch
		}
	}
}

// linkPacing is the pacing of a link's bulk channel.
type linkPacing struct{ *Link }

// Next implements Pacing.
func (l linkPacing) Next(ctx context.Context, n int) (int, error) {
	for {
		l.mu.Lock()
		now := l.cfg.Now()
		l.pace.resume(now)
		size := min(n, l.pace.message())
		may := l.pace.may(size)
		if may {
			l.pace.sending(now, size)
		}
		l.mu.Unlock()
		if may {
			return size, nil
		}
		select {
		case <-l.reported:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Arrived implements Pacing.
func (l linkPacing) Arrived(total uint64) {
	now := l.cfg.Now()
	if due, _ := l.reporter.due(now); total >= due {
		l.reporter.report(now, total)
		l.SendControl(wire.Received{Bytes: total})
	}
}

// Due implements Pacing.
func (l linkPacing) Due() (total uint64, within time.Duration) { return l.reporter.due(l.cfg.Now()) }

// Measured tells the link of a round-trip time of its control channel.
func (l *Link) Measured(rtt time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pace.measured(rtt)
}

// Rate is how many bytes of records per second the peer receives over the bulk channel when it has enough to do; 0: unknown.
func (l *Link) Rate() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pace.rate
}

// PathChanged tells the link that its connection may have another path: what it has learnt of the former counts no longer.
func (l *Link) PathChanged() {
	l.mu.Lock()
	l.pace.forget(l.cfg.Now())
	l.mu.Unlock()
	l.ping()
}

// ping sends the Ping of a probe, if one is due.
func (l *Link) ping() {
	l.mu.Lock()
	token, ask := l.pace.asks()
	l.mu.Unlock()
	if ask {
		l.queueControl(controlItem{message: wire.Ping{Token: probeTokens + token}, first: true}) // bulk stands still for it; what waits at the peer counts, all the same
	}
}

// probed takes the Pong of a Ping of the pacer's.
func (l *Link) probed(token uint64) {
	var sent, answered time.Time
	l.learn(func() {
		if now := l.cfg.Now(); l.pace.pong(now, token) {
			sent, answered = l.pace.pinged, now
		}
	})
	if !sent.IsZero() && l.cfg.Probed != nil {
		l.cfg.Probed(sent, answered)
	}
}

// learn tells the pacer something, and says so when a probe has something to do then.
func (l *Link) learn(tell func()) {
	l.mu.Lock()
	now := l.cfg.Now()
	before := l.pace.ready(now)
	tell()
	ready := l.pace.ready(now) && !before
	l.mu.Unlock()
	if ready && l.cfg.Ready != nil {
		l.cfg.Ready()
	}
}

// Balance has links share alike what they share of a path, such as this device's uplink. It is called from time to time, and when a link is Ready.
func Balance(links []*Link) {
	pacers := make([]*pacer, len(links))
	for i, l := range links {
		l.mu.Lock() // nobody else holds more than one
		pacers[i] = &l.pace
	}
	if len(links) > 0 {
		balance(links[0].cfg.Now(), pacers)
	}
	for _, l := range links {
		l.mu.Unlock()
	}
	for _, l := range links {
		l.ping() // before anything that waits
		signal(l.reported)
	}
}

func (l *Link) startedAt() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.started
}

func (l *Link) readControl() error {
	sequence := uint64(0)
	if l.initiator != nil {
		sequence = 1 // M4 was the first
	}
	for {
		b, err := l.readRecord(l.ctx, wire.Control, &sequence)
		if err != nil {
			return err
		}
		if err = l.ctx.Err(); err == nil {
			err = l.controlMessage(b.B)
		}
		b.Release()
		if err != nil {
			return err
		}
	}
}

func (l *Link) controlMessage(p []byte) error {
	m, err := wire.ParseControl(p)
	if err != nil {
		return fault.New(fault.ProtocolViolation, err)
	}
	switch m := m.(type) {
	case wire.Bye:
		select {
		case <-l.bye:
		default:
			close(l.bye)
		}
		l.cfg.Handler.Control(m)
	case wire.Received:
		possible := false
		l.learn(func() { possible = l.pace.reported(l.cfg.Now(), m.Bytes) })
		if !possible {
			return fault.Newf(fault.ProtocolViolation, "peer: %d bytes reported that were not sent", m.Bytes)
		}
		signal(l.reported)
	case wire.Pong:
		if m.Token < probeTokens {
			l.cfg.Handler.Control(m)
			return nil
		}
		l.probed(m.Token - probeTokens)
	case wire.Reveal:
		return fault.Newf(fault.ProtocolViolation, "peer: second Reveal")
	case wire.Rekey:
		reply, err := l.answerRekey(p)
		if err != nil {
			return fault.New(fault.ProtocolViolation, err)
		}
		if err := l.install(m.Epoch); err != nil {
			return err
		}
		l.queueControl(controlItem{encoded: reply, first: true, sent: func() { l.enter(m.Epoch) }}) // what waits goes out under the new keys
	case wire.Rekeyed:
		l.mu.Lock()
		err := l.session.FinishRekey(p)
		l.rekeySent = time.Time{}
		l.mu.Unlock()
		if err != nil {
			return fault.New(fault.ProtocolViolation, err)
		}
		if err := l.install(m.Epoch); err != nil {
			return err
		}
		l.enter(m.Epoch)
	default:
		l.cfg.Handler.Control(m)
	}
	return nil
}

// answerRekey waits, if need be, until the epoch before the present one is everywhere: the initiator may know before us.
func (l *Link) answerRekey(p []byte) (reply []byte, err error) {
	for {
		l.mu.Lock()
		reply, err = l.session.AnswerRekey(p)
		changed := l.changed
		l.mu.Unlock()
		if !errors.Is(err, seal.ErrRekeyEarly) {
			return reply, err
		}
		select {
		case <-changed:
		case <-l.ctx.Done():
			return nil, l.ctx.Err()
		}
	}
}

func (l *Link) readBulk() error {
	sequence := uint64(0)
	for {
		b, err := l.readRecord(l.ctx, wire.Bulk, &sequence)
		if err != nil {
			return err
		}
		if err = l.ctx.Err(); err == nil { // else the channel may still hold what came before the end
			l.cfg.Handler.Bulk(b)
		}
		b.Release()
		if err != nil {
			return err
		}
	}
}
