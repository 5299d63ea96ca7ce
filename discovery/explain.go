package discovery

import (
	"github.com/lictor-proxy/lictor/lb"
)

// An Instance is what is known of one instance of a service: one that Consul names, whatever its health, or one that is in the set
// although Consul does not name it any more.
type Instance struct {
	lb.Endpoint        // its ID, and its address and weight if it has ones that can be used
	Status      string // that its checks and its node's come to: "passing", "warning" or "critical"
	Out         Out    // why it is not in the set; empty: it is
	Detail      string // what there is to say about that, in a line: which check it is and what the check says
}

// Out is why an instance is not in the set.
type Out string

// The reasons there are.
const (
	OutStatus      Out = "status"      // a check of it or its node is worse than the query admits
	OutMaintenance Out = "maintenance" // somebody has put it or its node into maintenance
	OutAddress     Out = "address"     // it has none that could be dialled
	OutDuplicate   Out = "duplicate"   // another instance has the same address
	OutWeight      Out = "weight"      // it is to get no traffic in the status that it has
)
