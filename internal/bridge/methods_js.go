package bridge

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"tallow/internal/bridge/bytes"
	"tallow/internal/core/fault"
	"tallow/internal/core/host"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// methods are what web/boot.js can call. JavaScript has checked the arguments, so those that do not decode are a bug.
var methods = map[string]func(*instance, []byte) (any, error){
	"open":           decoded((*instance).open),
	"close":          decoded((*instance).close),
	"nudge":          decoded((*instance).nudge),
	"parseLink":      decoded((*instance).parseLink),
	"createRoom":     decoded((*instance).createRoom),
	"joinRoom":       decoded((*instance).joinRoom),
	"leave":          decoded((*instance).leave),
	"saved":          decoded((*instance).saved),
	"exposure":       decoded((*instance).exposure),
	"lock":           decoded((*instance).lock),
	"approve":        decoded((*instance).approve),
	"remove":         decoded((*instance).remove),
	"markVerified":   decoded((*instance).markVerified),
	"connect":        decoded((*instance).connect),
	"disconnect":     decoded((*instance).disconnect),
	"signal":         decoded((*instance).signal),
	"relay":          decoded((*instance).relay),
	"stats":          decoded((*instance).stats),
	"send":           decoded((*instance).sendFiles),
	"accept":         decoded((*instance).accept),
	"decline":        decoded((*instance).decline),
	"cancel":         decoded((*instance).cancel),
	"cancelDelivery": decoded((*instance).cancelDelivery),
	"stopOffering":   decoded((*instance).stopOffering),
	"retry":          decoded((*instance).retry),
	"ledger":         decoded((*instance).ledger),
	"setPaused":      decoded((*instance).setPaused),
	"setLimit":       decoded((*instance).setLimit),
	"setTotalLimit":  decoded((*instance).setTotalLimit),
	"setRoomLimit":   decoded((*instance).setRoomLimit),
	"setIceServers":  decoded((*instance).setIceServers),
	"continue":       decoded((*instance).continueTransfer),
	"describe":       decoded((*instance).describe),
	"file":           decoded((*instance).file),
	"handedOver":     decoded((*instance).handedOver),
	"discard":        decoded((*instance).discard),
}

func decoded[A any](method func(*instance, A) (any, error)) func(*instance, []byte) (any, error) {
	return func(i *instance, text []byte) (any, error) {
		var args A
		if err := parseJSON(text, &args); err != nil {
			return nil, fault.New(fault.Internal, err)
		}
		return method(i, args)
	}
}

type none struct{}

// sweepEvery is how often leftovers of pages that have ended are looked for.
const sweepEvery = 10 * time.Minute

func (i *instance) open(none) (any, error) {
	engine, accelerated := bytes.NewEngine()
	// Rooms that are remembered have storages of their own, which outlive the page. Others share one of the instance.
	name := strings.ToLower(rand.Text())
	storage, err := bytes.OpenStorage(i.ctx, name)
	if err != nil {
		return nil, fault.New(fault.StorageFailed, err)
	}
	i.engine, i.storage = engine, storage
	go i.sweep(storage)
	f := features{Crypto: "wasm", Storage: "opfs"}
	if accelerated {
		f.Crypto = "webcrypto"
	}
	if storage.Refusal() != "" {
		f.Storage, f.MemoryLimit = "memory", bytes.MemoryLimit
	}
	return struct {
		Version  string   `json:"version"`
		Features features `json:"features"`
	}{i.version, f}, nil
}

// sweep deletes, now and again, what other pages have left. Downloads that they began copy from there, and need less time than that.
func (i *instance) sweep(s *bytes.Storage) {
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		s.Sweep(i.ctx, room.KeepHandedOver, room.KeepUnfinished) // if it fails, the next time
		select {
		case <-ticker.C:
		case <-i.ctx.Done():
			return
		}
	}
}

