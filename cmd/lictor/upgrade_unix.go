//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/handover"
	"github.com/lictor-proxy/lictor/proxy"
)

// upgradeSignal asks for an upgrade.
const upgradeSignal = syscall.SIGUSR2

// A successor is the process that is to take this one's place, as this one sees it.
type successor struct {
	cmd   *exec.Cmd
	conn  *handover.Conn
	ended chan struct{} // closed when it has, and cmd.ProcessState tells how
	ready handoverMessage
}

// Upgrade has another process take this one's place: of the program that is at the same path now, with the same arguments. It returns when
// that serves. After an error everything is as it was.
func (d *daemon) Upgrade(ctx context.Context) (admin.Upgrade, error) {
	ctx, cancel := d.untilTheEnd(ctx)
	defer cancel()
	if err := d.upgrading.take(ctx); err != nil {
		return admin.Upgrade{}, underWay(err)
	}
	defer d.upgrading.giveBack()
	if err := d.reloading.take(ctx); err != nil {
		return admin.Upgrade{}, underWay(err)
	}
	defer d.reloading.giveBack()
	if t := d.serving.successor(); t != nil {
		return admin.Upgrade{}, t.refusal()
	}
	d.log.Info("upgrading", "program", d.program)
	began := time.Now()
	if err := d.upgrade(); err != nil {
		d.log.Error("not upgraded, this process goes on", "error", err)
		d.events.Add(admin.Event{Kind: admin.KindUpgrade, Text: "failed, this process goes on: " + err.Error()})
		return admin.Upgrade{}, err
	}
	t := d.serving.successor()
	d.log.Info("another process has taken over, connections go on here until they end", "pid", t.pid, "version", t.build.Version, "took", time.Since(began))
	close(d.replaced)
	return admin.Upgrade{PID: t.pid, Version: t.build.Version, Revision: t.build.Revision}, nil
}

func (d *daemon) upgrade() error {
	switch {
	case d.program == "":
		return errors.New("this process cannot be replaced: only lictor run can")
	case os.Getpid() == 1:
		return errors.New("this is process 1, with which its container ends: start another container instead")
	case d.ending.Err() != nil:
		return errEnding
	}
	sockets, err := d.proxier.Sockets()
	if err != nil {
		return err
	}
	s, err := d.launch()
	if err == nil {
		err = d.replaceBy(s, sockets)
	}
	for _, one := range sockets {
		_ = one.File.Close() // a duplicate
	}
	if err != nil {
		d.proxier.Resume()
		s.kill()
	}
	return err
}

// launch starts the successor.
func (d *daemon) launch() (*successor, error) {
	conn, child, err := handover.Pair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = child.Close() }() // the process has it
	cmd := exec.Command(d.program, os.Args[1:]...)
	cmd.Env = append(successorEnvironment(os.Environ()), handoverVariable+"=3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{child}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("the program cannot be started: %w", err), conn.Close())
	}
	s := &successor{cmd: cmd, conn: conn, ended: make(chan struct{})}
	go s.wait()
	return s, nil
}

// wait reaps the process. It is not waited for itself: the successor outlives this process.
func (s *successor) wait() {
	_ = s.cmd.Wait() // how it ended is in ProcessState
	close(s.ended)
}

// successorEnvironment leaves out of env what systemd has said to this process only, see sd_listen_fds(3) and sd_watchdog_enabled(3).
func successorEnvironment(env []string) (out []string) {
	for _, v := range env {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", handoverVariable:
		default:
			out = append(out, v)
		}
	}
	return out
}

// kill ends a successor that is not to be one; it may be nil.
func (s *successor) kill() {
	if s == nil {
		return
	}
	_ = s.conn.Close()
	_ = s.cmd.Process.Kill() // it fails if the process has ended
	<-s.ended
}

// replaceBy has s take over.
func (d *daemon) replaceBy(s *successor, sockets []proxy.Inherited) error {
	giveUp := func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) } // it fails only if it is closed
	defer context.AfterFunc(d.ending, giveUp)()
	_ = s.conn.SetDeadline(time.Now().Add(upgradeTime))
	if err := d.offer(s, sockets); err != nil {
		return s.problem(err)
	}
	if err := s.expect(kindReady, &s.ready); err != nil {
		return err
	}
	_ = s.conn.SetDeadline(time.Now().Add(switchTime))
	if d.ending.Err() != nil {
		return errEnding
	}
	if err := d.passSessions(s); err != nil {
		return s.problem(err)
	}
	if err := s.expect(kindServing, new(handoverMessage)); err != nil {
		return err
	}
	to := &takenOver{pid: s.cmd.Process.Pid}
	if s.ready.Build != nil {
		to.build = *s.ready.Build
	}
	if err := d.serving.pass(to); err != nil {
		return err
	}
	d.letGo(s)
	return nil
}

