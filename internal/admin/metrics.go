package admin

import (
	"maps"
	"net/http"
	"runtime"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lictor-proxy/lictor/proxy"
)

// client_golang is Prometheus's own library, and what its naming rules and formats are tested with. It is used for exposition only: counters stay
// plain atomics of the data path, and the collector turns a snapshot into metrics when it is asked. So a series is there as long as what
// it is about is there, and no longer. Labels are the names of configured services, states, reasons and results: nothing that a client or the
// catalog chooses, so their number is bounded.

// metrics is the handler of /metrics.
func (s *Server) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{s}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog:            s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		MaxRequestsInFlight: 4,
		EnableOpenMetrics:   true,
	})
}

// A collector makes metrics of what a Server shows.
type collector struct{ server *Server }

// Describe implements prometheus.Collector: the collector is "unchecked", for which series there are depends on what is configured.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	e := &exposition{to}
	s := c.server
	services := s.o.State.services()
	status := s.status(services)
	e.gauge("lictor_build_info", "Which Lictor this is; always 1.", 1, "version", s.o.Version, "revision", s.o.Revision, "goversion", runtime.Version())
	e.gauge("lictor_ready", "Whether each service has a set of endpoints, 0 or 1.", truth(status.Ready))
	e.gauge("lictor_services", "How many services are configured.", float64(status.Services))
	for i := range services {
		e.service(&services[i])
	}
	for _, st := range s.o.State.Proxier.Snapshot() {
		e.dials(&st)
	}
	e.watches(s)
	if s.o.AccessLog != nil {
		written, dropped := s.o.AccessLog()
		e.counter("lictor_access_log_lines_total", "Lines written to the access log.", written)
		e.counter("lictor_access_log_dropped_total", "Lines that the access log could not take as fast as they came.", dropped)
	}
	ok, failed := s.reloads()
	e.counter("lictor_reloads_total", "Reloads of the configuration by how they ended.", ok, "result", "ok")
	e.counter("lictor_reloads_total", "Reloads of the configuration by how they ended.", failed, "result", "failed")
	if last := status.LastReload; last != nil {
		e.gauge("lictor_last_reload_successful", "Whether the last reload succeeded, 0 or 1.", truth(last.OK))
		e.gauge("lictor_last_reload_timestamp_seconds", "When the last reload was.", float64(last.Time.UnixMilli())/1000)
	}
}

// An exposition sends metrics.
type exposition struct{ to chan<- prometheus.Metric }

func (e *exposition) gauge(name, help string, v float64, labels ...string) {
	e.send(prometheus.GaugeValue, name, help, v, labels)
}

func (e *exposition) counter(name, help string, v int64, labels ...string) {
	e.send(prometheus.CounterValue, name, help, float64(v), labels)
}

// send takes labels as name, value, name, value.
func (e *exposition) send(kind prometheus.ValueType, name, help string, v float64, labels []string) {
	names, values := pairs(labels)
	e.to <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), kind, v, values...)
}

func pairs(labels []string) (names, values []string) {
	for i := 0; i < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	return names, values
}

