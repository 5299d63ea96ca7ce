//go:build !linux

package sys

import (
	"errors"
	"syscall"
)

// TryTransparent returns an error that wraps errors.ErrUnsupported: only Linux has IP_TRANSPARENT.
func TryTransparent() error { return errors.ErrUnsupported }

// Transparent is never called on this system.
func Transparent(string, string, syscall.RawConn) error { return errors.ErrUnsupported }
