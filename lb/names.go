package lb

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// A NameSnapshot is the knowledge of a Resolver about a host name at one moment.
type NameSnapshot struct {
	Host  string
	Addrs []netip.Addr
	Age   time.Duration // time since a lookup found the addresses; negative: another process found them

	// Err is the error of the last lookup, if it did not find the name. In that case, the addresses come from an
	// earlier lookup. Err is empty if the last lookup found the name.
	Err string
}

// Lookups counts finished lookups of host names by their result.
type Lookups struct {
	Found  int64
	Denied int64 // the name server said that the name does not exist
	Failed int64 // no answer in time, or an error of the name server
}

// Lookups returns how many lookups have finished, by result.
func (r *Resolver) Lookups() Lookups {
	return Lookups{r.found.Load(), r.denied.Load(), r.failed.Load()}
}

// Stale returns how many known names the last lookup did not find. The Resolver uses the earlier addresses of these
// names.
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

// Name returns what the Resolver knows about a host name. Name returns false if the name is not known.
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

// A KnownName is a host name and its addresses, in the form in which one process passes them to another.
type KnownName struct {
	Host  string       `json:"host"`
	Addrs []netip.Addr `json:"addrs"`
}

// Names returns all known names, sorted.
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

// SetNames adds names that another process has looked up. The first use of each name waits for a lookup, as after a
// long time without use. Names that are already known stay as they are.
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
