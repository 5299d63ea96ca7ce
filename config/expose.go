package config

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

// A MeshServer says where the services that this host exposes are served to Consul's service mesh.
type MeshServer struct {
	Bind  netip.Addr // the address of the listeners, which is registered in Consul
	Ports PortRange  // of the listeners
}

// A PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last int }

// String returns the range as it is written in the configuration, such as "21000-21255".
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// MarshalText returns what String returns.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText accepts the texts that String returns.
func (r *PortRange) UnmarshalText(text []byte) error {
	first, last, _ := strings.Cut(string(text), "-")
	for _, end := range []struct {
		text string
		to   *int
	}{{first, &r.First}, {last, &r.Last}} {
		n, err := strconv.ParseUint(strings.TrimSpace(end.text), 10, 16)
		if err != nil {
			return fmt.Errorf("%q is not a range of ports", text)
		}
		*end.to = int(n)
	}
	return nil
}

// An Expose is one expose block: a service of this host that is served to the mesh.
type Expose struct {
	Name string // of the service in Consul

	// Local is the address of the service. The zero value stands for the port of each registration, at its address if
	// that is a loopback address, and otherwise at 127.0.0.1.
	Local netip.AddrPort

	Intentions Intentions

	// UnknownIntentions is what holds before Consul has answered for the first time which intentions there are.
	UnknownIntentions Verdict

	// AllowIdentities holds names of services and SPIFFE IDs. If it is not empty, other clients are refused, whatever
	// the intentions say.
	AllowIdentities []string

	Allow, Deny []netip.Prefix // as in a Service

	// Limits of connections: to each instance, and to each instance from each client address and from each identity.
	// Zero means no limit.
	MaxConnections            int `zero:"never"`
	MaxConnectionsPerClient   int `zero:"never"`
	MaxConnectionsPerIdentity int `zero:"never"`

	MaxQueue     int           // as in a Service
	QueueTimeout time.Duration `off:"0s"`

	SendProxy ProxyVersion `zero:""`

	HandshakeTimeout time.Duration // time for a client's handshake

	// These are as in a Service.
	ConnectTimeout   time.Duration
	IdleTimeout      time.Duration `off:"never"`
	HalfCloseTimeout time.Duration `off:"never"`
	MaxAge           time.Duration `zero:"never"`
	MaxAgeGrace      time.Duration `off:"0s"`

	DeclRange hcl.Range // the block's header
}

// Intentions says what clients without an identity may do.
type Intentions int

// The ways to apply intentions.
const (
	IntentionsEnforce    Intentions = iota // clients without a certificate of the mesh are refused
	IntentionsPermissive                   // such clients are served in plain text
)

func intentionsNames() []string { return []string{"enforce", "permissive"} }

// String returns the name in the configuration.
func (i Intentions) String() string { return nameOf(int(i), intentionsNames()) }

// UnmarshalText takes the names that String returns.
func (i *Intentions) UnmarshalText(text []byte) error { return parse(i, text, intentionsNames()) }

// Verdict is what happens to a client.
type Verdict int

// The verdicts.
const (
	VerdictDeny Verdict = iota
	VerdictAllow
)

func verdictNames() []string { return []string{"deny", "allow"} }

// String returns the name in the configuration.
func (v Verdict) String() string { return nameOf(int(v), verdictNames()) }

// UnmarshalText takes the names that String returns.
func (v *Verdict) UnmarshalText(text []byte) error { return parse(v, text, verdictNames()) }

// exposedPrefix is how the names of exposed services begin where a service of the configuration has its name.
const exposedPrefix = "mesh:"

// ExposedName returns the name of an exposed service in logs, metrics and the API. The service may have several
// instances at this host, whose numbers begin with 1.
func ExposedName(service string, number int) string {
	if number == 1 {
		return exposedPrefix + service
	}
	return fmt.Sprintf("%s%s:%d", exposedPrefix, service, number)
}

// mesh reads the mesh block and all expose blocks. It must run after services and admin, whose addresses must not be in
// the range of ports.
func (l *loader) mesh(root *block) {
	b := root.single("mesh", meshServerSchema())
	if b != nil {
		l.cfg.Mesh = b.meshServer()
	}
	seen := map[string]hcl.Range{}
	for _, hb := range root.blocks.OfType("expose") {
		name := hb.Labels[0]
		at := hb.LabelRanges[0].Ptr()
		if first, ok := seen[name]; ok {
			l.problem(at, "Duplicate block", "Service %q is already exposed, at %s. All instances of a service at "+
				"this host share one expose block. Put all arguments into one.", name, place(first))
		} else {
			seen[name] = hb.DefRange
		}
		l.exposedName(name, at)
		if b == nil {
			l.problem(hb.DefRange.Ptr(), "No mesh block", "expose: there is no address at which the mesh could reach "+
				"the service. Write mesh { bind = \"10.0.0.5\" } with an address of this host, outside of all other "+
				"blocks.")
		}
		l.cfg.Expose = append(l.cfg.Expose, root.inner(hb, exposeSchema()).expose(name, hb.DefRange))
	}
	if b != nil && len(seen) > 0 {
		l.agentOfHost(b)
	}
	for _, s := range l.cfg.Services {
		of, isExposed := strings.CutPrefix(s.Name, exposedPrefix)
		of, _, _ = strings.Cut(of, ":")
		if first, ok := seen[of]; isExposed && ok {
			l.problem(s.DeclRange.Ptr(), "Duplicate service", "Logs and metrics call the exposed service at %s %q. "+
				"Give this service another name.", place(first), s.Name)
		}
	}
}

