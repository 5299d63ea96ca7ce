package admin

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

func (e *exposition) service(s *Service) {
	c := &s.Counters
	e.gauge("lictor_clients_waiting", "Clients that wait for a free slot at an endpoint, or for the first endpoint.",
		float64(s.Waiting), "service", s.Name)
	e.traffic(s)
	e.counter("lictor_ejections_total", "Ejections of endpoints after failures that Lictor saw.",
		c.Ejections, "service", s.Name)
	e.counter("lictor_forwarded_bytes_total", "Bytes forwarded, up from client to instance, and down.", c.BytesUp,
		"service", s.Name, "direction", "up")
	e.counter("lictor_forwarded_bytes_total", "Bytes forwarded, up from client to instance, and down.", c.BytesDown,
		"service", s.Name, "direction", "down")

	for _, state := range []string{StateFine, StateDegraded, StateRefusing} {
		e.gauge("lictor_service_state", "Whether the service is in this state, 0 or 1: fine, degraded or refusing.",
			truth(s.State == state), "service", s.Name, "state", state)
	}
	const panicking = "Whether the service ignores ejections, because too many endpoints are ejected, 0 or 1."
	e.gauge("lictor_service_panicking", panicking, truth(s.Panicking), "service", s.Name)
	e.preference(s)
	if !s.drainedSince.IsZero() {
		e.gauge("lictor_drained_since_timestamp_seconds",
			"When the oldest drain without an end began; absent while the service has none.",
			float64(s.drainedSince.UnixMilli())/1000, "service", s.Name)
	}
	states := map[[2]string]int{{StateIn, ReasonHealthy}: 0}
	for i := range s.Endpoints {
		states[[2]string{s.Endpoints[i].State, s.Endpoints[i].Reason}]++
	}
	for _, key := range slices.SortedFunc(maps.Keys(states),
		func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		e.gauge("lictor_endpoints", "Known endpoints, by whether they get clients, and why.",
			float64(states[key]),
			"service", s.Name, "state", key[0], "reason", key[1])
	}
	e.gauge("lictor_set_known", "Whether the service's set of endpoints is known, 0 or 1; an empty set is known.",
		truth(s.Set != SetNone), "service", s.Name)
	e.gauge("lictor_set_stale", "Whether the source of the service's endpoints fails, 0 or 1.",
		truth(s.StaleSince != nil), "service", s.Name)
	for i := range s.Sources {
		e.gauge("lictor_source_active", "Whether a service with several sources uses this one, 0 or 1.",
			truth(s.Sources[i].Active), "service", s.Name, "rank", strconv.Itoa(i+1), "source", s.Sources[i].Name)
	}
	if s.StaleSince != nil {
		e.gauge("lictor_set_stale_since_timestamp_seconds",
			"When the source began to fail; absent while the source works.", float64(s.StaleSince.UnixMilli())/1000,
			"service", s.Name)
	}
	if s.LastChange != nil {
		e.gauge("lictor_set_changed_timestamp_seconds", "Time of the last change of the service's endpoints.",
			float64(s.LastChange.UnixMilli())/1000, "service", s.Name)
	}
}

// traffic sends the counts of connections, or of sessions and datagrams.
func (e *exposition) traffic(s *Service) {
	c := &s.Counters
	if s.Protocol == "udp" {
		e.counter("lictor_sessions_total", "UDP sessions begun.", c.Sessions, "service", s.Name)
		e.gauge("lictor_sessions_active", "UDP sessions now.", float64(c.SessionsActive), "service", s.Name)
		e.counter("lictor_sessions_evicted_total", "UDP sessions ended early to make room for new ones.",
			c.SessionsEvicted, "service", s.Name)
		e.counter("lictor_datagrams_total", "Datagrams forwarded, up from client to instance, and down.",
			c.DatagramsUp, "service", s.Name, "direction", "up")
		e.counter("lictor_datagrams_total", "Datagrams forwarded, up from client to instance, and down.",
			c.DatagramsDown, "service", s.Name, "direction", "down")
		e.counter("lictor_datagrams_dropped_total", "Datagrams that were not forwarded.",
			c.DatagramsDropped, "service", s.Name)
		e.counter("lictor_datagrams_overrun_total", "Datagrams that the kernel dropped at the listener.",
			c.DatagramsOverrun, "service", s.Name)
	} else {
		e.counter("lictor_connections_total", "TCP connections accepted.", c.Connections, "service", s.Name)
		e.gauge("lictor_connections_active", "TCP connections now.", float64(c.ConnectionsActive), "service", s.Name)
		const ended = "TCP connections ended by on_leave because their instance had left, by max_age, or by intentions."
		e.counter("lictor_connections_ended_total", ended, c.EndedLeft, "service", s.Name, "cause", "endpoint_left")
		e.counter("lictor_connections_ended_total", ended, c.EndedAged, "service", s.Name, "cause", "max_age")
		e.counter("lictor_connections_ended_total", ended, c.EndedIntention, "service", s.Name, "cause", "intention")
	}
}

