package endpoints

import (
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
)

// A Mux joins the sources of a configuration into one. When a reload replaces sources, the Mux uses one source at a
// time for each service. A service keeps the set of its old source until the new source has sent one. A Mux is safe for
// concurrent use, but allows only one reload at a time.
//
// A reload takes two steps. Start prepares an [Input] for a new source, and Extend for one that continues. A prepared
// Input holds back the sets of services that have a set already. Then Commit puts the inputs in force, or Abort undoes
// the preparation.
type Mux struct {
	sets  *Sets
	ready chan struct{} // closed once every service has received its first set

	// mu guards the fields below and some fields of Inputs. mu is held for map lookups and while sets queue an update,
	// so that the updates of a service keep their order. mu is never held while sets call the next sink.
	mu       sync.Mutex
	prepared int               // number of calls of Start and Extend
	inForce  map[string]bool   // the configured services; nil before the first Commit
	speakers map[string]*Input // by service: the input whose sets are used
	heard    map[string]bool   // services for which a speaker's set has been passed on
	departed []string          // services that the last Commit removed; their sets stay for their remaining clients
}

// NewMux returns a Mux without services that feeds sets.
func NewMux(sets *Sets) *Mux {
	return &Mux{
		sets: sets, ready: make(chan struct{}),
		speakers: map[string]*Input{}, heard: map[string]bool{},
	}
}

// Ready returns a channel that is closed once every service in force has received a set from a source. Without
// services, that is at the first Commit.
func (m *Mux) Ready() <-chan struct{} { return m.ready }

// Start runs a source for services. Until Commit, it holds back the source's sets of services in force. Start passes on
// sets of new services, so that new listeners can serve at once.
func (m *Mux) Start(s discovery.Source, services []string, log hclog.Logger) *Input {
	ctx, cancel := context.WithCancel(context.Background())
	in := &Input{mux: m, cancel: cancel, ended: make(chan struct{}), missing: map[string]bool{}}
	m.Extend(in, services)
	go in.run(ctx, s, log)
	return in
}

// Extend prepares a running input for services instead of its present ones. Until Commit or Abort, the input feeds the
// old and the new services, and its sets of services in force are held back.
func (m *Mux) Extend(in *Input, services []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in.prepareLocked(services)
}

// Commit puts services in force, and passes on the sets that the inputs have held back. The sets of removed services
// stay until the next Commit, because UDP clients of a draining listener still need their endpoints. When Commit
// returns, the balancer has received the sets.
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

// Abort undoes Start or Extend. Abort stops an input that was started, and removes the sets that the input has passed
// on. An input that was extended returns to its former services, and its held-back sets of them are passed on. The
// exception is services in doubt, because the source will send their sets again. A nil doubt is empty.
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

// removeLocked removes the speaker of a service, and returns the update that removes the service.
func (m *Mux) removeLocked(service string) lb.Endpoints {
	m.silenceLocked(service)
	return lb.Endpoints{Service: service, Removed: true}
}

// silenceLocked records that a service has no speaker.
func (m *Mux) silenceLocked(service string) {
	delete(m.speakers, service)
	delete(m.heard, service)
}

// passLocked passes updates on in the order of the calls. passLocked releases the lock during calls of the balancer,
// and returns with the lock held. Finally, passLocked checks whether the Mux has become ready.
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

// readyLocked closes ready if every service in force has a set. Most calls end after comparing two counts.
func (m *Mux) readyLocked() {
	select {
	case <-m.ready:
		return
	default:
	}
	if m.inForce == nil || len(m.heard) < len(m.inForce) {
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
