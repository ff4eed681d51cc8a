//go:build !js

// Command kill is a member of a room in a process of its own, for the kill matrix (kill_test.go): it sends what it is told to, or takes whatever it is
// offered, says in lines of JSON how that goes, and dies where it is told to.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"

	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/transfer/diskstore"
	"tallow/internal/core/wire"
)

// Config is what a member is, in all of its lives, but for Death.
type Config struct {
	Name   string
	Server string // URL of the signaling endpoint
	Link   string
	Seed   [32]byte // of the identity
	Dir    string   // its disk
	Files  []File   // to send; none: it receives
	To     []wire.ID
	Wants  []uint32 // of the files that it is offered; nil: all
	Rate   int64    // bytes per second and recipient; 0: no limit
	Death  *Death   // nil: it lives until it is killed
}

// File is a file to send, whose content follows from its seed.
type File struct {
	Path string
	Size int64
	Seed uint64
}

// Death is where a member dies.
type Death struct {
	At  string // "put": the nth write beside the files; "write", "read": after n bytes; "commit"; "event": the nth; "time": n ms, from outside
	N   int64
	How string // "before", "in" the middle of, or "after" what it does there
}

// Event is what a member says.
type Event struct {
	Event    string // "sent", "resumed" or "finished"
	ID       string // of the transfer
	Done     bool   // finished: all has arrived
	Codes    []fault.Code
	Repeated int64 // bytes that were on disk already and came once more
}

// Received is the name of the file in a member's directory that counts the bytes of bulk records that its lives have received.
const Received = "received"

func main() {
	log.SetFlags(0)
	var cfg Config
	if err := json.NewDecoder(os.Stdin).Decode(&cfg); err != nil {
		log.Fatal(err)
	}
	log.SetPrefix(cfg.Name + ": ")
	if err := run(cfg); err != nil {
		log.Fatal(err)
	}
}

func say(e Event) {
	line, err := json.Marshal(e)
	if err == nil {
		_, err = os.Stdout.Write(append(line, '\n'))
	}
	if err != nil {
		log.Fatal(err)
	}
}

// die ends the process as a crash does.
func die() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		log.Fatal(err)
	}
	select {}
}

func run(cfg Config) error {
	link, err := seal.ParseLink(cfg.Link)
	if err != nil {
		return err
	}
	storage, err := diskstore.Open(filepath.Join(cfg.Dir, "disk"))
	if err != nil {
		return err
	}
	received, err := openCounter(filepath.Join(cfg.Dir, Received))
	if err != nil {
		return err
	}
	fate := &fate{death: cfg.Death}
	for {
		m := &member{cfg: cfg, fate: fate}
		m.changed.L = &m.mu
		m.room, err = room.Join(context.Background(), link, room.Config{Name: cfg.Name, ServerURL: cfg.Server, Seed: &cfg.Seed, Engine: bulk.Go{},
			Storage: &disk{storage, fate}, Resume: true, Events: m.event, NewConn: func(c peer.ConnConfig) (peer.Conn, error) {
				var settings webrtc.SettingEngine
				settings.SetIncludeLoopbackCandidate(true)
				settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
				settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
				settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
				conn, err := peer.NewConnWith(c, settings)
				return &countedConn{conn, received}, err
			}})
		switch fault.Of(err) {
		case "":
			return m.live()
		case fault.ServerUnreachable, fault.OwnerAway: // as a person would, it tries again
		default:
			return err
		}
	}
}

// member is one in its room.
type member struct {
	cfg  Config
	fate *fate
	room *room.Room

	mu      sync.Mutex
	changed sync.Cond
	events  []room.Event
}

func (m *member) event(e room.Event) {
	m.fate.pass("event", 1, nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
	m.changed.Signal()
}

func (m *member) next() room.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.events) == 0 {
		m.changed.Wait()
	}
	e := m.events[0]
	m.events = m.events[1:]
	return e
}

// live takes events until the process dies.
func (m *member) live() error {
	underway := false // or never to be
	open := map[string]bool{}
	for {
		switch e := m.next().(type) {
		case room.OfferReceived:
			id, err := key(e.Offer.From, e.Offer.ID)
			if err == nil {
				_, err = m.room.Accept(id, m.cfg.Wants)
			}
			if err != nil && fault.Of(err) != fault.UnknownTransfer { // it may be withdrawn
				return err
			}
		case room.TransferResumed:
			say(Event{Event: "resumed", ID: e.Transfer.ID})
			if e.Transfer.Incoming {
				continue
			}
			underway = true
			id, err := key(e.Sender, e.Transfer.ID)
			if err == nil && e.Transfer.Waiting {
				var lacking []uint32
				if lacking, err = m.room.Continue(id, m.files(), false); len(lacking) > 0 {
					err = fmt.Errorf("files %d are lacking", lacking)
				}
			}
			if err == nil {
				err = m.room.SetLimit(id, m.cfg.Rate)
			}
			if err != nil {
				return err
			}
		case room.PeerChanged:
			open[e.Peer.ID] = e.Peer.State == room.PeerOpen
			if underway || len(m.cfg.Files) == 0 || slices.ContainsFunc(m.cfg.To, func(id wire.ID) bool { return !open[id.String()] }) {
				continue
			}
			t, err := m.room.Send(m.files(), room.SendOptions{To: m.cfg.To, LimitPerRecipient: m.cfg.Rate})
			if fault.Of(err) == fault.UnknownPeer {
				continue // it has gone meanwhile
			}
			if err != nil {
				return err
			}
			underway = true
			say(Event{Event: "sent", ID: t.ID})
		case room.TransferFinished:
			said := Event{Event: "finished", ID: e.Transfer.ID, Done: e.Result.Code == ""}
			for _, d := range e.Transfer.Deliveries {
				said.Done = said.Done && d.State == room.DeliveryDone
				said.Codes = append(said.Codes, d.Code)
				said.Repeated += d.Repeated
			}
			say(said)
		case room.RoomChanged:
			if e.State == room.StateClosed {
				return fault.New(e.Code, errors.New("the room has closed"))
			}
		}
	}
}

