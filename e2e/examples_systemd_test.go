//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// systemd has no complaint about the units of the example and the package.
func TestExampleSystemdUnits(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		testproc.Cannot(t, "there is no systemd", err)
	}
	dir := t.TempDir()
	args := []string{"verify", "--man=no"}
	for _, unit := range []string{"../examples/systemd-socket/lictor.socket", "../packaging/lictor.service"} {
		text := strings.ReplaceAll(readFile(t, unit), "/usr/bin/lictor", lictorPath(t))
		file := filepath.Join(dir, filepath.Base(unit))
		must(t, os.WriteFile(file, []byte(text), 0o600))
		args = append(args, file)
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// Lictor gets a socket for each address of the unit, as from systemd, and serves a client that came before it started.
func TestExampleSystemdSocket(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	c.register(t, "dns", "d", startUDP(t, "d").addr)
	files, opened := openSockets(t, "../examples/systemd-socket/lictor.socket")
	used := 0
	config := readExample(t, c, "systemd-socket/lictor.hcl", func(file *hclwrite.Body) {
		for _, service := range services(file) {
			socket := "ListenStream=" + textOf(service.Body(), "listen")
			if textOf(service.Body(), "protocol") == "udp" {
				socket = "ListenDatagram=" + textOf(service.Body(), "listen")
			}
			if !opened[socket].IsValid() {
				t.Fatalf("lictor.socket does not have %s, but has %v", socket, opened)
			}
			setText(service.Body(), "listen", opened[socket].String())
			used++
		}
	})
	if used != len(files) {
		t.Errorf("%d of %d sockets are those of services", used, len(files))
	}
	waiting, err := net.Dial("tcp", opened["ListenStream=127.0.0.1:9000"].String())
	must(t, err)
	defer waiting.Close()

	start := fmt.Sprintf(`LISTEN_FDS=%d LISTEN_PID=$$ exec "$@"`, len(files)) // see TestInheritedSockets
	l := startWith(t, config, files, "sh", "-c", start, "sh")
	l.awaitReady(t)
	line, err := bufio.NewReader(waiting).ReadString('\n')
	if line != "a\n" {
		t.Errorf("the client that waited: got %q, %v", line, err)
	}
	awaitRotation(t, l.addr(t, "web"), "a")
	dialUDP(t, l.addr(t, "dns")).awaitAnswer(t, "d")
}

// openSockets opens a socket at a free port of 127.0.0.1 for each address of a socket unit. It returns the sockets in
// the order of the unit, and their addresses by the line of the unit.
func openSockets(t *testing.T, unit string) ([]*os.File, map[string]netip.AddrPort) {
	t.Helper()
	var files []*os.File
	opened := map[string]netip.AddrPort{}
	keep := func(line, addr string, socket interface{ File() (*os.File, error) }) {
		file, err := socket.File()
		must(t, err)
		t.Cleanup(func() { _ = file.Close() })
		files, opened[line] = append(files, file), netip.MustParseAddrPort(addr)
	}
	for line := range strings.Lines(readFile(t, unit)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "ListenStream="):
			l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
			must(t, err)
			keep(line, l.Addr().String(), l)
			must(t, l.Close())
		case strings.HasPrefix(line, "ListenDatagram="):
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			must(t, err)
			keep(line, conn.LocalAddr().String(), conn)
			must(t, conn.Close())
		}
	}
	return files, opened
}
