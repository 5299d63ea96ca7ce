package clienthello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// helloOf returns what a client of package crypto/tls sends first.
func helloOf(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	defer client.Close()
	go func() { _ = tls.Client(client, c).Handshake() }() // fails, because nobody answers
	b := make([]byte, recordHeader)
	_ = server.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(server, b); err != nil {
		t.Fatal(err)
	}
	b = append(b, make([]byte, binary.BigEndian.Uint16(b[3:]))...)
	if _, err := io.ReadFull(server, b[recordHeader:]); err != nil {
		t.Fatal(err)
	}
	return b
}

// An ext is an extension of a ClientHello.
type ext struct {
	kind    uint16
	content []byte
}

// crafted returns a ClientHello in one record, with these extensions; without any if all is nil.
func crafted(all ...ext) []byte { return split(message(all...), maxRecord) }

// message returns a ClientHello without records.
func message(all ...ext) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0)                            // no session ID
	body = append(body, 0, 4, 0x1a, 0x1a, 0x13, 0x01) // GREASE, TLS_AES_128_GCM_SHA256
	body = append(body, 1, 0)
	if all != nil {
		var exts []byte
		for _, e := range all {
			exts = binary.BigEndian.AppendUint16(exts, e.kind)
			exts = append(vector16(exts, len(e.content)), e.content...)
		}
		body = append(vector16(body, len(exts)), exts...)
	}
	return append([]byte{clientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

func vector16(b []byte, n int) []byte { return binary.BigEndian.AppendUint16(b, uint16(n)) }

// split returns records with the message, of at most size bytes each.
func split(message []byte, size int) (b []byte) {
	for some := range slices.Chunk(message, size) {
		b = append(vector16(append(b, handshakeRecord, 3, 1), len(some)), some...)
	}
	return b
}

// sni returns a server_name extension with these names, all of the type host_name.
func sni(names ...string) ext {
	var list []byte
	for _, name := range names {
		list = append(vector16(append(list, 0), len(name)), name...)
	}
	return ext{0, append(vector16(nil, len(list)), list...)}
}

func padding(n int) ext { return ext{21, make([]byte, n)} }

// samples are first bytes of clients and what Scan says of them.
func samples(t testing.TB) []sample {
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." +
		strings.Repeat("d", 61)
	otherType := sni("x")
	otherType.content[2] = 7
	cut := sni("db.example.com")
	cut.content = cut.content[:len(cut.content)-1]
	oneMore := sni("db.example.com")
	oneMore.content = append(oneMore.content, 0)
	grease := ext{0x1a1a, nil}
	return []sample{
		{"Go, TLS 1.3", helloOf(t, &tls.Config{ServerName: "db.example.com"}), "db.example.com", nil},
		{"Go, TLS 1.2", helloOf(t, &tls.Config{ServerName: "db.example.com", MaxVersion: tls.VersionTLS12}),
			"db.example.com", nil},
		{"Go, no name", helloOf(t, &tls.Config{InsecureSkipVerify: true}), "", nil},
		{"Go, an address as the name", helloOf(t, &tls.Config{ServerName: "192.0.2.1"}), "", nil},
		{"Go, many protocols", helloOf(t, &tls.Config{ServerName: "db.example.com",
			NextProtos: strings.Fields(strings.Repeat("protocol ", 1000))}), "db.example.com", nil},
		{"no extensions", crafted(), "", nil},
		{"empty extensions", crafted([]ext{}...), "", nil},
		{"GREASE", crafted(grease, sni("a.example"), ext{0xfafa, []byte{0}}), "a.example", nil},
		{"Encrypted Client Hello", crafted(ext{0xfe0d, bytes.Repeat([]byte{7}, 200)}, sni("public.example")),
			"public.example", nil},
		{"16 KB", crafted(padding(16000), sni("a.example")), "a.example", nil},
		{"60 KB", split(message(padding(60000), sni("a.example")), maxRecord), "a.example", nil},
		{"records of 1 byte", split(message(padding(5000), sni("a.example")), 1), "a.example", nil},
		{"records of 3 bytes", split(message(sni("a.example")), 3), "a.example", nil},
		{"upper case", crafted(sni("DB.Example.COM")), "DB.Example.COM", nil},
		{"dot at the end", crafted(sni("a.example.")), "a.example", nil},
		{"underscore", crafted(sni("_a.example")), "_a.example", nil},
		{"longest name", crafted(sni(long)), long, nil},
		{"name of another type", crafted(otherType), "", nil},
		{"bytes behind it", append(crafted(sni("a.example")), "early data"...), "a.example", nil},
		{"another message behind it", split(append(message(sni("a.example")), 1, 0, 0, 0), maxRecord), "a.example",
			nil},

		{"too long", split(message(padding(65000), padding(600)), maxRecord), "", ErrTooLong},
		{"too many records", split(message(padding(12000)), 1), "", ErrTooLong},
		{"length of a message of 16 MB", []byte{22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff}, "", ErrTooLong},
		{"name too long", crafted(sni(long + "d")), "", ErrInvalid},
		{"two names", crafted(sni("a.example", "b.example")), "", ErrInvalid},
		{"two extensions", crafted(sni("a.example"), sni("a.example")), "", ErrInvalid},
		{"empty name", crafted(sni("")), "", ErrInvalid},
		{"no names", crafted(sni()), "", ErrInvalid},
		{"NUL", crafted(sni("a\x00.example")), "", ErrInvalid},
		{"line break", crafted(sni("a\n.example")), "", ErrInvalid},
		{"not ASCII", crafted(sni("bücher.example")), "", ErrInvalid},
		{"name cut off", crafted(cut), "", ErrInvalid},
		{"byte behind the name", crafted(oneMore), "", ErrInvalid},
		{"alert within", append(split(message(sni("a"))[:9], 9), 21, 3, 1, 0, 2, 2, 0), "", ErrInvalid},
		{"empty record within", append(split(message(sni("a"))[:9], 9), 22, 3, 1, 0, 0), "", ErrInvalid},
		{"long record within", append(split(message(sni("a"))[:9], 9), 22, 3, 1, 0x40, 1), "", ErrInvalid},

		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", ErrNotTLS},
		{"SSL 2.0", []byte{0x80, 46, 1, 3, 1, 0, 21, 0, 0, 0, 16}, "", ErrNotTLS},
		{"alert", []byte{21, 3, 1, 0, 2, 2, 0}, "", ErrNotTLS},
		{"ServerHello", []byte{22, 3, 3, 0, 4, 2, 0, 0, 0}, "", ErrNotTLS},
		{"empty record", []byte{22, 3, 1, 0, 0}, "", ErrNotTLS},
		{"record too long", []byte{22, 3, 1, 0x40, 1, 1}, "", ErrNotTLS},
		{"another protocol that begins alike", []byte{22, 4}, "", ErrNotTLS},
	}
}

type sample struct {
	what string
	b    []byte
	name string
	err  error
}

func TestScan(t *testing.T) {
	for _, tt := range samples(t) {
		t.Run(tt.what, func(t *testing.T) {
			var s Scanner
			check(t, tt, &s, tt.b)
		})
	}
}

// The same comes out if the bytes come one by one, or in any two parts.
func TestScanInParts(t *testing.T) {
	for _, tt := range samples(t) {
		t.Run(tt.what, func(t *testing.T) {
			var s Scanner
			for n := range len(tt.b) + 1 {
				name, done, err := s.Scan(tt.b[:n])
				if done || err != nil {
					checkResult(t, tt, name, done, err)
					break
				}
			}
			for n := 1; n < len(tt.b); n += 1 + n/7 {
				var s Scanner
				if _, done, err := s.Scan(tt.b[:n]); !done && err == nil {
					check(t, tt, &s, tt.b)
				}
			}
		})
	}
}

func check(t *testing.T, want sample, s *Scanner, b []byte) {
	t.Helper()
	name, done, err := s.Scan(b)
	checkResult(t, want, name, done, err)
}

func checkResult(t *testing.T, want sample, name []byte, done bool, err error) {
	t.Helper()
	if string(name) != want.name || done != (want.err == nil) || !errors.Is(err, want.err) {
		t.Errorf("got %q, %v, %v, want %q, %v", name, done, err, want.name, want.err)
	}
}

// Every beginning of a ClientHello needs more bytes, and none is an error.
func TestBeginningsNeedMore(t *testing.T) {
	whole := split(message(padding(300), sni("a.example")), 100)
	for n := range len(whole) {
		var s Scanner
		if name, done, err := s.Scan(whole[:n]); done || err != nil || name != nil {
			t.Fatalf("%d bytes: got %q, %v, %v", n, name, done, err)
		}
	}
}

func TestScanAllocatesNothingForOneRecord(t *testing.T) {
	b := helloOf(t, &tls.Config{ServerName: "db.example.com"})
	if n := testing.AllocsPerRun(100, func() {
		var s Scanner
		if _, done, _ := s.Scan(b); !done {
			t.Fatal("not done")
		}
	}); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func BenchmarkScan(b *testing.B) {
	hello := helloOf(b, &tls.Config{ServerName: "db.example.com"})
	b.ReportAllocs()
	for b.Loop() {
		var s Scanner
		_, _, _ = s.Scan(hello)
	}
}
