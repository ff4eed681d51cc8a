package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"time"

	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// victim is a member's connection.
type victim struct {
	member wire.ID
	send   func([]byte)
	late   []byte // held back: for reorder
}

// attack is what one mode does to the members of a room. It is guarded by its mutex.
type attack struct {
	mode string

	mu      sync.Mutex
	stopped bool
	counts  report
	victims map[wire.ID]*victim
	seen    map[[32]byte]bool // messages that the hub has delivered
	old     [][2]any          // the same in order, each with its victim, until they have been replayed
	insider *traitor
}

// report is what has happened while the attack was on.
type report struct {
	Meddled int `json:"meddled"` // messages changed, or sent besides those of the hub
	Answers int `json:"answers"` // of the handshake that an insider saw, repeats not counted
	Pairs   int `json:"pairs"`   // envelopes under a key of the pair, from the initiator: it has taken an answer
}

func newAttack(mode string) *attack {
	return &attack{mode: mode, victims: map[wire.ID]*victim{}, seen: map[[32]byte]bool{}}
}

func (a *attack) learn(link seal.Link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.insider = newTraitor(link)
}

func (a *attack) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	for _, v := range a.victims {
		a.release(v)
	}
}

func (a *attack) report() report {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.counts
}

func (a *attack) enter(v *victim, member wire.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v.member = member
	a.victims[member] = v
}

// deliver gives a victim what the hub has for it, or what the attack makes of that.
func (a *attack) deliver(v *victim, message []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		v.send(message)
		return
	}
	if relay, err := wire.ParseRelay(message, wire.HubDeliver); err == nil && a.insider != nil {
		changed, ok := a.insider.meddle(a, relay.Member, v.member, relay.Envelope)
		if ok {
			a.counts.Meddled++
			message = wire.Relay{Member: relay.Member, Envelope: changed}.Append(nil, wire.HubDeliver)
		}
	}
	if meddle := blind[a.mode]; meddle != nil {
		meddle(a, v, message)
		return
	}
	v.send(message)
}

// extra sends a message that the hub has not sent.
func (a *attack) extra(v *victim, message []byte) {
	a.counts.Meddled++
	v.send(message)
}

func (a *attack) release(v *victim) {
	if v.late != nil {
		v.send(v.late)
		v.late = nil
	}
}

// again reports whether the hub has delivered the same to the victim before.
func (a *attack) again(v *victim, message []byte) bool {
	key := sha256.Sum256(append(v.member[:], message...))
	was := a.seen[key]
	a.seen[key] = true
	return was
}

// blind are the attacks of a server that does not have the link.
var blind = map[string]func(*attack, *victim, []byte){
	// Each envelope arrives damaged in each of its parts, and then as it was.
	"damage": func(a *attack, v *victim, message []byte) {
		if wire.TypeOf(message) == wire.HubDeliver {
			// From, kind, id, session, salt, ciphertext, tag.
			for _, at := range []int{1, 17, 18, 34, 50, 82, len(message) - 1} {
				damaged := bytes.Clone(message)
				damaged[at] ^= 1 << (at % 8)
				a.extra(v, damaged)
			}
			a.extra(v, message[:len(message)-1])
			a.extra(v, append(bytes.Clone(message), 0))
		}
		v.send(message)
	},
	// Each envelope arrives from everybody else, at everybody else, and at its author, and then where it belongs.
	"swap": func(a *attack, v *victim, message []byte) {
		if relay, err := wire.ParseRelay(message, wire.HubDeliver); err == nil {
			for _, from := range append(slices.Collect(maps.Keys(a.victims)), wire.ID{1}) {
				for _, to := range a.victims {
					if from != relay.Member || to != v {
						a.extra(to, wire.Relay{Member: from, Envelope: relay.Envelope}.Append(nil, wire.HubDeliver))
					}
				}
			}
		}
		v.send(message)
	},
	// Whatever was delivered comes again, twice: soon, and when it is old.
	"replay": func(a *attack, v *victim, message []byte) {
		v.send(message)
		if wire.TypeOf(message) != wire.HubDeliver || a.again(v, message) {
			return
		}
		a.old = append(a.old, [2]any{v, message}, [2]any{v, message})
		for n := len(a.old); n > 12; n -= 2 {
			for _, i := range []int{0, n - 3} {
				a.extra(a.old[i][0].(*victim), a.old[i][1].([]byte))
			}
			a.old = append(a.old[1:n-3], a.old[n-2:]...)
		}
	},
	// Every message is overtaken by the next one.
	"reorder": func(a *attack, v *victim, message []byte) {
		if wire.TypeOf(message) != wire.HubDeliver || v.late != nil {
			v.send(message)
			a.release(v)
			return
		}
		a.counts.Meddled++
		v.late = message
		time.AfterFunc(300*time.Millisecond, func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.release(v)
		})
	},
	"duplicate": func(a *attack, v *victim, message []byte) {
		v.send(message)
		if wire.TypeOf(message) == wire.HubDeliver {
			a.extra(v, message)
		}
	},
	// The first copy of each envelope is lost.
	"drop": func(a *attack, v *victim, message []byte) {
		if wire.TypeOf(message) == wire.HubDeliver && !a.again(v, message) {
			a.counts.Meddled++
			return
		}
		v.send(message)
	},
	// Members come and go that do not exist, and those that do.
	"presence": func(a *attack, v *victim, message []byte) {
		if entered, err := wire.ParseEntered(message); err == nil {
			for range 20 {
				entered.Present = append(entered.Present, newID())
			}
			message = entered.Append(nil)
			a.counts.Meddled++
		}
		if relay, err := wire.ParseRelay(message, wire.HubDeliver); err == nil {
			for _, t := range []wire.HubType{wire.HubAbsent, wire.HubPresent} {
				a.extra(v, wire.AppendPresence(nil, t, newID()))
				a.extra(v, wire.AppendPresence(nil, t, relay.Member))
			}
			defer a.extra(v, wire.AppendPresence(nil, wire.HubAbsent, relay.Member))
		}
		v.send(message)
	},
}

func newID() (id wire.ID) {
	rand.Read(id[:])
	return id
}
