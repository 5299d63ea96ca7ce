//go:build !unix

package upgrade

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// errNoUnix is the error of an upgrade on systems that cannot pass open sockets to another process.
var errNoUnix = errors.New("an upgrade without a restart needs a Unix system")

// A conn is never created on this system.
type conn struct{}

func newPair() (*conn, *os.File, error) { return nil, nil, errNoUnix }

func inheritConn(int) (*conn, error) { return nil, errNoUnix }

func (*conn) send(any, ...int) error { return errNoUnix }

func (*conn) receive(any) ([]int, error) { return nil, errNoUnix }

func (*conn) SyscallConn() (syscall.RawConn, error) { return nil, errNoUnix }

func (*conn) setDeadline(time.Time) {}

func (*conn) close() {}
