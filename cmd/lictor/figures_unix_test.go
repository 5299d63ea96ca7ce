//go:build unix

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
)

// Each figure that stands in several places is the same in all of them, after traffic over TCP and UDP: in
// /v1/services, in the stream that the page shows, in the rows of top, and in /metrics. docs/metrics.md has the table.
func TestFiguresAgree(t *testing.T) {
	r := startLictor(t, static("web", echo(t))+static("dead", "127.0.0.1:1")+
		strings.Replace(static("dns", udpEcho(t)), "listen", "protocol = \"udp\"\n idle_timeout = \"1h\"\n listen", 1))
	r.connect("web") // stays open
	a := r.api()
	for range 3 {
		if c, err := net.Dial("tcp", a.listener("dead")); err == nil {
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
	}
	a.exchange("dns")
	rows := readFigureTable(t)

	var f figures
	await(t, "the same figures in all places", func() error { // metrics are up to a second old
		f = a.figures()
		return f.compare(rows)
	})
	for _, row := range []string{"counters.connections", "counters.connections_active", "counters.sessions_active",
		"counters.bytes_up", "counters.datagrams_down", "counters.dials", "counters.dials_failed", "counters.refused",
		"counters.ejections"} {
		if f.sum(row) == 0 {
			t.Errorf("%s is zero everywhere, so it was not compared", row)
		}
	}
	var list admin.ConnectionsAnswer
	a.get("/v1/connections", &list)
	if n := f.status["connections_active"].(float64) + f.status["sessions_active"].(float64); n != 2 ||
		len(list.Connections) != 2 {
		t.Errorf("%v connections and sessions, and %d are listed, want 2", n, len(list.Connections))
	}
	f.topAgrees(t)
}

// The table in docs/metrics.md has every counter of a service.
func TestFigureTableIsComplete(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[admin.Counters]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[admin.Counters]().Field(i).Tag.Get("json"), ",")
		if !strings.Contains(string(text), "| `counters."+name) {
			t.Errorf("docs/metrics.md has no metric for counters.%s", name)
		}
	}
}

// A figureRow is a row of a table in docs/metrics.md: a field of the API, and the series that add up to the same.
type figureRow struct {
	ofService bool   // the field is of each service; otherwise of the status
	field     string // such as counters.bytes_up
	metric    string
	label     [2]string // name and value that the series must have; empty: all series
}

func readFigureTable(t *testing.T) (rows []figureRow) {
	t.Helper()
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	ofService := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "| of ") {
			ofService = strings.Contains(line, "of a service")
		}
		m := regexp.MustCompile("^\\| `([a-z_.]+)`.* \\| `(lictor_[a-z_]+)(?:{(\\w+)=\"(\\w+)\"})?` \\|$").
			FindStringSubmatch(strings.TrimSpace(line))
		if m != nil {
			rows = append(rows, figureRow{ofService, m[1], m[2], [2]string{m[3], m[4]}})
		}
	}
	if len(rows) < 40 {
		t.Fatalf("got %d rows; does this test look in the right way?", len(rows))
	}
	return rows
}

// figures are all figures of a lictor at one moment, by where they stand.
type figures struct {
	status   map[string]any
	services []map[string]any // from /v1/services
	streamed []map[string]any // from /v1/watch, in the same order
	metrics  []series
}

type series struct {
	name   string
	labels map[string]string
	value  float64
}

// compare returns an error if the figures of a row differ.
func (f *figures) compare(rows []figureRow) error {
	if !reflect.DeepEqual(f.services, f.streamed) {
		return fmt.Errorf("services: %v\nstream: %v", f.services, f.streamed)
	}
	for _, row := range rows {
		if !row.ofService {
			if got, want := f.metric(row, ""), number64(field(f.status, row.field)); got != want {
				return fmt.Errorf("%s of the status is %v, %s%v adds up to %v", row.field, want, row.metric, row.label,
					got)
			}
			continue
		}
		for _, s := range f.services {
			name := s["name"].(string)
			if got, want := f.metric(row, name), number64(field(s, row.field)); got != want {
				return fmt.Errorf("%s of %s is %v, %s%v is %v", row.field, name, want, row.metric, row.label, got)
			}
		}
	}
	return nil
}

// metric adds up the series of a row, of one service or of all.
func (f *figures) metric(row figureRow, service string) (sum float64) {
	for _, s := range f.metrics {
		if s.name == row.metric && (row.label[0] == "" || s.labels[row.label[0]] == row.label[1]) &&
			(service == "" || s.labels["service"] == service) {
			sum += s.value
		}
	}
	return sum
}

// sum adds up a field over all services.
func (f *figures) sum(name string) (sum float64) {
	for _, s := range f.services {
		sum += number64(field(s, name))
	}
	return sum
}

