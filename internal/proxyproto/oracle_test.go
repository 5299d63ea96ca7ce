package proxyproto

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	oracle "github.com/pires/go-proxyproto"
)

// A difference is a kind of header that Parse and the oracle judge differently.
type difference struct {
	section string
	kind    string
	reason  string
	example []byte
	applies func(facts) bool
}

// differences lists all of them, except those of TestDifferencesInUse. Addresses are compared after IPv4 addresses in
// the form of IPv6 have been replaced, because the oracle leaves that to its caller.
func differences() []difference {
	return []difference{
		{"2.1", "a lone CR after UNKNOWN",
			"A receiver must not tolerate a lone CR. The oracle ignores it there, with all that comes before the LF.",
			[]byte("PROXY UNKNOWN a\rb\r\n"),
			func(f facts) bool { return f.loneCR }},
		{"2.2", "PROXY, and the family or the transport protocol is UNSPEC",
			"A receiver may accept it and ignore the addresses, which Parse does. The oracle refuses it.",
			v2(0x21, 0x10, addrs4()),
			func(f facts) bool { return f.command == 0x21 && f.unspec() }},
		{"2.2", "LOCAL with an unknown family",
			"The family of LOCAL is ignored, also by HAProxy. The oracle refuses values that are unknown to it.",
			v2(0x20, 0xff),
			func(f facts) bool { return f.command == 0x20 && f.family != 0 && blockSizes()[f.family] == 0 }},
		{"2.2", "PROXY with AF_UNIX",
			"A receiver may treat it as UNSPEC, which Parse does. The oracle returns the paths.",
			v2(0x21, 0x31, addrsUnix()),
			func(f facts) bool { return f.command == 0x21 && blockSizes()[f.family] == 216 }},
		{"2.2", "PROXY with a TLV that is cut off",
			"The TLVs are a part of the header. HAProxy refuses it, too. The oracle looks at TLVs only on demand.",
			v2(0x21, 0x11, addrs4(), bin("02 00")),
			func(f facts) bool { return f.strict() && f.cut }},
		{"2.2", "LOCAL with something that is no valid TLV",
			"A receiver must accept LOCAL and discard the rest, so Parse returns no TLVs. The oracle returns them.",
			v2(0x20, 0x00, bin("03 0000")),
			func(f facts) bool { return f.command == 0x20 && f.invalid() }},
		{"2.2", "a header of 4,097 to 4,112 bytes",
			"A receiver sets its own limit. MaxHeader includes the first 16 bytes. The limit of the oracle does not.",
			v2(0x21, 0x11, addrs4(), longTLV(4096-12)),
			func(f facts) bool { return f.size > MaxHeader && f.size <= 16+int(oracle.MaxV2HeaderSize) }},
		{"2.2.3", "a wrong checksum",
			"A receiver that knows checksums must refuse it. The oracle does not know them.",
			v2(0x21, 0x11, addrs4(), bin("03 0004 00000000")),
			func(f facts) bool { return f.wrongSum && !f.invalid() }},
		{"2.2.3", "PROXY with a checksum that has not four bytes, or with two checksums",
			"There is one checksum of 32 bits. HAProxy refuses other sizes, too. The oracle does not know checksums.",
			v2(0x21, 0x11, addrs4(), bin("03 0000")),
			func(f facts) bool { return f.strict() && f.oddSum }},
		{"2.2.5", "PROXY with a unique ID of more than 128 bytes",
			"128 bytes is the limit, also of HAProxy. The oracle has none.",
			v2(0x21, 0x11, addrs4(), bin("05 0081"), make([]byte, 129)),
			func(f facts) bool { return f.strict() && f.longID }},
	}
}

// The facts of a header are what makes a difference.
type facts struct {
	loneCR          bool
	command, family byte
	size            int

	cut, oddSum, wrongSum, longID bool // of the TLVs
}

// strict reports whether the header must be valid as a whole, because its addresses count.
func (f facts) strict() bool { return f.command == 0x21 && blockSizes()[f.family] != 0 }

// invalid reports whether the TLVs are not valid, whatever the checksum is.
func (f facts) invalid() bool { return f.cut || f.oddSum || f.longID }

// unspec reports whether the family or the transport protocol is UNSPEC, and the other one is known.
func (f facts) unspec() bool {
	return slices.Contains([]byte{0x00, 0x01, 0x02, 0x10, 0x20, 0x30}, f.family)
}

