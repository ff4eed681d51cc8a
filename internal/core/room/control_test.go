//go:build !js

package room_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/transfer/diskstore"
	"tallow/internal/core/wire"
)

// offers are the names of the transfers that p has been offered since a mark.
func (p *person) offers(mark int) (ids []string) {
	for _, e := range p.since(mark) {
		if o, ok := e.(room.OfferReceived); ok {
			ids = append(ids, o.Offer.ID)
		}
	}
	return ids
}

// nudged sends p a text of the sender's and waits for its offer: what was offered before has come by then. It returns all
// that p was offered since the mark.
func (p *person) nudged(sender *person, mark int) []string {
	p.t.Helper()
	snapshot, err := sender.room.Send([]room.OutFile{{Kind: wire.KindText, Path: "text", Text: "nudge"}}, room.SendOptions{To: []wire.ID{p.id()}})
	if err != nil {
		p.t.Fatal(err)
	}
	waitAfter(p, mark, "the nudge", func(e room.OfferReceived) bool { return e.Offer.ID == snapshot.ID })
	return p.offers(mark)
}

// TestLateJoiners: files are put up before anybody is there, go to whoever comes, and not again to who has declined or was removed; the room stays
// as small as it was; the sender's restart changes nothing, and it ends when the sender says so.
func TestLateJoiners(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	annLife := w.life("Ann", nil)
	ann := annLife.born()
	file := content(mib+5, 1)
	if _, err := ann.room.Send([]room.OutFile{outFile("a.bin", file)}, room.SendOptions{}); fault.Of(err) != fault.NoRecipients {
		t.Fatalf("without late joiners: %v", err)
	}
	snapshot, err := ann.room.Send([]room.OutFile{outFile("a.bin", file)}, room.SendOptions{LateJoiners: true})
	if err != nil || !snapshot.LateJoiners || snapshot.Finished || len(snapshot.Deliveries) != 0 {
		t.Fatalf("%+v, %v", snapshot, err)
	}
	id := transferID(t, ann.room.Self().ID, snapshot.ID)

	bob := w.life("Bob", annLife.link).born()
	bob.accept(ann)
	bob.check(bob.finished(id), file)
	cleoLife := w.life("Cleo", annLife.link)
	cleo := cleoLife.born()
	wait(cleo, "an offer", func(room.OfferReceived) bool { return true })
	if err := cleo.room.Decline(id, " not\u202e\n now "); err != nil {
		t.Fatal(err)
	}
	declined := func(e room.TransferProgress) bool {
		return slices.ContainsFunc(e.Transfer.Deliveries, func(d room.Delivery) bool { return d.State == room.DeliveryDeclined && d.Reason == "not now" })
	}
	wait(ann, "a reason that can be read", declined)
	danLife := w.life("Dan", annLife.link)
	dan := danLife.born()
	wait(dan, "an offer", func(room.OfferReceived) bool { return true })
	if err := ann.room.Remove(dan.id()); err != nil {
		t.Fatal(err)
	}
	wait(dan, "the removal", func(e room.RoomChanged) bool { return e.State == room.StateClosed })
	if again, err := w.tryJoinWith("Dan", *danLife.link, func(c *room.Config) { c.Seed = &danLife.seed }); fault.Of(err) != fault.Removed || len(again.offers(0)) > 0 {
		t.Errorf("who was removed comes again: %v", err)
	}

	again := func(what string) {
		t.Helper()
		w.crash(cleo, ann)
		cleo = cleoLife.born()
		ann.meet(cleo)
		if slices.Contains(cleo.nudged(ann, 0), snapshot.ID) {
			t.Errorf("%s: who has declined is asked again", what)
		}
	}
	again("at first")

	w.crash(ann, bob, cleo)
	ann = annLife.born()
	e := wait(ann, "the transfer to be restored", func(e room.TransferResumed) bool { return e.Transfer.ID == snapshot.ID })
	if !e.Transfer.LateJoiners || !e.Transfer.Waiting || e.Transfer.Finished {
		t.Errorf("restored: %+v", e.Transfer)
	}
	if _, err := ann.room.Continue(id, []room.OutFile{outFile("a.bin", file)}, false); err != nil {
		t.Fatal(err)
	}
	ann.meet(cleo)
	again("after a restart of the sender")
	eve := w.life("Eve", annLife.link).born()
	eve.accept(ann)
	eve.check(eve.finished(id), file)

	wait(ann, "Eve to be done", func(e room.TransferProgress) bool {
		return slices.ContainsFunc(e.Transfer.Deliveries, func(d room.Delivery) bool { return d.Name == "Eve" && d.State == room.DeliveryDone })
	})
	if err := ann.room.StopOffering(id); err != nil {
		t.Fatal(err)
	}
	result := ann.finished(id)
	var states []room.DeliveryState
	for _, e := range result.Ledger {
		states = append(states, e.State)
	}
	if !slices.Equal(states, []room.DeliveryState{room.DeliveryDone, room.DeliveryDeclined, room.DeliveryFailed, room.DeliveryDone}) {
		t.Errorf("%+v", result.Ledger)
	}
	if e := entry(t, result, cleo); e.Reason != "not now" || e.Code != fault.Declined {
		t.Errorf("Cleo: %+v", e)
	}
	// Bob's receipt is from before the restart.
	ledger, err := ann.room.Ledger(id)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range map[int]string{0: "Bob", 3: "Eve"} {
		if e := ledger.Entries[i]; e.Name != name || verifyReceipt(toJSON(t, ledger), i, map[string]source{"a.bin": file}) != nil {
			t.Errorf("the receipt of %s, which should be %s's: %v", e.Name, name, verifyReceipt(toJSON(t, ledger), i, nil))
		}
	}
	finn := w.life("Finn", annLife.link).born()
	ann.meet(finn)
	if slices.Contains(finn.nudged(ann, 0), snapshot.ID) {
		t.Error("offered to who came after it was stopped")
	}
}

