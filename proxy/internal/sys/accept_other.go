//go:build !linux

package sys

import (
	"errors"
	"os"
)

// AcceptDenied is false here: there is no accept4 to do without.
func AcceptDenied(error) bool { return false }

// AcceptFile is not reached.
func AcceptFile(uintptr) (*os.File, error) { return nil, errors.ErrUnsupported }
