package mesh

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/allowance"
	"github.com/lictor-proxy/lictor/internal/consul"
)

// A Store follows the authorities of the mesh, and keeps one certificate for each identity, however many services use
// it. It follows the intentions of services that are served to the mesh. What it has stays in use while Consul is away,
// or answers nonsense. A Store is safe for concurrent use.
type Store struct {
	log    hclog.Logger
	report func(Report)
	source source
	lines  lines

	intentionsChanged func(destination string)

	certificates, intentions lane

	peers atomic.Int64 // for how many endpoints an identity may keep sessions

	mu           sync.Mutex // guards the following fields
	running      context.Context
	all          map[string]*identity
	known        *roots // the newest authorities; nil if there are none
	trouble      trouble
	told         health          // what was reported about the authorities
	saved        map[string]leaf // certificates of an earlier Store, for identities that are not in use yet
	destinations map[string]*destination
	savedRules   map[string]*rules // of an earlier Store, for destinations that are not in use yet
	answers      chan struct{}     // closed when Consul answers again

	followers sync.WaitGroup
}

// NewStore returns a Store. Without a call of Run it asks Consul for nothing.
func NewStore(o Options) *Store {
	return newStore(o, &agent{o.Consul})
}

func newStore(o Options, from source) *Store {
	s := &Store{log: o.Logger, report: o.Report, intentionsChanged: o.IntentionsChanged, source: from,
		all: map[string]*identity{}, destinations: map[string]*destination{}, answers: make(chan struct{})}
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if s.report == nil {
		s.report = func(Report) {}
	}
	if s.intentionsChanged == nil {
		s.intentionsChanged = func(string) {}
	}
	s.lines.log = s.log
	width := urgentWidth
	if from.multiplexes() {
		width = urgentWidthHTTP2
	}
	s.certificates = lane{urgent: make(chan struct{}, width), turns: make(chan struct{}, maxTurns), round: roundTime}
	s.intentions = lane{urgent: make(chan struct{}, width), turns: make(chan struct{}, ruleTurns),
		round: ruleRoundTime, prompt: true}
	s.peers.Store(maxPeers)
	s.restore(o.Saved)
	return s
}

// Run follows the authorities, the certificates and the intentions until ctx ends. It must be called once.
func (s *Store) Run(ctx context.Context) {
	s.mu.Lock()
	s.running, s.saved, s.savedRules = ctx, nil, nil
	for _, i := range s.all {
		s.startLocked(i, &i.cancel)
	}
	for _, d := range s.destinations {
		s.startLocked(d, &d.cancel)
	}
	s.mu.Unlock()
	s.followers.Go(func() { s.follow(ctx, authorities{s}) })
	s.lookForExpired(ctx)
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	s.followers.Wait()
}

// AskOnce asks Consul once for the authorities, the certificate of each identity in use, and the intentions of each
// destination in use. It returns when all answers have come, or have not. What has failed, State says. AskOnce must not
// be called together with Run.
func (s *Store) AskOnce(ctx context.Context) {
	ask := func(about subject) {
		f := follower{store: s, about: about, longest: longestWait}
		f.step(ctx)
	}
	ask(authorities{s})
	s.mu.Lock()
	var all []subject
	for _, i := range s.all {
		all = append(all, i)
	}
	for _, d := range s.destinations {
		all = append(all, d)
	}
	s.mu.Unlock()
	var asking sync.WaitGroup
	for _, about := range all {
		asking.Go(func() { ask(about) })
	}
	asking.Wait()
}

// Use returns the identity called name, for service. The Store follows the identity's certificate until each caller has
// called Close.
func (s *Store) Use(name, service string) *Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.all[name]
	if i == nil {
		i = &identity{store: s, name: name, ready: make(chan struct{}), users: map[*Identity]bool{}}
		if l, is := s.saved[name]; is {
			i.leaf = &l
			i.renew(s.known)
		}
		s.all[name] = i
		s.sharePeersLocked()
		if s.running != nil {
			s.startLocked(i, &i.cancel)
		}
	}
	u := &Identity{i, service}
	i.users[u] = true
	return u
}

