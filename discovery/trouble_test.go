package discovery

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// outage runs n watches with a Consul that first answers correctly, then with bad for a minute, then correctly again.
// outage returns the log.
func outage(t *testing.T, n int, bad reply) *journal {
	t.Helper()
	var log *journal
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		f := &fake{}
		f.always = func(req *http.Request) (*http.Response, error) {
			switch since := time.Since(begin); {
			case since > time.Minute && since < 2*time.Minute:
				return bad(req)
			case req.URL.Query().Has("index"):
				return after(7*time.Second, ok(20, "a 80"))(req)
			}
			return ok(20, "a 80")(req)
		}
		var watches []Watch
		for i := range n {
			watches = append(watches, Watch{Service: fmt.Sprint("s", i)})
		}
		r := start(t, f, ConsulOptions{Watches: watches})
		time.Sleep(4 * time.Minute)
		for _, s := range r.consul.Snapshot() {
			if s.Endpoints != 1 || s.Updates != 1 || s.Error != "" || s.Errors == 0 {
				t.Errorf("status %+v", s)
			}
		}
		log = r.log
		r.stop()
	})
	return log
}

// The cause of an outage can change. The log names each cause once, except that connections break before new ones are
// refused.
func TestNewCauseOfAnOutageIsLoggedOnce(t *testing.T) {
	var began time.Time
	expired := &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}
	log := outage(t, 10, func(*http.Request) (*http.Response, error) {
		if began.IsZero() {
			began = time.Now()
		}
		switch since := time.Since(began); {
		case since < 5*time.Second:
			return nil, io.EOF
		case since < 20*time.Second, since > 50*time.Second:
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		case since < 35*time.Second:
			return nil, expired
		}
		return status(500, "No cluster leader")(nil)
	})
	log.wantOnce(t, "consul is lost, endpoints stay as they are", "consul answers again", "certificate has expired",
		"No cluster leader")
	if n := strings.Count(log.String(), "\n"); n != 4 {
		t.Errorf("%d lines, want 4:\n%s", n, log)
	}
}

func TestLosingConsulIsLoggedOnceForAllWatches(t *testing.T) {
	texts := []string{"EOF", "connection refused", "reset"}
	var n atomic.Int32
	log := outage(t, 10, func(*http.Request) (*http.Response, error) {
		return nil, fmt.Errorf("dial: %s", texts[int(n.Add(1))%len(texts)])
	})
	log.wantOnce(t, "consul is lost, endpoints stay as they are", "consul answers again")
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want 2:\n%s", n, log)
	}
}

func TestDeniedAccessIsLoggedOnceForAllWatches(t *testing.T) {
	log := outage(t, 10, status(403, "rpc error: ACL not found"))
	log.wantOnce(t, "consul denies access", "service:read, node:read", "consul permits access again")
}

func TestTooManyConnectionsIsLoggedOnceWithTheSetting(t *testing.T) {
	log := outage(t, 10, status(429, "Your IP is issuing too many concurrent connections"))
	log.wantOnce(t, "take turns", "consul refuses requests", "consul accepts all requests again")
}

func TestConnectionClosedWhileThereAreTooManyIsNotLosingConsul(t *testing.T) {
	var n atomic.Int32
	log := outage(t, 10, func(req *http.Request) (*http.Response, error) {
		if n := n.Add(1); n > 30 && n%2 == 0 {
			return nil, io.EOF
		}
		return status(429, "Your IP is issuing too many concurrent connections")(req)
	})
	log.wantOnce(t, "take turns", "consul refuses requests", "consul accepts all requests again")
	if strings.Contains(log.String(), "lost") {
		t.Errorf("log:\n%s", log)
	}
}

func TestRefusedQueryIsLoggedOnce(t *testing.T) {
	const text = `Failed to create boolean expression evaluator: Selector "Service.Nope" is not valid`
	log := outage(t, 1, status(500, text))
	log.wantOnce(t, "consul refuses a query", "consul answers the query")
}

func TestUnknownDatacenterIsNotLosingConsul(t *testing.T) {
	log := outage(t, 1, status(500, "No path to datacenter"))
	log.wantOnce(t, "consul cannot answer a query", "consul answers the query")
	if strings.Contains(log.String(), "lost") {
		t.Errorf("log:\n%s", log)
	}
}

