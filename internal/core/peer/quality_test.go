package peer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// judged is a meter with a clock, and what it has said since the last look, changes only.
type judged struct {
	*QualityMeter
	now  time.Time
	said []Quality
}

func newJudged() *judged {
	j := &judged{QualityMeter: NewQualityMeter(QualityThresholds{}), now: time.Unix(1e9, 0)}
	j.Opened(j.now)
	j.look()
	return j
}

func (j *judged) look() {
	if q := j.Quality(); len(j.said) == 0 || j.said[len(j.said)-1] != q {
		j.said = append(j.said, q)
	}
}

// wait lets time pass in ticks.
func (j *judged) wait(d, tick time.Duration) {
	for end := j.now.Add(d); j.now.Before(end); {
		j.now = j.now.Add(tick)
		j.Tick(j.now)
		j.look()
	}
}

// ping has Pings answered, 2 s apart.
func (j *judged) ping(roundTrips ...time.Duration) *judged {
	for _, rtt := range roundTrips {
		sent := j.now
		j.wait(rtt, ms)
		j.Pong(sent, j.now)
		j.look()
		j.wait(max(2*time.Second-rtt, 0), 100*ms)
	}
	return j
}

func times(n int, d ...time.Duration) []time.Duration { return slices.Repeat(d, n) }

func letters(list []Quality) string {
	var b strings.Builder
	for _, q := range list {
		b.WriteByte("dpfge"[q])
	}
	return b.String()
}

// TestQualitySteps: levels, worst first: d, p, f, g, e. The first is what is said before anything is known.
func TestQualitySteps(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(j *judged)
		want string
	}{
		{"below 100 ms", func(j *judged) { j.ping(times(5, 99*ms)...) }, "ge"},
		{"100 ms", func(j *judged) { j.ping(times(5, 100*ms)...) }, "g"},
		{"below 200 ms", func(j *judged) { j.ping(times(5, 199*ms)...) }, "g"},
		{"200 ms", func(j *judged) { j.ping(times(5, 200*ms)...) }, "gf"},
		{"below 300 ms", func(j *judged) { j.ping(times(5, 299*ms)...) }, "gf"},
		{"300 ms", func(j *judged) { j.ping(times(5, 300*ms)...) }, "gp"},
		{"slower, and quick again", func(j *judged) {
			j.ping(times(5, 20*ms)...).ping(times(15, 250*ms)...).ping(times(15, 400*ms)...).ping(times(25, 20*ms)...)
		}, "gegfpge"},
		{"one round trip that waited for a retransmission", func(j *judged) {
			j.ping(times(5, 20*ms)...).ping(1500 * ms).ping(times(5, 20*ms)...)
		}, "ge"},
		{"better only at a distance from the threshold", func(j *judged) {
			j.ping(times(5, 110*ms)...).ping(times(40, 92*ms)...)
		}, "g"},
		{"better beyond it", func(j *judged) { j.ping(times(5, 110*ms)...).ping(times(40, 80*ms)...) }, "ge"},
		{"own thresholds", func(j *judged) {
			j.QualityMeter = NewQualityMeter(QualityThresholds{10 * ms, 20 * ms, 30 * ms})
			j.Opened(j.now)
			j.ping(times(5, 25*ms)...)
		}, "gf"},
		{"loss takes a level, and gives it back only when it is nearly gone", func(j *judged) {
			j.ping(times(3, 20*ms)...)
			for _, share := range []float64{-1, 0, 0.04, 0.05, 0.03, 0.06, 0.02, 0.015, 0.04} {
				j.Loss(share)
				j.look()
			}
		}, "gege"},
		{"much loss takes two", func(j *judged) {
			j.ping(times(3, 20*ms)...)
			for _, share := range []float64{0.15, 0.11, 0.2, 0.09, 0} {
				j.Loss(share)
				j.look()
			}
		}, "gefge"},
		{"loss never makes it disconnected", func(j *judged) {
			j.ping(times(3, 400*ms)...)
			j.Loss(1)
			j.look()
		}, "gp"},
		{"the connection's own state", func(j *judged) {
			j.ping(20 * ms)
			j.Connected(false)
			j.look()
			j.Connected(true)
			j.look()
			j.Closed()
			j.look()
		}, "geded"},
		{"a link after another begins anew", func(j *judged) {
			j.ping(times(3, 400*ms)...)
			j.Loss(1)
			j.Closed()
			j.look()
			j.Opened(j.now)
			j.look()
			j.ping(20 * ms)
		}, "gpdge"},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := newJudged()
			test.do(j)
			if got := letters(j.said); got != test.want {
				t.Errorf("said %s, want %s; rtt %v, jitter %v", got, test.want, j.RTT(), j.jitter)
			}
		})
	}
}

