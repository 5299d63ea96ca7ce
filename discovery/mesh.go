package discovery

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/consul/api"
)

// A way holds the parts of an entry that say how an instance leads into Consul's service mesh. Only queries with Mesh
// read them.
type way struct {
	Service *struct {
		Kind, Service, Namespace, Partition string

		Proxy   struct{ DestinationServiceName string }
		Connect struct{ Native bool }
	}
}

// find returns who the instance is in the mesh, and whether it is a terminating gateway. The instance is on node n. If
// the instance does not lead to service, noWay says why.
func (w *way) find(service string, n *entryNode) (identity string, gateway bool, noWay string) {
	s := w.Service
	if s == nil || n == nil {
		return "", false, "has no node or no service"
	}
	var name string
	switch {
	case s.Kind == kindSidecar:
		name = s.Proxy.DestinationServiceName
	case s.Kind == "" && s.Connect.Native:
		name = s.Service
	case s.Kind == kindGateway:
		name, gateway = service, true
	default:
		return "", false, fmt.Sprintf("is not a sidecar, a native instance or a terminating gateway: its kind is %q",
			cut(s.Kind, maxWord))
	}
	if name != service {
		return "", gateway, fmt.Sprintf("leads to the service %q, not to %q: in the mesh, upper and lower case differ",
			cut(name, maxTag), cut(service, maxTag))
	}
	identity = "/ns/" + orDefault(s.Namespace) + "/dc/" + n.Datacenter + "/svc/" + name
	if partition := orDefault(s.Partition); partition != meshDefault {
		identity = "/ap/" + partition + identity
	}
	if !isIdentity(identity) {
		return "", gateway, fmt.Sprintf("would have the SPIFFE ID %q, which is not a valid one", cut(identity, maxTag))
	}
	return identity, gateway, ""
}

// The kinds of services that are ways into the mesh. Native instances have none.
const (
	kindSidecar = string(api.ServiceKindConnectProxy)
	kindGateway = string(api.ServiceKindTerminatingGateway)
)

// meshDefault is the name of Consul's default namespace and partition.
const meshDefault = "default"

func orDefault(name string) string {
	if name == "" {
		return meshDefault
	}
	return name
}

// isIdentity reports whether path is the path of the SPIFFE ID of a service: see lb.Endpoint.Identity. By the SPIFFE ID
// standard, the segments have only these characters. Other characters would have several spellings.
func isIdentity(path string) bool {
	parts := strings.Split(path, "/")
	if len(parts) == 9 && parts[1] == "ap" && isSegment(parts[2]) {
		parts = parts[2:]
	}
	return len(parts) == 7 && len(path) <= maxID && path[0] == '/' &&
		parts[1] == "ns" && isSegment(parts[2]) && parts[3] == "dc" && isSegment(parts[4]) &&
		parts[5] == "svc" && isSegment(parts[6])
}

func isSegment(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-._", r))
	})
}

// A meshRule says which names the endpoints of a query with Mesh have.
type meshRule struct {
	service string // Query.Service
	sni     string // Query.sni
	domain  string // the mesh's trust domain; needed only for gateways, if sni is empty
}

// find returns the Identity and the ServerName of e. The error says why e is no way to the service.
func (r *meshRule) find(e *entry) (identity, serverName string, err error) {
	s := e.Service
	switch {
	case s.NoWay != "":
		return "", "", errors.New(s.NoWay)
	case r.sni != "":
		serverName = r.sni
	case s.Gateway:
		serverName = strings.Join([]string{r.service, meshDefault, e.Node.Datacenter, "internal", r.domain}, ".")
	}
	if serverName == "" || isServerName(serverName) {
		return s.Identity, serverName, nil
	}
	if s.Gateway {
		return "", "", fmt.Errorf("is a terminating gateway, and %q cannot be asked for by name",
			cut(serverName, maxTag))
	}
	return s.Identity, "", nil
}

// isGateway reports whether e is a terminating gateway. Such a gateway serves several services, and knows by the server
// name which one a client wants.
func isGateway(e *entry) bool { return e != nil && e.Service != nil && e.Service.Gateway }

// errNoDomain is the error of an answer with a terminating gateway while the name to ask it for is not known.
var errNoDomain = errors.New("a terminating gateway cannot be asked for the service: " +
	"the agent does not say which trust domain the mesh has")
