//go:build !race

// Package raced tells tests whether the race detector watches them. It slows down whatever touches memory ten times and more: long forms
// in which it has nothing new to find are shorter under it, and have their whole length as js/wasm.
package raced

const Enabled = false
