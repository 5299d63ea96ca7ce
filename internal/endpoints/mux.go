// Package endpoints stands between the sources of endpoints and the balancer.
package endpoints

import (
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// A Mux stands between sources and the balancer. Sources change when a configuration is reloaded; the Mux sees to it that each
// service has the sets of one source at a time, and keeps those of the old one until the new one has something to say.
type Mux struct {
	next  discovery.Sink
	ready chan struct{} // closed once every service has had its first set

	mu       sync.Mutex // also held while next is told, so that it hears of feeds in their order
	started  int        // feeds so far
	services map[string]bool
	owners   map[string]*Input // whose sets of a service are in force
	departed []string          // services that the last change removed: their sets stay while their clients finish
}

// NewMux returns a Mux that tells next.
func NewMux(next discovery.Sink) *Mux {
	return &Mux{next: next, ready: make(chan struct{}), services: map[string]bool{}, owners: map[string]*Input{}}
}

// Ready is closed once every service has had its first set.
func (in *Mux) Ready() <-chan struct{} { return in.ready }

// An Input is one source at work.
type Input struct {
	mux      *Mux
	number   int // later feeds take services over from earlier ones
	services map[string]bool
	cancel   context.CancelFunc
	fresh    chan struct{} // closed once each service that was new when the feed began has had a set
	complete chan struct{} // closed once each of services has had a set
	ended    chan struct{} // closed when the source has ended

	// Guarded by Mux.mu.
	missing map[string]bool         // services without a set so far
	unborn  map[string]bool         // those of them that were new when the feed began
	held    map[string]lb.Endpoints // sets that wait for commit; nil after it
}

// Start runs a source for services. Until commit, sets of services that have others in force are held back; those of new services are
// let through, so that a listener that opens can serve at once.
func (in *Mux) Start(s discovery.Source, services []string, log hclog.Logger) *Input {
	ctx, cancel := context.WithCancel(context.Background())
	f := &Input{
		mux: in, cancel: cancel, fresh: make(chan struct{}), complete: make(chan struct{}), ended: make(chan struct{}),
		services: map[string]bool{}, missing: map[string]bool{}, unborn: map[string]bool{}, held: map[string]lb.Endpoints{},
	}
	in.mu.Lock()
	in.started++
	f.number = in.started
	for _, name := range services {
		f.services[name], f.missing[name] = true, true
		if !in.services[name] {
			f.unborn[name] = true
		}
	}
	in.mu.Unlock()
	if len(f.unborn) == 0 {
		close(f.fresh)
	}
	go f.run(ctx, s, log)
	return f
}

// FirstSets is closed once each service that was new when f began, or was last extended, has had a set.
func (f *Input) FirstSets() <-chan struct{} {
	f.mux.mu.Lock()
	defer f.mux.mu.Unlock()
	return f.fresh
}

// AllSets is closed once each service of f has had a set. A later Extend makes another channel.
func (f *Input) AllSets() <-chan struct{} {
	f.mux.mu.Lock()
	defer f.mux.mu.Unlock()
	return f.complete
}

// Ended is closed when the source has ended.
func (f *Input) Ended() <-chan struct{} { return f.ended }

func (f *Input) run(ctx context.Context, s discovery.Source, log hclog.Logger) {
	defer close(f.ended)
	if err := s.Run(ctx, f); err != nil {
		log.Error("endpoints are not followed", "error", err)
	}
}

// OnUpdate implements discovery.Sink.
func (f *Input) OnUpdate(updates []lb.Endpoints) {
	in := f.mux
	in.mu.Lock()
	defer in.mu.Unlock()
	var pass []lb.Endpoints
	var answered []string
	for _, u := range updates {
		if !f.services[u.Service] || u.Removed { // removal is for the Mux to tell
			continue
		}
		answered = append(answered, u.Service)
		switch owner := in.owners[u.Service]; {
		case f.held != nil && in.services[u.Service]:
			u.Endpoints = slices.Clone(u.Endpoints)
			u.Left = slices.Concat(f.held[u.Service].Left, u.Left)
			f.held[u.Service] = u
		case f.held == nil && !in.services[u.Service]:
			// the service has been removed meanwhile
		case owner == nil || owner.number <= f.number:
			in.owners[u.Service] = f
			pass = append(pass, u)
		}
	}
	in.tellLocked(pass)
	for _, name := range answered { // only now: who waits for that opens a listener next
		f.answeredLocked(name)
	}
}

// Extend makes services those of f, which is at work already. Until commit or shrink, it is as if f had just been started: what it has to
// say of services that have sets in force is held back.
func (in *Mux) Extend(f *Input, services []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.started++
	f.number = in.started
	f.held = map[string]lb.Endpoints{}
	f.unborn, f.fresh = map[string]bool{}, make(chan struct{})
	complete := len(f.missing) == 0
	for _, name := range services {
		if !f.services[name] {
			f.services[name], f.missing[name] = true, true
		}
		if !in.services[name] {
			f.unborn[name] = true
		}
	}
	if complete && len(f.missing) > 0 {
		f.complete = make(chan struct{})
	}
	if len(f.unborn) == 0 {
		close(f.fresh)
	}
}

// Shrink makes services those of f. It is what commit does with a feed, and what undoes extend; then what was held back of the services
// in doubt is forgotten, for the source is about to say something else.
func (in *Mux) Shrink(f *Input, services []string, doubt map[string]bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var updates []lb.Endpoints
	stay := map[string]bool{}
	for _, name := range services {
		stay[name] = true
	}
	for name := range f.services {
		if stay[name] {
			continue
		}
		delete(f.services, name)
		f.answeredLocked(name)
		if in.owners[name] == f && !in.services[name] {
			delete(in.owners, name)
			updates = append(updates, lb.Endpoints{Service: name, Removed: true})
		}
	}
	for name, u := range f.held {
		if stay[name] && !doubt[name] {
			in.owners[name] = f
			updates = append(updates, u)
		}
	}
	f.held = nil
	in.tellLocked(updates)
}

func (f *Input) answeredLocked(service string) {
	if f.unborn[service] {
		if delete(f.unborn, service); len(f.unborn) == 0 {
			close(f.fresh)
		}
	}
	if f.missing[service] {
		if delete(f.missing, service); len(f.missing) == 0 {
			close(f.complete)
		}
	}
}

// tellLocked passes updates on, and notes whether that makes the Mux ready.
func (in *Mux) tellLocked(updates []lb.Endpoints) {
	if len(updates) > 0 {
		in.next.OnUpdate(updates)
	}
	select {
	case <-in.ready:
		return
	default:
	}
	for name := range in.services {
		if in.owners[name] == nil {
			return
		}
	}
	if len(in.services) > 0 {
		close(in.ready)
	}
}

// Commit makes services the ones that there are, and lets the sets of feeds through. The sets of services that are gone stay until
// the next commit: a UDP client whose listener drains still needs its endpoint to be one.
func (in *Mux) Commit(services []string, feeds ...*Input) {
	in.mu.Lock()
	defer in.mu.Unlock()
	gone := in.services
	in.services = map[string]bool{}
	for _, name := range services {
		in.services[name] = true
		delete(gone, name)
	}
	var updates []lb.Endpoints
	for _, name := range in.departed {
		if !in.services[name] {
			updates = append(updates, lb.Endpoints{Service: name, Removed: true})
		}
	}
	in.departed = nil
	for name := range gone {
		delete(in.owners, name)
		in.departed = append(in.departed, name)
	}
	for _, f := range feeds {
		for name, u := range f.held {
			if in.services[name] { // else its set stays as it is
				in.owners[name] = f
				updates = append(updates, u)
			}
		}
		f.held = nil
	}
	in.tellLocked(updates)
}

// Abort ends a feed that was not committed, and takes back what it let through.
func (in *Mux) Abort(f *Input) {
	f.Stop()
	in.mu.Lock()
	defer in.mu.Unlock()
	var updates []lb.Endpoints
	for name, owner := range in.owners {
		if owner == f {
			delete(in.owners, name)
			updates = append(updates, lb.Endpoints{Service: name, Removed: true})
		}
	}
	in.tellLocked(updates)
}

// Retirement returns what ends f once successor has something to say of all the services that it has now, or has ended itself. The next
// reload may extend the successor before that has come to run.
func (f *Input) Retirement(successor *Input) func() {
	if successor == nil {
		return f.Stop
	}
	complete := successor.complete
	return func() {
		select {
		case <-complete:
		case <-successor.ended:
		case <-f.ended:
		}
		f.Stop()
	}
}

// Stop ends f.
func (f *Input) Stop() {
	f.cancel()
	<-f.ended
}
