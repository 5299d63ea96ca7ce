//go:build unix

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// meshConfiguration returns a configuration with these blocks, for the agent.
func meshConfiguration(t *testing.T, a *testconsul.Agent, token, services string) *config.Config {
	t.Helper()
	text := fmt.Sprintf("consul {\n  address = %q\n%s}\n%s", a.HTTP, token, services)
	cfg, diags := config.Parse("test.hcl", []byte(text), config.Options{Getenv: func(string) string { return "" }})
	if cfg == nil {
		t.Fatal(diags.Err())
	}
	return cfg
}

// looked returns what Look says: the lines about services, and the problems.
func looked(t *testing.T, cfg *config.Config) string {
	t.Helper()
	return said(Look(t.Context(), cfg, nil))
}

// said returns the lines about sights, and the problems.
func said(all []Sight, problems hcl.Diagnostics) string {
	var lines []string
	for i := range all {
		lines = append(lines, all[i].Describe()...)
	}
	for _, p := range problems {
		severity := "warning"
		if p.Severity == hcl.DiagError {
			severity = "error"
		}
		lines = append(lines, fmt.Sprintf("%s: %s: %s", severity, p.Summary, p.Detail))
	}
	return strings.Join(lines, "\n")
}

// startSidecar starts a sidecar for a service, whose instance takes connections and says nothing.
func startSidecar(t *testing.T, a *testconsul.Agent, client *api.Client, service string) {
	t.Helper()
	port, err := testproc.FreePort(func(port int) bool {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		return err == nil && l.Close() == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	behind, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = behind.Close() })
	cmd := exec.Command(testconsul.Need(t), "connect", "proxy", "-http-addr", a.HTTP, "-token",
		a.Token, "-service", service, "-service-addr", behind.Addr().String(), "-listen",
		fmt.Sprint("127.0.0.1:", port))
	log := &testproc.Log{}
	cmd.Stdout, cmd.Stderr = log, log
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the sidecar says:\n%s", log)
		}
	})
	proxy, err := testproc.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Kill)
	for _, s := range []*api.AgentServiceRegistration{
		{Name: service, Address: "127.0.0.1", Port: 1},
		{Kind: api.ServiceKindConnectProxy, Name: service + "-proxy", Address: "127.0.0.1", Port: port,
			Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: service, DestinationServiceID: service}},
		{Name: "bare", ID: "bare", Address: "127.0.0.1", Port: 2},
	} {
		if err := client.Agent().ServiceRegister(s); err != nil {
			t.Fatal(err)
		}
	}
}

