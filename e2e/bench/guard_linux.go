package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// A guard is a process that outlives this one by a moment. Whatever this one starts dies with it, but not what those
// start (nginx has workers): when the pipe to the guard breaks, it kills the groups that it was told of, and removes
// the folder of their files.
type guard struct {
	dir  string // for files
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
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is not for it
	if g.pipe, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return g, g.cmd.Start()
}

// add puts a group under guard. That the guard has died is no reason to end.
func (g *guard) add(group int) { fmt.Fprintln(g.pipe, group) }

// remove takes a group from it, which has ended.
func (g *guard) remove(group int) { fmt.Fprintln(g.pipe, -group) }

// stop ends the guard, and what it still guards.
func (g *guard) stop() {
	g.pipe.Close()
	_ = g.cmd.Wait() // nothing depends on how it ended
}

// serveGuard is the life of the guard's process.
func serveGuard(in io.Reader, dir string) error {
	defer discard(dir)
	groups := map[int]bool{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
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
		_ = syscall.Kill(-group, syscall.SIGKILL) // gone already, mostly
	}
	return nil
}
