package sidecar

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

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
	s := start(t, Options{Consul: client, Ports: freePorts(t, 4)}, Service{Name: "web"})
	testproc.Await(t, "registered", func() bool { return slices.Contains(s.said(), Exposed) })
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
