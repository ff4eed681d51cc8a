package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secret = []byte("north star")

func start(t *testing.T, changes ...func(*Config)) *Server {
	t.Helper()
	cfg := Config{
		Addr: "127.0.0.1:0", Secret: secret, TTL: time.Hour, Quota: 10, MaxRelays: 100,
		Log: slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&cfg)
	}
	s, err := Listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// client is a TURN client that does what a test wants, well-behaved or not.
type client struct {
	t     *testing.T
	conn  net.Conn
	user  string
	pass  string
	nonce []byte
	peers []*stun.Message // Data indications that came between answers
}

func dial(t *testing.T, s *Server, network, user, pass string) *client {
	t.Helper()
	return dialFrom(t, s, network, "127.0.0.1", user, pass)
}

// dialFrom is dial from a local address of the client's own.
func dialFrom(t *testing.T, s *Server, network, from, user, pass string) *client {
	t.Helper()
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	if network == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
	}
	conn, err := d.Dial(network, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t: t, conn: conn, user: user, pass: pass}
}

func member(t *testing.T, s *Server) *client {
	t.Helper()
	user, pass := s.Credentials("holder", time.Now())
	return dial(t, s, "udp", user, pass)
}

// request sends a signed request and returns the error code of its answer, 0 for success.
func (c *client) request(method stun.Method, attrs ...stun.Setter) (int, *stun.Message) {
	c.t.Helper()
	for range 2 {
		setters := append([]stun.Setter{stun.TransactionID, stun.NewType(method, stun.ClassRequest)}, attrs...)
		if c.nonce != nil {
			setters = append(setters, stun.NewUsername(c.user), stun.NewRealm(realm), stun.Nonce(c.nonce),
				stun.NewLongTermIntegrity(c.user, realm, c.pass))
		}
		m := stun.MustBuild(setters...)
		c.write(m)
		answer := c.answer(m.TransactionID)
		if answer.Type.Class == stun.ClassSuccessResponse {
			return 0, answer
		}
		var code stun.ErrorCodeAttribute
		if err := code.GetFrom(answer); err != nil {
			c.t.Fatal(err)
		}
		if c.nonce != nil || code.Code != stun.CodeUnauthorized {
			return int(code.Code), answer
		}
		var nonce stun.Nonce
		if err := nonce.GetFrom(answer); err != nil {
			c.t.Fatal(err)
		}
		c.nonce = nonce
	}
	panic("unreachable")
}

func (c *client) write(m *stun.Message) {
	c.t.Helper()
	if _, err := c.conn.Write(m.Raw); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read(within time.Duration) *stun.Message {
	c.t.Helper()
	b := make([]byte, 2048)
	c.conn.SetReadDeadline(time.Now().Add(within))
	n, err := c.conn.Read(b)
	if err != nil {
		return nil
	}
	m := &stun.Message{Raw: b[:n]}
	if err := m.Decode(); err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *client) answer(id [stun.TransactionIDSize]byte) *stun.Message {
	c.t.Helper()
	for {
		m := c.read(3 * time.Second)
		if m == nil {
			c.t.Fatal("no answer")
		}
		if m.TransactionID == id {
			return m
		}
		c.peers = append(c.peers, m)
	}
}

var udpTransport = stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{17, 0, 0, 0}}

type rawPeer netip.AddrPort

func (p rawPeer) AddTo(m *stun.Message) error {
	a := netip.AddrPort(p)
	return stun.XORMappedAddress{IP: a.Addr().AsSlice(), Port: int(a.Port())}.AddToAs(m, stun.AttrXORPeerAddress)
}

// allocate makes an allocation and returns its relay address.
func (c *client) allocate() netip.AddrPort {
	c.t.Helper()
	code, m := c.request(stun.MethodAllocate, udpTransport)
	if code != 0 {
		c.t.Fatalf("allocate: %d", code)
	}
	return c.addr(m, stun.AttrXORRelayedAddress)
}

