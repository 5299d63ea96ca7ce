//go:build !unix

package proxy

import (
	"errors"
	"syscall"
)

// Elsewhere no descriptors can be handed over.

func closeSession(int) {}

func duplicateFD(int) (int, error) { return -1, errors.ErrUnsupported }

func duplicateConn(syscall.Conn) (int, error) { return -1, errors.ErrUnsupported }
