package transfer

import (
	"testing"
	"time"
)

// TestPays: what compressing saves on the link must be margin times the time that it takes.
func TestPays(t *testing.T) {
	const mb = 1e6
	for _, test := range []struct {
		left float64
		cost float64 // seconds per MB
		rate float64
		want bool
	}{
		{0, 0.01, mb, false},   // not tried yet
		{0.3, 0.01, 0, false},  // nothing is known of the link
		{0.3, 0.01, mb, true},  // saves 0.7 s of a second, takes 0.01
		{0.3, 0.34, mb, true},  // takes almost half of what it saves
		{0.3, 0.36, mb, false}, // and more than half
		{0.3, 0.03, 11 * mb, true},
		{0.3, 0.03, 12 * mb, false},
		{0.9, 0.03, mb, true},
		{0.91, 0.001, mb, false}, // hardly smaller, whatever it takes
		{1, 0.001, 1, false},
		{0.3, 0, 100 * mb, true}, // a clock too coarse to see it
	} {
		c := compression{seconds: test.cost, bytes: mb}
		if got := c.pays(&trial{left: test.left}, test.rate); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// TestTries: what does not pay is tried again after 1, 2, 4 and so on chunks, up to mostRest, and what pays afresh from the start.
func TestTries(t *testing.T) {
	tr := &trial{}
	var tried []int
	at := 0
	next := func(n int, pays bool) {
		for end := at + n; at < end; at++ {
			if tr.due() {
				tried = append(tried, at)
				tr.rests(pays)
			}
		}
	}
	next(1000, false)
	want := []int{0, 2, 5, 10, 19, 36, 69, 134, 199, 264}
	for i, w := range want {
		if i >= len(tried) || tried[i] != w {
			t.Fatalf("tried at %v, want %v and every %d", tried, want, mostRest+1)
		}
	}
	if len(tried) > len(want)+1000/mostRest {
		t.Errorf("tried %d times", len(tried))
	}
	tr.rests(true)
	tried = nil
	next(4, true)
	if len(tried) != 4 {
		t.Errorf("tried at %v where it pays", tried)
	}
	tr.trying = true
	if tr.due() {
		t.Error("tried while a try is under way")
	}
}

// TestMeasured: the last measurements count most, and what overlaps shares the time.
func TestMeasured(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1_800_000_000, 0).Add(time.Duration(ms) * time.Millisecond) }
	type took struct{ begun, ended, length int }
	for _, test := range []struct {
		name     string
		list     []took // each of 1000 bytes
		min, max float64
		left     float64
	}{
		{"one", []took{{0, 10, 300}}, 10, 10, 0.3},
		{"no smaller", []took{{0, 10, 0}}, 10, 10, 1},
		{"a slow start", []took{{0, 100, 300}, {100, 110, 300}, {110, 120, 300}, {120, 130, 300}, {130, 140, 200}}, 10, 14, 0.2},
		{"two at a time", []took{{0, 20, 300}, {0, 20, 300}, {20, 40, 300}, {20, 40, 300}}, 6, 14, 0.3},
		{"a clock that goes back", []took{{10, 0, 300}}, 0, 0, 0.3},
	} {
		c, tr := compression{}, &trial{trying: true}
		for _, took := range test.list {
			c.measured(tr, 1000, took.length, at(took.begun), at(took.ended))
		}
		if cost := c.cost() * 1e6; cost < test.min-1e-6 || cost > test.max || tr.left != test.left || tr.trying {
			t.Errorf("%s: %f ms for 1000 bytes, left %f", test.name, cost, tr.left)
		}
	}
}
