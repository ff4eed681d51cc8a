// Package relay is the server's STUN and TURN: it relays for members whose browsers find no direct path, with
// credentials that expire, and towards public addresses and its own relays only.
//
// The protocol is pion/turn's. What is added here is whom to believe (credentials.go), where to send (policy.go), the
// bounds, and an end that waits.
package relay

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/turn/v5"
	"golang.org/x/time/rate"

	"tallow/server/limit"
)

// Config is what a relay needs.
type Config struct {
	Addr        string         // host:port for UDP and TCP alike; port 0 picks one
	ExternalIPs []netip.Addr   // under which clients and peers reach this host, at most one per family; none: its own
	Secret      []byte         // from which credentials are made; not empty
	TTL         time.Duration  // of credentials; at least a second
	Quota       int            // allocations of one credential's holder at the same time, beyond which it loses those left behind; 0: no bound
	PerAddress  int            // allocations of one client address, as limit.Customer counts them; 0: no bound
	MaxRelays   int            // allocations in all; 0: no bound
	Allow       []netip.Prefix // relayed to although they are special (policy.go)
	Log         *slog.Logger   // gets addresses at debug level only
}

// Server is a running relay.
type Server struct {
	cfg    Config
	policy *policy
	turn   *turn.Server
	port   uint16
	tcp    *listener
	counts counts

	mu        sync.Mutex
	closed    bool
	relays    map[*relayConn]struct{}
	flows     map[flow]*relayConn                // the same by who asked for them
	holders   map[string]map[*relayConn]struct{} // the same by holder
	customers map[netip.Prefix]int               // allocations by client address
	open      sync.WaitGroup                     // relays and TCP clients
}

type counts struct {
	sent, sentBytes, received, receivedBytes, refused atomic.Uint64
}

var (
	errClosed      = errors.New("relay: closed")
	errQuota       = errors.New("relay: quota of allocations reached")
	errFamily      = errors.New("relay: no relay address of this family")
	errTCPRelay    = errors.New("relay: TCP relays (RFC 6062) are not offered")
	errRefused     = errors.New("relay: destination refused")
	errFrame       = errors.New("relay: neither a STUN message nor channel data, or too long")
	errNotUDP      = errors.New("relay: not a UDP address")
	errNoSecret    = errors.New("relay: secret is empty")
	errTTL         = errors.New("relay: credentials must live for a second at least")
	errExternalIPs = errors.New("relay: more than one external address of a family")
)

const (
	realm = "tallow"
	// TCP connections to the relay, each of which holds a socket and a buffer.
	maxTCP, maxTCPPerAddress = 4096, 256
	// tcpSilence ends a TCP connection on which no message is complete for so long: an allocation that nobody refreshes is gone by then.
	tcpSilence = 11 * time.Minute
	tcpWrite   = 10 * time.Second
	tcpBuffer  = 2048
	// tcpIdle is how long a TCP connection may have no allocation.
	tcpIdle = 30 * time.Second
	// An allocation can name so many peers at once, by permission or channel, or renew them, and one more in each period:
	// the library keeps all of them for minutes, and looks through the channels for each datagram.
	peerBurst, peerPeriod = 128, 4 * time.Second
	// An allocation through which its client has sent nothing for so long carries no connection: consent (RFC 7675) has
	// expired. Its client may have lost the address that it belongs to, and could not end it.
	silence = 30 * time.Second
	// portAttempts to find a port that is free for both UDP and TCP.
	portAttempts = 16
)

