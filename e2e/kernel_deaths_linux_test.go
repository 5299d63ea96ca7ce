package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testcgroup"
)

// heldListener returns a listener that belongs to the test, as that of a .socket unit belongs to systemd, and its
// address.
func heldListener(t *testing.T) (*os.File, netip.AddrPort) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer l.Close()
	file, err := l.File()
	must(t, err)
	t.Cleanup(func() { _ = file.Close() })
	return file, l.Addr().(*net.TCPAddr).AddrPort()
}

// Lictor is killed and started again, and its listener belongs to somebody else, as with a .socket unit of systemd.
// Clients are served by the kernel while Lictor lives, and wait in the listener's queue while it does not. Connections
// of the path go on without Lictor.
func TestKernelPathIsKilledUnderLoad(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	file, web := heldListener(t)
	config := onPath(group, serviceAt("web", web, endpoints(startEcho(t, "a"), startEcho(t, "b"))))
	start := func() *lictor {
		must(t, group.Leave())
		l := startWith(t, config, []*os.File{file}, "sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"`, "sh")
		must(t, group.Enter())
		return l
	}
	l := start()
	var kept *client
	frozen(t, l.Process, func() { kept = mustConnect(t, web) })
	clients := newCrowd(t)
	for range 4 {
		clients.add("connection", func(int) error { _, err := ask(t.Context(), web); return err })
	}
	for range 20 {
		clients.getOn(5)
		l.Kill()
		kept.mustEcho(t, "without Lictor")
		l = start()
	}
	clients.getOn(10)
	clients.end()
	t.Logf("20 times killed: %s; none failed: %v", clients, !t.Failed())
	wantNothingAttached(t, group, l)
}

// wantNothingAttached kills Lictor, and fails the test if programs are still attached to the group.
func wantNothingAttached(t testing.TB, g *testcgroup.Group, l *lictor) {
	t.Helper()
	if n := g.Programs(t); n == 0 {
		t.Error("no programs are attached while Lictor lives")
	}
	l.Kill()
	eventually(t, "no programs are attached", func() error {
		if n := g.Programs(t); n > 0 {
			return fmt.Errorf("%d programs", n)
		}
		return nil
	})
}

// Two Lictors have services on the path for the same clients. Neither knows of the other, and one goes on when the
// other is killed.
func TestTwoLictorsOnTheKernelPath(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	one := runLictor(t, onPath(group, service("web", static(startGreeter(t, "a").addr))))
	two := runLictor(t, onPath(group, service("web", static(startGreeter(t, "b").addr, startGreeter(t, "c").addr))))
	three := runLictor(t, onPath(group, service("web", static(two.addr(t, "web"))))) // a listener as an instance
	must(t, group.Enter())
	frozen(t, one.Process, func() {
		frozen(t, two.Process, func() {
			wantCounts(t, one.addr(t, "web"), map[string]int{"a": 6})
			wantCounts(t, two.addr(t, "web"), map[string]int{"b": 3, "c": 3})
		})
	})
	wantCounts(t, three.addr(t, "web"), map[string]int{"b": 3, "c": 3})
	one.Kill()
	frozen(t, two.Process, func() { wantCounts(t, two.addr(t, "web"), map[string]int{"b": 3, "c": 3}) })
	if _, err := ask(t.Context(), one.addr(t, "web")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a client of the Lictor that was killed: got %v, want refused", err)
	}
}

// With kernel_path = "on", a Lictor that lacks a right does not start, and says which right. With "auto", it says so
// once and serves all clients itself.
func TestKernelPathNamesTheMissingRight(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	config := onPath(group, service("web", static(startGreeter(t, "a").addr)))
	for _, tt := range []struct {
		without []string // capabilities
		missing string
	}{
		{[]string{"sys_admin", "bpf"}, "CAP_BPF"},
		{[]string{"sys_admin", "net_admin"}, "CAP_NET_ADMIN"},
		{[]string{"sys_admin", "bpf", "net_admin", "perfmon"}, "CAP_BPF and CAP_NET_ADMIN"},
	} {
		t.Run("without "+strings.Join(tt.without, ", "), func(t *testing.T) {
			wrapper := []string{"setpriv", "--bounding-set", "-" + strings.Join(tt.without, ",-")}
			file := filepath.Join(t.TempDir(), "lictor.hcl")
			must(t, os.WriteFile(file, []byte(config), 0o600))
			args := slices.Concat(wrapper, []string{lictorPath(t), "run", "-config", file})
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = append(environment(), "RUNTIME_DIRECTORY="+shortTempDir(t))
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), tt.missing) {
				t.Errorf("on: got %v, want a failure that names %s:\n%s", err, tt.missing, out)
			}
			auto := strings.Replace(config, `kernel_path = "on"`, `kernel_path = "auto"`, 1)
			l := startLictor(t, auto, wrapper...)
			l.awaitLog(t, 0, func(e entry) bool { return strings.Contains(fmt.Sprint(e), tt.missing) })
			wantCounts(t, l.addr(t, "web"), map[string]int{"a": 3})
		})
	}
	t.Run("with no more than the three", func(t *testing.T) {
		l := startLictor(t, config, "setpriv", "--bounding-set", "-all,+bpf,+net_admin,+perfmon")
		must(t, group.Enter())
		defer func() { must(t, group.Leave()) }()
		frozen(t, l.Process, func() { wantCounts(t, l.addr(t, "web"), map[string]int{"a": 3}) })
	})
}
