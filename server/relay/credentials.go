package relay

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/pion/logging"
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

// authenticate is called for each request that must be signed: Allocate and Refresh, CreatePermission, ChannelBind.
func (s *Server) authenticate(r *turn.RequestAttributes) (holder string, key []byte, ok bool) {
	expiry, holder, found := strings.Cut(r.Username, ":")
	unix, err := strconv.ParseInt(expiry, 10, 64)
	if !found || err != nil || unix <= time.Now().Unix() {
		return "", nil, false
	}
	username, password := Credentials(s.cfg.Secret, holder, time.Unix(unix, 0))
	if username != r.Username { // "+5" and "05" are not how 5 is written
		return "", nil, false
	}
	return holder, turn.GenerateAuthKey(username, r.Realm, password), true
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
