package lb

import (
	"encoding/json"
	"net/netip"
	"testing"
	"testing/synctest"
)

// A new process learns from the old process which endpoints were ejected, and tries them as the old process would have.
func TestEjectionsAreHandedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := Endpoint{ID: "bad", Addr: netip.MustParseAddrPort("127.0.0.1:9")}
		named := Endpoint{ID: "named", Host: "db.example.com", Addr: netip.AddrPortFrom(netip.Addr{}, 5432)}
		good := Endpoint{ID: "good", Addr: netip.MustParseAddrPort("127.0.0.1:10")}
		old := balanced(Options{MinAvailable: -1}, bad, named, good)
		fails(t, old, "bad", Refused)
		fails(t, old, "named", Unreachable, Unreachable)
		text, err := json.Marshal(old.Ejections())
		if err != nil {
			t.Fatal(err)
		}
		var ejections []Ejection
		if err := json.Unmarshal(text, &ejections); err != nil || len(ejections) != 2 {
			t.Fatalf("got %s, %v, want two", text, err)
		}
		b := NewRoundRobin()
		b.SetEjections(ejections)
		b.Configure("web", Options{MinAvailable: -1})
		update(b, bad, named, good)
		if n := b.Ejected("web", []Endpoint{bad, named, good}); n != 2 {
			t.Errorf("%d endpoints are ejected, want 2", n)
		}
		trials := map[string]bool{}
		for range 20 { // no trial ends
			m, err := b.NextEndpoint("web", client, Tried{})
			if err != nil {
				t.Fatal(err)
			}
			if m.ID != "good" && trials[m.ID] {
				t.Errorf("%s got two clients", m.ID)
			}
			trials[m.ID] = true
		}
		if len(trials) != 3 {
			t.Errorf("got %v, want one trial of each that was ejected", trials)
		}
		memberOf(t, b, "bad").Reached()
		b.SetEjections(ejections) // the health known in this process takes precedence
		if n := b.Ejected("web", []Endpoint{bad, named, good}); n != 1 {
			t.Errorf("%d endpoints are ejected, want 1: one has been reached since", n)
		}
	})
}
