package e2e

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testseccomp"
)

// staticServices returns a TCP service web and a UDP service dns, each with one instance.
func staticServices(web netip.AddrPort, instances ...*instance) string {
	return serviceAt("web", web, endpoints(instances[0])) + service("dns", udp, endpoints(instances[1]))
}

// If the system denies the calls that make Lictor fast, Lictor uses other calls for TCP, UDP, its admin API and
// reloads. The log and lictor status say what Lictor does instead.
func TestServesWhereFastCallsAreDenied(t *testing.T) {
	t.Parallel()
	for _, denied := range []syscall.Errno{unix.EPERM, unix.ENOSYS} {
		t.Run(unix.ErrnoName(denied), func(t *testing.T) {
			web, a, dns := freePort(t), startEcho(t, "a"), startUDP(t, "a")
			wrapper := testseccomp.Wrapper(denied, unix.SYS_SPLICE, unix.SYS_PIPE2, unix.SYS_RECVMMSG,
				unix.SYS_SENDMMSG,
				unix.SYS_ACCEPT4, unix.SYS_INOTIFY_INIT1, unix.SYS_SCHED_GETAFFINITY)
			l := launchLictor(t, staticServices(web, a, dns), nil, wrapper, "-watch")
			l.awaitReady(t)
			echoIntact(t, web, 3<<20)
			loseNothing(t, dialUDP(t, l.addr(t, "dns")))
			l.awaitAnswer(t, "status", 0, "the system denies splice ("+denied.Error()+"): bulk transfers are copied",
				"the system denies accept4")
			said := 0
			for _, e := range l.log() {
				if e.field("@message") == "the system denies a call" && e.field("call") == "splice" {
					said++
				}
				if n := e.field("processors"); n != "" && n != fmt.Sprint(runtime.NumCPU()) {
					t.Errorf("lictor found %s processors, want %d", n, runtime.NumCPU())
				}
			}
			if said != 1 {
				t.Errorf("the log says %d times that splice is denied, want once", said)
			}
			l.configure(t, staticServices(web, startEcho(t, "b"), dns))
			awaitRotation(t, web, "b")
		})
	}
}

// echoIntact sends bytes to an instance that echoes, and fails the test unless the same bytes and the end come back.
func echoIntact(t *testing.T, addr netip.AddrPort, size int64) {
	t.Helper()
	conn := mustConnect(t, addr)
	must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	sent, got := sha256.New(), sha256.New()
	sending := make(chan error, 1)
	go func() { sending <- send(conn.TCPConn, size, sent) }()
	n, err := io.Copy(got, conn.reader)
	must(t, err)
	must(t, <-sending)
	if n != size || !bytes.Equal(got.Sum(nil), sent.Sum(nil)) {
		t.Errorf("got %d bytes with sum %x, want %d with %x", n, got.Sum(nil), size, sent.Sum(nil))
	}
}

// loseNothing sends a few datagrams at a time, and waits until each has come back.
func loseNothing(t *testing.T, c *udpClient) {
	t.Helper()
	for round := range 10 {
		want := map[string]bool{}
		for i := range 10 {
			text := fmt.Sprintf("%d of round %d", i, round)
			want[text] = true
			_, err := io.WriteString(c, text)
			must(t, err)
		}
		for len(want) > 0 {
			got := c.receive(t)
			if !want[got] {
				t.Fatalf("got %q, want one of %d others", got, len(want))
			}
			delete(want, got)
		}
	}
}

// If the system denies a call that every Go program needs for the network, Lictor names the call instead of printing a
// stack trace.
func TestSaysWhatItCannotDoWithout(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	file := filepath.Join(t.TempDir(), "lictor.hcl")
	must(t, os.WriteFile(file, []byte(service("web", `static { endpoints = ["127.0.0.1:9"] }`)), 0o600))
	for name, call := range map[string]int{
		"epoll_create1": unix.SYS_EPOLL_CREATE1, "epoll_ctl": unix.SYS_EPOLL_CTL,
		"epoll_pwait": unix.SYS_EPOLL_PWAIT, "eventfd2": unix.SYS_EVENTFD2,
	} {
		for _, denied := range []syscall.Errno{unix.EPERM, unix.ENOSYS} {
			t.Run(name+" "+unix.ErrnoName(denied), func(t *testing.T) {
				args := append(testseccomp.Wrapper(denied, call), lictorPath(t), "run", "-config", file)
				cmd := exec.Command(args[0], args[1:]...)
				cmd.Env = environment()
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 1 {
					t.Errorf("got %v, want exit code 1", err)
				}
				want := "lictor: the system denies " + name + ": " + denied.Error()
				if text := string(out); !strings.HasPrefix(text, want) || strings.Count(text, "\n") != 1 {
					t.Errorf("got %q, want one line that begins with %q", text, want)
				}
			})
		}
	}
}
