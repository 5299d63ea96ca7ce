// Package lb is the load balancer: it picks the endpoint of a service that serves the next client.
//
// A source of endpoints calls OnUpdate of a [LoadBalancer] with the endpoints of a service. The proxier calls
// NextEndpoint for each connection or UDP session. NextEndpoint returns a [Member], and the proxier reports to the
// Member how the connection went:
//
//	b := lb.NewRoundRobin()
//	b.Configure("web", lb.Options{Policy: lb.PolicyLeastConnections})
//	b.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: endpoints}})
//	m, err := b.NextEndpoint("web", client, lb.Tried{})
//	...                  // dial m.Address(), and report the result:
//	m.Failed(lb.Refused) // or Connected, and then Reached
//	m.Done()             // when the connection has ended
//
// A pick does not wait for updates. A pick allocates memory only when it tries an ejected endpoint. After a failed
// dial, a client picks again, and passes the IDs of the endpoints that it has [Tried]. A Member also reports whether
// its endpoint has left the service, and whether the endpoint has left for good.
//
// The balancer ejects an endpoint that fails: for a short time, no client gets the endpoint. After that time, one
// client tries the endpoint. The ejection time doubles with each failure in a row, from a second to a minute. For
// refused TCP connections, the first ejections are much shorter than a second. All services share the health of an
// address. When too many endpoints of a service are ejected, its picks ignore ejections.
//
// Package lb imports only small packages of Lictor: internal/allowance, internal/deadline and internal/proxyproto.
package lb

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
)

var (
	// ErrMissingServiceEntry is returned by NextEndpoint if no update has named the service yet.
	ErrMissingServiceEntry = errors.New("the endpoints of this service are not known yet")

	// ErrMissingEndpoints is returned by NextEndpoint if the service has no endpoint left that may serve the client.
	// Endpoints that the client has already tried do not count.
	ErrMissingEndpoints = errors.New("no endpoints")

	// ErrFull is returned by NextEndpoint when the client may call Wait. The service or its usable endpoints have
	// reached their limit of open uses, or other clients already wait, or Options.EmptyWait is not over. Wait returns
	// ErrFull when the queue is full, or when the client has waited for too long.
	ErrFull = errors.New("connection limit reached")

	// ErrRetryBudget is returned by NextEndpoint to a client that has already tried an endpoint, if the remaining
	// endpoints are failing too. Clients have retried so often lately that more retries would add to the overload.
	ErrRetryBudget = errors.New("retry budget exhausted")
)

// An Endpoint is one instance of a service. Endpoints are values: they may be copied and compared.
type Endpoint struct {
	// ID identifies the endpoint within its service. The ID stays the same for as long as the instance is the same. For
	// a Consul instance, discovery builds the ID from the node and the service ID. No two endpoints of a service may
	// have the same ID.
	ID string

	// Host is a host name that each dial resolves. If Host and Path are empty, Addr is the whole address.
	Host string

	// Path is the absolute path of a Unix stream socket on this host. If Path is set, Host and Addr are zero.
	Path string

	// Addr is the address at which the endpoint listens. If Host is set, only the port of Addr is used.
	Addr netip.AddrPort

	// Weight is the endpoint's share of the traffic, relative to the weights of the other endpoints. Zero and negative
	// weights count as 1. To send no traffic to an endpoint, leave the endpoint out of the set.
	Weight int

	// Zone is the part of the network in which the endpoint is, as far as the service's clients distinguish parts: for
	// example a zone, a region or a rack. An empty Zone is a zone too, of endpoints for which it is not known. Near
	// says that the endpoint is in the same part as this host. Both matter only with Options.Prefer.
	Zone string
	Near bool

	// ServerName is the host name or IP address that the instance's registration gives for the endpoint's certificate.
	// An empty ServerName means that the registration gives none, or was not asked for one.
	ServerName string

	// Identity is who the endpoint is in Consul's service mesh: the path of a SPIFFE ID without the trust domain, such
	// as "/ns/default/dc/dc1/svc/billing". An empty Identity means that the endpoint is not one of the mesh.
	Identity string
}

// A Place is where an endpoint is: all fields of its address, and no other field. Places may be compared.
type Place struct {
	Host, Path string
	Addr       netip.AddrPort
}

// Place returns where e is.
func (e Endpoint) Place() Place { return Place{e.Host, e.Path, e.Addr} }

// At returns the address of e, if e has no host name.
func (e Endpoint) At() Addr { return Addr{AddrPort: e.Addr, Path: e.Path} }

// Address returns the endpoint's address as text: "10.0.0.7:80", "[2001:db8::7]:80", "db.example.com:5432" or
// "unix:///run/pg.sock".
func (e Endpoint) Address() string {
	if e.Host != "" {
		return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Addr.Port())))
	}
	return e.At().String()
}

// Endpoints is the whole set of one service's endpoints, in no particular order.
type Endpoints struct {
	Service   string
	Endpoints []Endpoint

	// Left holds endpoints that have left the service for good, with the reasons. An endpoint of Left may leave with
	// this update, or may have left with an earlier one and the reason is known only now. The balancer ignores an entry
	// of Left if Endpoints has an endpoint at the same address.
	Left []Departure

	// Removed says that the service itself is gone. If Removed is true, the balancer ignores Endpoints, and picks
	// return ErrMissingServiceEntry.
	Removed bool
}

// A LoadBalancer distributes the clients of services over their endpoints. All methods may be called concurrently.
type LoadBalancer interface {
	// NextEndpoint returns the endpoint that should serve the next connection or session of service from the client at
	// src. NextEndpoint never returns an endpoint with an ID in tried. The caller must call Done of the Member exactly
	// once.
	//
	// The error is ErrMissingServiceEntry, ErrMissingEndpoints, ErrFull or, if tried is not empty, ErrRetryBudget.
	NextEndpoint(service string, src netip.AddrPort, tried Tried) (*Member, error)

	// OnUpdate replaces the endpoints of the services named in updates. All other services stay as they are, so several
	// sources (Consul, static lists) can update one balancer. The balancer keeps no reference to updates. After
	// OnUpdate has returned, removed endpoints are not picked, and their Members report Left.
	OnUpdate(updates []Endpoints)

	// Wait puts a client that got ErrFull from NextEndpoint into the queue of its service. Wait calls ready once, from
	// any goroutine: with a Member when it is the client's turn, or with an error that says why the client gets none.
	// Wait returns an error if the client cannot wait.
	Wait(service string, src netip.AddrPort, tried Tried, ready func(*Member, error)) (*Waiter, error)

	// NotifyGone sets the callback for endpoints that have left for good. The callback gets their Members. The callback
	// must not block, and must not call the LoadBalancer. Call NotifyGone before the first OnUpdate.
	NotifyGone(f func([]*Member))

	// Take returns the Member of the endpoint e without a pick. Take is for a client that an earlier process has paired
	// with e. Take returns nil if the service does not have e; otherwise the caller must call Done exactly once.
	Take(service string, e Endpoint) *Member
}

// MaxTried is the number of endpoint IDs that a Tried can hold.
const MaxTried = 7

// Tried is the set of endpoint IDs that a client has tried. The client's next pick avoids these endpoints. Tried is a
// value type, so that picks allocate nothing. The zero value is an empty set.
type Tried struct {
	ids [MaxTried]string
	n   int
}

// Add adds id to the set. If the set already holds MaxTried IDs, id replaces the oldest ID.
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
