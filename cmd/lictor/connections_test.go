package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/admin"
)

func TestConnectionsTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	err := writeConnections(&b, []admin.Connection{
		{
			Service: "web", Protocol: "tcp", Client: "127.0.0.1:4000", Endpoint: "n1/web-1", Address: "10.0.0.1:80",
			State: "half_closed", Age: 3700, Idle: 0.25, BytesUp: 1500, BytesDown: 2_000_000,
		},
		{Service: "web\x1b", Protocol: "tcp", Client: "127.0.0.1:4001", State: "waiting", Age: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), `SERVICE  PROTO  CLIENT          ENDPOINT  ADDRESS      STATE        AGE   IDLE      UP    DOWN
web      tcp    127.0.0.1:4000  n1/web-1  10.0.0.1:80  half-closed   1h  250ms  1.5 kB  2.0 MB
web`+"\ufffd"+`     tcp    127.0.0.1:4001  -         -            waiting       2s    0ms     0 B     0 B
`)
	b.Reset()
	if err := writeConnections(&b, nil); err != nil {
		t.Fatal(err)
	}
	equal(t, b.String(), "no connections\n")
	if err := writeConnections(fullDisk{}, nil); !errors.Is(err, errDiskFull) {
		t.Errorf("got %v, want %v", err, errDiskFull)
	}
}

// pages returns a fakeLictor with five connections of three ages on three pages. One of the pages is empty.
func pages(t *testing.T) *fakeLictor {
	t.Helper()
	of := func(next string, ages ...float64) admin.ConnectionsAnswer {
		answer := admin.ConnectionsAnswer{Now: testNow, Next: next, Connections: []admin.Connection{}}
		for i, age := range ages {
			answer.Connections = append(answer.Connections,
				admin.Connection{Service: "web", Client: string(rune('a'+i)) + next, Age: age})
		}
		return answer
	}
	f := newFakeLictor(t, map[string]any{
		"GET /v1/status":       admin.Status{},
		"GET /v1/services":     admin.ServicesAnswer{Services: []admin.Service{{Name: "web"}}},
		"GET /v1/services/db":  admin.Service{Name: "db"},
		"GET /v1/services/wbe": &admin.APIError{Code: http.StatusNotFound, Text: "there is no wbe"},
	})
	for query, answer := range map[string]admin.ConnectionsAnswer{
		"limit=1000":                              of("1", 5, 9),
		"after=1&limit=1000":                      of("2"),
		"after=2&limit=1000":                      of("", 9, 7, 5),
		"limit=1000&service=db":                   of(""),
		"endpoint=n%2F1&limit=1000&service=a%26b": of("", 1),
	} {
		f.answers["GET /v1/connections?"+query] = answer
	}
	return f
}

// connections asks for all pages and prints the oldest connections first. Connections of the same age keep the order of
// the pages.
func TestConnectionsOfAllPages(t *testing.T) {
	t.Parallel()
	f := pages(t)
	for n, want := range map[string]string{"0": "b1 a b a1 c", "2": "b1 a", "100": "b1 a b a1 c"} {
		out, _ := lictor(t, exitOK, "connections", "-json", "-n", n, "-admin", f.address)
		var answer admin.ConnectionsAnswer
		if err := json.Unmarshal([]byte(out), &answer); err != nil || !answer.Now.Equal(testNow) || answer.Next != "" {
			t.Errorf("got %+v, %v", answer, err)
		}
		var clients []string
		for _, c := range answer.Connections {
			clients = append(clients, c.Client)
		}
		if got := strings.Join(clients, " "); got != want {
			t.Errorf("-n %s: got %s, want %s", n, got, want)
		}
	}
}

