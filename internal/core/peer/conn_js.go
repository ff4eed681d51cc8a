package peer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"syscall/js"
	"unsafe"

	"github.com/pion/webrtc/v4"

	"tallow/internal/core/host"
	"tallow/internal/core/wire"
)

var _ Conn = (*conn)(nil)

//go:wasmimport tallow peer_add_candidate
func peerAddCandidate(handle host.Handle, candidate unsafe.Pointer, n uint32, mid unsafe.Pointer, midLength uint32, index int32, fragment unsafe.Pointer, fragmentLength uint32, op uint32)

//go:wasmimport tallow peer_settle
func peerSettle(handle host.Handle, op uint32)

//go:wasmimport tallow peer_stats
func peerStats(handle host.Handle, op uint32)

//go:wasmimport tallow peer_read_stats
func peerReadStats(handle host.Handle, p unsafe.Pointer) int32

var (
	errCandidate = errors.New("the browser refused it")
	errStats     = errors.New("peer: the browser gave no statistics")
)

// platform is what a connection in the browser has besides. pion's own handlers for these events lose fields of candidates
// and report states out of order.
type platform struct {
	handle      host.Handle
	onCandidate js.Func
	onState     js.Func
	onChannel   js.Func
}

// NewConn makes a connection. It gathers nothing before Offer or Answer. host.Boot must have been called.
func NewConn(cfg ConnConfig) (Conn, error) {
	pc, refused := webrtc.NewPeerConnection(configuration(cfg.ICE, cfg.RelayOnly))
	if refused != nil {
		var err error
		if pc, err = webrtc.NewPeerConnection(configuration(wire.ICEServers{RelayOnly: cfg.ICE.RelayOnly}, cfg.RelayOnly)); err != nil {
			return nil, refused
		}
	}
	c := newConn(cfg, pc)
	if refused != nil {
		if err := c.configure(cfg.ICE); err != nil {
			return nil, errors.Join(err, pc.Close())
		}
	}
	for id := range c.channels {
		dc, err := pc.CreateDataChannel(label(wire.Channel(id)), channelInit(wire.Channel(id)))
		if err != nil {
			c.shutChannels()
			return nil, errors.Join(err, pc.Close())
		}
		c.channels[id] = newChannel(dc.JSValue(), wire.Channel(id), cfg.Pool)
	}
	raw := pc.JSValue()
	c.platform = platform{
		handle:      host.Attach(raw),
		onCandidate: js.FuncOf(c.candidateEvent),
		onState:     js.FuncOf(c.stateEvent),
		onChannel: js.FuncOf(func(_ js.Value, args []js.Value) any {
			args[0].Get("channel").Call("close")
			return nil
		}),
	}
	raw.Set("onicecandidate", c.onCandidate)
	raw.Set(c.stateHandler(), c.onState)
	raw.Set("ondatachannel", c.onChannel)
	return c, nil
}

func (c *conn) candidateEvent(_ js.Value, args []js.Value) any {
	event := args[0].Get("candidate")
	if event.IsNull() { // the end of all gathering; an empty candidate ends that of one description and says no more
		c.tellCandidate(wire.Candidate{})
		return nil
	}
	raw := event.Call("toJSON")
	text := func(field string) string {
		if v := raw.Get(field); v.Type() == js.TypeString {
			return v.String()
		}
		return ""
	}
	candidate := wire.Candidate{Candidate: text("candidate"), SDPMid: text("sdpMid"), UsernameFragment: text("usernameFragment")}
	if v := raw.Get("sdpMLineIndex"); v.Type() == js.TypeNumber {
		candidate.SDPMLineIndex = uint16(v.Int())
	}
	if candidate.Candidate != "" {
		c.tellCandidate(candidate)
	}
	return nil
}

// stateHandler is where the browser looks for onState. Firefox before 113 has no state but ICE's.
func (c *conn) stateHandler() string {
	if c.pc.JSValue().Get("connectionState").IsUndefined() {
		return "oniceconnectionstatechange"
	}
	return "onconnectionstatechange"
}

