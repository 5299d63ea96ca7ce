//go:build unix

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// pollPrometheus is the pause between two looks at what Prometheus says, which changes once a second.
const pollPrometheus = 50 * time.Millisecond

// hasty returns a file with the rules of docs/alerts.yml, in which minutes and hours are a few seconds.
func hasty(t testing.TB) string {
	t.Helper()
	rules, err := os.ReadFile("../docs/alerts.yml")
	must(t, err)
	text := regexp.MustCompile(`\bfor: \w+`).ReplaceAllString(string(rules), "for: 1s")
	text = regexp.MustCompile(`\[\w+\]`).ReplaceAllStringFunc(text, func(window string) string {
		return map[string]string{"[2m]": "[4s]", "[5m]": "[6s]"}[window] + map[bool]string{
			true: "", false: "[15s]"}[window == "[2m]" || window == "[5m]"]
	})
	text = strings.NewReplacer("> 300", "> 3", "> 4 * 3600", "> 3", "[15s]) > 10", "[15s]) > 2",
		"[15s]) > 3 and", "[15s]) > 1 and").Replace(text)
	file := filepath.Join(t.TempDir(), "alerts.yml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// firing returns the summaries and descriptions of the alerts of a job that fire, by name.
func (p *prometheus) firing(t testing.TB, job string) map[string][]string {
	t.Helper()
	var data struct {
		Alerts []struct {
			Labels, Annotations map[string]string
			State               string
		}
	}
	p.get(t, "/api/v1/alerts", &data)
	all := map[string][]string{}
	for _, a := range data.Alerts {
		if name := a.Labels["alertname"]; a.State == "firing" && a.Labels["job"] == job {
			all[name] = append(all[name], a.Annotations["summary"]+"\n    "+a.Annotations["description"])
		}
	}
	return all
}

// awaitAlert waits until an alert fires, once, and until then acts again and again.
func (p *prometheus) awaitAlert(t testing.TB, job, alert string, act func()) {
	t.Helper()
	eventually(t, alert+" fires", func() error {
		time.Sleep(pollPrometheus)
		if act != nil {
			act()
		}
		all := p.firing(t, job)
		if len(all[alert]) == 0 {
			return fmt.Errorf("firing: %v", all)
		}
		t.Logf("%s fires: %s", alert, strings.Join(all[alert], "\n"))
		if text := all[alert][0]; len(all[alert]) > 1 || strings.Contains(text, "<") || strings.Contains(text, ":.") {
			t.Errorf("%s: got %q, want one alert, and words for every variable", alert, all[alert])
		}
		return nil
	})
}

// awaitEnd waits until an alert has ended.
func (p *prometheus) awaitEnd(t testing.TB, job, alert string, act func()) {
	t.Helper()
	eventually(t, alert+" ends", func() error {
		time.Sleep(pollPrometheus)
		if act != nil {
			act()
		}
		if all := p.firing(t, job); len(all[alert]) > 0 {
			return fmt.Errorf("firing: %v", all)
		}
		return nil
	})
	t.Logf("%s has ended", alert)
}

// An alertStory is an alert with what makes it fire and end, in a lictor of its own.
type alertStory struct {
	alert   string
	config  string
	wrapper []string   // of the command line
	files   []*os.File // for lictor to inherit
	tell    func(t *testing.T, a *alerted)
}

// alerted is a lictor whose alerts are followed. The name of its job is the name of its alert.
type alerted struct {
	*lictor
	p      *prometheus
	alert  string
	admin  netip.AddrPort
	config string
}

func (a *alerted) awaitAlert(t *testing.T, act func()) {
	t.Helper()
	a.p.awaitAlert(t, a.alert, a.alert, act)
}
func (a *alerted) awaitEnd(t *testing.T, act func()) {
	t.Helper()
	a.p.awaitEnd(t, a.alert, a.alert, act)
}

// asks returns a function that connects to a service once, whether or not that works.
func (a *alerted) asks(t *testing.T, service string) func() {
	t.Helper()
	addr := a.addr(t, service)
	return func() { _, _ = ask(t.Context(), addr) }
}

// only waits until no alert of the lictor fires but its own. With windows of seconds, the start of a lictor may raise
// one.
func (a *alerted) only(t *testing.T) {
	t.Helper()
	eventually(t, "no alert but "+a.alert, func() error {
		time.Sleep(pollPrometheus)
		if all := a.p.firing(t, a.alert); len(all) > 1 || len(all) == 1 && all[a.alert] == nil {
			return fmt.Errorf("firing: %v", all)
		}
		return nil
	})
}

// post asks the admin API for a change.
func (a *alerted) post(t *testing.T, path, body string) {
	t.Helper()
	answer, err := http.Post(fmt.Sprintf("http://%s%s", a.admin, path), "application/json", strings.NewReader(body))
	must(t, err)
	must(t, answer.Body.Close())
	if answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s", path, body, answer.Status)
	}
}

// A port is an address at which an instance listens or does not.
type port struct {
	addr     netip.AddrPort
	listener net.Listener // nil while the port is closed
	serving  sync.WaitGroup
}

func newPort(t *testing.T) *port {
	t.Helper()
	p := &port{addr: freePort(t)}
	t.Cleanup(p.close)
	return p
}

func (p *port) open(t *testing.T) {
	t.Helper()
	var err error
	p.listener, err = net.Listen("tcp", p.addr.String())
	must(t, err)
	p.serving.Go(func() { p.serve(p.listener) })
}

// serve says a name to each client.
func (p *port) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write([]byte("port\n"))
		_ = c.Close()
	}
}

func (p *port) close() {
	if p.listener != nil {
		_ = p.listener.Close()
		p.serving.Wait()
		p.listener = nil
	}
}

// at is a static block of addresses.
func at(addrs ...netip.AddrPort) string {
	var quoted []string
	for _, addr := range addrs {
		quoted = append(quoted, fmt.Sprintf("%q", addr))
	}
	return "static { endpoints = [" + strings.Join(quoted, ", ") + "] }"
}

// Each alert of docs/alerts.yml fires in a real Prometheus when its cause is there, once, and ends when the cause has
// gone. LictorSlowToApply is missing, because nothing makes Lictor slow on purpose.
func TestAlertsFireAndEnd(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	stories := alertStories(t)
	jobs := map[string]netip.AddrPort{}
	for _, story := range stories {
		jobs[story.alert] = freePort(t)
	}
	p := startPrometheus(t, jobs, hasty(t))
	for _, story := range stories {
		t.Run(story.alert, func(t *testing.T) {
			t.Parallel()
			a := &alerted{p: p, alert: story.alert, admin: jobs[story.alert]}
			a.config = fmt.Sprintf("admin { listen = %q }\n", a.admin) + story.config
			a.lictor = launchLictor(t, a.config, story.files, story.wrapper)
			story.tell(t, a)
		})
	}
}
