package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"tallow/internal/core/wire"
	"tallow/server/hub"
	"tallow/server/limit"
	"tallow/server/relay"
)

const (
	// shutdownTime bounds the end of the server, requestTime what requests get of it: browsers hold connections open
	// on which they have not asked for anything, and those look like requests under way.
	shutdownTime = 5 * time.Second
	requestTime  = 2 * time.Second
	// Bounds of a request's header, of the rest of it (which nobody here asks for), of its answer, and of the pause before
	// the next one. Downloads extend the one of the answer; WebSockets have bounds of their own.
	headerTime = 10 * time.Second
	readTime   = 20 * time.Second
	writeTime  = 30 * time.Second
	idleTime   = 60 * time.Second
	maxHeader  = 16 << 10
	// maxStreams is how many requests one HTTP/2 connection has under way.
	maxStreams = 16

	defaultTURNPort = "3478"
	// burst is how many seconds' worth of new connections one address may open at once.
	burst = 10
)

// run serves until ctx ends. It returns after everything it started has ended.
func run(ctx context.Context, c *config, files fs.FS, out, errOut io.Writer) (err error) {
	logger := slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: c.logLevel}))
	tlsConf, err := tlsConfig(c)
	if err != nil {
		return err
	}
	static, err := newAssets(files, c.allowOrigins.values)
	if err != nil {
		return err
	}
	secret := []byte(c.turnSecret)
	if len(secret) == 0 {
		secret = make([]byte, 32)
		rand.Read(secret)
	}
	turn, err := startRelay(ctx, c, secret, logger)
	if err != nil {
		return err
	}
	if turn != nil {
		defer func() { err = errors.Join(err, turn.Close()) }()
	}
	members, err := hub.New(ctx, hub.Config{
		MaxMembers: c.maxMembers,
		MaxRooms:   c.maxRooms,
		Gate: limit.New(limit.Limits{
			Total: c.maxConnections, PerAddress: c.maxConnectionsPerIP, Rate: c.connectionRatePerIP, Burst: int(burst * c.connectionRatePerIP),
		}),
		Origins:    c.allowOrigins.values,
		ClientAddr: func(r *http.Request) netip.Addr { return clientAddr(r, c.trustedProxies.values) },
		ICEServers: offer{c, turn, secret}.servers,
		Log:        logger,
	})
	if err != nil {
		return err
	}

	var servers servers
	defer func() {
		// A context of its own: the one that ended is why we are here.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		var ending sync.WaitGroup
		ending.Go(func() { members.Close(bounded) })
		ending.Go(func() { servers.close(bounded) })
		ending.Wait()
	}()
	strict := tlsConf != nil && browsersTrust(tlsConf)
	url, err := servers.listen(ctx, c.addr, tlsConf, handler(static, members, strict), c, logger)
	if err != nil {
		return err
	}
	if c.metricsAddr != "" {
		if _, err := servers.listen(ctx, c.metricsAddr, nil, metrics{members, turn}.handler(), nil, logger); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(out, "listening on", url); err != nil {
		return err
	}
	if turn != nil {
		logger.Info("STUN and TURN", "addr", turn.Addr())
	}
	select {
	case <-ctx.Done():
		logger.Info("shutting down")
		return nil
	case err := <-servers.failed:
		return err
	}
}

// handler is everything that is served on the public port. Strict tells browsers to come by https only from now on.
func handler(static *assets, members http.Handler, strict bool) http.Handler {
	version := versionJSON(static.wasmHash)
	mux := http.NewServeMux()
	mux.Handle("/", static)
	mux.Handle("/ws", members)
	mux.Handle("/ws/", members) // where clients go after failures: PROTOCOL.md section 4
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(version)
	})
	return secure(mux, strict)
}

// versionJSON says what was built and what is served.
func versionJSON(wasmHash string) []byte {
	v := struct {
		Version    string `json:"version"`
		Revision   string `json:"revision"`
		Modified   bool   `json:"modified"`
		GoVersion  string `json:"goVersion"`
		WasmSHA256 string `json:"wasmSHA256"`
	}{WasmSHA256: wasmHash}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version, v.GoVersion = info.Main.Version, info.GoVersion
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and a bool
	}
	return append(b, '\n')
}

// servers are the HTTP servers that run.
type servers struct {
	failed  chan error // has what ended one of them before its time
	running sync.WaitGroup
	all     []*http.Server
}

