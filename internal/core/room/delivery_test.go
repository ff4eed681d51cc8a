//go:build !js

package room_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

const mib = 1 << 20

// TestVanishing: one of three recipients is cut off in the middle, without a word. The others do not notice; it counts
// as failed when it has been gone for long enough.
func TestVanishing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	time := newClock()
	ann := w.create("Ann", func(c *room.Config) { c.Now = time.Now })
	bob, cleo, dan := w.join("Bob", ann.room.Link()), w.join("Cleo", ann.room.Link()), w.join("Dan", ann.room.Link())
	ann.meet(bob, cleo, dan)
	file := content(4*mib, 1)
	id, g := ann.halfway(file, bob, cleo, dan)
	w.kill(bob)
	g.open()
	cleo.check(cleo.finished(id), file)
	dan.check(dan.finished(id), file)
	time.run(20)
	result := ann.finished(id)
	if e := entry(t, result, bob); e.State != room.DeliveryFailed || e.Code != fault.PeerGone || e.Files[0].Outcome != "failed" {
		t.Errorf("Bob: %+v", e)
	}
	for _, p := range []*person{cleo, dan} {
		if e := entry(t, result, p); e.State != room.DeliveryDone {
			t.Errorf("%s: %+v", p.name, e)
		}
	}
}

// TestLeaving: a recipient leaves in the middle, then the sender.
func TestLeaving(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cleo", "Dan")
	ann, bob, cleo, dan := all[0], all[1], all[2], all[3]
	file := content(2*mib, 1)
	id, g := bob.halfway(file, ann, cleo, dan)
	if err := cleo.room.Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r := cleo.finished(id); r.Code != fault.Cancelled {
		t.Errorf("Cleo's own end: %s", r.Code)
	}
	for _, p := range []*person{ann, bob, dan} {
		wait(p, "Cleo to leave", func(e room.PeerLeft) bool { return e.Peer.Name == "Cleo" && e.Peer.State == room.PeerClosed })
	}
	g.open()
	ann.check(ann.finished(id), file)
	dan.check(dan.finished(id), file)
	result := bob.finished(id)
	if e := entry(t, result, cleo); e.State != room.DeliveryCancelled && e.State != room.DeliveryFailed {
		t.Errorf("Cleo: %+v", e)
	}
	if e := entry(t, result, dan); e.State != room.DeliveryDone {
		t.Errorf("Dan: %+v", e)
	}

	g = newGated(t, file, mib)
	id = bob.send(outFile("a.bin", g))
	mark := dan.mark()
	waitAfter(dan, 0, "the second offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
	if _, err := dan.room.Accept(id, nil); err != nil {
		t.Fatal(err)
	}
	bob.stored(dan, mib)
	go g.open() // a read must not hold up Leave for ever; here it is in the way until now
	bob.room.Leave(context.Background())
	if r := dan.finished(id); r.Code != fault.CancelledByPeer && r.Code != fault.PeerGone {
		t.Errorf("Dan's end: %s", r.Code)
	}
	wait(ann, "the offer to go", func(e room.OfferWithdrawn) bool { return e.ID == id.Transfer.String() })
	waitAfter(dan, mark, "Bob to leave", func(e room.PeerLeft) bool { return e.Peer.Name == "Bob" })
}

// TestDecline: declined, offered again, accepted.
func TestDecline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cleo")
	ann, bob, cleo := all[0], all[1], all[2]
	file := content(1000, 1)
	id := ann.send(outFile("a.bin", file))
	offered := func(p *person, mark int) room.TransferID {
		t.Helper()
		e := waitAfter(p, mark, "an offer", func(room.OfferReceived) bool { return true })
		return transferID(t, e.Offer.From, e.Offer.ID)
	}
	offered(bob, 0)
	offered(cleo, 0)
	mark := bob.mark()
	if err := bob.room.Decline(id, "not now"); err != nil {
		t.Fatal(err)
	}
	wait(ann, "the refusal", func(e room.TransferProgress) bool {
		d := e.Transfer.Deliveries[0]
		return d.Peer == bob.room.Self().ID && d.State == room.DeliveryDeclined && d.Code == fault.Declined && d.Reason == "not now"
	})
	if _, err := bob.room.Accept(id, nil); fault.Of(err) != fault.UnknownTransfer {
		t.Errorf("accepted what was declined: %v", err)
	}
	// While the other recipient has not answered.
	if err := ann.room.Retry(id, bob.id()); err != nil {
		t.Fatal(err)
	}
	second := offered(bob, mark)
	if _, err := bob.room.Accept(second, nil); err != nil {
		t.Fatal(err)
	}
	bob.check(bob.finished(second), file)

	// And when everyone has.
	mark = cleo.mark()
	if err := cleo.room.Decline(id, ""); err != nil {
		t.Fatal(err)
	}
	if e := entry(t, ann.finished(id), cleo); e.State != room.DeliveryDeclined {
		t.Errorf("Cleo: %+v", e)
	}
	again := ann.mark()
	if err := ann.room.Retry(id, cleo.id()); err != nil {
		t.Fatal(err)
	}
	second = offered(cleo, mark)
	if _, err := cleo.room.Accept(second, nil); err != nil {
		t.Fatal(err)
	}
	cleo.check(cleo.finished(second), file)
	result := waitAfter(ann, again, "the end", func(e room.TransferFinished) bool { return true }).Result
	for _, p := range []*person{bob, cleo} {
		if e := entry(t, result, p); e.State != room.DeliveryDone {
			t.Errorf("%s: %+v", p.name, e)
		}
	}
}

