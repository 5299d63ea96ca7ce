package endpoints

import (
	"context"
	"maps"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// An Input is one source at work, as an input of a Mux.
type Input struct {
	mux    *Mux
	cancel context.CancelFunc
	ended  chan struct{} // closed when the source has ended

	// Guarded by Mux.mu.
	number    int                     // of the last Start or Extend; the higher one takes services over
	services  map[string]bool         // that the input speaks for; while it is prepared, those of before and next
	before    map[string]bool         // what services were before Extend; nil: the input is new, or is not prepared
	next      map[string]bool         // what services are after Commit; nil: the input is not prepared
	missing   map[string]bool         // those of services of which it has sent no set
	first     map[string]bool         // services that were new at the last Start or Extend, without a set since
	held      map[string]lb.Endpoints // sets that wait for Commit; nil: none is to be held back
	firstSets chan struct{}           // closed when first is empty
	allSets   chan struct{}           // closed when missing is empty
}

// prepareLocked has the input speak for services too, and hold back sets of services in force.
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
	if complete && len(in.missing) > 0 { // else there is an open channel, or nothing to wait for
		in.allSets = make(chan struct{})
	}
	if len(in.first) == 0 {
		close(in.firstSets)
	}
}

// keepLocked ends what prepareLocked began: the input speaks for services from now on, and holds nothing back. It
// returns the updates that follow. Sets of services that are gone or in doubt stay as they are. An input that is not
// prepared speaks for the services that it spoke for.
func (in *Input) keepLocked(services, doubt map[string]bool) (updates []lb.Endpoints) {
	m := in.mux
	if in.next == nil {
		return nil
	}
	for name := range in.services {
		if services[name] {
			continue
		}
		in.answeredLocked(name) // nobody need wait for it any more
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
		log.Error("endpoints are not followed", "error", err)
	}
}

// OnUpdate implements discovery.Sink. Updates of services that another input has taken over are dropped, and so are
// removals: which services there are is for the configuration to say.
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
	for _, name := range answered { // last, for a listener that waits for the set opens next
		in.answeredLocked(name)
	}
}

// speaksLocked reports whether the input's sets of a service count, unless they are to be held back.
func (in *Input) speaksLocked(service string) bool {
	m := in.mux
	if in.held == nil && !m.inForce[service] { // it has been removed meanwhile
		return false
	}
	speaker := m.speakers[service]
	return speaker == nil || speaker.number <= in.number
}

// answeredLocked notes that there is a set of a service, or that there need not be one.
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

// FirstSets is closed once the input has sent a set of each service that was not in force when it was started or last
// extended.
func (in *Input) FirstSets() <-chan struct{} {
	in.mux.mu.Lock()
	defer in.mux.mu.Unlock()
	return in.firstSets
}

// AllSets is closed once the input has sent a set of each of its services. A later Extend may make another channel.
func (in *Input) AllSets() <-chan struct{} {
	in.mux.mu.Lock()
	defer in.mux.mu.Unlock()
	return in.allSets
}

// Ended is closed when the source has ended.
func (in *Input) Ended() <-chan struct{} { return in.ended }

// Retirement returns a function that stops in once successor has sent a set of each service that it has now, or has
// ended. A nil successor is not waited for. Call Retirement before the next Extend of successor; the function may run
// at any time after.
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

// Stop ends the source, and returns when it has ended. What it has sent stays.
func (in *Input) Stop() {
	in.cancel()
	<-in.ended
}
