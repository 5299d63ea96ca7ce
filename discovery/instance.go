package discovery

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/hostport"
	"github.com/lictor-proxy/lictor/lb"
)

// An entry holds the parts of an instance in Consul's answer that Lictor uses. The types of Consul's api package are
// many times larger, and their decoder panics on a check with a null definition.
type entry struct {
	Node    *entryNode
	Service *entryService
	Checks  []check // checks of the instance and of its node
}

type entryNode struct {
	Node        string // name of the node
	Datacenter  string
	PeerName    string // cluster peering over which Consul imports the node
	Address     string
	CreateIndex uint64 // when the node was registered; a new index if the catalog lost the node in between

	Locality              *locality
	Meta, TaggedAddresses json.RawMessage // as in entryService
}

type entryService struct {
	ID, Address, SocketPath string
	Tags                    []string
	Port                    int
	Weights                 weights

	Ports    []entryPort
	Locality *locality

	// Meta and TaggedAddresses are not parsed, so that strange values do not spoil the whole answer. fieldRule.resolve
	// drops them, and sets the fields below them.
	Meta, TaggedAddresses json.RawMessage
	ServerName            string        `json:"-"` // see nameRule.find
	NoServerName          string        `json:"-"`
	Tagged                taggedAddress `json:"-"`
	NearMeta              string        `json:"-"` // see metaOf

	// Only a query with Mesh sets the following fields: who the instance is in the mesh, or why it is no way to the
	// service. See way.find.
	Identity string `json:"-"`
	NoWay    string `json:"-"`
	Gateway  bool   `json:"-"` // it is a terminating gateway
}

// An entryPort is one of several ports of an instance. Consul's entryService.Port is then the default port.
type entryPort struct {
	Name string
	Port int
}

type weights struct{ Passing, Warning int }

type check struct{ CheckID, Name, Status, Notes, Output string }

// trim drops texts that are never shown: the output of passing checks, and the ends of long strings.
func (e *entry) trim() {
	if e == nil {
		return
	}
	for i := range e.Checks {
		c := &e.Checks[i]
		if c.Status == api.HealthPassing {
			c.Notes, c.Output = "", ""
		}
		c.CheckID, c.Name, c.Status = cut(c.CheckID, maxCheck), cut(c.Name, maxCheck), cut(c.Status, maxWord)
		c.Notes, c.Output = cut(c.Notes, maxCheck), cut(c.Output, maxCheck)
	}
	if e.Service != nil {
		e.Service.Tags = shortTags(e.Service.Tags)
		for i := range e.Service.Ports {
			e.Service.Ports[i].Name = cut(e.Service.Ports[i].Name, maxTag)
		}
	}
}

// An instances value is the result of converting the entries of one answer.
type instances struct {
	endpoints  []lb.Endpoint     // instances that can get clients, sorted by ID; IDs and addresses are unique
	all        []Instance        // all instances, sorted by ID
	bad        map[string]string // why healthy instances cannot be dialled, by ID; nil: none
	duplicates int               // further registrations of the addresses in endpoints
}

// rules say which instances may become endpoints.
type rules struct {
	statuses    []string // see Query.Statuses
	socketPaths []string // see Query.SocketPaths
	here        ownNode  // needed only for instances that listen on Unix sockets, and for Prefer.needsAgent
	port        string   // see Query.Port
	mesh        *meshRule
	prefer      Prefer // see Query.Prefer
}

// passingOnly is the default of Query.Statuses.
var passingOnly = []string{api.HealthPassing}