// TestLateJoinersAndTheRoom: a room of two others takes no third, whatever is offered, and who was there and not picked is not offered it when its link
// is lost and comes back.
func TestLateJoinersAndTheRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", func(c *room.Config) { c.MaxRecipients = 2 })
	bob := w.join("Bob", ann.room.Link())
	ann.meet(bob)
	file := content(1000, 1)
	snapshot, err := ann.room.Send([]room.OutFile{outFile("a.bin", file)}, room.SendOptions{To: []wire.ID{}, LateJoiners: true})
	if err != nil {
		t.Fatal(err)
	}
	id := transferID(t, ann.room.Self().ID, snapshot.ID)
	cleo := w.join("Cleo", ann.room.Link())
	cleo.accept(ann)
	cleo.check(cleo.finished(id), file)
	if dan, err := w.tryJoin("Dan", ann.room.Link()); fault.Of(err) != fault.RoomFull || len(dan.offers(0)) > 0 {
		t.Errorf("a third: %v", err)
	}
	mark := ann.mark()
	bob.cutLinks()
	waitAfter(ann, mark, "the link again", func(e room.PeerChanged) bool { return e.Peer.Name == "Bob" && e.Peer.State == room.PeerOpen })
	if slices.Contains(bob.nudged(ann, 0), snapshot.ID) {
		t.Error("who was not picked is offered it")
	}
	cleo.room.Leave(context.Background())
	wait(ann, "Cleo to leave", func(e room.PeerLeft) bool { return e.Peer.Name == "Cleo" })
	dan := w.join("Dan", ann.room.Link())
	dan.accept(ann)
	dan.check(dan.finished(id), file)
}

