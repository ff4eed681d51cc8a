//go:build !js

package room_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"tallow/internal/core/bulk"
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
const patience = 60 * time.Second

// world is a real hub and a virtual network for the peers.
type world struct {
	t      *testing.T
	url    string
	hub    *hub.Hub
	router *vnet.Router
	loss   int // percent
}

func newWorld(t *testing.T, maxMembers, loss int) *world {
	t.Helper()
	h, err := hub.New(t.Context(), hub.Config{MaxMembers: maxMembers, MaxRooms: 10, Gate: limit.New(limit.Limits{Total: 1000, PerAddress: 1000}),
		ClientAddr: func(*http.Request) netip.Addr { return netip.MustParseAddr("127.0.0.1") },
		ICEServers: func(wire.ID, wire.ID, time.Time) wire.ICEServers { return wire.ICEServers{} },
		Log:        slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(h)
	router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "10.1.0.0/16", LoggerFactory: logging.NewDefaultLoggerFactory()})
	if err != nil {
		t.Fatal(err)
	}
	if err := router.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close(context.Background())
		server.Close()
		router.Stop()
	})
	return &world{t: t, url: "ws" + strings.TrimPrefix(server.URL, "http"), hub: h, router: router, loss: loss}
}

// person is a member with a disk, and what its room has told it.
type person struct {
	t       *testing.T
	name    string
	storage *diskstore.Storage
	dir     string
	room    *room.Room
	network *vnet.Net

	mu      sync.Mutex
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
	network, err := vnet.NewNet(&vnet.NetConfig{})
	if err != nil {
		w.t.Fatal(err)
	}
	var nic vnet.NIC = network
	if w.loss > 0 {
		if nic, err = vnet.NewLossFilter(network, w.loss, vnet.WithLossSeed(1)); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.router.AddNet(nic); err != nil {
		w.t.Fatal(err)
	}
	p := &person{t: w.t, name: name, storage: storage, dir: dir, network: network, changed: make(chan struct{})}
	return p, room.Config{Name: name, ServerURL: w.url, Engine: bulk.Go{}, Storage: storage, Events: p.event,
		NewConn: func(cfg peer.ConnConfig) (peer.Conn, error) {
			var settings webrtc.SettingEngine
			settings.SetNet(network)
			settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
			return peer.NewConnWith(cfg, settings)
		}}
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
	p, cfg := w.person(name)
	r, err := room.Join(w.t.Context(), link, cfg)
	if err != nil {
		return p, err
	}
	p.room = r
	w.t.Cleanup(func() { r.Leave(context.Background()) })
	return p, nil
}

func (w *world) join(name string, link seal.Link) *person {
	w.t.Helper()
	p, err := w.tryJoin(name, link)
	if err != nil {
		w.t.Fatalf("%s joins: %v", name, err)
	}
	return p
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
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for seen := 0; ; {
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
			for _, peer := range p.room.Peers() {
				p.t.Logf("%s sees %+v", p.name, peer)
			}
			p.t.Fatalf("%s waited in vain for %s", p.name, what)
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
	for i, s := range sent {
		b, err := os.ReadFile(filepath.Join(p.dir, result.Delivery, strconv.Itoa(i)))
		if err != nil {
			p.t.Fatalf("%s: %v", p.name, err)
		}
		if sha256.Sum256(b) != sha256.Sum256(s) {
			p.t.Fatalf("%s: file %d differs: %d bytes for %d", p.name, i, len(b), len(s))
		}
	}
}
