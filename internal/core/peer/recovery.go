package peer

import (
	"time"
	"unicode/utf8"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

const (
	// DefaultReconnectAttempts is how many attempts in a row a link gets unless told otherwise.
	DefaultReconnectAttempts = 4
	// restartTime is how long an ICE restart may take before the wait for the next one begins.
	restartTime = 3 * time.Second
	// restartGap is how far apart the restarts are that events or the peer ask for. While the link is not in doubt here, each
	// one that the peer brings about doubles it, up to maxLinkGap: a restart gathers candidates and asks relays for room.
	restartGap = time.Second
	// A member that is silent and speaks up by turns puts its link in doubt again and again. The first restarts of two doubts are restartGap
	// apart, and twice as long each time, up to maxDoubtGap; one of these doublings is forgotten after each forgetAfter.
	maxDoubtGap = 30 * time.Second
	forgetAfter = time.Minute
	// besideAfter is how long a link is in doubt before a fresh connection is tried beside it.
	besideAfter = 3 * time.Second
)

// recovery is what is being done about an open link whose path may be lost: PROTOCOL.md section 7, Restarts.
type recovery struct {
	doubted    bool
	tries      int       // restarts since, made, asked for, or left out because nothing could be sent
	nextAt     time.Time // of the next one or, after the last, the end of the link
	generation uint32    // the newest restart: made (initiator) or taken (responder)
	offered    uint32    // initiator: the newest whose offer is out; one that has come to none must not make a request seem to cross it
	unanswered bool      // initiator: the newest has no answer yet
	at         time.Time // when it was made or taken
	asked      time.Time // when this end last made one or asked for one
	begun      int       // first restarts of a doubt, as far as they are not forgotten
	forgotten  time.Time // when one of them last was
	urged      int       // restarts that the peer has brought about while the link was not in doubt here
	taken      int       // and while it was
}

// RestartConn restarts ICE on the connection of the open link: it makes an offer if Offer is empty, or an answer to it. The
// room reports RestartMade. Where it fails the link stays as it is.
type RestartConn struct {
	Attempt    uint32
	Generation uint32
	Offer      string
}

// ApplyRestart gives the connection the remote answer to a restart.
type ApplyRestart struct {
	Attempt uint32
	SDP     string
}

// Violated says that the peer has broken the protocol in an envelope that only it can have sealed. The room ends the link and
// reports Failed.
type Violated struct{ Attempt uint32 }

func (RestartConn) effect()  {}
func (ApplyRestart) effect() {}
func (Violated) effect()     {}

// Doubted reports whether the open link may have lost its path.
func (n *Negotiation) Doubted() bool { return n.open != nil && n.open.recovery.doubted }

// Doubt says that the attempt's link, if it is the open one, may have lost its path: it is silent, or its connection says so. ICE is
// restarted; later a fresh connection is tried beside it. renewed says that the network may have come back: what was tried
// before then counts no more.
func (n *Negotiation) Doubt(now time.Time, number uint32, renewed bool) []Effect {
	n.begin(now)
	if n.OpenAttempt() != number || number == 0 {
		return nil
	}
	r := &n.open.recovery
	soon := r.asked.Add(r.doubtGap(now)) // which mostly is past
	switch {
	case !r.doubted:
		r.doubted, r.tries, r.nextAt = true, 0, soon
		if !soon.After(now) { // else it is the peer that may have brought the doubt about
			r.urged, r.taken = 0, 0
		}
		n.retryIn(besideAfter)
	case renewed: // by the hub's word too, so that it puts nothing off
		r.tries = 0
		if soon.Before(r.nextAt) {
			r.nextAt = soon
		}
		if beside := now.Add(restartTime); n.retryAt.IsZero() || beside.Before(n.retryAt) {
			n.retryIn(restartTime)
		}
	}
	n.mend()
	return n.effects
}

// Patience is how long a link may be in doubt, whatever renews its restarts meanwhile.
func (n *Negotiation) Patience() time.Duration {
	d := maxDoubtGap
	for tries := range n.attempts() {
		d += backoff(tries) + restartTime
	}
	return d
}

// Alive says that something has come over the attempt's link. It ends the doubt, and what is under way beside: to take its place would throw
// away what is in its channels. Only an attempt in which the peer has proven itself goes on, since the peer may have seen it open.
func (n *Negotiation) Alive(now time.Time, number uint32) []Effect {
	n.begin(now)
	if n.OpenAttempt() == number && n.Doubted() {
		n.open.recovery.doubted = false
		n.retryAt, n.failures = time.Time{}, 0
		n.uninvite()
		if n.attempt != nil && !n.attempt.linked {
			n.drop(fault.Replaced)
		}
	}
	return n.effects
}

// RestartMade reports the offer or answer that RestartConn asked for.
func (n *Negotiation) RestartMade(now time.Time, number, generation uint32, sdp string) []Effect {
	n.begin(now)
	a := n.open
	if a == nil || a.number != number || a.recovery.generation != generation || len(sdp) > wire.MaxSDP || !utf8.ValidString(sdp) {
		return nil // superseded, or of no use
	}
	kind := wire.PayloadRestarted
	if n.initiator {
		kind, a.recovery.offered = wire.PayloadRestart, generation
	}
	n.do(SendPayload{Type: kind, Session: a.session(), Body: wire.Restart{Generation: generation, SDP: sdp}.Append(nil)})
	return n.effects
}

// mend takes the next step of a link in doubt, if it is time.
func (n *Negotiation) mend() {
	a := n.open
	if a == nil || !a.recovery.doubted || n.now.Before(a.recovery.nextAt) {
		return
	}
	r := &a.recovery
	if r.tries >= n.attempts() {
		n.lost(fault.ConnectionFailed)
		return
	}
	if !n.away { // else it would cost the path that may come back: pion drops the pair that it has selected with the offer
		if r.tries == 0 {
			if r.begun == 0 {
				r.forgotten = n.now
			}
			r.begun++
		}
		n.restart()
	}
	r.tries++ // which is void once the network is back; where it does not come, the link ends as soon as any
	r.nextAt = n.now.Add(restartTime)
	if r.tries < n.attempts() {
		r.nextAt = r.nextAt.Add(backoff(r.tries))
	}
}

// restart restarts ICE on the open link's connection, or asks the initiator to: only one of the two makes restarts, so that two of them
// never meet.
func (n *Negotiation) restart() {
	r := &n.open.recovery
	r.asked = n.now
	if n.initiator {
		r.at = n.now
		r.generation++
		r.unanswered = true
		n.do(RestartConn{Attempt: n.open.number, Generation: r.generation})
	} else {
		n.do(SendPayload{Type: wire.PayloadRestartRequest, Session: n.open.session(), Body: wire.AppendRestartRequest(nil, r.generation+1)})
	}
}

// doubtGap is how long after the last restart the first one of a doubt, or of its renewal, comes. There is one that costs nothing.
func (r *recovery) doubtGap(now time.Time) time.Duration {
	for r.begun > 0 && now.Sub(r.forgotten) >= forgetAfter {
		r.begun--
		r.forgotten = r.forgotten.Add(forgetAfter)
	}
	return doubled(restartGap, r.begun-1, maxDoubtGap)
}

// early reports whether a restart that the peer wants has to wait. In doubt it may want as many as this end, and those that cross, before
// they count.
func (n *Negotiation) early() bool {
	r := &n.open.recovery
	times := r.urged
	if r.doubted {
		times = r.taken - 2*n.attempts()
	}
	return n.now.Sub(r.at) < doubled(restartGap, times, maxLinkGap)
}

func (r *recovery) urge() {
	if r.doubted {
		r.taken++
	} else {
		r.urged++
	}
}

// restartReceived takes a Restart, Restarted or RestartRequest from a pair envelope.
func (n *Negotiation) restartReceived(t wire.PayloadType, body []byte) (acknowledge bool) {
	if n.open == nil {
		return true
	}
	r := &n.open.recovery
	if t == wire.PayloadRestartRequest {
		generation, err := wire.ParseRestartRequest(body)
		switch {
		case err != nil || !n.initiator || generation != r.offered+1: // else it has crossed ours
		case n.early():
			return false
		default:
			r.urge()
			n.restart()
		}
		return true
	}
	m, err := wire.ParseRestart(body)
	offer := t == wire.PayloadRestart
	switch {
	case err != nil || offer == n.initiator:
	case offer && m.Generation <= r.generation, !offer && (m.Generation != r.generation || !r.unanswered): // repeated, or superseded
	case offer && n.early():
		return false
	case !n.samePeer(m.SDP):
		n.do(Violated{n.open.number})
	case offer:
		r.urge()
		r.generation, r.at, n.open.remote = m.Generation, n.now, 0
		n.do(RestartConn{Attempt: n.open.number, Generation: m.Generation, Offer: m.SDP})
	default:
		r.unanswered, n.open.remote = false, 0
		n.do(ApplyRestart{n.open.number, m.SDP})
	}
	return true
}

// restarting reports whether a restart may still mend the open link: a fresh connection would throw away what is in its channels.
func (n *Negotiation) restarting() bool {
	return n.Doubted() && n.open.recovery.generation > 0 && n.now.Sub(n.open.recovery.at) < restartTime
}

// samePeer reports whether a restart's description names the DTLS certificate that the open link was made with.
func (n *Negotiation) samePeer(sdp string) bool {
	f, err := seal.Fingerprint(sdp)
	return err == nil && f == n.open.session().PeerFingerprint()
}

// attempts is how many attempts in a row may come to nothing.
func (n *Negotiation) attempts() int {
	if n.cfg.ReconnectAttempts > 0 {
		return n.cfg.ReconnectAttempts
	}
	return DefaultReconnectAttempts
}
