//go:build !js

package room_test

import (
	"fmt"
	"testing"

	"tallow/internal/core/fault"
	"tallow/internal/core/room"
	"tallow/internal/core/wire"
)

func TestOneToOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 11, 0)
	ann := w.create("Ann", nil)
	bob := w.join("Bob", ann.room.Link())
	ann.meet(bob)
	bob.meet(ann)
	a, b := ann.room.Peers()[0], bob.room.Peers()[0]
	if len(a.SafetyWords) != 4 || fmt.Sprint(a.SafetyWords) != fmt.Sprint(b.SafetyWords) {
		t.Errorf("safety words %v and %v", a.SafetyWords, b.SafetyWords)
	}

	const chunk = 256 << 10
	files := []source{nil, content(1, 1), content(chunk, 2), content(chunk-1, 3), content(chunk+1, 4), content(5<<20+7, 5)}
	var out []room.OutFile
	for i, f := range files {
		out = append(out, outFile(fmt.Sprintf("folder/file %d.bin", i), f))
	}
	sent, err := ann.room.Send(out, room.SendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	id, offer := bob.accept(ann)
	if len(offer.Files) != len(files) || offer.Files[3].Size != chunk-1 || offer.Files[3].Name != "file 3.bin" {
		t.Errorf("offer %+v", offer)
	}
	bob.check(bob.finished(id), files...)
	result := ann.finished(id)
	if result.ID != sent.ID || len(result.Ledger) != 1 || result.Ledger[0].State != room.DeliveryDone || result.Ledger[0].Signature == "" {
		t.Errorf("result %+v", result)
	}
	for _, f := range result.Ledger[0].Files {
		if f.Outcome != "verified" {
			t.Errorf("file %+v", f)
		}
	}
}

func TestGroup(t *testing.T) {
	for _, n := range []int{2, 5, 10} {
		t.Run(fmt.Sprint(n), func(t *testing.T) { group(t, n, 2) })
	}
}

func group(t *testing.T, n, loss int) {
	w := newWorld(t, 20, loss)
	ann := w.create("Ann", nil)
	var others []*person
	for i := range n {
		others = append(others, w.join(fmt.Sprintf("Bob %d", i), ann.room.Link()))
	}
	ann.meet(others...)
	file := content(700_000, 9) // on a crowded machine the path is long, and with loss that is slow
	var to []wire.ID            // on a crowded machine the link to one may be lost while others are waited for
	for _, o := range others {
		to = append(to, o.id())
	}
	if _, err := ann.room.Send([]room.OutFile{outFile("a.bin", file)}, room.SendOptions{To: to}); err != nil {
		t.Fatal(err)
	}
	for _, o := range others {
		o.accept(ann)
	}
	for _, o := range others {
		id := transferID(t, ann.room.Self().ID, wait(o, "end", func(room.TransferFinished) bool { return true }).Result.ID)
		o.check(o.finished(id), file)
	}
	result := wait(ann, "end", func(room.TransferFinished) bool { return true }).Result
	for _, e := range result.Ledger {
		if e.State != room.DeliveryDone {
			t.Errorf("ledger: %+v", e)
		}
	}
	if n == room.DefaultMaxRecipients {
		if _, err := w.tryJoin("Eve", ann.room.Link()); fault.Of(err) != fault.RoomFull {
			t.Errorf("an 11th recipient: %v", err)
		}
	}
}