func key(sender, id string) (k room.TransferID, err error) {
	if k.Sender, err = parseID(sender); err == nil {
		k.Transfer, err = parseID(id)
	}
	return k, err
}

func parseID(s string) (id wire.ID, err error) {
	b, err := hex.DecodeString(s)
	copy(id[:], b)
	return id, err
}

func (m *member) files() (list []room.OutFile) {
	for _, f := range m.cfg.Files {
		list = append(list, room.OutFile{Kind: wire.KindFile, Path: f.Path, Source: &source{f, m.fate}})
	}
	return list
}

// Content is a stream that follows from a seed.
func Content(seed uint64) func(p []byte, off int64) {
	block, err := aes.NewCipher(binary.BigEndian.AppendUint64(make([]byte, 8, 16), seed))
	if err != nil {
		panic(err)
	}
	return func(p []byte, off int64) {
		iv := binary.BigEndian.AppendUint64(make([]byte, 8, 16), uint64(off/aes.BlockSize))
		stream := cipher.NewCTR(block, iv)
		var skipped [aes.BlockSize]byte
		stream.XORKeyStream(skipped[:off%aes.BlockSize], skipped[:off%aes.BlockSize])
		clear(p)
		stream.XORKeyStream(p, p)
	}
}

type source struct {
	File
	fate *fate
}

// ReadAt implements io.ReaderAt.
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	s.fate.pass("read", int64(len(p)), nil)
	n := max(min(s.File.Size-off, int64(len(p))), 0)
	Content(s.Seed)(p[:n], off)
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Size implements transfer.Source.
func (s *source) Size() int64 { return s.File.Size }

// fate has a member die where it is to.
type fate struct {
	death *Death
	mu    sync.Mutex
	n     int64
}

// pass comes before each thing of a kind, which counts n. If the member dies in the middle of it, part does some share of it, from 0 to 1; the
// result, unless nil, is called after it.
func (f *fate) pass(kind string, n int64, part func(share float64)) (after func()) {
	if f.death == nil || f.death.At != kind {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	left := f.death.N - f.n
	if f.n += n; f.n < f.death.N {
		return nil
	}
	switch {
	case f.death.How == "after":
		return die
	case f.death.How == "in" && part != nil && n == 1:
		part(0.5)
	case f.death.How == "in" && part != nil:
		part(float64(left) / float64(n))
	}
	die()
	return nil
}

// disk is a member's disk, between whose operations, and in the middle of which, it may die.
type disk struct {
	transfer.Durable
	fate *fate
}

// Put implements transfer.Durable.
func (d *disk) Put(ctx context.Context, delivery, name string, p []byte, at int64) error {
	after := d.fate.pass("put", 1, func(share float64) {
		d.Durable.Put(ctx, delivery, name, p[:int(share*float64(len(p)))], at)
	})
	err := d.Durable.Put(ctx, delivery, name, p, at)
	if after != nil {
		after()
	}
	return err
}

// Create implements transfer.Storage.
func (d *disk) Create(ctx context.Context, delivery, name string, size int64) (transfer.StoredFile, error) {
	f, err := d.Durable.Create(ctx, delivery, name, size)
	return &file{f, d.fate}, err
}

// Open implements transfer.Durable.
func (d *disk) Open(ctx context.Context, delivery, name string) (transfer.StoredFile, error) {
	f, err := d.Durable.Open(ctx, delivery, name)
	return &file{f, d.fate}, err
}

type file struct {
	transfer.StoredFile
	fate *fate
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	after := f.fate.pass("write", int64(len(p)), func(share float64) {
		f.StoredFile.WriteAt(p[:int(share*float64(len(p)))], off)
	})
	n, err := f.StoredFile.WriteAt(p, off)
	if after != nil {
		after()
	}
	return n, err
}

// Commit implements transfer.StoredFile.
func (f *file) Commit(ctx context.Context) error {
	after := f.fate.pass("commit", 1, nil)
	err := f.StoredFile.Commit(ctx)
	if after != nil {
		after()
	}
	return err
}

// counter is a number that outlives the process.
type counter struct {
	file *os.File
	mu   sync.Mutex
	n    atomic.Uint64
}

func openCounter(name string) (*counter, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	c := &counter{file: f}
	p, err := io.ReadAll(f)
	if len(p) == 8 {
		c.n.Store(binary.BigEndian.Uint64(p))
	}
	return c, err
}

func (c *counter) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := binary.BigEndian.AppendUint64(nil, c.n.Add(uint64(n)))
	if _, err := c.file.WriteAt(p, 0); err != nil {
		log.Fatal(err)
	}
}

// countedConn counts what arrives on the bulk channel.
type countedConn struct {
	peer.Conn
	received *counter
}

// Channel implements peer.Conn.
func (c *countedConn) Channel(ch wire.Channel) peer.Channel {
	if ch == wire.Bulk {
		return &countedChannel{c.Conn.Channel(ch), c.received}
	}
	return c.Conn.Channel(ch)
}

type countedChannel struct {
	peer.Channel
	received *counter
}

// ReadRecord implements peer.Channel.
func (c *countedChannel) ReadRecord(ctx context.Context) (*bulk.Buffer, error) {
	b, err := c.Channel.ReadRecord(ctx)
	if err == nil {
		c.received.add(len(b.B))
	}
	return b, err
}
