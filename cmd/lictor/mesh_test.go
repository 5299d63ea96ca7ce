package main

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// meshAnswer returns a mesh with the identity "web", of which all is well.
func meshAnswer() admin.MeshAnswer {
	expires := testNow.Add(72 * time.Hour)
	return admin.MeshAnswer{Now: testNow, Mesh: admin.Mesh{TrustDomain: "td.consul",
		Roots: []admin.MeshRoot{{ID: "r", Name: "Consul CA Root Cert", Active: true,
			Expires: testNow.AddDate(1, 0, 0)}},
		Identities: []admin.Identity{{Name: "web", State: admin.IdentityFine, Serial: "0a:1b",
			SPIFFEID: "spiffe://td.consul/ns/default/dc/dc1/svc/web", From: before(time.Hour), Expires: &expires,
			Received: before(time.Minute), Answered: before(5 * time.Second), Failures: 2,
			Services: []string{"billing", "orders"}}}}}
}

func TestMeshTable(t *testing.T) {
	t.Parallel()
	m := meshAnswer()
	m.Error = "no\x1b leader"
	m.Roots = append(m.Roots, admin.MeshRoot{Name: "Old", Expires: *before(time.Hour)})
	m.Identities = append(m.Identities, admin.Identity{Name: "web-2", State: admin.IdentityWaiting,
		Error: "permission denied", Services: []string{"db"}})
	var b strings.Builder
	if err := writeMesh(&b, &m); err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), `trust domain td.consul
consul does not give the authorities: no`+"\ufffd"+` leader
authority Consul CA Root Cert, signs new certificates, expires in 365d
authority Old, EXPIRED 1h ago

IDENTITY  STATE    LEFT  SPIFFE ID                                     SERVICES        NOTE
web       fine       3d  spiffe://td.consul/ns/default/dc/dc1/svc/web  billing,orders
web-2     WAITING     -  -                                             db              permission denied
`)
	b.Reset()
	if err := writeMesh(&b, &admin.MeshAnswer{}); err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), "no service uses the mesh\n")
	if err := writeMesh(fullDisk{}, &m); !errors.Is(err, errDiskFull) {
		t.Errorf("got %v, want %v", err, errDiskFull)
	}
}

func TestMeshExitCodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		states []string
		want   int
	}{
		{"nothing", nil, exitOK},
		{"fine", []string{admin.IdentityFine, admin.IdentityFine}, exitOK},
		{"failing", []string{admin.IdentityFine, admin.IdentityFailing}, exitFailed},
		{"expiring", []string{admin.IdentityExpiring}, exitFailed},
		{"waiting", []string{admin.IdentityFailing, admin.IdentityWaiting}, exitRefusing},
		{"expired", []string{admin.IdentityExpired, admin.IdentityFine}, exitRefusing},
	} {
		m := admin.MeshAnswer{Now: testNow}
		for _, state := range tt.states {
			m.Identities = append(m.Identities, admin.Identity{Name: "i", State: state})
		}
		f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{}, "GET /v1/mesh": m})
		lictor(t, tt.want, "mesh", "status", "-admin", f.address)
	}
	for state, want := range map[string]int{admin.ExposedFine: exitOK, admin.ExposedFailing: exitFailed,
		admin.ExposedWaiting: exitFailed, admin.ExposedNone: exitFailed} {
		m := meshAnswer()
		m.Exposed = []admin.Exposed{{Service: "web", State: admin.ExposedFine}, {Service: "db", State: state}}
		f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{}, "GET /v1/mesh": m})
		lictor(t, want, "mesh", "status", "-admin", f.address)
		lictor(t, exitOK, "mesh", "status", "-admin", f.address, "web")
	}
}

