//go:build race

package raced

const Enabled = true
