package room

import (
	"context"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/wire"
)

const (
	// A link over which files go is asked for a sign of life when nothing has come for livelyPing, for lively after the last
	// message about a transfer: there a lost path hurts most.
	livelyPing = time.Second
	lively     = 10 * time.Second
	// A link is in doubt when nothing at all has come for doubtAfter since a Ping, or for probeAfter since one for which there was a
	// reason. To doubt a link that works costs little.
	doubtAfter = 2 * time.Second
	probeAfter = time.Second
	// nudgeEvery is how often the connection to the server is tried while a link is in doubt that only the server can help to mend.
	nudgeEvery = 1500 * time.Millisecond
	// lookEvery is how often the transport's counters are looked at while a Ping is out.
	lookEvery = time.Second
)

// path is what is known of whether a link's path works. The link itself is lost only by silence; what is here decides how
// soon something is done to keep it. Bytes that only the transport has seen count here: on a slow path they come long before an answer.
type path struct {
	used   time.Time     // when the last message about a transfer came
	still  time.Duration // for which nothing has come since the Ping that is out
	probed bool          // something suggests that the network has changed since
	lookAt time.Time     // when arrived was noted
	seen   uint64        // bytes that the transport had received at the last look
	pair   uint64        // that was selected then
	moving bool          // a restart has been agreed upon, and the pair is still the same
}

// maxPings is how many Pings may wait for their answers: on a slow path one takes longer than the next one waits.
const maxPings = 8

// ping is a Ping that is out.
type ping struct {
	token  uint64 // 0: none, or answered
	sent   time.Time
	volume uint64 // what the link had carried by then
}

func (m *member) pingDue(now time.Time) bool {
	quick := now.Sub(m.path.used) < lively && now.Sub(m.heard) >= livelyPing && now.Sub(m.pinged) >= livelyPing
	return quick || now.Sub(m.pinged) >= pingEvery
}

func (m *member) sendPing(now time.Time) {
	m.pinged, m.ping, m.pingOut = now, m.ping+1, true
	m.pings[m.ping%maxPings] = ping{m.ping, now, m.volume()}
	m.path.still = 0
	m.link.SendControl(wire.Ping{Token: m.ping})
}

// renew has a link in doubt restarted at once, because something suggests that the network has changed or come back, on however
// little authority; one that is not in doubt is probed, and where there is none, another attempt begins.
func (m *member) renew(r *Room) {
	m.do(r, m.negotiation.Start(r.cfg.Now()))
	if m.link != nil && m.negotiation.Doubted() {
		m.do(r, m.negotiation.Doubt(r.cfg.Now(), m.negotiation.OpenAttempt(), true))
	} else {
		m.probe(r)
	}
}

// probe asks an open link for a sign of life.
func (m *member) probe(r *Room) {
	if m.link == nil {
		return
	}
	m.path.probed = true
	if now := r.cfg.Now(); !m.pingOut && now.Sub(m.pinged) >= lookEvery {
		m.sendPing(now)
	}
}

// watchPath judges the silence so far.
func (m *member) watchPath(r *Room) {
	limit := doubtAfter
	if m.path.probed {
		limit = probeAfter
	}
	if m.path.still >= probeAfter {
		r.nudge() // it may be our own network, which takes the server away too
	}
	if m.path.still >= limit && !m.negotiation.Doubted() {
		m.doubt(r)
	}
}

func (m *member) doubt(r *Room) {
	m.path.probed = false
	r.nudge()
	m.do(r, m.negotiation.Doubt(r.cfg.Now(), m.negotiation.OpenAttempt(), false))
}

// nudge has the connection to the server show that it works, or tried again.
func (r *Room) nudge() {
	if now := r.cfg.Now(); now.Sub(r.nudged) >= nudgeEvery {
		r.nudged = now
		r.client.Nudge()
	}
}

