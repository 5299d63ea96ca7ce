package lb

import (
	"net/netip"
	"sync"
	"testing"
)

// An update of one service does not wait for another service's update. In this test, the other update blocks in the
// NotifyGone callback.
func TestUpdatesOfServicesDoNotWaitForEachOther(t *testing.T) {
	b := NewRoundRobin()
	stuck, release := make(chan struct{}), make(chan struct{})
	b.NotifyGone(func([]*Member) {
		close(stuck)
		<-release
	})
	b.OnUpdate([]Endpoints{{Service: "a", Endpoints: placed("A")}, {Service: "b", Endpoints: placed("B")}})
	if _, err := b.NextEndpoint("a", netip.AddrPort{}, Tried{}); err != nil { // keeps the endpoint in use
		t.Fatal(err)
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer close(release)
	running.Go(func() { b.OnUpdate([]Endpoints{{Service: "a", Left: departed(Critical, "A")}}) })
	<-stuck

	b.OnUpdate([]Endpoints{{Service: "b", Endpoints: placed("C")}, {Service: "c", Endpoints: placed("D")}})
	b.Configure("b", Options{Policy: PolicyRandomTwo})
	for service, want := range map[string]string{"b": "C", "c": "D"} {
		if m, err := b.NextEndpoint(service, netip.AddrPort{}, Tried{}); err != nil || m.ID != want {
			t.Errorf("%s: got %v and error %v, want %s", service, m, err, want)
		}
	}
	b.OnUpdate([]Endpoints{{Service: "b", Removed: true}})
	if _, err := b.NextEndpoint("b", netip.AddrPort{}, Tried{}); err != ErrMissingServiceEntry {
		t.Errorf("got %v after the service was removed", err)
	}
}

// After any sequence of updates, options and removals of one service, the last update takes effect. A removed service
// leaves no addresses behind.
func TestRemovalsBetweenUpdates(t *testing.T) {
	b := NewRoundRobin()
	var running sync.WaitGroup
	often := func(f func()) {
		running.Go(func() {
			for range 3000 {
				f()
			}
		})
	}
	often(func() { b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("A", "B")}}) })
	often(func() { b.OnUpdate([]Endpoints{{Service: "web", Removed: true}}) })
	often(func() { b.Configure("web", Options{Policy: PolicyLeastConnections}) })
	running.Wait()

	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("C")}})
	if m, err := b.NextEndpoint("web", netip.AddrPort{}, Tried{}); err != nil || m.ID != "C" {
		t.Errorf("got %v and error %v, want C", m, err)
	} else {
		m.Done()
	}
	b.OnUpdate([]Endpoints{{Service: "web", Removed: true}})
	if n := len(b.registry.healths); n != 0 {
		t.Errorf("%d addresses are still known without a service", n)
	}
}

// A caller that looked up a group before its removal must look it up again.
func TestARemovedGroupTakesNothing(t *testing.T) {
	b := NewRoundRobin()
	g := b.groupOf("web")
	b.OnUpdate([]Endpoints{{Service: "web", Removed: true}})
	if g.update(placed("A"), nil) || g.configure(Options{}) {
		t.Error("a removed group has taken an update or options")
	}
	if n := len(b.registry.healths); n != 0 {
		t.Errorf("%d addresses are still known without a service", n)
	}
}