// listen starts one more and returns its URL. Its connections are bounded by c; nil means that they are not.
func (s *servers) listen(ctx context.Context, addr string, tlsConf *tls.Config, h http.Handler, c *config, logger *slog.Logger) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	if c != nil {
		l = newListener(l, c)
	}
	server := newServer(h, tlsConf, logger)
	if s.failed == nil {
		s.failed = make(chan error, 2)
	}
	s.all = append(s.all, server)
	s.running.Go(func() {
		var err error
		if tlsConf != nil {
			err = server.ServeTLS(l, "", "")
		} else {
			err = server.Serve(l)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	})
	scheme := "http"
	if tlsConf != nil {
		scheme = "https"
	}
	return scheme + "://" + reachable(l.Addr().(*net.TCPAddr).AddrPort()), nil
}

func newServer(h http.Handler, tlsConf *tls.Config, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, TLSConfig: tlsConf,
		ReadHeaderTimeout: headerTime, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		// Every answer is the handler's, with its headers; that to OPTIONS * too.
		DisableGeneralOptionsHandler: true,
		// It complains about each client's mistakes, with the client's address.
		ErrorLog: log.New(debugWriter{logger}, "", 0),
	}
}

func (s *servers) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	for _, server := range s.all {
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	}
	s.running.Wait()
}

// reachable is the address as a browser on this host can use it.
func reachable(a netip.AddrPort) string {
	if a.Addr().IsUnspecified() {
		return fmt.Sprintf("localhost:%d", a.Port())
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

type debugWriter struct{ log *slog.Logger }

// Write implements io.Writer.
func (w debugWriter) Write(p []byte) (int, error) {
	w.log.Debug("http", "message", strings.TrimSpace(string(p)))
	return len(p), nil
}

// startRelay starts STUN and TURN, if c wants them.
func startRelay(ctx context.Context, c *config, secret []byte, logger *slog.Logger) (*relay.Server, error) {
	if !c.turn {
		return nil, nil
	}
	addr := c.turnAddr
	host, _, err := net.SplitHostPort(c.addr)
	if err != nil {
		return nil, err
	}
	if addr == "" {
		addr = net.JoinHostPort(host, defaultTURNPort)
	}
	conf := relay.Config{
		Addr: addr, ExternalIPs: c.turnExternalIPs.values, Secret: secret, TTL: c.turnTTL,
		Quota: c.turnQuota, PerAddress: c.turnQuotaPerIP, MaxRelays: c.turnMaxRelays, Allow: c.turnAllow.values, Log: logger,
	}
	s, err := relay.Listen(ctx, conf)
	// On a developer's machine something else may have the port, and nobody opened it in a firewall.
	if errors.Is(err, syscall.EADDRINUSE) && c.turnAddr == "" && isLoopback(ctx, host) {
		logger.Info("port is taken, STUN and TURN use another", "addr", addr)
		conf.Addr = net.JoinHostPort(host, "0")
		s, err = relay.Listen(ctx, conf)
	}
	if err != nil {
		return nil, fmt.Errorf("STUN and TURN on %s: %w", addr, err)
	}
	return s, nil
}

func isLoopback(ctx context.Context, host string) bool {
	if host == "" {
		return false
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return false
	}
	for _, a := range addrs {
		if !a.Unmap().IsLoopback() {
			return false
		}
	}
	return true
}

// offer is what members are told about STUN and TURN.
type offer struct {
	c      *config
	turn   *relay.Server // nil without
	secret []byte        // of turn
}

// servers are the ICE servers for a member of a room. The holder of credentials is the same at each call, so that quotas
// hold across connections and renewed credentials serve what older ones allocated.
func (o offer) servers(room, member wire.ID, now time.Time) wire.ICEServers {
	m := wire.ICEServers{RelayOnly: o.c.relayOnly}
	if o.turn != nil {
		addr := o.turn.Addr().String()
		if !o.c.relayOnly {
			m.Servers = append(m.Servers, wire.ICEServer{URLs: []string{"stun:" + addr}})
		}
		user, pass := o.turn.Credentials(holder(o.secret, room, member), now)
		m.Servers = append(m.Servers, wire.ICEServer{
			URLs: []string{"turn:" + addr + "?transport=udp", "turn:" + addr + "?transport=tcp"}, Username: user, Credential: pass,
		})
		m.TTL = uint32(o.c.turnTTL / time.Second)
	}
	for _, s := range o.c.iceServers.servers {
		one := s.wire()
		if s.Secret != "" {
			secret := []byte(s.Secret)
			one.Username, one.Credential = relay.Credentials(secret, holder(secret, room, member), now.Add(o.c.turnTTL))
			m.TTL = uint32(o.c.turnTTL / time.Second)
		}
		m.Servers = append(m.Servers, one)
	}
	return m
}

// holder is a member's pseudonym at a TURN server, which learns neither id from it.
func holder(secret []byte, room, member wire.ID) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("tallow holder"))
	mac.Write(room[:])
	mac.Write(member[:])
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}
