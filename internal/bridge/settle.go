package bridge

import (
	"encoding/hex"
	"errors"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
	"tallow/internal/core/wire"
)

// settle is how a call ended: with a value, or with a code.
type settle struct {
	Type  string     `json:"type"` // "settle"
	Call  int        `json:"call"`
	Value any        `json:"value,omitempty"`
	Code  fault.Code `json:"code,omitempty"`
	Cause string     `json:"cause,omitempty"` // for logs
}

func settleEvent(call int, value any, err error) settle {
	s := settle{Type: "settle", Call: call, Value: value}
	if err != nil {
		s.Value, s.Code, s.Cause = nil, fault.Of(err), err.Error()
	}
	return s
}

// parseLink is seal.ParseLink with public codes.
func parseLink(text string) (seal.Link, error) {
	link, err := seal.ParseLink(text)
	switch {
	case errors.Is(err, seal.ErrLinkVersion):
		return link, fault.New(fault.LinkVersion, err)
	case err != nil:
		return link, fault.New(fault.BadLink, err)
	}
	return link, nil
}

// id is a wire.ID that JSON carries in hexadecimal.
type id wire.ID

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *id) UnmarshalText(text []byte) error { return unhex(i[:], text) }

// bytes32 is a seed or a hash that JSON carries in hexadecimal.
type bytes32 [32]byte

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *bytes32) UnmarshalText(text []byte) error { return unhex(s[:], text) }

// MarshalText implements encoding.TextMarshaler.
func (s bytes32) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

func unhex(to, text []byte) error {
	if len(text) != hex.EncodedLen(len(to)) {
		return fault.Newf(fault.InvalidArgument, "%d digits where %d are due", len(text), hex.EncodedLen(len(to)))
	}
	if _, err := hex.Decode(to, text); err != nil {
		return fault.New(fault.InvalidArgument, err)
	}
	return nil
}
