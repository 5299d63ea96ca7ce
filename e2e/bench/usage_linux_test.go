package main

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestParseSchedstat(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       time.Duration
		bad        bool
	}{
		{"as the kernel writes it", "171427566 10725103 402\n", 171427566, false},
		{"a thread that never ran", "0 0 0\n", 0, false},
		{"too little", "1 2\n", 0, true},
		{"too much", "1 2 3 4\n", 0, true},
		{"no number", "x 2 3\n", 0, true},
		{"empty", "", 0, true},
	} {
		got, err := parseSchedstat(test.text)
		if got != test.want || (err != nil) != test.bad {
			t.Errorf("%s: got %v, %v, want %v, error: %v", test.name, got, err, test.want, test.bad)
		}
	}
}

func TestParseStat(t *testing.T) {
	for _, test := range []struct {
		name, text string
		pid, pgrp  int
		ok         bool
	}{
		{"plain", "12 (nginx) S 1 10 10 0 -1", 12, 10, true},
		{"a name with all that separates", "12 (a) S 3 (b) R 1 10 10", 12, 10, true},
		{"cut short", "12 (nginx) S", 0, 0, false},
		{"empty", "", 0, 0, false},
	} {
		pid, pgrp, ok := parseStat(test.text)
		if pid != test.pid || pgrp != test.pgrp || ok != test.ok {
			t.Errorf("%s: got %d %d %v, want %d %d %v", test.name, pid, pgrp, ok, test.pid, test.pgrp, test.ok)
		}
	}
}

func TestParseRollup(t *testing.T) {
	rss, pss := parseRollup([]byte("5581-7ffc ---p 00000000 00:00 0  [rollup]\nRss:     1812 kB\nPss:      303 kB\n" +
		"Pss_Dirty:  116 kB\n"))
	if rss != 1812<<10 || pss != 303<<10 {
		t.Errorf("got %d, %d, want %d, %d", rss, pss, 1812<<10, 303<<10)
	}
}

// The clock must agree with schedstat. It must also count what ended threads have used, which schedstat does not.
func TestProcessClockHasEndedThreads(t *testing.T) {
	const burn = 50 * time.Millisecond
	before, err := cpuOf([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go burnAndEndThread(burn, ended)
	<-ended
	after, err := cpuOf([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if got := after - before; got < burn {
		t.Errorf("got %v more, want at least %v", got, burn)
	}
}

func burnAndEndThread(d time.Duration, ended chan<- struct{}) {
	defer close(ended)
	runtime.LockOSThread() // without an unlock, the thread ends with its goroutine
	for start := threadTime(); threadTime()-start < d; {
	}
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return 1 << 62 // which ends the loop
	}
	return time.Duration(ts.Nano())
}

func TestUsageOfOwnGroup(t *testing.T) {
	var u usage
	testproc.Await(t, "a moment without the end of a process", func() bool { // such as one of make
		var err error
		u, err = usageOf(unix.Getpgrp())
		return err == nil
	})
	if u.cpu <= 0 || u.schedstat <= 0 || u.rss < 1<<20 || u.pss <= 0 || u.pss > u.rss || u.fds < 3 || u.threads < 2 {
		t.Errorf("got %+v, want something of everything", u)
	}
}
