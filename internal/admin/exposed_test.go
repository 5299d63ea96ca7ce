package admin

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// What is not served to the mesh as configured makes the process degraded, and a permissive service is degraded itself.
func TestExposedServicesThatNeedAttention(t *testing.T) {
	h := serve(t, Options{}, "mesh:billing")
	h.endpoints("mesh:billing", "billing")
	m := meshAt(IdentityFine, "")
	h.fake.set(func(f *fake) { f.mesh = m })
	var got Status
	h.get("/v1/status", &got)
	if got.State != StateFine {
		t.Fatalf("got %q: %+v", got.State, got.Reasons)
	}
	m.Exposed = []Exposed{{Service: "a", State: ExposedNone, Reason: "no instance"}, {Service: "b", State: ExposedFine},
		{Service: "c", State: ExposedWaiting, Reason: "no certificate"}}
	h.fake.set(func(f *fake) { f.mesh, f.services[0].Permissive = m, true })
	h.get("/v1/status", &got)
	if got.State != StateDegraded || len(got.Reasons) != 2 || got.Reasons[0].Kind != KindExposed ||
		got.Reasons[0].Text != "not served to the mesh as configured: a (no instance), c (no certificate)" {
		t.Errorf("got %q: %+v", got.State, got.Reasons)
	}
	var all ServicesAnswer
	h.get("/v1/services", &all)
	if one := all.Services[0]; !one.Permissive || one.State != StateDegraded || one.Reasons[0].Kind != KindPermissive {
		t.Errorf("got %+v", one)
	}
}

// A service that is an exposed instance shows to which clients it is served, and with which identity. Others do not.
func TestServiceThatIsExposed(t *testing.T) {
	h := serve(t, Options{}, "web", "mesh:billing", "other")
	m := meshAt(IdentityFine, "")
	m.Identities[0].Services = []string{"web", "mesh:billing"}
	instance := ExposedInstance{Name: "mesh:billing", ServiceID: "billing-1", Denied: 3,
		Clients: []ExposedClient{{Identity: "spiffe://td.consul/ns/default/dc/dc1/svc/web", Connections: 2}}}
	m.Exposed[0].Instances = []ExposedInstance{{Name: "mesh:gone"}, instance}
	h.fake.set(func(f *fake) { f.mesh = m })
	var all ServicesAnswer
	h.get("/v1/services", &all)
	for _, s := range all.Services {
		if wants := s.Name == "mesh:billing"; (s.Exposed != nil) != wants {
			t.Errorf("%s is exposed: %+v", s.Name, s.Exposed)
		} else if wants && !reflect.DeepEqual(*s.Exposed, instance) {
			t.Errorf("got %+v, want %+v", *s.Exposed, instance)
		}
		if (s.Identity != nil) != (s.Name != "other") {
			t.Errorf("%s has the identity %+v", s.Name, s.Identity)
		}
	}
}

func TestAccess(t *testing.T) {
	h := serve(t, Options{}, "billing", "other")
	h.endpoints("billing", "n/1")
	h.fake.set(func(f *fake) { f.mesh = meshAt(IdentityFine, "") })
	h.Server.o.State.Access = func(_ context.Context, source, destination string) (ExplainedAccess, []string) {
		return ExplainedAccess{Source: source, Destination: destination, Known: true, By: "it denies"},
			[]string{"billing", "gone"}
	}
	var got ExplainedAccess
	h.get("/v1/mesh/access?source=front&destination=billing", &got)
	if got.Source != "front" || !got.Known || got.Allowed || got.By != "it denies" || len(got.Routes) != 1 ||
		got.Routes[0].Service != "billing" || len(got.Routes[0].Endpoints) != 1 || len(got.Identities) != 1 ||
		got.Exposed == nil || got.Exposed.Service != "billing" {
		t.Errorf("got %+v", got)
	}
	status, body := h.ask("GET", "/v1/mesh/access?source=front", "")
	if status != http.StatusBadRequest || !strings.Contains(body, "destination=SERVICE") {
		t.Errorf("got %d, %s", status, body)
	}
}
