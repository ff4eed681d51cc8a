//go:build !js

package room_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"
	"github.com/pion/turn/v5"
	"github.com/pion/webrtc/v4"

	"tallow/internal/core/room"
	"tallow/internal/core/wire"
	"tallow/server/relay"
)

// nat is what stands between somebody's network and the world.
type nat string

// The kinds of NAT, in the words of RFC 3489. A symmetric one gives each destination a port of its own, and lets in what comes from
// there. Behind a firewall nothing but the relay is in reach.
const (
	public            nat = "public"
	fullCone          nat = "full cone"
	addressRestricted nat = "address-restricted"
	portRestricted    nat = "port-restricted"
	symmetric         nat = "symmetric"
	firewall          nat = "firewall"
)

var nats = []nat{public, fullCone, addressRestricted, portRestricted, symmetric, firewall}

// place is how somebody is connected.
type place struct {
	nat       nat
	loss      int           // percent of what arrives
	delay     time.Duration // of each packet, in and out alike
	relayOnly bool          // by its own choice
}

func (p place) String() string {
	s := string(p.nat)
	if p.loss > 0 {
		s += fmt.Sprintf(", %d %% loss", p.loss)
	}
	if p.delay > 0 {
		s += fmt.Sprintf(", %v", p.delay)
	}
	if p.relayOnly {
		s += ", relay only"
	}
	return s
}

// route is the way that two places have to each other. A hole opens where one side's address is the same for everybody and the
// other side's filter lets that through: a symmetric NAT's packets come from a port that nobody has told the other.
func route(a, b place) string {
	if b.nat == symmetric {
		a, b = b, a
	}
	switch {
	case a.relayOnly, b.relayOnly, a.nat == firewall, b.nat == firewall,
		a.nat == symmetric && (b.nat == symmetric || b.nat == portRestricted):
		return "relay"
	}
	return "direct"
}

const relaySecret = "north star"

// startRelay puts STUN and TURN at a public address, and has the hub tell of it. Of server/relay, whose sockets are the system's, it has
// the credentials, and that it relays to no private address.
func (w *world) startRelay() {
	w.t.Helper()
	address, lans := "10.1.255.1", net.IPNet{IP: net.IPv4(192, 168, 0, 0), Mask: net.CIDRMask(16, 32)}
	vnetMaking.Lock()
	network, err := vnet.NewNet(&vnet.NetConfig{StaticIPs: []string{address}})
	vnetMaking.Unlock()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.router.AddNet(network); err != nil {
		w.t.Fatal(err)
	}
	socket, err := network.ListenPacket("udp4", address+":3478")
	if err != nil {
		w.t.Fatal(err)
	}
	server, err := turn.NewServer(turn.ServerConfig{
		Realm:         "tallow",
		LoggerFactory: logging.NewDefaultLoggerFactory(),
		AuthHandler:   turn.LongTermTURNRESTAuthHandler(relaySecret, nil),
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            socket,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: net.ParseIP(address), Address: address, Net: network},
			PermissionHandler:     func(_ net.Addr, ip net.IP) bool { return !lans.Contains(ip) },
		}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { server.Close() })
	username, credential := relay.Credentials([]byte(relaySecret), "members", time.Now().Add(time.Hour))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.relay = address
	w.ice = wire.ICEServers{Servers: []wire.ICEServer{{URLs: []string{"stun:" + address + ":3478"}},
		{URLs: []string{"turn:" + address + ":3478?transport=udp"}, Username: username, Credential: credential}}}
}

// settle gives the persons of these names, who come later, a network of that kind to share.
func (w *world) settle(at place, change func(*webrtc.SettingEngine), names ...string) {
	w.t.Helper()
	s := site{router: w.router, loss: at.loss, seed: int64(len(w.sites)), change: change}
	if at.nat != public || at.delay > 0 {
		s.router = w.lan(at)
	}
	for _, name := range names {
		w.sites[name] = s
	}
}

// lan is a network behind a NAT.
func (w *world) lan(at place) *vnet.Router {
	w.t.Helper()
	behaviour := map[nat]vnet.NATType{
		public:            {}, // a delay needs a router of its own; an address and port that are open to everybody are as good as public
		fullCone:          {},
		addressRestricted: {FilteringBehavior: vnet.EndpointAddrDependent},
		portRestricted:    {FilteringBehavior: vnet.EndpointAddrPortDependent},
		symmetric:         {MappingBehavior: vnet.EndpointAddrPortDependent, FilteringBehavior: vnet.EndpointAddrPortDependent},
		firewall:          {FilteringBehavior: vnet.EndpointAddrPortDependent},
	}[at.nat]
	w.lans++
	vnetMaking.Lock()
	router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: fmt.Sprintf("192.168.%d.0/24", w.lans), MinDelay: at.delay, NATType: &behaviour,
		LoggerFactory: logging.NewDefaultLoggerFactory()})
	vnetMaking.Unlock()
	if err != nil {
		w.t.Fatal(err)
	}
	if at.nat == firewall {
		router.AddChunkFilter(func(c vnet.Chunk) bool {
			return host(c.SourceAddr()) == w.relay || host(c.DestinationAddr()) == w.relay
		})
	}
	if err := w.router.AddRouter(router); err != nil {
		w.t.Fatal(err)
	}
	if err := router.Start(); err != nil { // its parent ends it
		w.t.Fatal(err)
	}
	return router
}

// enter creates a room in the world, or enters the one of that owner.
func (w *world) enter(name string, at place, owner *person) *person {
	w.t.Helper()
	change := func(c *room.Config) { c.RelayOnly, c.MaxRecipients = at.relayOnly, w.limit-1 }
	if owner == nil {
		return w.create(name, change)
	}
	p := w.joinWith(name, owner.room.Link(), change)
	return p
}

