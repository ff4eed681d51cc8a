package signaling

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tallow/internal/core/wire"
)

func TestBackoff(t *testing.T) {
	var b backoff
	for i, want := range []time.Duration{1500, 4500, 13500, 15000, 15000} {
		if got := b.next(1 - 1e-12); got.Round(time.Millisecond) != want*time.Millisecond {
			t.Errorf("longest wait %d: %v, want %v ms", i, got, int(want))
		}
	}
	b.reset()
	for range 3 {
		if got := b.next(0); got != 500*time.Millisecond {
			t.Errorf("shortest wait: %v", got)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	var sum time.Duration
	for range 1000 {
		d := b.next(random.Float64())
		if d < firstBackoff || d > mostBackoff {
			t.Fatalf("wait of %v", d)
		}
		sum += d
	}
	if mean := sum / 1000; mean < 5*time.Second || mean > 12*time.Second {
		t.Errorf("mean wait %v", mean)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		seconds uint32
		random  float64
		want    time.Duration
	}{{4, 0, 4 * time.Second}, {4, 0.5, 4500 * time.Millisecond}, {1 << 31, 0, 10 * time.Minute}, {0, 0.9, 0}} {
		if got := retryAfter(wire.Closing{RetryAfter: c.seconds}, c.random); got != c.want {
			t.Errorf("%d s, %v: %v, want %v", c.seconds, c.random, got, c.want)
		}
	}
}

func TestHeartbeat(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	type step struct {
		at    float64
		heard uint64
		nudge bool
		want  string  // "", "ping" or "gone"
		next  float64 // 0: not looked at
		rtt   time.Duration
	}
	for name, steps := range map[string][]step{
		"answered": {
			{0.1, 1, false, "", 20, 0}, {20, 1, false, "ping", 30, 0}, {20.1, 2, false, "", 40, 0}, {40, 2, false, "ping", 50, 0}, {49.9, 3, false, "", 60, 0}},
		"other messages answer too": {{0.1, 1, false, "", 20, 0}, {20, 9, false, "ping", 30, 0}, {29, 10, false, "", 40, 0}},
		"never entered":             {{5, 0, false, "", 10, 0}, {10, 0, false, "gone", 0, 0}},
		"silent":                    {{0.1, 1, false, "", 20, 0}, {20, 1, false, "ping", 30, 0}, {29.9, 1, false, "", 30, 0}, {30.5, 1, false, "gone", 0, 0}},
		// The page was frozen: what came meanwhile is read first.
		"late, alive": {{0.1, 1, false, "", 20, 0}, {20, 1, false, "ping", 30, 0}, {90, 1, false, "", 91, 0}, {90.1, 2, false, "ping", 100.1, 0}, {90.2, 3, false, "", 110.1, 0}},
		"late, gone":  {{0.1, 1, false, "", 20, 0}, {20, 1, false, "ping", 30, 0}, {90, 1, false, "", 91, 0}, {90.5, 1, false, "", 91, 0}, {91, 1, false, "gone", 0, 0}},
		// A timer that fires late, but whose ping was answered, is no reason to doubt.
		"throttled": {{0.1, 1, false, "", 20, 0}, {60, 1, false, "ping", 70, 0}, {60.1, 2, false, "", 80, 0}, {120, 2, false, "ping", 130, 0}},
		"nudged":    {{0.1, 1, false, "", 20, 0}, {3, 1, true, "ping", 5, 0}, {4, 2, false, "", 23, 0}},
		"nudged, gone": {
			{0.1, 1, false, "", 20, 0}, {3, 1, true, "ping", 5, 0}, {4, 1, true, "", 5, 0}, {5, 1, false, "gone", 0, 0}},
		"nudged, slow":         {{0.1, 1, false, "", 20, 0}, {3, 1, true, "ping", 7, time.Second}, {5, 1, true, "", 7, time.Second}, {7, 1, false, "gone", 0, 0}},
		"nudged, dull":         {{0.1, 1, false, "", 20, 0}, {3, 1, true, "ping", 13, time.Minute}},
		"nudged while waiting": {{0.1, 1, false, "", 20, 0}, {20, 1, false, "ping", 30, 0}, {21, 1, true, "", 23, 0}, {23, 1, false, "gone", 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var h heartbeat
			h.ask(start, 0, answerWithin)
			for _, s := range steps {
				nudged := s.nudge && h.nudge(at(s.at), s.heard, s.rtt)
				ping, gone, next := h.step(at(s.at), s.heard)
				got := map[[2]bool]string{{true, false}: "ping", {false, true}: "gone"}[[2]bool{ping || nudged, gone}]
				if got != s.want || s.next != 0 && !next.Equal(at(s.next)) {
					t.Fatalf("at %v s: %q, next %v; want %q, %v", s.at, got, next.Sub(start), s.want, s.next)
				}
			}
		})
	}
}

func TestAddress(t *testing.T) {
	for _, url := range []string{"wss://a.example/ws", "wss://a.example/", "ws://a.example:80/some/ws?mode=x&y"} {
		seen := map[string]bool{}
		for failed := range 20 {
			got := address(url, failed)
			if plain := got == url; plain != slices.Contains([]int{0, 4, 8, 16}, failed) {
				t.Errorf("after %d failures: %s", failed, got)
			} else if plain {
				continue
			}
			base, query, _ := strings.Cut(url, "?")
			base = strings.TrimSuffix(base, "/")
			path, rest, _ := strings.Cut(got, "?")
			if name, below := strings.CutPrefix(path, base+"/"); !below || name == "" || strings.Contains(name, "/") || rest != query || seen[path] {
				t.Errorf("after %d failures: %s", failed, got)
			}
			seen[path] = true
		}
	}
}
