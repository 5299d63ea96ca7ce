package testcgroup

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A Group is a group of the cgroup2 hierarchy; see cgroups(7). Its methods must not be called concurrently.
type Group struct {
	Name string // such as "/system.slice", as in /proc/PID/cgroup

	path string // folder
	home string // folder of the group in which this process was
}

// New makes a group below the one of this process. The caller removes it with Remove.
func New() (*Group, error) {
	root, err := root()
	if err != nil {
		return nil, err
	}
	name, err := own()
	if err != nil {
		return nil, err
	}
	home := filepath.Join(root, name)
	folder, err := os.MkdirTemp(home, "lictor-test-")
	if err != nil {
		return nil, err
	}
	return &Group{Name: path.Join(name, filepath.Base(folder)), path: folder, home: home}, nil
}

// Make is New for a test. The group ends with the test. Without a cgroup2 hierarchy that may be changed, the test is
// skipped, or fails in CI.
func Make(t testing.TB) *Group {
	t.Helper()
	g, err := New()
	if err != nil {
		testproc.Cannot(t, "a control group cannot be made", err)
	}
	t.Cleanup(func() {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// Enter moves this process into the group. Sockets belong to the group in which they were opened, and child processes
// to that in which they were started.
func (g *Group) Enter() error { return move(g.path) }

// Leave moves this process back.
func (g *Group) Leave() error { return move(g.home) }

// Remove moves this process back, and removes the group. Other processes must have left the group, or be about to end.
func (g *Group) Remove() error {
	if err := g.Leave(); err != nil {
		return err
	}
	return remove(g.path)
}

// Remove removes the group with a name, which New has made in another process.
func Remove(name string) error {
	root, err := root()
	if err != nil {
		return err
	}
	return remove(filepath.Join(root, name))
}

// Programs returns how many programs are attached to the group that run when sockets connect, send or receive.
func (g *Group) Programs(t testing.TB) int {
	t.Helper()
	dir, err := os.Open(g.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	n := 0
	for _, attach := range []ebpf.AttachType{
		ebpf.AttachCGroupInet4Connect, ebpf.AttachCGroupInet6Connect,
		ebpf.AttachCgroupInet4GetPeername, ebpf.AttachCgroupInet6GetPeername, ebpf.AttachCGroupSockOps,
		ebpf.AttachCGroupUDP4Sendmsg, ebpf.AttachCGroupUDP6Sendmsg,
		ebpf.AttachCGroupUDP4Recvmsg, ebpf.AttachCGroupUDP6Recvmsg,
	} {
		result, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: attach})
		if err != nil {
			t.Fatal(err)
		}
		n += len(result.Programs)
	}
	return n
}

// remove removes the folder of a group. It waits up to five seconds for processes that are ending.
func remove(folder string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := os.Remove(folder)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// move moves this process, with all threads, to the group with the given folder.
func move(folder string) error {
	return os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte("0"), 0)
}

// own returns the name of this process's group.
func own() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return name, nil
		}
	}
	return "", errors.New("/proc/self/cgroup: no group of the cgroup2 hierarchy")
}

// root returns where the cgroup2 hierarchy is mounted; see proc_pid_mountinfo(5).
func root() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		mount, source, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if ok && strings.HasPrefix(source, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.Join(errors.New("no cgroup2 hierarchy is mounted"), lines.Err())
}
