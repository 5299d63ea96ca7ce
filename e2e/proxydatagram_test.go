//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// A headerDNS is a name server that expects a PROXY header in front of each query, as dnsdist and the PowerDNS Recursor
// do. It answers a query for TXT with the client, the address that the client has used and the session's ID. It does
// not answer a query without a header.
type headerDNS struct {
	*instance
	mu     sync.Mutex
	checks int // number of queries whose header said LOCAL
	bare   int // number of queries without a header
}

func startHeaderDNS(t *testing.T) *headerDNS {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	s := &headerDNS{instance: &instance{name: "dns", addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}}
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an earlier answer was refused
			}
			if answer := s.answer(buf[:n]); answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); running.Wait() })
	return s
}

func (s *headerDNS) answer(b []byte) []byte {
	h, n, err := proxyproto.ParseDatagram(b)
	s.mu.Lock()
	switch {
	case err != nil:
		s.bare++
	case !h.Src.IsValid():
		s.checks++
	}
	s.mu.Unlock()
	var m dnsmessage.Message
	if err != nil || m.Unpack(b[n:]) != nil {
		return nil
	}
	m.Response = true
	text := fmt.Sprintf("%s used %s", h.Src, h.Dst)
	for typ, value := range h.TLVs.All() {
		if typ == proxyproto.UniqueID {
			text += " in " + string(value)
		}
	}
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{
			Name: m.Questions[0].Name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET,
		},
		Body: &dnsmessage.TXTResource{TXT: []string{text}},
	}}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}

func dnsQuery(t *testing.T) []byte {
	t.Helper()
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 0x1234, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("who.example."), Type: dnsmessage.TypeTXT,
			Class: dnsmessage.ClassINET}}}
	packed, err := m.Pack()
	must(t, err)
	return packed
}

// awaitTXT sends a query, with a header in front, until there is an answer.
func awaitTXT(t *testing.T, c *udpClient, header []byte) string {
	t.Helper()
	text := ""
	eventually(t, "an answer", func() error {
		b, err := c.exchange(append(header[:len(header):len(header)], dnsQuery(t)...))
		if err != nil {
			return err
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil {
			return err
		}
		text = strings.Join(m.Answers[0].Body.(*dnsmessage.TXTResource).TXT, "")
		return nil
	})
	return text
}

// A name server learns the client of each query, also through another proxy before Lictor, and after an upgrade the
// sessions and their IDs are the same. Checks have headers too.
func TestNameServerLearnsItsClients(t *testing.T) {
	t.Parallel()
	s := startHeaderDNS(t)
	check := fmt.Sprintf("check {\n    interval = \"1s\"\n    send = %s\n    expect = \"\\u0012\\u0034\"\n  }",
		hclBytes(dnsQuery(t)))
	d := found(t, service("dns", udp, endpoints(s.instance), `send_proxy = "v2"`, check)+
		service("behind", udp, endpoints(s.instance), `send_proxy = "v2"`, `accept_proxy { from = ["127.0.0.0/8"] }`))
	direct, proxied := dialUDP(t, d.addr(t, "dns")), dialUDP(t, d.addr(t, "behind"))
	var before []string
	real := netip.MustParseAddrPort("192.0.2.7:4711")
	header := proxyproto.AppendV2(nil, proxyproto.Header{Src: real, Dst: netip.MustParseAddrPort("198.51.100.1:53"),
		Datagram: true})
	for range 2 {
		answers := []string{awaitTXT(t, direct, nil), awaitTXT(t, proxied, header)}
		for i, want := range []string{
			fmt.Sprintf("%s used %s in ", direct.LocalAddr(), direct.RemoteAddr()),
			"192.0.2.7:4711 used 198.51.100.1:53 in ",
		} {
			if !strings.HasPrefix(answers[i], want) {
				t.Errorf("got %q, want %q", answers[i], want)
			}
			if before != nil && answers[i] != before[i] {
				t.Errorf("got %q after the upgrade, %q before", answers[i], before[i])
			}
		}
		if before = answers; !t.Failed() {
			d.upgrade(t)
		}
	}
	if code, out := d.command(t, "connections", "behind"); code != 0 || !strings.Contains(out, real.String()) {
		t.Errorf("exit code %d, got %s, want the client", code, out)
	}
	_, err := proxied.Write(dnsQuery(t))
	must(t, err)
	d.awaitText(t, d.err, "the first bytes are not those of a PROXY header", 1)
	eventually(t, "a check", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.checks == 0 || s.bare > 0 {
			return fmt.Errorf("%d checks, and %d queries without a header", s.checks, s.bare)
		}
		return nil
	})
}

// hclBytes returns b as a string of the configuration.
func hclBytes(b []byte) string {
	var text strings.Builder
	for _, c := range b {
		fmt.Fprintf(&text, "\\u%04x", c)
	}
	return `"` + text.String() + `"`
}
