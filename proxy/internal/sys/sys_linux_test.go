package sys

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"golang.org/x/sys/unix"
)

// unusable ends a test that got err for a socket of addr. For IPv6, which a host may lack, unusable skips the test.
func unusable(t *testing.T, addr netip.Addr, err error) {
	t.Helper()
	if addr.Is6() {
		t.Skip(err)
	}
	t.Fatal(err)
}

// again calls f until its error is not EAGAIN. Real sockets and the build tag faults may return EAGAIN first.
func again(t *testing.T, f func() (int, syscall.Errno)) (int, syscall.Errno) {
	t.Helper()
	var n int
	var err syscall.Errno
	testproc.Await(t, "another answer than EAGAIN", func() bool { n, err = f(); return err != unix.EAGAIN })
	return n, err
}

// tcpPair returns both ends of a TCP connection: the end that StartConnect dialed, and the accepted end.
func tcpPair(t *testing.T, addr string) (dialed, accepted int32) {
	t.Helper()
	dialed, accepted = openPair(t, addr, new(Denials))
	t.Cleanup(func() { Close(dialed); Close(accepted) })
	return dialed, accepted
}

// openPair does the same as tcpPair, without the calls that d denies. The caller must close both ends.
func openPair(t *testing.T, addr string, d *Denials) (dialed, accepted int32) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		unusable(t, netip.MustParseAddrPort(addr).Addr(), err)
	}
	defer l.Close()
	dialed, errno := StartConnect(netip.Addr{}, l.Addr().(*net.TCPAddr).AddrPort(), unix.SOCK_STREAM)
	if errno != 0 && errno != unix.EINPROGRESS {
		t.Fatal(errno)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.SetNonblock(int(f.Fd()), true); err != nil {
		t.Fatal(err)
	}
	var from netip.AddrPort
	_, errno = again(t, func() (int, syscall.Errno) {
		var err syscall.Errno
		accepted, from, err = d.Accept(int32(f.Fd()))
		if err == unix.ECONNABORTED || err == unix.EMFILE { // injected by the build tag faults
			err = unix.EAGAIN
		}
		return 0, err
	})
	if errno != 0 {
		t.Fatal(errno)
	}
	name, errno := SocketName(unix.SYS_GETSOCKNAME, dialed)
	if errno != 0 || AddrPort(&name) != from {
		t.Errorf("accepted %v, want %v, %v", from, AddrPort(&name), errno)
	}
	if flags, err := unix.FcntlInt(uintptr(accepted), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("the accepted socket blocks: %#x, %v", flags, err)
	}
	if flags, err := unix.FcntlInt(uintptr(accepted), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("the accepted socket is not close-on-exec: %#x, %v", flags, err)
	}
	return dialed, accepted
}

// AddrPort returns the address that PutAddr has written.
func TestAddresses(t *testing.T) {
	for _, text := range []string{"127.0.0.1:80", "[::1]:65535", "[fe80::1%lo]:1", "0.0.0.0:0", "[2001:db8::1]:443"} {
		want := netip.MustParseAddrPort(text)
		var sa unix.RawSockaddrInet6
		size := PutAddr(&sa, want)
		if got := AddrPort(&sa); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		if uintptr(AddrSize(&sa)) != size || size != map[bool]uintptr{true: 16, false: 28}[want.Addr().Is4()] {
			t.Errorf("%s: got sizes %d and %d", text, size, AddrSize(&sa))
		}
		if got := Family(want.Addr()); uint16(got) != sa.Family {
			t.Errorf("%s: got family %d, want %d", text, got, sa.Family)
		}
	}
}

// option returns the value of a socket option.
func option(t *testing.T, fd int32, level, name int) int {
	t.Helper()
	var v int32
	if err := getOption(int(fd), level, name, unsafe.Pointer(&v), unsafe.Sizeof(v)); err != 0 {
		t.Error(err)
	}
	return int(v)
}

func TestOptions(t *testing.T) {
	a, _ := tcpPair(t, "127.0.0.1:0")
	SetKeepAlive(a, net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 7 * time.Second, Count: 3})
	SetOption(a, unix.IPPROTO_TCP, unix.TCP_NODELAY, Boolean(true))
	SetReusePort(int(a), true)
	for _, tt := range []struct {
		name              string
		level, what, want int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 7},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
	} {
		if got := option(t, a, tt.level, tt.what); got != tt.want {
			t.Errorf("%s is %d, want %d", tt.name, got, tt.want)
		}
	}
	if err := tryOption(-1, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != unix.EBADF {
		t.Errorf("got %v, want EBADF", err)
	}
}
