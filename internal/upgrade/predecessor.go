package upgrade

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// A Predecessor is the process whose place this one is to take, as this one sees it. Nil means that there is none: the
// methods that may be called then say so.
type Predecessor struct {
	conn    *conn
	sockets []proxy.Inherited
	admin   *os.File // nil: it has no admin API
	address string   // of that
	state   State
	uses    []ProcessUses
}

// FindPredecessor returns the process that has started this one to take its place, with what it offers. It returns nil
// if there is none.
func FindPredecessor(getenv func(string) string) (*Predecessor, error) {
	text := getenv(variable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 0 {
		return nil, fmt.Errorf("%s: %q is no descriptor", variable, text)
	}
	p := &Predecessor{}
	if p.conn, err = inheritConn(fd); err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	p.conn.setDeadline(time.Now().Add(readyTimeout))
	if err := p.receiveOffer(); err != nil {
		p.Failed(err)
		return nil, err
	}
	return p, nil
}

func (p *Predecessor) receiveOffer() error {
	for {
		var m message
		fds, err := p.conn.receive(&m)
		if err != nil {
			return fmt.Errorf("the earlier process: %w", err)
		}
		if m.Kind != kindOffer || m.Version != protocolVersion || len(fds) != len(m.Sockets) {
			closeDescriptors(fds)
			return fmt.Errorf("the earlier process speaks version %d of the hand-over, this one %d: restart instead",
				m.Version, protocolVersion)
		}
		for i, s := range m.Sockets {
			if err := p.take(s, os.NewFile(uintptr(fds[i]), s.Addr)); err != nil {
				closeDescriptors(fds[i+1:])
				return err
			}
		}
		if !m.More {
			if m.State != nil {
				p.state = *m.State
			}
			return nil
		}
	}
}

func (p *Predecessor) take(s socket, f *os.File) error {
	if s.Protocol == adminSocket {
		p.admin, p.address = f, s.Addr
		return nil
	}
	one := proxy.Inherited{Service: s.Service, File: f}
	if s.Protocol == proxy.UDP.String() {
		one.Protocol = proxy.UDP
	}
	p.sockets = append(p.sockets, one)
	addr, err := netip.ParseAddrPort(s.Addr)
	if err != nil {
		return fmt.Errorf("a socket of the earlier process has the address %q: %w", s.Addr, err)
	}
	p.sockets[len(p.sockets)-1].Addr = addr
	return nil
}

// Failed tells the predecessor why this process does not take over. The predecessor goes on. A nil Predecessor does
// nothing.
func (p *Predecessor) Failed(reason error) {
	if p == nil {
		return
	}
	// If it cannot be sent, the predecessor reports that this process has ended.
	_ = p.conn.send(message{Kind: kindFailed, Reason: reason.Error()})
	p.conn.close()
}

// Sockets returns the sockets of its listeners: none of a nil Predecessor.
func (p *Predecessor) Sockets() []proxy.Inherited {
	if p == nil {
		return nil
	}
	return p.sockets
}

// State returns what it knows: nothing of a nil Predecessor.
func (p *Predecessor) State() State {
	if p == nil {
		return State{}
	}
	return p.state
}

// Admin returns the socket of its admin API, which is the caller's to close, and the address. The file is nil if there
// is no such socket. Admin is called once.
func (p *Predecessor) Admin() (file *os.File, address string) {
	if p == nil {
		return nil, ""
	}
	return p.admin, p.address
}

// Sessions says that this process is ready, and returns the UDP sessions. From then on this process has to serve. With
// admin, it has taken the socket of the admin API.
func (p *Predecessor) Sessions(b Build, admin bool) (all []proxy.Session, err error) {
	defer func() {
		if err != nil {
			for _, x := range all {
				closeDescriptors([]int{x.FD})
			}
		}
	}()
	if err := p.conn.send(message{Kind: kindReady, Admin: admin, Build: &b}); err != nil {
		return nil, fmt.Errorf("the earlier process: %w", err)
	}
	p.conn.setDeadline(time.Now().Add(switchTimeout))
	for {
		var m message
		fds, err := p.conn.receive(&m)
		switch {
		case err != nil:
			return all, fmt.Errorf("the earlier process: %w", err)
		case m.Kind == kindGo && len(fds) == 0:
			p.uses = m.Formers
			return all, nil
		case m.Kind != kindSessions || len(fds) != len(m.Sessions):
			closeDescriptors(fds)
			return all, fmt.Errorf("the earlier process says %q with %d descriptors", m.Kind, len(fds))
		}
		for i, x := range m.Sessions {
			x.FD = fds[i]
			all = append(all, x)
		}
	}
}

// Uses returns what the predecessor, and the processes that it has replaced, used when it sent its sessions. Sessions
// are not included. It is empty before Sessions has returned, and if the predecessor does not tell.
func (p *Predecessor) Uses() []ProcessUses { return p.uses }

// Serving says that this process serves. It returns when the predecessor has let go of everything, or has ended. After
// that, the former processes tell what they use, the predecessor being one of them. After an error there are none.
func (p *Predecessor) Serving() ([]*Former, error) {
	m, fds, err := p.serving()
	if err != nil {
		closeDescriptors(fds)
		p.conn.close()
		return nil, err
	}
	p.conn.setDeadline(time.Time{})
	all := []*Former{{p.state.PID, p.conn}}
	for i, one := range m.Formers {
		c, err := inheritConn(fds[i])
		if err != nil {
			continue // it is not heard of any more
		}
		all = append(all, &Former{one.PID, c})
	}
	return all, nil
}

func (p *Predecessor) serving() (m message, fds []int, err error) {
	if err = p.conn.send(message{Kind: kindServing}); err != nil {
		return m, nil, err
	}
	fds, err = p.conn.receive(&m)
	switch {
	case err != nil:
	case m.Kind != kindMain:
		err = errors.New("it says " + strconv.Quote(m.Kind))
	case len(fds) != len(m.Formers):
		err = fmt.Errorf("it has %d descriptors for %d processes", len(fds), len(m.Formers))
	}
	return m, fds, err
}
