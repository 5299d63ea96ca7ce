//go:build unix

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// patientDials lets a handshake take longer than a second, because it does so on a busy machine.
const patientDials = `connect_timeout = "20s"`

// meshService returns a service block with the identity of web.
func meshService(name string, body ...string) string {
	return service(name, append(body, `mesh { as = "web" }`, patientDials)...)
}

// A local client reaches a service of the mesh whose sidecar is `consul connect proxy`.
func TestMeshReachesASidecar(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.startSidecar(t, "billing", startEcho(t, "a"))
	l := runLictor(t, consulBlock(c)+meshService("billing"))
	awaitRotation(t, l.addr(t, "billing"), "a")
	client := mustConnect(t, l.addr(t, "billing"))
	client.mustEcho(t, "hello")
	l.awaitAnswer(t, "mesh status", 0, "web", "fine", "/ns/default/dc/dc1/svc/web", "billing")
	l.awaitAnswer(t, "explain billing", 0, "1 of 1 known endpoint gets clients", "dials in the mesh as web",
		"identity: /ns/default/dc/dc1/svc/billing")
	for _, args := range [][]string{{"status", "-json"}, {"mesh", "status"}, {"mesh", "status", "-json"}} {
		if _, text := l.ask(t, args...); strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("lictor %v shows a key", args)
		}
	}
}

// A local client reaches a service that speaks the mesh's TLS itself, with Consul's Go SDK.
func TestMeshReachesANativeService(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.startNative(t, "billing", "a")
	l := runLictor(t, consulBlock(c)+meshService("billing"))
	awaitRotation(t, l.addr(t, "billing"), "a")
	mustConnect(t, l.addr(t, "billing")).mustEcho(t, "hello")
}

// A terminating gateway has the certificates of several services, and chooses by the server name.
func TestMeshReachesATerminatingGateway(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	gateway := c.startMeshServerByName(t, map[string]string{"billing.default.dc1.internal.": "billing",
		"ledger.default.dc1.internal.": "ledger"}, "gateway", nil)
	c.configure(t, &api.TerminatingGatewayConfigEntry{Kind: api.TerminatingGateway, Name: "gateway",
		Services: []api.LinkedService{{Name: "billing"}, {Name: "ledger"}}})
	c.register(t, "gateway", "gateway", gateway.addr, func(r *api.AgentServiceRegistration) {
		r.Kind = api.ServiceKindTerminatingGateway
	})
	l := runLictor(t, consulBlock(c)+meshService("billing")+meshService("ledger"))
	awaitRotation(t, l.addr(t, "billing"), "gateway")
	awaitRotation(t, l.addr(t, "ledger"), "gateway")
	gateway.wantClients(t, "web")
}

// configure writes a configuration entry.
func (c *consul) configure(t *testing.T, entry api.ConfigEntry) {
	t.Helper()
	_, _, err := c.api.ConfigEntries().Set(entry, nil)
	must(t, err)
}

// Lictor follows what the resolver of a service says: a subset, a redirect, a failover.
func TestMeshFollowsResolvers(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, version := range []string{"v1", "v2"} {
		s := c.startMeshServer(t, "billing", version, nil)
		c.register(t, "billing-sidecar", version, s.addr, sidecarOf("billing"), meta("version", version), checked)
	}
	other := c.startMeshServer(t, "ledger", "other", nil)
	c.register(t, "ledger-sidecar", "other", other.addr, sidecarOf("ledger"))
	l := runLictor(t, consulBlock(c)+meshService("billing", `failback_hold = "0s"`))
	billing := l.addr(t, "billing")
	awaitRotation(t, billing, "v1", "v2")

	resolver := func(change func(*api.ServiceResolverConfigEntry)) {
		t.Helper()
		r := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "billing",
			Subsets: map[string]api.ServiceResolverSubset{"two": {Filter: `Service.Meta.version == "v2"`}}}
		change(r)
		c.configure(t, r)
	}
	resolver(func(r *api.ServiceResolverConfigEntry) { r.DefaultSubset = "two" })
	awaitRotation(t, billing, "v2")
	resolver(func(r *api.ServiceResolverConfigEntry) {
		r.DefaultSubset, r.Failover = "two", map[string]api.ServiceResolverFailover{"*": {Service: "ledger"}}
	})
	awaitRotation(t, billing, "v2")
	c.setHealth(t, "v2", api.HealthCritical)
	awaitRotation(t, billing, "other")
	c.setHealth(t, "v2", api.HealthPassing)
	awaitRotation(t, billing, "v2")
	resolver(func(r *api.ServiceResolverConfigEntry) {
		r.Redirect = &api.ServiceResolverRedirect{Service: "ledger"}
		r.Subsets = nil
	})
	awaitRotation(t, billing, "other")
	_, err := c.api.ConfigEntries().Delete(api.ServiceResolver, "billing", nil)
	must(t, err)
	awaitRotation(t, billing, "v1", "v2")
	other.wantClients(t, "web")
}

