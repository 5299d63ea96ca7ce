package discovery

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// chained is a watch of web that follows its discovery chain.
func chained(services ...string) (all []Watch) {
	for _, s := range services {
		all = append(all, Watch{Service: s, Query: Query{Service: "web", Mesh: true}, Guard: Guard{Hold: -1},
			Chain: true})
	}
	return all
}

// chainTo answers with a chain that leads to targets.
func chainTo(index int, targets ...string) reply {
	return raw(fmt.Sprint(index), chainJSON("resolver", targets...))
}

// ways answers with sidecars of a service.
func ways(index int, service string, ids ...string) reply {
	var all []string
	for _, id := range ids {
		all = append(all, meshEntry(id, strings.ReplaceAll(aSidecar, `"web"`, fmt.Sprintf("%q", service))))
	}
	return raw(fmt.Sprint(index), "["+strings.Join(all, ",")+"]")
}

// asked returns how many queries there were for each key of the script.
func (f *fake) counts() map[string]int {
	n := map[string]int{}
	for _, a := range f.asks() {
		n[a.service]++
	}
	return n
}

// chainError returns why the service cannot follow its chain, or an empty text.
func (r *rig) chainError(t *testing.T, service string) string {
	t.Helper()
	x, ok := r.consul.Explain(service)
	if !ok || x.Chain == nil {
		t.Fatalf("service %s follows no chain: %+v", service, x)
	}
	return x.Chain.Error
}

const (
	meshA = "web: n/a=10.0.0.1:20097"
	meshB = "web: n/b=10.0.0.1:20098"
	meshC = "web: n/c=10.0.0.1:20099"
)

// Services of one chain share the query for it, and the queries for its targets.
func TestChainIsFollowedOnceForAllItsServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{
			"chain:web": {chainTo(20, "db@dc1 "+subsetV1, "web@dc2")}, "mesh:db": {ways(30, "db", "a")},
			"mesh:web": {ways(30, "web", "b")},
		}}
		watches := chained("web", "two")
		watches[1].Query.Filter = ""
		r := start(t, f, ConsulOptions{Watches: watches})
		time.Sleep(time.Second)
		r.wantSet(t, "n/a /ns/default/dc/dc1/svc/db db.default.dc1.internal.td.consul")
		if got := len(r.got()); got != 2 {
			t.Errorf("%d sets, want 2: %q", got, r.got())
		}
		// Each query is sent twice: the second time, it waits for a change.
		if got := fmt.Sprint(f.counts()); got != "map[chain:web:2 mesh:db:2 mesh:web:2]" {
			t.Errorf("queries %s", got)
		}
		for _, a := range f.asks() {
			switch got := a.values; {
			case a.service == "chain:web" && (got.Has("dc") || got.Has("compile-dc") || got.Has("filter")),
				a.service == "mesh:web" && got.Get("dc") != "dc2",
				a.service == "mesh:db" && (got.Has("dc") || got.Get("filter") != "Service.Meta.v == 1"):
				t.Errorf("%s was asked with %v", a.path, got)
			}
		}
		wantUses(t, r, "v1.db: true, ", "web in datacenter dc2: false, ")
		x, _ := r.consul.Explain("two")
		if x.Tiers[0].Name != "v1.db" || x.Chain == nil || x.Chain.Error != "" || !x.Chain.Chain ||
			x.Chain.Query.String() != "discovery chain of web" || fmt.Sprint(x.Chain.Services) != "[web two]" {
			t.Errorf("explained as %+v", x)
		}
		if all := r.consul.Snapshot(); len(all) != 3 || !all[2].Chain {
			t.Errorf("got the states %+v", all)
		}
		r.stop()
	})
}

// The datacenter of the query decides for which datacenter Consul compiles the chain.
func TestChainOfAnotherDatacenter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{
			"chain:web": {chainTo(20, "web@dc1")}, "mesh:web": {ways(30, "web", "a")}}}
		watches := chained("web")
		watches[0].Query.Datacenter = "dc1"
		r := start(t, f, ConsulOptions{Watches: watches})
		time.Sleep(time.Second)
		r.want(t, meshA)
		for _, a := range f.asks() {
			if a.values.Get("compile-dc") != "" != (a.service == "chain:web") ||
				a.values.Get("dc") != "" != (a.service == "mesh:web") {
				t.Errorf("%s was asked with %v", a.path, a.values)
			}
		}
		r.stop()
	})
}

