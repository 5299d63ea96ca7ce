package endpoints

import (
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/cycles"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// A gate is a sink that blocks the updates of one service, and passes on those of others.
type gate struct {
	next    discovery.Sink
	service string
	entered chan struct{} // has an element for each update that has reached the gate
	open    chan struct{} // closed when updates are no longer blocked

	mu   sync.Mutex
	told []lb.Endpoints // updates of the service
}

func newGate(next discovery.Sink, service string) *gate {
	return &gate{next: next, service: service, entered: make(chan struct{}, 100), open: make(chan struct{})}
}

func (g *gate) OnUpdate(updates []lb.Endpoints) {
	for _, u := range updates {
		if u.Service != g.service {
			continue
		}
		g.mu.Lock()
		g.told = append(g.told, u)
		g.mu.Unlock()
		g.entered <- struct{}{}
		<-g.open
	}
	g.next.OnUpdate(updates)
}

// heard returns the IDs of the endpoints in each update of the service, and of all departures.
func (g *gate) heard() (sets [][]string, left []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, u := range g.told {
		sets = append(sets, idsOf(u.Endpoints))
		for _, d := range u.Left {
			left = append(left, d.ID)
		}
	}
	return sets, left
}

func idsOf(set []lb.Endpoint) (ids []string) {
	for _, e := range set {
		ids = append(ids, e.ID)
	}
	return ids
}

// shows waits until the view of a service has exactly these endpoints.
func shows(t *testing.T, s *Sets, service string, ids ...string) {
	t.Helper()
	testproc.Await(t, service+" is shown anew", func() bool {
		v, _ := s.View(service)
		var got []string
		for _, e := range v.Endpoints {
			got = append(got, e.ID)
		}
		return slices.Equal(got, ids)
	})
}

// An update that is stuck on its way to the balancer delays only its own service.
func TestAStuckServiceHoldsUpNoOther(t *testing.T) {
	b := lb.NewRoundRobin()
	g := newGate(b, "stuck")
	s := NewSets(g, NewEvents(), nil)
	m := NewMux(s)
	in, say := startScripted(t, m, "stuck", "web", "dns")
	m.Commit([]string{"stuck", "web", "dns"}, in)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { say("stuck", "s") })
	<-g.entered
	release := sync.OnceFunc(func() { close(g.open) })
	defer release()

	say("web", "a")
	serves(t, b, "web", "a")
	say("web", "b")
	serves(t, b, "web", "b")
	mustDrain(t, s, "web", "b")
	serves(t, b, "web", lb.ErrMissingEndpoints.Error())
	mustUndrain(t, s, "web", "b")
	say("dns", "d")
	shows(t, s, "stuck", "s")
	if sets, _ := s.Export(); len(sets) != 3 {
		t.Errorf("exported %v, want all three", sets)
	}
	select {
	case <-m.Ready():
		t.Error("ready before the balancer has been told of all services")
	default:
	}

	next, sayNext := startScripted(t, m, "stuck", "web", "new")
	sayNext("stuck", "n")
	sayNext("web", "n")
	sayNext("new", "n")
	serves(t, b, "new", "n")
	running.Go(func() { m.Commit([]string{"stuck", "web", "new"}, next) })
	testproc.Await(t, "the new source speaks for web", func() bool { return served(b, "web") == "n" })
	release()
	<-m.Ready()
	testproc.Await(t, "and for stuck", func() bool { return served(b, "stuck") == "n" })
}

// Updates during a slow call of the balancer are merged into one, with all departures.
func TestUpdatesWhileTheBalancerIsBusy(t *testing.T) {
	g := newGate(lb.NewRoundRobin(), "web")
	s := NewSets(g, NewEvents(), nil)
	var running sync.WaitGroup
	update := func(left string, ports ...uint16) {
		u := setOf("web", ports...)
		if left != "" {
			u.Left = []lb.Departure{{Endpoint: lb.Endpoint{ID: left}, Why: lb.Critical}}
		}
		running.Go(func() {
			s.OnUpdate([]lb.Endpoints{u})
			if sets, _ := g.heard(); slices.Contains(sets[len(sets)-1], left) {
				t.Errorf("told of %v when the update that %s has left is done", sets, left)
			}
		})
	}
	update("", 1, 2, 3)
	<-g.entered
	update("1", 2, 3)
	shows(t, s, "web", "2", "3")
	update("2", 3, 4)
	shows(t, s, "web", "3", "4")
	running.Go(func() {
		if _, err := s.Drain("web", "4", Order{}); err != nil {
			t.Error(err)
		}
	})
	close(g.open)
	running.Wait()
	sets, left := g.heard()
	if last := sets[len(sets)-1]; !slices.Equal(last, []string{"3"}) {
		t.Errorf("told of %v, want 3 alone at last", sets)
	}
	if !slices.Equal(left, []string{"1", "2"}) {
		t.Errorf("told that %v have left, want 1 and 2, once each", left)
	}
	if len(sets) > 3 {
		t.Errorf("told of %v: the two that waited are one update", sets)
	}
}

