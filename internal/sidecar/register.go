package sidecar

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// A registrationSent is a registration that the agent has accepted.
type registrationSent struct {
	is *api.AgentServiceRegistration // nil: a former Registrar has sent it
	at time.Time
}

// register registers the instances that have a listener, if the agent lacks them, or has something else.
func (r *Registrar) register(ctx context.Context, l *list, now time.Time) {
	for _, i := range r.sorted() {
		if !i.leaving.IsZero() || !i.lost.IsZero() || !slices.Contains(r.run.accepted, i.Instance) {
			continue
		}
		is := registrationOf(i.Instance, r.o.Owner, r.o.Bind, i.want.source)
		if !r.mustRegister(i, is, l.own(i.ServiceID), now) {
			continue
		}
		first := i.sent == nil
		err := r.change(ctx, working, func(ctx context.Context) error {
			r.note(i.ID, true) // even without an answer, the agent may have it
			if !first {
				return r.o.Consul.RegisterAgain(ctx, is)
			}
			if err := r.o.Consul.Register(ctx, is); err != nil {
				return err
			}
			// An earlier Lictor may have left it in maintenance.
			return r.o.Consul.LeaveMaintenance(ctx, i.ID)
		})
		r.registeredWith(ctx, i, is, err, now)
	}
}

// mustRegister reports whether an instance must be registered now. The argument listed is the agent's registration, or
// nil.
func (r *Registrar) mustRegister(
	i *instance, is *api.AgentServiceRegistration, listed *api.AgentService, now time.Time,
) bool {
	if i.sent == nil || i.err != nil {
		return !now.Before(i.retryAt)
	}
	switch {
	case listed == nil:
		r.log.Info("the agent has lost a registration, it is registered again", "service", i.Service, "id", i.ID)
	case !equal(is, i.sent.is):
	case !matches(listed, is):
		if now.Before(i.retryAt) {
			return false
		}
		i.retryAt = now.Add(i.backoff.Pause(now, interval, mostRetry))
		r.log.Warn("another program has changed a registration of lictor, it is registered again; "+
			"does another lictor with the same bind and ports use this agent?",
			"service", i.Service, "id", i.ID, "address", listed.Address, "port", listed.Port)
	default:
		return now.Sub(i.sent.at) >= r.run.refresh
	}
	return true
}

// registeredWith notes the result of a registration.
func (r *Registrar) registeredWith(
	ctx context.Context, i *instance, is *api.AgentServiceRegistration, err error, now time.Time,
) {
	switch {
	case ctx.Err() != nil || errors.Is(err, errOver):
	case err != nil:
		if i.err == nil {
			text := "instance not registered in the mesh, lictor keeps trying"
			if i.sent != nil {
				text = "the agent refuses to register an instance again, it is still served, lictor keeps trying"
			}
			r.log.Warn(text, "service", i.Service, "id", i.ID, "error", err, "needs",
				"service:write for "+i.Service+" and "+i.Service+nameSuffix)
			r.o.Report(Report{What: Failed, Instance: i.Instance, Err: err})
		}
		i.err = err
		i.retryAt = now.Add(i.backoff.Pause(now, interval, mostRetry))
	default:
		first, again := i.sent == nil, i.err != nil
		i.err, i.sent = nil, &registrationSent{is: is, at: now}
		if again {
			i.backoff.Reset()
			r.log.Info("the registration of an instance is accepted again", "service", i.Service, "id", i.ID)
			r.o.Report(Report{What: Works, Instance: i.Instance})
		}
		if first {
			r.log.Info("instance exposed in the mesh", "service", i.Service, "instance", i.ServiceID,
				"listen", i.Listen, "local", i.Local, "id", i.ID)
			r.o.Report(Report{What: Exposed, Instance: i.Instance})
		}
	}
}

// tidy removes this Lictor's registrations that nothing needs, such as those of a Lictor that was killed.
func (r *Registrar) tidy(ctx context.Context, l *list, now time.Time) {
	needed := map[string]bool{}
	for id, i := range r.run.known {
		if i.leaving.IsZero() {
			needed[i.ID] = true
		} else if now.Sub(i.leaving) >= linger && !slices.Contains(r.run.accepted, i.Instance) {
			r.run.memory.leave(id, now)
			r.run.dirty = true
			delete(r.run.known, id)
		}
	}
	for id, s := range l.services {
		if !l.owns(s) || needed[id] {
			continue
		}
		err := r.change(ctx, working, func(ctx context.Context) error { return r.o.Consul.Deregister(ctx, id) })
		if err == nil || consul.IsNotFound(err) {
			r.note(id, false)
			r.log.Info("registration removed", "id", id)
		} else if ctx.Err() == nil {
			r.log.Debug("registration not removed", "id", id, "error", err)
		}
	}
}
