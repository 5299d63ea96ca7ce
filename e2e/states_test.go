//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// A total outage of one service is seen at a glance, and the other services and the readiness of Lictor do not change.
// When an instance is there, clients are served, and ten seconds later all is fine again.
func TestTotalOutageIsSeenAtAGlance(t *testing.T) {
	anyEngine(t)
	web := service("web", endpoints(startEcho(t, "a")))
	l := runLictor(t, service("gone", fmt.Sprintf("static { endpoints = [%q] }", deadAddr(t)))+web)
	l.awaitAnswer(t, "status", 0, "2 services,", "ready")

	eventually(t, "the outage is seen", func() error {
		if who, err := ask(t.Context(), l.addr(t, "gone")); err == nil {
			t.Fatalf("served by %s", who)
		}
		code, out := l.ask(t, "status", "-problems")
		for _, want := range []string{"ready", "1 refuses clients", "gone", "REFUSING",
			"refused/s; no endpoint is usable: 1 ejected"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("no %q in:\n%s", want, out)
			}
		}
		if code != 4 || strings.Contains(out, "web") {
			return fmt.Errorf("exit code %d:\n%s", code, out)
		}
		return nil
	})
	l.awaitAnswer(t, "status gone", 4, "because", "no endpoint is usable")
	l.awaitAnswer(t, "status web", 0, "fine")

	l.mustReload(t, service("gone", endpoints(startEcho(t, "b")))+web)
	awaitRotation(t, l.addr(t, "gone"), "b")
	l.awaitAnswer(t, "status -problems", 0, "2 services,")
}

// A service whose only instance has its maximum of connections refuses clients, although nothing has failed.
func TestFullServiceIsSeenAtAGlance(t *testing.T) {
	anyEngine(t)
	l := runLictor(t, service("web", "max_connections_per_endpoint = 1", `queue_timeout = "0s"`,
		endpoints(startEcho(t, "a"))))
	c := mustConnect(t, l.addr(t, "web"))
	must(t, c.echo("hello"))
	l.awaitAnswer(t, "status", 4, "REFUSING", "every usable endpoint has its maximum of connections")
	must(t, c.Close())
	l.awaitAnswer(t, "status", 0, "fine")
}