// routeTo waits until p knows which way its link to another member goes.
func (p *person) routeTo(o *person) string {
	p.t.Helper()
	id := o.room.Self().ID
	return wait(p, "the route to "+o.name, func(e room.PeerChanged) bool { return e.Peer.ID == id && e.Peer.Route != "" }).Peer.Route
}

// attempts is how many connections p has made.
func (p *person) attempts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// patient has a direct path preferred to a relay for as long as a busy machine may need to find it.
func patient(s *webrtc.SettingEngine) { s.SetRelayAcceptanceMinWait(16 * time.Second) }

// TestNATs: members behind every kind of NAT, and two behind the same, on paths that lose and delay, in one room: each finds the way to each
// other one that there is, and gets its file. The long form has a room for each impairment, where it meets itself and none behind every pair
// of NATs.
func TestNATs(t *testing.T) {
	t.Parallel()
	mixed := []place{{nat: public, loss: 5}, {nat: fullCone}, {nat: fullCone, relayOnly: true}, {nat: addressRestricted, delay: 200 * time.Millisecond},
		{nat: portRestricted, loss: 1}, {nat: symmetric}, {nat: symmetric, loss: 1}, {nat: firewall}}
	t.Run("mixed", func(t *testing.T) { connectAll(t, mixed) })
	if os.Getenv("TALLOW_SOAK") != "1" {
		return
	}
	for _, impairment := range []place{{loss: 1}, {loss: 5}, {delay: 200 * time.Millisecond}, {loss: 5, delay: 200 * time.Millisecond}, {relayOnly: true}} {
		t.Run(strings.TrimPrefix(impairment.String(), ", "), func(t *testing.T) {
			var list []place
			for _, n := range nats {
				impairment.nat = n
				list = append(list, place{nat: n}, impairment)
			}
			connectAll(t, list)
		})
	}
}

// connectAll has somebody at each of the places, and somebody behind the symmetric NAT of another, meet and send a file to everyone.
func connectAll(t *testing.T, list []place) {
	t.Helper()
	places := map[string]place{}
	for _, p := range list {
		places[p.String()] = p
	}
	w := newWorld(t, len(places)+2, 0)
	w.startRelay()
	names := slices.Sorted(maps.Keys(places))
	for _, name := range names {
		w.settle(places[name], patient, name)
	}
	const neighbour = "neighbour"
	places[neighbour] = places[string(symmetric)]
	w.sites[neighbour] = w.sites[string(symmetric)]
	var all []*person
	for _, name := range append(names, neighbour) {
		all = append(all, w.enter(name, places[name], first(all)))
	}
	routes := map[string]int{}
	for i, a := range all {
		for _, b := range all[:i] {
			a.meet(b)
			b.meet(a)
			want := route(places[a.name], places[b.name])
			if w.sites[a.name].router == w.sites[b.name].router && w.sites[a.name].router != w.router {
				want = "direct" // without a NAT between them
			}
			for _, got := range []string{a.routeTo(b), b.routeTo(a)} {
				if got != want {
					t.Errorf("%s and %s: %s, want %s", a.name, b.name, got, want)
				}
			}
			routes[want]++
		}
	}
	t.Log(routes)
	ids, files := map[*person]room.TransferID{}, map[*person]source{}
	for i, p := range all {
		files[p] = content(32<<10, byte(i))
		ids[p] = p.send(outFile("a.bin", files[p]))
	}
	for _, p := range all {
		for _, o := range all {
			if o != p {
				o.accept(p)
			}
		}
	}
	for _, p := range all {
		for _, o := range all {
			if o != p {
				o.check(o.finished(ids[p]), files[p])
			}
		}
		for _, e := range p.finished(ids[p]).Ledger {
			if e.State != room.DeliveryDone {
				t.Errorf("%s to %s: %+v", p.name, e.Name, e)
			}
		}
	}
}

func first(list []*person) *person {
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// TestAttempts: pairs at random places of all kinds connect. At first go, says the figure; in the end, every one.
func TestAttempts(t *testing.T) {
	t.Parallel()
	rounds, pairs := 1, 20
	if os.Getenv("TALLOW_SOAK") == "1" {
		rounds = 25
	}
	var of, connected int
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(round), 0))
			somewhere := func() place {
				return place{nat: nats[random.IntN(len(nats))], loss: []int{0, 1, 5}[random.IntN(3)],
					delay: []time.Duration{0, 0, 200 * time.Millisecond}[random.IntN(3)], relayOnly: random.IntN(6) == 0}
			}
			w := newWorld(t, 2, 0)
			w.startRelay()
			type pair struct {
				places  [2]place
				members [2]*person
			}
			var all []pair
			for i := range pairs {
				var p pair
				for j := range p.members {
					name := fmt.Sprintf("%d of pair %d", j, i)
					p.places[j] = somewhere()
					w.settle(p.places[j], nil, name)
					p.members[j] = w.enter(name, p.places[j], p.members[0])
				}
				all = append(all, p)
			}
			for _, p := range all {
				a, b := p.members[0], p.members[1]
				a.meet(b)
				b.meet(a)
				of++
				if a.attempts() == 1 && b.attempts() == 1 {
					connected++
				} else {
					t.Logf("%v and %v: %d and %d attempts", p.places[0], p.places[1], a.attempts(), b.attempts())
				}
			}
			for _, p := range all {
				for _, m := range p.members {
					m.room.Leave(context.Background())
				}
			}
		})
	}
	t.Logf("connected=%d of %d", connected, of)
	if os.Getenv("TALLOW_SOAK") == "1" && connected*100 < of*99 {
		t.Errorf("%d of %d connected at first go", connected, of)
	}
}
