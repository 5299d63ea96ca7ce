package sys

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Control messages provide a datagram's local address, and the hops set by its socket or by the datagram itself.
// Without recvmsg no control messages are received; without sendmsg none can be sent.
func TestControlMessages(t *testing.T) {
	for _, tt := range []struct{ wildcard, to string }{
		{"0.0.0.0", "127.0.0.1"}, {"0.0.0.0", "127.0.0.2"}, {"::", "::1"},
	} {
		t.Run(tt.to, func(t *testing.T) {
			eachWay(t, func(t *testing.T, d *Denials) {
				server, at := udpSocket(t, tt.wildcard)
				if err := WantLocal(int(server), at.Addr()); err != nil {
					t.Fatal(err)
				}
				WantHops(server, at.Addr())
				to := netip.MustParseAddr(tt.to)
				client := udpClient(t, netip.AddrPortFrom(to, at.Port()))
				SetHops(client, to.Is6(), 9)
				if n, err := d.Send(client, headersOf(toSend("x"), false)); n != 1 || err != 0 {
					t.Fatalf("sent %d, %v", n, err)
				}
				got, want, hops := receive(t, d, server, 1)[0], to, uint8(9)
				if d.Has(CallRecvmsg) {
					want, hops = netip.Addr{}, 0
				}
				if Local(got.oob) != want || Hops(got.oob) != hops {
					t.Errorf("got %v, %d hops, want %v, %d", Local(got.oob), Hops(got.oob), want, hops)
				}
				message := toSend("y")
				message[0].oob = make([]byte, OOBSize)
				message[0].oob = message[0].oob[:PutHops(message[0].oob, to.Is6(), 5)]
				n, err := d.Send(client, headersOf(message, false))
				if d.Has(CallSendmsg) {
					if n != 0 || err != unix.EINVAL {
						t.Errorf("sent %d, %v, want EINVAL: sendto cannot carry hops", n, err)
					}
					return
				}
				if got := receive(t, d, server, 1)[0]; Hops(got.oob) != 5 || n != 1 || err != 0 {
					t.Errorf("got %d hops, %d, %v, want the datagram's own, 5", Hops(got.oob), n, err)
				}
			})
		})
	}
}

// A datagram leaves from the address given to PutSource. Without sendmsg the kernel chooses the address.
func TestPutSource(t *testing.T) {
	for _, tt := range []struct{ wildcard, client, from, choice string }{
		{"0.0.0.0", "127.0.0.1", "127.0.0.3", "127.0.0.1"}, {"::", "::1", "::1", "::1"},
	} {
		t.Run(tt.wildcard, func(t *testing.T) {
			eachWay(t, func(t *testing.T, d *Denials) {
				server, at := udpSocket(t, tt.wildcard)
				client, to := udpSocket(t, tt.client)
				message, from := toSend("x"), netip.MustParseAddr(tt.from)
				PutAddr(&message[0].name, to)
				oob := make([]byte, OOBSize)
				oob = oob[:PutSource(oob, uint16(Family(from)), Source(from.As16()))]
				if want := SourceControl(from); !bytes.Equal(oob, want) {
					t.Errorf("got %x, want %x", oob, want)
				}
				if got := Local(oob); got != from {
					t.Errorf("Local returned %v for the message, want %v", got, from)
				}
				message[0].oob = oob
				if n, err := d.Send(server, headersOf(message, true)); n != 1 || err != 0 {
					t.Fatalf("sent %d, %v", n, err)
				}
				want := netip.AddrPortFrom(from, at.Port())
				if d.Has(CallSendmsg) {
					want = netip.AddrPortFrom(netip.MustParseAddr(tt.choice), at.Port())
				}
				if got := receive(t, d, client, 1)[0].from; got != want {
					t.Errorf("got a datagram from %v, want it from %v", got, want)
				}
			})
		})
	}
}

// HopsIn and LocalIn ignore control messages that are truncated.
func TestReadControlMessages(t *testing.T) {
	four, six := make([]byte, unix.SizeofInet4Pktinfo), make([]byte, unix.SizeofInet6Pktinfo)
	copy(four[4:], []byte{192, 0, 2, 7})
	addr := netip.MustParseAddr("2001:db8::7").As16()
	copy(six, addr[:])
	multicast := bytes.Clone(six)
	multicast[0] = 0xff
	hops := make([]byte, 64)
	PutHops(hops, false, 77)
	hops = hops[unix.CmsgLen(0):][:4]
	for _, tt := range []struct {
		name        string
		level, kind int32
		data        []byte
		local       string
		hops        uint8
	}{
		{"IP_PKTINFO", unix.IPPROTO_IP, unix.IP_PKTINFO, four, "192.0.2.7", 0},
		{"IP_PKTINFO, truncated", unix.IPPROTO_IP, unix.IP_PKTINFO, four[:11], "", 0},
		{"IPV6_PKTINFO", unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, six, "2001:db8::7", 0},
		{"IPV6_PKTINFO, truncated", unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, six[:19], "", 0},
		{"IPV6_PKTINFO of a multicast group", unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, multicast, "", 0},
		{"IP_TTL", unix.IPPROTO_IP, unix.IP_TTL, hops, "", 77},
		{"IP_TTL, truncated", unix.IPPROTO_IP, unix.IP_TTL, hops[:3], "", 0},
		{"IPV6_HOPLIMIT", unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, hops, "", 77},
		{"another level", unix.SOL_SOCKET, unix.IP_TTL, hops, "", 0},
	} {
		n, is := HopsIn(tt.level, tt.kind, tt.data)
		if n != tt.hops || is != (tt.hops != 0) {
			t.Errorf("%s: got %d hops, %v, want %d", tt.name, n, is, tt.hops)
		}
		local := LocalIn(tt.level, tt.kind, tt.data)
		if local.IsValid() != (tt.local != "") || local.IsValid() && local.String() != tt.local {
			t.Errorf("%s: got local address %v, want %q", tt.name, local, tt.local)
		}
	}
	if broken := []byte{1, 2, 3}; Hops(broken) != 0 || Local(broken).IsValid() {
		t.Error("invalid control messages have hops or a local address")
	}
}

// SetHops sets the option for the socket's address family.
func TestSetHops(t *testing.T) {
	four, _ := udpSocket(t, "127.0.0.1")
	SetHops(four, false, 33)
	if got := option(t, four, unix.IPPROTO_IP, unix.IP_TTL); got != 33 {
		t.Errorf("got IP_TTL %d, want 33", got)
	}
	six, _ := udpSocket(t, "::1")
	SetHops(six, true, 44)
	if got := option(t, six, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS); got != 44 {
		t.Errorf("got IPV6_UNICAST_HOPS %d, want 44", got)
	}
}

// Local and Hops read the control messages that package net returns.
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
		t.Error("an empty control message has hops or a local address")
	}
}
