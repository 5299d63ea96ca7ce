package sys

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"golang.org/x/sys/unix"
)

// udpSocket returns a socket bound to a free port of addr, and its address.
func udpSocket(t *testing.T, addr string) (int32, netip.AddrPort) {
	t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(addr), 0)
	fd, err := unix.Socket(Family(at.Addr()), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unusable(t, at.Addr(), err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(at.Addr().AsSlice()[:4])}
	if at.Addr().Is6() {
		sa = &unix.SockaddrInet6{Addr: at.Addr().As16()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		unusable(t, at.Addr(), err)
	}
	name, errno := SocketName(unix.SYS_GETSOCKNAME, int32(fd))
	if errno != 0 {
		t.Fatal(errno)
	}
	return int32(fd), AddrPort(&name)
}

// udpClient returns a socket that is connected to addr.
func udpClient(t *testing.T, addr netip.AddrPort) int32 {
	t.Helper()
	fd, err := StartConnect(netip.Addr{}, addr, unix.SOCK_DGRAM)
	if err != 0 {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(fd) })
	return fd
}

// A message holds the memory that the header of a datagram points to.
type message struct {
	buf  []byte
	oob  []byte
	name unix.RawSockaddrInet6
	iov  unix.Iovec
}

// headersOf returns headers for messages. If named, the headers have the messages' addresses, or space for an address.
func headersOf(messages []message, named bool) []Mmsghdr {
	headers := make([]Mmsghdr, len(messages))
	for i := range messages {
		m, h := &messages[i], &headers[i]
		m.iov.Base = &m.buf[0]
		m.iov.SetLen(len(m.buf))
		h.Iov = &m.iov
		h.SetIovlen(1)
		if len(m.oob) > 0 {
			h.Control = &m.oob[0]
			h.SetControllen(len(m.oob))
		}
		if named {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&m.name)), unix.SizeofSockaddrInet6
			if m.name.Family != 0 {
				h.Namelen = AddrSize(&m.name)
			}
		}
	}
	return headers
}

// toSend returns messages that hold the given texts.
func toSend(texts ...string) []message {
	messages := make([]message, len(texts))
	for i, text := range texts {
		messages[i].buf = []byte(text)
	}
	return messages
}

// toReceive returns n messages to receive into, with space for control messages.
func toReceive(n int) []message {
	messages := make([]message, n)
	for i := range messages {
		messages[i].buf, messages[i].oob = make([]byte, 100), make([]byte, OOBSize)
	}
	return messages
}

// datagramWays lists sets of denied calls that Receive and Send must work around.
var datagramWays = [][]Call{
	nil,
	{CallRecvmmsg, CallSendmmsg},
	{CallRecvmmsg, CallRecvmsg, CallSendmmsg, CallSendmsg},
}

// eachWay runs f once for each set of datagramWays, with the calls of the set denied.
func eachWay(t *testing.T, f func(t *testing.T, d *Denials)) {
	t.Helper()
	for _, without := range datagramWays {
		t.Run(fmt.Sprint("without ", without), func(t *testing.T) {
			d := new(Denials)
			for _, c := range without {
				d.Note(c, unix.ENOSYS)
			}
			f(t, d)
			for c := range NumCalls {
				if d.Has(c) != slices.Contains(without, c) {
					t.Errorf("%v is recorded as denied: %v", c, d.Has(c))
				}
			}
		})
	}
}

// A received describes a datagram that was received.
type received struct {
	text string
	from netip.AddrPort
	oob  []byte
}

// receive receives n datagrams.
func receive(t *testing.T, d *Denials, fd int32, n int) (all []received) {
	t.Helper()
	for len(all) < n {
		messages := toReceive(4)
		headers := headersOf(messages, true)
		got, err := again(t, func() (int, syscall.Errno) { return d.Receive(fd, headers) })
		if err != 0 {
			t.Fatal(err)
		}
		for i := range got {
			h, m := &headers[i], &messages[i]
			all = append(all, received{string(m.buf[:h.Len]), AddrPort(&m.name), m.oob[:h.Controllen]})
		}
	}
	return all
}

// Datagrams arrive whole, in order and with their sender's address, and an answer reaches the address it was sent to.
func TestSendAndReceive(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			eachWay(t, func(t *testing.T, d *Denials) {
				server, at := udpSocket(t, addr)
				client := udpClient(t, at)
				name, _ := SocketName(unix.SYS_GETSOCKNAME, client)
				texts := []string{"a", strings.Repeat("b", 90), "ccc"}
				if n, err := d.Send(client, headersOf(toSend(texts...), false)); n != 3 || err != 0 {
					t.Fatalf("sent %d, %v, want 3", n, err)
				}
				for i, got := range receive(t, d, server, 3) {
					if got.text != texts[i] || got.from != AddrPort(&name) {
						t.Errorf("got %q from %v, want %q from %v", got.text, got.from, texts[i], AddrPort(&name))
					}
				}
				answer := toSend("answer")
				answer[0].name = name
				if n, err := d.Send(server, headersOf(answer, true)); n != 1 || err != 0 {
					t.Fatalf("sent %d, %v, want 1", n, err)
				}
				if got := receive(t, d, client, 1)[0]; got.text != "answer" || got.from != at {
					t.Errorf("got %q from %v, want the answer from %v", got.text, got.from, at)
				}
			})
		})
	}
}

