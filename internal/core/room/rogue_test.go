//go:build !js

package room_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/bulk/bulktest"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/room"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// rogue is a genuine member with genuine links, over which it says whatever it likes. What it is told, its room ignores.
type rogue struct{ *person }

// tell sends messages to a member, over both channels: control messages, bulk messages, and raw bytes of either.
func (g rogue) tell(to *person, messages ...any) {
	g.t.Helper()
	link := g.room.LinkTo(to.id())
	if link == nil {
		g.t.Fatalf("%s has no link to %s", g.name, to.name)
	}
	for _, m := range messages {
		switch m := m.(type) {
		case wire.ControlMessage:
			link.SendControl(m)
		case wire.Hashes:
			link.SendBulk(peer.BulkItem{Head: m.Append(nil)})
		case wire.Chunks:
			link.SendBulk(peer.BulkItem{Head: append(m.AppendHead(nil), m.Data...)})
		case wire.End:
			link.SendBulk(peer.BulkItem{Head: m.Append(nil)})
		case rawBulk:
			link.SendBulk(peer.BulkItem{Head: m})
		default:
			g.t.Fatalf("%T", m)
		}
	}
}

type rawBulk []byte

type rawControl []byte

func (rawControl) ControlType() wire.ControlType { return 0 }
func (m rawControl) Append(b []byte) []byte      { return append(b, m...) }

// forged is a file set that the rogue offers, with all that a sender says of it.
type forged struct {
	key      transfer.Key
	manifest *chunk.Manifest
	offer    wire.TransferOffer
	files    []source
}

// forge makes a transfer of files with paths.
func (g rogue) forge(to *person, paths []string, files ...source) forged {
	g.t.Helper()
	var entries []wire.FileEntry
	for i, f := range files {
		entries = append(entries, wire.FileEntry{Path: paths[i], Size: uint64(len(f))})
	}
	m, err := chunk.NewManifest(wire.MinChunkSize, entries)
	if err != nil {
		g.t.Fatal(err)
	}
	f := forged{key: transfer.Key{Sender: g.id()}, manifest: m, files: files}
	rand.Read(f.key.Transfer[:])
	f.offer = wire.TransferOffer{Transfer: f.key.Transfer, ChunkSize: m.ChunkSize, Files: uint32(len(files)), TotalSize: m.Total,
		ManifestLength: uint32(len(m.Encoded)), ManifestHash: m.Hash, Participants: []wire.ID{to.id()}}
	return f
}

// present makes the offer, which the member accepts.
func (g rogue) present(to *person, f forged) room.Offer {
	g.t.Helper()
	g.tell(to, f.offer, wire.ManifestPart{Transfer: f.key.Transfer, Data: f.manifest.Encoded})
	e := wait(to, "the rogue's offer", func(e room.OfferReceived) bool { return e.Offer.ID == f.key.Transfer.String() })
	if _, err := to.room.Accept(f.key, nil); err != nil {
		g.t.Fatal(err)
	}
	return e.Offer
}

func (f forged) hashes(file uint32) wire.Hashes {
	run := wire.HashRun{File: file}
	for c := range slices.Chunk(f.files[file], wire.MinChunkSize) {
		h := sha256.Sum256(c)
		run.List = append(run.List, h[:]...)
	}
	return wire.Hashes{Sender: f.key.Sender, Transfer: f.key.Transfer, Runs: []wire.HashRun{run}}
}

func (f forged) chunk(file, index uint32) wire.Chunks {
	d := f.files[file][index*wire.MinChunkSize:]
	d = d[:min(len(d), wire.MinChunkSize)]
	return wire.Chunks{Sender: f.key.Sender, Transfer: f.key.Transfer, Data: slices.Clone(d),
		Entries: []wire.ChunkEntry{{File: file, Index: index, RawLength: uint32(len(d)), Length: uint32(len(d))}}}
}

// packed is a chunk compressed, and then changed.
func (f forged) packed(file, index uint32, change func([]byte) []byte) wire.Chunks {
	m := f.chunk(file, index)
	m.Data = bulktest.Deflated(m.Data)
	if change != nil {
		m.Data = change(m.Data)
	}
	m.Entries[0].Compressed, m.Entries[0].Length = true, uint32(len(m.Data))
	return m
}

