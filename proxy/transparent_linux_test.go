package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// threeHosts are a client's host and a server's host with the test's namespace between them, and this host's addresses
// on the client's side.
type threeHosts struct {
	client, server *testnet.Host
	listen         []netip.AddrPort
}

// newThreeHosts makes the hosts. The test's namespace forwards nothing between them. It delivers to local sockets what
// answers a transparent socket, as docs/operations.md says.
func newThreeHosts(t *testing.T) threeHosts {
	t.Helper()
	link := func(n int) []testnet.Link {
		at := func(format string) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf(format, n)) }
		return []testnet.Link{
			{Here: at("10.%d.0.1/24"), There: at("10.%d.0.2/24")}, {Here: at("fd0%d::1/64"), There: at("fd0%d::2/64")},
		}
	}
	h := threeHosts{
		client: testnet.AddHost(t, "to-client", link(1)...), server: testnet.AddHost(t, "to-server", link(2)...),
	}
	for _, l := range link(1) {
		h.listen = append(h.listen, netip.AddrPortFrom(l.Here.Addr(), 0))
		testnet.AddMarkRule(t, l.Here.Addr(), 1, 100)
		testnet.AddLocalRoute(t, l.Here.Addr(), 100)
	}
	markTransparent(t)
	return h
}

// markTransparent is `nft add rule inet lictor prerouting socket transparent 1 meta mark set 1`.
func markTransparent(t *testing.T) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := conn.AddTable(&nftables.Table{Name: "lictor", Family: nftables.TableFamilyINet})
	chain := conn.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityMangle,
	})
	conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
		&expr.Immediate{Register: 1, Data: binaryutil.NativeEndian.PutUint32(1)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	}})
	if err := conn.Flush(); err != nil {
		testproc.Cannot(t, "nf_tables cannot match sockets", err)
	}
}

// serveTCP runs a server that sends each client a line with the client's IP address, and echoes then.
func (h threeHosts) serveTCP(t *testing.T, at netip.Addr) netip.AddrPort {
	t.Helper()
	var l net.Listener
	var err error
	h.server.Do(func() { l, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0))) })
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				fmt.Fprintln(c, addrOf(c.RemoteAddr()).Addr())
				_, _ = io.Copy(c, c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return addrOf(l.Addr())
}

// serveUDP runs a server that answers each datagram with the client's address and port, and passes them on to seen too.
func (h threeHosts) serveUDP(t *testing.T, at netip.Addr, seen chan<- netip.AddrPort) netip.AddrPort {
	t.Helper()
	var c *net.UDPConn
	var err error
	h.server.Do(func() { c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0))) })
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			_, from, err := c.ReadFromUDPAddrPort(make([]byte, 64))
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort([]byte(from.String()), from)
			select {
			case seen <- from:
			default:
			}
		}
	})
	t.Cleanup(func() { _ = c.Close(); running.Wait() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// dial connects from the client's host.
func (h threeHosts) dial(t *testing.T, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	h.client.Do(func() { c, err = net.Dial(network, to.String()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(testproc.Patience))
	return c
}

// seenBy returns the line that the server of serveTCP sends first.
func seenBy(t *testing.T, c net.Conn) string {
	t.Helper()
	var line []byte
	for b := []byte{0}; ; line = append(line, b[0]) {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		if b[0] == '\n' {
			return string(line)
		}
	}
}

// The endpoint of a transparent service sees the client's address, and its answers reach the client. Without
// transparent, it sees Lictor's address. A reload changes that for new clients.
func TestTransparent(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	hosts := newThreeHosts(t)
	forEachEngine(t, func(t *testing.T, h *house) {
		for _, tt := range []struct{ listen, dialled, client, server, own string }{
			{"10.1.0.1", "10.1.0.1", "10.1.0.2", "10.2.0.2", "10.2.0.1"},
			{"::", "10.1.0.1", "10.1.0.2", "10.2.0.2", "10.2.0.1"},
			{"fd01::1", "fd01::1", "fd01::2", "fd02::2", "fd02::1"},
		} {
			dial := func(p Protocol, listener netip.AddrPort) net.Conn {
				to := netip.AddrPortFrom(netip.MustParseAddr(tt.dialled), listener.Port())
				return hosts.dial(t, p.String(), to)
			}
			s := Service{Listen: listen(netip.AddrPortFrom(netip.MustParseAddr(tt.listen), 0)), Transparent: true}
			endpoint := hosts.serveTCP(t, netip.MustParseAddr(tt.server))
			tcp := h.serve(s, endpoint)
			c := dial(TCP, tcp)
			if got := seenBy(t, c); got != tt.client {
				t.Errorf("%s: the endpoint sees %s, want %s", tt.listen, got, tt.client)
			}
			s.Transparent = false
			h.serve(s, endpoint)
			if got := seenBy(t, dial(TCP, tcp)); got != tt.own {
				t.Errorf("%s: after transparent was removed, the endpoint sees %s, want %s", tt.listen, got, tt.own)
			}
			exchange(t, c, strings.Repeat("much ", 10000)) // the first client goes on

			s.Protocol, s.Transparent = UDP, true
			udp := h.serve(s, hosts.serveUDP(t, netip.MustParseAddr(tt.server), nil))
			got := query(t, dial(UDP, udp).(*net.UDPConn), "x")
			if netip.MustParseAddrPort(got).Addr().String() != tt.client {
				t.Errorf("%s over UDP: the endpoint sees %s, want %s", tt.listen, got, tt.client)
			}
		}
	})
}

// The client that a PROXY header names is the client whose address is used.
func TestTransparentBehindAProxy(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	hosts := newThreeHosts(t)
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{Listen: hosts.listen[:1], Transparent: true,
			AcceptProxy: &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("10.1.0.2/32")}}},
			hosts.serveTCP(t, netip.MustParseAddr("10.2.0.2")))
		c := hosts.dial(t, "tcp", addr)
		if _, err := c.Write(proxyproto.AppendV1(nil, netip.MustParseAddrPort("203.0.113.7:999"), addr)); err != nil {
			t.Fatal(err)
		}
		if got := seenBy(t, c); got != "203.0.113.7" {
			t.Errorf("the endpoint sees %s", got)
		}
	})
}

