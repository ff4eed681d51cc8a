//go:build !js

package signaling

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"tallow/internal/core/wire"
)

// listen dials and collects the events.
func listen(t *testing.T, url string) (*Client, chan Event) {
	events := make(chan Event, 100_000)
	c := Dial(Config{URL: url, Enter: testEnter, Events: func(e Event) { events <- e }})
	t.Cleanup(c.Close)
	return c, events
}

const memoryURL = "ws://hub.example/ws"

// next returns the next event, which must be a T.
func next[T Event](t *testing.T, events chan Event) T {
	t.Helper()
	select {
	case e := <-events:
		if v, ok := e.(T); ok {
			return v
		}
		t.Fatalf("event %T %+v, want a %T", e, e, *new(T))
	case <-time.After(time.Hour): // of a bubble's time
		t.Fatalf("no event, want a %T", *new(T))
	}
	panic("unreachable")
}

func nothing(t *testing.T, events chan Event) {
	t.Helper()
	select {
	case e := <-events:
		t.Fatalf("unexpected event %T %+v", e, e)
	default:
	}
}

func TestClientSpeaksHub(t *testing.T) {
	sent := make(chan wire.Relay, 10)
	server := httptest.NewServer(hubHandler(t, func(n int, p *place) {
		if !p.enter(name(5), name(6)) {
			return
		}
		p.send(wire.Relay{Member: name(5), Envelope: []byte("hello")}.Append(nil, wire.HubDeliver))
		p.send(wire.AppendPresence(nil, wire.HubPresent, name(7)))
		p.send(wire.AppendPresence(nil, wire.HubAbsent, name(5)))
		p.send([]byte{byte(wire.HubPong)}) // an answer too many is no violation
		p.serve(func(m wire.Relay) { sent <- m })
	}))
	defer server.Close()
	c, events := listen(t, strings.Replace(server.URL, "http", "ws", 1))

	entered := next[Entered](t, events)
	if entered.MaxMembers != 12 || !slices.Equal(entered.Present, []wire.ID{name(5), name(6)}) || entered.ICE.Servers[0].URLs[0] != "stun:hub.example" {
		t.Errorf("Entered %+v", entered)
	}
	if d := next[Delivered](t, events); d.From != name(5) || string(d.Envelope) != "hello" {
		t.Errorf("Delivered %+v", d)
	}
	if p := next[Present](t, events); p.Member != name(7) {
		t.Errorf("Present %v", p)
	}
	if a := next[Absent](t, events); a.Member != name(5) {
		t.Errorf("Absent %v", a)
	}
	envelope := bytes.Repeat([]byte{9}, wire.MaxEnvelope)
	c.Send(name(6), append(envelope, 9)) // refused
	c.Send(name(6), nil)                 // refused
	c.Send(name(6), envelope)
	envelope[0] = 0 // Send has copied
	if m := <-sent; m.Member != name(6) || len(m.Envelope) != wire.MaxEnvelope || m.Envelope[0] != 9 {
		t.Errorf("Send arrived as %d bytes for %v", len(m.Envelope), m.Member)
	}
	c.Refresh()
	if s := next[ICEServers](t, events); s.ICE.TTL != 60 {
		t.Errorf("ICEServers %+v", s)
	}
	// Close sends what is queued.
	for i := range 5 {
		c.Send(name(6), []byte{byte(i)})
	}
	c.Close()
	for i := range 5 {
		if m := <-sent; m.Envelope[0] != byte(i) {
			t.Errorf("envelope %d arrived as %v", i, m.Envelope)
		}
	}
	nothing(t, events)
}

func TestClientPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings []time.Duration
		start := time.Now()
		memoryHub(t, func(n int, p *place) {
			p.enter()
			for b := p.read(); b != nil; b = p.read() {
				if wire.ParseBare(b, wire.HubPing) == nil {
					pings = append(pings, time.Since(start))
					p.send([]byte{byte(wire.HubPong)})
				}
			}
		})
		c, events := listen(t, memoryURL)
		next[Entered](t, events)
		time.Sleep(70 * time.Second)
		c.Close()
		nothing(t, events)
		synctest.Wait()
		if want := []time.Duration{20 * time.Second, 40 * time.Second, 60 * time.Second}; !slices.Equal(pings, want) {
			t.Errorf("pings at %v, want %v", pings, want)
		}
	})
}

