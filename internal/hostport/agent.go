package hostport

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// An Agent is where the HTTP API of a Consul agent is.
type Agent struct {
	URL    url.URL // scheme, host and the path in front of the API, which does not end in a slash
	Socket string  // path of the Unix socket to dial instead of the URL's host; empty: there is none
}

// ParseAgent reads an address of Consul: "host:port", ":port" on 127.0.0.1, "http://host:port", "https://host:port",
// each of the latter two with a path and without a port if it is the scheme's own, or "unix:///path/to/socket". Its
// errors say what to write, and never repeat a password.
func ParseAgent(text string) (Agent, error) {
	const forms = `Write "127.0.0.1:8500", "https://consul.example.com:8501" or "unix:///run/consul.sock"`
	scheme, rest, hasScheme := strings.Cut(text, "://")
	switch {
	case !hasScheme:
		scheme, rest = "http", text
	case scheme == "unix" && strings.HasPrefix(rest, "/"):
		// HTTP needs a host. The agent does not look at it.
		return Agent{URL: url.URL{Scheme: "http", Host: "localhost"}, Socket: rest}, nil
	}
	switch {
	case strings.Contains(rest, "@"):
		return Agent{}, errors.New("an address cannot hold a user and password. " +
			"Put them, as user:password, into the environment variable CONSUL_HTTP_AUTH")
	case scheme == "unix":
		return Agent{}, fmt.Errorf("%q: the path of a socket must be absolute. "+
			"Write something like \"unix:///run/consul.sock\"", text)
	case scheme != "http" && scheme != "https":
		return Agent{}, fmt.Errorf("%q: %q is not a scheme to reach Consul with. %s", text, scheme+"://", forms)
	}
	u, err := url.Parse(scheme + "://" + rest)
	switch {
	case hasScheme && (err != nil || !isServer(u)):
		return Agent{}, fmt.Errorf("%q is not the address of a server. %s", text, forms)
	case !hasScheme && (err != nil || u.Host != rest || !hasPort(u.Host)):
		return Agent{}, fmt.Errorf("%q is not host:port. %s", text, forms)
	}
	if u.Hostname() == "" {
		u.Host = "127.0.0.1" + u.Host
	}
	return Agent{URL: url.URL{Scheme: scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}}, nil
}

// String returns the address in one form for all ways to write it.
func (a Agent) String() string {
	if a.Socket != "" {
		return "unix://" + a.Socket
	}
	return a.URL.String()
}

// Local reports whether the agent is on this host, as far as its address says. The host of a socket is localhost.
func (a Agent) Local() bool {
	host := a.URL.Hostname()
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// isServer reports whether u has a host, and nothing more than a port and a path. Schemes have a port of their own.
func isServer(u *url.URL) bool {
	if u.Hostname() == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return false
	}
	return hasPort(u.Host) || hasPort(u.Host+":1")
}

// hasPort reports whether s is a host, or nothing, and a port.
func hasPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && IsPort(port)
}

// IsPort reports whether s is the number of a port that can be dialled, from 1 to 65535.
func IsPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
