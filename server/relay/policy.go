package relay

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// special are the ranges that are nobody's public address: who may relay there reaches into private networks, this
// host included. From the IANA special-purpose address registries, but for the last line; IPv4-mapped addresses are judged as IPv4.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4",
	// ::/96 holds the unspecified and the loopback address; the next four lead to IPv4 addresses inside.
	"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16",
	"100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	"168.63.129.16/32", // Azure's host, for its guests: public by its number only
)

// reservedPorts is how many ports, from 0, are for services and not for peers, whose ports are the system's choice. 443
// is left: a peer's NAT may be told to use it because networks let it out.
const reservedPorts = 1024

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, t := range texts {
		list[i] = netip.MustParsePrefix(t)
	}
	return list
}

func within(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// policy decides where relays send to and whom they hear. It is safe for concurrent use.
//
// This host's own addresses are refused like the special ranges, with one exception: the relay address, towards ports
// that are allocated at that moment, because that is where two members meet who both use this relay.
type policy struct {
	v4, v6 family
	allow  []netip.Prefix

	own     atomic.Pointer[map[netip.Addr]bool] // of the host's interfaces
	ownRead atomic.Int64                        // when, in Unix nanoseconds

	mu    sync.RWMutex
	ports map[netip.AddrPort]struct{} // relays allocated now
}

// family is what differs between IPv4 and IPv6. It is the zero value where the relay has no address.
type family struct {
	relay netip.Addr // of allocations, as clients and peers see it
	bind  netip.Addr // that their sockets are bound to
	// via is where sockets reach each other on this host. It is relay, unless a NAT in front of the host translates that
	// address: datagrams to it might never come back in, and ones from it would seem to come from elsewhere.
	via netip.Addr
}

// ownFresh is how long what is known of the host's interfaces counts.
const ownFresh = 10 * time.Second

// newPolicy makes the policy of a relay that listens at bound.
func newPolicy(bound netip.Addr, external []netip.Addr, allow []netip.Prefix) (*policy, error) {
	p := &policy{allow: allow, ports: make(map[netip.AddrPort]struct{})}
	if err := p.readOwn(); err != nil {
		return nil, err
	}
	for _, ip := range external {
		ip = ip.Unmap()
		f := p.family(ip.Is6())
		if f.relay.IsValid() {
			return nil, errExternalIPs
		}
		f.relay = ip
	}
	for _, six := range []bool{false, true} {
		f := p.family(six)
		unspecified, loopback := netip.IPv4Unspecified(), netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if six {
			unspecified, loopback = netip.IPv6Unspecified(), netip.IPv6Loopback()
		}
		here := bound.Is6() == six && !bound.IsUnspecified()
		switch {
		case !f.relay.IsValid() && here:
			f.relay = bound
		case !f.relay.IsValid() && bound.IsUnspecified() && len(external) == 0 && (bound.Is6() || !six):
			f.relay = p.outward(six)
		}
		switch {
		case !f.relay.IsValid():
		case here:
			f.bind, f.via = bound, bound
		case p.isOwn(f.relay):
			f.bind, f.via = f.relay, f.relay
		default:
			f.bind, f.via = unspecified, loopback
		}
	}
	if !p.v4.relay.IsValid() && !p.v6.relay.IsValid() {
		local := netip.AddrFrom4([4]byte{127, 0, 0, 1}) // a host without a network has only itself to serve
		p.v4 = family{relay: local, bind: local, via: local}
	}
	return p, nil
}

func (p *policy) family(six bool) *family {
	if six {
		return &p.v6
	}
	return &p.v4
}

// primary is the address that clients are told.
func (p *policy) primary() netip.Addr {
	if p.v4.relay.IsValid() {
		return p.v4.relay
	}
	return p.v6.relay
}

// outward is the address of this host that others reach best: the one from which it reaches others.
func (p *policy) outward(six bool) netip.Addr {
	network, elsewhere := "udp4", "192.0.2.1:9"
	if six {
		network, elsewhere = "udp6", "[2001:db8::1]:9"
	}
	if c, err := net.Dial(network, elsewhere); err == nil { // connecting a UDP socket looks up the route and sends nothing
		defer c.Close()
		return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	}
	var best netip.Addr
	for ip := range *p.own.Load() {
		if ip.Is6() == six && ip.IsGlobalUnicast() && (!best.IsValid() || ip.Less(best)) {
			best = ip
		}
	}
	return best
}

func (p *policy) readOwn() error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	own := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	p.own.Store(&own)
	p.ownRead.Store(time.Now().UnixNano())
	return nil
}

func (p *policy) isOwn(ip netip.Addr) bool {
	return ip.IsLoopback() || (*p.own.Load())[ip]
}

// permits reports whether anything may be reached at the address.
func (p *policy) permits(ip netip.Addr) bool {
	ip = ip.Unmap()
	if now, read := time.Now().UnixNano(), p.ownRead.Load(); now-read > int64(ownFresh) && p.ownRead.CompareAndSwap(read, now) {
		_ = p.readOwn() // what was known before stands
	}
	return ip.IsValid() && ip == p.family(ip.Is6()).relay || p.public(ip)
}

// public reports whether the address may be reached on the ports of peers.
func (p *policy) public(ip netip.Addr) bool {
	switch {
	case !ip.IsValid() || ip.Zone() != "":
		return false
	case within(p.allow, ip):
		return true
	default:
		return ip != p.family(ip.Is6()).relay && !p.isOwn(ip) && !within(special, ip)
	}
}

// route is where a datagram to dst has to be sent, if it may.
func (p *policy) route(dst netip.AddrPort) (netip.AddrPort, bool) {
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	if f := p.family(dst.Addr().Is6()); dst.Addr() == f.relay && p.isAllocated(dst) {
		return netip.AddrPortFrom(f.via, dst.Port()), true
	}
	service := dst.Port() < reservedPorts && dst.Port() != 443 && !within(p.allow, dst.Addr())
	return dst, p.public(dst.Addr()) && !service
}

// origin is whom a datagram from src is from, if it is to be heard: the inverse of route.
func (p *policy) origin(src netip.AddrPort) (netip.AddrPort, bool) {
	src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
	f := p.family(src.Addr().Is6())
	if relay := netip.AddrPortFrom(f.relay, src.Port()); src.Addr() == f.via && p.isAllocated(relay) {
		return relay, true
	}
	return src, p.public(src.Addr())
}

func (p *policy) isAllocated(a netip.AddrPort) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.ports[a]
	return ok
}

func (p *policy) allocated(a netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ports[a] = struct{}{}
}

func (p *policy) freed(a netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ports, a)
}