// convert turns entries into endpoints. Only instances that r allows become endpoints. The order of entries does not
// matter, because Consul changes it all the time for queries with near.
//
// One address under several service IDs is one process that was registered more than once, often by a restart under a
// new ID. convert makes one endpoint of such registrations, with the ID and weight of the healthiest one. If several
// registrations are equally healthy, the lowest ID wins. The weights are not added up, because that would double the
// load on the process.
func convert(entries []*entry, r rules) instances {
	in := instances{all: make([]Instance, 0, len(entries))}
	for _, e := range entries {
		in.all = append(in.all, convertOne(e, r))
	}
	slices.SortStableFunc(in.all, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(rank(a.Status), rank(b.Status)), strings.Compare(a.ID, b.ID))
	})
	ids, addresses := make(map[string]bool, len(in.all)), make(map[lb.Place]string, len(in.all))
	for i := range in.all {
		one := &in.all[i]
		switch {
		case one.Out == OutAddress || one.Out == OutID || one.Out == OutPort:
			if in.bad == nil {
				in.bad = map[string]string{}
			}
			in.bad[one.ID] = one.Detail
			continue
		case one.Out != "":
			continue
		}
		address := one.Endpoint.Place()
		if other, taken := addresses[address]; taken || ids[one.ID] {
			in.duplicates++
			one.Out, one.Detail = OutDuplicate, fmt.Sprintf("%s has the same address", other)
			continue
		}
		ids[one.ID], addresses[address] = true, one.ID
		in.endpoints = append(in.endpoints, one.Endpoint)
	}
	slices.SortFunc(in.endpoints, func(a, b lb.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	slices.SortStableFunc(in.all, func(a, b Instance) int { return strings.Compare(a.ID, b.ID) })
	return in
}

// convertOne converts e, without regard to other entries.
func convertOne(e *entry, r rules) Instance {
	one := Instance{Status: api.HealthPassing}
	var worst *check
	if e != nil {
		one.Status, worst = aggregate(e.Checks)
	}
	endpoint, err := endpointOf(e, r.port)
	if err == nil && endpoint.Path != "" {
		err = r.permits(e)
	}
	id, tooLong := entryID(e)
	endpoint.ID = id
	one.Endpoint = endpoint
	if e != nil && e.Service != nil {
		one.Tags = shortTags(e.Service.Tags)
		one.ServerName, one.NoServerName = e.Service.ServerName, e.Service.NoServerName
	}
	if err == nil && r.mesh != nil {
		one.Identity, one.ServerName, err = r.mesh.find(e)
	}
	if e != nil && e.Node != nil {
		one.born = e.Node.CreateIndex
		if e.Service != nil {
			one.Zone, one.Near = r.prefer.place(e, &r.here)
		}
	}
	if worst != nil {
		one.Detail = worst.text()
	}
	switch {
	case worst != nil && worst.isMaintenance():
		one.Out = OutMaintenance
	case !slices.Contains(r.statuses, one.Status):
		one.Out = OutStatus
	case tooLong:
		one.Out, one.Detail = OutID, fmt.Sprintf("the names of it and its node are longer than %d bytes", maxID)
	case errors.As(err, new(*noPortError)):
		one.Out, one.Detail = OutPort, err.Error()
	case err != nil:
		one.Out, one.Detail = OutAddress, err.Error()
	default:
		if one.Weight = e.Service.Weights.in(one.Status); one.Weight <= 0 {
			one.Out = OutWeight
		}
	}
	return one
}

// entryID returns the name of the node, a slash and the service ID. Service IDs are unique only on their node, but both
// parts together are unique in a catalog. A slash in the node's name is escaped, so that the first slash separates the
// two parts. If the ID is too long, entryID returns a shorter ID and true.
func entryID(e *entry) (_ string, tooLong bool) {
	var name, id string
	if e != nil && e.Node != nil {
		name = e.Node.Node
	}
	if e != nil && e.Service != nil {
		id = e.Service.ID
	}
	if strings.ContainsAny(name, "%/") { // rare: DNS names do not contain these characters
		name = strings.ReplaceAll(strings.ReplaceAll(name, "%", "%25"), "/", "%2F")
	}
	if len(name)+1+len(id) > maxID {
		return shortID(name, id), true
	}
	return name + "/" + id, false
}

// endpointOf returns the endpoint of e at its port of the given name, without ID and weight. An empty name means the
// default port. The error says why e cannot be dialled, and is a *noPortError if e has no such port. endpointOf checks
// all fields, because Consul returns any registration unchecked.
func endpointOf(e *entry, port string) (lb.Endpoint, error) {
	switch {
	case e == nil || e.Node == nil || e.Service == nil:
		return lb.Endpoint{}, errors.New("has no node or no service")
	case e.Service.SocketPath != "":
		if problem := hostport.BadSocketPath(e.Service.SocketPath); problem != "" {
			return lb.Endpoint{}, fmt.Errorf("listens on the Unix socket %q: %s",
				cut(e.Service.SocketPath, maxAddress), problem)
		}
		if port != "" {
			return lb.Endpoint{}, &noPortError{service: e.Service, name: port}
		}
		return lb.Endpoint{Path: e.Service.SocketPath}, nil
	}
	number, err := e.Service.portNamed(port)
	if err != nil {
		return lb.Endpoint{}, err
	}
	if number < 1 || number > 65535 {
		return lb.Endpoint{}, fmt.Errorf("port %d is not in 1..65535", number)
	}
	text := cmp.Or(e.Service.Tagged.Address, strings.TrimSpace(e.Service.Address), strings.TrimSpace(e.Node.Address))
	if len(text) > maxAddress {
		return lb.Endpoint{}, fmt.Errorf("address of %d bytes is neither an IP address nor a host name", len(text))
	}
	host, addr, err := parseHost(text)
	if err != nil {
		return lb.Endpoint{}, err
	}
	return lb.Endpoint{Host: host, Addr: netip.AddrPortFrom(addr, uint16(number))}, nil
}

// parseHost parses text as an IP address or as a host name. Host names are not looked up before they are dialled.
func parseHost(text string) (host string, addr netip.Addr, err error) {
	if text == "" {
		return "", addr, errors.New("has no address")
	}
	bare := text
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		bare = text[1 : len(text)-1]
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		addr = addr.Unmap()
		if strings.ContainsFunc(addr.Zone(), func(r rune) bool { return !hostport.IsHostNameRune(r) && r != '.' }) {
			return "", netip.Addr{}, fmt.Errorf("address %q has a zone that is not an interface name", text)
		}
		if addr.IsUnspecified() || addr.IsMulticast() || addr == broadcast {
			return "", netip.Addr{}, fmt.Errorf("address %s is not that of a host", addr)
		}
		return "", addr, nil
	}
	if bare != text || !hostport.IsHostName(text) {
		return "", addr, fmt.Errorf("address %q is neither an IP address nor a host name", text)
	}
	return text, addr, nil
}