// topAgrees checks the rows of top, which are computed from an answer of the API.
func (f *figures) topAgrees(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(map[string]any{"services": f.services})
	if err != nil {
		t.Fatal(err)
	}
	var answer admin.ServicesAnswer
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	in, out, active := 0, 0, int64(0)
	for _, row := range topRows(nil, &answer) {
		in, out, active = in+row.In(), out+len(row.Endpoints)-row.In(), active+row.active
	}
	got := map[string]any{"endpoints_in": float64(in), "endpoints_out": float64(out)}
	want := maps.Clone(f.status)
	maps.DeleteFunc(want, func(name string, _ any) bool { return got[name] == nil })
	if !maps.Equal(got, want) {
		t.Errorf("top has %v, want %v", got, want)
	}
	if want := f.sum("counters.connections_active") + f.sum("counters.sessions_active"); float64(active) != want {
		t.Errorf("top has %d active, want %v", active, want)
	}
}

// field returns a field by its path, or nil if it is absent.
func field(of map[string]any, path string) any {
	first, rest, more := strings.Cut(path, ".")
	if inner, is := of[first].(map[string]any); more && is {
		return field(inner, rest)
	}
	return of[path]
}

// number64 is a field as a number: a truth is 0 or 1, a list has its length, and an absent field is 0.
func number64(v any) float64 {
	switch v := v.(type) {
	case float64:
		return v
	case bool:
		if v {
			return 1
		}
	case []any:
		return float64(len(v))
	}
	return 0
}

// An api asks a running lictor for what it shows.
type api struct {
	t *testing.T
	*admin.Client
	raw http.Client
}

func (r *running) api() *api {
	r.t.Helper()
	address, err := admin.ParseAddress("unix://" + r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	a := &api{t: r.t, Client: admin.NewClient(address, "", admin.Chosen)}
	a.raw.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
		}}
	r.t.Cleanup(a.Close)
	return a
}

func (a *api) get(path string, into any) {
	a.t.Helper()
	if err := a.Get(a.t.Context(), path, into); err != nil {
		a.t.Fatal(err)
	}
}

func (a *api) listener(service string) string {
	a.t.Helper()
	var s admin.Service
	a.get(servicePath(service), &s)
	return s.Listeners[0]
}

// exchange sends a datagram to a service until there is an answer. The session stays.
func (a *api) exchange(service string) {
	a.t.Helper()
	c, err := net.Dial("udp", a.listener(service))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = c.Close() })
	await(a.t, "an answer", func() error {
		_, _ = c.Write([]byte("hello"))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err := c.Read(make([]byte, 10))
		return err
	})
}

// figures reads all places, one after another.
func (a *api) figures() (f figures) {
	a.t.Helper()
	var answer struct{ Services []map[string]any }
	a.get("/v1/services", &answer)
	f.services = answer.Services
	f.metrics = a.metrics()
	a.get("/v1/status", &f.status)
	f.streamed = a.stream()
	for i, s := range f.services { // a stream has no order
		for j, other := range f.streamed {
			if other["name"] == s["name"] {
				f.streamed[i], f.streamed[j] = f.streamed[j], f.streamed[i]
			}
		}
	}
	return f
}

// open begins a request that is not for JSON.
func (a *api) open(path string) io.ReadCloser {
	a.t.Helper()
	answer, err := a.raw.Get("http://lictor" + path)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer.Body
}

func (a *api) metrics() (all []series) {
	a.t.Helper()
	body := a.open("/metrics")
	defer func() { _ = body.Close() }()
	line := regexp.MustCompile(`^(\w+)(?:{(.*)})? (\S+)$`)
	label := regexp.MustCompile(`(\w+)="([^"]*)"`)
	for in := bufio.NewScanner(body); in.Scan(); {
		m := line.FindStringSubmatch(in.Text())
		if m == nil {
			continue
		}
		s := series{name: m[1], labels: map[string]string{}}
		s.value, _ = strconv.ParseFloat(m[3], 64)
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			s.labels[l[1]] = l[2]
		}
		all = append(all, s)
	}
	return all
}

// stream returns the services that a new stream begins with.
func (a *api) stream() []map[string]any {
	a.t.Helper()
	body := a.open("/v1/watch")
	defer func() { _ = body.Close() }()
	in := bufio.NewScanner(body)
	in.Buffer(nil, 1<<20)
	for event := ""; in.Scan(); {
		kind, text, _ := strings.Cut(in.Text(), ": ")
		if kind == "event" {
			event = text
		} else if kind == "data" && event == "services" {
			var changes struct{ Services []map[string]any }
			if err := json.Unmarshal([]byte(text), &changes); err != nil {
				a.t.Fatal(err)
			}
			return changes.Services
		}
	}
	a.t.Fatalf("the stream has ended: %v", in.Err())
	return nil
}

// udpEcho starts an instance that sends back each datagram, and returns its address.
func udpEcho(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return c.LocalAddr().String()
}
