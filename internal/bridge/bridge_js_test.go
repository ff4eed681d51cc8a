package bridge

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hack-pad/safejs"
)

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
