package room

import (
	"io"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// Admission says how newcomers enter.
type Admission string

// The kinds of admission.
const (
	AdmitAll      Admission = "auto"     // whoever holds the link, up to the limit
	AdmitApproval Admission = "approval" // the owner is asked
)

// MaxReconnectAttempts is the most that Config.ReconnectAttempts may be.
const MaxReconnectAttempts = 20

// DefaultMaxRecipients is how many others a room takes unless told otherwise.
const DefaultMaxRecipients = 10

// Config is what a room is made of. Engine, Storage, NewConn and Events are required.
type Config struct {
	Name          string                 // shown to the others; at most wire.MaxName bytes
	ServerURL     string                 // of the signaling endpoint, ws or wss
	Seed          *[32]byte              // the identity; nil makes a new one
	Saved         *Saved                 // to come back to an own room; nil makes a new one
	ICE           []wire.ICEServer       // used instead of what the server offers, when not empty
	RelayOnly     bool                   // connect through relays only; the server may demand it as well
	MaxRecipients int                    // 1 to wire.MaxRoster-1; 0 is DefaultMaxRecipients
	Admission     Admission              // "" is AdmitAll
	Quality       peer.QualityThresholds // zero: peer.DefaultQualityThresholds
	Manual        bool                   // links come from Connect and Signal only
	// ReconnectAttempts is how many ICE restarts a link in doubt gets, and after how many attempts without a link a member is shown as
	// failed: 1 to MaxReconnectAttempts; 0 is peer.DefaultReconnectAttempts.
	ReconnectAttempts int

	Engine  bulk.Engine // one that is a bulk.Compressor, too, has chunks compressed where that pays
	Storage transfer.Storage
	// Resume says that Storage is a transfer.Durable of this identity alone: what is unfinished when the room ends otherwise than by Leave goes on in the
	// next room that has the same seed and storage.
	Resume  bool
	NewConn func(peer.ConnConfig) (peer.Conn, error)
	// Events is called with each event, in order, from one goroutine. It must not block for long and must not call
	// the room's methods from within.
	Events func(Event)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// State is a room's state.
type State string

// The states of a room.
const (
	StateConnecting   State = "connecting"   // no answer from the server or the owner yet
	StatePending      State = "pending"      // the owner is being asked
	StateOpen         State = "open"         // in the room
	StateDisconnected State = "disconnected" // in the room, but without the server: links go on, nobody new comes
	StateClosed       State = "closed"
)

// Peer is a snapshot of another member.
type Peer struct {
	ID          string      `json:"id"` // hexadecimal
	Name        string      `json:"name"`
	Owner       bool        `json:"owner"`
	State       PeerState   `json:"state"`
	Quality     PeerQuality `json:"quality"`
	RTT         float64     `json:"rtt"`            // ms, smoothed, without our own load; 0: unknown
	Route       string      `json:"route"`          // "", "direct" or "relay"
	Protocol    string      `json:"protocol"`       // "", "udp", "tcp" or "tls"; of a relayed one, to this end's relay
	SafetyWords []string    `json:"safetyWords"`    // four, once open; empty before
	Verified    bool        `json:"verified"`       // the person has compared the words; sticks to the identity
	Code        fault.Code  `json:"code,omitempty"` // why it failed
}

// PeerState is the state of the link to a member.
type PeerState string

// The states of a link.
const (
	PeerConnecting PeerState = "connecting"
	PeerOpen       PeerState = "open"
	PeerClosing    PeerState = "closing"
	PeerClosed     PeerState = "closed"
	PeerFailed     PeerState = "failed"
)

// PeerQuality is how well a link works.
type PeerQuality string

// The qualities of a link, from its round-trip time, loss and silence: see peer.QualityMeter.
const (
	QualityExcellent    PeerQuality = "excellent" // below 100 ms
	QualityGood         PeerQuality = "good"      // below 200 ms
	QualityFair         PeerQuality = "fair"      // below 300 ms
	QualityPoor         PeerQuality = "poor"
	QualityDisconnected PeerQuality = "disconnected" // no link, or nothing comes over it
)

// File is one file of a transfer.
type File struct {
	Index    uint32     `json:"index"`
	Kind     string     `json:"kind"` // "file", "text" or "directory"
	Name     string     `json:"name"` // the last element of Path
	Path     string     `json:"path"` // safe: relative, no empty, dot or reserved elements
	Size     int64      `json:"size"`
	Type     string     `json:"type"`           // media type; may be empty
	Modified int64      `json:"lastModified"`   // ms since 1970; 0: unknown
	Stored   int64      `json:"stored"`         // bytes on disk (incoming only)
	Complete bool       `json:"complete"`       // incoming: verified on disk
	Root     string     `json:"root"`           // hexadecimal, once known
	Code     fault.Code `json:"code,omitempty"` // why it failed
}

// Offer is files that another member wants to send.
type Offer struct {
	ID         string `json:"id"` // of the transfer: hexadecimal
	From       string `json:"from"`
	Recipients int    `json:"recipients"` // to how many it is offered, us included
	Files      []File `json:"files"`
	TotalSize  int64  `json:"totalSize"`
}

// DeliveryState is the state of one delivery: of a transfer to or from one member.
type DeliveryState string

// The states of a delivery.
const (
	DeliveryOffered      DeliveryState = "offered" // waiting for the recipient's answer
	DeliveryTransferring DeliveryState = "transferring"
	DeliveryPaused       DeliveryState = "paused"
	DeliveryInterrupted  DeliveryState = "interrupted" // the link is lost; goes on when it is back
	DeliveryVerifying    DeliveryState = "verifying"   // everything has arrived; the whole is being checked
	DeliverySaving       DeliveryState = "saving"      // being made durable
	DeliveryDone         DeliveryState = "done"        // verified on the recipient's disk, or InMemory
	DeliveryDeclined     DeliveryState = "declined"
	DeliveryCancelled    DeliveryState = "cancelled"
	DeliveryFailed       DeliveryState = "failed"
)

// Delivery is a snapshot of one delivery.
type Delivery struct {
	Peer    string        `json:"peer"`
	Name    string        `json:"name"`
	State   DeliveryState `json:"state"`
	Total   int64         `json:"total"` // bytes of the files that the recipient wants
	Bytes   int64         `json:"bytes"` // of these, on the recipient's disk
	Percent float64       `json:"percent"`
	Speed   float64       `json:"speed"` // bytes per second, smoothed
	ETA     float64       `json:"eta"`   // seconds; -1: unknown
	Quality PeerQuality   `json:"quality"`
	// Repeated is how many bytes have come (incoming) that were on disk already.
	Repeated int64 `json:"repeated"`
	// InMemory: what has been delivered is, by the recipient's receipt, only in the memory of its page.
	InMemory bool       `json:"inMemory"`
	Code     fault.Code `json:"code,omitempty"`
	Reason   string     `json:"reason,omitempty"` // the recipient's own words when it declined
}

// Transfer is a snapshot of a transfer.
type Transfer struct {
	ID         string     `json:"id"`
	Incoming   bool       `json:"incoming"`
	Files      []File     `json:"files"`
	TotalSize  int64      `json:"totalSize"`
	Deliveries []Delivery `json:"deliveries"` // outgoing: one per recipient; incoming: one, from the sender
	Finished   bool       `json:"finished"`
	Waiting    bool       `json:"waiting"` // outgoing, of an earlier room: its files have to be given again (Continue)
	// LateJoiners: outgoing, and whoever is admitted later is offered it. It does not finish before that is over.
	LateJoiners bool `json:"lateJoiners"`
	Paused      bool `json:"paused"`  // by this member (SetPaused)
	NotKept     bool `json:"notKept"` // outgoing: its journal could not be written, so no other room can go on with it
}

// Result is how a transfer ended. An outgoing one always has a result, however few recipients succeeded.
type Result struct {
	ID     string        `json:"id"`
	Files  []File        `json:"files"`
	Head   *LedgerHead   `json:"head,omitempty"` // outgoing only, as the next two
	Ledger []LedgerEntry `json:"ledger,omitempty"`
	// Earlier is the attempts before a retry that a recipient has signed a receipt for.
	Earlier []LedgerEntry `json:"earlier,omitempty"`
	Code    fault.Code    `json:"code,omitempty"` // incoming: why it failed as a whole
	// Delivery names in Storage what was received: the file named StoredName, in which all files lie one after another.
	Delivery string                       `json:"-"`
	File     transfer.StoredFile          `json:"-"` // incoming: that file, committed; nil when nothing arrived
	Stored   map[uint32]*io.SectionReader `json:"-"` // incoming: where in it each file that arrived lies, by index
}

// Event is one of the events below.
type Event interface{ event() }

// RoomChanged: the room's state changed, or whether it connects through relays only. Code says why when it closed or cannot connect.
type RoomChanged struct {
	State     State
	Code      fault.Code
	RelayOnly bool
}

// PeerJoined: a member appeared, in whatever state.
type PeerJoined struct{ Peer Peer }

// PeerChanged: something in a member's snapshot changed.
type PeerChanged struct{ Peer Peer }

// PeerLeft: a member is no longer in the room.
type PeerLeft struct{ Peer Peer }

// JoinRequested: somebody asks to be admitted (AdmitApproval).
type JoinRequested struct{ ID, Name string }

// OfferReceived: another member wants to send.
type OfferReceived struct{ Offer Offer }

// OfferWithdrawn: an offer that was not answered yet is gone.
type OfferWithdrawn struct {
	From, ID string
	Code     fault.Code
}

// TransferProgress: a transfer's snapshot changed; at most about ten a second for each.
type TransferProgress struct{ Transfer Transfer }

// TransferFinished: a transfer ended. One that ended because the other end was gone goes on when that is back: TransferProgress says so.
type TransferFinished struct {
	Transfer Transfer
	Result   Result
}

// ReceivedExpired: what was received in a delivery (Result.Delivery) and handed over is deleted.
type ReceivedExpired struct{ Delivery string }

// SignalMade: in a manual room, a value for the caller to carry to the peer's. Candidate: it only adds to one before it.
type SignalMade struct {
	Peer, Value string
	Candidate   bool
}

// SignalArrived: in a manual room, a value that the peer has sent over the hub. It has not been taken: that is Signal's business.
type SignalArrived struct {
	Peer, Value string
	Kind        SignalKind
}

// SignalKind says what a value is to the room that it has come to.
type SignalKind string

// The kinds of values.
const (
	SignalOffer     SignalKind = "offer"     // nothing is under way with the peer
	SignalAnswer    SignalKind = "answer"    // it goes on with what is
	SignalCandidate SignalKind = "candidate" // it adds to one before it
)

// TransferResumed: a transfer of an earlier room of this identity goes on here. An outgoing one waits for its files. An incoming one that is Finished was
// done, and not handed over: TransferFinished follows.
type TransferResumed struct {
	Sender   string    // its id
	Opened   time.Time // when it was begun, gone on with, or done before
	Bytes    int64     // about what had been transferred then
	Transfer Transfer
}

// Problem: something went wrong that belongs to no call and no transfer.
type Problem struct {
	Code fault.Code
	Peer string // "" when it concerns nobody in particular
}

func (RoomChanged) event()      {}
func (PeerJoined) event()       {}
func (PeerChanged) event()      {}
func (PeerLeft) event()         {}
func (JoinRequested) event()    {}
func (OfferReceived) event()    {}
func (OfferWithdrawn) event()   {}
func (TransferProgress) event() {}
func (TransferFinished) event() {}
func (ReceivedExpired) event()  {}
func (SignalMade) event()       {}
func (SignalArrived) event()    {}
func (TransferResumed) event()  {}
func (Problem) event()          {}

// OutFile is a file to send. Exactly one of Source and Text counts, by Kind. A Source that is an io.Closer becomes the room's unless the call
// that it is given to fails: it is closed when nothing can want it any more, with the room at the latest.
type OutFile struct {
	Kind     wire.FileKind
	Path     string          // relative, with '/'
	Type     string          // media type
	Modified int64           // ms since 1970; 0: unknown
	Source   transfer.Source // of a file
	Text     string          // of a text
}

// SendOptions are the options of Send.
type SendOptions struct {
	To                []wire.ID // nil: every member whose state is PeerOpen or PeerConnecting
	LimitPerRecipient int64     // bytes per second; 0: none
	Limit             int64     // bytes per second to all of them; 0: none
	LateJoiners       bool      // members admitted later are offered it too, until StopOffering; then there need be no recipient yet
	ChunkSize         uint32    // 0: chosen by the total size
	Plain             bool      // nothing is compressed
}
