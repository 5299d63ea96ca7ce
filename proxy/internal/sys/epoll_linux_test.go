package sys

import (
	"os"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"golang.org/x/sys/unix"
)

// newEpoll returns an epoll instance.
func newEpoll(t *testing.T) int {
	t.Helper()
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(epfd) })
	return epfd
}

// told returns the events that epoll has now. told repeats interrupted calls.
func told(t *testing.T, epfd int) []unix.EpollEvent {
	t.Helper()
	events := make([]unix.EpollEvent, 8)
	var n int
	testproc.Await(t, "epoll to answer", func() bool {
		var err syscall.Errno
		n, err = EpollWait(epfd, events, 0)
		if err != 0 && err != unix.EINTR {
			t.Fatal(err)
		}
		return err == 0
	})
	return events[:n]
}

// Edge-triggered epoll reports a descriptor once for all bytes that have arrived, and again when more arrive.
// Level-triggered epoll reports it as long as there are bytes.
func TestEpollEdges(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events uint32
		again  int // number of events although no more bytes have arrived
	}{{"edge", unix.EPOLLIN | unix.EPOLLET, 0}, {"level", unix.EPOLLIN, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			epfd := newEpoll(t)
			p, errno := OpenPipe()
			if errno != 0 {
				t.Fatal(errno)
			}
			defer p.Close()
			if err := EpollAdd(epfd, p.R, tt.events, 7, 2); err != 0 {
				t.Fatal(err)
			}
			for range 2 {
				unix.Write(int(p.W), []byte("x"))
				if n := len(told(t, epfd)); n != 1 {
					t.Errorf("got %d events for a byte, want 1", n)
				}
				if n := len(told(t, epfd)); n != tt.again {
					t.Errorf("got %d events without new bytes, want %d", n, tt.again)
				}
			}
		})
	}
}

// A wait without limit lasts until there is an event. A wait with a limit ends without one.
func TestEpollWaits(t *testing.T) {
	epfd := newEpoll(t)
	p, errno := OpenPipe()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	if err := EpollAdd(epfd, p.R, unix.EPOLLIN, 3, 0); err != 0 {
		t.Fatal(err)
	}
	events := make([]unix.EpollEvent, 8)
	wait := func(timeout int) int {
		for {
			if n, err := EpollWait(epfd, events, timeout); err != unix.EINTR {
				if err != 0 {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	if n := wait(1); n != 0 {
		t.Errorf("got %d events, want none", n)
	}
	written := make(chan struct{})
	go func() { defer close(written); unix.Write(int(p.W), []byte("x")) }()
	if n := wait(-1); n != 1 || events[0].Fd != 3 {
		t.Errorf("got %d events, of number %d, want one, of number 3", n, events[0].Fd)
	}
	<-written
	if _, err := EpollWait(-1, events[:0], 0); err != unix.EBADF && err != unix.EINVAL && err != unix.EINTR {
		t.Errorf("got %v, want an error", err)
	}
}

// Epoll reports that a peer has finished sending, and that the connection was reset.
func TestEpollTellsOfTheEnd(t *testing.T) {
	epfd := newEpoll(t)
	a, b := openPair(t, "127.0.0.1:0", new(Denials))
	defer Close(b)
	if err := EpollAdd(epfd, b, unix.EPOLLIN|unix.EPOLLRDHUP, 1, 1); err != 0 {
		t.Fatal(err)
	}
	ShutdownWrite(a)
	await := func(what string, want uint32) {
		t.Helper()
		testproc.Await(t, what, func() bool {
			events := told(t, epfd)
			return len(events) == 1 && events[0].Events&want == want
		})
	}
	await("the end of a side", unix.EPOLLRDHUP|unix.EPOLLIN)
	ResetOnClose(a)
	Close(a)
	await("the reset", unix.EPOLLERR|unix.EPOLLHUP)
}

// A descriptor can be added once, and only if epoll can wait for it. EPOLLEXCLUSIVE is accepted for a single one.
func TestEpollAddErrors(t *testing.T) {
	epfd := newEpoll(t)
	p, errno := OpenPipe()
	if errno != 0 {
		t.Fatal(errno)
	}
	defer p.Close()
	if err := EpollAdd(epfd, p.R, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, 1, 0); err != 0 {
		t.Errorf("got %v for EPOLLEXCLUSIVE", err)
	}
	if err := EpollAdd(epfd, p.R, unix.EPOLLIN, 1, 0); err != unix.EEXIST {
		t.Errorf("got %v, want EEXIST", err)
	}
	if err := EpollAdd(epfd, 1<<30, unix.EPOLLIN, 1, 0); err != unix.EBADF {
		t.Errorf("got %v, want EBADF", err)
	}
	f, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := EpollAdd(epfd, int32(f.Fd()), unix.EPOLLIN, 1, 0); err != unix.EPERM {
		t.Errorf("got %v, want EPERM: a file is always ready", err)
	}
}

// Epoll reports a descriptor's events with the given number and side, until it is removed.
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
		t.Errorf("got %+v, want number 42, side 1, EPOLLIN", e)
	}
	if err := EpollRemove(epfd, p.R); err != 0 {
		t.Error(err)
	}
	if err := EpollRemove(epfd, p.R); err != unix.ENOENT {
		t.Errorf("got %v, want ENOENT", err)
	}
}
