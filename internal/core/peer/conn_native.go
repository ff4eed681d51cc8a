//go:build !js

package peer

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/webrtc/v4"

	"tallow/internal/core/wire"
)

var _ Conn = (*conn)(nil)

const (
	// checkEvery is how often pion checks each path that has not answered.
	checkEvery = 200 * time.Millisecond
	// disconnectedAfter and keepAliveEvery are pion's own.
	disconnectedAfter = 5 * time.Second
	keepAliveEvery    = 2 * time.Second
)

// platform is what a native connection has besides.
type platform struct {
	loops *loops

	noticeMu   sync.Mutex
	candidates []wire.Candidate // gathered and not told yet
	notice     chan struct{}    // one token: there is something to tell

	pair  string // the selected one, at the last look
	pairs uint64 // how often that was another

	servers *wire.ICEServers // for the next gathering; nil: those that pion has
	torn    bool             // a gathering was cut short
}

// maxRetransmission is how long SCTP may wait before it tries again what was lost. pion's minute is far too long for a path that
// has just come back; browsers have this value too.
const maxRetransmission = 3 * time.Second

// NewConn makes a connection. It gathers nothing before Offer or Answer.
func NewConn(cfg ConnConfig) (Conn, error) { return NewConnWith(cfg, webrtc.SettingEngine{}) }

// NewConnWith makes a connection over what the settings say, such as the virtual network of a test.
func NewConnWith(cfg ConnConfig, settings webrtc.SettingEngine) (Conn, error) {
	settings.DetachDataChannels()
	// Left to itself, pion gives a path up after eight checks in a second and a half without an answer, and for good. A path opens only
	// when the other side sends too, which a lost envelope or a slow network delays by more than that.
	settings.SetICEMaxBindingRequests(uint16(carriedTimeout / checkEvery))
	// A connection that has failed has dropped its candidates: no answer helps it any more. How long one may take, and how long it may be
	// without a path, is the negotiation's to say.
	settings.SetICETimeouts(disconnectedAfter, carriedTimeout, keepAliveEvery)
	// A flight of the DTLS handshake is sent again after this time, then twice that, and so on. From pion's second on, five lost in a row
	// outlast an attempt, which a few per cent of loss suffice for: a flight has several packets, and so has the answer.
	settings.SetDTLSRetransmissionInterval(200 * time.Millisecond)
	settings.SetSCTPRTOMax(maxRetransmission)
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings),
		webrtc.WithMediaEngine(&webrtc.MediaEngine{}), webrtc.WithInterceptorRegistry(&interceptor.Registry{}))
	pc, err := api.NewPeerConnection(configuration(cfg.ICE, cfg.RelayOnly))
	if err != nil {
		return nil, err
	}
	c := newConn(cfg, pc)
	c.platform = platform{loops: new(loops), notice: make(chan struct{}, 1)}
	for id := range c.channels {
		if c.channels[id], err = newChannel(pc, wire.Channel(id), cfg.Pool, c.loops); err != nil {
			_ = pc.GracefulClose()
			return nil, err
		}
	}
	pc.OnDataChannel(func(dc *webrtc.DataChannel) { _ = dc.Close() })
	pc.OnConnectionStateChange(func(webrtc.PeerConnectionState) { signal(c.notice) })
	pc.OnICEGatheringStateChange(func(state webrtc.ICEGatheringState) {
		if state == webrtc.ICEGatheringStateComplete {
			c.loops.run(func() { _ = c.exclusively(c.ctx, "set ICE servers", c.configureNext) })
		}
	})
	pc.OnICECandidate(func(candidate *webrtc.ICECandidate) {
		c.noticeMu.Lock()
		c.candidates = append(c.candidates, localCandidate(candidate))
		c.noticeMu.Unlock()
		signal(c.notice)
	})
	c.loops.run(c.tell)
	return c, nil
}

// tell calls the callbacks: pion calls its own from goroutines of their own, in no order.
func (c *conn) tell() {
	last := ConnNew
	for {
		select {
		case <-c.notice:
		case <-c.ctx.Done():
			return
		}
		c.noticeMu.Lock()
		candidates := c.candidates
		c.candidates = nil
		c.noticeMu.Unlock()
		for _, candidate := range candidates {
			c.tellCandidate(candidate)
		}
		if state := connState(c.pc.ConnectionState()); state != last {
			last = state
			if c.cfg.State != nil {
				c.cfg.State(state)
			}
		}
	}
}

func localCandidate(candidate *webrtc.ICECandidate) wire.Candidate {
	if candidate == nil {
		return wire.Candidate{}
	}
	init := candidate.ToJSON()
	out := wire.Candidate{Candidate: init.Candidate, SDPMid: *init.SDPMid, SDPMLineIndex: *init.SDPMLineIndex}
	// pion fills in no usernameFragment, but the candidate has it among its extensions: name, value, name, value.
	fields := strings.Fields(init.Candidate)
	for i, field := range fields[:max(len(fields)-1, 0)] {
		if field == "ufrag" {
			out.UsernameFragment = fields[i+1]
		}
	}
	return out
}

