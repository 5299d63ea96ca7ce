package config

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

const (
	maxNameLength  = 128
	maxMaxSessions = 1 << 24
	maxConnections = 1 << 24
	maxMaxFails    = 1000

	maxDatagramLimit = 1 << 30 // of responses and requests
	maxFailoverBelow = 10000
)

// services reads all service blocks.
func (l *loader) services(root *block) {
	seen := map[string]hcl.Range{}
	for _, b := range root.blocks.OfType("service") {
		name := b.Labels[0]
		if first, ok := seen[name]; ok {
			l.problem(b.LabelRanges[0].Ptr(), "Duplicate service",
				"There is already a service %q, at %s. Give one of them another name; "+
					"in its consul block, service = %q names the service in Consul.", name, place(first), name)
		} else {
			seen[name] = b.DefRange
		}
		if problem := badName(name); problem != "" {
			l.problem(b.LabelRanges[0].Ptr(), "Bad service name",
				"%s A name has 1 to %d printable characters and no spaces, "+
					"because logs and metrics contain it.", problem, maxNameLength)
		}
		l.cfg.Services = append(l.cfg.Services, l.service(root, b))
	}
}

// badName returns what is wrong with a service's name, or "".
func badName(name string) string {
	switch {
	case name == "":
		return "The name is empty."
	case utf8.RuneCountInString(name) > maxNameLength:
		return "The name is too long."
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return "The name contains a space or a control character."
	case isDots(name):
		return "\".\" and \"..\" cannot be names, because paths of the admin API contain the name."
	}
	return ""
}

// service reads one service block.
func (l *loader) service(root *block, hb *hcl.Block) Service {
	b := root.inner(hb, serviceSchema())
	s := Service{Name: hb.Labels[0], DeclRange: hb.DefRange}
	// An unknown protocol is treated as TCP below, except that arguments of the other protocol are not reported.
	protocol := b.oneOf("protocol", TCP.String(), protocolNames())
	_ = s.Protocol.UnmarshalText([]byte(protocol))
	_ = s.Balance.UnmarshalText([]byte(b.oneOf("balance", RoundRobin.String(), balanceNames())))
	if v, ok := b.plainText("protocol"); !ok || v == protocol {
		b.foreign(s.Protocol)
	}
	b.clients(&s)
	b.timeouts(&s)
	b.lifetimes(&s)
	b.balancing(&s)
	s.Check = b.check(s.Protocol)
	b.proxyProtocol(&s)
	b.ends(&s)
	b.mesh(&s)
	s.Transparent = b.boolean("transparent", false)
	names := b.sni(&s)
	s.Listen = b.listen(s, names)
	l.endpoints(b, &s)
	b.prefer(&s)
	b.speaksFirst(&s)
	b.stays(&s)
	b.inMesh(&s)
	b.kernelPath(&s)
	return s
}

// timeouts reads the timeouts and the arguments of UDP sessions.
func (b *block) timeouts(s *Service) {
	s.ConnectTimeout = b.durationAboveZero("connect_timeout", DefaultConnectTimeout,
		"it is the time that an instance has to accept a connection. The default is \"1s\"")
	s.HalfCloseTimeout = b.durationOrNever("half_close_timeout", DefaultHalfCloseTimeout, Off)
	s.MaxSessions = b.integer("max_sessions", DefaultMaxSessions, 1, maxMaxSessions)
	s.Responses = b.responses()
	s.Requests = b.countOrNever("requests", 0, 0, 1, maxDatagramLimit)
	if s.Protocol == UDP {
		s.IdleTimeout = b.durationAboveZero("idle_timeout", DefaultIdleTimeoutUDP,
			"nothing else ends a UDP session. The default is \"1m\"")
	} else {
		s.IdleTimeout = b.durationOrNever("idle_timeout", DefaultIdleTimeoutTCP, Off)
	}
}

// responses reads how many responses are expected. It returns zero for any number, and Off for none.
func (b *block) responses() int {
	const anyNumber = -1
	n := b.countOrNever("responses", anyNumber, anyNumber, 0, maxDatagramLimit)
	if n == anyNumber {
		return 0
	}
	return orOff(n)
}