func (i *instance) close(none) (any, error) {
	i.mu.Lock()
	members := slices.Collect(maps.Values(i.rooms))
	i.mu.Unlock()
	for _, m := range members {
		m.leave()
	}
	if i.storage == nil {
		return nil, nil
	}
	i.mu.Lock()
	storages := append(slices.Collect(maps.Values(i.own)), i.storage)
	clear(i.own)
	i.mu.Unlock()
	var failed error
	for _, s := range storages {
		failed = errors.Join(failed, s.Close())
	}
	return nil, failed
}

// openOwn opens a room's own storage, where the browser has the means. Without it, what is unfinished ends with the page. That would cost what an
// earlier page has left there, so what only takes long (the end of that page, or another that is deleting leftovers) is given a second chance.
func (i *instance) openOwn(ctx context.Context, name string) *bytes.Storage {
	i.mu.Lock()
	s := i.own[name]
	i.mu.Unlock()
	if name == "" || s != nil || i.storage.Refusal() != "" {
		return s
	}
	for n := 0; n < 2 && ctx.Err() == nil; n++ {
		s, err := bytes.ReopenStorage(i.ctx, name)
		switch {
		case err != nil:
		case s.Refusal() != "":
			s.Close()
		default:
			i.mu.Lock()
			i.own[name] = s
			i.mu.Unlock()
			return s
		}
	}
	return nil
}

// closeOwn closes a room's own storage, once nobody is in the room here and nothing received lies there: another page may want it.
func (i *instance) closeOwn(name string) {
	i.mu.Lock()
	s := i.own[name]
	for _, m := range i.rooms {
		if m.storage == name {
			s = nil
		}
	}
	for _, r := range i.received {
		if r.storage == s {
			s = nil
		}
	}
	if s != nil {
		delete(i.own, name)
	}
	i.mu.Unlock()
	if s != nil {
		s.Close()
	}
}

// nudge tells the rooms that the network may be back.
func (i *instance) nudge(none) (any, error) {
	i.mu.Lock()
	members := slices.Collect(maps.Values(i.rooms))
	i.mu.Unlock()
	for _, m := range members {
		select {
		case <-m.entered:
			if m.room != nil {
				m.room.Nudge()
			}
		default: // entering gives up soon enough by itself
		}
	}
	return nil, nil
}

func (i *instance) parseLink(args struct{ Link string }) (any, error) {
	link, err := parseLink(args.Link)
	if err != nil {
		return nil, err
	}
	keys := link.Keys()
	defer keys.Destroy()
	return struct {
		Room string `json:"room"`
	}{keys.ID.String()}, nil
}

type iceServers []struct {
	URLs                 []string `json:"urls"`
	Username, Credential string
}

func (list iceServers) wire() (servers []wire.ICEServer) {
	for _, s := range list {
		servers = append(servers, wire.ICEServer{URLs: s.URLs, Username: s.Username, Credential: s.Credential})
	}
	return servers
}

type enterArgs struct {
	Room          int
	Link          string
	Name          string
	ServerURL     string
	IceServers    iceServers
	RelayOnly     bool
	MaxRecipients int
	Admission     room.Admission
	Manual        bool
	Quality       struct{ Excellent, Good, Fair float64 } // ms; all 0: the default

	ReconnectAttempts int
	// Of an identity that was kept:
	Seed    *[32]byte
	Storage string      // the name of a storage of its own: what is unfinished there goes on
	Members []wire.Hash // of an own room, as saved answered; so are the next two
	Removed []wire.ID
	Locked  bool
}

func (i *instance) createRoom(args enterArgs) (any, error) {
	return i.enterRoom(args, room.Create)
}

func (i *instance) joinRoom(args enterArgs) (any, error) {
	link, err := parseLink(args.Link)
	if err != nil {
		return nil, err
	}
	return i.enterRoom(args, func(ctx context.Context, cfg room.Config) (*room.Room, error) {
		cfg.Saved = &room.Saved{Secret: link.Secret, Members: args.Members, Removed: args.Removed, Locked: args.Locked}
		return room.Join(ctx, link, cfg)
	})
}