func (e *exposition) service(s *Service) {
	c := &s.Counters
	e.gauge("lictor_clients_waiting", "Clients that wait for room at an endpoint.", float64(s.Waiting), "service", s.Name)
	if s.Protocol == "udp" {
		e.counter("lictor_sessions_total", "UDP sessions begun.", c.Sessions, "service", s.Name)
		e.gauge("lictor_sessions_active", "UDP sessions now.", float64(c.SessionsActive), "service", s.Name)
		e.counter("lictor_sessions_evicted_total", "UDP sessions ended before their time, to make room.", c.SessionsEvicted, "service", s.Name)
		e.counter("lictor_datagrams_total", "Datagrams forwarded, up from client to instance, and down.", c.DatagramsUp, "service", s.Name, "direction", "up")
		e.counter("lictor_datagrams_total", "Datagrams forwarded, up from client to instance, and down.", c.DatagramsDown, "service", s.Name, "direction", "down")
		e.counter("lictor_datagrams_dropped_total", "Datagrams that were not forwarded.", c.DatagramsDropped, "service", s.Name)
	} else {
		e.counter("lictor_connections_total", "TCP connections accepted.", c.Connections, "service", s.Name)
		e.gauge("lictor_connections_active", "TCP connections now.", float64(c.ConnectionsActive), "service", s.Name)
		const ended = "TCP connections ended by on_leave because their instance had left, or by max_age."
		e.counter("lictor_connections_ended_total", ended, c.EndedLeft, "service", s.Name, "cause", "endpoint_left")
		e.counter("lictor_connections_ended_total", ended, c.EndedAged, "service", s.Name, "cause", "max_age")
	}
	e.counter("lictor_dial_failures_total", "Endpoints tried in vain.", c.DialsFailed, "service", s.Name)
	e.counter("lictor_clients_refused_total", "Clients for whom no endpoint was found.", c.Refused, "service", s.Name)
	e.counter("lictor_forwarded_bytes_total", "Bytes forwarded, up from client to instance, and down.", c.BytesUp, "service", s.Name, "direction", "up")
	e.counter("lictor_forwarded_bytes_total", "Bytes forwarded, up from client to instance, and down.", c.BytesDown, "service", s.Name, "direction", "down")

	states := map[[2]string]int{{StateIn, ReasonHealthy}: 0}
	for i := range s.Endpoints {
		states[[2]string{s.Endpoints[i].State, s.Endpoints[i].Reason}]++
	}
	for _, key := range slices.SortedFunc(maps.Keys(states), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		e.gauge("lictor_endpoints", "Endpoints that are known, by whether they get clients, and why.", float64(states[key]),
			"service", s.Name, "state", key[0], "reason", key[1])
	}
	e.gauge("lictor_set_known", "Whether the service's endpoints are known, 0 or 1; none at all is known too.", truth(s.Set != SetNone), "service", s.Name)
	e.gauge("lictor_set_stale", "Whether the source of the service's endpoints fails, 0 or 1.", truth(s.StaleSince != nil), "service", s.Name)
	if s.StaleSince != nil {
		e.gauge("lictor_set_stale_since_timestamp_seconds", "When the source began to fail; absent while it does not.", float64(s.StaleSince.UnixMilli())/1000, "service", s.Name)
	}
	if s.LastChange != nil {
		e.gauge("lictor_set_changed_timestamp_seconds", "When the service's endpoints changed last.", float64(s.LastChange.UnixMilli())/1000, "service", s.Name)
	}
}

// dials is the histogram of a service's successful dials; there is none before the first.
func (e *exposition) dials(s *proxy.Stats) {
	n := s.Dials.Count()
	if n == 0 {
		return
	}
	buckets, sum := map[float64]uint64{}, uint64(0)
	for i, bound := range proxy.DialBounds() {
		sum += uint64(s.Dials.Buckets[i])
		buckets[bound.Seconds()] = sum
	}
	desc := prometheus.NewDesc("lictor_dial_duration_seconds", "How long TCP clients waited for an instance, endpoints tried in vain included.", []string{"service"}, nil)
	e.to <- prometheus.MustNewConstHistogram(desc, uint64(n), s.Dials.Sum.Seconds(), buckets, s.Service)
}

// watches adds up what queries came to; each of services shares one watch with those that ask the same.
func (e *exposition) watches(s *Server) {
	var queries, failed, throttled, doubted, updates uint64
	all := s.o.State.watches()
	for _, w := range all {
		queries, failed, throttled, doubted, updates = queries+w.Queries, failed+w.Errors, throttled+w.Throttled, doubted+w.Doubted, updates+w.Updates
	}
	e.gauge("lictor_consul_watches", "Queries that are followed in Consul.", float64(len(all)))
	e.counter("lictor_consul_queries_total", "Queries sent to Consul.", int64(queries))
	e.counter("lictor_consul_query_failures_total", "Queries to Consul that failed.", int64(failed))
	e.counter("lictor_consul_queries_throttled_total", "Queries that Consul refused because there were too many.", int64(throttled))
	e.counter("lictor_consul_answers_doubted_total", "Answers of Consul that were not believed until its servers confirmed or corrected them.", int64(doubted))
	e.counter("lictor_consul_updates_total", "Sets of endpoints from Consul that were new.", int64(updates))
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
