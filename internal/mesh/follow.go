package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/allowance"
	"github.com/lictor-proxy/lictor/internal/consul"
)

const (
	// longestWait is how long Consul may hold a question. Reverse proxies often cut requests off after 60 s.
	longestWait = 45 * time.Second

	// shortestWait bounds how far the wait falls if something cuts requests off earlier. The wait doubles again after
	// regainAfter questions that Consul has held to their end: what cut them off may be gone.
	shortestWait = time.Second
	regainAfter  = 8

	// firstLimit bounds a question without an index. An authority outside of Consul may need seconds to sign.
	firstLimit = 30 * time.Second

	// Over plain HTTP and Unix sockets each question takes a connection, and an agent allows a host 200 of them. The
	// Store takes at most eight for certificates, one of them for the authorities, and twenty for intentions.
	urgentWidth = 4  // for questions without an index, of either
	maxTurns    = 3  // for questions for certificates that wait
	ruleTurns   = 16 // for questions for intentions that wait

	// urgentWidthHTTP2 is how many questions without an index run at once over HTTP/2, where a connection carries many.
	// Consul signs 50 certificates a second, and refuses what would have to wait for more than half a second.
	urgentWidthHTTP2 = 16

	// If there are more identities than turns, each identity asks every roundTime, and each destination every
	// ruleRoundTime, which bounds how long a denial stays unknown. A turn takes minTurn at least.
	roundTime     = 30 * time.Second
	ruleRoundTime = 5 * time.Second
	minTurn       = 20 * time.Millisecond

	// The pauses before a failed question is repeated.
	minBackoff  = 100 * time.Millisecond
	slowBackoff = time.Second // if a quick repetition is pointless, or makes things worse
	maxBackoff  = 30 * time.Second

	// rootsBackoff is the longest pause of the authorities' follower. When it gets an answer again, it wakes the
	// others.
	rootsBackoff = 5 * time.Second

	// moveSpread spreads the first questions to another agent.
	moveSpread = 250 * time.Millisecond

	// tooSoon is the pause after an answer that came sooner than that. It bounds how often a broken agent is asked.
	tooSoon = time.Second

	// Intentions may change often for a while, and each change counts at once. An index grows also when other ones
	// change. So soonAtOnce answers that came too soon cause no pause if they have another index, or say something new.
	// After that, each second one causes a pause of soonEvery.
	soonAtOnce = 100
	soonEvery  = 20 * time.Millisecond
)

// A lane is what followers share so that they do not take too many connections to the agent.
type lane struct {
	urgent chan struct{} // has an element for each question without an index
	turns  chan struct{} // has an element for each question that waits on a connection of its own
	round  time.Duration // how often each follower asks if there are more followers than turns
	prompt bool          // what is new must be known at once, however often it changes
}

// turn returns how long a turn takes if this many followers share the turns.
func (l *lane) turn(crowd int) time.Duration {
	if turns := cap(l.turns); crowd > turns {
		return max(l.round*time.Duration(turns)/time.Duration(crowd), minTurn)
	}
	return longestWait
}

// A subject is what a follower asks about: the authorities, the certificate of an identity, or the intentions of a
// destination.
type subject interface {
	// ask asks a question.
	ask(ctx context.Context, q question) (news, uint64, error)

	// failed says that a question had no answer that can be used.
	failed(err error)

	// lane returns the lane of the follower, and how many share it; nil if the follower shares nothing.
	lane() (*lane, int)
}

// News is an answer. use puts it in use, if it differs from what is in use. Held says that Consul held the question,
// and had nothing against it. use reports whether the trouble is over, if there was one, and whether the answer differs
// from what was in use.
type news interface {
	use(held bool) (over, isNew bool)
}

// follow asks about a subject until ctx ends. After an error, what was known stays in use.
func (s *Store) follow(ctx context.Context, about subject) {
	f := follower{store: s, about: about, longest: longestWait}
	for ctx.Err() == nil {
		s.mu.Lock()
		answers := s.answers // taken first, because Consul may answer others while this question hangs
		s.mu.Unlock()
		if pause := f.step(ctx); pause > 0 && ctx.Err() == nil {
			consul.Sleep(ctx, pause, answers)
		}
	}
}

