package admin

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// meshAt returns a mesh with one identity in a state, which the service "web" uses.
func meshAt(state, failure string) Mesh {
	at := time.Unix(1.8e9, 0).UTC()
	one := Identity{Name: "front", State: state, Error: failure, Services: []string{"web"}}
	if state != IdentityWaiting {
		one.SPIFFEID, one.Serial = "spiffe://td.consul/ns/default/dc/dc1/svc/front", "0a"
		one.From, one.Expires, one.Received, one.Answered = &at, &at, &at, &at
	}
	return Mesh{TrustDomain: "td.consul", Answered: &at, Failures: 3, Identities: []Identity{one},
		Roots: []MeshRoot{{ID: "r1", Name: "Root", Active: true, Expires: at}},
		Exposed: []Exposed{{Service: "billing", State: ExposedFine,
			Intentions: Intentions{Known: true, Answered: &at}}}}
}

func TestServiceWithAnIdentity(t *testing.T) {
	h := serve(t, Options{}, "web", "other")
	h.endpoints("web", "n/a")
	h.endpoints("other", "n/a")
	for _, tt := range []struct{ state, failure, want, kind, text string }{
		{IdentityFine, "", StateFine, "", ""},
		{IdentityFailing, "no leader", StateDegraded, KindCertificate,
			`Consul gives no new certificate for the identity "front", the former one stays in use: no leader`},
		{IdentityExpiring, "", StateDegraded, KindCertificate,
			`the certificate of the identity "front" expires at 2027-01-15T08:00:00Z`},
		{IdentityExpired, "", StateRefusing, KindIdentity,
			`the certificate of the identity "front" has expired at 2027-01-15T08:00:00Z`},
		{IdentityWaiting, "no permission", StateRefusing, KindIdentity,
			`the identity "front" has no certificate of the mesh yet: no permission`},
	} {
		h.fake.set(func(f *fake) { f.mesh = meshAt(tt.state, tt.failure) })
		var s Service
		h.get("/v1/services/web", &s)
		if s.State != tt.want || s.Identity == nil || s.Identity.Name != "front" || s.Identity.State != tt.state {
			t.Errorf("%s: got %s, %+v", tt.state, s.State, s.Identity)
		}
		if tt.kind != "" && (len(s.Reasons) != 1 || s.Reasons[0].Kind != tt.kind || s.Reasons[0].Text != tt.text) {
			t.Errorf("%s: got reasons %+v", tt.state, s.Reasons)
		}
		h.get("/v1/services/other", &s)
		if s.State != StateFine {
			t.Errorf("%s: a service without an identity is %s", tt.state, s.State)
		}
	}
}

func TestMeshAnswer(t *testing.T) {
	h := serve(t, Options{}, "web")
	_, text := h.ask("GET", "/v1/mesh", "")
	if !strings.Contains(text, `"roots":[],"identities":[]`) {
		t.Errorf("without the mesh: got %s", text)
	}
	h.fake.set(func(f *fake) { f.mesh = meshAt(IdentityFine, "") })
	var answer MeshAnswer
	h.get("/v1/mesh", &answer)
	want := meshAt(IdentityFine, "")
	if got := answer.Identities; answer.TrustDomain != "td.consul" || len(got) != 1 ||
		got[0].SPIFFEID != want.Identities[0].SPIFFEID || !got[0].Expires.Equal(*want.Identities[0].Expires) ||
		!slices.Equal(answer.Roots, want.Roots) {
		t.Errorf("got %+v", answer)
	}
}

func TestMeshMetrics(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.scrapes.age = 0
	_, text := h.ask("GET", "/metrics", "")
	if strings.Contains(text, "lictor_mesh_") {
		t.Error("there are metrics of the mesh without the mesh")
	}
	m := meshAt(IdentityExpiring, "")
	waiting := meshAt(IdentityWaiting, "").Identities[0]
	waiting.Name = "later"
	m.Identities = append(m.Identities, waiting)
	for range 2 * maxRootSeries {
		m.Roots = append(m.Roots, MeshRoot{ID: strings.Repeat("r", len(m.Roots)+1)})
	}
	h.fake.set(func(f *fake) { f.mesh = m })
	_, text = h.ask("GET", "/metrics", "")
	for _, line := range []string{
		`lictor_mesh_identity_state{identity="front",state="expiring"} 1`,
		`lictor_mesh_identity_state{identity="front",state="fine"} 0`,
		`lictor_mesh_identity_state{identity="later",state="waiting"} 1`,
		`lictor_mesh_certificate_expiry_timestamp_seconds{identity="front"} 1.8e+09`,
		`lictor_mesh_certificate_received_timestamp_seconds{identity="front"} 1.8e+09`,
		`lictor_mesh_last_success_timestamp_seconds{identity=""} 1.8e+09`,
		`lictor_mesh_last_success_timestamp_seconds{identity="front"} 1.8e+09`,
		`lictor_mesh_query_failures_total{identity=""} 3`,
		`lictor_mesh_query_failures_total{identity="later"} 0`,
		`lictor_mesh_root_expiry_timestamp_seconds{root="r1"} 1.8e+09`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is missing in\n%s", line, text)
		}
	}
	if strings.Contains(text, `_seconds{identity="later"}`) {
		t.Error("a certificate that does not exist has times")
	}
	if n := strings.Count(text, "\nlictor_mesh_root_expiry_timestamp_seconds{"); n != maxRootSeries {
		t.Errorf("got %d authorities, want %d", n, maxRootSeries)
	}
}
