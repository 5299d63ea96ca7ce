package proxyproto

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
)

// bin returns the bytes of hexadecimal digits, which may be spaced.
func bin(digits string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// v2 returns a header of version 2 with this command, family and rest.
func v2(command, family byte, rest ...[]byte) []byte {
	all := bytes.Join(rest, nil)
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family, byte(len(all)>>8), byte(len(all)))
	return append(b, all...)
}

// addrs4 is the address block of 192.0.2.1:56324 and 192.0.2.11:443.
func addrs4() []byte { return bin("c0000201 c000020b dc04 01bb") }

// addrs6 is the address block of [2001:db8::1]:56324 and [2001:db8::11]:443.
func addrs6() []byte {
	return bin("20010db8000000000000000000000001 20010db8000000000000000000000011 dc04 01bb")
}

// addrsUnix is an address block of AF_UNIX.
func addrsUnix() []byte {
	b := make([]byte, 216)
	copy(b, "/run/client.sock")
	copy(b[108:], "/run/server.sock")
	return b
}

// from returns a header with these addresses.
func from(src, dst string) Header {
	return Header{Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

// datagram returns h as that of a datagram.
func datagram(h Header) Header {
	h.Datagram = true
	return h
}

// with returns h with these TLVs.
func with(h Header, tlvs []byte) Header {
	h.TLVs = tlvs
	return h
}

// A sample is a valid header.
type sample struct {
	name string
	in   []byte
	want Header
}

// haproxyTLVs are a checksum and a unique ID of HAProxy.
const haproxyTLVs = "\x03\x00\x04\x9e\x15\x94<\x05\x00$070d4903-1631-496f-b071-5591f975cda6"

// samples has headers with every part that the protocol knows.
func samples() []sample { return append(samplesV1(), samplesV2()...) }

func samplesV1() []sample {
	full := "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	longest := from("["+full+"]:65535", "["+full+"]:65535")
	return []sample{
		// The example and the longest lines of section 2.1.
		{"example of 2.1", []byte("PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
			from("192.168.0.1:56324", "192.168.0.11:443")},
		{"longest TCP4", []byte("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
			from("255.255.255.255:65535", "255.255.255.255:65535")},
		{"longest TCP6", []byte("PROXY TCP6 " + full + " " + full + " 65535 65535\r\n"), longest},
		{"shortest UNKNOWN", []byte("PROXY UNKNOWN\r\n"), Header{}},
		{"longest UNKNOWN", []byte("PROXY UNKNOWN " + full + " " + full + " 65535 65535\r\n"), Header{}},
		{"UNKNOWN with anything", []byte("PROXY UNKNOWN  \x00\xff TCP4 \r\n"), Header{}},
		{"ports 0", []byte("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), from("0.0.0.0:0", "0.0.0.0:0")},
		{"short IPv6", []byte("PROXY TCP6 :: 2001:DB8::a 1 2\r\n"), from("[::]:1", "[2001:db8::a]:2")},
		{"mapped IPv4 with dots", []byte("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n"),
			from("192.0.2.1:1", "[2001:db8::1]:2")},
		{"mapped IPv4", []byte("PROXY TCP6 ::ffff:c000:201 ::ffff:0:0 1 2\r\n"), from("192.0.2.1:1", "0.0.0.0:2")},
	}
}

func samplesV2() []sample {
	web4, web6 := from("192.0.2.1:56324", "192.0.2.11:443"), from("[2001:db8::1]:56324", "[2001:db8::11]:443")
	authority, id := bin("02 0005 3132333435"), append(bin("05 0080"), bytes.Repeat([]byte("i"), 128)...)
	return []sample{
		// The combinations of section 2.2.
		{"LOCAL", v2(0x20, 0x00), Header{}},
		{"LOCAL with addresses", v2(0x20, 0x11, addrs4()), Header{}},
		{"LOCAL with too few addresses", v2(0x20, 0x21, addrs4()), Header{}},
		{"LOCAL with an unknown family", v2(0x20, 0xff, addrs4()), Header{}},
		{"LOCAL with addresses and something", v2(0x20, 0x11, addrs4(), bin("02 00")), Header{}},
		{"LOCAL with a TLV", v2(0x20, 0x00, authority), with(Header{}, authority)},
		{"LOCAL with addresses and a TLV", v2(0x20, 0x22, addrs6(), authority), with(Header{}, authority)},
		{"PROXY UNSPEC", v2(0x21, 0x00), Header{}},
		{"PROXY UNSPEC with something", v2(0x21, 0x00, addrs4()), Header{}},
		{"PROXY UNSPEC with a TLV", v2(0x21, 0x00, id), with(Header{}, id)},
		{"family without transport", v2(0x21, 0x10, addrs4()), Header{}},
		{"transport without family", v2(0x21, 0x02, addrs4()), Header{}},
		{"TCP over IPv4", v2(0x21, 0x11, addrs4()), web4},
		{"UDP over IPv4", v2(0x21, 0x12, addrs4()), datagram(web4)},
		{"TCP over IPv6", v2(0x21, 0x21, addrs6()), web6},
		{"UDP over IPv6", v2(0x21, 0x22, addrs6()), datagram(web6)},
		{"mapped IPv4 in IPv6", v2(0x21, 0x21, bin("0000000000000000 0000ffff c0000201"), addrs6()[16:]),
			from("192.0.2.1:56324", "[2001:db8::11]:443")},
		{"UNIX stream", v2(0x21, 0x31, addrsUnix()), Header{}},
		{"UNIX datagram with a TLV", v2(0x21, 0x32, addrsUnix(), authority), with(Header{}, authority)},
		{"longest unique ID", v2(0x21, 0x11, addrs4(), id), with(web4, id)},
		{"empty TLV, padding", v2(0x21, 0x21, addrs6(), bin("01 0000 04 0002 ffff"), authority),
			with(web6, append(bin("01 0000 04 0002 ffff"), authority...))},
		{"longest", v2(0x21, 0x11, addrs4(), longTLV(MaxHeader-16-12)), with(web4, longTLV(MaxHeader-16-12))},

		// The valid header in HAProxy's reg-tests/connection/proxy_protocol_tlv_validation.vtc.
		{"HAProxy's test", bin(`0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a 21 11 00 14
			7F 00 00 01 7F 00 00 01 00 2A 05 39 02 00 05 31 32 33 34 35`),
			with(from("127.0.0.1:42", "127.0.0.1:1337"), authority)},

		// What HAProxy 2.6.12 sends with crc32c, for a TCP client with a unique ID, and for a client on a Unix socket.
		{"HAProxy, TCP", v2(0x21, 0x11, bin("7f000001 7f000001 e2aa 4a9f"), []byte(haproxyTLVs)),
			with(from("127.0.0.1:58026", "127.0.0.1:19103"), []byte(haproxyTLVs))},
		{"HAProxy, Unix socket", v2(0x20, 0x00, bin("03 0004 a9b87e8f")), with(Header{}, bin("03 0004 a9b87e8f"))},

		// A checksum that another program has calculated, bit by bit as in RFC 4960, appendix B.
		{"checksum", v2(0x21, 0x11, addrs4(), bin("03 0004 14e3b82f"), authority),
			with(web4, append(bin("03 0004 14e3b82f"), authority...))},
	}
}

// longTLV returns a TLV of n bytes.
func longTLV(n int) []byte {
	return append([]byte{0xe0, byte((n - 3) >> 8), byte(n - 3)}, make([]byte, n-3)...)
}

// A refusal is an invalid header, which must be refused as soon as its first at bytes are there.
type refusal struct {
	name string
	in   []byte
	at   int
	want error
}

func refusals() []refusal { return append(refusalsV1(), refusalsV2()...) }

func refusalsV1() []refusal {
	v1 := func(name, line string, want error) refusal { return refusal{name, []byte(line), len(line), want} }
	v1At := func(name, line string, at int, want error) refusal { return refusal{name, []byte(line), at, want} }
	const v6 = "PROXY TCP6 2001:db8::1 "
	return []refusal{
		v1At("HTTP", "GET / HTTP/1.1\r\n", 1, errSignature),
		v1At("TLS", "\x16\x03\x01", 1, errSignature),
		v1At("POST", "POST /", 2, errSignature),
		v1At("lower case", "PROXy TCP4", 5, errSignature),
		v1At("no space", "PROXY\tTCP4", 6, errSignature),
		v1At("two spaces first", "PROXY  TCP4", 7, errProtocol),
		v1At("line end first", "PROXY \r\n", 7, errProtocol),
		v1At("UDP4", "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", 8, errProtocol),
		v1At("TCP5", "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", 10, errProtocol),
		v1At("TCP4 without more", "PROXY TCP4\r\n", 11, errProtocol),
		v1At("lower case protocol", "PROXY unknown\r\n", 7, errProtocol),
		v1At("longer than UNKNOWN", "PROXY UNKNOWNS\r\n", 14, errProtocol),
		v1At("LF without CR", "PROXY UNKNOWN\n", 14, errProtocol),
		v1("LF without CR at the end", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", errLineEnd),
		v1("CR without LF", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r ", errLineEnd),
		v1("CR twice", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r", errLineEnd),
		v1At("CR in UNKNOWN", "PROXY UNKNOWN a\rb\r\n", 17, errLineEnd),
		v1At("LF in UNKNOWN", "PROXY UNKNOWN a\nb\r\n", 16, errLineEnd),
		v1At("108 bytes", "PROXY UNKNOWN "+strings.Repeat("x", 92)+"\r\n", 107, errLineTooLong),
		v1At("endless", "PROXY TCP4 "+strings.Repeat("1", 1000), 107, errLineTooLong),

		v1("no addresses", "PROXY TCP4 \r\n", errAddress),
		v1("one address", "PROXY TCP4 192.0.2.1\r\n", errAddress),
		v1("two spaces", "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", errAddress),
		v1("three octets", "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n", errAddress),
		v1("large octet", "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n", errAddress),
		v1("leading zero in an octet", "PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n", errAddress),
		v1("name", "PROXY TCP4 localhost 192.0.2.2 1 2\r\n", errAddress),
		v1("IPv6 in TCP4", "PROXY TCP4 192.0.2.1 2001:db8::1 1 2\r\n", errAddress),
		v1("mapped IPv4 in TCP4", "PROXY TCP4 192.0.2.1 ::ffff:192.0.2.2 1 2\r\n", errAddress),
		v1("IPv4 in TCP6", v6+"192.0.2.1 1 2\r\n", errAddress),
		v1("zone", v6+"fe80::1%eth0 1 2\r\n", errAddress),
		v1("brackets", v6+"[2001:db8::2] 1 2\r\n", errAddress),
		v1("two gaps", v6+"2001::db8::2 1 2\r\n", errAddress),
		v1("nine groups", v6+"1:2:3:4:5:6:7:8:9 1 2\r\n", errAddress),
		v1("seven groups", v6+"1:2:3:4:5:6:7 1 2\r\n", errAddress),
		v1("five digits", v6+"12345::1 1 2\r\n", errAddress),
		v1("no ports", "PROXY TCP4 192.0.2.1 192.0.2.2\r\n", errPort),
		v1("one port", "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", errPort),
		v1("three ports", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", errPort),
		v1("space at the end", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", errPort),
		v1("leading zero in a port", "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", errPort),
		v1("two zeros", "PROXY TCP4 192.0.2.1 192.0.2.2 1 00\r\n", errPort),
		v1("plus sign", "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", errPort),
		v1("minus sign", "PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n", errPort),
		v1("underscore", "PROXY TCP4 192.0.2.1 192.0.2.2 1 1_0\r\n", errPort),
		v1("hexadecimal port", "PROXY TCP4 192.0.2.1 192.0.2.2 1 0x1\r\n", errPort),
		v1("large port", "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", errPort),
	}
}

func refusalsV2() []refusal {
	whole := func(name string, in []byte, want error) refusal { return refusal{name, in, len(in), want} }
	return []refusal{
		{"broken signature", []byte("\r\n\r\n\x00\r\nQUIT\r"), 12, errSignature},
		{"version 1", v2(0x11, 0x11, addrs4()), 13, errVersion},
		{"version 3", v2(0x31, 0x11, addrs4()), 13, errVersion},
		{"command 2", v2(0x22, 0x11, addrs4()), 13, errCommand},
		{"command 15", v2(0x2f, 0x11, addrs4()), 13, errCommand},
		{"family 4", v2(0x21, 0x41, addrs6()), 14, errFamily},
		{"family 4 without transport", v2(0x21, 0x40, addrs6()), 14, errFamily},
		{"transport 3", v2(0x21, 0x13, addrs4()), 14, errFamily},
		{"family 0, transport 3", v2(0x21, 0x03, addrs4()), 14, errFamily},
		{"short IPv4", v2(0x21, 0x11, addrs4()[:11]), 16, errTooShort},
		{"short IPv6", v2(0x21, 0x22, addrs6()[:35]), 16, errTooShort},
		{"short UNIX", v2(0x21, 0x31, addrsUnix()[:215]), 16, errTooShort},
		{"no addresses in version 2", v2(0x21, 0x11), 16, errTooShort},
		{"one byte too long", v2(0x21, 0x11, addrs4(), longTLV(MaxHeader-16-12+1)), 16, errTooLong},
		{"LOCAL too long", v2(0x20, 0x00, longTLV(MaxHeader-16+1)), 16, errTooLong},
		{"TLVs of 64 KB", v2(0x21, 0x11, addrs4(), longTLV(0xffff-12)), 16, errTooLong},

		// Invalid headers in HAProxy's reg-tests/connection/proxy_protocol_tlv_validation.vtc.
		whole("TLV with a length beyond the header", v2(0x21, 0x11, addrs4(), bin("02 000a 3132333435")), errTLV),
		whole("TLV with a length that is too small", v2(0x21, 0x11, addrs4(), bin("02 0004 3132333435")), errTLV),

		whole("two bytes of a TLV", v2(0x21, 0x11, addrs4(), bin("02 00")), errTLV),
		whole("two bytes of a second TLV", v2(0x21, 0x31, addrsUnix(), bin("02 0001 31 02 00")), errTLV),
		whole("long unique ID", v2(0x21, 0x11, addrs4(), bin("05 0081"), make([]byte, 129)), errUniqueID),
		whole("wrong checksum", v2(0x21, 0x11, addrs4(), bin("03 0004 00000001")), errChecksum),
		whole("wrong checksum of LOCAL", v2(0x20, 0x00, bin("03 0004 00000001")), errChecksum),
		whole("wrong checksum of UNSPEC", v2(0x21, 0x00, bin("03 0004 00000001")), errChecksum),
		whole("short checksum", v2(0x21, 0x11, addrs4(), bin("03 0003 000000")), errChecksums),
		whole("two checksums", v2(0x21, 0x11, addrs4(), bin("03 0004 00000000 03 0004 00000000")), errChecksums),
	}
}
