// Package room joins the core: members, links and transfers of one room. It owns the goroutines, the clock and Close.
package room