// TestChangesOfMind: what one of three does costs the others nothing, by the figures of their links.
func TestChangesOfMind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cleo", "Dan")
	ann, bob, cleo, dan := all[0], all[1], all[2], all[3]
	file := content(3*mib+7, 1)
	g := newGated(t, file, mib)
	id := ann.send(outFile("a.bin", g))
	for _, p := range []*person{cleo, dan} {
		p.accept(ann)
		ann.stored(p, mib)
	}
	offered := func(mark int) room.TransferID {
		e := waitAfter(bob, mark, "an offer", func(room.OfferReceived) bool { return true })
		return transferID(t, e.Offer.From, e.Offer.ID)
	}
	state := func(mark int, want room.DeliveryState) {
		t.Helper()
		waitAfter(ann, mark, string(want), func(e room.TransferProgress) bool {
			return slices.ContainsFunc(e.Transfer.Deliveries, func(d room.Delivery) bool { return d.Name == "Bob" && d.State == want })
		})
	}
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	retry := func() room.TransferID {
		mark := bob.mark()
		try(ann.room.Retry(id, bob.id()))
		return offered(mark)
	}
	mark := ann.mark()
	try(bob.room.Decline(offered(0), "no"))
	state(mark, room.DeliveryDeclined)
	second := retry()
	_, err := bob.room.Accept(second, nil)
	try(err)
	ann.stored(bob, mib)
	mark = ann.mark()
	try(bob.room.SetPaused(second, true))
	state(mark, room.DeliveryPaused)
	mark = ann.mark()
	try(bob.room.SetPaused(second, false))
	state(mark, room.DeliveryTransferring)
	mark = ann.mark()
	try(bob.room.Cancel(second))
	state(mark, room.DeliveryCancelled)
	third := retry()
	_, err = bob.room.Accept(third, nil)
	try(err)
	mark = ann.mark()
	try(ann.room.CancelDelivery(id, bob.id()))
	state(mark, room.DeliveryCancelled)
	fourth := retry()
	_, err = bob.room.Accept(fourth, nil)
	try(err)
	g.open()
	bob.check(bob.finished(fourth), file)
	for _, p := range []*person{cleo, dan} {
		p.check(p.finished(id), file)
		stats, err := ann.room.Stats(t.Context(), p.id())
		try(err)
		chunks := uint64(len(file)+1<<18-1) >> 18
		if stats.PayloadSent != uint64(len(file)) || stats.ChunksSent != chunks || stats.ChunksResent != 0 {
			t.Errorf("%s was sent %d bytes in %d chunks, %d of them again", p.name, stats.PayloadSent, stats.ChunksSent, stats.ChunksResent)
		}
		// Chunks with their heads, hashes and End.
		if n := p.bulk.Load(); n > int64(len(file))+32<<10 {
			t.Errorf("%s got %d bytes of records for a file of %d", p.name, n, len(file))
		}
	}
}

// committing is storage that makes nothing durable before it may.
type committing struct {
	transfer.Storage
	may chan struct{}
}

type committingFile struct {
	transfer.StoredFile
	may chan struct{}
}

func (s committing) Create(ctx context.Context, delivery, name string, size int64) (transfer.StoredFile, error) {
	f, err := s.Storage.Create(ctx, delivery, name, size)
	return committingFile{f, s.may}, err
}

func (f committingFile) Commit(ctx context.Context) error {
	<-f.may
	return f.StoredFile.Commit(ctx)
}

// TestStages: both ends tell of each stage, in order, however short it is; and neither says done while the recipient's disk has not answered.
func TestStages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", nil)
	may := make(chan struct{})
	bob := w.joinWith("Bob", ann.room.Link(), func(c *room.Config) { c.Storage = committing{c.Storage, may} })
	t.Cleanup(func() {
		select {
		case <-may:
		default:
			close(may)
		}
	})
	meetAll(ann, bob)
	file := content(mib, 1)
	id := ann.send(outFile("a.bin", file))
	bob.accept(ann)
	stages := func(p *person) (list []room.DeliveryState) {
		for _, e := range p.since(0) {
			var tr room.Transfer
			switch e := e.(type) {
			case room.TransferProgress:
				tr = e.Transfer
			case room.TransferFinished:
				tr = e.Transfer
			}
			if tr.ID == id.Transfer.String() {
				if state := tr.Deliveries[0].State; len(list) == 0 || list[len(list)-1] != state {
					list = append(list, state)
				}
			}
		}
		return list
	}
	for _, p := range []*person{ann, bob} {
		wait(p, "saving", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[0].State == room.DeliverySaving })
	}
	bob.nudged(ann, 0) // and back: whatever was said before has come
	ann.nudged(bob, 0)
	for _, p := range []*person{ann, bob} {
		if list := stages(p); list[len(list)-1] != room.DeliverySaving {
			t.Errorf("%s has seen %v while the disk has not answered", p.name, list)
		}
	}
	close(may)
	bob.check(bob.finished(id), file)
	ann.finished(id)
	want := []room.DeliveryState{room.DeliveryTransferring, room.DeliveryVerifying, room.DeliverySaving, room.DeliveryDone}
	for _, p := range []*person{ann, bob} {
		list := slices.DeleteFunc(stages(p), func(s room.DeliveryState) bool { return s == room.DeliveryOffered })
		if !slices.Equal(list, want) {
			t.Errorf("%s has seen %v", p.name, list)
		}
	}
}

