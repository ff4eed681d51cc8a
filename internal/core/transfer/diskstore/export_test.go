package diskstore

import "errors"

// OnSync has a function see what is made durable, which fails with its error, until the one that is returned is called.
func OnSync(see func(path string) error) (restore func()) {
	was := syncPath
	syncPath = func(path string) error { return errors.Join(see(path), was(path)) }
	return func() { syncPath = was }
}
