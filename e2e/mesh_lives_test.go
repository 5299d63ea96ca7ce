//go:build unix

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// The authority of the mesh is replaced under 1,000 requests a second, and with it the certificates of all identities
// and of the sidecar. No request fails, on connections that were there before or on new ones.
func TestMeshRotatesUnderLoad(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("Consul takes up to 30 s to replace certificates")
	}
	c := startConsul(t, testconsul.Options{})
	c.startSidecar(t, "billing", startEcho(t, "a"))
	config, identities := consulBlock(c), []string{"web", "api", "jobs", "admin"}
	for _, name := range identities {
		config += service("billing-"+name, `consul { service = "billing" }`, fmt.Sprintf("mesh { as = %q }", name),
			patientDials)
	}
	l := runLictor(t, config)
	before, addrs := map[string]string{"billing": c.leaf(t, "billing")}, []netip.AddrPort(nil)
	for _, name := range identities {
		addr := l.addr(t, "billing-"+name)
		awaitRotation(t, addr, "a")
		before[name], addrs = c.leaf(t, name), append(addrs, addr)
	}
	load := startPaced(t, 1000, addrs...)
	load.await(t, 1000)
	c.replaceRoot(t)
	for name, old := range before {
		eventually(t, "the agent has the new certificate of "+name, func() error {
			load.await(t, 1)
			if c.leaf(t, name) == old {
				return fmt.Errorf("it has %s", old)
			}
			return nil
		})
	}
	for _, name := range identities {
		l.awaitAnswer(t, "mesh status "+name, 0, c.leaf(t, name))
	}
	load.await(t, 1000)
	load.stop(t)
}

// leaf returns the serial number of the certificate that the agent has for a service.
func (c *consul) leaf(t *testing.T, service string) string {
	t.Helper()
	leaf, _, err := c.api.Agent().ConnectCALeaf(service, nil)
	must(t, err)
	return leaf.SerialNumber
}

// replaceRoot makes Consul use a new key for its authority.
func (c *consul) replaceRoot(t *testing.T) {
	t.Helper()
	config, _, err := c.api.Connect().CAGetConfig(nil)
	must(t, err)
	config.Config["PrivateKeyType"], config.Config["PrivateKeyBits"] = "rsa", 2048
	_, err = c.api.Connect().CASetConfig(config, nil)
	must(t, err)
	roots, _, err := c.api.Agent().ConnectCARoots(nil)
	must(t, err)
	if len(roots.Roots) < 2 {
		t.Fatalf("%d roots after a new one", len(roots.Roots))
	}
}

// The agent ends and comes back. Clients are served all the time.
func TestMeshOutlivesTheAgent(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	s := c.startMeshServer(t, "billing", "a", nil)
	c.register(t, "billing-sidecar", "a", s.addr, sidecarOf("billing"))
	l := runLictor(t, consulBlock(c)+meshService("billing"))
	awaitRotation(t, l.addr(t, "billing"), "a")
	clients := startWorkers(t, l.addr(t, "billing"), 5)
	clients.awaitRounds(t, 10)
	c.Kill()
	l.awaitLog(t, 0, complaint("consul"))
	clients.awaitRounds(t, 10)
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
	// A dev agent comes back with another authority and another trust domain, and knows no services.
	must(t, c.Restart(t.Context()))
	c.register(t, "billing-sidecar", "b", c.startMeshServer(t, "billing", "b", nil).addr, sidecarOf("billing"))
	awaitRotation(t, l.addr(t, "billing"), "b")
}

// Lictor starts without Consul. It knows where the instance is, has no certificate, and refuses clients until it has
// one. It never speaks plain text.
func TestMeshStartsWithoutConsul(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	s := c.startMeshServer(t, "billing", "a", nil)
	c.register(t, "billing-sidecar", "a", s.addr, sidecarOf("billing"))
	dir := filepath.Join(t.TempDir(), "state")
	config := fmt.Sprintf("state_dir = %q\n", dir) + consulBlock(c) + meshService("billing")
	l := runLictor(t, config)
	awaitRotation(t, l.addr(t, "billing"), "a")
	awaitSaved(t, dir, s.addr.String())
	must(t, l.Signal(syscall.SIGKILL))
	<-l.Done()

	c.pause(t)
	l = startLictor(t, config)
	l.awaitAnswer(t, "explain billing", 0, s.addr.String())
	for range 5 {
		if name, err := ask(t.Context(), l.addr(t, "billing")); err == nil {
			t.Errorf("served by %q without a certificate", name)
		}
	}
	c.resume(t)
	awaitRotation(t, l.addr(t, "billing"), "a")
	s.wantClients(t, "web")
}

