package seal

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"tallow/internal/core/wire"
)

// The errors of ParseLink.
var (
	// ErrLink means that the text is no link, or a damaged or truncated one.
	ErrLink = errors.New("seal: damaged link")
	// ErrLinkVersion means a link of another version of Tallow.
	ErrLinkVersion = errors.New("seal: link of another version")
)

// Link is what a room's link says: PROTOCOL.md section 3. Whoever holds it can ask to join.
type Link struct {
	Secret [32]byte // K
	Owner  wire.ID  // A, the owner's member id
}

const linkSize = 32 + 16

// Strict refuses trailing bits; ParseLink checks the length, since a decoder skips line ends.
var linkEncoding = base64.RawURLEncoding.Strict()

// NewLink makes the link of a new room.
func NewLink(owner wire.ID) Link {
	l := Link{Owner: owner}
	rand.Read(l.Secret[:])
	return l
}

// ParseLink reads a link: a whole URL, or only its fragment with or without '#'. Surrounding white space is ignored.
func ParseLink(s string) (Link, error) {
	s = strings.TrimSpace(s)
	if _, fragment, found := strings.Cut(s, "#"); found {
		s = fragment
	}
	version, body, found := strings.Cut(s, ".")
	if !found || body == "" || !isBase64URL(body) {
		return Link{}, ErrLink
	}
	number, isVersion := strings.CutPrefix(version, "v")
	n, err := strconv.ParseUint(number, 10, 16)
	if !isVersion || err != nil || strconv.FormatUint(n, 10) != number {
		return Link{}, ErrLink
	}
	if n != wire.Version {
		return Link{}, fmt.Errorf("%w: v%d", ErrLinkVersion, n)
	}
	if len(body) != linkEncoding.EncodedLen(linkSize) {
		return Link{}, ErrLink
	}
	b, err := linkEncoding.DecodeString(body)
	if err != nil {
		return Link{}, ErrLink
	}
	defer wipe(b)
	var l Link
	copy(l.Secret[:], b)
	copy(l.Owner[:], b[len(l.Secret):])
	return l, nil
}

func isBase64URL(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// Fragment is the link's part after the '#'.
func (l Link) Fragment() string {
	b := append(append(make([]byte, 0, linkSize), l.Secret[:]...), l.Owner[:]...)
	defer wipe(b)
	return "v" + strconv.Itoa(wire.Version) + "." + linkEncoding.EncodeToString(b)
}

// String says nothing of the secret, so that a link that slips into a log does no harm.
func (l Link) String() string { return "tallow link" }

// GoString is String.
func (l Link) GoString() string { return l.String() }
