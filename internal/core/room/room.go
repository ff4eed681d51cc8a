package room

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/seal"
	"tallow/internal/core/signaling"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

const (
	// tickEvery is how often time passes for the machines. In a hidden tab it is far less often, and nothing that moves
	// bytes depends on it.
	tickEvery = 100 * time.Millisecond
	// maxSignals and maxEvents are how many events of the hub wait for the loop, and how many of ours for Config.Events,
	// before whoever makes more of them has to wait.
	maxSignals = 64
	maxEvents  = 1024
	// enterTimeout is how long Create and Join wait for the server, ownerTimeout how long Join then waits for the owner;
	// ownerAbsent is the latter where the server says that the owner is not there, which it may be wrong about.
	enterTimeout = 12 * time.Second
	ownerTimeout = 12 * time.Second
	ownerAbsent  = 4 * time.Second
	// maxUnreachable is how many attempts to reach the server fail before Create or Join does.
	maxUnreachable = 3
	// redialAfter is how long a member of an open room leaves a server alone that has refused it.
	redialAfter = 20 * time.Second
)

// Room is one room, from this member's point of view. Its methods may be called from any goroutine, but not from within
// Config.Events.
type Room struct {
	cfg        Config
	link       seal.Link
	keys       *seal.RoomKeys
	identity   *seal.Identity
	seed       [32]byte
	self       wire.ID
	pool       *bulk.Pool
	compressor bulk.Compressor // the engine, or nil

	ctx       context.Context // of what blocks on others: ends when the room closes
	cancel    context.CancelFunc
	box       mailbox       // work for the loop
	out       mailbox       // events for the outside
	signals   chan struct{} // tokens: events of the hub that wait for the loop
	verifying sync.Mutex    // held while what an earlier room has left is read
	running   sync.WaitGroup
	links     sync.WaitGroup // connections, which post to the loop until they have ended
	stop      chan struct{}  // closed when the loop is to end
	looped    chan struct{}  // closed when it has
	stopped   chan struct{}  // closed when everything has ended
	once      sync.Once

	// What follows belongs to the loop.

	client    *signaling.Client
	outbox    signaling.Outbox
	inbox     signaling.Inbox
	dropped   uint64 // envelopes that did not open, or that nothing more was done about
	connected bool
	enteredAt time.Time       // when the hub last let us in
	redialAt  time.Time       // when to try a server again that has refused; zero: not at all
	published time.Time       // when progress was last reported
	nudged    time.Time       // when the client last was, for a link in doubt
	failures  int             // attempts to reach the server since the last success
	hubICE    wire.ICEServers // offered by the hub
	ice       wire.ICEServers // in use
	iceAt     time.Time       // when hubICE came, or was asked for last
	retriedAt time.Time       // when the journals that had found no room were tried again
	ticked    time.Time

	state    State
	code     fault.Code
	relays   bool            // relayOnly, as last reported
	told     map[string]bool // types of candidates that members were told of
	strays   map[string]bool // types of candidates that should not have been
	waiting  chan error      // of Create or Join, until it is answered
	since    time.Time       // of the present wait
	members  map[wire.ID]*member
	order    []wire.ID // of members, as the roster has them
	roster   wire.Roster
	owner    *ownership                 // nil: somebody else's room
	join     sentJoin                   // to somebody else's room
	ownerIn  bool                       // the hub says that the owner is there
	refusal  fault.Code                 // why the hub closed the connection last; "": it gave no reason
	checks   checks                     // of signatures of those who are not in the roster
	verified map[wire.Hash]bool         // who was verified, of those who have left
	conduct  map[wire.Hash]peer.Conduct // of those who have left and have something to answer for
	outgoing map[transfer.Key]*outgoing
	shared   transfer.Shared // of outgoing
	incoming map[transfer.Key]*incoming
	received map[string]*store // what was received and is still kept, by delivery
	disk     disk              // of the room's own storage

	unverified []*incoming // of an earlier room, to be held against what is on disk, or opened, once we are in
}

