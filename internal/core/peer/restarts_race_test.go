//go:build race || js

package peer

// restarts is lower where the signatures of a handshake take many times as long.
const restarts = 60
