package daemon

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// allowedProcessors returns how many processors this process may run on if the system denies sched_getaffinity, without
// which Go takes it for one; err is that denial. Nil: Go knows. It is zero if nothing else tells.
func allowedProcessors() (n int, err error) {
	var set unix.CPUSet
	if err = unix.SchedGetaffinity(0, &set); err == nil {
		return 0, nil
	}
	status, _ := os.ReadFile("/proc/self/status") // without it, nothing tells
	for line := range strings.Lines(string(status)) {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			n = countInList(strings.TrimSpace(list))
		}
	}
	return n, os.NewSyscallError("sched_getaffinity", err)
}

// countInList returns how many numbers are in a list like 0-3,8: that of cpuset(7). It is zero if text is none.
func countInList(text string) (n int) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err != nil || err2 != nil || to < from {
			return 0
		}
		n += to - from + 1
	}
	return n
}