// startLocked starts to follow a subject, until *cancel is called.
func (s *Store) startLocked(about subject, cancel *context.CancelFunc) {
	var ctx context.Context
	ctx, *cancel = context.WithCancel(s.running)
	s.followers.Go(func() { s.follow(ctx, about) })
}

// drop removes a user. An identity without users is forgotten.
func (s *Store) drop(u *Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := u.identity
	if delete(i.users, u); len(i.users) > 0 || s.all[i.name] != i {
		return
	}
	delete(s.all, i.name)
	s.sharePeersLocked()
	if i.cancel != nil {
		i.cancel()
	}
}

func (s *Store) sharePeersLocked() {
	s.peers.Store(int64(max(maxPeers/max(len(s.all), 1), minPeers)))
}

// notReady says what the handshakes of i wait for.
func (s *Store) notReady(i *identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return i.missing(s.known, s.trouble.err)
}

// State returns the authorities, identities and intentions of the Store.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := State{Err: s.trouble.err, Answered: s.trouble.answered, Failures: s.trouble.total}
	if s.known != nil {
		state.TrustDomain, state.Roots = s.known.domain, slices.Clone(s.known.all)
	}
	for _, i := range slices.SortedFunc(maps.Values(s.all), byName) {
		one := IdentityState{Name: i.name, Services: i.services(), Err: i.trouble.err, Answered: i.trouble.answered,
			Failures: i.trouble.total}
		if l := i.leaf; l != nil {
			one.URI, one.Serial, one.From, one.Expires, one.Received = l.uri, l.serial, l.from, l.to, l.received
		}
		state.Identities = append(state.Identities, one)
	}
	for _, d := range slices.SortedFunc(maps.Values(s.destinations), byDestination) {
		state.Intentions = append(state.Intentions, d.state())
	}
	return state
}

func byName(a, b *identity) int { return strings.Compare(a.name, b.name) }

// A trouble says how questions about one thing fail.
type trouble struct {
	err      error // of the last question; nil if there is no trouble
	refusal  error // the last one by Consul, since the trouble began; nil: none
	failures int   // since the trouble began
	reported consul.Kind
	told     bool // reported is valid

	answered time.Time // when the last answer without trouble came; zero: never
	total    int64     // failures ever
}

// add counts a failure, and reports whether operators should know it: a trouble that has lasted for two questions, and
// is of another kind than the one that they know.
func (t *trouble) add(err error) bool {
	t.err = err
	t.failures++
	t.total++
	kind := consul.KindOf(err)
	if kind >= consul.Denied {
		t.refusal = err
	}
	return t.failures >= 2 && (!t.told || t.reported != kind)
}

// tell notes that operators know the trouble.
func (t *trouble) tell() { t.told, t.reported = true, consul.KindOf(t.err) }

// goOn notes an answer that does not end the trouble: Consul still refuses something.
func (t *trouble) goOn() { t.err = t.refusal }

// end notes an answer, which ends the trouble. It reports whether operators know of the trouble.
func (t *trouble) end() bool {
	told := t.told
	*t = trouble{total: t.total, answered: time.Now()}
	return told
}

// lines limit how many lines are logged: those beyond the limit are for debugging.
type lines struct {
	log hclog.Logger

	mu   sync.Mutex
	more allowance.Allowance
}

const (
	linesAtOnce = 20
	linesEvery  = 10 * time.Second
)

func (l *lines) add(level hclog.Level, text string, pairs ...any) {
	l.mu.Lock()
	allowed := l.more.Take(time.Now(), linesAtOnce, linesEvery)
	l.mu.Unlock()
	if !allowed {
		level = hclog.Debug
	}
	l.log.Log(level, text, pairs...)
}
