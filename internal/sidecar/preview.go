package sidecar

import (
	"cmp"
	"context"
	"slices"
)

// Preview asks the agent once, and returns the instances that would be exposed, sorted by service and ID, and why
// others would not be. The instances have no port: Listen is zero. Preview registers nothing and opens no listener.
// filtered reports that the agent has left services out because the token may not read them. Preview must not be called
// together with Run.
func (r *Registrar) Preview(ctx context.Context) (all []Instance, refused []Refusal, filtered bool, err error) {
	services := r.wanted()
	found, filtered, err := r.o.Consul.Services(ctx, filterOf(services))
	if err != nil {
		return nil, nil, false, err
	}
	l := &list{services: found, owners: r.run.owners}
	wants, refused := l.judge(services, r.o.LeadsBack)
	for id, w := range wants {
		all = append(all, Instance{ID: id + idSuffix, Service: w.service.Name, ServiceID: id, Local: w.local})
	}
	slices.SortFunc(all, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ServiceID, b.ServiceID))
	})
	return all, refused, filtered, nil
}
