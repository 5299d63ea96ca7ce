package lb

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
)

// homes returns the endpoint that each of n clients is hashed to.
func homes(t *testing.T, b *RoundRobin, n int) []string {
	t.Helper()
	ids := make([]string, n)
	for i := range ids {
		m, err := b.NextEndpoint("web", from(i), Tried{})
		if err != nil {
			t.Fatal(err)
		}
		m.Done()
		ids[i] = m.ID
	}
	return ids
}

// rendezvous is a plain implementation of weighted rendezvous hashing over all endpoints.
func rendezvous(set []Endpoint, src netip.Addr) string {
	best, id := -1.0, ""
	for _, e := range set {
		number := (float64(mix(hashAddr(src)^hashID(e.ID))>>11) + 0.5) / (1 << 53)
		if score := -float64(e.Weight) / math.Log(number); score > best {
			best, id = score, e.ID
		}
	}
	return id
}

// In a set of up to manyMembers, the policy picks exactly the endpoint of plain rendezvous hashing.
func TestSourceHashIsRendezvousHashing(t *testing.T) {
	for _, n := range []int{1, 2, 100, manyMembers} {
		for _, weighted := range []bool{false, true} {
			set := sized(n, weighted)
			for i, id := range homes(t, balanced(Options{Policy: PolicySourceHash}, set...), 500) {
				if want := rendezvous(set, from(i).Addr()); id != want {
					t.Errorf("of %d endpoints, weighted %v, client %d has %s, want %s", n, weighted, i, id, want)
				}
			}
		}
	}
}

// When the number of endpoints passes manyMembers, very few clients move.
func TestSourceHashBordersAreNoCliff(t *testing.T) {
	const clients = 10000
	for _, weighted := range []bool{false, true} {
		set := sized(manyMembers+1, weighted)
		b := balanced(Options{Policy: PolicySourceHash}, set[:manyMembers]...)
		before := homes(t, b, clients)
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: set}})
		moved := 0
		for i, id := range homes(t, b, clients) {
			if id != before[i] {
				moved++
			}
		}
		if most := 4 * clients / manyMembers; moved == 0 || moved > most {
			t.Errorf("weighted %v: %d of %d clients moved, want some and at most %d", weighted, moved, clients, most)
		}
	}
}

// When one of many endpoints leaves, its clients move, and about as many others. When the endpoint is back, all clients
// are back at their first endpoints.
func TestSourceHashMovesFewOfALargeSet(t *testing.T) {
	const clients = 4000
	for _, weighted := range []bool{false, true} {
		t.Run(fmt.Sprint(weighted), func(t *testing.T) {
			set := sized(large, weighted)
			b := balanced(Options{Policy: PolicySourceHash}, set...)
			before := homes(t, b, clients)
			const changes = 3
			own, others := 0, 0
			for i := range changes {
				b.OnUpdate([]Endpoints{{Service: "web", Endpoints: slices.Delete(slices.Clone(set), i, i+1)}})
				for c, id := range homes(t, b, clients) {
					switch {
					case before[c] == set[i].ID:
						own++
						if id == set[i].ID {
							t.Fatalf("client %d is at an endpoint that has left", c)
						}
					case id != before[c]:
						others++
					}
				}
			}
			t.Logf("%d changes of %d endpoints moved %d clients of those, and %d others", changes, large, own, others)
			if own == 0 || others > 3*own {
				t.Errorf("%d clients moved besides %d whose endpoint left", others, own)
			}
			b.OnUpdate([]Endpoints{{Service: "web", Endpoints: set}})
			if !slices.Equal(homes(t, b, clients), before) {
				t.Error("clients are elsewhere after all are back")
			}
		})
	}
}

// The ejection of an endpoint moves only the endpoint's own clients, and they return with it.
func TestSourceHashEjectionInALargeSetMovesOnlyWhoMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // synctest keeps the endpoint ejected: real time would allow a trial
		b := balanced(Options{Policy: PolicySourceHash}, sized(large, true)...)
		before := homes(t, b, 5000)
		m, _ := b.NextEndpoint("web", from(5), Tried{})
		m.Failed(Refused)
		m.Done()
		for i, id := range homes(t, b, 5000) {
			if moved := id != before[i]; moved != (before[i] == m.ID) {
				t.Fatalf("client %d of %s is with %s", i, before[i], id)
			}
		}
		m.Reached()
		if !slices.Equal(homes(t, b, 5000), before) {
			t.Error("clients are elsewhere after it is back")
		}
	})
}

// In a set of any size, a client is scored with a limited number of endpoints, and every endpoint has clients.
func TestCellsAreBounded(t *testing.T) {
	for _, n := range []int{manyMembers + 1, large, 65536} {
		for _, weighted := range []bool{false, true} {
			set := sized(n, weighted)
			set[3].Weight *= n // half of all
			h := newSourceHash(webGroup(balanced(Options{}, set...)).state.Load().roster)
			in := make([]int, n)
			for cell := range numCells {
				list := h.cells.indexes[h.cells.offsets[cell]:h.cells.offsets[cell+1]]
				if len(list) > 3*manyMembers {
					t.Errorf("cell %d of %d endpoints has %d", cell, n, len(list))
				}
				for _, i := range list {
					in[i]++
				}
			}
			if i := slices.Index(in, 0); i >= 0 {
				t.Errorf("endpoint %d of %d is in no cell", i, n)
			}
		}
	}
}
