package proxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/proxy/internal/batch"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// The tests of datagrams that the kernel joins and cuts hold as well if each has a PROXY header.
func TestUDPBurstsWithProxyHeaders(t *testing.T) {
	proxyHeaders = true
	t.Cleanup(func() { proxyHeaders = false })
	for _, test := range []func(*testing.T){
		TestUDPSegmentedDatagramsArriveOneByOne, TestUDPBurstsOfAnswersKeepTheirBounds, TestUDPRequestsSpreadABurst,
		TestUDPBurstOfMoreSessionsThanThereMayBe,
	} {
		test(t)
	}
}

// Datagrams that the kernel has joined before the service became one with headers are dropped and counted. They would
// reach the endpoint as one datagram.
func TestJoinedDatagramsGetNoProxyHeader(t *testing.T) {
	for _, s := range []Service{
		{SendProxy: proxyproto.V2}, {SendProxy: proxyproto.V2, SendProxyFirst: true}, {AcceptProxy: anyLocal},
		{SendProxy: proxyproto.V2, AcceptProxy: anyLocal},
	} {
		onLoops(t, 1, func(t *testing.T, h *house) { testJoined(t, h, s) })
	}
}

func testJoined(t *testing.T, h *house, s Service) {
	server, got := announcedServer(t)
	s.Protocol = UDP
	addr := h.serve(s, server)
	message := func(text string) []byte {
		if s.AcceptProxy != nil {
			return introduce("192.0.2.7:4711", text)
		}
		return []byte(text)
	}
	dialUDP(t, addr).Write(message("zero"))
	testproc.Receive(t, "a datagram", got) // so the loop has set the option, and does not set it again
	for _, s := range h.sockets {
		for _, shard := range s.proxySocket.(*loopUDP).shards {
			shard.loop.do(func() { sys.SetOption(shard.fd, unix.SOL_UDP, unix.UDP_GRO, 1) })
		}
	}
	c, one := dialUDP(t, addr), message("one")
	setUDP(t, c, unix.SOL_UDP, unix.UDP_SEGMENT, len(one))
	c.Write(append(one, message("two")...))
	eventually(t, equals("dropped", func() int64 { return h.stats().DatagramsDropped }, 2))
	setUDP(t, c, unix.SOL_UDP, unix.UDP_SEGMENT, 0)
	c.Write(message("three"))
	a := testproc.Receive(t, "a datagram", got)
	if a.text != "three" || a.headless != (s.SendProxy == proxyproto.None) {
		t.Errorf("got %+v, want the third one", a)
	}
}

// If an endpoint refuses a datagram, another endpoint gets that and all behind it, with the header of its own session
// only. The burst takes two turns of the loop, so the refusal of what the first turn has sent waits in the second one.
func TestRefusedBurstGetsTheNextSessionsHeader(t *testing.T) {
	for _, accept := range []*AcceptProxy{nil, anyLocal} {
		for _, first := range []bool{false, true} {
			onLoops(t, 1, func(t *testing.T, h *house) { testRefusedBurst(t, h, accept, first) })
		}
	}
}

func testRefusedBurst(t *testing.T, h *house, accept *AcceptProxy, first bool) {
	const burst = batch.Size + 6
	server, got := announcedServer(t)
	addr := h.serve(Service{Protocol: UDP, SendProxy: proxyproto.V2, SendProxyFirst: first, AcceptProxy: accept},
		server, deadPort(t))
	lost := 0
	for n := range 4 {
		c := dialUDP(t, addr)
		client := udpAddr(c)
		for _, s := range h.sockets {
			s.proxySocket.(*loopUDP).shards[0].loop.do(func() { // so the loop receives all that fit into a batch
				for i := range burst {
					text := fmt.Appendf(nil, "%03d", i)
					if accept != nil {
						client = netip.AddrPortFrom(realClient.Addr(), uint16(1000+n))
						text = introduce(client.String(), string(text))
					}
					c.Write(text)
				}
			})
		}
		id := ""
		for i, last := 0, fmt.Sprintf("%03d", burst-1); ; i++ {
			a := testproc.Receive(t, "a datagram", got)
			if len(a.text) != 3 || a.headless != (first && id != "") || !a.headless && a.Src != client ||
				id != "" && !first && a.id != id {
				t.Fatalf("got %+v, want the header of %s", a, client)
			}
			id = cmp.Or(id, a.id)
			if a.text == last {
				lost += burst - 1 - i
				break
			}
		}
	}
	if lost == 0 {
		t.Error("no datagram was refused")
	}
}
