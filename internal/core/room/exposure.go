package room

import (
	"net/url"
	"slices"
	"strings"

	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/wire"
)

// Exposure is one way in which somebody learns this member's network address, or sees that it uses Tallow.
type Exposure struct {
	What   ExposureKind `json:"what"`
	To     Audience     `json:"to"`
	Detail string       `json:"detail"` // a URL without credentials, the type of a candidate, or a member's id; may be empty
	Leak   bool         `json:"leak"`   // it should not be, since this member connects through relays only
}

// ExposureKind is what exposes.
type ExposureKind string

// The kinds of exposures. All but the last three follow from the configuration, whoever is in the room.
const (
	ExposedSignaling   ExposureKind = "signaling"    // the connection to the server
	ExposedSTUN        ExposureKind = "stun"         // a STUN server is asked for our address
	ExposedTURN        ExposureKind = "turn"         // a TURN server relays for us
	ExposedPlainRelay  ExposureKind = "plain-relay"  // the way to a TURN server is without TLS: who is on it sees the relay, and our pseudonym there
	ExposedPlainServer ExposureKind = "plain-server" // the way to the server is without TLS
	ExposedDirect      ExposureKind = "direct"       // connections to members may be direct
	ExposedCandidate   ExposureKind = "candidate"    // an address of that type was told to members; a leak: it was gathered, and told to nobody
	ExposedRoute       ExposureKind = "route"        // the connection to that member is direct
)

// Audience is who learns.
type Audience string

// The audiences of exposures.
const (
	ToServer     Audience = "server"      // the host that this member entered the room at
	ToThirdParty Audience = "third-party" // another server
	ToMembers    Audience = "members"
	ToNetwork    Audience = "network" // whoever is on the way
	ToNobody     Audience = "nobody"  // that we know of: a browser that gathers what it should not may have sent packets from there
)

// RelayOnly reports whether this member connects through relays only, by its own choice or at the server's demand.
func (r *Room) RelayOnly() (relayOnly bool) {
	r.do(func() { relayOnly = r.relayOnly() })
	return relayOnly
}

func (r *Room) relayOnly() bool { return r.cfg.RelayOnly || r.ice.RelayOnly }

// Exposure tells who learns this member's address, and how: by the configuration alone, and by what has happened so far. It asks nobody. The
// error is RoomClosed.
func (r *Room) Exposure() (list []Exposure, err error) {
	err = r.attempt(func() error {
		list = r.exposure()
		return nil
	})
	return list, err
}

func (r *Room) exposure() []Exposure {
	relayOnly := r.relayOnly()
	list := []Exposure{{What: ExposedSignaling, To: ToServer, Detail: r.cfg.ServerURL}}
	server, err := url.Parse(r.cfg.ServerURL)
	if err != nil { // it was good enough to connect with
		server = new(url.URL)
	}
	if server.Scheme == "ws" {
		list = append(list, Exposure{What: ExposedPlainServer, To: ToNetwork, Detail: r.cfg.ServerURL})
	}
	for _, s := range r.ice.Servers {
		for _, u := range s.URLs {
			what, to := ExposedSTUN, ToThirdParty
			if wire.IsTURN(u) {
				what = ExposedTURN
			} else if relayOnly {
				continue // it is not asked
			}
			if strings.EqualFold(iceHost(u), server.Hostname()) {
				to = ToServer
			}
			list = append(list, Exposure{What: what, To: to, Detail: u})
			if what == ExposedTURN && !strings.HasPrefix(strings.ToLower(u), "turns:") {
				list = append(list, Exposure{What: ExposedPlainRelay, To: ToNetwork, Detail: u})
			}
		}
	}
	if !relayOnly {
		list = append(list, Exposure{What: ExposedDirect, To: ToMembers})
	}
	for _, t := range candidateTypes {
		if r.told[t] {
			list = append(list, Exposure{What: ExposedCandidate, To: ToMembers, Detail: t})
		}
		if r.strays[t] {
			list = append(list, Exposure{What: ExposedCandidate, To: ToNobody, Detail: t, Leak: true})
		}
	}
	for _, id := range r.order {
		if m := r.members[id]; m.link != nil && m.route == routeDirect {
			// A connection that is older than the server's demand is as it was agreed.
			c := m.conns[m.negotiation.OpenAttempt()]
			list = append(list, Exposure{What: ExposedRoute, To: ToMembers, Detail: id.String(), Leak: c != nil && c.relayOnly})
		}
	}
	return list
}

// candidateTypes are those that reveal an address of ours; "" is one that names no known type.
var candidateTypes = []string{"host", "srflx", "prflx", ""}

// candidateTold notes that members were told of a candidate.
func (r *Room) candidateTold(line string) {
	if t := peer.CandidateType(line); line != "" && slices.Contains(candidateTypes, t) {
		r.told[t] = true
	}
}

// strayed notes a candidate that the platform came up with against our will, and says so once for each type.
func (r *Room) strayed(m *member, candidateType string) {
	if !r.strays[candidateType] {
		r.strays[candidateType] = true
		r.event(Problem{fault.AddressLeak, m.id.String()})
	}
}

func hasRelay(ice wire.ICEServers) bool {
	return slices.ContainsFunc(ice.Servers, func(s wire.ICEServer) bool { return slices.ContainsFunc(s.URLs, wire.IsTURN) })
}

// iceHost is the host of a STUN or TURN URL, which has no slashes (RFC 7064, RFC 7065).
func iceHost(iceURL string) string {
	_, rest, _ := strings.Cut(iceURL, ":")
	u, err := url.Parse("//" + rest)
	if err != nil {
		return ""
	}
	return u.Hostname()
}