// blockSizes returns the sizes of the addresses that section 2.2 lists.
func blockSizes() map[byte]int {
	return map[byte]int{0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
}

// factsOf returns the facts of the header at the beginning of b, as far as b has it.
func factsOf(b []byte) (f facts) {
	if rest, ok := bytes.CutPrefix(b, []byte("PROXY UNKNOWN ")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		f.loneCR = bytes.Contains(bytes.TrimSuffix(line, []byte("\r")), []byte("\r"))
	}
	if !bytes.HasPrefix(b, oracle.SIGV2) || len(b) < 16 {
		return f
	}
	f.command, f.family, f.size = b[12], b[13], 16+int(binary.BigEndian.Uint16(b[14:]))
	if len(b) < f.size {
		return f
	}
	sums := 0
	for at := min(16+blockSizes()[f.family], f.size); at < f.size; {
		if f.size-at < 3 || f.size-at-3 < int(binary.BigEndian.Uint16(b[at+1:])) {
			f.cut = true
			return f
		}
		value := b[at+3:][:binary.BigEndian.Uint16(b[at+1:])]
		switch b[at] {
		case 3:
			sums++
			f.oddSum = f.oddSum || sums > 1 || len(value) != 4
			f.wrongSum = f.wrongSum || len(value) == 4 && wrongSum(b[:f.size], at+3)
		case 5:
			f.longID = f.longID || len(value) > 128
		}
		at += 3 + len(value)
	}
	return f
}

// wrongSum reports whether the checksum at b[at:] is wrong.
func wrongSum(b []byte, at int) bool {
	zeroed := bytes.Clone(b)
	copy(zeroed[at:], make([]byte, 4))
	return crc32.Checksum(zeroed, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[at:])
}

// refused is the verdict on what is not a valid header, or not all of one.
const refused = "refused"

// ownVerdict describes what Parse says about b, and oracleVerdict what the oracle says.
func ownVerdict(b []byte) string {
	h, n, err := Parse(b)
	if n == 0 || err != nil {
		return refused
	}
	v := fmt.Sprint(n, " bytes")
	if h.Src.IsValid() {
		v += fmt.Sprintf(", %v to %v, datagram %v", h.Src, h.Dst, h.Datagram)
	}
	for typ, value := range h.TLVs.All() {
		v += describe(byte(typ), value)
	}
	return v
}

func oracleVerdict(b []byte) string {
	h, payload, err := oracle.ParseUDPDatagram(b) // which does not mind version 1
	if err != nil {
		return refused
	}
	v := fmt.Sprint(len(b)-len(payload), " bytes")
	if h.Command.IsProxy() {
		v += fmt.Sprintf(", %v to %v, datagram %v", addrOf(h.SourceAddr), addrOf(h.DestinationAddr),
			h.TransportProtocol.IsDatagram())
	}
	tlvs, err := h.TLVs()
	if err != nil {
		v += ", " + err.Error()
	}
	for _, tlv := range tlvs {
		v += describe(byte(tlv.Type), tlv.Value)
	}
	return v
}

// describe describes a TLV. The oracle does not return the value of padding.
func describe(typ byte, value []byte) string {
	if typ == byte(noop) {
		value = nil
	}
	return fmt.Sprintf(", %d: %x", typ, value)
}

// addrOf returns the address of the oracle in the form that Parse uses.
func addrOf(a net.Addr) any {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		return netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	return a
}

// Each difference is one, and no other explains it.
func TestDifferencesFromTheOracle(t *testing.T) {
	for _, d := range differences() {
		own, other := ownVerdict(d.example), oracleVerdict(d.example)
		if own == other {
			t.Errorf("%s, %s: both say %q", d.section, d.kind, own)
		}
		for _, e := range differences() {
			if e.applies(factsOf(d.example)) != (e.kind == d.kind) {
				t.Errorf("%s, %s: the other applies, or the own does not: %s", d.section, d.kind, e.kind)
			}
		}
	}
}

// The other differences are in how a header comes, and not in what it is.
func TestDifferencesInUse(t *testing.T) {
	const line = "PROXY TCP4 192.0.2.1 192.0.2.11 56324 443\r\n"
	// Section 2.1 has no UDP, so ParseDatagram refuses version 1.
	if _, _, err := oracle.ParseUDPDatagram([]byte(line)); err != nil {
		t.Errorf("the oracle refuses version 1 in a datagram, too: %v", err)
	}
	// Section 2 recommends that a receiver accepts a header that comes in parts.
	in := bufio.NewReader(iotest.OneByteReader(strings.NewReader(line)))
	if _, err := oracle.Read(in); err == nil {
		t.Error("the oracle accepts version 1 in parts, too")
	}
}

// headersForTheOracle returns all headers of the other tests.
func headersForTheOracle() (all [][]byte) {
	for _, s := range samples() {
		all = append(all, s.in)
	}
	for _, r := range refusals() {
		all = append(all, r.in)
	}
	for _, d := range differences() {
		all = append(all, d.example)
	}
	return all
}

func TestOracle(t *testing.T) {
	for _, b := range headersForTheOracle() {
		compare(t, b)
		compare(t, append(bytes.Clone(b), "data"...))
	}
}

// compare compares Parse with the oracle.
func compare(t *testing.T, b []byte) {
	t.Helper()
	own, other := ownVerdict(b), oracleVerdict(b)
	if own == other {
		return
	}
	f := factsOf(b)
	if !slices.ContainsFunc(differences(), func(d difference) bool { return d.applies(f) }) {
		t.Errorf("%.600x: got %q, want %q", b, own, other)
	}
}

// FuzzParse compares Parse with the oracle, and checks that Parse keeps its promises.
func FuzzParse(f *testing.F) {
	for _, b := range headersForTheOracle() {
		if len(b) < 500 { // longer ones would make the fuzzer slow
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		compare(t, b)
		checkPromises(t, b)
	})
}

// checkPromises checks what Parse promises for every b.
func checkPromises(t *testing.T, b []byte) {
	t.Helper()
	h, n, err := Parse(b)
	switch {
	case err != nil && (n != 0 || !same(h, Header{})):
		t.Fatalf("got %v, %d, %v", h, n, err)
	case n < 0 || n > len(b) || n > MaxHeader:
		t.Fatalf("got a header of %d bytes from %d", n, len(b))
	case n == 0 && err == nil && len(b) >= MaxHeader:
		t.Fatalf("%d bytes are not enough", len(b))
	case h.Src.IsValid() != h.Dst.IsValid() || h.Src.Addr().Is4In6() || h.Src.Addr().Zone() != "":
		t.Fatalf("got the addresses %v and %v", h.Src, h.Dst)
	}
	var before error
	for i := range b {
		part, size, now := Parse(b[:i:i])
		if i < n && (size != 0 || now != nil || !same(part, Header{})) {
			t.Fatalf("%d of %d bytes: got %v, %d, %v", i, n, part, size, now)
		}
		if before != nil && now != before || i >= n && size != n {
			t.Fatalf("%d bytes: got %d, %v, and before %v", i, size, now, before)
		}
		before = now
	}
	if before != nil && err != before {
		t.Fatalf("got %v, and before %v", err, before)
	}
	if n == 0 {
		return
	}
	expect(t, Parse, b[:n:n], h, n, nil)
	again := AppendV2(nil, h)
	if len(again) > MaxHeader {
		t.Fatalf("got %d bytes", len(again))
	}
	parsed, _, err := Parse(again)
	if parsed.TLVs, h.TLVs = nil, nil; err != nil || !same(parsed, h) {
		t.Errorf("%v is written as %v, %v", h, parsed, err)
	}
}

// FuzzAppend checks that the oracle reads what is written.
func FuzzAppend(f *testing.F) {
	for _, w := range someWritten() {
		f.Add(w.h.Src.Addr().AsSlice(), w.h.Dst.Addr().AsSlice(), w.h.Src.Port(), w.h.Dst.Port(), false, w.v2)
		f.Add(w.h.Src.Addr().AsSlice(), w.h.Dst.Addr().AsSlice(), w.h.Src.Port(), w.h.Dst.Port(), true, longTLV(300))
	}
	f.Fuzz(func(t *testing.T, src, dst []byte, srcPort, dstPort uint16, datagram bool, tlvs []byte) {
		from, _ := netip.AddrFromSlice(src)
		to, _ := netip.AddrFromSlice(dst)
		h := Header{Src: netip.AddrPortFrom(from, srcPort), Dst: netip.AddrPortFrom(to, dstPort), Datagram: datagram,
			TLVs: tlvs}
		addrs := ""
		if from.IsValid() && to.IsValid() {
			addrs = fmt.Sprintf(", %v to %v, datagram ", netip.AddrPortFrom(from.Unmap(), srcPort),
				netip.AddrPortFrom(to.Unmap(), dstPort))
		}

		binary := AppendV2(nil, h)
		want := fmt.Sprint(len(binary), " bytes")
		if addrs != "" {
			want += fmt.Sprint(addrs, datagram)
		}
		parsed, _, _ := Parse(binary)
		for typ, value := range parsed.TLVs.All() {
			want += describe(byte(typ), value)
		}
		if got := oracleVerdict(binary); got != want || ownVerdict(binary) != want || len(binary) > MaxHeader {
			t.Errorf("%x: got %q, want %q", binary, got, want)
		}

		line := AppendV1(nil, h.Src, h.Dst)
		want = fmt.Sprint(len(line), " bytes")
		if addrs != "" {
			want += addrs + "false"
		}
		if got := oracleVerdict(line); got != want || ownVerdict(line) != want || len(line) > 104 {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	})
}