func (i *instance) enterRoom(args enterArgs, enter func(context.Context, room.Config) (*room.Room, error)) (any, error) {
	ctx, cancel := context.WithCancel(i.ctx)
	m := &member{number: args.Room, cancel: cancel, entered: make(chan struct{}), storage: args.Storage}
	m.leave = sync.OnceFunc(func() { i.end(m) })
	i.mu.Lock()
	i.rooms[args.Room] = m // before its storage is opened, which closeOwn then leaves alone
	i.mu.Unlock()
	t := newTranslator(args.Room)
	storage := i.openOwn(ctx, args.Storage)
	resume := storage != nil
	if !resume {
		storage = i.storage
	}
	cfg := room.Config{
		Name:          args.Name,
		ServerURL:     args.ServerURL,
		Seed:          args.Seed,
		ICE:           args.IceServers.wire(),
		RelayOnly:     args.RelayOnly,
		MaxRecipients: args.MaxRecipients,
		Admission:     args.Admission,
		Manual:        args.Manual,
		Quality: peer.QualityThresholds{Excellent: milliseconds(args.Quality.Excellent), Good: milliseconds(args.Quality.Good),
			Fair: milliseconds(args.Quality.Fair)},
		ReconnectAttempts: args.ReconnectAttempts,

		Engine:  i.engine,
		Storage: storage,
		Resume:  resume,
		NewConn: peer.NewConn,
		Events: func(e room.Event) {
			if f, ok := e.(room.TransferFinished); ok && f.Result.Delivery != "" {
				i.mu.Lock()
				if file, ok := f.Result.File.(*bytes.File); ok {
					i.received[f.Result.Delivery] = received{storage, file}
				}
				i.mu.Unlock()
			}
			if x, ok := e.(room.ReceivedExpired); ok {
				i.mu.Lock()
				delete(i.received, x.Delivery)
				i.mu.Unlock()
			}
			i.send(t.translate(e))
			if c, ok := e.(room.RoomChanged); ok && c.State == room.StateClosed {
				go m.leave()
			}
		},
	}
	r, err := enter(ctx, cfg)
	m.room = r
	close(m.entered)
	if err != nil {
		go m.leave()
		return nil, err
	}
	self := r.Self()
	t.self = self.ID
	link := r.Link()
	keys := link.Keys()
	defer keys.Destroy()
	return struct {
		Room      string    `json:"room"`
		Fragment  string    `json:"fragment"`
		Self      room.Peer `json:"self"`
		Seed      [32]byte  `json:"seed"`
		Resumable bool      `json:"resumable"`
	}{keys.ID.String(), link.Fragment(), self, r.Seed(), resume}, nil
}

type goneEvent struct {
	head
	Code fault.Code `json:"code,omitempty"`
}

// end leaves m's room, whether it has been entered or not, and tells the page when nothing of it runs any more.
func (i *instance) end(m *member) {
	m.cancel()
	<-m.entered
	if m.room != nil {
		m.room.Leave(i.ctx) // closes everything even where it cannot say goodbye
	}
	i.mu.Lock()
	delete(i.rooms, m.number)
	i.mu.Unlock()
	if m.storage != "" {
		i.closeOwn(m.storage)
	}
	i.send(goneEvent{head: head{"gone", m.number}})
}

// in returns the room of a number, once it has been entered.
func (i *instance) in(number int) (*room.Room, error) {
	i.mu.Lock()
	m := i.rooms[number]
	i.mu.Unlock()
	if m == nil {
		return nil, fault.New(fault.RoomClosed, nil)
	}
	<-m.entered
	if m.room == nil {
		return nil, fault.New(fault.RoomClosed, nil)
	}
	return m.room, nil
}

// do runs f on a room, for methods without a value.
func (i *instance) do(number int, f func(*room.Room) error) (any, error) {
	r, err := i.in(number)
	if err != nil {
		return nil, err
	}
	return nil, f(r)
}

func (i *instance) leave(args struct{ Room int }) (any, error) {
	i.mu.Lock()
	m := i.rooms[args.Room]
	i.mu.Unlock()
	if m != nil {
		m.leave()
	}
	return nil, nil
}

