// Package fault is Tallow's public error codes: one list for Go, JavaScript and the documentation.
package fault

import (
	"errors"
	"fmt"
)

// Code names a failure that a person or a program can act on. Codes are stable; messages are not.
type Code string

// The codes. Each comment says what happened; Message says it to the person, with what to do.
const (
	BadLink            Code = "bad-link"            // the link is damaged or truncated
	LinkVersion        Code = "link-version"        // the link is for another version of Tallow
	OwnerAway          Code = "owner-away"          // nobody who can admit answered
	RoomFull           Code = "room-full"           // the room, or the server's share of it, is full
	RoomLocked         Code = "room-locked"         // the owner lets nobody new in
	JoinDenied         Code = "join-denied"         // the owner said no
	Removed            Code = "removed"             // the owner removed this member
	Replaced           Code = "replaced"            // the same member entered from elsewhere
	ServerUnreachable  Code = "server-unreachable"  // no connection to the signaling server
	ServerRefused      Code = "server-refused"      // the signaling server refused
	ServerFull         Code = "server-full"         // the signaling server has no room
	RateLimited        Code = "rate-limited"        // too much in too short a time
	UnsupportedVersion Code = "unsupported-version" // the other end speaks another protocol version
	UnsupportedBrowser Code = "unsupported-browser" // the browser lacks something that cannot be replaced
	InsecureOrigin     Code = "insecure-origin"     // the page is not served securely, and that is needed here
	InvalidArgument    Code = "invalid-argument"    // the caller passed something wrong
	RoomClosed         Code = "room-closed"         // the room was left or closed
	NotOwner           Code = "not-owner"           // only the owner can do that
	UnknownPeer        Code = "unknown-peer"        // no such member
	UnknownTransfer    Code = "unknown-transfer"    // no such offer or transfer
	NoRecipients       Code = "no-recipients"       // nobody to send to
	TooManyRecipients  Code = "too-many-recipients" // more than the room allows
	TooLarge           Code = "too-large"           // beyond a stated limit
	Declined           Code = "declined"            // the recipient said no
	Cancelled          Code = "cancelled"           // ended by this end
	CancelledByPeer    Code = "cancelled-by-peer"   // ended by the other end
	PeerGone           Code = "peer-gone"           // the other member left or was lost
	ConnectionFailed   Code = "connection-failed"   // no path to the other member
	NoRelay            Code = "no-relay"            // relays only, and the server offers none
	AddressLeak        Code = "address-leak"        // relays only, and the browser did not keep to it
	HandshakeFailed    Code = "handshake-failed"    // the other member could not prove who it is
	RekeyTimeout       Code = "rekey-timeout"       // the other member did not answer a key change
	FileChanged        Code = "file-changed"        // a file is not what it was when it was offered
	FileUnreadable     Code = "file-unreadable"     // a file cannot be read
	DiskFull           Code = "disk-full"           // the recipient has no room; while a delivery runs: it waits for some
	StorageFailed      Code = "storage-failed"      // the recipient cannot write or read its storage; what is there is kept for a retry
	Integrity          Code = "integrity"           // received data is not what was announced
	ProtocolViolation  Code = "protocol-violation"  // the other end broke the protocol
	Internal           Code = "internal"            // a bug in Tallow
)

var messages = map[Code]string{
	BadLink:            "This link is damaged or incomplete. Ask for it again and open all of it.",
	LinkVersion:        "This link is for another version of Tallow. Reload the page, or ask for a new link.",
	OwnerAway:          "Nobody who can let you in answered. Whoever made the link must have its page open; check the link, then try again.",
	RoomFull:           "This room is full. Ask the person who made it to make room, or to send in two rounds.",
	RoomLocked:         "This room is locked. Ask the person who made it to unlock it.",
	JoinDenied:         "The owner of this room did not let you in.",
	Removed:            "The owner removed you from this room.",
	Replaced:           "This room is open in another tab or window, which has taken over.",
	ServerUnreachable:  "The server cannot be reached. Check your connection; Tallow keeps trying.",
	ServerRefused:      "The server refused the connection. Check the link, or reload the page.",
	ServerFull:         "The server is busy. Try again in a minute.",
	RateLimited:        "Too many requests in a short time. Wait a minute, then try again.",
	UnsupportedVersion: "The other side runs another version of Tallow. Reload both pages.",
	UnsupportedBrowser: "This browser lacks something that Tallow needs. Use a current Chrome, Edge, Firefox or Safari.",
	InsecureOrigin:     "This page was not loaded securely (https), so the browser withholds what is needed here.",
	InvalidArgument:    "That cannot be done with these values.",
	RoomClosed:         "The room is closed.",
	NotOwner:           "Only the person who made the room can do that.",
	UnknownPeer:        "That person is not in the room.",
	UnknownTransfer:    "That transfer no longer exists.",
	NoRecipients:       "There is nobody to send to. Share the link, and wait until someone is there.",
	TooManyRecipients:  "That is more recipients than this room allows.",
	TooLarge:           "That is larger than allowed here.",
	Declined:           "Declined.",
	Cancelled:          "Cancelled.",
	CancelledByPeer:    "Cancelled by the other side.",
	PeerGone:           "The other side left or its connection was lost. If it comes back, the transfer goes on.",
	ConnectionFailed:   "No connection to the other side could be made. A relay (TURN) server may be needed.",
	NoRelay:            "Only relays are to be used, and there is none: this server offers no relay (TURN). Ask whoever runs it, or allow direct connections.",
	AddressLeak:        "Only relays were to be used, and this browser did not keep to it: your network address may be known. Leave the room and use another browser if that matters.",
	HandshakeFailed:    "The other side could not prove who it is. Nothing was sent to it.",
	RekeyTimeout:       "The other side stopped answering. Try again.",
	FileChanged:        "The file was changed or removed since it was chosen. Choose it again.",
	FileUnreadable:     "The file cannot be read. Check that it still exists and may be read, then choose it again.",
	DiskFull:           "There is not enough free space. Free some, then try again.",
	StorageFailed:      "The received data could not be stored. Check the disk, then try again.",
	Integrity:          "The received data did not match what was announced, and was discarded. Try again.",
	ProtocolViolation:  "The other side broke the protocol and was disconnected.",
	Internal:           "Something went wrong inside Tallow. Reload the page; please report it if it happens again.",
}

// Codes returns every code, for tests and documentation.
func Codes() []Code {
	list := make([]Code, 0, len(messages))
	for c := range messages {
		list = append(list, c)
	}
	return list
}

// Message says what happened and what to do.
func (c Code) Message() string { return messages[c] }

// Error is a failure with its public code.
type Error struct {
	Code Code
	Err  error // what lies behind it, for logs; may be nil
}

// New returns an Error. err may be nil.
func New(code Code, err error) *Error { return &Error{code, err} }

// Newf returns an Error whose cause is a formatted text.
func Newf(code Code, format string, args ...any) *Error {
	return &Error{code, fmt.Errorf(format, args...)}
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Err.Error()
}

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() error { return e.Err }

// Of is the code of err: that of the first Error in its chain, or Internal. It is "" for nil.
func Of(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	default:
		return Internal
	}
}
