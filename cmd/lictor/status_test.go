package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// testNow is the time of all answers in tests.
var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// before returns the time d before testNow.
func before(d time.Duration) *time.Time {
	t := testNow.Add(-d)
	return &t
}

func TestStatusTable(t *testing.T) {
	t.Parallel()
	status := &admin.Status{
		Host: "db1", Refusing: 1, Degraded: 1,
		Version: "v1.2.3", PID: 4711, Started: *before(26 * time.Hour), Now: testNow, NotReady: []string{"dns"},
		Services: 2, EndpointsIn: 1, EndpointsOut: 2, ConnectionsActive: 1, SessionsActive: 2,
		Consul: &admin.Consul{Address: "https://10.0.0.2:8501", Since: *before(time.Minute), Moves: 1,
			From: "https://10.0.0.1:8501", Why: "connection\x1b refused"},
		LastReload: &admin.Reload{Time: *before(5 * time.Minute), Error: "web.hcl:1:1: no\x1b good"},
		Pending: []admin.Pending{{Argument: "log_json", InForce: "false", Configured: "true"},
			{Argument: "state_dir", Configured: `"/x"`}},
		Denied: []admin.Denied{{Call: "splice", Error: "not permitted", Instead: "bulk is copied"}},
	}
	services := []admin.Service{
		{
			Name: "dns", Protocol: "udp", Listeners: []string{"127.0.0.1:53", "[::1]:53"}, Set: admin.SetNone,
			State:    admin.StateRefusing,
			Reasons:  []admin.Reason{{Text: "no endpoints are known yet"}, {Text: "and more"}},
			Counters: admin.Counters{SessionsActive: 2},
		},
		{
			Name: "web", Protocol: "tcp", Listeners: []string{"127.0.0.1:80"}, Set: admin.SetFresh,
			LastChange: before(time.Hour), Counters: admin.Counters{ConnectionsActive: 1}, State: admin.StateFine,
			Endpoints: []admin.Endpoint{{State: admin.StateIn}, {State: admin.StateOut}, {State: admin.StateOut}},
		},
	}
	var b strings.Builder
	if err := writeStatus(&b, status, services); err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), `lictor v1.2.3 on db1, process 4711, up 26h, NOT READY: 1 service without a first answer
2 services (1 refuses clients, 1 degraded), 1 endpoint in, 2 out, 1 connection, 2 sessions
consul at https://10.0.0.2:8501 for 1m, before at https://10.0.0.1:8501: connection`+"\ufffd"+` refused
the last reload (5m ago) FAILED: web.hcl:1:1: no`+"\ufffd"+` good
pending until a restart or an upgrade: log_json = true; in force: false
pending until a restart or an upgrade: state_dir = "/x"; in force: (not set)
the system denies splice (not permitted): bulk is copied

SERVICE  STATE     PROTO  LISTEN                 IN  OUT  ACTIVE  NOTE
dns      REFUSING  udp    127.0.0.1:53,[::1]:53   0    0       2  no endpoints are known yet
web      fine      tcp    127.0.0.1:80            1    2       1  changed 1h ago
`)
}

// A successful reload is not shown.
func TestStatusIsShortWhenAllIsWell(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	reload := &admin.Reload{OK: true, Summary: "nothing to change"}
	status := &admin.Status{Version: "v1", Ready: true, LastReload: reload}
	if err := writeStatus(&b, status, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), `lictor v1, process 0, up 0ms, ready
0 services, 0 endpoints in, 0 out, 0 connections, 0 sessions

SERVICE  STATE  PROTO  LISTEN  IN  OUT  ACTIVE  NOTE
`)
}

