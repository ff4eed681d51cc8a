package wire

import (
	"errors"
	"fmt"
	"strings"
)

// IsTURN reports whether the URL is that of a TURN server (RFC 7065), and not of a STUN server, which only tells addresses (RFC 7064).
func IsTURN(url string) bool {
	scheme, _, _ := strings.Cut(strings.ToLower(url), ":")
	return scheme == "turn" || scheme == "turns"
}

// Check returns why no connection can be given the server, or nil: platforms refuse a whole configuration for the sake of one that is not.
func (s ICEServer) Check() error {
	if len(s.URLs) == 0 {
		return errors.New("an ICE server has no URL")
	}
	for _, url := range s.URLs {
		switch scheme, host, _ := strings.Cut(strings.ToLower(url), ":"); {
		case host == "", scheme != "stun" && scheme != "stuns" && !IsTURN(url):
			return fmt.Errorf("%q is no STUN or TURN URL", url)
		case IsTURN(url) && (s.Username == "" || s.Credential == ""):
			return fmt.Errorf("%q needs a username and a credential", url)
		}
	}
	return nil
}
