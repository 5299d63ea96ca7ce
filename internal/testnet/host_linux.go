package testnet

import (
	"net/netip"
	"os"
	"runtime"
	"sync"
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

// Do calls f in a goroutine whose thread is in the host's namespace, and waits for it. Sockets that f opens belong to
// the host. f must not call t.Fatal, and goroutines that f starts are in the test's namespace.
func (h *Host) Do(f func()) {
	var err error
	onThread(func() {
		if err = unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET); err == nil {
			f()
		}
	})
	if err != nil {
		panic(err)
	}
}

func newNamespace() (ns *os.File, err error) {
	onThread(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			ns, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	return ns, err
}

// onThread calls f on a thread that ends afterwards.
func onThread(f func()) {
	var running sync.WaitGroup
	running.Go(func() {
		runtime.LockOSThread() // a goroutine that ends locked ends its thread
		f()
	})
	running.Wait()
}
