package daemon

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// allowedProcessors returns the number of processors that this process may use. allowedProcessors does so only if the
// system denies sched_getaffinity, because Go then assumes one processor; err is that denial. A nil err means that Go
// knows the number. If the number is unknown, n is zero.
func allowedProcessors() (n int, err error) {
	var set unix.CPUSet
	if err = unix.SchedGetaffinity(0, &set); err == nil {
		return 0, nil
	}
	status, _ := os.ReadFile("/proc/self/status") // an error leads to an unknown number
	for line := range strings.Lines(string(status)) {
		if list, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			n = countInList(strings.TrimSpace(list))
		}
	}
	return n, os.NewSyscallError("sched_getaffinity", err)
}

// countInList returns the count of numbers in a list in the format of cpuset(7), such as 0-3,8. countInList returns
// zero if text is not such a list.
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