// Listen starts a relay. The context bounds looking up the host and nothing after.
func Listen(ctx context.Context, cfg Config) (*Server, error) {
	if len(cfg.Secret) == 0 {
		return nil, errNoSecret
	}
	if cfg.TTL < time.Second {
		return nil, errTTL
	}
	udp, tcp, err := listen(ctx, cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	bound := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	policy, err := newPolicy(bound.Addr().Unmap(), cfg.ExternalIPs, cfg.Allow)
	if err != nil {
		return nil, errors.Join(err, udp.Close(), tcp.Close())
	}
	udp.SetReadBuffer(4 << 20) // as much as the kernel grants: one goroutine reads for all
	s := &Server{
		cfg: cfg, policy: policy, port: bound.Port(),
		relays: make(map[*relayConn]struct{}), flows: make(map[flow]*relayConn), holders: make(map[string]map[*relayConn]struct{}), customers: make(map[netip.Prefix]int),
	}
	s.tcp = &listener{
		Listener: tcp, server: s, idle: tcpIdle, conns: make(map[netip.AddrPort]*clientConn),
		gate: limit.New(limit.Limits{Total: maxTCP, PerAddress: maxTCPPerAddress}),
	}
	s.turn, err = turn.NewServer(turn.ServerConfig{
		Realm:         realm,
		LoggerFactory: loggers{cfg.Log},
		AuthHandler:   s.authenticate,
		QuotaHandler:  func(user, _ string, _ net.Addr) bool { return s.makeRoom(parseOwner(user)) },
		PacketConnConfigs: []turn.PacketConnConfig{
			{PacketConn: udp, RelayAddressGenerator: generator{s, nil}, PermissionHandler: s.permit},
		},
		ListenerConfigs: []turn.ListenerConfig{
			{Listener: s.tcp, RelayAddressGenerator: generator{s, s.tcp}, PermissionHandler: s.permit},
		},
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay: %w", err), udp.Close(), tcp.Close())
	}
	return s, nil
}

// listen opens the same port for UDP and TCP.
func listen(ctx context.Context, addr string) (*net.UDPConn, net.Listener, error) {
	resolved, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, nil, err
	}
	// IPv4 and IPv6 sockets apart, but for the unspecified address of both.
	family := ""
	if ip, ok := netip.AddrFromSlice(resolved.IP); ok {
		if family = "6"; ip.Unmap().Is4() {
			family = "4"
		}
	}
	for attempt := 1; ; attempt++ {
		udp, err := net.ListenUDP("udp"+family, resolved)
		if err != nil {
			return nil, nil, err
		}
		at := udp.LocalAddr().(*net.UDPAddr)
		tcp, err := (&net.ListenConfig{}).Listen(ctx, "tcp"+family, at.String())
		if err == nil {
			return udp, tcp, nil
		}
		udp.Close()
		if resolved.Port != 0 || attempt == portAttempts {
			return nil, nil, err
		}
	}
}

// Addr is where clients reach the relay over UDP and TCP.
func (s *Server) Addr() netip.AddrPort { return netip.AddrPortFrom(s.policy.primary(), s.port) }

// Close ends all relaying. It returns when what it owns has ended, which takes no one else's help.
func (s *Server) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	var err error
	if !closed {
		err = s.turn.Close()
		// The library closes its allocations when it notices, one after the other; those of TCP clients never.
		s.mu.Lock()
		relays := make([]*relayConn, 0, len(s.relays))
		for c := range s.relays {
			relays = append(relays, c)
		}
		s.mu.Unlock()
		for _, c := range relays {
			c.Close()
		}
	}
	s.open.Wait()
	return err
}

// Stats are a relay's numbers; those that only grow count from its start.
type Stats struct {
	Relays, Holders, TCP    int    // allocations, holders of some, TCP connections
	Sent, SentBytes         uint64 // datagrams from clients to peers
	Received, ReceivedBytes uint64 // datagrams from peers to relays, whether or not a client has permitted them
	Refused                 uint64 // permissions and datagrams refused
}

// Stats are the relay's numbers.
func (s *Server) Stats() Stats {
	st := Stats{
		Sent: s.counts.sent.Load(), SentBytes: s.counts.sentBytes.Load(),
		Received: s.counts.received.Load(), ReceivedBytes: s.counts.receivedBytes.Load(),
		Refused: s.counts.refused.Load(), TCP: s.tcp.open(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Relays, st.Holders = len(s.relays), len(s.holders)
	return st
}

// permit is asked for CreatePermission, ChannelBind and Connect, which name an address; ports are checked for each datagram.
func (s *Server) permit(client net.Addr, ip net.IP) bool {
	addr, ok := netip.AddrFromSlice(ip)
	if ok && s.policy.permits(addr) && s.mayName(flowOf(client)) {
		return true
	}
	s.counts.refused.Add(1)
	return false
}

// flow is what an allocation belongs to: its client's address, over UDP or TCP.
type flow struct {
	client netip.AddrPort
	tcp    bool
}

func flowOf(client net.Addr) flow {
	_, tcp := client.(*net.TCPAddr)
	return flow{source(client), tcp}
}

// holds reports whether a flow has an allocation, and it is that owner's.
func (s *Server) holds(o owner, f flow) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.flows[f]
	return c != nil && c.owner == o
}

// mayName reports whether the allocation of a flow may name one more peer.
func (s *Server) mayName(f flow) bool {
	s.mu.Lock()
	c := s.flows[f]
	s.mu.Unlock()
	return c != nil && c.peers.Allow()
}

// makeRoom lets the library answer 486; what binds is the count in reserve. A holder at its quota loses what it has left
// behind: each change of network leaves as many allocations as it had, which nobody can use and which live for minutes.
func (s *Server) makeRoom(o owner) bool {
	s.mu.Lock()
	within := s.withinQuota(o)
	var left *relayConn
	if !within && s.withinCustomersQuota(o) {
		left = s.leftBehind(o)
	}
	s.mu.Unlock()
	if left == nil {
		return within
	}
	left.Close() // the library notices, and forgets the allocation
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.withinQuota(o)
}

// leftBehind is the allocation that its holder has not used for longest, of those for another address than o's and those that
// are silent; nil: there is none. The caller holds mu.
func (s *Server) leftBehind(o owner) (left *relayConn) {
	silent := time.Now().Add(-silence).UnixNano()
	for c := range s.holders[o.holder] {
		if (c.owner.client.Addr() != o.client.Addr() || c.used.Load() <= silent) && (left == nil || c.used.Load() < left.used.Load()) {
			left = c
		}
	}
	return left
}

// The caller of these holds mu.

func (s *Server) withinQuota(o owner) bool {
	return (s.cfg.Quota == 0 || len(s.holders[o.holder]) < s.cfg.Quota) && s.withinCustomersQuota(o)
}

func (s *Server) withinCustomersQuota(o owner) bool {
	return s.cfg.PerAddress == 0 || s.customers[limit.Customer(o.client.Addr())] < s.cfg.PerAddress
}

// reserve counts c and lets others reach it, until release.
func (s *Server) reserve(c *relayConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case !s.withinQuota(c.owner), s.cfg.MaxRelays > 0 && len(s.relays) >= s.cfg.MaxRelays:
		return errQuota
	}
	if s.holders[c.owner.holder] == nil {
		s.holders[c.owner.holder] = make(map[*relayConn]struct{})
	}
	s.holders[c.owner.holder][c] = struct{}{}
	s.customers[limit.Customer(c.owner.client.Addr())]++
	s.relays[c] = struct{}{}
	s.flows[c.flow()] = c
	s.policy.allocated(c.addr)
	s.open.Add(1)
	return nil
}