func TestOneIdentity(t *testing.T) {
	t.Parallel()
	m := meshAnswer()
	m.Identities = append(m.Identities, admin.Identity{Name: "late", State: admin.IdentityWaiting, Error: "no token"})
	f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{}, "GET /v1/mesh": m})
	out, _ := lictor(t, exitOK, "mesh", "status", "-admin", f.address, "web")
	equal(t, out, `identity     web
state        fine
SPIFFE ID    spiffe://td.consul/ns/default/dc/dc1/svc/web
serial       0a:1b
certificate  expires in 3d, received 1m ago
Consul       answered 5s ago, 2 failed questions
used by      2 services: billing, orders
`)
	out, _ = lictor(t, exitRefusing, "mesh", "status", "-admin", f.address, "late")
	want := `because   the identity "late" has no certificate of the mesh yet: no token`
	if !strings.Contains(out, want) {
		t.Errorf("got %s, want %q in it", out, want)
	}
	out, _ = lictor(t, exitOK, "mesh", "status", "-json", "-admin", f.address, "web")
	var one admin.Identity
	if err := json.Unmarshal([]byte(out), &one); err != nil || one.SPIFFEID != m.Identities[0].SPIFFEID {
		t.Errorf("got %+v, %v", one, err)
	}
	_, said := lictor(t, exitFailed, "mesh", "status", "-admin", f.address, "wbe")
	equal(t, said, "lictor mesh: no service uses an identity \"wbe\"; did you mean \"web\"?\n")
}

// The source and the destination may be two words, or have an arrow between them, in one word or three.
func TestMeshExplainArguments(t *testing.T) {
	t.Parallel()
	f := newFakeLictor(t, map[string]any{"GET /v1/status": admin.Status{},
		"GET /v1/mesh/access?destination=billing&source=web": admin.ExplainedAccess{Source: "web",
			Destination: "billing", Known: true, Allowed: true}})
	for _, args := range [][]string{
		{"web", "billing"}, {"web", "->", "billing"}, {"web -> billing"}, {"web->billing"}, {"web ->", "billing"},
	} {
		out, _ := lictor(t, exitOK, slices.Concat([]string{"mesh", "explain", "-admin", f.address}, args)...)
		if !strings.HasPrefix(out, "web -> billing  allowed\n") {
			t.Errorf("%q: got %s", args, out)
		}
	}
	for _, args := range [][]string{{"web"}, {"->"}, {"web", "->"}, {"-> billing"}, {"web", "billing", "x"}} {
		_, said := lictor(t, exitUsage, slices.Concat([]string{"mesh", "explain"}, args)...)
		if !strings.Contains(said, `write "lictor mesh explain SOURCE DESTINATION"`) {
			t.Errorf("%q: got %s", args, said)
		}
	}
}

// explain says with which identity a service dials, and which identity each endpoint must prove.
func TestExplanationOfAMeshService(t *testing.T) {
	t.Parallel()
	m := meshAnswer()
	s := &admin.Service{Name: "billing", Source: "billing in the mesh", Set: admin.SetFresh, Identity: &m.Identities[0],
		Endpoints: []admin.Endpoint{{ID: "n/b", Address: "10.0.0.2:21000", Weight: 1, State: admin.StateIn,
			Reason: admin.ReasonHealthy, Identity: "/ns/default/dc/dc1/svc/billing",
			ServerName: "billing.default.dc1.internal.td.consul"}}}
	var b strings.Builder
	if err := writeExplanation(&b, testNow, s, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\ndials in the mesh as web (spiffe://td.consul/ns/default/dc/dc1/svc/web): fine, certificate expires in 3d\n",
		"\n     identity: /ns/default/dc/dc1/svc/billing\n",
		"\n     server name: billing.default.dc1.internal.td.consul\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("got %s, want %q in it", b.String(), want)
		}
	}
}

// explain says to which clients an exposed instance is served, and with which identity.
func TestExplanationOfAnExposedInstance(t *testing.T) {
	t.Parallel()
	m := meshAnswer()
	s := &admin.Service{Name: "mesh:web", Source: `web-1, exposed to the mesh as "web"`, Set: admin.SetFresh,
		Identity: &m.Identities[0], Exposed: &admin.ExposedInstance{Name: "mesh:web", Denied: 1, Ended: 2,
			Error: "the agent has lost the instance", ClientsShort: true,
			Clients: []admin.ExposedClient{{Identity: "spiffe://td.consul/\x1bapi", Connections: 7}}}}
	var b strings.Builder
	if err := writeExplanation(&b, testNow, s, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	const want = `
is served to the mesh as web (spiffe://td.consul/ns/default/dc/dc1/svc/web): fine, certificate expires in 3d
the agent has lost the instance
refused because of their identity: 1 client; cut off when intentions changed: 2 connections
connected: spiffe://td.consul/` + "\ufffd" + `api, 7 connections
connected: more identities
`
	if !strings.Contains(b.String(), want) {
		t.Errorf("got %s, want %q in it", b.String(), want)
	}
}
