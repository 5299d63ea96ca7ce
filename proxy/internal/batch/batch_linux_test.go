package batch

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

var (
	four = netip.MustParseAddr("127.0.0.1")
	six  = netip.MustParseAddr("::1")
)

// unusable ends a test that got err for a socket of addr. For IPv6, which a host may lack, unusable skips the test.
func unusable(t *testing.T, addr netip.Addr, err error) {
	t.Helper()
	if addr.Is6() {
		t.Skip(err)
	}
	t.Fatal(err)
}

// listen returns a non-blocking UDP socket at a free port of addr, and its address.
func listen(t *testing.T, addr netip.Addr) (int32, netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(sys.Family(addr), unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unusable(t, addr, err)
	}
	t.Cleanup(func() { sys.Close(int32(fd)) })
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: addr.As16()}
	if addr.Is4() {
		sa = &unix.SockaddrInet4{Addr: addr.As4()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		unusable(t, addr, err)
	}
	name, errno := sys.SocketName(unix.SYS_GETSOCKNAME, int32(fd))
	if errno != 0 {
		t.Fatal(errno)
	}
	return int32(fd), sys.AddrPort(&name)
}

// dial returns a UDP socket that is connected to addr.
func dial(t *testing.T, addr netip.AddrPort) int32 {
	t.Helper()
	fd, err := sys.StartConnect(netip.Addr{}, addr, unix.SOCK_DGRAM)
	if err != 0 {
		unusable(t, addr.Addr(), err)
	}
	t.Cleanup(func() { sys.Close(fd) })
	return fd
}

func newBatch(t *testing.T) *Batch {
	b := New(new(sys.Denials))
	t.Cleanup(b.Free)
	return b
}

// receiveAll receives n datagrams into the places from 0 on, and returns the number of places they take.
func receiveAll(t *testing.T, n int, receive func(from int) (int, error)) (places int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); n > 0; {
		got, err := receive(places)
		if got == 0 && (err != unix.EAGAIN || time.Now().After(end)) {
			t.Fatalf("%d datagrams have not arrived: %v", n, err)
		}
		places, n = places+got, n-got
	}
	return places
}

// receiveFrom returns the argument of receiveAll for a socket that is not connected.
func receiveFrom(b *Batch, fd int32) func(int) (int, error) {
	return func(from int) (int, error) {
		n, err := b.Receive(fd, from, Size-from)
		return n, err
	}
}

// Receive provides each datagram's bytes, sender, local address and hops, over IPv4 and IPv6.
func TestReceiveTellsWhereDatagramsAreFrom(t *testing.T) {
	for _, tt := range []struct{ addr, wildcard netip.Addr }{
		{four, netip.IPv4Unspecified()}, {six, netip.IPv6Unspecified()}, {four, netip.IPv6Unspecified()},
	} {
		addr, wildcard := tt.addr, tt.wildcard
		t.Run(fmt.Sprint(addr, " at ", wildcard), func(t *testing.T) {
			fd, at := listen(t, wildcard)
			if err := sys.WantLocal(int(fd), wildcard); err != nil {
				t.Fatal(err)
			}
			sys.WantHops(fd, wildcard)
			client := dial(t, netip.AddrPortFrom(addr, at.Port()))
			sys.SetHops(client, addr.Is6(), 17)
			for _, text := range []string{"first", "", "third"} {
				if err := sys.SendDatagram(client, []byte(text)); err != 0 {
					t.Fatal(err)
				}
			}
			b := newBatch(t)
			receiveAll(t, 3, receiveFrom(b, fd))
			name, _ := sys.SocketName(unix.SYS_GETSOCKNAME, client)
			for i, want := range []string{"first", "", "third"} {
				if got := string(b.Payload(i)); got != want || b.Len(i) != len(want) {
					t.Errorf("datagram %d: got %q of %d bytes, want %q", i, got, b.Len(i), want)
				}
				got := sys.AddrPort(&b.Names[i])
				got = netip.AddrPortFrom(got.Addr().Unmap(), got.Port()) // an IPv4 address on an IPv6 socket
				if want := sys.AddrPort(&name); got != want {
					t.Errorf("datagram %d: got sender %v, want %v", i, got, want)
				}
				if b.ToAll[i] {
					t.Errorf("datagram %d: got ToAll, want none for unicast", i)
				}
				if got := netip.AddrFrom16(b.Key(i, true).Local).Unmap(); got != addr {
					t.Errorf("datagram %d: got local address %v, want %v", i, got, addr)
				}
				if b.Key(i, false).Local != (sys.Source{}) {
					t.Errorf("datagram %d: the key has a local address, want none", i)
				}
				if got := b.Hops[i]; got != 17 {
					t.Errorf("datagram %d: got %d hops, want 17", i, got)
				}
				if b.Segment(i) != 0 || b.Count(i) != 1 {
					t.Errorf("datagram %d: got %d datagrams of %d bytes, want one", i, b.Count(i), b.Segment(i))
				}
			}
		})
	}
}