// A verdict on a stuck service reaches the balancer when the service continues, and delays no other service.
func TestAVerdictOnAStuckService(t *testing.T) {
	detector := cycles.New(cycles.Options{Addrs: func() ([]netip.Prefix, error) { return nil, nil }})
	listeners := []cycles.Service{
		{Name: "a", Listen: []lb.Addr{{AddrPort: at(1)}}},
		{Name: "b", Listen: []lb.Addr{{AddrPort: at(2)}}, Static: []lb.Endpoint{{Addr: at(1)}}},
	}
	detector.Listen(listeners, nil)
	b := lb.NewRoundRobin()
	g := newGate(b, "a")
	s := NewSets(g, NewEvents(), detector)
	var running sync.WaitGroup
	running.Go(func() { s.OnUpdate([]lb.Endpoints{setOf("a", 2, 8)}) })
	<-g.entered

	s.OnUpdate([]lb.Endpoints{setOf("b", 1)}) // a static endpoint, so the endpoint of a must be left out
	serves(t, b, "b", "1")
	close(g.open)
	running.Wait()
	if sets, _ := g.heard(); !slices.Equal(sets[len(sets)-1], []string{"8"}) {
		t.Errorf("told of %v, want 8 alone at last", sets)
	}
}

// Reconsider returns after the balancer has the verdicts. A reload relies on that before it opens listeners.
func TestReconsiderWaitsForTheBalancer(t *testing.T) {
	var s *Sets
	detector := cycles.New(cycles.Options{
		Addrs:   func() ([]netip.Prefix, error) { return nil, nil },
		Changed: func() { s.Reconsider() },
	})
	g := newGate(lb.NewRoundRobin(), "a")
	s = NewSets(g, NewEvents(), detector)
	var running sync.WaitGroup
	running.Go(func() { s.OnUpdate([]lb.Endpoints{setOf("a", 2, 8)}) })
	<-g.entered
	running.Go(func() {
		detector.Listen([]cycles.Service{{Name: "a", Listen: []lb.Addr{{AddrPort: at(2)}}}}, nil)
		if sets, _ := g.heard(); !slices.Equal(sets[len(sets)-1], []string{"8"}) {
			t.Errorf("told of %v when the verdict on 2 is known", sets)
		}
	})
	testproc.Await(t, "2 is out", func() bool {
		v, _ := s.View("a")
		return v.Endpoints[0].Verdict.Reason == cycles.Loop
	})
	close(g.open)
	running.Wait()
}

// A gateJudge forbids the endpoint "x", and blocks while it judges a set with that endpoint.
type gateJudge struct{ entered, open chan struct{} }

func (j *gateJudge) Judge(updates []lb.Endpoints) map[string]map[string]cycles.Verdict {
	for _, u := range updates {
		if slices.Contains(idsOf(u.Endpoints), "x") {
			j.entered <- struct{}{}
			<-j.open
			v := map[string]cycles.Verdict{"x": {Reason: cycles.Loop}}
			return map[string]map[string]cycles.Verdict{u.Service: v}
		}
	}
	return nil
}

// The balancer never receives a set that has not been judged.
func TestNoSetIsServedBeforeItIsJudged(t *testing.T) {
	g := newGate(lb.NewRoundRobin(), "web")
	close(g.open)
	j := &gateJudge{make(chan struct{}), make(chan struct{})}
	s := NewSets(g, NewEvents(), j)
	s.OnUpdate([]lb.Endpoints{setWith("web", "a")})
	var running sync.WaitGroup
	running.Go(func() {
		both := setWith("web", "a")
		both.Endpoints = append(both.Endpoints, setWith("web", "x").Endpoints...)
		s.OnUpdate([]lb.Endpoints{both})
	})
	<-j.entered
	mustDrain(t, s, "web", "a")
	mustUndrain(t, s, "web", "a")
	close(j.open)
	running.Wait()
	sets, _ := g.heard()
	for _, one := range sets {
		if slices.Contains(one, "x") {
			t.Errorf("told of %v, want x never", sets)
		}
	}
	if !slices.Equal(sets[len(sets)-1], []string{"a"}) {
		t.Errorf("told of %v, want a at last", sets)
	}
}
