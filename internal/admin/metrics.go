package admin

import (
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lictor-proxy/lictor/internal/visible"
)

// client_golang is Prometheus's own library, which is tested against Prometheus's naming rules and formats. Lictor uses
// it for exposition only: the data path counts with plain atomics, and the collector converts a snapshot at each
// scrape. A series exists as long as its object exists. Label values are the names of configured services and queries,
// states, reasons and results. The endpoint label has IDs from the catalog, so the number of endpoint series is
// limited.

// maxEndpointSeries limits the number of endpoints with series of their own.
const maxEndpointSeries = 5000

// A collector produces the metrics of a Server.
type collector struct {
	server *Server

	mu    sync.Mutex
	descs map[string]*prometheus.Desc // by name, because making a Desc is the most costly part of a metric
}

// Describe implements prometheus.Collector. Describe sends nothing, which makes the collector "unchecked", because the
// series depend on the configuration.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.descs == nil {
		c.descs = map[string]*prometheus.Desc{}
	}
	e := &exposition{to, c.descs}
	s := c.server
	services := s.o.State.services()
	status := s.status(services)
	e.gauge("lictor_build_info", "The version of Lictor; always 1.", 1, "version", s.o.Version, "revision",
		s.o.Revision, "goversion", runtime.Version())
	e.gauge("lictor_ready", "Whether each service has a set of endpoints, 0 or 1.", truth(status.Ready))
	e.gauge("lictor_services", "Number of configured services.", float64(status.Services))
	for i := range services {
		e.service(&services[i])
		e.attempts(&services[i])
		e.kernelPath(&services[i])
		e.descriptors(&services[i])
		e.dials(&services[i])
		e.handshakes(&services[i])
		e.certificates(&services[i])
	}
	e.ejected(services)
	if s.o.EndpointMetrics == nil || s.o.EndpointMetrics() {
		e.endpoints(services)
	}
	m := s.o.State.mesh()
	e.mesh(&m)
	e.names(s.o.State.Names)
	e.watches(s)
	e.consul(status.Consul)
	if s.o.AccessLog != nil {
		if written, dropped, is := s.o.AccessLog(); is {
			e.counter("lictor_access_log_lines_total", "Lines written to the access log.", written)
			e.counter("lictor_access_log_dropped_total",
				"Access log lines dropped because the target was too slow.", dropped)
		}
	}
	e.admin(s)
	if s.o.LogDropped != nil {
		help := "Log lines dropped because the log's reader was too slow."
		e.counter("lictor_log_dropped_total", help, s.o.LogDropped())
	}
	e.gauge("lictor_restart_pending", "Changed arguments that take effect only after a restart or an upgrade.",
		float64(len(status.Pending)))
	ok, failed := s.reloads()
	e.counter("lictor_reloads_total", "Reloads of the configuration, by result.", ok, "result", "ok")
	e.counter("lictor_reloads_total", "Reloads of the configuration, by result.", failed, "result", "failed")
	if last := status.LastReload; last != nil {
		e.gauge("lictor_last_reload_successful", "Whether the last reload succeeded, 0 or 1.", truth(last.OK))
		e.gauge("lictor_last_reload_timestamp_seconds", "Time of the last reload.",
			float64(last.Time.UnixMilli())/1000)
	}
}

// names sends the metrics of host name lookups.
func (e *exposition) names(names Names) {
	if names == nil {
		return
	}
	const help = "Lookups of the host names of instances, by result."
	l := names.Lookups()
	e.counter("lictor_name_lookups_total", help, l.Found, "result", "found")
	e.counter("lictor_name_lookups_total", help, l.Denied, "result", "not_found")
	e.counter("lictor_name_lookups_total", help, l.Failed, "result", "failed")
	e.gauge("lictor_names_stale", "Host names whose last lookup failed; their earlier addresses stay in use.",
		float64(names.Stale()))
}

// admin sends the metrics of the admin API itself.
func (e *exposition) admin(s *Server) {
	open, evicted, refused := s.slots.counts()
	e.gauge("lictor_admin_connections_active", "Connections to the admin API now.", float64(open))
	const evictedHelp = "Connections to the admin API closed to make room for others."
	e.counter("lictor_admin_connections_evicted_total", evictedHelp, evicted)
	const refusedHelp = "Connections to the admin API closed at once, because no slot was free."
	e.counter("lictor_admin_connections_refused_total", refusedHelp, refused)
	const help = "Requests to the admin API refused because of a limit, by kind of request."
	e.counter("lictor_admin_requests_refused_total", help, s.streams.counts(), "reason", "streams")
	e.counter("lictor_admin_requests_refused_total", help, s.changes.counts(), "reason", "changes")
	busy := s.work.refused.Load() + s.walks.refused.Load() + s.queries.refused.Load()
	e.counter("lictor_admin_requests_refused_total", help, busy, "reason", "busy")
}

// An exposition sends metrics to Prometheus. All metrics of one name must have the same help and the same labels, in
// the same order.
type exposition struct {
	to    chan<- prometheus.Metric
	descs map[string]*prometheus.Desc
}

func (e *exposition) gauge(name, help string, v float64, labels ...string) {
	e.send(prometheus.GaugeValue, name, help, v, labels)
}

func (e *exposition) counter(name, help string, v int64, labels ...string) {
	e.send(prometheus.CounterValue, name, help, float64(v), labels)
}

// send sends one metric. The labels alternate between name and value.
func (e *exposition) send(kind prometheus.ValueType, name, help string, v float64, labels []string) {
	desc, values := e.describe(name, help, labels)
	e.to <- prometheus.MustNewConstMetric(desc, kind, v, values...)
}

func (e *exposition) histogram(name, help string, count uint64, sum time.Duration, buckets map[float64]uint64,
	labels ...string) {
	desc, values := e.describe(name, help, labels)
	e.to <- prometheus.MustNewConstHistogram(desc, count, sum.Seconds(), buckets, values...)
}

// cumulative converts buckets to cumulative buckets of Prometheus. There must be one more bucket than bounds.
func cumulative[N int64 | uint64](bounds []time.Duration, buckets []N) (count uint64, all map[float64]uint64) {
	all = make(map[float64]uint64, len(bounds))
	for i, n := range buckets {
		if count += uint64(n); i < len(bounds) {
			all[bounds[i].Seconds()] = count
		}
	}
	return count, all
}

// describe returns the Desc of a metric and the values of its labels.
func (e *exposition) describe(name, help string, labels []string) (desc *prometheus.Desc, values []string) {
	values = make([]string, 0, len(labels)/2)
	for i := 1; i < len(labels); i += 2 {
		values = append(values, visible.Label(labels[i]))
	}
	if desc = e.descs[name]; desc == nil {
		var names []string
		for i := 0; i < len(labels); i += 2 {
			names = append(names, labels[i])
		}
		desc = prometheus.NewDesc(name, help, names, nil)
		e.descs[name] = desc
	}
	return desc, values
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
