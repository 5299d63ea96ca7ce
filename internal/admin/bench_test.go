package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// benchServer returns a Server with n services of three endpoints each. All of them are in use and come from Consul.
func benchServer(n int) *Server {
	f := &fake{}
	events := endpoints.NewEvents()
	sets := endpoints.NewSets(lb.NewRoundRobin(), events, nil)
	balanced := map[string]Balanced{}
	for i := range n {
		name := fmt.Sprintf("service-%04d", i)
		one := proxy.Stats{Service: name, Connections: int64(i) + 1, BytesUp: 1 << 30, BytesDown: 1 << 33}
		one.Dials.Buckets[2], one.Dials.Sum = int64(i)+1, time.Second
		f.services = append(f.services, Configured{Name: name, Protocol: "tcp", Source: "consul service " + name})
		f.stats = append(f.stats, one)
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(9000+i))
		f.listeners = append(f.listeners, proxy.Listener{Service: name, Addr: lb.Addr{AddrPort: at}})
		query := discovery.Query{Service: name, Statuses: []string{"passing"}}
		f.watch = append(f.watch, discovery.WatchStatus{
			Services: []string{name}, Query: query, Queries: 7, Updates: 3, LastSuccess: time.Unix(1700000000, 0),
		})
		set, b := lb.Endpoints{Service: name}, Balanced{}
		for j := range 3 {
			id := fmt.Sprintf("node-%d/%s-%d", j, name, j)
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 8080)
			set.Endpoints = append(set.Endpoints, lb.Endpoint{ID: id, Addr: addr, Weight: 1})
			b.Endpoints = append(b.Endpoints, Endpoint{ID: id, Counters: &EndpointCounters{Active: 1, Picks: 1000}})
		}
		sets.OnUpdate([]lb.Endpoints{set})
		balanced[name] = b
	}
	return New(Options{Events: events, State: State{
		Proxier: f, Sets: sets, Watches: func() Watches { return fakeWatches{f} }, Configured: f.configured,
		Balanced: func() map[string]Balanced { return balanced },
	}})
}

// BenchmarkAnswers measures the cost of an answer with 500 services, for one client and for 50 concurrent clients.
func BenchmarkAnswers(b *testing.B) {
	for _, path := range []string{
		"/metrics", "/v1/services", "/v1/services/service-0250", "/v1/status", "/v1/events", "/readyz", "/healthz",
	} {
		b.Run(path, func(b *testing.B) { benchAnswer(b, path, 1) })
		b.Run(path+"/50", func(b *testing.B) { benchAnswer(b, path, 50) })
	}
}

func benchAnswer(b *testing.B, path string, readers int) {
	h := benchServer(500).mux()
	b.ReportAllocs()
	b.SetParallelism(readers)
	var refused atomic.Int64
	defer func() { b.ReportMetric(float64(refused.Load())/float64(b.N), "refused/op") }()
	ask := func(more func() bool) {
		for more() {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Header.Set("Accept-Encoding", "gzip")
			w := &discarded{header: http.Header{}}
			h.ServeHTTP(w, r)
			if w.code >= 400 {
				refused.Add(1)
			}
		}
	}
	if readers == 1 {
		ask(b.Loop)
		return
	}
	b.RunParallel(func(p *testing.PB) { ask(p.Next) })
}

// discarded is a response writer that discards the answer.
type discarded struct {
	header http.Header
	code   int
}

func (d *discarded) Header() http.Header         { return d.header }
func (d *discarded) WriteHeader(code int)        { d.code = code }
func (d *discarded) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkScrape measures a scrape that is not shared: gathering, encoding and compressing.
func BenchmarkScrape(b *testing.B) {
	s := benchServer(500)
	h := s.mux()
	b.ReportAllocs()
	for b.Loop() {
		s.scrapes.expire()
		r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		h.ServeHTTP(&discarded{header: http.Header{}}, r)
	}
}
