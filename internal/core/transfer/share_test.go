package transfer_test

import (
	"testing"
	"time"

	"tallow/internal/core/chunk"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
)

// TestShareCredit: however many transfers are accepted, of however large chunks, and however long their senders leave what they are granted unused,
// what may come before the disk has taken it is bounded. Those of usual chunks all have credit; who has none gets it when somebody else has ended.
func TestShareCredit(t *testing.T) {
	for _, test := range []struct {
		chunkSize uint32
		wait      bool // some of them
	}{{256 << 10, false}, {wire.MaxChunkSize, true}} {
		now := time.Unix(1_800_000_000, 0)
		manifest, err := chunk.NewManifest(test.chunkSize, []wire.FileEntry{{Size: 1 << 40, Path: "a.bin"}})
		if test.chunkSize < wire.MaxChunkSize {
			manifest, err = chunk.NewManifest(test.chunkSize, []wire.FileEntry{{Size: 1 << 34, Path: "a.bin"}})
		}
		if err != nil {
			t.Fatal(err)
		}
		var list []*transfer.Incoming
		granted := map[*transfer.Incoming]uint64{}
		step := func(in *transfer.Incoming, e transfer.Event) {
			for _, effect := range in.Step(now, e) {
				if c, ok := effect.(transfer.SendControl); ok {
					switch m := c.Message.(type) {
					case wire.Accept:
						granted[in] = m.Credit
					case wire.Credit:
						granted[in] = m.Granted
					}
				}
			}
		}
		waiting := func() (n int) {
			total := uint64(0)
			for _, in := range list {
				total += granted[in]
				if granted[in] == 0 {
					n++
				} else if least := uint64(wire.MessageCost) + wire.ChunkCost(test.chunkSize); granted[in] < least {
					t.Fatalf("%d granted, which is not enough for a chunk", granted[in])
				}
			}
			if total > transfer.MaxCredit {
				t.Fatalf("%d transfers are granted %d bytes together", len(list), total)
			}
			return n
		}
		for i := range 64 {
			id := wire.ID{byte(i)}
			offer := wire.TransferOffer{Transfer: id, ChunkSize: test.chunkSize, Files: 1, TotalSize: manifest.Total, ManifestLength: uint32(len(manifest.Encoded)),
				ManifestHash: manifest.Hash, Participants: []wire.ID{{1}}}
			in := transfer.NewIncoming(transfer.Key{Sender: wire.ID{9}, Transfer: id}, offer, now)
			step(in, transfer.Received{Peer: wire.ID{9}, Message: wire.ManifestPart{Transfer: id, Data: manifest.Encoded}})
			list = append(list, in)
			transfer.ShareCredit(list)
			step(in, transfer.AcceptFiles{})
			now = now.Add(time.Second)
			for _, in := range list {
				step(in, transfer.Tick{})
			}
			waiting()
		}
		before := waiting()
		if (before > 0) != test.wait {
			t.Errorf("%d of %d have no credit", before, len(list))
		}
		list = list[1:]
		transfer.ShareCredit(list)
		now = now.Add(time.Second)
		for _, in := range list {
			step(in, transfer.Tick{})
		}
		if after := waiting(); test.wait && after >= before {
			t.Errorf("%d wait, as many as before one has ended", after)
		}
	}
}
