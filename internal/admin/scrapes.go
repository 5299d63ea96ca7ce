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

// scrapeAge is how old metrics may be: those gathered for one request serve all that come within it.
const scrapeAge = time.Second

// scrapes answers requests for /metrics. Safe for concurrent use.
type scrapes struct {
	work     *answers // which makes one answer at a time
	registry *prometheus.Registry
	encode   http.Handler // what Gather returns

	// What has been gathered. Only the request whose turn it is changes it.
	families []*dto.MetricFamily
	err      error

	mu    sync.Mutex
	age   time.Duration       // scrapeAge, but for tests
	at    time.Time           // when that was done
	pages map[variant]*answer // made of it
}

// A variant is one form of the metrics: a media type and whether it is compressed.
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

// variantOf returns the form that a client wants. Parameters that make no difference here, such as how to escape names
// that no metric has, are left out, so that there are few variants.
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

// page returns the page of a variant, or nil if there is none that is new enough.
func (x *scrapes) page(v variant) *answer {
	x.mu.Lock()
	defer x.mu.Unlock()
	if time.Since(x.at) >= x.age {
		return nil
	}
	return x.pages[v]
}

// make makes a page of the metrics with these names, all if there are none. The caller has its turn of work.
func (x *scrapes) make(v variant, names []string) *answer {
	if names == nil {
		if page := x.page(v); page != nil {
			return page // made by the one whose turn was before
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

// plain is make for a variant without compression, of what has been gathered.
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

// isOld reports whether metrics are to be gathered anew.
func (x *scrapes) isOld() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return time.Since(x.at) >= x.age
}

// forget frees what is too old, so that Lictor is no larger than it has to be between scrapes.
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

// begin forgets the pages of what was gathered before.
func (x *scrapes) begin() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at = time.Now()
	clear(x.pages)
}

// keep keeps a page for others, unless it is an error or of some names only.
func (x *scrapes) keep(v variant, names []string, page *answer) {
	if names != nil || page.code != http.StatusOK {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.pages[v] = page
}

// Gather implements prometheus.Gatherer, for encode: it returns what has been gathered.
func (x *scrapes) Gather() ([]*dto.MetricFamily, error) { return x.families, x.err }

// compressed returns page by gzip, at the level that takes the least time.
func compressed(page *answer) *answer {
	var body bytes.Buffer
	z, _ := gzip.NewWriterLevel(&body, gzip.BestSpeed) // there is such a level
	_, _ = z.Write(page.body.Bytes())                  // writing to memory cannot fail
	_ = z.Close()
	c := &answer{code: page.code, header: page.header.Clone(), body: body}
	c.header.Set("Content-Encoding", "gzip")
	return c
}
