package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/logging"
	"github.com/pion/turn/v5"

	"tallow/internal/core/wire"
)

// The limits of the server that is attacked: low, so that it takes little to reach them.
const (
	abuseConnections = 32 // per address
	abuseRate        = 1  // new ones per second and address
	abuseRelays      = 12 // per address
	abuseProxy       = "127.0.0.9"
)

// TestAbuse: with all attacks at once, every limit holds, two honest members go on talking, others come in, and what the
// attackers took is given back when they leave. With TALLOW_SOAK the joins are ten thousand, and the attackers stay until
// the server has ended whatever they hold open. The addresses are all of this host: Linux has the whole of 127.0.0.0/8.
func TestAbuse(t *testing.T) {
	soak := os.Getenv("TALLOW_SOAK") != ""
	joins, within := 100, 2*time.Minute
	if soak {
		joins, within = 10_000, 9*time.Minute
	}
	metricsAddr := freeAddr(t)
	s := start(t, "-tls-self-signed", "-metrics-addr", metricsAddr, "-trusted-proxies", abuseProxy,
		"-max-connections-per-ip", fmt.Sprint(abuseConnections), "-connection-rate-per-ip", fmt.Sprint(abuseRate),
		"-turn-quota", "4", "-turn-quota-per-ip", fmt.Sprint(abuseRelays))
	room := wire.Enter{Room: wire.ID{0xa0}, Member: wire.ID{0xa1}, Token: wire.Hash{0xa2}, Claim: wire.ID{0xa3}}
	alice, entered := s.join(clientAt(t, "127.0.0.3"), room)
	other := room
	other.Member = wire.ID{0xb1}
	bob, _ := s.join(clientAt(t, "127.0.0.4"), other)
	honest := pair{t, alice, bob, room.Member, other.Member}
	honest.exchange(1)
	s.get("/healthz")
	goroutines, memory := runtime.NumGoroutine(), heap()

	ctx, cancel := context.WithCancel(t.Context())
	var attackers sync.WaitGroup
	defer func() {
		cancel()
		attackers.Wait()
	}()
	var attacks []*attacker
	many := clientAt(t, abuseProxy)
	attack := func(name string, run func(*attacker)) *attacker {
		a := &attacker{
			t: t, s: s, name: name, ctx: ctx, host: strings.TrimPrefix(s.url, "https://"), turn: turnAddr(entered),
			from: netip.AddrFrom4([4]byte{127, 0, 1, byte(len(attacks) + 1)}).String(),
		}
		a.client, a.many = clientAt(t, a.from), many
		attacks = append(attacks, a)
		attackers.Go(func() {
			for ctx.Err() == nil {
				run(a)
				a.passes.Add(1)
			}
		})
		return a
	}
	attack("TLS a byte at a time", func(a *attacker) { a.trickle(8, (*attacker).tcp, "\x16\x03\x01\x40\x00\x01") }).holds = true
	attack("HTTP a byte at a time", func(a *attacker) { a.trickle(8, (*attacker).tls, "GET / HTTP/1.1\r\nX: ") }).holds = true
	attack("upgrade a byte at a time", func(a *attacker) { a.trickle(8, (*attacker).tls, "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nX: ") }).holds = true
	attack("message a byte at a time", func(a *attacker) {
		a.trickle(4, (*attacker).upgrade, "\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00")
	}).holds = true
	attack("TURN a byte at a time", func(a *attacker) { a.trickle(8, (*attacker).turnTCP, "\x00\x01\x05\x00\x21\x12\xa4\x42") }).holds = true
	attack("idle", (*attacker).hoard)
	attack("frame of 4 EiB", func(a *attacker) {
		a.flood("\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", strings.Repeat("x", 10_000))
	})
	attack("fragments without end", func(a *attacker) {
		a.flood("\x02\x80\x00\x00\x00\x00", strings.Repeat("\x00\x80\x00\x00\x00\x00", 500)+"\x00\x81\x00\x00\x00\x00x")
	}).holds = true
	attack("pings", func(a *attacker) { a.flood("", strings.Repeat("\x89\x80\x00\x00\x00\x00", 500)) })
	attack("joins from one address", func(a *attacker) { a.joinAlone(joins, nil) })
	attack("joins from one address that claims many", func(a *attacker) { a.joinAlone(joins/3, elsewhere) })
	attack("joins from many addresses", func(a *attacker) {
		if n := a.join(a.many, joins, elsewhere); n < joins*9/10 && ctx.Err() == nil {
			a.fail("only %d of %d entered", n, joins)
		}
	})
	attack("guesses", func(a *attacker) { a.guess(room) })
	attack("rubbish", (*attacker).rubbish)
	attack("allocations", (*attacker).allocate)

	done := func() bool {
		for _, a := range attacks {
			if a.passes.Load() == 0 && (soak || !a.holds) {
				return false
			}
		}
		return true
	}
	late := byte(0)
	for end := time.Now().Add(within); !done() && !t.Failed(); {
		if time.Now().After(end) {
			for _, a := range attacks {
				t.Logf("%s: %d times", a.name, a.passes.Load())
			}
			t.Fatal("not every attack is over")
		}
		honest.exchange(20)
		if late < 5 { // from an address that nobody has used
			late++
			third := room
			third.Member = wire.ID{0xc1, late}
			ws, _ := s.join(clientAt(t, fmt.Sprintf("127.0.2.%d", late)), third)
			ws.Close(websocket.StatusNormalClosure, "")
			if code, body := s.get("/"); code != 200 || body != "<!doctype html>" {
				t.Errorf("the page: %d %q", code, body)
			}
		}
		if n := s.metric(metricsAddr, "tallow_turn_allocations"); n > abuseRelays {
			t.Errorf("%d allocations of one address", n)
		}
	}
	for code, what := range map[int]string{1: "bad request", 3: "forbidden", 5: "rate limited"} {
		if s.metric(metricsAddr, fmt.Sprintf("tallow_hub_closings_total{code=%q}", fmt.Sprint(code))) == 0 {
			t.Errorf("nobody was told %s", what)
		}
	}
	cancel()
	attackers.Wait()
	honest.exchange(20)
	s.client.CloseIdleConnections()

	// Nobody gives allocations back: each lives its ten minutes, and has a goroutine.
	const spare = abuseRelays + 4
	var after int
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if after = runtime.NumGoroutine(); after <= goroutines+spare {
			break
		} else if time.Now().After(end) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", after, goroutines, stacks[:runtime.Stack(stacks, true)])
		}
	}
	if now := heap(); now > memory+24<<20 {
		t.Errorf("the heap has grown from %d to %d bytes", memory, now)
	}
	if n := s.metric(metricsAddr, "tallow_hub_members"); n != 2 {
		t.Errorf("%d members", n)
	}
	if log := s.log.String(); strings.Contains(log, "127.0.1.") || strings.Contains(log, abuseProxy) || strings.Contains(log, "127.0.0.3") {
		t.Errorf("the log has addresses:\n%s", log)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// freeAddr is an address of this host that nothing listens at.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *instance) metric(addr, name string) int {
	s.t.Helper()
	r, err := s.client.Get("http://" + addr + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\d+)$`).FindSubmatch(b)
	if m == nil {
		s.t.Fatalf("no metric %s", name)
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}

// dialerAt connects from an address of this host.
func dialerAt(from string) *net.Dialer {
	return &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)), Timeout: 20 * time.Second}
}

func clientAt(t *testing.T, from string) *http.Client {
	transport := &http.Transport{
		DialContext: dialerAt(from).DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func turnAddr(m wire.Entered) string {
	return strings.TrimSuffix(strings.TrimPrefix(m.ICE.Servers[1].URLs[0], "turn:"), "?transport=udp")
}

// pair are two members of a room.
type pair struct {
	t        *testing.T
	a, b     *websocket.Conn
	idA, idB wire.ID
}

// exchange has them answer each other. Neither may wait for long.
func (p pair) exchange(times int) {
	p.t.Helper()
	for range times {
		p.pass(p.a, p.b, p.idA, p.idB)
		p.pass(p.b, p.a, p.idB, p.idA)
	}
}

func (p pair) pass(from, to *websocket.Conn, author, addressee wire.ID) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Second)
	defer cancel()
	envelope := fmt.Appendf(nil, "%d", rand.Uint64())
	if err := from.Write(ctx, websocket.MessageBinary, wire.Relay{Member: addressee, Envelope: envelope}.Append(nil, wire.HubSend)); err != nil {
		p.t.Fatalf("honest member: %v", err)
	}
	for {
		_, m, err := to.Read(ctx)
		if err != nil {
			p.t.Fatalf("honest member: %v", err)
		}
		if kind := wire.TypeOf(m); kind == wire.HubPresent || kind == wire.HubAbsent {
			continue
		}
		got, err := wire.ParseRelay(m, wire.HubDeliver)
		if err != nil || got.Member != author || !bytes.Equal(got.Envelope, envelope) {
			p.t.Fatalf("honest member got %x, %v", m, err)
		}
		return
	}
}

// elsewhere is a header by which a request claims to be from anywhere.
func elsewhere() http.Header {
	addr := netip.AddrFrom4([4]byte{192, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())})
	return http.Header{"X-Forwarded-For": {addr.String()}, "Forwarded": {"for=" + addr.String()}}
}

// attacker does one kind of harm, again and again, from an address of its own.
type attacker struct {
	t          *testing.T
	s          *instance
	ctx        context.Context
	name, from string
	host, turn string       // where the server and its relay are
	client     *http.Client // at that address
	many       *http.Client // the proxy's, through which requests come from anywhere
	passes     atomic.Int64 // how often it has been done
	holds      bool         // takes as long as the server lets it
}

func (a *attacker) fail(format string, args ...any) {
	a.t.Errorf(a.name+": "+format, args...)
}

// ownedConn is closed when the attack ends.
type ownedConn struct {
	net.Conn
	disown func() bool
}

// Close implements net.Conn.
func (c ownedConn) Close() error {
	c.disown()
	return c.Conn.Close()
}

func (a *attacker) dial(addr string) net.Conn {
	c, err := dialerAt(a.from).DialContext(a.ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	return ownedConn{c, context.AfterFunc(a.ctx, func() { c.Close() })}
}

func (a *attacker) tcp() net.Conn     { return a.dial(a.host) }
func (a *attacker) turnTCP() net.Conn { return a.dial(a.turn) }

// tls connects; nil: the server does not want to.
func (a *attacker) tls() net.Conn {
	c := a.tcp()
	if c == nil {
		return nil
	}
	over := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	if over.HandshakeContext(a.ctx) != nil {
		c.Close()
		return nil
	}
	return over
}

// upgrade makes a connection a WebSocket on which nothing has been said.
func (a *attacker) upgrade() net.Conn {
	c := a.tls()
	if c == nil {
		return nil
	}
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", a.host, wire.HubSubprotocol)
	answer := make([]byte, len("HTTP/1.1 101"))
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 101" {
		c.Close()
		return nil
	}
	return c
}

// trickle holds connections open with a byte now and then until the server has closed them all.
func (a *attacker) trickle(n int, open func(*attacker) net.Conn, begin string) {
	var all sync.WaitGroup
	for range n {
		c := open(a)
		if c == nil {
			continue
		}
		all.Go(func() {
			defer c.Close()
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				io.Copy(io.Discard, c)
			}()
			io.WriteString(c, begin)
			pace := time.NewTicker(100 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-closed:
					return
				case <-pace.C:
					c.SetWriteDeadline(time.Now().Add(time.Second))
					io.WriteString(c, "\x00")
				}
			}
		})
	}
	all.Wait()
	a.pause()
}

// pause lets the others have their turn: two processors are attackers, honest members and server at once.
func (a *attacker) pause() {
	select {
	case <-a.ctx.Done():
	case <-time.After(300 * time.Millisecond):
	}
}

// hoard opens more connections than one address may have.
func (a *attacker) hoard() {
	for range 2*abuseConnections + 10 {
		if c := a.tcp(); c != nil {
			defer c.Close()
		}
	}
	a.pause()
}

// flood sends until the server closes, and reads nothing.
func (a *attacker) flood(begin, more string) {
	if c := a.upgrade(); c != nil {
		defer c.Close()
		_, err := io.WriteString(c, begin)
		for err == nil {
			c.SetWriteDeadline(time.Now().Add(20 * time.Second))
			_, err = io.WriteString(c, more)
		}
	}
	a.pause()
}

// joinAlone enters rooms from one address, whatever a header says. The server lets it in as often as it may come.
func (a *attacker) joinAlone(times int, header func() http.Header) {
	began := time.Now()
	n := a.join(a.client, times, header)
	if allowed := burst*abuseRate + int(abuseRate*time.Since(began).Seconds()) + 1; n > allowed {
		a.fail("%d of %d entered, %d may", n, times, allowed)
	}
}

// join enters a room as often and as quickly as it can, each time another one, and reports how often it got in.
func (a *attacker) join(by *http.Client, times int, header func() http.Header) int {
	var joiners sync.WaitGroup
	var tried, entered atomic.Int64
	for range 16 {
		joiners.Go(func() {
			for a.ctx.Err() == nil && tried.Add(1) <= int64(times) {
				var h http.Header
				if header != nil {
					h = header()
				}
				m := wire.Enter{}
				binary.BigEndian.PutUint64(m.Room[:], rand.Uint64())
				ws, answer, err := a.s.ask(by, m, h)
				if err != nil {
					continue
				}
				if wire.TypeOf(answer) == wire.HubEntered {
					entered.Add(1)
				}
				ws.CloseNow()
			}
		})
	}
	joiners.Wait()
	a.pause()
	return int(entered.Load())
}

// guess tries tokens of a room.
func (a *attacker) guess(m wire.Enter) {
	for range 10 {
		binary.BigEndian.PutUint64(m.Token[:], rand.Uint64())
		ws, answer, err := a.s.ask(a.many, m, elsewhere())
		if a.ctx.Err() != nil {
			return
		} else if err != nil {
			a.fail("%v", err)
			return
		}
		if c, err := wire.ParseClosing(answer); err != nil || c.Code != wire.ClosingForbidden {
			a.fail("%+v, %v", c, err)
		}
		ws.CloseNow()
	}
	a.pause()
}

// rubbish sends what is no request, no TLS and no STUN.
func (a *attacker) rubbish() {
	for _, text := range []string{
		"", "\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 1<<17), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 1000),
		"POST /ws HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + strings.Repeat("x", 1000),
	} {
		for _, open := range []func(*attacker) net.Conn{(*attacker).tcp, (*attacker).tls, (*attacker).turnTCP} {
			if c := open(a); c != nil {
				io.WriteString(c, text)
				c.Close()
			}
		}
		if udp, err := net.Dial("udp", a.turn); err == nil {
			for range 20 {
				fmt.Fprintf(udp, "%c%c%s", rune(rand.Uint32()&0x7f), rune(rand.Uint32()&0x7f), text[:min(len(text), 1000)])
			}
			udp.Close()
		}
	}
	a.pause()
}

// allocate takes as many relays as it gets, as many members, and leaves them.
func (a *attacker) allocate() {
	for i := range 4 {
		m := wire.Enter{Room: wire.ID{0xe0}, Member: wire.ID{0xe1, byte(i)}}
		ws, answer, err := a.s.ask(a.many, m, elsewhere())
		if err != nil {
			continue
		}
		ws.CloseNow()
		entered, err := wire.ParseEntered(answer)
		if err != nil {
			continue
		}
		for range 5 {
			if a.ctx.Err() != nil {
				return
			}
			take(a.t, a.from, turnAddr(entered), entered.ICE.Servers[1].Username, entered.ICE.Servers[1].Credential, false)
		}
	}
	a.pause()
}

// allocate makes an allocation and gives it back.
func allocate(t *testing.T, addr, user, pass string) error {
	t.Helper()
	return take(t, "127.0.0.1", addr, user, pass, true)
}

// take makes an allocation from an address.
func take(t *testing.T, from, addr, user, pass string, giveBack bool) error {
	t.Helper()
	udp, err := net.ListenPacket("udp4", net.JoinHostPort(from, "0"))
	if err != nil {
		t.Error(err)
		return err
	}
	defer udp.Close()
	c, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: addr, Username: user, Password: pass, Conn: udp, LoggerFactory: &logging.DefaultLoggerFactory{Writer: io.Discard},
	})
	if err != nil {
		t.Error(err)
		return err
	}
	defer c.Close()
	if err := c.Listen(); err != nil {
		t.Error(err)
		return err
	}
	relay, err := c.Allocate()
	if err != nil {
		return err
	}
	if !giveBack {
		udp.Close() // before it can say so
	}
	err = relay.Close()
	if !giveBack {
		err = nil
	}
	return err
}