// hear notes that something has come over the link.
func (m *member) hear(r *Room) {
	m.heard, m.pingOut = r.cfg.Now(), false
	m.quality.Heard()
	m.traffic.Heard(m.negotiation.Doubted())
	m.path.probed = false
	if m.negotiation.Doubted() {
		m.do(r, m.negotiation.Alive(m.heard, m.negotiation.OpenAttempt()))
		// What would only bring about another link, or a restart of this one. A Restart goes on: whoever has made its offer may have
		// given up the path that it had.
		m.unsend(r, wire.PayloadKnock, wire.PayloadHello, wire.PayloadOffer, wire.PayloadRestartRequest)
	}
}

// lookDue reports whether it is time to look at the transport's counters.
func (m *member) lookDue(now time.Time) bool {
	every := pingEvery
	if m.pingOut {
		every = lookEvery
	}
	return now.Sub(m.statsAt) >= every
}

// looked takes the transport's count of received bytes. A browser may begin it anew.
func (m *member) looked(r *Room, received uint64) {
	now := r.cfg.Now()
	if received != m.path.seen {
		m.path.still, m.path.seen = 0, received
	}
	switch {
	case received >= m.arrived+flowing:
		m.hear(r)
	case received >= m.arrived && now.Sub(m.path.lookAt) < pingEvery:
		return // what comes slowly adds up
	}
	m.arrived, m.path.lookAt = received, now
}

// stateChanged takes a change of the connection's state.
func (c *connection) stateChanged(s peer.ConnState) {
	m, r := c.member, c.room
	open := m.link != nil && m.link == c.link
	switch s {
	case peer.ConnDisconnected, peer.ConnFailed:
		if open {
			m.quality.Connected(false)
			m.doubt(r)
		} else if s == peer.ConnFailed && !r.cfg.Manual { // whose answer may still come, by hand
			m.do(r, c.negotiation.Failed(r.cfg.Now(), c.number, fault.ConnectionFailed))
		}
	case peer.ConnConnected:
		if open { // what waits in the transport comes about now
			m.quality.Connected(true)
			m.quiet, m.path.still, m.path.moving = 0, 0, false
			m.pathChanged(r)
		}
	}
}

// restarted notes that both ends have agreed on a restart: the connection may be about to find another path.
func (c *connection) restarted() {
	c.member.traffic.Restarted()
	if m := c.member; m.link != nil && m.link == c.link {
		m.path.moving = true
		m.pathChanged(c.room)
	}
}

// pathChanged notes that the link may have another path: what was learnt of the former counts no longer.
func (m *member) pathChanged(r *Room) {
	m.quality.PathChanged(r.cfg.Now())
	m.link.PathChanged()
}

// selected takes which pair of candidates the connection uses, and how that goes. Another pair is another path if it goes another way, or after a restart: it
// may come long after both ends have agreed, with no change of state. Else browsers only choose between equals, or know a candidate better than before.
func (m *member) selected(r *Room, pair uint64, route, protocol string) {
	// With the first that is looked at of a link there is nothing to compare: what is known is of one before, if of any. After a restart it may be the new one, or
	// not yet.
	first := m.path.pair == 0
	moved := m.path.moving && pair != m.path.pair || !first && (route != m.route || protocol != m.protocol)
	m.path.pair, m.route, m.protocol = pair, route, protocol
	if moved {
		m.path.moving = m.path.moving && first
		m.pathChanged(r)
	}
}

// restart restarts ICE on the connection. A restart that fails leaves it as it is.
func (c *connection) restart(e peer.RestartConn) {
	c.try(func(ctx context.Context) (err error) {
		var sdp string
		if e.Offer == "" {
			sdp, err = c.conn.Offer(ctx, true)
		} else {
			sdp, err = c.conn.Answer(ctx, e.Offer)
		}
		if err != nil {
			return err
		}
		c.post(func() {
			c.member.do(c.room, c.negotiation.RestartMade(c.room.cfg.Now(), c.number, e.Generation, sdp))
		})
		return nil
	})
}