func (c *client) addr(m *stun.Message, attr stun.AttrType) netip.AddrPort {
	c.t.Helper()
	var a stun.XORMappedAddress
	if err := a.GetFromAs(m, attr); err != nil {
		c.t.Fatal(err)
	}
	ip, _ := netip.AddrFromSlice(a.IP)
	return netip.AddrPortFrom(ip.Unmap(), uint16(a.Port))
}

func (c *client) send(to netip.AddrPort, data string) {
	c.t.Helper()
	c.write(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodSend, stun.ClassIndication),
		rawPeer(to), stun.RawAttribute{Type: stun.AttrData, Value: []byte(data)}))
}

// data is the next datagram from a peer.
func (c *client) data(within time.Duration) (from netip.AddrPort, data string, ok bool) {
	c.t.Helper()
	var m *stun.Message
	if len(c.peers) > 0 {
		m, c.peers = c.peers[0], c.peers[1:]
	} else if m = c.read(within); m == nil {
		return netip.AddrPort{}, "", false
	}
	if m.Type.Method != stun.MethodData {
		c.t.Fatalf("got %v", m)
	}
	b, err := m.Get(stun.AttrData)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.addr(m, stun.AttrXORPeerAddress), string(b), true
}

func TestBinding(t *testing.T) {
	s := start(t)
	for _, network := range []string{"udp", "tcp"} {
		c := dial(t, s, network, "", "")
		m := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
		c.write(m)
		if got, want := c.addr(c.answer(m.TransactionID), stun.AttrXORMappedAddress).String(), c.conn.LocalAddr().String(); got != want {
			t.Errorf("%s: seen as %s, is %s", network, got, want)
		}
	}
}

// The vector is what `echo -n 1735689600:holder | openssl dgst -sha1 -hmac "north star" -binary | base64` prints.
func TestCredentialsFormat(t *testing.T) {
	user, pass := Credentials(secret, "holder", time.Unix(1735689600, 0))
	if user != "1735689600:holder" || pass != "f0v8H0a0rEdKvcQ8xSRVjFd2gDM=" {
		t.Fatalf("%s %s", user, pass)
	}
}

func TestCredentialsAreChecked(t *testing.T) {
	s := start(t)
	now := time.Now()
	good, goodPass := s.Credentials("holder", now)
	expired, expiredPass := Credentials(secret, "holder", now.Add(-time.Second))
	other, otherPass := Credentials([]byte("another"), "holder", now.Add(time.Hour))
	later, _ := Credentials(secret, "holder", now.Add(2*time.Hour))
	padded := "0" + good
	for name, tt := range map[string]struct {
		user, pass string
		ok         bool
	}{
		"good":             {good, goodPass, true},
		"expired":          {expired, expiredPass, false},
		"another secret":   {other, otherPass, false},
		"expiry put off":   {later, goodPass, false},
		"no expiry":        {"holder", goodPass, false},
		"empty":            {":", goodPass, false},
		"odd way to write": {padded, goodPass, false},
	} {
		t.Run(name, func(t *testing.T) {
			code, _ := dial(t, s, "udp", tt.user, tt.pass).request(stun.MethodAllocate, udpTransport)
			if (code == 0) != tt.ok || !tt.ok && code != int(stun.CodeUnauthorized) {
				t.Fatalf("code %d", code)
			}
		})
	}
}

// An allocation outlives the credentials that made it, for as long as it is refreshed; they begin nothing any more.
func TestExpiredCredentials(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) { expiredCredentials(t, network) })
	}
}