func (s *Server) release(c *relayConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.relays, c)
	if s.flows[c.flow()] == c {
		delete(s.flows, c.flow())
	}
	s.policy.freed(c.addr)
	of := s.holders[c.owner.holder]
	if delete(of, c); len(of) == 0 {
		delete(s.holders, c.owner.holder)
	}
	customer := limit.Customer(c.owner.client.Addr())
	if s.customers[customer]--; s.customers[customer] == 0 {
		delete(s.customers, customer)
	}
}

// generator makes the sockets that relay for the clients of UDP, or of a listener.
type generator struct {
	*Server
	listener *listener // nil for UDP
}

// Validate implements turn.RelayAddressGenerator.
func (generator) Validate() error { return nil }

// AllocatePacketConn implements turn.RelayAddressGenerator.
func (g generator) AllocatePacketConn(conf turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	f := g.policy.family(conf.Network == "udp6")
	if !f.relay.IsValid() {
		return nil, nil, errFamily
	}
	udp, err := net.ListenUDP(conf.Network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.bind, uint16(conf.RequestedPort))))
	if err != nil {
		return nil, nil, err
	}
	port := udp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	c := &relayConn{
		UDPConn: udp, server: g.Server, owner: parseOwner(conf.UserID), tcp: g.listener != nil, addr: netip.AddrPortFrom(f.relay, port),
		peers: rate.NewLimiter(rate.Every(peerPeriod), peerBurst),
	}
	c.used.Store(time.Now().UnixNano())
	if g.listener != nil {
		c.client = g.listener.client(c.owner.client)
	}
	if err := g.reserve(c); err != nil {
		udp.Close()
		return nil, nil, err
	}
	c.client.allocated(1)
	return c, net.UDPAddrFromAddrPort(c.addr), nil
}

// AllocateListener implements turn.RelayAddressGenerator. WebRTC has no use for TCP relays.
func (generator) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errTCPRelay
}

// AllocateConn implements turn.RelayAddressGenerator.
func (generator) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) { return nil, errTCPRelay }

// relayConn is the socket of one allocation. It checks where each datagram goes and whence it comes.
type relayConn struct {
	*net.UDPConn
	server *Server
	owner  owner
	tcp    bool           // asked for over TCP
	client *clientConn    // over which it was; nil for UDP, and where the client has gone
	addr   netip.AddrPort // as clients are told
	peers  *rate.Limiter  // that the client names
	used   atomic.Int64   // when its client last sent through it, or asked for it; Unix time in ns
	once   sync.Once
}

func (c *relayConn) flow() flow { return flow{c.owner.client, c.tcp} }

