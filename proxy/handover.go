package proxy

import (
	"net/netip"
	"os"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
)

// One process hands its listeners and UDP sessions over to another in these steps. Until Release, Resume undoes them.
//
//	predecessor                        successor
//	Sockets                    ---->   New with Inherited and Hold, Apply: the same sockets are open,
//	                                   and nothing reads them
//	Suspend: UDP stands still  ---->   Begin with the sessions: it serves
//	Release                            both have accepted TCP clients for a moment, none is lost
//	Shutdown: what is left ends
//
// Both processes have descriptors of the same sockets. A client or a datagram that neither has read yet waits in the
// kernel, and either process may read it. All UDP sockets are handed over. If one socket of a group with a shared port
// were closed, its unread datagrams would be lost, and its clients would move to other sockets.

// A Session is a UDP session that is handed over to another process.
type Session struct {
	// The listener: its service, its configured address, and the index of its socket that receives the client's
	// datagrams.
	Service string
	Listen  netip.AddrPort
	Socket  int

	Client netip.AddrPort // the address that answers go to; with AcceptProxy that of the proxy
	Local  netip.Addr     // address that the client dialled; invalid unless the listener is on all addresses

	Endpoint          lb.Endpoint
	Requests, Answers int64         // datagrams of the client and of the endpoint
	Sent              int64         // client datagrams that were sent to the endpoint
	Up, Down          int64         // bytes to the endpoint and from the endpoint
	Age               time.Duration // time since the session began
	Quiet             time.Duration // time since a datagram moved
	Bound             bool          // further datagrams of the client belong to this session

	Headers *SessionHeaders `json:",omitempty"` // nil if the session has no PROXY headers

	FD int `json:"-"` // socket of the session, connected to the endpoint
}

// SessionHeaders are the PROXY headers of a Session.
type SessionHeaders struct {
	Sent  proxyproto.Version // version for the endpoint
	First bool               // only the first datagram to the endpoint has the header
	Front []byte             // header of the next datagram to the endpoint; empty if it has none

	// Heard says that the client is a proxy, and that each of its datagrams has a header. The others are the contents
	// of the header with which the session began. Client and Server are invalid if the header names no client.
	Heard          bool
	Client, Server netip.AddrPort
	Datagram       bool
	TLVs           []byte
}

// A sessionSocket is a proxySocket whose clients have sessions.
type sessionSocket interface {
	proxySocket

	// suspend stops the socket from reading, and returns its sessions. Sessions without a socket of their own are left
	// out. The sessions' descriptors stay open until resume, release, Close or Shutdown.
	suspend() []Session

	// resume undoes suspend.
	resume()

	// adopt takes over sessions of another process, with their descriptors. adopt closes the sessions that it cannot
	// take over, and returns the number of sessions taken over. Call adopt before ProxyLoop only.
	adopt(all []Session) int
}

// Sockets returns duplicates of all listeners' sockets, to be passed to another process and then closed. Between
// Sockets and Resume the process may fork. A forked child shares all descriptors until it has executed its program.
// Until then epoll still reports sockets that only this process has closed.
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
			one.Foreign = s.foreign
			one.Service = key.name // empty unless the configured port is 0
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
		_ = one.File.Close() // each Inherited is a duplicate
	}
}

// Suspend stops all UDP traffic: datagrams of clients and endpoints wait in the kernel. Suspend returns the sessions;
// the Proxier keeps their descriptors. Suspend does not return one-way sessions, nor sessions whose host name is being
// looked up. The clients of these sessions get new ones in the other process. After Suspend, call only Resume or
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
			x.Service, x.Listen = s.service.name(), key.addr.AddrPort
			all = append(all, x)
		}
	}
	return all
}

// Resume undoes Sockets and Suspend after a handover that has failed.
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

// Release gives up the listeners and the UDP sessions, which another process serves by now. TCP connections go on, and
// Shutdown waits for them. After Release, Apply returns ErrClosed.
func (p *Proxier) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for key, s := range p.sockets {
		delete(p.sockets, key)
		p.leaving[s] = key
		s.file = nil // the other process removes it
		s.release()
		p.loops.run(func() { p.drain(s) })
	}
}

// Begin ends Options.Hold and serves clients. Begin takes over sessions of another process and returns how many go on.
// A session whose listener or endpoint does not exist here is closed; its client gets a new session at its next
// datagram.
func (p *Proxier) Begin(sessions []Session) (adopted int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bySocket := map[socketKey][]Session{}
	for _, x := range sessions {
		key := socketKey{protocol: UDP, addr: lb.Addr{AddrPort: x.Listen}}
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
		p.ownFilesLocked()
		for _, s := range p.sockets {
			p.loops.run(func() { p.serveSocket(s) })
		}
	}
	return adopted
}

// socketLocked returns the socket for key, or nil if there is none.
func (p *Proxier) socketLocked(key socketKey) proxySocket {
	if s := p.sockets[key]; s != nil {
		return s.proxySocket
	}
	return nil
}
