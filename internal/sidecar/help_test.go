package sidecar

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// loopback is the address of the tests' listeners.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// A server stands for the proxy: it listens for the instances.
type server struct {
	mu        sync.Mutex
	instances []Instance
	listeners map[netip.AddrPort]net.Listener
	fail      func([]Instance) error // nil: nothing fails
}

func (s *server) serve(all []Instance) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(all); err != nil {
			return err
		}
	}
	var errs []error
	wanted := map[netip.AddrPort]bool{}
	for _, i := range all {
		wanted[i.Listen] = true
		if s.listeners[i.Listen] == nil {
			l, err := net.Listen("tcp", i.Listen.String())
			if err != nil {
				errs = append(errs, err)
				continue
			}
			s.listeners[i.Listen] = l
		}
	}
	for at, l := range s.listeners {
		if !wanted[at] {
			errs = append(errs, l.Close())
			delete(s.listeners, at)
		}
	}
	s.instances = all
	return errors.Join(errs...)
}

// set returns the instances that are served now.
func (s *server) set() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.instances)
}

// close ends all listeners, as the end of the process does.
func (s *server) close() { _ = s.serve(nil) }

// A subject is a Registrar at work, with what it has said.
type subject struct {
	*Registrar
	server *server
	log    *testproc.Log

	mu      sync.Mutex
	reports []Report

	stop func()
}

// said returns the kinds of the reports so far.
func (s *subject) said() (all []What) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.reports {
		all = append(all, r.What)
	}
	return all
}

// start runs a Registrar for the services until the test ends, or until stop is called, which leaves the registrations
// as they are.
func start(t *testing.T, o Options, services ...Service) *subject {
	t.Helper()
	return startWith(t, o, func(*Registrar) {}, services...)
}

// startWith is start, with changes to the Registrar before it runs.
func startWith(t *testing.T, o Options, change func(*Registrar), services ...Service) *subject {
	t.Helper()
	s := &subject{server: &server{listeners: map[netip.AddrPort]net.Listener{}}, log: &testproc.Log{}}
	if !o.Bind.IsValid() {
		o.Bind = loopback
	}
	o.Logger = hclog.New(&hclog.LoggerOptions{Output: s.log, Level: hclog.Debug})
	o.Report = func(r Report) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reports = append(s.reports, r)
	}
	o.Instances = s.server.serve
	s.Registrar = New(o)
	change(s.Registrar)
	s.Apply(services)
	if first := s.Instances(); len(first) > 0 {
		if err := s.server.serve(first); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	s.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		s.server.close()
	})
	t.Cleanup(s.stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
	return s
}

// clientOf returns a client of the agent at an address.
func clientOf(t testing.TB, o consul.Options) *consul.Client {
	t.Helper()
	c, err := consul.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// freePorts returns a range of n ports that are free now.
func freePorts(t testing.TB, n uint16) Ports {
	t.Helper()
	for range 100 {
		first := 10000 + rand.N(uint16(20000))
		busy := false
		for p := first; p < first+n && !busy; p++ {
			busy = probe(netip.AddrPortFrom(loopback, p)) != nil
		}
		if !busy {
			return Ports{first, first + n - 1}
		}
	}
	t.Fatal("no free ports")
	return Ports{}
}

// A cluster is a real agent.
type cluster struct {
	*testconsul.Agent
	api *api.Client
}

func startAgent(t testing.TB, o testconsul.Options) cluster {
	t.Helper()
	o.Binary, o.Dir = testconsul.Need(t), t.TempDir()
	a, err := testconsul.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	c, err := a.Client()
	if err != nil {
		t.Fatal(err)
	}
	return cluster{a, c}
}

// client returns a client of the agent.
func (c cluster) client(t testing.TB) *consul.Client {
	return clientOf(t, consul.Options{Address: c.HTTP, Token: c.Token})
}

// register registers an instance.
func (c cluster) register(t testing.TB, r api.AgentServiceRegistration) {
	t.Helper()
	if err := c.api.Agent().ServiceRegister(&r); err != nil {
		t.Fatal(err)
	}
}

// web registers an instance of "web".
func (c cluster) web(t testing.TB, id string, port int) {
	t.Helper()
	c.register(t, api.AgentServiceRegistration{ID: id, Name: "web", Port: port})
}

// remove deregisters a service.
func (c cluster) remove(t testing.TB, id string) {
	t.Helper()
	if err := c.api.Agent().ServiceDeregister(id); err != nil {
		t.Fatal(err)
	}
}

// service returns what the agent has with this ID, or nil.
func (c cluster) service(id string) *api.AgentService {
	all, err := c.api.Agent().Services()
	if err != nil {
		return nil
	}
	return all[id]
}

// peers returns the ports of the sidecars of "web" that peers in the mesh would use, sorted.
func (c cluster) peers(t testing.TB) (ports []int) {
	t.Helper()
	entries, _, err := c.api.Health().Connect("web", "", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		ports = append(ports, e.Service.Port)
	}
	slices.Sort(ports)
	return ports
}

// awaitPeers waits until peers would use sidecars at these ports, and no others.
func (c cluster) awaitPeers(t testing.TB, ports ...int) {
	t.Helper()
	testproc.Await(t, fmt.Sprint("sidecars at ports ", ports), func() bool {
		return slices.Equal(c.peers(t), ports)
	})
}

// always watches that the sidecar at a port is registered all the time, and no other, until judge is called. With
// passing, all its checks must pass too; the health of the node does not matter.
func (c cluster) always(t *testing.T, port int, passing bool) (judge func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		o := (&api.QueryOptions{}).WithContext(ctx)
		for ctx.Err() == nil {
			entries, meta, err := c.api.Health().Connect("web", "", false, o)
			if err != nil {
				continue
			}
			if len(entries) != 1 || entries[0].Service.Port != port {
				t.Errorf("registered are %v, want only port %d", entries, port)
				continue
			}
			for _, check := range entries[0].Checks {
				if passing && check.ServiceID != "" && check.Status != api.HealthPassing {
					t.Errorf("%s is %s: %s", check.CheckID, check.Status, check.Output)
				}
			}
			o.WaitIndex = meta.LastIndex
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}
