package wire

// Messages between client and hub: PROTOCOL.md section 4. One WebSocket message each.

// HubSubprotocol is the WebSocket subprotocol.
const HubSubprotocol = "tallow.v1"

// MaxHubMessage is the most bytes that a WebSocket message between client and hub has, in either direction.
const MaxHubMessage = 65536

// MaxEnvelope is the most bytes of an envelope.
const MaxEnvelope = 65000

// HubType is the first byte of a message between client and hub.
type HubType uint8

// The types of messages between client and hub.
const (
	HubEnter      HubType = 0x01
	HubSend       HubType = 0x02
	HubPing       HubType = 0x03
	HubRefresh    HubType = 0x04
	HubEntered    HubType = 0x81
	HubDeliver    HubType = 0x82
	HubPong       HubType = 0x83
	HubICEServers HubType = 0x84
	HubPresent    HubType = 0x85
	HubAbsent     HubType = 0x86
	HubClosing    HubType = 0x87
)

// ClosingCode says why the hub closes a connection.
type ClosingCode uint16

// The reasons of Closing.
const (
	ClosingBadRequest         ClosingCode = 1
	ClosingUnsupportedVersion ClosingCode = 2
	ClosingForbidden          ClosingCode = 3
	ClosingRoomFull           ClosingCode = 4
	ClosingRateLimited        ClosingCode = 5
	ClosingShuttingDown       ClosingCode = 6
	ClosingReplaced           ClosingCode = 7
	ClosingIdle               ClosingCode = 8
	ClosingServerFull         ClosingCode = 9
)

// Enter asks the hub for a place in a room.
type Enter struct {
	Room   ID
	Member ID
	Token  Hash // proves knowledge of the link
	Claim  ID   // proves, when entering again, that it is the same member
}

// Relay is a Send (Member is the addressee) or a Deliver (Member is the author).
type Relay struct {
	Member   ID
	Envelope []byte
}

// ICEServer is one entry of an RTCConfiguration's iceServers.
type ICEServer struct {
	URLs       []string
	Username   string
	Credential string
}

// ICEServers are the STUN and TURN servers that the hub offers.
type ICEServers struct {
	RelayOnly bool   // the operator demands relayed connections
	TTL       uint32 // seconds until the credentials expire; 0: never
	Servers   []ICEServer
}

// Entered answers Enter.
type Entered struct {
	MaxMembers uint16
	ICE        ICEServers
	Present    []ID // the members that are there already
}

// Closing is the hub's last message on a connection.
type Closing struct {
	Code       ClosingCode
	RetryAfter uint32 // seconds; 0: do not retry without the person
	Reason     string // for logs; clients branch on Code
}

const (
	maxICEServers = 16
	maxICEURLs    = 8
	maxICEField   = 512
	maxPresent    = 2048
)

// Append appends the message with its type byte.
func (m Enter) Append(b []byte) []byte {
	b = append(b, byte(HubEnter), Version)
	b = append(append(b, m.Room[:]...), m.Member[:]...)
	return append(append(b, m.Token[:]...), m.Claim[:]...)
}

// ParseEnter parses a message of type HubEnter.
func ParseEnter(p []byte) (m Enter, err error) {
	d := decodeHub("Enter", HubEnter, p)
	d.version()
	m = Enter{Room: d.id(), Member: d.id(), Token: d.hash(), Claim: d.id()}
	return m, d.end()
}

// Append appends the message as t, HubSend or HubDeliver.
func (m Relay) Append(b []byte, t HubType) []byte {
	must(len(m.Envelope) > 0 && len(m.Envelope) <= MaxEnvelope, "envelope length")
	b = append(append(b, byte(t)), m.Member[:]...)
	return append(b, m.Envelope...)
}

// ParseRelay parses a message of type t, HubSend or HubDeliver.
func ParseRelay(p []byte, t HubType) (m Relay, err error) {
	d := decodeHub("Relay", t, p)
	m = Relay{Member: d.id(), Envelope: d.rest()}
	if d.err == nil && (len(m.Envelope) == 0 || len(m.Envelope) > MaxEnvelope) {
		d.fail("envelope length")
	}
	return m, d.end()
}

