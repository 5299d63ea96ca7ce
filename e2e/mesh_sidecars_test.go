//go:build unix

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// Lictor follows the instances of its host: one comes, its port changes, it leaves. When Lictor ends, so do its
// registrations.
func TestMeshFollowsLocalInstances(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	block, _ := meshAt(t, 3)
	l := runLictor(t, consulBlock(c)+block+expose("billing"))
	web := c.as(t, "web", "billing")
	served := func(names ...string) {
		t.Helper()
		all := c.awaitSidecars(t, "billing", len(names))
		for _, name := range names {
			awaitServedByOne(t, c, web, name)
		}
		if t.Failed() {
			t.Fatalf("instances: %v", all)
		}
	}
	served()
	c.register(t, "billing", "one", startEcho(t, "a").addr)
	served("a")
	c.register(t, "billing", "two", startEcho(t, "b").addr)
	served("a", "b")
	c.register(t, "billing", "one", startEcho(t, "c").addr)
	served("c", "b")
	c.deregister(t, "two")
	served("c")
	l.terminate(t)
	l.exits(t, 0)
	served()
}

// awaitServedByOne waits until one of the instances in the mesh has a name.
func awaitServedByOne(t testing.TB, c *consul, config *tls.Config, name string) {
	t.Helper()
	eventually(t, "an instance is "+name, func() error {
		all, err := c.sidecars("billing")
		var others []string
		for _, s := range all {
			got, askErr := askMesh(t.Context(), addressOf(t, s), config)
			if got == name {
				return nil
			}
			others = append(others, fmt.Sprint(got, askErr))
		}
		return errors.Join(err, fmt.Errorf("got %q", others))
	})
}

// A Lictor that was killed leaves registrations behind. The next one removes those that it does not need, and nothing
// of others. A service that is still exposed keeps its port.
func TestMeshRemovesOrphans(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	state := fmt.Sprintf("state_dir = %q\n", filepath.Join(t.TempDir(), "state"))
	block, _ := meshAt(t, 4)
	base := state + consulBlock(c) + block
	for _, name := range []string{"billing", "ledger"} {
		c.register(t, name, name, startEcho(t, name).addr)
	}
	foreign := c.startMeshServer(t, "stock", "foreign", nil)
	c.register(t, "stock-sidecar-proxy", "stock-sidecar-proxy", foreign.addr, sidecarOf("stock"))
	l := runLictor(t, base+expose("ledger")+expose("billing"))
	c.awaitSidecars(t, "ledger", 1)
	before := onlyAddress(t, c.awaitSidecars(t, "billing", 1))
	must(t, l.Signal(syscall.SIGKILL))
	<-l.Done()
	if n := len(c.awaitSidecars(t, "ledger", 1)); n != 1 {
		t.Fatalf("%d orphans", n)
	}
	runLictor(t, base+expose("billing"))
	c.awaitSidecars(t, "ledger", 0)
	if after := onlyAddress(t, c.awaitSidecars(t, "billing", 1)); after != before {
		t.Errorf("billing has moved from %s to %s", before, after)
	}
	awaitServed(t, before, c.as(t, "web", "billing"), "billing")
	c.awaitSidecars(t, "stock", 1)
}

func onlyAddress(t testing.TB, all map[string]*api.ServiceEntry) (at netip.AddrPort) {
	t.Helper()
	for _, s := range all {
		at = addressOf(t, s)
	}
	return at
}

// The agent restarts: one with its state still has the registrations, and one that comes back with nothing, another
// authority and another trust domain gets them again. Connections go on.
func TestMeshRegistersAgain(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	for name, options := range map[string]testconsul.Options{"with its state": {Servers: 1,
		HCL: "connect { enabled = true }\n"}, "with nothing": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startConsul(t, options)
			instance := startEcho(t, "a").addr
			c.register(t, "billing", "billing", instance)
			block, at := meshAt(t, 1)
			runLictor(t, consulBlock(c)+block+expose("billing"))
			c.awaitSidecars(t, "billing", 1)
			web := c.as(t, "web", "billing")
			awaitServed(t, at, web, "a")
			kept := mustDialMesh(t, at, web)
			c.Kill()
			if _, err := askMesh(t.Context(), at, web); err != nil {
				t.Errorf("without the agent: %v", err)
			}
			must(t, c.Restart(t.Context()))
			c.register(t, "billing", "billing", instance)
			c.awaitSidecars(t, "billing", 1)
			must(t, kept.echo("still there?"))
			eventually(t, "a client with a certificate of now is served", func() error {
				_, err := askMesh(t.Context(), at, c.as(t, "web", "billing"))
				return err
			})
		})
	}
}

// A service moves from its sidecar to Lictor and back as docs/migrating-mesh.md says. Whichever order, the instance is
// in the mesh once: Lictor does not fight another sidecar.
func TestMeshMigratesASidecar(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.startSidecar(t, "billing", startEcho(t, "a"))
	sidecar, _, err := c.api.Agent().Service("billing-a-sidecar", nil)
	must(t, err)
	block, _ := meshAt(t, 1)
	base := consulBlock(c) + block + meshService("billing")
	l := runLictor(t, base+expose("billing"))
	in := func(id string) {
		t.Helper()
		eventually(t, id+" is the only instance in the mesh", func() error {
			all, err := c.sidecars("billing")
			if err == nil && (len(all) != 1 || all[id] == nil) {
				err = fmt.Errorf("got %v", slices.Collect(maps.Keys(all)))
			}
			return err
		})
		awaitRotation(t, l.addr(t, "billing"), "a")
	}
	register := func() {
		t.Helper()
		must(t, c.api.Agent().ServiceRegister(&api.AgentServiceRegistration{Kind: sidecar.Kind, ID: sidecar.ID,
			Name: sidecar.Service, Address: sidecar.Address, Port: sidecar.Port, Proxy: sidecar.Proxy}))
	}
	const own = "billing-a-lictor-proxy"
	l.awaitAnswer(t, "mesh status -json", 1, sidecar.ID) // it says who serves the instance
	in(sidecar.ID)
	c.command(t, "services", "deregister", "-id", sidecar.ID)
	in(own)

	l.mustReload(t, base)
	c.awaitSidecars(t, "billing", 0)
	register()
	in(sidecar.ID)

	c.command(t, "services", "deregister", "-id", sidecar.ID)
	l.mustReload(t, base+expose("billing"))
	in(own)
	register()
	in(sidecar.ID)
}

