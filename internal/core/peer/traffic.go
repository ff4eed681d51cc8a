package peer

import "time"

const (
	// rateWindow is what a current rate is taken over, at least where readings are that close; readings closer than minReading
	// count as one.
	rateWindow = 2 * time.Second
	minReading = 250 * time.Millisecond
	// lossWindow is what loss is taken over, fewestChecks how many checks it takes to say something.
	lossWindow   = time.Minute
	fewestChecks = 4
)

// Traffic adds up what the connections to one member carry, one after the other. It is a pure machine.
type Traffic struct {
	bytesSent, bytesReceived, packetsSent, packetsReceived tally

	open   bool
	opened time.Time     // the present connection, if open
	past   time.Duration // how long former ones were
	rates  []reading
	checks []reading
	pair   uint64 // that they are of

	reconnects int
	restarted  bool // and nothing has come since
}

// TrafficStats are what Traffic knows.
type TrafficStats struct {
	BytesSent, BytesReceived      uint64  // on the wire, over all connections, as far as it was read
	PacketsSent, PacketsReceived  int64   // -1: the platform does not say
	SendRate, ReceiveRate         float64 // bytes per second, about now
	MeanSendRate, MeanReceiveRate float64 // over all the time that there was a connection
	Loss                          float64 // share of connectivity checks of the last minute without an answer; -1: unknown
	Uptime                        time.Duration
	Reconnects                    int // connections after the first, and times that one in doubt went on after an ICE restart
}

// tally adds up a counter that begins anew with each connection, and on some platforms with each candidate pair.
type tally struct{ before, last uint64 }

func (t *tally) read(n uint64) {
	if n < t.last {
		t.renew()
	}
	t.last = n
}

func (t *tally) renew()        { t.before, t.last = t.before+t.last, 0 }
func (t *tally) total() uint64 { return t.before + t.last }

// reading is two counters at a time.
type reading struct {
	at   time.Time
	a, b uint64
}

// Opened says that a connection is open; one before it is closed.
func (t *Traffic) Opened(now time.Time) {
	t.Closed(now)
	if !t.opened.IsZero() {
		t.reconnects++
	}
	t.open, t.opened = true, now
	for _, c := range []*tally{&t.bytesSent, &t.bytesReceived, &t.packetsSent, &t.packetsReceived} {
		c.renew()
	}
	t.rates, t.checks = nil, nil
}

// Closed says that there is no connection.
func (t *Traffic) Closed(now time.Time) {
	if t.open {
		t.past += max(now.Sub(t.opened), 0)
	}
	t.open, t.rates, t.checks, t.restarted = false, nil, nil, false
}

// Restarted says that the connection looks for a path anew, without being a new one.
func (t *Traffic) Restarted() { t.restarted, t.checks = true, nil }

// Heard says that something has come over the connection, which was in doubt until now or was not: if it was restarted meanwhile, that has helped.
// A restart without a doubt is one that only the peer wanted.
func (t *Traffic) Heard(doubted bool) {
	if t.restarted && doubted {
		t.reconnects++
	}
	t.restarted = false
}

// Read takes the counters of the present connection.
func (t *Traffic) Read(now time.Time, s ConnStats) {
	if !t.open {
		return
	}
	t.bytesSent.read(s.BytesSent)
	t.bytesReceived.read(s.BytesReceived)
	t.packetsSent.read(s.PacketsSent)
	t.packetsReceived.read(s.PacketsReceived)
	t.rates = noted(t.rates, reading{now, t.bytesSent.total(), t.bytesReceived.total()}, rateWindow)
	if s.Pair != t.pair {
		t.pair, t.checks = s.Pair, nil
	}
	t.checks = noted(t.checks, reading{now, s.ChecksSent, s.ChecksAnswered}, lossWindow)
}

// noted adds a reading and drops those that are not needed to look back over the window. One that follows too closely replaces the
// one before, so that there are never many.
func noted(list []reading, r reading, window time.Duration) []reading {
	if n := len(list); n > 0 && r.at.Before(list[n-1].at) {
		list = nil // the clock was set back
	} else if n > 1 && list[n-1].at.Sub(list[n-2].at) < minReading {
		list = list[:n-1]
	}
	list = append(list, r)
	for len(list) > 2 && r.at.Sub(list[1].at) >= window {
		list = list[1:]
	}
	return list
}

// Stats reads the sums.
func (t *Traffic) Stats(now time.Time) TrafficStats {
	s := TrafficStats{
		BytesSent: t.bytesSent.total(), BytesReceived: t.bytesReceived.total(),
		PacketsSent: int64(t.packetsSent.total()), PacketsReceived: int64(t.packetsReceived.total()),
		Loss: t.loss(), Reconnects: t.reconnects,
	}
	if s.BytesSent > 0 && s.PacketsSent == 0 { // Firefox counts none
		s.PacketsSent, s.PacketsReceived = -1, -1
	}
	if t.open {
		s.Uptime = max(now.Sub(t.opened), 0)
	}
	if n := len(t.rates); n > 1 {
		first, last := t.rates[0], t.rates[n-1]
		if dt := last.at.Sub(first.at).Seconds(); dt > 0 {
			s.SendRate, s.ReceiveRate = float64(last.a-first.a)/dt, float64(last.b-first.b)/dt
		}
	}
	if up := (t.past + s.Uptime).Seconds(); up > 0 {
		s.MeanSendRate, s.MeanReceiveRate = float64(s.BytesSent)/up, float64(s.BytesReceived)/up
	}
	return s
}

// loss forgives one check, whose answer may be on its way.
func (t *Traffic) loss() float64 {
	n := len(t.checks)
	if n < 2 {
		return -1
	}
	sent, answered := t.checks[n-1].a-t.checks[0].a, t.checks[n-1].b-t.checks[0].b
	if sent < fewestChecks {
		return -1
	}
	return float64(max(int64(sent)-int64(answered)-1, 0)) / float64(sent)
}
