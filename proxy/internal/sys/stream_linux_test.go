package sys

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"golang.org/x/sys/unix"
)

// Every call returns EBADF for an invalid descriptor.
func TestStreamCallsOfNoDescriptor(t *testing.T) {
	buf := make([]byte, 1)
	p, errno := OpenPipe()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	for name, call := range map[string]func() syscall.Errno{
		"RecvStream":    func() syscall.Errno { _, err := RecvStream(-1, buf); return err },
		"SendStream":    func() syscall.Errno { _, err := SendStream(-1, buf); return err },
		"RecvDatagram":  func() syscall.Errno { _, err := RecvDatagram(-1, buf); return err },
		"SendDatagram":  func() syscall.Errno { return SendDatagram(-1, buf) },
		"Splice from":   func() syscall.Errno { _, err := Splice(-1, p.W, 1, -1); return err },
		"Splice to":     func() syscall.Errno { _, err := Splice(p.R, -1, 1, -1); return err },
		"ShutdownWrite": func() syscall.Errno { return ShutdownWrite(-1) },
		"SocketName":    func() syscall.Errno { _, err := SocketName(unix.SYS_GETSOCKNAME, -1); return err },
		"SocketError":   func() syscall.Errno { return SocketError(-1) },
		"EpollAdd":      func() syscall.Errno { return EpollAdd(-1, p.R, unix.EPOLLIN, 1, 0) },
		"EpollRemove":   func() syscall.Errno { return EpollRemove(-1, p.R) },
		"Pipe.Read":     func() syscall.Errno { _, err := Pipe{-1, -1}.Read(buf); return err },
		"Pipe.Resize":   func() syscall.Errno { return Pipe{-1, -1}.Resize(4096) },
		"setLinger":     func() syscall.Errno { return setLinger(-1) },
		"queuedIn":      func() syscall.Errno { _, err := queuedIn(-1); return err },
		"sendMemory":    func() syscall.Errno { _, err := sendMemory(-1); return err },
	} {
		if err := call(); err != unix.EBADF {
			t.Errorf("%s: got %v, want EBADF", name, err)
		}
	}
	if Gone(-1) || HasBytes(-1) {
		t.Error("Gone or HasBytes is true for an invalid descriptor")
	}
}

// sendAll sends all of a text.
func sendAll(t *testing.T, fd int32, text string) {
	t.Helper()
	for text != "" {
		n, err := again(t, func() (int, syscall.Errno) { return SendStream(fd, []byte(text)) })
		if err != 0 {
			t.Fatal(err)
		}
		text = text[n:]
	}
}

// recvAll receives n bytes.
func recvAll(t *testing.T, fd int32, n int) string {
	t.Helper()
	b := make([]byte, n)
	for at := 0; at < n; {
		m, err := again(t, func() (int, syscall.Errno) { return RecvStream(fd, b[at:]) })
		if err != 0 || m == 0 {
			t.Fatalf("got %d of %d bytes, then %d, %v", at, n, m, err)
		}
		at += m
	}
	return string(b)
}

// HasBytes reports bytes and leaves them in the socket. The end of the stream and a reset do not count.
func TestHasBytes(t *testing.T) {
	a, b := tcpPair(t, "127.0.0.1:0")
	sendAll(t, a, "hi")
	testproc.Await(t, "bytes", func() bool { return HasBytes(int(b)) })
	if got := recvAll(t, b, 2); got != "hi" {
		t.Errorf("got %q, want hi: HasBytes must not take bytes", got)
	}
	ShutdownWrite(a)
	testproc.Await(t, "the end", func() bool { n, err := RecvStream(b, make([]byte, 1)); return n == 0 && err == 0 })
	if HasBytes(int(b)) {
		t.Error("HasBytes is true at the end of the stream")
	}
	c, d := openPair(t, "127.0.0.1:0", new(Denials))
	defer Close(d)
	ResetOnClose(c)
	Close(c)
	testproc.Await(t, "the reset", func() bool { return Gone(int(d)) })
	if HasBytes(int(d)) {
		t.Error("HasBytes is true after a reset")
	}
}

// Readable and Writable report whether a read or a write would return at once, and take nothing.
func TestReadableAndWritable(t *testing.T) {
	a, b := tcpPair(t, "127.0.0.1:0")
	if Readable(int(b)) || !Writable(int(b)) || Readable(-1) || Writable(-1) {
		t.Error("want a new socket writable and not readable, and an invalid descriptor neither")
	}
	sendAll(t, a, "hi")
	testproc.Await(t, "bytes", func() bool { return Readable(int(b)) })
	if n, err := Peek(int(b)); n != 1 || err != nil {
		t.Errorf("got %d, %v, want the bytes still in the socket", n, err)
	}
	chunk := make([]byte, 64<<10)
	testproc.Await(t, "the socket to be full", func() bool {
		_, err := SendStream(a, chunk)
		return err == unix.EAGAIN && !Writable(int(a))
	})
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	at := server.LocalAddr().(*net.UDPAddr).AddrPort()
	server.Close()
	refused, errno := StartConnect(netip.Addr{}, at, unix.SOCK_DGRAM)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer Close(refused)
	SendDatagram(refused, []byte("x"))
	testproc.Await(t, "the refusal", func() bool { return Readable(int(refused)) })
	if err := SocketError(refused); err != unix.ECONNREFUSED {
		t.Errorf("got %v, want ECONNREFUSED still pending", err)
	}
}

