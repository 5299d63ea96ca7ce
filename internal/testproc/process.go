// Package testproc runs programs for tests and for the demo: Consul agents, Lictor, and instances that can be killed.
//
// A [Process] never outlives the process that started it; only Linux and FreeBSD can guarantee that. A Process keeps
// its output, and is signalled only by its own process ID.
package testproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A Process is a running or ended program. Its methods are safe for concurrent use.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the process has ended and its output has been read
}

// Start starts cmd in its own process group, so that Ctrl-C at a terminal does not reach the process. Start keeps the
// other attributes in cmd.SysProcAttr, such as namespaces.
func Start(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	bind(cmd.SysProcAttr)
	// A child of the process may keep the output open. WaitDelay limits the wait for such a child.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go p.wait()
	return p, nil
}

// StartApart starts cmd as Start does, from a thread of its own. A process that Start has started ends with the thread
// that has called Start (prctl(2), PR_SET_PDEATHSIG), and threads end in tests that lock them and never unlock them,
// such as those that enter a namespace. The process is in the namespaces of the program, not in those of the calling
// thread.
func StartApart(cmd *exec.Cmd) (p *Process, err error) {
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		p, err = Start(cmd)
		close(started)
		if err == nil {
			<-p.Done()
		}
	}()
	<-started
	return p, err
}

func (p *Process) wait() {
	// The result is in cmd.ProcessState. A killed process always has an error.
	_ = p.cmd.Wait()
	close(p.done)
}

// Pid returns the process ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process is still running.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends sig to the process. Signal returns nil if the process has ended already.
func (p *Process) Signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// ExitCode waits until the process or ctx ends. The code is -1 if a signal ended the process.
func (p *Process) ExitCode(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("process %d still runs: %w", p.Pid(), ctx.Err())
	}
}

// Kill kills the process with SIGKILL, and waits until it has ended.
func (p *Process) Kill() {
	_ = p.Signal(os.Kill)
	<-p.done
}

// Stop sends sig to the process, and kills it if it has not ended after grace.
func (p *Process) Stop(sig os.Signal, grace time.Duration) {
	_ = p.Signal(sig)
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if _, err := p.ExitCode(ctx); err != nil {
		p.Kill()
	}
}