func TestClientNoticesSilence(t *testing.T) {
	for name, c := range map[string]struct {
		entered bool
		nudge   bool
		want    time.Duration
	}{"entered": {true, false, 30 * time.Second}, "not entered": {false, false, 10 * time.Second}, "nudged": {true, true, 2 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memoryHub(t, func(n int, p *place) {
					if n > 0 || c.entered {
						p.enter()
					}
					for p.read() != nil {
					}
				})
				client, events := listen(t, memoryURL)
				start := time.Now()
				if c.entered {
					next[Entered](t, events)
				}
				if c.nudge {
					client.Nudge()
				}
				d := next[Disconnected](t, events)
				if since := time.Since(start); !errors.Is(d.Err, ErrSilent) || d.Final || d.Code != 0 || since != c.want {
					t.Errorf("after %v: %+v", since, d)
				}
				start = time.Now()
				next[Entered](t, events)
				if wait := time.Since(start); wait < firstBackoff || wait >= 3*firstBackoff {
					t.Errorf("came back after %v", wait)
				}
			})
		})
	}
}

func TestClientBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryHub(t, func(n int, p *place) { p.enter(); p.serve(nil) })
		m.down.Store(true)
		c, events := listen(t, memoryURL)
		last := time.Now()
		var waits []time.Duration
		for range 30 {
			d := next[Disconnected](t, events)
			if d.Err == nil || d.Final || d.Code != 0 {
				t.Fatalf("%+v", d)
			}
			waits = append(waits, time.Since(last))
			last = time.Now()
		}
		if waits[0] != 0 || slices.Max(waits) > mostBackoff || slices.Min(waits[1:]) < firstBackoff || slices.Max(waits) < 5*time.Second {
			t.Errorf("waits %v", waits)
		}
		m.down.Store(false)
		synctest.Wait()
		start := time.Now()
		c.Nudge()
		next[Entered](t, events)
		if time.Since(start) != 0 {
			t.Errorf("nudged, the attempt came after %v", time.Since(start))
		}
	})
}

// pathRecorder notes the path of each request.
type pathRecorder struct {
	http.RoundTripper
	paths chan string
}

func (r pathRecorder) RoundTrip(q *http.Request) (*http.Response, error) {
	r.paths <- q.URL.Path
	return r.RoundTripper.RoundTrip(q)
}

// TestClientAddress: after failures the hub is asked at other paths, until it has been reached.
func TestClientAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryHub(t, func(n int, p *place) {
			if p.enter(); n > 1 {
				p.serve(nil)
			}
		})
		paths := make(chan string, 10)
		client.Transport = pathRecorder{client.Transport, paths}
		m.down.Store(true)
		_, events := listen(t, memoryURL)
		for range 3 {
			next[Disconnected](t, events)
		}
		m.down.Store(false)
		next[Entered](t, events)
		next[Disconnected](t, events)
		next[Entered](t, events)
		seen := map[string]bool{}
		for i, plain := range []bool{true, false, false, false, true} {
			path := <-paths
			if plain != (path == "/ws") || !plain && (seen[path] || !strings.HasPrefix(path, "/ws/")) {
				t.Errorf("attempt %d: %s", i, path)
			}
			seen[path] = true
		}
	})
}

func TestClientRedialsWhenNudged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryHub(t, func(n int, p *place) { p.enter(); p.serve(nil) })
		m.lossy.Store(true)
		c, events := listen(t, memoryURL)
		time.Sleep(redialAfter / 2)
		c.Nudge() // too early to be worth it
		synctest.Wait()
		if n := m.dials.Load(); n != 1 {
			t.Errorf("%d dials", n)
		}
		time.Sleep(redialAfter)
		m.lossy.Store(false)
		c.Nudge()
		synctest.Wait()
		if n := m.dials.Load(); n != 2 {
			t.Errorf("%d dials", n)
		}
		next[Entered](t, events) // starting over is no Disconnected
	})
}

