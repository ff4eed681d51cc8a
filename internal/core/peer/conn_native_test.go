//go:build !js

package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/transport/v5/vnet"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"tallow/internal/core/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slowsRemote says whether a reader that does not read makes the remote's writes block.
const slowsRemote = true

// lab is a virtual network with a loss rate in percent.
type lab struct {
	name   string
	loss   int
	rate   float64 // of each end's own way in, in bytes per second; 0: no bound
	t      *testing.T
	router *vnet.Router
}

func labs(t *testing.T) []*lab {
	var all []*lab
	for _, loss := range []int{0, 1} {
		router, err := vnet.NewRouter(&vnet.RouterConfig{CIDR: "10.1.0.0/16", LoggerFactory: logging.NewDefaultLoggerFactory()})
		if err != nil {
			t.Fatal(err)
		}
		if err := router.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = router.Stop() })
		all = append(all, &lab{name: fmt.Sprintf("loss=%d", loss), loss: loss, t: t, router: router})
	}
	return all
}

func (l *lab) conn(cfg ConnConfig) (Conn, error) {
	network, err := vnet.NewNet(&vnet.NetConfig{})
	if err != nil {
		return nil, err
	}
	var nic vnet.NIC = network
	if l.loss > 0 {
		if nic, err = vnet.NewLossFilter(network, l.loss, vnet.WithLossSeed(1)); err != nil {
			return nil, err
		}
	}
	if l.rate > 0 {
		nic = slow(l.t, nic, l.rate)
	}
	if err := l.router.AddNet(nic); err != nil {
		return nil, err
	}
	var settings webrtc.SettingEngine
	settings.SetNet(network)
	settings.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	return NewConnWith(cfg, settings)
}

func sendRaw(t *testing.T, c *dataChannel, message []byte) {
	t.Helper()
	if err := c.dc.Send(message); err != nil {
		t.Fatal(err)
	}
}

func sendText(t *testing.T, c *dataChannel, text string) {
	t.Helper()
	if err := c.dc.SendText(text); err != nil {
		t.Fatal(err)
	}
}

func expectRefused(t *testing.T, c *conn) {
	t.Helper()
	extra, err := c.pc.CreateDataChannel("extra", nil)
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	extra.OnOpen(func() {
		raw, err := extra.Detach()
		if err != nil {
			refused <- err
			return
		}
		_, err = raw.Read(make([]byte, 100))
		refused <- err
	})
	select {
	case err := <-refused:
		if !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("not closed")
	}
}

// TestLatePath: a path that opens long after the first checks is found all the same.
func TestLatePath(t *testing.T) {
	l := labs(t)[0]
	const enough = 48 // three times what pion sends by itself, from both ends
	var dropped atomic.Int32
	l.router.AddChunkFilter(func(vnet.Chunk) bool { return dropped.Add(1) > enough })
	connect(t, l)
	if n := dropped.Load(); n <= enough {
		t.Errorf("connected after %d packets", n)
	}
}

// TestLostFlights: five flights of the DTLS handshake that are lost in a row do not cost the attempt.
func TestLostFlights(t *testing.T) {
	l := labs(t)[0]
	var lost atomic.Int32
	l.router.AddChunkFilter(func(c vnet.Chunk) bool {
		isDTLS := len(c.UserData()) > 0 && c.UserData()[0] >= 20 && c.UserData()[0] <= 63 // RFC 7983
		return !isDTLS || lost.Add(1) > 5
	})
	a, b := newEnd(t, l), newEnd(t, l)
	carry(t, a, b)
	carry(t, b, a)
	negotiate(t, a, b, false)
	attempt := time.After(attemptTimeout)
	for _, e := range []*end{a, b} {
		select {
		case <-e.Channel(wire.Control).Opened():
		case <-attempt:
			t.Fatalf("not open after %d lost", lost.Load())
		}
	}
	if n := lost.Load(); n <= 5 {
		t.Errorf("%d packets of DTLS", n)
	}
}

func leakCheck(t *testing.T) func() {
	before := goleak.IgnoreCurrent()
	return func() { goleak.VerifyNone(t, before) }
}

// TestServersWhileGathering: new servers that come while candidates are gathered count afterwards. The race detector sees it if not.
func TestServersWhileGathering(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, port, _ := net.SplitHostPort(silent.LocalAddr().String())
	servers := func(host string) wire.ICEServers {
		return wire.ICEServers{Servers: []wire.ICEServer{{URLs: []string{"stun:" + host + ":" + port}}}}
	}
	const first, second, third = "127.0.0.1", "127.0.0.2", "127.0.0.3"
	var settings webrtc.SettingEngine
	settings.SetSTUNGatherTimeout(time.Second)
	made, err := NewConnWith(ConnConfig{ICE: servers(first)}, settings)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	c := made.(*conn)
	if _, err := c.Offer(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{second, third} {
		if err := c.SetICEServers(testContext(t), servers(host)); err != nil {
			t.Fatal(err)
		}
	}
	configured := func() (url string, gathering bool) {
		_ = c.exclusively(t.Context(), "look", func() error {
			url = c.pc.GetConfiguration().ICEServers[0].URLs[0]
			gathering = c.pc.ICEGatheringState() == webrtc.ICEGatheringStateGathering
			return nil
		})
		return url, gathering
	}
	for end := time.Now().Add(testPatience); ; <-time.After(10 * time.Millisecond) {
		url, gathering := configured()
		if gathering && !strings.Contains(url, first) {
			t.Fatalf("%s, while candidates are gathered", url)
		}
		if strings.Contains(url, third) {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the new servers never count")
		}
	}
}
