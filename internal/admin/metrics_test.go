package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/lictor-proxy/lictor/discovery"
	"github.com/lictor-proxy/lictor/internal/endpoints"
	"github.com/lictor-proxy/lictor/internal/visible"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// scrape returns the metrics of a house in which every metric has a value.
func scrape(h *house) string {
	h.Helper()
	h.scrapes.expire()
	code, text := h.ask("GET", "/metrics", "")
	if code != 200 {
		h.Fatalf("got %d: %s", code, text)
	}
	return text
}

func busy(t *testing.T) *house {
	h := serve(t, Options{Version: "v1", AccessLog: func() (int64, int64, bool) { return 1, 2, true },
		LogDropped: func() int64 { return 11 },
		Pending:    func() []Pending { return []Pending{{Argument: "engine"}, {Argument: "log_json"}} },
		Reload:     func(context.Context) (string, error) { return "", errors.New("no") }}, "web", "dns")
	h.Server.o.State.Sources = SourcesBy(func() Explainer { return explainer{} })
	h.Server.o.State.Names = fakeNames{}
	h.Server.o.State.Consul = func() *Consul {
		return &Consul{Address: "http://10.0.0.2:8500", Since: time.UnixMilli(1500), Moves: 12}
	}
	h.Server.o.State.Balanced = func() map[string]Balanced {
		return map[string]Balanced{"web": {Ejections: 8, Near: &Near{Share: 0.5, Stayed: 21, Left: 22},
			Endpoints: []Endpoint{{ID: "n/1", Counters: &EndpointCounters{Active: 2, Picks: 5, DialsFailed: 1}}}}}
	}
	h.endpoints("web", "n/1", "n/2")
	if _, err := h.sets.Drain("web", "n/2", endpoints.Order{}); err != nil {
		t.Fatal(err)
	}
	h.fake.set(func(f *fake) {
		f.certificates = []Certificate{{File: "/a", State: CertificateFine}}
		f.mesh = meshAt(IdentityFine, "")
		f.services[1].Protocol = "udp"
		f.stats[0].Connections, f.stats[0].ConnectionsActive, f.stats[0].BytesDown = 7, 2, 100
		f.stats[0].Dials.Buckets[0], f.stats[0].Dials.Buckets[13], f.stats[0].Dials.Sum = 5, 1, 3*time.Second
		f.stats[0].EndedLeft, f.stats[0].EndedAged, f.stats[0].DescriptorWaits = 4, 3, 11
		f.stats[0].EndedIntention = 2
		f.stats[0].DialsFailedBy[0], f.stats[0].DialsFailedBy[lb.Reset], f.stats[0].Retries = 1, 2, 3
		f.stats[0].RefusedBy[proxy.RefusedFull] = 6
		f.stats[0].Handshakes = &proxy.Handshakes{Full: 3, Resumed: 4, Time: 5 * time.Millisecond}
		f.stats[0].Handshakes.FailedBy[proxy.HandshakeAlert] = 2
		f.stats[0].Descriptors = proxy.Descriptors{Taken: 12, Floor: 13, Ceiling: 14}
		f.stats[1].DatagramsUp, f.stats[1].DatagramsOverrun = 9, 10
		dns := discovery.WatchStatus{
			Services: []string{"dns"}, Error: "lost", ErrorSince: time.Unix(1700000000, 0), Queries: 4, Errors: 1,
			LastSuccess: time.Unix(1600000000, 0), Held: 2, Holds: 3,
			Query: discovery.Query{Service: "dns", Tags: []string{"v2"}, Datacenter: "dc2",
				Statuses: []string{"passing"}},
		}
		f.watch = []discovery.WatchStatus{dns, dns} // two watches that are guarded differently
		f.lag.Buckets[0], f.lag.Buckets[4], f.lag.Sum = 3, 1, 2*time.Millisecond
	})
	_ = h.client.Post(t.Context(), "/v1/reload", nil, nil) // the reload fails on purpose
	return h
}