// When a chain changes, the service keeps its set until the new target is known. Queries that stay are not sent anew.
func TestChainChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{
			"chain:web": {chainTo(20, "web@dc1", "db@dc1"), after(10*time.Second, chainTo(21, "new@dc1", "db@dc1"))},
			"mesh:web":  {ways(30, "web", "a")}, "mesh:db": {ways(30, "db", "b")},
			"mesh:new": {after(time.Second, ways(30, "new", "c"))}, "plain": {ok(20)},
		}}
		r := start(t, f, ConsulOptions{Watches: append(chained("web"), Watch{Service: "plain"})})
		time.Sleep(11 * time.Second)
		r.want(t, "plain:", meshA)
		time.Sleep(10 * time.Second)
		r.want(t, "plain:", meshA, meshC)
		counts := f.counts()
		if counts["mesh:db"] != 2 || counts["plain"] != 2 || counts["mesh:new"] != 2 {
			t.Errorf("queries %v", counts)
		}
		r.log.wantOnce(t, "the discovery chain has changed")
		if !strings.Contains(r.log.String(), `leads_to="new, db"`) {
			t.Errorf("the log does not say where it leads:\n%s", r.log)
		}
		r.stop()
	})
}

// Answers that repeat a chain, in whatever form, change nothing.
func TestSameChainAgainChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := []reply{}
		for i := range 20 {
			script = append(script, after(time.Second, chainTo(20+i, "web@dc1", "db@dc1")))
		}
		f := &fake{script: map[string][]reply{"chain:web": script, "mesh:web": {ways(30, "web", "a")},
			"mesh:db": {ways(30, "db", "b")}}}
		r := start(t, f, ConsulOptions{Watches: chained("web"), Resync: -1})
		time.Sleep(40 * time.Second)
		r.want(t, meshA)
		asked, x := 0, r.consul.Snapshot()
		for _, w := range x {
			if w.Chain && w.Updates != 1 {
				t.Errorf("%d changes of the chain", w.Updates)
			}
		}
		for _, a := range f.asks() {
			if a.service == "mesh:web" && a.index == "" {
				asked++
			}
		}
		if asked != 1 {
			t.Errorf("the target was asked %d times from the start", asked)
		}
		r.stop()
	})
}

// A chain that Lictor cannot follow is an error for its services alone. It says why, and when it is over.
func TestChainThatCannotBeFollowed(t *testing.T) {
	for what, bad := range map[string]string{
		"needs HTTP":             chainJSON("splitter", "web@dc1"),
		"in the cluster peering": chainJSON("resolver", `web@ "Peer":"east"`),
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{script: map[string][]reply{
					"chain:web": {raw("20", bad), after(10*time.Second, chainTo(21, "web@dc1")),
						after(10*time.Second, raw("22", bad))},
					"mesh:web": {ways(30, "web", "a"), after(15*time.Second, ways(31, "web", "b"))},
					"plain":    {ok(20, "p 80")},
				}}
				var events evidences
				r := start(t, f, ConsulOptions{OnEvent: events.add,
					Watches: append(chained("web"), Watch{Service: "plain"})})
				time.Sleep(5 * time.Second)
				r.want(t, "plain: n/p=10.0.0.1:80")
				if got := r.chainError(t, "web"); !strings.Contains(got, what) {
					t.Errorf("explained by %q", got)
				}
				time.Sleep(10 * time.Second)
				r.want(t, "plain: n/p=10.0.0.1:80", meshA)
				if got := r.chainError(t, "web"); got != "" {
					t.Errorf("the chain is followed, but has the error %q", got)
				}
				time.Sleep(20 * time.Second) // the service keeps its target, and follows it
				r.want(t, "plain: n/p=10.0.0.1:80", meshA, meshB)
				if n := strings.Count(r.log.String(), "lictor cannot follow a discovery chain"); n != 2 {
					t.Errorf("the log says %d times that the chain cannot be followed:\n%s", n, r.log)
				}
				r.log.wantOnce(t, "lictor follows the discovery chain again")
				if got := events.String(); strings.Count(got, what) != 2 || !strings.Contains(got, "again after") {
					t.Errorf("got the events %s", got)
				}
				r.stop()
			})
		})
	}
}

// A target to fail over to that is out of reach keeps the service from nothing else. It shows among the tiers, and the
// log warns of it once.
func TestChainWithATargetOutOfReach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := "web@dc2 " + gatewayMode
		f := &fake{script: map[string][]reply{
			"chain:web": {chainTo(20, "web@dc1", far), after(5*time.Second, chainTo(21, "web@dc1", far, "db@dc1")),
				after(20*time.Second, chainTo(22, "web@dc1"))},
			"mesh:web": {ways(30, "web", "a")}, "mesh:db": {ways(30, "db", "b")},
		}}
		r := start(t, f, ConsulOptions{Watches: chained("web"), Resync: -1})
		const left = "web in datacenter dc2: false, left out: it is reached through mesh gateways (mode local), " +
			"which Lictor does not use: set MeshGateway.Mode to none for it, if its instances can be reached directly"
		time.Sleep(time.Second)
		r.want(t, meshA)
		wantUses(t, r, "web: true, ", left)
		time.Sleep(10 * time.Second)
		wantUses(t, r, "web: true, ", "db: false, ", left)
		if got := r.chainError(t, "web"); got != "" {
			t.Errorf("the chain has the error %q", got)
		}
		time.Sleep(20 * time.Second)
		wantUses(t, r)
		r.log.wantOnce(t, "a target of the discovery chain is left out")
		r.stop()
	})
}

