package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// KernelPath says whether the connections of local clients go straight to the endpoints, by programs in the kernel.
type KernelPath int

// The values of kernel_path.
const (
	KernelPathOff  KernelPath = iota // Lictor forwards all connections itself
	KernelPathAuto                   // where service and host allow it
	KernelPathOn                     // always; Lictor does not start where that is not possible
)

func kernelPathNames() []string { return []string{"off", "auto", "on"} }

// String returns the value's name in the configuration.
func (k KernelPath) String() string { return nameOf(int(k), kernelPathNames()) }

// UnmarshalText takes the names that String returns.
func (k *KernelPath) UnmarshalText(text []byte) error { return parse(k, text, kernelPathNames()) }

// WantsKernelPath reports whether a service of c asks for the kernel path.
func (c *Config) WantsKernelPath() bool {
	return slices.ContainsFunc(c.Services, func(s Service) bool { return s.KernelPath != KernelPathOff })
}

// NeedsKernelPath reports whether a service of c must be on the kernel path.
func (c *Config) NeedsKernelPath() bool {
	return slices.ContainsFunc(c.Services, func(s Service) bool { return s.KernelPath == KernelPathOn })
}

// OffKernelPath returns for each service that cannot be on the kernel path why that is so, by name. The text is the end
// of a sentence about the service, such as "has max_age, and the kernel path ends no connection". OffKernelPath does
// not look at what the services ask for, nor at the host.
func (c *Config) OffKernelPath() map[string]string {
	shared := map[Listener]bool{} // listeners at which a server name chooses the service
	for i := range c.Services {
		for _, l := range c.Services[i].Listen {
			shared[l] = shared[l] || len(c.Services[i].SNI) > 0
		}
	}
	why := map[string]string{}
	for i := range c.Services {
		s := &c.Services[i]
		isShared := slices.ContainsFunc(s.Listen, func(l Listener) bool { return shared[l] })
		if text := cmp.Or(s.offKernelPath(isShared), c.logged()); text != "" {
			why[s.Name] = text
		}
	}
	return why
}

// logged returns why no service can be on the kernel path because of the access log, or "".
func (c *Config) logged() string {
	if c.AccessLog == nil {
		return ""
	}
	return "has an access_log, which gets no lines from the kernel path"
}

// offKernelPath returns why the kernel path cannot serve s, or "". isShared says that a server name chooses the service
// at one of its listeners.
func (s *Service) offKernelPath(isShared bool) string {
	for _, one := range []struct {
		applies bool
		why     string
	}{
		{s.Requests > 0, "has requests, and the kernel path counts no datagrams"},
		{s.Responses != 0, "has responses, and the kernel path counts no datagrams"},
		{s.Protocol == UDP && s.MaxSessions != DefaultMaxSessions,
			"has max_sessions, and the kernel path has no limits"},
		{s.Balance != RoundRobin, fmt.Sprintf("has balance = %q, and the kernel path knows only %q", s.Balance,
			RoundRobin)},
		{s.Sticky > 0, "has sticky, and the kernel path knows only turns"},
		{isShared, "has sni, or another service at its listener has, and the kernel path reads no server name"},
		{s.TLS != nil, "has tls, and the kernel path moves no bytes"},
		{s.EndpointTLS != nil, "has endpoint_tls, and the kernel path moves no bytes"},
		{s.Mesh != nil, "has mesh, and the kernel path moves no bytes"},
		{s.AcceptProxy != nil, "has accept_proxy, and the kernel path reads no header"},
		{s.SendProxy != 0, "has send_proxy, and the kernel path sends no header"},
		{s.Transparent, "has transparent, and the kernel path chooses no source address"},
		{len(s.Allow) > 0, "has allow, and the kernel path has no filter of clients"},
		{len(s.Deny) > 0, "has deny, and the kernel path has no filter of clients"},
		{s.MaxConnections > 0, "has max_connections, and the kernel path has no limits"},
		{s.MaxConnectionsPerEndpoint > 0, "has max_connections_per_endpoint, and the kernel path has no limits"},
		{s.MaxConnectionsPerClient > 0, "has max_connections_per_client, and the kernel path has no limits"},
		{s.MaxAge > 0, "has max_age, and the kernel path ends no connection"},
		{s.Protocol == TCP && s.TimeoutRange != (hcl.Range{}),
			"has idle_timeout or half_close_timeout, and the kernel path ends no connection"},
		{slices.ContainsFunc(s.Listen, func(l Listener) bool { return l.Path != "" }),
			"listens on a Unix socket, and the kernel path is for addresses"},
		{slices.ContainsFunc(s.Listen, func(l Listener) bool { return l.Addr.Addr().Zone() != "" }),
			"listens on a link-local address, which the kernel path does not know"},
		{s.mayHaveSockets(), "may have Unix sockets as endpoints, and the kernel path is for addresses"},
	} {
		if one.applies {
			return one.why
		}
	}
	return ""
}

// mayHaveSockets reports whether an endpoint of s may be a Unix socket.
func (s *Service) mayHaveSockets() bool {
	has := func(q ConsulQuery) bool { return len(q.SocketPaths) > 0 }
	return s.Consul != nil && has(*s.Consul) || slices.ContainsFunc(s.Failover, has) ||
		s.Static != nil && slices.ContainsFunc(s.Static.Endpoints, func(e StaticEndpoint) bool { return e.Path != "" })
}

// kernelPath reads whether a service asks for the kernel path.
func (b *block) kernelPath(s *Service) {
	_ = s.KernelPath.UnmarshalText([]byte(b.oneOf("kernel_path", b.l.cfg.KernelPath.String(), kernelPathNames())))
	b.l.kernelPathRanges = append(b.l.kernelPathRanges, b.rangeOf("kernel_path"))
	for _, one := range []struct {
		name  string
		never bool
	}{{"idle_timeout", s.IdleTimeout < 0}, {"half_close_timeout", s.HalfCloseTimeout < 0}} {
		if attr := b.attrs[one.name]; attr != nil && !one.never && s.TimeoutRange == (hcl.Range{}) {
			s.TimeoutRange = attr.Range
		}
	}
}

// kernelPathCgroup reads which processes the kernel path is for.
func (b *block) kernelPathCgroup() string {
	text, ok := b.text("kernel_path_cgroup")
	if ok && !strings.HasPrefix(text, "/") {
		b.l.problem(b.rangeOf("kernel_path_cgroup"), "Not a control group", "kernel_path_cgroup: %q does not begin "+
			"with a slash. Write the path of a cgroup v2, such as \"/sys/fs/cgroup/system.slice/app.service\" or "+
			"\"/system.slice/app.service\".", text)
	}
	return text
}

// onKernelPath reports services that must be on the kernel path and cannot. It must run after services and accessLog.
func (l *loader) onKernelPath() {
	if !l.cfg.NeedsKernelPath() {
		return
	}
	off := l.cfg.OffKernelPath()
	for i := range l.cfg.Services {
		s := &l.cfg.Services[i]
		if why := off[s.Name]; why != "" && s.KernelPath == KernelPathOn {
			l.problem(l.kernelPathRanges[i], "Not on the kernel path", "kernel_path: service %q %s. Write "+
				"kernel_path = \"auto\" or \"off\" in this service.", s.Name, why)
		}
	}
}
