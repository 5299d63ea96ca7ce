//go:build unix

package main

import (
	"math"
	"os/signal"

	"golang.org/x/sys/unix"
)

// descriptorLimit is how many descriptors this process may have open; zero if that cannot be told. The soft limit (ulimit -n) does not
// matter: Go raises it to the hard one when a program starts, see package os.
func descriptorLimit() int64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	return int64(min(uint64(l.Cur), math.MaxInt32))
}

// ignorePipes makes writing to a closed stdout or stderr an error: by default it ends a Go program, and a log that nobody reads any
// more must not end a proxy.
func ignorePipes() { signal.Ignore(unix.SIGPIPE) }
