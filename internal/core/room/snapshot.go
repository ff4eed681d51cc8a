package room

import (
	"io"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/fault"
	"tallow/internal/core/peer"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

var deliveryStates = map[transfer.State]DeliveryState{
	transfer.Offered:      DeliveryOffered,
	transfer.Transferring: DeliveryTransferring,
	transfer.Paused:       DeliveryPaused,
	transfer.Interrupted:  DeliveryInterrupted,
	transfer.Verifying:    DeliveryVerifying,
	transfer.Saving:       DeliverySaving,
	transfer.Done:         DeliveryDone,
	transfer.Declined:     DeliveryDeclined,
	transfer.Cancelled:    DeliveryCancelled,
	transfer.Failed:       DeliveryFailed,
}

var kinds = map[wire.FileKind]string{wire.KindFile: "file", wire.KindText: "text", wire.KindDirectory: "directory"}

// filesPerTick is for how many files of a transfer a snapshot per tick is not too much.
const filesPerTick = 2000

// publishChanges reports what has changed since the last time.
func (r *Room) publishChanges() {
	for _, id := range r.order {
		r.publishPeer(r.members[id])
	}
	if r.cfg.Now().Sub(r.published) < tickEvery {
		return // the next tick reports it
	}
	r.published = r.cfg.Now()
	due := func(last *time.Time, files int) bool { // a snapshot has all files: those of many come less often
		ok := r.published.Sub(*last) >= tickEvery*time.Duration(files/filesPerTick)
		if ok {
			*last = r.published
		}
		return ok
	}
	for _, o := range r.outgoing {
		if o.dirty && !o.ended && due(&o.published, len(o.paths)) {
			o.dirty = false
			r.event(TransferProgress{r.outgoingSnapshot(o)})
		}
	}
	for _, in := range r.incoming {
		if in.dirty && !in.ended && in.machine.Accepted() && due(&in.published, len(in.machine.Paths())) {
			in.dirty = false
			r.event(TransferProgress{r.incomingSnapshot(in)})
		}
	}
}

// shown is what a snapshot of a member is made of, as far as it changes: cheap to compare, since the loop does so at each record.
type shown struct {
	name            string
	verified, open  bool
	state           peer.LinkState
	code            fault.Code
	route, protocol string
	quality         peer.Quality
	rtt             int64 // µs
	words           [4]string
}

func (m *member) shows() shown {
	state, code := m.negotiation.State()
	return shown{m.name, m.verified, m.link != nil, state, code, m.route, m.protocol, m.quality.Quality(), m.quality.RTT().Microseconds(), m.words}
}

func (r *Room) publishPeer(m *member) {
	if now := m.shows(); now != m.shown {
		m.shown = now
		r.event(PeerChanged{m.snapshot(r)})
	}
}

// delivery is a snapshot of a delivery. lastName is what the member was called when its link was lost.
func (r *Room) delivery(p transfer.Progress, lastName string) Delivery {
	d := Delivery{Peer: p.Peer.String(), Name: lastName, State: deliveryStates[p.State], Total: int64(p.Total), Bytes: int64(p.Stored),
		Percent: 100, Speed: p.Speed, ETA: -1, Quality: QualityDisconnected, Repeated: int64(p.Repeated), Code: p.Code, Reason: legible(p.Reason)}
	if m := r.members[p.Peer]; m != nil {
		if m.name != "" {
			d.Name = m.name
		}
		if m.link != nil {
			d.Quality = qualities[m.quality.Quality()]
		}
	}
	if p.Total > 0 {
		d.Percent = 100 * float64(p.Stored) / float64(p.Total)
	} else if !p.State.Final() {
		d.Percent = 0
	}
	switch {
	case p.State.Final():
		d.ETA = 0
	case p.Speed > 0:
		d.ETA = float64(p.Total-p.Stored) / p.Speed
	}
	return d
}

func files(m *chunk.Manifest, paths []string) []File {
	list := make([]File, len(m.Files))
	for i, f := range m.Files {
		list[i] = File{Index: uint32(i), Kind: kinds[f.Kind], Name: chunk.Base(paths[i]), Path: paths[i], Size: int64(f.Size),
			Type: f.MediaType, Modified: int64(f.Modified & (1<<63 - 1))}
	}
	return list
}

func offerSnapshot(in *incoming) Offer {
	m := in.machine.Manifest()
	return Offer{ID: in.machine.Key().Transfer.String(), From: in.machine.Key().Sender.String(), Recipients: len(in.machine.Offer().Participants), Files: files(m, in.machine.Paths()), TotalSize: int64(m.Total)}
}

func (r *Room) outgoingSnapshot(o *outgoing) Transfer {
	m := o.machine.Manifest()
	t := Transfer{ID: o.machine.Key().Transfer.String(), TotalSize: int64(m.Total), Finished: o.ended, Files: files(m, o.paths),
		Waiting: o.machine.Wanting() && o.files == nil, LateJoiners: o.machine.Late(), Paused: o.machine.Paused(), NotKept: o.notKept, Deliveries: []Delivery{}}
	for i := range t.Files {
		f := &t.Files[i]
		if root, ok := o.machine.FileRoot(f.Index); ok {
			f.Root = root.String()
		}
		f.Code = o.machine.FileFailure(f.Index)
	}
	for _, p := range o.machine.Progress() {
		d, receipt := r.delivery(p, o.names[p.Peer]), o.machine.Receipt(p.Peer)
		d.InMemory = receipt != nil && receipt.InMemory
		t.Deliveries = append(t.Deliveries, d)
	}
	return t
}

func (r *Room) incomingSnapshot(in *incoming) Transfer {
	m := in.machine.Manifest()
	t := Transfer{ID: in.machine.Key().Transfer.String(), Incoming: true, TotalSize: int64(m.Total), Finished: in.ended, Files: files(m, in.machine.Paths()),
		Paused: in.machine.Paused(), Deliveries: []Delivery{r.delivery(in.machine.Progress(), in.name)}}
	t.Deliveries[0].InMemory = in.machine.Committed() && in.store.storage.InMemory()
	for i := range t.Files {
		f := &t.Files[i]
		stored, root, code := in.machine.File(f.Index)
		f.Stored, f.Complete, f.Code = int64(stored), in.machine.Complete(f.Index), code
		if root != nil {
			f.Root = root.String()
		}
	}
	return t
}

func (r *Room) incomingResult(in *incoming) Result {
	t := r.incomingSnapshot(in)
	result := Result{ID: t.ID, Code: in.machine.Progress().Code, Delivery: in.store.delivery}
	for _, f := range t.Files {
		if in.machine.Wanted().Has(f.Index) {
			result.Files = append(result.Files, f)
		}
	}
	if !in.machine.Committed() {
		return result
	}
	result.File, result.Stored = in.store.stored(), make(map[uint32]*io.SectionReader)
	for _, f := range result.Files {
		if f.Complete && f.Kind != kinds[wire.KindDirectory] {
			result.Stored[f.Index] = in.store.section(result.File, f.Index)
		}
	}
	return result
}
