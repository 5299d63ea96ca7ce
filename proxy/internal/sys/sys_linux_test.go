package sys

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"golang.org/x/sys/unix"
)

// unusable ends a test that got err for a socket of addr: a host may be without IPv6.
func unusable(t *testing.T, addr netip.Addr, err error) {
	t.Helper()
	if addr.Is6() {
		t.Skip(err)
	}
	t.Fatal(err)
}

// again calls f until it has another error than EAGAIN, which real sockets and the build tag faults may have.
func again(t *testing.T, f func() (int, syscall.Errno)) (int, syscall.Errno) {
	t.Helper()
	var n int
	var err syscall.Errno
	testproc.Await(t, "another answer than EAGAIN", func() bool { n, err = f(); return err != unix.EAGAIN })
	return n, err
}

// tcpPair returns both ends of a TCP connection: the one that dialed, by StartConnect, and the one that was accepted.
func tcpPair(t *testing.T, addr string) (dialed, accepted int32) {
	t.Helper()
	dialed, accepted = openPair(t, addr, new(Denials))
	t.Cleanup(func() { Close(dialed); Close(accepted) })
	return dialed, accepted
}

// openPair is tcpPair for a caller that closes both ends, and without the calls that are denied.
func openPair(t *testing.T, addr string, d *Denials) (dialed, accepted int32) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		unusable(t, netip.MustParseAddrPort(addr).Addr(), err)
	}
	defer l.Close()
	dialed, errno := StartConnect(l.Addr().(*net.TCPAddr).AddrPort(), unix.SOCK_STREAM)
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
		if err == unix.ECONNABORTED || err == unix.EMFILE { // what the build tag faults has it say
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
		t.Errorf("programs that are started have the accepted socket: %#x, %v", flags, err)
	}
	return dialed, accepted
}

// Bytes go through both ends, the end of one side is told, and what is unsent and unread is known.
func TestStream(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			a, b := tcpPair(t, addr)
			var buf [10]byte
			if n, err := RecvStream(b, buf[:]); n > 0 || err != unix.EAGAIN {
				t.Errorf("got %d, %v, want EAGAIN: nothing was sent", n, err)
			}
			if HasBytes(int(b)) {
				t.Error("there are bytes, though none were sent")
			}
			for sent := 0; sent < 5; {
				n, err := again(t, func() (int, syscall.Errno) { return SendStream(a, []byte("hello")[sent:]) })
				if err != 0 {
					t.Fatal(err)
				}
				sent += n
			}
			n, err := again(t, func() (int, syscall.Errno) { return RecvStream(b, buf[:]) })
			if string(buf[:n]) != "hello" || err != 0 {
				t.Errorf("got %q, %v, want hello", buf[:n], err)
			}
			testproc.Await(t, "all to be acknowledged", func() bool { return Unsent(int(a)) == 0 })
			if err := ShutdownWrite(a); err != 0 {
				t.Error(err)
			}
			if n, err := again(t, func() (int, syscall.Errno) { return RecvStream(b, buf[:]) }); n != 0 || err != 0 {
				t.Errorf("got %d, %v, want the end", n, err)
			}
			if Gone(int(a)) || Gone(int(b)) {
				t.Error("the connection is gone, though one side goes on")
			}
		})
	}
}

// A socket whose peer does not read fills up: there is room, then none, and what is in it is unsent. To a negative
// descriptor nothing is unsent.
func TestRoomAndUnsent(t *testing.T) {
	a, _ := tcpPair(t, "127.0.0.1:0")
	if room := Room(int(a)); room < leastRoom {
		t.Errorf("got room for %d bytes in an empty socket, want %d at least", room, leastRoom)
	}
	chunk := make([]byte, 64<<10)
	testproc.Await(t, "the socket to be full", func() bool {
		_, err := SendStream(a, chunk)
		return err == unix.EAGAIN && Room(int(a)) == 0
	})
	if n := Unsent(int(a)); n == 0 {
		t.Error("nothing is unsent in a socket that is full")
	}
	if n := Unsent(-1); n != 0 {
		t.Errorf("%d bytes are unsent to no socket", n)
	}
}

// ResetOnClose makes the peer hear of a reset when the socket is closed. Without SO_LINGER, the way round that it takes
// does so at once.
func TestResetOnClose(t *testing.T) {
	for _, reset := range []func(fd int32){ResetOnClose, disconnect} {
		a, b := openPair(t, "127.0.0.1:0", new(Denials))
		reset(a)
		Close(a)
		testproc.Await(t, "the reset", func() bool { return Gone(int(b)) })
		if err := SocketError(b); err != unix.ECONNRESET {
			t.Errorf("got %v, want ECONNRESET", err)
		}
		Close(b)
	}
}

// Without accept4, Accept goes by accept and fcntl: openPair checks that its socket is the same.
func TestAcceptWithoutAccept4(t *testing.T) {
	var d Denials
	d.Note(CallAccept, unix.ENOSYS)
	a, b := openPair(t, "127.0.0.1:0", &d)
	Close(a)
	Close(b)
	if AcceptDenied(unix.EPERM) || AcceptDenied(unix.ECONNABORTED) {
		t.Error("accept4 counts as denied, though it works")
	}
}

