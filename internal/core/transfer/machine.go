package transfer

import (
	"errors"
	"time"

	"tallow/internal/core/bulk"
	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/wire"
)

// Key names a transfer: only its sender can continue it.
type Key struct{ Sender, Transfer wire.ID }

// KeyOf is the transfer that a control message from a member to self is about. The zero Key: none.
func KeyOf(m wire.ControlMessage, self, from wire.ID) Key {
	switch m := m.(type) {
	case wire.TransferOffer:
		return Key{from, m.Transfer}
	case wire.ManifestPart:
		return Key{from, m.Transfer}
	case wire.FileFailed:
		return Key{from, m.Transfer}
	case wire.Accept:
		return Key{self, m.Transfer}
	case wire.Decline:
		return Key{self, m.Transfer}
	case wire.Credit:
		return Key{self, m.Transfer}
	case wire.Receipt:
		return Key{self, m.Transfer}
	case wire.Saving:
		return Key{self, m.Transfer}
	case wire.Have:
		return Key{m.Sender, m.Transfer}
	case wire.Cancel:
		return Key{m.Sender, m.Transfer}
	case wire.Pause:
		return Key{m.Sender, m.Transfer}
	}
	return Key{}
}

// State is the state of a delivery: of a transfer to one recipient.
type State uint8

// The states of a delivery. From Done on they are final.
const (
	Offered      State = iota // waiting for the recipient's answer
	Transferring              // chunks flow
	Paused                    // either end holds it
	Interrupted               // the link is lost; goes on when it is back
	Verifying                 // everything has arrived; the whole is checked
	Saving                    // being made durable
	Done                      // verified, and where the receipt says
	Declined
	Cancelled
	Failed
)

// Final reports whether the delivery has ended.
func (s State) Final() bool { return s >= Done }

// Effect is something that the room does for a machine.
type Effect interface{ effect() }

// SendControl sends a control message to a member. It is dropped if there is no link.
type SendControl struct {
	Peer    wire.ID
	Message wire.ControlMessage
}

// SendBulk sends a bulk message to a member: Head, followed by the chunks in Data, or, for what must be signed, by
// whatever the room makes of End. The room releases Data, and answers with Sent when the transport has taken it.
type SendBulk struct {
	Peer  wire.ID
	Head  []byte
	Data  []*bulk.Buffer // a chunk each, as it is or compressed
	Bytes uint32         // of the chunks, not compressed
	End   *wire.End      // to be signed and sent instead
	Again int            // how many of the chunks were sent before, over a link that was lost
}

// Read reads a chunk and hashes it. The room answers with ReadDone.
type Read struct {
	Chunk  chunk.Ref
	Offset int64
	Length uint32
}

// Deflate compresses a chunk or, as a sample, part of one. The room releases Buffer and answers with Deflated.
type Deflate struct {
	Chunk  chunk.Ref
	ID     uint64       // for Deflated
	Buffer *bulk.Buffer // the chunk
	Data   []byte       // what is to be compressed of it
	Most   int          // a result that is longer is of no use
}

// Store verifies chunks against their announced hashes and writes them. The room releases Buffer and answers with Stored.
type Store struct {
	Buffer *bulk.Buffer // holds all the data
	Chunks []StoreChunk
	Cost   uint64 // credit; for Stored
}

// StoreChunk is one chunk of a Store.
type StoreChunk struct {
	Chunk  chunk.Ref
	Offset int64 // in the file
	Size   int64 // of the file
	Length int   // of the chunk
	Data   []byte
	// Compressed says that Data is to be inflated to Length. What cannot be is as bad as a wrong hash.
	Compressed bool
	Hash       wire.Hash
}

// Bytes is how many bytes these of its chunks have. They are its first ones, as Stored.Done has them.
func (s Store) Bytes(done []chunk.Ref) (n uint64) {
	for i := range done {
		n += uint64(s.Chunks[i].Length)
	}
	return n
}

// Verify computes the roots of what has come. Sum may run beside the machine; the room answers with what it returns.
type Verify struct{ Sum func() Verified }

// Commit makes the files durable. The room answers with Committed.
type Commit struct{ Files wire.Bitmap }

// SendReceipt signs and sends the receipt.
type SendReceipt struct {
	Peer  wire.ID // the transfer's sender
	Root  wire.Hash
	Files wire.Bitmap
}

// Discard removes what has been stored and noted of the transfer.
type Discard struct{}

// Note appends records to the transfer's journal. What is stored after it counts as stored when the note is written as well.
type Note struct {
	Records []byte
	Then    *Noted // unless nil, what the room answers when they are written, or cannot be
}

