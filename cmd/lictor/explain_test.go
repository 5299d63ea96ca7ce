package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// explained returns a service with its events, and an instance that the service's filter leaves out.
func explained() (*admin.Service, admin.ExcludedAnswer, admin.EventsAnswer) {
	s := &admin.Service{
		Name: "web", Source: "web in Consul", Set: admin.SetFresh, LastChange: before(time.Hour),
		Endpoints: []admin.Endpoint{
			{ID: "n/b", Address: "10.0.0.2:80", Weight: 1, State: admin.StateIn, Reason: admin.ReasonHealthy,
				Tags: []string{"v2", "blue"}, ServerName: "b.test"},
			{ID: "n/d", Address: "d.test:80", State: admin.StateOut, Reason: admin.ReasonDrained,
				NoServerName: `its meta has no "name"`, Since: before(time.Minute),
				Name: &admin.HostName{Addresses: []string{"10.0.0.4", "10.0.0.5"}, Problem: "server misbehaving"}},
		},
	}
	excluded := admin.ExcludedAnswer{Endpoints: []admin.Endpoint{
		{ID: "n/b", Address: "10.0.0.9:80", State: admin.StateOut, Reason: admin.ReasonTags},
		{ID: "n/c", Address: "10.0.0.3:80", Weight: 1, State: admin.StateOut, Reason: admin.ReasonFilter},
	}}
	events := admin.EventsAnswer{Events: []admin.Event{
		{Time: testNow, Kind: "joined", Service: "web", Text: "n/b at 10.0.0.2:80"},
	}}
	return s, excluded, events
}

func explaining(t *testing.T) *fakeLictor {
	s, excluded, events := explained()
	return newFakeLictor(t, map[string]any{
		"GET /v1/status": admin.Status{}, "GET /v1/services/web": s, "GET /v1/services/web/excluded": excluded,
		"GET /v1/events?limit=20&service=web": events,
	})
}

// An instance that the filter leaves out is listed once, in its place among the other endpoints.
func TestExplanation(t *testing.T) {
	t.Parallel()
	out, _ := lictor(t, exitOK, "explain", "-admin", explaining(t).address, "web")
	_, out, _ = strings.Cut(out, "\n\n") // the first lines depend on the time
	blocks := strings.Split(out, "\n\n")
	want := []string{
		"IN   n/b at 10.0.0.2:80, weight 1\n     healthy\n     server name: b.test\n     tags: v2, blue",
		"OUT  n/c at 10.0.0.3:80, weight 1\n     filter",
		"OUT  n/d at d.test:80, weight 0\n     drained for ",
		"latest events:\n  " + testNow.Local().Format(time.DateTime) + "  joined     web  n/b at 10.0.0.2:80\n",
	}
	if len(blocks) != len(want) {
		t.Fatalf("got %q, want %q", blocks, want)
	}
	for i := range want {
		if !strings.HasPrefix(blocks[i], want[i]) {
			t.Errorf("got %q, want %q", blocks[i], want[i])
		}
	}
}

