// Package host is Go's side of web/host.js in the browser: operations that the page's JavaScript completes later, and
// objects that it keeps for Go under a number. It exists because a js.Value per message or chunk would pin its
// buffer until a garbage collection that does not come; numbers and pointers into Go's memory pin nothing.
// Natively the package is empty.
package host