// Invisible characters in an instance's name, which comes from Consul, are escaped in metrics and answers. Two
// different names have two series.
func TestMetricsAndAnswersAreVisible(t *testing.T) {
	e := exposition{descs: map[string]*prometheus.Desc{}}
	_, one := e.describe("x", "", []string{"endpoint", "a\u009b"})
	_, other := e.describe("x", "", []string{"endpoint", "a\u202e"})
	if one[0] == other[0] || visible.Text(one[0]) != one[0] {
		t.Errorf("got %q and %q", one, other)
	}
	w := httptest.NewRecorder()
	reply(w, "a\u009b\u202e")
	if got, want := w.Body.String(), `"a\u009b\u202e"`+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestMetricsHaveTheValuesOfTheSnapshot(t *testing.T) {
	text := scrape(busy(t))
	for _, want := range []string{
		`lictor_connections_total{service="web"} 7`,
		`lictor_connections_active{service="web"} 2`,
		`lictor_connections_ended_total{cause="endpoint_left",service="web"} 4`,
		`lictor_connections_ended_total{cause="max_age",service="web"} 3`,
		`lictor_connections_ended_total{cause="intention",service="web"} 2`,
		`lictor_forwarded_bytes_total{direction="down",service="web"} 100`,
		`lictor_endpoints{reason="healthy",service="web",state="in"} 1`,
		`lictor_endpoints{reason="drained",service="web",state="out"} 1`,
		`lictor_endpoints{reason="healthy",service="dns",state="in"} 0`,
		`lictor_dial_duration_seconds_bucket{service="web",le="0.0001"} 5`,
		`lictor_dial_duration_seconds_bucket{service="web",le="1"} 5`,
		`lictor_dial_duration_seconds_bucket{service="web",le="+Inf"} 6`,
		`lictor_dial_duration_seconds_sum{service="web"} 3`,
		`lictor_datagrams_total{direction="up",service="dns"} 9`,
		`lictor_datagrams_overrun_total{service="dns"} 10`,
		`lictor_set_stale{service="dns"} 1`,
		`lictor_set_stale_since_timestamp_seconds{service="dns"} 1.7e+09`,
		`lictor_set_known{service="dns"} 0`,
		`lictor_ready 0`,
		`lictor_restart_pending 2`,
		`lictor_ejected_addresses 0`,
		`lictor_service_panicking{service="web"} 0`, `lictor_preference_share{service="web"} 0.5`,
		`lictor_preference_clients_total{near="true",service="web"} 21`,
		`lictor_preference_clients_total{near="false",service="web"} 22`,
		`lictor_service_panicking{service="dns"} 0`,
		`lictor_drained_since_timestamp_seconds{service="web"} 1.`,
		`lictor_log_dropped_total 11`,
		`lictor_consul_queries_total{watch="dns tags=v2 dc=dc2"} 4`,
		`lictor_consul_query_failures_total{watch="dns tags=v2 dc=dc2 #2"} 1`,
		`lictor_consul_endpoints_held{watch="dns tags=v2 dc=dc2"} 2`,
		`lictor_consul_holds_total{watch="dns tags=v2 dc=dc2"} 3`,
		`lictor_consul_last_success_timestamp_seconds{watch="dns tags=v2 dc=dc2"} 1.6e+09`,
		`lictor_consul_apply_duration_seconds_bucket{le="0.0001"} 3`,
		`lictor_consul_apply_duration_seconds_bucket{le="0.0025"} 4`,
		`lictor_consul_apply_duration_seconds_count 4`,
		`lictor_dial_failures_total{cause="local",service="web"} 1`,
		`lictor_dial_failures_total{cause="reset",service="web"} 2`,
		`lictor_dial_failures_total{cause="refused",service="web"} 0`,
		`lictor_clients_refused_total{reason="full",service="web"} 6`,
		`lictor_clients_refused_total{reason="no_endpoints",service="dns"} 0`,
		`lictor_retries_total{service="web"} 3`,
		`lictor_descriptor_waits_total{service="web"} 11`,
		`lictor_descriptors_taken{service="web"} 12`,
		`lictor_descriptors_floor{service="web"} 13`,
		`lictor_descriptors_ceiling{service="web"} 14`,
		`lictor_ejections_total{service="web"} 8`,
		`lictor_endpoint_clients_active{endpoint="n/1",service="web"} 2`,
		`lictor_endpoint_clients_total{endpoint="n/1",service="web"} 5`,
		`lictor_endpoint_failures_total{endpoint="n/1",service="web"} 1`,
		`lictor_endpoints_unlisted 0`,
		`lictor_name_lookups_total{result="found"} 21`,
		`lictor_name_lookups_total{result="not_found"} 22`,
		`lictor_name_lookups_total{result="failed"} 23`,
		`lictor_names_stale 24`,
		`lictor_reloads_total{result="failed"} 1`,
		`lictor_last_reload_successful 0`,
		`lictor_access_log_dropped_total 2`,
		`go_goroutines`,
		`process_open_fds`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, `lictor_connections_total{service="dns"}`) || t.Failed() {
		t.Errorf("got:\n%s", text)
	}
}

func TestMetricsOfHandshakes(t *testing.T) {
	text := scrape(busy(t))
	for _, want := range []string{
		`lictor_clients_refused_total{reason="denied",service="web"} 0`,
		`lictor_dial_handshakes_total{resumed="false",service="web"} 3`,
		`lictor_dial_handshakes_total{resumed="true",service="web"} 4`,
		`lictor_dial_handshake_seconds_total{service="web"} 0.005`,
		`lictor_dial_handshake_failures_total{cause="alert",service="web"} 2`,
		`lictor_dial_handshake_failures_total{cause="not_ready",service="web"} 0`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
	if strings.Contains(text, `lictor_dial_handshakes_total{resumed="true",service="dns"}`) {
		t.Error("a service without TLS has counters of handshakes")
	}
}

// A drain that ends by itself is not one that may be forgotten.
func TestMetricsOfDrainsWithAnEnd(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.endpoints("web", "n/1", "n/2")
	if _, err := h.sets.Drain("web", "n/1", endpoints.Order{For: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if text := scrape(h); strings.Contains(text, "lictor_drained_since") ||
		!strings.Contains(text, `lictor_endpoints{reason="drained",service="web",state="out"} 1`) {
		t.Errorf("got:\n%s", text)
	}
}

func TestMetricsOfWhatIsGoneAreGone(t *testing.T) {
	h := busy(t)
	h.fake.set(func(f *fake) { f.services, f.stats = f.services[:1], f.stats[:1] })
	h.sets.OnUpdate([]lb.Endpoints{{Service: "dns", Removed: true}})
	if text := scrape(h); strings.Contains(text, `"dns"`) {
		t.Errorf("a service that is gone has series:\n%s", text)
	}
}

// A dead address is one ejected address, however many services use it, also while a service ignores ejections.
func TestMetricsCountEjectedAddresses(t *testing.T) {
	h := busy(t)
	h.endpoints("web", "n/1", "n/2")
	h.endpoints("dns", "n/1")
	h.fake.set(func(f *fake) { f.services[1].Protocol = "tcp" })
	ejected := Endpoint{ID: "n/1", State: StateOut, Reason: ReasonEjected}
	ignored := Endpoint{ID: "n/1", State: StateIn, Reason: ReasonTrial}
	h.Server.o.State.Balanced = func() map[string]Balanced {
		return map[string]Balanced{"web": {Endpoints: []Endpoint{ejected}},
			"dns": {Endpoints: []Endpoint{ignored}, Panicking: true}}
	}
	text := scrape(h)
	for _, want := range []string{"lictor_consul_moves_total 12",
		`lictor_consul_address_info{address="http://10.0.0.2:8500"} 1`, "lictor_consul_address_timestamp_seconds 1.5",
		"lictor_ejected_addresses 1", `lictor_service_panicking{service="dns"} 1`,
		`lictor_service_panicking{service="web"} 0`} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
	h.fake.set(func(f *fake) { f.services[1].Protocol = "udp" }) // another address, although its text is the same
	if text := scrape(h); !strings.Contains(text, "\nlictor_ejected_addresses 2\n") {
		t.Errorf("got:\n%s", text)
	}
}

// The catalog determines the number of endpoints, but must not determine the number of series.
func TestMetricsOfEndpointsAreBounded(t *testing.T) {
	h := busy(t)
	var ids []string
	var counted []Endpoint
	for i := range maxEndpointSeries + 7 {
		ids = append(ids, fmt.Sprintf("n/%05d\n\"", i)) // special characters in an ID must break nothing
		counted = append(counted, Endpoint{ID: ids[i], Counters: &EndpointCounters{}})
	}
	h.endpoints("web", ids...)
	h.Server.o.State.Balanced = func() map[string]Balanced { return map[string]Balanced{"web": {Endpoints: counted}} }
	text := scrape(h)
	if n := strings.Count(text, "\nlictor_endpoint_clients_active{"); n != maxEndpointSeries ||
		!strings.Contains(text, "\nlictor_endpoints_unlisted 7\n") {
		t.Errorf("%d endpoints have series", n)
	}
	h.endpoints("web")
	if text := scrape(h); strings.Contains(text, "lictor_endpoint_clients_active{") {
		t.Error("endpoints that are gone have series")
	}
}

// metrics { endpoints = false } leaves out the series of endpoints, and takes effect at the next scrape.
func TestMetricsOfEndpointsCanBeLeftOut(t *testing.T) {
	h := busy(t)
	on := false
	h.Server.o.EndpointMetrics = func() bool { return on }
	if text := scrape(h); strings.Contains(text, "lictor_endpoint_") || strings.Contains(text, "unlisted") ||
		!strings.Contains(text, "\nlictor_endpoints{") {
		t.Errorf("got:\n%s", text)
	}
	on = true
	if text := scrape(h); !strings.Contains(text, "\nlictor_endpoint_clients_active{") ||
		!strings.Contains(text, "\nlictor_endpoints_unlisted 0\n") {
		t.Errorf("got:\n%s", text)
	}
}

func TestMetricsFollowTheConventions(t *testing.T) {
	problems, err := promlint.New(strings.NewReader(scrape(busy(t)))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestScrapeCostIsDocumented counts the series of a TCP service, a UDP service, an endpoint and a query.
func TestScrapeCostIsDocumented(t *testing.T) {
	h := serve(t, Options{}, "web", "dns")
	h.Server.o.State.Balanced = func() map[string]Balanced {
		return map[string]Balanced{"web": {Endpoints: []Endpoint{{ID: "n/1", Counters: &EndpointCounters{}}}}}
	}
	h.endpoints("web", "n/1")
	h.endpoints("dns")
	h.fake.set(func(f *fake) {
		f.services[1].Protocol = "udp"
		f.stats[0].Dials.Buckets[0] = 1
		f.mesh = meshAt(IdentityFine, "")
		f.watch = []discovery.WatchStatus{{Services: []string{"web"}, Query: discovery.Query{Service: "other"},
			LastSuccess: time.Now()}}
	})
	text := scrape(h)
	endpoint := strings.Count(text, `{endpoint="n/1",service="web"}`)
	h.fake.set(func(f *fake) { f.stats[0].Handshakes = &proxy.Handshakes{} })
	handshakes := strings.Count(scrape(h), "\nlictor_dial_handshake")
	h.Server.o.State.Paths = pathOfWeb
	kernel := strings.Count(scrape(h), "\nlictor_kernel_path")
	docs, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for row, n := range map[string]int{
		"| TCP service | %d; 16 of":   strings.Count(text, `service="web"`) - endpoint,
		"| UDP service | %d |":        strings.Count(text, `service="dns"`),
		"| endpoint | %d;":            endpoint,
		"kernel path | %d more |":     kernel,
		"`endpoint_tls` | %d more |":  handshakes,
		"| query to Consul | %d |":    strings.Count(text, `watch="`),
		"service mesh | %d; and two":  strings.Count(text, `{identity="`) - 2,
		"| exposed service | %d":      strings.Count(text, `{exposed="billing"`),
		"| TCP service | 57; %d of":   strings.Count(text, "\nlictor_dial_duration_seconds"),
		"has 57 + 3 × 3 + 8 = %d ser": 57 + 3*3 + 8,
	} {
		if want := fmt.Sprintf(row, n); !bytes.Contains(docs, []byte(want)) {
			t.Errorf("docs/metrics.md has no %q", want)
		}
	}
}

// names returns the names of Lictor's own metrics in text.
func names(text []byte) map[string]bool {
	all := map[string]bool{}
	for _, name := range regexp.MustCompile(`\blictor_[a-z_]+`).FindAll(text, -1) {
		all[string(regexp.MustCompile(`^(lictor_\w+_duration_seconds)_(bucket|sum|count)$`).ReplaceAll(name,
			[]byte("$1")))] = true
	}
	return all
}

// TestMetricsAreDocumented compares docs/metrics.md, the dashboard and the alerts with the existing metrics.
func TestMetricsAreDocumented(t *testing.T) {
	served := map[string]bool{}
	h := busy(t)
	h.Server.o.State.Paths = pathOfWeb
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (lictor_\S+)`).FindAllStringSubmatch(scrape(h), -1) {
		served[m[1]] = true
	}
	read := func(name string) []byte {
		text, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	documented := names(read("metrics.md"))
	if !maps.Equal(served, documented) {
		t.Errorf("served:     %v\ndocumented: %v", slices.Sorted(maps.Keys(served)),
			slices.Sorted(maps.Keys(documented)))
	}
	for _, file := range []string{"grafana.json", "alerts.yml"} {
		text := read(file)
		used := names(text)
		if len(used) == 0 {
			t.Errorf("%s uses no metric", file)
		}
		for name := range used {
			if !served[name] {
				t.Errorf("%s: there is no %s", file, name)
			}
		}
		if file == "grafana.json" && !json.Valid(text) {
			t.Error("the dashboard is no JSON")
		}
		if bytes.ContainsRune(text, '\t') && file == "alerts.yml" {
			t.Error("tabs in YAML")
		}
	}
}
