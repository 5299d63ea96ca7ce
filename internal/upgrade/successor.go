package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// A Successor is the process that is about to replace this one. After a method has returned an error, the caller must
// kill the Successor.
type Successor struct {
	cmd   *exec.Cmd
	conn  *conn
	ended chan struct{} // closed when the process has ended

	// Fields of the ready message.
	build Build
	admin bool
}

// An Offer is what a serving process hands to its successor.
type Offer struct {
	Sockets []proxy.Inherited // of the listeners
	Admin   syscall.Conn      // socket of the admin API; nil if there is none to pass
	Address string            // address of the admin API
	State   State
}

// Launch starts program with arguments as the successor of this process.
func Launch(program string, arguments []string) (*Successor, error) {
	conn, child, err := newPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = child.Close() }() // the child process has its own descriptor
	cmd := exec.Command(program, arguments...)
	cmd.Env = append(successorEnvironment(os.Environ()), variable+"=3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{child}
	standBeside(cmd)
	if err := cmd.Start(); err != nil {
		conn.close()
		return nil, fmt.Errorf("the program cannot be started: %w", err)
	}
	s := &Successor{cmd: cmd, conn: conn, ended: make(chan struct{})}
	go s.wait()
	return s, nil
}

// wait waits for the end of the process. Nothing waits for wait, because the successor outlives this process.
func (s *Successor) wait() {
	waitFor(s.cmd)
	close(s.ended)
}

// successorEnvironment removes from env the variables that systemd has set for this process only; see sd_listen_fds(3)
// and sd_watchdog_enabled(3).
func successorEnvironment(env []string) (out []string) {
	for _, v := range env {
		switch name, _, _ := strings.Cut(v, "="); name {
		case "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", variable:
		default:
			out = append(out, v)
		}
	}
	return out
}

// PID returns the process ID.
func (s *Successor) PID() int { return s.cmd.Process.Pid }

// Build returns the successor's build, which is known after Prepare. An unknown part is empty.
func (s *Successor) Build() Build { return s.build }

// TookAdmin reports whether the successor has taken the socket of the admin API. The result is valid after Prepare.
func (s *Successor) TookAdmin() bool { return s.admin }

// Kill kills a failed successor, and waits until it has ended. A nil Successor is allowed.
func (s *Successor) Kill() {
	if s == nil {
		return
	}
	s.conn.close()
	_ = s.cmd.Process.Kill() // fails if the process has ended
	<-s.ended
}

// bound makes messages fail after limit, or when ctx ends. The caller must call release.
func (s *Successor) bound(ctx context.Context, limit time.Duration) (release func() bool) {
	s.conn.setDeadline(time.Now().Add(limit))
	return context.AfterFunc(ctx, func() { s.conn.setDeadline(time.Unix(1, 0)) })
}

// Prepare sends the offer, and returns when the successor is ready to serve. Prepare fails when ctx ends.
func (s *Successor) Prepare(ctx context.Context, o Offer) error {
	defer s.bound(ctx, readyTimeout)()
	if err := s.sendOffer(o); err != nil {
		return s.problem(err)
	}
	var ready message
	if err := s.expect(kindReady, &ready); err != nil {
		return err
	}
	if ready.Build != nil {
		s.build = *ready.Build
	}
	s.admin = ready.Admin
	return nil
}

func (s *Successor) sendOffer(o Offer) error {
	var all []socket
	var fds []int
	for _, one := range o.Sockets {
		fd, err := descriptor(one.File)
		if err != nil {
			return err
		}
		all = append(all, socket{one.Protocol.String(), one.Addr.String(), one.Service, one.Foreign})
		fds = append(fds, fd)
	}
	if o.Admin != nil {
		fd, err := descriptor(o.Admin)
		if err != nil {
			return err
		}
		all, fds = append(all, socket{Protocol: adminSocket, Addr: o.Address}), append(fds, fd)
	}
	const n = maxDescriptors
	for len(all) > n {
		m := message{Kind: kindOffer, Version: protocolVersion, More: true, Sockets: all[:n]}
		if err := s.conn.send(m, fds[:n]...); err != nil {
			return err
		}
		all, fds = all[n:], fds[n:]
	}
	return s.conn.send(message{Kind: kindOffer, Version: protocolVersion, Sockets: all, State: &o.State}, fds...)
}

// descriptor returns the descriptor of c. The caller must keep c open while it uses the descriptor.
func descriptor(c syscall.Conn) (fd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// Commit sends the UDP sessions, which are suspended, the other uses of this process and its former processes, and
// counters, in a form that the caller chooses. Commit returns when the successor serves. Commit fails when ctx ends.
func (s *Successor) Commit(
	ctx context.Context, sessions []proxy.Session, uses []ProcessUses, counters json.RawMessage,
) error {
	defer s.bound(ctx, switchTimeout)()
	err := s.sendSessions(sessions)
	if err == nil {
		err = s.conn.send(message{Kind: kindGo, Formers: uses, Counters: counters})
	}
	if err != nil {
		return s.problem(err)
	}
	return s.expect(kindServing, new(message))
}

func (s *Successor) sendSessions(sessions []proxy.Session) error {
	for len(sessions) > 0 {
		some := sessions[:min(len(sessions), maxDescriptors)]
		var fds []int
		for _, x := range some {
			fds = append(fds, x.FD)
		}
		if err := s.conn.send(message{Kind: kindSessions, Sessions: some}, fds...); err != nil {
			return err
		}
		sessions = sessions[len(some):]
	}
	return nil
}

// Release tells the successor that this process has released everything. Release also makes the former processes report
// their uses to the successor. counters are those of Commit, as they are now. Release returns the successor as the
// serving process. On error it returns nil; the successor continues, and logs the problem.
func (s *Successor) Release(formers []*Former, counters json.RawMessage) (*Serving, error) {
	m := message{Kind: kindMain, Counters: counters}
	var fds []int
	for _, f := range formers[:min(len(formers), maxDescriptors)] {
		file, err := f.move()
		if err != nil {
			continue // the process has ended
		}
		defer func() { _ = file.Close() }() // the successor has its own descriptor
		m.Formers, fds = append(m.Formers, ProcessUses{PID: f.PID}), append(fds, int(file.Fd()))
	}
	s.conn.setDeadline(time.Time{})
	if err := s.conn.send(m, fds...); err != nil {
		s.conn.close()
		return nil, err
	}
	return &Serving{s.conn}, nil
}

// expect receives a message of this kind.
func (s *Successor) expect(kind string, m *message) error {
	fds, err := s.conn.receive(m)
	closeDescriptors(fds) // no descriptors are expected
	switch {
	case err != nil:
		return s.problem(err)
	case m.Kind == kindFailed:
		return errors.New(m.Reason)
	case m.Kind != kind:
		return fmt.Errorf("the new process sent %q instead of %q", m.Kind, kind)
	}
	return nil
}

// problem explains why a message could not be sent or received.
func (s *Successor) problem(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the new process, %d, was not ready in time", s.PID())
	}
	select {
	case <-s.ended:
		how := "" // known only of a child of this process
		if s.cmd.ProcessState != nil {
			how = fmt.Sprintf(" (%s)", s.cmd.ProcessState)
		}
		return fmt.Errorf("the new process has ended%s; the log may say why", how)
	case <-time.After(time.Second):
		return fmt.Errorf("the new process, %d, does not take over: %w", s.PID(), err)
	}
}
