package admin

import (
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A Path says on which path the clients of a service on this host are.
type Path struct {
	Asked  string `json:"asked"`         // kernel_path of the service: "off", "auto" or "on"
	Kernel bool   `json:"kernel"`        // clients on this host connect straight to the endpoints
	Why    string `json:"why,omitempty"` // why they do not, or not now

	Counters *KernelCounters  `json:"-"` // nil: the service was never on the kernel path
	Active   map[string]int64 `json:"-"` // connections on the kernel path now, by endpoint
	Picks    map[string]int64 `json:"-"` // how often clients were sent to an endpoint, by endpoint
}

// pathOff is the Path.Asked of a service that does not ask for the kernel path.
const pathOff = "off"

// Asks reports whether the service asks for the kernel path.
func (p Path) Asks() bool { return p.Asked != "" && p.Asked != pathOff }

// KernelCounters are the counters of one service on the kernel path. The Counters of the service include them.
type KernelCounters struct {
	Connections       int64 `json:"connections"`
	ConnectionsActive int64 `json:"connections_active"`
	DialsFailed       int64 `json:"dials_failed"`
	DialsRefused      int64 `json:"dials_refused"`
	DialsUnreachable  int64 `json:"dials_unreachable"`
	DialsTimedOut     int64 `json:"dials_timed_out"` // not answered within connect_timeout
	Abandoned         int64 `json:"abandoned"`       // ended by the client before they were established
	BytesUp           int64 `json:"bytes_up"`        // of connections that have ended
	BytesDown         int64 `json:"bytes_down"`
	EndedLeft         int64 `json:"ended_left"` // cut by on_leave
}

// path adds on which path the service is, and the counters of the kernel path. It must run after balanced.
func (s *Service) path(p Path) {
	s.Path, s.Kernel = p, p.Counters
	if c := p.Counters; c != nil {
		s.Counters.Connections += c.Connections
		s.Counters.ConnectionsActive += c.ConnectionsActive
		s.Counters.DialsFailed += c.DialsFailed
		s.Counters.BytesUp += c.BytesUp
		s.Counters.BytesDown += c.BytesDown
		s.Counters.EndedLeft += c.EndedLeft
		s.stats.DialsFailedBy[lb.Refused] += c.DialsRefused
		s.stats.DialsFailedBy[lb.Unreachable] += c.DialsUnreachable + c.DialsTimedOut
	}
	for i := range s.Endpoints {
		if c := s.Endpoints[i].Counters; c != nil {
			c.Active += p.Active[s.Endpoints[i].ID]
			c.Picks += p.Picks[s.Endpoints[i].ID]
		}
	}
}

// paths returns on which path each service is. Services that are not in the map do not ask for the kernel path.
func (s *State) paths() map[string]Path {
	if s.Paths == nil {
		return nil
	}
	return s.Paths()
}

// eachActivity calls f for each service with the activity of both paths.
func (s *State) eachActivity(f func(service string, a proxy.Activity)) {
	paths := s.paths()
	s.Proxier.EachActivity(func(service string, a proxy.Activity) {
		if c := paths[service].Counters; c != nil {
			a.Clients += c.Connections
			a.Active += c.ConnectionsActive
			a.Bytes += c.BytesUp + c.BytesDown
		}
		f(service, a)
	})
}

// Text says in words on which path the service is.
func (p Path) Text() string {
	switch {
	case !p.Kernel:
		return "Lictor forwards, not the kernel: " + p.Why
	case p.Why != "":
		return "kernel, but " + p.Why
	}
	return "kernel, clients on this host connect straight to the endpoints"
}

// kernelPath sends the metrics of the kernel path of a service that asks for it, or was on it.
func (e *exposition) kernelPath(s *Service) {
	c := s.Kernel
	if c == nil && !s.Path.Asks() {
		return
	}
	e.gauge("lictor_kernel_path", "Whether clients on this host connect straight to the endpoints, 0 or 1.",
		truth(s.Path.Kernel), "service", s.Name)
	if c == nil {
		return
	}
	e.counter("lictor_kernel_path_connections_total",
		"TCP connections on the kernel path, which lictor_connections_total includes.", c.Connections,
		"service", s.Name)
	e.gauge("lictor_kernel_path_connections_active",
		"TCP connections on the kernel path now, which lictor_connections_active includes.",
		float64(c.ConnectionsActive), "service", s.Name)
	const failed = "Connections on the kernel path that were not established, by cause."
	for _, one := range []struct {
		cause string
		n     int64
	}{{"refused", c.DialsRefused}, {"unreachable", c.DialsUnreachable}, {"timed_out", c.DialsTimedOut},
		{"abandoned", c.Abandoned}} {
		e.counter("lictor_kernel_path_failures_total", failed, one.n, "service", s.Name, "cause", one.cause)
	}
	const bytes = "Bytes of ended connections on the kernel path, which lictor_forwarded_bytes_total includes."
	e.counter("lictor_kernel_path_bytes_total", bytes, c.BytesUp, "service", s.Name, "direction", "up")
	e.counter("lictor_kernel_path_bytes_total", bytes, c.BytesDown, "service", s.Name, "direction", "down")
}