// A refused dial tells so when it is asked.
func TestSocketErrorOfARefusedDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	fd, errno := StartConnect(addr, unix.SOCK_STREAM)
	if errno == unix.EINPROGRESS {
		testproc.Await(t, "the refusal", func() bool { errno = SocketError(fd); return errno != 0 })
		Close(fd)
	}
	if errno != unix.ECONNREFUSED {
		t.Errorf("got %v, want ECONNREFUSED", errno)
	}
}

// Splice moves bytes from a socket to a socket by a pipe, and what is left in a pipe can be read.
func TestSpliceAndPipe(t *testing.T) {
	a, b := tcpPair(t, "127.0.0.1:0")
	p, err := OpenPipe()
	if err != 0 {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Resize(128 << 10); err != 0 || p.Capacity() != 128<<10 {
		t.Errorf("the pipe holds %d bytes, %v, want 128 KiB", p.Capacity(), err)
	}
	text := strings.Repeat("0123456789", 10)
	for sent := 0; sent < len(text); {
		n, _ := again(t, func() (int, syscall.Errno) { return SendStream(a, []byte(text[sent:])) })
		sent += n
	}
	for in := 0; in < len(text); {
		n, err := again(t, func() (int, syscall.Errno) { return Splice(b, p.W, len(text)-in, b) })
		if err != 0 || n == 0 {
			t.Fatal(n, err)
		}
		in += n
	}
	out, err := again(t, func() (int, syscall.Errno) { return Splice(p.R, b, 40, b) })
	if err != 0 {
		t.Fatal(err)
	}
	rest, unloadErr := p.Unload(len(text) - out)
	if unloadErr != nil || string(rest) != text[out:] {
		t.Errorf("got %q, %v, want %q to be left", rest, unloadErr, text[out:])
	}
	if _, err := p.Read(make([]byte, 1)); err != unix.EAGAIN {
		t.Errorf("got %v of an empty pipe, want EAGAIN", err)
	}
	back := make([]byte, len(text))
	for n := 0; n < out; {
		m, err := again(t, func() (int, syscall.Errno) { return RecvStream(a, back[n:out]) })
		if err != 0 || m == 0 {
			t.Fatal(m, err)
		}
		n += m
	}
	if string(back[:out]) != text[:out] {
		t.Errorf("got %q, want %q", back[:out], text[:out])
	}
}

// Epoll tells of a descriptor by the number and the side that it was given, until it is removed.
func TestEpoll(t *testing.T) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epfd)
	p, errno := OpenPipe()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	if err := EpollAdd(epfd, p.R, unix.EPOLLIN, 42, 1); err != 0 {
		t.Fatal(err)
	}
	events := make([]unix.EpollEvent, 8)
	if n, err := EpollWait(epfd, events, 0); n != 0 || err != 0 && err != unix.EINTR {
		t.Errorf("got %d events, %v, want none", n, err)
	}
	unix.Write(int(p.W), []byte("x"))
	testproc.Await(t, "the event", func() bool { n, _ := EpollWait(epfd, events, 100); return n == 1 })
	if e := events[0]; e.Fd != 42 || e.Pad != 1 || e.Events&unix.EPOLLIN == 0 {
		t.Errorf("got %+v, want number 42, side 1, to be read", e)
	}
	if err := EpollRemove(epfd, p.R); err != 0 {
		t.Error(err)
	}
	if err := EpollRemove(epfd, p.R); err != unix.ENOENT {
		t.Errorf("got %v, want ENOENT", err)
	}
}

// What PutAddr writes AddrPort reads.
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

// option reads an option of a socket.
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

// The control messages that package net's reads hand over tell the address that was used and the hops.
func TestControlMessagesOfPackageNet(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			a := netip.MustParseAddr(addr)
			wildcard := netip.IPv4Unspecified()
			if a.Is6() {
				wildcard = netip.IPv6Unspecified()
			}
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(wildcard, 0)))
			if err != nil {
				unusable(t, a, err)
			}
			defer c.Close()
			if err := WantLocalConn(c, wildcard); err != nil {
				t.Fatal(err)
			}
			if err := WantHopsConn(c, wildcard); err != nil {
				t.Fatal(err)
			}
			to := netip.AddrPortFrom(a, c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
			if err != nil {
				unusable(t, a, err)
			}
			defer client.Close()
			SetHopsConn(client, a.Is6(), 9)
			client.Write([]byte("x"))
			buf, oob := make([]byte, 10), make([]byte, OOBSize)
			c.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, n, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
			if err != nil {
				t.Fatal(err)
			}
			if got := Local(oob[:n]); got != a {
				t.Errorf("got local address %v, want %v", got, a)
			}
			if got := Hops(oob[:n]); got != 9 {
				t.Errorf("got %d hops, want 9", got)
			}
			if _, _, err := c.WriteMsgUDPAddrPort([]byte("y"), SourceControl(a), from); err != nil {
				t.Error(err)
			}
			client.SetReadDeadline(time.Now().Add(20 * time.Second))
			if n, err := client.Read(buf); !bytes.Equal(buf[:n], []byte("y")) || err != nil {
				t.Errorf("got %q, %v, want the answer", buf[:n], err)
			}
		})
	}
	if Local(nil).IsValid() || Hops(nil) != 0 {
		t.Error("no control message says something")
	}
}