func TestSingleBrokenConnectionIsNotNews(t *testing.T) {
	bubble(t, time.Second, ConsulOptions{}, []reply{ok(20, "a 80"), fails(io.EOF), ok(20, "a 80")},
		func(t *testing.T, r *rig) {
			if text := r.log.String(); text != "" || r.status().Errors != 1 {
				t.Errorf("log %q after %d errors", text, r.status().Errors)
			}
		})
}

func TestConsulAwayAtTheStartIsLoggedOnce(t *testing.T) {
	no := fails(io.EOF)
	replies := []reply{no, no, no, after(gatherQuiet, no), ok(20, "a 80")}
	bubble(t, 40*time.Second, ConsulOptions{}, replies, func(t *testing.T, r *rig) {
		r.want(t, webA)
		r.log.wantOnce(t, "consul cannot be reached", "consul answers again")
	})
}

func TestBadInstanceIsLoggedOnce(t *testing.T) {
	bubble(t, time.Minute, ConsulOptions{}, []reply{ok(20, "a 80", "b 0"), ok(21, "a 80", "b 0"),
		ok(22, "a 80", "b 70000"), ok(23, "a 80", "b 70000")},
		func(t *testing.T, r *rig) {
			r.want(t, webA)
			r.log.wantOnce(t, "port 0 is not in 1..65535", "port 70000 is not in 1..65535")
			if n := strings.Count(r.log.String(), "instance left out"); n != 2 || r.status().Bad != 1 {
				t.Errorf("%d lines, %d bad", n, r.status().Bad)
			}
		})
}

func TestHungAgentIsNoticedByTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var watches []Watch
		for i := range 5 {
			watches = append(watches, Watch{Service: fmt.Sprint("s", i)})
		}
		script := map[string][]reply{}
		for _, w := range watches {
			script[w.Service] = []reply{ok(20, "a 80")}
		}
		var pings atomic.Int32
		f := &fake{script: script, ping: func(req *http.Request) (*http.Response, error) {
			if pings.Add(1) == 1 {
				return status(301, "")(req)
			}
			return hang(req)
		}}
		r := start(t, f, ConsulOptions{Watches: watches})
		time.Sleep(19 * time.Second)
		if r.log.String() != "" {
			t.Errorf("log after 19 s: %s", r.log)
		}
		time.Sleep(2*time.Second + gatherQuiet)
		r.log.wantOnce(t, "consul is lost, endpoints stay as they are", "the agent does not answer")
		if pings.Load() != 3 {
			t.Errorf("%d probes, want the warm-up and 2", pings.Load())
		}
		for _, a := range f.asks()[10:] {
			if a.index != "" {
				t.Errorf("asked with index %s after the agent was lost", a.index)
			}
		}
		r.stop()
	})
}

func TestProbeCostsNothingWhileConsulTalks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings atomic.Int32
		f := &fake{always: after(3*time.Second, ok(20, "a 80")), ping: func(*http.Request) (*http.Response, error) {
			pings.Add(1)
			return status(301, "")(nil)
		}}
		r := start(t, f, ConsulOptions{})
		time.Sleep(10 * time.Minute)
		if pings.Load() != 0 || r.status().Errors != 0 {
			t.Errorf("%d probes, %d errors", pings.Load(), r.status().Errors)
		}
		r.stop()
	})
}

func TestAnsweredProbeLeavesQueriesAlone(t *testing.T) {
	bubble(t, 40*time.Second, ConsulOptions{Wait: time.Minute}, []reply{ok(20, "a 80")}, func(t *testing.T, r *rig) {
		if s := r.status(); s.Queries != 2 || s.Errors != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestTokenIsNeverLogged(t *testing.T) {
	const secret = "5ec2e7aa-0000-4000-8000-123456789abc"
	tests := []reply{status(403, "ACL not found"), fails(io.EOF), status(500, "x"), status(400, "y"), raw("1", "no")}
	for i, bad := range tests {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, &fake{always: bad}, ConsulOptions{Token: secret, HTTPAuth: "user:" + secret})
			r.consul.options.Logger.SetLevel(hclog.Trace)
			time.Sleep(time.Minute)
			if got := r.fake.asks()[0].header.Get("X-Consul-Token"); got != secret {
				t.Errorf("token sent: %q", got)
			}
			all := r.log.String() + fmt.Sprintf("%+v", r.consul.Snapshot()) +
				fmt.Sprint(r.consul.Check(t.Context(), Query{Service: "web"}))
			if strings.Contains(all, secret) || r.log.String() == "" {
				t.Errorf("%d: token or nothing in the log:\n%s", i, all)
			}
			r.stop()
		})
	}
}
