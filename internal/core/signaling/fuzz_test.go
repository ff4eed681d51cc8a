package signaling

import (
	"testing"

	"tallow/internal/core/wire"
)

// FuzzInbox notes ids from a script of senders and ids: what has just been noted is seen, what has not is not, and the bounds hold.
func FuzzInbox(f *testing.F) {
	f.Add([]byte{1, 1, 1, 1, 2, 1, 1, 2, 0, 0})
	full := make([]byte, 0, 2*maxSenders)
	for i := range maxSenders {
		full = append(full, byte(i), 0)
	}
	f.Add(append(full, 0, 1, 1, 1))
	f.Fuzz(func(t *testing.T, script []byte) {
		var inbox Inbox
		noted := map[[2]wire.ID]bool{}
		for n := 0; len(script) >= 2; n++ {
			// More senders and ids than there is room for, from two bytes.
			from, id := wire.ID{script[0], byte(n >> 4 & 3)}, wire.ID{script[1], byte(n >> 8)}
			script = script[2:]
			if inbox.Seen(from, id) && !noted[[2]wire.ID{from, id}] {
				t.Fatal("seen without having been noted")
			}
			inbox.Add(from, id)
			noted[[2]wire.ID{from, id}] = true
			if !inbox.Seen(from, id) {
				t.Fatal("noted and not seen")
			}
			if len(inbox.senders) > maxSenders {
				t.Fatalf("%d senders", len(inbox.senders))
			}
		}
		for _, s := range inbox.senders {
			if len(s.ids) > maxPerSender {
				t.Fatalf("%d ids", len(s.ids))
			}
		}
	})
}