func (c *conn) stateEvent(js.Value, []js.Value) any {
	if c.cfg.State == nil {
		return nil
	}
	state := c.pc.JSValue().Get("connectionState")
	if state.IsUndefined() {
		state = c.pc.JSValue().Get("iceConnectionState")
	}
	switch state.String() {
	case "new":
		c.cfg.State(ConnNew)
	case "connecting", "checking":
		c.cfg.State(ConnConnecting)
	case "connected", "completed":
		c.cfg.State(ConnConnected)
	case "disconnected":
		c.cfg.State(ConnDisconnected)
	case "failed":
		c.cfg.State(ConnFailed)
	case "closed":
		c.cfg.State(ConnClosed)
	}
	return nil
}

// restarts is for pion's sake alone.
func (c *conn) restarts() {}

// setOffer sets the offer as the local description, in place of one that has no answer too.
func (c *conn) setOffer(offer webrtc.SessionDescription) error {
	return c.setLocalDescription(offer)
}

func (c *conn) createOffer(restart bool) (webrtc.SessionDescription, error) {
	return c.description("createOffer", map[string]any{"iceRestart": restart})
}

func (c *conn) createAnswer() (webrtc.SessionDescription, error) {
	return c.description("createAnswer")
}

func (c *conn) setLocalDescription(d webrtc.SessionDescription) error {
	_, err := c.call("setLocalDescription", map[string]any{"type": d.Type.String(), "sdp": d.SDP})
	return err
}

func (c *conn) setRemoteDescription(d webrtc.SessionDescription) error {
	_, err := c.call("setRemoteDescription", map[string]any{"type": d.Type.String(), "sdp": d.SDP})
	return err
}

func (c *conn) description(method string, args ...any) (d webrtc.SessionDescription, err error) {
	v, err := c.call(method, args...)
	if err != nil {
		return d, err
	}
	return webrtc.SessionDescription{Type: webrtc.NewSDPType(v.Get("type").String()), SDP: v.Get("sdp").String()}, nil
}

// call calls a method of the browser's that returns a promise, and awaits what that brings: pion would wait for one that is never settled for ever.
func (c *conn) call(method string, args ...any) (value js.Value, err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = fmt.Errorf("browser: %v", thrown)
		}
	}()
	box := js.Global().Get("Object").New()
	handle := host.Attach(box)
	defer handle.Release()
	status, err := c.await(c.ctx, func(op uint32) {
		box.Set("promise", c.pc.JSValue().Call(method, args...))
		peerSettle(handle, op)
	})
	if err == nil && status != 0 {
		err = js.Error{Value: box.Get("error")}
	}
	return box.Get("value"), err
}

// addCandidate calls the browser: pion has no room for an absent sdpMLineIndex, which an end of candidates needs.
func (c *conn) addCandidate(candidate wire.Candidate) error {
	index := int32(candidate.SDPMLineIndex)
	if candidate.Candidate == "" {
		index = -1
	}
	text := func(s string) (unsafe.Pointer, uint32) { return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s)) }
	init, n := text(candidate.Candidate)
	mid, midLength := text(candidate.SDPMid)
	fragment, fragmentLength := text(candidate.UsernameFragment)
	status, err := c.await(c.ctx, func(op uint32) { // which copies the texts
		peerAddCandidate(c.handle, init, n, mid, midLength, index, fragment, fragmentLength, op)
	})
	if err == nil && status != 0 {
		err = errCandidate
	}
	return err
}

// await starts an operation of the host, and waits for its end or that of the connection: a browser never settles some promises.
func (c *conn) await(ctx context.Context, start func(op uint32)) (status int32, err error) {
	ready := make(chan int32, 1)
	op, stop := host.Listen(func(status int32, _ float64) {
		select {
		case ready <- status:
		default:
		}
	})
	defer stop()
	select {
	case <-c.ctx.Done(): // shut may have released the handle: it does not wait for ever
		return 0, ErrClosed
	default:
	}
	start(op)
	select {
	case status := <-ready:
		return status, nil
	case <-c.ctx.Done():
	case <-ctx.Done(): // perhaps the same
	}
	if c.ctx.Err() != nil {
		return 0, ErrClosed
	}
	return 0, ctx.Err()
}