// foreign reports arguments that belong to the other protocol.
func (b *block) foreign(p Protocol) {
	other, names := UDP, []string{"max_sessions", "responses", "requests", "send_proxy_udp"}
	if p == UDP {
		other, names = TCP, []string{"connect_timeout", "half_close_timeout", "on_leave", "max_age", "max_age_grace",
			"max_queue", "queue_timeout", "empty_wait", "sni", "tls", "endpoint_tls"}
	}
	for _, name := range names {
		if attr := b.attrs[name]; attr != nil {
			b.l.problem(attr.NameRange.Ptr(), "Argument of another protocol",
				"%s is for %s, and this service is %s. Remove it, or write protocol = %q.",
				name, other, p, other)
		}
		for _, inner := range b.blocks.OfType(name) {
			b.l.problem(inner.DefRange.Ptr(), "Block of another protocol",
				"%s is for %s, and this service is %s. Remove it, or write protocol = %q.",
				name, other, p, other)
		}
	}
}

// plainText returns the text of an argument without reporting problems. It returns false if the argument is absent, and
// "" if its value is not text.
func (b *block) plainText(name string) (string, bool) {
	attr := b.attrs[name]
	if attr == nil {
		return "", false
	}
	v, diags := attr.Expr.Value(nil)
	if diags.HasErrors() || v.IsNull() || v.Type() != cty.String {
		return "", true
	}
	return v.AsString(), true
}

// endpoints reads the sources of the service's endpoints: any number of consul blocks and a static block, in order of
// preference.
func (l *loader) endpoints(b *block, s *Service) {
	var queries []ConsulQuery
	for i, inner := range b.blocks.OfType("consul") {
		block := b.inner(inner, querySchema())
		queries = append(queries, l.queries(block, s.Name)...)
		block.checkedFromHere(queries[len(queries)-1], s.Check)
		if s.Mesh != nil {
			block.queryInMesh(i == 0)
			if !block.has("statuses") {
				queries[len(queries)-1].Statuses = nil
			}
		}
		if s.Protocol == UDP && block.has("socket_paths") {
			l.problem(block.attrs["socket_paths"].NameRange.Ptr(), "Argument of another protocol",
				"socket_paths is for tcp, and this service is udp: Unix sockets carry connections. Remove it.")
		}
	}
	static := b.single("static", staticSchema())
	if static != nil {
		s.Static = &Static{Endpoints: static.endpoints(s)}
	} else if len(queries) == 0 {
		queries = []ConsulQuery{newQuery(s.Name)}
		if s.Mesh != nil {
			queries[0].Statuses = nil
		}
	}
	if len(queries) > 0 {
		s.Consul = &queries[0]
		s.Failover = slices.Clip(slices.Clone(queries[1:]))
	}
	if len(queries) < 2 {
		s.Failover = nil
	}
	b.failover(s, s.hasFailover())
}

// hasFailover reports whether the service may have more than one source of endpoints. With mesh, the discovery chain in
// Consul may name more.
func (s *Service) hasFailover() bool {
	return len(s.Failover) > 0 || s.Consul != nil && s.Static != nil || s.Mesh != nil
}

// failover reads when the service changes from one source to another. several says whether the service has more than
// one.
func (b *block) failover(s *Service, several bool) {
	below := b.integer("failover_below", DefaultFailoverBelow, 1, maxFailoverBelow)
	hold := b.durationOrNone("failback_hold", DefaultFailbackHold, Off)
	on := b.oneOf("failover_on", FailoverOnHealth.String(), failoverOnNames())
	if several {
		s.FailoverBelow, s.FailbackHold = below, hold
		_ = s.FailoverOn.UnmarshalText([]byte(on))
	}
	for _, name := range []string{"failover_on", "failover_below", "failback_hold"} {
		if attr := b.attrs[name]; attr != nil && !several {
			b.l.problem(attr.NameRange.Ptr(), "Failover without another source",
				"%s: service %q has only one source of endpoints. Remove %s, or add a source: "+
					"more datacenters, another consul block, or a static block.", name, s.Name, name)
		}
	}
}
