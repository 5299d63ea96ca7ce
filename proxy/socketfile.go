package proxy

import (
	"github.com/lictor-proxy/lictor/internal/unixsocket"
)

// This file opens the Unix sockets of services, and removes their files. An engine gets such a socket as it gets an
// inherited one, and need not know how it was opened.

// openUnix opens the Unix socket of f, or takes the inherited one of o. The file is nil as long as another process may
// still serve an inherited socket.
func (p *Proxier) openUnix(o listenSpec, s *service, f SocketFile) (*unixsocket.File, proxySocket, error) {
	if o.file != nil {
		socket, err := p.engine.listenTCP(o, s)
		return nil, socket, err
	}
	l, file, err := unixsocket.Listen(f.Path, f.Access)
	if err != nil {
		return nil, nil, err
	}
	if o.file, err = l.File(); err == nil {
		var socket proxySocket
		if socket, err = p.engine.listenTCP(o, s); err == nil {
			_, _ = o.file.Close(), l.Close() // the engine has a duplicate
			return file, socket, nil
		}
		_ = o.file.Close()
	}
	file.Remove()
	_ = l.Close()
	return nil, nil, err
}

// ownFilesLocked makes this process remove the files of its inherited Unix sockets at the end, because it serves them
// from now on.
func (p *Proxier) ownFilesLocked() {
	for key, s := range p.sockets {
		if key.addr.Path != "" && s.file == nil && !s.foreign {
			s.file = unixsocket.Opened(key.addr.Path)
			p.setAccess(s, s.access) // the earlier process may have had another configuration
		}
	}
}

// restrict sets who may connect to a socket that stays open. restrict does nothing for other sockets than Unix sockets.
func (p *Proxier) restrict(s *boundSocket, a unixsocket.Access) {
	if s.access != a {
		p.setAccess(s, a)
	}
}

func (p *Proxier) setAccess(s *boundSocket, a unixsocket.Access) {
	s.access = a
	if err := s.file.Restrict(a); err != nil {
		p.log.Warn("cannot set who may connect to the socket", "listen", s.Addr(), "error", err)
	}
}

// removeFile removes the file of a Unix socket, so that clients see at once that nobody listens. removeFile does
// nothing if another process serves the socket.
func (s *boundSocket) removeFile() {
	s.file.Remove()
	s.file = nil
}