// TestClientSlowHub: nudges, however many, cost no connection that works slowly, nor keep one from coming about.
func TestClientSlowHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const answer = 3 * time.Second
		m := memoryHub(t, func(n int, p *place) {
			time.Sleep(answer)
			if !p.enter() {
				return
			}
			for b := p.read(); b != nil; b = p.read() {
				time.Sleep(answer)
				p.send([]byte{byte(wire.HubPong)})
			}
		})
		m.slow = 6 * time.Second
		c, events := listen(t, memoryURL)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-time.After(1500 * time.Millisecond):
					c.Nudge()
				case <-stop:
					return
				}
			}
		}()
		next[Entered](t, events)
		time.Sleep(2 * time.Minute)
		nothing(t, events)
		close(stop)
		c.Close()
		time.Sleep(2 * answer) // for the hub to end
	})
}

func TestClientHeedsClosing(t *testing.T) {
	for _, c := range []struct {
		code  wire.ClosingCode
		after uint32
		final bool
	}{
		{wire.ClosingBadRequest, 0, true}, {wire.ClosingUnsupportedVersion, 0, true}, {wire.ClosingForbidden, 0, true},
		{wire.ClosingRoomFull, 0, true}, {wire.ClosingReplaced, 0, true}, {999, 0, true},
		{wire.ClosingRateLimited, 40, false}, {wire.ClosingShuttingDown, 3, false}, {wire.ClosingIdle, 1, false},
		{wire.ClosingServerFull, 30, false}, {999, 20, false},
	} {
		t.Run(fmt.Sprint(c.code, " ", c.after), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := memoryHub(t, func(n int, p *place) {
					if n > 0 {
						p.enter()
						p.serve(nil)
						return
					}
					p.read()
					p.send(wire.Closing{Code: c.code, RetryAfter: c.after, Reason: "because"}.Append(nil))
					p.ws.Close(websocket.StatusNormalClosure, "")
				})
				client, events := listen(t, memoryURL)
				start := time.Now()
				d := next[Disconnected](t, events)
				if d.Code != c.code || d.Final != c.final || d.Err == nil {
					t.Fatalf("%+v", d)
				}
				client.Nudge() // does not overrule the hub
				if c.final {
					time.Sleep(time.Hour)
					client.Send(name(1), []byte{1})
					client.Refresh()
					if n := m.dials.Load(); n != 1 {
						t.Errorf("%d dials", n)
					}
					nothing(t, events)
					return
				}
				next[Entered](t, events)
				least := time.Duration(c.after) * time.Second
				if wait := time.Since(start); wait < least || wait > least+max(least/4, 3*firstBackoff) {
					t.Errorf("asked to wait %v, came back after %v", least, wait)
				}
			})
		})
	}
}

