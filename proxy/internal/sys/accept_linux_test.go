package sys

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// listen returns a non-blocking descriptor of a listener at addr, and its address.
func listen(t *testing.T, addr string) (int32, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		unusable(t, netip.MustParseAddrPort(addr).Addr(), err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fd := int(f.Fd()) // Fd makes the socket blocking
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return int32(fd), l.Addr().(*net.TCPAddr).AddrPort()
}

// Accept returns the same errors with accept4 and with accept, for an empty queue and for wrong descriptors. None of
// these errors records a denial.
func TestAcceptErrors(t *testing.T) {
	listener, _ := listen(t, "127.0.0.1:0")
	stream, _ := tcpPair(t, "127.0.0.1:0")
	p, errno := OpenPipe()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	for _, denied := range []bool{false, true} {
		var d Denials
		if denied {
			d.Note(CallAccept, unix.ENOSYS)
		}
		for _, tt := range []struct {
			name string
			fd   int32
			want syscall.Errno
		}{
			{"no client waits", listener, unix.EAGAIN},
			{"no descriptor", -1, unix.EBADF},
			{"no listener", stream, unix.EINVAL},
			{"no socket", p.R, unix.ENOTSOCK},
		} {
			fd, _, err := d.Accept(tt.fd)
			for Faults && (err == unix.ECONNABORTED || err == unix.EMFILE || err == unix.EAGAIN && err != tt.want) {
				fd, _, err = d.Accept(tt.fd)
			}
			if fd != -1 || err != tt.want {
				t.Errorf("%s: got %d, %v, want %v", tt.name, fd, err, tt.want)
			}
		}
		if d.Has(CallAccept) != denied {
			t.Errorf("accept4 is recorded as denied: %v, want %v", d.Has(CallAccept), denied)
		}
	}
}

// Accept works for IPv4 and IPv6 clients. openPair checks their addresses.
func TestAcceptBothFamilies(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, denied := range []bool{false, true} {
			t.Run(fmt.Sprint(addr, denied), func(t *testing.T) {
				var d Denials
				if denied {
					d.Note(CallAccept, unix.EPERM)
				}
				a, b := openPair(t, addr, &d)
				defer Close(a)
				defer Close(b)
				sendAll(t, a, "ping")
				sendAll(t, b, "pong")
				if ping, pong := recvAll(t, b, 4), recvAll(t, a, 4); ping != "ping" || pong != "pong" {
					t.Errorf("got %q and %q", ping, pong)
				}
			})
		}
	}
}

// AcceptFile accepts a connection as a non-blocking file with close-on-exec.
func TestAcceptFile(t *testing.T) {
	listener, at := listen(t, "127.0.0.1:0")
	if f, err := AcceptFile(uintptr(listener)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("got %v, %v when no client waits, want EAGAIN", f, err)
	}
	client, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	f, err := AcceptFile(uintptr(listener))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the socket is not close-on-exec: %#x, %v", flags, err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("got a client from %v, want %v", c.RemoteAddr(), client.LocalAddr())
	}
	if _, err := AcceptFile(^uintptr(0)); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}

// While accept4 works, AcceptDenied returns false for every error.
func TestAcceptDenied(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("another"), unix.EPERM, unix.EINVAL, unix.ECONNABORTED,
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.ENOSYS)},
	} {
		if AcceptDenied(err) {
			t.Errorf("AcceptDenied(%v) is true, though accept4 works", err)
		}
	}
}

// Two sockets share a port only while both have SO_REUSEPORT.
func TestReusePort(t *testing.T) {
	shared := net.ListenConfig{Control: ReusePort}
	first, err := shared.ListenPacket(context.Background(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	addr := first.LocalAddr().String()
	second, err := shared.ListenPacket(context.Background(), "udp", addr)
	if err != nil {
		t.Fatalf("got %v, want a shared port", err)
	}
	second.Close()
	if c, err := net.ListenPacket("udp", addr); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v, %v, want EADDRINUSE for a socket without SO_REUSEPORT", c, err)
	}
	raw, err := first.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := SetReusePortConn(raw, false); err != nil {
		t.Fatal(err)
	}
	if c, err := shared.ListenPacket(context.Background(), "udp", addr); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v, %v, want EADDRINUSE after the first socket stopped sharing", c, err)
	}
	first.Close()
	if err := SetReusePortConn(raw, true); err == nil {
		t.Error("setting the option of a closed socket succeeded")
	}
	if err := SetReusePort(-1, true); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}

// DisableGRO switches off the UDP_GRO that an earlier process has set.
func TestDisableGRO(t *testing.T) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	gro := func(fd uintptr) (v int) { return option(t, int32(fd), unix.SOL_UDP, unix.UDP_GRO) }
	_ = raw.Control(func(fd uintptr) {
		if SetOption(int32(fd), unix.SOL_UDP, unix.UDP_GRO, 1); gro(fd) != 1 {
			t.Error("SetOption has not set UDP_GRO")
		}
	})
	DisableGRO(c)
	_ = raw.Control(func(fd uintptr) {
		if gro(fd) != 0 {
			t.Error("datagrams are still joined")
		}
	})
	c.Close()
	DisableGRO(c) // does nothing for a closed socket
}