// A session goes on in the successor of the process, from the same address and port.
func TestTransparentSessionIsHandedOver(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	hosts := newThreeHosts(t)
	forEachEngine(t, func(t *testing.T, h *house) {
		s := Service{Name: "s", Protocol: UDP, Listen: hosts.listen[:1], Transparent: true}
		addr := h.serve(s, hosts.serveUDP(t, netip.MustParseAddr("10.2.0.2"), nil))
		c := hosts.dial(t, "udp", addr).(*net.UDPConn)
		before := query(t, c, "x")
		next := succeed(t, h.Proxier, h.options, []Service{s})
		defer next.Close()
		if after := query(t, c, "y"); after != before || !strings.HasPrefix(after, "10.1.0.2:") {
			t.Errorf("the endpoint sees %s, and saw %s before", after, before)
		}
	})
}

// The ICMP error of an endpoint that refuses datagrams reaches the session's socket.
func TestTransparentRefusal(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	hosts := newThreeHosts(t)
	forEachEngine(t, func(t *testing.T, h *house) {
		server := netip.MustParseAddr("10.2.0.2")
		dead := netip.AddrPortFrom(server, 9)
		addr := h.serve(Service{Protocol: UDP, Listen: hosts.listen[:1], Transparent: true}, dead,
			hosts.serveUDP(t, server, nil))
		eventually(t, func() error {
			query(t, hosts.dial(t, "udp", addr).(*net.UDPConn), "x")
			for _, e := range h.balancer.Snapshot()[0].Endpoints {
				if e.Addr == dead && e.Failures > 0 {
					return nil
				}
			}
			return errPending
		})
	})
}

// Of the addresses of a host name, those are dialled that can be dialled from the client's address.
func TestTransparentAddressesOfAName(t *testing.T) {
	m, spec := &lb.Member{Endpoint: byName(80)}, &Service{Name: "s", Transparent: true}
	s := &service{}
	four, six := netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	all := []netip.Addr{four, six}
	for _, tt := range []struct {
		client string
		want   []netip.Addr
	}{{"192.0.2.7", all[:1]}, {"::ffff:192.0.2.7", all[:1]}, {"2001:db8::7", all[1:]}, {"127.0.0.1", nil}} {
		got, err := s.admitted(spec, m, netip.MustParseAddr(tt.client), all)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%s: got %v, %v", tt.client, got, err)
		}
		if _, local := causeOf(err); err != nil && !local {
			t.Errorf("%s: %v counts against the endpoint", tt.client, err)
		}
	}
}

// One-way sessions share sockets, but not if the service is transparent.
func TestTransparentOneWay(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	hosts := newThreeHosts(t)
	testnet.AddAddress(t, "to-client", netip.MustParsePrefix("10.3.0.1/24"))
	hosts.client.Do(func() { testnet.AddAddress(t, "eth0", netip.MustParsePrefix("10.3.0.2/24")) })
	forEachEngine(t, func(t *testing.T, h *house) {
		seen := make(chan netip.AddrPort, 100)
		udp := h.serve(Service{Protocol: UDP, Listen: listen(netip.MustParseAddrPort("0.0.0.0:0")), Transparent: true,
			Responses: -1}, hosts.serveUDP(t, netip.MustParseAddr("10.2.0.2"), seen))
		for _, network := range []string{"10.1.0", "10.3.0", "10.1.0"} {
			c := hosts.dial(t, "udp", netip.AddrPortFrom(netip.MustParseAddr(network+".1"), udp.Port()))
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if got := (<-seen).Addr().String(); got != network+".2" {
				t.Errorf("the endpoint sees %s, want %s.2", got, network)
			}
		}
	})
}

