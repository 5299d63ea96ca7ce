package config

import (
	"net/netip"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// A staticClaim is a static endpoint of a service.
type staticClaim struct {
	endpoint StaticEndpoint
	protocol Protocol
	service  string
	text     string // the endpoint as written
	at       hcl.Range
}

// A walk finds static endpoints that lead back to their own service. It follows each service's static endpoints to the
// services of this configuration that listen there, and so on. It visits each service once.
type walk struct {
	loader *loader
	host   string // this host's name, in lower case
	static map[serviceKey][]staticClaim
	path   []serviceKey       // the services from the start of the walk to the current one
	place  map[serviceKey]int // index of a service in path, or behind
}

const writeInstance = "Write the address of an instance."

// behind marks services that the walk has visited and left.
const behind = -1

// A serviceKey identifies a service for the walk. A TCP service never leads to a UDP service.
type serviceKey struct {
	protocol Protocol
	name     string
}

// cycles reports static endpoints that lead back to their own service or to the admin API. It must run last, because it
// needs all listeners.
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

// follow visits the services that listen where the endpoint is, and reports a loop.
func (w *walk) follow(c staticClaim) {
	for _, listener := range w.listenersAt(c) {
		next := serviceKey{c.protocol, listener.service}
		at, been := w.place[next]
		switch {
		case listener.api:
			w.loader.problem(c.at.Ptr(), "Admin API as an endpoint", "%q is the admin API of this Lictor: "+
				"every client of the service could drain endpoints and change the configuration. "+writeInstance,
				c.text)
			return
		case been && at == len(w.path)-1:
			w.loader.problem(c.at.Ptr(), "Endless loop", "%q is where this service listens: "+
				"the service would forward to itself. "+writeInstance, c.text)
			return
		case been && at != behind:
			w.loader.problem(c.at.Ptr(), "Endless loop", "%q is where service %q listens, "+
				"and that leads back here: %s. "+writeInstance, c.text, next.name, w.around(at))
			return
		default:
			w.visit(next)
		}
	}
}

// listenersAt returns the listeners that surely receive a connection to the endpoint.
func (w *walk) listenersAt(c staticClaim) []*claim {
	var firsts, all []*claim
	if c.endpoint.Path == "" {
		firsts = w.loader.claims[portClaim{c.protocol, c.endpoint.Addr.Port()}].at(w.reached(c.endpoint))
	} else if socket := w.loader.sockets[c.endpoint.Path]; socket != nil {
		firsts = []*claim{socket}
	}
	for _, first := range firsts {
		all = append(append(all, first), first.sharers...)
	}
	return all
}

// around describes the loop for a message: from the current service to the service at index at of the path, and on to
// the current one.
func (w *walk) around(at int) string {
	here := w.path[len(w.path)-1].name
	way := here
	for _, s := range w.path[at:] {
		way += " -> " + s.name
	}
	return way
}

// reached returns the listen addresses that surely receive a connection to the endpoint, if there are listeners on
// them. Other addresses of this host are not known here, because a configuration may be validated on another host.
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
