package lb

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestDenial(t *testing.T) {
	remote := func(alert tls.AlertError) error { return &net.OpError{Op: "remote error", Err: alert} }
	for _, tt := range []struct {
		err    error
		denial bool
	}{
		{remote(42), true}, {remote(46), true}, {remote(48), true}, {remote(49), true}, {remote(116), true},
		{fmt.Errorf("read: %w", remote(44)), true},
		{remote(40), false}, // handshake_failure
		{remote(80), false}, // internal_error
		{&net.OpError{Op: "local error", Err: tls.AlertError(42)}, false},
		{io.EOF, false}, {nil, false},
	} {
		err := Denial(tt.err)
		if (err != nil) != tt.denial || tt.denial && !errors.Is(err, ErrDenied) {
			t.Errorf("%v: got %v, want a denial: %v", tt.err, err, tt.denial)
		}
		if cause, local := CauseOf(err); tt.denial && (cause != 0 || !local) {
			t.Errorf("%v counts against the endpoint, as %v", err, cause)
		}
	}
}

// An endpoint that may deny is not known to serve before it sends something.
func TestAcceptedIsNoSuccess(t *testing.T) {
	b := balanced(Options{MaxFails: 2, MinAvailable: -1}, named(1)...)
	fails(t, b, "A", Unreachable)
	for _, happens := range []func(m *Member){
		func(*Member) {}, func(m *Member) { m.Denied(ErrDenied) }, (*Member).Unanswered,
	} {
		m := member(t, b, "A")
		m.Accepted()
		happens(m)
		m.Done()
		if s := b.Snapshot()[0].Endpoints[0]; s.Fails != 1 || s.State != StateTroubled {
			t.Errorf("got %+v, want one failure still", s)
		}
	}
	m := member(t, b, "A")
	m.Accepted()
	m.Reached()
	m.Done()
	if s := b.Snapshot()[0].Endpoints[0]; s.Fails != 0 || s.State != StateIn {
		t.Errorf("got %+v, want no failures", s)
	}
	for range 5 {
		m := member(t, b, "A")
		m.Accepted()
		m.Denied(ErrDenied)
		m.Done()
	}
	if s := b.Snapshot()[0].Endpoints[0]; s.Fails != 0 || s.State != StateIn || s.Failures != 1 {
		t.Errorf("got %+v, want no failure because of denials", s)
	}
}

// Denials are counted since the last answer. Their begin and their end are told, but not without a limit.
func TestDenialsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewRoundRobin()
		var told []DenialChange
		b.NotifyDenials(func(c DenialChange) { told = append(told, c) })
		b.OnUpdate([]Endpoints{{Service: "web", Endpoints: named(1)}})
		deny := func() {
			m := member(t, b, "A")
			m.Denied(fmt.Errorf("%w: no", ErrDenied))
			m.Done()
		}
		answer := func() {
			m := member(t, b, "A")
			m.Reached()
			m.Done()
		}
		want := func(all ...bool) {
			t.Helper()
			for i, c := range told {
				if i >= len(all) || c.Denied != all[i] || c.Service != "web" || c.Endpoint != "A" ||
					c.Denied != (c.Why == "no") {
					t.Errorf("told %+v", c)
				}
			}
			if len(told) != len(all) {
				t.Errorf("told %d times, want %d", len(told), len(all))
			}
			told = nil
		}
		answer()
		want()
		began := time.Now()
		deny()
		time.Sleep(time.Second)
		deny()
		want(true)
		m := member(t, b, "A")
		m.Unanswered()
		m.Done()
		s := b.Snapshot()[0].Endpoints[0]
		if d := s.Denied; d.Connections != 2 || !d.Since.Equal(began) || !d.Last.Equal(began.Add(time.Second)) ||
			d.Why != "no" || s.Unanswered.Connections != 1 {
			t.Errorf("got %+v", s)
		}
		answer()
		want(false)
		if s := b.Snapshot()[0].Endpoints[0]; s.Denied != (Unserved{}) || s.Unanswered != (Unserved{}) {
			t.Errorf("got %+v after an answer", s)
		}
		for range 10 {
			deny()
			answer()
		}
		want(true, false, true, false, true, false)
		time.Sleep(changeEvery)
		deny()
		want(true)
	})
}

// A check waits for what the endpoint says to its certificate. If the endpoint denies it, nothing is known of the
// endpoint, and not that it is well either.
func TestCheckThatIsDenied(t *testing.T) {
	ca := testcert.NewAuthority(t, "root")
	cert := ca.Issue(t, testcert.Request{Names: []string{"127.0.0.1"}}).TLS(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, denies := range []bool{false, true} {
			t.Run(fmt.Sprint(tls.VersionName(version), ", denies: ", denies), func(t *testing.T) {
				config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version,
					ClientAuth: tls.RequireAnyClientCert}
				if denies {
					config.VerifyConnection = func(tls.ConnectionState) error { return errors.New("not you") }
				}
				addr, stop := listenTCP(t, netip.AddrPort{}, func(conn net.Conn) {
					s := tls.Server(conn, config)
					_, _ = io.Copy(io.Discard, s)
					_ = s.Close()
				})
				defer stop()
				e := Endpoint{ID: "A", Addr: addr}
				b := balanced(Options{MaxFails: 1, ProbeTLS: &ProbeTLS{Denies: true,
					Config: func(Endpoint) (*tls.Config, error) {
						return &tls.Config{ServerName: "127.0.0.1", RootCAs: ca.Pool(),
							Certificates: []tls.Certificate{cert}}, nil
					}}}, e)
				p := NewProber(b)
				defer p.Close()
				if err := p.Probe(t.Context(), "web", e); err != nil {
					t.Errorf("got %v: the endpoint can be reached", err)
				}
				m := member(t, b, "A")
				defer m.Done()
				m.health.countFailure()
				p.probe(t.Context(), "web", m, Check{Timeout: testproc.Patience})
				fails := b.Snapshot()[0].Endpoints[0].Fails
				if want := map[bool]int{true: 1, false: 0}[denies]; fails != want {
					t.Errorf("got %d failures in a row, want %d", fails, want)
				}
			})
		}
	}
}

// countFailure counts a failure that ejects nothing.
func (h *health) countFailure() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.countLocked(Unreachable, "")
}