func connState(s webrtc.PeerConnectionState) ConnState {
	switch s {
	case webrtc.PeerConnectionStateConnecting:
		return ConnConnecting
	case webrtc.PeerConnectionStateConnected:
		return ConnConnected
	case webrtc.PeerConnectionStateDisconnected:
		return ConnDisconnected
	case webrtc.PeerConnectionStateFailed:
		return ConnFailed
	case webrtc.PeerConnectionStateClosed:
		return ConnClosed
	}
	return ConnNew
}

// setOffer sets the offer as the local description. pion takes none in place of one that has no answer, nor takes that one back; what
// counts of it is in the ICE agent already.
func (c *conn) setOffer(offer webrtc.SessionDescription) error {
	if c.pc.SignalingState() == webrtc.SignalingStateHaveLocalOffer {
		return nil
	}
	return c.setLocalDescription(offer)
}

func (c *conn) createOffer(restart bool) (webrtc.SessionDescription, error) {
	return c.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
}

func (c *conn) createAnswer() (webrtc.SessionDescription, error) { return c.pc.CreateAnswer(nil) }

func (c *conn) setLocalDescription(d webrtc.SessionDescription) error {
	return c.pc.SetLocalDescription(d)
}

func (c *conn) setRemoteDescription(d webrtc.SessionDescription) error {
	return c.pc.SetRemoteDescription(d)
}

func (c *conn) addCandidate(candidate wire.Candidate) error {
	return c.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: candidate.Candidate})
}

// restarts notes a gathering that is cut short: nothing says when its goroutines have ended.
func (c *conn) restarts() {
	if c.pc.ICEGatheringState() == webrtc.ICEGatheringStateGathering {
		c.torn = true
	}
}

// configure waits for the end of a gathering, whose goroutines read pion's list of servers without a lock. Where one was cut short, the servers
// stay what they are until there is another connection.
func (c *conn) configure(ice wire.ICEServers) error {
	c.servers = &ice
	return c.configureNext()
}

func (c *conn) configureNext() error {
	if c.servers == nil || c.torn || c.pc.ICEGatheringState() == webrtc.ICEGatheringStateGathering {
		return nil
	}
	next := configuration(*c.servers, c.cfg.RelayOnly)
	c.servers = nil
	return c.pc.SetConfiguration(next)
}

// Stats implements Conn.
func (c *conn) Stats(ctx context.Context) (stats ConnStats, err error) {
	result := make(chan ConnStats, 1)
	err = c.exclusively(ctx, "stats", func() error { // pion's statistics do not stand a Close beside them
		s, err := c.stats()
		result <- s
		return err
	})
	if err != nil {
		return ConnStats{}, err
	}
	return <-result, nil
}

func (c *conn) stats() (s ConnStats, err error) {
	transport := c.pc.SCTP().Transport().ICETransport()
	// Bytes are the transport's, over all pairs that there have been. pion counts packets per pair only, and some figures are in the whole report only.
	sums, report := transport.Stats(), c.pc.GetStats()
	s = ConnStats{Pair: c.pairs, BytesSent: sums.BytesSent, BytesReceived: sums.BytesReceived}
	for _, entry := range report {
		if entry, ok := entry.(webrtc.ICECandidatePairStats); ok {
			s.PacketsSent += uint64(entry.PacketsSent)
			s.PacketsReceived += uint64(entry.PacketsReceived)
		}
	}
	pair, found := transport.GetSelectedCandidatePairStats()
	if !found {
		return s, nil
	}
	selected, err := transport.GetSelectedCandidatePair()
	if err != nil || selected == nil {
		return s, err
	}
	if id := pair.LocalCandidateID + " " + pair.RemoteCandidateID; id != c.pair {
		c.pair = id
		c.pairs++
	}
	s.Pair = c.pairs
	s.LocalType, s.RemoteType, s.Protocol = selected.Local.Typ.String(), selected.Remote.Typ.String(), selected.Local.Protocol.String()
	for _, entry := range report {
		switch entry := entry.(type) {
		case webrtc.ICECandidatePairStats:
			if entry.LocalCandidateID == pair.LocalCandidateID && entry.RemoteCandidateID == pair.RemoteCandidateID {
				s.ChecksSent, s.ChecksAnswered = entry.RequestsSent, entry.ResponsesReceived
			}
		case webrtc.ICECandidateStats:
			if entry.ID == pair.LocalCandidateID && selected.Local.Typ == webrtc.ICECandidateTypeRelay {
				s.Protocol = entry.RelayProtocol
			}
		}
	}
	return s, nil
}

// shut ends everything, and waits for it.
func (c *conn) shut() {
	for _, ch := range c.channels {
		ch.end(ErrClosed)
		ch.discard()
	}
	_ = c.pc.GracefulClose() // what it reports is that the remote was faster
	c.loops.wait()
}

// loops counts goroutines, and starts none any more once they are waited for.
type loops struct {
	mu     sync.Mutex
	ended  bool
	active sync.WaitGroup
}

func (l *loops) run(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return false
	}
	l.active.Go(fn)
	return true
}

func (l *loops) wait() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.active.Wait()
}
