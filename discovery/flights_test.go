package discovery

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A phase is the state of a fake Consul from a time on.
type phase struct {
	at time.Duration // since the start
	is reply
}

// phased answers a query without an index at once, with the current phase. It answers a query with an index when the
// next phase begins, or when the wait is over. Call phased in a synctest bubble.
func phased(phases ...phase) reply {
	begun := time.Now()
	return func(req *http.Request) (*http.Response, error) {
		since := time.Since(begun)
		next := slices.IndexFunc(phases, func(p phase) bool { return p.at > since })
		switch {
		case req.URL.Query().Get("index") == "" && next < 0:
			return phases[len(phases)-1].is(req)
		case req.URL.Query().Get("index") == "":
			return phases[next-1].is(req)
		}
		wait, err := time.ParseDuration(req.URL.Query().Get("wait"))
		switch {
		case err != nil:
			return nil, err
		case next < 0:
			return after(wait, phases[len(phases)-1].is)(req)
		case phases[next].at-since > wait:
			return after(wait, phases[next-1].is)(req)
		}
		return after(phases[next].at-since, phases[next].is)(req)
	}
}

// streamed returns r with the header that says that the agent's own view has answered. Such queries can be cancelled.
func streamed(r reply) reply {
	return func(req *http.Request) (*http.Response, error) {
		resp, err := r(req)
		if err == nil {
			resp.Header.Set("X-Consul-Query-Backend", "streaming")
		}
		return resp, err
	}
}

// twoPorts answers with one instance that has two ports; the number of the second one is given.
func twoPorts(index, metrics int) reply {
	return raw(fmt.Sprint(index), fmt.Sprintf(`[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a",
		"Port":80,"Ports":[{"Name":"http","Port":80,"Default":true},{"Name":"metrics","Port":%d}]}}]`, metrics))
}

// shared runs two services with different ports of one service in Consul for d.
func shared(t *testing.T, d time.Duration, check func(r *rig), phases ...phase) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, &fake{always: phased(phases...)}, ConsulOptions{Watches: []Watch{
			{Service: "m", Query: Query{Service: "web", Port: "metrics"}, Guard: Guard{Hold: -1}},
			{Service: "web", Guard: Guard{Hold: -1}},
		}})
		time.Sleep(d)
		synctest.Wait()
		check(r)
		r.stop()
	})
}

func TestServicesOnTwoPortsShareOneQuery(t *testing.T) {
	shared(t, 35*time.Second, func(r *rig) {
		r.want(t, "m: n/a=10.0.0.1:91", "web: n/a=10.0.0.1:80", "m: n/a=10.0.0.1:92", "m: n/a=10.0.0.1:93")
		if got, want := r.fake.indexes(), `"" "20" "" "21" "22"`; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
	}, phase{0, twoPorts(20, 91)}, phase{10 * time.Second, twoPorts(21, 92)}, phase{20 * time.Second, twoPorts(22, 93)})
}

// When the service that has sent the query is removed, the other one goes on.
func TestSharedQuerySurvivesTheServiceThatSentIt(t *testing.T) {
	shared(t, 4*time.Second, func(r *rig) {
		before := r.consul.Snapshot()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		all, stays := r.consul.Snapshot(), Watch{Service: "web", Guard: Guard{Hold: -1}}
		other := all[1]
		if other.Queries > before[1].Queries { // it is the sender
			other = all[0]
		}
		if stays.Service = other.Services[0]; stays.Service == "m" {
			stays.Query = Query{Service: "web", Port: "metrics"}
		}
		if err := r.consul.Apply([]Watch{stays}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if got := r.status().Index; got != 22 {
			t.Errorf("index %d, want 22", got)
		}
		if got, want := r.fake.indexes(), `"" "20" "" "21" "21" "22"`; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
	}, phase{0, twoPorts(20, 91)}, phase{5 * time.Second, streamed(twoPorts(21, 91))},
		phase{10 * time.Second, twoPorts(22, 94)})
}

// When the shared query fails, both services notice, and both recover.
func TestSharedQueryFailsForBothServices(t *testing.T) {
	shared(t, 20*time.Second, func(r *rig) {
		for _, w := range r.consul.Snapshot() {
			if w.Errors != 1 || w.Index != 21 {
				t.Errorf("%v: %d errors, index %d, want 1 and 21", w.Services, w.Errors, w.Index)
			}
		}
		if got, want := r.fake.indexes(), `"" "20" "" "" "21" ""`; got != want && got != `"" "20" "" "" "" "21"` {
			t.Errorf("asked %s, want %s", got, want)
		}
	}, phase{0, twoPorts(20, 91)}, phase{10 * time.Second, fails(errors.New("broken"))},
		phase{10*time.Second + 1, twoPorts(21, 92)})
}

// A service that drops a held endpoint soon does not wait for the query of another service.
func TestHeldEndpointIsDroppedBesideALongerQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{always: phased(phase{0, ok(20, "a 80", "b 81")}, phase{10 * time.Second, ok(21)})}
		r := start(t, f, ConsulOptions{Watches: []Watch{
			{Service: "quick", Query: Query{Service: "web"}, Guard: Guard{Hold: -1}},
			{Service: "slow", Query: Query{Service: "web"}, Guard: Guard{Hold: 5 * time.Second}},
		}})
		time.Sleep(15*time.Second + 100*time.Millisecond)
		synctest.Wait()
		r.want(t, "quick: n/a=10.0.0.1:80 n/b=10.0.0.1:81", "slow: n/a=10.0.0.1:80 n/b=10.0.0.1:81", "quick:", "slow:")
		r.stop()
	})
}
