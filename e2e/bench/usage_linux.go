package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A usage holds the resources that a process group uses.
type usage struct {
	cpu       time.Duration // of all threads, ended threads included
	schedstat time.Duration // the same from the schedstat files of living threads, to check cpu
	rss, pss  int64         // in bytes; rss counts a shared page once per process, pss once in total
	fds       int
	threads   int
}

// members returns the processes of a group. A process that testproc starts leads its own group, and its children stay
// in that group.
func members(group int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		if pid, pgrp, ok := parseStat(string(text)); ok && pgrp == group {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("process group %d has ended", group)
	}
	return pids, nil
}

// parseStat returns the process ID and the process group in a /proc/PID/stat file. The name between them may contain
// any character.
func parseStat(text string) (pid, pgrp int, ok bool) {
	open, closing := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || closing < open {
		return 0, 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(text[:open]))
	rest := strings.Fields(text[closing+1:])
	if err != nil || len(rest) < 3 {
		return 0, 0, false
	}
	pgrp, err = strconv.Atoi(rest[2]) // after the state and the parent
	return pid, pgrp, err == nil
}

// cpuOf returns the processor time of processes, read from their CPU clocks (clock_getcpuclockid(3)). The clock is the
// scheduler's sum_exec_runtime in nanoseconds, which schedstat shows too. Unlike schedstat, the clock includes ended
// threads and is exact for running threads; schedstat is as of the last tick. The clock takes one system call per
// process instead of one file per thread.
func cpuOf(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		var ts unix.Timespec
		const processClock = 2 // CPUCLOCK_SCHED without CPUCLOCK_PERTHREAD
		if err := unix.ClockGettime(int32(^pid<<3|processClock), &ts); err != nil {
			return 0, fmt.Errorf("processor time of %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// usageOf measures a whole process group.
func usageOf(group int) (usage, error) {
	pids, err := members(group)
	if err != nil {
		return usage{}, err
	}
	var u usage
	if u.cpu, err = cpuOf(pids); err != nil {
		return u, err
	}
	for _, pid := range pids {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		threads, err := filepath.Glob(dir + "/task/*/schedstat")
		if err != nil {
			return u, err
		}
		u.threads += len(threads)
		for _, path := range threads {
			if text, err := os.ReadFile(path); err == nil {
				run, _ := parseSchedstat(string(text))
				u.schedstat += run
			}
		}
		rollup, err := os.ReadFile(dir + "/smaps_rollup")
		if err != nil {
			return u, err
		}
		rss, pss := parseRollup(rollup)
		u.rss += rss
		u.pss += pss
	}
	u.fds, err = descriptors(pids)
	return u, err
}

// parseSchedstat returns the time on a processor in a schedstat file. The file is "ran waited slices", the first two in
// nanoseconds.
func parseSchedstat(text string) (time.Duration, error) {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return 0, fmt.Errorf("schedstat %q: %d fields, not 3", text, len(fields))
	}
	ran, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("schedstat %q: %w", text, err)
	}
	return time.Duration(ran), nil
}

// parseRollup returns the bytes after Rss and Pss in a smaps_rollup file.
func parseRollup(text []byte) (rss, pss int64) {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		kb, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "Rss:":
			rss = kb << 10
		case "Pss:":
			pss = kb << 10
		}
	}
	return rss, pss
}

// descriptors returns the number of open descriptors of processes. Since Linux 6.2 the size of the fd folder is the
// number. Older kernels need the entries to be counted.
func descriptors(pids []int) (int, error) {
	sum := 0
	for _, pid := range pids {
		path := filepath.Join("/proc", strconv.Itoa(pid), "fd")
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		n := int(info.Size())
		if n == 0 {
			entries, err := os.ReadDir(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, err
			}
			n = len(entries)
		}
		sum += n
	}
	return sum, nil
}
