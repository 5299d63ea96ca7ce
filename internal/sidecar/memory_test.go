package sidecar

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func free(uint16) bool { return false }

func TestAssignPrefersTheFormerPort(t *testing.T) {
	now := time.Unix(1000, 0)
	m := newMemory(Ports{21000, 21003})
	assign := func(id string, hint uint16, taken func(uint16) bool, want uint16) {
		t.Helper()
		now = now.Add(time.Second)
		if got, ok := m.assign(id, hint, taken, now); got != want || ok != (want != 0) {
			t.Fatalf("%s: got %d, %v, want %d", id, got, ok, want)
		}
	}
	except := func(ports ...uint16) func(uint16) bool {
		return func(n uint16) bool {
			for _, p := range ports {
				if n == p {
					return true
				}
			}
			return false
		}
	}
	assign("a", 0, free, 21000)
	assign("b", 0, except(21000), 21001)
	assign("a", 0, free, 21000)
	assign("c", 21003, except(21000, 21001), 21003)
	assign("d", 9, except(21000, 21001, 21003), 21002) // the hint is out of the range
	m.leave("b", now.Add(time.Second))
	m.leave("c", now.Add(2*time.Second))
	assign("e", 0, except(21000, 21002), 21001) // b left before c
	assign("c", 0, except(21000, 21001, 21002), 21003)
	assign("b", 0, free, 21000) // its own port belongs to e now, and a did not use its port for longest
	assign("f", 0, func(uint16) bool { return true }, 0)
}

func TestAMemoryOfOnePort(t *testing.T) {
	m := newMemory(Ports{65535, 65535})
	for _, id := range []string{"a", "b", "a"} {
		if n, ok := m.assign(id, 0, free, time.Now()); n != 65535 || !ok {
			t.Errorf("%s: got %d, %v", id, n, ok)
		}
	}
	if len(m.ports) != 1 {
		t.Errorf("remembers %v", m.ports)
	}
}

// Whatever happens, ports are unique and in the range, and an instance keeps its port as long as nobody takes it.
func TestAssignKeepsItsPromises(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	within := Ports{100, 107}
	m, using, outside := newMemory(within), map[string]uint16{}, map[uint16]bool{}
	now := time.Unix(0, 0)
	taken := func(n uint16) bool {
		for _, used := range using {
			if used == n {
				return true
			}
		}
		return outside[n]
	}
	for step := range 20000 {
		now = now.Add(time.Second)
		id := fmt.Sprint("web", random.IntN(14))
		switch _, has := using[id]; {
		case random.IntN(4) == 0:
			n := within.First + uint16(random.IntN(8))
			outside[n] = !outside[n]
		case has:
			delete(using, id)
			m.leave(id, now)
		default:
			former := m.ports[id].number
			n, ok := m.assign(id, uint16(random.IntN(120)), taken, now)
			anyFree := false
			for p := within.First; p <= within.Last; p++ {
				anyFree = anyFree || !taken(p)
			}
			switch {
			case ok != anyFree, ok && (!within.holds(n) || taken(n)):
				t.Fatalf("seed %d, step %d: got %d, %v, and any free is %v", seed, step, n, ok, anyFree)
			case former != 0 && !taken(former) && n != former:
				t.Fatalf("seed %d, step %d: got %d, and had %d, which is free", seed, step, n, former)
			}
			if ok {
				using[id] = n
			}
		}
		seen := map[uint16]string{}
		for id, p := range m.ports {
			if seen[p.number] != "" || !within.holds(p.number) {
				t.Fatalf("seed %d, step %d: %s and %s have port %d", seed, step, id, seen[p.number], p.number)
			}
			seen[p.number] = id
		}
		for id, n := range using {
			if m.ports[id].number != n {
				t.Fatalf("seed %d, step %d: %s uses %d, and the memory says %d", seed, step, id, n, m.ports[id].number)
			}
		}
	}
}

// FuzzPorts checks that a file is refused, or that what it says can be used and is the same after writing it.
func FuzzPorts(f *testing.F) {
	good, err := encodePorts(savedPorts{Owners: []string{"10.0.0.5:1-2"}, Ports: []savedPort{
		{"web-1", 21000, time.Date(2026, 11, 30, 5, 0, 0, 1, time.UTC)}, {"é\n", 65535, time.Time{}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("lictor-sidecars 1 x\n{}"))
	f.Fuzz(func(t *testing.T, file []byte) {
		all, err := decodePorts(file)
		if err != nil {
			if !reflect.DeepEqual(all, savedPorts{}) {
				t.Errorf("an error and %v", all)
			}
			return
		}
		seen := map[uint16]bool{}
		for _, p := range all.Ports {
			if p.Port == 0 || p.Instance == "" || seen[p.Port] {
				t.Errorf("accepted %v", all.Ports)
			}
			seen[p.Port] = true
		}
		again, err := encodePorts(all)
		if err != nil {
			return // a time that JSON does not have
		}
		if back, err := decodePorts(again); err != nil || len(back.Ports) != len(all.Ports) {
			t.Errorf("%v came back as %v, %v", all, back, err)
		}
	})
}
