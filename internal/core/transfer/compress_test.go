package transfer_test

import (
	"testing"

	"tallow/internal/core/bulk/bulktest"
	"tallow/internal/core/chunk"
	"tallow/internal/core/transfer"
	"tallow/internal/core/wire"
	"tallow/internal/raced"
)

// slow and fast are links on which the sim's compression, of 32 MiB per second, pays and does not.
const (
	slow = 1 << 20
	fast = 200 << 20
)

// TestCompression: compressed is what is worth it on the link that it goes over, once for all; and everything arrives.
func TestCompression(t *testing.T) {
	const chunks = 100
	type link struct {
		rate     float64
		inflates bool
	}
	text, random, mixed := "text", "random", "text behind random"
	for _, test := range []struct {
		name    string
		data    string
		plain   bool
		links   []link
		packed  []int // at least so many chunks compressed, per recipient; -1: none
		samples int   // at most
	}{
		{"text over a slow link", text, false, []link{{slow, true}}, []int{chunks - 10}, 3},
		{"text over a fast link", text, false, []link{{fast, true}}, []int{-1}, 9},
		{"text over a link of unknown rate", text, false, []link{{0, true}}, []int{-1}, 0},
		{"text to one that takes none", text, false, []link{{slow, false}}, []int{-1}, 0},
		{"text, switched off", text, true, []link{{slow, true}}, []int{-1}, 0},
		{"random over a slow link", random, false, []link{{slow, true}}, []int{-1}, 16},
		{"text behind random in one file", mixed, false, []link{{slow, true}}, []int{chunks/2 - 45}, 16},
		{"text over slow links", text, false, []link{{slow, true}, {slow, true}, {slow / 2, true}}, []int{chunks - 10, chunks - 10, chunks - 10}, 3},
		{"text over links of every kind", text, false, []link{{slow, true}, {fast, true}, {slow, false}}, []int{chunks - 10, -1, -1}, 16},
	} {
		t.Run(test.name, func(t *testing.T) {
			if raced.Enabled && (len(test.links) > 1 || test.data != text) {
				t.Skip("long")
			}
			s := newSim(t, 1, len(test.links), false, chunks*chunkSize)
			switch test.data {
			case text:
				s.files[0] = bulktest.Text(chunks * chunkSize)
			case mixed:
				copy(s.files[0][chunks/2*chunkSize:], bulktest.Text(chunks/2*chunkSize))
			}
			if test.plain {
				s.out = transfer.NewOutgoing(transfer.OutgoingConfig{Key: s.key, Manifest: s.manifest, Recipients: s.order, Schedule: transfer.Star{}, Plain: true})
			}
			for i, id := range s.order {
				p := s.peers[id]
				p.rate, p.inflates = test.links[i].rate, test.links[i].inflates
				s.connect(p)
			}
			s.run(nil)
			for i, id := range s.order {
				p := s.peers[id]
				s.expectDone(p)
				packed := 0
				for _, is := range p.packed {
					if is {
						packed++
					}
				}
				if want := test.packed[i]; want < 0 && packed > 0 || packed < want {
					t.Errorf("recipient %d: %d of %d chunks came compressed, want %d", i, packed, chunks, want)
				}
				if p.volume > chunks*chunkSize || packed > chunks-10 && p.volume > chunks*chunkSize/2 {
					t.Errorf("recipient %d: %d bytes came for %d", i, p.volume, chunks*chunkSize)
				}
			}
			if s.samples > test.samples {
				t.Errorf("%d samples, at most %d are in order", s.samples, test.samples)
			}
			for ref, n := range s.deflates {
				if n > 1 {
					t.Errorf("chunk %v was compressed %d times", ref, n)
				}
			}
		})
	}
}

