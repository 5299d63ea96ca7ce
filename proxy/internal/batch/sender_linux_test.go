package batch

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// sendAll sends all parcels of w, and returns what was sent.
func sendAll(t *testing.T, w *Sender, fd int32) (total Traffic) {
	t.Helper()
	for w.More() {
		n, err := w.Send(fd)
		if err != 0 && err != unix.EPERM { // with the build tag faults, EPERM may occur once
			t.Fatal(err)
		}
		total.Datagrams += n.Datagrams
		total.Bytes += n.Bytes
	}
	return total
}

// addSome adds five parcels of 100 bytes, and one of 450 bytes made of joined datagrams of 100 bytes.
func addSome(w *Sender, body []byte, plain *bool) {
	for i := range 5 {
		w.Add(Parcel{Base: &body[100*i], Size: 100, Plain: plain})
	}
	w.Add(Parcel{Base: &body[500], Size: 450, Segment: 100, Plain: plain})
}

// All datagrams arrive singly and whole, whether the kernel cuts them, refuses to cut them, or is not asked to.
func TestSenderSendsEachDatagram(t *testing.T) {
	for _, tt := range []struct {
		name    string
		noCheck bool // the kernel cannot cut without checksums: EINVAL (udp_send_skb of net/ipv4/udp.c)
		plain   *bool
		after   bool // plain after sending
	}{
		{"cut by the kernel", false, new(bool), false},
		{"not cut by the kernel", true, new(bool), true},
		{"nothing known of the flow", false, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server, at := listen(t, four)
			fd := dial(t, at)
			sys.SetOption(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, sys.Boolean(tt.noCheck))
			body := numbered(950)
			w := &Sender{Denied: new(sys.Denials)}
			addSome(w, body, tt.plain)
			if got := sendAll(t, w, fd); got != (Traffic{10, 950}) {
				t.Errorf("sent %v, want 10 datagrams and 950 bytes", got)
			}
			if tt.plain != nil && *tt.plain != tt.after {
				t.Errorf("got plain %v, want %v", *tt.plain, tt.after)
			}
			b := newBatch(t)
			if places := receiveAll(t, 10, receiveFrom(b, server)); places != 10 {
				t.Fatalf("got %d datagrams, want 10", places)
			}
			for i := range 10 {
				if want := body[100*i : min(100*i+100, 950)]; !bytes.Equal(b.Payload(i), want) {
					t.Errorf("datagram %d: got %v, want %v", i, b.Payload(i), want)
				}
			}
		})
	}
}

// The Sender makes one message of consecutive parcels of one flow and size, and separate messages of others.
func TestSenderJoins(t *testing.T) {
	var body [1 << 16]byte
	var plain bool
	uncut := true
	sized := func(flow uint64, sizes ...int) (all []Parcel) {
		for _, n := range sizes {
			all = append(all, Parcel{Base: &body[0], Size: n, Flow: flow, Plain: &plain})
		}
		return all
	}
	many := make([]int, Size)
	for i := range many {
		many[i] = 1100
	}
	for _, tt := range []struct {
		name    string
		parcels []Parcel
		want    int // number of messages
	}{
		{"one size", sized(1, 10, 10, 10), 1},
		{"the last is smaller", sized(1, 10, 10, 5), 1},
		{"one in the middle is smaller", sized(1, 10, 5, 10), 2},
		{"the last is larger", sized(1, 10, 11), 2},
		{"two flows", append(sized(1, 10), sized(2, 10)...), 2},
		{"empty ones", sized(1, 0, 0), 2},
		{"more than a datagram holds", sized(1, many...), 2},
		{"a flow that is not cut", []Parcel{{Base: &body[0], Size: 10, Plain: &uncut},
			{Base: &body[0], Size: 10, Plain: &uncut}}, 2},
		{"joined ones", []Parcel{{Base: &body[0], Size: 95, Segment: 10, Plain: &plain}}, 1},
		{"joined ones that are not cut", []Parcel{{Base: &body[0], Size: 95, Segment: 10, Plain: &uncut}}, 10},
	} {
		w := &Sender{Denied: new(sys.Denials)}
		for _, p := range tt.parcels {
			w.Add(p)
		}
		if got := w.build(); got != tt.want {
			t.Errorf("%s: got %d messages, want %d", tt.name, got, tt.want)
		}
	}
}

