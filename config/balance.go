package config

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
	for _, name := range []string{"send", "expect"} {
		attr := c.attrs[name]
		switch {
		case p == TCP && attr != nil:
			b.l.problem(attr.NameRange.Ptr(), "Argument of another protocol",
				"%s is for udp, and this service is tcp, which is checked by connecting. Remove it.", name)
		case p == UDP && attr == nil:
			c.missing(name, "Over UDP there is no way to tell that an instance is well but to ask it: a check "+
				"needs send, the datagram, "+
				"and expect, what the answer begins with.")
		}
	}
	if p == UDP {
		out.Send, _ = c.text("send")
		out.Expect, _ = c.text("expect")
	}
	return out
}