// Receive and Send return the same errors with each set of denied calls.
func TestDatagramErrors(t *testing.T) {
	eachWay(t, func(t *testing.T, d *Denials) {
		server, at := udpSocket(t, "127.0.0.1")
		client := udpClient(t, at)
		in := headersOf(toReceive(2), true)
		if n, err := d.Receive(server, in); n != 0 || err != unix.EAGAIN {
			t.Errorf("got %d, %v from an empty socket, want EAGAIN", n, err)
		}
		if n, err := d.Receive(-1, in); n != 0 || err != unix.EBADF {
			t.Errorf("got %d, %v for an invalid descriptor, want EBADF", n, err)
		}
		long := headersOf(toSend("fits", strings.Repeat("x", 70_000), "never"), false)
		if n, err := d.Send(client, long); n != 1 || err != 0 {
			t.Errorf("sent %d, %v, want only the datagram before the one that is too long", n, err)
		}
		if n, err := d.Send(client, long[1:]); n != 0 || err != unix.EMSGSIZE {
			t.Errorf("sent %d, %v, want EMSGSIZE", n, err)
		}
		if got := receive(t, d, server, 1)[0].text; got != "fits" {
			t.Errorf("got %q, want the datagram that fits", got)
		}
		if n, err := d.Send(-1, long); n != 0 || err != unix.EBADF {
			t.Errorf("sent %d, %v for an invalid descriptor, want EBADF", n, err)
		}
		if n, err := d.Send(server, long); n != 0 || err != unix.EDESTADDRREQ {
			t.Errorf("sent %d, %v without an address, want EDESTADDRREQ", n, err)
		}
	})
}

// A connected socket gets the error that its peer refuses datagrams only after the datagrams that arrived before it.
func TestARefusalComesBehindTheDatagrams(t *testing.T) {
	eachWay(t, func(t *testing.T, d *Denials) {
		server, at := udpSocket(t, "127.0.0.1")
		client := udpClient(t, at)
		name, _ := SocketName(unix.SYS_GETSOCKNAME, client)
		answers := toSend("1", "2")
		answers[0].name, answers[1].name = name, name
		if n, err := d.Send(server, headersOf(answers, true)); n != 2 || err != 0 {
			t.Fatalf("sent %d, %v, want 2", n, err)
		}
		var texts []string
		messages := toReceive(4)
		headers := headersOf(messages, false) // without space for addresses, because the socket is connected
		for len(texts) < 2 {
			n, err := again(t, func() (int, syscall.Errno) { return d.Receive(client, headers) })
			if err != 0 {
				t.Fatal(err)
			}
			if d.Has(CallRecvmmsg) && n != 1 {
				t.Errorf("received %d datagrams with one call each, want 1, or an error behind it is lost", n)
			}
			for i := range n {
				texts = append(texts, string(messages[i].buf[:headers[i].Len]))
			}
		}
		if !slices.Equal(texts, []string{"1", "2"}) {
			t.Errorf("got %q, want 1 and 2", texts)
		}
		if err := unix.Dup3(int(udpClient(t, at)), int(server), 0); err != nil { // closes the server's port
			t.Fatal(err)
		}
		testproc.Await(t, "the refusal", func() bool {
			_, _ = d.Send(client, headersOf(toSend("x"), false))
			_, err := d.Receive(client, headers)
			return err == unix.ECONNREFUSED
		})
	})
}

// RecvDatagram and SendDatagram move one datagram, which may be empty, and RecvDatagram truncates a long one.
func TestSingleDatagrams(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		server, at := udpSocket(t, addr)
		client := udpClient(t, at)
		buf := make([]byte, 4)
		if _, err := RecvDatagram(server, buf); err != unix.EAGAIN {
			t.Errorf("got %v from an empty socket, want EAGAIN", err)
		}
		for _, text := range []string{"one", "", "too long"} {
			if err := SendDatagram(client, []byte(text)); err != 0 {
				t.Fatal(err)
			}
			n, err := again(t, func() (int, syscall.Errno) { return RecvDatagram(server, buf) })
			if want := text[:min(4, len(text))]; string(buf[:n]) != want || err != 0 {
				t.Errorf("got %q, %v, want %q", buf[:n], err, want)
			}
		}
		if err := SendDatagram(client, make([]byte, 70_000)); err != unix.EMSGSIZE {
			t.Errorf("got %v, want EMSGSIZE", err)
		}
	}
}

// The kernel cuts a message that carries PutSegment's control message. Without sendmsg, Send refuses such a message.
func TestSegments(t *testing.T) {
	eachWay(t, func(t *testing.T, d *Denials) {
		server, at := udpSocket(t, "127.0.0.1")
		client := udpClient(t, at)
		message := toSend("aaabbbc")
		message[0].oob = make([]byte, 64)
		message[0].oob = message[0].oob[:PutSegment(message[0].oob, 3)]
		n, err := d.Send(client, headersOf(message, false))
		if d.Has(CallSendmsg) {
			if n != 0 || err != unix.EINVAL {
				t.Errorf("sent %d, %v, want EINVAL: sendto cannot cut", n, err)
			}
			return
		}
		if n != 1 || err != 0 {
			t.Fatalf("sent %d, %v, want 1", n, err)
		}
		for i, got := range receive(t, d, server, 3) {
			if want := []string{"aaa", "bbb", "c"}[i]; got.text != want {
				t.Errorf("got %q, want %q", got.text, want)
			}
		}
	})
}
