// Package transfer is the group transfer manager: one sender's files to many recipients. Outgoing is the sender's end,
// Incoming a recipient's. Both are machines without I/O, clock, goroutine or randomness: Step takes what happened and
// returns what to do about it, and package room does it. PROTOCOL.md sections 9 and 10.
//
// The way of a chunk: Outgoing wants it (effect Read), gets it with its hash (ReadDone), announces the hash and sends the
// chunk to each recipient in turn (SendBulk); Incoming drops what was not announced, has the rest verified and
// written (Store), and, when all is stored and the roots agree, made durable (Commit) and receipted.
package transfer
