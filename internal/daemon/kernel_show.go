package daemon

import (
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/kernel"
)

// shown returns for each service which path it is on, as the API shows it. The result is nil if no service has asked
// for the kernel path yet, in this process or in an earlier one.
func (k *kernelKeeper) shown() map[string]admin.Path {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.used && !k.earlier.hasKernel() {
		return nil
	}
	all := make(map[string]admin.Path, len(k.services)+len(k.off))
	for name, why := range k.off {
		all[name] = admin.Path{Asked: k.asked[name], Why: why, Counters: k.countersLocked(name, kernel.Counters{})}
	}
	for name, s := range k.services {
		all[name] = k.shownLocked(s)
	}
	return all
}

// shownLocked returns the path of a service that is, or should be, on the kernel path.
func (k *kernelKeeper) shownLocked(s *kernelService) admin.Path {
	p := admin.Path{Asked: k.asked[s.name], Kernel: true, Active: map[string]int64{}, Picks: map[string]int64{}}
	switch {
	case s.problem != "":
		p.Kernel, p.Why = false, s.problem
	case len(s.members) == 0:
		p.Why = "no endpoint can be used now, so clients use the listener"
	}
	var sum kernel.Counters
	var each []kernel.EndpointCounters
	if k.path != nil {
		sum, each = k.path.Counters(s.name)
	}
	for _, e := range each {
		if m := s.known[e.Key]; m != nil {
			p.Active[m.ID] += int64(e.Open)
			p.Picks[m.ID] += int64(e.Picks)
		}
	}
	p.Counters = k.countersLocked(s.name, sum)
	return p
}

// countersLocked returns the counters of a service, with those of earlier times on the kernel path and of earlier
// processes. It returns nil if the service was never on it.
func (k *kernelKeeper) countersLocked(name string, now kernel.Counters) *admin.KernelCounters {
	c := k.past[name]
	c.Add(now)
	ended := k.cut[name]
	if t := k.earlier.of(name); t.Kernel != nil {
		c.Add(t.Kernel.Counters)
		ended += t.Kernel.Cut
	}
	if k.services[name] == nil && c == (kernel.Counters{}) {
		return nil
	}
	return &admin.KernelCounters{
		Connections: int64(c.Connections), ConnectionsActive: int64(c.Open), Abandoned: int64(c.Abandoned),
		DialsFailed: int64(c.Refused + c.Unreachable + c.TimedOut), DialsRefused: int64(c.Refused),
		DialsUnreachable: int64(c.Unreachable), DialsTimedOut: int64(c.TimedOut),
		BytesUp: int64(c.Sent), BytesDown: int64(c.Received), EndedLeft: ended,
	}
}

// totals returns what this process has counted on the kernel path, by service. Services without any count are left out.
func (k *kernelKeeper) totals() map[string]kernelTotals {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[string]kernelTotals{}
	add := func(name string, c kernel.Counters) {
		t := all[name]
		t.add(kernelTotals{Counters: c})
		all[name] = t
	}
	for name, c := range k.past {
		add(name, c)
	}
	for name := range k.services {
		if k.path != nil {
			c, _ := k.path.Counters(name)
			add(name, c)
		}
	}
	for name, t := range all {
		if t.Cut = k.cut[name]; t == (kernelTotals{}) {
			delete(all, name)
		} else {
			all[name] = t
		}
	}
	return all
}