// Settled says that what is wanted is verified and durable: these records are the last of the journal.
type Settled struct{ Records []byte }

// Recheck opens again what has been stored of an incoming transfer and its journal, after they have failed, and holds the one against the other. The room
// answers with Restored.
type Recheck struct{}

// Resumed says that a transfer goes on which had ended because the other end was gone, or the recipient's storage had failed.
type Resumed struct{}

// Violation says that a member broke the protocol; the room closes its link.
type Violation struct {
	Peer wire.ID
	Why  error
}

// Changed says that the snapshot has changed.
type Changed struct{}

// Finished says that every delivery of the transfer has ended.
type Finished struct{}

func (SendControl) effect() {}
func (SendBulk) effect()    {}
func (Read) effect()        {}
func (Deflate) effect()     {}
func (Store) effect()       {}
func (Verify) effect()      {}
func (Commit) effect()      {}
func (SendReceipt) effect() {}
func (Discard) effect()     {}
func (Note) effect()        {}
func (Settled) effect()     {}
func (Recheck) effect()     {}
func (Resumed) effect()     {}
func (Violation) effect()   {}
func (Changed) effect()     {}
func (Finished) effect()    {}

// Event is something that happened.
type Event interface{ event() }

// LinkUp: a link to the member is open, perhaps anew.
type LinkUp struct {
	Peer     wire.ID
	Inflates bool    // the member takes compressed chunks, and we can make them
	Rate     float64 // as in Sent
}

// LinkDown: the link is gone. Final says that the member is out of the room or said goodbye, so nobody waits for it.
type LinkDown struct {
	Peer  wire.ID
	Final bool
	Code  fault.Code // why, when Final
}

// Received: a control message about this transfer came from the member. A receipt's signature has been verified.
type Received struct {
	Peer    wire.ID
	Message wire.ControlMessage
}

// ReceivedBulk: a bulk message about this transfer came from the member. Message is a wire.Hashes, wire.Chunks or wire.End;
// Buffer holds it and is retained by the machine if need be. The signature of an End has been verified.
type ReceivedBulk struct {
	Peer     wire.ID
	Message  any
	Buffer   *bulk.Buffer
	Inflates bool // compressed chunks were agreed upon
}

// Sent: a SendBulk to the member is with the transport.
type Sent struct {
	Peer wire.ID
	Rate float64 // bytes per second that the link carries; 0: unknown
}

// ReadDone answers Read. Buffer is handed over.
type ReadDone struct {
	Chunk  chunk.Ref
	Buffer *bulk.Buffer
	Hash   wire.Hash
	Err    error // wraps ErrSourceChanged or ErrSourceUnreadable
}

// Deflated answers Deflate.
type Deflated struct {
	Chunk        chunk.Ref
	ID           uint64       // the Deflate's
	Raw          int          // bytes of the Deflate's Data
	Buffer       *bulk.Buffer // the result, handed over; nil: longer than Most
	Begun, Ended time.Time
	Err          error
}

// Stored answers Store, chunk by chunk in Done; Bad is the first whose hash did not match; Err is the storage's. If that is ErrStorageFull,
// Left is what of the Store is not done: it is handed back with its buffer.
type Stored struct {
	Done []chunk.Ref
	Cost uint64 // the Store's
	Bad  bool
	Err  error
	Left *Store
}

// Stored is the answer when so much of it has been done, and releases the buffer unless the disk is full.
func (s Store) Stored(done []chunk.Ref, bad bool, err error) Stored {
	e := Stored{Done: done, Cost: s.Cost, Bad: bad, Err: err}
	if !bad && errors.Is(err, ErrStorageFull) {
		s.Chunks = s.Chunks[len(done):]
		e.Left = &s
	} else {
		s.Buffer.Release()
	}
	return e
}

// Verified answers Verify.
type Verified struct {
	end   *wire.End // what it is for
	files map[uint32]wire.Hash
	root  wire.Hash
}

// Committed answers Commit.
type Committed struct{ Err error }

// Restored: of the chunks that a journal says were announced, these are on disk as announced; where a Commit may have failed (Incoming.Flushed), they
// have been written again. With Err, the storage's, nobody knows.
type Restored struct {
	Have []chunk.Ref
	Err  error
}

// Noted: whoever goes on with the outgoing transfer when this process has ended finds that the member accepted it, or its journal cannot be written.
type Noted struct {
	Peer     wire.ID
	Transfer wire.ID // what it is called between the two
}

// SourcesReady: the files of an outgoing transfer that was restored can be read, and what was read before is as it was.
type SourcesReady struct{}

