package room

import (
	"context"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/wire"
)

// load is how many bytes, during a Ping or waiting for the transport, or in a second, make it one that had to share the link.
const load = 16 << 10

// PeerStats are a member's figures. Counts are over all links to it since it appeared in the room.
type PeerStats struct {
	Peer       string      `json:"peer"` // hexadecimal
	State      PeerState   `json:"state"`
	Quality    PeerQuality `json:"quality"`
	RTT        float64     `json:"rtt"`        // ms, smoothed, without our own load; 0: unknown
	CurrentRTT float64     `json:"currentRTT"` // ms, of the last Ping, as it was; 0: unknown
	Loss       float64     `json:"loss"`       // share of the last minute's connectivity checks without an answer; -1: unknown
	Route      string      `json:"route"`      // "", "direct" or "relay"
	Protocol   string      `json:"protocol"`   // "", "udp", "tcp" or "tls"; of a relay of ours, the way to it
	Uptime     float64     `json:"uptime"`     // s, of the present link; 0: there is none
	Reconnects int         `json:"reconnects"` // links after the first, and times that one in doubt went on after a restart

	BytesSent       uint64  `json:"bytesSent"` // on the wire, by the transport
	BytesReceived   uint64  `json:"bytesReceived"`
	PacketsSent     int64   `json:"packetsSent"` // -1: the platform does not count them
	PacketsReceived int64   `json:"packetsReceived"`
	SendRate        float64 `json:"sendRate"` // bytes per second, over about the last two seconds
	ReceiveRate     float64 `json:"receiveRate"`
	MeanSendRate    float64 `json:"meanSendRate"` // bytes per second, over all the time with a link
	MeanReceiveRate float64 `json:"meanReceiveRate"`

	PayloadSent     uint64 `json:"payloadSent"`     // bytes of files handed to the link, what was sent again included
	PayloadReceived uint64 `json:"payloadReceived"` // bytes of files verified and written
	ChunksSent      uint64 `json:"chunksSent"`
	ChunksResent    uint64 `json:"chunksResent"` // of these, sent before over a link that was lost
	ChunksVerified  uint64 `json:"chunksVerified"`
}

var qualities = map[peer.Quality]PeerQuality{
	peer.QualityExcellent:    QualityExcellent,
	peer.QualityGood:         QualityGood,
	peer.QualityFair:         QualityFair,
	peer.QualityPoor:         QualityPoor,
	peer.QualityDisconnected: QualityDisconnected,
}

// figures are what a member's statistics are made of. They belong to the loop.
type figures struct {
	traffic         peer.Traffic
	lastRTT         time.Duration
	route, protocol string
	statsAt         time.Time
	looking         bool // for the counters
	looks           []func()
	received        uint64 // bytes that the transport had received at the last look
	arrived         uint64 // and at the one before that looked for a sign of life

	payloadSent, payloadReceived             uint64
	chunksSent, chunksResent, chunksVerified uint64
}

func (f *figures) opened(now time.Time) {
	f.traffic.Opened(now)
	f.lastRTT, f.route, f.protocol = 0, "", ""
	f.statsAt, f.received, f.arrived = time.Time{}, 0, 0
}

// volume is how many bytes of records the link has carried, both ways.
func (m *member) volume() uint64 {
	s := m.link.Stats()
	return s.BytesSent + s.BytesReceived
}

// look reads the connection's counters, and then calls then in the loop, at once if there is no link. What asks meanwhile shares
// the reading under way.
func (m *member) look(r *Room, then func()) {
	if m.link == nil {
		then()
		return
	}
	m.looks = append(m.looks, then)
	if m.looking {
		return
	}
	m.looking = true
	link := m.link
	r.running.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, connTimeout)
		defer cancel()
		stats, err := link.Conn().Stats(ctx)
		r.box.post(func() {
			m.looking = false
			if err == nil && m.link == link {
				m.read(r, stats)
			}
			looks := m.looks
			m.looks = nil
			for _, then := range looks {
				then()
			}
		})
	})
}

// read takes the connection's counters.
func (m *member) read(r *Room, stats peer.ConnStats) {
	now := r.cfg.Now()
	m.traffic.Read(now, stats)
	m.received = stats.BytesReceived
	sums := m.traffic.Stats(now)
	m.quality.Loss(sums.Loss)
	if sums.SendRate+sums.ReceiveRate >= load {
		m.quality.Loaded(now)
	}
	if stats.LocalType != "" {
		route := routeDirect
		if stats.LocalType == "relay" || stats.RemoteType == "relay" {
			route = routeRelay
		}
		m.selected(r, stats.Pair, route, stats.Protocol)
		if c := m.conns[m.negotiation.OpenAttempt()]; c != nil && c.link == m.link && c.relayOnly && stats.LocalType != "relay" {
			m.link.Abort(fault.Newf(fault.AddressLeak, "room: relay only, and a path from a candidate of type %s", stats.LocalType))
		}
	}
}

// Stats reads a member's figures. The errors are UnknownPeer and RoomClosed, or those of ctx.
func (r *Room) Stats(ctx context.Context, id wire.ID) (PeerStats, error) {
	all, err := r.stats(ctx, func(m wire.ID) bool { return m == id })
	if err != nil {
		return PeerStats{}, err
	}
	if len(all) == 0 {
		return PeerStats{}, fault.New(fault.UnknownPeer, nil)
	}
	return all[0], nil
}

// AllStats reads the figures of all the other members, in the order of the roster. The error is RoomClosed, or that of ctx.
func (r *Room) AllStats(ctx context.Context) ([]PeerStats, error) {
	return r.stats(ctx, func(wire.ID) bool { return true })
}

func (r *Room) stats(ctx context.Context, wanted func(wire.ID) bool) ([]PeerStats, error) {
	var list []PeerStats // the loop's, until done
	done := make(chan struct{})
	err := r.attempt(func() error {
		var members []*member
		for _, id := range r.order {
			if wanted(id) {
				members = append(members, r.members[id])
			}
		}
		left := len(members)
		if left == 0 {
			close(done)
		}
		for _, m := range members {
			m.look(r, func() {
				if left--; left > 0 {
					return
				}
				for _, m := range members {
					list = append(list, m.stats(r))
				}
				close(done)
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-done:
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.looped:
		return nil, fault.New(fault.RoomClosed, nil)
	}
}

func (m *member) stats(r *Room) PeerStats {
	p, t := m.snapshot(r), m.traffic.Stats(r.cfg.Now())
	return PeerStats{
		Peer: p.ID, State: p.State, Quality: p.Quality, RTT: p.RTT, CurrentRTT: milliseconds(m.lastRTT), Loss: t.Loss,
		Route: p.Route, Protocol: p.Protocol, Uptime: t.Uptime.Seconds(), Reconnects: t.Reconnects,
		BytesSent: t.BytesSent, BytesReceived: t.BytesReceived, PacketsSent: t.PacketsSent, PacketsReceived: t.PacketsReceived,
		SendRate: t.SendRate, ReceiveRate: t.ReceiveRate, MeanSendRate: t.MeanSendRate, MeanReceiveRate: t.MeanReceiveRate,
		PayloadSent: m.payloadSent, PayloadReceived: m.payloadReceived,
		ChunksSent: m.chunksSent, ChunksResent: m.chunksResent, ChunksVerified: m.chunksVerified,
	}
}

// stored counts what a member has sent and is verified and on disk.
func (m *member) stored(chunks int, bytes uint64) {
	m.chunksVerified += uint64(chunks)
	m.payloadReceived += bytes
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
