package testproc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// freezeLimit bounds how long a process has to stop.
const freezeLimit = time.Minute

// Freeze stops a process with SIGSTOP, and waits until all of its threads have stopped: kill(2) returns before that. A
// process that has ended is no error.
func Freeze(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		if err == syscall.ESRCH {
			return nil
		}
		return err
	}
	for began := time.Now(); !isFrozen(pid); time.Sleep(pause(began)) {
		if time.Since(began) > freezeLimit {
			return fmt.Errorf("process %d has not stopped within %v", pid, freezeLimit)
		}
	}
	return nil
}

// isFrozen reports whether all threads of a process have stopped or ended. See proc_pid_stat(5).
func isFrozen(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil { // the thread has ended
			continue
		}
		behind := stat[bytes.LastIndexByte(stat, ')')+1:] // the thread's name, which may have any character
		if state := bytes.TrimSpace(behind)[0]; !bytes.ContainsRune([]byte("TtZX"), rune(state)) {
			return false
		}
	}
	return true
}
