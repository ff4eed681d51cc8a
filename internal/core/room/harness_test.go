//go:build !js

package room_test

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/transfer/diskstore"
	"tallow/internal/core/wire"
	"tallow/server/hub"
	"tallow/server/limit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// vnetMaking is held while vnet counts its addresses, which it does without a lock of its own.
var vnetMaking sync.Mutex

// world is a real hub behind something that can meddle with it, and a virtual network for the peers.
type world struct {
	t      *testing.T
	url    string
	limit  int // members of a room
	router *vnet.Router
	loss   int                     // percent
	sites  map[string]site         // where the persons of these names are who are not on the router itself
	lans   int                     // networks behind NATs
	relay  string                  // address of the TURN server; "": there is none
	relays map[string]bool         // addresses and ports on it that somebody was told of
	nic    func(vnet.NIC) vnet.NIC // what the next persons' packets come through besides; nil: nothing

	mu   sync.Mutex
	ice  wire.ICEServers  // that the hub offers
	hub  *hub.Hub         // nil: away
	real *httptest.Server // its
	taps map[wire.ID]*tap
	out  map[wire.ID]bool // cannot reach the hub
	dead map[string]bool  // addresses that nothing goes to or comes from
	over bool             // nothing goes anywhere any more
	used map[string]bool  // addresses and ports that something has come from; true: as dead
	// fromHub and toHub change what passes between a member and the hub; they return the messages that go on. They are
	// called with mu held.
	fromHub, toHub func(member wire.ID, message []byte) [][]byte
}

// site is a network that somebody is on.
type site struct {
	router *vnet.Router
	loss   int // percent of what arrives
	seed   int64
	change func(*webrtc.SettingEngine)
}

// tap is a member's connection to the hub.
type tap struct {
	client *websocket.Conn
	cut    context.CancelFunc
}

func newWorld(t *testing.T, maxMembers, loss int) *world {
	t.Helper()
	vnetMaking.Lock()
	router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "10.1.0.0/16", LoggerFactory: logging.NewDefaultLoggerFactory()})
	vnetMaking.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, limit: maxMembers, router: router, loss: loss, sites: map[string]site{},
		relays: map[string]bool{}, taps: map[wire.ID]*tap{}, out: map[wire.ID]bool{}, dead: map[string]bool{}, used: map[string]bool{}}
	router.AddChunkFilter(func(c vnet.Chunk) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		from, to := c.SourceAddr().String(), c.DestinationAddr().String()
		if _, known := w.used[from]; !known {
			w.used[from] = false
		}
		if host(c.SourceAddr()) == w.relay && from != w.relay+":3478" && !w.relays[from] {
			return false
		}
		return !w.over && !w.dead[host(c.SourceAddr())] && !w.dead[host(c.DestinationAddr())] && !w.used[from] && !w.used[to]
	})
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	w.startHub()
	server := httptest.NewServer(http.HandlerFunc(w.pass))
	w.url = "ws" + strings.TrimPrefix(server.URL, "http")
	t.Cleanup(func() {
		w.stopHub()
		server.Close()
		router.Stop()
	})
	return w
}

func host(a net.Addr) string {
	h, _, _ := net.SplitHostPort(a.String())
	return h
}

