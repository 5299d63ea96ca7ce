//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A dynasty is a Lictor and its successors. All are in one process group.
type dynasty struct {
	*testproc.Process
	file, out, err string // paths of the configuration, and of the output of all processes
	program        string
	runtime        string // the folder of the admin socket
}

// found starts the first process. The output goes to files, because a pipe would end with the first process.
func found(t testing.TB, config string, env ...string) *dynasty {
	t.Helper()
	return foundWith(t, config, nil, nil, env...)
}

// foundWith is found with files that Lictor inherits, and with a program that starts Lictor.
func foundWith(t testing.TB, config string, files []*os.File, wrapper []string, env ...string) *dynasty {
	t.Helper()
	dir := t.TempDir()
	d := &dynasty{file: filepath.Join(dir, "lictor.hcl"), out: filepath.Join(dir, "out"),
		err: filepath.Join(dir, "err"), program: filepath.Join(dir, "lictor"), runtime: shortTempDir(t)}
	d.configure(t, config)
	d.install(t, lictorPath(t))
	stdout, err := os.Create(d.out)
	must(t, err)
	defer stdout.Close()
	stderr, err := os.Create(d.err)
	must(t, err)
	defer stderr.Close()
	args := slices.Concat(wrapper, []string{d.program, "run", "-config", d.file, "-log-json"})
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(append(environment(), "RUNTIME_DIRECTORY="+d.runtime), env...)
	cmd.ExtraFiles = files
	cmd.Stdout, cmd.Stderr = stdout, stderr
	d.Process, err = testproc.Start(cmd)
	must(t, err)
	t.Cleanup(func() { d.end(t) })
	d.awaitText(t, d.err, `"ready"`, 1)
	return d
}

// install replaces the program in one step, as packages do.
func (d *dynasty) install(t testing.TB, program string) {
	t.Helper()
	_ = os.Remove(d.program + ".new")
	must(t, os.Symlink(program, d.program+".new"))
	must(t, os.Rename(d.program+".new", d.program))
}

func (d *dynasty) configure(t testing.TB, config string) {
	t.Helper()
	(&lictor{file: d.file}).configure(t, config)
}

// end kills all processes, and fails the test if the log has a data race or a panic.
func (d *dynasty) end(t testing.TB) {
	_ = syscall.Kill(-d.Pid(), syscall.SIGKILL) // the group
	<-d.Done()
	text, _ := os.ReadFile(d.err)
	for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(string(text), sign) {
			t.Errorf("a lictor said %q", sign)
		}
	}
	if t.Failed() {
		lines := strings.Split(string(text), "\n")
		t.Logf("they said:\n%s", strings.Join(lines[max(0, len(lines)-100):], "\n"))
	}
}

// awaitText waits until a file contains the text n times.
func (d *dynasty) awaitText(t testing.TB, file, text string, n int) {
	t.Helper()
	within(t, 3*patience, fmt.Sprintf("%d times %s", n, text), func() error {
		b, err := os.ReadFile(file)
		if got := strings.Count(string(b), text); err == nil && got < n {
			err = fmt.Errorf("%d times", got)
		}
		return err
	})
}

func (d *dynasty) addr(t testing.TB, service string) netip.AddrPort {
	t.Helper()
	b, err := os.ReadFile(d.out)
	must(t, err)
	l := &lictor{stdout: &testproc.Log{}}
	_, _ = l.stdout.Write(b)
	return l.addr(t, service)
}

// command runs a command that asks the current process.
func (d *dynasty) command(t testing.TB, args ...string) (code int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, lictorPath(t),
		append(args, "-admin", "unix://"+filepath.Join(d.runtime, "admin.sock"))...)
	cmd.Env = environment()
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

// upgrade upgrades to the next process, and returns its process ID.
func (d *dynasty) upgrade(t testing.TB) int {
	t.Helper()
	code, output := d.command(t, "upgrade")
	f := strings.Fields(output)
	if code != 0 || len(f) < 3 {
		t.Fatalf("lictor upgrade: exit code %d: %s", code, output)
	}
	pid, err := strconv.Atoi(strings.TrimSuffix(f[2], ","))
	must(t, err)
	return pid
}

