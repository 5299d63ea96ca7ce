package discovery

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// peering answers with the state of a cluster peering.
func peering(state string) reply {
	return func(req *http.Request) (*http.Response, error) {
		if req.URL.Path != "/v1/peering/far" {
			return status(500, "not that")(req)
		}
		return response(200, nil, strings.NewReader(fmt.Sprintf(`{"Name": "far", "State": %q}`, state))), nil
	}
}

// If a peering does not exist, or has ended, Consul answers a query with 200 and an empty list.
func TestEmptyAnswerOfAPeerIsBelievedOnlyIfThereIsOne(t *testing.T) {
	for name, test := range map[string]struct {
		peering  reply
		believed bool
		says     string
	}{
		"active":  {peering("ACTIVE"), true, ""},
		"failing": {peering("FAILING"), true, ""},
		"unknown": {status(404, `Peering not found for "far"`), false,
			`no cluster peering \"far\": correct the name, or establish it`},
		"terminated":   {peering("TERMINATED"), false, "the other side has deleted it"},
		"deleting":     {peering("DELETING"), false, "is deleting"},
		"establishing": {peering("ESTABLISHING"), false, "is establishing"},
		"no right":     {status(403, "Permission denied"), true, ""},
		"no leader":    {status(500, "No cluster leader"), false, "No cluster leader"},
		"nonsense":     {status(200, "<html>"), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{ping: test.peering, script: map[string][]reply{"web": {ok(5, "a 80", "b 81"), raw("6", "[]"),
					raw("6", "[]"), raw("6", "[]"), raw("6", "[]"), raw("6", "[]")}}}
				r := start(t, f, ConsulOptions{ProbeInterval: -1,
					Watches: []Watch{{Service: "web", Query: Query{Peer: "far"}, Guard: Guard{Hold: -1}}}})
				time.Sleep(time.Second + gatherQuiet)
				synctest.Wait()
				if test.believed {
					r.want(t, "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81", "web:")
				} else {
					r.want(t, "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81")
				}
				s := r.status()
				if (s.Error == "") != test.believed {
					t.Errorf("error %q", s.Error)
				}
				if test.says != "" {
					r.log.wantOnce(t, test.says)
				}
				for _, a := range f.asks() {
					if a.values.Get("peer") != "far" {
						t.Errorf("asked with %v", a.values)
					}
				}
			})
		})
	}
}

// When a peering ends, its instances vanish one by one, so a sharply smaller set must be doubted too.
func TestFewerInstancesOfAPeerAreBelievedOnlyIfThereIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{ping: peering("DELETING"), script: map[string][]reply{"web": {ok(5, "a 80", "b 81", "c 82", "d 83"),
			ok(6, "a 80"), ok(6, "a 80")}}}
		r := start(t, f, ConsulOptions{ProbeInterval: -1,
			Watches: []Watch{{Service: "web", Query: Query{Peer: "far"}, Guard: Guard{Hold: -1}}}})
		time.Sleep(time.Second)
		synctest.Wait()
		r.want(t, "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81 n/c=10.0.0.1:82 n/d=10.0.0.1:83")
	})
}

// When a peering ends, its instances vanish while the peering is still active for a moment.
func TestInstancesOfAPeeringThatEndsMeanwhileAreNotLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ends := func(req *http.Request) (*http.Response, error) {
			if time.Since(began) < time.Second {
				return peering("ACTIVE")(req)
			}
			return peering("TERMINATED")(req)
		}
		gone := after(50*time.Millisecond, raw("6", "[]"))
		f := &fake{ping: ends, always: gone, script: map[string][]reply{"web": {ok(5, "a 80", "b 81")}}}
		r := start(t, f, ConsulOptions{ProbeInterval: -1,
			Watches: []Watch{{Service: "web", Query: Query{Peer: "far"}, Guard: Guard{Hold: 2 * time.Second}}}})
		time.Sleep(time.Minute)
		synctest.Wait()
		r.want(t, "web: n/a=10.0.0.1:80 n/b=10.0.0.1:81")
		r.log.wantOnce(t, "the other side has deleted it")
	})
}