// saved answers with what the page keeps of an own room, besides the link.
func (i *instance) saved(args struct{ Room int }) (any, error) {
	r, err := i.in(args.Room)
	if err != nil {
		return nil, err
	}
	s, err := r.Saved()
	if err != nil {
		return nil, err
	}
	return struct {
		Members []wire.Hash `json:"members"`
		Removed []wire.ID   `json:"removed"`
		Locked  bool        `json:"locked"`
	}{s.Members, s.Removed, s.Locked}, nil
}

// exposure answers with who learns our address.
func (i *instance) exposure(args struct{ Room int }) (any, error) {
	r, err := i.in(args.Room)
	if err != nil {
		return nil, err
	}
	return r.Exposure()
}

func (i *instance) lock(args struct {
	Room   int
	Locked bool
}) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.Lock(args.Locked) })
}

func (i *instance) approve(args struct {
	Room  int
	Peer  wire.ID
	Admit bool
}) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.Approve(args.Peer, args.Admit) })
}

func (i *instance) remove(args struct {
	Room int
	Peer wire.ID
}) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.Remove(args.Peer) })
}

func (i *instance) markVerified(args struct {
	Room     int
	Peer     wire.ID
	Verified bool
}) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.MarkVerified(args.Peer, args.Verified) })
}

func (i *instance) connect(args struct {
	Room    int
	Peer    wire.ID
	Trickle bool
}) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.Connect(args.Peer, args.Trickle) })
}

func (i *instance) disconnect(args struct {
	Room int
	Peer wire.ID
}) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.Disconnect(args.Peer) })
}

type signalArgs struct {
	Room    int
	Peer    wire.ID
	Value   string
	Trickle bool
}

func (i *instance) signal(args signalArgs) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.Signal(args.Peer, args.Value, args.Trickle) })
}

func (i *instance) relay(args signalArgs) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.Relay(args.Peer, args.Value) })
}

// stats answers with the figures of one member, or of all if none is named.
func (i *instance) stats(args struct {
	Room int
	Peer *wire.ID
}) (any, error) {
	r, err := i.in(args.Room)
	if err != nil {
		return nil, err
	}
	if args.Peer == nil {
		return r.AllStats(i.ctx)
	}
	return r.Stats(i.ctx, *args.Peer)
}

func milliseconds(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }

type outFile struct {
	Kind         string
	Path         string
	Type         string
	LastModified float64
	Text         string
	Handle       uint32
}

// sendFiles offers files. From here on the handles are ours, and the room's once it has them.
func (i *instance) sendFiles(args struct {
	Room  int
	To    []wire.ID
	Limit float64 // per recipient
	Total float64
	Late  bool `json:"lateJoiners"`
	Plain bool
	Files []outFile
}) (any, error) {
	var snapshot transferSnapshot
	return &snapshot, i.giveFiles(args.Room, args.Files, func(r *room.Room, files []room.OutFile) error {
		t, err := r.Send(files, room.SendOptions{To: args.To, LimitPerRecipient: bytesPerSecond(args.Limit), Limit: bytesPerSecond(args.Total),
			LateJoiners: args.Late, Plain: args.Plain})
		snapshot = transferSnapshot{ID: r.Self().ID + t.ID, Files: t.Files, Deliveries: t.Deliveries, Late: t.LateJoiners}
		return err
	})
}

// continueTransfer gives a transfer of an earlier page its files again, and answers with the indices of those that are lacking.
func (i *instance) continueTransfer(args struct {
	transferArgs
	Files   []outFile
	Without bool
}) (any, error) {
	var answer struct {
		Lacking []uint32 `json:"lacking"`
	}
	return &answer, i.giveFiles(args.Room, args.Files, func(r *room.Room, files []room.OutFile) (err error) {
		answer.Lacking, err = r.Continue(args.key(), files, args.Without)
		return err
	})
}

