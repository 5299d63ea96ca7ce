//go:build linux

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A notifySocket receives messages as systemd does from a service of Type=notify.
type notifySocket struct {
	path     string
	mu       sync.Mutex
	messages []string
}

func listenNotify(t *testing.T) *notifySocket {
	t.Helper()
	path := filepath.Join(shortTempDir(t), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	s := &notifySocket{path: path}
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 1<<12)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			s.messages = append(s.messages, string(buf[:n]))
			s.mu.Unlock()
		}
	})
	t.Cleanup(func() { _ = conn.Close(); reading.Wait() })
	return s
}

// environment returns the variables that systemd sets for the service. The watchdog expects a message at least once in
// the given time.
func (s *notifySocket) environment(watchdog time.Duration) []string {
	return []string{"NOTIFY_SOCKET=" + s.path, fmt.Sprint("WATCHDOG_USEC=", watchdog.Microseconds())}
}

// runNotifying is runLictor for a service of Type=notify.
func runNotifying(t *testing.T, s *notifySocket, watchdog time.Duration, config string) *lictor {
	t.Helper()
	l := startLictor(t, config, append([]string{"env"}, s.environment(watchdog)...)...)
	l.awaitReady(t)
	return l
}

// await waits for a message that begins with prefix. It ignores the first skip messages, and returns the number of
// messages up to the one that it has found.
func (s *notifySocket) await(t *testing.T, skip int, prefix string) int {
	t.Helper()
	at := 0
	eventually(t, "lictor says "+prefix, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, m := range s.messages {
			if i >= skip && strings.HasPrefix(m, prefix) {
				at = i + 1
				return nil
			}
		}
		return fmt.Errorf("it said %q", s.messages)
	})
	return at
}

func TestSystemdIsToldHowItDoes(t *testing.T) {
	t.Parallel()
	s := listenNotify(t)
	config := service("web", endpoints(startEcho(t, "a")))
	l := runNotifying(t, s, 100*time.Millisecond, config)
	s.await(t, 0, "READY=1\nSTATUS=serving 1 service")
	for n := range 3 {
		s.await(t, n, "WATCHDOG=1")
	}
	n := s.await(t, 0, "READY=1")
	l.mustReload(t, config+service("api", endpoints(startEcho(t, "b"))))
	n = s.await(t, n, "RELOADING=1\nMONOTONIC_USEC=")
	n = s.await(t, n, "READY=1\nSTATUS=serving 2 services")
	l.reload(t, "nonsense")
	n = s.await(t, n, "READY=1\nSTATUS=not reloaded: ")
	must(t, l.Signal(syscall.SIGTERM))
	s.await(t, n, "STOPPING=1")
	l.exits(t, 0)
}

// TestInheritedSockets starts Lictor as systemd does for a unit with sockets, which are the descriptors from 3 on.
func TestInheritedSockets(t *testing.T) {
	t.Parallel()
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer tcp.Close()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer udp.Close()
	web, dns := tcp.Addr().(*net.TCPAddr).AddrPort(), udp.LocalAddr().(*net.UDPAddr).AddrPort()
	tcpFile, err := tcp.File()
	must(t, err)
	udpFile, err := udp.File()
	must(t, err)
	waiting, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(web)) // before Lictor serves
	must(t, err)
	defer waiting.Close()

	// A shell starts Lictor in place of systemd, because it knows the process ID before it starts the program.
	config := serviceAt("web", web, endpoints(startEcho(t, "a"))) +
		fmt.Sprintf("service \"dns\" {\n  listen = %q\n  protocol = \"udp\"\n  %s\n}\n", dns,
			endpoints(startUDP(t, "d")))
	l := startWith(t, config, []*os.File{tcpFile, udpFile}, "sh", "-c", `LISTEN_FDS=2 LISTEN_PID=$$ exec "$@"`, "sh")
	l.awaitReady(t)
	line, err := bufio.NewReader(waiting).ReadString('\n')
	if line != "a\n" {
		t.Errorf("the client that waited: got %q, %v", line, err)
	}
	wantCounts(t, web, map[string]int{"a": 3})
	dialUDP(t, dns).awaitAnswer(t, "d")
}

// A .socket unit may have a Unix socket. Its file belongs to systemd: neither Lictor nor its successor changes who may
// connect, or removes the file.
func TestInheritedUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(shortTempDir(t), "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	defer listener.Close() // systemd keeps it open
	must(t, os.Chmod(path, 0o640))
	file, err := listener.File()
	must(t, err)
	speak := func() {
		t.Helper()
		c, err := net.Dial("unix", path)
		must(t, err)
		defer c.Close()
		if line, err := bufio.NewReader(c).ReadString('\n'); line != "a\n" {
			t.Errorf("got %q, %v", line, err)
		}
	}
	config := fmt.Sprintf("service \"web\" {\n  listen = \"unix://%s mode=0600\"\n  %s\n}\n", path,
		endpoints(startEcho(t, "a")))
	l := startWith(t, config, []*os.File{file}, "sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"`, "sh")
	l.awaitReady(t)
	speak()
	code, output := l.ask(t, "upgrade")
	f := strings.Fields(output)
	if code != 0 || len(f) < 3 {
		t.Fatalf("lictor upgrade: exit code %d: %s", code, output)
	}
	pid, err := strconv.Atoi(strings.TrimSuffix(f[2], ","))
	must(t, err)
	l.exits(t, 0)
	speak()
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	eventually(t, "the end of the new process", func() error {
		if syscall.Kill(-l.Pid(), 0) == nil {
			return errors.New("it runs")
		}
		return nil
	})
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file of the socket: %v, %v", info, err)
	}
	waiting, err := net.Dial("unix", path)
	must(t, err)
	must(t, waiting.Close())
}

// parentOf returns the parent of a process on Linux.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(t, err)
	_, after, _ := strings.Cut(string(b), ") ")
	var state string
	var parent int
	_, err = fmt.Sscan(after, &state, &parent)
	must(t, err)
	return parent
}

// The old process names the new one as the main process. Only then the new process sends its status.
func TestSystemdIsToldOfAnUpgrade(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	s := listenNotify(t)
	d := found(t, service("web", endpoints(startEcho(t, "a"))), s.environment(100*time.Millisecond)...)
	s.await(t, 0, "READY=1")
	conn := mustConnect(t, d.addr(t, "web"))
	pid := d.upgrade(t)
	if runtime.GOOS == "linux" && parentOf(t, pid) != os.Getpid() {
		t.Errorf("the new process is no child of this one, which plays systemd, so systemd would kill it at each stop")
	}
	n := s.await(t, 0, fmt.Sprintf("MAINPID=%d", pid))
	s.mu.Lock()
	ready := strings.Count(strings.Join(s.messages[:n], "\n"), "READY=1")
	s.mu.Unlock()
	if ready != 1 {
		t.Errorf("READY=1 was said %d times before the main process changed", ready)
	}
	n = s.await(t, n, "READY=1\nSTATUS=serving 1 service")
	s.await(t, n, "WATCHDOG=1")
	must(t, conn.Close())
	(&lictor{Process: d.Process}).exits(t, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	if all := strings.Join(s.messages, "\n"); strings.Contains(all, "STOPPING=1") {
		t.Errorf("the former process says that the service stops: %q", s.messages)
	}
}
