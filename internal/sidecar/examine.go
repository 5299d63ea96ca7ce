package sidecar

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/consul/api"
)

// listenerFilter selects the checks of Lictor's listeners.
const listenerFilter = `Type == "tcp" and CheckID matches "` + idSuffix + listenerSuffix + `$"`

// examine reads what the agent says of the listeners, as often as it checks them. It notes which of this Lictor's
// listeners the agent cannot reach, and which registrations of other Lictors have no listener: those may be taken over.
//
// A Lictor that another one has taken a registration from does not take it back that way, or two Lictors whose
// listeners the agent cannot reach would do so in turn for ever.
func (r *Registrar) examine(ctx context.Context, l *list, now time.Time) {
	if now.Sub(r.run.examined) < checkInterval || !r.needsChecks(l) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	checks, err := r.o.Consul.Checks(ctx, listenerFilter)
	if err != nil {
		r.log.Debug("the agent does not list its checks", "error", err)
		return
	}
	r.run.examined = now
	r.run.dead = map[string]bool{}
	for id, s := range l.services {
		check := checks[id+listenerSuffix]
		if s.Meta[MarkOwner] != "" && !l.owns(s) && check != nil && check.Status == api.HealthCritical {
			r.run.dead[id] = !r.run.yielded[id]
		}
	}
	l.dead = r.run.dead
	for _, i := range r.run.known {
		why := ""
		if check := checks[i.ID+listenerSuffix]; check != nil && check.Status == api.HealthCritical {
			why = check.Output
		}
		r.cutOff(i, why)
	}
}

// needsChecks reports whether the checks of listeners matter now.
func (r *Registrar) needsChecks(l *list) bool {
	for _, i := range r.run.known {
		if i.sent != nil {
			return true
		}
	}
	for id, s := range l.services {
		if s.Meta[MarkOwner] != "" && !l.owns(s) && !r.run.yielded[id] {
			return true
		}
	}
	return false
}

// cutOff notes why the agent cannot connect to the listener of an instance. An empty text means that it can.
func (r *Registrar) cutOff(i *instance, why string) {
	switch {
	case why != "" && i.cutOff == "":
		r.log.Warn("the agent cannot connect to the listener of an exposed instance, peers do not use it",
			"service", i.Service, "instance", i.ServiceID, "listen", i.Listen, "error", why)
		r.o.Report(Report{What: CutOff, Instance: i.Instance, Err: errors.New(why)})
	case why == "" && i.cutOff != "":
		r.log.Info("the agent can connect to the listener of an exposed instance again", "service", i.Service,
			"instance", i.ServiceID, "listen", i.Listen)
		r.o.Report(Report{What: Works, Instance: i.Instance})
	}
	i.cutOff = why
}
