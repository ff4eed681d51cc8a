package signaling

import "tallow/internal/core/wire"

// Event is one of the events below.
type Event interface{ event() }

// Entered: the hub has let us in. It is the first event of each connection.
type Entered struct {
	MaxMembers uint16
	ICE        wire.ICEServers
	Present    []wire.ID // the others there; a hint
}

// Delivered: an envelope came. The hub says who from; only opening it shows whether that is true.
type Delivered struct {
	From     wire.ID
	Envelope []byte
}

// Present: the hub says that a member has come. A hint.
type Present struct{ Member wire.ID }

// Absent: the hub says that a member has gone. A hint.
type Absent struct{ Member wire.ID }

// ICEServers: the answer to Refresh.
type ICEServers struct{ ICE wire.ICEServers }

// Disconnected: the connection, or an attempt to make one, has ended.
type Disconnected struct {
	Err   error            // for logs; wraps ErrProtocol or ErrSilent where these are the cause
	Code  wire.ClosingCode // why the hub closed it; 0: it did not say
	Final bool             // no further attempt will be made
}

func (Entered) event()      {}
func (Delivered) event()    {}
func (Present) event()      {}
func (Absent) event()       {}
func (ICEServers) event()   {}
func (Disconnected) event() {}
