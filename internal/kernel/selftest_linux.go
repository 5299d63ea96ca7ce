//go:build amd64 || arm64

package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// testPatience limits the connection of the self-test, which stays on the loopback interface.
const testPatience = 5 * time.Second

// testService is the name of the service of the self-test. The names of real services have no spaces.
const testService = "self test"

// selfTest connects to a service at whose address nothing listens. The connection also tells the programs which process
// this is, so that they leave its other connections alone.
func (p *Path) selfTest() error {
	backend, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer func() { _ = backend.Close() }()
	reserved, front, err := reserve()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(reserved) }()

	service := Service{Name: testService, Listen: []netip.AddrPort{front},
		Endpoints: []Endpoint{{Addr: backend.Addr().(*net.TCPAddr).AddrPort()}}}
	if err := p.Set(service); err != nil {
		return err
	}
	defer func() { _ = p.Remove(testService) }()
	if err := p.connectOnce(front); err != nil {
		return err
	}
	if c, _ := p.Counters(testService); c.Picks != 1 || c.Connections != 1 {
		return fmt.Errorf("%d connections were counted, not 1; does another program change the flags of sockets?",
			c.Connections)
	}
	return nil
}

// reserve binds a socket to a free port, so that no other process gets it. Nothing listens there.
func reserve() (fd int, addr netip.AddrPort, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, addr, err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		var sa unix.Sockaddr
		if sa, err = unix.Getsockname(fd); err == nil {
			in := sa.(*unix.SockaddrInet4)
			return fd, netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)), nil
		}
	}
	_ = unix.Close(fd)
	return -1, addr, err
}

// connectOnce makes the connection of the probe to front.
func (p *Path) connectOnce(front netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(context.Background(), testPatience)
	defer cancel()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			var cookie uint64
			if cookie, err = unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
				err = p.objects.ProbeCookie.Set(cookie)
			}
		}), err)
	}}
	conn, err := dialer.DialContext(ctx, "tcp4", front.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if got := conn.RemoteAddr().(*net.TCPAddr).AddrPort(); got != front {
		return fmt.Errorf("getpeername returns %v, not %v", got, front)
	}
	return p.objects.ProbeCookie.Set(uint64(0))
}
