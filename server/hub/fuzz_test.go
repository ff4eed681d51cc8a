package hub

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/coder/websocket"

	"tallow/internal/core/wire"
)

// messages cuts data into messages, each behind its length.
func messages(data []byte) (list [][]byte) {
	for len(data) >= 2 {
		n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
		list, data = append(list, data[2:2+n]), data[2+n:]
	}
	return list
}

// sequence is what messages takes apart.
func sequence(list ...[]byte) (data []byte) {
	for _, m := range list {
		data = append(binary.BigEndian.AppendUint16(data, uint16(len(m))), m...)
	}
	return data
}

// FuzzClient: whatever a client says, everybody is answered with messages of the protocol, and the member beside it stays.
func FuzzClient(f *testing.F) {
	// The member has a claim that no seed comes close to.
	other := wire.Enter{Room: roomA, Member: alice, Token: secret, Claim: wire.ID{7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0, 4, 5, 2}}
	enterBob := enterAs(roomA, bob).Append(nil)
	ping, refresh := []byte{byte(wire.HubPing)}, []byte{byte(wire.HubRefresh)}
	toAlice := wire.Relay{Member: alice, Envelope: []byte("envelope")}.Append(nil, wire.HubSend)
	f.Add(sequence(enterBob, toAlice, ping, refresh))
	f.Add(sequence(enterBob, wire.Relay{Member: bob, Envelope: []byte("to myself")}.Append(nil, wire.HubSend), toAlice[:17]))
	f.Add(sequence(enterBob, enterBob))
	f.Add(sequence(ping))
	f.Add(sequence(enterAs(roomB, bob).Append(nil), toAlice, ping))
	f.Add(sequence(wire.Enter{Room: roomA, Member: bob, Claim: claimOf(bob)}.Append(nil)))
	f.Add(sequence(wire.Enter{Room: roomA, Member: alice, Token: secret}.Append(nil)))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, url := run(t)
		a := dial(t, url)
		a.enter(other)
		c := dial(t, url)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		for _, m := range messages(data) {
			if c.ws.Write(ctx, websocket.MessageBinary, m) != nil {
				break // the hub has closed
			}
		}
		c.ws.Write(ctx, websocket.MessageBinary, []byte{0x7f}) // which ends it
		for {
			_, p, err := c.ws.Read(ctx)
			if err != nil {
				if ctx.Err() != nil {
					t.Fatal("the hub neither answers nor closes")
				}
				break
			}
			check(t, p)
		}
		eventually(t, func() bool { s := h.Stats(); return s.Connections == 1 && s.Members == 1 })
		a.send([]byte{byte(wire.HubPing)})
		for p := a.next(); wire.ParseBare(p, wire.HubPong) != nil; p = a.next() {
			check(t, p)
		}
		eventually(t, func() bool { return h.Stats().Waiting == 0 })
	})
}

// check fails unless p is a message that a server may send.
func check(t *testing.T, p []byte) {
	t.Helper()
	var err error
	switch kind := wire.TypeOf(p); kind {
	case wire.HubEntered:
		_, err = wire.ParseEntered(p)
	case wire.HubPresent, wire.HubAbsent:
		_, err = wire.ParsePresence(p, kind)
	case wire.HubDeliver:
		_, err = wire.ParseRelay(p, kind)
	case wire.HubICEServers:
		_, err = wire.ParseICEServers(p)
	case wire.HubPong:
		err = wire.ParseBare(p, kind)
	case wire.HubClosing:
		_, err = wire.ParseClosing(p)
	default:
		t.Fatalf("a client is sent %x", p)
	}
	if err != nil {
		t.Fatalf("a client is sent %x: %v", p, err)
	}
}