// A follower asks about one subject.
type follower struct {
	store   *Store
	about   subject
	index   uint64        // of the answer in use; zero: ask anew
	longest time.Duration // how long Consul may hold a question
	held    int           // questions that Consul has held to their end since longest changed
	notes   notes         // of the source
	backoff consul.Backoff
	wentOn  time.Time           // when an index last went back
	soon    allowance.Allowance // for answers that came too soon
}

// step asks once, and returns how long to wait before the next question.
func (f *follower) step(ctx context.Context) time.Duration {
	answer, q, took, err := f.ask(ctx)
	now := time.Now()
	var overdue *consul.OverdueError
	switch {
	case ctx.Err() != nil:
		return 0
	case errors.As(err, &overdue) && f.longest > shortestWait: // something between here and the agent is impatient
		f.longest, f.held = max(f.longest/2, shortestWait), 0
		return 0
	case errors.Is(err, consul.ErrMoved):
		f.index, f.longest, f.held = 0, longestWait, 0
		return rand.N(moveSpread)
	case err != nil:
		f.index = 0
		f.about.failed(err)
		first, most := minBackoff, maxBackoff
		if consul.KindOf(err) >= consul.Throttled {
			first = slowBackoff
		}
		if shared, _ := f.about.lane(); shared == nil {
			most = rootsBackoff
		}
		return f.backoff.Pause(now, first, most)
	case answer.index < f.index: // the agent was restarted, or Consul restored: what it says may be old
		f.index = 0
		last := f.wentOn
		if f.wentOn = now; now.Sub(last) > maxBackoff {
			return 0
		}
		return f.backoff.Pause(now, minBackoff, maxBackoff)
	}
	f.index = max(answer.index, 1)
	if q.index != 0 && took >= q.wait {
		f.regain()
	}
	early := q.index != 0 && took < min(q.wait/2, tooSoon)
	over, isNew := answer.use(q.index != 0 && !early)
	if over {
		f.backoff.Reset()
	}
	if early {
		return f.calm(isNew || answer.index != q.index, now)
	}
	return 0
}

// regain notes that Consul has held a question to its end.
func (f *follower) regain() {
	if f.held++; f.held >= regainAfter {
		f.longest, f.held = min(2*f.longest, longestWait), 0
	}
}

// calm returns the pause after an answer that came too soon. moved says that something has changed in Consul.
func (f *follower) calm(moved bool, now time.Time) time.Duration {
	shared, _ := f.about.lane()
	switch {
	case shared == nil || !shared.prompt || !moved:
		return tooSoon
	case f.soon.Take(now, soonAtOnce, soonEvery):
		return 0
	}
	return soonEvery
}

// An answered is an answer with its index.
type answered struct {
	news
	index uint64
}

// ask asks one question, when it is its turn.
func (f *follower) ask(ctx context.Context) (a answered, q question, took time.Duration, err error) {
	q = question{index: f.index, notes: &f.notes}
	limit := firstLimit
	var queue chan struct{}
	shared, crowd := f.about.lane()
	if shared != nil && q.index == 0 {
		queue = shared.urgent
	}
	if q.index != 0 {
		q.wait = consul.Jitter(f.longest)
		if shared != nil && !f.store.source.multiplexes() {
			queue = shared.turns
			q.wait = min(q.wait, shared.turn(crowd))
		}
		q.wait = q.wait.Truncate(time.Millisecond)
		limit = q.wait + q.wait/16 + consul.Grace // servers hold a question for up to a sixteenth longer
	}
	if queue != nil {
		select {
		case queue <- struct{}{}:
			defer func() { <-queue }()
		case <-ctx.Done():
			return a, q, 0, ctx.Err()
		}
	}
	// A question may hang for minutes, for example after an earlier one was cancelled (hashicorp/consul#12568).
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &consul.TimeoutError{After: limit})
	defer cancel()
	sent := time.Now()
	a.news, a.index, err = f.about.ask(ctx, q)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return a, q, time.Since(sent), err
}

// The authorities are the subject of one follower. It shares nothing.
type authorities struct{ store *Store }

func (a authorities) lane() (*lane, int) { return nil, 0 }

