package signaling

import (
	"testing"

	"tallow/internal/core/wire"
)

// FuzzInbox notes ids from a script of senders and ids in an inbox that is almost full: what has just been noted is seen, what has not is
// not, and the bounds hold.
func FuzzInbox(f *testing.F) {
	f.Add([]byte{1, 1, 1, 1, 2, 1, 1, 2, 0, 0})
	f.Add([]byte{0, 1, 0, 2, 0, 3, 0, 4, 1, 1, 2, 1, 3, 1, 4, 1, 0, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		var inbox Inbox
		for i := range maxSenders - 2 {
			inbox.senders = append(inbox.senders, &sender{id: wire.ID{1: 1, 2: byte(i)}})
		}
		busy := &sender{} // the sender 0
		for i := range maxPerSender - 2 {
			busy.ids = append(busy.ids, wire.ID{1: 1 + byte(i>>8), 2: byte(i)})
		}
		inbox.senders = append(inbox.senders, busy)

		noted := map[[2]byte]bool{}
		for ; len(script) >= 2; script = script[2:] {
			from, id, key := wire.ID{script[0]}, wire.ID{script[1]}, [2]byte(script)
			if inbox.Seen(from, id) && !noted[key] {
				t.Fatal("seen without having been noted")
			}
			inbox.Add(from, id)
			noted[key] = true
			if !inbox.Seen(from, id) {
				t.Fatal("noted and not seen")
			}
		}
		if len(inbox.senders) > maxSenders {
			t.Fatalf("%d senders", len(inbox.senders))
		}
		for _, s := range inbox.senders {
			if len(s.ids) > maxPerSender {
				t.Fatalf("%d ids", len(s.ids))
			}
		}
	})
}