// end is the End of the whole, signed by whoever.
func (f forged) end(by *seal.Identity) wire.End {
	all := f.manifest.All()
	root := f.manifest.DeliveryRoot(f.key.Sender, f.key.Transfer, all, func(file uint32) wire.Hash {
		var list []wire.Hash
		for c := range slices.Chunk(f.files[file], wire.MinChunkSize) {
			list = append(list, sha256.Sum256(c))
		}
		return f.manifest.FileRoot(file, list)
	})
	return wire.End{Transfer: f.key.Transfer, Root: root, Files: all,
		Signature: by.Sign(seal.LabelEnd, wire.AppendDelivery(nil, f.key.Sender, f.key.Transfer, root, all))}
}

// cut waits until p has cut the rogue off for a violation and named it.
func (p *person) cut(mark int, g rogue) {
	p.t.Helper()
	waitAfter(p, mark, "the rogue to be cut off", func(e room.Problem) bool {
		return e.Code == fault.ProtocolViolation && e.Peer == g.room.Self().ID
	})
}

// kept checks that p has kept its link to another since a mark.
func (p *person) kept(mark int, other *person) {
	p.t.Helper()
	id := other.room.Self().ID
	for _, e := range p.since(mark) {
		switch e := e.(type) {
		case room.PeerLeft:
			if e.Peer.ID == id {
				p.t.Errorf("%s lost %s", p.name, other.name)
			}
		case room.PeerChanged:
			if e.Peer.ID == id && e.Peer.State != room.PeerOpen {
				p.t.Errorf("%s: the link to %s is %s", p.name, other.name, e.Peer.State)
			}
		}
	}
}

// another is a rogue that comes when the last one has been cut off: that one would have to wait for its next link.
func (w *world) another(name string, link seal.Link, others ...*person) rogue {
	w.t.Helper()
	p := w.join(name, link)
	p.meet(others...)
	for _, o := range others {
		o.meet(p)
	}
	return rogue{p}
}

// onDisk is every file under p's directory, by its path there.
func (p *person) onDisk() map[string]wire.Hash {
	p.t.Helper()
	files := map[string]wire.Hash{}
	err := filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(p.dir, path)
		files[rel] = sha256.Sum256(b)
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return files
}

// onlyHas checks that p, which leaves, has nothing on disk but the files of these deliveries.
func (p *person) onlyHas(deliveries map[string][]source) {
	p.t.Helper()
	p.room.Leave(context.Background()) // what was discarded is gone when it returns
	got := p.onDisk()
	for delivery, files := range deliveries {
		path := filepath.Join(delivery, room.StoredName)
		if got[path] != sha256.Sum256(slices.Concat(files...)) {
			p.t.Errorf("%s: the files differ or are missing", p.name)
		}
		delete(got, path)
	}
	for path := range got {
		p.t.Errorf("%s: there is also %s", p.name, path)
	}
}

// rogues makes a room of two honest members and a rogue, with a transfer from Ann to Bob under way.
func rogues(t *testing.T) (w *world, ann, bob *person, g rogue, file source, gate *gated, id room.TransferID) {
	t.Helper()
	w = newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Eve")
	ann, bob, g = all[0], all[1], rogue{all[2]}
	file = content(2*mib, 1)
	gate = newGated(t, file, mib)
	snapshot, err := ann.room.Send([]room.OutFile{outFile("a.bin", gate)}, room.SendOptions{To: []wire.ID{bob.id()}})
	if err != nil {
		t.Fatal(err)
	}
	id = transferID(t, ann.room.Self().ID, snapshot.ID)
	bob.accept(ann)
	ann.stored(bob, mib)
	return w, ann, bob, g, file, gate, id
}

// signed is a receipt with the rogue's signature.
func (g rogue) signed(receipt wire.Receipt, sender wire.ID) wire.Receipt {
	receipt.Signature = g.room.Identity().Sign(seal.LabelReceipt, receipt.AppendSigned(nil, sender))
	return receipt
}

