package accesslog

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

func sampleRecord() proxy.AccessRecord {
	return proxy.AccessRecord{
		Service:  "web",
		Listener: lb.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:9000")},
		Client:   netip.MustParseAddrPort("127.0.0.1:34567"),
		Endpoint: lb.Endpoint{ID: "node/web 1", Addr: netip.MustParseAddrPort("10.0.0.1:80")},
		Ended:    time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Connect:  312 * time.Microsecond,
		Duration: 1204 * time.Millisecond,
		Up:       120,
		Down:     5311,
		Reason:   proxy.ReasonClientClosed,
	}
}

// An entry is a decoded line of JSON.
type entry struct {
	Time                                                   time.Time
	Service, Protocol, Listener, Client, Endpoint, Address string
	By, End, Reason, Error                                 string
	Connect, Duration                                      float64
	Up, Down                                               int64
	DatagramsUp                                            *int64 `json:"datagrams_up"`
}

// Characters in an instance's name that a terminal obeys are escaped.
func TestAccessLinesAreVisible(t *testing.T) {
	r := sampleRecord()
	r.Endpoint.ID = "node/\u009b2J\u202e"
	for name, line := range map[string][]byte{"JSON": appendJSON(nil, &r), "text": appendText(nil, &r)} {
		if !strings.Contains(string(line), `node/\u009b2J\u202e`) {
			t.Errorf("%s: got %q, want the characters escaped", name, line)
		}
	}
}

func TestAccessLines(t *testing.T) {
	r := sampleRecord()
	got := string(appendText(nil, &r))
	want := `2026-01-02T03:04:05.000006Z web 127.0.0.1:34567 -> "node/web 1" 10.0.0.1:80 ` +
		`connect=0.000312 duration=1.204000 up=120 down=5311 by=client end="client closed" ` +
		"protocol=tcp listener=127.0.0.1:9000\n"
	if got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	var line entry
	if err := json.Unmarshal(appendJSON(nil, &r), &line); err != nil || line.Endpoint != "node/web 1" ||
		line.Connect != 0.000312 || line.By != "client" || line.Down != 5311 || line.Protocol != "tcp" ||
		line.DatagramsUp != nil || !line.Time.Equal(r.Ended) || line.Duration != 1.204 ||
		line.Client != "127.0.0.1:34567" || line.Listener != "127.0.0.1:9000" || line.Reason+line.Error != "" ||
		line.Address != "10.0.0.1:80" || line.End != "client closed" || line.Up != 120 || line.Service != "web" {
		t.Errorf("got %+v, %v", line, err)
	}
	r.Reason, r.Err = proxy.ReasonEndpointFailed, syscall.ECONNRESET
	if got := string(appendText(nil, &r)); !strings.Contains(got, ` by=endpoint end="endpoint failed" `) ||
		!strings.HasSuffix(got, " error=\"connection reset by peer\"\n") {
		t.Errorf("got %s", got)
	}
	if got := string(appendJSON(nil, &r)); !strings.HasSuffix(got,
		`,"by":"endpoint","end":"endpoint failed","error":"connection reset by peer"}`+"\n") {
		t.Errorf("got %s", got)
	}
	r.Endpoint, r.Reason, r.Refused, r.Err = lb.Endpoint{}, proxy.ReasonUnserved, "full", nil
	if got := string(appendText(nil, &r)); !strings.Contains(got, "-> - - connect") ||
		!strings.Contains(got, "by=lictor") || !strings.HasSuffix(got, " reason=full\n") {
		t.Errorf("got %s", got)
	}
	if got := string(appendJSON(nil, &r)); !strings.HasSuffix(got, `,"end":"unserved","reason":"full"}`+"\n") {
		t.Errorf("got %s", got)
	}
	r.Reason, r.Refused, r.Err = proxy.ReasonDenied, "denied", errors.New("remote error: tls: bad certificate")
	if got := string(appendJSON(nil, &r)); !strings.HasSuffix(got, `,"by":"endpoint",`+
		`"end":"denied by the destination",`+
		`"reason":"denied","error":"remote error: tls: bad certificate"}`+"\n") {
		t.Errorf("got %s", got)
	}
	r.Refused, r.Err = "", nil
	r.Protocol, r.DatagramsUp, r.Reason = proxy.UDP, 3, proxy.ReasonEndpointLeft
	if got := string(appendText(nil, &r)); !strings.Contains(got,
		" down=5311 datagrams_up=3 datagrams_down=0 by=lictor end=\"endpoint left\" protocol=udp") {
		t.Errorf("got %s", got)
	}
	if got := string(appendJSON(nil, &r)); !strings.Contains(got, `"protocol":"udp"`) ||
		!strings.Contains(got, `"down":5311,"datagrams_up":3,"datagrams_down":0,"by"`) {
		t.Errorf("got %s", got)
	}
	r.Endpoint.ID = "a\nb" // a name from Consul cannot add a line
	if got := string(appendText(nil, &r)); strings.Count(got, "\n") != 1 {
		t.Errorf("got %s", got)
	}
}

