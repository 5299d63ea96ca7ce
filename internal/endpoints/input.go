package endpoints

import (
	"context"
	"maps"
	"slices"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// An Input is a running source of a Mux.
type Input struct {
	mux    *Mux
	cancel context.CancelFunc
	ended  chan struct{} // closed when the source has ended

	// Mux.mu guards the following fields.
	number    int                     // number of the last Start or Extend; the highest number takes services over
	services  map[string]bool         // services of the input; while it is prepared, those of before and next together
	before    map[string]bool         // services before Extend; nil if the input is new or not prepared
	next      map[string]bool         // services after Commit; nil if the input is not prepared
	missing   map[string]bool         // services for which the input has sent no set
	first     map[string]bool         // services that were new at the last Start or Extend, and have no set since
	held      map[string]lb.Endpoints // sets that wait for Commit; nil if sets are not held back
	firstSets chan struct{}           // closed when first is empty
	allSets   chan struct{}           // closed when missing is empty
}

// prepareLocked adds services to those of the input, and holds back the input's sets of services in force.
func (in *Input) prepareLocked(services []string) {
	m := in.mux
	m.prepared++
	in.number = m.prepared
	in.before, in.next = in.services, asSet(services)
	in.services = maps.Clone(in.next)
	maps.Copy(in.services, in.before)
	in.held, in.first, in.firstSets = map[string]lb.Endpoints{}, map[string]bool{}, make(chan struct{})
	complete := len(in.missing) == 0
	for name := range in.next {
		if !in.before[name] {
			in.missing[name] = true
		}
		if !m.inForce[name] {
			in.first[name] = true
		}
	}
	if complete && len(in.missing) > 0 { // otherwise the channel is open already, or nothing is missing
		in.allSets = make(chan struct{})
	}
	if len(in.first) == 0 {
		close(in.firstSets)
	}
}

// keepLocked ends the preparation by prepareLocked: services are the input's services now, and no sets are held back
// any more. keepLocked returns the resulting updates. Sets of services that are gone or in doubt stay as they are. An
// input that is not prepared keeps its services.
func (in *Input) keepLocked(services, doubt map[string]bool) (updates []lb.Endpoints) {
	m := in.mux
	if in.next == nil {
		return nil
	}
	for name := range in.services {
		if services[name] {
			continue
		}
		in.answeredLocked(name) // no goroutine needs to wait for this set any more
		if m.speakers[name] == in && !m.inForce[name] {
			updates = append(updates, m.removeLocked(name))
		}
	}
	for name, u := range in.held {
		if services[name] && m.inForce[name] && !doubt[name] {
			m.speakers[name] = in
			updates = append(updates, u)
		}
	}
	in.services, in.before, in.next, in.held = services, nil, nil, nil
	return updates
}

func (in *Input) run(ctx context.Context, s discovery.Source, log hclog.Logger) {
	defer close(in.ended)
	if err := s.Run(ctx, in); err != nil {
		log.Error("a source of endpoints has ended, its endpoints are not updated any more", "error", err)
	}
}

// OnUpdate implements discovery.Sink. OnUpdate drops updates of services that another input has taken over. OnUpdate
// also drops removals, because the configuration decides which services exist.
func (in *Input) OnUpdate(updates []lb.Endpoints) {
	m := in.mux
	var passed []lb.Endpoints
	var answered []string
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range updates {
		if !in.services[u.Service] || u.Removed {
			continue
		}
		answered = append(answered, u.Service)
		switch {
		case in.held != nil && m.inForce[u.Service]:
			in.held[u.Service] = joined(in.held[u.Service], u)
		case in.speaksLocked(u.Service):
			m.speakers[u.Service] = in
			passed = append(passed, u)
		}
	}
	m.passLocked(passed)
	for _, name := range answered { // last, because a listener that waits for the set opens next
		in.answeredLocked(name)
	}
}

// speaksLocked reports whether the input's sets of a service are used, apart from holding back.
func (in *Input) speaksLocked(service string) bool {
	m := in.mux
	if in.held == nil && !m.inForce[service] { // the service has been removed meanwhile
		return false
	}
	speaker := m.speakers[service]
	return speaker == nil || speaker.number <= in.number
}

// answeredLocked records that a service has a set, or needs none.
func (in *Input) answeredLocked(service string) {
	if in.first[service] {
		if delete(in.first, service); len(in.first) == 0 {
			close(in.firstSets)
		}
	}
	if in.missing[service] {
		if delete(in.missing, service); len(in.missing) == 0 {
			close(in.allSets)
		}
	}
}

// FirstSets returns a channel that is closed once the input has sent a set for each service that its last Start or
// Extend added.
func (in *Input) FirstSets() <-chan struct{} {
	in.mux.mu.Lock()
	defer in.mux.mu.Unlock()
	return in.firstSets
}

// Awaited returns the names of the services for which FirstSets waits, sorted.
func (in *Input) Awaited() []string {
	in.mux.mu.Lock()
	defer in.mux.mu.Unlock()
	return slices.Sorted(maps.Keys(in.first))
}

// AllSets returns a channel that is closed once the input has sent a set for each of its services. A later Extend may
// create another channel.
func (in *Input) AllSets() <-chan struct{} {
	in.mux.mu.Lock()
	defer in.mux.mu.Unlock()
	return in.allSets
}

// Ended returns a channel that is closed when the source has ended.
func (in *Input) Ended() <-chan struct{} { return in.ended }

// Retirement returns a function that stops in once successor has sent a set for each of its present services, or has
// ended. If successor is nil, the function stops in at once. Call Retirement before the next Extend of successor; the
// function may run at any later time.
func (in *Input) Retirement(successor *Input) func() {
	if successor == nil {
		return in.Stop
	}
	known := successor.AllSets()
	return func() {
		select {
		case <-known:
		case <-successor.ended:
		case <-in.ended:
		}
		in.Stop()
	}
}

// Stop stops the source, and returns when it has ended. The source's sets stay in use.
func (in *Input) Stop() {
	in.cancel()
	<-in.ended
}
