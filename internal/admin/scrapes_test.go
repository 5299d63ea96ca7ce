package admin

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
)

// expire makes the gathered metrics too old.
func (x *scrapes) expire() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.at = time.Time{}
}

// keepLong makes the gathered metrics valid for a long time.
func (x *scrapes) keepLong() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.age = time.Hour
}

// scrapeAs returns the answer to a scrape with these headers, and its raw body.
func (h *house) scrapeAs(query, accept, encoding string) (*http.Response, []byte) {
	h.Helper()
	r, err := http.NewRequestWithContext(h.Context(), http.MethodGet, "http://"+h.tcp+"/metrics"+query, nil)
	if err != nil {
		h.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", encoding)
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		h.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		h.Fatalf("got %d, %v", answer.StatusCode, err)
	}
	return answer, body
}

// Metrics are gathered once for all scrapers within scrapeAge, in all formats that they want.
func TestOneGatherServesAll(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.scrapes.keepLong()
	h.fake.set(func(f *fake) { f.snapshots = 0 })
	h.scrapeAs("", "", "gzip")
	once := h.fake.count()
	var all sync.WaitGroup
	const open = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
	accepts := []string{"", "text/plain;escaping=dots", open}
	for i := range 40 {
		all.Go(func() {
			h.scrapeAs([]string{"", "?name[]=lictor_ready"}[i/20], accepts[i%3], []string{"gzip", "identity"}[i%2])
		})
	}
	all.Wait()
	if got := h.fake.count(); got != once || once == 0 {
		t.Errorf("the counters were read %d times, want %d", got, once)
	}
	if n := len(h.scrapes.pages); n != 4 {
		t.Errorf("%d pages are kept, want one for each of two formats, compressed and not", n)
	}
	h.scrapes.expire()
	h.scrapeAs("", "", "gzip")
	if got := h.fake.count(); got != 2*once {
		t.Errorf("the counters were read %d times, want %d: what there was is too old", got, 2*once)
	}
}

// Each scraper gets the format that it accepts, even from stored pages.
func TestScrapersGetTheirForm(t *testing.T) {
	h := serve(t, Options{}, "web")
	for range 2 {
		for _, tt := range []struct{ accept, format, want string }{
			{"", "text/plain; version=0.0.4;", "\nlictor_ready 0\n"},
			{"text/plain;version=0.0.4;escaping=allow-utf-8", "text/plain; version=0.0.4;", "\nlictor_ready 0\n"},
			{"application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0;", "# EOF\n"},
			{"application/openmetrics-text;version=0.0.1", "application/openmetrics-text; version=0.0.1;", "# EOF\n"},
			{string(expfmt.FmtProtoDelim), string(expfmt.FmtProtoDelim), "lictor_ready"},
		} {
			plain, body := h.scrapeAs("", tt.accept, "identity")
			format := plain.Header.Get("Content-Type")
			if !strings.HasPrefix(format, tt.format) || !bytes.Contains(body, []byte(tt.want)) {
				t.Errorf("Accept %q: got %q, %.200q", tt.accept, format, body)
			}
			small, packed := h.scrapeAs("", tt.accept, "br, gzip;q=0.5")
			if small.Header.Get("Content-Encoding") != "gzip" || small.Header.Get("Content-Type") != format {
				t.Errorf("Accept %q with gzip: got %v", tt.accept, small.Header)
			}
			z, err := gzip.NewReader(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(z); err != nil || !bytes.Contains(text, []byte(tt.want)) {
				t.Errorf("Accept %q with gzip: got %.200q, %v", tt.accept, text, err)
			}
		}
	}
	_, body := h.scrapeAs("?name[]=lictor_ready&name[]=lictor_services", "", "identity")
	if strings.Count(string(body), "# TYPE") != 2 {
		t.Errorf("by name: got %s", body)
	}
	if _, body := h.scrapeAs("", "", "identity"); !bytes.Contains(body, []byte("lictor_build_info")) {
		t.Errorf("what was asked for by name is kept for others: %s", body)
	}
}

// Gathered metrics take several megabytes with many services. They are freed when they are too old for later scrapes.
func TestOldMetricsAreFreed(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.scrapeAs("", "", "gzip")
	h.eventually("nothing is kept", func() bool {
		var kept bool
		h.work.do(t.Context(), func() { kept = h.scrapes.families != nil || len(h.scrapes.pages) > 0 })
		return !kept
	})
}

func TestAcceptsGzip(t *testing.T) {
	for _, tt := range []struct {
		header string
		want   bool
	}{
		{"", false}, {"identity", false}, {"gzip", true}, {"GZIP", true}, {"deflate, gzip", true}, {"gzip;q=0", false},
		{"gzip; q=0.0", false}, {"gzip;q=0.001", true}, {"gzip; Q=1", true}, {"br;q=1.0, gzip;q=0.8, *;q=0.1", true},
	} {
		if got := acceptsGzip(http.Header{"Accept-Encoding": {tt.header}}); got != tt.want {
			t.Errorf("%q: got %v", tt.header, got)
		}
	}
}
