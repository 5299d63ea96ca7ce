// Package testproc runs the programs that tests and the demo are about: consul agents, lictor itself, instances that
// can be killed.
//
// A [Process] never outlives whoever started it (where the system can promise that: Linux and FreeBSD), keeps what
// it printed, and is only ever ended by its own process ID.
package testproc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// A Process is a running or ended program. Its methods may be called concurrently.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the process has ended and its output has been read
}

// Start starts cmd in a process group of its own, so that Ctrl-C at a terminal reaches its owner only.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = attributes()
	// A child of the process may hold its output open; nobody should wait for that.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go p.wait()
	return p, nil
}

func (p *Process) wait() {
	// The outcome is in cmd.ProcessState; that a killed process has an error is no news.
	_ = p.cmd.Wait()
	close(p.done)
}

// Pid is the process ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends sig to the process. That it has ended already is no error.
func (p *Process) Signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// ExitCode waits until the process ends, or ctx does. The code is -1 for a process that a signal ended.
func (p *Process) ExitCode(ctx context.Context) (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("process %d still runs: %w", p.Pid(), ctx.Err())
	}
}

// Kill ends the process the hard way and waits until it is gone.
func (p *Process) Kill() {
	_ = p.Signal(os.Kill)
	<-p.done
}

// Stop asks the process to end with sig, and kills it when it has not ended after grace.
func (p *Process) Stop(sig os.Signal, grace time.Duration) {
	_ = p.Signal(sig)
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if _, err := p.ExitCode(ctx); err != nil {
		p.Kill()
	}
}