// preference sends how many clients stay near. preference sends nothing for a service that prefers no endpoints.
func (e *exposition) preference(s *Service) {
	n := s.Near
	if n == nil {
		return
	}
	const chosen = "Clients of a service with a preference, by whether they got a near endpoint."
	e.counter("lictor_preference_clients_total", chosen, n.Stayed, "service", s.Name, "near", "true")
	e.counter("lictor_preference_clients_total", chosen, n.Left, "service", s.Name, "near", "false")
	e.gauge("lictor_preference_share", "Part of the clients that stays near, between 0 and 1.", n.Share,
		"service", s.Name)
}

// ejected sends the number of addresses that are ejected. All services share the health of an address, so a dead
// address counts once, however many services use it.
func (e *exposition) ejected(services []Service) {
	addresses := map[[2]string]bool{}
	for i := range services {
		for j := range services[i].Endpoints {
			one := &services[i].Endpoints[j]
			if one.Reason == ReasonEjected || one.Reason == ReasonTrial {
				addresses[[2]string{services[i].Protocol, one.Address}] = true
			}
		}
	}
	e.gauge("lictor_ejected_addresses", "Addresses that are ejected, however many services use each.",
		float64(len(addresses)))
}

// attempts sends the metrics of dials, retries and refusals. attempts sends all causes and reasons from the start,
// because Prometheus does not see the first event of a series that appears with that event.
func (e *exposition) attempts(s *Service) {
	for cause, n := range s.stats.DialsFailedBy {
		if lb.Cause(cause) == lb.Unfit { // a cause of active checks only
			continue
		}
		word := "local"
		if cause > 0 {
			word = lb.Cause(cause).String()
		}
		e.counter("lictor_dial_failures_total", "Failed attempts to reach an endpoint, by cause.", n, "service",
			s.Name, "cause", word)
	}
	for reason, n := range s.stats.RefusedBy {
		e.counter("lictor_clients_refused_total", "Clients that Lictor refused, by reason.", n,
			"service", s.Name, "reason", proxy.Refusal(reason).String())
	}
	e.counter("lictor_retries_total", "Retries at another endpoint after a failed attempt.",
		s.stats.Retries, "service", s.Name)
}

// descriptors sends the metrics of a service's file descriptors.
func (e *exposition) descriptors(s *Service) {
	e.counter("lictor_descriptor_waits_total", "How often new TCP clients waited for descriptors.",
		s.stats.DescriptorWaits, "service", s.Name)
	d := s.Descriptors
	e.gauge("lictor_descriptors_taken", "Descriptors that a service uses for its clients.",
		float64(d.Taken), "service", s.Name)
	e.gauge("lictor_descriptors_floor", "Descriptors that are guaranteed to a service.",
		float64(d.Floor), "service", s.Name)
	e.gauge("lictor_descriptors_ceiling", "Maximum number of descriptors that a service can use.",
		float64(d.Ceiling), "service", s.Name)
}

// dials sends the histogram of a service's successful dials. dials sends nothing before the first dial.
func (e *exposition) dials(s *Service) {
	if s.stats.Dials.Count() == 0 {
		return
	}
	bounds := proxy.DialBounds()
	count, buckets := cumulative(bounds[:], s.stats.Dials.Buckets[:])
	e.histogram("lictor_dial_duration_seconds",
		"How long TCP clients waited for an instance, including failed attempts.", count, s.stats.Dials.Sum, buckets,
		"service", s.Name)
}

