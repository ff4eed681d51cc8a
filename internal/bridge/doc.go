// Package bridge is Go's side of the JavaScript API: it runs the calls of web/boot.js on the rooms and hands their events
// back, both as JSON. Bytes do not pass here, but through package bytes. Natively it only has the translation.
package bridge
