// Command tallow-server is all that Tallow needs on a server: it hands out the page, introduces the members of a room to
// each other (package hub), and relays for those that find no direct path (package relay).
//
// The first line of its output is "listening on" and its URL. It logs to standard error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"tallow/web"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	c, err := parseConfig(os.Args[1:], os.Getenv, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		// A second signal ends the process at once.
		context.AfterFunc(ctx, stop)
		err = run(ctx, c, web.Dist(), os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tallow-server:", err)
		os.Exit(1)
	}
}
