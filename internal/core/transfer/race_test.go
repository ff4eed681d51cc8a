//go:build race

package transfer_test

// raced: the race detector, which has nothing to find in machines of one goroutine, makes bytes slow. Long forms run without it, as js/wasm.
const raced = true
