package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// A Predecessor is the process that this process is about to replace. A nil Predecessor means that there is none; the
// methods that allow nil say so.
type Predecessor struct {
	conn    *conn
	sockets []proxy.Inherited
	admin   *os.File // nil if the predecessor has no admin API
	address string   // address of the admin API
	state   State
	uses    []ProcessUses

	counters json.RawMessage
}

// FindPredecessor returns the process that started this one as its successor, with its offer. FindPredecessor returns
// nil if there is none.
func FindPredecessor(getenv func(string) string) (*Predecessor, error) {
	text := getenv(variable)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 0 {
		return nil, fmt.Errorf("%s: %q is not a descriptor", variable, text)
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
			return fmt.Errorf("the earlier process uses version %d of the hand-over, this one %d: restart instead",
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
	one := proxy.Inherited{Service: s.Service, File: f, Foreign: s.Foreign}
	if s.Protocol == proxy.UDP.String() {
		one.Protocol = proxy.UDP
	}
	p.sockets = append(p.sockets, one)
	if err := p.sockets[len(p.sockets)-1].Addr.UnmarshalText([]byte(s.Addr)); err != nil {
		return fmt.Errorf("a socket of the earlier process has the address %q: %w", s.Addr, err)
	}
	return nil
}

// Failed tells the predecessor why this process does not take over. The predecessor then continues. A nil Predecessor
// is allowed.
func (p *Predecessor) Failed(reason error) {
	if p == nil {
		return
	}
	// If sending fails, the predecessor reports that this process has ended.
	_ = p.conn.send(message{Kind: kindFailed, Reason: reason.Error()})
	p.conn.close()
}

// Sockets returns the sockets of the predecessor's listeners. Sockets returns none for a nil Predecessor.
func (p *Predecessor) Sockets() []proxy.Inherited {
	if p == nil {
		return nil
	}
	return p.sockets
}

// State returns the predecessor's state; after Serving, only its PID. State returns the zero State for a nil
// Predecessor.
func (p *Predecessor) State() State {
	if p == nil {
		return State{}
	}
	return p.state
}

// Admin returns the socket and the address of the predecessor's admin API. The caller must close the file, which is nil
// if there is no such socket. Admin must be called only once. A nil Predecessor is allowed.
func (p *Predecessor) Admin() (file *os.File, address string) {
	if p == nil {
		return nil, ""
	}
	return p.admin, p.address
}

// Sessions reports that this process is ready, and returns the UDP sessions. From then on this process must serve. If
// admin is true, this process has taken the socket of the admin API.
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
			p.uses, p.counters = m.Formers, m.Counters
			return all, nil
		case m.Kind != kindSessions || len(fds) != len(m.Sessions):
			closeDescriptors(fds)
			return all, fmt.Errorf("the earlier process sent %q with %d descriptors", m.Kind, len(fds))
		}
		for i, x := range m.Sessions {
			x.FD = fds[i]
			all = append(all, x)
		}
	}
}

// Uses returns what the predecessor, and the processes that it has replaced, used when it sent its sessions. The
// handed-over sessions are not included. Uses returns nothing before Sessions has returned, or if the predecessor does
// not report uses.
func (p *Predecessor) Uses() []ProcessUses { return p.uses }

// Counters returns the counters that the predecessor has passed to Commit, and after Serving those that it has passed
// to Release. Counters returns nil if the predecessor sends none.
func (p *Predecessor) Counters() json.RawMessage { return p.counters }

// Serving reports that this process serves. Serving returns when the predecessor has released everything, or has ended.
// Serving returns the former processes, including the predecessor, which then report their uses. After an error there
// are none.
func (p *Predecessor) Serving() ([]*Former, error) {
	m, fds, err := p.serving()
	if err != nil {
		closeDescriptors(fds)
		p.conn.close()
		return nil, err
	}
	p.conn.setDeadline(time.Time{})
	if m.Counters != nil {
		p.counters = m.Counters
	}
	p.state = State{PID: p.state.PID} // the rest is used up, and perhaps large
	all := []*Former{{p.state.PID, p.conn}}
	for i, one := range m.Formers {
		c, err := inheritConn(fds[i])
		if err != nil {
			continue // the process can no longer report
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
		err = errors.New("it sent " + strconv.Quote(m.Kind))
	case len(fds) != len(m.Formers):
		err = fmt.Errorf("it sent %d descriptors for %d processes", len(fds), len(m.Formers))
	}
	return m, fds, err
}
