package chunk

import (
	"math/bits"

	"tallow/internal/core/wire"
)

// Set is a have-map: which chunks of a file there are. The zero value is empty.
type Set struct {
	words []uint64
	count uint32
}

// Has reports whether chunk i is in the set.
func (s *Set) Has(i uint32) bool {
	w := int(i / 64)
	return w < len(s.words) && s.words[w]&(1<<(i%64)) != 0
}

// Add adds chunk i and reports whether it was new.
func (s *Set) Add(i uint32) bool {
	if s.Has(i) {
		return false
	}
	for int(i/64) >= len(s.words) {
		s.words = append(s.words, 0)
	}
	s.words[i/64] |= 1 << (i % 64)
	s.count++
	return true
}

// Remove takes chunk i out.
func (s *Set) Remove(i uint32) {
	if s.Has(i) {
		s.words[i/64] &^= 1 << (i % 64)
		s.count--
	}
}

// AddRun adds a run of chunks, a word at a time.
func (s *Set) AddRun(r wire.Run) {
	for first, left := r.First, r.Count; left > 0; {
		n := min(left, 64-first%64)
		for int(first/64) >= len(s.words) {
			s.words = append(s.words, 0)
		}
		mask := (^uint64(0) >> (64 - n)) << (first % 64)
		s.count += uint32(bits.OnesCount64(mask &^ s.words[first/64]))
		s.words[first/64] |= mask
		first, left = first+n, left-n
	}
}

// Count is the number of chunks in the set.
func (s *Set) Count() uint32 { return s.count }

// Runs is the set as ascending runs, at most limit of them: the first ones.
func (s *Set) Runs(limit int) []wire.Run {
	var runs []wire.Run
	for w, word := range s.words {
		for word != 0 {
			start := uint32(bits.TrailingZeros64(word))
			length := uint32(bits.TrailingZeros64(^(word >> start)))
			first := uint32(w)*64 + start
			if n := len(runs); n > 0 && runs[n-1].First+runs[n-1].Count == first {
				runs[n-1].Count += length
			} else if n == limit {
				return runs
			} else {
				runs = append(runs, wire.Run{First: first, Count: length})
			}
			if start+length >= 64 {
				break
			}
			word &^= (1<<length - 1) << start
		}
	}
	return runs
}