// TestCompressionOfSmallFiles: files of one chunk are taken to be like others of their kind, so that not each of them is tried.
func TestCompressionOfSmallFiles(t *testing.T) {
	const n, size = 300, 5000
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	for _, test := range []struct {
		name             string
		text             bool
		packed, deflates [2]int // at least and at most
	}{
		{"text", true, [2]int{n - 60, n}, [2]int{n - 60, n}},
		{"random", false, [2]int{0, 0}, [2]int{1, 16}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t, 2, 1, false, sizes...)
			for i := range s.files {
				if test.text {
					s.files[i] = bulktest.Text(size)
				}
			}
			p := s.peers[member(0)]
			p.rate, p.inflates = slow, true
			s.connect(p)
			s.run(nil)
			s.expectDone(p)
			packed := 0
			for _, is := range p.packed {
				if is {
					packed++
				}
			}
			if packed < test.packed[0] || packed > test.packed[1] || len(s.deflates) < test.deflates[0] || len(s.deflates) > test.deflates[1] || s.samples > 0 {
				t.Errorf("%d of %d files came compressed, %d were tried, %d sampled", packed, n, len(s.deflates), s.samples)
			}
		})
	}
}

// TestCompressionInterrupted: links that are lost, and whose rate changes, at any moment, and a limit on all: every byte arrives, once.
func TestCompressionInterrupted(t *testing.T) {
	seeds := uint64(12)
	if raced.Enabled {
		seeds = 2
	}
	for seed := range seeds {
		s := newSim(t, seed, 3, false, 20*chunkSize+17, 3000, 900, 2*chunkSize, 0)
		for i := range s.files {
			if i != 3 {
				s.files[i] = bulktest.Text(len(s.files[i]))
			}
		}
		for i, id := range s.order {
			p := s.peers[id]
			p.rate, p.inflates = slow, i != 1
			s.connect(p)
		}
		p := s.peers[member(0)]
		for range 4 {
			s.runSteps(s.rand.IntN(80))
			if s.finished {
				break
			}
			s.cut(p, false)
			p.rate = []float64{0, slow, fast}[s.rand.IntN(3)]
			s.connect(p)
		}
		s.run(nil)
		for _, id := range s.order {
			s.expectDone(s.peers[id])
		}
		for ref := range s.peers[member(1)].packed {
			if s.peers[member(1)].packed[ref] {
				t.Fatalf("seed %d: chunk %v went compressed to one that takes none", seed, ref)
			}
		}
	}
}

// TestCompressedBefore: what was made of a chunk before its file failed is not sent for what the file is when it is offered again.
func TestCompressedBefore(t *testing.T) {
	s := newSim(t, 1, 1, false, 20*chunkSize)
	s.files[0] = bulktest.Text(20 * chunkSize)
	p := s.peers[member(0)]
	p.rate, p.inflates = slow, true
	s.hold = true
	s.connect(p)
	s.run(func() bool { return len(s.held) > 0 })
	s.readErr = func(chunk.Ref) error { return transfer.ErrSourceChanged }
	s.run(nil)
	if s.state(p.id) != transfer.Failed {
		t.Fatalf("%+v", s.out.Progress())
	}
	s.readErr = nil
	for i := range s.files[0] {
		s.files[0][i] ^= 1
	}
	s.step(transfer.RetryPeer{Peer: p.id, Transfer: wire.ID{77}})
	before := len(s.held)
	s.run(func() bool { return len(s.held) > before })
	s.hold = false
	for _, deflate := range s.held {
		deflate()
	}
	s.run(nil)
	s.expectDone(p)
}

// TestCompressedUnasked: what was not agreed upon is a violation, however good it is.
func TestCompressedUnasked(t *testing.T) {
	for _, agreed := range []bool{true, false} {
		h := newHostileSender(t)
		h.inflates = agreed
		h.files[0] = bulktest.Text(len(h.files[0]))
		m := h.chunks(chunk.Ref{})
		m.Data = bulktest.Deflated(m.Data)
		m.Entries[0].Compressed, m.Entries[0].Length = true, uint32(len(m.Data))
		h.send(h.hashes(0, 0, 1), m)
		if (h.broken == nil) != agreed || (len(h.writes) == 1) != agreed {
			t.Errorf("agreed %v: link cut for %v, %d chunks written", agreed, h.broken, len(h.writes))
		}
	}
}
