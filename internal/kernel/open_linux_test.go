//go:build amd64 || arm64

package kernel

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestOpenForAnotherGroup(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	root, err := findCgroup("")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, group, "clients"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(filepath.Join(root, group, "clients")) })
	b := newBackend(t, "127.0.0.1:0")
	p := open(t, Options{Cgroup: group + "/clients"})
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: b.addr}}})
	if err := exchange("tcp", front.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a client outside of the group: error %v, want connection refused", err)
	}
	wantCounters(t, p, Counters{})
}

func TestOwnConnectionsAreLeftAlone(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	b := newBackend(t, "127.0.0.1:0")
	p, err := Open(Options{Cgroup: group})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: b.addr}}})
	if err := exchange("tcp", front.String()); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("error %v, want connection refused", err)
	}
}

func TestNoSuchGroup(t *testing.T) {
	var e *Error
	if _, err := Open(Options{Cgroup: "/no/such/group"}); !errors.As(err, &e) || e.Reason != NoCgroup {
		t.Errorf("error %v, want an Error for %q", err, NoCgroup)
	}
}

func TestOpenWithCapabilitiesTakenAway(t *testing.T) {
	if held, err := capabilities(); err != nil || held&(1<<unix.CAP_BPF) == 0 {
		testproc.Cannot(t, "capabilities cannot be taken away", errors.New("the process has no CAP_BPF"))
	}
	for _, tt := range []struct {
		name    string
		held    uint64
		missing string // "": Open succeeds
		cutsUDP bool
	}{
		{"none", 0, "CAP_BPF and CAP_NET_ADMIN", false},
		{"BPF", 1 << unix.CAP_BPF, "CAP_NET_ADMIN", false},
		{"NET_ADMIN", 1 << unix.CAP_NET_ADMIN, "CAP_BPF", false},
		{"BPF, NET_ADMIN", 1<<unix.CAP_BPF | 1<<unix.CAP_NET_ADMIN, "", false},
		{"BPF, NET_ADMIN, PERFMON", 1<<unix.CAP_BPF | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_PERFMON, "", true},
		{"SYS_ADMIN", 1 << unix.CAP_SYS_ADMIN, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !again(t, func(*exec.Cmd) {}) { // what one of them cannot do would be remembered for the next
				return
			}
			runtime.LockOSThread() // and never unlocked: the thread ends with the test
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			low, high := uint32(tt.held), uint32(tt.held>>32)
			data := [2]unix.CapUserData{{Effective: low, Permitted: low}, {Effective: high, Permitted: high}}
			if err := unix.Capset(&header, &data[0]); err != nil {
				t.Fatal(err)
			}
			p, err := Open(Options{})
			if err == nil {
				if err := p.CanCut(false); err != nil {
					t.Errorf("TCP connections: %v", err)
				}
				if err := p.CanCut(true); (err == nil) != tt.cutsUDP {
					t.Errorf("UDP sockets: %v", err)
				}
				_ = p.Close()
			}
			var e *Error
			switch {
			case tt.missing == "" && err != nil:
				t.Error(err)
			case tt.missing != "" && (!errors.As(err, &e) || e.Reason != NoCapability ||
				!strings.HasSuffix(e.Detail, " without "+tt.missing)):
				t.Errorf("error %v, want that %s is missing", err, tt.missing)
			}
		})
	}
}

// again runs the calling test once more, in another process of this program. It returns true only there.
func again(t *testing.T, change func(*exec.Cmd)) bool {
	t.Helper()
	if isAgain(t) {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	this := "^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$"
	cmd := exec.Command(self, "-test.run", this, "-test.v", "-test.count", "1")
	cmd.Env = append(os.Environ(), againVariable+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	change(cmd)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the other process: %v\n%s", err, out)
	}
	return false
}

// againVariable is the environment variable with the name of the test for which again has started a process.
const againVariable = "LICTOR_TEST_AGAIN"

func isAgain(t *testing.T) bool { return os.Getenv(againVariable) == t.Name() }

func TestPrivateCgroupNamespace(t *testing.T) {
	if !isAgain(t) {
		// The root of a new cgroup namespace is the group in which the process is. It must not be the real root.
		if _, inside := inGroup(t); !inside {
			return
		}
	}
	if !again(t, func(cmd *exec.Cmd) { cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWCGROUP | unix.CLONE_NEWNS }) {
		return
	}
	dir := t.TempDir()
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("none", dir, "cgroup2", 0, "")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, 0) }()
	var e *Error
	if _, err := Open(Options{}); !errors.As(err, &e) || e.Reason != PrivateRoot {
		t.Errorf("error %v, want an Error for %q", err, PrivateRoot)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{}); !errors.As(err, &e) || e.Reason != NoCgroup {
		t.Errorf("without a mount: error %v, want an Error for %q", err, NoCgroup)
	}
}

func TestCgroupMount(t *testing.T) {
	for _, tt := range []struct{ name, mounts, want string }{
		{"none", "25 1 0:22 / /sys rw - sysfs sysfs rw\n", ""},
		{"unified", "30 25 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup"},
		{"a part", "30 25 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n", ""},
		{"space", "30 25 0:26 / /mnt/a\\040b rw - cgroup2 none rw\n", "/mnt/a b"},
		{"the last", "30 25 0:26 / /a rw - cgroup2 none rw\n31 25 0:26 / /b rw - cgroup2 none rw\n", "/b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := cgroupMount(tt.mounts); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	use := func() {
		p, err := Open(Options{Cgroup: group, Events: func(Event) {}})
		if err != nil {
			t.Fatal(err)
		}
		set(t, p, Service{Name: "web", Listen: []netip.AddrPort{front}, Endpoints: []Endpoint{{Addr: front}}})
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := p.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if err := p.Set(Service{Name: "web"}); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Set after Close: error %v, want ErrClosed", err)
		}
	}
	use() // the libraries keep a few descriptors and goroutines
	open, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 5 {
		use()
	}
	testproc.Await(t, "all descriptors to be closed", func() bool { return descriptors(t) <= open })
	testproc.Await(t, "all goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
	testproc.Await(t, "the memory of all maps to be released", func() bool {
		runtime.GC() // releases the memory of variables
		maps, err := os.ReadFile("/proc/self/maps")
		return err == nil && !strings.Contains(string(maps), "bpf-map")
	})
}

// descriptors returns the number of open descriptors.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
