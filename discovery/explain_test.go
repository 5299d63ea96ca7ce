package discovery

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// told lists what an explanation says, in short.
func told(e Explanation) (instances, events []string) {
	if len(e.Tiers) == 0 {
		return nil, nil
	}
	for _, one := range e.Tiers[0].Instances {
		held := ""
		if !one.Held.IsZero() {
			held = " held"
		}
		instances = append(instances, fmt.Sprintf("%s %s%s%s: %s", one.ID, one.Status, one.Out, held, one.Detail))
	}
	for _, one := range e.Tiers[0].Events {
		events = append(events, strings.Join([]string{string(one.Kind), one.Instance, one.Text}, "|"))
	}
	return instances, events
}

const ailing = `[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"a","Port":80},"Checks":[]},
	{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"b","Port":81},"Checks":[{"CheckID":"tcp","Status":"critical","Output":"dial: refused"}]}]`

func TestExplainSaysWhoIsOutAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		replies := []reply{ok(20, "a 80", "b 81"), raw("21", ailing), after(time.Second, ok(22)), ok(22), after(2*time.Second, status(500, "No cluster leader")), after(5*time.Second, ok(22)), after(3*time.Second, ok(22))}
		r := start(t, &fake{script: map[string][]reply{"web": replies}}, ConsulOptions{})
		check := func(at time.Duration, wantInstances, wantEvents []string) {
			t.Helper()
			time.Sleep(at)
			e, found := r.consul.Explain("web")
			instances, events := told(e)
			if diff := cmp.Diff(wantInstances, instances); !found || diff != "" {
				t.Errorf("found %v, instances differ (-want +got):\n%s", found, diff)
			}
			if diff := cmp.Diff(wantEvents, events); diff != "" {
				t.Errorf("events differ (-want +got):\n%s", diff)
			}
		}
		events := []string{"in|n/a|10.0.0.1:80", "in|n/b|10.0.0.1:81", `out|n/b|status: check "tcp" is critical: dial: refused`}
		check(time.Second/2, []string{"n/a passing: ", `n/b criticalstatus: check "tcp" is critical: dial: refused`}, events)
		events = append(events, "doubt||set is sharply smaller", "held|n/a|Consul does not name it any more")
		check(time.Second, []string{"n/a  held: Consul does not name it any more"}, events)
		events = append(events, "error||consul answered 500: No cluster leader")
		check(3*time.Second, []string{"n/a  held: Consul does not name it any more"}, events)
		time.Sleep(30 * time.Second)
		e, _ := r.consul.Explain("web")
		if _, got := told(e); len(got) != 8 || !strings.HasPrefix(got[6], "answered||after 5") || got[7] != "out|n/a|gone" || len(e.Tiers[0].Instances) != 0 {
			t.Errorf("in the end %q, %v", got, e.Tiers[0].Instances)
		}
		if _, found := r.consul.Explain("nope"); found {
			t.Error("a service that is not watched is explained")
		}
		r.stop()
	})
}

func TestHistoryIsBounded(t *testing.T) {
	var h history
	for i := range 100 {
		h.add(Event{Text: fmt.Sprint(i)})
	}
	all := h.all()
	if len(all) != maxEvents || all[0].Text != "68" || all[maxEvents-1].Text != "99" {
		t.Errorf("got %d events from %s to %s", len(all), all[0].Text, all[len(all)-1].Text)
	}
}