// SourceFailed: a file of an outgoing transfer that was restored is not what it was. Err wraps ErrSourceChanged or ErrSourceUnreadable.
type SourceFailed struct {
	File uint32
	Err  error
}

// AcceptFiles: the person accepts; nil means all files.
type AcceptFiles struct{ Files []uint32 }

// DeclineOffer: the person declines.
type DeclineOffer struct{ Reason string }

// CancelPeer: the person cancels one delivery of an outgoing transfer.
type CancelPeer struct{ Peer wire.ID }

// CancelAll: the person cancels the transfer.
type CancelAll struct{}

// StopOffering: whoever is admitted from now on is not offered an outgoing transfer any more. It finishes when what has begun has ended.
type StopOffering struct{}

// RetryPeer: the person offers it again to a recipient whose delivery has ended otherwise than Done. Messages of the former
// attempt may still be on their way, so it is a transfer of its own on the wire, with a fresh id.
type RetryPeer struct {
	Peer     wire.ID
	Transfer wire.ID
}

// SetPaused: the person holds or continues the transfer.
type SetPaused struct{ Paused bool }

// SpaceFreed: something was deleted from the disk.
type SpaceFreed struct{}

// Tick: time has passed. It comes a few times a second, or far less often in a hidden tab; nothing but speeds, limits
// and deadlines may depend on it.
type Tick struct{}

// Grant: the shared limit lets one message out, to whoever Waits.
type Grant struct{}

func (LinkUp) event()       {}
func (LinkDown) event()     {}
func (Received) event()     {}
func (ReceivedBulk) event() {}
func (Sent) event()         {}
func (Deflated) event()     {}
func (ReadDone) event()     {}
func (Stored) event()       {}
func (Verified) event()     {}
func (Committed) event()    {}
func (Restored) event()     {}
func (Noted) event()        {}
func (SourcesReady) event() {}
func (SourceFailed) event() {}
func (AcceptFiles) event()  {}
func (DeclineOffer) event() {}
func (CancelPeer) event()   {}
func (CancelAll) event()    {}
func (StopOffering) event() {}
func (RetryPeer) event()    {}
func (SetPaused) event()    {}
func (SpaceFreed) event()   {}
func (Tick) event()         {}
func (Grant) event()        {}

// Grace is how long a delivery waits for a lost link before it fails as peer-gone. When the other end comes back all the same, it goes on: the sender
// offers it again under its id, and the recipient, if it keeps what it has (Incoming.Keep), answers with that.
const Grace = 30 * time.Second

// Progress is how far a delivery is.
type Progress struct {
	Peer   wire.ID
	State  State
	Code   fault.Code // why it ended otherwise than Done; of one that has not ended fault.DiskFull, while it waits for room
	Reason string     // the recipient's words when it declined, as they came
	Total  uint64     // bytes of the files wanted
	Stored uint64     // of these, on the recipient's disk
	Speed  float64    // bytes per second, smoothed
	// Repeated is how many bytes have come (incoming) that were verified on disk by then: a sender that keeps to the protocol repeats none.
	Repeated uint64
}

// failureCodes pairs the codes on the wire with the public ones.
var failureCodes = map[wire.FailureCode]fault.Code{
	wire.FailureCancelled:         fault.CancelledByPeer,
	wire.FailureFileChanged:       fault.FileChanged,
	wire.FailureFileUnreadable:    fault.FileUnreadable,
	wire.FailureDiskFull:          fault.DiskFull,
	wire.FailureStorageFailed:     fault.StorageFailed,
	wire.FailureIntegrity:         fault.Integrity,
	wire.FailureProtocolViolation: fault.ProtocolViolation,
	wire.FailureSenderGone:        fault.PeerGone,
	wire.FailureTooLarge:          fault.TooLarge,
	wire.FailureInternal:          fault.Internal,
}

// meter smooths a running total into a speed: an exponential average over about three seconds of the time that passed.
type meter struct {
	at    time.Time
	total uint64
	speed float64
}

const meterWindow = 3 * time.Second

func (m *meter) update(now time.Time, total uint64) {
	if m.at.IsZero() || total < m.total {
		*m = meter{at: now, total: total}
		return
	}
	dt := now.Sub(m.at)
	if dt < 200*time.Millisecond {
		return
	}
	current := float64(total-m.total) / dt.Seconds()
	if m.speed == 0 {
		m.speed = current
	} else {
		weight := min(1, dt.Seconds()/meterWindow.Seconds())
		m.speed += weight * (current - m.speed)
	}
	m.at, m.total = now, total
}