func TestConnectionsAsksForWhatIsWanted(t *testing.T) {
	t.Parallel()
	f := pages(t)
	lictor(t, exitOK, "connections", "-admin", f.address, "-endpoint", "n/1", "a&b")
	want := []string{"GET /v1/connections?endpoint=n%2F1&limit=1000&service=a%26b"}
	if got := f.requests(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A service without connections is not an error, but an unknown service is.
func TestConnectionsOfAServiceWithout(t *testing.T) {
	t.Parallel()
	f := pages(t)
	out, _ := lictor(t, exitOK, "connections", "-admin", f.address, "db")
	equal(t, out, "no connections\n")
	f.answers["GET /v1/connections?limit=1000&service=wbe"] = admin.ConnectionsAnswer{}
	out, said := lictor(t, exitFailed, "connections", "-admin", f.address, "wbe")
	equal(t, out+said, "lictor connections: there is no wbe; did you mean \"web\"?\n")
	out, said = lictor(t, exitFailed, "connections", "-admin", f.address, "-endpoint", "x")
	equal(t, out+said, "lictor connections: there is no /v1/connections\n")
}

// An endpoint that no service has is an error, and one without connections is not.
func TestConnectionsOfAnUnknownEndpoint(t *testing.T) {
	t.Parallel()
	web := admin.Service{Name: "web", Endpoints: []admin.Endpoint{{ID: "n1/web-1", Address: "10.0.0.1:80"}}}
	db := admin.Service{Name: "db", Endpoints: []admin.Endpoint{{ID: "n1/db-1", Address: "10.0.0.1:5432"}}}
	f := newFakeLictor(t, map[string]any{
		"GET /v1/status": admin.Status{}, "GET /v1/connections": admin.ConnectionsAnswer{},
		"GET /v1/services": admin.ServicesAnswer{Services: []admin.Service{db, web}}, "GET /v1/services/web": web,
	})
	for _, args := range []string{"n1/db-1", "10.0.0.1:80", "n1/web-1 web"} {
		out, said := lictor(t, exitOK, append(strings.Fields("connections -admin "+f.address+" -endpoint"),
			strings.Fields(args)...)...)
		equal(t, out+said, "no connections\n")
	}
	for args, want := range map[string]string{
		"n1/web-2":    `there is no endpoint "n1/web-2"; did you mean "n1/web-1"?`,
		"n1/db-1 web": `there is no endpoint "n1/db-1" of service "web"; did you mean "n1/web-1"?`,
		"web":         `there is no endpoint "web"`,
	} {
		out, said := lictor(t, exitFailed, append(strings.Fields("connections -admin "+f.address+" -endpoint"),
			strings.Fields(args)...)...)
		equal(t, out+said, "lictor connections: -endpoint: "+want+"\n")
	}
}

// -json prints an array even if there are no connections.
func TestNoConnectionsAsJSON(t *testing.T) {
	t.Parallel()
	f := pages(t)
	out, _ := lictor(t, exitOK, "connections", "-json", "-admin", f.address, "db")
	if !strings.Contains(out, `"connections": []`) {
		t.Errorf("got %s", out)
	}
}

// The table has a column about TLS only if a client speaks TLS.
func TestTLSOfConnections(t *testing.T) {
	var plain, secure strings.Builder
	all := []admin.Connection{{Service: "web", Client: "a"}, {Service: "web", Client: "b"}}
	if err := writeConnections(&plain, all); err != nil {
		t.Fatal(err)
	}
	all = append(all, admin.Connection{Service: "web", Client: "c", TLS: &admin.TLS{Version: "1.3"}},
		admin.Connection{Service: "web", Client: "d", TLS: &admin.TLS{Version: "1.3", SNI: "web.test"}},
		admin.Connection{Service: "web", Client: "e", TLS: &admin.TLS{Version: "1.3", SNI: "x", Subject: "CN=me"}},
		admin.Connection{Service: "web", Client: "f", TLS: &admin.TLS{Version: "1.3", Subject: "CN=me",
			Identity: "spiffe://test/me"}})
	if err := writeConnections(&secure, all); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain.String(), "TLS") {
		t.Errorf("got\n%s", plain.String())
	}
	lines := strings.Split(strings.TrimSpace(secure.String()), "\n")
	for i, want := range []string{"TLS", "-", "-", "1.3", "web.test", "CN=me", "spiffe://test/me"} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], " "+want) {
			t.Fatalf("line %d does not end with %s:\n%s", i, want, secure.String())
		}
	}
}

// The table says which path a connection is on, and which program has it, only if one is on the kernel path.
func TestConnectionsOnTheKernelPath(t *testing.T) {
	t.Parallel()
	all := []admin.Connection{{Service: "web", Protocol: "tcp", Client: "a", State: "open", Age: 2}}
	var plain, both strings.Builder
	if err := writeConnections(&plain, all); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain.String(), "PATH") {
		t.Errorf("got\n%s", plain.String())
	}
	onPath := admin.Connection{Service: "web", Protocol: "tcp", Client: "b", State: "open", Age: 2, Idle: 1, BytesUp: 3,
		Path: admin.PathKernel, PID: 12, Program: "ps\x1bql"}
	udp := admin.Connection{Service: "dns", Protocol: "udp", Client: "c", State: "open", Age: 2,
		Path: admin.PathKernel, PID: 13}
	session := udp
	session.Client, session.Idle, session.PID = "d", 1, 0
	if err := writeConnections(&both, append(all, onPath, udp, session)); err != nil {
		t.Fatal(err)
	}
	equal(t, both.String(), `SERVICE  PROTO  CLIENT  ENDPOINT  ADDRESS  STATE  AGE  IDLE   UP  DOWN  PATH    PROGRAM
web      tcp    a       -         -        open    2s   0ms  0 B   0 B  lictor  -
web      tcp    b       -         -        open    2s    1s  3 B   0 B  kernel  ps`+"\ufffd"+`ql (12)
dns      udp    c       -         -        open    2s     -    -     -  kernel  13
dns      udp    d       -         -        open    2s    1s    -     -  kernel  -
`)
}