func expiredCredentials(t *testing.T, network string) {
	s := start(t)
	expiry := time.Now().Add(2 * time.Second)
	user, pass := Credentials(secret, "holder", expiry)
	c := dial(t, s, network, user, pass)
	self := c.allocate()
	time.Sleep(time.Until(expiry.Truncate(time.Second).Add(50 * time.Millisecond)))
	keep := map[stun.Method][]stun.Setter{
		stun.MethodRefresh:          nil,
		stun.MethodCreatePermission: {rawPeer(self)},
		stun.MethodChannelBind:      {stun.RawAttribute{Type: stun.AttrChannelNumber, Value: []byte{0x40, 0, 0, 0}}, rawPeer(self)},
	}
	for method, attrs := range keep {
		if code, _ := c.request(method, attrs...); code != 0 {
			t.Fatalf("%v of a living allocation: %d", method, code)
		}
	}
	_, forged := Credentials([]byte("another"), "holder", expiry)
	// They make no other one, and others have no use for them.
	for name, other := range map[string]*client{
		"expired":        {user: user, pass: pass},
		"another secret": {user: user, pass: forged},
	} {
		o := dial(t, s, network, other.user, other.pass)
		if code, _ := o.request(stun.MethodAllocate, udpTransport); code != int(stun.CodeUnauthorized) {
			t.Fatalf("%s: allocate from elsewhere: %d", name, code)
		}
		for method, attrs := range keep {
			if code, _ := o.request(method, attrs...); code != int(stun.CodeUnauthorized) {
				t.Fatalf("%s: %v from elsewhere: %d", name, method, code)
			}
		}
	}
	stranger, strangerPass := Credentials(secret, "stranger", expiry)
	old, oldPass := Credentials(secret, "holder", expiry.Add(-afterlife-time.Minute))
	for name, who := range map[string][2]string{
		"another secret's": {user, forged}, "another holder's": {stranger, strangerPass}, "more than a day old": {old, oldPass},
	} {
		c.user, c.pass = who[0], who[1]
		if code, _ := c.request(stun.MethodRefresh); code != int(stun.CodeUnauthorized) {
			t.Fatalf("refresh with %s: %d", name, code)
		}
	}
	c.user, c.pass = user, pass
	if code, _ := c.request(stun.MethodRefresh, stun.RawAttribute{Type: stun.AttrLifetime, Value: []byte{0, 0, 0, 0}}); code != 0 {
		t.Fatalf("ending the allocation: %d", code)
	}
	if code, _ := c.request(stun.MethodRefresh); code != int(stun.CodeUnauthorized) {
		t.Fatalf("refresh of what has ended: %d", code)
	}
	if code, _ := c.request(stun.MethodAllocate, udpTransport); code != int(stun.CodeUnauthorized) {
		t.Fatalf("allocate again: %d", code)
	}
}

// Credentials made later for the same holder serve what older ones allocated, and nobody else's do.
func TestRenewedCredentials(t *testing.T) {
	s := start(t)
	c := member(t, s)
	c.allocate()
	c.user, c.pass = s.Credentials("holder", time.Now().Add(time.Second))
	if code, _ := c.request(stun.MethodRefresh); code != 0 {
		t.Fatalf("refresh with renewed credentials: %d", code)
	}
	// Somebody else's credentials do not get at it.
	c.user, c.pass = s.Credentials("other", time.Now())
	m := stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodRefresh, stun.ClassRequest), stun.NewUsername(c.user),
		stun.NewRealm(realm), stun.Nonce(c.nonce), stun.NewLongTermIntegrity(c.user, realm, c.pass))
	c.write(m)
	if m := c.read(100 * time.Millisecond); m != nil && m.Type.Class == stun.ClassSuccessResponse {
		t.Fatal("another holder refreshed the allocation")
	}
}

