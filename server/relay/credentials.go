package relay

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/pion/logging"
	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
)

// Credentials are a user name and password that a TURN server with the same secret accepts until they expire, in the
// format of draft-uberti-behave-turn-rest-00, which coturn (use-auth-secret) and others know. The holder is an opaque
// name without colons: quotas count by it, and credentials renewed for the same holder refresh what the old ones allocated.
func Credentials(secret []byte, holder string, expiry time.Time) (username, password string) {
	username = strconv.FormatInt(expiry.Unix(), 10) + ":" + holder
	mac := hmac.New(sha1.New, secret)
	mac.Write([]byte(username))
	return username, base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Credentials are credentials for this relay, from now for its TTL.
func (s *Server) Credentials(holder string, now time.Time) (username, password string) {
	return Credentials(s.cfg.Secret, holder, now.Add(s.cfg.TTL))
}

// afterlife is how long expired credentials serve an allocation that lives.
const afterlife = 24 * time.Hour

// authenticate is called for each request that must be signed: Allocate and Refresh, CreatePermission, ChannelBind. What
// it returns as user is what the library says of who allocates, and whom an allocation belongs to.
//
// Credentials that have expired make no allocation. Everything of one that lives is granted for another day, new peers included, as coturn does
// too, without end: browsers go on with the credentials that it was made with, whatever they are given later, and a transfer may
// take longer than these are good for.
func (s *Server) authenticate(r *turn.RequestAttributes) (user string, key []byte, ok bool) {
	expiry, holder, found := strings.Cut(r.Username, ":")
	unix, err := strconv.ParseInt(expiry, 10, 64)
	if !found || err != nil {
		return "", nil, false
	}
	o := owner{source(r.SrcAddr), holder}
	if past := time.Since(time.Unix(unix, 0)); past >= 0 && (past > afterlife || r.Method == stun.MethodAllocate || !s.holds(o, flowOf(r.SrcAddr))) {
		return "", nil, false
	}
	username, password := Credentials(s.cfg.Secret, holder, time.Unix(unix, 0))
	if username != r.Username { // "+5" and "05" are not how 5 is written
		return "", nil, false
	}
	return o.String(), turn.GenerateAuthKey(username, r.Realm, password), true
}

// owner is who has an allocation. The library passes a user's name on to where quotas are counted and nothing of its
// address, so the name that it gets holds both. An allocation is bound to its client's address in any case.
type owner struct {
	client netip.AddrPort
	holder string
}

// String is what parseOwner parses.
func (o owner) String() string { return o.client.String() + " " + o.holder }

func parseOwner(user string) owner {
	client, holder, _ := strings.Cut(user, " ")
	addr, _ := netip.ParseAddrPort(client) // invalid addresses are one address
	return owner{addr, holder}
}

// source is a client's address.
func source(a net.Addr) netip.AddrPort {
	var from netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		from = a.AddrPort()
	case *net.TCPAddr:
		from = a.AddrPort()
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// loggers passes what pion has to say on at debug level: it names addresses and users.
type loggers struct{ log *slog.Logger }

// NewLogger implements logging.LoggerFactory.
func (l loggers) NewLogger(scope string) logging.LeveledLogger {
	return logger{l.log.With("scope", scope)}
}

type logger struct{ log *slog.Logger }

func (l logger) Trace(string)          {}
func (l logger) Tracef(string, ...any) {}
func (l logger) Debug(string)          {} // several for each datagram
func (l logger) Debugf(string, ...any) {}
func (l logger) Info(msg string)       { l.log.Debug(msg) }
func (l logger) Warn(msg string)       { l.log.Debug(msg) }
func (l logger) Error(msg string)      { l.log.Debug(msg) }

func (l logger) Infof(format string, args ...any)  { l.sprint(format, args) }
func (l logger) Warnf(format string, args ...any)  { l.sprint(format, args) }
func (l logger) Errorf(format string, args ...any) { l.sprint(format, args) }

func (l logger) sprint(format string, args []any) {
	l.log.Debug("pion", "message", sprintf{format, args})
}

// sprintf is formatted when somebody logs at debug level, and not before.
type sprintf struct {
	format string
	args   []any
}

// LogValue implements slog.LogValuer.
func (s sprintf) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf(s.format, s.args...)) }
