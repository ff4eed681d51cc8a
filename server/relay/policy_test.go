package relay

import (
	"net/netip"
	"testing"
)

func TestPolicy(t *testing.T) {
	const public4, public6 = "8.8.4.4", "2a00:1450::1"
	tests := []struct {
		name                  string
		bound                 string
		external, allow       []string
		permitted, prohibited []string
	}{
		{
			name: "on loopback", bound: "127.0.0.1",
			permitted: []string{public4, public6, "127.0.0.1", "::ffff:127.0.0.1", "::ffff:" + public4, "11.0.0.1", "100.63.0.1", "172.32.0.1"},
			prohibited: []string{
				"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.2", "127.1.0.1",
				"169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.168.0.1", "198.18.0.1", "198.19.255.255",
				"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
				"192.0.2.1", "198.51.100.1", "203.0.113.255", "168.63.129.16", "2001:db8::1", "3fff:fff::1", "5f00::1",
				"::", "::1", "::7f00:1", "::ffff:10.0.0.1", "::ffff:127.0.0.2", "::ffff:169.254.169.254", "64:ff9b::a00:1",
				"2001:0:1::1", "2002:a00:1::1", "fc00::1", "fd12:3456::1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1",
			},
		},
		{
			name: "behind a NAT", bound: "127.0.0.1", external: []string{"198.51.100.9"},
			permitted: []string{public4, "198.51.100.9"}, prohibited: []string{"127.0.0.1", "10.0.0.1"},
		},
		{
			name: "with ranges allowed", bound: "127.0.0.1", allow: []string{"10.1.0.0/16", "::1/128"},
			permitted: []string{"10.1.2.3", "::ffff:10.1.2.3", "::1"}, prohibited: []string{"10.2.0.1", "fc00::1"},
		},
		{
			name: "on IPv6", bound: "::1",
			permitted: []string{"::1", public6}, prohibited: []string{"127.0.0.1", "fe80::1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := newPolicy(netip.MustParseAddr(tt.bound), addrs(tt.external), prefixes(tt.allow...))
			if err != nil {
				t.Fatal(err)
			}
			for _, ip := range tt.permitted {
				if !p.permits(netip.MustParseAddr(ip)) {
					t.Errorf("%s is refused", ip)
				}
			}
			for _, ip := range tt.prohibited {
				if p.permits(netip.MustParseAddr(ip)) {
					t.Errorf("%s is permitted", ip)
				}
				if _, ok := p.route(netip.AddrPortFrom(netip.MustParseAddr(ip), 50_000)); ok {
					t.Errorf("datagrams to %s are sent", ip)
				}
				if _, ok := p.origin(netip.AddrPortFrom(netip.MustParseAddr(ip), 50_000)); ok && netip.MustParseAddr(ip) != netip.MustParseAddr(tt.bound) {
					t.Errorf("datagrams from %s are heard", ip)
				}
			}
		})
	}
}

func addrs(texts []string) (list []netip.Addr) {
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

// This host's addresses are refused even when they are public ones: what matters is whose they are.
func TestPolicyRefusesOwnPublicAddresses(t *testing.T) {
	p, err := newPolicy(netip.MustParseAddr("127.0.0.1"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := netip.MustParseAddr("8.8.4.4")
	if !p.permits(other) {
		t.Fatal("an ordinary address is refused")
	}
	p.own.Store(&map[netip.Addr]bool{other: true})
	if p.permits(other) {
		t.Fatal("the host's own address is permitted")
	}
}

func TestServicesAreNotReached(t *testing.T) {
	p, err := newPolicy(netip.MustParseAddr("127.0.0.1"), nil, prefixes("10.0.0.0/8"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"8.8.4.4:0": false, "8.8.4.4:53": false, "8.8.4.4:80": false, "8.8.4.4:1023": false, "[2a00:1450::1]:123": false, "[::ffff:8.8.4.4]:53": false,
		"8.8.4.4:443": true, "8.8.4.4:1024": true, "8.8.4.4:3478": true, "8.8.4.4:65535": true, "[2a00:1450::1]:50000": true,
		"10.0.0.1:53": true, // what the operator allows is the operator's
	} {
		if _, ok := p.route(netip.MustParseAddrPort(text)); ok != want {
			t.Errorf("%s is sent to: %v", text, ok)
		}
	}
}

func TestPolicyPorts(t *testing.T) {
	for _, tt := range []struct {
		name, relay, via string
		external         []string
	}{
		{name: "own address", relay: "127.0.0.1", via: "127.0.0.1"},
		{name: "behind a NAT", relay: "198.51.100.9", via: "127.0.0.1", external: []string{"198.51.100.9"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := newPolicy(netip.MustParseAddr("127.0.0.1"), addrs(tt.external), nil)
			if err != nil {
				t.Fatal(err)
			}
			relay := netip.AddrPortFrom(netip.MustParseAddr(tt.relay), 5000)
			via := netip.AddrPortFrom(netip.MustParseAddr(tt.via), 5000)
			if _, ok := p.route(relay); ok {
				t.Fatal("a port that is not allocated is sent to")
			}
			if _, ok := p.origin(via); ok {
				t.Fatal("a port that is not allocated is heard")
			}
			p.allocated(relay)
			if to, ok := p.route(relay); !ok || to != via {
				t.Fatalf("sent to %v, %v; want %v", to, ok, via)
			}
			if from, ok := p.origin(via); !ok || from != relay {
				t.Fatalf("heard from %v, %v; want %v", from, ok, relay)
			}
			if _, ok := p.route(netip.AddrPortFrom(relay.Addr(), 5001)); ok {
				t.Fatal("a port that is not allocated is sent to")
			}
			p.freed(relay)
			if _, ok := p.route(relay); ok {
				t.Fatal("a port that was freed is sent to")
			}
		})
	}
}

// Whatever the host's network looks like, a relay on the unspecified address offers one that it can bind.
func TestPolicyFindsAnAddress(t *testing.T) {
	for _, bound := range []string{"0.0.0.0", "::"} {
		p, err := newPolicy(netip.MustParseAddr(bound), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a := p.primary(); !p.isOwn(a) || a.IsUnspecified() {
			t.Errorf("on %s it offers %v", bound, a)
		}
	}
}
