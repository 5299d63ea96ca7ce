package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/hashicorp/hcl/v2"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/returnpath"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// answersLost returns a warning for everything that keeps clients of transparent services from being served: a missing
// capability, what this host lacks to get the answers, and endpoints that cannot answer clients. What is true of the
// whole host is said once.
func answersLost(cfg *config.Config, sights []Sight) (problems hcl.Diagnostics) {
	checked := map[returnpath.Family]bool{}
	for i := range cfg.Services {
		s := &cfg.Services[i]
		if !s.Transparent {
			continue
		}
		warn := func(summary, detail string) {
			problems = append(problems, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary,
				Detail: fmt.Sprintf("Service %q: transparent: %s", s.Name, detail), Subject: s.DeclRange.Ptr()})
		}
		if !checked[0] {
			checked[0] = true
			checkCapability(warn)
		}
		seen := endpointsSeen(s, sights)
		for _, f := range familiesOf(s, seen) {
			if !checked[f] {
				checked[f] = true
				checkReturnPath(f, warn)
			}
		}
		for _, e := range seen {
			if why := unanswered(s, e); why != "" {
				warn("Endpoint does not suit all clients", fmt.Sprintf("%s %s.", e.ID, why))
			}
		}
	}
	return problems
}

func checkCapability(warn func(summary, detail string)) {
	err := proxy.TryTransparent()
	switch {
	case errors.Is(err, syscall.EPERM):
		warn("Addresses of clients cannot be used",
			err.Error()+". Ignore this if lictor runs as another user, or with more capabilities.")
	case err != nil:
		warn("Addresses of clients cannot be used", err.Error()+".")
	}
}

func checkReturnPath(f returnpath.Family, warn func(summary, detail string)) {
	found, err := returnpath.Check(f)
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		warn("Routes cannot be checked", err.Error()+".")
	}
	for _, one := range found {
		warn(one.Summary, one.Detail)
	}
}

// familiesOf returns the address families in which clients on other hosts and endpoints of s may meet.
func familiesOf(s *config.Service, seen []lb.Endpoint) (all []returnpath.Family) {
	for _, f := range []returnpath.Family{returnpath.IPv4, returnpath.IPv6} {
		is := func(a netip.Addr) bool { return a.Unmap().Is4() == (f == returnpath.IPv4) && !a.IsLoopback() }
		comes := s.AcceptProxy != nil || slices.ContainsFunc(s.Listen, func(l config.Listener) bool {
			return l.Path == "" && (is(l.Addr.Addr()) || l.Addr.Addr() == netip.IPv6Unspecified())
		})
		answers := len(seen) == 0 || slices.ContainsFunc(seen, func(e lb.Endpoint) bool {
			return e.Host != "" || e.Path == "" && is(e.Addr.Addr())
		})
		if comes && answers {
			all = append(all, f)
		}
	}
	return all
}

// unanswered returns why some clients of s cannot use the endpoint e. The result is empty if no reason is known.
func unanswered(s *config.Service, e lb.Endpoint) string {
	addr := e.Addr.Addr().Unmap()
	local := s.AcceptProxy == nil &&
		!slices.ContainsFunc(s.Listen, func(l config.Listener) bool { return !l.Addr.Addr().IsLoopback() })
	switch {
	case e.Host != "":
		return ""
	case e.Path != "":
		return "gets no clients, because a Unix socket cannot tell its server an address"
	case local && !addr.IsLoopback():
		return "gets no clients, because all listeners are at loopback addresses, and clients at loopback addresses " +
			"can use only instances there. Listen on another address"
	case !local && (addr.IsLoopback() || isOfThisHost(addr)):
		return "is on this host, so it serves only clients on this host"
	}
	return ""
}

// isOfThisHost reports whether an interface of this host has the address.
func isOfThisHost(addr netip.Addr) bool {
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr() == addr.WithZone("")
	})
}
