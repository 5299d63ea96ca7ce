package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

const (
	sniExample = `["db.example.com", "*.example.com"]`
	maxSNI     = 1024 // names of one service
)

// A serverName is a name in sni and its place.
type serverName struct {
	name string // in lower case, without a dot at the end
	at   hcl.Range
}

// sni reads the server names of a service.
func (b *block) sni(s *Service) (names []serverName) {
	exprs := b.items("sni", sniExample)
	switch {
	case s.Protocol == UDP:
		return nil // see foreign
	case b.has("sni") && exprs != nil && len(exprs) == 0:
		b.l.problem(b.rangeOf("sni"), "Empty list", "sni: write at least one name, such as %s. "+
			"If the service gets the clients that fit no other service, remove sni.", sniExample)
	case len(exprs) > maxSNI:
		b.l.problem(b.rangeOf("sni"), "Too many names", "sni: %d are too many. Write at most %d, "+
			"or wildcards such as \"*.example.com\".", len(exprs), maxSNI)
		return nil
	}
	if at := b.ownTLS(); at != nil && len(exprs) > 0 {
		b.l.passesOn(at)
	}
	seen := map[string]hcl.Range{}
	for _, expr := range exprs {
		v, ok := b.l.evaluate("sni", expr, cty.String, "write each name in quotes")
		if !ok {
			continue
		}
		name, problem := parseServerName(v.AsString())
		if problem != "" {
			b.l.problem(expr.Range().Ptr(), "Bad server name", "sni: %q: %s.", v.AsString(), problem)
			continue
		}
		if first, twice := seen[name]; twice {
			b.l.problem(expr.Range().Ptr(), "Name twice",
				"sni: the name %q is already in this list, at %s. Remove one.", name, place(first))
			continue
		}
		seen[name] = expr.Range()
		names = append(names, serverName{name, expr.Range()})
		s.SNI = append(s.SNI, name)
	}
	return names
}

// parseServerName returns the name as clients are compared with it, or a problem. A wildcard stands for one label.
func parseServerName(s string) (name, problem string) {
	name = strings.ToLower(strings.TrimSuffix(s, "."))
	host := strings.TrimPrefix(name, "*.")
	_, notAddr := netip.ParseAddr(strings.Trim(name, "[]"))
	switch {
	case s == "*":
		return "", "to get the clients that fit no other service, leave sni out"
	case notAddr == nil:
		return "", "clients send no server name if they dial an address. A service without sni gets them"
	case strings.Contains(s, "://") || strings.Contains(s, ":"):
		return "", "write the name only, without a scheme and a port, such as \"db.example.com\""
	case strings.Contains(host, "*"):
		return "", "a wildcard is the whole first label, such as \"*.example.com\", and stands for exactly one label"
	case strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e }):
		return "", "write international names in their ASCII form, such as \"xn--bcher-kva.example\""
	case len(host) > 253:
		return "", "a host name has at most 253 characters"
	}
	for label := range strings.SplitSeq(host, ".") {
		if problem := badLabel(label); problem != "" {
			return "", problem
		}
	}
	return name, ""
}

// badLabel returns what is wrong with a label of a host name in lower case, or "".
func badLabel(label string) string {
	isOther := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	switch {
	case label == "":
		return "it has an empty label. Write a host name such as \"db.example.com\""
	case len(label) > 63:
		return "a label of a host name has at most 63 characters"
	case strings.ContainsFunc(label, isOther):
		return "a host name has letters, digits, hyphens and dots only"
	}
	return ""
}

// speaksFirst warns of names for a service whose servers speak first, as far as ports tell. Their clients send no name
// before they have heard the server.
func (b *block) speaksFirst(s *Service) {
	if len(s.SNI) == 0 {
		return
	}
	var ports []uint16
	for _, l := range s.Listen {
		ports = append(ports, l.Addr.Port())
	}
	if s.Static != nil {
		for _, e := range s.Static.Endpoints {
			ports = append(ports, e.Addr.Port())
		}
	}
	for _, port := range ports {
		if protocol := serverFirst(port); protocol != "" {
			b.l.warn(b.rangeOf("sni"), "Server that speaks first",
				"sni: port %d is that of %s, whose servers speak first. Such clients send no name that could be "+
					"read, so Lictor would reset them. Without sni, the service can listen on a port of its own.",
				port, protocol)
			return
		}
	}
}

