package bridge

import (
	"errors"

	"tallow/internal/core/fault"
	"tallow/internal/core/seal"
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