// giveFiles hands the page's files to a room.
func (i *instance) giveFiles(number int, given []outFile, give func(*room.Room, []room.OutFile) error) error {
	release := func() {
		for _, f := range given {
			host.Handle(f.Handle).Release() // 0 is none
		}
	}
	r, err := i.in(number)
	if err != nil {
		release()
		return err
	}
	files := make([]room.OutFile, len(given))
	for n, f := range given {
		out := room.OutFile{Path: f.Path, Type: f.Type, Modified: int64(f.LastModified)}
		switch f.Kind {
		case "text":
			out.Kind, out.Text = wire.KindText, f.Text
		case "directory":
			out.Kind = wire.KindDirectory
		default:
			out.Source = bytes.NewSource(host.Handle(f.Handle))
		}
		files[n] = out
	}
	if err := give(r, files); err != nil {
		release()
		return err
	}
	return nil
}

// describe reads a journal that nobody has open: a JavaScript File.
func (i *instance) describe(args struct{ Handle uint32 }) (any, error) {
	source := bytes.NewSource(host.Handle(args.Handle))
	defer source.Close()
	p := make([]byte, source.Size())
	if n, err := source.ReadAt(p, 0); n < len(p) {
		return nil, fault.New(fault.StorageFailed, err)
	}
	u, err := room.Describe(p)
	if err != nil {
		return nil, fault.New(fault.StorageFailed, err)
	}
	u.ID = u.Sender + u.ID
	return u, nil
}

// transferArgs name a transfer.
type transferArgs struct {
	Room int
	ID   [32]byte `json:"id"` // of sender and transfer
}

func (i *instance) accept(args struct {
	transferArgs
	Files []uint32
	Into  host.Handle // of a DirectFolder; 0: it is stored as usual
}) (any, error) {
	var into transfer.Storage
	cancelled := func() {}
	if args.Into != 0 {
		direct := bytes.NewDirect(args.Into)
		into, cancelled = direct, func() { direct.Close() }
	}
	var snapshot transferSnapshot
	_, err := i.doTransfer(args.transferArgs, func(r *room.Room, key transfer.Key) error {
		t, err := r.AcceptInto(into, key, args.Files)
		snapshot = transferSnapshot{ID: key.Sender.String() + t.ID, Files: t.Files, Deliveries: t.Deliveries}
		return err
	})
	if err != nil {
		cancelled()
	}
	return snapshot, err
}

func (a transferArgs) key() transfer.Key {
	return transfer.Key{Sender: wire.ID(a.ID[:16]), Transfer: wire.ID(a.ID[16:])}
}

func (i *instance) doTransfer(args transferArgs, f func(*room.Room, transfer.Key) error) (any, error) {
	return i.do(args.Room, func(r *room.Room) error {
		return f(r, args.key())
	})
}

func (i *instance) decline(args struct {
	transferArgs
	Reason string
}) (any, error) {
	return i.doTransfer(args.transferArgs, func(r *room.Room, key transfer.Key) error { return r.Decline(key, args.Reason) })
}

func (i *instance) cancel(args transferArgs) (any, error) {
	return i.doTransfer(args, func(r *room.Room, key transfer.Key) error { return r.Cancel(key) })
}

func (i *instance) cancelDelivery(args struct {
	transferArgs
	Peer wire.ID
}) (any, error) {
	return i.doTransfer(args.transferArgs, func(r *room.Room, key transfer.Key) error { return r.CancelDelivery(key, args.Peer) })
}

// stopOffering ends a transfer's being offered to late joiners.
func (i *instance) stopOffering(args transferArgs) (any, error) {
	return i.doTransfer(args, func(r *room.Room, key transfer.Key) error { return r.StopOffering(key) })
}

// ledger answers with how an outgoing transfer stands.
func (i *instance) ledger(args transferArgs) (any, error) {
	var ledger room.Ledger
	_, err := i.doTransfer(args, func(r *room.Room, key transfer.Key) (err error) {
		ledger, err = r.Ledger(key)
		return err
	})
	return ledger, err
}

func (i *instance) retry(args struct {
	transferArgs
	Peer wire.ID
}) (any, error) {
	return i.doTransfer(args.transferArgs, func(r *room.Room, key transfer.Key) error { return r.Retry(key, args.Peer) })
}

