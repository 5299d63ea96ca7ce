// Package lb picks the endpoint of a service that serves the next client.
//
// A source of endpoints calls OnUpdate of a [LoadBalancer] with the endpoints of a service. The proxier calls
// NextEndpoint for each connection or UDP session, and reports to the [Member] that it gets how it went:
//
//	b := lb.NewRoundRobin()
//	b.Configure("web", lb.Options{Policy: lb.PolicyLeastConnections})
//	b.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpoints}})
//	m, err := b.NextEndpoint("web", client, lb.Tried{})
//	...                  // dial m.Address(), and report the result:
//	m.Failed(lb.Refused) // or Connected, and then Reached
//	m.Done()             // when the connection has ended
//
// A pick allocates nothing and does not wait for updates. The exception is a pick that tries an ejected endpoint: it
// allocates. A client whose dial failed picks again, with the IDs of the endpoints that it has [Tried]. A Member also
// tells whether its endpoint has left the service, and whether it has left for good.
//
// Endpoints that fail are ejected: no client gets them for a second. Then one client tries the endpoint. The time
// doubles with each failure in a row, up to a minute. All services share what is known about an address. When too many
// endpoints of a service are ejected, its picks ignore ejections.
//
// This package imports no other package of Lictor.
package lb

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
)

var (
	// ErrMissingServiceEntry is returned by NextEndpoint if no update has named the service.
	ErrMissingServiceEntry = errors.New("nothing is known about this service yet")

	// ErrMissingEndpoints is returned by NextEndpoint if the service has no endpoint that may serve this client and was
	// not tried.
	ErrMissingEndpoints = errors.New("no endpoints")

	// ErrFull is returned by NextEndpoint when the client may Wait: those that could serve have as many uses as they
	// may, or the service has, or others wait already, or Options.EmptyWait is not over. Wait returns it when as many
	// wait as may, or for too long.
	ErrFull = errors.New("no endpoint had room")

	// ErrRetryBudget is returned by NextEndpoint to a client that has tried an endpoint, if the remaining endpoints are
	// failing too, and clients have retried so often lately that more retries would add to the overload.
	ErrRetryBudget = errors.New("retry budget exhausted")
)

// An Endpoint is one instance of a service. Endpoints are values: they may be copied and compared.
type Endpoint struct {
	// ID identifies the endpoint within its service, and stays the same while it is the same instance. Discovery makes
	// it of the node and the service ID of a Consul instance. No two endpoints of a service may have the same ID.
	ID string

	// Host is a host name that each dial resolves. If it is empty, Addr is the whole address.
	Host string

	// Addr is where the endpoint listens. If Host is set, only the port is used.
	Addr netip.AddrPort

	// Weight is the endpoint's share of the traffic, relative to the weights of the other endpoints. Zero and negative
	// values count as 1. To send nothing to an endpoint, leave it out of the set.
	Weight int
}

// Address returns the endpoint's address in the form that net.Dial takes: "10.0.0.7:80", "[2001:db8::7]:80" or
// "db.example.com:5432".
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

	// Left holds endpoints that have left the service for good, and why. They have left with this update, or with an
	// earlier one and the reason is known only now. An entry is ignored if Endpoints has an endpoint at its address.
	Left []Departure

	// Removed says that the service itself is gone. Endpoints is ignored then, and picks return
	// ErrMissingServiceEntry.
	Removed bool
}

// A LoadBalancer distributes the clients of services over their endpoints. All methods may be called concurrently.
type LoadBalancer interface {
	// NextEndpoint returns the endpoint that should serve the next connection or session of service from the client
	// at src. It never returns an endpoint whose ID is in tried. The caller must call Done of the Member exactly once.
	//
	// The error is ErrMissingServiceEntry, ErrMissingEndpoints, ErrFull or, if tried is not empty, ErrRetryBudget.
	NextEndpoint(service string, src netip.AddrPort, tried Tried) (*Member, error)

	// OnUpdate replaces the endpoints of the services named in updates, and leaves all other services as they are.
	// So several sources (Consul, static lists) can update one balancer, each its own services. The balancer keeps no
	// reference to updates. After OnUpdate has returned, endpoints that are gone are not picked, and Left of their
	// Members is true.
	OnUpdate(updates []Endpoints)

	// Wait puts a client that NextEndpoint told ErrFull into the queue of its service. It calls ready once, from any
	// goroutine: with a Member when it is this client's turn, or with the error why there will be none. It returns an
	// error if the client cannot wait.
	Wait(service string, src netip.AddrPort, tried Tried, ready func(*Member, error)) (*Waiter, error)

	// NotifyGone sets the callback for Members whose endpoint has left for good. The callback must not block, and must
	// not call the LoadBalancer. Call NotifyGone before the first OnUpdate.
	NotifyGone(f func([]*Member))

	// Take returns the Member of one endpoint without a pick, for a client that an earlier process has paired with
	// it. It returns nil if the service does not have the endpoint. Otherwise the caller must call Done exactly once.
	Take(service string, e Endpoint) *Member
}

// MaxTried is how many IDs a Tried holds.
const MaxTried = 7

// Tried is the set of the endpoint IDs that a client has tried, which its next pick avoids. It is a value, so that
// picks allocate nothing. The zero value is empty.
type Tried struct {
	ids [MaxTried]string
	n   int
}

// Add adds id to the set. If the set has MaxTried IDs already, id replaces the oldest.
func (t *Tried) Add(id string) {
	t.ids[t.n%MaxTried] = id
	t.n++
}

// Has reports whether id is in the set.
func (t *Tried) Has(id string) bool {
	for i := range min(t.n, MaxTried) {
		if t.ids[i] == id {
			return true
		}
	}
	return false
}

// Len returns the number of IDs in the set.
func (t *Tried) Len() int { return min(t.n, MaxTried) }