// Saved is what it takes to come back to an own room after a reload: as secret as the link.
type Saved struct {
	Secret  [32]byte
	Members []wire.Hash // the roster, the owner first
	Removed []wire.ID   // who may not come back, in the order of removal
	Locked  bool
}

// Create makes a room and returns when the server has let us in. Its errors carry the codes InvalidArgument,
// ServerUnreachable, ServerRefused, ServerFull, RateLimited and UnsupportedVersion.
func Create(ctx context.Context, cfg Config) (*Room, error) {
	r, err := newRoom(ctx, cfg)
	if err != nil {
		return nil, err
	}
	r.link = seal.NewLink(r.self)
	if cfg.Saved != nil {
		r.link.Secret = cfg.Saved.Secret
	}
	r.owner = newOwnership(r.identity, r.cfg)
	return r, r.enter(ctx)
}

// Join enters a room and returns when its owner has admitted us. Its errors carry, besides those of Create, OwnerAway,
// RoomFull, RoomLocked, JoinDenied and Removed.
func Join(ctx context.Context, link seal.Link, cfg Config) (*Room, error) {
	r, err := newRoom(ctx, cfg)
	if err != nil {
		return nil, err
	}
	r.link = link
	if r.self == link.Owner {
		r.owner = newOwnership(r.identity, r.cfg)
	}
	return r, r.enter(ctx)
}

func newRoom(ctx context.Context, cfg Config) (*Room, error) {
	if cfg.MaxRecipients == 0 {
		cfg.MaxRecipients = DefaultMaxRecipients
	}
	if cfg.Admission == "" {
		cfg.Admission = AdmitAll
	}
	if cfg.Quality == (peer.QualityThresholds{}) {
		cfg.Quality = peer.DefaultQualityThresholds
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if len(cfg.Name) > wire.MaxName || strings.ToValidUTF8(cfg.Name, "") != cfg.Name || cfg.MaxRecipients < 1 || cfg.MaxRecipients >= wire.MaxRoster ||
		cfg.Admission != AdmitAll && cfg.Admission != AdmitApproval || !cfg.Quality.Valid() ||
		cfg.ReconnectAttempts < 0 || cfg.ReconnectAttempts > MaxReconnectAttempts {
		return nil, fault.Newf(fault.InvalidArgument, "room: name, number of recipients, admission, quality or attempts out of range")
	}
	if err := checkServers(cfg.ICE); err != nil {
		return nil, err
	}
	r := &Room{cfg: cfg, pool: &bulk.Pool{}, stop: make(chan struct{}), looped: make(chan struct{}), stopped: make(chan struct{}),
		state: StateConnecting, waiting: make(chan error, 1),
		members: map[wire.ID]*member{}, checks: newStrangers(), verified: map[wire.Hash]bool{}, conduct: map[wire.Hash]peer.Conduct{},
		outgoing: map[transfer.Key]*outgoing{}, incoming: map[transfer.Key]*incoming{}, received: map[string]*store{},
		told: map[string]bool{}, strays: map[string]bool{}, signals: make(chan struct{}, maxSignals)}
	r.compressor, _ = cfg.Engine.(bulk.Compressor)
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx)) // ctx is for entering only
	r.box.init()
	r.out.init()
	if cfg.Seed != nil {
		r.seed = *cfg.Seed
	} else {
		rand.Read(r.seed[:])
	}
	var err error
	if r.identity, err = seal.NewIdentity(r.seed); err != nil {
		r.cancel()
		return nil, fault.New(fault.Internal, err)
	}
	r.self = r.identity.ID()
	return r, nil
}

