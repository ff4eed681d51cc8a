package wire

// Envelopes, which the hub relays and cannot open: PROTOCOL.md section 5.

// EnvelopeKind says under which key an envelope is sealed.
type EnvelopeKind uint8

// The kinds of envelope.
const (
	RoomEnvelope EnvelopeKind = 1 // under the key that the link gives to everyone in the room
	PairEnvelope EnvelopeKind = 2 // under a key of the two members' session
)

// EnvelopeOverhead is how many bytes an envelope has beyond its payload.
const EnvelopeOverhead = 1 + 16 + 16 + 32 + 16

// MaxPayload is the most bytes of an envelope's payload.
const MaxPayload = MaxEnvelope - EnvelopeOverhead

// Envelope is a sealed message between two members.
type Envelope struct {
	Kind       EnvelopeKind
	ID         ID       // random; repeats of an envelope have the same one
	Session    ID       // the session whose key seals it; zero in a room envelope
	Salt       [32]byte // random; gives key and nonce
	Ciphertext []byte   // payload and tag
}

// Append appends the envelope.
func (m Envelope) Append(b []byte) []byte {
	b = append(append(b, byte(m.Kind)), m.ID[:]...)
	b = append(append(b, m.Session[:]...), m.Salt[:]...)
	return append(b, m.Ciphertext...)
}

// ParseEnvelope parses an envelope.
func ParseEnvelope(p []byte) (m Envelope, err error) {
	d := decode("Envelope", p)
	m.Kind = EnvelopeKind(d.oneOf(d.u8(), 1, 2))
	m.ID = d.id()
	m.Session = d.id()
	m.Salt = d.hash()
	m.Ciphertext = d.rest()
	switch {
	case d.err != nil:
	case len(p) > MaxEnvelope:
		d.fail("too long")
	case len(m.Ciphertext) < 16+1:
		d.fail("too short")
	case m.Kind == RoomEnvelope && !m.Session.IsZero():
		d.fail("session in a room envelope")
	}
	return m, d.end()
}

// PayloadType is the first byte of an envelope's payload.
type PayloadType uint8

// The types of payloads.
const (
	PayloadJoin           PayloadType = 1
	PayloadRoster         PayloadType = 2
	PayloadRefuse         PayloadType = 3
	PayloadKnock          PayloadType = 4
	PayloadHello          PayloadType = 5
	PayloadOffer          PayloadType = 6
	PayloadAnswer         PayloadType = 7
	PayloadCandidates     PayloadType = 8
	PayloadAck            PayloadType = 9
	PayloadRestart        PayloadType = 10
	PayloadRestarted      PayloadType = 11
	PayloadRestartRequest PayloadType = 12
	PayloadLost           PayloadType = 13
)

// ParsePayload splits a payload into its type and body.
func ParsePayload(p []byte) (PayloadType, []byte, error) {
	d := decode("payload", p)
	t := PayloadType(d.oneOf(d.u8(), uint8(PayloadJoin), uint8(PayloadLost)))
	body := d.rest()
	return t, body, d.end()
}

// Candidate is an ICE candidate as RTCIceCandidate.toJSON gives it.
type Candidate struct {
	Candidate        string // empty: no more candidates
	SDPMid           string
	SDPMLineIndex    uint16
	UsernameFragment string
}

// MaxCandidates is the most candidates in one message.
const MaxCandidates = 32

// Candidates are ICE candidates of one negotiation.
type Candidates struct {
	Negotiation Hash // the nonce of the offer that they belong to
	List        []Candidate
}

// Append appends the body.
func (m Candidates) Append(b []byte) []byte {
	must(len(m.List) > 0 && len(m.List) <= MaxCandidates, "number of candidates")
	b = append(append(b, m.Negotiation[:]...), byte(len(m.List)))
	for _, c := range m.List {
		b = appendBytes16(b, c.Candidate, 1024)
		b = appendBytes8(b, c.SDPMid, 64)
		b = appendU16(b, c.SDPMLineIndex)
		b = appendBytes16(b, c.UsernameFragment, 256)
	}
	return b
}

// Fits reports whether a candidate is within the limits of the wire.
func (c Candidate) Fits() bool {
	return len(c.Candidate) <= 1024 && len(c.SDPMid) <= 64 && len(c.UsernameFragment) <= 256
}

// ParseCandidates parses the body.
func ParseCandidates(p []byte) (m Candidates, err error) {
	d := decode("Candidates", p)
	m.Negotiation = d.hash()
	for range d.count(int(d.u8()), 1, MaxCandidates, 7) {
		m.List = append(m.List, Candidate{
			Candidate: d.text16(1024), SDPMid: d.text8(64), SDPMLineIndex: d.u16(), UsernameFragment: d.text16(256)})
	}
	return m, d.end()
}

// Ack acknowledges an envelope by its id.
type Ack struct{ Envelope ID }

// Append appends the body.
func (m Ack) Append(b []byte) []byte { return append(b, m.Envelope[:]...) }

// ParseAck parses the body.
func ParseAck(p []byte) (m Ack, err error) {
	d := decode("Ack", p)
	m.Envelope = d.id()
	return m, d.end()
}

// Restart is an ICE restart's offer or answer.
type Restart struct {
	Generation uint32 // counts the restarts of a session, from 1
	SDP        string
}

// Append appends the body of Restart and Restarted.
func (m Restart) Append(b []byte) []byte {
	return appendBytes16(appendU32(b, m.Generation), m.SDP, MaxSDP)
}

// ParseRestart parses the body of Restart and Restarted.
func ParseRestart(p []byte) (m Restart, err error) {
	d := decode("Restart", p)
	m = Restart{Generation: d.u32(), SDP: d.text16(MaxSDP)}
	return m, d.end()
}

// AppendRestartRequest appends the body of RestartRequest.
func AppendRestartRequest(b []byte, generation uint32) []byte { return appendU32(b, generation) }

// ParseRestartRequest parses the body of RestartRequest.
func ParseRestartRequest(p []byte) (generation uint32, err error) {
	d := decode("RestartRequest", p)
	generation = d.u32()
	return generation, d.end()
}

// Lost says that the link of a negotiation is over at this end.
type Lost struct {
	Negotiation Hash // the nonce of its offer
}

// Append appends the body.
func (m Lost) Append(b []byte) []byte { return append(b, m.Negotiation[:]...) }

// ParseLost parses the body.
func ParseLost(p []byte) (m Lost, err error) {
	d := decode("Lost", p)
	m.Negotiation = d.hash()
	return m, d.end()
}
