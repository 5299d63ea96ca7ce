package discovery

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An agentAt is one of several agents, with a fake for its answers.
type agentAt struct {
	*fake
	hangs      atomic.Bool // no request is answered any more
	leaderless atomic.Bool
}

// agents are several agents by host and port.
type agents map[string]*agentAt

func (all agents) RoundTrip(req *http.Request) (*http.Response, error) {
	a := all[req.URL.Host]
	switch {
	case a.hangs.Load():
		return hang(req)
	case req.URL.Path != "/v1/health/service/consul":
	case a.leaderless.Load():
		return status(500, "No cluster leader")(req)
	default:
		return ok(1)(req)
	}
	return a.RoundTrip(req)
}

// startAt starts a source with the agents at two addresses.
func startAt(t *testing.T, a, b *agentAt, services ...string) *rig {
	t.Helper()
	o := ConsulOptions{Address: "10.0.0.1:1", More: []string{"10.0.0.2:1"}}
	for _, s := range services {
		o.Watches = append(o.Watches, Watch{Service: s})
	}
	return startOver(t, agents{"10.0.0.1:1": a, "10.0.0.2:1": b}, o)
}

// A stopped agent is left when two probes got no answer. The next agent gets no index of the first one. Its index is
// lower, and that is no reason for doubt. The set stays, so nothing is published again.
func TestMoveDiscardsTheIndexAndKeepsTheSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agentAt{fake: &fake{script: map[string][]reply{"web": {ok(1000, "a 80")}}}}
		b := &agentAt{fake: &fake{script: map[string][]reply{"web": {ok(5, "a 80")}}}}
		r := startAt(t, a, b)
		time.Sleep(time.Second)
		a.hangs.Store(true)
		stopped := time.Now()
		time.Sleep(30 * time.Second)
		if got, want := a.indexes(), `"" "1000"`; got != want {
			t.Errorf("the first agent was asked with the indexes %s, want %s", got, want)
		}
		if got, want := b.indexes(), `"" "5"`; got != want {
			t.Fatalf("the second agent was asked with the indexes %s, want %s", got, want)
		}
		most := defaultProbeInterval + 2*probeTimeout + time.Second
		if took := b.asks()[0].at.Sub(stopped); took > most {
			t.Errorf("the second agent was asked after %v, want %v at most", took, most)
		}
		r.want(t, "web: n/a=10.0.0.1:80")
		if s := r.status(); s.Doubted != 0 || s.Error != "" || s.Index != 5 {
			t.Errorf("got %+v", s)
		}
		r.log.wantOnce(t, "lictor uses another address of consul")
	})
}

// A query that waits at the former agent is repeated at the next one at once, although the former agent would still
// answer it. A failed one does not wait for the end of its pause.
func TestMoveRepeatsAllQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := status(500, "No cluster leader")
		a := &agentAt{fake: &fake{script: map[string][]reply{
			"web": {ok(1000, "a 80")},
			"db":  {after(time.Minute, lost), lost, lost, lost, lost, lost, lost, lost, lost, lost},
		}}}
		b := &agentAt{fake: &fake{script: map[string][]reply{
			"web": {ok(5, "a 80")}, "db": {ok(5, "b 80")},
		}}}
		r := startAt(t, a, b, "web", "db")
		time.Sleep(5 * time.Second)
		a.leaderless.Store(true)
		c := r.consul.Client()
		for c.Site() == 0 { // the first failed query is a reason to ask, and that fails
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		first := map[string]string{}
		for _, q := range b.asks() {
			if _, later := first[q.service]; !later {
				first[q.service] = q.index
			}
		}
		if len(first) != 2 || first["web"]+first["db"] != "" {
			t.Errorf("the first queries had the indexes %q, want none", first)
		}
		if n := len(b.asks()); n != 4 { // each without an index, and then with one
			t.Errorf("%d queries a second after the move, want 4", n)
		}
	})
}

// Watches that share a blocking query do not share the index of the former agent either.
func TestMoveOfSharedQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at := func(index int) *agentAt {
			return &agentAt{fake: &fake{always: func(req *http.Request) (*http.Response, error) {
				if req.URL.Query().Get("index") != "" {
					return hang(req)
				}
				return ok(index, "a 80")(req)
			}}}
		}
		a, b := at(1000), at(5)
		r := startOver(t, agents{"10.0.0.1:1": a, "10.0.0.2:1": b}, ConsulOptions{
			Address: "10.0.0.1:1", More: []string{"10.0.0.2:1"},
			Watches: []Watch{
				{Service: "web"}, {Service: "other", Query: Query{Service: "web"}, Guard: Guard{Hold: -1}},
			},
		})
		time.Sleep(time.Second)
		a.hangs.Store(true)
		time.Sleep(30 * time.Second)
		if got, want := a.indexes(), `"" "1000" ""`; got != want {
			t.Fatalf("the first agent was asked with the indexes %s, want %s", got, want)
		}
		if got := b.indexes(); got != `"" "5" ""` && got != `"" "" "5"` {
			t.Errorf("the second agent was asked with the indexes %s", got)
		}
		for _, s := range r.consul.Snapshot() {
			if s.Index != 5 || s.Error != "" || s.Doubted != 0 {
				t.Errorf("got %+v", s)
			}
		}
	})
}

// An agent of another cluster is not asked for services, and the sets stay.
func TestMoveToAnotherClusterIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &agentAt{fake: &fake{script: map[string][]reply{"web": {ok(1000, "a 80"), hang, ok(1001, "a 80")}},
			ping: clusterOf("a.consul", "dc1")}}
		b := &agentAt{fake: &fake{script: map[string][]reply{"web": {ok(5, "x 80")}},
			ping: clusterOf("b.consul", "dc1")}}
		r := startAt(t, a, b)
		time.Sleep(10 * time.Second)
		a.hangs.Store(true)
		time.Sleep(5 * time.Minute)
		if n := len(b.asks()); n != 0 {
			t.Errorf("%d queries to an agent of another cluster", n)
		}
		r.want(t, "web: n/a=10.0.0.1:80")
		r.log.wantOnce(t, "belongs to another cluster")

		a.hangs.Store(false)
		time.Sleep(time.Minute)
		if s := r.status(); s.Error != "" {
			t.Errorf("the first agent answers again, but: %s", s.Error)
		}
	})
}

// Queries of one service in two namespaces are two queries. Consul gets what the service says.
func TestNamespacesOfServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{always: hang}
		start(t, f, ConsulOptions{Namespace: "team", Watches: []Watch{
			{Service: "web"}, {Service: "same"}, {Service: "other", Query: Query{Service: "web", Namespace: "b"}},
			{Service: "part", Query: Query{Service: "web", Partition: "p"}},
			{Service: "same-part", Query: Query{Service: "web", Partition: "p"}},
		}})
		time.Sleep(time.Second)
		var got []string
		for _, q := range f.asks() {
			got = append(got, q.service+" "+q.values.Get("ns")+" "+q.values.Get("partition"))
		}
		want := "web team , same team , web b , web team p"
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("asked %s, want %s", text, want)
		}
	})
}
