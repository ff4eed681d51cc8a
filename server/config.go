package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pion/stun/v4"

	"tallow/internal/core/wire"
	"tallow/server/hub"
)

// config is what the operator says: docs/operators.md. Each flag has an environment variable, which counts where the
// flag is not given: -turn-addr is TALLOW_TURN_ADDR.
type config struct {
	addr           string
	metricsAddr    string
	logLevel       slog.Level
	allowOrigins   list[string]
	trustedProxies list[netip.Prefix]

	tlsCert, tlsKey string
	tlsSelfSigned   bool
	acmeDomains     list[string]
	acmeCache       string

	maxMembers, maxRooms                int
	maxConnections, maxConnectionsPerIP int
	connectionRatePerIP                 float64

	turn            bool
	turnAddr        string
	turnExternalIPs list[netip.Addr]
	turnSecret      string
	turnTTL         time.Duration
	turnQuota       int
	turnQuotaPerIP  int
	turnMaxRelays   int
	turnAllow       list[netip.Prefix]
	iceServers      iceServers
	relayOnly       bool
}

// envPrefix begins the name of each flag's environment variable.
const envPrefix = "TALLOW_"

// parseConfig reads flags and environment. It writes usage and complaints to out; flag.ErrHelp means that help was asked for.
func parseConfig(args []string, getenv func(string) string, out io.Writer) (*config, error) {
	c := &config{
		allowOrigins: list[string]{parse: parseOrigin}, acmeDomains: list[string]{parse: parseDomain},
		trustedProxies: list[netip.Prefix]{parse: parsePrefix}, turnAllow: list[netip.Prefix]{parse: parsePrefix},
		turnExternalIPs: list[netip.Addr]{parse: netip.ParseAddr},
	}
	f := flag.NewFlagSet("tallow-server", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.addr, "addr", "127.0.0.1:8080", "`host:port` to serve page and signaling on; port 0 picks one")
	f.StringVar(&c.metricsAddr, "metrics-addr", "", "`host:port` to serve Prometheus metrics on, at /metrics; none if empty")
	f.TextVar(&c.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error; debug logs addresses")
	f.Var(&c.allowOrigins, "allow-origin", "`origin` of pages that may embed Tallow from here, like https://example.com; * for any (repeatable)")
	f.Var(&c.trustedProxies, "trusted-proxies", "`CIDR` of proxies whose X-Forwarded-For is believed (repeatable)")
	f.StringVar(&c.tlsCert, "tls-cert", "", "`file` with the certificate chain, PEM")
	f.StringVar(&c.tlsKey, "tls-key", "", "`file` with the certificate's key, PEM")
	f.BoolVar(&c.tlsSelfSigned, "tls-self-signed", false, "serve TLS with a certificate made at each start, for tests in a local network")
	f.Var(&c.acmeDomains, "acme-domain", "`domain` to get a certificate for from Let's Encrypt; needs -addr :443 to be reachable (repeatable)")
	f.StringVar(&c.acmeCache, "acme-cache", "", "`folder` for certificates; default: tallow-acme in the user's cache folder")
	f.IntVar(&c.maxMembers, "max-members", 11, "most members in a room")
	f.IntVar(&c.maxRooms, "max-rooms", 20_000, "most rooms")
	f.IntVar(&c.maxConnections, "max-connections", 15_000, "most signaling connections; 0: no limit")
	f.IntVar(&c.maxConnectionsPerIP, "max-connections-per-ip", 256, "the same, of one IPv4 address or IPv6 /64; 0: no limit")
	f.Float64Var(&c.connectionRatePerIP, "connection-rate-per-ip", 20, "most new signaling connections per second of one address, in bursts of ten times as many; 0: no limit")
	f.BoolVar(&c.turn, "turn", true, "serve STUN and TURN")
	f.StringVar(&c.turnAddr, "turn-addr", "", "`host:port` of STUN and TURN, UDP and TCP; default: the host of -addr, port 3478")
	f.Var(&c.turnExternalIPs, "turn-external-ip", "`address` under which this host is reached, where it is not its own (repeatable: IPv4 and IPv6)")
	f.StringVar(&c.turnSecret, "turn-secret", "", "`secret` that TURN credentials are made from; random if empty")
	f.DurationVar(&c.turnTTL, "turn-ttl", 12*time.Hour, "how long TURN credentials are valid")
	f.IntVar(&c.turnQuota, "turn-quota", 60, "most TURN allocations of one member, beyond which it loses those that it left behind; 0: no limit")
	f.IntVar(&c.turnQuotaPerIP, "turn-quota-per-ip", 256, "the same, of one IPv4 address or IPv6 /64; 0: no limit")
	f.IntVar(&c.turnMaxRelays, "turn-max-relays", 4000, "most TURN allocations; 0: no limit")
	f.Var(&c.turnAllow, "turn-allow", "`CIDR` that TURN relays to although it is not public (repeatable)")
	f.Var(&c.iceServers, "ice-servers", "further STUN and TURN servers: a `JSON` array of {urls, username, credential}, or with secret in place of the last two")
	f.BoolVar(&c.relayOnly, "relay-only", false, "demand that members connect through TURN only")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	given := make(map[string]bool)
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	var errs []error
	f.VisitAll(func(one *flag.Flag) {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(one.Name, "-", "_"))
		if value := getenv(name); value != "" && !given[one.Name] {
			if err := f.Set(one.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	})
	return c, errors.Join(append(errs, c.check())...)
}

func (c *config) check() error {
	var errs []error
	require := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	_, _, err := net.SplitHostPort(c.addr)
	require(err == nil, "-addr: %w", err)
	require(c.maxMembers >= 2 && c.maxMembers <= hub.MaxMembersLimit, "-max-members must be from 2 to %d", hub.MaxMembersLimit)
	require(c.maxRooms >= 1, "-max-rooms must be positive")
	require(c.maxConnections >= 0 && c.maxConnectionsPerIP >= 0 && c.connectionRatePerIP >= 0 && c.turnQuota >= 0 && c.turnQuotaPerIP >= 0 && c.turnMaxRelays >= 0,
		"limits must not be negative")
	require((c.tlsCert == "") == (c.tlsKey == ""), "-tls-cert and -tls-key go together")
	ways := 0
	for _, way := range []bool{c.tlsCert != "", c.tlsSelfSigned, len(c.acmeDomains.values) > 0} {
		if way {
			ways++
		}
	}
	require(ways <= 1, "-tls-cert, -tls-self-signed and -acme-domain exclude each other")
	require(c.turnTTL >= time.Minute && c.turnTTL <= 30*24*time.Hour, "-turn-ttl must be from 1m to 720h")
	relays := c.turn
	for _, s := range c.iceServers.servers {
		relays = relays || slices.ContainsFunc(s.URLs, wire.IsTURN)
	}
	require(relays || !c.relayOnly, "-relay-only needs a TURN server: -turn or -ice-servers")
	return errors.Join(errs...)
}

// tls reports whether the server speaks TLS.
func (c *config) tls() bool {
	return c.tlsCert != "" || c.tlsSelfSigned || len(c.acmeDomains.values) > 0
}

// list is a flag that may be repeated, and takes several values with commas between them.
type list[T any] struct {
	parse  func(string) (T, error)
	values []T
}

// Set implements flag.Value.
func (l *list[T]) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		v, err := l.parse(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		l.values = append(l.values, v)
	}
	return nil
}

// String implements flag.Value.
func (l *list[T]) String() string {
	texts := make([]string, len(l.values))
	for i, v := range l.values {
		texts[i] = fmt.Sprint(v)
	}
	return strings.Join(texts, ",")
}

// parseOrigin takes an origin as browsers write it, or "*".
func parseOrigin(text string) (string, error) {
	if text == "*" {
		return text, nil
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Scheme+"://"+u.Host != text {
		return "", fmt.Errorf("%q is not an origin like https://example.com", text)
	}
	return strings.ToLower(text), nil
}

func parseDomain(text string) (string, error) {
	if text == "" || strings.ContainsAny(text, "/: ") {
		return "", fmt.Errorf("%q is not a domain", text)
	}
	return text, nil
}

// parsePrefix takes a range, or one address.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().Prefix(a.Unmap().BitLen())
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// iceServers is the flag -ice-servers.
type iceServers struct {
	text    string
	servers []iceServer
}

// iceServer is one of the operator's own servers. With a secret, its credentials are made like those of this server's TURN.
type iceServer struct {
	URLs       urls   `json:"urls"`
	Username   string `json:"username"`
	Credential string `json:"credential"`
	Secret     string `json:"secret"`
}

// urls is one URL or an array of them, as in an RTCIceServer.
type urls []string

// UnmarshalJSON implements json.Unmarshaler.
func (u *urls) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*u = urls{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(u))
}

// The wire's limits (PROTOCOL.md section 4), less the two entries that this server adds itself.
const (
	mostICEServers = 16 - 2
	mostICEURLs    = 8
	longestICEText = 512
)

// Set implements flag.Value.
func (s *iceServers) Set(text string) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	var servers []iceServer
	if err := d.Decode(&servers); err != nil {
		return err
	}
	if d.More() || len(servers) > mostICEServers {
		return fmt.Errorf("one array of at most %d servers is needed", mostICEServers)
	}
	for _, one := range servers {
		if len(one.URLs) > mostICEURLs {
			return fmt.Errorf("a server has at most %d urls", mostICEURLs)
		}
		if one.Secret != "" && (one.Username != "" || one.Credential != "") {
			return errors.New("secret takes the place of username and credential")
		}
		offered := one.wire()
		if one.Secret != "" {
			offered.Username, offered.Credential = "made", "for each member"
		}
		for _, u := range one.URLs {
			if len(u) > longestICEText {
				return errors.New("URL is too long")
			}
			if _, err := stun.ParseURI(u); err != nil {
				return fmt.Errorf("%q is no STUN or TURN URL: %w", u, err)
			}
		}
		if err := offered.Check(); err != nil {
			return err
		}
		if len(one.Username) > longestICEText || len(one.Credential) > longestICEText {
			return errors.New("username or credential is too long")
		}
	}
	s.text, s.servers = text, servers
	return nil
}

// String implements flag.Value. It shows no credentials.
func (s *iceServers) String() string { return strconv.Itoa(len(s.servers)) + " servers" }

func (s iceServer) wire() wire.ICEServer {
	return wire.ICEServer{URLs: s.URLs, Username: s.Username, Credential: s.Credential}
}