// Each yields the datagrams that the kernel has joined, with their own bytes.
func TestReceiveJoinedDatagrams(t *testing.T) {
	var denied sys.Denials
	if denied.Try([]sys.Call{sys.CallCut, sys.CallJoin}); denied.Has(sys.CallCut) || denied.Has(sys.CallJoin) {
		testproc.Cannot(t, "the kernel cannot cut or join datagrams", errors.ErrUnsupported)
	}
	fd, at := listen(t, four)
	sys.SetOption(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	client := dial(t, at)
	sys.SetOption(client, unix.SOL_UDP, unix.UDP_SEGMENT, 100)
	body := numbered(950)
	if err := sys.SendDatagram(client, body); err != 0 {
		t.Fatal(err)
	}
	b := newBatch(t)
	places := receiveAll(t, 1, receiveFrom(b, fd))
	if places != 1 || b.Segment(0) != 100 || b.Count(0) != 10 || b.Len(0) != 950 {
		t.Fatalf("got %d places, the first with %d datagrams of %d bytes; want one place with 10 of 100",
			places, b.Count(0), b.Segment(0))
	}
	var got [][]byte
	for datagram := range b.Each(0) {
		got = append(got, datagram)
	}
	if want := slices.Collect(slices.Chunk(body, 100)); !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("got %d datagrams %v, want 10 of 100 bytes and one of 50", len(got), got)
	}
	for range b.Each(0) {
		break // stopping early must not panic
	}
}

// A connected socket receives one datagram or several at a time, and joined datagrams come with control messages.
func TestReceiveConnected(t *testing.T) {
	server, at := listen(t, four)
	fd := dial(t, at)
	name, _ := sys.SocketName(unix.SYS_GETSOCKNAME, fd)
	back := dial2(t, server, &name)
	b := newBatch(t)
	if n, err := b.ReceiveOne(fd, 0); n != 0 || err != unix.EAGAIN {
		t.Fatalf("got %d, %v, want nothing and EAGAIN", n, err)
	}
	back("one")
	receiveAll(t, 1, func(from int) (int, error) { n, err := b.ReceiveOne(fd, from); return n, err })
	if got := string(b.Payload(0)); got != "one" {
		t.Errorf("got %q, want one", got)
	}
	for _, joined := range []bool{false, true} {
		back("two")
		back("three")
		receiveAll(t, 2, func(from int) (int, error) {
			n, err := b.ReceiveConnected(fd, from, Size-from, joined)
			return n, err
		})
		if got := string(b.Payload(0)) + " " + string(b.Payload(1)); got != "two three" {
			t.Errorf("joined %v: got %q, want two three", joined, got)
		}
	}
}

// dial2 connects the listening socket fd to a client, and returns a function that sends a text to the client.
func dial2(t *testing.T, fd int32, to *unix.RawSockaddrInet6) func(string) {
	t.Helper()
	if err := unix.Connect(int(fd), &unix.SockaddrInet4{Addr: sys.AddrPort(to).Addr().As4(),
		Port: int(sys.AddrPort(to).Port())}); err != nil {
		t.Fatal(err)
	}
	return func(text string) {
		if err := sys.SendDatagram(fd, []byte(text)); err != 0 {
			t.Error(err)
		}
	}
}