// agentOfHost reports several addresses of Consul of which the first, at which sidecars are registered, cannot be that
// of this host's agent. Where a name leads is not known here.
func (l *loader) agentOfHost(b *block) {
	all := l.cfg.Consul.Address.All()
	agent, err := hostport.ParseAgent(all[0])
	if err != nil || len(all) == 1 || agent.Socket != "" {
		return
	}
	ip, err := netip.ParseAddr(agent.URL.Hostname())
	if err != nil || ip.Unmap().IsLoopback() || ip.Unmap() == l.cfg.Mesh.Bind {
		return
	}
	l.problem(b.head.Ptr(), "Agent of another host", "address: exposed services are registered at the first address "+
		"of Consul, which must be that of the agent of this host. %q is neither a loopback address nor bind. Put the "+
		"address of this host's agent first, such as \"127.0.0.1:8500\", or write only that one.", all[0])
}

// exposedName reports the name of an exposed service that cannot be the name of an identity.
func (l *loader) exposedName(name string, at *hcl.Range) {
	switch {
	case name == "" || isDots(name) || !isMeshName(name):
		l.problem(at, "Bad service name", "The name of an expose block is that of a service in Consul. It has "+
			"letters, digits, hyphens, underscores and dots only. Write a name such as \"web\".")
	case len(name) > maxNameLength:
		l.problem(at, "Bad service name", "The name is too long. A name has at most %d characters.", maxNameLength)
	}
}

// meshServer reads the mesh block outside of services.
func (b *block) meshServer() *MeshServer {
	m := &MeshServer{Ports: PortRange{DefaultMeshFirstPort, DefaultMeshLastPort}}
	if !b.has("bind") {
		b.missing("bind", "A mesh block needs bind, the address of this host at which the mesh reaches its services, "+
			"such as bind = \"10.0.0.5\".")
	} else if text, ok := b.text("bind"); ok {
		var problem string
		if m.Bind, problem = parseBind(text); problem != "" {
			b.l.problem(b.rangeOf("bind"), "Bad address", "bind: %q: %s.", text, problem)
		}
	}
	if text, ok := b.text("ports"); ok {
		if r, problem := parsePorts(text); problem != "" {
			b.l.problem(b.rangeOf("ports"), "Bad range of ports", "ports: %q: %s.", text, problem)
		} else {
			m.Ports = r
		}
	}
	if m.Bind.IsValid() {
		b.l.inRange(m)
	}
	return m
}

// parseBind returns the address that s gives, or a problem.
func parseBind(s string) (ip netip.Addr, problem string) {
	ip, err := netip.ParseAddr(s)
	ip = ip.Unmap()
	switch {
	case err != nil && strings.Contains(s, ":"):
		return ip, "write an IP address without a port, such as \"10.0.0.5\". The ports are those of the argument ports"
	case err != nil:
		return ip, "this is not an IP address. Write the address of this host that others can reach, such as " +
			"\"10.0.0.5\""
	case ip.IsUnspecified():
		return netip.Addr{}, "Consul tells others to come to this address. Write the one of this host that they can " +
			"reach, such as \"10.0.0.5\""
	case ip.Zone() != "" || ip.IsLinkLocalUnicast():
		return netip.Addr{}, "a link-local address means another host on each link. Write an address that others can " +
			"reach, such as \"10.0.0.5\""
	}
	if bad := badListenIP(ip); bad != "" {
		return netip.Addr{}, bad
	}
	return ip, ""
}

// parsePorts returns the range that s gives, or a problem.
func parsePorts(s string) (r PortRange, problem string) {
	const example = "Write the first and the last port, such as \"21000-21255\""
	if !strings.Contains(s, "-") || r.UnmarshalText([]byte(s)) != nil || r.First == 0 {
		return r, "this is not a range of ports from 1 to 65535. " + example
	}
	if r.First > r.Last {
		return r, fmt.Sprintf("the first port is above the last one. Write \"%d-%d\"", r.Last, r.First)
	}
	return r, ""
}