// The address of an endpoint at a Unix socket is its path, as in the configuration.
func TestAccessLinesOfAUnixSocket(t *testing.T) {
	for path, want := range map[string]string{
		"/run/pg.sock": " unix:///run/pg.sock ", "/run/a b": ` "unix:///run/a b" `,
	} {
		r := sampleRecord()
		r.Endpoint.Addr, r.Endpoint.Path = netip.AddrPort{}, path
		if got := string(appendText(nil, &r)); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := string(appendJSON(nil, &r)); !strings.Contains(got, `"address":"unix://`+path+`",`) {
			t.Errorf("got %s", got)
		}
	}
}

// A client of a Unix socket has no address, and its listener has a path.
func TestAccessLinesOfAUnixListener(t *testing.T) {
	r := sampleRecord()
	r.Client, r.Listener = netip.AddrPort{}, lb.Addr{Path: "/run/a b"}
	text, line := string(appendText(nil, &r)), string(appendJSON(nil, &r))
	if !strings.Contains(text, " web unix -> ") || !strings.Contains(text, ` listener="unix:///run/a b"`) ||
		!strings.Contains(line, `"listener":"unix:///run/a b","client":"unix","endpoint"`) {
		t.Errorf("got %s and %s", text, line)
	}
}

// Names from Consul or the configuration may have any characters. Each record is still one line, from which the name
// can be read.
func TestAccessLinesOfAnyName(t *testing.T) {
	for _, name := range []string{"a\nb", `a"b`, `a\b`, "a b", "a=b", "ü", "\x7f\u0085", "<&>", "\xff", ""} {
		r := sampleRecord()
		r.Service, r.Endpoint.ID, r.Endpoint.Host = name, "x"+name, "h"+name
		text, b := string(appendText(nil, &r)), appendJSON(nil, &r)
		if strings.Count(text, "\n") != 1 || strings.Count(string(b), "\n") != 1 {
			t.Errorf("%q: got %s and %s", name, text, b)
		}
		want := strings.ToValidUTF8(name, "\ufffd")
		var line entry
		if err := json.Unmarshal(b, &line); err != nil || line.Service != want || line.Endpoint != "x"+want ||
			line.Address != "h"+want+":80" {
			t.Errorf("%q: got %+v, %v of %s", name, line, err, b)
		}
	}
}

func TestSecondsOfAccessLines(t *testing.T) {
	for _, tt := range []struct {
		d          time.Duration
		text, json string
	}{
		{0, "0.000000", "0"},
		{1, "0.000000", "0.000000001"},
		{1500, "0.000002", "0.0000015"},
		{999_999_999, "1.000000", "0.999999999"},
		{time.Hour, "3600.000000", "3600"},
		{-1500 * time.Millisecond, "-1.500000", "-1.5"},
	} {
		text := string(appendSeconds(nil, tt.d, time.Microsecond))
		json := string(appendSeconds(nil, tt.d, time.Nanosecond))
		if text != tt.text || json != tt.json {
			t.Errorf("%d ns: got %s and %s, want %s and %s", tt.d, text, json, tt.text, tt.json)
		}
	}
}