// The token of docs/mesh.md has all rights that are needed. Without the right to an identity, its services refuse
// clients until the right is given. If a right is taken away, the certificate stays in use, and the status counts what
// Consul refuses. The agent notices that when it has a certificate signed, which is when the authority is replaced.
func TestMeshNeedsTheRightToAnIdentity(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("Consul takes up to 30 s to replace certificates")
	}
	c := startConsul(t, testconsul.Options{ACL: true})
	c.configure(t, &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: "billing",
		Sources: []*api.SourceIntention{{Name: "*", Action: api.IntentionActionAllow}}})
	s := c.startMeshServer(t, "billing", "a", nil)
	c.register(t, "billing-sidecar-proxy", "a", s.addr, sidecarOf("billing"))
	_, rules, _ := strings.Cut(readFile(t, "../docs/mesh.md"), "```hcl consul-policy\n")
	rules, _, _ = strings.Cut(rules, "```")
	policy, token := c.tokenFor(t, rules)
	l := runLictor(t, fmt.Sprintf("consul {\n  address = %q\n  token = %q\n}\n", c.HTTP, token)+
		meshService("billing")+service("other", "consul { service = \"billing\" }", `mesh { as = "other" }`,
		patientDials))
	awaitRotation(t, l.addr(t, "billing"), "a")
	l.awaitAnswer(t, "mesh status web", 0, "fine")
	l.awaitAnswer(t, "mesh status other", 4, "WAITING", "Permission denied")
	if name, err := ask(t.Context(), l.addr(t, "other")); err == nil {
		t.Errorf("served by %q without a certificate", name)
	}
	policy.Rules = rules + `service "other" { policy = "write" }`
	_, _, err := c.api.ACL().PolicyUpdate(policy, nil)
	must(t, err)
	awaitRotation(t, l.addr(t, "other"), "a")
	l.awaitAnswer(t, "mesh status other", 0, "fine")

	policy.Rules = rules
	_, _, err = c.api.ACL().PolicyUpdate(policy, nil)
	must(t, err)
	c.replaceRoot(t)
	l.awaitAnswer(t, "mesh status -json other", 0, "Permission denied") // after two minutes, the state is "failing"
	refused := l.refusedBy(t, "other")
	eventually(t, "more refusals", func() error { // between them, the agent repeats the former certificate
		if _, out := l.ask(t, "mesh", "status", "-json", "other"); !strings.Contains(out, "Permission denied") {
			t.Errorf("an answer has ended the trouble:\n%s", out)
		}
		if n := l.refusedBy(t, "other"); n < refused+2 {
			return fmt.Errorf("%d refusals, and %d before", n, refused)
		}
		return nil
	})
	awaitRotation(t, l.addr(t, "other"), "a")
	awaitRotation(t, l.addr(t, "billing"), "a")
	s.wantClients(t, "other", "web")
}

// refusedBy returns how often Consul has given no certificate for an identity.
func (l *lictor) refusedBy(t *testing.T, identity string) (n int) {
	t.Helper()
	_, out := l.ask(t, "mesh", "status", identity)
	if m := failedQuestions.FindStringSubmatch(out); m != nil {
		_, err := fmt.Sscan(m[1], &n)
		must(t, err)
		return n
	}
	t.Fatalf("the status has no count of failed questions:\n%s", out)
	panic("unreachable")
}

var failedQuestions = regexp.MustCompile(`(\d+) failed questions?`)

// tokenFor returns a new policy, and a token with its rights.
func (c *consul) tokenFor(t *testing.T, rules string) (policy *api.ACLPolicy, token string) {
	t.Helper()
	policy, _, err := c.api.ACL().PolicyCreate(&api.ACLPolicy{Name: "lictor", Rules: rules}, nil)
	must(t, err)
	one, _, err := c.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	must(t, err)
	return policy, one.SecretID
}

// allowing returns the intentions of a service: of web, an action; of all others, none.
func allowing(service string, action api.IntentionAction) *api.ServiceIntentionsConfigEntry {
	return &api.ServiceIntentionsConfigEntry{Kind: api.ServiceIntentions, Name: service,
		Sources: []*api.SourceIntention{{Name: "web", Action: action}}}
}

