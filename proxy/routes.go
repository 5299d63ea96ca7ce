package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/lb"
)

// tenants are the services of a listener. Most listeners have one. A tenants that an engine has is immutable.
type tenants struct {
	service *service // with routes: see routes.first
	routes  *routes  // nil: service gets all clients
}

// all returns all services of the listener.
func (t *tenants) all() []*service {
	if t.routes == nil {
		return []*service{t.service}
	}
	return t.routes.services
}

// mayConnect reports whether a TCP connection from peer may begin: whether peer may use any of the services.
func (t *tenants) mayConnect(peer netip.Addr) bool {
	if t.service.mayConnect(peer) {
		return true
	}
	mayUse := func(s *service) bool { return s.mayConnect(peer) }
	return t.routes != nil && slices.ContainsFunc(t.routes.services, mayUse)
}

// choose returns the service for a client whose first message is m.
func (t *tenants) choose(m firstMessage) (*service, error) {
	if t.routes == nil { // a reload has ended the sharing meanwhile
		return t.service, nil
	}
	return t.routes.choose(m)
}

// A wantedSocket is a listener that a configuration has.
type wantedSocket struct {
	tenants
	file SocketFile // zero unless it is a Unix socket

	services []*service
	specs    []*Service
}

// wantedOf returns the listeners of services, whose names are those of next.
func wantedOf(services []Service, next map[string]*service) (map[socketKey]*wantedSocket, error) {
	all := make(map[socketKey]*wantedSocket, len(services))
	for i := range services {
		spec := &services[i]
		for key, f := range keysOf(spec) {
			w := all[key]
			if w == nil {
				w = &wantedSocket{}
				all[key] = w
			}
			w.file = f
			w.services, w.specs = append(w.services, next[spec.Name]), append(w.specs, spec)
		}
	}
	for key, w := range all {
		r, err := newRoutes(w.services, w.specs)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", key.addr, err)
		}
		if w.service, w.routes = w.services[0], r; r != nil {
			w.service = r.first()
		}
	}
	return all, nil
}

// keysOf returns the keys of all listeners of s, and where those with a path are.
func keysOf(s *Service) map[socketKey]SocketFile {
	all := make(map[socketKey]SocketFile, len(s.Listen)+len(s.Sockets))
	for _, addr := range s.Listen {
		all[keyOf(s, addr)] = SocketFile{}
	}
	for _, f := range s.Sockets {
		all[socketKey{protocol: s.Protocol, addr: lb.Addr{Path: f.Path}}] = f
	}
	return all
}

func keyOf(s *Service, addr netip.AddrPort) socketKey {
	key := socketKey{protocol: s.Protocol, addr: lb.Addr{AddrPort: addr}}
	if addr.Port() == 0 {
		key.name = s.Name
	}
	return key
}

// routes say which service of a shared listener gets a client, by the server name in the client's ClientHello. A routes
// is immutable; a listener gets another one when its services change.
type routes struct {
	services  []*service          // all services of the listener
	exact     map[string]*service // by name, in lower case and without a dot at the end
	wildcards map[string]*service // by the part of the name behind "*."
	rest      *service            // the service without names; nil: clients that fit no name are refused
}

// newRoutes returns the routes among services, whose specifications are specs. newRoutes returns nil if there is
// nothing to choose: one service without names.
func newRoutes(services []*service, specs []*Service) (*routes, error) {
	shared := len(services) > 1 || len(specs[0].SNI) > 0
	r := &routes{services: services, exact: map[string]*service{}, wildcards: map[string]*service{}}
	for i, spec := range specs {
		if shared && (spec.AcceptTLS != nil || spec.EndpointTLS != nil) {
			return nil, fmt.Errorf("service %q: a listener with SNI passes TLS on as it is, "+
				"so AcceptTLS and EndpointTLS cannot be used with it", spec.Name)
		}
		if len(spec.SNI) == 0 {
			if r.rest != nil {
				return nil, fmt.Errorf("services %q and %q share a listener, and both have no names",
					r.rest.name(), spec.Name)
			}
			r.rest = services[i]
		}
		for _, name := range spec.SNI {
			to := r.exact
			if behind, is := strings.CutPrefix(name, "*."); is {
				to, name = r.wildcards, behind
			}
			if other := to[name]; other != nil {
				return nil, fmt.Errorf("services %q and %q share a listener and the name %q",
					other.name(), spec.Name, name)
			}
			to[name] = services[i]
		}
	}
	if r.rest != nil && len(services) == 1 {
		return nil, nil
	}
	return r, nil
}

// first returns the service to which a client counts as long as its own service is not known: the one without names, or
// else the first by name.
func (r *routes) first() *service {
	if r.rest != nil {
		return r.rest
	}
	return slices.MinFunc(r.services, func(a, b *service) int { return strings.Compare(a.name(), b.name()) })
}

// named returns the service with a server name, or nil if there is none. A wildcard stands for exactly one label.
func (r *routes) named(name []byte) *service {
	var buf [256]byte
	if len(name) > len(buf) {
		return nil
	}
	lower := buf[:len(name)]
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	if s := r.exact[string(lower)]; s != nil {
		return s
	}
	if dot := slices.Index(lower, '.'); dot > 0 {
		return r.wildcards[string(lower[dot+1:])]
	}
	return nil
}

// choose returns the service for a client whose first message is m.
func (r *routes) choose(m firstMessage) (*service, error) {
	if len(m.name) > 0 {
		if s := r.named(m.name); s != nil {
			return s, nil
		}
	}
	if r.rest != nil {
		return r.rest, nil
	}
	switch {
	case !m.tls:
		return nil, errPlaintext
	case len(m.name) == 0:
		return nil, errNoName
	}
	return nil, fmt.Errorf("%w: no service of this listener has the name %q", errNoRoute, m.name)
}

// errNoRoute refuses a client of a shared listener whose first bytes choose no service.
var errNoRoute = errors.New("sni")

var (
	errNoName = fmt.Errorf("%w: the client sent no server name, and the listener has no service without sni",
		errNoRoute)
	errPlaintext = fmt.Errorf("%w: the client does not speak TLS, and the listener has no service without sni; "+
		"that service would also get PostgreSQL's cancel requests", errNoRoute)
	errEndedWithin = fmt.Errorf("%w: the client ended within its ClientHello", errNoRoute)
	errUnroutable  = fmt.Errorf("%w: no whole ClientHello came within %v; "+
		"if the server of this protocol speaks first, such a service needs a listener of its own",
		errNoRoute, peekTimeout)
)
