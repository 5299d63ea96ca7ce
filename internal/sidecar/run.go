package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
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
	filtered bool           // the agent leaves services out
	backoff  consul.Backoff // of questions for the services
	failures consul.Backoff // of Options.Instances
	retryAt  time.Time      // when to call Options.Instances again
	dirty    bool           // the memory must be saved
	unsaved  bool           // the last attempt to save it failed

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
	retryAt time.Time // when to register again after err
	backoff consul.Backoff
}

// Run follows the agent's services until ctx ends. It must be called once.
func (r *Registrar) Run(ctx context.Context) {
	r.run.bells = map[string]context.CancelFunc{}
	defer r.stopBells()
	for ctx.Err() == nil {
		pause := interval
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
	l := &list{services: found, owners: r.run.owners}
	wants, refused := l.judge(services, r.o.LeadsBack)
	r.follow(l, wants, filtered, now)
	refused = append(refused, r.assign(l, now)...)
	r.refuse(refused)
	r.open(now)
	r.register(ctx, l, now)
	r.tidy(ctx, l, now)
	r.watch(ctx)
	r.save()
	return consul.Jitter(interval)
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
		r.log.Warn("the token may not read all services of the agent, instances that it does not see stay as they are; " +
			"it needs service:write for exposed services and their sidecars")
	}
	r.run.err, r.run.answered, r.run.filtered = nil, now, filtered
	r.run.backoff.Reset()
}

// refuse logs and reports why instances are not exposed, unless that is known.
func (r *Registrar) refuse(refused []Refusal) {
	slices.SortFunc(refused, func(a, b Refusal) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ServiceID, b.ServiceID))
	})
	for _, one := range refused {
		same := func(o Refusal) bool {
			return o.Service == one.Service && o.ServiceID == one.ServiceID && o.Err.Error() == one.Err.Error()
		}
		if slices.ContainsFunc(r.run.refused, same) {
			continue
		}
		if errors.Is(one.Err, ErrAbsent) {
			r.log.Info("nothing to expose yet", "service", one.Service, "reason", one.Err)
		} else {
			r.log.Warn("instance not exposed", "service", one.Service, "instance", one.ServiceID, "reason", one.Err)
		}
		r.o.Report(Report{What: Refused, Instance: Instance{Service: one.Service, ServiceID: one.ServiceID},
			Err: one.Err})
	}
	r.run.refused = refused
}

// follow updates what is known of the instances.
func (r *Registrar) follow(l *list, wants map[string]want, filtered bool, now time.Time) {
	for id, w := range wants {
		i := r.run.known[id]
		if i == nil {
			i = &instance{Instance: Instance{ID: id + idSuffix, Service: w.service.Name, ServiceID: id}}
			r.run.known[id] = i
		}
		i.want, i.Service, i.Local = w, w.service.Name, w.local
		i.lost, i.leaving = time.Time{}, time.Time{}
	}
	configured := map[string]bool{}
	for _, s := range r.wanted() {
		configured[s.Name] = true
	}
	for id, i := range r.run.known {
		if _, wanted := wants[id]; wanted || !i.leaving.IsZero() {
			continue
		}
		unseen := l.services[id] == nil && (filtered || l.own(id) == nil)
		if unseen && configured[i.Service] {
			if i.lost.IsZero() {
				i.lost = now
				r.log.Warn("the agent has lost an exposed instance and its registration, the listener stays",
					"service", i.Service, "instance", id, "for", holdFor.String())
				r.o.Report(Report{What: Lost, Instance: i.Instance})
			}
			if now.Sub(i.lost) < holdFor {
				continue
			}
		}
		i.leaving, i.sent = now, nil
		r.log.Info("instance no longer exposed", "service", i.Service, "instance", id, "listen", i.Listen)
		r.o.Report(Report{What: Ended, Instance: i.Instance})
	}
}

// assign gives ports to the instances that have none.
func (r *Registrar) assign(l *list, now time.Time) (refused []Refusal) {
	for _, i := range r.sorted() {
		if i.Listen.IsValid() || !i.leaving.IsZero() {
			continue
		}
		hint := uint16(0)
		if own := l.own(i.ServiceID); own != nil && own.Port > 0 && own.Port < 1<<16 {
			hint = uint16(own.Port)
		}
		var trouble error
		taken := func(n uint16) bool {
			if trouble != nil || r.assigned(l, i, n) {
				return true
			}
			err := probe(netip.AddrPortFrom(r.o.Bind, n))
			if err != nil && !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
				trouble = err
			}
			return err != nil
		}
		n, ok := r.run.memory.assign(i.ServiceID, hint, taken, now)
		if !ok {
			err := fmt.Errorf("%w: all of %s are taken", ErrNoPort, r.o.Ports)
			if trouble != nil {
				err = fmt.Errorf("%w: %w", ErrNoPort, trouble)
			}
			refused = append(refused, Refusal{Service: i.Service, ServiceID: i.ServiceID, Err: err})
			continue
		}
		i.Listen = netip.AddrPortFrom(r.o.Bind, n)
		r.run.dirty = true
	}
	return refused
}

// assigned reports whether a port belongs to another instance, or to a sidecar of another program.
func (r *Registrar) assigned(l *list, not *instance, n uint16) bool {
	for _, other := range r.run.known {
		if other != not && other.Listen.Port() == n {
			return true
		}
	}
	for _, s := range l.services {
		if s.Port == int(n) && !l.owns(s) && (s.Address == "" || s.Address == r.o.Bind.String()) {
			return true
		}
	}
	return false
}

// probe returns nil if a listener can be opened at an address.
func probe(at netip.AddrPort) error {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	return l.Close()
}

// sorted returns what is known, sorted by service and ID.
func (r *Registrar) sorted() []*instance {
	var all []*instance
	for _, i := range r.run.known {
		all = append(all, i)
	}
	slices.SortFunc(all, func(a, b *instance) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ServiceID, b.ServiceID))
	})
	return all
}

// open has listeners opened for the instances with ports, and closed for those that have left.
func (r *Registrar) open(now time.Time) {
	var next []Instance
	for _, i := range r.sorted() {
		if i.Listen.IsValid() && (i.leaving.IsZero() || now.Sub(i.leaving) < linger) {
			next = append(next, i.Instance)
		}
	}
	if slices.Equal(next, r.run.accepted) || now.Before(r.run.retryAt) {
		return
	}
	if err := r.o.Instances(slices.Clone(next)); err != nil {
		r.run.retryAt = now.Add(r.run.failures.Pause(now, interval, mostPause))
		r.log.Warn("listeners of exposed instances cannot be changed, lictor tries again", "error", err)
		r.freePorts()
		return
	}
	r.run.failures.Reset()
	r.run.accepted, r.run.retryAt = next, time.Time{}
}

// freePorts takes the ports away from instances without a listener, if another program has taken them meanwhile.
func (r *Registrar) freePorts() {
	for _, i := range r.run.known {
		if i.Listen.IsValid() && !r.serves(i) && errors.Is(probe(i.Listen), syscall.EADDRINUSE) {
			i.Listen = netip.AddrPort{}
		}
	}
}

// serves reports whether an instance has a listener.
func (r *Registrar) serves(i *instance) bool {
	return slices.ContainsFunc(r.run.accepted, func(a Instance) bool { return a.ID == i.ID && a.Listen == i.Listen })
}
