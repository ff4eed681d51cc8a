package main

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// clientAddr is the address of the client that a request comes from. X-Forwarded-For says more than the connection does
// only where the connection comes from a trusted proxy; it is then read from its end up to the first address that is none,
// because whatever stands before it the client may have written itself.
func clientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := remote.Addr().Unmap()
	isTrusted := func(a netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && isTrusted(addr); i-- {
		hop := strings.TrimSpace(hops[i])
		next, err := netip.ParseAddr(hop)
		if err != nil {
			withPort, err := netip.ParseAddrPort(hop) // as some proxies write it
			if err != nil {
				break
			}
			next = withPort.Addr()
		}
		addr = next.Unmap()
	}
	return addr
}