// broadcast is the address of all hosts of a network (RFC 919).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// aggregate returns the worst status of checks, and a check with that status. aggregate returns passing and nil if all
// checks pass. An unknown status counts as critical. A maintenance check takes precedence over other critical checks.
func aggregate(checks []check) (string, *check) {
	status := api.HealthPassing
	var worst *check
	for i := range checks {
		c := &checks[i]
		switch c.Status {
		case api.HealthPassing:
		case api.HealthWarning:
			if worst == nil {
				status, worst = api.HealthWarning, c
			}
		default:
			if status != api.HealthCritical || c.isMaintenance() {
				status, worst = api.HealthCritical, c
			}
		}
	}
	return status, worst
}

// isMaintenance reports whether c marks the instance or its node as being in maintenance.
func (c *check) isMaintenance() bool {
	return strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix) || c.CheckID == api.NodeMaint
}

// text returns the name, status and output of c in one line.
func (c *check) text() string {
	name, output := c.CheckID, c.Output
	if c.Name != "" {
		name = c.Name
	}
	if output == "" {
		output = c.Notes
	}
	text := fmt.Sprintf("check %q is %s", cut(name, maxCheck), cut(c.Status, maxWord))
	if output != "" {
		text += ": " + cut(output, maxCheck)
	}
	return consul.OneLine(text)
}

// maxWeight is the largest weight that Consul allows.
const maxWeight = 65535

// in returns the weight of an instance with the given status. 0 means no traffic. Without weights, it returns 1.
func (w weights) in(status string) int {
	switch {
	case status == api.HealthPassing, status == api.HealthCritical: // critical: only if the query allows it
		return min(max(w.Passing, 1), maxWeight)
	case status == api.HealthWarning && w == (weights{}):
		return 1
	case status == api.HealthWarning:
		return min(max(w.Warning, 0), maxWeight)
	}
	return 0
}

// rank returns 0 for the passing status, and 1 for all others.
func rank(status string) int {
	if status == api.HealthPassing {
		return 0
	}
	return 1
}