// TestRogueMember: a third member meddles with a transfer between two others, at both ends, in its own name and in theirs. It is not
// heard, and the transfer is completed by its honest source.
func TestRogueMember(t *testing.T) {
	t.Parallel()
	_, ann, bob, g, file, gate, id := rogues(t)
	anns, bobs := ann.mark(), bob.mark()
	all := wire.Bitmap{1}
	evil := content(256<<10, 66) // Ann's chunk size
	sum := sha256.Sum256(evil)
	identity := g.room.Identity()
	root := wire.Hash(sum)
	for _, sender := range []wire.ID{id.Sender, g.id()} {
		for _, index := range []uint32{0, 4, 7, 1 << 20} { // stored, announced, to come, nowhere
			g.tell(bob, wire.Chunks{Sender: sender, Transfer: id.Transfer, Data: evil,
				Entries: []wire.ChunkEntry{{Index: index, RawLength: uint32(len(evil)), Length: uint32(len(evil))}}})
		}
		g.tell(bob, wire.Cancel{Sender: sender, Transfer: id.Transfer, Code: wire.FailureCancelled}, wire.Pause{Sender: sender, Transfer: id.Transfer, Paused: true})
		g.tell(ann, wire.Have{Sender: sender, Transfer: id.Transfer, Runs: []wire.Run{{Count: 8}}},
			wire.Cancel{Sender: sender, Transfer: id.Transfer, Code: wire.FailureCancelled}, wire.Pause{Sender: sender, Transfer: id.Transfer, Paused: true})
	}
	g.tell(bob, wire.FileFailed{Transfer: id.Transfer, Code: wire.FailureFileChanged},
		wire.ManifestPart{Transfer: id.Transfer, Data: []byte("x")},
		wire.Hashes{Sender: g.id(), Transfer: id.Transfer, Runs: []wire.HashRun{{List: sum[:]}}},
		wire.End{Transfer: id.Transfer, Root: root, Files: all,
			Signature: identity.Sign(seal.LabelEnd, wire.AppendDelivery(nil, g.id(), id.Transfer, root, all))})
	g.tell(ann, wire.Accept{Transfer: id.Transfer, Credit: 1 << 40, Files: all, Complete: wire.Bitmap{0}},
		wire.Credit{Transfer: id.Transfer, Granted: 1 << 50, Stored: 1 << 50}, wire.Decline{Transfer: id.Transfer, Reason: "no"},
		g.signed(wire.Receipt{Transfer: id.Transfer, Root: root, Files: all}, ann.id()))
	received := g.bulk.Load()
	settled(g.person, ann) // both have heard all of it
	settled(g.person, bob)
	gate.open()
	result := bob.finished(id)
	bob.check(result, file)
	if e := entry(t, ann.finished(id), bob); e.State != room.DeliveryDone {
		t.Errorf("ledger: %+v", e)
	}
	ann.stayed(anns)
	bob.stayed(bobs)
	if n := g.bulk.Load() - received; n > 0 {
		t.Errorf("the rogue was sent %d bytes of records", n)
	}
}

// TestSecondSource: while a sender is slow, another member sends chunks, hashes and an end of the same transfer. Wrong ones cost the
// sender and the recipient nothing.
func TestSecondSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob", "Eve")
	ann, honest, g := all[0], rogue{all[1]}, rogue{all[2]}
	mark := ann.mark()
	f := honest.forge(ann, []string{"a.bin"}, content(3*wire.MinChunkSize-9, 1))
	honest.present(ann, f)
	honest.tell(ann, f.hashes(0), f.chunk(0, 0))
	settled(honest.person, ann) // Ann knows the hashes
	bad := f.chunk(0, 1)
	bad.Data[0] ^= 1
	own := f // under the rogue's name, which is another transfer
	own.key.Sender = g.id()
	g.tell(ann, bad, own.hashes(0), own.chunk(0, 1), own.end(g.room.Identity()))
	settled(g.person, ann)
	honest.tell(ann, f.chunk(0, 1), f.chunk(0, 2), f.end(honest.room.Identity()))
	result := ann.finished(f.key)
	ann.check(result, f.files...)
	ann.stayed(mark)
}

