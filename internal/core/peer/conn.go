package peer

import (
	"context"
	"errors"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/wire"
)

// Errors of connections and channels.
var (
	// ErrClosed says that the connection or channel is closed.
	ErrClosed = errors.New("peer: closed")
	// ErrFraming says that the remote end sent something that is no record. The channel is closed by then.
	ErrFraming = errors.New("peer: remote sent a malformed record")
	// ErrOverrun says that the remote end sent far more than was read (MaxUnread). The channel is closed by then.
	ErrOverrun = errors.New("peer: remote sent more than may wait")
	// ErrTooManyCandidates says that MaxEarlyCandidates candidates already wait for their remote description.
	ErrTooManyCandidates = errors.New("peer: too many early candidates")
)

// ConnConfig configures a connection.
type ConnConfig struct {
	ICE       wire.ICEServers
	RelayOnly bool       // gather, tell and take relay candidates only; so does the demand of ICE
	Pool      *bulk.Pool // where received records come from; required
	// Candidate is called with each local candidate, and with an empty one at the end of each gathering. State is called
	// with each change of the connection's state, but not with ConnClosed after an own Close. Neither runs beside the
	// other or after Close has returned. They must not block, and not call Close. Either may be nil.
	Candidate func(wire.Candidate)
	State     func(ConnState)
	// Stray is called with the type of each candidate that the platform came up with although only relays may be used ("" if it named
	// none that is known). It was not told to anybody. It may run beside the others, and must not block. It may be nil.
	Stray func(candidateType string)
}

// ConnState is the state of the connection beneath a link.
type ConnState uint8

// The states of a connection, as RTCPeerConnection.connectionState has them.
const (
	ConnNew ConnState = iota
	ConnConnecting
	ConnConnected
	ConnDisconnected
	ConnFailed
	ConnClosed
)

// Conn is one RTCPeerConnection with its two data channels, both negotiated: control (id 0) and bulk (id 1). A channel
// that the remote opens besides is closed. NewConn makes it; conn_pion.go holds what the platforms share, conn_native.go
// and conn_js.go what differs. After Close all methods return ErrClosed. Where ctx ends before an operation does, the
// operation still runs to its end, unobserved.
type Conn interface {
	// Offer makes an offer and sets it as the local description. restart asks for new ICE credentials; such an offer may take the
	// place of one that has no answer yet.
	Offer(ctx context.Context, restart bool) (sdp string, err error)
	// Answer applies a remote offer, makes the answer, and sets it as the local description.
	Answer(ctx context.Context, offer string) (sdp string, err error)
	// SetAnswer applies the remote answer.
	SetAnswer(ctx context.Context, sdp string) error
	// AddCandidate adds a remote candidate, an empty one at the end. A candidate that comes before the remote description
	// with its user name fragment waits for it; with MaxEarlyCandidates waiting, it is ErrTooManyCandidates.
	AddCandidate(ctx context.Context, c wire.Candidate) error
	// SetICEServers replaces the servers, for the next gathering (fresh TURN credentials).
	SetICEServers(ctx context.Context, ice wire.ICEServers) error
	// Channel is one of the two data channels.
	Channel(ch wire.Channel) Channel
	// Stats reads the connection's counters.
	Stats(ctx context.Context) (ConnStats, error)
	// Close closes the connection and waits until nothing of it runs any more: at most about closeWithin for an operation under
	// way, which a browser may never end. It is idempotent.
	Close() error
}

// ConnStats are the counters of a connection.
type ConnStats struct {
	BytesSent, BytesReceived     uint64 // on the wire, by the transport
	PacketsSent, PacketsReceived uint64 // 0 where the platform does not count them
	ChecksSent, ChecksAnswered   uint64 // connectivity checks on the selected pair; 0 sent where the platform does not count them
	Pair                         uint64 // grows when another pair is selected
	LocalType, RemoteType        string // candidate types of the selected pair: host, srflx, prflx, relay; empty: none yet
	Protocol                     string // udp, tcp or tls; of a local relay candidate, the protocol to the relay
}

// Channel carries records over one data channel: WriteRecord cuts them into messages, ReadRecord puts them together.
type Channel interface {
	// Opened is closed when the channel is open.
	Opened() <-chan struct{}
	// Done is closed when the channel is closed, by whoever it was. Natively the remote's close shows only once what came
	// before it has found room in the queue, so somebody has to read.
	Done() <-chan struct{}
	// WriteRecord sends a whole record. It waits until the channel is open and at most HighWater bytes are queued in the
	// transport, and copies what it needs before it returns. When ctx ends first, nothing of the record was sent; or, on a
	// paced channel, a part, and then the channel is closed, as no other record can follow. On a closed channel it
	// returns what ended it: ErrClosed, ErrFraming or ErrOverrun. One goroutine at a time may call it.
	WriteRecord(ctx context.Context, record []byte) error
	// ReadRecord waits for the next whole record, in a buffer that the caller releases. It returns what had arrived whole
	// before the remote closed the channel, and then what ended it; after an own Close, ErrClosed at once. One goroutine at
	// a time may call it.
	ReadRecord(ctx context.Context) (*bulk.Buffer, error)
	// Pace lets p decide when messages go out, and tells it of those that arrive, also of those that already have. Without it they
	// go out when the transport has room. It is called once, before the first record is written or read.
	Pace(p Pacing)
	// Buffered is how many bytes wait in the transport: at most HighWater and a record.
	Buffered() int
	// Close closes the channel: the remote's reads end after what was written before, unless the connection is closed
	// meanwhile. What had arrived and was not read is dropped.
	Close() error
}

// Pacing paces a channel. Its methods are called from the channel's goroutines.
type Pacing interface {
	// Next waits until a message may go out, and returns its length: n, or from wire.MinMessageSize to n bytes.
	Next(ctx context.Context, n int) (int, error)
	// Arrived is told how many bytes of messages have arrived in all. It must not block.
	Arrived(total uint64)
	// Due is what total has to come to before Arrived makes anything of it, and for how long it can wait for that: a message that comes later is told
	// of at once.
	Due() (total uint64, within time.Duration)
}

// HighWater is how many bytes a channel queues in the transport before WriteRecord blocks, LowWater where it goes on.
const (
	HighWater = 4 << 20
	LowWater  = 1 << 20
)

// MaxUnread is how much a channel keeps of what was received and not read, in bytes. Natively the transport then slows
// the remote down. A browser has no such means: there the channel is closed with ErrOverrun, so the layers above must
// keep a remote that follows the protocol below MaxUnread by credit. A browser counts 256 bytes more for each message.
const MaxUnread = maxUnread

// MaxEarlyCandidates is how many candidates a connection keeps for a remote description that has not come yet.
const MaxEarlyCandidates = 64
