//go:build !js

package room

import (
	"testing"
	"time"
)

// TestSlowBytesCountOnce: bytes that only the transport has seen end the silence when they come, and at no later look. Few of them add up to a sign of
// life all the same.
func TestSlowBytesCountOnce(t *testing.T) {
	bob := newIdentity(t, 2)
	ann := newStill(t, 1, nil, Config{}, bob)
	m := ann.members[bob.ID()]
	const before = 100_000
	m.looked(ann.Room, before)
	total := uint64(before)
	for i, c := range []struct {
		more  uint64
		still bool // after a second of it
		alive bool
	}{
		{0, true, false},
		{flowing - 1, false, false},
		{0, true, false},
		{0, true, false},
		{1, false, true},
		{0, true, false},
	} {
		m.pingOut, m.path.still = true, time.Second
		ann.now = ann.now.Add(pingEvery / 8)
		total += c.more
		m.looked(ann.Room, total)
		if still := m.path.still > 0; still != c.still || m.pingOut == c.alive {
			t.Errorf("look %d: still %t, alive %t", i, still, !m.pingOut)
		}
	}
}