// An endpoint that cannot be dialled from the client's address is passed over, and is not marked as failed.
func TestTransparentPassesOverUnfitEndpoints(t *testing.T) {
	t.Parallel() // another process does the work
	if !testnet.Inside(t) {
		return
	}
	hosts := newThreeHosts(t)
	four, six := netip.MustParseAddr("10.2.0.2"), netip.MustParseAddr("fd02::2")
	unfit := []netip.AddrPort{netip.MustParseAddrPort("10.1.0.2:1"), netip.MustParseAddrPort("127.0.0.1:1")}
	forEachEngine(t, func(t *testing.T, h *house) {
		for _, p := range []Protocol{TCP, UDP} {
			endpoints := []netip.AddrPort{hosts.serveTCP(t, six), hosts.serveTCP(t, four)}
			if p == UDP {
				endpoints = []netip.AddrPort{hosts.serveUDP(t, six, nil), hosts.serveUDP(t, four, nil)}
			}
			for _, other := range append(listen(endpoints[0]), unfit...) {
				s := Service{Protocol: p, Listen: hosts.listen[:1], Transparent: true}
				addr := h.serve(s, other, endpoints[1])
				for range 8 {
					c := hosts.dial(t, p.String(), addr)
					if p == UDP {
						query(t, c.(*net.UDPConn), "x")
					} else {
						seenBy(t, c)
					}
				}
				if st := h.stats(); st.DialsFailed == 0 || st.Refused > 0 {
					t.Errorf("%s, %s: %d dials failed, %d clients refused", p, other, st.DialsFailed, st.Refused)
				}
				for _, e := range h.balancer.Snapshot()[0].Endpoints {
					if e.Failures > 0 {
						t.Errorf("%s: %s is marked as failed", p, e.Addr)
					}
				}
			}
		}
	})
}

// A process without the capabilities refuses to serve a transparent service, and changes nothing.
func TestTransparentNeedsACapability(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, tcpServer(t, echo))
		var err error
		var running sync.WaitGroup
		running.Go(func() {
			runtime.LockOSThread() // capabilities belong to a thread, and this one ends with its goroutine
			head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err = unix.Capset(&head, &none[0]); err == nil {
				err = h.Apply([]Service{{Name: "clear", Listen: listen(loopback), Transparent: true}})
			}
		})
		running.Wait()
		if err == nil || !strings.Contains(err.Error(), `service "clear": transparent`) ||
			!strings.Contains(err.Error(), "CAP_NET_RAW") {
			t.Errorf("got %v", err)
		}
		exchange(t, dialTCP(t, addr), "as before")
	})
}

func TestSourceTrouble(t *testing.T) {
	for _, tt := range []struct {
		src, to string
		fits    bool
	}{
		{"192.0.2.1", "192.0.2.9", true},
		{"2001:db8::1", "2001:db8::9", true},
		{"127.0.0.1", "127.0.0.1", true},
		{"127.0.0.2", "127.0.0.1", true},
		{"fe80::1%lo", "fe80::2%lo", true},
		{"192.0.2.1", "2001:db8::9", false},
		{"2001:db8::1", "192.0.2.9", false},
		{"127.0.0.1", "192.0.2.9", false},
		{"192.0.2.1", "127.0.0.1", false},
		{"::1", "2001:db8::9", false},
		{"2001:db8::1", "::1", false},
		{"fe80::1%lo", "2001:db8::9", false},
		{"fe80::1%lo", "fe80::2%eth0", false},
		{"192.0.2.1", "192.0.2.1", false}, // not of this host
		{"0.0.0.0", "192.0.2.9", false},
		{"::", "2001:db8::9", false},
		{"224.0.0.1", "192.0.2.9", false},
	} {
		why := sourceTrouble(netip.MustParseAddr(tt.src), netip.MustParseAddr(tt.to))
		if (why == "") != tt.fits {
			t.Errorf("from %s to %s: got %q", tt.src, tt.to, why)
		}
	}
	if sourceTrouble(netip.Addr{}, loopback.Addr()) == "" || sourceTrouble(loopback.Addr(), netip.Addr{}) == "" {
		t.Error("no address at all fits")
	}
}
