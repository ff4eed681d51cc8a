//go:build !js

package peer

import (
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

// What follows is whole links over pion and a virtual network, in virtual time: however slow the machine, computing takes no time, so what is
// read says something of the protocols alone.

// bottleneck is the way from one network to another: a delay both ways, and, one way, a queue that is served at a rate.
type bottleneck struct {
	near, far    *lab
	rate         float64 // bytes per second, of UDP payload
	delay        time.Duration
	queued, most atomic.Int64 // bytes before the bottleneck; drops would count for good

	mu    sync.Mutex
	loads []*load // the near ends of its links
}

func newBottleneck(t *testing.T, rate float64, delay time.Duration) *bottleneck {
	t.Helper()
	router := func(c vnet.RouterConfig) *vnet.Router {
		c.LoggerFactory = logging.NewDefaultLoggerFactory()
		r, err := vnet.NewRouter(&c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const door = "10.1.255.1"
	near := router(vnet.RouterConfig{CIDR: "10.1.0.0/16", MinDelay: delay})
	far := router(vnet.RouterConfig{CIDR: "10.2.0.0/16", StaticIPs: []string{door}, NATType: &vnet.NATType{}}) // open to everybody
	b := &bottleneck{near: &lab{t: t, router: near}, far: &lab{t: t, router: far}, rate: rate, delay: delay}
	if err := near.AddNet(slow(t, far, rate)); err != nil {
		t.Fatal(err)
	}
	if err := near.AddChildRouter(far); err != nil {
		t.Fatal(err)
	}
	near.AddChunkFilter(func(c vnet.Chunk) bool { // on its way into the queue, when the delay is over
		if to, ok := c.DestinationAddr().(*net.UDPAddr); ok && to.IP.String() == door {
			b.most.Store(max(b.queued.Add(int64(len(c.UserData()))), b.most.Load()))
		}
		return true
	})
	far.AddChunkFilter(func(c vnet.Chunk) bool { // out of it
		if from, ok := c.SourceAddr().(*net.UDPAddr); ok && from.IP[len(from.IP)-3] == 1 {
			b.queued.Add(-int64(len(c.UserData())))
		}
		return true
	})
	if err := near.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Stop() })
	return b
}

// slow puts a queue before a network.
func slow(t *testing.T, nic vnet.NIC, rate float64) vnet.NIC {
	t.Helper()
	q, err := vnet.NewQueue(nic, vnet.NewTBFQueue(int(8*rate), 3000, 64<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// load is one end of a link that does what the room does besides: it answers Pings, and tells the link what its own took.
type load struct {
	link           *Link
	opened, closed chan struct{}
	received       atomic.Int64 // bytes of bulk messages
	ready          atomic.Int64 // how often a probe had something to do

	mu   sync.Mutex
	sent map[uint64]time.Time // Pings
	took []time.Duration
}

func (l *load) Opened()             { close(l.opened) }
func (l *load) Bulk(b *bulk.Buffer) { l.received.Add(int64(len(b.B))) }
func (l *load) Closed(error)        { close(l.closed) }

func (l *load) Control(m wire.ControlMessage) {
	switch m := m.(type) {
	case wire.Ping:
		l.link.SendControl(wire.Pong(m))
	case wire.Pong:
		l.mu.Lock()
		defer l.mu.Unlock()
		rtt := time.Since(l.sent[m.Token])
		l.took = append(l.took, rtt)
		l.link.Measured(rtt)
	}
}

func (l *load) ping() {
	l.mu.Lock()
	defer l.mu.Unlock()
	token := uint64(len(l.sent) + 1)
	l.sent[token] = time.Now()
	l.link.SendControl(wire.Ping{Token: token})
}

// slowest is the longest round trip since the last call.
func (l *load) slowest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	took := append(l.took, 0)
	l.took = nil
	return slices.Max(took)
}

// fill sends as much as the link takes, until it ends.
func (l *load) fill() {
	message, space := make([]byte, wire.MessageSize), make(chan struct{}, 4)
	for {
		select {
		case space <- struct{}{}:
			l.link.SendBulk(BulkItem{Head: message, Sent: func() { <-space }})
		case <-l.closed:
			return
		}
	}
}

// link opens a link through the bottleneck.
func (b *bottleneck) link(t *testing.T, far *lab) (from, to *load) {
	t.Helper()
	one, other := newEnd(t, b.near), newEnd(t, far)
	carry(t, one, other)
	carry(t, other, one)
	negotiate(t, one, other, false)
	i, r := shakeHands(t)
	start := func(c Conn, h Handshake) *load {
		l := &load{opened: make(chan struct{}), closed: make(chan struct{}), sent: map[uint64]time.Time{}}
		l.link = NewLink(LinkConfig{Conn: c, Handshake: h, Engine: bulk.Go{}, Pool: new(bulk.Pool), Now: time.Now, Handler: l, Ready: func() {
			l.ready.Add(1)
			b.balance() // the far ends send nothing over the bulk channel, and have nothing to balance
		}})
		l.link.Start()
		t.Cleanup(func() {
			l.link.Abort(nil)
			<-l.closed
			l.link.Destroy()
		})
		return l
	}
	from, to = start(one, i), start(other, r)
	wait(t, "the link opens", from.opened)
	wait(t, "the link opens", to.opened)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.loads = append(b.loads, from)
	return from, to
}

// balance balances all links of the near end, as the room does, and one call at a time.
func (b *bottleneck) balance() {
	b.mu.Lock()
	defer b.mu.Unlock()
	links := make([]*Link, len(b.loads))
	for i, l := range b.loads {
		links[i] = l.link
	}
	Balance(links)
}

// pass lets time pass, as the room does.
func (b *bottleneck) pass(d time.Duration) {
	for ; d > 0; d -= tickEvery {
		time.Sleep(tickEvery)
		b.balance()
		for _, l := range b.loads {
			l.ping()
		}
	}
}

// TestProbeWithoutTicks: a probe goes on as soon as it can, although nobody calls Balance now and then, as a hidden tab does but once a second.
func TestProbeWithoutTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBottleneck(t, 4*mbit, 10*time.Millisecond)
		from, to := b.link(t, b.far)
		go from.fill()
		b.pass(2 * time.Second)
		from.link.PathChanged() // which is followed by a probe
		before, probes := to.received.Load(), from.ready.Load()
		time.Sleep(3 * time.Second)
		share := float64(to.received.Load()-before) / 3 / (4 * mbit)
		t.Logf("share=%.3f", share)
		if from.ready.Load() == probes || share < 0.6 {
			t.Errorf("%d probes, and %.3f of the path is used", from.ready.Load()-probes, share)
		}
	})
}

