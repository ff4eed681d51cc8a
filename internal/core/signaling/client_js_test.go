package signaling

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"syscall/js"
	"testing"
	"time"

	"tallow/internal/core/wire"
)

// Run by TestBrowser, which serves the hubs.

var testEnter = wire.Enter{Room: name(1), Member: name(2), Token: wire.Hash{3}, Claim: name(4)}

func browse(t *testing.T, path string) (*Client, chan Event) {
	events := make(chan Event, 1000)
	c := Dial(Config{URL: os.Getenv("TALLOW_TEST_HUB") + path, Enter: testEnter, Events: func(e Event) { events <- e }})
	t.Cleanup(c.Close)
	return c, events
}

func next[T Event](t *testing.T, events chan Event) T {
	t.Helper()
	select {
	case e := <-events:
		if v, ok := e.(T); ok {
			return v
		}
		t.Fatalf("event %T %+v, want a %T", e, e, *new(T))
	case <-time.After(20 * time.Second):
		t.Fatalf("no event, want a %T", *new(T))
	}
	panic("unreachable")
}

func closeWell(t *testing.T, c *Client) {
	t.Helper()
	start := time.Now()
	c.Close()
	if since := time.Since(start); since > 3*closeWithin {
		t.Errorf("Close took %v", since)
	}
}

func TestInBrowser(t *testing.T) {
	if os.Getenv("TALLOW_TEST_HUB") == "" {
		t.Skip("run by TestBrowser")
	}
	before := js.Global().Get("WebSocket")
	defer time.Sleep(3 * closeWithin) // the browser still tells of the sockets that a hub left hanging
	t.Run("relay", func(t *testing.T) {
		c, events := browse(t, "/echo")
		other, otherEvents := browse(t, "/echo") // dials at the same time
		if e := next[Entered](t, events); e.MaxMembers != 12 || len(e.Present) != 1 {
			t.Errorf("%+v", e)
		}
		next[Entered](t, otherEvents)
		envelope := bytes.Repeat([]byte{9}, wire.MaxEnvelope)
		for range 50 { // more than mostBuffered
			c.Send(name(6), envelope)
			if d := next[Delivered](t, events); d.From != name(6) || !bytes.Equal(d.Envelope, envelope) {
				t.Fatal("another envelope came back")
			}
		}
		for i := range 100 {
			c.Send(name(i), envelope)
		}
		for i := range 100 {
			if d := next[Delivered](t, events); d.From != name(i) {
				t.Fatalf("%v instead of %v", d.From, name(i))
			}
		}
		c.Refresh()
		next[ICEServers](t, events)
		closeWell(t, c)
		closeWell(t, other)
	})
	t.Run("the last message is not lost", func(t *testing.T) {
		for range 5 {
			_, events := browse(t, "/closing")
			next[Entered](t, events)
			for range 50 {
				next[Delivered](t, events)
			}
			if d := next[Disconnected](t, events); d.Code != wire.ClosingForbidden || !d.Final {
				t.Errorf("%+v", d)
			}
		}
	})
	t.Run("violation", func(t *testing.T) {
		_, events := browse(t, "/text")
		next[Entered](t, events)
		if d := next[Disconnected](t, events); !errors.Is(d.Err, ErrProtocol) {
			t.Errorf("%+v", d)
		}
		next[Entered](t, events)
	})
	for _, path := range []string{"/hang", "/garbage"} {
		t.Run("close "+path, func(t *testing.T) {
			c, events := browse(t, path)
			next[Entered](t, events)
			closeWell(t, c)
		})
	}
	t.Run("dial again", func(t *testing.T) {
		c, events := browse(t, "/lossy")
		time.Sleep(redialAfter + 100*time.Millisecond)
		c.Nudge()
		start := time.Now()
		next[Entered](t, events)
		if since := time.Since(start); since > 5*time.Second {
			t.Errorf("entered after %v", since)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c, events := browse(t, "/nowhere")
		if d := next[Disconnected](t, events); d.Err == nil || d.Final {
			t.Errorf("%+v", d)
		}
		next[Disconnected](t, events)
		closeWell(t, c)
	})
	if !js.Global().Get("WebSocket").Equal(before) {
		t.Error("the page's WebSocket is another one now")
	}
	runtime.KeepAlive(before) // Equal compares numbers, which would be given to others
}

func TestBadURL(t *testing.T) {
	events := make(chan Event, 10)
	c := Dial(Config{URL: "gopher://nowhere", Enter: testEnter, Events: func(e Event) { events <- e }})
	defer c.Close()
	if d := next[Disconnected](t, events); d.Err == nil || d.Final {
		t.Errorf("%+v", d)
	}
}
