package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/lb"
)

// A plan is what one Watch asks for.
type plan struct {
	service  string
	tiers    []tierPlan
	failover Failover // with defaults
	leaves   Leaves
}

// A tierPlan is a query, by its key, or a set.
type tierPlan struct {
	name string
	key  string // empty: set is the tier
	set  []lb.Endpoint
}

// A wanted is a query that somebody wants to be watched.
type wanted struct {
	key      string
	query    Query // normalized
	guard    Guard // with defaults
	services []string
}

// planFor returns what is to be done for watches, and the distinct queries of that, in the order of the first that asked for each.
func planFor(watches []Watch, datacenter string) ([]plan, []*wanted, error) {
	var plans []plan
	var all []*wanted
	byKey, seen := map[string]*wanted{}, map[string]bool{}
	for _, one := range watches {
		switch {
		case one.Service == "":
			return nil, nil, errors.New("a watch without a service")
		case seen[one.Service]:
			return nil, nil, fmt.Errorf("two watches for service %q", one.Service)
		}
		seen[one.Service] = true
		p := plan{service: one.Service, failover: one.Failover.withDefaults(), leaves: one.Leaves}
		for _, t := range append([]Tier{{Query: one.Query, Guard: one.Guard}}, one.Next...) {
			if t.Endpoints != nil {
				p.tiers = append(p.tiers, tierPlan{name: "static", set: slices.Clone(t.Endpoints)})
				continue
			}
			q := t.Query
			q.Service = cmp.Or(strings.TrimSpace(q.Service), one.Service)
			w := &wanted{query: q.normalize(datacenter), guard: t.Guard.withDefaults()}
			w.key = fmt.Sprint(w.query.key(), w.guard)
			if byKey[w.key] == nil {
				byKey[w.key] = w
				all = append(all, w)
			}
			w = byKey[w.key]
			if n := len(w.services); n == 0 || w.services[n-1] != one.Service { // two tiers may be the same query
				w.services = append(w.services, one.Service)
			}
			p.tiers = append(p.tiers, tierPlan{name: w.query.place(), key: w.key})
		}
		plans = append(plans, p)
	}
	return plans, all, nil
}

func (f Failover) withDefaults() Failover {
	f.Below = max(f.Below, 1)
	if f.Hold == 0 {
		f.Hold = defaultFailbackHold
	}
	f.Hold = max(f.Hold, 0)
	return f
}
