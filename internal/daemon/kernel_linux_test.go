//go:build amd64 || arm64

package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/internal/testnet"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// onKernelPath returns the text of a service "web" with two endpoints.
func onKernelPath(mode string, endpoints ...string) string {
	return fmt.Sprintf("service \"web\" {\n  listen = \"127.0.0.1:9000\"\n  kernel_path = %q\n  static {\n"+
		"    endpoints = [\"%s\"]\n  }\n}\n", mode, strings.Join(endpoints, "\", \""))
}

// bashDial connects to the service "web" as another process does, and returns what the endpoint sends first. It is
// empty if the connection is refused.
func bashDial(t *testing.T) string {
	t.Helper()
	out, _ := exec.CommandContext(t.Context(), "bash", "-c",
		"exec 3<>/dev/tcp/127.0.0.1/9000 && head -n 1 <&3").Output()
	return strings.TrimSpace(string(out))
}

// TestClientsOnTheKernelPath checks with real clients that they pass Lictor by, that an endpoint which refuses them is
// ejected and comes back, and that reloads and the end give them to the listener.
func TestClientsOnTheKernelPath(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	if err := kernel.Probe(""); err != nil {
		testproc.Cannot(t, "the kernel path cannot be opened", err)
	}
	a, b := instance(t, "a"), instance(t, "b")
	s := serveConfiguration(t, onKernelPath("on", a, b), nil)
	web := func() admin.Path { return s.kernel.shown()["web"] }
	forwarded := func() int64 { return s.Traffic()[0].Total }
	got := map[string]int{}
	for range 10 {
		got[bashDial(t)]++
	}
	if got["a"] != 5 || got["b"] != 5 || forwarded() != 0 {
		t.Fatalf("got %v, and Lictor forwarded %d connections; path %+v\n%s", got, forwarded(), web(), s.log)
	}
	testproc.Await(t, "the end of ten connections", func() bool {
		p := web()
		return p.Counters.Connections == 10 && p.Counters.ConnectionsActive == 0 && p.Counters.BytesDown == 20
	})

	if summary, err := s.reload(onKernelPath("auto", b, "127.0.0.1:1")); err != nil {
		t.Fatal(summary, err)
	}
	got = map[string]int{}
	for range 10 {
		name := bashDial(t)
		got[name]++
		if name == "" { // a refusal ejects the endpoint
			testproc.Await(t, "the ejection", func() bool { return len(web().Picks) > 0 && s.ejected() })
		}
	}
	if got["b"] < 5 || got[""] < 1 || forwarded() != 0 {
		t.Errorf("of clients of a dead endpoint: %v, and Lictor forwarded %d connections", got, forwarded())
	}
	if c := web().Counters; c.DialsRefused < 1 || c.DialsFailed != c.DialsRefused {
		t.Errorf("got the counters %+v", c)
	}

	for i, mode := range []string{"off", "on"} {
		if summary, err := s.reload(onKernelPath(mode, a)); err != nil {
			t.Fatal(summary, err)
		}
		if name := bashDial(t); name != "a" || forwarded() != 1 {
			t.Errorf("with %s: got %q, Lictor forwarded %d connections", mode, name, forwarded())
		}
		if p := web(); p.Kernel != (i == 1) || p.Counters.Connections < 10 {
			t.Errorf("with %s: %+v, %+v", mode, p, p.Counters)
		}
	}
	if _, err := s.reload("kernel_path_cgroup = \"/does-not-exist\"\n" + onKernelPath("on", a)); err == nil {
		t.Error("a reload to a control group that does not exist was accepted")
	}
	if name := bashDial(t); name != "a" || forwarded() != 1 {
		t.Errorf("after a refused reload: got %q, Lictor forwarded %d connections", name, forwarded())
	}
	s.stop()
	if name := bashDial(t); name != "" {
		t.Errorf("after the end: got %q", name)
	}
}

// ejected reports whether an endpoint of the service "web" is ejected.
func (s *served) ejected() bool { return s.balancer.Snapshot()[0].Ejections > 0 }