// FewestHops and CountFrom cover all places of a list, and unknown hops do not count.
func TestLists(t *testing.T) {
	b := new(Batch)
	for i, hops := range []uint8{0, 30, 20, 40} {
		b.Hops[i], b.headers[i].Len = hops, 100
	}
	b.segments[2] = 30 // 100 bytes in segments of 30 make 4 datagrams
	b.Next[0], b.Next[1], b.Next[2], b.Next[3] = 1, 2, -1, -1
	for _, tt := range []struct {
		from  int16
		hops  uint8
		count int
	}{{0, 20, 6}, {1, 20, 5}, {2, 20, 4}, {3, 40, 1}, {-1, 0, 0}} {
		if got := b.FewestHops(tt.from); got != tt.hops {
			t.Errorf("from place %d on: got %d hops, want %d", tt.from, got, tt.hops)
		}
		if got := b.CountFrom(tt.from); got != tt.count {
			t.Errorf("from place %d on: got %d datagrams, want %d", tt.from, got, tt.count)
		}
	}
}

// A ClientID differs for each address, port, zone and family.
func TestClientIDs(t *testing.T) {
	seen := map[ClientID]string{}
	for _, text := range []string{"127.0.0.1:80", "127.0.0.1:81", "127.0.0.2:80", "[::1]:80", "[::2]:80",
		"[::ffff:127.0.0.1]:80", "[::]:80", "0.0.0.0:80"} {
		var sa unix.RawSockaddrInet6
		sys.PutAddr(&sa, netip.MustParseAddrPort(text))
		id := ClientIDOf(&sa)
		if other, ok := seen[id]; ok {
			t.Errorf("%s has the same ID as %s", text, other)
		}
		seen[id] = text
		if id != ClientIDOf(&sa) {
			t.Errorf("two IDs of %s differ", text)
		}
		sa.Scope_id++
		if sa.Family == unix.AF_INET6 && id == ClientIDOf(&sa) {
			t.Errorf("the ID of %s ignores the zone", text)
		}
	}
	if size := unsafe.Sizeof(ClientID{}); size != 24 {
		t.Errorf("a ClientID has %d bytes, want 24 without padding", size)
	}
}

// numbered returns n bytes, each different from its neighbours.
func numbered(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// What was moved to the front or away is undone by the next Receive, and other datagrams stay as they are.
func TestStripAndPrepend(t *testing.T) {
	fd, addr := listen(t, four)
	b := New(&sys.Denials{})
	t.Cleanup(b.Free)
	from := dial(t, addr)
	receive := func(want ...string) {
		t.Helper()
		for _, text := range want {
			if err := sys.SendDatagram(from, []byte(text)); err != 0 {
				t.Fatal(err)
			}
		}
		for got := 0; got < len(want); {
			n, err := b.Receive(fd, got, len(want)-got)
			if err != 0 && err != unix.EAGAIN {
				t.Fatal(err)
			}
			got += n
		}
		for i, text := range want {
			if got := string(b.Payload(i)); got != text {
				t.Errorf("place %d: got %q, want %q", i, got, text)
			}
		}
	}
	receive("header one", "two", "")
	b.Strip(0, len("header "))
	long := bytes.Repeat([]byte("x"), Headroom)
	b.Prepend(1, long)
	b.Prepend(2, []byte("three"))
	for i, want := range []string{"one", string(long) + "two", "three"} {
		if got := string(b.Payload(i)); got != want || b.Len(i) != len(want) {
			t.Errorf("place %d: got %q", i, got)
		}
	}
	b.Prepend(0, append(long, "header "...))
	if got := string(b.Payload(0)); got != string(long)+"header one" {
		t.Errorf("got %q, want the longest header", got)
	}
	receive("four", "five", "six")
}