// TestCancel: by the sender for one and for all, by a recipient, each in the middle.
func TestCancel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cleo", "Dan")
	ann, bob, cleo, dan := all[0], all[1], all[2], all[3]
	file := content(2*mib, 1)
	id, g := ann.halfway(file, bob, cleo)
	wait(dan, "an offer", func(room.OfferReceived) bool { return true })
	if err := ann.room.CancelDelivery(id, bob.id()); err != nil {
		t.Fatal(err)
	}
	if r := bob.finished(id); r.Code != fault.CancelledByPeer || len(r.Stored) > 0 {
		t.Errorf("Bob: %+v", r)
	}
	if err := cleo.room.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if r := cleo.finished(id); r.Code != fault.Cancelled {
		t.Errorf("Cleo: %+v", r)
	}
	wait(ann, "Cleo's cancelling", func(e room.TransferProgress) bool {
		d := e.Transfer.Deliveries[1]
		return d.Peer == cleo.room.Self().ID && d.State == room.DeliveryCancelled
	})
	if err := ann.room.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if e := wait(dan, "the offer to go", func(room.OfferWithdrawn) bool { return true }); e.Code != fault.CancelledByPeer {
		t.Errorf("Dan: %+v", e)
	}
	result := ann.finished(id)
	for p, code := range map[*person]fault.Code{bob: fault.Cancelled, cleo: fault.CancelledByPeer, dan: fault.Cancelled} {
		if e := entry(t, result, p); e.State != room.DeliveryCancelled || e.Code != code {
			t.Errorf("%s: %+v", p.name, e)
		}
	}

	// What was cancelled can be tried again, and nothing of the first attempt is in the way.
	g.open()
	mark := cleo.mark()
	if err := ann.room.Retry(id, cleo.id()); err != nil {
		t.Fatal(err)
	}
	e := waitAfter(cleo, mark, "the offer again", func(room.OfferReceived) bool { return true })
	if _, err := cleo.room.Accept(transferID(t, e.Offer.From, e.Offer.ID), nil); err != nil {
		t.Fatal(err)
	}
	cleo.check(waitAfter(cleo, mark, "the end", func(room.TransferFinished) bool { return true }).Result, file)
}

func TestText(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	const text = "Room 4 at nine – 日本"
	id := ann.send(room.OutFile{Kind: wire.KindText, Path: "text", Text: text})
	_, offer := bob.accept(ann)
	if offer.Files[0].Kind != "text" || offer.Files[0].Size != int64(len(text)) {
		t.Errorf("offer %+v", offer)
	}
	result := bob.finished(id)
	bob.check(result, source(text))
	got, err := io.ReadAll(result.Stored[0])
	if err != nil || string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
}

// shrinking is a source that loses its end.
type shrinking struct{ *gated }

func (s shrinking) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > s.from {
		<-s.gate
		return 0, io.EOF
	}
	return s.source.ReadAt(p, off)
}

// TestFileChanged: one of two files becomes shorter while it is sent; the other arrives.
func TestFileChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	good, bad := content(mib, 1), shrinking{newGated(t, content(2*mib, 2), mib)}
	id := ann.send(outFile("good.bin", good), outFile("bad.bin", bad))
	bob.accept(ann)
	ann.stored(bob, 2*mib)
	bad.open()
	r := bob.finished(id)
	if r.Code != fault.FileChanged || !r.Files[0].Complete || r.Files[1].Complete || r.Files[1].Code != fault.FileChanged {
		t.Errorf("Bob: %+v", r)
	}
	r.Code = ""
	bob.check(r, good)
	if e := entry(t, ann.finished(id), bob); e.State != room.DeliveryFailed || e.Code != fault.FileChanged ||
		e.Files[0].Outcome != "verified" || e.Files[1].Outcome != "failed" || e.Files[1].Code != fault.FileChanged {
		t.Errorf("ledger: %+v", e)
	}
}