// TestNothingListensOnTheKernelPath checks that the listener serves clients while no endpoint can be used.
func TestNothingListensOnTheKernelPath(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	if err := kernel.Probe(""); err != nil {
		testproc.Cannot(t, "the kernel path cannot be opened", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	_ = l.Close()
	src := strings.Replace(onKernelPath("auto", dead), "static {", "min_available = \"0%\"\nstatic {", 1)
	s := serveConfiguration(t, src, nil)
	if name := bashDial(t); name != "" {
		t.Errorf("got %q", name)
	}
	testproc.Await(t, "a client of the listener", func() bool {
		_ = bashDial(t)
		return s.proxier.Snapshot()[0].Refused > 0
	})
	s.stop()
}

// TestLeavingEndpointIsCutOnTheKernelPath checks that on_leave cuts the connection of a client on the kernel path, and
// not a direct one to the same endpoint.
func TestLeavingEndpointIsCutOnTheKernelPath(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	if err := kernel.Probe(""); err != nil {
		testproc.Cannot(t, "the kernel path cannot be opened", err)
	}
	a := at(instance(t, "a"))
	s := serveConfiguration(t, "consul {\n  address = \"127.0.0.1:1\"\n}\nservice \"web\" {\n"+
		"  listen = \"127.0.0.1:9000\"\n  kernel_path = \"on\"\n  on_leave = \"cut\"\n}\n", nil)
	s.balancer.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: []lb.Endpoint{a}}})
	testproc.Await(t, "the endpoint on the kernel path", func() bool { return s.kernel.shown()["web"].Why == "" })
	direct := reaches(t, a.Address(), "a")
	said := &testproc.Log{}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9000 && cat <&3")
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "a client of the endpoint", func() bool { return strings.HasPrefix(said.String(), "a\n") })
	s.balancer.OnUpdate([]lb.Endpoints{{Service: "web", Left: []lb.Departure{{Endpoint: a, Why: lb.Critical}}}})
	if err := cmd.Wait(); err == nil || !strings.Contains(said.String(), "connection abort") {
		t.Errorf("the client ended with %v: %s", err, said)
	}
	_ = direct.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := direct.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a direct connection ended with %v", err)
	}
	testproc.Await(t, "the count", func() bool { return s.kernel.shown()["web"].Counters.EndedLeft == 1 })
	s.stop()
}

// TestLookAtAKernelPathThatCannotCut checks what a look at this host says if this process could open the kernel path,
// but not end the sockets of UDP clients.
func TestLookAtAKernelPathThatCannotCut(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	if err := kernel.Probe(""); err != nil {
		testproc.Cannot(t, "the kernel path cannot be opened", err)
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	bits := uint64(1<<unix.CAP_BPF | 1<<unix.CAP_NET_ADMIN)
	low, high := uint32(bits), uint32(bits>>32)
	data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	const plain = "service \"plain\" { listen = 9001 }\n"
	for _, text := range []string{
		"kernel_path = \"auto\"\nservice \"web\" {\nlisten = 9000\nprotocol = \"udp\"\n}\n",
		"kernel_path = \"on\"\nservice \"web\" {\nlisten = 9000\nprotocol = \"udp\"\n}\n",
	} {
		lines, problems := LookAtKernelPath(mustParse(t, text+plain))
		if len(lines) != 2 || lines[0] != "kernel path: 1 service (plain)" ||
			!strings.HasPrefix(lines[1], "not on the kernel path: 1 service (web): ") ||
			!strings.HasSuffix(lines[1], "without CAP_PERFMON") {
			t.Errorf("%s: got %q", text, lines)
		}
		if len(problems) != 1 || problems[0].Severity != hcl.DiagWarning ||
			!strings.Contains(problems[0].Detail, "without CAP_PERFMON. Ignore this if") {
			t.Errorf("%s: got %v", text, problems)
		}
	}
	if lines, problems := LookAtKernelPath(mustParse(t, "kernel_path = \"on\"\n"+plain)); len(problems) > 0 ||
		len(lines) != 1 || lines[0] != "kernel path: 1 service (plain)" {
		t.Errorf("without a service that needs cuts: got %q, %v", lines, problems)
	}
}
