package admin

import (
	"context"

	"github.com/lictor-proxy/lictor/discovery"
)

// An Explainer provides what a source knows about instances. *discovery.Consul is one.
type Explainer interface {
	Explain(service string) (discovery.Explanation, bool)
	Tiers(service string) []discovery.TierUse
	Excluded(ctx context.Context, service string) ([]discovery.Instance, error)
}

// ExplainedBy returns a function for State.Instances. ExplainedBy calls now each time for the current Explainer, which
// may be nil.
func ExplainedBy(now func() Explainer) func(service string) []Endpoint {
	return func(service string) []Endpoint {
		e := now()
		if e == nil {
			return nil
		}
		x, watched := e.Explain(service)
		if !watched {
			return nil
		}
		return instancesOf(&x)
	}
}

// SourcesBy returns a function for State.Sources. SourcesBy calls now each time for the current Explainer, which may be
// nil.
func SourcesBy(now func() Explainer) func(service string) []Source {
	return func(service string) (all []Source) {
		if e := now(); e != nil {
			for _, t := range e.Tiers(service) {
				all = append(all, Source(t))
			}
		}
		return all
	}
}

// ExcludedBy returns a function for State.Excluded. ExcludedBy calls now each time for the current Explainer, which may
// be nil.
func ExcludedBy(now func() Explainer) func(ctx context.Context, service string) ([]Endpoint, error) {
	return func(ctx context.Context, service string) ([]Endpoint, error) {
		e := now()
		if e == nil {
			return nil, nil
		}
		excluded, err := e.Excluded(ctx, service)
		var all []Endpoint
		for i := range excluded {
			all = append(all, instanceOf(&discovery.TierStatus{}, &excluded[i]))
		}
		return all, err
	}
}

// instancesOf converts an explanation to the endpoints of the API. If several tiers have the same instance, instancesOf
// uses the active tier's.
func instancesOf(x *discovery.Explanation) []Endpoint {
	var all []Endpoint
	seen := map[string]bool{}
	for _, active := range []bool{true, false} {
		for i := range x.Tiers {
			t := &x.Tiers[i]
			if t.Active != active {
				continue
			}
			for j := range t.Instances {
				if one := &t.Instances[j]; !seen[one.ID] {
					seen[one.ID] = true
					all = append(all, instanceOf(t, one))
				}
			}
		}
	}
	return all
}

// instanceOf converts one instance of tier t. The API shows discovery's reasons for leaving an instance out word for
// word.
func instanceOf(t *discovery.TierStatus, one *discovery.Instance) Endpoint {
	e := Endpoint{ID: one.ID, Weight: one.Weight, State: StateIn, Reason: ReasonHealthy, Detail: one.Detail,
		Tags: one.Tags, ServerName: one.ServerName, NoServerName: one.NoServerName,
		Identity: one.Identity, Zone: one.Zone, Near: one.Near}
	if one.Host != "" || one.At().IsValid() {
		e.Address = one.Address()
	}
	switch {
	case one.Out == discovery.OutStatus && one.Status != "":
		e.State, e.Reason, e.Detail = StateOut, ReasonStatus, one.Status+", "+one.Detail
	case one.Out != "":
		e.State, e.Reason = StateOut, string(one.Out)
	case !t.Active:
		e.State, e.Reason, e.Detail = StateOut, ReasonStandby, t.Name+" is not in use"
		if t.Failed {
			e.Detail += ": all its endpoints failed"
		}
	case !one.Held.IsZero():
		held := one.Held
		e.Reason, e.Until = ReasonHeld, &held
	case !t.Watch.Saved.IsZero():
		e.Reason = ReasonSaved
	}
	return e
}
