//go:build !linux

package admin

import (
	"errors"
	"syscall"
)

func shared(syscall.RawConn, bool) error { return errors.ErrUnsupported }