// The addresses of a host name are shown. If lookups fail, their age is shown too.
func TestNameText(t *testing.T) {
	t.Parallel()
	addresses := []string{"10.0.0.4", "10.0.0.5"}
	for _, tt := range []struct {
		name admin.HostName
		want string
	}{
		{admin.HostName{Addresses: addresses}, "10.0.0.4, 10.0.0.5"},
		{admin.HostName{Addresses: addresses, Problem: "timeout", FoundAt: before(time.Minute)},
			"10.0.0.4, 10.0.0.5, found 1m ago; the last lookup failed: timeout"},
		{admin.HostName{Addresses: addresses[:1], Problem: "timeout"},
			"10.0.0.4, found by an earlier process; the last lookup failed: timeout"},
	} {
		if got := nameText(testNow, &tt.name); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
	out, _ := lictor(t, exitOK, "explain", "-admin", explaining(t).address, "web")
	if want := "     addresses: 10.0.0.4, 10.0.0.5, found by an earlier process"; !strings.Contains(out, want) {
		t.Errorf("got %q, want %q in it", out, want)
	}
}

func TestExplanationBegins(t *testing.T) {
	t.Parallel()
	s, _, _ := explained()
	tests := []struct {
		name string
		in   []string // of the endpoints
		err  error
		want string
	}{
		{"one", []string{"in"}, nil,
			"web: 1 of 1 known endpoint gets clients; from web in Consul\nchanged 1h ago\n"},
		{"some", []string{"in", "in", "out"}, nil,
			"web: 2 of 3 known endpoints get clients; from web in Consul\nchanged 1h ago\n"},
		{"none", nil, nil, "web: 0 of 0 known endpoints get clients; from web in Consul\nchanged 1h ago\n"},
		{"not known", nil, &admin.APIError{Text: "no answer\n"},
			"web: 0 of 0 known endpoints get clients; from web in Consul\nchanged 1h ago\n" +
				"instances that the tags or filter leave out are not known: no answer\ufffd\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.Endpoints = nil
			for _, state := range tt.in {
				s.Endpoints = append(s.Endpoints, admin.Endpoint{State: state})
			}
			var b strings.Builder
			if err := writeExplanation(&b, testNow, s, nil, tt.err, nil); err != nil {
				t.Fatal(err)
			}
			got := b.String()
			if i := strings.Index(got, "\n\n"); i >= 0 {
				got = got[:i+1]
			}
			equal(t, got, tt.want)
		})
	}
}

func TestExplanationSaysWhichSourceIsInUse(t *testing.T) {
	t.Parallel()
	s := &admin.Service{Name: "web", Source: "web in Consul", Set: admin.SetFresh, Sources: []admin.Source{
		{Name: "web", Detail: "all 2 endpoints fail from here"},
		{Name: "static", Active: true, Detail: "web has none that can be used"},
		{Name: "last"},
	}, Reasons: []admin.Reason{{Text: "served by static: web has none that can be used"}}}
	var b strings.Builder
	if err := writeExplanation(&b, testNow, s, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), "web: 0 of 0 known endpoints get clients; from web in Consul\n"+
		"served by static: web has none that can be used\n"+
		"source 1, web: not in use; all 2 endpoints fail from here\n"+
		"source 2, static: in use; web has none that can be used\n"+
		"source 3, last: not in use\n")
}