// verifyReceipt checks the receipt in an entry of a ledger as PROTOCOL.md section 12 says, with nothing of the room: only the signature is seal's business.
// files are the recipient's, by path.
func verifyReceipt(ledger []byte, index int, files map[string]source) error {
	var l struct {
		Format    string
		Sender    struct{ ID, Keys string }
		ChunkSize uint32
		Manifest  string
		Files     []struct {
			Path, Root string
			Size       int64
		}
		Entries []struct {
			Peer, Keys, Transfer, Root, Signed, Signature string
			InMemory                                      bool
			Files                                         []struct {
				Index         uint32
				Path, Outcome string
			}
		}
	}
	if err := json.Unmarshal(ledger, &l); err != nil {
		return err
	}
	e := l.Entries[index]
	var failed error
	raw := func(s string, err error, p []byte) []byte {
		failed = errors.Join(failed, err)
		return p
	}
	text := func(s string) []byte { p, err := base64.StdEncoding.DecodeString(s); return raw(s, err, p) }
	digits := func(s string) []byte { p, err := hex.DecodeString(s); return raw(s, err, p) }
	hash := func(parts ...[]byte) []byte { sum := sha256.Sum256(bytes.Join(parts, nil)); return sum[:] }
	u32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	keys, manifest, signed, signature := text(e.Keys), text(l.Manifest), text(e.Signed), text(e.Signature)
	sender, transferID, root := digits(l.Sender.ID), digits(e.Transfer), digits(e.Root)
	if failed != nil || l.Format != "tallow-ledger-1" {
		return fmt.Errorf("format %q: %w", l.Format, failed)
	}
	if !bytes.Equal(hash([]byte("tallow v1 member"), keys)[:16], digits(e.Peer)) || !bytes.Equal(hash([]byte("tallow v1 member"), text(l.Sender.Keys))[:16], sender) {
		return errors.New("keys of somebody else")
	}
	bitmap := make([]byte, (len(l.Files)+7)/8)
	delivery := append(append([]byte("tallow v1 delivery"), sender...), append(transferID, hash(manifest)...)...)
	at := 0
	for i, f := range l.Files {
		// kind u8, size u64, modified u64, media type bytes8, path bytes16
		size := binary.BigEndian.Uint64(manifest[at+1:])
		at += 17 + 1 + int(manifest[at+17])
		path := manifest[at+2 : at+2+int(binary.BigEndian.Uint16(manifest[at:]))]
		at += 2 + len(path)
		if int64(size) != f.Size || string(path) != f.Path {
			return fmt.Errorf("file %d is %s of %d bytes in the manifest", i, path, size)
		}
		if e.Files[i].Outcome != "verified" {
			continue
		}
		bitmap[i/8] |= 1 << (i % 8)
		delivery = append(append(delivery, u32(uint32(i))...), digits(f.Root)...)
		if content, given := files[f.Path]; given {
			sums := append([]byte("tallow v1 file"), u32(l.ChunkSize)...)
			sums = binary.BigEndian.AppendUint64(sums, uint64(len(content)))
			for c := range slices.Chunk([]byte(content), int(l.ChunkSize)) {
				sums = append(sums, hash(c)...)
			}
			if !bytes.Equal(hash(sums), digits(f.Root)) {
				return fmt.Errorf("%s is another file", path)
			}
		}
	}
	if !bytes.Equal(hash(delivery), root) {
		return errors.New("the root is not that of the files")
	}
	const prefix = "tallow v1 receipt\x00"
	where := []byte{0}
	if e.InMemory {
		where[0] = 1
	}
	message := bytes.Join([][]byte{sender, digits(e.Transfer), root, bitmap, where}, nil)
	if !bytes.Equal(signed, append([]byte(prefix), message...)) {
		return errors.New("something else was signed")
	}
	return seal.VerifySignature(keys, seal.LabelReceipt, signed[len(prefix):], signature)
}