func TestSpecialAddressesAreRefused(t *testing.T) {
	s := start(t)
	c := member(t, s)
	c.allocate()
	channel := uint16(0x4000)
	for _, ip := range []string{
		"0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.2", "169.254.169.254", "172.16.0.1", "192.0.0.1", "192.168.1.1",
		"198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::ffff:10.0.0.1", "fc00::1", "fe80::1", "ff02::1",
	} {
		peer := rawPeer(netip.AddrPortFrom(netip.MustParseAddr(ip), 80))
		if code, _ := c.request(stun.MethodCreatePermission, peer); code == 0 {
			t.Errorf("CreatePermission for %s is granted", ip)
		}
		number := stun.RawAttribute{Type: stun.AttrChannelNumber, Value: []byte{byte(channel >> 8), byte(channel), 0, 0}}
		channel++
		if code, _ := c.request(stun.MethodChannelBind, number, peer); code == 0 {
			t.Errorf("ChannelBind to %s is granted", ip)
		}
		if code, _ := c.request(stun.MethodConnect, peer); code == 0 {
			t.Errorf("Connect to %s is granted", ip)
		}
	}
	if code, _ := c.request(stun.MethodCreatePermission, rawPeer(netip.MustParseAddrPort("8.8.4.4:50000"))); code != 0 {
		t.Errorf("a public address is refused: %d", code)
	}
	if s.Stats().Refused == 0 {
		t.Error("refusals are not counted")
	}
}

func TestTCPRelaysAreRefused(t *testing.T) {
	s := start(t)
	user, pass := s.Credentials("holder", time.Now())
	c := dial(t, s, "tcp", user, pass)
	if code, _ := c.request(stun.MethodAllocate, stun.RawAttribute{Type: stun.AttrRequestedTransport, Value: []byte{6, 0, 0, 0}}); code == 0 {
		t.Fatal("a TCP relay was allocated")
	}
	c.allocate()
	// Its own relay address is permitted, but not over TCP.
	if code, _ := c.request(stun.MethodConnect, rawPeer(netip.MustParseAddrPort("127.0.0.1:1"))); code == 0 {
		t.Fatal("Connect to this host is granted")
	}
}

// Two relays on this server reach each other, whatever address they are told; nothing else on the host is reached.
func TestRelaysMeetAndNothingElse(t *testing.T) {
	for name, external := range map[string][]netip.Addr{
		"own address":  nil,
		"behind a NAT": {netip.MustParseAddr("198.51.100.9")},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *Config) { c.ExternalIPs = external })
			local, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer local.Close()
			a, b := member(t, s), member(t, s)
			addrA, addrB := a.allocate(), b.allocate()
			if external != nil && addrA.Addr() != external[0] {
				t.Fatalf("relay address is %v", addrA)
			}
			for _, c := range []*client{a, b} {
				if code, _ := c.request(stun.MethodCreatePermission, rawPeer(addrA)); code != 0 {
					t.Fatalf("permission for the relay's own address: %d", code)
				}
			}

			// The service's port first, then the relay's: the second one's arrival says that the first was dealt with.
			service := netip.AddrPortFrom(addrA.Addr(), local.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			a.send(service, "attack")
			a.send(addrB, "hello")
			if from, data, ok := b.data(3 * time.Second); !ok || from != addrA || data != "hello" {
				t.Fatalf("%q from %v, %v; want hello from %v", data, from, ok, addrA)
			}
			b.send(addrA, "hello back")
			if from, data, ok := a.data(3 * time.Second); !ok || from != addrB || data != "hello back" {
				t.Fatalf("%q from %v, %v", data, from, ok)
			}
			local.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, from, err := local.ReadFrom(make([]byte, 100)); err == nil {
				t.Fatalf("a local service got %d bytes from %v", n, from)
			}

			// Nor does a local service reach a client, permission for the address or not.
			if _, err := local.WriteTo([]byte("surprise"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addrA.Port()))); err != nil {
				t.Fatal(err)
			}
			b.send(addrA, "still here")
			if from, data, ok := a.data(3 * time.Second); !ok || data != "still here" {
				t.Fatalf("%q from %v", data, from)
			}

			// A port that is no longer a relay's is a service's like any other.
			if code, _ := b.request(stun.MethodRefresh, stun.RawAttribute{Type: stun.AttrLifetime, Value: []byte{0, 0, 0, 0}}); code != 0 {
				t.Fatalf("release: %d", code)
			}
			reused, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(addrB.Port())})
			if err != nil {
				t.Fatal(err)
			}
			defer reused.Close()
			a.send(addrB, "attack")
			if code, _ := a.request(stun.MethodRefresh); code != 0 { // answered after the datagram was dealt with
				t.Fatal(code)
			}
			reused.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, _, err := reused.ReadFrom(make([]byte, 100)); err == nil {
				t.Fatal("a local service on a former relay's port was reached")
			}
		})
	}
}