// The first reason has precedence over other texts.
func TestNote(t *testing.T) {
	t.Parallel()
	reasons := []admin.Reason{{Text: "the source fails: refused", Since: before(90 * time.Second)}, {Text: "more"}}
	tests := []struct {
		name    string
		service admin.Service
		want    string
	}{
		{"a reason with its time", admin.Service{Reasons: reasons, Waiting: 1}, "for 1m: the source fails: refused"},
		{"a reason without its time", admin.Service{Reasons: reasons[1:], Problem: "p"}, "more"},
		{"clients are refused", admin.Service{Reasons: reasons[1:], RefusedRate: 2.52}, "2.5 refused/s; more"},
		{"clients are refused, and no reason", admin.Service{RefusedRate: 2}, "changed never"}, // by their own limit
		{"empty", admin.Service{EmptyUntil: &testNow, Waiting: 5, Reasons: reasons, Problem: "p"},
			"5 clients waiting for an endpoint until " + testNow.Local().Format(time.TimeOnly)},
		{"waiting", admin.Service{Waiting: 1, Problem: "p"}, "1 client waiting for a free slot"},
		{"many waiting", admin.Service{Waiting: 12}, "12 clients waiting for a free slot"},
		{"a problem", admin.Service{Problem: "too many"}, "too many"},
		{"changed", admin.Service{LastChange: before(3 * time.Hour)}, "changed 3h ago"},
		{"never changed", admin.Service{}, "changed never"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := note(testNow, &tt.service); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStatusOfATCPService(t *testing.T) {
	t.Parallel()
	s := &admin.Service{
		Name: "web", Protocol: "tcp", Source: "web in Consul", Listeners: []string{"127.0.0.1:80", "[::1]:80"},
		Set: admin.SetFresh, LastSuccess: before(2 * time.Second), LastChange: before(49 * time.Hour),
		State: admin.StateDegraded, Reasons: []admin.Reason{{Text: "1 of 2 endpoints is ejected"},
			{Text: "the source fails", Since: before(time.Minute)}}, RefusedRate: 0.5,
		Endpoints: []admin.Endpoint{
			{ID: "n1/web-1", Address: "10.0.0.1:80", Weight: 10, State: admin.StateIn, Reason: admin.ReasonHealthy,
				Since: before(time.Minute)},
			{ID: "n2/web-2", Address: "10.0.0.2:80", State: admin.StateOut, Reason: admin.ReasonEjected,
				Until: before(-30 * time.Second), Detail: "refused, 3 times"},
		},
		Counters: admin.Counters{Connections: 17, ConnectionsActive: 2, Dials: 4, DialSeconds: 0.01, DialsFailed: 3,
			Retries: 1, Ejections: 1, BytesUp: 1500, BytesDown: 2_000_000, Refused: 5, DescriptorWaits: 9,
			RefusedBy: map[string]int64{"per_client": 2, "full": 3}},
		Descriptors: admin.Descriptors{Taken: 4, Floor: 20, Ceiling: 300},
	}
	var b strings.Builder
	if err := writeService(&b, testNow, s); err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), `service         web
listens on      tcp 127.0.0.1:80, [::1]:80
endpoints from  web in Consul
state           degraded
because         1 of 2 endpoints is ejected
because         for 1m: the source fails
endpoints       1 in, 1 out, changed 2d ago
last confirmed  2s ago
connections     2 now, 17 in total
dials           4, 2.50 ms each
failures        3 failed attempts, 1 retries; 1 ejection
bytes           1.5 kB up, 2.0 MB down
refused         5 clients: full 3, per_client 2; 0.5/s now
descriptors     4 in use, 20 reserved, 300 at most; clients waited 9 times

ENDPOINT  ADDRESS      WEIGHT  STATE  WHY
n1/web-1  10.0.0.1:80  10      in     healthy for 1m
n2/web-2  10.0.0.2:80  0       out    ejected, for another 30s: refused, 3 times
`)
}

// A UDP service has sessions and datagrams instead of connections and dials.
func TestStatusOfAUDPService(t *testing.T) {
	t.Parallel()
	s := &admin.Service{
		Name: "dns", Protocol: "udp", Source: "1 static endpoint", Listeners: []string{"127.0.0.1:53"},
		Set: admin.SetNone, State: admin.StateRefusing, Waiting: 2,
		Reasons: []admin.Reason{{Text: "no endpoints are known yet"}},
		Counters: admin.Counters{Sessions: 20, SessionsActive: 3, SessionsEvicted: 1, DatagramsUp: 100,
			DatagramsDown: 99, DatagramsDropped: 4, Dials: 7, DescriptorWaits: 9},
		Descriptors: admin.Descriptors{Taken: 4, Floor: 20, Ceiling: 300},
	}
	var b strings.Builder
	if err := writeService(&b, testNow, s); err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), `service         dns
listens on      udp 127.0.0.1:53
endpoints from  1 static endpoint
state           REFUSING
because         no endpoints are known yet
endpoints       0 in, 0 out, changed never
queue           2 clients waiting for a free slot
sessions        3 now, 20 in total, 1 evicted
datagrams       100 up, 99 down, 4 dropped
failures        0 failed attempts, 0 retries; 0 ejections
bytes           0 B up, 0 B down
refused         0 clients
descriptors     4 in use, 20 reserved, 300 at most

no endpoints
`)
}

