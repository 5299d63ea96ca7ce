//go:build !unix

package proxy

import (
	"errors"
	"syscall"
)

// Systems other than Unix cannot hand descriptors over to another process.

func closeSession(int) {}

func duplicateFD(int) (int, error) { return -1, errors.ErrUnsupported }

func duplicateConn(syscall.Conn) (int, error) { return -1, errors.ErrUnsupported }
