package lb_test

import (
	"fmt"
	"net/netip"

	"github.com/lictor-proxy/lictor/lb"
)

// The endpoints of a service get turns in proportion to their weights.
func ExampleRoundRobin() {
	balancer := lb.NewRoundRobin()
	balancer.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: []lb.Endpoint{
		{ID: "a", Addr: netip.MustParseAddrPort("10.0.0.7:80"), Weight: 3},
		{ID: "b", Addr: netip.MustParseAddrPort("10.0.0.8:80")},
	}}})
	client := netip.MustParseAddrPort("127.0.0.1:50000")
	picks := map[string]int{}
	for range 8 {
		m, err := balancer.NextEndpoint("web", client, lb.Tried{})
		if err != nil {
			fmt.Println(err)
			return
		}
		picks[m.Address()]++
		m.Done()
	}
	fmt.Println(picks)

	_, err := balancer.NextEndpoint("db", client, lb.Tried{})
	fmt.Println(err == lb.ErrMissingServiceEntry)
	// Output:
	// map[10.0.0.7:80:6 10.0.0.8:80:2]
	// true
}

// A service may have a policy other than round robin, and may have limits.
func ExampleRoundRobin_Configure() {
	balancer := lb.NewRoundRobin()
	balancer.Configure("db", lb.Options{Policy: lb.PolicyLeastConnections, MaxPerEndpoint: 1})
	balancer.OnUpdate([]lb.Endpoints{{Service: "db", Endpoints: []lb.Endpoint{
		{ID: "a", Addr: netip.MustParseAddrPort("10.0.0.7:5432")},
		{ID: "b", Addr: netip.MustParseAddrPort("10.0.0.8:5432")},
	}}})
	client := netip.MustParseAddrPort("127.0.0.1:50000")
	for range 3 { // no Done: each connection stays open
		_, err := balancer.NextEndpoint("db", client, lb.Tried{})
		fmt.Println(err)
	}
	// Output:
	// <nil>
	// <nil>
	// connection limit reached
}
