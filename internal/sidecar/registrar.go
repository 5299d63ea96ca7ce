package sidecar

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/statefile"
)

// patience limits the answer to a request.
const patience = 3 * time.Second

// A Registrar keeps the instances of exposed services registered as members of the mesh. A Registrar is safe for
// concurrent use.
type Registrar struct {
	o   Options // with defaults
	log hclog.Logger

	wake  chan struct{} // has an element when Run must look at once
	turn  chan struct{} // has an element while a request changes something at the agent
	state atomic.Pointer[published]

	mu       sync.Mutex      // guards the following fields
	services []Service       // as Apply was given them
	phase    phase           // changes only with the turn
	present  map[string]bool // IDs of registrations that the agent has accepted

	run running // only Run uses this field, and New
}

// A phase says what a Registrar may do at the agent.
type phase int

const (
	working  phase = iota // everything
	draining              // nothing but Drain and End
	over                  // nothing
)

// errOver says that a Registrar does not change anything at the agent any more.
var errOver = errors.New("the registrations are not changed any more")

// New returns a Registrar. Without a call of Run it asks the agent for nothing.
func New(o Options) *Registrar {
	o = o.withDefaults()
	r := &Registrar{
		o: o, log: o.Logger.Named("sidecar"), wake: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		present: map[string]bool{},
		run: running{known: map[string]*instance{}, memory: newMemory(o.Ports), owners: []string{o.Owner},
			yielded: map[string]bool{}, interval: interval, refresh: refreshAfter},
	}
	r.load()
	r.restore(o.Saved)
	r.publish()
	return r
}

// Apply replaces the services that are exposed. It does not wait for the agent.
func (r *Registrar) Apply(services []Service) {
	r.mu.Lock()
	r.services = slices.Clone(services)
	r.mu.Unlock()
	r.look()
}

// look makes Run look at once.
func (r *Registrar) look() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// wanted returns the services that are exposed.
func (r *Registrar) wanted() []Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.services
}

// Instances returns the instances that have a listener: those of Saved at first, and then those that Options.Instances
// has accepted.
func (r *Registrar) Instances() []Instance { return slices.Clone(r.state.Load().accepted) }

// State returns what the Registrar does. The slices must not be changed.
func (r *Registrar) State() State { return r.state.Load().State }

// change sends requests that change something at the agent, unless the phase is later than the latest one that permits
// them.
func (r *Registrar) change(ctx context.Context, latest phase, requests func(context.Context) error) error {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.phaseNow() > latest {
		return errOver
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return requests(ctx)
}

func (r *Registrar) phaseNow() phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phase
}

// enter begins a phase, and returns when no request of an earlier phase is under way, or when ctx ends.
func (r *Registrar) enter(ctx context.Context, p phase) error {
	r.mu.Lock()
	r.phase = max(r.phase, p)
	r.mu.Unlock()
	select {
	case r.turn <- struct{}{}:
		<-r.turn
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note records whether the agent has the registration with this ID.
func (r *Registrar) note(id string, present bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if present {
		r.present[id] = true
	} else {
		delete(r.present, id)
	}
}

// registered returns the IDs of the registrations that the agent has, sorted.
func (r *Registrar) registered() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.present))
}

// Drain puts the registrations into maintenance, so that peers take other instances. After that the Registrar follows
// nothing any more. Drain returns the errors of the agent, or the error of ctx if it ends first.
func (r *Registrar) Drain(ctx context.Context) error {
	return r.leave(ctx, draining, func(ctx context.Context, id string) error {
		return r.o.Consul.EnterMaintenance(ctx, id, "lictor is shutting down")
	})
}

// End removes the registrations. After that the Registrar changes nothing at the agent. End returns the errors of the
// agent, or the error of ctx if it ends first.
func (r *Registrar) End(ctx context.Context) error {
	return r.leave(ctx, over, r.o.Consul.Deregister)
}

// leave enters a phase, and then calls do for each registration.
func (r *Registrar) leave(ctx context.Context, p phase, do func(context.Context, string) error) error {
	if r.phaseNow() == over {
		return nil
	}
	if err := r.enter(ctx, p); err != nil {
		return err
	}
	var errs []error
	for _, id := range r.registered() {
		err := r.change(ctx, p, func(ctx context.Context) error { return do(ctx, id) })
		if !consul.IsNotFound(err) {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// Release leaves the registrations to the Registrar of another process, and returns when no request of this one is
// under way. After that this Registrar changes nothing at the agent and writes no file.
func (r *Registrar) Release() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.enter(ctx, over); err != nil {
		r.log.Debug("a request to consul is still under way", "error", err)
	}
}

// replaceFile replaces the file in StateDir, unless another process may write it now.
func (r *Registrar) replaceFile(content []byte) error {
	return r.change(context.Background(), draining, func(context.Context) error {
		return statefile.Replace(r.o.StateDir, portsFile, content)
	})
}
