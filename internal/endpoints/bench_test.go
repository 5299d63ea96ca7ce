package endpoints

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/lb"
)

const (
	benchServices  = 1000
	benchEndpoints = 10 // of each service
)

// A benchHouse is a source with many services, and the path of its updates to the balancer.
type benchHouse struct {
	sink     discovery.Sink // the sink that the source feeds
	services [benchServices][2]lb.Endpoints
}

// newBenchHouse returns a benchHouse with a first set for each service. The function sink wraps the balancer.
func newBenchHouse(b *testing.B, sink func(*lb.RoundRobin) discovery.Sink) *benchHouse {
	b.Helper()
	var listeners []cycles.Service
	var names []string
	h := &benchHouse{}
	for i := range benchServices {
		name := fmt.Sprintf("service-%04d", i)
		names = append(names, name)
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(9000+i))
		listeners = append(listeners, cycles.Service{Name: name, Listen: []lb.Addr{{AddrPort: at}}})
		for j := range h.services[i] { // the sets differ in one endpoint
			h.services[i][j] = benchSet(name, i, j)
		}
	}
	detector := cycles.New(cycles.Options{Addrs: func() ([]netip.Prefix, error) { return nil, nil }})
	detector.Listen(listeners, nil)
	sets := NewSets(sink(lb.NewRoundRobin()), NewEvents(), detector)
	mux := NewMux(sets)
	s := scripted{make(chan discovery.Sink, 1)}
	f := mux.Start(s, names, hclog.NewNullLogger())
	b.Cleanup(f.Stop)
	mux.Commit(names, f)
	h.sink = <-s.sink
	h.round(0)
	<-mux.Ready()
	return h
}

func benchSet(name string, i, state int) lb.Endpoints {
	set := lb.Endpoints{Service: name}
	for k := range benchEndpoints {
		if k == 0 {
			k = benchEndpoints + state
		}
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(k)}), 8080)
		e := lb.Endpoint{ID: fmt.Sprintf("node-%d/%s", k, name), Addr: addr, Weight: 1}
		set.Endpoints = append(set.Endpoints, e)
	}
	return set
}

// round changes all services at once, each in its own goroutine, and waits for all of them.
func (h *benchHouse) round(n int) {
	var running sync.WaitGroup
	for i := range h.services {
		running.Go(func() { h.sink.OnUpdate([]lb.Endpoints{h.services[i][n%2]}) })
	}
	running.Wait()
}

// measure runs rounds, and reports the time of one update.
func (h *benchHouse) measure(b *testing.B) {
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		h.round(n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/benchServices, "ns/update")
}

// BenchmarkServicesChangeAtOnce measures an update when a thousand services change at once.
func BenchmarkServicesChangeAtOnce(b *testing.B) {
	h := newBenchHouse(b, func(next *lb.RoundRobin) discovery.Sink { return next })
	h.measure(b)
}

// A slowSink takes long for the updates of one service.
type slowSink struct {
	discovery.Sink
	service string
}

func (s *slowSink) OnUpdate(updates []lb.Endpoints) {
	for i := range updates {
		if updates[i].Service == s.service {
			time.Sleep(time.Millisecond)
		}
	}
	s.Sink.OnUpdate(updates)
}

// BenchmarkServicesChangeBesideASlowOne measures the same while another service changes all the time. An update of that
// service takes a millisecond.
func BenchmarkServicesChangeBesideASlowOne(b *testing.B) {
	const slow = "slow"
	h := newBenchHouse(b, func(next *lb.RoundRobin) discovery.Sink { return &slowSink{next, slow} })
	sets := h.sink.(*Input).mux.sets
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			default:
				sets.OnUpdate([]lb.Endpoints{benchSet(slow, benchServices, n%2)})
			}
		}
	})
	h.measure(b)
	close(done)
	running.Wait()
}
