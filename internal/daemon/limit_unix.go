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

// descriptorLimit returns how many descriptors this process may open, or zero if that is unknown. The soft limit of the
// shell (ulimit -n) does not matter, because Go raises it to the hard limit at the start; see package os.
func descriptorLimit() int64 {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		text, _ := os.ReadFile("/proc/self/limits") // an error leads to an unknown limit
		return filesInLimits(string(text))
	}
	return int64(min(uint64(l.Cur), math.MaxInt32))
}

// filesInLimits returns the soft limit of open files in the text of proc_pid_limits(5), or zero if the text has none.
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

// ignorePipes makes a write to a closed stdout or stderr return an error. By default such a write ends a Go program,
// and a log without a reader must not end a proxy.
func ignorePipes() { signal.Ignore(unix.SIGPIPE) }
