package main

import (
	"net"
	"testing"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
)

// allocate makes an allocation and gives it back.
func allocate(t *testing.T, addr, user, pass string) error {
	t.Helper()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	c, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: addr, Username: user, Password: pass, Conn: udp, LoggerFactory: &logging.DefaultLoggerFactory{Writer: nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	relay, err := c.Allocate()
	if err != nil {
		return err
	}
	return relay.Close()
}