func TestAllowedRangesAreReached(t *testing.T) {
	s := start(t, func(c *Config) { c.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	local, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	to := local.LocalAddr().(*net.UDPAddr).AddrPort()
	c := member(t, s)
	c.allocate()
	if code, _ := c.request(stun.MethodCreatePermission, rawPeer(to)); code != 0 {
		t.Fatal(code)
	}
	c.send(to, "hello")
	b := make([]byte, 100)
	local.SetReadDeadline(time.Now().Add(3 * time.Second))
	if n, _, err := local.ReadFrom(b); err != nil || string(b[:n]) != "hello" {
		t.Fatalf("%q, %v", b[:n], err)
	}
}

func TestQuotas(t *testing.T) {
	s := start(t, func(c *Config) { c.Quota, c.MaxRelays = 2, 3 })
	clients := []*client{member(t, s), member(t, s), member(t, s)}
	clients[0].allocate()
	clients[1].allocate()
	if code, _ := clients[2].request(stun.MethodAllocate, udpTransport); code != int(stun.CodeAllocQuotaReached) {
		t.Fatalf("beyond the quota: %d", code)
	}
	// The library asks before it allocates: what was asked at the same moment is counted when it takes place.
	if err := s.reserve(&relayConn{owner: owner{holder: "holder"}}); !errors.Is(err, errQuota) {
		t.Fatalf("beyond the quota: %v", err)
	}
	// Renewed credentials are the same holder's.
	user, pass := Credentials(secret, "holder", time.Now().Add(2*time.Hour))
	if code, _ := dial(t, s, "udp", user, pass).request(stun.MethodAllocate, udpTransport); code != int(stun.CodeAllocQuotaReached) {
		t.Fatalf("beyond the quota with renewed credentials: %d", code)
	}
	for i, want := range []int{0, int(stun.CodeInsufficientCapacity)} {
		user, pass := s.Credentials(fmt.Sprint("other", i), time.Now())
		if code, _ := dial(t, s, "udp", user, pass).request(stun.MethodAllocate, udpTransport); code != want {
			t.Fatalf("another holder: %d, want %d", code, want)
		}
	}
	if st := s.Stats(); st.Relays != 3 || st.Holders != 2 {
		t.Fatalf("stats %+v", st)
	}
	// What is released can be taken again.
	if code, _ := clients[0].request(stun.MethodRefresh, stun.RawAttribute{Type: stun.AttrLifetime, Value: []byte{0, 0, 0, 0}}); code != 0 {
		t.Fatal(code)
	}
	clients[2].allocate()
}

// A member whose network changes again and again, in a full room, gets its new relays at the cost of those that it left behind.
func TestQuotaOfAMemberThatMoves(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) { quotaOfAMemberThatMoves(t, network) })
	}
}

