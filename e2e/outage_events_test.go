//go:build unix

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// An outage of Consul is one event and one line in the log, for all services, and so is its end.
func TestAnOutageOf300ServicesIsOneEvent(t *testing.T) {
	anyEngine(t)
	const services = 300
	c := startConsul(t, testconsul.Options{})
	config := consulBlock(c)
	for i := range services {
		name := fmt.Sprintf("s%03d", i)
		config += service(name)
		c.register(t, name, name, startEcho(t, "one").addr)
	}
	config += service("fixed", endpoints(startEcho(t, "fixed")))
	l := runLictor(t, config)
	l.awaitReady(t)
	l.awaitAnswer(t, "status", 0, "s299")
	skip := len(l.log())
	c.Kill()
	l.awaitAnswer(t, "events s299", 0, "Consul does not answer since")
	l.awaitAnswer(t, "status -json s299", 1, `"stale_since"`, `"kind": "stale"`)
	l.awaitAnswer(t, "explain s299", 0, "Consul does not answer since", "connection refused")
	must(t, c.Restart(t.Context()))
	l.awaitAnswer(t, "events s299", 0, "Consul answers again after")
	_, out := l.ask(t, "events", "-n", "10000")
	for _, text := range []string{
		"  stale      -  Consul does not answer since ", "; 300 services keep their last endpoints: s000, s001, ",
		"  recovered  -  Consul answers again after ", "; 300 services are fresh: s000, s001, ",
		"  stale  ", "  recovered  ",
	} {
		if n := strings.Count(out, text); n != 1 {
			t.Errorf("%q is %d times in the events, want once", text, n)
		}
	}
	if _, out := l.ask(t, "events", "fixed"); strings.Contains(out, "Consul") {
		t.Errorf("a service that is not in Consul has the events:\n%s", out)
	}
	// The agent comes back without any data, and its answers arrive over some seconds.
	l.awaitLog(t, skip, complaint("vanished at once"))
	lines := map[string]int{}
	for _, e := range l.log()[skip:] {
		text := e.field("@message")
		if text != "more endpoints joined" { // still of the start
			lines[text]++
		}
		if strings.HasPrefix(text, "consul ") && e.field("services") != "300" {
			t.Errorf("of %s services: %s", e.field("services"), text)
		}
	}
	const lost, again = "consul is lost, endpoints stay as they are", "consul answers again"
	if lines[lost] != 1 || lines[again] != 1 || slices.Max(slices.Collect(maps.Values(lines))) > 10 {
		t.Errorf("the log has %v, want one line about the loss, one about the end and few about the rest", lines)
	}
}
