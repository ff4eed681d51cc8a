package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func parse(env map[string]string, args ...string) (*config, error) {
	return parseConfig(args, func(name string) string { return env[name] }, io.Discard)
}

func TestConfigDefaults(t *testing.T) {
	c, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.addr != "127.0.0.1:8080" || c.maxMembers != 11 || !c.turn || c.turnTTL != 12*time.Hour || c.relayOnly || c.tls() {
		t.Fatalf("%+v", c)
	}
}

func TestConfigPrecedence(t *testing.T) {
	env := map[string]string{
		"TALLOW_ADDR": "127.0.0.1:1", "TALLOW_MAX_MEMBERS": "5", "TALLOW_TURN_EXTERNAL_IP": "203.0.113.1",
		"TALLOW_ALLOW_ORIGIN": "https://env.example", "TALLOW_TURN": "false",
		"TALLOW_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.1",
	}
	c, err := parse(env, "-max-members", "7", "-allow-origin", "https://a.example,https://B.example:8443", "-allow-origin=*")
	if err != nil {
		t.Fatal(err)
	}
	if c.addr != "127.0.0.1:1" || c.turn {
		t.Errorf("the environment does not count: %q %v", c.addr, c.turn)
	}
	if c.maxMembers != 7 {
		t.Errorf("the flag does not win: %d", c.maxMembers)
	}
	if want := []string{"https://a.example", "https://b.example:8443", "*"}; !reflect.DeepEqual(c.allowOrigins.values, want) {
		t.Errorf("origins %q, want %q", c.allowOrigins.values, want)
	}
	if want := prefixesOf("10.0.0.0/8", "192.0.2.1/32"); !reflect.DeepEqual(c.trustedProxies.values, want) {
		t.Errorf("proxies %v, want %v", c.trustedProxies.values, want)
	}
	if len(c.turnExternalIPs.values) != 1 {
		t.Errorf("external addresses %v", c.turnExternalIPs.values)
	}
}

func prefixesOf(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func TestEveryFlagHasAnEnvironmentVariable(t *testing.T) {
	asked := make(map[string]bool)
	if _, err := parseConfig(nil, func(name string) string { asked[name] = true; return "" }, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"ADDR", "TURN_ADDR", "TURN_EXTERNAL_IP", "TURN_SECRET", "TURN_TTL", "TURN_ALLOW", "ICE_SERVERS", "RELAY_ONLY", "METRICS_ADDR",
		"MAX_MEMBERS", "ALLOW_ORIGIN", "TLS_CERT", "TLS_KEY", "TLS_SELF_SIGNED", "ACME_DOMAIN", "TRUSTED_PROXIES",
	} {
		if !asked["TALLOW_"+name] {
			t.Errorf("TALLOW_%s does not count", name)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, args := range [][]string{
		{"-addr", "8080"}, {"-max-members", "1"}, {"-max-members", "3000"}, {"-max-rooms", "0"}, {"-max-connections", "-1"}, {"-turn-quota-per-ip", "-1"},
		{"-tls-cert", "x"}, {"-tls-self-signed", "-acme-domain", "a.example"}, {"-acme-domain", "https://a.example"},
		{"-allow-origin", "a.example"}, {"-allow-origin", "https://a.example/"}, {"-allow-origin", "https://"},
		{"-trusted-proxies", "proxy"}, {"-turn-allow", "10.0.0.0/40"}, {"-turn-external-ip", "example.com"},
		{"-turn-ttl", "1s"}, {"-relay-only", "-turn=false"},
		{"-ice-servers", "{}"}, {"-ice-servers", `[{"urls":[]}]`}, {"-ice-servers", `[{"urls":"https://a.example"}]`},
		{"-ice-servers", `[{"urls":"stun:a.example","password":"x"}]`}, {"-ice-servers", `[] []`},
		{"-ice-servers", `[{"urls":"turn:a.example","username":"u","secret":"s"}]`},
		{"-ice-servers", `[{"urls":"turn:a.example"}]`}, {"-ice-servers", `[{"urls":["stun:a.example","turns:a.example"],"username":"u"}]`}, {"-ice-servers", `[{"urls":"stun:"}]`},
		{"-ice-servers", `[{"urls":"stun://a.example"}]`}, {"-ice-servers", `[{"urls":"stun:a.example:port"}]`}, {"-ice-servers", `[{"urls":"stun::3478"}]`},
		{"-ice-servers", `[{"urls":"turn:a.example?transport=sctp","secret":"s"}]`}, {"-ice-servers", `[{"urls":"turn:a.example?tcp=1","secret":"s"}]`},
		{"argument"}, {"-unknown"},
	} {
		if _, err := parse(nil, args...); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	if _, err := parse(map[string]string{"TALLOW_MAX_MEMBERS": "many"}); err == nil || !strings.Contains(err.Error(), "TALLOW_MAX_MEMBERS") {
		t.Errorf("a bad variable: %v", err)
	}
	var usage bytes.Buffer
	if _, err := parseConfig([]string{"-h"}, func(string) string { return "" }, &usage); !errors.Is(err, flag.ErrHelp) || !strings.Contains(usage.String(), "-turn-allow") {
		t.Errorf("-h: %v", err)
	}
}

func TestRelayOnlyTakesTURNAnywhere(t *testing.T) {
	for servers, valid := range map[string]bool{
		`[{"urls":["stun:a.example","turn:a.example"],"username":"u","credential":"c"}]`: true,
		`[{"urls":"stun:a.example"},{"urls":"turns:b.example","secret":"s"}]`:            true,
		`[{"urls":["stun:a.example","stuns:a.example"]}]`:                                false,
	} {
		if _, err := parse(nil, "-turn=false", "-relay-only", "-ice-servers", servers); (err == nil) != valid {
			t.Errorf("%s: %v", servers, err)
		}
	}
}

func TestICEServersAreParsed(t *testing.T) {
	c, err := parse(nil, "-turn=false", "-relay-only", "-ice-servers",
		`[{"urls":["turn:a.example","turns:a.example"],"username":"u","credential":"c"},{"urls":"stun:b.example"}]`)
	if err != nil {
		t.Fatal(err)
	}
	want := []iceServer{{URLs: urls{"turn:a.example", "turns:a.example"}, Username: "u", Credential: "c"}, {URLs: urls{"stun:b.example"}}}
	if !reflect.DeepEqual(c.iceServers.servers, want) {
		t.Fatalf("%+v", c.iceServers.servers)
	}
}
