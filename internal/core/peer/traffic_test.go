package peer

import (
	"math"
	"testing"
	"time"
)

// counted is Traffic with a clock and a connection's counters.
type counted struct {
	Traffic
	now time.Time
	ConnStats
}

func newCounted() *counted {
	c := &counted{now: time.Unix(1e9, 0)}
	c.Opened(c.now)
	return c
}

// run reads the counters every second, while they grow by these amounts.
func (c *counted) run(seconds int, step ConnStats) {
	for range seconds {
		c.now = c.now.Add(time.Second)
		c.BytesSent += step.BytesSent
		c.BytesReceived += step.BytesReceived
		c.PacketsSent += step.PacketsSent
		c.PacketsReceived += step.PacketsReceived
		c.ChecksSent += step.ChecksSent
		c.ChecksAnswered += step.ChecksAnswered
		c.Pair = max(c.Pair, step.Pair)
		c.Read(c.now, c.ConnStats)
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b)) }

func TestTraffic(t *testing.T) {
	c := newCounted()
	c.Read(c.now, c.ConnStats)
	c.run(10, ConnStats{BytesSent: 1000, BytesReceived: 100, PacketsSent: 2, PacketsReceived: 1})
	s := c.Stats(c.now)
	if s.BytesSent != 10_000 || s.BytesReceived != 1000 || s.PacketsSent != 20 || s.PacketsReceived != 10 ||
		!near(s.SendRate, 1000) || !near(s.ReceiveRate, 100) || !near(s.MeanSendRate, 1000) || s.Uptime != 10*time.Second || s.Reconnects != 0 {
		t.Errorf("%+v", s)
	}
	c.run(5, ConnStats{BytesSent: 5000})
	if s := c.Stats(c.now); !near(s.SendRate, 5000) || s.ReceiveRate != 0 || !near(s.MeanSendRate, 35_000.0/15) {
		t.Errorf("after a faster part: %+v", s)
	}
	for range 100 { // readings at every whim
		c.now = c.now.Add(time.Millisecond)
		c.BytesSent += 5
		c.Read(c.now, c.ConnStats)
	}
	if s := c.Stats(c.now); s.SendRate < 4500 || s.SendRate > 5500 || len(c.rates) > 12 || len(c.checks) > 300 {
		t.Errorf("%d and %d readings: %+v", len(c.rates), len(c.checks), s)
	}

	c.Closed(c.now)
	sent := c.Stats(c.now).BytesSent
	c.now = c.now.Add(time.Hour) // without a connection
	if s := c.Stats(c.now); s.Uptime != 0 || s.SendRate != 0 || s.BytesSent != sent || s.MeanSendRate < 2000 || s.Loss != -1 {
		t.Errorf("closed: %+v", s)
	}
	c.Read(c.now, c.ConnStats) // came too late
	if c.Stats(c.now).BytesSent != sent {
		t.Error("counted after the close")
	}
	c.Opened(c.now)
	c.ConnStats = ConnStats{}
	c.run(2, ConnStats{BytesSent: 50, PacketsSent: 1})
	if s := c.Stats(c.now); s.BytesSent != sent+100 || s.PacketsSent != 22 || s.Reconnects != 1 || s.Uptime != 2*time.Second {
		t.Errorf("second connection: %+v", s)
	}
	c.ConnStats = ConnStats{} // another candidate pair, which counts from the start
	c.run(1, ConnStats{BytesSent: 7})
	for range 3 { // for the same loss
		c.Restarted()
	}
	if s := c.Stats(c.now); s.BytesSent != sent+107 || s.Reconnects != 1 {
		t.Errorf("another pair, and nothing has come yet: %+v", s)
	}
	c.Heard(true)
	c.Heard(true)
	if s := c.Stats(c.now); s.Reconnects != 2 {
		t.Errorf("restarted: %+v", s)
	}
	c.Restarted() // for the peer's sake
	c.Heard(false)
	c.Heard(true)
	if s := c.Stats(c.now); s.Reconnects != 2 {
		t.Errorf("restarted, and never in doubt: %+v", s)
	}
	c.Restarted() // in vain
	c.Closed(c.now)
	c.Opened(c.now)
	c.Heard(true)
	if s := c.Stats(c.now); s.Reconnects != 3 {
		t.Errorf("third connection: %+v", s)
	}
}

func TestTrafficUnknown(t *testing.T) {
	c := newCounted()
	if s := c.Stats(c.now); s.Loss != -1 || s.PacketsSent != 0 || s.MeanSendRate != 0 {
		t.Errorf("at once: %+v", s)
	}
	c.run(20, ConnStats{BytesSent: 100, BytesReceived: 100, ChecksAnswered: 1}) // as Firefox does
	if s := c.Stats(c.now); s.PacketsSent != -1 || s.PacketsReceived != -1 || s.Loss != -1 {
		t.Errorf("without counters: %+v", s)
	}
}

func TestTrafficLoss(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(c *counted)
		want float64
	}{
		{"too few to say", func(c *counted) { c.run(4, ConnStats{ChecksSent: 1}) }, -1},
		{"all answered", func(c *counted) { c.run(30, ConnStats{ChecksSent: 1, ChecksAnswered: 1}) }, 0},
		{"the last one is under way", func(c *counted) {
			c.run(30, ConnStats{ChecksSent: 1, ChecksAnswered: 1})
			c.run(1, ConnStats{ChecksSent: 1})
		}, 0},
		{"a fifth is lost", func(c *counted) {
			c.Read(c.now, c.ConnStats)
			for range 10 {
				c.run(4, ConnStats{ChecksSent: 1, ChecksAnswered: 1})
				c.run(1, ConnStats{ChecksSent: 1})
			}
		}, 9.0 / 50},
		{"what is a minute ago is forgotten", func(c *counted) {
			c.run(50, ConnStats{ChecksSent: 1})
			c.run(61, ConnStats{ChecksSent: 1, ChecksAnswered: 1})
		}, 0},
		{"another pair begins anew", func(c *counted) {
			c.run(50, ConnStats{ChecksSent: 2})
			c.ConnStats = ConnStats{}
			c.run(10, ConnStats{ChecksSent: 1, ChecksAnswered: 1, Pair: 1})
		}, 0},
		{"another pair, which had counted more", func(c *counted) {
			c.run(50, ConnStats{ChecksSent: 1, ChecksAnswered: 1})
			c.ChecksSent += 100 // before it was chosen
			c.run(10, ConnStats{ChecksSent: 1, ChecksAnswered: 1, Pair: 1})
		}, 0},
		{"answers to what was asked before", func(c *counted) {
			c.run(1, ConnStats{ChecksSent: 5})
			c.run(8, ConnStats{ChecksSent: 1, ChecksAnswered: 2})
		}, 0},
	} {
		c := newCounted()
		test.do(c)
		if got := c.Stats(c.now).Loss; !near(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
