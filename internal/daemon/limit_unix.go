//go:build unix

package daemon

import (
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// descriptorLimit is how many descriptors this process may have open; zero if that cannot be told. The soft limit
// (ulimit -n) does not matter: Go raises it to the hard one when a program starts, see package os.
func descriptorLimit() int64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		text, _ := os.ReadFile("/proc/self/limits") // without it, nothing tells
		return filesInLimits(string(text))
	}
	return int64(min(uint64(l.Cur), math.MaxInt32))
}

// filesInLimits returns the soft limit of open files that proc_pid_limits(5) tells; zero if it tells none.
func filesInLimits(text string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			n, err := strconv.ParseInt(soft, 10, 32)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

// ignorePipes makes writing to a closed stdout or stderr an error: by default it ends a Go program, and a log that
// nobody reads any more must not end a proxy.
func ignorePipes() { signal.Ignore(unix.SIGPIPE) }