func (m ICEServers) append(b []byte) []byte {
	must(len(m.Servers) <= maxICEServers, "too many ICE servers")
	b = append(b, flag(m.RelayOnly, 1))
	b = append(appendU32(b, m.TTL), byte(len(m.Servers)))
	for _, s := range m.Servers {
		must(len(s.URLs) > 0 && len(s.URLs) <= maxICEURLs, "ICE server URLs")
		b = append(b, byte(len(s.URLs)))
		for _, u := range s.URLs {
			b = appendBytes16(b, u, maxICEField)
		}
		b = appendBytes16(b, s.Username, maxICEField)
		b = appendBytes16(b, s.Credential, maxICEField)
	}
	return b
}

func (d *decoder) iceServers() (m ICEServers) {
	m.RelayOnly = d.oneOf(d.u8(), 0, 1) == 1
	m.TTL = d.u32()
	for range d.count(int(d.u8()), 0, maxICEServers, 7) {
		var s ICEServer
		for range d.count(int(d.u8()), 1, maxICEURLs, 2) {
			s.URLs = append(s.URLs, d.text16(maxICEField))
		}
		s.Username = d.text16(maxICEField)
		s.Credential = d.text16(maxICEField)
		m.Servers = append(m.Servers, s)
	}
	return m
}

// Append appends the message of type HubICEServers with its type byte.
func (m ICEServers) Append(b []byte) []byte { return m.append(append(b, byte(HubICEServers))) }

// ParseICEServers parses a message of type HubICEServers.
func ParseICEServers(p []byte) (m ICEServers, err error) {
	d := decodeHub("ICEServers", HubICEServers, p)
	m = d.iceServers()
	return m, d.end()
}

// Append appends the message with its type byte.
func (m Entered) Append(b []byte) []byte {
	must(len(m.Present) <= maxPresent, "too many members")
	b = m.ICE.append(appendU16(append(b, byte(HubEntered)), m.MaxMembers))
	b = appendU16(b, uint16(len(m.Present)))
	for _, id := range m.Present {
		b = append(b, id[:]...)
	}
	return b
}

// ParseEntered parses a message of type HubEntered.
func ParseEntered(p []byte) (m Entered, err error) {
	d := decodeHub("Entered", HubEntered, p)
	m.MaxMembers = d.u16()
	m.ICE = d.iceServers()
	for range d.count(int(d.u16()), 0, maxPresent, len(ID{})) {
		m.Present = append(m.Present, d.id())
	}
	return m, d.end()
}

// AppendPresence appends a message of type t, HubPresent or HubAbsent, about a member.
func AppendPresence(b []byte, t HubType, member ID) []byte {
	return append(append(b, byte(t)), member[:]...)
}

// ParsePresence parses a message of type t, HubPresent or HubAbsent.
func ParsePresence(p []byte, t HubType) (ID, error) {
	d := decodeHub("Presence", t, p)
	id := d.id()
	return id, d.end()
}

// Append appends the message with its type byte.
func (m Closing) Append(b []byte) []byte {
	b = appendU16(append(b, byte(HubClosing)), uint16(m.Code))
	return appendBytes8(appendU32(b, m.RetryAfter), m.Reason, 255)
}

// ParseClosing parses a message of type HubClosing. An unknown code is no error: the connection ends all the same.
func ParseClosing(p []byte) (m Closing, err error) {
	d := decodeHub("Closing", HubClosing, p)
	m = Closing{Code: ClosingCode(d.u16()), RetryAfter: d.u32(), Reason: d.text8(255)}
	return m, d.end()
}

// ParseBare checks a message of type t that has no fields: HubPing, HubPong, HubRefresh.
func ParseBare(p []byte, t HubType) error { return decodeHub("message", t, p).end() }

// TypeOf is the type of a message between client and hub; an empty message has the type 0, which nobody sends.
func TypeOf(p []byte) HubType {
	if len(p) == 0 {
		return 0
	}
	return HubType(p[0])
}

func decodeHub(what string, t HubType, p []byte) *decoder {
	d := decode(what, p)
	if HubType(d.u8()) != t {
		d.fail("wrong type")
	}
	return d
}

func flag(set bool, bit byte) byte {
	if set {
		return bit
	}
	return 0
}
