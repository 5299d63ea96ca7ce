package discovery

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// told lists the instances of an explanation.
func told(e Explanation) (instances []string) {
	if len(e.Tiers) == 0 {
		return nil
	}
	for _, one := range e.Tiers[0].Instances {
		held := ""
		if !one.Held.IsZero() {
			held = " held"
		}
		instances = append(instances, fmt.Sprintf("%s %s%s%s: %s", one.ID, one.Status, one.Out, held, one.Detail))
	}
	return instances
}

const ailing = `[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Port":80},"Checks":[]},
	{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"b","Port":81},
	"Checks":[{"CheckID":"tcp","Status":"critical","Output":"dial: refused"}]}]`

func TestExplainSaysWhoIsOutAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		replies := []reply{ok(20, "a 80", "b 81"), raw("21", ailing), after(time.Second, ok(22)), ok(22),
			after(2*time.Second, status(500, "No cluster leader")), after(5*time.Second, ok(22)),
			after(3*time.Second, ok(22))}
		var mu sync.Mutex
		var events []string
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, ConsulOptions{OnEvent: func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, fmt.Sprint(strings.Join(e.Services, ","), "|", e.Kind, "|",
				e.Instance, "|", e.Text))
		}})
		check := func(at time.Duration, wantInstances, wantEvents []string) {
			t.Helper()
			time.Sleep(at)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			e, found := r.consul.Explain("web")
			if diff := cmp.Diff(wantInstances, told(e)); !found || diff != "" {
				t.Errorf("found %v, instances differ (-want +got):\n%s", found, diff)
			}
			if diff := cmp.Diff(wantEvents, events); diff != "" {
				t.Errorf("events differ (-want +got):\n%s", diff)
			}
		}
		failing := func(want string) {
			t.Helper()
			if got := r.status().Error; got != want {
				t.Errorf("the query fails with %q, want %q", got, want)
			}
		}
		want := []string{`web|out|n/b|check "tcp" is critical: dial: refused`}
		check(time.Second/2, []string{"n/a passing: ", `n/b criticalstatus: check "tcp" is critical: dial: refused`},
			want)
		want = append(want, "web|held|n/a|Consul no longer names it")
		check(time.Second, []string{"n/a  held: Consul no longer names it"}, want)
		failing("")
		check(3*time.Second, []string{"n/a  held: Consul no longer names it"}, want)
		failing("consul answered 500: No cluster leader")
		check(30*time.Second, nil, want) // the set shows that the endpoint has left
		failing("")
		if _, found := r.consul.Explain("nope"); found {
			t.Error("a service that is not watched is explained")
		}
		r.stop()
	})
}