// evidences collects events.
type evidences struct {
	mu   sync.Mutex
	text strings.Builder
}

func (e *evidences) add(one Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprintln(&e.text, one.Services, one.Kind, one.Text)
}

func (e *evidences) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.String()
}

// An error of the query for a chain changes nothing, and the query is repeated without an index.
func TestErrorsOfTheChainKeepItsTiers(t *testing.T) {
	for what, tt := range map[string]struct {
		bad reply
		log string
	}{
		"no leader": {status(500, "No cluster leader"), "consul is lost"},
		"denied":    {status(403, "Permission denied: token lacks permission"), "consul denies access"},
		"no connect": {status(500, "Connect must be enabled in order to use this endpoint"),
			"consul cannot answer a query"},
		"nonsense":       {raw("21", "{}"), "consul is lost"},
		"cut off":        {truncated, "consul is lost"},
		"damaged":        {raw("21", `{"Chain":{"StartNode":"x"}}`), "consul is lost"},
		"no list":        {raw("21", "[]"), "consul is lost"},
		"the index fell": {chainTo(7, "gone@dc1"), ""},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{script: map[string][]reply{
					"chain:web": {chainTo(20, "web@dc1"), after(time.Second, tt.bad), tt.bad, tt.bad,
						after(5*time.Second, chainTo(22, "web@dc1"))},
					"mesh:web": {ways(30, "web", "a")},
				}}
				if tt.log == "" { // without an index, the answer would count
					f.script["chain:web"] = []reply{chainTo(20, "web@dc1"), after(time.Second, tt.bad),
						chainTo(7, "web@dc1")}
				}
				r := start(t, f, ConsulOptions{Watches: chained("web"), ProbeInterval: -1})
				time.Sleep(20 * time.Second)
				r.want(t, meshA)
				var indexes []string
				for _, a := range f.asks() {
					if a.service == "chain:web" {
						indexes = append(indexes, a.index)
					}
				}
				if fmt.Sprint(indexes[:3]) != "[ 20 ]" {
					t.Errorf("asked with the indexes %q", indexes)
				}
				if tt.log != "" {
					r.log.wantOnce(t, tt.log)
				}
				if got := r.chainError(t, "web"); got != "" {
					t.Errorf("the error stays: %q", got)
				}
				r.stop()
			})
		})
	}
}

// Without a service, nobody asks for its chain and its targets.
func TestChainOfARemovedService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{
			"chain:web": {chainTo(20, "web@dc1"), after(time.Minute, chainTo(21, "db@dc1"))},
			"mesh:web":  {ways(30, "web", "a")},
		}}
		r := start(t, f, ConsulOptions{Watches: chained("web", "two"), Wait: 2 * time.Second})
		time.Sleep(time.Second)
		if err := r.consul.Apply(chained("two")); err != nil {
			t.Fatal(err)
		}
		if err := r.consul.Apply(nil); err != nil {
			t.Fatal(err)
		}
		got := r.got()
		if fmt.Sprint(got[len(got)-2:]) != "[web: removed two: removed]" {
			t.Errorf("got %q", got)
		}
		n := len(f.asks())
		time.Sleep(5 * time.Minute)
		if more := len(f.asks()) - n; more != 0 {
			t.Errorf("%d more queries", more)
		}
		if len(r.consul.Snapshot()) != 0 {
			t.Errorf("%d states of queries", len(r.consul.Snapshot()))
		}
		r.stop()
	})
}