// WriteTo implements net.PacketConn.
func (c *relayConn) WriteTo(p []byte, to net.Addr) (int, error) {
	c.used.Store(time.Now().UnixNano())
	udp, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, errNotUDP
	}
	dst, ok := c.server.policy.route(udp.AddrPort())
	if !ok {
		c.server.counts.refused.Add(1)
		return 0, errRefused
	}
	n, err := c.WriteToUDPAddrPort(p, dst)
	if err == nil {
		c.server.counts.sent.Add(1)
		c.server.counts.sentBytes.Add(uint64(n))
	}
	return n, err
}

// ReadFrom implements net.PacketConn.
func (c *relayConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(p)
		if err != nil {
			return n, nil, err
		}
		src, ok := c.server.policy.origin(from)
		if !ok {
			c.server.counts.refused.Add(1)
			continue
		}
		c.server.counts.received.Add(1)
		c.server.counts.receivedBytes.Add(uint64(n))
		return n, net.UDPAddrFromAddrPort(src), nil
	}
}

// Close implements net.PacketConn.
func (c *relayConn) Close() (err error) {
	c.once.Do(func() {
		c.server.release(c) // before the port is anybody's again
		err = c.UDPConn.Close()
		c.client.allocated(-1)
		c.server.open.Done()
	})
	return err
}

// listener accepts TCP clients within bounds and, unlike the library, ends them when it closes.
type listener struct {
	net.Listener
	server *Server
	gate   *limit.Gate

	mu     sync.Mutex
	closed bool
	idle   time.Duration                  // that the clients to come may be without an allocation
	conns  map[netip.AddrPort]*clientConn // by the client's address
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		addr := source(nc.RemoteAddr())
		if l.gate.Take(addr.Addr()) != nil {
			nc.Close()
			continue
		}
		c := &clientConn{Conn: nc, in: bufio.NewReaderSize(nc, tcpBuffer), listener: l, addr: addr}
		l.mu.Lock()
		c.idle, c.by = l.idle, time.Now().Add(l.idle)
		closed := l.closed
		if !closed {
			l.conns[addr] = c
			l.server.open.Add(1)
		}
		l.mu.Unlock()
		if closed {
			l.gate.Release(addr.Addr())
			nc.Close()
			continue
		}
		return c, nil
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	l.closed = true
	conns := make([]*clientConn, 0, len(l.conns))
	for _, c := range l.conns {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	return err
}

// client is the client at an address; nil where it has gone.
func (l *listener) client(addr netip.AddrPort) *clientConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[addr]
}

func (l *listener) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// clientConn is a TCP client. One that is silent, allocates nothing, or does not take what is relayed to it, is closed.
type clientConn struct {
	net.Conn
	in       *bufio.Reader // reads Conn
	listener *listener
	addr     netip.AddrPort
	idle     time.Duration
	once     sync.Once

	mu     sync.Mutex
	relays int       // allocations
	by     time.Time // until when it must have one
}

// Read implements net.Conn. It returns one message as a whole, and none that is longer than p: the library would wait for
// the rest of any, with a deeper stack for each piece of it that comes.
func (c *clientConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	by := time.Now().Add(tcpSilence)
	if c.relays == 0 {
		by = c.by
	}
	c.SetReadDeadline(by)
	c.mu.Unlock()
	header, err := c.in.Peek(4)
	if err != nil {
		return 0, err
	}
	n := frameSize([4]byte(header))
	if n == 0 || n > len(p) {
		return 0, errFrame
	}
	return io.ReadFull(c.in, p[:n])
}

// frameSize is the length of a message in a stream by its first bytes (RFC 8489 section 5, RFC 8656 section 12.5); 0: it is none.
func frameSize(header [4]byte) int {
	n := int(binary.BigEndian.Uint16(header[2:]))
	switch header[0] >> 6 {
	case 0:
		return 20 + n
	case 1:
		return 4 + (n+3)&^3
	default:
		return 0
	}
}

// allocated notes that there are n more allocations. The client may be nil.
func (c *clientConn) allocated(n int) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.relays += n; c.relays == 0 {
		c.by = time.Now().Add(c.idle)
		c.SetReadDeadline(c.by) // of a Read that is under way
	}
}

// Write implements net.Conn.
func (c *clientConn) Write(p []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(tcpWrite))
	n, err := c.Conn.Write(p)
	if err != nil {
		c.Close() // part of a frame leaves nothing to go on with
	}
	return n, err
}

// Close implements net.Conn.
func (c *clientConn) Close() (err error) {
	c.once.Do(func() {
		err = c.Conn.Close()
		c.listener.gate.Release(c.addr.Addr())
		c.listener.mu.Lock()
		if c.listener.conns[c.addr] == c {
			delete(c.listener.conns, c.addr)
		}
		c.listener.mu.Unlock()
		c.listener.server.open.Done()
	})
	return err
}