func toJSON(t *testing.T, v any) []byte {
	t.Helper()
	p, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestReceipt: what the ledger says of who has what can be checked without us, and nothing of it can be changed.
func TestReceipt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Cleo")
	ann, bob, cleo := all[0], all[1], all[2]
	files := map[string]source{"folder/a.bin": content(mib+9, 1), "b.bin": content(100, 2), "empty": nil}
	id := ann.send(outFile("folder/a.bin", files["folder/a.bin"]), outFile("b.bin", files["b.bin"]), outFile("empty", files["empty"]))
	for _, p := range []*person{bob, cleo} {
		wait(p, "an offer", func(room.OfferReceived) bool { return true })
	}
	if ledger, err := ann.room.Ledger(id); err != nil || ledger.Finished || ledger.Entries[0].Files[0].Outcome != "pending" || ledger.Entries[0].Ended != 0 {
		t.Errorf("before anybody has answered: %+v, %v", ledger, err)
	}
	if err := cleo.room.Decline(id, "no"); err != nil {
		t.Fatal(err)
	}
	wait(ann, "Cleo's answer", func(e room.TransferProgress) bool { return e.Transfer.Deliveries[1].State == room.DeliveryDeclined })
	mark := cleo.mark()
	if err := ann.room.Retry(id, cleo.id()); err != nil { // whose transfer has another id
		t.Fatal(err)
	}
	e := waitAfter(cleo, mark, "the offer again", func(room.OfferReceived) bool { return true })
	second := transferID(t, e.Offer.From, e.Offer.ID)
	if _, err := cleo.room.Accept(second, []uint32{0, 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := bob.room.Accept(id, nil); err != nil {
		t.Fatal(err)
	}
	bob.finished(id)
	cleo.finished(second)
	result := ann.finished(id)
	bob.room.Leave(context.Background()) // a receipt outlives its author's stay
	wait(ann, "Bob to leave", func(e room.PeerLeft) bool { return e.Peer.Name == "Bob" })
	ledger, err := ann.room.Ledger(id)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(toJSON(t, ledger.Entries), toJSON(t, result.Ledger)) || !ledger.Finished {
		t.Error("the result has another ledger")
	}
	if e := ledger.Entries[0]; e.Name != "Bob" || e.Offered == 0 || e.Ended < e.Offered || e.Ended > ledger.Made || e.Transfer != id.Transfer.String() {
		t.Errorf("%+v", e)
	}
	if e := ledger.Entries[1]; e.Transfer != second.Transfer.String() || e.Files[1].Outcome != "not-wanted" {
		t.Errorf("%+v", e)
	}
	good := toJSON(t, ledger)
	for i := range ledger.Entries {
		if err := verifyReceipt(good, i, files); err != nil {
			t.Errorf("%s: %v", ledger.Entries[i].Name, err)
		}
	}
	if verifyReceipt(good, 0, map[string]source{"b.bin": content(100, 3)}) == nil {
		t.Error("another file is taken for the one that was delivered")
	}
	flip := func(s string) string {
		p, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		p[len(p)/2] ^= 1
		return base64.StdEncoding.EncodeToString(p)
	}
	last := func(s string) string { // of a signature: ML-DSA's part; of what is signed: where the files are
		p, _ := base64.StdEncoding.DecodeString(s)
		p[len(p)-1] ^= 1
		return base64.StdEncoding.EncodeToString(p)
	}
	first := func(s string) string { // Ed25519's
		p, _ := base64.StdEncoding.DecodeString(s)
		p[0] ^= 1
		return base64.StdEncoding.EncodeToString(p)
	}
	other := func(s string) string { // hexadecimal
		if s[5] == '0' {
			return s[:5] + "1" + s[6:]
		}
		return s[:5] + "0" + s[6:]
	}
	for name, change := range map[string]func(*room.Ledger, *room.LedgerEntry){
		"keys": func(_ *room.Ledger, e *room.LedgerEntry) { e.Keys = flip(e.Keys) },
		"another's": func(_ *room.Ledger, e *room.LedgerEntry) {
			e.Keys, e.Peer = ledger.Entries[1].Keys, ledger.Entries[1].Peer
		},
		"signed":        func(_ *room.Ledger, e *room.LedgerEntry) { e.Signed = flip(e.Signed) },
		"signature, Ed": func(_ *room.Ledger, e *room.LedgerEntry) { e.Signature = first(e.Signature) },
		"signature, ML": func(_ *room.Ledger, e *room.LedgerEntry) { e.Signature = last(e.Signature) },
		"where":         func(_ *room.Ledger, e *room.LedgerEntry) { e.InMemory = true },
		"where, signed": func(_ *room.Ledger, e *room.LedgerEntry) { e.InMemory, e.Signed = true, last(e.Signed) },
		"root":          func(_ *room.Ledger, e *room.LedgerEntry) { e.Root = other(e.Root) },
		"transfer":      func(_ *room.Ledger, e *room.LedgerEntry) { e.Transfer = other(e.Transfer) },
		"outcome":       func(_ *room.Ledger, e *room.LedgerEntry) { e.Files[1].Outcome = "failed" },
		"sender":        func(l *room.Ledger, _ *room.LedgerEntry) { l.Sender.ID = other(l.Sender.ID) },
		"manifest":      func(l *room.Ledger, _ *room.LedgerEntry) { l.Manifest = last(l.Manifest) },
		"path":          func(l *room.Ledger, _ *room.LedgerEntry) { l.Files[1].Path = "c.bin" },
		"size":          func(l *room.Ledger, _ *room.LedgerEntry) { l.Files[1].Size++ },
		"file's root":   func(l *room.Ledger, _ *room.LedgerEntry) { l.Files[0].Root = other(l.Files[0].Root) },
	} {
		var l room.Ledger
		if err := json.Unmarshal(good, &l); err != nil {
			t.Fatal(err)
		}
		change(&l, &l.Entries[0])
		if verifyReceipt(toJSON(t, l), 0, nil) == nil {
			t.Errorf("%s: changed, and the receipt still holds", name)
		}
	}
}

// inMemory is storage that is lost with its process.
type inMemory struct{ transfer.Storage }

func (inMemory) InMemory() bool { return true }

// TestReceiptFromMemory: who holds files only in memory signs just that, and both ends say so, the sender after a restart, too; but not of what was accepted
// into a disk.
func TestReceiptFromMemory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	annLife := w.life("Ann", nil)
	ann := annLife.born()
	memory := func(c *room.Config) { c.Storage = inMemory{c.Storage} }
	bob, cleo := w.joinWith("Bob", *annLife.link, memory), w.joinWith("Cleo", *annLife.link, memory)
	ann.meet(bob, cleo)
	file := content(1000, 1)
	id := ann.send(outFile("a.bin", file))
	offered := wait(cleo, "an offer", func(room.OfferReceived) bool { return true }).Offer
	bob.accept(ann)
	held := func(tr room.Transfer) bool {
		return slices.ContainsFunc(tr.Deliveries, func(d room.Delivery) bool { return d.State == room.DeliveryDone && d.InMemory })
	}
	wait(bob, "the end, in memory", func(e room.TransferFinished) bool { return held(e.Transfer) })
	wait(ann, "Bob's receipt", func(e room.TransferProgress) bool { return held(e.Transfer) })

	w.crash(ann, bob, cleo)
	ann = annLife.born()
	if e := wait(ann, "the transfer to be restored", func(room.TransferResumed) bool { return true }); !held(e.Transfer) {
		t.Errorf("restored: %+v", e.Transfer.Deliveries)
	}
	if _, err := ann.room.Continue(id, []room.OutFile{outFile("a.bin", file)}, false); err != nil {
		t.Fatal(err)
	}
	ann.meet(bob, cleo)
	disk, err := diskstore.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cleo.room.AcceptInto(disk, transferID(t, offered.From, offered.ID), nil); err != nil {
		t.Fatal(err)
	}
	result := ann.done(id)
	ledger, err := ann.room.Ledger(id)
	if err != nil || !entry(t, result, bob).InMemory || entry(t, result, cleo).InMemory {
		t.Errorf("%v, %+v", err, result.Ledger)
	}
	for i := range ledger.Entries {
		if err := verifyReceipt(toJSON(t, ledger), i, map[string]source{"a.bin": file}); err != nil {
			t.Errorf("%s: %v", ledger.Entries[i].Name, err)
		}
	}
}
