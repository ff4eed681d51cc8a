package peer

import (
	"context"
	"errors"
	"os"
	"reflect"
	"runtime"
	"syscall/js"
	"testing"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/host"
	"tallow/internal/core/wire"
)

// The page of e2e/gotest.mjs gives the host.
var page = js.Global().Get("tallowTest")

func TestMain(m *testing.M) {
	host.Boot(page.Get("host"))
	os.Exit(m.Run())
}

// slowsRemote says whether a reader that does not read makes the remote's writes block.
const slowsRemote = false

// lab is the browser.
type lab struct{ name string }

func labs(*testing.T) []*lab { return []*lab{{"browser"}} }

func (*lab) conn(cfg ConnConfig) (Conn, error) { return NewConn(cfg) }

func sendRaw(t *testing.T, c *dataChannel, message []byte) {
	t.Helper()
	data := js.Global().Get("Uint8Array").New(len(message))
	js.CopyBytesToJS(data, message)
	raw(t, c).Call("send", data)
}

func sendText(t *testing.T, c *dataChannel, text string) {
	t.Helper()
	raw(t, c).Call("send", text)
}

func raw(t *testing.T, c *dataChannel) js.Value {
	t.Helper()
	if c.dc.IsUndefined() {
		t.Fatal("no channel")
	}
	return c.dc
}

func expectRefused(t *testing.T, c *conn) {
	t.Helper()
	extra := c.pc.JSValue().Call("createDataChannel", "extra")
	closed := make(chan struct{})
	onClose := js.FuncOf(func(js.Value, []js.Value) any {
		close(closed)
		return nil
	})
	defer onClose.Release()
	extra.Set("onclose", onClose)
	wait(t, "refusal", closed)
}

func leakCheck(t *testing.T) func() {
	kept, routines := page.Get("host").Get("kept").Int(), runtime.NumGoroutine()
	functions, connections := page.Call("functions").Int(), page.Call("connections").Int()
	return func() {
		made := page.Call("functions").Int() - functions
		if n := page.Call("unreleased", functions).Int(); made == 0 || n > 0 {
			t.Errorf("%d of %d functions are not released", n, made)
		}
		opened := page.Call("connections").Int() - connections
		if n := page.Call("openConnections").Int(); opened == 0 || n > 0 {
			t.Errorf("%d of %d connections are not closed", n, opened)
		}
		t.Logf("%d functions, %d connections", made, opened)
		if n := page.Get("host").Get("kept").Int(); n != kept {
			t.Errorf("the host keeps %d objects, %d before", n, kept)
		}
		goroutinesEnd(t, routines)
	}
}

