package bridge

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"tallow/internal/core/room"
	"tallow/internal/core/wire"
)

type odd struct {
	head
	Bool    bool     `json:"bool"`
	Small   int8     `json:"small"`
	Large   int64    `json:"large,omitempty"`
	Float   float64  `json:"float"`
	Text    string   `json:"text"`
	List    []string `json:"list"`
	Omitted []int    `json:"omitted,omitempty"`
	Inner   *inner   `json:"inner"`
	Hidden  string   `json:"-"`
}

type inner struct {
	N uint32 `json:"n"`
}

var odds = []odd{
	{},
	{head: head{"x", -1}, Bool: true, Small: -128, Large: math.MaxInt64, Float: 0.1, List: []string{}, Omitted: []int{1, 2}, Inner: &inner{7}},
	{Float: 1e21, Text: "\x00\t\n\"\\/ü€😀\u2028", List: []string{"", "a"}},
	{Float: -2.5e-9, Text: strings.Repeat("long ", 1000)},
}

// TestJSON holds this package's JSON against the standard library's.
func TestJSON(t *testing.T) {
	for _, want := range odds {
		want.Hidden = "not sent"
		text := appendJSON(nil, want)
		var theirs odd
		if err := json.Unmarshal(text, &theirs); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		want.Hidden = ""
		if !reflect.DeepEqual(theirs, want) {
			t.Errorf("%s\nis %+v\nwas %+v", text, theirs, want)
		}
		standard, err := json.MarshalIndent(want, " ", "\t")
		if err != nil {
			t.Fatal(err)
		}
		var ours odd
		if err := parseJSON(standard, &ours); err != nil || !reflect.DeepEqual(ours, want) {
			t.Errorf("%v: %s\nis %+v\nwas %+v", err, standard, ours, want)
		}
	}
	if got := string(appendJSON(nil, struct {
		F float64
		S string
		V any
	}{math.Inf(1), "a\xffb", nil})); got != `{"f":null,"s":"a`+"\ufffd"+`b","v":null}` {
		t.Error(got)
	}
	for _, snapshot := range []any{room.Peer{Name: "n", SafetyWords: []string{"a"}}, room.Transfer{ID: "x", Files: []room.File{{Size: 1 << 53}}}, room.Result{}} {
		standard, err := json.Marshal(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		if ours := appendJSON(nil, snapshot); string(ours) != string(standard) {
			t.Errorf("%T:\n got %s\nwant %s", snapshot, ours, standard)
		}
	}
}

func TestParseJSON(t *testing.T) {
	type args struct {
		Room int
		ID   wire.ID `json:"id"`
		Peer *wire.ID
		To   []wire.ID
		Deep struct{ List []struct{ Name string } }
	}
	var a args
	const id = `"000102030405060708090A0B0C0D0E0f"`
	good := `{"unknown":[{"a":[1,"]"]},null],"room":5,"id":` + id + `,"peer":` + id + `,"to":[` + id + `,` + id + `],"deep":{"list":[{"name":"\ud83d\ude00\ud800\u00e9\/"},{}]},"room2":1}`
	if err := parseJSON([]byte(good), &a); err != nil {
		t.Fatal(err)
	}
	if a.Room != 5 || a.ID[15] != 15 || *a.Peer != a.ID || len(a.To) != 2 || a.To[1] != a.ID || a.Deep.List[0].Name != "😀\ufffdé/" || len(a.Deep.List) != 2 {
		t.Errorf("%+v", a)
	}
	a.Peer = nil
	if err := parseJSON([]byte(`{"peer":null,"to":null}`), &a); err != nil || a.Peer != nil || a.To == nil {
		t.Errorf("%v: null changed %+v", err, a)
	}
	for _, bad := range []string{
		``, `{`, `}`, `{"room"`, `{"room":`, `{"room":1`, `{"room":1,}`, `{"room":1}x`, `{"room":"1"}`, `{"room":1.5}`, `{"room":true}`, `{"room":99999999999999999999}`,
		`{"id":"00"}`, `{"id":"zz0102030405060708090a0b0c0d0e0f"}`, `{"id":7}`, `{"to":{}}`, `{"to":[` + id, `{"deep":[]}`, `{"room:1}`,
		`{"deep":{"list":[{"name":"\x"}]}}`, `{"deep":{"list":[{"name":"\u12"}]}}`, `{"deep":{"list":[{"name":"\`, `[]`, `{1:2}`,
	} {
		if err := parseJSON([]byte(bad), &args{}); !errors.Is(err, errJSON) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzParseJSON(f *testing.F) {
	for _, o := range odds {
		text, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var ours, theirs odd
		if !utf8.Valid(text) || parseJSON(text, &ours) != nil || json.Unmarshal(text, &theirs) != nil {
			return // this parser is more lenient with some, and stricter with others
		}
		again := appendJSON(nil, ours)
		var back odd
		if err := parseJSON(again, &back); err != nil || string(appendJSON(nil, back)) != string(again) {
			t.Errorf("%q became %+v, then %q, then %+v (%v)", text, ours, again, back, err)
		}
	})
}
