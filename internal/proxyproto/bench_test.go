package proxyproto

import (
	"net/netip"
	"testing"
)

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

// An appended is a header that the benchmarks write.
type appended struct {
	name string
	h    Header
}

func someAppended() []appended {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:56324"), netip.MustParseAddrPort("[2001:db8::11]:443")
	return []appended{
		{"none", Header{}},
		{"IPv4", Header{Src: v4, Dst: v4}},
		{"IPv6", Header{Src: v6, Dst: v6}},
		{"mixed", Header{Src: v4, Dst: v6}},
		{"TLV", Header{Src: v4, Dst: v4, TLVs: TLVs(nil).Append(UniqueID, make([]byte, 32))}},
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
	buf, id := make([]byte, 2*MaxHeader), []byte("some id")
	for _, a := range someAppended() {
		zero("AppendV1 "+a.name, func() { AppendV1(buf[:0], a.h.Src, a.h.Dst) })
		zero("AppendV2 "+a.name, func() {
			h := a.h
			h.TLVs = TLVs(buf[:0]).Append(UniqueID, id).AppendFrom(h.TLVs, func(t Type) bool { return t != UniqueID })
			AppendV2(buf[MaxHeader:MaxHeader], h)
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

func BenchmarkAppendV1(b *testing.B) {
	benchmarkAppend(b, func(buf []byte, h Header) { AppendV1(buf, h.Src, h.Dst) })
}

func BenchmarkAppendV2(b *testing.B) {
	benchmarkAppend(b, func(buf []byte, h Header) { AppendV2(buf, h) })
}

func benchmarkAppend(b *testing.B, write func([]byte, Header)) {
	buf := make([]byte, 0, MaxHeader)
	for _, a := range someAppended() {
		b.Run(a.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				write(buf, a.h)
			}
		})
	}
}