// fullStorage holds at most so many bytes, and runs out of room after so many writes.
type fullStorage struct {
	transfer.Durable
	limit  int64
	writes atomic.Int64
}

func (s *fullStorage) Limit() int64 { return s.limit }

func (s *fullStorage) Create(ctx context.Context, delivery, name string, size int64) (transfer.StoredFile, error) {
	if s.writes.Load() <= 0 {
		return nil, fmt.Errorf("create: %w", transfer.ErrStorageFull)
	}
	f, err := s.Durable.Create(ctx, delivery, name, size)
	return &fullFile{f, s}, err
}

func (s *fullStorage) Put(ctx context.Context, delivery, name string, p []byte, at int64) error {
	if s.writes.Load() <= 0 && name == transfer.JournalName {
		return fmt.Errorf("put: %w", transfer.ErrStorageFull)
	}
	return s.Durable.Put(ctx, delivery, name, p, at)
}

type fullFile struct {
	transfer.StoredFile
	storage *fullStorage
}

func (f *fullFile) WriteAt(p []byte, off int64) (int, error) {
	if f.storage.writes.Add(-1) < 0 {
		return 0, fmt.Errorf("write: %w", transfer.ErrStorageFull)
	}
	return f.StoredFile.WriteAt(p, off)
}

// TestDiskFull: a recipient whose disk has no room when the first byte comes, and again in the middle, and for its journal, waits for it and gets
// everything once there is; nobody else waits. What fits into no memory is refused at the question.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", nil)
	var disk *fullStorage
	bob := w.joinWith("Bob", ann.room.Link(), func(c *room.Config) {
		disk = &fullStorage{Durable: c.Storage.(transfer.Durable), limit: 5 * mib}
		c.Storage, c.Resume = disk, true
	})
	cleo := w.join("Cleo", ann.room.Link())
	ann.meet(bob, cleo)
	big, file := content(4*mib+1, 1), content(mib, 2)
	id := ann.send(outFile("big.bin", big), outFile("a.bin", file))
	wait(bob, "an offer", func(room.OfferReceived) bool { return true })
	if _, err := bob.room.Accept(id, nil); fault.Of(err) != fault.DiskFull {
		t.Errorf("accepted: %v", err)
	}
	if _, err := bob.room.Accept(id, []uint32{0}); err != nil { // the offer still stands, and a part of it fits
		t.Fatal(err)
	}
	cleo.accept(ann)
	full := func(stored bool) func(e room.TransferProgress) bool {
		return func(e room.TransferProgress) bool {
			return slices.ContainsFunc(e.Transfer.Deliveries, func(d room.Delivery) bool {
				return d.Code == fault.DiskFull && d.State == room.DeliveryPaused && (d.Bytes > 0) == stored
			})
		}
	}
	wait(ann, "Bob's disk is full from the start", full(false))
	cleo.check(cleo.finished(id), big, file)
	disk.writes.Store(4)
	bob.room.SpaceFreed()
	wait(ann, "Bob's disk is full in the middle", full(true))
	wait(bob, "his disk is full", full(true))
	disk.writes.Store(1000)
	if err := bob.room.SetPaused(id, false); err != nil {
		t.Fatal(err)
	}
	bob.check(bob.finished(id), big)
	sent := entry(t, ann.finished(id), bob)
	if sent.State != room.DeliveryDone || sent.Code != "" {
		t.Errorf("ledger: %+v", sent)
	}
	if twice := ann.figures(bob).ChunksResent; twice != 0 {
		t.Errorf("%d chunks were sent twice", twice)
	}
}

// TestLinkLost kills the connections in the middle: the transfer goes on over others, and what is on disk is not sent again.
func TestLinkLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	file := content(4*mib, 1)
	g := newGated(t, file, 2*mib)
	id := ann.send(outFile("a.bin", g))
	bob.accept(ann)
	ann.stored(bob, 2*mib)
	for _, p := range []*person{ann, bob} { // now one end notices first, now the other
		mark, mark2 := ann.mark(), bob.mark()
		p.cutLinks()
		interrupted := func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].State == room.DeliveryInterrupted }
		waitAfter(ann, mark, "the interruption", interrupted)
		waitAfter(bob, mark2, "the interruption", interrupted)
		waitAfter(ann, mark, "the transfer to go on", func(e room.TransferProgress) bool {
			return e.Transfer.Deliveries[0].State == room.DeliveryTransferring && e.Transfer.Deliveries[0].Bytes == 2*mib
		})
	}
	g.open()
	bob.check(bob.finished(id), file)
	if e := entry(t, ann.finished(id), bob); e.State != room.DeliveryDone {
		t.Errorf("ledger: %+v", e)
	}
	if n := bob.bulk.Load(); n > int64(len(file))+128<<10 {
		t.Errorf("%d bytes of records for a file of %d", n, len(file))
	}
}