func TestReasonsAreInTheirOrder(t *testing.T) {
	t.Parallel()
	by := map[string]int64{"full": 3, "per_client": 2, "closing": 9, "no_endpoint": 1, "queue_timeout": 4, "aged": 1}
	const want = ": aged 1, closing 9, full 3, no_endpoint 1, per_client 2, queue_timeout 4"
	if got := reasons(by); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := reasons(nil); got != "" {
		t.Errorf("got %q for none", got)
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		endpoint admin.Endpoint
		want     string
	}{
		{admin.Endpoint{Reason: "healthy"}, "healthy"},
		{admin.Endpoint{Reason: "healthy", Since: before(9 * time.Hour)}, "healthy for 9h"},
		{admin.Endpoint{Reason: "status", Detail: "critical"}, "status: critical"},
		{admin.Endpoint{Reason: "held", Since: before(time.Second), Until: before(-9 * time.Second), Detail: "gone"},
			"held for 1s, for another 9s: gone"},
		{admin.Endpoint{Reason: "ejected", Until: before(time.Second)}, "ejected, for another 0ms"}, // due now
	}
	for _, tt := range tests {
		if got := why(testNow, &tt.endpoint); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[float64]string{
		0: "0 B", 999: "999 B", 999.4: "999 B", 999.6: "1.0 kB", 1500: "1.5 kB", 99_949: "99.9 kB", 99_960: "100 kB",
		999_499: "999 kB", 999_500: "1.0 MB", 123_456_789: "123 MB", 1e10: "10.0 GB", 1e12: "1.0 TB", 1e15: "1.0 PB",
		1e19: "10000 PB",
	} {
		if got := size(n); got != want {
			t.Errorf("%v: got %s, want %s", n, got, want)
		}
	}
}

func TestExitCodeOfStatus(t *testing.T) {
	t.Parallel()
	stale := before(time.Minute)
	tests := []struct {
		name    string
		status  admin.Status
		service admin.Service
		all     int // exit code of status
		one     int // exit code of status web
	}{
		{"well", admin.Status{Ready: true}, admin.Service{Set: admin.SetFresh}, exitOK, exitOK},
		{"not ready", admin.Status{Refusing: 1}, admin.Service{Set: admin.SetNone, State: admin.StateRefusing},
			exitRefusing, exitRefusing},
		{"an earlier lictor is not ready", admin.Status{}, admin.Service{Set: admin.SetNone}, exitFailed, exitFailed},
		{"refusing and stale", admin.Status{Ready: true, Stale: 1, Refusing: 1},
			admin.Service{Set: admin.SetFresh, StaleSince: stale, State: admin.StateRefusing}, exitRefusing,
			exitRefusing},
		{"refusing elsewhere", admin.Status{Ready: true, Refusing: 1},
			admin.Service{Set: admin.SetFresh, State: admin.StateDegraded}, exitRefusing, exitOK},
		{"stale", admin.Status{Ready: true, Stale: 1}, admin.Service{Set: admin.SetFresh, StaleSince: stale},
			exitFailed, exitFailed},
		{"stale elsewhere", admin.Status{Ready: true, Stale: 1}, admin.Service{Set: admin.SetSaved},
			exitFailed, exitOK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.service.Name = "web"
			f := newFakeLictor(t, map[string]any{
				"GET /v1/status": tt.status, "GET /v1/services/web": tt.service,
				"GET /v1/services": admin.ServicesAnswer{Services: []admin.Service{tt.service}},
			})
			for _, json := range []string{"-json=false", "-json"} {
				lictor(t, tt.all, "status", json, "-admin", f.address)
				lictor(t, tt.one, "status", json, "-admin", f.address, "web")
			}
		})
	}
}