func TestExplanationSaysWhatWasNotServed(t *testing.T) {
	t.Parallel()
	since := testNow.Add(-2 * time.Minute)
	s := &admin.Service{Name: "billing", Source: "billing", Set: admin.SetFresh, Endpoints: []admin.Endpoint{
		{ID: "n/a", Address: "10.0.0.1:1", Weight: 1, State: admin.StateIn, Reason: admin.ReasonHealthy,
			Denied: &admin.Unserved{Connections: 12, Since: since, Last: testNow.Add(-3 * time.Second),
				Why: "remote error: tls: bad certificate"}},
		{ID: "n/b", Address: "10.0.0.2:1", Weight: 1, State: admin.StateIn, Reason: admin.ReasonHealthy,
			Unanswered: &admin.Unserved{Connections: 1, Since: since, Last: since}},
	}}
	var b strings.Builder
	if err := writeExplanation(&b, testNow, s, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	_, got, _ := strings.Cut(b.String(), "\n\n")
	equal(t, got, "IN   n/a at 10.0.0.1:1, weight 1\n"+
		"     healthy\n"+
		"     denied by the destination: 12 connections in 2m, the last one 3s ago: "+
		"remote error: tls: bad certificate\n"+
		"\nIN   n/b at 10.0.0.2:1, weight 1\n"+
		"     healthy\n"+
		"     closed before it answered: 1 connection in 2m, the last one 2m ago; "+
		"Envoy does so if an intention denies,\n"+
		"     or if it cannot reach its own service\n")
}

// If the excluded instances cannot be fetched, the other endpoints are shown.
func TestExplainWithoutTheExcluded(t *testing.T) {
	t.Parallel()
	f := explaining(t)
	f.answers["GET /v1/services/web/excluded"] = &admin.APIError{Code: http.StatusServiceUnavailable, Text: "no Consul"}
	out, _ := lictor(t, exitOK, "explain", "-admin", f.address, "web")
	if !strings.Contains(out, "are not known: no Consul\n\nIN   n/b") || strings.Contains(out, "n/c") {
		t.Errorf("got:\n%s", out)
	}
}

func TestExplainJSON(t *testing.T) {
	t.Parallel()
	out, _ := lictor(t, exitOK, "explain", "-json", "-admin", explaining(t).address, "web")
	var got struct {
		Service *admin.Service
		Events  []admin.Event
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil || len(got.Service.Endpoints) != 3 || len(got.Events) != 1 {
		t.Errorf("got %s, %v", out, err)
	}
}

// explain fails if no endpoint gets clients, as text and as JSON. It also fails if the events cannot be fetched.
func TestExitCodeOfExplain(t *testing.T) {
	t.Parallel()
	f := explaining(t)
	s, _, _ := explained()
	s.Endpoints = s.Endpoints[1:]
	f.answers["GET /v1/services/web"] = s
	for _, json := range []string{"-json=false", "-json"} {
		if out, said := lictor(t, exitFailed, "explain", json, "-admin", f.address, "web"); said != "" || out == "" {
			t.Errorf("got %q, %q", out, said)
		}
	}
	f = explaining(t)
	busy := &admin.APIError{Code: http.StatusServiceUnavailable, Text: "busy"}
	f.answers["GET /v1/events?limit=20&service=web"] = busy
	_, said := lictor(t, exitFailed, "explain", "-admin", f.address, "web")
	equal(t, said, "lictor explain: busy\n")
}

// The zones of endpoints, and the share of clients that stay near, are shown for a service that prefers near ones.
func TestPreferenceIsShown(t *testing.T) {
	t.Parallel()
	f := explaining(t)
	s, _, _ := explained()
	s.Near = &admin.Near{Prefer: "zone", Zone: "eu/eu-a", Zones: 2, Weight: 0.25, Share: 0.5, Stayed: 3, Left: 4}
	s.Endpoints[0].Zone, s.Endpoints[0].Near = "eu/eu-a", true
	f.answers["GET /v1/services/web"] = s
	out, _ := lictor(t, exitOK, "explain", "-admin", f.address, "web")
	for _, want := range []string{"\nprefers the same zone (eu/eu-a); 25% of the weight is there, and 50% of the " +
		"clients stay; so far 4 of 7 left\n", "\n     zone: eu/eu-a, near\n", "\n     zone: not known\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	out, _ = lictor(t, exitOK, "status", "-admin", f.address, "web")
	if want := "preference      prefers the same zone (eu/eu-a); "; !strings.Contains(out, want) {
		t.Errorf("no %q in:\n%s", want, out)
	}
}

// The path of a service is shown if it asks for the kernel path.
func TestPathIsShown(t *testing.T) {
	t.Parallel()
	f := explaining(t)
	s, _, _ := explained()
	s.Path = admin.Path{Asked: "auto", Kernel: true}
	s.Kernel = &admin.KernelCounters{ConnectionsActive: 2, Connections: 5, DialsFailed: 1, Abandoned: 3}
	f.answers["GET /v1/services/web"] = s
	out, _ := lictor(t, exitOK, "explain", "-admin", f.address, "web")
	want := "\npath: kernel, clients on this host connect straight to the endpoints\n" +
		"kernel path: 2 connections now, 5 in total, 1 failed, 3 abandoned\n"
	if !strings.Contains(out, want) {
		t.Errorf("no %q in:\n%s", want, out)
	}
	out, _ = lictor(t, exitOK, "status", "-admin", f.address, "web")
	for _, want := range []string{
		"\npath            kernel, clients on this host connect straight to the endpoints\n",
		"\nkernel path     2 connections now, 5 in total, 1 failed, 3 abandoned\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