// command runs a command of Consul.
func (c *consul) command(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), consulBinary, args...)
	cmd.Env = append(environment(), "CONSUL_HTTP_ADDR="+c.HTTP, "CONSUL_HTTP_TOKEN="+c.Token)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("consul %v: %v\n%s", args, err, out)
	}
}

// An instance that is the admin API of Lictor is not exposed.
func TestMeshDoesNotExposeTheAdminAPI(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	admin := freePort(t)
	c.register(t, "billing", "billing", admin)
	block, _ := meshAt(t, 1)
	l := runLictor(t, consulBlock(c)+block+fmt.Sprintf("admin { listen = %q }\n", admin)+expose("billing"))
	eventually(t, "the status says why", func() error {
		_, out := l.ask(t, "mesh", "status", "-json", "-admin", admin.String())
		if !strings.Contains(out, "the instance is a listener of this lictor") {
			return errors.New(out)
		}
		return nil
	})
	c.awaitSidecars(t, "billing", 0)
}

// The token of docs/mesh.md for exposed services has all rights that are needed. Without the right to the service,
// there is no registration, and the status says why. When the right comes, so does the registration.
func TestMeshNeedsTheRightToExpose(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{ACL: true})
	c.configure(t, intentionsOf("billing", allows("web")))
	c.register(t, "billing", "billing", startEcho(t, "a").addr)
	_, rules, _ := strings.Cut(readFile(t, "../docs/mesh.md"), "```hcl consul-policy-exposed\n")
	rules, _, _ = strings.Cut(rules, "```")
	rules = strings.ReplaceAll(rules, "hello", "billing")
	few := strings.ReplaceAll(rules, "write", "read")
	policy, token := c.tokenFor(t, few)
	block, at := meshAt(t, 1)
	l := runLictor(t, fmt.Sprintf("consul {\n  address = %q\n  token = %q\n}\n", c.HTTP, token)+block+expose("billing"))
	l.awaitAnswer(t, "mesh status -json", 4, "Permission denied")
	c.awaitSidecars(t, "billing", 0)
	rights := func(rules string) {
		t.Helper()
		policy.Rules = rules
		_, _, err := c.api.ACL().PolicyUpdate(policy, nil)
		must(t, err)
	}
	rights(rules)
	c.awaitSidecars(t, "billing", 1)
	web := c.as(t, "web", "billing")
	awaitServed(t, at, web, "a")

	rights(few)
	for range 5 {
		if _, err := askMesh(t.Context(), at, web); err != nil {
			t.Errorf("after the token has lost the right: %v", err)
		}
	}
}

// During upgrades the service is always in the mesh, and every client is served.
func TestMeshUpgradeWithoutAFlap(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "billing", "billing", startEcho(t, "a").addr)
	block, at := meshAt(t, 1)
	d := found(t, consulBlock(c)+block+expose("billing"))
	c.awaitSidecars(t, "billing", 1)
	web := c.as(t, "web", "billing")
	awaitServed(t, at, web, "a")
	kept := mustDialMesh(t, at, web)
	load := newCrowd(t)
	load.add("client", func(int) error {
		name, err := askMesh(t.Context(), at, web)
		if err == nil && name != "a" {
			err = fmt.Errorf("got %q", name)
		}
		return err
	})
	load.add("look at Consul", func(int) error {
		all, err := c.sidecars("billing")
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d healthy instances", len(all))
		}
		return err
	})
	for range 2 {
		d.upgrade(t)
		load.getOn(5)
	}
	load.end()
	must(t, kept.echo("still there?"))
	if _, out := d.command(t, "mesh", "status"); !strings.Contains(out, "billing") {
		t.Errorf("no billing in:\n%s", out)
	}
	// Intentions are still followed.
	c.configure(t, intentionsOf("billing", denies("web")))
	awaitRefused(t, at, web)
}

// The authority of the mesh is replaced while clients come through both ends of one Lictor. No client notices.
func TestMeshRotatesUnderLoadAtBothEnds(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("Consul takes up to 30 s to replace certificates")
	}
	c := startConsul(t, testconsul.Options{})
	c.register(t, "billing", "billing", startEcho(t, "a").addr)
	block, at := meshAt(t, 1)
	l := runLictor(t, consulBlock(c)+block+expose("billing")+meshService("billing"))
	awaitRotation(t, l.addr(t, "billing"), "a")
	before := map[string]string{"web": c.leaf(t, "web"), "billing": c.leaf(t, "billing")}
	load := startPaced(t, 1000, l.addr(t, "billing"))
	load.await(t, 1000)
	c.replaceRoot(t)
	for service, old := range before {
		eventually(t, "the agent has the new certificate of "+service, func() error {
			load.await(t, 1)
			if c.leaf(t, service) == old {
				return errors.New("not yet")
			}
			return nil
		})
		l.awaitAnswer(t, "mesh status "+service, 0, c.leaf(t, service))
	}
	load.await(t, 1000)
	load.stop(t)
	awaitServed(t, at, c.as(t, "web", "billing"), "a")
}
