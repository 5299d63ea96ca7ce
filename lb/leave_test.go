package lb

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// placed returns endpoints with the given IDs at distinct addresses. "x=A" is an endpoint x at the address of A.
func placed(names ...string) []Endpoint {
	all := named(slices.Repeat([]int{1}, 26)...)
	var out []Endpoint
	for _, name := range names {
		id, at, renamed := strings.Cut(name, "=")
		if !renamed {
			at = id
		}
		e := all[at[0]-'A']
		e.ID = id
		out = append(out, e)
	}
	return out
}

func departed(why Reasons, names ...string) (all []Departure) {
	for _, e := range placed(names...) {
		all = append(all, Departure{e, why})
	}
	return all
}

// gone returns which members are gone, and why, as text.
func gone(members map[string]*Member) string {
	var all []string
	for id, m := range members {
		if g := m.Gone(); g != nil {
			all = append(all, fmt.Sprintf("%s%d", id, g.Why))
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestDepartures(t *testing.T) {
	type step struct {
		set  string
		left []Departure
		told string // members passed to the callback, in any order
		want string // members that are gone afterwards, with the reason
	}
	const both = Deregistered | Unmatched
	tests := []struct {
		name  string
		steps []step
	}{
		{"no reason given", []step{{"A", nil, "", ""}, {"", nil, "", ""}}},
		{"each reason", []step{{"D", append(append(departed(Deregistered, "A"), departed(Critical, "B")...),
			departed(both, "C")...), "A B C", "A1 B2 C5"}}},
		{"told once", []step{{"A", departed(Critical, "B"), "B", "B2"}, {"A", departed(Critical, "B"), "", "B2"},
			{"A", nil, "", "B2"}}},
		{"another reason", []step{{"A", departed(Critical, "B"), "B", "B2"},
			{"A", departed(Deregistered, "B"), "B", "B1"}}},
		{"known later", []step{{"A", nil, "", ""}, {"A", departed(Unmatched, "B"), "B", "B4"}}},
		{"back", []step{{"A", departed(Critical, "B"), "B", "B2"}, {"A B", nil, "", ""}, {"A", nil, "", ""},
			{"A", departed(Deregistered, "B"), "B", "B1"}}},
		{"the same process under another name",
			[]step{{"A x=B", departed(Deregistered, "B"), "", ""}, {"A", departed(Critical, "x=B"), "B x", "B2"}}},
		{"one that was never in", []step{{"A B", departed(Critical, "Z"), "", ""}}},
		{"one that is in", []step{{"A B", departed(Critical, "B"), "", ""}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := inOrder()
			var told []string
			b.NotifyGone(func(members []*Member) {
				for _, m := range members {
					told = append(told, m.ID)
				}
			})
			b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("A", "B", "C", "D")}})
			members := map[string]*Member{}
			for _, id := range []string{"A", "B", "C", "D"} {
				members[id] = pick(t, b, id)
			}
			for i, s := range tt.steps {
				told = nil
				b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed(strings.Fields(s.set)...), Left: s.left}})
				slices.Sort(told)
				if got := strings.Join(told, " "); got != s.told {
					t.Errorf("step %d: the callback got %q, want %q", i, got, s.told)
				}
				if got := gone(members); got != s.want {
					t.Errorf("step %d: gone are %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

// The balancer remembers a former member as long as it is in use, and no longer.
func TestFormerMembersAreForgotten(t *testing.T) {
	b := inOrder()
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("A", "B")}})
	m := pick(t, b, "A")
	for i := range 100 {
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed(string(rune('C' + i%2)))}})
	}
	g := b.groupOf("web")
	if n := len(g.former); n != 2 {
		t.Errorf("%d former members, want A, which is in use, and the last to leave", n)
	}
	m.Done()
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("D")}})
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("D")}})
	if n := len(g.former); n != 0 {
		t.Errorf("%d former members, want none", n)
	}
}

// The balancer remembers a former member that is kept, and says later why it has left.
func TestKeptMembersAreRemembered(t *testing.T) {
	b := inOrder()
	var told []*Member
	b.NotifyGone(func(members []*Member) { told = append(told, members...) })
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("A", "B")}})
	a := b.Choices("web").Choices[0].Member
	a.Keep(true)
	for range 3 {
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("B")}})
	}
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("B"), Left: departed(Critical, "A")}})
	if len(told) != 1 || told[0].Key() != a.Key() || a.Gone() == nil || a.Gone().Why != Critical {
		t.Errorf("told of %v; gone: %+v", told, a.Gone())
	}
	a.Keep(false)
	b.OnUpdate([]Endpoints{{Service: "web", Endpoints: placed("B")}})
	if n := len(b.groupOf("web").former); n != 0 {
		t.Errorf("%d former members, want none", n)
	}
}

func TestReasonsInWords(t *testing.T) {
	for r, want := range map[Reasons]string{0: "unknown", Critical: "critical",
		Deregistered | Unmatched: "deregistered or unmatched"} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
