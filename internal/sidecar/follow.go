package sidecar

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// refuse logs and reports why instances are not exposed, unless that is known.
func (r *Registrar) refuse(refused []Refusal) {
	refused = slices.DeleteFunc(refused, func(one Refusal) bool {
		return errors.Is(one.Err, ErrAbsent) && r.exposes(one.Service)
	})
	slices.SortFunc(refused, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ServiceID, b.ServiceID))
	})
	for _, one := range refused {
		same := func(o Refusal) bool {
			return o.Service == one.Service && o.ServiceID == one.ServiceID && o.Err.Error() == one.Err.Error()
		}
		if slices.ContainsFunc(r.run.refused, same) {
			continue
		}
		if errors.Is(one.Err, ErrAbsent) {
			r.log.Info("nothing to expose yet", "service", one.Service, "reason", one.Err)
		} else {
			r.log.Warn("instance not exposed", "service", one.Service, "instance", one.ServiceID, "reason", one.Err)
		}
		r.o.Report(Report{What: Refused, Instance: Instance{Service: one.Service, ServiceID: one.ServiceID},
			Err: one.Err})
	}
	r.run.refused = refused
}

// exposes reports whether an instance of a service is exposed, even if the agent has lost it.
func (r *Registrar) exposes(service string) bool {
	for _, i := range r.run.known {
		if i.Service == service && i.leaving.IsZero() {
			return true
		}
	}
	return false
}

// follow updates what is known of the instances.
func (r *Registrar) follow(l *list, wants map[string]want, filtered bool, now time.Time) {
	for id, w := range wants {
		i := r.run.known[id]
		if i == nil {
			i = &instance{Instance: Instance{ID: id + idSuffix, Service: w.service.Name, ServiceID: id}}
			r.run.known[id] = i
		}
		i.want, i.Service, i.Local = w, w.service.Name, w.local
		i.lost, i.leaving = time.Time{}, time.Time{}
	}
	configured := map[string]bool{}
	for _, s := range r.wanted() {
		configured[s.Name] = true
	}
	for id, i := range r.run.known {
		if _, wanted := wants[id]; wanted || !i.leaving.IsZero() {
			continue
		}
		unseen := l.services[id] == nil && (filtered || l.own(id) == nil)
		if unseen && configured[i.Service] {
			if filtered {
				continue
			}
			if i.lost.IsZero() {
				i.lost = now
				r.log.Warn("the agent has lost an exposed instance and its registration, the listener stays",
					"service", i.Service, "instance", id, "for", holdFor.String())
				r.o.Report(Report{What: Lost, Instance: i.Instance})
			}
			if now.Sub(i.lost) < holdFor {
				continue
			}
		}
		if i.sent != nil && l.services[i.ID] != nil && !l.owns(l.services[i.ID]) {
			r.run.yielded[i.ID] = true
		}
		i.leaving, i.sent = now, nil
		r.log.Info("instance no longer exposed", "service", i.Service, "instance", id, "listen", i.Listen)
		r.o.Report(Report{What: Ended, Instance: i.Instance})
	}
}

// sorted returns what is known, sorted by service and ID.
func (r *Registrar) sorted() []*instance {
	var all []*instance
	for _, i := range r.run.known {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ServiceID, b.ServiceID))
	})
	return all
}