// inRange reports listeners that would take a port from the range of m.
func (l *loader) inRange(m *MeshServer) {
	for port := m.Ports.First; port <= m.Ports.Last; port++ {
		claims := l.claims[portClaim{TCP, uint16(port)}]
		if claims == nil {
			continue
		}
		whole := &claim{addr: netip.AddrPortFrom(m.Bind, uint16(port)), protocol: TCP}
		if c := claims.collision(whole); c != nil {
			l.problem(c.at.Ptr(), "Port of the mesh", "%s is in the range of ports for exposed services, \"%s\" at "+
				"%s. Choose a port outside of it, or other ports in the mesh block.", c.addr, m.Ports, m.Bind)
		}
	}
}

// expose reads one expose block.
func (b *block) expose(name string, at hcl.Range) Expose {
	s := Service{Name: name, Protocol: TCP} // for the arguments that are those of a service
	b.clients(&s)
	b.timeouts(&s)
	b.lifetimes(&s)
	b.balancing(&s)
	b.sendProxy(&s)
	e := Expose{
		Name: name, Local: b.local(name), AllowIdentities: b.identities(), Allow: s.Allow, Deny: s.Deny,
		MaxConnections: s.MaxConnections, MaxConnectionsPerClient: s.MaxConnectionsPerClient,
		MaxConnectionsPerIdentity: b.countOrNever("max_connections_per_identity", 0, 0, 1, maxConnections),
		MaxQueue:                  s.MaxQueue, QueueTimeout: s.QueueTimeout, SendProxy: s.SendProxy,
		HandshakeTimeout: b.durationAboveZero("handshake_timeout", DefaultHandshakeTimeout,
			"it is the time that a client has for the TLS handshake. The default is \"10s\""),
		ConnectTimeout: s.ConnectTimeout, IdleTimeout: s.IdleTimeout, HalfCloseTimeout: s.HalfCloseTimeout,
		MaxAge: s.MaxAge, MaxAgeGrace: s.MaxAgeGrace, DeclRange: at,
	}
	_ = e.Intentions.UnmarshalText([]byte(b.oneOf("intentions", IntentionsEnforce.String(), intentionsNames())))
	_ = e.UnknownIntentions.UnmarshalText([]byte(b.oneOf("unknown_intentions", VerdictDeny.String(), verdictNames())))
	return e
}

// local reads the address of the service behind an expose block. It returns the zero value if the argument is absent.
func (b *block) local(name string) (addr netip.AddrPort) {
	const hint = `write an address such as "127.0.0.1:8080", or a port such as 8080 (on 127.0.0.1)`
	v, ok := b.value("local", cty.DynamicPseudoType, hint)
	if !ok {
		return addr
	}
	at := b.rangeOf("local")
	var e StaticEndpoint
	var problem string
	switch v.Type() {
	case cty.Number:
		e.Addr = netip.AddrPortFrom(loopback(), uint16(b.number("local", 0, 1, math.MaxUint16, hint)))
		if e.Addr.Port() == 0 {
			return addr
		}
	case cty.String:
		if e, problem = parseEndpoint(v.AsString(), TCP); problem == "" && (e.Path != "" || e.Host != "") {
			problem = fmt.Sprintf("%q is not an IP address with a port. Write something like \"127.0.0.1:8080\"",
				v.AsString())
		}
	default:
		problem = hint
	}
	if problem != "" {
		b.l.problem(at, "Bad address", "local: %s.", problem)
		return addr
	}
	b.l.static = append(b.l.static, staticClaim{e, TCP, ExposedName(name, 1), e.String(), *at})
	return e.Addr
}

// maxIdentities is the maximum number of entries of allow_identities.
const maxIdentities = 1024

// identities reads allow_identities.
func (b *block) identities() []string {
	const example = `["web", "spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web"]`
	all := b.texts("allow_identities", `["web"]`, "identity")
	switch {
	case b.has("allow_identities") && len(all) == 0 && len(b.items("allow_identities", "")) == 0:
		b.l.problem(b.rangeOf("allow_identities"), "Empty list", "allow_identities: write at least one identity, such "+
			"as [\"web\"]. To let intentions alone decide, leave allow_identities out.")
	case len(all) > maxIdentities:
		b.l.problem(b.rangeOf("allow_identities"), "Too many identities", "allow_identities: %d are too many. Write "+
			"at most %d, or intentions in Consul.", len(all), maxIdentities)
	}
	for _, one := range all {
		if !isMeshName(one) && !isServiceID(one) {
			b.l.problem(b.rangeOf("allow_identities"), "Bad identity", "allow_identities: %q is neither the name of a "+
				"service in Consul nor the SPIFFE ID of one. Write something like %s.", one, example)
		}
	}
	return all
}

// isServiceID reports whether id looks like the SPIFFE ID of a service in Consul.
func isServiceID(id string) bool {
	rest, isSPIFFE := strings.CutPrefix(id, "spiffe://")
	domain, path, _ := strings.Cut(rest, "/")
	_, service, _ := strings.Cut("/"+path, "/svc/")
	return isSPIFFE && domain != "" && service != "" && !strings.ContainsAny(id, " \t\n")
}