// enter starts the room and waits until it is open.
func (r *Room) enter(ctx context.Context) error {
	r.keys = r.link.Keys()
	r.since = r.cfg.Now()
	if r.owner != nil {
		r.roster = wire.Roster{Room: r.keys.ID, Members: r.owner.admitted, Locked: r.owner.locked}
	}
	r.restore()
	waiting := r.waiting // the loop's, once that runs
	r.running.Go(r.loop)
	go r.emit()
	r.box.post(func() {
		r.dial()
	})
	var err error
	select {
	case err = <-waiting:
	case <-ctx.Done():
		err = fault.New(fault.Cancelled, ctx.Err())
	}
	if err != nil {
		r.shut(context.WithoutCancel(ctx), StateClosed, fault.Of(err))
		return err
	}
	return nil
}

// dial connects with the hub.
func (r *Room) dial() {
	r.client = signaling.Dial(signaling.Config{URL: r.cfg.ServerURL,
		Enter:  wire.Enter{Room: r.keys.ID, Member: r.self, Token: r.keys.Token, Claim: r.identity.Claim()},
		Events: r.signaled})
}

// Nudge says that the network may have changed or come back: the connection to the server is tried at once, each link asked for a
// sign of life, and where there is none, another attempt begins.
func (r *Room) Nudge() {
	r.box.post(func() {
		if r.state == StateClosed || r.client == nil {
			return
		}
		r.client.Nudge()
		for _, id := range r.order {
			r.members[id].renew(r)
		}
	})
}

// Link is the room's link.
func (r *Room) Link() seal.Link { return r.link }

// Seed is the secret that the identity comes from.
func (r *Room) Seed() [32]byte { return r.seed }

// Self is this member as the others see it.
func (r *Room) Self() Peer {
	return Peer{ID: r.self.String(), Name: r.cfg.Name, Owner: r.owner != nil, State: PeerOpen, Quality: QualityExcellent,
		SafetyWords: []string{}, Verified: true}
}

// IsOwner reports whether this member made the room.
func (r *Room) IsOwner() bool { return r.owner != nil }

// Saved is what Config.Saved takes, for an own room. The error is RoomClosed.
func (r *Room) Saved() (s Saved, err error) {
	err = r.attempt(func() error {
		s = Saved{Secret: r.link.Secret, Members: slices.Clone(r.roster.Members)}
		if r.owner != nil {
			s.Removed, s.Locked = slices.Clone(r.owner.removed), r.owner.locked
		}
		return nil
	})
	return s, err
}

// State is the room's state.
func (r *Room) State() (s State) {
	s = StateClosed
	r.do(func() { s = r.state })
	return s
}

// Peers are the other members, in the order of the roster.
func (r *Room) Peers() (list []Peer) {
	r.do(func() {
		for _, id := range r.order {
			list = append(list, r.members[id].snapshot(r))
		}
	})
	return list
}

// Leave says goodbye to everyone and closes the room. Transfers end. When it returns, nothing of the room runs any more and
// no event comes, unless ctx ended before; the room then goes on closing, which takes a few seconds. It is idempotent.
func (r *Room) Leave(ctx context.Context) error {
	r.shut(ctx, StateClosed, "")
	return nil
}

// Done is closed when the room has closed, everything it owns has ended, and the last event has been taken.
func (r *Room) Done() <-chan struct{} { return r.stopped }

// do runs fn in the loop and waits for it. It reports false, without running fn, once the room has closed.
func (r *Room) do(fn func()) bool {
	done := make(chan struct{})
	r.box.post(func() { fn(); close(done) })
	select {
	case <-done:
		return true
	case <-r.looped:
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

// attempt is do for methods with an error.
func (r *Room) attempt(fn func() error) (err error) {
	if !r.do(func() {
		if r.state == StateClosed {
			err = fault.New(fault.RoomClosed, nil)
		} else {
			err = fn()
		}
	}) {
		return fault.New(fault.RoomClosed, nil)
	}
	return err
}

// loop owns the room's state. Messages let time pass too: in a hidden tab the ticker does so once a minute.
func (r *Room) loop() {
	defer close(r.looped)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-r.box.ready:
		case <-ticker.C: // what has arrived comes first: it may be the sign of life that a tick misses
		case <-r.stop:
			r.box.run()
			r.publishChanges()
			return
		}
		r.box.run()
		if now := r.cfg.Now(); now.Sub(r.ticked) >= tickEvery || now.Before(r.ticked) {
			r.ticked = now
			r.tick()
		}
		if r.owner != nil && r.state != StateClosed {
			r.owner.flush(r)
		}
		r.grant()
		r.publishChanges()
	}
}

