package main

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestClientAddr(t *testing.T) {
	trusted := prefixesOf("10.0.0.0/8", "fd00::/8")
	tests := []struct {
		name, remote string
		forwarded    []string
		trusted      []netip.Prefix
		want         string
	}{
		{"direct", "203.0.113.5:1234", nil, trusted, "203.0.113.5"},
		{"forged by a client", "203.0.113.5:1234", []string{"198.51.100.1"}, trusted, "203.0.113.5"},
		{"no proxy is trusted", "10.0.0.1:1234", []string{"198.51.100.1"}, nil, "10.0.0.1"},
		{"through a proxy", "10.0.0.1:1234", []string{"198.51.100.1"}, trusted, "198.51.100.1"},
		{"through two", "10.0.0.1:1234", []string{"198.51.100.1, 10.0.0.2"}, trusted, "198.51.100.1"},
		{"forged through a proxy", "10.0.0.1:1234", []string{"1.2.3.4, 198.51.100.1"}, trusted, "198.51.100.1"},
		{"forged in a header of its own", "10.0.0.1:1234", []string{"1.2.3.4", "198.51.100.1, 10.0.0.2"}, trusted, "198.51.100.1"},
		{"rubbish through a proxy", "10.0.0.1:1234", []string{"rubbish"}, trusted, "10.0.0.1"},
		{"no header", "10.0.0.1:1234", nil, trusted, "10.0.0.1"},
		{"forged up to the address", "10.0.0.1:1234", []string{"10.0.0.7, 10.0.0.8, 1.2.3.4, 198.51.100.1, 10.0.0.2"}, trusted, "198.51.100.1"},
		{"rubbish before the address", "10.0.0.1:1234", []string{"x, , 127.0.0.1:, 198.51.100.1"}, trusted, "198.51.100.1"},
		{"with port", "10.0.0.1:1234", []string{"198.51.100.1:5678"}, trusted, "198.51.100.1"},
		{"IPv6", "[fd00::1]:1234", []string{"2001:db8::7"}, trusted, "2001:db8::7"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:1234", []string{"198.51.100.1"}, trusted, "198.51.100.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// No other header counts: a proxy that does not know it passes on what a client makes of it.
			r := &http.Request{RemoteAddr: tt.remote, Header: http.Header{
				"X-Forwarded-For": tt.forwarded, "Forwarded": {"for=192.0.2.66"}, "X-Real-Ip": {"192.0.2.66"}, "True-Client-Ip": {"192.0.2.66"},
			}}
			if got := clientAddr(r, tt.trusted); got.String() != tt.want {
				t.Fatalf("%v, want %s", got, tt.want)
			}
		})
	}
}
