package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/lb"
)

// A plan holds the tiers and settings of one Watch.
type plan struct {
	service  string
	tiers    []tierPlan
	failover Failover // with defaults
	leaves   Leaves
}

// A tierPlan describes a tier: a query, or a set that does not change.
type tierPlan struct {
	name string
	key  string // key of the query, as in wanted; empty: use set
	set  []lb.Endpoint
}

// A wanted is a query that at least one service needs.
type wanted struct {
	key      string // equal for equal queries with equal guards
	query    Query  // normalized
	guard    Guard  // with defaults
	services []string
}

// checkWatches returns what is wrong with watches.
func checkWatches(watches []Watch) error {
	seen := map[string]bool{}
	for _, one := range watches {
		queries := []Query{one.Query}
		for _, t := range one.Next {
			queries = append(queries, t.Query)
		}
		switch {
		case one.Service == "":
			return errors.New("a watch without a service")
		case seen[one.Service]:
			return fmt.Errorf("two watches for service %q", one.Service)
		case one.Chain && (!one.Query.Mesh || len(one.Next) > 0):
			return fmt.Errorf("service %q follows a discovery chain, but is not in the mesh or has more tiers",
				one.Service)
		case slices.ContainsFunc(queries, func(q Query) bool { return q.Mesh && q.Prepared+q.Peer != "" }):
			return fmt.Errorf("service %q is in the mesh, and comes from a prepared query or a peer", one.Service)
		}
		seen[one.Service] = true
	}
	return nil
}

// planFor returns the plans for watches, and their distinct queries in the order of first use. tiersOf returns the
// tiers of a watch.
func planFor(watches []Watch, datacenter string, tiersOf func(*Watch) []Tier) ([]plan, []*wanted) {
	var plans []plan
	var all []*wanted
	byKey := map[string]*wanted{}
	for i := range watches {
		one := &watches[i]
		p := plan{service: one.Service, failover: one.Failover.withDefaults(), leaves: one.Leaves}
		for _, t := range tiersOf(one) {
			if t.Endpoints != nil {
				p.tiers = append(p.tiers, tierPlan{name: "static", set: slices.Clone(t.Endpoints)})
				continue
			}
			q := t.Query
			q.Service = cmp.Or(strings.TrimSpace(q.Service), one.Service)
			w := &wanted{query: q.normalize(datacenter), guard: t.Guard.withDefaults()}
			w.key = fmt.Sprint(w.query.canonical(), w.guard)
			if byKey[w.key] == nil {
				byKey[w.key] = w
				all = append(all, w)
			}
			w = byKey[w.key]
			// Add the service once, even if two of its tiers have the same query.
			if n := len(w.services); n == 0 || w.services[n-1] != one.Service {
				w.services = append(w.services, one.Service)
			}
			p.tiers = append(p.tiers, tierPlan{name: cmp.Or(t.name, w.query.place()), key: w.key})
		}
		p.distinguish(byKey)
		plans = append(plans, p)
	}
	return plans, all
}

// distinguish names the tiers that have one place, such as two filters of a datacenter, by their whole queries.
func (p *plan) distinguish(byKey map[string]*wanted) {
	tiers := map[string]int{} // by place
	for _, t := range p.tiers {
		tiers[t.name]++
	}
	for i, t := range p.tiers {
		if t.key != "" && tiers[t.name] > 1 {
			p.tiers[i].name = byKey[t.key].query.String()
		}
	}
}

// withDefaults returns f with defaults in place of zeros, and a Hold of zero in place of a negative Hold.
func (f Failover) withDefaults() Failover {
	f.Below = max(f.Below, 1)
	if f.Hold == 0 {
		f.Hold = defaultFailbackHold
	}
	f.Hold = max(f.Hold, 0)
	return f
}
