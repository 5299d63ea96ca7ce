package discovery

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestRelationOfSavedSets(t *testing.T) {
	of := func(trustDomain, datacenter string) consul.Cluster {
		return consul.Cluster{TrustDomain: trustDomain, Datacenter: datacenter}
	}
	tests := []struct {
		saved, now consul.Cluster
		want       relation
	}{
		{of("", ""), of("", ""), unrelated},
		{of("", ""), of("a", "dc1"), unrelated},
		{of("a", ""), of("a", ""), unrelated}, // perhaps of another datacenter
		{of("", "dc1"), of("", "dc1"), unrelated},
		{of("a", "dc1"), of("a", "dc1"), ofSame},
		{of("a", "dc1"), of("b", "dc1"), ofRenamed},
		{of("a", "dc1"), of("a", "dc2"), ofStranger},
		{of("a", "dc1"), of("b", "dc2"), ofStranger},
		{of("a", ""), of("b", ""), ofRenamed},
		{of("", "dc1"), of("", "dc2"), ofStranger},
	}
	for _, tt := range tests {
		if got := (origin{cluster: tt.saved}).relation(tt.now); got != tt.want {
			t.Errorf("%+v and %+v: got %v, want %v", tt.saved, tt.now, got, tt.want)
		}
	}
}

// clusterOf answers like an agent of a cluster with this trust domain and one datacenter. An empty trust domain means
// that Connect is disabled.
func clusterOf(trustDomain, datacenter string) reply {
	return func(req *http.Request) (*http.Response, error) {
		switch {
		case req.URL.Path == "/v1/catalog/datacenters":
			return response(200, nil, strings.NewReader(fmt.Sprintf("[%q]", datacenter))), nil
		case req.URL.Path == "/v1/agent/connect/ca/roots" && trustDomain != "":
			return response(200, nil, strings.NewReader(fmt.Sprintf(`{"TrustDomain":%q}`, trustDomain))), nil
		case req.URL.Path == "/v1/agent/connect/ca/roots":
			return status(500, "Connect must be enabled in order to use this endpoint")(req)
		}
		return status(301, "")(req)
	}
}

// savedFrom returns a folder with the set webA of a cluster.
func savedFrom(t *testing.T, cluster reply) (dir string) {
	dir = t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": {ok(20, "a 80")}}, ping: cluster}
		r := start(t, f, ConsulOptions{StateDir: dir})
		time.Sleep(time.Minute)
		r.stop()
	})
	return dir
}

// A saved set belongs to its cluster and datacenter as soon as Consul can name them. Until then, it belongs to the
// agent's address.
func TestSavedSetsBelongToTheirCluster(t *testing.T) {
	const other = "127.0.0.1:9999"
	a, b, none := clusterOf("a.consul", "dc1"), clusterOf("b.consul", "dc1"), clusterOf("", "dc1")
	denied := status(403, "ACL not found")
	tests := []struct {
		name          string
		from, now     reply
		address       string
		answer        reply
		first, served string // sets in use before and after Consul's answer; empty: none
		aside         bool
	}{
		{"same cluster", a, a, "", denied, webA, "", false},
		{"same address, not known which cluster", a, nil, "", denied, webA, "", false},
		{"same address, consul is away", a, b, "", fails(os.ErrDeadlineExceeded), webA, "", false},
		{"same address, other cluster", a, b, "", ok(20, "b 81"), webA, "web:", true},
		{"same address, wiped, without its tokens", a, b, "", denied, webA, "", false},
		{"same address, wiped, some are back", a, b, "", ok(20, "a 80", "b 81"), webA, webAB, false},
		{"same address, other datacenter", none, clusterOf("", "dc2"), "", denied, webA, "web:", true},
		{"other address, same cluster", a, a, other, denied, "", webA, true},
		{"other address, other cluster", a, b, other, denied, "", "", true},
		{"other address, other datacenter", a, clusterOf("a.consul", "dc2"), other, denied, "", "", true},
		{"other address, no connect", none, none, other, denied, "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := savedFrom(t, tt.from)
			synctest.Test(t, func(t *testing.T) {
				f := &fake{always: after(time.Second, tt.answer), ping: tt.now}
				r := start(t, f, ConsulOptions{StateDir: dir, Address: tt.address})
				if got := strings.Join(lines(r.consul.Saved()), " "); got != tt.first {
					t.Errorf("served at first %q, want %q", got, tt.first)
				}
				time.Sleep(time.Minute)
				if got := r.got(); len(got) == 0 && tt.served != "" || len(got) > 0 && got[0] != tt.served {
					t.Errorf("served then %q, want %q", got, tt.served)
				}
				if s := r.status(); s.Held != 0 {
					t.Errorf("status %+v", s)
				}
				r.stop()
				if tt.aside && tt.address == "" {
					r.log.wantOnce(t, "saved endpoints belong to another cluster")
				}
			})
			file := string(savedIn(t, dir))
			_, err := os.Stat(filepath.Join(dir, asideFile))
			kept := strings.Contains(file, "10.0.0.1:80")
			if kept != (!tt.aside || tt.served == webA) || (err == nil) != tt.aside {
				t.Errorf("moved aside: %v, want %v; in the file: %s", err, tt.aside, file)
			}
		})
	}
}

