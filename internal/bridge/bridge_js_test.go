package bridge

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall/js"
	"testing"

	"github.com/hack-pad/safejs"

	"tallow/internal/bridge/bytes"
	"tallow/internal/core/host"
)

func TestMain(m *testing.M) {
	host.Boot(js.Global().Get("tallowTest").Get("host"))
	os.Exit(m.Run())
}

// TestCalls runs calls as web/boot.js makes them: none blocks, each is settled, and a panic settles only its own.
func TestCalls(t *testing.T) {
	settled := make(chan settle, 1)
	emit, err := safejs.FuncOf(func(_ safejs.Value, args []safejs.Value) any {
		text, err := args[0].String()
		if err != nil {
			t.Error(err)
		}
		var s settle
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Error(err)
		}
		settled <- s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer emit.Release()
	i := &instance{version: "test", emit: emit.Value(), ctx: t.Context(), rooms: map[int]*member{}}
	enter, err := safejs.FuncOf(i.enter)
	if err != nil {
		t.Fatal(err)
	}
	defer enter.Release()

	hold := make(chan struct{})
	methods["waits"] = func(*instance, []byte) (any, error) { <-hold; return "late", nil }
	methods["panics"] = func(*instance, []byte) (any, error) { panic("a bug") }
	defer func() { delete(methods, "waits"); delete(methods, "panics") }()
	if _, err := enter.Value().Invoke(1, "waits", "{}"); err != nil { // comes back at once
		t.Fatal(err)
	}
	for number, test := range []struct {
		method, args any
		code, cause  string
	}{
		{"panics", "{}", "internal", "a bug"},
		{"nonsense", "{}", "internal", "nonsense"},
		{"parseLink", "{", "internal", "JSON"},
		{7, "{}", "internal", "no method"},
		{"parseLink", `{"link":"#v2.x"}`, "link-version", ""},
		{"lock", `{"room":5,"locked":true}`, "room-closed", ""},
		{"leave", `{"room":5}`, "", ""},
	} {
		if _, err := enter.Value().Invoke(number, test.method, test.args); err != nil {
			t.Fatal(err)
		}
		s := <-settled
		if s.Type != "settle" || s.Call != number || string(s.Code) != test.code || !strings.Contains(s.Cause, test.cause) {
			t.Errorf("%v(%v): %+v", test.method, test.args, s)
		}
	}
	close(hold)
	if s := <-settled; s.Call != 1 || s.Value != "late" {
		t.Errorf("the call that waited: %+v", s)
	}
}

// TestOwnStorage: a room's own storage is free for another page once this one has left the room and discarded what it received, in either order.
func TestOwnStorage(t *testing.T) {
	shared, err := bytes.OpenStorage(t.Context(), "shared")
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	i := &instance{ctx: t.Context(), storage: shared, rooms: map[int]*member{}, own: map[string]*bytes.Storage{}, received: map[string]received{}}
	const name = "own"
	expect := func(when string, free bool) {
		t.Helper()
		s, err := bytes.OpenStorage(t.Context(), name)
		if (err == nil) != free || err != nil && !errors.Is(err, bytes.ErrInUse) {
			t.Errorf("%s: %v", when, err)
		}
		if err == nil {
			s.Close()
		}
	}
	for _, leaveFirst := range []bool{true, false} {
		i.rooms[1] = &member{number: 1, storage: name}
		s := i.openOwn(t.Context(), name)
		if s == nil {
			t.Fatal("no private file system")
		}
		file, err := s.Create(t.Context(), "delivery", "files", 1)
		if err != nil {
			t.Fatal(err)
		}
		i.received["delivery"] = received{s, file.(*bytes.File)}
		leave := func() {
			delete(i.rooms, 1)
			i.closeOwn(name)
		}
		discard := func() {
			if _, err := i.discard(discardArgs{Delivery: "delivery"}); err != nil {
				t.Error(err)
			}
		}
		first, second := discard, leave
		if leaveFirst {
			first, second = leave, discard
		}
		first()
		expect("after one", false)
		second()
		expect("after both", true)
	}
}
