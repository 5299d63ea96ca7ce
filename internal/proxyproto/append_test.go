package proxyproto

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// A written is a header and the bytes in which both versions write it.
type written struct {
	name string
	h    Header
	v1   string
	v2   []byte
}

func someWritten() []written {
	local := v2(0x20, 0x00)
	mixed := bin("0000000000000000 0000ffff c0000201 20010db8000000000000000000000011 dc04 01bb")
	full := "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	return []written{
		{"example of 2.1", from("192.168.0.1:56324", "192.168.0.11:443"),
			"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", v2(0x21, 0x11, bin("c0a80001 c0a8000b dc04 01bb"))},
		{"longest TCP4", from("255.255.255.255:65535", "255.255.255.255:65535"),
			"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
			v2(0x21, 0x11, bytes.Repeat(bin("ff"), 12))},
		{"longest TCP6", from("["+full+"]:65535", "["+full+"]:65535"),
			"PROXY TCP6 " + full + " " + full + " 65535 65535\r\n", v2(0x21, 0x21, bytes.Repeat(bin("ff"), 36))},
		{"IPv6", from("[2001:db8::1]:56324", "[2001:db8::11]:443"),
			"PROXY TCP6 2001:db8::1 2001:db8::11 56324 443\r\n", v2(0x21, 0x21, addrs6())},
		{"port 0", from("0.0.0.0:0", "[::]:0"), "PROXY TCP6 ::ffff:0:0 :: 0 0\r\n",
			v2(0x21, 0x21, bin("0000000000000000 0000ffff 00000000"), make([]byte, 20))},
		{"IPv4 to IPv6", from("192.0.2.1:56324", "[2001:db8::11]:443"),
			"PROXY TCP6 ::ffff:c000:201 2001:db8::11 56324 443\r\n", v2(0x21, 0x21, mixed)},
		{"mapped IPv4 to IPv6", from("[::ffff:192.0.2.1]:56324", "[2001:db8::11]:443"),
			"PROXY TCP6 ::ffff:c000:201 2001:db8::11 56324 443\r\n", v2(0x21, 0x21, mixed)},
		{"mapped IPv4 to IPv4", from("[::ffff:192.0.2.1%eth0]:56324", "192.0.2.11:443"),
			"PROXY TCP4 192.0.2.1 192.0.2.11 56324 443\r\n", v2(0x21, 0x11, addrs4())},
		{"zones", from("[fe80::1%eth0]:1", "[fe80::2%1]:2"), "PROXY TCP6 fe80::1 fe80::2 1 2\r\n",
			v2(0x21, 0x21, bin("fe800000000000000000000000000001 fe800000000000000000000000000002 0001 0002"))},
		{"nothing", Header{}, "PROXY UNKNOWN\r\n", local},
		{"no client", Header{Dst: netip.MustParseAddrPort("192.0.2.1:1")}, "PROXY UNKNOWN\r\n", local},
		{"only ports", Header{Src: netip.AddrPortFrom(netip.Addr{}, 1), Dst: netip.AddrPortFrom(netip.Addr{}, 2)},
			"PROXY UNKNOWN\r\n", local},
		{"no listener", Header{Src: netip.MustParseAddrPort("192.0.2.1:1")}, "PROXY UNKNOWN\r\n", local},
	}
}

// The headers do not change what comes before them.
func TestAppend(t *testing.T) {
	for _, tt := range someWritten() {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(AppendV1([]byte("before"), tt.h.Src, tt.h.Dst)); got != "before"+tt.v1 {
				t.Errorf("got %q, want %q", got, "before"+tt.v1)
			}
			if got := AppendV2([]byte("before"), tt.h); !bytes.Equal(got, join([]byte("before"), tt.v2)) {
				t.Errorf("got %x, want %x", got, join([]byte("before"), tt.v2))
			}
			tt.h.Datagram = true
			if tt.v2[13] != 0 {
				tt.v2[13]++ // UDP over the same family
			}
			if got := AppendV2(nil, tt.h); !bytes.Equal(got, tt.v2) {
				t.Errorf("of a datagram: got %x, want %x", got, tt.v2)
			}
		})
	}
}

