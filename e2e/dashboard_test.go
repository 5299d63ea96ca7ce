//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

const idleServices = 60

// A panel is a panel of docs/grafana.json.
type panel struct {
	Title, Type, Description string
	Targets                  []struct{ Expr string }
}

// readDashboard returns the panels of docs/grafana.json, and the queries of its variables.
func readDashboard(t testing.TB) (panels []panel, variables []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/grafana.json")
	must(t, err)
	var d struct {
		Panels     []panel
		Templating struct {
			List []struct{ Type, Definition string }
		}
	}
	must(t, json.Unmarshal(text, &d))
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			variables = append(variables, v.Definition)
		}
	}
	return d.Panels, variables
}

// inGrafana replaces the variables of a query, as Grafana does with everything selected.
func inGrafana(query string) string {
	return strings.NewReplacer("$__rate_interval", "6s", "$instance", ".*", "$service", ".*").Replace(query)
}

// Each panel of the dashboard shows something while there is traffic and trouble. It draws nothing that is zero, and so
// only a few series although most services are idle.
func TestDashboardShowsWhatIsNotZero(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	l, admin := runTroubled(t)
	p := startPrometheus(t, map[string]netip.AddrPort{"gate": admin})
	panels, variables := readDashboard(t)
	for _, v := range variables {
		metric, label, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(v, "label_values("), ")"), ", ")
		eventually(t, "the variable "+v, func() error {
			var values []string
			p.get(t, "/api/v1/label/"+label+"/values?match[]="+url.QueryEscape(inGrafana(metric)), &values)
			if len(values) == 0 {
				return errors.New("no value")
			}
			return nil
		})
	}
	for _, panel := range panels {
		if panel.Description == "" {
			t.Errorf("%s has no description", panel.Title)
		}
		eventually(t, "the panel "+panel.Title, func() error { return l.checkPanel(t, p, panel) })
	}
}

// checkPanel returns an error if a panel has no data. It reports a query that has none even with zeros, and a panel of
// series that draws zeros or too much.
func (l *lictor) checkPanel(t *testing.T, p *prometheus, panel panel) error {
	t.Helper()
	drawn := 0
	for _, target := range panel.Targets {
		expr := inGrafana(target.Expr)
		points := p.query(t, expr)
		drawn += len(points)
		if len(points) == 0 && len(p.query(t, strings.ReplaceAll(expr, " > 0", ""))) == 0 {
			return fmt.Errorf("no data, not even zeros, for %s", expr)
		}
		for _, point := range points {
			if panel.Type == "timeseries" && (point.value == 0 || math.IsNaN(point.value)) {
				t.Errorf("%s draws %v for %v", panel.Title, point.value, point.labels)
			}
		}
		if len(points) > 30 {
			t.Errorf("%s draws %d series of %s", panel.Title, len(points), expr)
		}
	}
	if drawn == 0 {
		return errors.New("nothing is drawn")
	}
	t.Logf("%-60s %d queries, %2d series", panel.Title, len(panel.Targets), drawn)
	return nil
}

// runTroubled runs a lictor with traffic over TCP and UDP, many idle services, and trouble of all kinds.
func runTroubled(t *testing.T) (l *lictor, admin netip.AddrPort) {
	t.Helper()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	c.register(t, "web", "b", startEcho(t, "b").addr)
	c.register(t, "dns", "u", startUDP(t, "u").addr)
	c.register(t, "billing", "billing", startEcho(t, "billing").addr)
	c.configure(t, intentionsOf("billing", denies("api")))
	mesh, billing := meshAt(t, 1)
	good, dead := startEcho(t, "good"), deadAddr(t)
	admin = freePort(t)
	config := fmt.Sprintf("admin { listen = %q }\naccess_log { path = %q }\n", admin,
		filepath.Join(t.TempDir(), "access.log")) + consulBlock(c) + mesh +
		expose("billing", `intentions = "permissive"`) + meshService("billing") +
		service("web") + service("dns", udp) + service("nowhere", `consul { datacenter = "nowhere" }`) +
		service("void", udp) + service("few", udp, "max_sessions = 1", endpoints(startUDP(t, "few"))) +
		service("dead", fmt.Sprintf("static { endpoints = [%q] }", dead)) +
		service("flaky", fmt.Sprintf("static { endpoints = [%q, %q] }", good.addr, deadAddr(t))) +
		service("full", "max_connections = 1", "queue_timeout = \"10m\"", endpoints(good))
	for i := range idleServices {
		config += service(fmt.Sprintf("idle-%d", i), endpoints(good))
	}
	l = startLictor(t, config)
	mustConnect(t, l.addr(t, "full")) // all that the service may have, so the next one waits
	waits, err := net.Dial("tcp", l.addr(t, "full").String())
	must(t, err)
	t.Cleanup(func() { _ = waits.Close() })
	eventually(t, "an instance to drain", func() error {
		answer, err := http.Post(fmt.Sprintf("http://%s/v1/services/web/drain", admin), "application/json",
			strings.NewReader(`{"endpoint": "test/b"}`))
		if err != nil {
			return err
		}
		must(t, answer.Body.Close())
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
	l.makeTraffic(t, c, billing)
	return l, admin
}

// makeTraffic makes clients of the services of runTroubled, and changes in Consul, until the end of the test. Peers
// reach the service billing at an address.
func (l *lictor) makeTraffic(t *testing.T, c *consul, billing netip.AddrPort) {
	t.Helper()
	var running sync.WaitGroup
	t.Cleanup(running.Wait) // the test's context has ended by then
	loop := func(act func(ctx context.Context)) {
		running.Go(func() {
			for tick := time.NewTicker(50 * time.Millisecond); t.Context().Err() == nil; <-tick.C {
				act(t.Context())
			}
		})
	}
	changes, changing := 0, startEcho(t, "changing")
	loop(func(context.Context) {
		if changes++; changes%20 == 0 {
			_ = c.api.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "changing", Name: "web",
				Address: "127.0.0.1", Port: int(changing.addr.Port()),
				Weights: &api.AgentWeights{Passing: 1 + changes/20%2, Warning: 1}})
		}
	})
	denied := c.as(t, "api", "billing")
	loop(func(ctx context.Context) { _, _ = askMesh(ctx, billing, denied) })
	c.awaitSidecars(t, "billing", 1)
	awaitRotation(t, l.addr(t, "billing"), "billing")
	mustConnect(t, l.addr(t, "billing"))
	for _, name := range []string{"web", "flaky", "dead", "billing"} {
		addr := l.addr(t, name)
		loop(func(ctx context.Context) { _, _ = ask(ctx, addr) }) // those of "dead" fail
	}
	for _, name := range []string{"dns", "void", "few", "few"} {
		client := dialUDP(t, l.addr(t, name))
		answer := make([]byte, 100)
		loop(func(context.Context) {
			_, _ = client.Write(who)
			_ = client.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, _ = client.Read(answer)
		})
	}
	held := mustConnect(t, l.addr(t, "web"))
	loop(func(context.Context) { _ = held.echo("hello") })
}
