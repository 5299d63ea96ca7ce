package config

import (
	"math"
	"net/url"
	"strings"
)

// balancing reads how endpoints are chosen, and when they are not.
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

// check reads the check block of a service; nil if there is none.
func (b *block) check(p Protocol) *Check {
	c := b.single("check", checkSchema())
	if c == nil {
		return nil
	}
	out := &Check{
		Interval: c.durationAboveZero("interval", DefaultCheckInterval,
			"it is how long there is between two checks. The default is \"10s\""),
		Timeout: c.durationAboveZero("timeout", DefaultCheckTimeout,
			"it is how long an instance has to answer. The default is \"2s\""),
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
				"%s is for udp, and this service is tcp, which is checked by connecting. Remove it.", name)
		case p == UDP && attr == nil:
			c.missing(name, "Over UDP there is no way to tell that an instance is well but to ask it: a check "+
				"needs send, the datagram, "+
				"and expect, what the answer begins with; or http.")
		}
	}
	if p == UDP {
		send, _ := c.text("send")
		out.Send = Secret(send)
		out.Expect, _ = c.text("expect")
	}
	return out
}

// httpCheck reads the arguments of a check over HTTP.
func (b *block) httpCheck(c *Check) {
	if path, ok := b.text("http"); ok {
		if _, err := url.ParseRequestURI(path); err != nil || path[0] != '/' {
			more := ""
			if strings.HasPrefix(path, "https://") {
				more = " With a tls block it is asked for over HTTPS."
			}
			b.l.problem(b.rangeOf("http"), "Bad path",
				"http: %q is not a path. Write what instances are asked for, such as \"/health\".%s", path, more)
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
				"A check cannot have http and %s. Remove one.", name)
		}
	}
}

// onlyWithHTTP reports arguments that a check without http cannot have.
func (b *block) onlyWithHTTP(names ...string) {
	for _, name := range names {
		if attr := b.attrs[name]; attr != nil {
			b.l.problem(attr.NameRange.Ptr(), "Argument without http",
				"%s is for a check over HTTP. Remove it, or write http = \"/health\".", name)
		}
	}
}
