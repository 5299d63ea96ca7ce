package config

import (
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

const listenHint = `write an address such as "127.0.0.1:9000", a port such as 9000 (on 127.0.0.1), or a list of them`

// A claim is an address on which a service, or the admin API, listens.
type claim struct {
	addr     netip.AddrPort
	path     string // of a Unix socket; empty: addr counts
	protocol Protocol
	service  string
	api      bool // the claim is the admin API's, not a service's
	at       hcl.Range
	order    int // position among the claims of its port

	// What matters if services share the listener. sharers are the later claims of the same listener.
	sni      []serverName
	accept   *AcceptProxy
	tls      *hcl.Range // the block with which Lictor speaks TLS itself; nil if there is none
	listener Listener
	sharers  []*claim
}

// A portClaim is the protocol and port of a claim. Claims can collide only if both are equal.
type portClaim struct {
	protocol Protocol
	port     uint16
}

// listen reads the listen addresses of a service and claims each of them.
func (b *block) listen(s Service, names []serverName) []Listener {
	attr := b.attrs["listen"]
	if attr == nil || isNull(attr.Expr) {
		b.missing("listen", "Service %q has no listen: %s.", s.Name, listenHint)
		return nil
	}
	exprs, diags := hcl.ExprList(attr.Expr)
	if diags.HasErrors() {
		exprs = []hcl.Expression{attr.Expr}
	} else if len(exprs) == 0 {
		b.l.problem(b.rangeOf("listen"), "Empty list", "listen: %s.", listenHint)
	}
	var all []Listener
	for _, expr := range exprs {
		v, ok := b.l.evaluate("listen", expr, cty.DynamicPseudoType, listenHint)
		if !ok {
			continue
		}
		one, problem := listener(v)
		if problem == "" && one.Path != "" && s.Protocol == UDP {
			problem = fmt.Sprintf("%q: a Unix socket carries connections, and this service is udp", one.String())
		}
		if problem != "" {
			b.l.problem(expr.Range().Ptr(), "Bad listen address", "%s.", problem)
			continue
		}
		b.l.claim(claim{addr: one.Addr, path: one.Path, protocol: s.Protocol, service: s.Name, at: expr.Range(),
			sni: names, accept: s.AcceptProxy, listener: one, tls: b.ownTLS()})
		all = append(all, one)
	}
	return all
}

// listener returns the listener that v gives, or a problem. The problem is empty if there is none.
func listener(v cty.Value) (l Listener, problem string) {
	if v.Type() == cty.String && strings.HasPrefix(v.AsString(), unixScheme) {
		return parseSocket(v.AsString())
	}
	l.Addr, problem = listenAddress(v)
	return l, problem
}

// listenAddress returns the address that v gives, or a problem. The problem is empty if there is none.
func listenAddress(v cty.Value) (addr netip.AddrPort, problem string) {
	switch v.Type() {
	case cty.Number:
		n, accuracy := v.AsBigFloat().Int64()
		if accuracy != big.Exact || n < 0 || n > 65535 {
			return addr, "A port is a whole number from 0 to 65535"
		}
		return netip.AddrPortFrom(loopback(), uint16(n)), ""
	case cty.String:
		return parseListen(v.AsString())
	}
	return addr, "listen: " + listenHint
}

func loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

func parseListen(s string) (addr netip.AddrPort, problem string) {
	if !strings.Contains(s, ":") && isNumber(s) && !strings.Contains(s, ".") {
		s = ":" + s
	}
	host, port, problem := splitHostPort(s, "127.0.0.1:9000")
	if problem != "" {
		return addr, problem
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return addr, fmt.Sprintf("%q: %q is not a port. Write a number from 0 to 65535; 0 lets the kernel choose",
			s, port)
	}
	ip := loopback()
	switch host {
	case "", "localhost":
	case "*":
		return addr, fmt.Sprintf("%q: to listen on all addresses of the host, write \"0.0.0.0:%s\" (IPv4) "+
			"or \"[::]:%s\" (IPv6 and IPv4)", s, port, port)
	default:
		if ip, err = netip.ParseAddr(host); err != nil {
			return addr, fmt.Sprintf("%q: %q is not an IP address. Write one of this host's addresses, such as "+
				"\"127.0.0.1:%s\"", s, host, port)
		}
	}
	if problem = badListenIP(ip.Unmap()); problem != "" {
		return addr, fmt.Sprintf("%q: %s", s, problem)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), ""
}

// badListenIP returns why Lictor cannot listen on ip and what to write instead. It returns "" if Lictor can.
func badListenIP(ip netip.Addr) string {
	switch {
	case ip.IsMulticast():
		return "Lictor does not join multicast groups. Write one of this host's addresses"
	case ip == broadcast():
		return "this is the broadcast address. Write \"0.0.0.0\" to receive broadcasts too, " +
			"or one of this host's addresses"
	case lacksInterface(ip):
		return needsInterface(ip)
	}
	return ""
}

// lacksInterface reports whether ip is a link-local IPv6 address without its interface.
func lacksInterface(ip netip.Addr) bool {
	return ip.Is6() && ip.IsLinkLocalUnicast() && ip.Zone() == ""
}

func needsInterface(ip netip.Addr) string {
	return fmt.Sprintf("a link-local address needs its interface. Write something like \"[%s%%eth0]\"", ip)
}

// splitHostPort splits s like net.SplitHostPort. Its problems say what to write instead.
func splitHostPort(s, example string) (host, port, problem string) {
	host, port, err := net.SplitHostPort(s)
	ip, ipErr := netip.ParseAddr(strings.Trim(s, "[]"))
	switch {
	case err == nil && port != "":
		return host, port, ""
	case strings.Contains(s, "://"):
		return "", "", fmt.Sprintf("%q: leave out the %q. Write %q", s, s[:strings.Index(s, "://")+3], example)
	case strings.Count(s, ":") > 1 && withBrackets(s) != "":
		return "", "", fmt.Sprintf("%q: IPv6 addresses need brackets. Write %q", s, withBrackets(s))
	case ipErr == nil:
		_, p, _ := net.SplitHostPort(example)
		return "", "", fmt.Sprintf("%q has no port. Write %q", s, net.JoinHostPort(ip.String(), p))
	case err == nil || strings.Count(s, ":") == 0:
		return "", "", fmt.Sprintf("%q has no port. Write something like %q", s, example)
	case strings.Count(s, ":") > 1:
		return "", "", fmt.Sprintf("%q is not an address with a port. IPv6 addresses need brackets: "+
			"\"[2001:db8::7]:80\"", s)
	}
	return "", "", fmt.Sprintf("%q is not an address with a port. Write something like %q", s, example)
}

// withBrackets returns how to write s if s is an IPv6 address and port with a missing bracket. Otherwise it returns "".
func withBrackets(s string) string {
	i := strings.LastIndexByte(s, ':')
	ip, err := netip.ParseAddr(strings.Trim(s[:i], "[]"))
	if err != nil || !hostport.IsPort(s[i+1:]) {
		return ""
	}
	return net.JoinHostPort(ip.String(), s[i+1:])
}

// claim records that an address is taken, or reports that it is taken already.
func (l *loader) claim(c claim) {
	if c.path != "" {
		l.claimPath(c)
		return
	}
	key := portClaim{c.protocol, c.addr.Port()}
	port := l.claims[key]
	if port == nil {
		port = &portClaims{byAddr: map[netip.Addr]*claim{}}
		l.claims[key] = port
	}
	first := port.collision(&c)
	if first == nil {
		port.add(&c)
		return
	}
	if l.join(first, &c) {
		return
	}
	who := fmt.Sprintf("Service %q", first.service)
	if first.service == c.service {
		who = "The same service"
	}
	l.problem(c.at.Ptr(), "Address in use", "%s already listens on %s %s, at %s%s. Choose another port.",
		who, first.protocol, first.addr, place(first.at), c.because(*first))
}

// claimPath is claim for a Unix socket.
func (l *loader) claimPath(c claim) {
	first := l.sockets[c.path]
	if first == nil {
		l.sockets[c.path] = &c
		return
	}
	if l.join(first, &c) {
		return
	}
	who := fmt.Sprintf("Service %q", first.service)
	switch {
	case first.api:
		who = "The admin API"
	case first.service == c.service:
		who = "The same service"
	}
	l.problem(c.at.Ptr(), "Address in use", "%s already listens on %s%s, at %s. Choose another path.",
		who, unixScheme, c.path, place(first.at))
}

// portClaims holds the claims of one protocol and port. None of them collides with another.
type portClaims struct {
	byAddr        map[netip.Addr]*claim
	first, first4 *claim // first claim of all, and first with an IPv4 address; nil: none
}

func (p *portClaims) add(c *claim) {
	c.order = len(p.byAddr)
	p.byAddr[c.addr.Addr()] = c
	if p.first == nil {
		p.first = c
	}
	if p.first4 == nil && c.addr.Addr().Is4() {
		p.first4 = c
	}
}

// collision returns the first claim with which c collides, or nil. It looks at a fixed number of claims.
func (p *portClaims) collision(c *claim) (first *claim) {
	for _, other := range p.rivals(c.addr.Addr()) {
		if other != nil && c.collides(*other) && (first == nil || other.order < first.order) {
			first = other
		}
	}
	return first
}

// at returns the claims of the given addresses in the order in which they were added. A nil p has no claims.
func (p *portClaims) at(addrs []netip.Addr) (all []*claim) {
	if p == nil {
		return nil
	}
	for _, addr := range addrs {
		if c := p.byAddr[addr]; c != nil {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *claim) int { return a.order - b.order })
	return all
}

// rivals returns a few claims, some of them nil. If a claim of addr collides with any claims, the first of these is
// among them.
func (p *portClaims) rivals(addr netip.Addr) []*claim {
	wildcard4, wildcard6 := p.byAddr[netip.IPv4Unspecified()], p.byAddr[netip.IPv6Unspecified()]
	return []*claim{p.byAddr[addr], wildcard4, wildcard6, p.first, p.first4}
}

// collides reports whether the kernel would refuse the second of two claims. Port 0 is another port each time, and
// never collides.
func (c claim) collides(d claim) bool {
	if c.protocol != d.protocol || c.addr.Port() != d.addr.Port() || c.addr.Port() == 0 {
		return false
	}
	return c.addr == d.addr || covers(c.addr.Addr(), d.addr.Addr()) || covers(d.addr.Addr(), c.addr.Addr())
}

// because explains why two claims with different addresses collide.
func (c claim) because(d claim) string {
	if c.addr == d.addr {
		return ""
	}
	wildcard := c.addr
	if !wildcard.Addr().IsUnspecified() {
		wildcard = d.addr
	}
	return fmt.Sprintf(", and %s takes the port on every address", wildcard)
}

// covers reports whether a listener on a takes b's port too. [::] is dual-stack and covers IPv4.
func covers(a, b netip.Addr) bool {
	return a.IsUnspecified() && (a.Is6() || b.Is4())
}