// With -problems, services that are fine are not listed. The exit code stays the same.
func TestStatusOfProblems(t *testing.T) {
	t.Parallel()
	f := newFakeLictor(t, map[string]any{
		"GET /v1/status": admin.Status{Ready: true, Refusing: 1},
		"GET /v1/services": admin.ServicesAnswer{Services: []admin.Service{{Name: "well", State: admin.StateFine},
			{Name: "worse", State: admin.StateDegraded}, {Name: "worst", State: admin.StateRefusing}}},
	})
	for _, json := range []string{"-json=false", "-json"} {
		out, _ := lictor(t, exitRefusing, "status", "-problems", json, "-admin", f.address)
		if strings.Contains(out, "well") || !strings.Contains(out, "worse") || !strings.Contains(out, "worst") {
			t.Errorf("got %s", out)
		}
	}
	_, said := lictor(t, exitUsage, "status", "-problems", "-admin", f.address, "web")
	if !strings.Contains(said, "-problems lists services; do not name one") {
		t.Errorf("got %s", said)
	}
}

// The JSON objects have the members that the help and docs/api.md name.
func TestStatusJSON(t *testing.T) {
	t.Parallel()
	service := admin.Service{Name: "a/b", Set: admin.SetFresh}
	f := newFakeLictor(t, map[string]any{
		"GET /v1/status": admin.Status{Ready: true}, "GET /v1/services/a%2Fb": service,
		"GET /v1/services": admin.ServicesAnswer{Services: []admin.Service{service}},
	})
	out, _ := lictor(t, exitOK, "status", "-json", "-admin", f.address)
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 2 || all["status"] == nil ||
		!strings.HasPrefix(string(all["services"]), "[") {
		t.Errorf("got %s, %v", out, err)
	}
	out, _ = lictor(t, exitOK, "status", "-json", "-admin", f.address, "a/b")
	var one map[string]any
	if err := json.Unmarshal([]byte(out), &one); err != nil || one["name"] != "a/b" || one["endpoints"] != nil {
		t.Errorf("got %s, %v", out, err)
	}
}

func TestUnknownService(t *testing.T) {
	t.Parallel()
	missing := &admin.APIError{Code: http.StatusNotFound, Text: `there is no service "wbe"`}
	answers := map[string]any{"GET /v1/status": admin.Status{}, "GET /v1/services/wbe": missing,
		"GET /v1/services": admin.ServicesAnswer{Services: []admin.Service{{Name: "dns"}, {Name: "web"}}}}
	f := newFakeLictor(t, answers)
	_, said := lictor(t, exitFailed, "status", "-admin", f.address, "wbe")
	equal(t, said, "lictor status: there is no service \"wbe\"; did you mean \"web\"?\n")

	// Without the list of services there is no suggestion.
	answers["GET /v1/services"] = &admin.APIError{Code: http.StatusServiceUnavailable, Text: "busy"}
	_, said = lictor(t, exitFailed, "status", "-admin", f.address, "wbe")
	equal(t, said, "lictor status: there is no service \"wbe\"\n")
	// Another error is not reported as a missing service.
	answers["GET /v1/services/wbe"] = answers["GET /v1/services"]
	_, said = lictor(t, exitFailed, "status", "-admin", f.address, "wbe")
	equal(t, said, "lictor status: busy\n")
	if n := len(f.requests()); n != 5 {
		t.Errorf("%d requests, want 5: %s", n, slices.Compact(f.requests()))
	}
}
