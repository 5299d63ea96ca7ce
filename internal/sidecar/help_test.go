package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// patient bounds what a test waits for.
const patient = 30 * time.Second

// loopback is the address of the tests' listeners.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// until waits until ok returns true.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patient); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

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

// A fakeAgent keeps what is registered with it, and records the requests.
type fakeAgent struct {
	mu       sync.Mutex
	services map[string]*api.AgentService
	requests []string // "METHOD /path?query"
	bodies   []api.AgentServiceRegistration
}

func (a *fakeAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, r.Method+" "+r.URL.String())
	switch path := strings.TrimPrefix(r.URL.Path, "/v1/agent/"); {
	case path == "services":
		_ = json.NewEncoder(w).Encode(a.services)
	case path == "service/register":
		var body api.AgentServiceRegistration
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		a.bodies = append(a.bodies, body)
		a.services[body.ID] = &api.AgentService{Kind: body.Kind, ID: body.ID, Service: body.Name, Port: body.Port,
			Address: body.Address, Meta: body.Meta, Tags: body.Tags, Proxy: body.Proxy}
	case strings.HasPrefix(path, "service/deregister/"):
		delete(a.services, strings.TrimPrefix(path, "service/deregister/"))
	case strings.HasPrefix(path, "service/maintenance/"):
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// Namespaces and partitions are of Consul Enterprise, which cannot be had here.
func TestRegistrationIsInTheNamespaceOfTheInstance(t *testing.T) {
	agent := &fakeAgent{services: map[string]*api.AgentService{
		"web-1": {ID: "web-1", Service: "web", Port: 80, Namespace: "team", Partition: "east"},
	}}
	fake := httptest.NewServer(agent)
	defer fake.Close()
	client := clientOf(t, consul.Options{Address: fake.URL, Namespace: "team", Partition: "east"})
	s := start(t, Options{Consul: client, Ports: Ports{1024, 65535}}, Service{Name: "web"})
	until(t, "registered", func() bool { return slices.Contains(s.said(), Exposed) })
	s.stop()
	if err := s.End(t.Context()); err != nil {
		t.Error(err)
	}
	agent.mu.Lock()
	defer agent.mu.Unlock()
	if len(agent.bodies) == 0 || agent.bodies[0].Namespace != "team" || agent.bodies[0].Partition != "east" {
		t.Errorf("registered %+v", agent.bodies)
	}
	for _, r := range agent.requests {
		if !strings.Contains(r, "ns=team") || !strings.Contains(r, "partition=east") {
			t.Errorf("a request without a namespace or a partition: %s", r)
		}
	}
	if agent.services["web-1"+idSuffix] != nil {
		t.Error("still registered after the end")
	}
}