// TestRogueSender: a member that is a transfer's sender cheats. The recipient cuts it off and says so, keeps nothing of it, and its
// transfer with another goes on.
func TestRogueSender(t *testing.T) {
	t.Parallel()
	w, ann, bob, g, file, gate, id := rogues(t)
	anns := ann.mark()
	for _, test := range []struct {
		name string
		code fault.Code // of the transfer that was accepted; "": it does not come to that
		do   func(f forged)
	}{
		{"chunk that is not what was announced", fault.Integrity, func(f forged) {
			g.present(bob, f)
			bad := f.chunk(0, 1)
			bad.Data[9] ^= 1
			g.tell(bob, f.hashes(0), f.chunk(0, 0), bad)
		}},
		{"more than a message may hold", fault.ProtocolViolation, func(f forged) {
			g.present(bob, f)
			two, second := f.chunk(0, 0), f.chunk(0, 1)
			two.Entries, two.Data = append(two.Entries, second.Entries...), append(two.Data, second.Data...)
			g.tell(bob, f.hashes(0), two)
		}},
		{"compressed chunk that goes on behind its end", fault.Integrity, func(f forged) {
			g.present(bob, f)
			g.tell(bob, f.hashes(0), f.packed(0, 0, nil), f.packed(0, 1, func(p []byte) []byte { return append(p, 0) }))
		}},
		{"compressed chunk that is cut off", fault.Integrity, func(f forged) {
			g.present(bob, f)
			g.tell(bob, f.hashes(0), f.packed(0, 0, func(p []byte) []byte { return p[:len(p)-1] }))
		}},
		{"bomb", fault.Integrity, func(f forged) {
			g.present(bob, f)
			g.tell(bob, f.hashes(0), f.packed(0, 0, func([]byte) []byte { return bulktest.Deflated(make([]byte, 32<<20)) }))
		}},
		{"data that nobody has accepted", "", func(f forged) {
			g.tell(bob, f.offer, wire.ManifestPart{Transfer: f.key.Transfer, Data: f.manifest.Encoded})
			wait(bob, "the rogue's offer", func(e room.OfferReceived) bool { return e.Offer.ID == f.key.Transfer.String() })
			g.tell(bob, f.hashes(0))
		}},
		{"end with a damaged signature", fault.ProtocolViolation, func(f forged) {
			g.present(bob, f)
			end := f.end(g.room.Identity())
			end.Signature[70] ^= 1
			g.tell(bob, f.hashes(0), f.chunk(0, 0), f.chunk(0, 1), end)
		}},
		{"end signed for another transfer", fault.ProtocolViolation, func(f forged) {
			g.present(bob, f)
			other := f
			other.key.Transfer[0] ^= 1
			end := f.end(g.room.Identity())
			end.Signature = other.end(g.room.Identity()).Signature
			g.tell(bob, f.hashes(0), f.chunk(0, 0), f.chunk(0, 1), end)
		}},
		{"hashes in another's name", "", func(f forged) {
			h := f.hashes(0)
			h.Sender, h.Transfer = id.Sender, id.Transfer
			g.tell(bob, h)
		}},
		{"offer to others", "", func(f forged) {
			f.offer.Participants = []wire.ID{ann.id()}
			g.tell(bob, f.offer)
		}},
		{"bulk message of no kind", "", func(forged) { g.tell(bob, rawBulk{9, 1, 2, 3}) }},
		{"empty bulk message", "", func(forged) { g.tell(bob, rawBulk{}) }},
		{"control message of no kind", "", func(forged) { g.tell(bob, rawControl{200, 1, 2, 3}) }},
	} {
		t.Log(test.name)
		mark := bob.mark()
		f := g.forge(bob, []string{"b.bin"}, bulktest.Text(2*wire.MinChunkSize))
		test.do(f)
		bob.cut(mark, g)
		if test.code != "" {
			if r := bob.finished(f.key); r.Code != test.code || len(r.Stored) > 0 {
				t.Errorf("%s: %+v", test.name, r)
			}
		}
		g.room.Leave(context.Background())
		g = w.another("Eve, after "+test.name, ann.room.Link(), ann, bob)
	}
	gate.open()
	result := bob.finished(id)
	bob.check(result, file)
	ann.kept(anns, bob)
	bob.onlyHas(map[string][]source{result.Delivery: {file}})
}