func TestClientRefusesWhatTheHubMustNotSend(t *testing.T) {
	entered := wire.Entered{MaxMembers: 2}.Append(nil)
	for name, c := range map[string]struct {
		early bool // instead of Entered
		p     []byte
		text  bool
	}{
		"empty":             {false, []byte{}, false},
		"unknown type":      {false, []byte{0x99}, false},
		"type of a client":  {false, []byte{byte(wire.HubPing)}, false},
		"entered twice":     {false, entered, false},
		"not entered":       {true, wire.AppendPresence(nil, wire.HubPresent, wire.ID{1}), false},
		"pong first":        {true, []byte{byte(wire.HubPong)}, false},
		"Entered too short": {true, entered[:5], false},
		"Present too short": {false, []byte{byte(wire.HubPresent), 1}, false},
		"Absent too long":   {false, append(wire.AppendPresence(nil, wire.HubAbsent, wire.ID{1}), 0), false},
		"empty envelope":    {false, append([]byte{byte(wire.HubDeliver)}, make([]byte, 16)...), false},
		"bad ICE servers":   {false, []byte{byte(wire.HubICEServers), 9}, false},
		"bad Closing":       {false, []byte{byte(wire.HubClosing)}, false},
		"Pong with a field": {false, []byte{byte(wire.HubPong), 0}, false},
		"text":              {false, []byte{byte(wire.HubPong)}, true},
		"too long":          {false, make([]byte, wire.MaxHubMessage+1), false},
		"much too long":     {false, make([]byte, 2*wire.MaxHubMessage), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memoryHub(t, func(n int, p *place) {
					if n > 0 || !c.early {
						p.enter()
					}
					if n == 0 {
						kind := websocket.MessageBinary
						if c.text {
							kind = websocket.MessageText
						}
						p.ws.Write(context.Background(), kind, c.p)
					}
					for p.read() != nil {
					}
				})
				_, events := listen(t, memoryURL)
				if !c.early {
					next[Entered](t, events)
				}
				d := next[Disconnected](t, events)
				if !errors.Is(d.Err, ErrProtocol) || d.Final {
					t.Errorf("%+v", d)
				}
				next[Entered](t, events)
			})
		})
	}
}

func TestClientSendNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read := make(chan struct{})
		var got []int
		m := memoryHub(t, func(n int, p *place) {
			p.enter()
			<-read
			p.serve(func(m wire.Relay) { got = append(got, int(m.Envelope[0])<<8|int(m.Envelope[1])) })
		})
		m.down.Store(true)
		c, events := listen(t, memoryURL)
		next[Disconnected](t, events)
		c.Send(name(1), []byte{0xff, 0xff}) // dropped
		m.down.Store(false)
		next[Entered](t, events)
		for i := range 400 {
			c.Send(name(1), []byte{byte(i >> 8), byte(i)})
			synctest.Wait()
		}
		close(read)
		synctest.Wait()
		// Those that the writing goroutine had taken, then the newest 256.
		tail := got[max(0, len(got)-256):]
		if len(got) > 260 || len(tail) < 256 || tail[0] != 400-256 || tail[255] != 399 || got[0] != 0 {
			t.Errorf("%d arrived: %v", len(got), got)
		}
	})
}

func TestClientOutlivesSlowEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pongs := 0
		memoryHub(t, func(n int, p *place) {
			if n > 0 {
				return
			}
			p.enter()
			for i := range 600 {
				p.send(wire.Relay{Member: name(i), Envelope: []byte{1}}.Append(nil, wire.HubDeliver))
				p.send(wire.AppendPresence(nil, wire.HubPresent, name(i)))
			}
			for b := p.read(); b != nil; b = p.read() {
				p.send([]byte{byte(wire.HubPong)})
				pongs++
			}
		})
		release := make(chan struct{})
		var delivered, present int
		c := Dial(Config{URL: memoryURL, Enter: testEnter, Events: func(e Event) {
			switch e.(type) {
			case Entered:
				<-release
			case Delivered:
				delivered++
			case Present:
				present++
			default:
				t.Errorf("event %T %+v", e, e)
			}
		}})
		time.Sleep(170 * time.Second)
		close(release)
		synctest.Wait()
		if pongs != 8 || present != 600 || delivered < 256 || delivered > 512 {
			t.Errorf("%d pongs, %d present, %d delivered", pongs, present, delivered)
		}
		c.Close()
	})
}

func TestClientBoundsWhatTheHubSends(t *testing.T) {
	for name, p := range map[string][]byte{
		"presence":    wire.AppendPresence(nil, wire.HubPresent, wire.ID{1}),
		"ICE servers": testICE.Append(nil),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				blocked, release := make(chan struct{}), make(chan struct{})
				memoryHub(t, func(n int, place *place) {
					place.enter()
					if n == 0 {
						<-blocked
						for range 2 * maxEvents {
							if place.ws.Write(context.Background(), websocket.MessageBinary, p) != nil {
								return
							}
						}
					}
					place.serve(nil)
				})
				var end []Disconnected
				events := 0
				c := Dial(Config{URL: memoryURL, Enter: testEnter, Events: func(e Event) {
					if events == 0 {
						close(blocked)
						<-release
					}
					events++
					if d, ok := e.(Disconnected); ok {
						end = append(end, d)
					}
				}})
				time.Sleep(firstBackoff / 2)
				close(release)
				synctest.Wait()
				if len(end) != 1 || !errors.Is(end[0].Err, ErrProtocol) || events > maxEvents+3 {
					t.Errorf("%d events, %v", events, end)
				}
				c.Close()
			})
		})
	}
}

