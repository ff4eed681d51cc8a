package main

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"tallow/server/limit"
)

// listener bounds the connections that are open, before anything has been read from them. Those that come from a proxy
// which is trusted are many clients', so they count in total alone.
type listener struct {
	net.Listener
	total, perAddress *limit.Gate
	trusted           []netip.Prefix
}

// Room for connections that are not signaling ones: plain requests, and those whose end the other side has not noticed.
const spareConnections = 5_000

// newListener bounds l for c: besides its share of signaling connections, an address can have as many others.
func newListener(l net.Listener, c *config) net.Listener {
	bounded := &listener{Listener: l, trusted: c.trustedProxies.values}
	var total, perAddress limit.Limits
	if c.maxConnections > 0 {
		total.Total = c.maxConnections + spareConnections
	}
	perAddress.PerAddress = 2 * c.maxConnectionsPerIP
	bounded.total, bounded.perAddress = limit.New(total), limit.New(perAddress)
	return bounded
}

// Accept implements net.Listener. A connection without a place is closed, and the next one awaited.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if release, ok := l.admit(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()); ok {
			return &boundedConn{TCPConn: c.(*net.TCPConn), release: sync.OnceFunc(release)}, nil
		}
		c.Close()
	}
}

func (l *listener) admit(addr netip.Addr) (release func(), ok bool) {
	if l.total.Take(netip.Addr{}) != nil {
		return nil, false
	}
	if slices.ContainsFunc(l.trusted, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return func() { l.total.Release(netip.Addr{}) }, true
	}
	if l.perAddress.Take(addr) != nil {
		l.total.Release(netip.Addr{})
		return nil, false
	}
	return func() {
		l.perAddress.Release(addr)
		l.total.Release(netip.Addr{})
	}, true
}

// boundedConn gives its place back when it is closed. It is a TCP connection to whoever looks, so that one direction can
// be closed alone.
type boundedConn struct {
	*net.TCPConn
	release func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.release()
	return c.TCPConn.Close()
}