// TestQualityNoise: series that would flap if each round trip were judged by itself, or each smoothed one by the plain thresholds.
func TestQualityNoise(t *testing.T) {
	noise := func(seed uint64, mean, width time.Duration) []time.Duration {
		random := rand.New(rand.NewPCG(seed, 0))
		list := make([]time.Duration, 500)
		for i := range list {
			list[i] = mean - width + time.Duration(random.Int64N(int64(2*width)))
		}
		return list
	}
	for _, test := range []struct {
		mean, width time.Duration
		changes     int // at most, after the first verdict, in 17 minutes
	}{
		{100 * ms, 15 * ms, 1},
		{200 * ms, 40 * ms, 1},
		{300 * ms, 60 * ms, 1},
		{100 * ms, 60 * ms, 6}, // wild ones may change it now and then
		{90 * ms, 80 * ms, 12},
		{200 * ms, 150 * ms, 12},
	} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprintf("%v±%v/%d", test.mean, test.width, seed), func(t *testing.T) {
				series := noise(seed, test.mean, test.width)
				each := 0
				for i := range series[1:] {
					if qualityOf(series[i]) != qualityOf(series[i+1]) {
						each++
					}
				}
				if each < 200 {
					t.Fatalf("the series crosses a threshold %d times only", each)
				}
				j := newJudged()
				j.ping(series[0])
				j.said = nil
				j.look()
				j.ping(series[1:]...)
				if n := len(j.said) - 1; n > test.changes {
					t.Errorf("%d changes: %s", n, letters(j.said))
				}
			})
		}
	}
}

// qualityOf judges one round trip by itself.
func qualityOf(d time.Duration) Quality {
	q := NewQualityMeter(QualityThresholds{})
	q.Opened(time.Unix(0, 0))
	q.Pong(time.Unix(0, 0), time.Unix(0, 0).Add(d))
	return q.Quality()
}

// TestQualityUnderLoad: the queue that we fill ourselves is not the path's fault, but what is quicker in spite of it counts.
func TestQualityUnderLoad(t *testing.T) {
	j := newJudged()
	j.ping(times(5, 20*ms)...)
	j.said = nil
	for _, rtt := range times(20, 700*ms, 1200*ms, 350*ms) {
		j.Loaded(j.now)
		j.ping(rtt)
		j.Loaded(j.now)
	}
	if got := letters(j.said); got != "e" {
		t.Errorf("said %s of a good path under load", got)
	}
	if j.RTT() != 20*ms {
		t.Errorf("rtt %v under load", j.RTT())
	}
	// The queue drains; then the path has to be judged by what it is.
	j.ping(times(3, 700*ms, 600*ms)[:2]...)
	if got := letters(j.said); got != "e" {
		t.Errorf("said %s while the queue drains", got)
	}
	j.ping(times(20, 700*ms)...)
	if j.Quality() != QualityPoor {
		t.Errorf("%v for a path that is slow without load", j.Quality())
	}
	j.Loaded(j.now)
	j.ping(80 * ms)
	if j.RTT() != 80*ms {
		t.Errorf("rtt %v, though 80 ms were enough under load", j.RTT())
	}
}

// TestQualityPathChanged: what was measured on the path before counts no longer, and the link's probe says what the new one is like, whatever load
// goes over it. Until then the verdict stands.
func TestQualityPathChanged(t *testing.T) {
	probe := func(j *judged, rtt time.Duration) {
		sent := j.now
		j.wait(rtt, ms)
		j.Probed(sent, j.now)
		j.look()
	}
	underLoad := func(j *judged, roundTrips ...time.Duration) {
		for _, rtt := range roundTrips {
			j.Loaded(j.now)
			j.ping(rtt)
			j.Loaded(j.now)
		}
	}
	for _, test := range []struct {
		name string
		do   func(j *judged)
		want string
		rtt  time.Duration
	}{
		{"slower", func(j *judged) { underLoad(j, 700*ms); probe(j, 350*ms); underLoad(j, times(20, 900*ms)...) }, "ep", 350 * ms},
		{"not yet known", func(j *judged) { underLoad(j, 700*ms, 10*ms) }, "e", 20 * ms},
		{"the same again", func(j *judged) { probe(j, 20*ms); underLoad(j, times(20, 900*ms)...) }, "e", 20 * ms},
		{"without load", func(j *judged) { j.ping(5 * time.Second); probe(j, 250*ms); j.ping(times(5, 250*ms)...) }, "ef", 250 * ms},
		{"quicker than the probe", func(j *judged) { probe(j, 350*ms); underLoad(j, 280*ms) }, "ep", 280 * ms},
		{"others were in the way", func(j *judged) { probe(j, 350*ms); underLoad(j, 400*ms); probe(j, 150*ms) }, "epg", 150 * ms},
		{"a later probe that took longer", func(j *judged) { probe(j, 150*ms); underLoad(j, 400*ms); probe(j, 350*ms) }, "eg", 150 * ms},
		{"a Ping from before", func(j *judged) {
			sent := j.now.Add(-ms)
			j.wait(2*time.Second, ms)
			j.Pong(sent, j.now)
			j.Probed(sent, j.now)
			j.look()
		}, "e", 20 * ms},
		{"once more", func(j *judged) { probe(j, 350*ms); j.PathChanged(j.now); j.look(); probe(j, 20*ms) }, "epe", 20 * ms},
		{"no probe came to anything", func(j *judged) {
			j.ping(times(int(probedWithin/(2*time.Second)), time.Second)...)
			underLoad(j, 250*ms, 300*ms)
		}, "ef", 250 * ms},
		{"after an outage", func(j *judged) {
			j.Connected(false)
			j.look()
			j.Connected(true)
			j.PathChanged(j.now)
			j.look()
			probe(j, 350*ms)
		}, "edep", 350 * ms},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := newJudged().ping(times(5, 20*ms)...)
			j.Loaded(j.now)
			j.said = nil
			j.PathChanged(j.now)
			j.look()
			test.do(j)
			if got := letters(j.said); got != test.want || j.RTT() != test.rtt {
				t.Errorf("said %s, want %s; rtt %v, want %v", got, test.want, j.RTT(), test.rtt)
			}
		})
	}
}

