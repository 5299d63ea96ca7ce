//go:build amd64 || arm64

package kernel

import (
	"errors"
	"strings"
	"testing"
)

// The kernel limits the programs of a control group. The error says so, and that old processes have them.
func TestFullControlGroupIsNamed(t *testing.T) {
	group, inside := inGroup(t)
	if !inside {
		return
	}
	p := open(t, Options{Cgroup: group})
	follow := p.forConnections()[:1]
	for range 63 { // p has one
		links, err := attach(p.dir, follow)
		t.Cleanup(func() {
			if err := detach(links); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var full *Error
	err := Probe(group)
	if !errors.As(err, &full) || full.Reason != Full || !strings.Contains(full.Detail, "old process") {
		t.Errorf("got %v, want an error that says what is full", err)
	}
	if err := detach(p.links[:1]); err != nil {
		t.Error(err)
	}
	p.links = p.links[1:]
	if err := Probe(group); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
