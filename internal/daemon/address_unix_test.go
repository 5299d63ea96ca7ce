//go:build unix

package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// startPair starts a Consul server, and an agent of the same cluster.
func startPair(t *testing.T) (server, agent *testconsul.Agent) {
	t.Helper()
	start := func(o testconsul.Options) *testconsul.Agent {
		o.Binary, o.Dir = testconsul.Need(t), t.TempDir()
		a, err := testconsul.Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Kill)
		return a
	}
	server = start(testconsul.Options{Node: "server"})
	return server, start(testconsul.Options{Node: "agent", Client: true, Join: server.LAN})
}

// The whole process moves away from a killed agent: discovery, Lictor's own registration, and what is shown. A reload
// goes back, although the configuration has not changed.
func TestWholeProcessMovesAndGoesBack(t *testing.T) {
	server, agent := startPair(t)
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	registerInstance(t, client, "web", "a", instance(t, "a"), api.HealthPassing)
	text := fmt.Sprintf("consul {\n  address  = [%q, %q]\n  register = true\n}\n", agent.HTTP, server.HTTP) +
		"service \"web\" {\n  listen = \"127.0.0.1:0\"\n}\n"
	s := serveConfiguration(t, text, nil)
	defer s.stop()
	s.awaitLog("ready: services=1")
	reaches(t, s.address("web"), "a")
	s.awaitLog("registered in consul: service=lictor")
	if at := s.consulShown(); at.Address != "http://"+agent.HTTP || at.Moves != 0 || len(at.Addresses) != 2 {
		t.Fatalf("at %+v", at)
	}
	own := s.registration()
	if own.client != s.consul.Load().Client() {
		t.Error("the registration has another client than discovery")
	}

	agent.Kill()
	testproc.Await(t, "the move", func() bool { return s.consulShown().Address == "http://"+server.HTTP })
	reaches(t, s.address("web"), "a")
	registerInstance(t, client, "web", "b", instance(t, "b"), api.HealthPassing)
	s.awaitLog("endpoints=\"server/b at")
	testproc.Await(t, "the registration at the server", func() bool {
		all, err := client.Agent().Services()
		return err == nil && all[ownService] != nil
	})
	events, _, _ := s.events.After(0, "", 100)
	want := fmt.Sprintf("Lictor uses Consul at http://%s instead of http://%s: ", server.HTTP, agent.HTTP)
	found := 0
	for _, e := range events {
		if e.Kind == "moved" && strings.HasPrefix(e.Text, want) {
			found++
		}
	}
	if found != 1 {
		t.Errorf("%d events %q in %v", found, want, events)
	}

	s.mustReload(text, "nothing to change") // the first address does not answer yet
	if err := agent.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mustReload(text, "nothing to change; consul at http://"+agent.HTTP)
	if at := s.consulShown(); at.Address != "http://"+agent.HTTP || at.Moves != 2 || at.Why != "reload" {
		t.Errorf("at %+v", at)
	}
}

// Consul's community edition refuses namespaces and partitions. A start, a reload and validate say so, and what to do.
func TestEnterpriseArgumentsInTheCommunityEdition(t *testing.T) {
	consul, client := startConsul(t)
	registerInstance(t, client, "web", "a", instance(t, "a"), api.HealthPassing)
	with := func(top, own string) string {
		return fmt.Sprintf("consul {\n  address = %q\n  %s\n}\nservice \"web\" {\n  listen = \"127.0.0.1:0\"\n"+
			"  consul {\n    %s\n  }\n}\n", consul, top, own)
	}
	const summary = "Consul Enterprise needed"
	for _, bad := range []string{
		with(`namespace = "a"`, ""), with(`partition = "a"`, ""),
		with("", `namespace = "a"`), with("", `partition = "a"`),
	} {
		s := newServed(t, bad)
		err := s.tryStart(Options{}, nil)
		if err == nil || !strings.Contains(err.Error(), "lictor.hcl:5: "+summary) ||
			!strings.Contains(err.Error(), "Remove namespace and partition") {
			t.Errorf("start: got %v", err)
		}
		if err := testproc.Receive(t, "the end", s.end); err == nil {
			t.Error("lictor runs")
		}
		cfg, _ := s.load()
		if got, err := CheckFilters(t.Context(), cfg); err != nil || len(got) != 1 || got[0].Summary != summary {
			t.Errorf("CheckFilters: got %v, %v", got, err)
		}
		_, problems := Look(t.Context(), cfg, nil)
		if len(problems) != 1 || !strings.Contains(problems[0].Detail, "This Consul is the community edition") {
			t.Errorf("Look: got %v", problems)
		}
	}
	s := serveConfiguration(t, with("", ""), nil)
	defer s.stop()
	s.awaitLog("ready: services=1")
	if _, err := s.reload(with("", `namespace = "a"`)); err == nil || !strings.Contains(err.Error(), summary) {
		t.Errorf("reload: got %v", err)
	}
	reaches(t, s.address("web"), "a")
}

// validate -live says for each address whether it answers, and which would be used. It looks at the instances there.
func TestLookForConsul(t *testing.T) {
	server, agent := startPair(t)
	stranger, _ := startConsul(t) // of another cluster
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	registerInstance(t, client, "web", "a", "127.0.0.1:1001", api.HealthPassing)
	s := newServed(t, fmt.Sprintf("consul {\n  address = [\"127.0.0.1:1\", %q, %q, %q]\n}\n", agent.HTTP, server.HTTP,
		stranger)+"service \"web\" {\n  listen = \"127.0.0.1:0\"\n}\n")
	cfg, _ := s.load()
	lines, problems := LookForConsul(t.Context(), cfg)
	if len(lines) != 4 || len(problems) != 2 {
		t.Fatalf("got %q, %v", lines, problems)
	}
	for i, want := range []string{
		"consul at http://127.0.0.1:1: not usable: ", "consul at http://" + agent.HTTP + ": answers, and would be used",
		"consul at http://" + server.HTTP + ": answers",
		"consul at http://" + stranger + ": not usable: it is in the cluster with the trust domain",
	} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d is %q, want %q", i, lines[i], want)
		}
	}
	all, problems := Look(t.Context(), cfg, nil)
	if len(problems) != 0 || len(all) != 1 || !slices.Contains(all[0].Describe(), "  in   server/a  127.0.0.1:1001") {
		t.Errorf("saw %v, problems %v", all, problems)
	}
	catalog, err := ReadCatalog(t.Context(), cfg, "")
	if err != nil || catalog.Tags["web"] == nil {
		t.Errorf("catalog %v, %v", catalog, err)
	}
	s.write("consul {\n  address = \"127.0.0.1:1\"\n}\nservice \"web\" {\n  listen = \"127.0.0.1:0\"\n}\n")
	cfg, _ = s.load()
	if lines, problems := LookForConsul(t.Context(), cfg); len(lines)+len(problems) != 0 {
		t.Errorf("with one address: %q, %v", lines, problems)
	}
}
