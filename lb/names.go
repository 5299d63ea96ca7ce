package lb

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// A NameSnapshot is what a Resolver knows of a host name at one moment.
type NameSnapshot struct {
	Host  string
	Addrs []netip.Addr
	Age   time.Duration // since a lookup has found the addresses; negative: another process has found them

	// Err is why the last lookup has not found the name; the addresses are of an earlier one. It is empty if it has.
	Err string
}

// Lookups are how many lookups of host names have ended, by their result.
type Lookups struct {
	Found  int64
	Denied int64 // there is no such name
	Failed int64 // no answer in time, or an error of the name server
}

// Lookups returns how many lookups have ended.
func (r *Resolver) Lookups() Lookups {
	return Lookups{r.found.Load(), r.denied.Load(), r.failed.Load()}
}

// Stale returns how many known names the last lookup has not found, so that earlier addresses are used.
func (r *Resolver) Stale() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range r.names {
		if len(name.addrs) > 0 && name.err != nil {
			n++
		}
	}
	return n
}

// Name returns what is known of a host name; false if it is not known.
func (r *Resolver) Name(host string) (NameSnapshot, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.names[host]
	if n == nil || len(n.addrs) == 0 {
		return NameSnapshot{}, false
	}
	s := NameSnapshot{Host: host, Addrs: n.addrs, Age: -1}
	if n.answered != 0 {
		s.Age = r.clock.now().sub(n.answered)
	}
	if n.err != nil {
		s.Err = n.err.Error()
	}
	return s, true
}

// A KnownName is a host name and its addresses, for another process.
type KnownName struct {
	Host  string       `json:"host"`
	Addrs []netip.Addr `json:"addrs"`
}

// Names returns the names that are known, sorted.
func (r *Resolver) Names() (all []KnownName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.names {
		if len(n.addrs) > 0 {
			all = append(all, KnownName{n.host, n.addrs})
		}
	}
	slices.SortFunc(all, func(a, b KnownName) int { return cmp.Compare(a.Host, b.Host) })
	return all
}

// SetNames makes names known that another process has found. The first user of each waits for a lookup as for a name
// that was not used for long. A name that is known already stays as it is.
func (r *Resolver) SetNames(all []KnownName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.now()
	for _, one := range all {
		if n := r.nameLocked(one.Host, now); len(n.addrs) == 0 && len(one.Addrs) > 0 {
			n.addrs = one.Addrs
		}
	}
}
