package discovery

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// cutting answers like an agent with a write_timeout: a late answer breaks the connection.
func cutting(timeout time.Duration) reply {
	return func(req *http.Request) (*http.Response, error) {
		wait, _ := time.ParseDuration(req.URL.Query().Get("wait"))
		if !consul.Sleep(req.Context(), wait, nil) {
			return nil, req.Context().Err()
		}
		if wait > timeout {
			return nil, io.EOF
		}
		return ok(20, "a 80")(req)
	}
}

// The wait becomes shorter until the agent answers, with one log line. The wait becomes no shorter than necessary.
func TestWaitIsLearntFromCutQueries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{always: cutting(15 * time.Second)}
		r := start(t, f, ConsulOptions{})
		time.Sleep(5 * time.Minute)
		learnt := r.status().Errors
		if learnt < 4 || learnt > 5 {
			t.Errorf("%d queries failed, want two with each of two waits", learnt)
		}
		time.Sleep(time.Hour)
		if s := r.status(); s.Errors != learnt || s.Error != "" {
			t.Errorf("status %+v", s)
		}
		asks := f.asks()
		if wait, _ := time.ParseDuration(asks[len(asks)-1].values.Get("wait")); wait < 7*time.Second {
			t.Errorf("the wait has become %v", wait)
		}
		r.log.wantOnce(t, "raise http_config.write_timeout", "and restart lictor")
		if strings.Contains(r.log.String(), "lost") {
			t.Error(r.log)
		}
		r.stop()
	})
}

// A connection that breaks at another time, or because the agent dies, does not shorten waits.
func TestOutagesDoNotShortenTheWait(t *testing.T) {
	late := func(req *http.Request) (*http.Response, error) {
		wait, _ := time.ParseDuration(req.URL.Query().Get("wait"))
		return after(wait, fails(io.EOF))(req)
	}
	early, down := after(10*time.Second, fails(io.EOF)), fails(io.EOF)
	good := ok(20, "a 80")
	f := &fake{script: map[string][]reply{"web": {good, late, down, good, late, down, down, good,
		early, good, early, good, early, good, late, good}}}
	synctest.Test(t, func(t *testing.T) {
		r := start(t, f, ConsulOptions{})
		time.Sleep(10 * time.Minute)
		if got := r.consul.patience.bound(time.Hour); got != time.Hour {
			t.Errorf("waits are bounded by %v", got)
		}
		r.stop()
	})
}

func TestRealConsulWithAShortWriteTimeout(t *testing.T) {
	t.Parallel()
	if v := os.Getenv(testconsul.VersionVar); v != "" {
		t.Skipf("Consul %s may be older than http_config.write_timeout", v)
	}
	a := startAgentWith(t, testconsul.Options{TLS: true, HCL: "http_config { write_timeout = \"1s\" }\n"})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	for name, o := range map[string]ConsulOptions{
		"HTTP/1": {Address: a.HTTP},
		"HTTP/2": {Address: "https://" + a.HTTPS, TLS: TLSOptions{CAFile: a.CAFile}},
	} {
		o.Wait, o.Watches = 3*time.Second, watchesOf("web", "db")
		r := followNew(t, o)
		testproc.Await(t, "answers to queries that wait", func() bool {
			return r.consul.patience.bound(time.Hour) < time.Second
		})
		before := r.consul.Snapshot()
		testproc.Await(t, "further answers", func() bool {
			now := r.consul.Snapshot()
			return now[0].Queries > before[0].Queries+4 && now[1].Queries > before[1].Queries+4
		})
		for i, s := range r.consul.Snapshot() {
			if s.Errors > before[i].Errors+1 { // one query may have been running
				t.Errorf("%s: status %+v, before %+v", name, s, before[i])
			}
		}
		r.log.wantOnce(t, "http_config.write_timeout")
		if strings.Contains(r.log.String(), "lost") {
			t.Errorf("%s: %s", name, r.log)
		}
		r.stop()
	}
}
