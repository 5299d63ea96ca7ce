package lb

// RoundRobin is a LoadBalancer that gives every endpoint its turn, weighted endpoints as many turns as their weight
// says, spread evenly: 3:1:1 goes A B A C A, not A A A B C. See rotation for what holds exactly. It is a Balancer
// with nothing configured.
type RoundRobin struct{ *Balancer }

var _ LoadBalancer = (*RoundRobin)(nil)

// NewRoundRobin returns a RoundRobin that knows no service yet.
func NewRoundRobin() *RoundRobin { return &RoundRobin{NewBalancer()} }