// A record costs a copy, but no memory allocation. It wakes the goroutine only when many records wait.
func TestRecordsAreCheap(t *testing.T) {
	r, q := sampleRecord(), newBacklog()
	var records []proxy.AccessRecord
	var buf []byte
	round := func() {
		for range wakeAt - 1 {
			q.add(&r)
		}
		records = q.take(records)
		for i := range records {
			buf = appendText(appendJSON(buf[:0], &records[i]), &records[i])
		}
	}
	round()
	round()
	if n := testing.AllocsPerRun(3, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(q.wake) != 0 {
		t.Error("the goroutine is woken for fewer records than wakeAt")
	}
	for range wakeAt {
		q.add(&r)
	}
	if len(q.wake) != 1 {
		t.Error("the goroutine is not woken for many records")
	}
	for range maxBacklog - wakeAt {
		q.add(&r)
	}
	if q.add(&r) {
		t.Error("there is room beyond the limit")
	}
}

func BenchmarkAccessLog(b *testing.B) {
	for _, json := range []bool{true, false} {
		b.Run(map[bool]string{true: "json", false: "text"}[json], func(b *testing.B) {
			a, err := startWriter(Options{Path: filepath.Join(b.TempDir(), "a"), JSON: json, Sample: 1})
			if err != nil {
				b.Fatal(err)
			}
			r := sampleRecord()
			b.ReportAllocs()
			for b.Loop() {
				for a.backlog.len() > maxBacklog/2 { // so that nothing is dropped
					runtime.Gosched()
				}
				a.add(r)
			}
			a.stop()
			if n := a.dropped.Load(); n > 0 {
				b.Errorf("%d lines dropped", n)
			}
		})
	}
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// startWriter starts a writer without a Log.
func startWriter(o Options) (*writer, error) {
	to, err := openTarget(o, Outputs{})
	if err != nil {
		return nil, err
	}
	return newWriter(o, to, Outputs{}, &counts{}, hclog.NewNullLogger()), nil
}

// A reload turns the access log on, changes its file and format, and turns it off. Each record is in the file of its
// time, and none is lost.
func TestAccessLogFollowsTheConfiguration(t *testing.T) {
	dir := t.TempDir()
	var told func(proxy.AccessRecord)
	logs := New(Outputs{}, func(f func(proxy.AccessRecord)) { told = f }, hclog.NewNullLogger())
	apply := func(o *Options) {
		t.Helper()
		s, err := logs.Prepare(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Commit()
	}
	first := &Options{Path: filepath.Join(dir, "1"), JSON: true, Sample: 1}
	second := &Options{Path: filepath.Join(dir, "2"), Sample: 1}
	apply(nil)
	apply(first)
	for range 100 {
		told(sampleRecord())
	}
	if _, err := logs.Prepare(&Options{Path: dir}); err == nil {
		t.Error("a folder was opened as a file")
	}
	undone, err := logs.Prepare(second)
	if err != nil {
		t.Fatal(err)
	}
	undone.Abort()
	apply(second)
	apply(second) // the same options again
	for range 10 {
		told(sampleRecord())
	}
	if err := os.Rename(second.Path, second.Path+".1"); err != nil {
		t.Fatal(err)
	}
	logs.Reopen()
	apply(nil)
	if told != nil {
		t.Error("records are still wanted")
	}
	// Records just before a change may be in either file, but must be in one of them.
	if n := countLines(t, first.Path) + countLines(t, second.Path+".1"); n != 110 &&
		n+countLines(t, second.Path) != 110 {
		t.Errorf("got %d lines, want 110", n)
	}
	if written, dropped, is := logs.Counts(); written != 110 || dropped != 0 || is {
		t.Errorf("got %d written, %d dropped, %v", written, dropped, is)
	}
}

func TestAccessLogSamplesAndSurvivesRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	a, err := startWriter(Options{Path: path, Sample: 10})
	if err != nil {
		t.Fatal(err)
	}
	r, unserved, denied, forbidden := sampleRecord(), sampleRecord(), sampleRecord(), sampleRecord()
	unserved.Reason, denied.Reason, forbidden.Reason = proxy.ReasonUnserved, proxy.ReasonDenied, proxy.ReasonIntention
	for range 100 {
		a.add(r)
	}
	a.add(unserved)
	a.add(denied)
	a.add(forbidden)
	deadline := time.Now().Add(30 * time.Second)
	await := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if time.Now().After(deadline) {
				t.Fatalf("waited for this: %s", what)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	await("13 lines: one of ten, and those of clients that were not served",
		func() bool { return countLines(t, path) == 13 })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	await("a new file", func() bool { _, err := os.Stat(path); return err == nil })
	a.add(unserved)
	a.stop()
	if got := countLines(t, path); got != 1 {
		t.Errorf("got %d lines in the new file, want 1", got)
	}
	if a.dropped.Load() != 0 || a.written.Load() != 14 {
		t.Errorf("got %d dropped, %d written", a.dropped.Load(), a.written.Load())
	}
}

// A target that accepts no lines never blocks the caller. Here the target is a full pipe without a reader.
func TestAccessLogNeverBlocks(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a, err := startWriter(Options{Path: fmt.Sprintf("/proc/self/fd/%d", write.Fd()), Sample: 1})
	if err != nil {
		t.Skip("this system cannot open a pipe by name:", err)
	}
	const n = 50_000
	for range n {
		a.add(sampleRecord())
	}
	if a.dropped.Load() == 0 {
		t.Error("nothing was dropped: the caller waited, or the queue has no limit")
	}
	_ = write.Close()
	_ = read.Close() // a blocked write to the pipe gets an error now
	a.stop()
	if sum := a.dropped.Load() + a.written.Load(); sum != n {
		t.Errorf("%d of %d lines are accounted for", sum, n)
	}
}

func TestAccessLogThatCannotBeOpened(t *testing.T) {
	if _, err := startWriter(Options{Path: "/nonexistent/access.log"}); err == nil ||
		!strings.Contains(err.Error(), "access_log") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkFormat(b *testing.B) {
	r := sampleRecord()
	var buf []byte
	for name, format := range map[string]formatter{"json": appendJSON, "text": appendText} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				buf = format(buf[:0], &r)
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	r, q := sampleRecord(), newBacklog()
	var records []proxy.AccessRecord
	b.ReportAllocs()
	for b.Loop() {
		q.add(&r)
		if len(q.wake) > 0 {
			<-q.wake
			records = q.take(records)
		}
	}
}