// tokenWith returns a token with these rules.
func tokenWith(t *testing.T, client *api.Client, rules string) (secret string) {
	t.Helper()
	policy, _, err := client.ACL().PolicyCreate(&api.ACLPolicy{Name: "lictor", Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := client.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token.SecretID
}

// Look asks for the certificate of each identity, follows the chain, and shakes hands with an endpoint.
func TestLookAtTheMesh(t *testing.T) {
	a, err := testconsul.Start(t.Context(), testconsul.Options{Binary: testconsul.Need(t), Dir: t.TempDir(), ACL: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	client, err := a.Client()
	if err != nil {
		t.Fatal(err)
	}
	// Each service is allowed or denied for the whole test: an agent may miss that an intention has changed.
	allow := &api.Intention{SourceName: "web", DestinationName: "billing", Action: api.IntentionActionAllow}
	if _, err := client.Connect().IntentionUpsert(allow, nil); err != nil {
		t.Fatal(err)
	}
	startSidecar(t, a, client, "billing")
	startSidecar(t, a, client, "ledger")
	const rules = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } ` +
		`service "web" { policy = "write" }`
	secret := tokenWith(t, client, rules)
	consul, err := discovery.NewConsul(discovery.ConsulOptions{Address: a.HTTP, Token: secret})
	if err != nil {
		t.Fatal(err)
	}
	const billing = "service \"billing\" {\n  listen = 0\n  mesh { as = \"web\" }\n}\n"
	const ledger = "service \"ledger\" {\n  listen = 0\n  mesh { as = \"web\" }\n}\n"
	withToken := fmt.Sprintf("  token = %q\n", secret)
	cfg := meshConfiguration(t, a, withToken, billing+ledger)
	await := func(want string) {
		t.Helper()
		var got string
		defer func() {
			if t.Failed() {
				t.Logf("got %s", got)
			}
		}()
		testproc.Await(t, want, func() bool {
			var sights []Sight
			var problems hcl.Diagnostics
			for _, s := range cfg.Services {
				some, found := lookAt(t.Context(), cfg, s, consul)
				sights, problems = append(sights, some...), append(problems, found...)
			}
			got = said(sights, append(problems, tryIdentities(t.Context(), cfg, sights)...))
			return strings.Contains(got, want)
		})
	}
	await("\nwarning: Denied by the destination: Service \"ledger\": test/ledger-proxy at 127.0.0.1:")
	await("\n  ok   test/billing-proxy  proves its identity, and takes that of \"web\"")

	got := looked(t, meshConfiguration(t, a, withToken, billing+"service \"bare\" {\n  listen = 0\n"+
		"  mesh { as = \"web\" }\n}\nservice \"denied\" {\n  listen = 0\n  mesh { as = \"other\" }\n"+
		"  consul { service = \"billing\" }\n}\nservice \"biling\" {\n  listen = 0\n  mesh { as = \"web\" }\n}\n"))
	for _, want := range []string{
		"billing: 1 of 1 instance (billing in the mesh",
		"  ok   test/billing-proxy",
		"warning: No instances: Service \"bare\": no instance of consul service \"bare\" is in the mesh",
		"warning: No instances: Service \"biling\": Consul knows no service of this name (consul service \"biling\")." +
			" Did you mean \"billing\"?",
		"error: No certificate for the identity: Identity \"other\" of service \"denied\": consul answered 403: ",
		"Give Lictor's token service:write for \"other\".",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestLookWithoutAMesh(t *testing.T) {
	o := testconsul.Options{Binary: testconsul.Need(t), Dir: t.TempDir(), HCL: "connect { enabled = false }\n"}
	a, err := testconsul.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	got := looked(t, meshConfiguration(t, a, "", "service \"billing\" {\n  listen = 0\n  mesh { as = \"web\" }\n}\n"))
	for _, want := range []string{"error: No service mesh: Consul does not give the authorities of its service mesh: ",
		"Set connect { enabled = true } in the configuration of Consul's servers and of this agent."} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

// An unfollowable is a Consul with a chain that needs HTTP.
type unfollowable struct{ partlyHidden }

func (unfollowable) LookChain(context.Context, discovery.Watch) ([]discovery.Tier, []discovery.LeftOut, error) {
	return nil, nil, &discovery.ChainError{Service: "web", Reason: "it begins with a router"}
}

func TestLookSaysWhichChainCannotBeFollowed(t *testing.T) {
	s := config.Service{Name: "front", Consul: &config.ConsulQuery{Service: "web"}, Mesh: &config.Mesh{As: "a"}}
	all, problems := lookAt(t.Context(), &config.Config{}, s, unfollowable{})
	const want = `Service "front": lictor cannot follow the discovery chain of "web": it begins with a router.`
	if len(all) > 0 || len(problems) != 1 || problems[0].Summary != "Discovery chain cannot be followed" ||
		problems[0].Detail != want || problems[0].Severity != hcl.DiagError {
		t.Errorf("got %v, %v", all, problems)
	}
}

// A partlyFollowed is a Consul with a chain that has a target out of reach.
type partlyFollowed struct{ partlyHidden }

func (partlyFollowed) LookChain(context.Context, discovery.Watch) ([]discovery.Tier, []discovery.LeftOut, error) {
	return nil, []discovery.LeftOut{{Name: "web in datacenter dc2", Reason: "is far away"}}, nil
}

func TestLookSaysWhichTargetIsLeftOut(t *testing.T) {
	s := config.Service{Name: "front", Consul: &config.ConsulQuery{Service: "web"}, Mesh: &config.Mesh{As: "a"}}
	_, problems := lookAt(t.Context(), &config.Config{}, s, partlyFollowed{})
	const want = `Service "front" does not fail over to web in datacenter dc2, because it is far away.`
	if len(problems) != 1 || problems[0].Severity != hcl.DiagWarning || problems[0].Detail != want {
		t.Errorf("got %v", problems)
	}
}

func TestHandshakeProblems(t *testing.T) {
	s, e := &config.Service{Name: "billing", Mesh: &config.Mesh{As: "web"}}, sidecarEndpoint()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, refused := net.Dial("tcp", address)
	for _, tt := range []struct {
		err      error
		severity hcl.DiagnosticSeverity
		summary  string
	}{
		{refused, hcl.DiagWarning, "Instance not reached"},
		{fmt.Errorf("%w: %w", errors.New("x"), refused), hcl.DiagWarning, "Instance not reached"},
		{fmt.Errorf("%w: %w", lb.ErrHandshake, io.EOF), hcl.DiagWarning, "Instance not reached"},
		{fmt.Errorf("%w: %w", lb.ErrHandshake, errors.New("it is another service")), hcl.DiagError, "Handshake failed"},
		{fmt.Errorf("%w: %w", lb.ErrHandshake, &net.OpError{Op: "remote error", Err: errors.New("no suite")}),
			hcl.DiagError, "Handshake failed"},
		{fmt.Errorf("%w: %w", errHungUp, io.EOF), hcl.DiagWarning, "Connection ended at once"},
		{lb.ErrDenied, hcl.DiagWarning, "Denied by the destination"},
	} {
		if d := handshakeProblem(s, e, tt.err); d.Severity != tt.severity || d.Summary != tt.summary {
			t.Errorf("%v: got %+v", tt.err, d)
		}
	}
}

// Look says which instances would be exposed, and what keeps others out of the mesh.
func TestLookAtExposedServices(t *testing.T) {
	a, err := testconsul.Start(t.Context(), testconsul.Options{Binary: testconsul.Need(t), Dir: t.TempDir(), ACL: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	client, err := a.Client()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*api.AgentServiceRegistration{
		{Name: "hello", ID: "hello-1", Port: 8081}, {Name: "taken", Port: 8082}, {Name: "half", Port: 8083},
		{Name: "foreign", Port: 8084},
		{Kind: api.ServiceKindConnectProxy, ID: "envoy", Name: "taken-sidecar-proxy", Port: 1,
			Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "taken", DestinationServiceID: "taken"}},
	} {
		if err := client.Agent().ServiceRegister(s); err != nil {
			t.Fatal(err)
		}
	}
	both := ""
	for _, name := range []string{"hello", "taken", "absent"} {
		both += fmt.Sprintf(`service %q { policy = "write" } service "%s-sidecar-proxy" { policy = "write" } `,
			name, name)
	}
	token := fmt.Sprintf("  token = %q\n", tokenWith(t, client, both+`service "half" { policy = "write" } `+
		`service "blind" { policy = "write" intentions = "deny" } service_prefix "" { policy = "read" } `+
		`node_prefix "" { policy = "read" } agent_prefix "" { policy = "read" }`))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	port := l.Addr().(*net.TCPAddr).Port
	const all = "expose \"hello\" {}\nexpose \"taken\" {}\nexpose \"absent\" {}\nexpose \"half\" {}\n" +
		"expose \"foreign\" {}\nexpose \"blind\" {}\n"
	got := looked(t, meshConfiguration(t, a, token, fmt.Sprintf("mesh {\n  bind = \"127.0.0.1\"\n"+
		"  ports = \"%d-%d\"\n}\n%s", port, port, all)))
	for _, want := range []string{
		"mesh:hello: 1 of 1 instance (exposed to the mesh as \"hello\")", "  in   hello-1  127.0.0.1:8081",
		"warning: Not exposed: Exposed service \"taken\": taken: another sidecar serves the instance: \"envoy\".",
		"warning: No instances: Exposed service \"absent\": no instance is registered at this agent. Register",
		"error: No right to register: Exposed service \"half\": the token lacks service:write for " +
			"\"half-sidecar-proxy\".",
		"error: No right to register: Exposed service \"foreign\": the token lacks service:write for \"foreign\".",
		"error: No certificate for the identity: Identity \"foreign\" of service \"mesh:foreign\": consul answered " +
			"403: ",
		"error: Intentions cannot be read: Exposed service \"blind\": consul answered 403: ",
		fmt.Sprintf("warning: No free port: ports: of %d-%d at 127.0.0.1, 0 can be used, and ", port, port),
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q", want)
		}
	}
	for _, not := range []string{"service \"hello\": ", "service:write for \"taken"} {
		if strings.Contains(got, not) {
			t.Errorf("has %q", not)
		}
	}
	if t.Failed() {
		t.Logf("got %s", got)
	}
	got = looked(t, meshConfiguration(t, a, token, "mesh { bind = \"192.0.2.1\" }\nexpose \"hello\" {}\n"))
	if want := "error: Address cannot be used: bind: listen tcp 192.0.2.1:21000: "; !strings.Contains(got, want) ||
		!strings.Contains(got, "(this host has no such address)") {
		t.Errorf("got %s, want %q", got, want)
	}
}
