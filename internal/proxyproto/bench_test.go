package proxyproto

import "testing"

// A parsed is a header that the benchmark parses.
type parsed struct {
	name string
	in   []byte
}

func someParsed() []parsed {
	return []parsed{
		{"v1 TCP4", []byte("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n")},
		{"v1 TCP6", []byte("PROXY TCP6 2001:db8:1:2:3:4:5:6 2001:db8::11 56324 443\r\n")},
		{"v1 UNKNOWN", []byte("PROXY UNKNOWN\r\n")},
		{"v2 LOCAL", v2(0x20, 0x00)},
		{"v2 IPv4", v2(0x21, 0x11, addrs4())},
		{"v2 IPv6", v2(0x21, 0x21, addrs6())},
		{"v2 TLV", v2(0x21, 0x11, addrs4(), longTLV(35))},
		{"v2 longest", v2(0x21, 0x11, addrs4(), longTLV(MaxHeader-16-12))},
		{"v2 half", v2(0x21, 0x11, addrs4())[:20]},
		{"v2 refused", v2(0x21, 0x11, addrs4(), longTLV(0xffff-12))},
	}
}

func TestNoAllocations(t *testing.T) {
	zero := func(name string, f func()) {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
	for _, p := range someParsed() {
		zero(p.name, func() {
			h, _, _ := Parse(p.in)
			for range h.TLVs.All() {
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	checked := v2(0x21, 0x11, addrs4(), bin("03 0004 14e3b82f"), bin("02 0005 3132333435"))
	for _, p := range append(someParsed(), parsed{"v2 checksum", checked}) {
		b.Run(p.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Parse(p.in)
			}
		})
	}
}
