//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
)

// An instance is a running server of a service. Over TCP it sends each client a line with its name, and then serves.
type instance struct {
	name  string
	addr  netip.AddrPort
	close func()
}

// startTCP starts an instance on a free port. serve gets each connection after the name was sent, and does not close
// it.
func startTCP(t testing.TB, name string, serve func(*net.TCPConn) error) *instance {
	t.Helper()
	return startTCPAt(t, net.IPv4(127, 0, 0, 1), name, serve)
}

// startTCPAt is startTCP at another address of this host.
func startTCPAt(t testing.TB, ip net.IP, name string, serve func(*net.TCPConn) error) *instance {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip})
	must(t, err)
	s := &tcpServer{name: name, serve: serve, conns: map[*net.TCPConn]bool{}, listener: l}
	s.running.Go(s.accept)
	i := &instance{name: name, addr: l.Addr().(*net.TCPAddr).AddrPort(), close: sync.OnceFunc(s.close)}
	t.Cleanup(i.close)
	return i
}

type tcpServer struct {
	name     string
	serve    func(*net.TCPConn) error
	listener *net.TCPListener
	running  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*net.TCPConn]bool
}

func (s *tcpServer) accept() {
	for {
		conn, err := s.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if !s.track(conn) {
			_ = conn.Close()
			return
		}
		s.running.Go(func() { s.handle(conn) })
	}
}

func (s *tcpServer) track(conn *net.TCPConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *tcpServer) handle(conn *net.TCPConn) {
	// The client of the test notices an error here.
	if _, err := io.WriteString(conn, s.name+"\n"); err == nil {
		_ = s.serve(conn)
	}
	_ = conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

func (s *tcpServer) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// echo sends back what it receives. When the client ends its direction, echo ends the other one.
func echo(conn *net.TCPConn) error {
	if _, err := io.Copy(conn, conn); err != nil {
		return err
	}
	return conn.CloseWrite()
}

// startEcho starts an instance that echoes.
func startEcho(t testing.TB, name string) *instance {
	t.Helper()
	return startTCP(t, name, echo)
}

// startUDP starts an instance that answers the datagram "who" with its name. It sends back any other datagram.
func startUDP(t testing.TB, name string) *instance {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() { serveUDP(conn, name) })
	i := &instance{name: name, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	i.close = sync.OnceFunc(func() { _ = conn.Close(); running.Wait() })
	t.Cleanup(i.close)
	return i
}

func serveUDP(conn *net.UDPConn, name string) {
	buf := make([]byte, 1<<16)
	for {
		n, client, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an earlier answer was refused
		}
		answer := buf[:n]
		if bytes.Equal(answer, who) {
			answer = []byte(name)
		}
		_, _ = conn.WriteToUDPAddrPort(answer, client)
	}
}

var who = []byte("who")

// deadAddr returns an address that refuses connections. A socket is bound to the port and does not listen, so that
// nothing else gets the port.
func deadAddr(t testing.TB) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	must(t, err)
	t.Cleanup(func() { _ = syscall.Close(fd) })
	must(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	bound, err := syscall.Getsockname(fd)
	must(t, err)
	in := bound.(*syscall.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
}
