//go:build !race && !js

package peer

const restarts = 1000