// TestServerRestart: the server dies in the middle and comes back knowing nothing. The transfer does not notice, the
// members return by themselves, and newcomers can join again.
func TestServerRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cleo")
	ann, bob, cleo := all[0], all[1], all[2]
	file := content(3*mib, 1)
	id, g := bob.halfway(file, ann, cleo)
	w.stopHub()
	for _, p := range all {
		wait(p, "the loss of the server", func(e room.RoomChanged) bool { return e.State == room.StateDisconnected })
	}
	g.open()
	for _, p := range []*person{ann, cleo} {
		p.check(p.finished(id), file)
	}
	if e := entry(t, bob.finished(id), cleo); e.State != room.DeliveryDone {
		t.Errorf("ledger: %+v", e)
	}
	marks := map[*person]int{}
	for _, p := range all {
		for _, e := range p.since(0) {
			if c, ok := e.(room.PeerLeft); ok {
				t.Errorf("%s lost %s", p.name, c.Peer.Name)
			}
		}
		marks[p] = p.mark()
	}
	w.startHub()
	for _, p := range all {
		waitAfter(p, marks[p], "the server", func(e room.RoomChanged) bool { return e.State == room.StateOpen })
	}
	dan := w.join("Dan", ann.room.Link())
	meetAll(ann, bob, cleo, dan)
	for p, mark := range marks {
		for _, e := range p.since(mark) {
			if c, ok := e.(room.PeerChanged); ok && c.Peer.Name != "Dan" && c.Peer.Name != "" && c.Peer.State != room.PeerOpen {
				t.Errorf("%s lost the link to %s: %+v", p.name, c.Peer.Name, c.Peer)
			}
		}
	}
}

// TestPause: by either end, and it survives a lost link.
func TestPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	file := content(3*mib, 1)
	g := newGated(t, file, mib)
	id := ann.send(outFile("a.bin", g))
	bob.accept(ann)
	ann.stored(bob, mib)
	if err := bob.room.SetPaused(id, true); err != nil {
		t.Fatal(err)
	}
	paused := func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].State == room.DeliveryPaused }
	wait(ann, "the pause", paused)
	mark := ann.mark()
	bob.cutLinks()
	waitAfter(ann, mark, "the pause over the new link", paused)
	g.open()
	if err := bob.room.SetPaused(id, false); err != nil {
		t.Fatal(err)
	}
	bob.check(bob.finished(id), file)
}

// TestSendToAll: what is sent to nobody in particular is for whoever is shown as connecting, too: because the link was lost and cannot be made anew
// yet, or because the first one is still being made. It is not for who wants no link.
func TestSendToAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cleo", "Dan")
	ann, bob, cleo, dan := all[0], all[1], all[2], all[3]
	held := make(chan struct{})
	let := sync.OnceFunc(func() { close(held) })
	t.Cleanup(let)
	eve := w.joinWith("Eve", ann.room.Link(), func(c *room.Config) {
		next := c.NewConn
		c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
			<-held
			return next(cfg)
		}
	})
	mark := ann.mark()
	if err := ann.room.Disconnect(dan.id()); err != nil {
		t.Fatal(err)
	}
	ann.state(mark, dan, room.PeerClosed)
	w.stopHub()
	mark = ann.mark()
	bob.cutLinks()
	ann.state(mark, bob, room.PeerConnecting)

	file := content(mib+5, 1)
	snapshot, err := ann.room.Send([]room.OutFile{outFile("a.bin", file)}, room.SendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]room.DeliveryState{}
	for _, d := range snapshot.Deliveries {
		got[d.Peer] = d.State
	}
	if want := map[string]room.DeliveryState{bob.room.Self().ID: room.DeliveryInterrupted, cleo.room.Self().ID: room.DeliveryOffered,
		eve.room.Self().ID: room.DeliveryInterrupted}; !maps.Equal(got, want) {
		t.Fatalf("deliveries %v, want %v", got, want)
	}
	id := transferID(t, ann.room.Self().ID, snapshot.ID)
	cleo.accept(ann)
	cleo.check(cleo.finished(id), file)
	w.startHub()
	let()
	for _, p := range all {
		p.room.Nudge() // as the browser does
	}
	for _, p := range []*person{bob, eve} {
		p.accept(ann)
		p.check(p.finished(id), file)
	}
}
