//go:build !unix

package handover

import (
	"errors"
	"os"
	"time"
)

// errNoUnix is the error of everything that needs to pass open sockets to another process.
var errNoUnix = errors.New("an upgrade without a restart needs a Unix system")

// A Conn is never made here.
type Conn struct{}

func Pair() (*Conn, *os.File, error) { return nil, nil, errNoUnix }

func Inherited(int) (*Conn, error) { return nil, errNoUnix }

func (*Conn) Send(any, ...int) error { return errNoUnix }

func (*Conn) Receive(any) ([]int, error) { return nil, errNoUnix }

func (*Conn) SetDeadline(time.Time) {}

func (*Conn) Close() {}
