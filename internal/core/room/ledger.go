package room

import (
	"encoding/base64"
	"slices"
	"time"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// LedgerFormat names the form of a Ledger: PROTOCOL.md section 12.
const LedgerFormat = "tallow-ledger-1"

// Ledger is how an outgoing transfer stands, per recipient and file, with all that it takes to check the recipients' receipts without us. Byte
// strings are base64 (standard, padded), ids and hashes hexadecimal, times ms since 1970.
type Ledger struct {
	LedgerHead
	Files    []File        `json:"files"`
	Finished bool          `json:"finished"` // nothing more happens, unless a delivery is tried again
	Entries  []LedgerEntry `json:"entries"`
}

// LedgerHead is what a ledger says of the transfer besides its files.
type LedgerHead struct {
	Format    string       `json:"format"`
	Made      int64        `json:"made"`
	ID        string       `json:"id"` // of the transfer
	Sender    LedgerMember `json:"sender"`
	ChunkSize uint32       `json:"chunkSize"`
	Manifest  string       `json:"manifest"` // as it travelled; a delivery root covers its hash
}

// LedgerMember is the sender, as the recipients knew it.
type LedgerMember struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Keys string `json:"keys"` // public
}

// LedgerEntry is how a delivery stands or has ended, per recipient. In a Ledger those of its attempts before a retry that it has signed a receipt for come
// first, as entries of their own.
type LedgerEntry struct {
	Peer     string        `json:"peer"`
	Name     string        `json:"name"`
	Keys     string        `json:"keys,omitempty"` // the recipient's, public; "" if there never was a link to it
	Transfer string        `json:"transfer"`       // as the two call it: a retry has an id of its own
	State    DeliveryState `json:"state"`
	Code     fault.Code    `json:"code,omitempty"`
	Reason   string        `json:"reason,omitempty"`
	Bytes    int64         `json:"bytes"`
	Offered  int64         `json:"offered"` // when, for the first time; 0: not yet
	Ended    int64         `json:"ended"`   // when; 0: not yet
	Files    []LedgerFile  `json:"files"`
	// Of a receipt: whether what it is for was then only in the memory of the recipient's page, the delivery's root, what was signed, and the signature.
	InMemory  bool   `json:"inMemory"`
	Root      string `json:"root,omitempty"`
	Signed    string `json:"signed,omitempty"`
	Signature string `json:"signature,omitempty"`
}

// LedgerFile is how one file of a delivery stands or has ended.
type LedgerFile struct {
	Index   uint32     `json:"index"`
	Path    string     `json:"path"`
	Outcome string     `json:"outcome"` // "verified", "not-wanted", "failed", "pending"
	Code    fault.Code `json:"code,omitempty"`
}

// Ledger reads how an outgoing transfer stands, or has ended. The errors are UnknownTransfer and RoomClosed.
func (r *Room) Ledger(key transfer.Key) (ledger Ledger, err error) {
	err = r.withOutgoing(key, func(o *outgoing) error {
		result := r.outgoingResult(o)
		ledger = Ledger{*result.Head, result.Files, o.ended, slices.Concat(result.Earlier, result.Ledger)}
		return nil
	})
	return ledger, err
}

// outgoingResult is how it ended for each recipient and file.
func (r *Room) outgoingResult(o *outgoing) Result {
	t, m := r.outgoingSnapshot(o), o.machine.Manifest()
	result := Result{ID: t.ID, Files: t.Files, Head: &LedgerHead{Format: LedgerFormat, Made: millis(r.cfg.Now()), ID: t.ID,
		Sender:    LedgerMember{r.self.String(), r.cfg.Name, base64.StdEncoding.EncodeToString(r.identity.PublicKeys())},
		ChunkSize: m.ChunkSize, Manifest: base64.StdEncoding.EncodeToString(m.Encoded)}}
	for i, p := range o.machine.Progress() {
		d := t.Deliveries[i]
		id, offered, ended := o.machine.Delivery(p.Peer)
		entry := LedgerEntry{Peer: d.Peer, Name: d.Name, Keys: base64.StdEncoding.EncodeToString(o.keys[p.Peer]), Transfer: id.String(), State: d.State,
			Code: d.Code, Reason: d.Reason, Bytes: d.Bytes, Offered: millis(offered)}
		if p.State.Final() {
			entry.Ended = millis(ended)
		}
		unwanted := func(file uint32) bool { return o.machine.Unwanted(p.Peer, file) }
		result.Ledger = append(result.Ledger, r.completed(entry, t.Files, o.machine.Receipt(p.Peer), unwanted, p.State.Final()))
		for _, old := range o.machine.Earlier(p.Peer) {
			entry := LedgerEntry{Peer: d.Peer, Name: d.Name, Keys: entry.Keys, Transfer: old.Transfer.String(), State: deliveryStates[old.State], Code: old.Code,
				Bytes: int64(old.Stored), Offered: millis(old.Offered), Ended: millis(old.Ended)}
			unwanted := func(file uint32) bool { return old.Wanted != nil && !old.Wanted.Has(file) }
			result.Earlier = append(result.Earlier, r.completed(entry, t.Files, old.Receipt, unwanted, true))
		}
	}
	return result
}

// completed is an entry with the receipt, if there is one, and what has become of each file.
func (r *Room) completed(entry LedgerEntry, files []File, receipt *wire.Receipt, unwanted func(uint32) bool, ended bool) LedgerEntry {
	if receipt != nil {
		entry.InMemory = receipt.InMemory
		entry.Root, entry.Signature = receipt.Root.String(), base64.StdEncoding.EncodeToString(receipt.Signature)
		entry.Signed = base64.StdEncoding.EncodeToString(seal.Signed(seal.LabelReceipt, receipt.AppendSigned(nil, r.self)))
	}
	for _, f := range files {
		line := LedgerFile{Index: f.Index, Path: f.Path, Outcome: "failed", Code: f.Code}
		switch {
		case receipt != nil && receipt.Files.Has(f.Index):
			line.Outcome = "verified"
		case unwanted(f.Index):
			line.Outcome = "not-wanted"
		case !ended:
			line.Outcome = "pending"
		case line.Code == "":
			line.Code = entry.Code
		}
		entry.Files = append(entry.Files, line)
	}
	return entry
}

// millis is ms since 1970; 0 for no time.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
