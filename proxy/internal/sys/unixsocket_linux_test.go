package sys

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// unixListener returns the path and descriptor of a Unix socket whose queue holds one connection.
func unixListener(t *testing.T) (string, int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "l")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	return path, fd
}

// unixPair returns both ends of a connection over a Unix socket.
func unixPair(t *testing.T) (a, b int32) {
	t.Helper()
	path, l := unixListener(t)
	a, errno := StartConnectUnix(path)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { Close(a) })
	var d Denials
	b, from, errno := d.Accept(int32(l))
	for Faults && errno != 0 {
		b, from, errno = d.Accept(int32(l))
	}
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() { Close(b) })
	if from.IsValid() {
		t.Errorf("the client of a Unix socket has the address %v", from)
	}
	return a, b
}

func TestStartConnectUnix(t *testing.T) {
	path, fd := unixListener(t)
	connect := func(path string) syscall.Errno {
		fd, err := StartConnectUnix(path)
		if err == 0 {
			t.Cleanup(func() { Close(fd) })
		}
		return err
	}
	for _, want := range []syscall.Errno{0, unix.EAGAIN} { // the queue holds one
		if got := connect(path); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	unix.Close(fd)
	for path, want := range map[string]syscall.Errno{
		path: unix.ECONNREFUSED, path + "x": unix.ENOENT, "/" + strings.Repeat("x", 106): unix.ENOENT,
		"/" + strings.Repeat("x", 107): unix.EINVAL,
	} {
		if got := connect(path); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
}

// A Unix socket has room as long as a write does not have to wait, and epoll reports when there is room again.
func TestRoomOfAUnixSocket(t *testing.T) {
	a, b := unixPair(t)
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epfd)
	if errno := EpollAdd(epfd, a, unix.EPOLLOUT|unix.EPOLLET, 7, 0); errno != 0 {
		t.Fatal(errno)
	}
	events := make([]unix.EpollEvent, 1)
	unix.EpollWait(epfd, events, 0) // a new socket is writable
	sent, chunk := 0, make([]byte, 16<<10)
	for Room(int(a)) > 0 {
		n, err := unix.Write(int(a), chunk)
		if err != nil {
			t.Fatalf("after %d bytes: got %v, although there is room", sent, err)
		}
		sent += n
	}
	if Unsent(int(a)) < sent {
		t.Errorf("%d bytes are unsent, want at least the %d that nobody has read", Unsent(int(a)), sent)
	}
	if n, _ := unix.EpollWait(epfd, events, 0); n != 0 {
		t.Error("epoll reports a full socket as writable")
	}
	for buf := make([]byte, 64<<10); sent > 0; {
		n, err := unix.Read(int(b), buf)
		if err != nil {
			t.Fatal(err)
		}
		sent -= n
	}
	if n, _ := unix.EpollWait(epfd, events, 0); n != 1 {
		t.Error("epoll does not report that there is room again")
	}
	if Room(int(a)) == 0 || Unsent(int(a)) != 0 || Gone(int(a)) || Unanswered(int(a)) != 0 {
		t.Error("an empty socket has no room, or is not as it was")
	}
}

// A peer that closes without having read everything has reset the connection; the error comes behind the bytes that it
// had sent.
func TestResetOfAUnixSocket(t *testing.T) {
	a, b := unixPair(t)
	sendAll(t, a, "unread")
	sendAll(t, b, "answer")
	Close(b)
	if got := recvAll(t, a, 6); got != "answer" {
		t.Errorf("got %q", got)
	}
	_, err := again(t, func() (int, syscall.Errno) { return RecvStream(a, make([]byte, 1)) })
	if err != unix.ECONNRESET {
		t.Errorf("got %v, want ECONNRESET", err)
	}
}
