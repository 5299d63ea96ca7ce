package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/lictor-proxy/lictor/internal/hostport"
)

const endpointsExample = `["10.0.0.5:80", "db.example.com:5432"]`

// endpoints reads the list of endpoints of a static block, and records them for the search for loops.
func (b *block) endpoints(s *Service) []StaticEndpoint {
	exprs := b.items("endpoints", endpointsExample)
	if attr := b.attrs["endpoints"]; attr == nil || isNull(attr.Expr) {
		b.missing("endpoints", "A static block needs its endpoints, such as endpoints = %s.", endpointsExample)
	} else if list, diags := hcl.ExprList(attr.Expr); len(list) == 0 && !diags.HasErrors() {
		b.l.problem(b.rangeOf("endpoints"), "Empty list",
			"endpoints: write at least one, such as %s.", endpointsExample)
	}
	var all []StaticEndpoint
	seen := map[StaticEndpoint]hcl.Range{}
	for _, expr := range exprs {
		v, ok := b.l.evaluate("endpoints", expr, cty.String, `write each endpoint in quotes, such as "10.0.0.5:80"`)
		if !ok {
			continue
		}
		e, problem := parseEndpoint(v.AsString(), s.Protocol)
		first, duplicate := seen[e]
		switch {
		case problem != "":
			b.l.problem(expr.Range().Ptr(), "Bad endpoint", "%s.", problem)
			continue
		case duplicate:
			b.l.problem(expr.Range().Ptr(), "Duplicate endpoint",
				"%q is already in the list, at %s. Remove one of them.", v.AsString(), place(first))
			continue
		}
		b.l.static = append(b.l.static, staticClaim{e, s.Protocol, s.Name, v.AsString(), expr.Range()})
		seen[e] = expr.Range()
		all = append(all, e)
	}
	return all
}

func parseEndpoint(s string, protocol Protocol) (e StaticEndpoint, problem string) {
	if path, isSocket := strings.CutPrefix(s, unixScheme); isSocket {
		return unixEndpoint(s, path, protocol)
	}
	host, port, problem := splitHostPort(s, "10.0.0.5:80")
	if problem != "" {
		return e, problem
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return e, fmt.Sprintf("%q: %q is not a port. Write a number from 1 to 65535", s, port)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Unmap().IsUnspecified():
		return e, fmt.Sprintf("%q: %s cannot be dialled. Write the address of an instance", s, host)
	case err == nil && ip.Unmap().IsMulticast():
		return e, fmt.Sprintf("%q: an instance cannot have a multicast address. Write the address of an instance", s)
	case err == nil && ip.Unmap() == broadcast():
		return e, fmt.Sprintf("%q: an instance cannot have the broadcast address. Write the address of an instance", s)
	case err == nil && lacksInterface(ip):
		return e, fmt.Sprintf("%q: %s", s, needsInterface(ip))
	case err == nil:
		return StaticEndpoint{Addr: netip.AddrPortFrom(ip.Unmap(), uint16(n))}, ""
	case !hostport.IsHostName(host):
		return e, fmt.Sprintf("%q: %q is neither an IP address nor a host name. Write something like "+
			"\"10.0.0.5:80\" or \"db.example.com:5432\"", s, host)
	}
	return StaticEndpoint{Host: strings.ToLower(host), Addr: netip.AddrPortFrom(netip.Addr{}, uint16(n))}, ""
}

// unixScheme stands before the path of a Unix socket.
const unixScheme = "unix://"

// unixEndpoint returns the endpoint that s gives, which is the Unix socket at path.
func unixEndpoint(s, path string, protocol Protocol) (e StaticEndpoint, problem string) {
	if protocol == UDP {
		return e, fmt.Sprintf("%q: a Unix socket carries connections, and this service is %s. Write an address such "+
			"as \"10.0.0.5:80\"", s, protocol)
	}
	if problem := hostport.BadSocketPath(path); problem != "" {
		return e, fmt.Sprintf("%q: %s. Write something like \"unix:///run/app.sock\"", s, problem)
	}
	return StaticEndpoint{Path: path}, ""
}

func broadcast() netip.Addr { return netip.AddrFrom4([4]byte{255, 255, 255, 255}) }

// String returns the endpoint as it is written in the configuration: "10.0.0.5:80", "db.example.com:5432" or
// "unix:///run/app.sock".
func (e StaticEndpoint) String() string {
	switch {
	case e.Path != "":
		return unixScheme + e.Path
	case e.Host != "":
		return fmt.Sprintf("%s:%d", e.Host, e.Addr.Port())
	}
	return e.Addr.String()
}

// MarshalText returns the text of String.
func (e StaticEndpoint) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText accepts the texts that MarshalText returns.
func (e *StaticEndpoint) UnmarshalText(text []byte) error {
	if path, isSocket := strings.CutPrefix(string(text), unixScheme); isSocket {
		*e = StaticEndpoint{Path: path}
		return nil
	}
	host, portText, err := net.SplitHostPort(string(text))
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return err
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		*e = StaticEndpoint{Addr: netip.AddrPortFrom(addr, uint16(port))}
		return nil
	}
	*e = StaticEndpoint{Host: host, Addr: netip.AddrPortFrom(netip.Addr{}, uint16(port))}
	return nil
}
