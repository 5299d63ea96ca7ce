package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lictor-proxy/lictor/internal/testcgroup"
)

// A guard is a process that cleans up after this one. Direct children of this process die with it, but their children
// (such as nginx's workers) do not. When the pipe to the guard closes, the guard kills the process groups that it knows
// and removes the folder of their files, and control groups.
type guard struct {
	dir  string // folder for files
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

func startGuard() (*guard, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lictor-bench")
	if err != nil {
		return nil, err
	}
	g := &guard{dir: dir, cmd: exec.Command(self, "guard", dir)}
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C must not reach the guard
	if g.pipe, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return g, g.cmd.Start()
}

// add makes the guard watch a process group. It ignores the error of a dead guard.
func (g *guard) add(group int) { fmt.Fprintln(g.pipe, group) }

// remove makes the guard forget a process group that has ended.
func (g *guard) remove(group int) { fmt.Fprintln(g.pipe, -group) }

// addCgroup makes the guard remove a control group in the end.
func (g *guard) addCgroup(name string) { fmt.Fprintln(g.pipe, name) }

// stop ends the guard, which first kills the groups that it still knows.
func (g *guard) stop() {
	g.pipe.Close()
	_ = g.cmd.Wait() // its exit code does not matter
}

// serveGuard is the main function of the guard's process.
func serveGuard(in io.Reader, dir string) error {
	defer discard(dir)
	groups := map[int]bool{}
	var cgroups []string
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if filepath.IsAbs(lines.Text()) {
			cgroups = append(cgroups, lines.Text())
			continue
		}
		group, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		switch {
		case err != nil:
			return err
		case group > 1:
			groups[group] = true
		default:
			delete(groups, -group)
		}
	}
	for group := range groups {
		_ = syscall.Kill(-group, syscall.SIGKILL) // the group has usually ended already
	}
	var err error
	for _, name := range cgroups {
		err = errors.Join(err, testcgroup.Remove(name))
	}
	return err
}