// goroutinesEnd waits until there are no more than before.
func goroutinesEnd(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 64<<10)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// TestConnOverrun: a browser cannot slow a remote down, so one that ignores credit loses its channel; what fits is kept.
func TestConnOverrun(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	from, to := a.Channel(wire.Bulk), b.Channel(wire.Bulk)
	const size = 1 << 20
	ctx := testContext(t)
	written := make(chan error, 1)
	go func() {
		for i := range uint64(64) {
			if err := from.WriteRecord(ctx, testRecord(size, i)); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	wait(t, "done", to.Done())
	if err := <-written; !errors.Is(err, ErrClosed) {
		t.Errorf("write: %v", err)
	}
	n := uint64(0)
	for {
		err := readRecord(ctx, to, size, n)
		if errors.Is(err, ErrOverrun) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n < 31 || n > 32 {
		t.Errorf("%d records of 1 MiB were kept", n)
	}
}

// TestConnOverrunSmall: a small message counts more than its bytes. Far smaller ones, unread by the hundred thousand, make
// Chromium's own SCTP give up first.
func TestConnOverrunSmall(t *testing.T) {
	a, b := connect(t, labs(t)[0])
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	from, to := a.Channel(wire.Control), b.Channel(wire.Control)
	const size = 1000
	record := testRecord(size, 0)
	go func() {
		for from.WriteRecord(ctx, record) == nil {
			// Until the remote closes the channel.
		}
	}()
	wait(t, "done", to.Done())
	n := 0
	for {
		record, err := to.ReadRecord(ctx)
		if err != nil {
			if !errors.Is(err, ErrOverrun) {
				t.Fatal(err)
			}
			break
		}
		record.Release()
		n++
	}
	if want := maxUnread / (size + 256); n != want {
		t.Errorf("%d records were kept, want %d", n, want)
	}
}

// TestRefusedServers: a server that the browser refuses keeps it from no other, whether a connection begins with it or gets it later.
func TestRefusedServers(t *testing.T) {
	relay := wire.ICEServer{URLs: []string{"turn:127.0.0.1:2"}, Username: "u", Credential: "c"}
	for name, tt := range map[string]struct {
		servers, want []wire.ICEServer
		policy        string
	}{
		"none": {policy: "all"},
		"one of three": {
			[]wire.ICEServer{{URLs: []string{"stun:127.0.0.1:1", "bogus:127.0.0.1"}}, relay},
			[]wire.ICEServer{{URLs: []string{"stun:127.0.0.1:1"}}, relay},
			"all",
		},
		"the only one": {[]wire.ICEServer{{URLs: []string{"turn:127.0.0.1"}}}, nil, "all"}, // without credentials
		"relay only": {
			[]wire.ICEServer{{URLs: []string{"stun:127.0.0.1:1"}}, relay, {URLs: []string{"turn:127.0.0.1:port"}, Username: "u", Credential: "c"}},
			[]wire.ICEServer{relay},
			"relay",
		},
	} {
		expect := func(when string, c Conn) {
			now := c.(*conn).pc.JSValue().Call("getConfiguration")
			if policy := now.Get("iceTransportPolicy").String(); policy != tt.policy {
				t.Errorf("%s, %s: %s may be used", name, when, policy)
			}
			list := now.Get("iceServers")
			var got []wire.ICEServer
			for i := range list.Length() {
				server := list.Index(i)
				one := wire.ICEServer{URLs: []string{server.Get("urls").Index(0).String()}}
				if user := server.Get("username"); user.Truthy() {
					one.Username, one.Credential = user.String(), server.Get("credential").String()
				}
				got = append(got, one)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%s, %s: %v, want %v", name, when, got, tt.want)
			}
		}
		ice := wire.ICEServers{Servers: tt.servers, RelayOnly: tt.policy == "relay"}
		first, err := NewConn(ConnConfig{ICE: ice, Pool: new(bulk.Pool)})
		if err != nil {
			t.Fatal(err)
		}
		expect("first", first)
		then := newEnd(t, labs(t)[0]).Conn
		if err := then.SetICEServers(testContext(t), ice); err != nil {
			t.Error(err)
		}
		expect("then", then)
		_ = first.Close()
		if err := first.SetICEServers(testContext(t), ice); err == nil {
			t.Error("a closed connection takes servers")
		}
	}
}

// TestCloseWhileOffering: the browser never settles the promise of an offer. Nothing of it outlasts the connection.
func TestCloseWhileOffering(t *testing.T) {
	c := newEnd(t, labs(t)[0]).Conn.(*conn)
	before, functions := runtime.NumGoroutine(), page.Call("functions").Int()
	asked := make(chan struct{})
	createOffer := js.FuncOf(func(js.Value, []js.Value) any {
		close(asked)
		return js.Global().Get("Promise").New(js.Global().Get("Object")) // whose executor does nothing
	})
	c.pc.JSValue().Set("createOffer", createOffer)
	result := make(chan error, 1)
	go func() {
		_, err := c.Offer(context.Background(), false)
		result <- err
	}()
	wait(t, "the offer", asked)
	began := time.Now()
	_ = c.Close()
	if took := time.Since(began); took >= closeWithin {
		t.Errorf("Close waited %v for a promise", took)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	goroutinesEnd(t, before)
	createOffer.Release()
	if n := page.Call("unreleased", functions).Int(); n > 0 {
		t.Errorf("%d functions are not released", n)
	}
	if state := c.pc.JSValue().Get("connectionState").String(); state != "closed" {
		t.Errorf("the connection is %s", state)
	}
}

// fakeStats has the browser's statistics of a connection be what the function it returns was last given: entries by id.
func fakeStats(t *testing.T, c *conn) func(entries map[string]map[string]any) {
	var report js.Value
	getStats := js.FuncOf(func(js.Value, []js.Value) any { return js.Global().Get("Promise").Call("resolve", report) })
	t.Cleanup(getStats.Release)
	c.pc.JSValue().Set("getStats", getStats)
	return func(entries map[string]map[string]any) {
		report = js.Global().Get("Map").New()
		for id, fields := range entries {
			entry := js.Global().Get("Object").New()
			for name, value := range fields {
				entry.Set(name, value)
			}
			report.Call("set", id, entry)
		}
	}
}

// TestConnStatsOfPairs: where the browser counts for each pair only, as Firefox does, what a pair has carried counts after it has gone from the report, or
// while none is selected.
func TestConnStatsOfPairs(t *testing.T) {
	c := newEnd(t, labs(t)[0]).Conn.(*conn)
	report := fakeStats(t, c)
	type pair struct {
		id       string
		sent     int
		selected bool
	}
	for i, step := range []struct {
		pairs []pair
		want  uint64
	}{
		{[]pair{{"relay", 20_000, true}}, 20_000},
		{[]pair{{"relay", 21_000, false}, {"direct", 5_000_000, true}}, 5_021_000},
		{[]pair{{"relay", 21_000, false}, {"direct", 5_000_000, false}}, 5_021_000},
		{[]pair{{"relay", 22_000, true}}, 5_022_000},
		{nil, 5_022_000},
		{[]pair{{"another", 6_000_000, true}}, 11_022_000},
	} {
		entries := map[string]map[string]any{}
		for _, p := range step.pairs {
			entries[p.id] = map[string]any{"id": p.id, "type": "candidate-pair", "selected": p.selected, "bytesSent": p.sent, "bytesReceived": 2 * p.sent}
		}
		report(entries)
		if s, err := c.Stats(testContext(t)); err != nil || s.BytesSent != step.want || s.BytesReceived != 2*step.want {
			t.Errorf("%d: %+v, %v, want %d", i, s, err, step.want)
		}
	}
}

// TestConnStatsOfCandidates: a local candidate that was got from a relay counts as one, whatever the browser calls it, with the protocol to the relay. Without
// that a relay that sees itself under another address than it told would end each link of a member that keeps to relays.
func TestConnStatsOfCandidates(t *testing.T) {
	c := newEnd(t, labs(t)[0]).Conn.(*conn)
	report := fakeStats(t, c)
	for name, step := range map[string]struct {
		local, remote map[string]any
		want          ConnStats
	}{
		"prflx of a relay": {
			map[string]any{"candidateType": "prflx", "protocol": "udp", "relayProtocol": "tls"}, map[string]any{"candidateType": "relay"},
			ConnStats{LocalType: "relay", RemoteType: "relay", Protocol: "tls"},
		},
		"prflx": {
			map[string]any{"candidateType": "prflx", "protocol": "udp"}, map[string]any{"candidateType": "relay"},
			ConnStats{LocalType: "prflx", RemoteType: "relay", Protocol: "udp"},
		},
		"relay": {
			map[string]any{"candidateType": "relay", "protocol": "udp", "relayProtocol": "tcp"}, map[string]any{"candidateType": "host"},
			ConnStats{LocalType: "relay", RemoteType: "host", Protocol: "tcp"},
		},
		"prflx of the other's relay": {
			map[string]any{"candidateType": "host", "protocol": "udp"}, map[string]any{"candidateType": "prflx", "relayProtocol": "udp"},
			ConnStats{LocalType: "host", RemoteType: "prflx", Protocol: "udp"},
		},
	} {
		report(map[string]map[string]any{
			"transport": {"type": "transport", "selectedCandidatePairId": "pair"},
			"pair":      {"type": "candidate-pair", "id": "pair", "localCandidateId": "local", "remoteCandidateId": "remote"},
			"local":     step.local,
			"remote":    step.remote,
		})
		s, err := c.Stats(testContext(t))
		if err != nil || s.LocalType != step.want.LocalType || s.RemoteType != step.want.RemoteType || s.Protocol != step.want.Protocol {
			t.Errorf("%s: %+v, %v, want %+v", name, s, err, step.want)
		}
	}
}

// TestCloseWhileAddingCandidate: nor that of a candidate. Nothing waits for it any longer than the connection lasts.
func TestCloseWhileAddingCandidate(t *testing.T) {
	a, b := newEnd(t, labs(t)[0]), newEnd(t, labs(t)[0])
	negotiate(t, a, b, false)
	before := runtime.NumGoroutine()
	c := b.Conn.(*conn)
	asked := make(chan struct{})
	addIceCandidate := js.FuncOf(func(js.Value, []js.Value) any {
		close(asked)
		return js.Global().Get("Promise").New(js.Global().Get("Object"))
	})
	defer addIceCandidate.Release()
	c.pc.JSValue().Set("addIceCandidate", addIceCandidate)
	candidate := <-a.candidates
	result := make(chan error, 1)
	go func() { result <- c.AddCandidate(context.Background(), candidate) }()
	wait(t, "the candidate", asked)
	began := time.Now()
	_ = c.Close()
	if took := time.Since(began); took >= closeWithin {
		t.Errorf("Close waited %v for a promise", took)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	goroutinesEnd(t, before)
}

// TestStatesOfICE: where a browser has no connectionState, as Firefox before 113, ICE's tell.
func TestStatesOfICE(t *testing.T) {
	prototype, object := js.Global().Get("RTCPeerConnection").Get("prototype"), js.Global().Get("Object")
	for !prototype.Call("hasOwnProperty", "connectionState").Bool() {
		prototype = object.Call("getPrototypeOf", prototype) // the page's is derived from the browser's
	}
	for _, name := range []string{"connectionState", "onconnectionstatechange"} {
		property := object.Call("getOwnPropertyDescriptor", prototype, name)
		prototype.Delete(name)
		defer object.Call("defineProperty", prototype, name, property)
	}
	a, b := connect(t, labs(t)[0])
	for _, e := range []*end{a, b} {
		timeout := time.After(testPatience)
		for connected := false; !connected; {
			select {
			case s := <-e.states:
				connected = s == ConnConnected
			case <-timeout:
				t.Fatal("never connected")
			}
		}
	}
	_ = a.Close()
	_ = b.Close()
}
