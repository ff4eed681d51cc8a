package signaling

import (
	"slices"

	"tallow/internal/core/wire"
)

// Bounds of an Inbox.
const (
	maxSenders   = 256
	maxPerSender = 1024
)

// Inbox remembers which envelopes have been processed, so that a repeat is acknowledged again and not processed twice:
// the last 1,024 ids of each of the last 256 senders (PROTOCOL.md section 5). The zero value is empty and ready.
type Inbox struct {
	senders []*sender // the one heard of longest ago first
}

// sender holds a ring of ids. A scan of 16 KiB costs less than opening one envelope, and a map would need four times the
// memory.
type sender struct {
	id   wire.ID
	ids  []wire.ID
	next int // where the ring, once full, takes the next id
}

// Seen reports whether the id is among those that Add has noted for the sender.
func (i *Inbox) Seen(from, id wire.ID) bool {
	at := i.index(from)
	return at >= 0 && slices.Contains(i.senders[at].ids, id)
}

// Add notes an id as processed.
func (i *Inbox) Add(from, id wire.ID) {
	if i.Seen(from, id) {
		return
	}
	s := &sender{id: from}
	if at := i.index(from); at >= 0 {
		s = i.senders[at]
		i.senders = slices.Delete(i.senders, at, at+1)
	} else if len(i.senders) == maxSenders {
		i.senders = slices.Delete(i.senders, 0, 1)
	}
	i.senders = append(i.senders, s)
	if len(s.ids) < maxPerSender {
		s.ids = append(s.ids, id)
		return
	}
	s.ids[s.next] = id
	s.next = (s.next + 1) % maxPerSender
}

func (i *Inbox) index(from wire.ID) int {
	return slices.IndexFunc(i.senders, func(s *sender) bool { return s.id == from })
}
