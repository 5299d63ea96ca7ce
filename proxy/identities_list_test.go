package proxy

import (
	"crypto/tls"
	"slices"
	"testing"
	"time"
)

// Each identity with live connections is listed with their number, the one with the most first.
func TestIdentitiesOfLiveConnections(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		m := newMesh(t)
		at := h.serve(Service{Name: "s", AcceptTLS: m.accept(tls.VersionTLS13)}, tcpServer(t, echo))
		m.dial(at, "web")
		c := m.dial(at, "api")
		m.dial(at, "web")
		want := []IdentityCount{{meshID("web"), 2}, {meshID("api"), 1}}
		if got, n := h.Proxier.Identities("s", 9); n != 2 || !slices.Equal(got, want) {
			t.Errorf("got %v of %d, want %v", got, n, want)
		}
		if got, n := h.Proxier.Identities("s", 1); n != 2 || !slices.Equal(got, want[:1]) {
			t.Errorf("got %v of %d, want %v", got, n, want[:1])
		}
		_ = c.Close()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if got, _ := h.Proxier.Identities("s", 9); slices.Equal(got, want[:1]) {
				return
			} else if time.Now().After(deadline) {
				t.Fatalf("got %v", got)
			}
		}
	})
}
