package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

const clientsExample = `["10.0.0.0/8", "::1"]`

// maxClientPrefixes bounds allow, and deny too. A new client is compared with one prefix after the other.
const maxClientPrefixes = 1024

// clients reads allow and deny, which say what clients may use the service.
func (b *block) clients(s *Service) {
	s.Allow = b.prefixes("allow", "To allow all clients, leave allow out")
	s.Deny = b.prefixes("deny", "To refuse no client because of its address, leave deny out")
	for _, allowed := range s.Allow {
		for _, denied := range s.Deny {
			if denied.Bits() <= allowed.Bits() && denied.Contains(allowed.Addr()) {
				b.l.problem(b.rangeOf("allow"), "Allowed and denied",
					"allow: %s has no effect, because deny has %s, and deny wins. Remove one of them; "+
						"a service with allow refuses all other clients anyway.",
					quotedPrefix(allowed), quotedPrefix(denied))
			}
		}
	}
}

// prefixes reads a list of addresses and prefixes. It returns nil if the argument is absent. An empty list is a
// problem, and instead says what to do instead.
func (b *block) prefixes(name, instead string) []netip.Prefix {
	exprs := b.items(name, clientsExample)
	switch {
	case b.has(name) && exprs != nil && len(exprs) == 0:
		b.l.problem(b.rangeOf(name), "Empty list", "%s: write at least one address or prefix, such as %s. %s.",
			name, clientsExample, instead)
	case len(exprs) > maxClientPrefixes:
		b.l.problem(b.rangeOf(name), "Too many prefixes", "%s: %d are too many. Write at most %d, with wider "+
			"prefixes, or use a packet filter.", name, len(exprs), maxClientPrefixes)
		return nil
	}
	var all []netip.Prefix
	for _, expr := range exprs {
		v, ok := b.l.evaluate(name, expr, cty.String, `write each address and prefix in quotes, such as "10.0.0.0/8"`)
		if !ok {
			continue
		}
		p, problem := parsePrefix(v.AsString())
		if problem != "" {
			b.l.problem(expr.Range().Ptr(), "Bad prefix", "%s: %s.", name, problem)
			continue
		}
		all = append(all, p)
	}
	return all
}

// parsePrefix parses a prefix, or an address as the prefix with only that address. An IPv4-mapped IPv6 prefix becomes
// an IPv4 prefix. The problem is empty if there is none.
func parsePrefix(s string) (p netip.Prefix, problem string) {
	if before, zone, ok := strings.Cut(s, "%"); ok {
		_, length, slash := strings.Cut(zone, "/")
		if slash {
			before += "/" + length
		}
		return p, fmt.Sprintf("%q: leave out the interface. %q holds for every interface", s, before)
	}
	addr, err := netip.ParseAddr(s)
	switch {
	case err == nil && addr.Unmap().IsUnspecified():
		return p, fmt.Sprintf("%q: no client has this address. For all clients, write \"0.0.0.0/0\" (IPv4) and "+
			"\"::/0\" (IPv6)", s)
	case err == nil:
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), ""
	}
	p, err = netip.ParsePrefix(s)
	if err != nil {
		return p, notPrefix(s)
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if masked := p.Masked(); masked != p {
		return p, fmt.Sprintf("%q has bits behind its length. Write %q for the prefix, or %q for the address",
			s, masked, p.Addr())
	}
	return p, ""
}

// notPrefix returns what is wrong with s, which is neither an address nor a prefix, and what to write instead.
func notPrefix(s string) string {
	host, _, err := net.SplitHostPort(s)
	if _, isAddr := netip.ParseAddr(host); err == nil && isAddr == nil {
		return fmt.Sprintf("%q: leave out the port, because a client may have any. Write %q", s, host)
	}
	text, mask, _ := strings.Cut(s, "/")
	if addr, err := netip.ParseAddr(text); err == nil {
		if m, err := netip.ParseAddr(mask); err == nil && addr.Is4() && m.Is4() {
			if ones, bits := net.IPMask(m.AsSlice()).Size(); bits > 0 {
				return fmt.Sprintf("%q: write the length of the prefix instead of a mask: %q", s,
					netip.PrefixFrom(addr, ones).Masked())
			}
		}
		return fmt.Sprintf("%q: the length of a prefix is a whole number from 0 to %d. Write something like \"%s/%d\"",
			s, addr.BitLen(), addr, addr.BitLen())
	}
	switch s {
	case "all", "any", "*":
		return fmt.Sprintf("%q: for all clients, write \"0.0.0.0/0\" (IPv4) and \"::/0\" (IPv6)", s)
	}
	return fmt.Sprintf("%q is neither an IP address nor a prefix. "+
		"Write something like \"10.0.0.7\" or \"10.0.0.0/8\"", s)
}

// quotedPrefix returns p as it would be written, in quotes.
func quotedPrefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return fmt.Sprintf("%q", p.Addr())
	}
	return fmt.Sprintf("%q", p)
}