// TestRogueRecipient: a member that is one of two recipients cheats. The sender cuts it off and says so, and the other one gets the file.
func TestRogueRecipient(t *testing.T) {
	t.Parallel()
	w, ann, bob, g, first, firstGate, firstID := rogues(t)
	bobs := bob.mark()
	receipt := func(id wire.ID, sender wire.ID, root wire.Hash, files wire.Bitmap) wire.Receipt {
		return g.signed(wire.Receipt{Transfer: id, Root: root, Files: files}, sender)
	}
	for _, test := range []struct {
		name   string
		accept bool // in earnest, first
		say    func(id wire.ID) wire.ControlMessage
	}{
		{"receipt for another's transfer", true, func(id wire.ID) wire.ControlMessage { return receipt(id, bob.id(), wire.Hash{}, wire.Bitmap{1}) }},
		{"receipt for another root", true, func(id wire.ID) wire.ControlMessage { return receipt(id, ann.id(), wire.Hash{1}, wire.Bitmap{1}) }},
		{"have-map beyond the file", false, func(id wire.ID) wire.ControlMessage {
			return wire.Have{Sender: ann.id(), Transfer: id, Runs: []wire.Run{{First: 1, Count: 1 << 31}}}
		}},
		{"accept of files that do not exist", false, func(id wire.ID) wire.ControlMessage {
			return wire.Accept{Transfer: id, Credit: 1 << 63, Files: wire.Bitmap{3}, Complete: wire.Bitmap{0}}
		}},
		{"second accept", true, func(id wire.ID) wire.ControlMessage {
			return wire.Accept{Transfer: id, Credit: 1 << 63, Files: wire.Bitmap{1}, Complete: wire.Bitmap{1}}
		}},
	} {
		t.Log(test.name)
		mark := ann.mark()
		file := content(1000, 4)
		gate := newGated(t, file, 0)
		id := ann.sendTo([]wire.ID{bob.id(), g.id()}, outFile("b.bin", gate))
		wait(g.person, "an offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
		if test.accept {
			if _, err := g.room.Accept(id, nil); err != nil {
				t.Fatal(err)
			}
		}
		wait(bob, "an offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
		if _, err := bob.room.Accept(id, nil); err != nil {
			t.Fatal(err)
		}
		g.tell(ann, test.say(id.Transfer))
		ann.cut(mark, g)
		g.room.Leave(context.Background())
		gate.open()
		bob.check(bob.finished(id), file)
		result := ann.finished(id)
		if e := entry(t, result, g.person); e.State != room.DeliveryFailed || e.Code != fault.ProtocolViolation || e.Files[0].Outcome != "failed" {
			t.Errorf("%s: %+v", test.name, e)
		}
		if e := entry(t, result, bob); e.State != room.DeliveryDone {
			t.Errorf("%s: Bob: %+v", test.name, e)
		}
		g = w.another("Eve, after "+test.name, ann.room.Link(), ann, bob)
	}
	firstGate.open()
	bob.check(bob.finished(firstID), first)
	bob.kept(bobs, ann)
}

// TestRogueReceipt: a receipt that is awaited counts only with the recipient's signature.
func TestRogueReceipt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Eve")
	ann, g := all[0], rogue{all[1]}
	m, err := chunk.NewManifest(chunk.SizeFor(0), []wire.FileEntry{{Path: "empty"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		damage func(*wire.Receipt)
		state  room.DeliveryState
	}{
		"genuine":           {func(*wire.Receipt) {}, room.DeliveryDone},
		"of nobody":         {func(r *wire.Receipt) { r.Signature[0] ^= 1 }, room.DeliveryFailed},
		"for another place": {func(r *wire.Receipt) { r.InMemory = true }, room.DeliveryFailed},
	} {
		var e room.LedgerEntry
		// What comes before the End is signed is a violation whatever its signature, and Eve's own room ends the link when the End comes to it, which
		// it has not asked for: the receipt goes out at once with the Accept, and may be too early on a busy machine.
		for range 4 {
			id := ann.sendTo([]wire.ID{g.id()}, outFile("empty", source{}))
			wait(g.person, "an offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
			root := m.DeliveryRoot(ann.id(), id.Transfer, m.All(), func(uint32) wire.Hash { return m.FileRoot(0, nil) })
			receipt := g.signed(wire.Receipt{Transfer: id.Transfer, Root: root, Files: m.All()}, ann.id())
			c.damage(&receipt)
			g.tell(ann, wire.Accept{Transfer: id.Transfer, Files: m.All(), Complete: wire.Bitmap{0}}, receipt)
			e = entry(t, ann.finished(id), g.person)
			g.room.Leave(context.Background())
			g = w.another("Eve, after "+name, ann.room.Link(), ann)
			if e.State == c.state {
				break
			}
		}
		if e.State != c.state {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestRogueFlood: messages about transfers that nobody knows, and offers without end, leave nothing behind.
func TestRogueFlood(t *testing.T) {
	t.Parallel()
	n := 2_000
	if os.Getenv("TALLOW_SOAK") != "" {
		n = 100_000
	}
	_, ann, bob, g, file, gate, id := rogues(t)
	anns, mark := ann.mark(), bob.mark()
	f := g.forge(bob, []string{"b.bin"}, content(1000, 3))
	unsigned := make([]byte, wire.SignatureSize)
	for i := range n {
		var unknown wire.ID
		rand.Read(unknown[:])
		f.key.Transfer, f.offer.Transfer = unknown, unknown
		if i >= 2_000 { // one message for each, as the rogue's own queues have bounds
			message := []wire.ControlMessage{f.offer, wire.ManifestPart{Transfer: unknown, Data: []byte{1}}, wire.Have{Sender: bob.id(), Transfer: unknown},
				wire.Cancel{Sender: bob.id(), Transfer: unknown, Code: 1}}
			g.tell(bob, message[i%len(message)])
			continue
		}
		switch i % 4 {
		case 0:
			g.tell(bob, f.offer)
		case 1:
			g.tell(bob, f.offer, wire.ManifestPart{Transfer: unknown, Data: f.manifest.Encoded}, wire.Cancel{Sender: g.id(), Transfer: unknown, Code: 1})
		case 2:
			g.tell(bob, wire.ManifestPart{Transfer: unknown, Data: []byte{1}}, wire.FileFailed{Transfer: unknown, Code: 1},
				wire.Have{Sender: bob.id(), Transfer: unknown}, wire.Accept{Transfer: unknown}, wire.Credit{Transfer: unknown}, wire.Decline{Transfer: unknown},
				wire.Cancel{Sender: bob.id(), Transfer: unknown, Code: 1}, wire.Pause{Sender: wire.ID{1}, Transfer: unknown},
				// Nobody verifies these: a bad signature would end the link.
				wire.Receipt{Transfer: unknown, Files: wire.Bitmap{1}, Signature: unsigned}, wire.End{Transfer: unknown, Files: wire.Bitmap{1}, Signature: unsigned})
		default:
			g.tell(bob, f.hashes(0), f.chunk(0, 0))
		}
	}
	g.tell(bob, rawControl{200}) // the last word, after which Bob has heard all of it
	waitAfter(bob, mark, "the rogue to be cut off", func(e room.Problem) bool { return e.Peer == g.room.Self().ID })
	if kept := bob.room.Kept(); kept > 1+8+1 {
		t.Errorf("Bob keeps %d transfers", kept)
	}
	if offers := len(bob.room.Offers()); offers > 8 {
		t.Errorf("Bob is asked about %d offers", offers)
	}
	bob.cut(mark, g)
	gate.open()
	bob.check(bob.finished(id), file)
	ann.stayed(anns)
}

// TestRoguePongs: an answer to no Ping says nothing of the round trip, were it the one with which empty slots are marked.
func TestRoguePongs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Eve")
	ann, g := all[0], rogue{all[1]}
	mark := ann.mark()
	for token := range uint64(16) {
		g.tell(ann, wire.Pong{Token: token << 40}, wire.Pong{})
	}
	waitAfter(ann, mark, "a genuine answer", func(e room.PeerChanged) bool { return e.Peer.RTT > 0 })
	for _, e := range ann.since(mark) {
		if e, ok := e.(room.PeerChanged); ok && e.Peer.RTT > float64(patience.Milliseconds()) {
			t.Fatalf("a round trip of %v ms", e.Peer.RTT)
		}
	}
	if s := ann.figures(g.person); s.State != room.PeerOpen || s.CurrentRTT > float64(patience.Milliseconds()) {
		t.Errorf("%+v", s)
	}
}

// TestRogueOffers: the files of all offers of a member that wait for an answer are bounded, not only their number.
func TestRogueOffers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Eve")
	ann, g := all[0], rogue{all[1]}
	for i := range 3 {
		f := g.forge(ann, []string{"a"}, content(1, 1))
		f.offer.Files, f.offer.ManifestLength = wire.MaxFiles/2, 22*wire.MaxFiles/2
		if i == 2 {
			f.offer.Files = 1
		}
		g.tell(ann, f.offer)
	}
	mark := ann.mark()
	g.tell(ann, rawControl{200})
	ann.cut(mark, g)
	if n := ann.room.Kept(); n != 2 {
		t.Errorf("%d offers are kept", n)
	}
}

// lingeringConn takes its time to close.
type lingeringConn struct {
	peer.Conn
	closing func()
	over    <-chan struct{}
}

func (c lingeringConn) Close() error {
	c.closing()
	<-c.over
	return c.Conn.Close()
}

// slowSums takes its time to hash, once it is told to.
type slowSums struct {
	bulk.Go
	slow          atomic.Bool
	hashing, over chan struct{}
	once          sync.Once
}

func (e *slowSums) Sum256(p []byte) ([bulk.HashSize]byte, error) {
	if e.slow.Load() {
		e.once.Do(func() { close(e.hashing) })
		<-e.over
	}
	return e.Go.Sum256(p)
}

// TestRogueLost: a member breaks the protocol, and before it is known what it has done, the link is lost, the delivery over or the member removed. It is left
// alone all the same, for one offence.
func TestRogueLost(t *testing.T) {
	message := func(g rogue, ann *person, _ func()) forged {
		g.tell(ann, rawControl{200})
		return forged{}
	}
	chunk := func(g rogue, ann *person, slow func()) forged {
		f := g.forge(ann, []string{"a"}, content(1000, 1))
		g.present(ann, f)
		announced := f.hashes(0)
		f.files[0] = content(1000, 2)
		slow()
		g.tell(ann, announced, f.chunk(0, 0))
		return f
	}
	lost := func(g rogue, ann *person, _ forged) {
		mark := ann.mark()
		g.cutLinks()
		waitAfter(ann, mark, "the link to be lost", func(e room.PeerChanged) bool { return e.Peer.State == room.PeerConnecting })
	}
	removed := func(g rogue, ann *person, _ forged) {
		if err := ann.room.Remove(g.id()); err != nil {
			g.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		breaks func(g rogue, ann *person, slow func()) forged
		then   func(g rogue, ann *person, f forged)
		gone   bool
	}{
		"message, link lost": {message, lost, false},
		"message, removed":   {message, removed, true},
		"chunk, link lost":   {chunk, lost, false},
		"chunk, removed":     {chunk, removed, true},
		"chunk, cancelled": {chunk, func(g rogue, ann *person, f forged) {
			g.tell(ann, wire.Cancel{Sender: g.id(), Transfer: f.key.Transfer, Code: wire.FailureCancelled})
			ann.finished(f.key)
		}, false},
		"whatever it can": {func(g rogue, ann *person, _ func()) forged {
			g.tell(ann, append(slices.Repeat([]any{rawBulk{200}}, 50), rawControl{200})...)
			return forged{}
		}, func(g rogue, ann *person, _ forged) { g.cutLinks() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 11, 0)
			sums := &slowSums{hashing: make(chan struct{}), over: make(chan struct{})}
			seen := func() { sums.once.Do(func() { close(sums.hashing) }) }
			var armed atomic.Bool
			ann := w.create("Ann", func(c *room.Config) {
				c.Engine = sums
				open := c.NewConn
				c.NewConn = func(cfg peer.ConnConfig) (peer.Conn, error) {
					conn, err := open(cfg)
					return lingeringConn{conn, func() {
						if armed.Load() {
							seen()
						}
					}, sums.over}, err
				}
			})
			over := sync.OnceFunc(func() { close(sums.over) })
			t.Cleanup(over) // before Ann leaves
			g := rogue{w.join("Eve", ann.room.Link())}
			meetAll(ann, g.person)
			armed.Store(true)
			mark := ann.mark()
			f := c.breaks(g, ann, func() { sums.slow.Store(true) })
			<-sums.hashing
			c.then(g, ann, f)
			opened := ann.mark()
			over()
			ann.cut(mark, g)
			if !c.gone {
				waitAfter(ann, opened, "another link", func(e room.PeerChanged) bool { return e.Peer.State == room.PeerOpen })
			}
			told := 0
			for _, e := range ann.since(mark) {
				if _, problem := e.(room.Problem); problem {
					told++
				}
			}
			if n := ann.room.Offences(g.id()); n != 1 || told != 1 {
				t.Errorf("%d offences, told of %d problems", n, told)
			}
		})
	}
}

// TestUnansweredOffers: an offer beyond what may wait for an answer ends at once, and not in the name of somebody who was never asked.
func TestUnansweredOffers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Bob")
	ann, bob := all[0], all[1]
	for range 8 {
		id := ann.send(outFile("a", content(1, 1)))
		wait(bob, "an offer", func(e room.OfferReceived) bool { return e.Offer.ID == id.Transfer.String() })
	}
	id := ann.send(outFile("a", content(1, 1)))
	if e := entry(t, ann.finished(id), bob); e.State != room.DeliveryFailed || e.Code != fault.TooLarge {
		t.Errorf("ledger: %+v", e)
	}
	if n := len(bob.room.Offers()); n != 8 {
		t.Errorf("Bob is asked about %d offers", n)
	}
}

// TestRogueWithdrawals: a member that makes offers and withdraws them has its recipient shown a bounded number, and some more with time. Offers that are
// accepted are not counted, however many there are.
func TestRogueWithdrawals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	clock := newClock()
	ann := w.create("Ann", func(c *room.Config) { c.Now = clock.Now })
	bob, g := w.join("Bob", ann.room.Link()), rogue{w.join("Eve", ann.room.Link())}
	meetAll(ann, bob, g.person)
	clock.run(0)
	f := g.forge(ann, []string{"a"}, content(1, 1))
	shown := func(until string) (n int) {
		for i := 0; i < 96; i += 8 { // as many as may wait together
			var made, withdrawn []any
			for j := range 8 {
				f.offer.Transfer[0] = byte(i + j)
				made = append(made, f.offer, wire.ManifestPart{Transfer: f.offer.Transfer, Data: f.manifest.Encoded})
				withdrawn = append(withdrawn, wire.Cancel{Sender: g.id(), Transfer: f.offer.Transfer, Code: wire.FailureCancelled})
			}
			g.tell(ann, append(made, withdrawn...)...)
		}
		g.tell(ann, wire.Profile{Name: until})
		wait(ann, "all of it", func(e room.PeerChanged) bool { return e.Peer.Name == until })
		for _, e := range ann.since(0) {
			if e, ok := e.(room.OfferReceived); ok && e.Offer.From == g.room.Self().ID {
				n++
			}
		}
		return n
	}
	if n := shown("once"); n != 64 {
		t.Errorf("%d offers were shown", n)
	}
	clock.skip(3 * time.Second)
	if n := shown("twice"); n != 67 {
		t.Errorf("%d offers were shown after some time", n)
	}

	clock.run(1)
	for range 100 {
		mark := ann.mark()
		if _, err := bob.room.Send([]room.OutFile{outFile("a", content(1, 1))}, room.SendOptions{To: []wire.ID{ann.id()}}); err != nil {
			t.Fatal(err)
		}
		e := waitAfter(ann, mark, "an offer", func(room.OfferReceived) bool { return true })
		id := transferID(t, e.Offer.From, e.Offer.ID)
		if _, err := ann.room.Accept(id, nil); err != nil {
			t.Fatal(err)
		}
		if r := ann.finished(id); r.Code != "" {
			t.Fatal(r.Code)
		}
	}
}

// TestRogueNames: whatever a stranger calls its files and transfers, they lie under names of our own.
func TestRogueNames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	all := w.group("Ann", "Eve")
	ann, g := all[0], rogue{all[1]}
	names := []string{"../../../evil", "/etc/evil", `..\evil`, "a\x00b", "..", "CON", "a/../../evil", "con.", "-rf"}
	var files []source
	for i := range names {
		files = append(files, content(100+i, byte(i)))
	}
	f := g.forge(ann, names, files...)
	offer := g.present(ann, f)
	for i, file := range offer.Files {
		if strings.HasPrefix(file.Path, "/") || strings.Contains(file.Path, "..") || strings.ContainsAny(file.Path, "\\\x00") {
			t.Errorf("%q is shown as %q", names[i], file.Path)
		}
	}
	for i := range names {
		g.tell(ann, f.hashes(uint32(i)), f.chunk(uint32(i), 0))
	}
	g.tell(ann, f.end(g.room.Identity()))
	result := ann.finished(f.key)
	ann.check(result, files...)
	if !transfer.PlainName(result.Delivery) || strings.Contains(result.Delivery, f.key.Transfer.String()) {
		t.Errorf("the delivery lies in %q", result.Delivery)
	}
	ann.onlyHas(map[string][]source{result.Delivery: files})
}