// emit hands events to the outside, in order, until everything else has ended.
func (r *Room) emit() {
	defer close(r.stopped)
	ended := make(chan struct{})
	go func() {
		<-r.looped
		r.running.Wait()
		for _, o := range r.outgoing {
			o.closeSources()
		}
		close(ended)
	}()
	for {
		select {
		case <-r.out.ready:
			r.out.run()
		case <-ended:
			r.out.run()
			return
		}
	}
}

func (r *Room) event(e Event) { r.out.post(func() { r.cfg.Events(e) }) }

func (r *Room) setState(s State, code fault.Code) {
	if relays := r.relayOnly(); r.state != s || r.code != code || r.relays != relays {
		r.state, r.code, r.relays = s, code, relays
		r.event(RoomChanged{s, code, relays})
	}
}

// answer ends Create's or Join's wait.
func (r *Room) answer(err error) {
	if r.waiting == nil {
		return
	}
	r.waiting <- err
	r.waiting = nil
	if err == nil {
		for _, in := range r.unverified {
			r.verify(in)
		}
		r.unverified = nil
	}
}

// close ends the room from within the loop.
func (r *Room) close(code fault.Code) {
	if r.waiting != nil {
		r.answer(fault.New(code, nil))
		return // Create or Join shuts it
	}
	go r.shut(r.ctx, StateClosed, code)
}

// shut ends everything the room owns and waits for it.
func (r *Room) shut(ctx context.Context, state State, code fault.Code) {
	r.once.Do(func() {
		go func() {
			r.do(func() {
				r.waiting = nil
				r.closeTransfers(code)
				for _, id := range r.order {
					r.members[id].shut(r)
				}
				r.publishChanges()
				r.setState(state, code) // no connection is opened any more
				r.cancel()
			})
			r.links.Wait()
			r.client.Close()
			close(r.stop)
		}()
	})
	select {
	case <-r.stopped:
	case <-ctx.Done():
	}
}

func (r *Room) tick() {
	if r.state == StateClosed {
		return
	}
	now := r.cfg.Now()
	if r.waiting != nil {
		r.checkWait(now)
	}
	if !r.redialAt.IsZero() && now.After(r.redialAt) {
		r.redialAt = time.Time{}
		old := r.client
		r.running.Go(old.Close)
		r.dial()
	}
	if r.connected {
		for _, o := range r.outbox.Due(now) {
			r.client.Send(o.To, o.Envelope)
		}
		// Half of the time that credentials are good for leaves enough for a server that is away for a while.
		if ttl := time.Duration(r.ice.TTL) * time.Second; ttl > 0 && now.Sub(r.iceAt) > ttl/2 {
			r.iceAt = now
			r.client.Refresh()
		}
	}
	for _, id := range r.order {
		r.members[id].tick(r, now)
	}
	r.balance()
	if r.owner != nil {
		r.owner.tick(r, now)
	} else if r.connected {
		r.rejoin(now)
	}
	if now.Sub(r.retriedAt) >= retryJournal {
		r.retryJournals(now)
	}
	for _, o := range r.outgoing {
		r.stepOutgoing(o, transfer.Tick{})
	}
	r.shareCredit(nil) // some may have waited for it
	for _, in := range r.incoming {
		r.stepIncoming(in, transfer.Tick{})
	}
	r.expire(now)
}