// offer sends what the successor needs to be ready.
func (d *daemon) offer(s *successor, sockets []proxy.Inherited) error {
	var all []handedSocket
	var fds []int
	for _, one := range sockets {
		fd, err := descriptor(one.File)
		if err != nil {
			return err
		}
		all, fds = append(all, handedSocket{one.Protocol.String(), one.Addr.String(), one.Service}), append(fds, fd)
	}
	if c, ok := d.admin.listener.(syscall.Conn); ok {
		fd, err := descriptor(c)
		if err != nil {
			return err
		}
		all, fds = append(all, handedSocket{Protocol: adminSocket, Addr: d.admin.address()}), append(fds, fd)
	}
	state := &handedState{PID: os.Getpid()}
	state.Sets, state.Drained = d.sets.Export()
	state.Links = d.cycles.Links()
	if c := d.consul.Load(); c != nil {
		var err error
		if state.Saved, err = c.Save(); err != nil {
			return err
		}
	}
	for len(all) > handover.MaxDescriptors {
		const n = handover.MaxDescriptors
		if err := s.conn.Send(handoverMessage{Kind: kindOffer, Version: handoverVersion, More: true, Sockets: all[:n]}, fds[:n]...); err != nil {
			return err
		}
		all, fds = all[n:], fds[n:]
	}
	return s.conn.Send(handoverMessage{Kind: kindOffer, Version: handoverVersion, Sockets: all, State: state}, fds...)
}

// descriptor is that of c, which must stay open as long as it is used.
func descriptor(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// passSessions has UDP stand still, and sends its sessions.
func (d *daemon) passSessions(s *successor) error {
	sessions := d.proxier.Suspend()
	for len(sessions) > 0 {
		some := sessions[:min(len(sessions), handover.MaxDescriptors)]
		var fds []int
		for _, x := range some {
			fds = append(fds, x.FD)
		}
		if err := s.conn.Send(handoverMessage{Kind: kindSessions, Sessions: some}, fds...); err != nil {
			return err
		}
		sessions = sessions[len(some):]
	}
	return s.conn.Send(handoverMessage{Kind: kindGo})
}

// letGo leaves to s what it has taken over. Nothing can fail any more: at worst, s does not hear the last word, and says so.
func (d *daemon) letGo(s *successor) {
	d.proxier.Release()
	if s.ready.Admin {
		d.admin.Release(d.admin.listener)
	}
	d.registered.leave()
	d.registerAs(nil)
	d.service.replacedBy(s.cmd.Process.Pid)
	if c := d.consul.Load(); c != nil {
		c.HoldState(true) // last, for it waits for the disk
	}
	if err := s.conn.Send(handoverMessage{Kind: kindMain}); err != nil {
		d.log.Warn("the successor may not know that it is on its own", "error", err)
	}
	_ = s.conn.Close() // nothing else is to come
}

// expect receives a message of a kind.
func (s *successor) expect(kind string, m *handoverMessage) error {
	fds, err := s.conn.Receive(m)
	handover.CloseAll(fds) // there should be none
	switch {
	case err != nil:
		return s.problem(err)
	case m.Kind == kindFailed:
		return errors.New(m.Reason)
	case m.Kind != kind:
		return fmt.Errorf("the new process says %q instead of %q", m.Kind, kind)
	}
	return nil
}

// problem is what is wrong when a message could not be sent or received.
func (s *successor) problem(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the new process, %d, was not ready in time", s.cmd.Process.Pid)
	}
	select {
	case <-s.ended:
		return fmt.Errorf("the new process has ended (%s); the log may say why", s.cmd.ProcessState)
	case <-time.After(time.Second):
		return fmt.Errorf("the new process, %d, does not take over: %w", s.cmd.Process.Pid, err)
	}
}

// dialPredecessor returns the connection to the process that has started this one.
func dialPredecessor(fd int) (messenger, error) {
	c, err := handover.Inherited(fd)
	if err != nil { // not a nil *handover.Conn
		return nil, err
	}
	return c, nil
}
