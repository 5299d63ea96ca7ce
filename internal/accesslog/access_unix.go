//go:build unix

package accesslog

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// mayWrite returns an error if this process may not write to a file, or may not create files in a directory.
func mayWrite(path string, mode fs.FileMode) error {
	rights := uint32(unix.W_OK)
	if mode.IsDir() {
		rights |= unix.X_OK
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, rights, unix.AT_EACCESS); err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return nil
}
