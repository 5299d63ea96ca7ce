package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A pinning says on which processors processes run. The zero value leaves the choice to the kernel.
type pinning struct {
	on          bool
	proxy, rest *unix.CPUSet
}

// pin gives the first half of all processors to the proxy, and the other half to this process and all others.
func pin() (pinning, error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return pinning{}, err
	}
	n := all.Count()
	if n < 2 {
		return pinning{}, fmt.Errorf("-pin needs two processors, and there is %d", n)
	}
	p := pinning{on: true, proxy: &unix.CPUSet{}, rest: &unix.CPUSet{}}
	seen := 0
	for cpu := range len(all) * 64 {
		if !all.IsSet(cpu) {
			continue
		}
		if seen < n/2 {
			p.proxy.Set(cpu)
		} else {
			p.rest.Set(cpu)
		}
		seen++
	}
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return p, err
	}
	for _, path := range threads {
		id, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			return p, err
		}
		if err := unix.SchedSetaffinity(id, p.rest); err != nil && !os.IsNotExist(err) {
			return p, err
		}
	}
	return p, nil
}

// workers returns the number of processors of a proxy.
func (p pinning) workers() int {
	if p.on {
		return p.proxy.Count()
	}
	return runtime.NumCPU()
}

// start starts cmd on the processors in set. A child inherits the processors of the thread that starts it.
func (p pinning) start(cmd *exec.Cmd, set *unix.CPUSet) (*testproc.Process, error) {
	if !p.on {
		return testproc.Start(cmd)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, set); err != nil {
		return nil, err
	}
	process, err := testproc.Start(cmd)
	if back := unix.SchedSetaffinity(0, p.rest); err == nil && back != nil {
		process.Kill()
		return nil, back
	}
	return process, err
}