// serverFirst returns the protocol whose usual port is port if its servers speak first, or "".
func serverFirst(port uint16) string {
	switch port {
	case 21:
		return "FTP"
	case 22:
		return "SSH"
	case 25, 587:
		return "SMTP"
	case 110:
		return "POP3"
	case 143:
		return "IMAP"
	case 3306:
		return "MySQL"
	}
	return ""
}

// ownTLS returns the place of the block with which Lictor speaks TLS itself, or nil.
func (b *block) ownTLS() *hcl.Range {
	for _, name := range []string{"tls", "endpoint_tls", "mesh"} {
		for _, inner := range b.blocks.OfType(name) {
			return inner.DefRange.Ptr()
		}
	}
	return nil
}

// passesOn reports that Lictor cannot speak TLS itself on a listener on which a name chooses the service.
func (l *loader) passesOn(at *hcl.Range) {
	l.problem(at, "TLS twice", "A name can choose a service only if Lictor passes TLS on as it is: "+
		"the instances have the certificates. Remove sni and give the service a listener of its own, "+
		"or remove this block.")
}

// join adds c to the services that share the listener of first, which was claimed before, and reports problems. join
// returns false if the two services do not want to share.
func (l *loader) join(first, c *claim) bool {
	all := append([]*claim{first}, first.sharers...)
	wants := len(c.sni) > 0
	for _, other := range all {
		if other.service == c.service {
			return false
		}
		wants = wants || len(other.sni) > 0
	}
	if !wants || first.api || c.api || c.protocol == UDP || first.String() != c.String() {
		return false
	}
	for _, one := range []*claim{first, c} {
		if one.tls != nil && len(one.sni) == 0 { // see sni for the others
			l.passesOn(one.tls)
			return true
		}
	}
	for _, other := range all {
		if len(other.sni)+len(c.sni) == 0 {
			l.problem(c.at.Ptr(), "Two services without sni", "Service %q already gets the clients of %s that fit no "+
				"sni, at %s. Give this service sni, or another port.", other.service, other, place(other.at))
			return true
		}
		l.comparesNames(other, c)
	}
	l.comparesListeners(first, c)
	first.sharers = append(first.sharers, c)
	return true
}

// comparesNames reports the names of c that other has, too.
func (l *loader) comparesNames(other, c *claim) {
	has := make(map[string]hcl.Range, len(other.sni))
	for _, n := range other.sni {
		has[n.name] = n.at
	}
	for _, n := range c.sni {
		if at, both := has[n.name]; both {
			l.problem(n.at.Ptr(), "Name of two services", "Service %q has the name %q too, at %s, and both services "+
				"listen on %s. Remove one.", other.service, n.name, place(at), c)
		}
	}
}

// comparesListeners reports settings of a shared listener in which c differs from first.
func (l *loader) comparesListeners(first, c *claim) {
	const both = "Services %q and %q share the listener %s, at %s. %s"
	if !reflect.DeepEqual(first.accept, c.accept) {
		l.problem(c.at.Ptr(), "Shared listener with two settings", both, first.service, c.service, c, place(first.at),
			"Write the same accept_proxy block in both, or in neither: the header comes before the server name.")
	}
	if first.listener != c.listener {
		l.problem(c.at.Ptr(), "Shared listener with two settings", both, first.service, c.service, c, place(first.at),
			"Write the same mode, owner and group in both.")
	}
}

// String returns the claim's address for messages.
func (c *claim) String() string {
	if c.path != "" {
		return unixScheme + c.path
	}
	return fmt.Sprintf("%s %s", c.protocol, c.addr)
}
