//go:build !unix

package proxy

import (
	"errors"
	"syscall"
)

// These systems cannot hand descriptors over.

func closeSession(int) {}

func duplicateFD(int) (int, error) { return -1, errors.ErrUnsupported }

func duplicateConn(syscall.Conn) (int, error) { return -1, errors.ErrUnsupported }
