// Package lb answers one question: which endpoint of a service is next?
//
// Discovery tells a [LoadBalancer] what endpoints there are, by OnUpdate; the proxier asks it for one,
// by NextEndpoint, for each connection or UDP session:
//
//	b := lb.NewRoundRobin()
//	b.Configure("web", lb.Options{Policy: lb.PolicyLeastConnections})
//	b.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpoints}})
//	m, err := b.NextEndpoint("web", client, lb.Tried{})
//	...                  // dial m.Address(), and tell how it went:
//	m.Failed(lb.Refused) // or Connected, and then Reached
//	m.Done()             // when the connection has ended
//
// A pick allocates nothing and never waits for discovery; but the one pick that tries an ejected endpoint allocates
// its trial. Whoever fails to reach an endpoint asks again with that endpoint among the [Tried] ones. A [Member]
// also tells, for as long as somebody holds on to it, whether the endpoint has left its service, and whether that is
// for good.
//
// Endpoints that fail are ejected: left out for a second, which doubles with each failure in a row up to a minute,
// and then tried by one connection. That is known by address, to all services. When too many of a service seem dead,
// its picks take no notice.
//
// This is the ground floor: it imports no other room of Lictor.
package lb

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
)

var (
	// ErrMissingServiceEntry is returned by NextEndpoint for a service that no update has named so far: nothing is
	// known about it.
	ErrMissingServiceEntry = errors.New("nothing is known about this service yet")

	// ErrMissingEndpoints is returned by NextEndpoint for a service that is known to have no endpoint, or none that
	// was not tried.
	ErrMissingEndpoints = errors.New("no endpoints")

	// ErrFull is returned by NextEndpoint when those that could serve have as many uses as they may, or the service
	// has, or others wait already; and by Wait when as many wait as may, or for too long.
	ErrFull = errors.New("no endpoint had room")

	// ErrRetryBudget is returned by NextEndpoint to who has tried an endpoint, when the others that are left fail
	// too, and have been tried so often lately that more would only do harm.
	ErrRetryBudget = errors.New("too many endpoints fail to try more of them for each client")
)

// An Endpoint is one instance of a service. Endpoints are values: they may be copied and compared.
type Endpoint struct {
	// ID tells the endpoint from others of its service, and stays the same as long as it is the same instance:
	// discovery keys Consul's instances by node and service ID. A service must not have two endpoints of one ID.
	ID string

	// Host is a host name, to be resolved at each dial. Empty when Addr is the whole address.
	Host string

	// Addr is where the endpoint listens. With Host set only its port counts.
	Addr netip.AddrPort

	// Weight is the endpoint's share of the traffic in proportion to the other endpoints' weights.
	// Zero and negative values count as 1; an endpoint that should get nothing is left out of its set instead.
	Weight int
}

// Address is the endpoint's address as net.Dial takes it: "10.0.0.7:80", "[2001:db8::7]:80" or "db.example.com:5432".
func (e Endpoint) Address() string {
	if e.Host != "" {
		return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Addr.Port())))
	}
	return e.Addr.String()
}

// Endpoints is the whole set of one service's endpoints, in no particular order.
type Endpoints struct {
	Service   string
	Endpoints []Endpoint

	// Left are endpoints that have left the service for good, and why: those that have just left Endpoints, or left
	// earlier, and of which that is known now. An endpoint at whose address there is another one, in Endpoints, has
	// not left.
	Left []Departure

	// Removed says that the service itself is gone; Endpoints is then ignored, and picks return ErrMissingServiceEntry.
	Removed bool
}

// A LoadBalancer distributes the clients of services over their endpoints. All methods may be called concurrently.
type LoadBalancer interface {
	// NextEndpoint returns the endpoint that should serve the next connection or session of service from the client
	// at src. It never returns an endpoint whose ID is in tried. Errors are ErrMissingServiceEntry,
	// ErrMissingEndpoints, ErrFull and, for who has tried some, ErrRetriesHeld. The caller calls Done of what it
	// got, once.
	NextEndpoint(service string, src netip.AddrPort, tried Tried) (*Member, error)

	// OnUpdate replaces the sets of the services named in updates, and leaves all other services as they are:
	// several sources (Consul, static lists) feed one balancer, and each speaks for its own services only. The
	// balancer keeps no reference to updates. When it returns, endpoints that are gone are picked no more, and their
	// Members have left.
	OnUpdate(updates []Endpoints)

	// Wait puts a client that found no room into the queue of its service. It calls ready once, from any goroutine:
	// with a Member when there is room and it is this client's turn, or with the error why there will be none. It
	// returns ErrFull if the client cannot wait.
	Wait(service string, src netip.AddrPort, tried Tried, ready func(*Member, error)) (*Waiter, error)

	// NotifyGone has f called with the Members of a service that have left, or have come back. f must not wait, and
	// must not call the LoadBalancer. Set it before the first OnUpdate.
	NotifyGone(f func([]*Member))

	// Take returns a use of one certain endpoint, which an earlier process has picked for a client; nil if the service
	// does not have that endpoint.
	Take(service string, e Endpoint) *Member
}

// MaxTried is how many endpoints a Tried remembers.
const MaxTried = 7

// Tried is a small set of endpoint IDs: those that one client's pick should avoid. It is a value, so that picks
// allocate nothing. The zero value is empty.
type Tried struct {
	ids [MaxTried]string
	n   int
}

// Add puts id into the set. Once MaxTried IDs are in, further ones replace the oldest.
func (t *Tried) Add(id string) {
	t.ids[t.n%MaxTried] = id
	t.n++
}

// Has tells whether id is in the set.
func (t *Tried) Has(id string) bool {
	for i := range min(t.n, MaxTried) {
		if t.ids[i] == id {
			return true
		}
	}
	return false
}

// Len is how many IDs are in the set.
func (t *Tried) Len() int { return min(t.n, MaxTried) }
