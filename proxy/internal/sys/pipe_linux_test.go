package sys

import (
	"strings"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"golang.org/x/sys/unix"
)

// Splice returns EAGAIN for an empty source and for a full pipe, and zero at the end of a stream.
func TestSpliceAtItsLimits(t *testing.T) {
	a, b := tcpPair(t, "127.0.0.1:0")
	p, errno := OpenPipe()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	if _, err := Splice(b, p.W, 100, b); err != unix.EAGAIN {
		t.Errorf("got %v for an empty socket, want EAGAIN", err)
	}
	if _, err := Splice(p.R, b, 100, b); err != unix.EAGAIN {
		t.Errorf("got %v for an empty pipe, want EAGAIN", err)
	}
	for full := false; !full; {
		_, err := unix.Write(int(p.W), make([]byte, 4096))
		full = err == unix.EAGAIN
	}
	sendAll(t, a, "x")
	testproc.Await(t, "the byte", func() bool { return HasBytes(int(b)) })
	if _, err := Splice(b, p.W, 100, b); err != unix.EAGAIN {
		t.Errorf("got %v for a full pipe, want EAGAIN", err)
	}
	if err := p.Resize(4096); err != unix.EBUSY {
		t.Errorf("got %v, want EBUSY: the pipe holds more bytes", err)
	}
	if _, err := p.Unload(p.Capacity()); err != nil {
		t.Fatal(err)
	}
	recvAll(t, b, 1)
	ShutdownWrite(a)
	if n, err := again(t, func() (int, syscall.Errno) { return Splice(b, p.W, 100, b) }); n != 0 || err != 0 {
		t.Errorf("got %d, %v, want the end of the stream", n, err)
	}
}

// Both ends of a pipe are non-blocking and close-on-exec. Unload fails if a closed pipe holds too few bytes.
func TestPipeEnds(t *testing.T) {
	p, errno := OpenPipe()
	if errno != 0 {
		t.Fatal(errno)
	}
	for _, fd := range []int32{p.R, p.W} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("an end is blocking: %#x, %v", flags, err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("an end is not close-on-exec: %#x, %v", flags, err)
		}
	}
	unix.Write(int(p.W), []byte("abc"))
	Close(p.W)
	if b, err := p.Unload(4); err == nil || !strings.Contains(err.Error(), "read") {
		t.Errorf("got %q, %v, want a read error, because the pipe has only 3 bytes", b, err)
	}
	if _, err := p.Read(make([]byte, 1)); err != unix.EIO {
		t.Errorf("got %v, want EIO", err)
	}
	Close(p.R)
	if n := (Pipe{-1, -1}).Capacity(); n != 64<<10 {
		t.Errorf("an unknown capacity is %d bytes, want 64 KiB", n)
	}
}

// Splice moves bytes from a socket to a socket through a pipe, and bytes left in the pipe can be read.
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
		t.Errorf("got %q, %v, want the rest, %q", rest, unloadErr, text[out:])
	}
	if _, err := p.Read(make([]byte, 1)); err != unix.EAGAIN {
		t.Errorf("got %v for an empty pipe, want EAGAIN", err)
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
