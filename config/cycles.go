package config

import (
	"net/netip"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// A staticClaim is a static endpoint, and the service that has it.
type staticClaim struct {
	endpoint StaticEndpoint
	protocol Protocol
	service  string
	text     string // as it is written
	at       hcl.Range
}

// A walk looks for static endpoints that lead back to their own service: from a service to its static endpoints, from
// those that are listeners here to their services, and so on. It comes to each service once.
type walk struct {
	loader *loader
	host   string // this host's name, in lower case
	static map[serviceKey][]staticClaim
	path   []serviceKey       // from where the walk began to where it is
	place  map[serviceKey]int // where a service is on the path; behind: the walk has left it
}

const writeInstance = "Write the address of an instance."

// behind is the place of services that the walk has left.
const behind = -1

// A serviceKey tells services apart of which TCP and UDP never meet.
type serviceKey struct {
	protocol Protocol
	name     string
}

// cycles reports static endpoints that lead back to their own service, or to the admin API. It comes last, for it needs
// all listeners.
func (l *loader) cycles() {
	w := walk{loader: l, static: map[serviceKey][]staticClaim{}, place: map[serviceKey]int{}}
	if name, err := l.hostname(); err == nil {
		w.host = strings.ToLower(name)
	}
	for _, c := range l.static {
		key := serviceKey{c.protocol, c.service}
		w.static[key] = append(w.static[key], c)
	}
	for _, c := range l.static {
		w.visit(serviceKey{c.protocol, c.service})
	}
}

func (w *walk) visit(service serviceKey) {
	if _, been := w.place[service]; been {
		return
	}
	w.place[service] = len(w.path)
	w.path = append(w.path, service)
	for _, c := range w.static[service] {
		w.follow(c)
	}
	w.path = w.path[:len(w.path)-1]
	w.place[service] = behind
}

// follow goes on to the services that listen where the endpoint is.
func (w *walk) follow(c staticClaim) {
	port := w.loader.claims[portClaim{c.protocol, c.endpoint.Addr.Port()}]
	for _, listener := range port.at(w.reached(c.endpoint)) {
		next := serviceKey{c.protocol, listener.service}
		at, been := w.place[next]
		switch {
		case listener.api:
			w.loader.problem(c.at.Ptr(), "Admin API as an endpoint", "%q is the admin API of this Lictor: "+
				"whoever reaches the service could drain endpoints and change the configuration. "+writeInstance,
				c.text)
			return
		case been && at == len(w.path)-1:
			w.loader.problem(c.at.Ptr(), "Endless loop", "%q is where this service listens: "+
				"it would forward to itself. "+writeInstance, c.text)
			return
		case been && at != behind:
			w.loader.problem(c.at.Ptr(), "Endless loop", "%q is where service %q listens, which leads back: %s. "+
				writeInstance, c.text, next.name, w.around(at))
			return
		default:
			w.visit(next)
		}
	}
}

// around is the way from the service where the walk is to the one at a place of the path, and on to where it is.
func (w *walk) around(at int) string {
	here := w.path[len(w.path)-1].name
	way := here
	for _, s := range w.path[at:] {
		way += " -> " + s.name
	}
	return way
}

// reached returns the addresses of those listeners to which whoever dials the endpoint surely comes, if there are such
// at its port. Of the other addresses of this host nobody knows here: a configuration may be checked on another one.
func (w *walk) reached(e StaticEndpoint) []netip.Addr {
	wildcard4, wildcard6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	switch host := strings.TrimSuffix(e.Host, "."); {
	case host == "" && e.Addr.Addr().Is4() && e.Addr.Addr().IsLoopback():
		return []netip.Addr{e.Addr.Addr(), wildcard4, wildcard6}
	case host == "" && e.Addr.Addr().IsLoopback():
		return []netip.Addr{e.Addr.Addr(), wildcard6}
	case host == "":
		return []netip.Addr{e.Addr.Addr()}
	case host == "localhost":
		return []netip.Addr{loopback(), netip.IPv6Loopback(), wildcard4, wildcard6}
	case host == w.host:
		return []netip.Addr{wildcard4, wildcard6}
	}
	return nil
}
