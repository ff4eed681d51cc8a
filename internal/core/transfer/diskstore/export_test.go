package diskstore

// OnSync has a function see what is made durable, until the one that is returned is called.
func OnSync(see func(path string)) (restore func()) {
	was := syncPath
	syncPath = func(path string) error { see(path); return was(path) }
	return func() { syncPath = was }
}
