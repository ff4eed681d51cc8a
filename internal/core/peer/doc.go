// Package peer is the data channel manager: links to other members, from the first hello to the last record.
package peer
