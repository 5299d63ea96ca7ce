//go:build unix

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// post posts to the admin API.
func (l *lictor) post(t testing.TB, path, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(l.runtime, "admin.sock"))
		}}}
	resp, err := client.Post("http://lictor"+path, "application/json", strings.NewReader(body))
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s", path, body, resp.Status)
	}
}

// A service has instances in all possible states. lictor explain says which state each of them has, and why.
// "make e2e RUN=TestExplainInEveryState" prints its output.
// explained holds the text of lictor explain for an endpoint in each state.
var explained = []string{
	"IN   NODE/in at 127.0.0.1:PORT, weight 1\n     healthy for TIME\n     tags: v2\n",
	"OUT  NODE/critical at 127.0.0.1:PORT, weight 0\n     status: critical, check \"Service 'web' check\" " +
		"is critical: GET /health: 503 Service Unavailable: database is gone\n",
	"OUT  NODE/warning at 127.0.0.1:PORT, weight 0\n     status: warning, check \"Service 'web' check\" is " +
		"warning: disk 91% full\n",
	"OUT  NODE/maintenance at 127.0.0.1:PORT, weight 0\n     maintenance: check \"Service Maintenance " +
		"Mode\" is critical: kernel update until 4 pm\n",
	"OUT  NODE/old at 127.0.0.1:PORT, weight 1\n     tags: it does not have the tag \"v2\"\n     tags: " +
		"v1, blue\n",
	"OUT  NODE/elsewhere at 127.0.0.1:PORT, weight 1\n     filter: it does not pass the filter " +
		"Service.Meta.zone == a\n",
	"OUT  NODE/ejected at 127.0.0.1:PORT, weight 1\n     ejected, for another TIME: refused, ",
	"IN   NODE/held at 127.0.0.1:PORT, weight 1\n     held, for another TIME: it was deregistered, " +
		"and its node is still there\n",
	"OUT  NODE/drained at 127.0.0.1:PORT, weight 1\n     drained for TIME, for another TIME: drained by USER, " +
		"in this Lictor only: new disk\n",
	"OUT  NODE/full at 127.0.0.1:PORT, weight 1\n     full: open connections: 1, as many as it may have\n",
	"OUT  NODE/twice at 127.0.0.1:PORT, weight 1\n     duplicate: NODE/in has the same address\n",
	"\nlatest events:\n", "NODE/drained gets no new clients for 10m0s; drained by USER: new disk",
}

func TestExplainInEveryState(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{Node: "host-1"})
	in := startEcho(t, "in")
	for _, name := range []string{"critical", "warning", "maintenance", "drained", "held", "full"} {
		c.register(t, "web", name, startEcho(t, name).addr, checked, tags("v2"), meta("zone", "a"))
	}
	c.register(t, "web", "in", in.addr, tags("v2"), meta("zone", "a"))
	c.register(t, "web", "ejected", deadAddr(t), tags("v2"), meta("zone", "a"))
	c.register(t, "web", "old", startEcho(t, "old").addr, tags("v1", "blue"), meta("zone", "a"))
	c.register(t, "web", "elsewhere", startEcho(t, "elsewhere").addr, tags("v2"), meta("zone", "b"))
	c.register(t, "web", "twice", in.addr, tags("v2"), meta("zone", "a"))
	must(t, c.api.Agent().UpdateTTL("check:critical",
		"GET /health: 503 Service Unavailable: database is gone", api.HealthCritical))
	must(t, c.api.Agent().UpdateTTL("check:warning", "disk 91% full", api.HealthWarning))
	must(t, c.api.Agent().EnableServiceMaintenance("maintenance", "kernel update until 4 pm"))
	l := runLictor(t, consulBlock(c)+service("web", "max_connections_per_endpoint = 1", "min_available = \"0%\"", `consul {
    tags      = ["v2"]
    filter    = "Service.Meta.zone == a"
    max_drop  = 0
    drop_hold = "5m"
  }`))
	web := l.addr(t, "web")
	l.awaitAnswer(t, "explain web", 0, "OUT  host-1/old", "/held at")

	l.post(t, "/v1/services/web/drain", `{"endpoint": "host-1/drained", "for": "10m", "reason": "new disk"}`)
	c.deregister(t, "held") // as if Consul had lost it
	l.awaitAnswer(t, "explain web", 0, "held, for another")
	eventually(t, "the one connection that full has room for", func() error {
		conn, err := connect(t.Context(), web)
		if err == nil && conn.name != "full" {
			err = fmt.Errorf("%s took it: %w", conn.name, conn.Close())
		}
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
		return err
	})
	var out string
	eventually(t, "every state at once", func() error {
		for range 2 { // the ejected endpoint is tried again and again
			if conn, err := connect(t.Context(), web); err == nil {
				_ = conn.Close()
			}
		}
		_, out = l.ask(t, "explain", "web")
		for _, want := range explained {
			pattern := regexp.QuoteMeta(strings.NewReplacer("NODE", "host-1", "USER", userName(t)).Replace(want))
			pattern = strings.NewReplacer("PORT", `\d+`, "TIME", `\d+(ms|s|m)`).Replace(pattern)
			if !regexp.MustCompile(pattern).MatchString(out) {
				return fmt.Errorf("no %q in:\n%s", want, out)
			}
		}
		return nil
	})
	t.Logf("lictor explain web:\n%s", out)
}

// Long names of an instance do not fill logs, tables and metrics. An instance with too long an ID is left out, and of
// thousands of tags a few are shown. Other instances of the service are not affected.
func TestNamesOfInstancesAreBounded(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	long := strings.Repeat("long", 50_000)
	c.register(t, "web", long, startEcho(t, "b").addr)
	many := make([]string, 20_000)
	for i := range many {
		many[i] = fmt.Sprint("tag-", i)
	}
	c.register(t, "web", "tagged", startEcho(t, "c").addr, tags(many...))
	l := runLictor(t, consulBlock(c)+service("web"))
	awaitRotation(t, l.addr(t, "web"), "a", "c")
	l.awaitAnswer(t, "explain web", 0, "2 of 3 known endpoints", "more tags",
		"id: the names of it and its node are longer than 512 bytes")
	for _, args := range []string{"explain web", "status web", "status -json web", "events"} {
		if _, out := l.ask(t, strings.Fields(args)...); len(out) > 30_000 {
			t.Errorf("lictor %s writes %d bytes", args, len(out))
		}
	}
	for _, e := range l.log() {
		if line := fmt.Sprint(e); len(line) > 2000 {
			t.Errorf("a log line of %d bytes: %.200s", len(line), line)
		}
	}
}
