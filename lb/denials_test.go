package lb

import (
	"encoding/json"
	"fmt"
	"testing"
)

// A new process learns from the old process which endpoints deny connections, and tells when they answer again.
func TestDenialsAreHandedOn(t *testing.T) {
	old := balanced(Options{}, named(1, 1, 1)...)
	deny := func(b *RoundRobin, id, why string) {
		m := member(t, b, id)
		m.Denied(fmt.Errorf("%w: %s", ErrDenied, why))
		m.Done()
	}
	deny(old, "A", "no")
	deny(old, "A", "never")
	deny(old, "B", "no")
	m := member(t, old, "B")
	m.Unanswered()
	m.Done()
	deny(old, "C", "no")
	m = member(t, old, "C")
	m.Reached()
	m.Done()
	text, err := json.Marshal(old.Denials())
	if err != nil {
		t.Fatal(err)
	}
	var denials []Denying
	if err := json.Unmarshal(text, &denials); err != nil || len(denials) != 2 {
		t.Fatalf("got %s, %v, want two", text, err)
	}
	denials = append(denials, Denying{Service: "none", Denied: Unserved{Connections: 1}})

	b := NewRoundRobin()
	var told []DenialChange
	b.NotifyDenials(func(c DenialChange) { told = append(told, c) })
	b.SetDenials(denials) // the endpoints are not known yet
	endpoints := named(1, 1, 1)
	endpoints[1].Addr = endpoints[2].Addr // B has moved
	endpoints = endpoints[:2]
	update(b, endpoints...)
	b.SetDenials(denials)
	before := old.Snapshot()[0].Endpoints[0].Denied
	s := b.Snapshot()[0].Endpoints
	got := s[0].Denied
	if got.Connections != 2 || got.Why != "never" || !got.Since.Equal(before.Since) || !got.Last.Equal(before.Last) {
		t.Errorf("got %+v, want %+v", got, before)
	}
	if s[1].Denied.Connections+s[1].Unanswered.Connections != 0 {
		t.Errorf("got %+v of an endpoint at another address", s[1])
	}
	if deny(b, "A", "no"); len(told) != 0 || b.Snapshot()[0].Endpoints[0].Denied.Connections != 3 {
		t.Errorf("told %+v, though the other process has told it", told)
	}
	b.SetDenials(denials) // what is known in this process takes precedence
	if n := b.Snapshot()[0].Endpoints[0].Denied.Connections; n != 3 {
		t.Errorf("%d denied connections, want 3", n)
	}
	m = member(t, b, "A")
	m.Reached()
	m.Done()
	if len(told) != 1 || told[0].Denied || told[0].Endpoint != "A" {
		t.Errorf("told %+v, want that A answers again", told)
	}
}
