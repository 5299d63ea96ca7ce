package cycles

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testnet"
)

// The kernel reports added and removed addresses, and Run ends with its context.
func TestTheKernelTellsOfAddresses(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	changed, ended := make(chan struct{}, 1), make(chan error)
	go func() { ended <- hearOfAddresses(ctx, changed) }()
	addr := netip.MustParsePrefix("10.0.0.5/24")
	awaitChange := func(change func(testing.TB, string, netip.Prefix)) {
		t.Helper()
		for { // Run may not listen yet
			change(t, "lo", addr)
			select {
			case <-changed:
				return
			case err := <-ended:
				t.Fatal(err)
			case <-time.After(time.Second):
				testnet.RemoveAddress(t, "lo", addr)
			}
		}
	}
	awaitChange(testnet.AddAddress)
	for len(changed) > 0 {
		<-changed
	}
	testnet.RemoveAddress(t, "lo", addr)
	<-changed
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestRunFollowsTheAddressesOfThisHost(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	w := newWorld(t)
	w.Detector.addrs = interfaceAddrs
	judged := make(chan struct{}, 1)
	judge := w.Detector.changed
	w.Detector.changed = func() {
		judge()
		select {
		case judged <- struct{}{}:
		default:
		}
	}
	w.listens("web 0.0.0.0:80")
	w.has("web", "10.0.0.5:80")
	w.wants()
	for len(judged) > 0 {
		<-judged
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Detector.Run(ctx) })
	<-judged // the loopback address
	testnet.AddAddress(t, "lo", netip.MustParsePrefix("10.0.0.5/24"))
	<-judged
	cancel()
	running.Wait()
	w.wants("web 10.0.0.5:80 loop: 10.0.0.5:80 is where this service listens")
}

// Two interfaces may have the same link-local address. The kernel accepts an interface's index as well as its name.
func TestLinkLocalAddresses(t *testing.T) {
	if !testnet.Inside(t) {
		return
	}
	testnet.AddInterfaces(t, "here", "there")
	testnet.AddAddress(t, "here", netip.MustParsePrefix("fe80::1/64"))
	here, err := net.InterfaceByName("here")
	if err != nil {
		t.Fatal(err)
	}
	number := strconv.Itoa(here.Index)
	w := newWorld(t, "fe80::1/64")
	w.listens("all [::]:80", "one [fe80::1%here]:81")
	w.has("all", "[fe80::1%here]:80", "[fe80::1%"+number+"]:80", "[fe80::1%there]:80", "[fe80::2%here]:80")
	w.has("one", "[fe80::1%here]:81", "[fe80::1%"+number+"]:81", "[fe80::1%there]:81", "[fe80::1]:81")
	w.wants(
		"all [fe80::1%"+number+"]:80 loop: [fe80::1%"+number+"]:80 is where this service listens",
		"all [fe80::1%here]:80 loop: [fe80::1%here]:80 is where this service listens",
		"one [fe80::1%"+number+"]:81 loop: [fe80::1%"+number+"]:81 is where this service listens",
		"one [fe80::1%here]:81 loop: [fe80::1%here]:81 is where this service listens")
}