// TestPath: a path is filled, its queue stays short, and what goes over the control channel takes little longer than that queue.
func TestPath(t *testing.T) {
	for _, c := range []struct {
		name         string
		rate         float64
		delay        time.Duration // one way
		settle, span time.Duration
		long         bool
	}{
		{"1 Mbit/s, 100 ms", mbit, 50 * time.Millisecond, 10 * time.Second, 10 * time.Second, false},
		{"10 Mbit/s, 50 ms", 10 * mbit, 25 * time.Millisecond, 3 * time.Second, 3 * time.Second, false},
		{"100 Mbit/s, 50 ms", 100 * mbit, 25 * time.Millisecond, 3 * time.Second, 10 * time.Second, true},
	} {
		if c.long && os.Getenv("TALLOW_SOAK") != "1" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBottleneck(t, c.rate, c.delay)
				from, to := b.link(t, b.far)
				b.pass(time.Second)
				idle := from.slowest()
				go from.fill()
				b.pass(c.settle)
				first := b.most.Swap(0)
				before := to.received.Load()
				from.slowest()
				b.pass(c.span)
				share := float64(to.received.Load()-before) / c.span.Seconds() / c.rate
				most, busy := b.most.Load(), from.slowest()
				queue := time.Duration(float64(most) / c.rate * float64(time.Second))
				t.Logf("share=%.3f queue_ms=%d first_queue_bytes=%d idle_ms=%d busy_ms=%d", share, queue.Milliseconds(), first, idle.Milliseconds(), busy.Milliseconds())
				if share < 0.8 {
					t.Errorf("%.3f of the path is used", share)
				}
				// A window is the path's own, the slack, and room for steps and messages; pion adds a tenth of heads.
				limit := int64(1.1 * (c.rate*slack.Seconds() + 5*2*max(leastReport, c.rate*reportGap.Seconds())))
				if most > limit {
					t.Errorf("%d bytes wait before the bottleneck, want %d at most", most, limit)
				}
				if first > max(startWindow*5/4, limit) {
					t.Errorf("%d bytes waited before anything was known of the path", first)
				}
				if busy > idle+queue+100*time.Millisecond {
					t.Errorf("a Ping takes %v over a path of %v with a queue of %v", busy, idle, queue)
				}
			})
		})
	}
}

