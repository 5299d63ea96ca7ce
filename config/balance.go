package config

import (
	"math"
	"net/url"
	"strings"
)

// balancing reads the arguments that choose, eject and limit endpoints.
func (b *block) balancing(s *Service) {
	s.Sticky = b.durationOrNone("sticky", 0, 0)
	s.MaxFails = b.countZeroIsNever("max_fails", DefaultMaxFails, Off, maxMaxFails)
	s.MinAvailable = b.percent("min_available", DefaultMinAvailable)
	s.SlowStart = b.durationOrNone("slow_start", 0, 0)
	s.MaxConnections = b.countOrNever("max_connections", 0, 0, 1, maxConnections)
	s.MaxConnectionsPerEndpoint = b.countOrNever("max_connections_per_endpoint", 0, 0, 1, maxConnections)
	s.MaxConnectionsPerClient = b.countOrNever("max_connections_per_client", 0, 0, 1, maxConnections)
	s.MaxQueue = b.integer("max_queue", DefaultMaxQueue, 1, maxConnections)
	s.QueueTimeout = b.durationOrNone("queue_timeout", DefaultQueueTimeout, Off)
	if wait := b.durationOrNone("empty_wait", DefaultEmptyWait, Off); s.Protocol == TCP {
		s.EmptyWait = wait
	}
}

// check reads the check block of a service. It returns nil if the service has none.
func (b *block) check(p Protocol) *Check {
	c := b.single("check", checkSchema())
	if c == nil {
		return nil
	}
	out := &Check{
		Interval: c.durationAboveZero("interval", DefaultCheckInterval,
			"it is the time between two checks. The default is \"10s\""),
		Timeout: c.durationAboveZero("timeout", DefaultCheckTimeout,
			"it is the time that an instance has to answer. The default is \"2s\""),
	}
	if c.has("http") {
		c.httpCheck(out)
		return out
	}
	c.onlyWithHTTP("port", "max_silence")
	if t := c.single("tls", tlsSchema()); t != nil {
		c.l.problem(t.head.Ptr(), "Block without http",
			"tls is for a check over HTTP. Remove it, or write http = \"/health\".")
	}
	for _, name := range []string{"send", "expect"} {
		attr := c.attrs[name]
		switch {
		case p == TCP && attr != nil:
			b.l.problem(attr.NameRange.Ptr(), "Argument of another protocol",
				"%s is for udp, and this service is tcp: its check only connects. Remove it.", name)
		case p == UDP && attr == nil:
			c.missing(name, "A check over UDP needs send, the datagram to send, and expect, "+
				"the beginning of a good answer. Or write http = \"/health\".")
		}
	}
	if p == UDP {
		send, _ := c.text("send")
		out.Send = Secret(send)
		out.Expect, _ = c.text("expect")
	}
	return out
}

// httpCheck reads the arguments of a check over HTTP into c.
func (b *block) httpCheck(c *Check) {
	if path, ok := b.text("http"); ok {
		if _, err := url.ParseRequestURI(path); err != nil || path[0] != '/' {
			more := ""
			if strings.HasPrefix(path, "https://") {
				more = " With a tls block the check uses HTTPS."
			}
			b.l.problem(b.rangeOf("http"), "Bad path",
				"http: %q is not a path. Write the path to request, such as \"/health\".%s", path, more)
		}
		c.HTTP = path
	}
	c.Port = b.integer("port", 0, 1, math.MaxUint16)
	c.MaxSilence = b.durationOrNone("max_silence", DefaultMaxSilence, Off)
	if t := b.single("tls", tlsSchema()); t != nil {
		c.TLS = &TLS{}
		(&settings{loader: b.l}).readTLS(t, c.TLS, tlsVariables{})
	}
	for _, name := range []string{"send", "expect"} {
		if attr := b.attrs[name]; attr != nil {
			b.l.problem(attr.NameRange.Ptr(), "Arguments that exclude each other",
				"A check cannot have both http and %s. Remove one.", name)
		}
	}
}

// onlyWithHTTP reports each named argument that is present. The caller has found that the check has no http.
func (b *block) onlyWithHTTP(names ...string) {
	for _, name := range names {
		if attr := b.attrs[name]; attr != nil {
			b.l.problem(attr.NameRange.Ptr(), "Argument without http",
				"%s is for a check over HTTP. Remove it, or write http = \"/health\".", name)
		}
	}
}
