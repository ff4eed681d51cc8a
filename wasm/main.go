//go:build js && wasm

// Command wasm is Tallow in the browser: it serves the calls of web/tallow.js.
package main

import (
	"fmt"
	"os"

	"tallow/internal/bridge"
)

// version is set by the build.
var version = "development"

func main() {
	if err := bridge.Run(version); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The program stays, idle, until the page lets go of it: an event of the browser that is still on its way would
	// find an ended program to be an error.
	select {}
}