// TestSharedPath: links through one bottleneck, all from its near end, get the same of it, whether they have begun together, have come late, or
// have lost what they knew of the path, and one with a slow path of its own gets what that carries.
func TestSharedPath(t *testing.T) {
	for _, c := range []struct {
		name         string
		links        int
		rate, own    float64
		delay        time.Duration // one way
		settle, span time.Duration
		jain         float64
		soak         bool
	}{
		{"four, 4 Mbit/s, 20 ms", 4, 4 * mbit, 0.25 * mbit, 10 * time.Millisecond, 6 * time.Second, 30 * time.Second, 0.99, false},
		{"five, 8 Mbit/s, 20 ms", 5, 8 * mbit, 0.5 * mbit, 10 * time.Millisecond, 8 * time.Second, 8 * time.Second, 0.99, true},
		{"ten, 16 Mbit/s, 20 ms", 10, 16 * mbit, 0.5 * mbit, 10 * time.Millisecond, 8 * time.Second, 8 * time.Second, 0.99, true},
		{"ten, 16 Mbit/s, 20 ms, long", 10, 16 * mbit, 0.5 * mbit, 10 * time.Millisecond, 60 * time.Second, 60 * time.Second, 0.99, true},
		{"ten, 50 Mbit/s, 50 ms", 10, 50 * mbit, 1 * mbit, 25 * time.Millisecond, 20 * time.Second, 10 * time.Second, 0.99, true},
	} {
		if c.soak && os.Getenv("TALLOW_SOAK") != "1" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := c.links
				late, restarted, slow := n-1, n-2, n-3
				b := newBottleneck(t, c.rate, c.delay)
				var from, to []*load
				add := func(far *lab) {
					f, r := b.link(t, far)
					from, to = append(from, f), append(to, r)
				}
				for range slow {
					add(b.far)
				}
				add(&lab{t: t, router: b.far.router, rate: c.own})
				add(b.far)
				b.pass(time.Second)
				for _, f := range from {
					go f.fill()
				}
				b.pass(c.settle)
				first := b.most.Swap(0)
				add(b.far)
				go from[late].fill()
				b.pass(c.settle)
				from[restarted].link.PathChanged()
				b.pass(c.settle)
				second := b.most.Swap(0)
				before := make([]int64, n)
				for i := range n {
					before[i] = to[i].received.Load()
					from[i].slowest()
				}
				b.pass(c.span)
				var all, sum, squares float64
				var ping time.Duration
				for i := range n {
					rate := float64(to[i].received.Load()-before[i]) / c.span.Seconds()
					all += rate
					if i == slow {
						if rate < 0.9*c.own-wire.MessageSize/c.span.Seconds() {
							t.Errorf("the slow one gets %.2f of what it can use", rate/c.own)
						}
						continue
					}
					sum, squares = sum+rate, squares+rate*rate
					ping = max(ping, from[i].slowest())
				}
				queue := time.Duration(float64(b.most.Load()) / c.rate * float64(time.Second))
				jain := sum * sum / (float64(n-1) * squares)
				t.Logf("jain=%.4f share=%.3f queue_ms=%d ping_ms=%d first_bytes=%d later_bytes=%d", jain, all/c.rate, queue.Milliseconds(), ping.Milliseconds(), first, second)
				if jain < c.jain {
					t.Errorf("Jain's index is %.4f", jain)
				}
				if all < 0.85*c.rate {
					t.Errorf("%.3f of the path is used", all/c.rate)
				}
				if limit := mostShare*slack + 3*reportGap + time.Duration(float64(2*n*alike)/c.rate*float64(time.Second)); queue > limit {
					t.Errorf("the queue is %v long, want %v at most", queue, limit)
				}
				if ping > c.delay*2+queue+100*time.Millisecond {
					t.Errorf("a Ping takes %v over a path of %v with a queue of %v", ping, 2*c.delay, queue)
				}
			})
		})
	}
}