// upgrades returns how many upgrades a test makes: LICTOR_E2E_UPGRADES, or else as many as usual.
func upgrades(t testing.TB, usual int) int {
	t.Helper()
	text := os.Getenv("LICTOR_E2E_UPGRADES")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// A crowd is a number of clients, each of which repeats something. A client that fails, fails the test.
type crowd struct {
	testing.TB
	stop    chan struct{}
	names   []string
	turns   []*atomic.Int64
	running sync.WaitGroup
}

func newCrowd(t testing.TB) *crowd { return &crowd{TB: t, stop: make(chan struct{})} }

func (l *crowd) add(name string, turn func(i int) error) {
	done := new(atomic.Int64)
	l.names, l.turns = append(l.names, name), append(l.turns, done)
	l.running.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-l.stop:
				return
			default:
			}
			if err := turn(i); err != nil {
				l.Errorf("%s %d failed: %v", name, i, err)
				return
			}
			done.Add(1)
		}
	})
}

// getOn waits until each client has done n more turns.
func (l *crowd) getOn(n int64) {
	l.Helper()
	for i, done := range l.turns {
		before := done.Load()
		eventually(l.TB, "more turns of "+l.names[i], func() error {
			if done.Load() < before+n && !l.Failed() {
				return fmt.Errorf("%d", done.Load()-before)
			}
			return nil
		})
	}
}

func (l *crowd) end() {
	close(l.stop)
	l.running.Wait()
}

func (l *crowd) String() string {
	sums := map[string]int64{}
	var order, parts []string
	for i, name := range l.names {
		if sums[name] += l.turns[i].Load(); !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for _, name := range order {
		parts = append(parts, fmt.Sprintf("%d %ss", sums[name], name))
	}
	return strings.Join(parts, ", ")
}

// exactly sends a datagram once and waits for its answer, because no datagram may be lost here.
func exactly(c *udpClient, datagram string) (string, error) {
	if _, err := c.Write([]byte(datagram)); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<10)
	n, err := c.Read(buf)
	return string(buf[:n]), err
}

// addAll adds clients of every kind. The UDP instances must be those of startWhence.
func (l *crowd) addAll(tcp, udp netip.AddrPort) {
	for range 4 {
		l.add("connection", func(int) error { _, err := ask(l.Context(), tcp); return err })
	}
	kept := mustConnect(l, tcp)
	l.add("request over a kept connection", func(i int) error { return kept.echo(fmt.Sprint("request ", i)) })
	for range 2 {
		long, first := dialUDP(l, udp), ""
		l.add("exchange of a long session", func(i int) error {
			got, err := exactly(long, "whence")
			if first == "" {
				first = got
			}
			if err == nil && got != first {
				err = fmt.Errorf("now served as %q, was %q", got, first)
			}
			return err
		})
		l.add("new session", func(i int) error {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(udp))
			if err != nil {
				return err
			}
			defer c.Close()
			for range 2 {
				if _, err = exactly(&udpClient{c}, "whence"); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// startWhence starts a UDP instance. Its answer to a datagram is its name and the address from which the datagram came.
func startWhence(t testing.TB, name string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<10)
		for {
			_, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(fmt.Appendf(nil, "%s %s", name, from), from)
		}
	})
	t.Cleanup(func() { _ = c.Close(); running.Wait() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestUpgradesUnderLoadFailNothing(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b"} {
		c.register(t, "web", name, startEcho(t, name).addr)
		c.register(t, "dns", "dns-"+name, startWhence(t, name))
	}
	d := found(t, consulBlock(c)+service("web")+service("dns", udp))
	l := newCrowd(t)
	l.addAll(d.addr(t, "web"), d.addr(t, "dns"))
	n := upgrades(t, 10)
	for i := 0; i < n && !t.Failed(); i++ {
		l.getOn(20)
		if i%2 == 0 {
			d.upgrade(t)
		} else {
			d.upgradeBySignal(t)
		}
	}
	l.getOn(20)
	l.end()
	t.Logf("%d upgrades: %s; none failed: %v", n, l, !t.Failed())
}

// upgradeBySignal is upgrade without the command.
func (d *dynasty) upgradeBySignal(t testing.TB) {
	t.Helper()
	const taken = `"taken over from another process"`
	b, err := os.ReadFile(d.err)
	must(t, err)
	must(t, syscall.Kill(d.pid(t), syscall.SIGUSR2))
	d.awaitText(t, d.err, taken, strings.Count(string(b), taken)+1)
}

// pid returns the ID of the process that serves now, from its own answer. Right after an upgrade, the old process may
// still answer.
func (d *dynasty) pid(t testing.TB) (pid int) {
	t.Helper()
	eventually(t, "a status", func() error {
		code, output := d.command(t, "status", "-json")
		_, text, found := strings.Cut(output, `"pid": `)
		if code != 0 || !found {
			return fmt.Errorf("exit code %d: %s", code, output)
		}
		_, err := fmt.Sscan(text, &pid)
		return err
	})
	return pid
}
