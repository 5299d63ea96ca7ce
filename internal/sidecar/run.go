package sidecar

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
)

const (
	// interval is the time between two questions for the agent's services.
	interval = time.Second

	// mostPause is the longest pause after a question without an answer.
	mostPause = 5 * time.Second

	// refreshAfter is the time after which a registration is repeated although the agent has it. The agent uses the
	// token of the last registration, so a new token must reach it; and a token that has lost a right is found out.
	refreshAfter = time.Minute

	// mostRetry is the longest pause after a registration that the agent has refused.
	mostRetry = 30 * time.Second

	// holdFor is how long the listener of an instance stays after the agent has lost both the instance and its
	// registration. An agent loses everything if it restarts without its data.
	holdFor = 10 * time.Minute

	// linger is how long the listener of an instance that is no longer exposed stays open, for peers that have not
	// heard of it yet.
	linger = time.Second

	// maxFiltered is how many names of services a filter has. With more services, the agent lists all.
	maxFiltered = 20
)

// A running is what Run knows.
type running struct {
	known    map[string]*instance // by the ID of the instance
	memory   *memory
	owners   []string // marks of this Lictor: that of now first, and former ones
	accepted []Instance
	refused  []Refusal
	answered time.Time
	err      error
	interval time.Duration   // the constant, except in tests
	refresh  time.Duration   // refreshAfter, except in tests
	filtered bool            // the agent leaves services out
	backoff  consul.Backoff  // of questions for the services
	failures consul.Backoff  // of Options.Instances
	retryAt  time.Time       // when to call Options.Instances again
	examined time.Time       // when the checks of listeners were last read
	dead     map[string]bool // registrations of other Lictors whose listener is gone
	yielded  map[string]bool // IDs of registrations that another Lictor has taken over from this one
	dirty    bool            // the memory must be saved
	unsaved  bool            // the last attempt to save it failed

	bells   map[string]context.CancelFunc // end the watches, by the ID of the instance
	ringing sync.WaitGroup                // the watches
}

// An instance is an exposed instance, or one that was exposed until lately.
type instance struct {
	Instance
	want    want
	sent    *registrationSent
	leaving time.Time // since when it is no longer exposed; zero: it is
	lost    time.Time // since when the agent knows neither it nor its registration; zero: it does
	err     error     // of the last registration
	cutOff  string    // why the agent cannot connect to the listener; empty: it can, or has not tried
	retryAt time.Time // when to register again after err
	backoff consul.Backoff
}

// Run follows the agent's services until ctx ends. It must be called once.
func (r *Registrar) Run(ctx context.Context) {
	r.run.bells = map[string]context.CancelFunc{}
	defer r.stopBells()
	for ctx.Err() == nil {
		pause := mostPause
		if r.phaseNow() == working {
			pause = r.step(ctx)
		}
		r.publish()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// step asks for the agent's services, does what follows from them, and returns how long to wait for the next step.
func (r *Registrar) step(ctx context.Context) time.Duration {
	services := r.wanted()
	asking, cancel := context.WithTimeoutCause(ctx, patience, &consul.TimeoutError{After: patience})
	found, filtered, err := r.o.Consul.Services(asking, filterOf(services))
	if err != nil && asking.Err() != nil {
		err = context.Cause(asking)
	}
	cancel()
	now := time.Now()
	if err != nil {
		r.unanswered(ctx, err)
		return max(r.run.backoff.Pause(now, interval, mostPause), interval/2)
	}
	r.answeredAt(now, filtered)
	l := &list{services: found, owners: r.run.owners, dead: r.run.dead}
	r.examine(ctx, l, now)
	wants, refused := l.judge(services, r.o.LeadsBack)
	r.follow(l, wants, filtered, now)
	r.refuse(append(refused, r.assign(l, now)...))
	r.open(now)
	r.register(ctx, l, now)
	r.tidy(ctx, l, now)
	r.watch(ctx)
	r.save()
	if len(services) == 0 && len(r.run.known) == 0 {
		return mostPause
	}
	return consul.Jitter(r.run.interval)
}

// filterOf returns the filter for the services that matter: the instances, and the sidecars of all services.
func filterOf(services []Service) string {
	if len(services) > maxFiltered {
		return ""
	}
	parts := []string{`Kind == "connect-proxy"`}
	for _, s := range services {
		parts = append(parts, "Service == "+strconv.Quote(s.Name))
	}
	return strings.Join(parts, " or ")
}

// unanswered handles a question for the services without an answer.
func (r *Registrar) unanswered(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if r.run.err == nil {
		r.log.Warn("the agent of consul does not list its services, what is exposed stays as it is", "error", err)
	}
	r.run.err = err
}

// answeredAt handles an answer to the question for the services.
func (r *Registrar) answeredAt(now time.Time, filtered bool) {
	if r.run.err != nil {
		r.log.Info("the agent of consul lists its services again")
	}
	if filtered && !r.run.filtered {
		r.log.Warn("the token may not read all services of the agent, exposed instances that it does not see stay " +
			"exposed; it needs service:write for exposed services and their sidecars")
	}
	r.run.err, r.run.answered, r.run.filtered = nil, now, filtered
	r.run.backoff.Reset()
}
