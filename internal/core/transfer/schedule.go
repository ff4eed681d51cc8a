package transfer

import (
	"cmp"
	"slices"

	"tallow/internal/core/chunk"
	"tallow/internal/core/wire"
)

// Schedule decides which chunk goes to whom next. It is a pure policy: it sees what each recipient lacks and has room
// for, and knows nothing of buffers, links or records.
type Schedule interface {
	// Next appends to sends at most one send for each candidate, the most urgent first. It may reorder candidates.
	Next(sends []Send, candidates []Candidate) []Send
}

// Candidate is a recipient that can take a chunk now.
type Candidate struct {
	Peer wire.ID
	Next chunk.Ref // the first chunk, in the order of the transfer, that it lacks
	Turn uint64    // when it is due, in virtual time: the least first
}

// Send is a decision: this chunk to this member, which passes it on to others.
type Send struct {
	Chunk     chunk.Ref
	Peer      wire.ID
	ForwardTo []wire.ID
}

// Star sends every chunk to every recipient itself: each at its own pace, in order, whoever is due goes first.
type Star struct{}

// Next implements Schedule.
func (Star) Next(sends []Send, candidates []Candidate) []Send {
	slices.SortStableFunc(candidates, func(a, b Candidate) int { return cmp.Compare(a.Turn, b.Turn) })
	for _, c := range candidates {
		sends = append(sends, Send{Chunk: c.Next, Peer: c.Peer})
	}
	return sends
}