func quotaOfAMemberThatMoves(t *testing.T, network string) {
	const links = 4
	s := start(t, func(c *Config) { c.Quota, c.MaxRelays = 2*links, 2*links+1 })
	user, pass := s.Credentials("holder", time.Now())
	other := member(t, s)
	other.user, other.pass = s.Credentials("other", time.Now())
	others := other.allocate()
	var before []*client
	for generation := range 5 {
		var now []*client
		for range links {
			c := dialFrom(t, s, network, fmt.Sprintf("127.0.0.%d", 2+generation), user, pass)
			c.allocate()
			now = append(now, c)
		}
		// The generation before is whole: what was left behind first, went first.
		for _, c := range before {
			if code, _ := c.request(stun.MethodRefresh); code != 0 {
				t.Fatalf("generation %d cost one before it that was not the oldest: %d", generation, code)
			}
		}
		before = now
	}
	if st := s.Stats(); st.Relays != 2*links+1 || st.Holders != 2 {
		t.Fatalf("stats %+v", st)
	}
	if code, _ := other.request(stun.MethodCreatePermission, rawPeer(others)); code != 0 {
		t.Fatalf("another holder's allocation: %d", code)
	}
	// What is used is kept, whatever is older: a member may have two networks at once.
	used := before[0]
	if code, _ := used.request(stun.MethodCreatePermission, rawPeer(others)); code != 0 {
		t.Fatal(code)
	}
	for i := range 2*links - 1 {
		dialFrom(t, s, network, "127.0.0.9", user, pass).allocate()
		used.send(others, "still here")
		if code, _ := used.request(stun.MethodRefresh); code != 0 { // answered after the datagram was dealt with
			t.Fatalf("after %d allocations from elsewhere: %d", i+1, code)
		}
	}
}

// Nor can a member end what it had where it comes back to the address that it had, behind a NAT for one; silence tells.
func TestQuotaOfAMemberThatComesBack(t *testing.T) {
	s := start(t, func(c *Config) { c.Quota = 2 })
	used, silent := member(t, s), member(t, s)
	self := used.allocate()
	if code, _ := used.request(stun.MethodCreatePermission, rawPeer(self)); code != 0 {
		t.Fatal(code)
	}
	silent.allocate()
	if code, _ := member(t, s).request(stun.MethodAllocate, udpTransport); code != int(stun.CodeAllocQuotaReached) {
		t.Fatalf("while both may be in use: %d", code)
	}
	s.mu.Lock()
	for c := range s.relays {
		c.used.Add(-int64(silence))
	}
	s.mu.Unlock()
	used.send(self, "still here")
	if code, _ := used.request(stun.MethodRefresh); code != 0 { // answered after the datagram was dealt with
		t.Fatal(code)
	}
	member(t, s).allocate()
	if code, _ := used.request(stun.MethodRefresh); code != 0 {
		t.Fatalf("the one in use: %d", code)
	}
	if code, _ := member(t, s).request(stun.MethodAllocate, udpTransport); code != int(stun.CodeAllocQuotaReached) {
		t.Fatalf("where all are in use: %d", code)
	}
}

// Whoever makes up members has one address still.
func TestQuotaOfAnAddress(t *testing.T) {
	s := start(t, func(c *Config) { c.Quota, c.PerAddress = 2, 3 })
	allocate := func(i int, network string) (*client, int) {
		user, pass := s.Credentials(fmt.Sprint("holder", i), time.Now())
		c := dial(t, s, network, user, pass)
		code, _ := c.request(stun.MethodAllocate, udpTransport)
		return c, code
	}
	first, _ := allocate(0, "udp")
	for i, network := range []string{"udp", "tcp"} {
		if _, code := allocate(i+1, network); code != 0 {
			t.Fatalf("allocation %d: %d", i+2, code)
		}
	}
	if _, code := allocate(3, "tcp"); code != int(stun.CodeAllocQuotaReached) {
		t.Fatalf("beyond the quota: %d", code)
	}
	at := netip.MustParseAddrPort("127.0.0.1:9")
	if err := s.reserve(&relayConn{owner: owner{at, "another"}}); !errors.Is(err, errQuota) {
		t.Fatalf("beyond the quota: %v", err)
	}
	if !s.makeRoom(owner{netip.MustParseAddrPort("8.8.4.4:9"), "another"}) {
		t.Fatal("another address is refused")
	}
	if code, _ := first.request(stun.MethodRefresh, stun.RawAttribute{Type: stun.AttrLifetime, Value: []byte{0, 0, 0, 0}}); code != 0 {
		t.Fatal(code)
	}
	if _, code := allocate(3, "tcp"); code != 0 {
		t.Fatalf("what was released cannot be taken again: %d", code)
	}
}

