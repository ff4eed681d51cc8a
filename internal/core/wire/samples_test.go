package wire

import (
	"bytes"
	"strings"
	"sync"
)

// sample is a message with a value in every field, which most tests of this package start from.
type sample struct {
	name    string
	section string // of PROTOCOL.md
	fields  any
	bytes   []byte
	append  func(b []byte) []byte
	// parse gives the fields back, and what they append to.
	parse func(p []byte) (fields any, again []byte, err error)
	// open is the least length at which a message that ends in bytes of any number is whole; 0: it does not end so.
	open int
	// version is where the version byte is; -1: there is none.
	version int
}

func of[M any](name, section string, m M, app func(M, []byte) []byte, parse func([]byte) (M, error)) sample {
	return sample{name: name, section: section, fields: m, bytes: app(m, nil), version: -1,
		append: func(b []byte) []byte { return app(m, b) },
		parse: func(p []byte) (any, []byte, error) {
			m, err := parse(p)
			if err != nil {
				return nil, nil, err
			}
			return m, app(m, nil), nil
		}}
}

func (s sample) openFrom(n int) sample  { s.open = n; return s }
func (s sample) versionAt(i int) sample { s.version = i; return s }
func (s sample) as(fields any) sample   { s.fields = fields; return s }
func control(m ControlMessage) sample {
	return of(nameOf(m), "9", m, ControlMessage.Append, ParseControl)
}
func bare(name string, t HubType) sample { return of(name, "4", t, appendBare, parseBare(t)) }

func nameOf(m any) string {
	return strings.TrimPrefix(strings.TrimPrefix(typeName(m), "wire."), "Transfer")
}

func appendBare(t HubType, b []byte) []byte { return append(b, byte(t)) }

func parseBare(t HubType) func([]byte) (HubType, error) {
	return func(p []byte) (HubType, error) { return t, ParseBare(p, t) }
}

func relay(name string, t HubType, m Relay) sample {
	return of(name, "4", m, func(m Relay, b []byte) []byte { return m.Append(b, t) },
		func(p []byte) (Relay, error) { return ParseRelay(p, t) }).openFrom(1 + 16 + 1)
}

// presence has a field, which a bare id would not show.
type presence struct{ Member ID }

func presenceOf(name string, t HubType) sample {
	return of(name, "4", presence{ID(pattern(0x50, 16))},
		func(m presence, b []byte) []byte { return AppendPresence(b, t, m.Member) },
		func(p []byte) (presence, error) { id, err := ParsePresence(p, t); return presence{id}, err })
}

// payload is what ParsePayload gives.
type payload struct {
	Type PayloadType
	Body []byte
}

// record is what ParseRecord gives.
type record struct {
	Header     RecordHeader
	Ciphertext []byte
}

func recordOf(name string, ch Channel, m record) sample {
	return of(name, "8", m, func(m record, b []byte) []byte { return append(m.Header.Append(b), m.Ciphertext...) },
		func(p []byte) (m record, err error) { m.Header, m.Ciphertext, err = ParseRecord(p, ch); return m, err })
}

type restartRequest struct{ Generation uint32 }

