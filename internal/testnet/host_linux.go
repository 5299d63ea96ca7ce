package testnet

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A Host is another host of the test's network: a network namespace of its own, connected to that of the test.
type Host struct{ ns *os.File }

// A Link is a network between the test's namespace and a Host.
type Link struct{ Here, There netip.Prefix }

// AddHost makes a host. An interface with the given name connects the test's namespace with it, and carries the given
// networks. The host sends everything else through the test's namespace. Call AddHost in a namespace of the test; see
// Inside.
func AddHost(t testing.TB, name string, links ...Link) *Host {
	t.Helper()
	ns, err := newNamespace()
	if err != nil {
		testproc.Cannot(t, "a network namespace cannot be made", err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	h := &Host{ns}
	if err := addInterfaces(name, "eth0", ns); err != nil {
		testproc.Cannot(t, "interfaces cannot be made", err)
	}
	BringUp(t, name)
	h.Do(func() {
		for _, i := range []string{"lo", "eth0"} {
			if err := bringUp(i); err != nil {
				t.Error(err)
			}
		}
	})
	for _, l := range links {
		AddAddress(t, name, l.Here)
		h.Do(func() {
			AddAddress(t, "eth0", l.There)
			addDefaultRoute(t, l.Here.Addr())
		})
	}
	return h
}

// Do calls f on a thread that is in the host's namespace meanwhile. Sockets that f opens belong to the host. Goroutines
// that f starts are in the test's namespace.
func (h *Host) Do(f func()) {
	if err := elsewhere(func() error { return unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET) }, f); err != nil {
		panic(err)
	}
}

func newNamespace() (ns *os.File, err error) {
	var opened error
	err = elsewhere(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() { ns, opened = openNamespace() })
	return ns, errors.Join(err, opened)
}

// openNamespace opens the network namespace of the calling thread.
func openNamespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// elsewhere moves the thread to another namespace by enter, calls f, and moves the thread back. The thread must live
// on, because processes of the test that it has started would end with it (PR_SET_PDEATHSIG).
func elsewhere(enter func() error, f func()) error {
	runtime.LockOSThread()
	home, err := openNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread stays locked, so no other goroutine gets it
		}
		_ = home.Close()
		runtime.UnlockOSThread()
	}()
	if err := enter(); err != nil {
		return err
	}
	f()
	return nil
}
