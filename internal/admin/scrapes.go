package admin

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// scrapeAge is the maximum age of metrics. Requests within that time share one collection of metrics.
const scrapeAge = time.Second

// scrapes serves /metrics. scrapes is safe for concurrent use.
type scrapes struct {
	work     *answers // limits scrapes to one at a time
	registry *prometheus.Registry
	encode   http.Handler // formats what Gather returns

	// The families and err that were gathered last. Only the request that has its turn changes them.
	families []*dto.MetricFamily
	err      error

	mu    sync.Mutex
	age   time.Duration       // scrapeAge, except in tests
	at    time.Time           // when the families were gathered
	pages map[variant]*answer // formatted families
}

// A variant is one format of the metrics: a media type, compressed or not.
type variant struct {
	accept string
	gzip   bool
}

func newScrapes(s *Server) *scrapes {
	x := &scrapes{work: s.work, registry: prometheus.NewRegistry(), age: scrapeAge, pages: map[variant]*answer{}}
	process := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})
	x.registry.MustRegister(&collector{server: s}, collectors.NewGoCollector(), process)
	x.encode = promhttp.HandlerFor(x, promhttp.HandlerOpts{
		ErrorLog:           s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		EnableOpenMetrics:  true,
		DisableCompression: true,
	})
	return x
}

// variantOf returns the format that a client accepts. variantOf drops parameters that make no difference here, so that
// there are few variants. An example is the escaping of names, which no metric needs.
func variantOf(header http.Header) variant {
	format := expfmt.NegotiateAccept(header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
	accept, _, _ := strings.Cut(string(format), "; escaping=")
	return variant{accept: accept, gzip: acceptsGzip(header)}
}

// acceptsGzip reports whether Accept-Encoding allows gzip (RFC 9110 12.5.3).
func acceptsGzip(header http.Header) bool {
	for _, item := range strings.Split(strings.Join(header.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(item, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		q := strings.ReplaceAll(strings.ToLower(weight), " ", "")
		return !strings.HasPrefix(q, "q=0") || strings.Trim(q, "q=0.") != ""
	}
	return false
}

// ServeHTTP implements http.Handler.
func (x *scrapes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, names := variantOf(r.Header), r.URL.Query()["name[]"]
	if page := x.page(v); page != nil && names == nil {
		page.send(w)
		return
	}
	key := fmt.Sprintf("%q %v %q", v.accept, v.gzip, names)
	x.work.serve(w, r, key, func() *answer { return x.make(v, names) })
}

// page returns the page of a variant, or nil if there is no recent one.
func (x *scrapes) page(v variant) *answer {
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.at) >= x.age {
		return nil
	}
	return x.pages[v]
}

// make returns a page of the metrics in names, or of all metrics if names is nil. The caller must have its turn of
// x.work.
func (x *scrapes) make(v variant, names []string) *answer {
	if names == nil {
		if page := x.page(v); page != nil {
			return page // the request before made the page
		}
	}
	if x.isOld() {
		x.families, x.err = x.registry.Gather()
		x.begin()
	}
	page := x.plain(v.accept, names)
	if v.gzip {
		page = compressed(page)
		x.keep(v, names, page)
	}
	return page
}

// plain returns an uncompressed page of the gathered families.
func (x *scrapes) plain(accept string, names []string) *answer {
	v := variant{accept: accept}
	if page := x.pages[v]; page != nil && names == nil {
		return page
	}
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{}, Header: http.Header{"Accept": {accept}}}
	if names != nil {
		r.URL.RawQuery = url.Values{"name[]": names}.Encode()
	}
	page := record(x.encode.ServeHTTP, r)
	page.header.Add("Vary", "Accept-Encoding")
	x.keep(v, names, page)
	return page
}

// isOld reports whether the metrics must be gathered again.
func (x *scrapes) isOld() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return time.Since(x.at) >= x.age
}

// forget frees metrics that are too old, so that Lictor uses less memory between scrapes.
func (x *scrapes) forget() {
	if !x.isOld() || !x.work.turns.TryAcquire(1) {
		return
	}
	defer x.work.turns.Release(1)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.families, x.err = nil, nil
	clear(x.pages)
}

// begin starts a new age and discards the pages of older metrics.
func (x *scrapes) begin() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at = time.Now()
	clear(x.pages)
}

// keep stores a page for later requests. keep does not store errors, or pages with only some metrics.
func (x *scrapes) keep(v variant, names []string, page *answer) {
	if names != nil || page.code != http.StatusOK {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pages[v] = page
}

// Gather implements prometheus.Gatherer for x.encode: it returns the families that were gathered last.
func (x *scrapes) Gather() ([]*dto.MetricFamily, error) { return x.families, x.err }

// compressed returns page compressed with gzip, at the fastest level.
func compressed(page *answer) *answer {
	var body bytes.Buffer
	z, _ := gzip.NewWriterLevel(&body, gzip.BestSpeed) // BestSpeed is a valid level
	_, _ = z.Write(page.body.Bytes())                  // writing to memory cannot fail
	_ = z.Close()
	c := &answer{code: page.code, header: page.header.Clone(), body: body}
	c.header.Set("Content-Encoding", "gzip")
	return c
}
