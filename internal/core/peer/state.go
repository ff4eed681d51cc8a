package peer

// LinkState is the state of the link to a member, as people and the API see it. After is the only way from one to another.
type LinkState uint8

// The states of a link.
const (
	LinkConnecting LinkState = iota // there is none, and one is being made
	LinkOpen                        // the peer has proven itself over it
	LinkClosing                     // a goodbye is on its way, behind what was queued before it; nothing new begins
	LinkClosed                      // there is none, and none is being made
	LinkFailed                      // attempts have come to nothing; if others go on, they do so slowly
	linkStates
)

// LinkEvent is what changes the state of a link.
type LinkEvent uint8

// The events of a link.
const (
	LinkBegins  LinkEvent = iota // an attempt, or an invitation to one, where none was being made
	LinkOpens                    // the handshake has been confirmed
	LinkLost                     // the open link has ended without a goodbye
	LinkGivesUp                  // so many attempts have come to nothing that a person should know
	LinkLeaves                   // either end wants no link any more
	LinkEnds                     // nothing is left of the link that said goodbye
	linkEvents
)

// transitions is the whole machine. Where an event cannot happen, or says nothing new, the state stays.
var transitions = [linkStates][linkEvents]LinkState{
	LinkConnecting: {LinkBegins: LinkConnecting, LinkOpens: LinkOpen, LinkLost: LinkConnecting, LinkGivesUp: LinkFailed, LinkLeaves: LinkClosed, LinkEnds: LinkConnecting},
	LinkOpen:       {LinkBegins: LinkOpen, LinkOpens: LinkOpen, LinkLost: LinkConnecting, LinkGivesUp: LinkOpen, LinkLeaves: LinkClosing, LinkEnds: LinkOpen},
	LinkClosing:    {LinkBegins: LinkClosing, LinkOpens: LinkClosing, LinkLost: LinkClosing, LinkGivesUp: LinkClosing, LinkLeaves: LinkClosing, LinkEnds: LinkClosed},
	LinkClosed:     {LinkBegins: LinkConnecting, LinkOpens: LinkClosed, LinkLost: LinkClosed, LinkGivesUp: LinkClosed, LinkLeaves: LinkClosed, LinkEnds: LinkClosed},
	LinkFailed:     {LinkBegins: LinkConnecting, LinkOpens: LinkOpen, LinkLost: LinkFailed, LinkGivesUp: LinkFailed, LinkLeaves: LinkClosed, LinkEnds: LinkFailed},
}

// After is the state after an event.
func (s LinkState) After(e LinkEvent) LinkState { return transitions[s][e] }
