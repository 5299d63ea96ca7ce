package certificates

import (
	"crypto/x509"
	"time"
)

// What is what has happened to files.
type What string

// The kinds of reports.
const (
	Changed  What = "changed"  // the files have changed, and their content is in use
	Unusable What = "unusable" // the files have changed, and their content cannot be used
	Usable   What = "usable"   // the files can be used again, with the content that is in use
	Expiring What = "expiring" // the content is valid only for a short time; see Health
	Expired  What = "expired"  // the content is not valid any more
)

// Health says how files in use are doing.
type Health string

// The healths of files, the best first.
const (
	// HealthFine means that nothing needs attention.
	HealthFine Health = "fine"

	// HealthExpiring means that a certificate should have been replaced by now: it is valid for less than 14 days, or
	// for less than a quarter of its life if that is shorter.
	HealthExpiring Health = "expiring"

	// HealthUnusable means that the content of the files cannot be used. Their last good content is in use.
	HealthUnusable Health = "unusable"

	// HealthExpired means that the content in use is not valid any more, so that peers refuse it.
	HealthExpired Health = "expired"
)

// maxExpiring is for how long a certificate may be HealthExpiring.
const maxExpiring = 14 * 24 * time.Hour

// A State is the state of files that a service uses.
type State struct {
	// File is the path of a certificate, or of authorities.
	File string

	// Authorities says that the file has authorities.
	Authorities bool

	// Expires is when the content in use expires. With a chain of certificates, that is when the first one does. With
	// several authorities, it is when the last one does.
	Expires time.Time

	// Health says how the file is doing.
	Health Health

	// Err says why the content of the files cannot be used. It is nil if it can.
	Err error
}

// States returns the states of all files in use, by service, in no particular order.
func (s *Store) States(now time.Time) map[string][]State {
	all := map[string][]State{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.kept {
		c := m.content.Load()
		one := State{File: m.files.paths()[0], Authorities: c.pair == nil, Expires: c.to, Health: c.health(now)}
		if problem := m.problem.Load(); problem != nil {
			one.Err = *problem
			if one.Health != HealthExpired {
				one.Health = HealthUnusable
			}
		}
		seen := map[string]bool{}
		for u := range m.users {
			if !seen[u.service] {
				seen[u.service] = true
				all[u.service] = append(all[u.service], one)
			}
		}
	}
	return all
}

// health returns how c is doing at a time. It is never HealthUnusable.
func (c *content) health(now time.Time) Health {
	switch left := c.to.Sub(now); {
	case left <= 0:
		return HealthExpired
	case left < min(maxExpiring, c.to.Sub(c.from)/4):
		return HealthExpiring
	}
	return HealthFine
}

// setValidity sets when c is valid, from its certificates.
func (c *content) setValidity(all []*x509.Certificate) {
	for i, cert := range all {
		first := cert.NotAfter.Before(c.to)
		if c.pair == nil {
			first = cert.NotAfter.After(c.to) // of authorities, one is enough
		}
		if i == 0 || first {
			c.from, c.to = cert.NotBefore, cert.NotAfter
		}
	}
}

// tellHealth reports once if files begin to need attention. The caller must hold s.mu. The result must be called after
// s.mu is released; it is nil if there is nothing to report.
func (s *Store) tellHealth(m *material, now time.Time) func() {
	c := m.content.Load()
	health := c.health(now)
	if m.told.sum == c.sum && m.told.health == health {
		return nil
	}
	m.told.sum, m.told.health = c.sum, health
	what, text := Expiring, "a certificate expires soon, replace its files"
	switch {
	case health == HealthFine:
		return nil
	case health == HealthExpired:
		what, text = Expired, "a certificate has expired, replace its files: new connections fail"
	}
	return func() {
		r := s.reportOf(m, what, nil)
		s.log.Warn(text, "files", r.Files, "services", r.Services, "expires", c.to.UTC())
		s.report(r)
	}
}