func (i *instance) setPaused(args struct {
	transferArgs
	Paused bool
}) (any, error) {
	return i.doTransfer(args.transferArgs, func(r *room.Room, key transfer.Key) error { return r.SetPaused(key, args.Paused) })
}

func (i *instance) setLimit(args struct {
	transferArgs
	Limit float64
}) (any, error) {
	return i.doTransfer(args.transferArgs, func(r *room.Room, key transfer.Key) error { return r.SetLimit(key, bytesPerSecond(args.Limit)) })
}

func (i *instance) setTotalLimit(args struct {
	transferArgs
	Limit float64
}) (any, error) {
	return i.doTransfer(args.transferArgs, func(r *room.Room, key transfer.Key) error {
		return r.SetTotalLimit(key, bytesPerSecond(args.Limit))
	})
}

func (i *instance) setRoomLimit(args struct {
	Room  int
	Limit float64
}) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.SetRoomLimit(bytesPerSecond(args.Limit)) })
}

func (i *instance) setIceServers(args struct {
	Room       int
	IceServers iceServers
}) (any, error) {
	return i.do(args.Room, func(r *room.Room) error { return r.SetICEServers(args.IceServers.wire()) })
}

// bytesPerSecond is a limit that tallow.js has found to be a number, not below 0: one that is too small to be kept is not none, and one
// too large for us is.
func bytesPerSecond(limit float64) int64 {
	if limit >= 1<<53 {
		return 0
	}
	return int64(math.Ceil(limit))
}

// file hands what was received in a delivery to the page, all files as one (transferEvent has where each begins): web/boot.js takes the
// object of the handle.
func (i *instance) file(args struct{ Delivery string }) (any, error) {
	i.mu.Lock()
	stored, ok := i.received[args.Delivery]
	i.mu.Unlock()
	if !ok {
		return nil, fault.Newf(fault.StorageFailed, "the received copy is gone")
	}
	handle, err := stored.file.Object(i.ctx)
	if err != nil {
		return nil, fault.New(fault.StorageFailed, err)
	}
	return struct {
		Handle host.Handle `json:"handle"`
	}{handle}, nil
}

// handedOver notes that the person has what was received in a delivery: of a room that this page is in, or else in the storage of one that no page is in.
func (i *instance) handedOver(args struct {
	Room     int
	Storage  string
	Delivery string
}) (any, error) {
	if args.Storage == "" {
		return i.do(args.Room, func(r *room.Room) error { return r.HandedOver(args.Delivery) })
	}
	s := i.openOwn(i.ctx, args.Storage)
	if s == nil {
		return nil, fault.Newf(fault.StorageFailed, "the storage is in use")
	}
	defer i.closeOwn(args.Storage)
	if err := room.HandOver(i.ctx, s, args.Delivery, time.Now()); err != nil {
		return nil, fault.New(fault.StorageFailed, err)
	}
	return nil, nil
}

type discardArgs struct {
	Room     int
	Delivery string
}

// discard deletes what was received in a delivery, whether its room is still open or not.
func (i *instance) discard(args discardArgs) (any, error) {
	i.mu.Lock()
	r, ok := i.received[args.Delivery]
	delete(i.received, args.Delivery)
	i.mu.Unlock()
	_, err := i.do(args.Room, func(r *room.Room) error { return r.Discard(args.Delivery) })
	if code := fault.Of(err); ok && (code == fault.RoomClosed || code == fault.UnknownTransfer) {
		r.file.Close()
		err = r.storage.Remove(i.ctx, args.Delivery)
	} else if !ok && err != nil {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.StorageFailed, err)
	}
	i.mu.Lock()
	members := slices.Collect(maps.Values(i.rooms))
	own := ""
	for name, s := range i.own {
		if s == r.storage {
			own = name
		}
	}
	i.mu.Unlock()
	if own != "" {
		i.closeOwn(own)
	}
	for _, m := range members {
		select {
		case <-m.entered:
			if m.room != nil {
				m.room.SpaceFreed()
			}
		default: // nothing waits there yet
		}
	}
	return nil, nil
}