func TestAppendV2WritesTLVs(t *testing.T) {
	authority, id := bin("02 0005 3132333435"), TLVs(nil).Append(UniqueID, []byte("id"))
	if want := bin("05 0002 6964"); !bytes.Equal(id, want) {
		t.Fatalf("got %x, want %x", id, want)
	}
	longest := longTLV(MaxHeader - 16 - 12 - len(id))
	for _, tt := range []struct {
		name       string
		tlvs, want TLVs
	}{
		{"none", TLVs{}, nil},
		{"in their order", join(id, authority, id), join(id, authority, id)},
		{"no checksum", join(bin("03 0004 00000000"), authority), authority},
		{"no padding", join(authority, bin("04 0001 00"), id), join(authority, id)},
		{"up to MaxHeader", join(id, longest), join(id, longest)},
		{"not beyond MaxHeader", join(longest, id, []byte{0xe1, 0, 0}, authority), join(longest, id)},
		{"later ones that fit", join(longest, authority, id), join(longest, id)},
		{"the longest unique ID", join(bin("05 0080"), make([]byte, 128)), join(bin("05 0080"), make([]byte, 128))},
		{"no longer unique ID", join(bin("05 0081"), make([]byte, 129), authority), authority},
		{"up to one that is cut off", join(authority, bin("02 0002 31")), authority},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := from("192.0.2.1:56324", "192.0.2.11:443")
			got := AppendV2([]byte("before"), with(h, tt.tlvs))[len("before"):]
			if want := v2(0x21, 0x11, addrs4(), tt.want); !bytes.Equal(got, want) {
				t.Errorf("got %x, want %x", got, want)
			}
			expect(t, Parse, got, with(h, tt.want), len(got), nil)
		})
	}
	local := v2(0x20, 0x00, authority)
	if got := AppendV2(nil, with(Header{}, authority)); !bytes.Equal(got, local) {
		t.Errorf("got %x, want %x", got, local)
	}
}

func join(parts ...[]byte) TLVs { return bytes.Join(parts, nil) }

func TestTLVsAppendWithinTheLimits(t *testing.T) {
	one := TLVs(nil).Append(1, nil)
	for _, tt := range []struct {
		typ  Type
		size int
		want bool
	}{{UniqueID, 0, true}, {UniqueID, 128, true}, {UniqueID, 129, false}, {2, 129, true}, {2, 1 << 16, false}} {
		if got := len(one.Append(tt.typ, make([]byte, tt.size))); got != len(one) != tt.want {
			t.Errorf("type %d, %d bytes: got %d bytes, want more than %d: %v", tt.typ, tt.size, got, len(one), tt.want)
		}
	}
}

func TestTLVsAppendFrom(t *testing.T) {
	own := TLVs(nil).Append(UniqueID, []byte("own"))
	theirs := TLVs(nil).Append(1, []byte("h2")).Append(UniqueID, []byte("theirs")).Append(0xe0, nil)
	got := own.AppendFrom(theirs, func(t Type) bool { return t != UniqueID })
	want := TLVs(nil).Append(UniqueID, []byte("own")).Append(1, []byte("h2")).Append(0xe0, nil)
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if got := own.AppendFrom(theirs, func(Type) bool { return false }); !bytes.Equal(got, own) {
		t.Errorf("got %x, want %x", got, own)
	}
}

func TestTLVsAll(t *testing.T) {
	tlvs := append(TLVs(nil).Append(1, []byte("a")).Append(2, nil).Append(1, []byte("bc")), 1, 0, 1)
	for range 2 { // the TLVs can be read again
		var got TLVs
		for typ, value := range tlvs.All() {
			got = got.Append(typ, value)
		}
		if !bytes.Equal(got, tlvs[:len(tlvs)-3]) {
			t.Errorf("got %x, want all of %x that is whole", got, tlvs)
		}
	}
	for typ, value := range tlvs.All() {
		if typ != 1 || string(value) != "a" || cap(value) != 1 {
			t.Errorf("got %d, %q with capacity %d, want 1, a, 1", typ, value, cap(value))
		}
		break
	}
}

// What is written is parsed as the same, whatever the addresses and the TLVs are.
func TestRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		h := Header{Src: randomAddr(rnd), Dst: randomAddr(rnd), Datagram: rnd.IntN(2) == 0}
		for range rnd.IntN(4) {
			h.TLVs = h.TLVs.Append(Type(5+rnd.IntN(200)), bytes.Repeat([]byte{1}, rnd.IntN(120)))
		}
		line, binary := AppendV1(nil, h.Src, h.Dst), AppendV2(nil, h)
		if len(line) > 104 || len(binary) > 16+36+len(h.TLVs) || strings.Count(string(line), "\r") != 1 {
			t.Fatalf("%v: got %q, %x", h, line, binary)
		}
		expect(t, Parse, binary, h, len(binary), nil)
		expect(t, ParseDatagram, binary, h, len(binary), nil)
		expect(t, Parse, line, Header{Src: h.Src, Dst: h.Dst}, len(line), nil)
		if t.Failed() {
			t.Fatalf("of %v", h)
		}
	}
}

// randomAddr returns an IPv4 or IPv6 address, often with zeros in it.
func randomAddr(rnd *rand.Rand) netip.AddrPort {
	b := make([]byte, 4+12*rnd.IntN(2))
	for i := range b {
		b[i] = byte(rnd.UintN(256)) & byte(-rnd.IntN(2))
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr.Unmap(), uint16(rnd.UintN(1<<16)))
}
