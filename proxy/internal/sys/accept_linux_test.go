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

// listen returns a listener of addr, as a descriptor of its own that does not block.
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
	fd := int(f.Fd()) // which makes it block
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return int32(fd), l.Addr().(*net.TCPAddr).AddrPort()
}

// By accept4 and by accept, Accept says that no client waits, and that a socket is no listener. None of that is a
// denial.
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
			t.Errorf("accept4 counts as denied: %v, want %v", d.Has(CallAccept), denied)
		}
	}
}

// Clients of both families come to a listener of both: openPair checks their addresses.
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

// AcceptFile takes a client by accept, as a file that does not block and that no program inherits.
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
		t.Errorf("programs that are started have the socket: %#x, %v", flags, err)
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

// While accept4 works, no error of accepting counts as its denial.
func TestAcceptDenied(t *testing.T) {
	for _, err := range []error{
		nil, errors.New("another"), unix.EPERM, unix.EINVAL, unix.ECONNABORTED,
		&net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", unix.ENOSYS)},
	} {
		if AcceptDenied(err) {
			t.Errorf("%v counts as a denial of accept4, which works", err)
		}
	}
}

// A port is shared while both sockets want that, and no longer.
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
		t.Fatalf("got %v, want that the port is shared", err)
	}
	second.Close()
	if c, err := net.ListenPacket("udp", addr); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v, %v, want EADDRINUSE for one that does not share", c, err)
	}
	raw, err := first.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := SetReusePortConn(raw, false); err != nil {
		t.Fatal(err)
	}
	if c, err := shared.ListenPacket(context.Background(), "udp", addr); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got %v, %v, want EADDRINUSE, as the first does not share any more", c, err)
	}
	first.Close()
	if err := SetReusePortConn(raw, true); err == nil {
		t.Error("a closed socket takes the option")
	}
	if err := SetReusePort(-1, true); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}

// DisableGRO takes back what an earlier process wanted.
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
	DisableGRO(c) // which is of no consequence
}
