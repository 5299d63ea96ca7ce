package testnet

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// variable is the environment variable with the name of the test for which a process in a namespace runs.
const variable = "LICTOR_TEST_IN_NAMESPACE"

// Inside runs the rest of the calling test in a network namespace that has only a loopback interface. Inside starts
// another process of this program there, with env added to its environment. Processes that the test starts are in the
// namespace too. Inside returns true only in that other process. Without namespaces the test is skipped, or fails in
// CI.
func Inside(t *testing.T, env ...string) bool {
	t.Helper()
	if os.Getenv(variable) == t.Name() {
		if err := bringUp("lo"); err != nil {
			t.Fatal(err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.v", "-test.count", "1", "-test.timeout", "5m")
	cmd.Env = append(append(os.Environ(), variable+"="+t.Name()), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 { // a user may be root in a user namespace
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if errors.As(err, new(*os.PathError)) && len(out) == 0 {
		testproc.Cannot(t, "a network namespace cannot be made", err)
	}
	switch text := string(out); {
	case strings.Contains(text, "--- SKIP: "+t.Name()):
		t.Skipf("in the namespace:\n%s", text)
	case err != nil || !strings.Contains(text, "--- PASS: "+t.Name()):
		t.Fatalf("in the namespace: %v\n%s", err, text)
	case testing.Verbose():
		t.Logf("in the namespace:\n%s", text)
	}
	return false
}

// BringUp brings up an interface.
func BringUp(t testing.TB, name string) {
	t.Helper()
	if err := bringUp(name); err != nil {
		t.Fatal(err)
	}
}

// bringUp brings up an interface of the calling thread's namespace.
func bringUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
