//go:build faults

package sys

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"golang.org/x/sys/unix"
)

// A denied call succeeds the given number of times, and then fails until Permit.
func TestDeny(t *testing.T) {
	Deny(CallPipe, unix.EPERM, 2)
	defer Permit(CallPipe)
	for i, want := range []bool{true, true, false, false} {
		p, err := OpenPipe()
		if (err == 0) != want {
			t.Errorf("call %d: got %v, want success: %v", i, err, want)
		}
		if err == 0 {
			p.Close()
		}
	}
	if n := DenialsOf(CallPipe); n != 2 {
		t.Errorf("got %d denials, want 2", n)
	}
	var d Denials
	if d.Try([]Call{CallPipe, CallSplice}); !d.Has(CallPipe) || d.Has(CallSplice) {
		t.Error("a trial did not find exactly the denial of pipe2")
	}
	DenyAgain(CallPipe, 1)
	if p, err := OpenPipe(); err != 0 {
		t.Error(err)
	} else {
		p.Close()
	}
	Permit(CallPipe)
	for range 3 {
		p, err := OpenPipe()
		if err != 0 {
			t.Fatal(err)
		}
		p.Close()
	}
}

// denying denies calls while f runs, and returns the denials that OnDenial reported.
func denying(t *testing.T, calls []Call, f func(d *Denials)) (told []Call) {
	t.Helper()
	for _, c := range calls {
		Deny(c, unix.EPERM, 0)
		defer Permit(c)
	}
	f(&Denials{OnDenial: func(c Call, err syscall.Errno) {
		if told = append(told, c); err != unix.EPERM {
			t.Errorf("%v was denied by %v, want EPERM", c, err)
		}
	}})
	return told
}

// A call that is denied at its first use is replaced in the same use, and reported once.
func TestDeniedAtItsFirstUse(t *testing.T) {
	calls := []Call{CallRecvmmsg, CallSendmmsg, CallSendmsg}
	told := denying(t, calls, func(d *Denials) {
		server, at := udpSocket(t, "127.0.0.1")
		client := udpClient(t, at)
		for _, text := range []string{"first", "second"} {
			if n, err := d.Send(client, headersOf(toSend(text), false)); n != 1 || err != 0 {
				t.Fatalf("sent %d, %v", n, err)
			}
			if got := receive(t, d, server, 1)[0].text; got != text {
				t.Errorf("got %q, want %q", got, text)
			}
		}
	})
	if slices.Sort(told); !slices.Equal(told, calls) {
		t.Errorf("OnDenial got %v, want each of %v once", told, calls)
	}
	told = denying(t, []Call{CallAccept}, func(d *Denials) {
		for range 2 {
			a, b := openPair(t, "127.0.0.1:0", d)
			Close(a)
			Close(b)
		}
	})
	if !slices.Equal(told, []Call{CallAccept}) {
		t.Errorf("OnDenial got %v, want accept4 once", told)
	}
}

// Try finds each denied call, and reports no other.
func TestTryFindsDenials(t *testing.T) {
	var all []Call
	for c := range NumCalls {
		all = append(all, c)
	}
	for _, c := range all {
		if told := denying(t, []Call{c}, func(d *Denials) { d.Try(all) }); !slices.Equal(told, []Call{c}) {
			t.Errorf("%v is denied; Try reported %v", c, told)
		}
	}
}

// Without the kernel's figures, a socket counts as having free space, and other calls supply what they can.
func TestStateWhereItIsDenied(t *testing.T) {
	a, b := tcpPair(t, "127.0.0.1:0")
	denying(t, []Call{CallRoom}, func(*Denials) {
		if room := Room(int(a)); room != unknownRoom {
			t.Errorf("got room %d, want unknownRoom", room)
		}
	})
	chunk := make([]byte, 64<<10)
	testproc.Await(t, "the socket to be full", func() bool {
		_, err := SendStream(a, chunk)
		return err == unix.EAGAIN && Room(int(a)) == 0
	})
	denying(t, []Call{CallWritable}, func(*Denials) {
		if room := Room(int(a)); room < leastRoom {
			t.Errorf("got room %d, want at least leastRoom without ppoll", room)
		}
	})
	denying(t, []Call{CallUnsent}, func(*Denials) {
		if n := Unsent(int(a)); n < 64<<10 {
			t.Errorf("got %d unsent bytes by TCP_INFO, want those of a full socket", n)
		}
	})
	p, _ := OpenPipe()
	defer p.Close()
	denying(t, []Call{CallPipeSize}, func(*Denials) {
		if err := p.Resize(128 << 10); err != unix.EPERM || p.Capacity() != 64<<10 {
			t.Errorf("got %v, want EPERM, and a pipe of %d bytes", err, p.Capacity())
		}
	})
	denying(t, []Call{CallSplice}, func(*Denials) {
		if _, err := again(t, func() (int, syscall.Errno) { return Splice(b, p.W, 1, b) }); err != unix.EPERM {
			t.Errorf("got %v, want EPERM", err)
		}
	})
	denying(t, []Call{CallLinger}, func(*Denials) { ResetOnClose(b) })
	testproc.Await(t, "the reset, without SO_LINGER", func() bool { return Gone(int(a)) })
}

// Denied options keep their values.
func TestOptionsThatAreDenied(t *testing.T) {
	fd, _ := udpSocket(t, "127.0.0.1")
	before := option(t, fd, unix.IPPROTO_IP, unix.IP_TTL)
	denying(t, []Call{CallHops, CallHopsLeft, CallLocalAddr, CallSharePort}, func(*Denials) {
		SetHops(fd, false, 3)
		WantHops(fd, netip.IPv4Unspecified())
		if WantLocal(int(fd), netip.IPv4Unspecified()) == nil || SetReusePort(int(fd), true) == nil {
			t.Error("setting a denied option succeeded")
		}
	})
	for name, want := range map[int]int{unix.IP_TTL: before, unix.IP_RECVTTL: 0, unix.IP_PKTINFO: 0} {
		if got := option(t, fd, unix.IPPROTO_IP, name); got != want {
			t.Errorf("option %d is %d, want %d", name, got, want)
		}
	}
}

// Dials that FailDials fails do so at once or later, are counted, and return their error once.
func TestFailDials(t *testing.T) {
	_, at := listen(t, "127.0.0.1:0")
	FailDials(100)
	defer FailDials(0)
	for dials := int64(1); dials <= 20; dials++ {
		fd, err := StartConnect(netip.Addr{}, at, unix.SOCK_STREAM)
		if err == unix.EINPROGRESS {
			if first := SocketError(fd); !wasDoomed(fd, first) {
				t.Errorf("got %v, want one error and then none", first)
			}
			Close(fd)
		} else if fd != -1 || err == 0 {
			t.Errorf("got %d, %v, want a failure", fd, err)
		}
		if n := FailedDials(); n != dials {
			t.Errorf("%d dials have failed, want %d", n, dials)
		}
	}
}

// wasDoomed reports whether a dial has returned an error, and has no other pending.
func wasDoomed(fd int32, told syscall.Errno) bool {
	return told != 0 && !IsDoomed(fd) && SocketError(fd) == 0
}