// After a reset the first read returns the error, and later reads return the end of the stream. Writes fail without a
// signal. Bytes that were unsent no longer count.
func TestStreamAfterAReset(t *testing.T) {
	a, b := openPair(t, "127.0.0.1:0", new(Denials))
	defer Close(b)
	chunk := make([]byte, 64<<10)
	testproc.Await(t, "the socket to be full", func() bool {
		_, err := SendStream(b, chunk)
		return err == unix.EAGAIN && Unsent(int(b)) > 0
	})
	ResetOnClose(a)
	Close(a)
	testproc.Await(t, "the reset", func() bool { return Gone(int(b)) })
	if n := Unsent(int(b)); n != 0 {
		t.Errorf("%d bytes count as unsent after a reset", n)
	}
	if _, err := again(t, func() (int, syscall.Errno) { return RecvStream(b, chunk) }); err != unix.ECONNRESET {
		t.Errorf("got %v, want ECONNRESET", err)
	}
	if n, err := again(t, func() (int, syscall.Errno) { return RecvStream(b, chunk) }); n != 0 || err != 0 {
		t.Errorf("got %d, %v, want the end after the reset", n, err)
	}
	if _, err := again(t, func() (int, syscall.Errno) { return SendStream(b, chunk) }); err != unix.EPIPE {
		t.Errorf("got %v, want EPIPE", err)
	}
	if err := ShutdownWrite(b); err != unix.ENOTCONN {
		t.Errorf("got %v, want ENOTCONN", err)
	}
}

// After ShutdownWrite a socket cannot write, but can still read.
func TestShutdownWrite(t *testing.T) {
	a, b := tcpPair(t, "[::1]:0")
	if err := ShutdownWrite(a); err != 0 {
		t.Fatal(err)
	}
	if _, err := again(t, func() (int, syscall.Errno) { return SendStream(a, []byte("x")) }); err != unix.EPIPE {
		t.Errorf("got %v, want EPIPE", err)
	}
	sendAll(t, b, "answer")
	if got := recvAll(t, a, 6); got != "answer" {
		t.Errorf("got %q, want the answer", got)
	}
}

// A full socket has free space again when the peer has read.
func TestRoomComesBack(t *testing.T) {
	a, b := tcpPair(t, "127.0.0.1:0")
	chunk, sent := make([]byte, 64<<10), 0
	testproc.Await(t, "the socket to be full", func() bool {
		n, err := SendStream(a, chunk)
		if err == 0 {
			sent += n
		}
		return err == unix.EAGAIN && Room(int(a)) == 0
	})
	recvAll(t, b, sent)
	testproc.Await(t, "all to be acknowledged", func() bool { return Unsent(int(a)) == 0 })
	if room := Room(int(a)); room < leastRoom || room == unknownRoom {
		t.Errorf("got room for %d bytes after the peer has read all", room)
	}
}

// For a descriptor that is no socket, Room returns unknownRoom and Unsent returns 1.
func TestStateOfNoSocket(t *testing.T) {
	p, errno := OpenPipe()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	if room := Room(int(p.W)); room != unknownRoom {
		t.Errorf("got room %d, want unknownRoom", room)
	}
	if n := Unsent(int(p.W)); n != 1 {
		t.Errorf("got %d unsent bytes, want 1, which means unknown", n)
	}
	if HasBytes(int(p.R)) || Gone(int(p.R)) {
		t.Error("HasBytes or Gone is true for a pipe")
	}
}

// A stream carries bytes and the end of one side, and HasBytes and Unsent report its state.
func TestStream(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			a, b := tcpPair(t, addr)
			var buf [10]byte
			if n, err := RecvStream(b, buf[:]); n > 0 || err != unix.EAGAIN {
				t.Errorf("got %d, %v, want EAGAIN: nothing was sent", n, err)
			}
			if HasBytes(int(b)) {
				t.Error("HasBytes is true, though nothing was sent")
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
				t.Error("Gone is true, though one side is open")
			}
		})
	}
}

// If the peer does not read, a socket fills up: Room falls to 0, and Unsent counts its bytes. For a negative descriptor
// Unsent returns 0.
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
		t.Error("Unsent is 0 for a full socket")
	}
	if n := Unsent(-1); n != 0 {
		t.Errorf("Unsent is %d for a negative descriptor", n)
	}
}

// The peer gets a reset when a socket is closed after ResetOnClose. Without SO_LINGER, ResetOnClose calls disconnect,
// which resets at once.
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

// SocketError returns the error of a refused dial.
func TestSocketErrorOfARefusedDial(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	fd, errno := StartConnect(netip.Addr{}, addr, unix.SOCK_STREAM)
	if errno == unix.EINPROGRESS {
		testproc.Await(t, "the refusal", func() bool { errno = SocketError(fd); return errno != 0 })
		Close(fd)
	}
	if errno != unix.ECONNREFUSED {
		t.Errorf("got %v, want ECONNREFUSED", errno)
	}
}