func TestClientClose(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(n int, p *place, end chan struct{})
		down  bool
		most  time.Duration
	}{
		"connected": {func(n int, p *place, _ chan struct{}) { p.enter(); p.serve(nil) }, false, 0},
		"entering":  {func(n int, p *place, _ chan struct{}) { p.serve(nil) }, false, 0},
		"hub hangs": {func(n int, p *place, end chan struct{}) { p.enter(); <-end }, false, closeWithin},
		"backoff":   {nil, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end := make(chan struct{})
				m := memoryHub(t, func(n int, p *place) {
					if name == "entering" {
						p.read()
					}
					c.serve(n, p, end)
				})
				m.down.Store(c.down)
				client, events := listen(t, memoryURL)
				synctest.Wait()
				for i := range 10 { // more than fits into the pipe
					client.Send(wire.ID{}, []byte{byte(i)})
				}
				for len(events) > 0 {
					<-events
				}
				start := time.Now()
				var group sync.WaitGroup
				for range 3 {
					group.Go(client.Close)
				}
				group.Wait()
				if since := time.Since(start); since > c.most {
					t.Errorf("Close took %v", since)
				}
				close(end)
				client.Close()
				client.Nudge()
				client.Refresh()
				time.Sleep(time.Minute)
				nothing(t, events)
			})
		})
	}
}

// A dial that hangs is given up at once by Close, and after dialWithin by itself.
func TestClientDialHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := memoryHub(t, nil)
		m.lossy.Store(true)
		c, events := listen(t, memoryURL)
		start := time.Now()
		next[Disconnected](t, events)
		if since := time.Since(start); since != dialWithin {
			t.Errorf("given up after %v", since)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		start = time.Now()
		c.Close()
		if since := time.Since(start); since != 0 {
			t.Errorf("Close took %v", since)
		}
	})
}

// Close waits for a call of Events that is running, and none follows.
func TestClientCloseWaitsForEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memoryHub(t, func(n int, p *place) {
			p.enter()
			p.send(wire.AppendPresence(nil, wire.HubPresent, wire.ID{1}))
			p.serve(nil)
		})
		running, calls := false, 0
		c := Dial(Config{URL: memoryURL, Enter: testEnter, Events: func(e Event) {
			running = true
			calls++
			time.Sleep(5 * time.Second)
			running = false
		}})
		time.Sleep(time.Second)
		c.Close()
		if running || calls != 1 {
			t.Errorf("running %v after Close, %d calls", running, calls)
		}
	})
}

// Envelopes survive a hub that goes away in between: Client and Outbox together.
func TestOutboxOverLostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		memoryHub(t, func(n int, p *place) {
			p.enter()
			if n == 0 {
				p.read() // takes the envelope along when it goes
				return
			}
			p.serve(func(m wire.Relay) { got = append(got, string(m.Envelope)) })
		})
		c, events := listen(t, memoryURL)
		next[Entered](t, events)
		var o Outbox
		o.Add(time.Now(), name(9), name(1), []byte("join"))
		c.Send(name(9), []byte("join"))
		next[Disconnected](t, events)
		next[Entered](t, events)
		o.Reset(time.Now())
		repeat := o.Due(time.Now())
		for _, m := range repeat {
			c.Send(m.To, m.Envelope)
		}
		synctest.Wait()
		if !slices.Equal(got, []string{"join"}) || !o.Ack(name(9), name(1)) {
			t.Errorf("arrived: %q", got)
		}
	})
}