// Other goroutines may read a watch while it drops the set of an earlier process. Without the locks, the race detector
// fails this test.
func TestSavedSetIsDroppedUnderTheLocks(t *testing.T) {
	w := newWatch(&Consul{}, &wanted{query: (Query{Service: "web"}).normalize("")})
	w.reporter.sharers.Store(&[]string{"web"})
	done := make(chan bool)
	go func() {
		defer close(done)
		w.reporter.snapshot()
		w.reporter.all()
		w.publisher.saved("", false)
	}()
	w.disown()
	<-done
}

// A development agent that restarts is another cluster at the same address.
func TestRealConsulOfAnotherCluster(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	o := ConsulOptions{Address: a.HTTP, StateDir: t.TempDir(), Watches: []Watch{{Service: "web"}}}
	first := followNew(t, o)
	first.wantLast(t, "web: n/a=127.0.0.1:80")
	first.stop()

	log := &journal{}
	o.Logger = log.logger(hclog.Info)
	same, err := NewConsul(o)
	if err != nil {
		t.Fatal(err)
	}
	second := follow(t, same, log)
	testproc.Await(t, "answer", func() bool { return !second.status().LastSuccess.IsZero() })
	second.stop()
	if strings.Contains(log.String(), "another") {
		t.Error(log)
	}

	a.Kill()
	third := followNew(t, o)
	if got := lines(third.consul.Saved()); len(got) != 1 || got[0] != "web: n/a=127.0.0.1:80" {
		t.Errorf("while consul is away: saved %q", got)
	}
	if err := a.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "b", Port: 81})
	third.wantLast(t, "web: n/b=127.0.0.1:81")
	third.log.wantOnce(t, "saved endpoints belong to another cluster")
}

// A token needs no rights to learn the cluster.
func TestRealConsulTellsItsCluster(t *testing.T) {
	t.Parallel()
	for _, o := range []testconsul.Options{{ACL: true}, {HCL: "connect { enabled = false }\n"}} {
		a := startAgentWith(t, o)
		c, err := NewConsul(ConsulOptions{Address: a.HTTP})
		if err != nil {
			t.Fatal(err)
		}
		testproc.Await(t, "cluster", func() bool {
			found, err := c.client.Cluster(t.Context())
			return err == nil && found.Datacenter == "dc1" && (found.TrustDomain != "") == o.ACL
		})
		c.client.CloseIdle()
	}
}

// clusterThat answers like the cluster that now names.
func clusterThat(now *atomic.Value) reply {
	return func(req *http.Request) (*http.Response, error) { return now.Load().(reply)(req) }
}

// A cluster that is wiped while Lictor runs gets another trust domain. From then on, the sets are saved under that
// name.
func TestClusterIsAskedForAgainWhenTheIndexWentBack(t *testing.T) {
	dir := t.TempDir()
	var now atomic.Value
	now.Store(clusterOf("a.consul", "dc1"))
	wipe := func(req *http.Request) (*http.Response, error) {
		now.Store(clusterOf("b.consul", "dc1"))
		return ok(5, "a 80")(req)
	}
	replies := []reply{ok(20, "a 80"), after(30*time.Second, wipe), ok(5, "a 80", "b 81")}
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"web": replies}, ping: clusterThat(&now)}
		r := start(t, f, ConsulOptions{StateDir: dir})
		time.Sleep(2 * time.Minute)
		r.stop()
	})
	if file := string(savedIn(t, dir)); !strings.Contains(file, "b.consul") || strings.Contains(file, "a.consul") {
		t.Errorf("saved %s", file)
	}
}

// A known cluster stays known while it cannot be asked. Only the time in which Consul answers queries counts towards
// originPatience.
func TestOriginWhileConsulIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now atomic.Value
		now.Store(reply(func(req *http.Request) (*http.Response, error) {
			if req.URL.Path == "/v1/catalog/datacenters" {
				return status(500, "No cluster leader")(req)
			}
			return clusterOf("a.consul", "dc1")(req)
		}))
		client := clientOver(t, ConsulOptions{}.withDefaults(), &fake{ping: clusterThat(&now)})
		o := origins{client: client, earlier: &saved{}}
		o.find(t.Context())
		now.Store(fails(os.ErrDeadlineExceeded))
		time.Sleep(time.Hour)
		if _, soon := o.relate(t.Context(), false); !soon || o.origin().cluster.TrustDomain != "a.consul" {
			t.Errorf("soon %v, origin %+v", soon, o.origin())
		}
		time.Sleep(time.Hour)
		if _, soon := o.relate(t.Context(), true); !soon {
			t.Error("the first answer is not delayed")
		}
		time.Sleep(originPatience)
		if _, soon := o.relate(t.Context(), true); soon {
			t.Error("answers wait for ever")
		}
	})
}
