//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// Two instances are dead, although they pass their checks in Consul. When both are ejected, the static block serves.
// When one of them answers again, the service returns to it. Only clients that found the failures may fail.
func TestBackupServesWhileAllOfTheFirstSourceFail(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	first, second := startGreeter(t, "first"), startGreeter(t, "second")
	first.kill()
	second.kill()
	c.register(t, "web", "first", first.addr)
	c.register(t, "web", "second", second.addr)
	backup := startGreeter(t, "backup")
	l := runLictor(t, consulBlock(c)+service("web", `failback_hold = "1s"`, "consul {}", static(backup.addr)))
	web := l.addr(t, "web")

	early := 0
	eventually(t, "the backup serves", func() error {
		name, err := ask(t.Context(), web)
		if err != nil {
			early++
		} else if name != "backup" {
			err = fmt.Errorf("%s serves", name)
		}
		return err
	})
	t.Logf("%d clients failed before the backup served", early)
	const clients = 394
	served, failed := load(t, web, clients, nil)
	if failed > 0 || served["backup"] != clients {
		t.Errorf("%d of %d clients failed, want none: %v", failed, clients, served)
	}
	const why = "served by static: all 2 endpoints of the agent's datacenter fail from here"
	l.awaitAnswer(t, "status", 0, why)
	l.awaitAnswer(t, "explain web", 0, why, "source 2, static: in use", "failover")
	l.awaitAnswer(t, "events web", 0, "failover", why)
	l.awaitLog(t, 0, complaint("fails over"))

	first.start(t)
	eventually(t, "the first source serves again", func() error {
		name, err := ask(t.Context(), web)
		if err == nil && name != "first" {
			err = fmt.Errorf("%s serves", name)
		}
		return err
	})
	if served, failed = load(t, web, 100, nil); failed > 0 || served["first"] != 100 {
		t.Errorf("%d of 100 clients failed, want none: %v", failed, served)
	}
}

// With failover_on = "consul", instances that pass their checks in Consul stay in use although they fail. A reload
// changes that setting.
func TestBackupDoesNotServeIfOnlyConsulDecides(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "dead", deadAddr(t))
	backup := static(startGreeter(t, "backup").addr)
	config := func(on string) string {
		return consulBlock(c) + service("web", fmt.Sprintf("failover_on = %q", on), "consul {}", backup)
	}
	l := runLictor(t, config("consul"))
	web := l.addr(t, "web")
	for range 5 {
		if name, err := ask(t.Context(), web); err == nil {
			t.Fatalf("%s serves", name)
		}
	}
	l.mustReload(t, config("health"))
	awaitRotation(t, web, "backup")
}

// After an upgrade, the new process does not use instances that the old one knows to be dead.
func TestUpgradeStaysWithTheBackup(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "dead", deadAddr(t))
	d := found(t, consulBlock(c)+service("web", "consul {}", static(startGreeter(t, "backup").addr)))
	web := d.addr(t, "web")
	awaitRotation(t, web, "backup")
	d.upgrade(t)
	const clients = 100
	if served, failed := load(t, web, clients, nil); failed > 0 || served["backup"] != clients {
		t.Errorf("%d of %d clients failed after the upgrade, want none: %v", failed, clients, served)
	}
	(&lictor{runtime: d.runtime}).awaitAnswer(t, "status", 0, "served by static: the only endpoint of")
}

func TestBackupServesUDP(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	dead := freePort(t)
	c.register(t, "ping", "dead", dead)
	l := runLictor(t, consulBlock(c)+service("ping", udp, "consul {}", static(startUDP(t, "backup").addr)))
	dialUDP(t, l.addr(t, "ping")).awaitAnswer(t, "backup")
	l.awaitAnswer(t, "status", 0, "served by static: the only endpoint of the agent's datacenter fails from here")
}
