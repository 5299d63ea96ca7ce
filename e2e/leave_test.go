//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// reach connects to a service again and again until the named instance answers.
func reach(t testing.TB, addr netip.AddrPort, name string) *client {
	t.Helper()
	var found *client
	eventually(t, "a connection to "+name, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := connect(ctx, addr)
		if err != nil {
			return err
		}
		if c.name != name {
			_ = c.Close()
			return fmt.Errorf("got one to %s", c.name)
		}
		found = c
		return nil
	})
	t.Cleanup(func() { _ = found.Close() })
	return found
}

// awaitReset waits until the connection is reset.
func (c *client) awaitReset(t testing.TB) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if b, err := c.reader.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the connection to %s: got %d, %v, want a reset", c.name, b, err)
	}
}

func (c *client) mustEcho(t testing.TB, text string) {
	t.Helper()
	if err := c.echo(text); err != nil {
		t.Errorf("the connection to %s: %v", c.name, err)
	}
}

// The primary of a database moves to another instance. Clients of the old primary are cut, connect again, and reach
// the new one. Clients of services without on_leave = "cut" notice nothing.
func TestPrimaryThatMovesCutsItsClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change [2]string // the instances that are registered again, in this order; b is the new primary
	}{{"the new one first", [2]string{"b", "a"}}, {"the old one first", [2]string{"a", "b"}}} {
		t.Run(tt.name, func(t *testing.T) {
			c := startConsul(t, testconsul.Options{})
			at := map[string]netip.AddrPort{"a": startEcho(t, "a").addr, "b": startEcho(t, "b").addr}
			c.register(t, "db", "a", at["a"], tags("primary"))
			c.register(t, "db", "b", at["b"], tags("replica"))
			query := `consul {` + "\n" + `service = "db"` + "\n" + `tags = ["primary"]` + "\n" + `drop_hold = "0s"` +
				"\n}"
			l := runLictor(t, consulBlock(c)+
				service("primary", `on_leave = "cut"`, query)+
				service("patient", query)+
				service("any", `on_leave = "cut"`, `consul { service = "db" }`))
			var clients, others []*client
			for range 10 {
				clients = append(clients, reach(t, l.addr(t, "primary"), "a"))
			}
			for _, name := range []string{"patient", "any"} {
				others = append(others, reach(t, l.addr(t, name), "a"))
			}
			for _, name := range tt.change {
				c.register(t, "db", name, at[name], tags(map[string]string{"a": "replica", "b": "primary"}[name]))
			}
			for _, one := range clients {
				one.awaitReset(t)
				if next := reach(t, l.addr(t, "primary"), "b"); next.echo("hello") != nil {
					t.Error("the new primary does not answer")
				}
			}
			for _, one := range others {
				one.mustEcho(t, "still there?")
			}
			wantCounts(t, l.addr(t, "primary"), map[string]int{"b": 5})
		})
	}
}