// A resolver sends clients to another datacenter, which has the same trust domain.
func TestMeshFailsOverToAnotherDatacenter(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	const primary = `primary_datacenter = "dc1"` + "\n"
	one := startConsul(t, testconsul.Options{WAN: true, HCL: primary})
	two := startConsul(t, testconsul.Options{Datacenter: "dc2", JoinWAN: one.WAN, HCL: primary})
	var near, far *meshServer
	near = one.startMeshServer(t, "billing", "near", nil)
	far = two.startMeshServer(t, "billing", "far", nil)
	one.register(t, "billing-sidecar", "near", near.addr, sidecarOf("billing"), checked)
	two.register(t, "billing-sidecar", "far", far.addr, sidecarOf("billing"))
	one.configure(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "billing",
		Failover: map[string]api.ServiceResolverFailover{"*": {Datacenters: []string{"dc2"}}}})
	eventually(t, "dc2 has the authority of dc1", func() error {
		a, _, err := one.api.Agent().ConnectCARoots(nil)
		if err != nil {
			return err
		}
		b, _, err := two.api.Agent().ConnectCARoots(nil)
		if err == nil && a.TrustDomain != b.TrustDomain {
			err = errors.New("another trust domain")
		}
		return err
	})
	l := runLictor(t, consulBlock(one)+meshService("billing", `failback_hold = "0s"`))
	awaitRotation(t, l.addr(t, "billing"), "near")
	one.setHealth(t, "near", api.HealthCritical)
	awaitRotation(t, l.addr(t, "billing"), "far")
	far.wantClients(t, "web")
}

// Servers that speak only TLS 1.2 or only TLS 1.3 are reached, and their connections end and break like any others.
func TestMeshSpeaksBothVersionsOfTLS(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	config := consulBlock(c)
	versions := map[string]uint16{"old": tls.VersionTLS12, "new": tls.VersionTLS13}
	servers := map[string]*meshServer{}
	for name, version := range versions {
		s := c.startMeshServer(t, name, name, func(config *tls.Config) {
			config.MinVersion, config.MaxVersion = version, version
		})
		c.register(t, name+"-sidecar", name, s.addr, sidecarOf(name))
		config += meshService(name)
		servers[name] = s
	}
	l := runLictor(t, config)
	for name := range versions {
		awaitRotation(t, l.addr(t, name), name)
		client := mustConnect(t, l.addr(t, name))
		client.mustEcho(t, "hello")
		must(t, client.CloseWrite())
		_ = client.SetReadDeadline(time.Now().Add(patience))
		if rest, err := io.ReadAll(client.reader); err != nil || len(rest) > 0 {
			t.Errorf("%s: got %q, %v after the half-close", name, rest, err)
		}
		servers[name].wantClients(t, "web")
	}
}

// A reset of the server reaches the client, and a reset of the client the server.
func TestMeshPassesResetsOn(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	s := c.startMeshServer(t, "billing", "a", nil)
	c.register(t, "billing-sidecar", "a", s.addr, sidecarOf("billing"))
	l := runLictor(t, consulBlock(c)+meshService("billing"))
	awaitRotation(t, l.addr(t, "billing"), "a")
	client := mustConnect(t, l.addr(t, "billing"))
	s.reset()
	client.awaitReset(t)
	client = mustConnect(t, l.addr(t, "billing"))
	must(t, client.SetLinger(0))
	must(t, client.Close())
	eventually(t, "the server's connection is broken", func() error {
		if err := s.lastEnd(); !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// lictor forward reaches a service of the mesh without a configuration.
func TestMeshForward(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	s := c.startMeshServer(t, "billing", "a", nil)
	c.register(t, "billing-sidecar", "a", s.addr, sidecarOf("billing"))
	at := freePort(t)
	l := &lictor{stdout: &testproc.Log{}, stderr: &testproc.Log{}}
	cmd := exec.Command(lictorPath(t), "forward", "-consul", c.HTTP, "-mesh", "-as", "web",
		fmt.Sprintf("billing:%d", at.Port()))
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = l.stdout, l.stderr
	var err error
	l.Process, err = testproc.Start(cmd)
	must(t, err)
	t.Cleanup(func() { l.cleanup(t) })
	awaitRotation(t, at, "a")
	s.wantClients(t, "web")
}
