package daemon

import (
	"errors"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/mesh"
)

func TestStatesOfIdentities(t *testing.T) {
	now := time.Now()
	hours := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	failed := errors.New("permission denied")
	roots := []mesh.Root{{ID: "r", Name: "Root", Active: true, Expires: hours(9000)}}
	for _, tt := range []struct {
		name       string
		of         mesh.IdentityState
		roots      []mesh.Root
		err        error
		want, text string
	}{
		{"no certificate", mesh.IdentityState{Err: failed}, roots, nil, admin.IdentityWaiting, "permission denied"},
		{"no authority", mesh.IdentityState{Received: now, From: now, Expires: hours(72)}, nil, failed,
			admin.IdentityWaiting, "permission denied"},
		{"new", mesh.IdentityState{Received: now, From: now, Expires: hours(72), Answered: now}, roots, nil,
			admin.IdentityFine, ""},
		{"one failure", mesh.IdentityState{Received: now, From: now, Expires: hours(72), Answered: now, Err: failed},
			roots, nil, admin.IdentityFine, "permission denied"},
		{"long failure", mesh.IdentityState{Received: now, From: now, Expires: hours(72), Answered: hours(-1),
			Err: failed}, roots, nil, admin.IdentityFailing, "permission denied"},
		{"long failure of the authorities", mesh.IdentityState{Received: now, From: now, Expires: hours(72),
			Answered: now}, roots, failed, admin.IdentityFailing, "permission denied"},
		{"long silence without a failure", mesh.IdentityState{Received: now, From: now, Expires: hours(72),
			Answered: hours(-1)}, roots, nil, admin.IdentityFine, ""},
		{"not renewed", mesh.IdentityState{Received: now, From: hours(-60), Expires: hours(12), Answered: now}, roots,
			nil, admin.IdentityExpiring, ""},
		{"expired", mesh.IdentityState{Received: now, From: hours(-72), Expires: hours(-1), Answered: hours(-9),
			Err: failed}, roots, nil, admin.IdentityExpired, "permission denied"},
	} {
		m := meshOf(mesh.State{Roots: tt.roots, Err: tt.err, Identities: []mesh.IdentityState{tt.of}}, now)
		if got := m.Identities[0]; got.State != tt.want || got.Error != tt.text {
			t.Errorf("%s: got %s, %q, want %s, %q", tt.name, got.State, got.Error, tt.want, tt.text)
		}
	}
}

func TestIdentitiesAsTheAPIShowsThem(t *testing.T) {
	now := time.Now()
	m := meshOf(mesh.State{}, now)
	if m.Roots == nil || m.Identities == nil || m.Answered != nil {
		t.Errorf("got %+v", m)
	}
	m = meshOf(mesh.State{TrustDomain: "td", Answered: now, Failures: 2, Roots: []mesh.Root{{ID: "r", Name: "Root",
		Active: true, Expires: now}}, Identities: []mesh.IdentityState{{Name: "late"}, {Name: "web", URI: "spiffe://x",
		Serial: "01", From: now, Expires: now.Add(time.Hour), Received: now, Services: []string{"a", "b"}}}}, now)
	if m.TrustDomain != "td" || m.Failures != 2 || !m.Answered.Equal(now) || len(m.Roots) != 1 ||
		m.Roots[0].ID != "r" || !m.Roots[0].Active || !m.Roots[0].Expires.Equal(now) {
		t.Errorf("got %+v", m)
	}
	if one := m.Identities[0]; one.Expires != nil || one.Received != nil || one.Services == nil {
		t.Errorf("got %+v", one)
	}
	if one := m.Identities[1]; one.SPIFFEID != "spiffe://x" || one.Serial != "01" || len(one.Services) != 2 ||
		!one.Expires.Equal(now.Add(time.Hour)) || !one.From.Equal(now) || !one.Received.Equal(now) {
		t.Errorf("got %+v", one)
	}
}
