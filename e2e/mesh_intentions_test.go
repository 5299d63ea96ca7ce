//go:build unix

package e2e

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// intentionsOf returns the intentions for clients of a service.
func intentionsOf(service string, sources ...*api.SourceIntention) *api.ServiceIntentionsConfigEntry {
	return &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: service, Sources: sources}
}

func allows(source string) *api.SourceIntention {
	return &api.SourceIntention{Name: source, Action: api.IntentionActionAllow}
}

func denies(source string) *api.SourceIntention {
	return &api.SourceIntention{Name: source, Action: api.IntentionActionDeny}
}

// byPath returns an intention that depends on the path of a request over HTTP.
func byPath(source string) *api.SourceIntention {
	return &api.SourceIntention{Name: source, Permissions: []*api.IntentionPermission{
		{Action: api.IntentionActionAllow, HTTP: &api.IntentionHTTPPermission{PathPrefix: "/"}}}}
}

// An exposed is a service called billing that Lictor serves to the mesh.
type exposed struct {
	*lictor
	consul  *consul
	at      netip.AddrPort
	clients map[string]*tls.Config // by identity
}

func newExposed(t *testing.T, options testconsul.Options, identities ...string) *exposed {
	t.Helper()
	e := &exposed{consul: startConsul(t, options), clients: map[string]*tls.Config{}}
	e.consul.register(t, "billing", "billing", startEcho(t, "a").addr)
	block, at := meshAt(t, 1)
	e.at = at
	agent := consulBlock(e.consul)
	if options.ACL {
		agent = fmt.Sprintf("consul {\n  address = %q\n  token = %q\n}\n", e.consul.HTTP, e.consul.Token)
	}
	e.lictor = runLictor(t, agent+block+expose("billing"))
	e.consul.awaitSidecars(t, "billing", 1)
	for _, name := range identities {
		e.clients[name] = e.consul.as(t, name, "billing")
	}
	return e
}

// awaitVerdicts waits until the named clients are served and the others are refused.
func (e *exposed) awaitVerdicts(t *testing.T, what string, served ...string) {
	t.Helper()
	for identity, config := range e.clients {
		want := strings.Contains(strings.Join(served, " ")+" ", identity+" ")
		eventually(t, fmt.Sprintf("%s: %s is served: %v", what, identity, want), func() error {
			if _, err := askMesh(t.Context(), e.at, config); (err == nil) != want {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
	}
}

// Intentions decide who is served: exact names before wildcards, and a wildcard of sources before one of destinations.
// What depends on a request over HTTP is denied.
func TestMeshIntentionsDecide(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	e := newExposed(t, testconsul.Options{}, "web", "api")
	e.consul.configure(t, &api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: "billing", Protocol: "http"})
	e.awaitVerdicts(t, "none", "web", "api")
	for _, tt := range []struct {
		name   string
		entry  *api.ServiceIntentionsConfigEntry
		served []string
	}{
		{"one denied", intentionsOf("billing", denies("web")), []string{"api"}},
		{"only one allowed", intentionsOf("billing", allows("web"), denies("*")), []string{"web"}},
		{"only one denied", intentionsOf("billing", denies("web"), allows("*")), []string{"api"}},
		{"everything denied, except here", intentionsOf("*", denies("*")), []string{"api"}},
		{"all denied", intentionsOf("billing", denies("*")), nil},
		{"a request decides", intentionsOf("billing", byPath("web"), allows("api")), []string{"api"}},
	} {
		e.consul.configure(t, tt.entry)
		e.awaitVerdicts(t, tt.name, tt.served...)
	}
	_, err := e.consul.api.ConfigEntries().Delete(api.ServiceIntentions, "billing", nil)
	must(t, err)
	e.awaitVerdicts(t, "everything denied")
	refused := e.awaitLog(t, 0, func(entry entry) bool { return entry.field("@message") == "client refused" })
	if text := refused.field("error"); !strings.Contains(text, `"web" -> "billing"`) ||
		!strings.HasSuffix(refused.field("identity"), "/svc/web") {
		t.Errorf("the log does not say who was refused, by which intention: %v", refused)
	}
	if n := e.metric(t, `lictor_clients_refused_total{reason="intention",service="mesh:billing"}`); n < 5 {
		t.Errorf("%d clients are counted", n)
	}
}

// Without an intention, the default of Consul decides, whether its ACLs or an argument of its own set it.
func TestMeshDefaultPolicyDecides(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	for name, options := range map[string]testconsul.Options{
		"ACLs":     {ACL: true},
		"argument": {HCL: "default_intention_policy = \"deny\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newExposed(t, options, "web", "api")
			e.awaitVerdicts(t, "none")
			e.consul.configure(t, intentionsOf("billing", allows("web")))
			e.awaitVerdicts(t, "one allowed", "web")
		})
	}
}

// A change of an intention resets the live connections that it denies, and no others.
func TestMeshIntentionEndsLiveConnections(t *testing.T) {
	t.Parallel()
	e := newExposed(t, testconsul.Options{}, "web", "api")
	e.awaitVerdicts(t, "none", "web", "api")
	other := mustDialMesh(t, e.at, e.clients["api"])
	for range 2 {
		var live []*meshClient
		for range 3 {
			live = append(live, mustDialMesh(t, e.at, e.clients["web"]))
		}
		e.consul.configure(t, intentionsOf("billing", denies("web")))
		for _, client := range live {
			client.awaitReset(t)
		}
		e.awaitVerdicts(t, "denied", "api")
		must(t, other.echo("still there?"))
		e.consul.configure(t, intentionsOf("billing", allows("web")))
		e.awaitVerdicts(t, "allowed", "web", "api")
	}
	e.awaitAnswer(t, "mesh status -json", 0, `"ended": 6`)
}

// The last intentions hold while Consul does not answer. A Lictor that starts then refuses all clients.
func TestMeshIntentionsWithoutConsul(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	e := newExposed(t, testconsul.Options{}, "web", "api")
	e.consul.configure(t, intentionsOf("billing", denies("api")))
	e.awaitVerdicts(t, "one denied", "web")
	kept := mustDialMesh(t, e.at, e.clients["web"])
	e.consul.pause(t)
	defer e.consul.resume(t)
	for range 5 {
		if _, err := askMesh(t.Context(), e.at, e.clients["web"]); err != nil {
			t.Errorf("a client that was allowed: %v", err)
		}
		if name, err := askMesh(t.Context(), e.at, e.clients["api"]); err == nil {
			t.Errorf("a client that was denied is served by %q", name)
		}
	}
	must(t, kept.echo("still there?"))
}