// A new process serves the targets that an earlier one has saved, until the chain is known. An upgrade hands them over.
func TestTiersOfAChainAreSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		f := &fake{script: map[string][]reply{
			"chain:web": {chainTo(20, "db@dc1")}, "mesh:db": {ways(30, "db", "a")}}}
		r := start(t, f, ConsulOptions{Watches: chained("web"), StateDir: dir})
		time.Sleep(3 * time.Second)
		handed, err := r.consul.Save()
		if err != nil {
			t.Fatal(err)
		}
		r.stop()
		const want = "n/a /ns/default/dc/dc1/svc/db db.default.dc1.internal.td.consul"
		for name, o := range map[string]ConsulOptions{
			"in a file": {StateDir: dir}, "handed over": {Saved: handed},
		} {
			later := &fake{script: map[string][]reply{
				"chain:web": {status(500, "no"), status(500, "no"), after(5*time.Second, chainTo(20, "new@dc1"))},
				"mesh:db":   {status(500, "no"), status(500, "no"), hang}, "mesh:new": {ways(40, "new", "b")}}}
			o.Watches = chained("web")
			r := start(t, later, o)
			sets := r.consul.Saved()
			if len(sets) != 1 || len(sets[0].Endpoints) != 1 || named(sets[0].Endpoints[0]) != want {
				t.Errorf("%s: saved %+v, want %s", name, sets, want)
			}
			time.Sleep(time.Second)
			r.want(t)
			time.Sleep(20 * time.Second)
			r.want(t, meshB)
			r.stop()
		}
		other := start(t, &fake{always: hang}, ConsulOptions{StateDir: dir, Address: "10.1.1.1:8500",
			Watches: chained("web")})
		if sets := other.consul.Saved(); len(sets) != 0 {
			t.Errorf("another Consul: saved %+v", sets)
		}
		other.stop()
	})
}

// The queries for chains take slots as all queries do. With fewer slots than queries, they take turns.
func TestQueriesForChainsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &busy{fake: fake{always: func(req *http.Request) (*http.Response, error) {
			key, _ := scriptOf(req)
			body := chainJSON("resolver", strings.TrimPrefix(key, "chain:")+"@dc1")
			if !strings.HasPrefix(key, "chain:") {
				body = "[]"
			}
			wait, _ := time.ParseDuration(req.URL.Query().Get("wait"))
			return after(wait, raw("7", body))(req)
		}}}
		var watches []Watch
		for i := range 20 {
			watches = append(watches, Watch{Service: fmt.Sprint("s", i), Query: Query{Mesh: true}, Chain: true})
		}
		r := startOver(t, f, ConsulOptions{Watches: watches, MaxWatches: 5, ProbeInterval: -1})
		time.Sleep(time.Minute)
		f.mu.Lock()
		most := f.most
		f.mu.Unlock()
		if most > 5 {
			t.Errorf("%d queries at once, want at most 5", most)
		}
		if n := len(r.got()); n != 20 {
			t.Errorf("%d services have a set, want 20", n)
		}
		for _, w := range r.consul.Snapshot() {
			if w.LastSuccess.Before(time.Now().Add(-2 * maxStale)) {
				t.Errorf("%s was last answered %v ago", w.Query, time.Since(w.LastSuccess))
			}
		}
		r.stop()
	})
}

// busy counts the queries of a fake that run at once.
type busy struct {
	fake
	mu        sync.Mutex
	now, most int
}

func (b *busy) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, query := scriptOf(req); query {
		b.mu.Lock()
		b.now++
		b.most = max(b.most, b.now)
		b.mu.Unlock()
		defer func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.now--
		}()
	}
	return b.fake.RoundTrip(req)
}

// A service that leaves its chain, or gets one, keeps its set until Consul has answered the new query.
func TestServiceGetsAChainAndLosesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{
			"web": {ok(20, "a 80")}, "chain:web": {after(time.Second, chainTo(20, "web@dc1"))},
			"mesh:web": {ways(30, "web", "b")},
		}}
		r := start(t, f, ConsulOptions{})
		time.Sleep(time.Second)
		if err := r.consul.Apply(chained("web")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		r.want(t, webA)
		time.Sleep(time.Second)
		r.want(t, webA, meshB)
		f.mu.Lock()
		f.script["web"] = []reply{ok(21, "b 81")}
		f.mu.Unlock()
		if err := r.consul.Apply([]Watch{{Service: "web"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		r.want(t, webA, meshB, webB)
		if x, _ := r.consul.Explain("web"); x.Chain != nil {
			t.Errorf("the service follows a chain: %+v", x)
		}
		r.stop()
	})
}

func TestLookAtAChain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{script: map[string][]reply{"chain:web": {chainTo(20, "web@dc1", "db@dc2", "web@dc2 "+gatewayMode),
			raw("20", chainJSON("router", "web@dc1")), status(403, "Permission denied")}}}
		r := start(t, f, ConsulOptions{Watches: []Watch{{Service: "x"}}})
		w := chained("web")[0]
		tiers, left, err := r.consul.LookChain(t.Context(), w)
		if err != nil || len(tiers) != 2 || tiers[1].Query.Datacenter != "dc2" || len(left) != 1 ||
			left[0].Name != "web in datacenter dc2" {
			t.Errorf("got %+v, %+v, %v", tiers, left, err)
		}
		for _, want := range []string{"needs HTTP", "Permission denied"} {
			tiers, _, err := r.consul.LookChain(t.Context(), w)
			if err == nil || !strings.Contains(err.Error(), want) || tiers != nil {
				t.Errorf("got %+v, %v, want %q", tiers, err, want)
			}
		}
		r.stop()
	})
}
