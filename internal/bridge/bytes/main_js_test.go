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

// await is the value of a promise.
func await(promise js.Value) js.Value {
	settled := make(chan js.Value)
	then := js.FuncOf(func(_ js.Value, args []js.Value) any {
		go func() { settled <- args[0] }()
		return nil
	})
	defer then.Release()
	promise.Call("then", then)
	return <-settled
}

// processor is the processor time in s that all processes of the browser have used.
func processor() float64 { return await(js.Global().Get("tallowTest").Call("processor")).Float() }