func TestTCPWithoutAllocationIsClosed(t *testing.T) {
	s := start(t)
	s.tcp.mu.Lock()
	s.tcp.idle = 200 * time.Millisecond
	s.tcp.mu.Unlock()
	user, pass := s.Credentials("holder", time.Now())
	busy, idle := dial(t, s, "tcp", user, pass), dial(t, s, "tcp", user, pass)
	busy.allocate()
	// What is said without allocating does not count.
	gone := func(c *client) bool {
		m := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
		if _, err := c.conn.Write(m.Raw); err != nil {
			return true
		}
		return c.read(3*time.Second) == nil
	}
	began := time.Now()
	for !gone(idle) {
		if time.Since(began) > 3*time.Second {
			t.Fatal("a connection without an allocation stays")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if gone(busy) {
		t.Fatal("a connection with an allocation is closed")
	}
	s.mu.Lock()
	var relay *relayConn
	for relay = range s.relays {
	}
	s.mu.Unlock()
	relay.Close() // as when nobody has refreshed it, while the client says nothing
	for s.Stats().TCP > 0 {
		if time.Since(began) > 3*time.Second {
			t.Fatal("a connection without an allocation stays")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A stream is cut into messages as it comes, in however small pieces, and what is none ends it at once.
func TestTCPMessages(t *testing.T) {
	s := start(t)
	c := dial(t, s, "tcp", "", "")
	m := stun.MustBuild(stun.TransactionID, stun.BindingRequest)
	for _, b := range m.Raw {
		if _, err := c.conn.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	c.answer(m.TransactionID)
	if _, err := c.conn.Write(append(append([]byte{0x40, 0, 0, 1, 'x', 0, 0, 0}, m.Raw...), m.Raw...)); err != nil {
		t.Fatal(err)
	}
	c.answer(m.TransactionID)

	for name, begin := range map[string][]byte{
		"channel data too long":   {0x40, 0, 0xff, 0xff, 'x'},
		"STUN message too long":   {0, 1, 0xff, 0xfc, 'x'},
		"a bit beyond the buffer": {0x40, 0, 0x06, 0x40, 'x'},
		"HTTP":                    []byte("POST / HTTP/1.1\r\n"),
		"neither":                 {0x80, 0, 0, 0, 'x'},
	} {
		c := dial(t, s, "tcp", "", "")
		if _, err := c.conn.Write(begin); err != nil {
			t.Fatal(err)
		}
		c.conn.SetReadDeadline(time.Now().Add(5 * time.Second)) // less than a connection without an allocation has
		if _, err := c.conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An allocation cannot name peers without end, neither by permissions nor by channels.
func TestPeersOfAnAllocationAreBounded(t *testing.T) {
	s := start(t)
	peer := func(i int) rawPeer {
		return rawPeer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{8, 8, byte(i >> 8), byte(i)}), 50000))
	}
	for name, ask := range map[string]func(c *client, i int) int{
		"permissions": func(c *client, i int) int {
			code, _ := c.request(stun.MethodCreatePermission, peer(i))
			return code
		},
		"channels": func(c *client, i int) int {
			number := stun.RawAttribute{Type: stun.AttrChannelNumber, Value: []byte{0x40, byte(i), 0, 0}}
			code, _ := c.request(stun.MethodChannelBind, number, peer(i))
			return code
		},
	} {
		greedy, honest := member(t, s), member(t, s)
		greedy.allocate()
		honest.allocate()
		granted := 0
		for ; granted < 2*peerBurst && ask(greedy, granted) == 0; granted++ {
		}
		if granted < peerBurst || granted == 2*peerBurst {
			t.Errorf("%s: %d peers", name, granted)
		}
		if code := ask(honest, 0); code != 0 {
			t.Errorf("%s: another allocation is refused: %d", name, code)
		}
	}
	s.Close()
	if len(s.flows) != 0 {
		t.Errorf("%d flows are left", len(s.flows))
	}
}

func TestClose(t *testing.T) {
	var log bytes.Buffer
	s := start(t, func(c *Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	user, pass := s.Credentials("holder", time.Now())
	for _, network := range []string{"udp", "tcp"} {
		dial(t, s, network, user, pass).allocate()
	}
	dial(t, s, "tcp", "", "") // says nothing
	for end := time.Now().Add(3 * time.Second); s.Stats().TCP != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("stats %+v", s.Stats())
		}
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); st.Relays != 0 || st.Holders != 0 || st.TCP != 0 {
		t.Fatalf("after Close: %+v", st)
	}
	if log.Len() > 0 {
		t.Fatalf("logged: %s", log.String())
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no secret":              {Addr: "127.0.0.1:0", TTL: time.Hour},
		"no lifetime":            {Addr: "127.0.0.1:0", Secret: secret},
		"two addresses a family": {Addr: "127.0.0.1:0", Secret: secret, TTL: time.Hour, ExternalIPs: addrs([]string{"203.0.113.1", "::ffff:203.0.113.2"})},
		"bad address":            {Addr: "127.0.0.1:port", Secret: secret, TTL: time.Hour},
	} {
		cfg.Log = slog.New(slog.DiscardHandler)
		if s, err := Listen(t.Context(), cfg); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

// Two peers that may only use the relay, as browsers do with iceTransportPolicy "relay", open a data channel.
func TestRelayOnlyPeersMeet(t *testing.T) {
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			s := start(t)
			user, pass := s.Credentials("holder", time.Now())
			config := webrtc.Configuration{
				ICETransportPolicy: webrtc.ICETransportPolicyRelay,
				ICEServers: []webrtc.ICEServer{{
					URLs: []string{fmt.Sprintf("turn:%s?transport=%s", s.Addr(), transport)}, Username: user, Credential: pass,
				}},
			}
			var peers [2]*webrtc.PeerConnection
			for i := range peers {
				pc, err := webrtc.NewPeerConnection(config)
				if err != nil {
					t.Fatal(err)
				}
				defer pc.GracefulClose()
				peers[i] = pc
			}
			got := make(chan string, 1)
			peers[1].OnDataChannel(func(d *webrtc.DataChannel) {
				d.OnMessage(func(m webrtc.DataChannelMessage) { got <- string(m.Data) })
			})
			d, err := peers[0].CreateDataChannel("bulk", nil)
			if err != nil {
				t.Fatal(err)
			}
			d.OnOpen(func() { d.SendText("through the relay") })
			describe(t, peers[0], peers[1])

			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			select {
			case m := <-got:
				if m != "through the relay" {
					t.Fatalf("got %q", m)
				}
			case <-ctx.Done():
				t.Fatal("relay-only peers do not meet")
			}
			if st := s.Stats(); st.Relays < 2 || st.Sent == 0 || st.Received == 0 {
				t.Fatalf("stats %+v", st)
			}
		})
	}
}

func describe(t *testing.T, offerer, answerer *webrtc.PeerConnection) {
	t.Helper()
	offer, err := offerer.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(offerer)
	if err := offerer.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	if err := answerer.SetRemoteDescription(*offerer.LocalDescription()); err != nil {
		t.Fatal(err)
	}
	answer, err := answerer.CreateAnswer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered = webrtc.GatheringCompletePromise(answerer)
	if err := answerer.SetLocalDescription(answer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	sdp := answerer.LocalDescription().SDP
	if !strings.Contains(sdp, "typ relay") || strings.Contains(sdp, "typ host") {
		t.Fatalf("candidates are not relays alone:\n%s", sdp)
	}
	if err := offerer.SetRemoteDescription(*answerer.LocalDescription()); err != nil {
		t.Fatal(err)
	}
}