// An intention denies and allows again while clients come. That is counted and said, and is not held against the
// endpoint. The server asks Consul's servers. `consul connect proxy` would ask the agent, which may not hear of a
// change: neither the second one nor, once, the first one for 150 s (seen with 1.22.7).
func TestMeshIntentionDeniesAndAllowsAgain(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	s := c.startMeshServer(t, "billing", "a", func(config *tls.Config) {
		config.VerifyConnection = func(tls.ConnectionState) error {
			check := &api.IntentionCheck{Source: "web", Destination: "billing"}
			if allowed, _, err := c.api.Connect().IntentionCheck(check, nil); err != nil || !allowed {
				return fmt.Errorf("allowed: %v, %w", allowed, err)
			}
			return nil
		}
	})
	c.register(t, "billing-sidecar", "a", s.addr, sidecarOf("billing"))
	l := runLictor(t, consulBlock(c)+meshService("billing"))
	billing := l.addr(t, "billing")
	awaitRotation(t, billing, "a")
	for range 2 {
		c.configure(t, allowing("billing", api.IntentionActionDeny))
		l.awaitDenial(t, billing)
		c.configure(t, allowing("billing", api.IntentionActionAllow))
		awaitRotation(t, billing, "a")
	}
	l.awaitAnswer(t, "events", 0, "denied", "allowed")
	if _, out := l.ask(t, "events"); strings.Contains(out, "ejected") {
		t.Errorf("the endpoint was ejected:\n%s", out)
	}
	if n := l.metric(t, `lictor_clients_refused_total{reason="denied",service="billing"}`); n < 2 {
		t.Errorf("%d denied clients are counted", n)
	}
}

// awaitDenial makes clients come until Lictor says that their destination, which is the only one, denies them.
func (l *lictor) awaitDenial(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	eventually(t, "lictor says who denies", func() error {
		_, _ = ask(t.Context(), addr)
		_, out := l.ask(t, "explain", "billing")
		for _, want := range []string{"denied by the destination", "1 of 1 known endpoint gets clients"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in:\n%s", want, out)
			}
		}
		return nil
	})
}

// The sidecar denies the identity from the start. Whether the sidecar hears that it must not do so any more is up to
// the agent, see TestMeshIntentionDeniesAndAllowsAgain.
func TestMeshSidecarDenies(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.configure(t, allowing("billing", api.IntentionActionDeny))
	c.startSidecar(t, "billing", startEcho(t, "a"))
	l := runLictor(t, consulBlock(c)+meshService("billing"))
	l.awaitDenial(t, l.addr(t, "billing"))
}

// An instance with the certificate of another service is passed over, and it is said what it is.
func TestMeshPassesOverAWrongServer(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	good, wrong := c.startMeshServer(t, "billing", "good", nil), c.startMeshServer(t, "ledger", "wrong", nil)
	c.register(t, "billing-sidecar", "good", good.addr, sidecarOf("billing"))
	c.register(t, "billing-sidecar", "wrong", wrong.addr, sidecarOf("billing"))
	plain := startEcho(t, "plain")
	c.register(t, "billing-sidecar", "plain", plain.addr, sidecarOf("billing"))
	l := runLictor(t, consulBlock(c)+meshService("billing"))
	awaitRotation(t, l.addr(t, "billing"), "good")
	for range 6 {
		if client := mustConnect(t, l.addr(t, "billing")); client.name != "good" {
			t.Errorf("served by %s", client.name)
		}
	}
	eventually(t, "the log says who the wrong one is", func() error {
		_, _ = ask(t.Context(), l.addr(t, "billing"))
		if !strings.Contains(l.stderr.String(), "/svc/ledger") {
			return errors.New("not there")
		}
		return nil
	})
	l.awaitAnswer(t, "explain billing", 0, "test/wrong", "the last TLS handshake failed: ", "/svc/ledger")
	good.wantClients(t, "web")
}

// Successors have certificates at once, and serve clients while Consul does not answer.
func TestMeshUpgradeKeepsServing(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.startSidecar(t, "billing", startEcho(t, "a"))
	d := found(t, consulBlock(c)+meshService("billing"))
	billing := d.addr(t, "billing")
	awaitRotation(t, billing, "a")
	kept := mustConnect(t, billing)
	load := newCrowd(t)
	load.add("client", func(int) error {
		name, err := ask(t.Context(), billing)
		if err == nil && name != "a" {
			err = fmt.Errorf("got %q", name)
		}
		return err
	})
	for range 2 {
		d.upgrade(t)
		load.getOn(5)
	}
	load.end()
	kept.mustEcho(t, "still there?")
	if _, out := d.command(t, "mesh", "status"); !slices.Contains(strings.Fields(out), "web") {
		t.Errorf("no web in:\n%s", out)
	}
}
