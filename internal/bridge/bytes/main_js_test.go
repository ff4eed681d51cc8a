package bytes

import (
	"os"
	"syscall/js"
	"testing"

	"tallow/internal/core/host"
)

// The tests run in a browser: e2e/gotest.mjs gives the host, and files as a person would choose them.
func TestMain(m *testing.M) {
	host.Boot(js.Global().Get("tallowTest").Get("host"))
	os.Exit(m.Run())
}
