//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package discovery

import "os"

// tryLock does nothing on systems without flock.
func tryLock(*os.File) (held bool, err error) {
	return false, nil
}