// configure gives the browser the servers that it takes, if any: it refuses all for the sake of one, as Firefox does for that of a stuns: URL.
func (c *conn) configure(ice wire.ICEServers) error {
	all := usable(ice, c.relayOnly.Load())
	if c.setConfiguration(all) == nil {
		return nil
	}
	var taken []wire.ICEServer
	for _, s := range all {
		for _, u := range s.URLs {
			one := wire.ICEServer{URLs: []string{u}, Username: s.Username, Credential: s.Credential}
			if c.setConfiguration([]wire.ICEServer{one}) == nil {
				taken = append(taken, one)
			}
		}
	}
	return c.setConfiguration(taken)
}

// setConfiguration calls the browser: pion's SetConfiguration refuses turn: addresses that it has validated wrongly.
func (c *conn) setConfiguration(list []wire.ICEServer) (err error) {
	servers := make([]any, 0, len(list))
	for _, s := range list {
		urls := make([]any, 0, len(s.URLs))
		for _, u := range s.URLs {
			urls = append(urls, u)
		}
		server := map[string]any{"urls": urls}
		if s.Credential != "" {
			server["username"], server["credential"] = s.Username, s.Credential
		}
		servers = append(servers, server)
	}
	policy := "all"
	if c.relayOnly.Load() {
		policy = "relay"
	}
	defer func() {
		if thrown := recover(); thrown != nil {
			err = fmt.Errorf("browser: %v", thrown)
		}
	}()
	c.pc.JSValue().Call("setConfiguration", map[string]any{"iceServers": servers, "iceTransportPolicy": policy})
	return nil
}

// rawStats is how web/host-channels.js writes them.
type rawStats struct {
	bytesSent, bytesReceived, packetsSent, packetsReceived, checksSent, checksAnswered, localType, remoteType, protocol, pair uint64 // bits of float64
}

var (
	candidateTypes = []string{"", "host", "srflx", "prflx", "relay"}
	protocols      = []string{"", "udp", "tcp", "tls"}
)

// Stats implements Conn.
func (c *conn) Stats(ctx context.Context) (ConnStats, error) {
	status, err := c.await(ctx, func(op uint32) { peerStats(c.handle, op) })
	if err != nil {
		return ConnStats{}, err
	}
	if status != 0 {
		return ConnStats{}, errStats
	}
	raw := new(rawStats)
	if peerReadStats(c.handle, unsafe.Pointer(raw)) < 0 {
		return ConnStats{}, ErrClosed
	}
	number := math.Float64frombits
	return ConnStats{
		BytesSent: uint64(number(raw.bytesSent)), BytesReceived: uint64(number(raw.bytesReceived)),
		PacketsSent: uint64(number(raw.packetsSent)), PacketsReceived: uint64(number(raw.packetsReceived)),
		ChecksSent: uint64(number(raw.checksSent)), ChecksAnswered: uint64(number(raw.checksAnswered)),
		LocalType: candidateTypes[int(number(raw.localType))], RemoteType: candidateTypes[int(number(raw.remoteType))],
		Protocol: protocols[int(number(raw.protocol))], Pair: uint64(number(raw.pair)),
	}, nil
}

func (c *conn) shutChannels() {
	for _, ch := range c.channels {
		if ch != nil {
			_ = ch.Close()
		}
	}
}

// shut ends everything. Nothing of the connection runs afterwards: the browser calls no handler that has been taken away.
func (c *conn) shut() {
	c.shutChannels()
	raw := c.pc.JSValue()
	for _, handler := range []string{"onicecandidate", c.stateHandler(), "ondatachannel"} {
		raw.Set(handler, js.Null())
	}
	_ = c.pc.Close()
	c.onCandidate.Release()
	c.onState.Release()
	c.onChannel.Release()
	c.handle.Release()
}
