//go:build amd64 || arm64

package proxy

import (
	"net"
	"net/netip"
	"net/rpc"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/internal/testcgroup"
	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// testsOnKernelPath are the tests that hold if the clients use the kernel path, where nothing is between a client and
// its endpoint. Other tests of the suite cannot hold there, because the kernel path does not promise what they test
// (see docs/kernel-path.md). Those over TCP:
//
//   - TestTCPHalfCloseIsBounded, TestTCPHalfCloseTimeoutCountsSilenceOnly, TestTCPIdleTimeout and the others of that
//     name: services with half_close_timeout or idle_timeout are not on the kernel path.
//   - TestTCPDeadEndpointIsNotNoticedByClients, TestTCPDialThatHangsGoesToTheNextEndpoint: the client itself dials, and
//     nothing dials again for it.
//   - TestTCPClientIsResetWhenNobodyServes, TestTCPAcceptNeverWaitsForADial: without endpoints, the clients use the
//     listener.
//   - TestTCPResetByServerReachesClientAfterItsBytes, TestTCPBackPressure: these are about bytes that the proxy has
//     taken and not given away yet.
//   - TestTCPBulkUsesPipes, TestTCPClientsWaitWhileDescriptorsAreShort, TestIPv4WildcardIsIPv4Only: these are about
//     pipes, descriptors and listeners of the proxy.
//   - TestTCPUrgentDataStaysInTheStream: the kernel takes urgent data out of the stream, as it does without a proxy.
//   - TestTCPEndpointByHostName: package daemon looks names up for the kernel path, and tests it.
//   - The tests of why connections end: these have no lines in the access log.
//
// Those over UDP, whose clients have connected sockets:
//
//   - TestUDPSessionExpires, TestUDPAnswersKeepTheSession: such a socket keeps its endpoint, however long it is silent.
//   - TestUDPSessionIsRepickedWhenItsEndpointLeaves: the socket is destroyed.
//   - TestUDPRefusedSessionIsRepicked, TestUDPOnlyEndpointComesBack: nothing sees that an endpoint refuses datagrams.
//   - TestUDPServedOnceEndpointsAppear: without endpoints, the clients use the listener.
//   - TestUDPEndpointByHostName: see above.
//   - The tests of responses and requests, and of one-way traffic: such services are not on the kernel path.
//   - The tests of how many sessions there may be: they are about descriptors of the proxy.
var testsOnKernelPath = []struct {
	name string
	test func(*testing.T)
}{
	{"rotates", TestTCPRotates},
	{"bulk both ways", TestTCPBulkBothWays},
	{"half-close by client", TestTCPHalfCloseByClientKeepsReturnTraffic},
	{"half-close by server", TestTCPHalfCloseByServerKeepsRequestTraffic},
	{"reset by client", TestTCPResetByClientReachesServer},
	{"early answer", TestTCPEarlyAnswerIsDelivered},
	{"descriptors", TestTCPIdlePairHoldsTwoDescriptors},
	{"IPv6", TestTCPListensOnIPv6},
	{"many clients", TestTCPManyClientsAtOnce},
	{"single bytes", TestTCPReaderOfSingleBytes},
	{"random connections", TestTCPRandomConnections},
	{"UDP, an endpoint for each client", TestUDPEachClientHasASession},
	{"UDP, whole datagrams", TestUDPDatagramsArriveWhole},
	{"UDP, answers from the address that was used", TestUDPWildcardAnswersFromTheAddressThatWasUsed},
	{"UDP, local addresses", TestUDPWildcardKeepsLocalAddressesApart},
	{"UDP, nothing is lost", TestUDPLosesNothingThatHasRoom},
	{"UDP, many clients", TestUDPManyClients},
	{"UDP, a slow client", TestUDPSlowSessionHoldsUpNobody},
}

// The tests of connections hold as well if the clients use the kernel path. The proxier has the listeners, but gets no
// connection.
func TestConformanceOnTheKernelPath(t *testing.T) {
	if os.Getenv(kernelPathVariable) != "" {
		serveKernelPath(t)
		return
	}
	if !testnet.Inside(t) {
		return
	}
	group := testcgroup.Make(t)
	past = startKernelPath(t, group)
	onlyEngines = []string{"auto"}
	t.Cleanup(func() { past, onlyEngines = nil, nil })
	if err := group.Enter(); err != nil {
		t.Fatal(err)
	}
	for _, one := range testsOnKernelPath {
		t.Run(one.name, one.test)
	}
}

// kernelPathVariable is the environment variable of the process that has the kernel path. That is another process,
// because a kernel path leaves the connections of its own process alone.
const kernelPathVariable = "LICTOR_TEST_KERNEL_PATH"

// A kernelPath is the kernel path of another process.
type kernelPath struct {
	*testing.T
	*rpc.Client
}

// startKernelPath starts a process with a kernel path for the clients in the group. It ends with the test.
func startKernelPath(t *testing.T, group *testcgroup.Group) *kernelPath {
	t.Helper()
	if err := kernel.Probe(group.Name); err != nil {
		testproc.Cannot(t, "the kernel path cannot be opened", err)
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "ours"), os.NewFile(uintptr(ends[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.count", "1")
	cmd.Env = append(os.Environ(), kernelPathVariable+"="+group.Name)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &kernelPath{t, rpc.NewClient(conn)}
	t.Cleanup(func() {
		p.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// serveKernelPath is the other process. It ends when the connection ends that it has inherited.
func serveKernelPath(t *testing.T) {
	path, err := kernel.Open(kernel.Options{Cgroup: os.Getenv(kernelPathVariable)})
	if err != nil {
		t.Fatal(err)
	}
	defer path.Close()
	s := rpc.NewServer()
	if err := s.RegisterName("Path", &kernelPathServer{path}); err != nil {
		t.Fatal(err)
	}
	s.ServeConn(os.NewFile(3, "inherited"))
}

// A kernelPathServer makes the methods of a kernel path available to another process.
type kernelPathServer struct{ path *kernel.Path }

func (s *kernelPathServer) Set(service kernel.Service, _ *int) error { return s.path.Set(service) }

func (s *kernelPathServer) Remove(name string, _ *int) error { return s.path.Remove(name) }

func (s *kernelPathServer) Counters(name string, c *kernel.Counters) error {
	*c, _ = s.path.Counters(name)
	return nil
}

func (p *kernelPath) set(h *house, listen netip.AddrPort, endpoints []netip.AddrPort) {
	s := kernel.Service{Name: "s", UDP: h.protocol == UDP, Listen: []netip.AddrPort{listen}}
	seen := map[netip.AddrPort]bool{}
	for _, e := range endpoints {
		if !seen[e] {
			seen[e] = true
			s.Endpoints = append(s.Endpoints, kernel.Endpoint{Addr: e, Key: uint64(e.Port())})
		}
	}
	if err := p.Call("Path.Set", s, new(int)); err != nil {
		h.Error(err) // not Fatal: this may be another goroutine than that of the test
	}
}

func (p *kernelPath) stats() Stats {
	var c kernel.Counters
	if err := p.Call("Path.Counters", "s", &c); err != nil {
		p.Error(err)
	}
	return Stats{Connections: int64(c.Connections), Sessions: int64(c.Connections), ConnectionsActive: int64(c.Open),
		BytesUp: int64(c.Sent), BytesDown: int64(c.Received),
		DialsFailed: int64(c.Refused + c.Unreachable + c.TimedOut)}
}

// end checks that all clients of the house have used the kernel path.
func (p *kernelPath) end(h *house) {
	at := h.Snapshot()[0]
	if n := at.Connections + at.Sessions; n != 0 || p.stats().Connections == 0 {
		h.Errorf("%d connections were with the proxier, and %d on the kernel path", n, p.stats().Connections)
	}
	if err := p.Call("Path.Remove", "s", new(int)); err != nil {
		h.Error(err)
	}
}
