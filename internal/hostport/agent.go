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

// An Agent is the address of a Consul agent's HTTP API.
type Agent struct {
	URL    url.URL // scheme, host and the path before the API's paths, without a slash at its end
	Socket string  // path of the Unix socket to dial instead of the URL's host; empty for TCP
}

// ParseAgent parses an address of Consul. The forms are "host:port", ":port" for 127.0.0.1, "http://host:port",
// "https://host:port" and "unix:///path/to/socket". The http and https forms may have a path, and need no port if it is
// the scheme's default. Errors say what to write, and never contain a password.
func ParseAgent(text string) (Agent, error) {
	const forms = `Write "127.0.0.1:8500", "https://consul.example.com:8501" or "unix:///run/consul.sock"`
	scheme, rest, hasScheme := strings.Cut(text, "://")
	switch {
	case !hasScheme:
		scheme, rest = "http", text
	case scheme == "unix" && strings.HasPrefix(rest, "/"):
		// HTTP needs a host, which the agent ignores.
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

// String returns the address. All spellings of one address give the same result.
func (a Agent) String() string {
	if a.Socket != "" {
		return "unix://" + a.Socket
	}
	return a.URL.String()
}

// Local reports whether the address shows that the agent is on this host. A Unix socket is always on this host.
func (a Agent) Local() bool {
	host := a.URL.Hostname()
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// isServer reports whether u has a host, and otherwise only a port and a path. The port may be missing.
func isServer(u *url.URL) bool {
	if u.Hostname() == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return false
	}
	return hasPort(u.Host) || hasPort(u.Host+":1")
}

// hasPort reports whether s is a host and a port. The host may be empty.
func hasPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && IsPort(port)
}

// IsPort reports whether s is a port number from 1 to 65535.
func IsPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}