// openLinks are the links to members.
func (r *Room) openLinks() (links []*peer.Link) {
	for _, id := range r.order {
		if m := r.members[id]; m.open() {
			links = append(links, m.link)
		}
	}
	return links
}

// balance has links share alike what they share of a path. A probe that comes further does not wait for the next tick, which is a second away in a
// hidden tab; one that nobody answers ends with it.
func (r *Room) balance() { peer.Balance(r.openLinks()) }

// checkWait ends a Create or Join that nobody answers.
func (r *Room) checkWait(now time.Time) {
	waited := now.Sub(r.since)
	switch {
	case r.state == StatePending:
	case !r.connected && (waited > enterTimeout || r.failures >= maxUnreachable):
		code := fault.ServerUnreachable
		if r.refusal != "" {
			code = r.refusal
		}
		r.answer(fault.New(code, nil))
	case r.connected && r.owner == nil && (waited > ownerTimeout || waited > ownerAbsent && !r.ownerIn):
		r.answer(fault.New(fault.OwnerAway, nil))
	}
}

// signaled passes an event of the signaling client to the loop. A hub that sends faster than we take has to wait.
func (r *Room) signaled(e signaling.Event) {
	r.out.await(maxEvents, r.ctx.Done()) // in a manual room each envelope may be an event
	select {
	case r.signals <- struct{}{}:
		r.box.post(func() {
			<-r.signals
			r.signal(e)
		})
	case <-r.looped:
	}
}

// signal takes an event of the signaling client.
func (r *Room) signal(e signaling.Event) {
	if r.state == StateClosed {
		return
	}
	now := r.cfg.Now()
	switch e := e.(type) {
	case signaling.Entered:
		r.failures, r.refusal, r.enteredAt = 0, "", now
		r.setConnected(true)
		r.setICE(e.ICE)
		r.ownerIn = slices.Contains(e.Present, r.link.Owner)
		r.outbox.Reset(now)
		r.entered()
	case signaling.Delivered:
		r.deliver(e.From, e.Envelope)
	case signaling.Present:
		r.ownerIn = r.ownerIn || e.Member == r.link.Owner
		r.appeared(e.Member)
	case signaling.Absent:
		r.ownerIn = r.ownerIn && e.Member != r.link.Owner
	case signaling.ICEServers:
		r.setICE(e.ICE)
	case signaling.Disconnected:
		if r.connected { // perhaps not only the server has gone
			for _, id := range r.order {
				r.members[id].probe(r)
			}
		}
		r.setConnected(false)
		r.failures++
		code, told := closingCodes[e.Code]
		if !told && e.Code != 0 {
			code = fault.ServerRefused
		}
		if code != "" {
			r.refusal = code
		}
		switch {
		case e.Final && e.Code != wire.ClosingReplaced && (r.state == StateOpen || r.state == StateDisconnected):
			// Whatever a server says, it does not end the room of those who are in it: links go on without it.
			r.setState(StateDisconnected, fault.ServerUnreachable)
			r.redialAt = r.cfg.Now().Add(redialAfter)
		case e.Final:
			r.close(code)
		case r.state == StateOpen:
			r.setState(StateDisconnected, fault.ServerUnreachable)
		}
	}
}

// setConnected notes whether the hub takes what is sent.
func (r *Room) setConnected(connected bool) {
	r.connected = connected
	for _, m := range r.members {
		m.negotiation.SetAway(r.away())
	}
}

// away reports whether what negotiations send gets nowhere for now. What the caller carries may have its own ways.
func (r *Room) away() bool { return !r.connected && !r.cfg.Manual }

var closingCodes = map[wire.ClosingCode]fault.Code{
	wire.ClosingBadRequest:         fault.ServerRefused,
	wire.ClosingUnsupportedVersion: fault.UnsupportedVersion,
	wire.ClosingForbidden:          fault.ServerRefused,
	wire.ClosingRoomFull:           fault.RoomFull,
	wire.ClosingRateLimited:        fault.RateLimited,
	wire.ClosingShuttingDown:       fault.ServerUnreachable,
	wire.ClosingReplaced:           fault.Replaced,
	wire.ClosingIdle:               fault.ServerUnreachable,
	wire.ClosingServerFull:         fault.ServerFull,
}

