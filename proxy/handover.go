package proxy

import (
	"net/netip"
	"os"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// One process hands its listeners and UDP sessions over to another in these steps. Until Release it can go back to
// where it was, by Resume.
//
//	predecessor                        successor
//	Sockets                    ---->   New with Inherited and Hold, Apply: the same sockets are open,
//	                                   and nothing reads them
//	Suspend: UDP stands still  ---->   Begin with the sessions: it serves
//	Release                            both have accepted TCP clients for a moment, none is lost
//	Shutdown: what is left ends
//
// Both processes have descriptors of the same sockets, so what has come to one and was not read waits in the kernel,
// whoever reads it next. UDP sockets are all handed over, for to close one of a group that shares a port would lose
// what waits in it, and move clients.

// A Session is a UDP session on its way to another process.
type Session struct {
	// The listener: its service, what it was asked for as, and which of its sockets the client's datagrams come to.
	Service string
	Listen  netip.AddrPort
	Socket  int

	Client netip.AddrPort
	Local  netip.Addr // that the client used; invalid if the listener has one only

	Endpoint          lb.Endpoint
	Requests, Answers int64         // datagrams of the client, and of the endpoint
	Sent              int64         // of the requests, those that the endpoint was sent
	Up, Down          int64         // bytes
	Age               time.Duration // since it began
	Quiet             time.Duration // since a datagram moved
	Bound             bool          // further datagrams of the client belong to it

	FD int `json:"-"` // connected to the endpoint
}

// A sessionSocket is a proxySocket whose clients have sessions.
type sessionSocket interface {
	proxySocket

	// suspend has the socket stand still, and returns its sessions, but for those that have no socket of their own.
	// Their descriptors stay open until resume, release, Close or Shutdown.
	suspend() []Session

	// resume undoes suspend.
	resume()

	// adopt makes sessions of another process, with their descriptors, those of this socket; those that cannot be
	// are closed. It returns how many are. Before ProxyLoop only.
	adopt(all []Session) int
}

// Sockets returns descriptors of all listeners' sockets, to be passed to another process and closed. From here until
// Resume the process may be forked: until a child has executed its program it has all descriptors too, and epoll
// goes on telling of what only this one closes.
func (p *Proxier) Sockets() ([]Inherited, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	p.engine.setForking(true)
	var all []Inherited
	for key, s := range p.sockets {
		fds, err := s.descriptors()
		for _, fd := range fds {
			one := Inherited{Protocol: key.protocol, Addr: key.addr, File: os.NewFile(uintptr(fd), s.Addr().String())}
			if key.addr.Port() == 0 {
				one.Service = key.name
			}
			all = append(all, one)
		}
		if err != nil {
			closeInherited(all)
			p.engine.setForking(false)
			return nil, err
		}
	}
	return all, nil
}

func closeInherited(all []Inherited) {
	for _, one := range all {
		_ = one.File.Close() // others have descriptors of their own
	}
}

// Suspend has UDP stand still: what clients and endpoints send waits in the kernel. It returns the sessions, whose
// descriptors stay the Proxier's. One-way sessions are not among them, nor those whose endpoint's host name is being
// resolved: these start over. The caller sees to it that nothing else is asked of the Proxier until Resume or
// Release.
func (p *Proxier) Suspend() []Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []Session
	for key, s := range p.sockets {
		u, ok := s.proxySocket.(sessionSocket)
		if !ok {
			continue
		}
		for _, x := range u.suspend() {
			x.Service, x.Listen = s.service.name(), key.addr
			all = append(all, x)
		}
	}
	return all
}

// Resume undoes Sockets and Suspend: nobody has taken over.
func (p *Proxier) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sockets {
		if u, ok := s.proxySocket.(sessionSocket); ok {
			u.resume()
		}
	}
	p.engine.setForking(false)
}

// Release lets go of the listeners, which another process serves by now, and of UDP sessions. TCP connections go on:
// Shutdown waits for them. Nothing can be applied any more.
func (p *Proxier) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for key, s := range p.sockets {
		delete(p.sockets, key)
		p.leaving[s] = key
		s.release()
		p.loops.run(func() { p.drain(s) })
	}
}

// Begin ends Options.Hold: clients are served. Sessions are of another process; who cannot be one here, because its
// listener or endpoint is not there any more, is closed, and its client's next datagram begins another. It returns
// how many go on.
func (p *Proxier) Begin(sessions []Session) (adopted int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bySocket := map[socketKey][]Session{}
	for _, x := range sessions {
		key := socketKey{protocol: UDP, addr: x.Listen}
		if x.Listen.Port() == 0 {
			key.name = x.Service
		}
		bySocket[key] = append(bySocket[key], x)
	}
	for key, some := range bySocket {
		if u, ok := p.socketLocked(key).(sessionSocket); ok {
			adopted += u.adopt(some)
			continue
		}
		for _, x := range some {
			closeSession(x.FD)
		}
	}
	if p.held {
		p.held = false
		for _, s := range p.sockets {
			p.loops.run(func() { p.serveSocket(s) })
		}
	}
	return adopted
}

// socketLocked is the socket that was asked for as key; nil if there is none.
func (p *Proxier) socketLocked(key socketKey) proxySocket {
	if s := p.sockets[key]; s != nil {
		return s.proxySocket
	}
	return nil
}
