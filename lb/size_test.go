package lb

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// sized returns n endpoints. Their weights are 1 to 5 in turn if weighted is true, and 1 otherwise.
func sized(n int, weighted bool) []Endpoint {
	set := make([]Endpoint, n)
	for i := range set {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		set[i] = Endpoint{ID: fmt.Sprintf("node-%d/web-%d", i, i), Addr: netip.AddrPortFrom(addr, 80), Weight: 1}
		if weighted {
			set[i].Weight = 1 + i%5
		}
	}
	return set
}

// BenchmarkSize shows how the cost of a pick grows with the number of endpoints.
func BenchmarkSize(b *testing.B) {
	for _, n := range []int{3, 1000, 65536} {
		for _, p := range allPolicies() {
			b.Run(fmt.Sprintf("%v/%d", p, n), func(b *testing.B) {
				set := sized(n, false)
				var tried Tried
				tried.Add(set[0].ID)
				benchUse(b, "equal", balanced(Options{Policy: p}, set...), Tried{})
				benchUse(b, "weighted", balanced(Options{Policy: p}, sized(n, true)...), Tried{})
				benchUse(b, "sticky", balanced(Options{Policy: p, Sticky: time.Hour}, set...), Tried{})
				benchUse(b, "tried", balanced(Options{Policy: p}, set...), tried)
				benchUse(b, "half_ejected", halfEjected(balanced(Options{Policy: p}, set...)), Tried{})
				benchFull(b, "full", balanced(Options{Policy: p, MaxPerEndpoint: 1}, set...))
			})
		}
	}
}

func benchUse(b *testing.B, name string, lb *RoundRobin, tried Tried) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			m, err := lb.NextEndpoint("web", from(i&1023), tried)
			if err != nil {
				b.Fatal(err)
			}
			m.Connected()
			m.Reached()
			m.Done()
		}
	})
}

// benchFull measures a pick when all endpoints are full.
func benchFull(b *testing.B, name string, lb *RoundRobin) {
	v, _ := lb.services.Load("web")
	for _, m := range v.(*group).state.Load().members {
		v.(*group).claim(v.(*group).state.Load(), m)
	}
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := lb.NextEndpoint("web", from(i&1023), Tried{}); err != ErrFull {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkUpdate measures an update that replaces one endpoint of many, and the ejection of one endpoint.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{3, 1000, 65536} {
		for _, p := range allPolicies() {
			set := sized(n+1, false)
			lb := balanced(Options{Policy: p}, set[:n]...)
			b.Run(fmt.Sprintf("%v/%d", p, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					set[i%n], set[n] = set[n], set[i%n]
					lb.OnUpdate([]Endpoints{{Service: "web", Endpoints: set[:n]}})
				}
			})
		}
		lb := balanced(Options{MinAvailable: -1}, sized(n, false)...)
		v, _ := lb.services.Load("web")
		members := v.(*group).state.Load().members
		b.Run(fmt.Sprintf("ejected/%d", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				m := members[i%n]
				m.Failed(Refused)
				m.Reached()
			}
		})
	}
}
