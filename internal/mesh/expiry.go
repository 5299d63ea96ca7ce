package mesh

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// lookEvery is how often the Store looks for certificates that expire.
	lookEvery = 10 * time.Second

	// maxExpiring is for how long a certificate may be about to expire. Otherwise it is for the last quarter of its
	// life. Consul renews certificates after 60 to 90 percent of their lives, and soon after 60 if it is asked often.
	maxExpiring = 14 * 24 * time.Hour
)

// A health is what was reported about a certificate or an authority.
type health struct {
	of string // its serial number or ID
	is What   // Expiring or Expired; empty if nothing was
}

// HealthOf returns how a certificate that is valid from from until to is doing at now: Expired, Expiring, or an empty
// What if nothing is wrong. It is expiring if it is valid for less than 14 days, or for less than a quarter of its life
// if that is shorter.
func HealthOf(from, to, now time.Time) What {
	switch left := to.Sub(now); {
	case left <= 0:
		return Expired
	case left < min(maxExpiring, to.Sub(from)/4):
		return Expiring
	}
	return ""
}

// change returns what must be reported about something that is valid from from until to. It is empty if there is
// nothing to report.
func (h *health) change(of string, from, to, now time.Time) What {
	next := health{of, HealthOf(from, to, now)}
	if next == *h {
		return ""
	}
	*h = next
	return next.is
}

// lookForExpired looks for certificates that expire, until ctx ends.
func (s *Store) lookForExpired(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.look(now)
		}
	}
}

// look reports once for each certificate that it is about to expire, and once that it has expired.
func (s *Store) look(now time.Time) {
	var all []Report
	s.mu.Lock()
	for _, i := range s.all {
		if l := i.leaf; l != nil {
			if what := i.reported.change(l.serial, l.from, l.to, now); what != "" {
				all = append(all, Report{What: what, Identity: i.name, Services: i.services(), Expires: l.to,
					Err: i.trouble.err})
			}
		}
	}
	if s.known != nil {
		a := s.known.active()
		if what := s.told.change(a.ID, a.From, a.Expires, now); what != "" {
			all = append(all, Report{What: what, Expires: a.Expires, Err: s.trouble.err})
		}
	}
	s.mu.Unlock()
	for _, r := range all {
		s.lines.add(hclog.Warn, expiryText(r), "identity", r.Identity, "services", r.Services, "expires",
			r.Expires.UTC(), "error", r.Err)
		s.report(r)
	}
}

func expiryText(r Report) string {
	switch {
	case r.Identity == "" && r.What == Expired:
		return "the authority of the mesh has expired: new connections fail"
	case r.Identity == "":
		return "the authority of the mesh expires soon, and Consul has no other one"
	case r.What == Expired:
		return "the certificate of an identity has expired: its services cannot connect"
	}
	return "the certificate of an identity expires soon, and Consul gives no other one"
}
