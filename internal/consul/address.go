package consul

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// A target is where the API of an agent is.
type target struct {
	base   url.URL // scheme, host and path prefix; the path does not end in a slash
	socket string  // path of the Unix socket to dial; empty: dial the host of base
}

// Local reports whether an address, in a form that Options.Address takes, is certainly on this host. It reports
// false for an address that cannot be parsed.
func Local(address string) bool {
	t, err := parseTarget(address)
	return err == nil && t.local()
}

// local reports whether t is on this host, as far as its name says.
func (t target) local() bool {
	host := t.base.Hostname()
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback() // a Unix socket has the host localhost
}

// parseTarget parses an address in a form that Options.Address lists. Its errors never repeat a password.
func parseTarget(address string) (target, error) {
	scheme, rest, found := strings.Cut(address, "://")
	switch {
	case !found:
		scheme, rest = "http", address
	case scheme == "unix":
		if !strings.HasPrefix(rest, "/") {
			return target{}, fmt.Errorf("consul address %q: unix:// wants the absolute path of a socket", address)
		}
		// HTTP needs a host. The agent does not look at it.
		return target{base: url.URL{Scheme: "http", Host: "localhost"}, socket: rest}, nil
	case scheme != "http" && scheme != "https":
		return target{}, fmt.Errorf("consul address: unknown scheme %q, not http, https or unix", scheme)
	}
	if strings.Contains(rest, "@") {
		return target{}, errors.New("consul address: has a user name, which belongs into the HTTP authentication")
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil {
		return target{}, fmt.Errorf("consul address %q: not host:port or a URL", address)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return target{}, fmt.Errorf("consul address %q: has more than a host, a port and a path", address)
	}
	if err := checkHostPort(u.Host, found); err != nil {
		return target{}, fmt.Errorf("consul address %q: %w", address, err)
	}
	if strings.HasPrefix(u.Host, ":") {
		u.Host = "127.0.0.1" + u.Host
	}
	return target{base: url.URL{Scheme: scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}}, nil
}

// checkHostPort returns an error unless host is "host:port" or ":port". If the scheme was given, "host" is good too,
// as the scheme has a default port.
func checkHostPort(host string, scheme bool) error {
	if scheme && host != "" && !strings.Contains(strings.TrimSuffix(host[strings.LastIndex(host, "]")+1:], "."), ":") {
		return nil
	}
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		return errors.New("not host:port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %q is not in 1..65535", port)
	}
	return nil
}
