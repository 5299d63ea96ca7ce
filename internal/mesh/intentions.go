package mesh

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/consul"
)

// Intentions say who may connect to a destination. Their methods are safe for concurrent use.
type Intentions struct {
	*destination
	allowUnknown bool
}

// Intentions returns the intentions whose destination is a service. The Store follows them until each caller has called
// Close. allowUnknown is the decision about all clients until Consul has answered for the first time.
func (s *Store) Intentions(of string, allowUnknown bool) *Intentions {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.destinations[of]
	if d == nil {
		d = &destination{store: s, name: of, users: map[*Intentions]bool{}, ready: make(chan struct{})}
		if r := s.savedRules[of]; r != nil {
			d.current.Store(r)
			close(d.ready)
		}
		s.destinations[of] = d
		if s.running != nil {
			s.startLocked(d, &d.cancel)
		}
	}
	i := &Intentions{d, allowUnknown}
	d.users[i] = true
	return i
}

// Decide decides whether a client may connect. It takes no lock and does not wait for Consul. What Consul has said last
// counts while it is away.
func (i *Intentions) Decide(c Client) Decision {
	if r := i.current.Load(); r != nil {
		return r.decide(&c)
	}
	return Decision{Allowed: i.allowUnknown, By: ByNothing}
}

// Ready returns a channel that is closed when Consul has said for the first time what the intentions are.
func (i *Intentions) Ready() <-chan struct{} { return i.ready }

// Close gives the intentions back. Decide works after that, but knows nothing new.
func (i *Intentions) Close() {
	d, s := i.destination, i.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(d.users, i); len(d.users) > 0 || s.destinations[d.name] != d {
		return
	}
	delete(s.destinations, d.name)
	if d.cancel != nil {
		d.cancel()
	}
}

// A destination is a service whose intentions the Store follows.
type destination struct {
	store   *Store
	name    string
	current atomic.Pointer[rules] // nil until Consul has answered
	ready   chan struct{}         // closed when current is not nil any more

	// Store.mu guards these.
	users   map[*Intentions]bool
	cancel  context.CancelFunc // ends the follower; nil before it is started
	trouble trouble
}

// lane implements subject.
func (d *destination) lane() (*lane, int) {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	return &d.store.intentions, max(len(d.store.destinations), 1)
}

// ask implements subject.
func (d *destination) ask(ctx context.Context, q question) (news, uint64, error) {
	r, index, err := d.store.source.askIntentions(ctx, d.name, q, d.current.Load())
	return &rulesNews{d, r}, index, err
}

// failed implements subject. If Consul cannot be reached, the follower of the authorities says so for all.
func (d *destination) failed(err error) {
	s := d.store
	s.mu.Lock()
	tell := d.trouble.add(err)
	if isLost(err) && s.trouble.err != nil {
		tell = false
	}
	if tell {
		d.trouble.tell()
	}
	s.mu.Unlock()
	if !tell {
		return
	}
	text := "consul does not say what the intentions of a service are, what it said last stays in force"
	if d.current.Load() == nil {
		text = "consul does not say what the intentions of a service are, and has never said it"
	}
	s.lines.add(hclog.Warn, text, "destination", d.name, "error", err)
	s.report(Report{What: Failed, Destination: d.name, Err: err})
}

// rulesNews is an answer about the intentions of a destination.
type rulesNews struct {
	destination *destination
	rules       *rules
}

// use implements news. Every answer ends the trouble.
func (n *rulesNews) use(bool) (over, isNew bool) {
	d, s := n.destination, n.destination.store
	s.mu.Lock()
	again := d.trouble.end()
	former := d.current.Load()
	if isNew = !n.rules.equal(former); isNew {
		d.current.Store(n.rules)
		if former == nil {
			close(d.ready)
		}
	}
	s.mu.Unlock()
	if isNew {
		s.lines.add(hclog.Info, "new intentions of a service", "destination", d.name, "number", len(n.rules.all),
			"default_allow", n.rules.allow)
		s.intentionsChanged(d.name)
	}
	if again {
		s.lines.add(hclog.Info, "consul says again what the intentions of a service are", "destination", d.name)
		s.report(Report{What: Works, Destination: d.name})
	}
	return true, isNew
}

// An IntentionsState describes the intentions of a destination.
type IntentionsState struct {
	Destination  string
	Known        bool        // Consul has said what they are
	Intentions   []Intention // the highest precedence first; must not be changed
	DefaultAllow bool        // if no intention is about a client, it may connect
	Err          error       // why Consul did not say it when it was asked last; nil: it did
	Answered     time.Time   // when the last answer came; zero: never
	Failures     int64       // questions that failed so far
}

// state returns the state of d. The caller must hold Store.mu.
func (d *destination) state() IntentionsState {
	one := IntentionsState{Destination: d.name, Err: d.trouble.err, Answered: d.trouble.answered,
		Failures: d.trouble.total}
	if r := d.current.Load(); r != nil {
		one.Known, one.Intentions, one.DefaultAllow = true, slices.Clip(r.all), r.allow
	}
	return one
}

func byDestination(a, b *destination) int { return strings.Compare(a.name, b.name) }

// isLost reports whether err says that Consul cannot be reached.
func isLost(err error) bool {
	var unusable *answerError
	return consul.KindOf(err) == consul.Lost && !errors.As(err, &unusable)
}