// handshakes sends the metrics of the TLS handshakes of a service with its endpoints, if it speaks TLS with them.
func (e *exposition) handshakes(s *Service) {
	h := s.stats.Handshakes
	if h == nil {
		return
	}
	const total = "lictor_dial_handshakes_total"
	const help = "TLS handshakes with endpoints that succeeded, by whether they resumed a session."
	e.counter(total, help, h.Full, "service", s.Name, "resumed", "false")
	e.counter(total, help, h.Resumed, "service", s.Name, "resumed", "true")
	e.send(prometheus.CounterValue, "lictor_dial_handshake_seconds_total",
		"How long TLS handshakes with endpoints that succeeded took in total.", h.Time.Seconds(),
		[]string{"service", s.Name})
	for cause, n := range h.FailedBy {
		e.counter("lictor_dial_handshake_failures_total", "TLS handshakes with endpoints that failed, by cause.", n,
			"service", s.Name, "cause", proxy.HandshakeFailure(cause).String())
	}
}

// endpoints sends the series of single endpoints, for at most maxEndpointSeries endpoints.
func (e *exposition) endpoints(services []Service) {
	listed, unlisted := 0, 0
	for i := range services {
		for j := range services[i].Endpoints {
			one := &services[i].Endpoints[j]
			if one.Counters == nil {
				continue
			}
			if listed == maxEndpointSeries {
				unlisted++
				continue
			}
			listed++
			labels := []string{"service", services[i].Name, "endpoint", one.ID}
			e.gauge("lictor_endpoint_clients_active", "Connections or sessions of an endpoint now.",
				float64(one.Counters.Active), labels...)
			e.counter("lictor_endpoint_clients_total", "Connections or sessions that an endpoint was chosen for.",
				one.Counters.Picks, labels...)
			e.counter("lictor_endpoint_failures_total", "Failed attempts to reach an endpoint.",
				one.Counters.DialsFailed, labels...)
		}
	}
	e.gauge("lictor_endpoints_unlisted", "Endpoints without series of their own, because the limit is reached.",
		float64(unlisted))
}

// watches sends the metrics of Consul watches. Services with the same query share one watch.
func (e *exposition) watches(s *Server) {
	all := s.o.State.watches()
	seen := map[string]int{}
	for i := range all {
		name := all[i].Query.String()
		if seen[name]++; seen[name] > 1 { // watches with the same name that are guarded differently
			name = fmt.Sprintf("%s #%d", name, seen[name])
		}
		e.watch(&all[i], name)
	}
	e.gauge("lictor_consul_watches", "Number of watches in Consul.", float64(len(all)))
	if lag, bounds := s.o.State.lag(), discovery.LagBounds(); lag != nil {
		count, buckets := cumulative(bounds[:], lag.Buckets[:])
		e.histogram("lictor_consul_apply_duration_seconds",
			"Time from Consul's answer until Lictor used the new set of endpoints.", count, lag.Sum, buckets)
	}
}

// consul sends the metrics of the addresses of Consul.
func (e *exposition) consul(c *Consul) {
	if c == nil {
		return
	}
	e.gauge("lictor_consul_address_info", "The address of Consul that Lictor uses; always 1.", 1, "address", c.Address)
	e.gauge("lictor_consul_address_timestamp_seconds", "Time when Lictor began to use the address of Consul.",
		float64(c.Since.UnixMilli())/1000)
	e.counter("lictor_consul_moves_total", "Moves to another address of Consul.", int64(c.Moves))
}

func (e *exposition) watch(w *discovery.WatchStatus, name string) {
	e.counter("lictor_consul_queries_total", "Queries sent to Consul.", int64(w.Queries), "watch", name)
	e.counter("lictor_consul_query_failures_total", "Queries to Consul that failed.", int64(w.Errors), "watch", name)
	e.counter("lictor_consul_queries_throttled_total", "Queries that Consul refused because of its rate limit.",
		int64(w.Throttled), "watch", name)
	e.counter("lictor_consul_answers_doubted_total",
		"Answers of Consul that Lictor confirmed with the servers before using them.", int64(w.Doubted),
		"watch", name)
	e.gauge("lictor_consul_endpoints_held", "Endpoints that are held: still in use, but no longer reported by Consul.",
		float64(w.Held), "watch", name)
	e.counter("lictor_consul_holds_total", "How often an endpoint began to be held.",
		int64(w.Holds), "watch", name)
	e.counter("lictor_consul_updates_total", "Changed sets of endpoints from Consul.",
		int64(w.Updates), "watch", name)
	if !w.LastSuccess.IsZero() {
		e.gauge("lictor_consul_last_success_timestamp_seconds", "Time of Consul's last answer.",
			float64(w.LastSuccess.UnixMilli())/1000, "watch", name)
	}
}