// pattern is n bytes that count up from first, modulo 256. Long fields are made of it, and the vectors say so.
func pattern(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

func id(first byte) ID { return ID(pattern(first, 16)) }

func hash(first byte) Hash { return Hash(pattern(first, 32)) }

const testSDP = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=é\r\n"

var (
	testServers = ICEServers{RelayOnly: true, TTL: 3600, Servers: []ICEServer{
		{URLs: []string{"stun:hub.example:3478", "turn:hub.example:3478?transport=udp"}, Username: "1700000000:é", Credential: "c2VjcmV0"},
		{URLs: []string{"stun:other.example"}},
	}}
	testManifest = []FileEntry{
		{Kind: KindFile, Size: 5_000_000_000, Modified: 1_700_000_000_123, MediaType: "video/mp4", Path: "holiday/día 1.mp4"},
		{Kind: KindText, Size: 5, MediaType: "text/plain", Path: "note"},
		{Kind: KindDirectory, Path: "holiday/empty"},
	}
)

const (
	testFiles = 3
	testTotal = 5_000_000_005
)

func appendManifest(list []FileEntry, b []byte) []byte {
	for _, e := range list {
		b = e.Append(b)
	}
	return b
}

// samples are all messages.
var samples = sync.OnceValue(func() []sample {
	join := func(p []byte) (Join, error) { m, _, err := ParseJoin(p); return m, err }
	roster := func(p []byte) (Roster, error) { m, _, err := ParseRoster(p); return m, err }
	refuse := func(p []byte) (Refuse, error) { m, _, err := ParseRefuse(p); return m, err }
	offer := func(p []byte) (Offer, error) { m, _, err := ParseOffer(p); return m, err }
	answer := func(p []byte) (Answer, error) { m, _, _, err := ParseAnswer(p); return m, err }
	confirm := func(p []byte) (Confirm, error) { m, _, _, err := ParseConfirm(p); return m, err }
	keys, signature := pattern(0x40, KeysSize), pattern(0x80, SignatureSize)
	list := []sample{
		of("Enter", "4", Enter{id(0x10), id(0x20), hash(0x30), id(0x60)}, Enter.Append, ParseEnter).versionAt(1),
		relay("Send", HubSend, Relay{id(0x10), []byte("envelope")}),
		bare("Ping", HubPing).as(struct{}{}),
		bare("Refresh", HubRefresh).as(struct{}{}),
		of("Entered", "4", Entered{11, testServers, []ID{id(0x10), id(0x20)}}, Entered.Append, ParseEntered),
		of("Entered, alone", "4", Entered{MaxMembers: 11}, Entered.Append, ParseEntered),
		relay("Deliver", HubDeliver, Relay{id(0x10), []byte("envelope")}),
		bare("Pong", HubPong).as(struct{}{}),
		of("ICEServers", "4", testServers, ICEServers.Append, ParseICEServers),
		presenceOf("Present", HubPresent),
		presenceOf("Absent", HubAbsent),
		of("Closing", "4", Closing{ClosingRateLimited, 30, "too many messages"}, Closing.Append, ParseClosing),

		of("Envelope, room", "5", Envelope{Kind: RoomEnvelope, ID: id(0x10), Salt: hash(0x30), Ciphertext: pattern(0xa0, 20)},
			Envelope.Append, ParseEnvelope).openFrom(EnvelopeOverhead + 1),
		of("Envelope, pair", "5", Envelope{PairEnvelope, id(0x10), id(0x20), hash(0x30), pattern(0xa0, 20)},
			Envelope.Append, ParseEnvelope).openFrom(EnvelopeOverhead + 1),
		of("payload", "5", payload{PayloadAck, pattern(0x10, 16)},
			func(m payload, b []byte) []byte { return append(append(b, byte(m.Type)), m.Body...) },
			func(p []byte) (m payload, err error) { m.Type, m.Body, err = ParsePayload(p); return m, err }).openFrom(1),
		of("Knock", "5", Knock{id(0x10)}, Knock.Append, ParseKnock).versionAt(0),
		of("Candidates", "5", Candidates{hash(0x30), []Candidate{
			{"candidate:1 1 udp 2122260223 192.0.2.1 50000 typ host generation 0 ufrag abcd", "0", 0, "abcd"}, {"", "", 65535, ""}}},
			Candidates.Append, ParseCandidates),
		of("Ack", "5", Ack{id(0x10)}, Ack.Append, ParseAck),
		of("Restart, Restarted", "5", Restart{2, testSDP}, Restart.Append, ParseRestart),
		of("RestartRequest", "5", restartRequest{0x01020304},
			func(m restartRequest, b []byte) []byte { return AppendRestartRequest(b, m.Generation) },
			func(p []byte) (m restartRequest, err error) {
				m.Generation, err = ParseRestartRequest(p)
				return m, err
			}),
		of("Lost", "5", Lost{hash(0x30)}, Lost.Append, ParseLost),

		of("Join", "6", Join{id(0x10), id(0x20), 1_700_000_000_000, keys, "Zoë", signature}, Join.Append, join).versionAt(0),
		of("Roster", "6", Roster{id(0x10), 1_700_000_000_001, true, false, 11, id(0x20), []Hash{hash(0x30), hash(0x50)}, keys, signature},
			Roster.Append, roster).versionAt(0),
		of("Roster, by approval", "6", Roster{id(0x10), 1, false, true, 64, ID{}, []Hash{hash(0x30)}, keys, signature},
			Roster.Append, roster).versionAt(0),
		of("Refuse", "6", Refuse{id(0x10), id(0x20), id(0x30), RefusePending, keys, signature}, Refuse.Append, refuse).versionAt(0),

		of("Hello", "7", Hello{id(0x10), hash(0x30)}, Hello.Append, ParseHello).versionAt(0),
		of("Offer", "7", Offer{id(0x10), id(0x20), id(0x30), 1_700_000_000_000, hash(0x50), hash(0x70), keys,
			pattern(0xc0, KEMPublicKeySize), 0x01020304, testSDP, signature}, Offer.Append, offer).versionAt(0),
		of("Answer", "7", Answer{id(0x10), id(0x20), id(0x30), hash(0x70), keys, pattern(0xc0, KEMCiphertextSize), hash(0x90),
			0x01020304, testSDP, signature, pattern(0xe0, MACSize)}, Answer.Append, answer).versionAt(0),
		of("Confirm", "7", Confirm{hash(0x30), signature, pattern(0xe0, MACSize)}, Confirm.Append, confirm),

		recordOf("record, control, confirm", Control, record{RecordHeader{13 + 5, RecordConfirm, 0, 0}, []byte("clear")}),
		recordOf("record, control, data", Control, record{RecordHeader{13 + 20, RecordData, 0x01020304, 0x05060708090a0b0c}, pattern(0xa0, 20)}),
		recordOf("record, bulk, key", Bulk, record{RecordHeader{13 + 16, RecordKey, 7, 1 << 20}, pattern(0xa0, 16)}),

		control(Reveal{hash(0x30)}),
		control(Profile{"Zoë"}),
		control(Ping{0x0102030405060708}),
		control(Pong{0x0102030405060708}),
		control(Rekey{2, pattern(0xc0, KEMPublicKeySize)}),
		control(Rekeyed{2, pattern(0xc0, KEMCiphertextSize)}),
		control(Bye{ByeRemoved}),
		control(RosterUpdate{[]byte("roster body")}),
		control(Received{0x0102030405060708}),
		control(TransferOffer{id(0x10), true, 256 << 10, testFiles, testTotal, 99, hash(0x30), []ID{id(0x20), id(0x50)}}),
		control(ManifestPart{id(0x10), 32768, []byte("part")}),
		control(Have{id(0x20), id(0x10), 1, []Run{{0, 3}, {3, 1}, {1000, 1}}}),
		control(Accept{id(0x10), 4 << 20, Bitmap{0x05}, Bitmap{0x01}}),
		control(Decline{id(0x10), "not now, çok"}),
		control(Credit{id(0x10), 5_000_000_064, 4_000_000_000}),
		control(Receipt{id(0x10), hash(0x30), Bitmap{0x05}, true, signature}),
		control(Cancel{id(0x20), id(0x10), FailureDiskFull}),
		control(FileFailed{id(0x10), 2, FailureFileChanged}),
		control(Pause{id(0x20), id(0x10), false, true}),
		control(Saving{id(0x10)}),

		of("Hashes", "10", Hashes{id(0x20), id(0x10), []HashRun{{1, 1000, pattern(0x30, 64)}, {2, 0, pattern(0x70, 32)}}}, Hashes.Append, ParseHashes),
		of("Chunks", "10", Chunks{id(0x20), id(0x10), []ChunkEntry{{1, 2, false, 5, 5}, {1, 3, true, 100, 7}}, []byte("chunk\x4b\x4c\x4a\xa4\x39\x04\x00")}, // 50 times "ab"
			func(m Chunks, b []byte) []byte { return append(m.AppendHead(b), m.Data...) }, ParseChunks),
		of("End", "10", End{id(0x10), hash(0x30), Bitmap{0x05}, signature}, End.Append, ParseEnd),
		of("manifest", "10", testManifest, appendManifest,
			func(p []byte) ([]FileEntry, error) { return ParseManifest(p, testFiles, testTotal) }),
	}
	for i, s := range list { // those that have a namesake elsewhere
		if s.section == "9" && (s.name == "Ping" || s.name == "Pong" || s.name == "Offer") {
			list[i].name += ", control"
		}
	}
	return list
})

func sampleNamed(name string) sample {
	for _, s := range samples() {
		if s.name == name {
			return s
		}
	}
	panic("no sample named " + name)
}

// patched is a copy of the message with other bytes at an offset, which counts from the end if negative.
func (s sample) patched(at int, with ...byte) []byte {
	p := bytes.Clone(s.bytes)
	if at < 0 {
		at += len(p)
	}
	copy(p[at:], with)
	return p
}
