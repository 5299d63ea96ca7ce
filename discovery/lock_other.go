//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package discovery

import "os"

// tryLock does nothing where there is no flock.
func tryLock(*os.File) (held bool, err error) {
	return false, nil
}