// Each reason to leave resets connections if on_leave cuts for it. If on_leave cuts only for other reasons, they
// continue.
func TestEachReasonToLeave(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, reason string
		query        string
		leave        func(*testing.T, *consul, netip.AddrPort)
	}{
		{"deregistered", "deregistered", ``, func(t *testing.T, c *consul, _ netip.AddrPort) { c.deregister(t, "a") }},
		{"deregistered, with a tag", "deregistered", `tags = ["v1"]`,
			func(t *testing.T, c *consul, _ netip.AddrPort) { c.deregister(t, "a") }},
		{"at another port", "deregistered", ``, func(t *testing.T, c *consul, _ netip.AddrPort) {
			c.register(t, "web", "a", startEcho(t, "a").addr, checked, tags("v1"))
		}},
		{"critical", "critical", ``,
			func(t *testing.T, c *consul, _ netip.AddrPort) {
				c.setHealth(t, "a", api.HealthCritical)
			}},
		{"critical, with a tag", "critical", `tags = ["v1"]`,
			func(t *testing.T, c *consul, _ netip.AddrPort) { c.setHealth(t, "a", api.HealthCritical) }},
		{"maintenance", "critical", ``, func(t *testing.T, c *consul, _ netip.AddrPort) {
			must(t, c.api.Agent().EnableServiceMaintenance("a", "as the test wants it"))
		}},
		{"tag", "unmatched", `tags = ["v1"]`,
			func(t *testing.T, c *consul, at netip.AddrPort) {
				c.register(t, "web", "a", at, checked)
			}},
		{"filter", "unmatched", "filter = \"`v1` in Service.Tags\"",
			func(t *testing.T, c *consul, at netip.AddrPort) { c.register(t, "web", "a", at, checked) }},
		{"status", "unmatched", ``,
			func(t *testing.T, c *consul, _ netip.AddrPort) {
				c.setHealth(t, "a", api.HealthWarning)
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := startConsul(t, testconsul.Options{})
			at := map[string]netip.AddrPort{}
			for _, name := range []string{"a", "b", "c"} {
				at[name] = startEcho(t, name).addr
				c.register(t, "web", name, at[name], checked, tags("v1"))
			}
			query := "consul {\nservice = \"web\"\n" + tt.query + "\n}"
			cuts, keeps := "", ""
			for _, reason := range []string{"deregistered", "critical", "unmatched"} {
				line := reason + " = \"cut\"\n"
				if reason == tt.reason {
					cuts += line
				} else {
					keeps += line
				}
			}
			l := runLictor(t, consulBlock(c)+
				service("cuts", "on_leave {", cuts+"}", query)+
				service("keeps", "on_leave {", keeps+"}", query))
			cut, kept := reach(t, l.addr(t, "cuts"), "a"), reach(t, l.addr(t, "keeps"), "a")
			other := reach(t, l.addr(t, "cuts"), "b")
			tt.leave(t, c, at["a"])
			cut.awaitReset(t)
			other.mustEcho(t, "unharmed?")
			kept.mustEcho(t, "still there?")
			// When another instance has left in the same way, the first is past the moment at which it would be cut.
			c.setHealth(t, "b", api.HealthCritical)
			if tt.reason == "critical" {
				other.awaitReset(t)
			}
			awaitRotation(t, l.addr(t, "keeps"), restOf(tt.name)...)
			kept.mustEcho(t, "and now?")
		})
	}
}

// restOf returns the instances that remain in the end.
func restOf(name string) []string {
	if name == "at another port" {
		return []string{"a", "c"}
	}
	return []string{"c"}
}

// Connections continue for the configured time, and for good if their instance returns within that time.
func TestLeaveWithinATimeAndReturn(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b", "c", "d"} {
		c.register(t, "web", name, startEcho(t, name).addr, checked)
	}
	l := runLictor(t, consulBlock(c)+service("web", `on_leave = "3s"`))
	web := l.addr(t, "web")
	a, b := reach(t, web, "a"), reach(t, web, "b")
	c.setHealth(t, "a", api.HealthCritical)
	awaitRotation(t, web, "b", "c", "d")
	c.setHealth(t, "b", api.HealthCritical)
	awaitRotation(t, web, "c", "d")
	for _, one := range []*client{a, b} {
		one.mustEcho(t, "for how long?")
	}
	c.setHealth(t, "a", api.HealthPassing)
	awaitRotation(t, web, "a", "c", "d")
	b.awaitReset(t) // b left later
	a.mustEcho(t, "still there?")
}

// A held instance has not left, so no connection is cut when Consul loses its data, when all checks fail at once, or
// when Consul is away.
func TestWhatIsHeldIsNotCut(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	instances := map[string]*instance{}
	for _, name := range []string{"a", "b", "c"} {
		instances[name] = startEcho(t, name)
		c.register(t, "web", name, instances[name].addr, checked)
	}
	disk := &api.AgentCheckRegistration{ID: "disk", Name: "disk",
		AgentServiceCheck: api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing}}
	must(t, c.api.Agent().CheckRegister(disk)) // a check of the node counts for all instances on it
	l := runLictor(t, consulBlock(c)+service("web", `on_leave = "cut"`, `consul { drop_hold = "1m" }`))
	var open []*client
	for range 3 {
		open = append(open, mustConnect(t, l.addr(t, "web")))
	}
	all := func(text string) {
		t.Helper()
		for _, one := range open {
			one.mustEcho(t, text)
		}
	}
	must(t, c.api.Agent().UpdateTTL("disk", "full", api.HealthCritical))
	l.awaitLog(t, 0, complaint("vanished at once"))
	all("critical?")
	must(t, c.api.Agent().UpdateTTL("disk", "empty", api.HealthPassing))
	l.awaitLog(t, 0, func(e entry) bool {
		return e.field("@message") == "no vanished instances are kept in use any "+
			"more"
	})
	skip := len(l.log())
	c.Kill()
	all("away?")
	must(t, c.Restart(t.Context()))
	l.awaitLog(t, skip, complaint("vanished at once"))
	all("forgotten?")
	for name, i := range instances {
		c.register(t, "web", name, i.addr, checked)
	}
	l.awaitLog(t, skip, func(e entry) bool {
		return e.field("@message") == "no vanished instances are kept in use "+
			"any more"
	})
	all("known again?")
	c.deregister(t, open[0].name) // this one is not registered again
	open[0].awaitReset(t)
	open[1].mustEcho(t, "unharmed?")
}

