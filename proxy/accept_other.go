//go:build !linux

package proxy

import (
	"errors"
	"os"
)

// acceptDenied is false here: there is no accept4 to do without.
func acceptDenied(error) bool { return false }

// acceptFile is not reached.
func acceptFile(uintptr) (*os.File, error) { return nil, errors.ErrUnsupported }
