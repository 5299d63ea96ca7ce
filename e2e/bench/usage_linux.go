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

// A usage is what a process group has used, and holds.
type usage struct {
	cpu       time.Duration // of all threads, ended ones too
	schedstat time.Duration // the same as the schedstat files of the living threads have it: a check of cpu
	rss, pss  int64         // bytes; shared pages count once a process, and once in all
	fds       int
	threads   int
}

// members are the processes of a group. Whoever is started by testproc leads a group of its own, and what it forks
// stays there.
func members(group int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
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

// parseStat takes the process ID and the process group from a /proc/PID/stat. The name between them may contain
// anything.
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
	pgrp, err = strconv.Atoi(rest[2]) // after state and parent
	return pid, pgrp, err == nil
}

// cpuOf is the processor time of processes, by each one's CPU clock (clock_getcpuclockid(3)). That is the
// scheduler's own sum_exec_runtime, in nanoseconds, of which schedstat tells too; but unlike the schedstat files the
// clock has what ended threads used, is exact for threads that run right now (schedstat is as of the last tick), and
// takes one system call a process instead of a file a thread.
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

// usageOf measures a whole group.
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

// parseSchedstat takes the time on a processor from a schedstat file: "ran waited slices", the first two in
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

// parseRollup takes the bytes behind Rss and Pss from a smaps_rollup.
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

// descriptors counts what processes have open. Since Linux 6.2 the size of the folder is the number; before, its
// entries have to be counted.
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