// SetICEServers replaces Config.ICE: new connections use them at once, and those that there are from their next restart on. Its errors are
// InvalidArgument, NoRelay and RoomClosed, and then nothing has changed.
func (r *Room) SetICEServers(own []wire.ICEServer) error {
	return r.attempt(func() error {
		if err := checkServers(own); err != nil {
			return err
		}
		if r.relayOnly() && !hasRelay(instead(r.hubICE, own)) {
			return fault.New(fault.NoRelay, nil)
		}
		r.cfg.ICE = own
		r.useICE()
		return nil
	})
}

func checkServers(own []wire.ICEServer) error {
	for _, s := range own {
		if err := s.Check(); err != nil {
			return fault.Newf(fault.InvalidArgument, "room: %w", err)
		}
	}
	return nil
}

// instead are the servers to use where the caller has its own. Those do not expire for us: the caller renews them.
func instead(offered wire.ICEServers, own []wire.ICEServer) wire.ICEServers {
	if len(own) > 0 {
		offered.Servers, offered.TTL = own, 0
	}
	return offered
}

func (r *Room) setICE(offered wire.ICEServers) {
	r.hubICE, r.iceAt = offered, r.cfg.Now()
	r.useICE()
}

func (r *Room) useICE() {
	r.ice = instead(r.hubICE, r.cfg.ICE)
	for _, id := range r.order {
		r.members[id].setICE(r, r.ice)
	}
	if r.relays != r.relayOnly() && r.waiting == nil {
		r.setState(r.state, r.code) // the server's demand has changed
	}
}

// entered runs when the hub has let us in, for the first time or again.
func (r *Room) entered() {
	switch {
	case r.owner != nil:
		if r.roster.Epoch == 0 {
			r.owner.publish(r)
		}
		r.setState(StateOpen, "")
		r.answer(nil)
	default:
		if r.state == StateDisconnected {
			r.setState(StateOpen, "")
		}
		r.since = r.cfg.Now()
		r.sendJoin()
	}
	for _, id := range r.order {
		r.members[id].start(r)
	}
}

// appeared runs when the hub says that a member has come. It may be back after it lost its connection.
func (r *Room) appeared(id wire.ID) {
	if id == r.link.Owner && r.owner == nil {
		r.sendJoin()
	}
	if m := r.members[id]; m != nil {
		m.start(r)
	}
}

// mailbox is a queue of work. What fills it is bounded elsewhere: each link waits for what it has posted to be done, the hub
// for its tokens, and everything else is this program's own.
type mailbox struct {
	mu      sync.Mutex
	queue   []func()
	ready   chan struct{}
	drained chan struct{} // one token: it has been run
}

func (m *mailbox) init() { m.ready, m.drained = make(chan struct{}, 1), make(chan struct{}, 1) }

// await waits until fewer than limit wait, or stop.
func (m *mailbox) await(limit int, stop <-chan struct{}) {
	for {
		m.mu.Lock()
		full := len(m.queue) >= limit
		m.mu.Unlock()
		if !full {
			token(m.drained) // others may wait too
			return
		}
		select {
		case <-m.drained:
		case <-stop:
			return
		}
	}
}

func token(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (m *mailbox) post(fn func()) {
	m.mu.Lock()
	m.queue = append(m.queue, fn)
	m.mu.Unlock()
	token(m.ready)
}

// run runs what is queued, and what that queues.
func (m *mailbox) run() {
	for {
		m.mu.Lock()
		queue := m.queue
		m.queue = nil
		m.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		for _, fn := range queue {
			fn()
		}
		token(m.drained)
	}
}
