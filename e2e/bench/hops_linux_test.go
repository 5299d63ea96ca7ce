package main

import (
	"testing"
)

// Both ends of a mesh are two processes in one group, which is measured as one and ends as one. A target that is both
// ends in one process is one.
func TestBothEndsAreOneGroup(t *testing.T) {
	for _, test := range []struct {
		target *target
		want   int
	}{{&target{name: "two"}, 2}, {&target{name: "one", oneProcess: true}, 1}} {
		var served []string
		test.target.command = func(p *plan) ([]string, error) {
			role := ""
			if len(p.Services) > 0 {
				role = "clients "
			}
			if p.Inbound != nil {
				role += "instance"
			}
			served = append(served, role)
			return []string{"sleep", "60"}, nil
		}
		i, err := test.target.start(plan{Services: webs(1), Inbound: &inbound{}}, pinning{}, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		pids, err := members(i.group())
		i.stop()
		if err != nil || len(pids) != test.want || len(served) != test.want {
			t.Errorf("%s: processes %v for %q, %v; want %d", test.target.name, pids, served, err, test.want)
		}
		if left, err := members(i.group()); err == nil {
			t.Errorf("%s: %v are left", test.target.name, left)
		}
	}
}