// A parcel goes to its destination, from its source address, with its hops.
func TestSenderControlMessages(t *testing.T) {
	for _, addr := range []netip.Addr{four, six} {
		t.Run(addr.String(), func(t *testing.T) {
			server, at := listen(t, addr)
			sys.WantHops(server, addr)
			wildcard := netip.IPv4Unspecified()
			from := netip.MustParseAddr("127.0.0.3")
			if addr.Is6() {
				wildcard, from = netip.IPv6Unspecified(), addr
			}
			fd, _ := listen(t, wildcard)
			var to unix.RawSockaddrInet6
			sys.PutAddr(&to, at)
			w := &Sender{Denied: new(sys.Denials)}
			w.Add(Parcel{Base: &[]byte("x")[0], Size: 1, To: &to, Source: from.As16()})
			w.Add(Parcel{Base: &[]byte("y")[0], Size: 1, To: &to, Hops: 33, Six: addr.Is6()})
			sendAll(t, w, fd)
			b := newBatch(t)
			receiveAll(t, 2, receiveFrom(b, server))
			if got := sys.AddrPort(&b.Names[0]).Addr(); got != from {
				t.Errorf("got sender %v, want %v", got, from)
			}
			if got := b.Hops[1]; got != 33 {
				t.Errorf("got %d hops, want 33", got)
			}
		})
	}
}

// After an error, Front returns the parcel that caused it. Skip drops that parcel, and the rest can be sent. After
// DropHops, the rest has the socket's hops.
func TestSenderSkips(t *testing.T) {
	server, at := listen(t, four)
	fd, _ := listen(t, four)
	var good, bad unix.RawSockaddrInet6
	sys.PutAddr(&good, at)
	sys.PutAddr(&bad, netip.MustParseAddrPort("255.255.255.255:9")) // EACCES without SO_BROADCAST
	w := &Sender{Denied: new(sys.Denials)}
	b := []byte("abc")
	w.Add(Parcel{Base: &b[0], Size: 1, To: &bad, Place: 7})
	w.Add(Parcel{Base: &b[1], Size: 1, To: &good, Place: 8, Hops: 5})
	if n, err := w.Send(fd); n.Datagrams != 0 || err != unix.EACCES || w.Front().Place != 7 {
		t.Fatalf("got %v, %v at place %d, want nothing sent and EACCES at 7", n, err, w.Front().Place)
	}
	if n := w.Skip(); n != 1 || !w.More() || w.Front().Place != 8 {
		t.Fatalf("skipped %d datagrams, want 1, and place 8 in front", n)
	}
	w.DropHops()
	if got := sendAll(t, w, fd); got != (Traffic{1, 1}) || w.More() {
		t.Errorf("got %v, want one datagram", got)
	}
	sys.WantHops(server, four)
	in := newBatch(t)
	receiveAll(t, 1, receiveFrom(in, server))
	if got := string(in.Payload(0)); got != "b" {
		t.Errorf("got %q, want b", got)
	}
	w.Clear()
	if w.More() {
		t.Error("More is true after Clear")
	}
}

// A refused datagram does not mean that the call is denied. This datagram is refused for its source address, which no
// host can have. If sendmsg counted as denied, later datagrams would leave from the wrong address.
func TestRefusedDatagramIsNoDenial(t *testing.T) {
	_, at := listen(t, four)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var to unix.RawSockaddrInet6
	sys.PutAddr(&to, at)
	const multicast = "224.0.0.1"
	w := &Sender{Denied: new(sys.Denials)}
	w.Add(Parcel{Base: &[]byte("x")[0], Size: 1, To: &to, Source: netip.MustParseAddr(multicast).As16()})
	if _, err := w.Send(int32(fd)); err != unix.EINVAL {
		t.Errorf("got %v, want EINVAL", err)
	}
	for c := range sys.NumCalls {
		if w.Denied.Has(c) {
			t.Errorf("%v is recorded as denied", c)
		}
	}
}

// If the system denies calls, datagrams are still sent and received with the remaining calls.
func TestDeniedCalls(t *testing.T) {
	for _, denied := range [][]sys.Call{{sys.CallSendmmsg}, {sys.CallSendmmsg, sys.CallSendmsg}, {sys.CallCut},
		{sys.CallRecvmmsg}, {sys.CallRecvmmsg, sys.CallRecvmsg}} {
		d := new(sys.Denials)
		for _, c := range denied {
			d.Note(c, unix.EPERM)
		}
		server, at := listen(t, four)
		fd := dial(t, at)
		w, body, plain := &Sender{Denied: d}, numbered(950), false
		addSome(w, body, &plain)
		if got := sendAll(t, w, fd); got != (Traffic{10, 950}) {
			t.Errorf("without %v: sent %v, want 10 datagrams and 950 bytes", denied, got)
		}
		b := New(d)
		defer b.Free()
		if n := receiveAll(t, 10, receiveFrom(b, server)); n != 10 || !bytes.Equal(b.Payload(9), body[900:]) {
			t.Errorf("without %v: got %d datagrams, want 10", denied, n)
		}
	}
}