// startHub starts a hub that knows nothing of the one before.
func (w *world) startHub() {
	w.t.Helper()
	h, err := hub.New(w.t.Context(), hub.Config{MaxMembers: w.limit, MaxRooms: 100, Gate: limit.New(limit.Limits{Total: 1000, PerAddress: 1000}),
		ClientAddr: func(*http.Request) netip.Addr { return netip.MustParseAddr("127.0.0.1") },
		ICEServers: func(wire.ID, wire.ID, time.Time) wire.ICEServers {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.ice
		},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.hub, w.real = h, httptest.NewServer(h)
	w.mu.Unlock()
}

// stopHub kills the hub: no goodbye, and nobody can connect.
func (w *world) stopHub() {
	w.mu.Lock()
	h, real := w.hub, w.real
	w.hub = nil
	for _, t := range w.taps {
		t.cut()
	}
	w.mu.Unlock()
	if h != nil {
		h.Close(context.Background())
		real.Close()
	}
}

// pass is what the members take for the hub.
func (w *world) pass(out http.ResponseWriter, request *http.Request) {
	w.mu.Lock()
	h, real := w.hub, w.real
	if w.dead[request.URL.RawQuery] { // a process that has crashed
		h = nil
	}
	w.mu.Unlock()
	if h == nil {
		http.Error(out, "away", http.StatusServiceUnavailable)
		return
	}
	ctx, cut := context.WithCancel(request.Context())
	defer cut()
	client, err := websocket.Accept(out, request, &websocket.AcceptOptions{Subprotocols: []string{wire.HubSubprotocol}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer client.CloseNow()
	client.SetReadLimit(wire.MaxHubMessage + 1)
	upstream, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(real.URL, "http"), &websocket.DialOptions{Subprotocols: []string{wire.HubSubprotocol}})
	if err != nil {
		return
	}
	defer upstream.CloseNow()
	upstream.SetReadLimit(wire.MaxHubMessage + 1)
	_, first, err := client.Read(ctx)
	if err != nil {
		return
	}
	enter, err := wire.ParseEnter(first)
	if err != nil || upstream.Write(ctx, websocket.MessageBinary, first) != nil {
		return
	}
	tap := &tap{client, cut}
	w.mu.Lock()
	refused := w.out[enter.Member]
	w.taps[enter.Member] = tap
	w.mu.Unlock()
	if refused {
		return
	}
	defer func() {
		w.mu.Lock()
		if w.taps[enter.Member] == tap {
			delete(w.taps, enter.Member)
		}
		w.mu.Unlock()
	}()
	var done sync.WaitGroup
	defer done.Wait()
	relay := func(from, to *websocket.Conn, change *func(wire.ID, []byte) [][]byte) {
		defer cut()
		for {
			kind, message, err := from.Read(ctx)
			if err != nil {
				to.Close(websocket.StatusNormalClosure, "")
				return
			}
			messages := [][]byte{message}
			w.mu.Lock()
			if *change != nil {
				messages = (*change)(enter.Member, message)
			}
			w.mu.Unlock()
			for _, m := range messages {
				if to.Write(ctx, kind, m) != nil {
					return
				}
			}
		}
	}
	done.Go(func() { relay(upstream, client, &w.fromHub) })
	relay(client, upstream, &w.toHub)
}

// tell has the hub say something to a member, true or not.
func (w *world) tell(member wire.ID, message []byte) {
	w.t.Helper()
	w.mu.Lock()
	tap := w.taps[member]
	w.mu.Unlock()
	if tap == nil {
		w.t.Fatalf("%s is not connected", member)
	}
	if err := tap.client.Write(w.t.Context(), websocket.MessageBinary, message); err != nil {
		w.t.Fatal(err)
	}
}

// meddle changes what passes the hub from now on.
func (w *world) meddle(fromHub, toHub func(member wire.ID, message []byte) [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fromHub, w.toHub = fromHub, toHub
}

// kill takes a person from the network and from the hub, all at once and without a word.
func (w *world) kill(p *person) {
	id := p.id()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead[p.address], w.out[id] = true, true
	if t := w.taps[id]; t != nil {
		t.cut()
	}
}

// move takes a person to another place in the network: what they have used so far is dead for good.
func (w *world) move(p *person) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for a := range w.used {
		if h, _, _ := net.SplitHostPort(a); h == p.address {
			w.used[a] = true
		}
	}
}

// person is a member with a disk, and what its room has told it.
type person struct {
	t       *testing.T
	name    string
	storage *diskstore.Storage
	dir     string
	plug    *plug // nil: it does not crash
	room    *room.Room
	network *vnet.Net
	address string

	bulk atomic.Int64 // bytes of bulk records received

	mu      sync.Mutex
	conns   []peer.Conn
	events  []room.Event
	changed chan struct{}
}

func (w *world) person(name string) (*person, room.Config) {
	w.t.Helper()
	dir := w.t.TempDir()
	storage, err := diskstore.Open(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	vnetMaking.Lock()
	network, err := vnet.NewNet(&vnet.NetConfig{})
	vnetMaking.Unlock()
	if err != nil {
		w.t.Fatal(err)
	}
	at, found := w.sites[name]
	if !found {
		at = site{router: w.router, loss: w.loss, seed: 1}
	}
	var nic vnet.NIC = network
	if at.loss > 0 {
		if nic, err = vnet.NewLossFilter(network, at.loss, vnet.WithLossSeed(at.seed)); err != nil {
			w.t.Fatal(err)
		}
	}
	if w.nic != nil {
		nic = w.nic(nic)
	}
	if err := at.router.AddNet(nic); err != nil {
		w.t.Fatal(err)
	}
	p := &person{t: w.t, name: name, storage: storage, dir: dir, network: network, changed: make(chan struct{})}
	eth, err := network.InterfaceByName("eth0")
	if err != nil {
		w.t.Fatal(err)
	}
	addresses, err := eth.Addrs()
	if err != nil || len(addresses) == 0 {
		w.t.Fatal("no address: ", err)
	}
	p.address = strings.Split(addresses[0].String(), "/")[0]
	return p, room.Config{Name: name, ServerURL: w.url, Engine: bulk.Go{}, Storage: storage, Events: p.event,
		NewConn: func(cfg peer.ConnConfig) (peer.Conn, error) {
			var settings webrtc.SettingEngine
			settings.SetNet(network)
			settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
			if at.change != nil {
				at.change(&settings)
			}
			conn, err := peer.NewConnWith(cfg, settings)
			if err != nil {
				return nil, err
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.conns = append(p.conns, conn)
			return &meteredConn{conn, p, w}, nil
		}}
}

// meteredConn counts what arrives on the bulk channel, and notes the relays that it is told of.
type meteredConn struct {
	peer.Conn
	p *person
	w *world
}

// AddCandidate has the relay pass on what comes from a candidate. A check that came before its candidate would be one from a path without a
// relay, to pion, and preferred to a direct one that has not answered within a second.
func (c *meteredConn) AddCandidate(ctx context.Context, candidate wire.Candidate) error {
	err := c.Conn.AddCandidate(ctx, candidate)
	if fields := strings.Fields(candidate.Candidate); len(fields) > 7 && fields[7] == "relay" {
		c.w.mu.Lock()
		c.w.relays[net.JoinHostPort(fields[4], fields[5])] = true
		c.w.mu.Unlock()
	}
	return err
}

func (c *meteredConn) Channel(ch wire.Channel) peer.Channel {
	if ch == wire.Bulk {
		return &meteredChannel{c.Conn.Channel(ch), c.p}
	}
	return c.Conn.Channel(ch)
}

type meteredChannel struct {
	peer.Channel
	p *person
}

func (c *meteredChannel) ReadRecord(ctx context.Context) (*bulk.Buffer, error) {
	b, err := c.Channel.ReadRecord(ctx)
	if err == nil {
		c.p.bulk.Add(int64(len(b.B)))
	}
	return b, err
}

// cutLinks kills the person's connections beneath the room.
func (p *person) cutLinks() {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

func (w *world) create(name string, change func(*room.Config)) *person {
	w.t.Helper()
	p, cfg := w.person(name)
	if change != nil {
		change(&cfg)
	}
	r, err := room.Create(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatalf("%s creates a room: %v", name, err)
	}
	p.room = r
	w.t.Cleanup(func() { r.Leave(context.Background()) })
	return p
}

func (w *world) tryJoin(name string, link seal.Link) (*person, error) {
	w.t.Helper()
	return w.tryJoinWith(name, link, nil)
}

func (w *world) tryJoinWith(name string, link seal.Link, change func(*room.Config)) (*person, error) {
	w.t.Helper()
	p, cfg := w.person(name)
	if change != nil {
		change(&cfg)
	}
	return p, p.join(link, cfg)
}

func (p *person) join(link seal.Link, cfg room.Config) (err error) {
	if p.room, err = room.Join(p.t.Context(), link, cfg); err == nil {
		p.t.Cleanup(func() { p.room.Leave(context.Background()) })
	}
	return err
}

func (w *world) join(name string, link seal.Link) *person {
	w.t.Helper()
	return w.joinWith(name, link, nil)
}

// joinWith tries again, as the page does, when the owner or the server does not answer in time: the machine may be busy.
func (w *world) joinWith(name string, link seal.Link, change func(*room.Config)) *person {
	w.t.Helper()
	p, cfg := w.person(name)
	cfg.Seed = new([32]byte)
	crand.Read(cfg.Seed[:])
	if change != nil {
		change(&cfg)
	}
	for end := time.Now().Add(patience); ; {
		err := p.join(link, cfg)
		if err == nil {
			return p
		}
		if code := fault.Of(err); code != fault.OwnerAway && code != fault.ServerUnreachable || time.Now().After(end) {
			w.t.Fatalf("%s joins: %v", name, err)
		}
	}
}

func (p *person) event(e room.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
	close(p.changed)
	p.changed = make(chan struct{})
}

// wait returns the first event, old or new, that match accepts.
func wait[E room.Event](p *person, what string, match func(E) bool) E {
	p.t.Helper()
	return waitAfter(p, 0, what, match)
}

// waitAfter is wait for events after a mark.
func waitAfter[E room.Event](p *person, mark int, what string, match func(E) bool) E {
	p.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for seen := mark; ; {
		p.mu.Lock()
		events, changed := p.events, p.changed
		p.mu.Unlock()
		for ; seen < len(events); seen++ {
			if e, ok := events[seen].(E); ok && match(e) {
				return e
			}
		}
		select {
		case <-changed:
		case <-timeout.C:
			if p.room != nil {
				for _, peer := range p.room.Peers() {
					p.t.Logf("%s sees %+v", p.name, peer)
				}
			}
			p.t.Fatalf("%s waited in vain for %s", p.name, what)
		}
	}
}

// eventually waits until look says so, of what no event tells.
func eventually(t *testing.T, what string, look func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for !look() {
		select {
		case <-tick.C:
		case <-timeout.C:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// meet waits until p has an open link to each of the others.
func (p *person) meet(others ...*person) {
	p.t.Helper()
	for _, o := range others {
		id := o.room.Self().ID
		wait(p, "a link to "+o.name, func(e room.PeerChanged) bool {
			return e.Peer.ID == id && e.Peer.State == room.PeerOpen && e.Peer.Name == o.name
		})
	}
}

func (p *person) id() wire.ID {
	id, err := parseID(p.room.Self().ID)
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

func parseID(s string) (id wire.ID, err error) {
	_, err = fmt.Sscanf(s, "%x", (*hexID)(&id))
	return id, err
}

type hexID wire.ID

func (h *hexID) Scan(state fmt.ScanState, verb rune) error {
	var b []byte
	if _, err := fmt.Fscanf(state, "%x", &b); err != nil {
		return err
	}
	copy(h[:], b)
	return nil
}

// transferID names a transfer of the sender's as an event or snapshot does.
func transferID(t *testing.T, sender, id string) room.TransferID {
	t.Helper()
	var k room.TransferID
	var err, err2 error
	k.Sender, err = parseID(sender)
	k.Transfer, err2 = parseID(id)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	return k
}

// source is a file in memory. Chacha8 makes its content.
type source []byte

func (s source) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(s).ReadAt(p, off) }
func (s source) Size() int64                             { return int64(len(s)) }

func content(n int, seed byte) source {
	b := make(source, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func outFile(path string, s transfer.Source) room.OutFile {
	return room.OutFile{Kind: wire.KindFile, Path: path, Source: s}
}

// accept waits for an offer from the sender and accepts it.
func (p *person) accept(sender *person) (room.TransferID, room.Offer) {
	p.t.Helper()
	from := sender.room.Self().ID
	e := wait(p, "an offer", func(e room.OfferReceived) bool { return e.Offer.From == from })
	id := transferID(p.t, e.Offer.From, e.Offer.ID)
	if _, err := p.room.Accept(id, nil); err != nil {
		p.t.Fatalf("%s accepts: %v", p.name, err)
	}
	return id, e.Offer
}

// finished waits for the end of a transfer.
func (p *person) finished(id room.TransferID) room.Result {
	p.t.Helper()
	return wait(p, "the end of a transfer", func(e room.TransferFinished) bool { return e.Result.ID == id.Transfer.String() }).Result
}

// check compares what is on p's disk with what was sent, by hash.
func (p *person) check(result room.Result, sent ...source) {
	p.t.Helper()
	if result.Code != "" {
		p.t.Fatalf("%s: transfer failed: %s", p.name, result.Code)
	}
	all, err := os.ReadFile(filepath.Join(p.dir, result.Delivery, room.StoredName))
	if err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	for i, s := range sent {
		part := result.Stored[uint32(i)]
		if part == nil {
			p.t.Fatalf("%s: file %d is not there", p.name, i)
		}
		_, at, n := part.Outer()
		b := all[at : at+n]
		if sha256.Sum256(b) != sha256.Sum256(s) {
			p.t.Fatalf("%s: file %d differs: %d bytes for %d", p.name, i, len(b), len(s))
		}
	}
}

// gated is a source whose bytes from some offset on cannot be read until the gate opens.
type gated struct {
	source
	from int64
	gate chan struct{}
	once sync.Once
}

func newGated(t *testing.T, s source, from int64) *gated {
	g := &gated{source: s, from: from, gate: make(chan struct{})}
	t.Cleanup(g.open)
	return g
}

func (g *gated) open() { g.once.Do(func() { close(g.gate) }) }

func (g *gated) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > g.from {
		<-g.gate
	}
	return g.source.ReadAt(p, off)
}

// clock is a clock that runs fast when told to.
type clock struct {
	mu   sync.Mutex
	base time.Time // when it was last told
	real time.Time
	rate time.Duration
}

func newClock() *clock { return &clock{base: time.Now(), real: time.Now(), rate: 1} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base.Add(time.Since(c.real) * c.rate)
}

func (c *clock) run(rate time.Duration) {
	now := c.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.real, c.rate = now, time.Now(), rate
}

func (c *clock) skip(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base = c.base.Add(d)
}

// stored waits until p, the sender, knows that a recipient has so many bytes on disk.
func (p *person) stored(recipient *person, bytes int64) {
	p.t.Helper()
	id := recipient.room.Self().ID
	wait(p, fmt.Sprintf("%d bytes at %s", bytes, recipient.name), func(e room.TransferProgress) bool {
		for _, d := range e.Transfer.Deliveries {
			if d.Peer == id && d.Bytes >= bytes {
				return true
			}
		}
		return false
	})
}

// entry is what the ledger says of a recipient.
func entry(t *testing.T, r room.Result, recipient *person) room.LedgerEntry {
	t.Helper()
	for _, e := range r.Ledger {
		if e.Peer == recipient.room.Self().ID {
			return e
		}
	}
	t.Fatalf("no entry for %s in %+v", recipient.name, r.Ledger)
	return room.LedgerEntry{}
}

// halfway sends a file that is held at its first MiB, which all of these have accepted and have on disk when it returns.
func (p *person) halfway(file source, to ...*person) (room.TransferID, *gated) {
	p.t.Helper()
	g := newGated(p.t, file, mib)
	id := p.send(outFile("a.bin", g))
	for _, recipient := range to {
		recipient.accept(p)
		p.stored(recipient, mib)
	}
	return id, g
}

// send offers files to everyone who is there, and returns the transfer's name.
func (p *person) send(files ...room.OutFile) room.TransferID {
	p.t.Helper()
	return p.sendTo(nil, files...)
}

// sendTo sends files to these members, and to all if there are none.
func (p *person) sendTo(to []wire.ID, files ...room.OutFile) room.TransferID {
	p.t.Helper()
	snapshot, err := p.room.Send(files, room.SendOptions{To: to})
	if err != nil {
		p.t.Fatalf("%s sends: %v", p.name, err)
	}
	return transferID(p.t, p.room.Self().ID, snapshot.ID)
}

// group makes a room with an owner and others who all have links to each other.
func (w *world) group(names ...string) (all []*person) {
	w.t.Helper()
	all = append(all, w.create(names[0], nil))
	for _, name := range names[1:] {
		all = append(all, w.join(name, all[0].room.Link()))
	}
	meetAll(all...)
	return all
}

func meetAll(all ...*person) {
	for i, p := range all {
		for j, o := range all {
			if i != j {
				p.meet(o)
			}
		}
	}
}

// mark is how many events p has had.
func (p *person) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.events)
}

// since returns the events after a mark.
func (p *person) since(mark int) []room.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events[mark:])
}
