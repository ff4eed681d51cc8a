package peer

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"tallow/internal/core/wire"
)

// conn implements Conn over pion's PeerConnection, which natively is pion's own and in the browser wraps the browser's.
// What pion's browser build lacks or does lossily is in conn_js.go.
type conn struct {
	cfg      ConnConfig
	pc       *webrtc.PeerConnection
	channels [2]*dataChannel

	relayOnly atomic.Bool // relayonly.go

	turn   chan struct{} // whoever put the token in may negotiate; Close keeps it, unless somebody else does
	early  earlyCandidates
	ctx    context.Context // ends when Close begins
	cancel context.CancelFunc
	gone   chan struct{} // Close is done
	once   sync.Once

	platform
}

func newConn(cfg ConnConfig, pc *webrtc.PeerConnection) *conn {
	c := &conn{cfg: cfg, pc: pc, turn: make(chan struct{}, 1), gone: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.relayOnly.Store(cfg.RelayOnly || cfg.ICE.RelayOnly)
	return c
}

// tellCandidate passes a local candidate on, if it may be known. An empty one ends a gathering.
func (c *conn) tellCandidate(candidate wire.Candidate) {
	if candidate.Candidate != "" && c.relayOnly.Load() {
		relayed, ok := relayCandidate(candidate.Candidate)
		if !ok {
			c.stray(CandidateType(candidate.Candidate))
			return
		}
		candidate.Candidate = relayed
	}
	if c.cfg.Candidate != nil {
		c.cfg.Candidate(candidate)
	}
}

// told is a local description as it may be known.
func (c *conn) told(sdp string) string {
	if !c.relayOnly.Load() {
		return sdp
	}
	relayed, strays := relayDescription(sdp)
	for _, t := range strays {
		c.stray(t)
	}
	return relayed
}

func (c *conn) stray(candidateType string) {
	if c.cfg.Stray != nil {
		c.cfg.Stray(candidateType)
	}
}

// closeWithin is how long Close waits for an operation under way.
const closeWithin = 2 * time.Second

// exclusively runs fn when nothing else negotiates. fn runs to its end even if ctx ends before, and natively if the connection is closed; in the
// browser it ends then.
func (c *conn) exclusively(ctx context.Context, operation string, fn func() error) error {
	select {
	case <-c.ctx.Done():
		return ErrClosed
	default:
	}
	select {
	case c.turn <- struct{}{}:
	case <-c.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	result := make(chan error, 1)
	go func() {
		err := fn()
		<-c.turn
		result <- err
	}()
	select {
	case err := <-result:
		if err != nil {
			return fmt.Errorf("peer: %s: %w", operation, err)
		}
		return nil
	case <-c.gone:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Offer implements Conn.
func (c *conn) Offer(ctx context.Context, restart bool) (string, error) {
	var offer webrtc.SessionDescription
	err := c.exclusively(ctx, "offer", func() (err error) {
		if restart {
			c.restarts()
		}
		if offer, err = c.createOffer(restart); err != nil {
			return err
		}
		return c.setOffer(offer)
	})
	if err != nil {
		return "", err
	}
	return c.told(offer.SDP), nil
}

// Answer implements Conn.
func (c *conn) Answer(ctx context.Context, offer string) (string, error) {
	var answer webrtc.SessionDescription
	err := c.exclusively(ctx, "answer", func() (err error) {
		c.restarts()
		if err := c.setRemote(webrtc.SDPTypeOffer, offer); err != nil {
			return err
		}
		if answer, err = c.createAnswer(); err != nil {
			return err
		}
		return c.setLocalDescription(answer)
	})
	if err != nil {
		return "", err
	}
	return c.told(answer.SDP), nil
}

// SetAnswer implements Conn.
func (c *conn) SetAnswer(ctx context.Context, sdp string) error {
	return c.exclusively(ctx, "apply answer", func() error { return c.setRemote(webrtc.SDPTypeAnswer, sdp) })
}

// setRemote applies a description, and the candidates that waited for it: one that the platform refuses costs no other.
func (c *conn) setRemote(t webrtc.SDPType, sdp string) error {
	if c.relayOnly.Load() {
		sdp, _ = relayDescription(sdp)
	}
	if err := c.setRemoteDescription(webrtc.SessionDescription{Type: t, SDP: sdp}); err != nil {
		return err
	}
	for _, candidate := range c.early.describe(sdp) {
		_ = c.addCandidate(candidate)
	}
	return nil
}

// AddCandidate implements Conn.
func (c *conn) AddCandidate(ctx context.Context, candidate wire.Candidate) error {
	return c.exclusively(ctx, "add candidate", func() error {
		if candidate.Candidate != "" && c.relayOnly.Load() {
			relayed, ok := relayCandidate(candidate.Candidate)
			if !ok {
				return nil // others have their use for it
			}
			candidate.Candidate = relayed
		}
		if now, err := c.early.offer(candidate); !now || err != nil {
			return err
		}
		return c.addCandidate(candidate)
	})
}

// SetICEServers implements Conn.
func (c *conn) SetICEServers(ctx context.Context, ice wire.ICEServers) error {
	return c.exclusively(ctx, "set ICE servers", func() error {
		c.relayOnly.Store(c.cfg.RelayOnly || ice.RelayOnly)
		return c.configure(ice)
	})
}

// Channel implements Conn.
func (c *conn) Channel(ch wire.Channel) Channel { return c.channels[ch] }

// Close implements Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.cancel()
		late := time.NewTimer(closeWithin)
		defer late.Stop()
		select {
		case c.turn <- struct{}{}:
		case <-late.C:
		}
		c.shut()
		close(c.gone)
	})
	<-c.gone
	return nil
}

// configuration lets the operator's demand for relays count as much as the caller's.
func configuration(ice wire.ICEServers, relayOnly bool) webrtc.Configuration {
	var cfg webrtc.Configuration
	relayOnly = relayOnly || ice.RelayOnly
	for _, s := range usable(ice, relayOnly) {
		server := webrtc.ICEServer{URLs: s.URLs, Username: s.Username}
		if s.Credential != "" {
			server.Credential = s.Credential
		}
		cfg.ICEServers = append(cfg.ICEServers, server)
	}
	if relayOnly {
		cfg.ICETransportPolicy = webrtc.ICETransportPolicyRelay
	}
	return cfg
}

func label(id wire.Channel) string {
	if id == wire.Bulk {
		return "bulk"
	}
	return "control"
}

func channelInit(id wire.Channel) *webrtc.DataChannelInit {
	yes, n := true, uint16(id)
	return &webrtc.DataChannelInit{Ordered: &yes, Negotiated: &yes, ID: &n}
}

// earlyCandidates keeps the candidates of a remote description that has not come yet. A candidate of an older one is
// taken for such, as nothing tells them apart; the next description drops it.
type earlyCandidates struct {
	fragments []string // ICE user name fragments of the remote description
	waiting   []wire.Candidate
}

// offer reports whether the candidate can be added now; if not, it keeps it.
func (e *earlyCandidates) offer(c wire.Candidate) (now bool, err error) {
	if e.fits(c) {
		return true, nil
	}
	if len(e.waiting) == MaxEarlyCandidates {
		return false, ErrTooManyCandidates
	}
	e.waiting = append(e.waiting, c)
	return false, nil
}

// describe notes the remote description and returns the candidates that waited for it.
func (e *earlyCandidates) describe(sdp string) (ready []wire.Candidate) {
	e.fragments = nil
	for line := range strings.Lines(sdp) {
		if f, ok := strings.CutPrefix(strings.TrimSpace(line), "a=ice-ufrag:"); ok {
			e.fragments = append(e.fragments, f)
		}
	}
	for _, c := range e.waiting {
		if e.fits(c) {
			ready = append(ready, c)
		}
	}
	e.waiting = nil
	return ready
}

func (e *earlyCandidates) fits(c wire.Candidate) bool {
	if c.UsernameFragment == "" {
		return e.fragments != nil
	}
	for _, f := range e.fragments {
		if f == c.UsernameFragment {
			return true
		}
	}
	return false
}
