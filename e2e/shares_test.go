//go:build unix

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
)

// limited returns a wrapper that limits Lictor's descriptors and processors.
func limited(descriptors, processors int) []string {
	return []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && GOMAXPROCS=%d exec "$@"`, descriptors, processors), "sh"}
}

// Far more UDP clients come than there are descriptors, to a service whose sessions stay for an hour. Other services
// are not affected.
func TestUDPFloodLeavesOtherServicesServed(t *testing.T) {
	t.Parallel()
	const descriptors, clients = 600, 3000
	config := service("flood", udp, `idle_timeout = "1h"`, endpoints(startUDP(t, "a"))) +
		service("dns", udp, endpoints(startUDP(t, "b"))) + service("web", endpoints(startEcho(t, "c")))
	l := startLictor(t, config, limited(descriptors, 2)...)
	flood, dns, web := l.addr(t, "flood"), l.addr(t, "dns"), l.addr(t, "web")
	first := mustConnect(t, web)
	for i := range clients {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(flood))
		must(t, err)
		if i%100 == 0 { // when this client is served, all earlier ones are
			(&udpClient{c}).awaitAnswer(t, "a")
		}
		_, err = c.Write([]byte("once, and no more"))
		must(t, err)
		must(t, c.Close())
	}
	for range 50 {
		dialUDP(t, dns).awaitAnswer(t, "b")
	}
	for range 50 {
		must(t, mustConnect(t, web).echo("hello"))
	}
	must(t, first.echo("from before"))
	l.awaitAnswer(t, "status web", 0, "descriptors", "reserved", "clients waited 0 times")
}

// The services of two Lictors lead to each other, so one client takes all descriptors that these services may have.
// Other services are not affected.
func TestLoopOverTwoLictorsLeavesOtherServicesServed(t *testing.T) {
	t.Parallel()
	web := service("web", endpoints(startEcho(t, "a")))
	loop := func(to netip.AddrPort) string {
		return web + service("loop", fmt.Sprintf("static { endpoints = [%q] }", to))
	}
	one := startLictor(t, loop(deadAddr(t)), limited(400, 2)...)
	other := startLictor(t, loop(one.addr(t, "loop")), limited(400, 2)...)
	one.mustReload(t, loop(other.addr(t, "loop")))
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(one.addr(t, "loop")))
	must(t, err)
	defer func() { _ = c.Close() }()
	_, err = c.Write([]byte("round and round"))
	must(t, err)
	one.awaitLog(t, 0, func(e entry) bool {
		return e.field("service") == "loop" && strings.Contains(e.field("@message"), "new clients wait")
	})
	for range 20 {
		must(t, mustConnect(t, one.addr(t, "web")).echo("hello"))
		must(t, mustConnect(t, other.addr(t, "web")).echo("hello"))
	}
}

// On a host with many processors, event loops leave enough descriptors for listeners and clients.
func TestFewDescriptorsOnManyProcessors(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("there are no event loops here")
	}
	for _, tt := range []struct{ processors, udp, tcp int }{{64, 40, 1}, {128, 50, 50}} {
		t.Run(fmt.Sprint(tt.processors, " processors"), func(t *testing.T) {
			dns, web := startUDP(t, "a"), startEcho(t, "b")
			var config strings.Builder
			for i := range tt.udp {
				config.WriteString(service(fmt.Sprint("udp", i), udp, endpoints(dns)))
			}
			for i := range tt.tcp {
				config.WriteString(service(fmt.Sprint("tcp", i), endpoints(web)))
			}
			l := startLictor(t, config.String(), limited(1024, tt.processors)...)
			for i := range tt.udp {
				dialUDP(t, l.addr(t, fmt.Sprint("udp", i))).awaitAnswer(t, "a")
			}
			for i := range tt.tcp {
				must(t, mustConnect(t, l.addr(t, fmt.Sprint("tcp", i))).echo("hello"))
			}
		})
	}
}
