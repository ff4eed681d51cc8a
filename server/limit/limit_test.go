package limit

import (
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var (
	alice = netip.MustParseAddr("192.0.2.1")
	bob   = netip.MustParseAddr("192.0.2.2")
)

func expect(t *testing.T, g *Gate, addr netip.Addr, want error) {
	t.Helper()
	if err := g.Take(addr); !errors.Is(err, want) {
		t.Fatalf("Take(%v) = %v, want %v", addr, err, want)
	}
}

func TestPlaces(t *testing.T) {
	g := New(Limits{Total: 3, PerAddress: 2})
	expect(t, g, alice, nil)
	expect(t, g, netip.MustParseAddr("::ffff:192.0.2.1"), nil) // the same address in its IPv6 form
	expect(t, g, alice, ErrAddress)
	expect(t, g, bob, nil)
	expect(t, g, bob, ErrFull)
	g.Release(alice)
	expect(t, g, bob, nil)
	g.Release(bob)
	g.Release(bob)
	g.Release(alice)
	if len(g.shares) != 0 {
		t.Fatalf("%d shares are left", len(g.shares))
	}
}

func TestIPv6CustomersAre64s(t *testing.T) {
	g := New(Limits{PerAddress: 1})
	expect(t, g, netip.MustParseAddr("2001:db8:0:1::1"), nil)
	expect(t, g, netip.MustParseAddr("2001:db8:0:1:ffff::2"), ErrAddress)
	expect(t, g, netip.MustParseAddr("2001:db8:0:2::1"), nil)
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Limits{Rate: 1, Burst: 2})
		for range 2 {
			expect(t, g, alice, nil)
			g.Release(alice)
		}
		expect(t, g, alice, ErrAddress)
		expect(t, g, bob, nil)
		time.Sleep(time.Second)
		expect(t, g, alice, nil)
		expect(t, g, alice, ErrAddress)
	})
}

func TestAddressesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Limits{Rate: 1, Burst: 2})
		addr := alice
		for range 20_000 {
			addr = addr.Next()
			expect(t, g, addr, nil)
			g.Release(addr)
			time.Sleep(time.Millisecond)
		}
		// Each is worth remembering for a second, in which a thousand others come.
		if n := len(g.shares); n > 4096 {
			t.Fatalf("%d addresses are remembered", n)
		}
	})
}
