package daemon

import (
	"cmp"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/mesh"
)

// failingAfter is how long Consul may give no answer before an identity counts as failing. While all is well, an answer
// comes within a minute.
const failingAfter = 2 * time.Minute

// identities returns what Lictor has of the service mesh as the API shows it.
func (d *Daemon) identities() admin.Mesh {
	state := d.meshState()
	m := meshOf(state, time.Now())
	m.Exposed = d.exposed.show(&state)
	return m
}

func meshOf(s mesh.State, now time.Time) admin.Mesh {
	m := admin.Mesh{TrustDomain: s.TrustDomain, Error: textOf(s.Err), Roots: []admin.MeshRoot{},
		Identities: []admin.Identity{}, Exposed: []admin.Exposed{}, Answered: since(s.Answered), Failures: s.Failures}
	for _, r := range s.Roots {
		m.Roots = append(m.Roots, admin.MeshRoot{ID: r.ID, Name: r.Name, Active: r.Active, Expires: r.Expires.UTC()})
	}
	for i := range s.Identities {
		one := &s.Identities[i]
		state := identityState(&s, one, now)
		m.Identities = append(m.Identities, admin.Identity{Name: one.Name, State: state,
			Error:    cmp.Or(textOf(one.Err), m.Error),
			SPIFFEID: one.URI, Serial: one.Serial, From: since(one.From), Expires: since(one.Expires),
			Received: since(one.Received), Answered: since(one.Answered), Failures: one.Failures,
			Services: append([]string{}, one.Services...)})
	}
	return m
}

// identityState returns the state of an identity.
func identityState(s *mesh.State, one *mesh.IdentityState, now time.Time) string {
	silent := func(failed error, answered time.Time) bool { return failed != nil && now.Sub(answered) > failingAfter }
	health := mesh.HealthOf(one.From, one.Expires, now)
	switch {
	case one.Received.IsZero() || len(s.Roots) == 0:
		return admin.IdentityWaiting
	case health == mesh.Expired:
		return admin.IdentityExpired
	case health == mesh.Expiring:
		return admin.IdentityExpiring
	case silent(one.Err, one.Answered) || silent(s.Err, s.Answered):
		return admin.IdentityFailing
	}
	return admin.IdentityFine
}

// textOf returns the text of err. It is empty if err is nil.
func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// since returns a time for the API, which shows no zero time.
func since(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
