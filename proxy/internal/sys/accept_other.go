//go:build !linux

package sys

import (
	"errors"
	"os"
)

// AcceptDenied returns false: the fallback from accept4 is only for Linux.
func AcceptDenied(error) bool { return false }

// AcceptFile is never called on this system.
func AcceptFile(uintptr) (*os.File, error) { return nil, errors.ErrUnsupported }