// No connection is cut when an operator drains an instance, when an instance is ejected, or when another source takes
// over.
func TestWhatIsNoLeave(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b"} {
		c.register(t, "web", name, startEcho(t, name).addr, checked)
	}
	l := runLictor(t, consulBlock(c)+service("web", `on_leave = "cut"`, `failover_below = 2`,
		`consul { hold_max = "1s" }`, endpoints(startEcho(t, "x"), startEcho(t, "y"))))
	web := l.addr(t, "web")
	a, b := reach(t, web, "a"), reach(t, web, "b")
	l.post(t, "/v1/services/web/drain", `{"endpoint": "test/a"}`)
	awaitRotation(t, web, "b")
	a.mustEcho(t, "drained?")
	c.setHealth(t, "b", api.HealthCritical)
	b.awaitReset(t)
	awaitRotation(t, web, "x", "y") // one instance is fewer than failover_below
	a.mustEcho(t, "left behind?")
	c.setHealth(t, "a", api.HealthCritical) // of the source that is not in use
	a.awaitReset(t)
}

// A reload from finish to cut counts for instances that have left already, and for those that leave later. A reload
// from cut to finish counts for those that leave later. Other connections are not affected.
func TestReloadTurnsFinishIntoCut(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		c.register(t, "web", name, startEcho(t, name).addr, checked)
	}
	web := freePort(t)
	l := runLictor(t, consulBlock(c)+serviceAt("web", web))
	open := map[string]*client{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		open[name] = reach(t, web, name)
	}
	c.setHealth(t, "a", api.HealthCritical)
	c.deregister(t, "b")
	awaitRotation(t, web, "c", "d", "e", "f")
	open["a"].mustEcho(t, "finish?")
	open["b"].mustEcho(t, "finish?")
	l.mustReload(t, consulBlock(c)+serviceAt("web", web, `on_leave = "cut"`))
	open["a"].awaitReset(t)
	open["b"].awaitReset(t)
	c.deregister(t, "c")
	open["c"].awaitReset(t)
	l.mustReload(t, consulBlock(c)+serviceAt("web", web))
	c.setHealth(t, "d", api.HealthCritical)
	awaitRotation(t, web, "e", "f")
	for _, name := range []string{"d", "e", "f"} {
		open[name].mustEcho(t, "still there?")
	}
}

// After a scale-out, clients with long connections spread over all instances. Each of their connections ends properly.
func TestMaxAgeSpreadsConnectionsAfterAScaleOut(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, consulBlock(c)+service("web", `max_age = "1s"`))
	web := l.addr(t, "web")
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	served := map[string]int{} // now
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	const n = 20
	for i := range n {
		clients.Go(func() {
			for ctx.Err() == nil {
				if err := stay(ctx, web, &mu, served); err != nil && ctx.Err() == nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	share := func(name string, least int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d connections to %s", least, name), func() error {
			mu.Lock()
			defer mu.Unlock()
			if served[name] < least || t.Failed() {
				return fmt.Errorf("%v", served)
			}
			return nil
		})
	}
	share("a", n)
	c.register(t, "web", "b", startEcho(t, "b").addr)
	share("b", n/2-2)
}

// stay connects, sends a line, and waits for the end of the connection. It returns an error unless the end is proper.
func stay(ctx context.Context, web netip.AddrPort, mu *sync.Mutex, served map[string]int) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := connect(limited, web)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	count := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		served[c.name] += by
	}
	count(1)
	defer count(-1)
	if err := c.echo("hello"); err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if ctx.Err() != nil {
		return nil
	}
	if _, err := c.reader.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the connection ended by %w", err)
	}
	return nil
}