// TestQualityPathChangedAtOnce: a Ping from before the first path change that is answered after it is no measure, even where there is no other yet.
func TestQualityPathChangedAtOnce(t *testing.T) {
	j := newJudged()
	pinged := j.now
	j.wait(5*time.Second, 100*ms)
	j.PathChanged(j.now)
	j.wait(20*ms, ms)
	j.Pong(pinged, j.now)
	j.Pong(pinged.Add(2*time.Second), j.now)
	if j.RTT() != 0 {
		t.Errorf("a round trip of %v", j.RTT())
	}
	j.ping(40 * ms)
	if j.RTT() != 40*ms || j.Quality() != QualityExcellent {
		t.Errorf("%v, %v", j.RTT(), j.Quality())
	}
}

// TestQualitySilence: noticed within 10 s at whatever pace time is told, and at once where the connection says so; time that we slept
// through is not silence.
func TestQualitySilence(t *testing.T) {
	for _, tick := range []time.Duration{100 * ms, time.Second, 1900 * ms} {
		for phase := 100 * ms; phase <= tick; phase += 300 * ms {
			j := newJudged()
			j.ping(20 * ms)
			j.wait(phase, phase) // since the last sign of life
			silent := phase
			j.Heard()
			for silent = 0; j.Quality() != QualityDisconnected && silent < time.Minute; silent += tick {
				j.wait(tick, tick)
			}
			if silent > 10*time.Second || silent < 7*time.Second {
				t.Errorf("ticks of %v: noticed after %v", tick, silent)
			}
			j.Heard()
			if j.Quality() != QualityExcellent {
				t.Errorf("%v after a sign of life", j.Quality())
			}
		}
	}

	j := newJudged()
	j.ping(20 * ms)
	j.wait(time.Minute, time.Minute) // the page slept
	if j.Quality() != QualityExcellent {
		t.Errorf("%v after a long sleep", j.Quality())
	}
	j.Connected(false) // an event wakes it
	if j.Quality() != QualityDisconnected {
		t.Errorf("%v though the connection says otherwise", j.Quality())
	}

	j = newJudged()
	j.now = j.now.Add(-time.Hour) // the clock is set back
	j.ping(times(3, 20*ms)...)
	if j.Quality() != QualityExcellent {
		t.Errorf("%v after the clock was set back", j.Quality())
	}
}

func TestQualityThresholdsValid(t *testing.T) {
	for _, bad := range []QualityThresholds{{}, {0, 2, 3}, {-1, 2, 3}, {1, 1, 3}, {1, 3, 2}, {3, 2, 1}} {
		if bad.Valid() {
			t.Errorf("%v is valid", bad)
		}
	}
	if !DefaultQualityThresholds.Valid() {
		t.Error("the default is not")
	}
}

// TestQualityClosed: nothing is known of a link that is no more.
func TestQualityClosed(t *testing.T) {
	j := newJudged().ping(times(5, 50*ms)...)
	if j.RTT() == 0 {
		t.Fatal("no round trip")
	}
	j.Closed()
	if j.RTT() != 0 || j.Quality() != QualityDisconnected {
		t.Errorf("%v, %v", j.RTT(), j.Quality())
	}
	j.wait(time.Minute, time.Second)
	j.Opened(j.now)
	if j.ping(times(5, 250*ms)...); j.RTT() != 250*ms || j.Quality() != QualityFair {
		t.Errorf("afterwards: %v, %v", j.RTT(), j.Quality())
	}
}