func (a authorities) ask(ctx context.Context, q question) (news, uint64, error) {
	r, index, err := a.store.source.askRoots(ctx, q)
	return &rootsNews{a.store, r}, index, err
}

func (a authorities) failed(err error) {
	s := a.store
	s.mu.Lock()
	tell := s.trouble.add(err)
	if tell {
		s.trouble.tell()
	}
	s.mu.Unlock()
	if tell {
		s.lines.add(hclog.Warn, "consul does not give the authorities of the mesh, "+
			"the authorities and certificates that lictor has stay in use", "error", err)
		s.report(Report{What: Failed, Err: err})
	}
}

type rootsNews struct {
	store *Store
	roots roots
}

// use implements news. Every answer ends the trouble.
func (n *rootsNews) use(bool) (over, isNew bool) {
	s := n.store
	s.mu.Lock()
	back, again := s.trouble.failures > 0, s.trouble.end()
	if back {
		close(s.answers)
		s.answers = make(chan struct{})
	}
	if isNew = !n.roots.equal(s.known); isNew {
		s.known = &n.roots
		for _, i := range s.all {
			i.renew(s.known)
		}
	}
	s.mu.Unlock()
	active := n.roots.active()
	if isNew {
		s.lines.add(hclog.Info, "new authorities of the mesh, new connections use them", "trust_domain",
			n.roots.domain, "authorities", len(n.roots.all), "active", active.Name, "expires", active.Expires.UTC())
		s.report(Report{What: Issued, Expires: active.Expires})
	}
	if again {
		s.lines.add(hclog.Info, "consul gives the authorities of the mesh again")
		s.report(Report{What: Works, Expires: active.Expires})
	}
	return true, isNew
}

// lane implements subject.
func (i *identity) lane() (*lane, int) {
	i.store.mu.Lock()
	defer i.store.mu.Unlock()
	return &i.store.certificates, max(len(i.store.all), 1)
}

// ask implements subject.
func (i *identity) ask(ctx context.Context, q question) (news, uint64, error) {
	l, index, err := i.store.source.askLeaf(ctx, i.name, q)
	return &leafNews{i, l}, index, err
}

// failed implements subject. If Consul cannot be reached, the follower of the authorities says so for all.
func (i *identity) failed(err error) {
	s := i.store
	s.mu.Lock()
	tell := i.trouble.add(err)
	if isLost(err) && s.trouble.err != nil {
		tell = false
	}
	if tell {
		i.trouble.tell()
	}
	r := Report{What: Failed, Identity: i.name, Services: i.services(), Err: err}
	text := "consul gives no certificate for an identity, its services cannot connect"
	if i.leaf != nil {
		r.Expires = i.leaf.to
		text = "consul gives no new certificate for an identity, the former one stays in use until it expires"
	}
	s.mu.Unlock()
	if tell {
		s.lines.add(hclog.Warn, text, "identity", i.name, "services", r.Services, "error", err)
		s.report(r)
	}
}

type leafNews struct {
	identity *identity
	leaf     leaf
}

// use implements news. After a refusal, the certificate in use proves nothing: an agent repeats it to a question
// without an index, and refuses a question for the next one.
func (n *leafNews) use(held bool) (over, isNew bool) {
	i, s := n.identity, n.identity.store
	s.mu.Lock()
	isNew = !n.leaf.equal(i.leaf)
	again := false
	if over = isNew || held || i.trouble.refusal == nil; over {
		again = i.trouble.end()
	} else {
		i.trouble.goOn()
	}
	if isNew {
		i.leaf = &n.leaf
		i.renew(s.known)
	}
	r := Report{What: Issued, Identity: i.name, Services: i.services(), Expires: n.leaf.to}
	s.mu.Unlock()
	if isNew {
		s.lines.add(hclog.Info, "new certificate of an identity, new connections use it", "identity", i.name, "uri",
			n.leaf.uri, "serial", n.leaf.serial, "expires", n.leaf.to.UTC())
		s.report(r)
	}
	if again {
		s.lines.add(hclog.Info, "consul gives certificates for an identity again", "identity", i.name)
		r.What = Works
		s.report(r)
	}
	return over, isNew
}
