package endpoints

import (
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// A Mux joins the sources of a configuration into one. When a reload replaces sources, the Mux sees to it that one
// source at a time speaks for each service, and that a service keeps the set of its old source until the new one has
// sent a set. Safe for concurrent use, but for one reload at a time.
//
// A reload takes two steps. Start, or Extend for a source that goes on, prepares an [Input]: it holds back sets of
// services that have one already. Then Commit puts the inputs in force, or Abort undoes what was prepared.
type Mux struct {
	sets  *Sets
	ready chan struct{} // closed once every service has had its first set

	// Guards the following and what says so in Inputs. It is held for looks into maps and while sets queue an update,
	// so that sets hear of the inputs of a service in their order. It is never held while sets pass something on.
	mu       sync.Mutex
	prepared int               // inputs that were started or extended
	inForce  map[string]bool   // the services that there are
	speakers map[string]*Input // by service: whose sets are used
	heard    map[string]bool   // services whose set, from a speaker, has been passed on
	departed []string          // services that the last Commit removed; their sets stay while their clients finish
}

// NewMux returns a Mux without services that feeds sets.
func NewMux(sets *Sets) *Mux {
	return &Mux{
		sets: sets, ready: make(chan struct{}),
		inForce: map[string]bool{}, speakers: map[string]*Input{}, heard: map[string]bool{},
	}
}

// Ready is closed once every service in force has had a set from a source. It stays closed.
func (m *Mux) Ready() <-chan struct{} { return m.ready }

// Start runs a source that speaks for services. Until Commit, its sets of services in force are held back. Sets of new
// services are passed on, so that a listener that opens can serve at once.
func (m *Mux) Start(s discovery.Source, services []string, log hclog.Logger) *Input {
	ctx, cancel := context.WithCancel(context.Background())
	in := &Input{mux: m, cancel: cancel, ended: make(chan struct{}), missing: map[string]bool{}}
	m.Extend(in, services)
	go in.run(ctx, s, log)
	return in
}

// Extend prepares in, which is at work, to speak for services instead of those that it speaks for. Until Commit or
// Abort it speaks for all of them, and its sets of services in force are held back.
func (m *Mux) Extend(in *Input, services []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in.prepareLocked(services)
}

// Commit makes services those in force, and passes on what inputs have held back. The sets of services that are gone
// stay until the next Commit: a UDP client whose listener drains still needs its endpoint to be one. It returns when
// the balancer has been told.
func (m *Mux) Commit(services []string, inputs ...*Input) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gone := m.inForce
	m.inForce = asSet(services)
	var updates []lb.Endpoints
	for _, name := range m.departed {
		if !m.inForce[name] {
			updates = append(updates, m.removeLocked(name))
		}
	}
	m.departed = nil
	for name := range gone {
		if !m.inForce[name] {
			m.silenceLocked(name)
			m.departed = append(m.departed, name)
		}
	}
	for _, in := range inputs {
		updates = append(updates, in.keepLocked(in.next, nil)...)
	}
	m.passLocked(updates)
}

// Abort undoes Start or Extend. An input that was started is ended, and the sets that it has passed on are removed. One
// that was extended speaks for the services that it spoke for before: the sets that it has held back of them are passed
// on, but for those in doubt, which its source is about to send anew. A nil doubt is empty.
func (m *Mux) Abort(in *Input, doubt map[string]bool) {
	m.mu.Lock()
	before := in.before
	m.mu.Unlock()
	if before == nil {
		in.Stop()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passLocked(in.keepLocked(before, doubt))
}

// removeLocked returns the update that removes a service, which nobody speaks for any more.
func (m *Mux) removeLocked(service string) lb.Endpoints {
	m.silenceLocked(service)
	return lb.Endpoints{Service: service, Removed: true}
}

// silenceLocked notes that nobody speaks for a service.
func (m *Mux) silenceLocked(service string) {
	delete(m.speakers, service)
	delete(m.heard, service)
}

// passLocked passes updates on, in the order in which they were decided on. It gives the lock back while the balancer
// is told, and returns with it. Then it notes whether that makes the Mux ready.
func (m *Mux) passLocked(updates []lb.Endpoints) {
	if len(updates) > 0 {
		m.sets.enqueue(updates)
		m.mu.Unlock()
		m.sets.settle(servicesOf(updates))
		m.mu.Lock()
	}
	for _, u := range updates {
		if m.speakers[u.Service] != nil {
			m.heard[u.Service] = true
		}
	}
	m.readyLocked()
}

// readyLocked closes ready if it is time to. Most calls end at the comparison of numbers.
func (m *Mux) readyLocked() {
	select {
	case <-m.ready:
		return
	default:
	}
	if len(m.inForce) == 0 || len(m.heard) < len(m.inForce) {
		return
	}
	for name := range m.inForce {
		if !m.heard[name] {
			return
		}
	}
	close(m.ready)
}

func asSet(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// joined returns the later of two updates of one service, with the departures of both.
func joined(earlier, later lb.Endpoints) lb.Endpoints {
	later.Endpoints = slices.Clone(later.Endpoints)
	later.Left = slices.Concat(earlier.Left, later.Left)
	return later
}
