package mesh

import (
	"crypto/tls"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
)

func TestSessionsEndWithTheCertificateAndTheAuthorities(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		g := newStage(t)
		server := serverConfig(t, certificateOf(t, g.ca, "billing"))
		server.MaxVersion = version
		address, _ := serve(t, server)
		resumes := func(what string, c *tls.Config, want bool) {
			t.Helper()
			state, err := connect(address, c)
			if err != nil || state.DidResume != want {
				t.Errorf("%x, %s: resumed %v, %v, want %v", version, what, state.DidResume, err, want)
			}
		}
		resumes("first", mustConfig(t, g.web, address), false)
		resumes("second", mustConfig(t, g.web, address), true)
		g.give(t, g.web)
		resumes("new certificate", mustConfig(t, g.web, address), false)
		resumes("after that", mustConfig(t, g.web, address), true)
		former := mustConfig(t, g.web, address)
		g.trust(t, testcert.NewAuthority(t, "new"), g.ca)
		resumes("more authorities", mustConfig(t, g.web, address), false)
		resumes("former configuration", former, true)
		g.trust(t, testcert.NewAuthority(t, "only"))
		if _, err := connect(address, former); err == nil {
			t.Errorf("%x: the session of an endpoint that is no longer trusted was resumed", version)
		}
	}
}

func TestEachEndpointHasItsOwnSessions(t *testing.T) {
	g := newStage(t)
	other := g.store.Use("other", "billing")
	g.give(t, other)
	configs := map[*tls.Config]string{}
	for _, one := range []struct {
		i                         *Identity
		address, peer, serverName string
	}{
		{g.web, "10.0.0.1:1", billing, ""}, {other, "10.0.0.1:1", billing, ""}, {g.web, "10.0.0.2:1", billing, ""},
		{g.web, "10.0.0.1:1", billing + "2", ""}, {g.web, "10.0.0.1:1", billing, "x"},
	} {
		c, err := one.i.Config(one.address, one.peer, one.serverName)
		if err != nil {
			t.Fatal(err)
		}
		if configs[c] != "" {
			t.Errorf("%v has the sessions of %s", one, configs[c])
		}
		configs[c] = fmt.Sprint(one)
		if again, _ := one.i.Config(one.address, one.peer, one.serverName); again != c {
			t.Errorf("%v: another configuration although nothing has changed", one)
		}
	}
	if c, err := g.web.Config("10.0.0.1:1", "billing", ""); err == nil {
		t.Errorf("got %v for what is no path", c)
	}
}

func TestSessionsAreBoundedInTimeAndNumber(t *testing.T) {
	g := newStage(t)
	c, now := g.web.current.Load(), time.Now()
	of := endpoint{"10.0.0.1:1", billing, ""}
	first, _ := c.config(of, now)
	for _, tt := range []struct {
		after time.Duration
		same  bool
	}{{sessionLife, true}, {sessionLife + 1, false}} {
		if next, _ := c.config(of, now.Add(tt.after)); (next == first) != tt.same {
			t.Errorf("after %v: the same configuration: %v", tt.after, next == first)
		}
	}
	for i := range maxPeers/minPeers + 1 {
		g.store.Use(fmt.Sprint(i), "x")
	}
	for i := range 10 * minPeers {
		if _, err := c.config(endpoint{fmt.Sprint(i), billing, ""}, now); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.all); n != minPeers {
		t.Errorf("sessions for %d endpoints, want %d", n, minPeers)
	}
}

func TestNotReadySaysWhatIsMissing(t *testing.T) {
	ca := testcert.NewAuthority(t, "ca")
	s := newStore(Options{}, silent{})
	web := s.Use("web", "billing")
	wants := func(want string) {
		t.Helper()
		c, err := web.Config("127.0.0.1:1", billing, "")
		if c != nil || !errors.Is(err, ErrNotReady) || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	wants(`no certificate for identity "web" yet`)
	web.failed(errors.New("no right"))
	wants(`no certificate for identity "web" yet: no right`)
	g := &stage{store: s, ca: ca, web: web}
	g.give(t, web)
	wants("no authorities of the mesh yet")
	authorities{s}.failed(errors.New("no answer"))
	wants("no authorities of the mesh yet: no answer")
	r, err := newRoots("other.consul", []savedRoot{{"1", "x", string(ca.PEM()), true}})
	if err != nil {
		t.Fatal(err)
	}
	(&rootsNews{s, r}).use(false)
	wants(`the certificate for identity "web" is of trust domain ` + domain +
		", and the authorities are of other.consul")
	g.trust(t, ca)
	if _, err := web.Config("127.0.0.1:1", billing, ""); err != nil {
		t.Error(err)
	}
	c := ca.Issue(t, testcert.Request{URIs: []string{idOf("web")}, To: time.Now().Add(-time.Second)})
	l, err := newLeaf("web", c.Cert, c.Key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	(&leafNews{web.identity, l}).use(false)
	if _, err = web.Config("127.0.0.1:1", billing, ""); !errors.Is(err, ErrNotReady) ||
		!strings.HasPrefix(err.Error(), `the certificate for identity "web" has expired at 20`) {
		t.Errorf("got %v", err)
	}
}

// When the trust domain changes, there is no time without a pair of certificate and authorities that fit each other.
func TestNewTrustDomainReplacesBothTogether(t *testing.T) {
	g := newStage(t)
	former, next := g.web.current.Load(), testcert.NewAuthority(t, "next")
	r, err := newRoots("next.consul", []savedRoot{{"1", "next", string(next.PEM()), true}})
	if err != nil {
		t.Fatal(err)
	}
	(&rootsNews{g.store, r}).use(false)
	if g.web.current.Load() != former {
		t.Error("the former pair is gone before there is another one")
	}
	c := next.Issue(t, testcert.Request{URIs: []string{"spiffe://next.consul/ns/default/dc/dc1/svc/web"}})
	l, err := newLeaf("web", c.Cert, c.Key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	(&leafNews{g.web.identity, l}).use(false)
	if now := g.web.current.Load(); now.roots.domain != "next.consul" || now.leaf.domain != "next.consul" {
		t.Errorf("got %q and %q", now.roots.domain, now.leaf.domain)
	}
}

func TestStateAndReports(t *testing.T) {
	var reports []string
	s := newStore(Options{Report: func(r Report) {
		reports = append(reports, strings.TrimSpace(fmt.Sprint(r.What, " ", r.Identity, r.Services)))
	}}, silent{})
	g := &stage{store: s, ca: testcert.NewAuthority(t, "ca"), web: s.Use("web", "b")}
	web2, api := s.Use("web", "a"), s.Use("api", "c")
	g.trust(t, g.ca)
	g.give(t, g.web)
	for range 3 {
		g.web.failed(errors.New("no"))
	}
	g.give(t, g.web)
	state := s.State()
	if state.TrustDomain != domain || len(state.Roots) != 1 || !state.Roots[0].Active || state.Err != nil {
		t.Errorf("got %+v", state)
	}
	if len(state.Identities) != 2 || state.Identities[0].Name != "api" || state.Identities[0].URI != "" {
		t.Fatalf("got %+v", state.Identities)
	}
	web := state.Identities[1]
	if web.URI != idOf("web") || web.Serial == "" || web.Received.IsZero() || web.Err != nil ||
		!reflect.DeepEqual(web.Services, []string{"a", "b"}) || time.Until(web.Expires) < time.Minute {
		t.Errorf("got %+v", web)
	}
	if web.Failures != 3 || web.Answered.IsZero() || state.Answered.IsZero() || state.Failures != 0 ||
		!state.Identities[0].Answered.IsZero() {
		t.Errorf("got %+v", state)
	}
	want := []string{"issued []", "issued web[a b]", "failed web[a b]", "issued web[a b]", "works web[a b]"}
	if !reflect.DeepEqual(reports, want) {
		t.Errorf("got %q, want %q", reports, want)
	}
	web2.Close()
	api.Close()
	api.Close()
	if all := s.State().Identities; len(all) != 1 || !reflect.DeepEqual(all[0].Services, []string{"b"}) {
		t.Errorf("got %+v", all)
	}
}

func TestExpiryIsReportedOnce(t *testing.T) {
	var reports []string
	s := newStore(Options{Report: func(r Report) {
		reports = append(reports, string(r.What)+" "+r.Identity)
	}}, silent{})
	g := &stage{store: s, ca: testcert.NewAuthority(t, "ca"), web: s.Use("web", "b")}
	g.trust(t, g.ca)
	g.give(t, g.web)
	reports = nil
	l := g.web.leaf
	life := l.to.Sub(l.from)
	for _, tt := range []struct {
		at   time.Time
		want string
	}{
		{l.to.Add(-life / 4), ""}, {l.to.Add(-life/4 + 1), "expiring web"}, {l.to.Add(-1), "expiring web"},
		{l.to, "expiring web, expired web"}, {l.to.Add(time.Second), "expiring web, expired web"},
	} {
		s.look(tt.at)
		if got := strings.Join(reports, ", "); got != tt.want {
			t.Errorf("%v before its end: got %q, want %q", l.to.Sub(tt.at), got, tt.want)
		}
	}
	g.give(t, g.web)
	s.look(time.Now())
	s.look(s.known.all[0].Expires.Add(-time.Minute))
	if got, want := strings.Join(reports[2:], ", "), "issued web, expired web, expiring "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExportGoesToAnotherStore(t *testing.T) {
	g := newStage(t)
	text := g.store.Export()
	next := newStore(Options{Saved: text}, silent{})
	web, other := next.Use("web", "billing"), next.Use("other", "x")
	address, shaken := serve(t, serverConfig(t, certificateOf(t, g.ca, "billing")))
	if _, err := connect(address, mustConfig(t, web, address)); err != nil {
		t.Fatal(err)
	}
	if got := (<-shaken).PeerCertificates[0].URIs[0].String(); got != idOf("web") {
		t.Errorf("the endpoint saw %q", got)
	}
	if _, err := other.Config(address, billing, ""); !errors.Is(err, ErrNotReady) {
		t.Errorf("got %v", err)
	}
	for _, broken := range []string{"", "{", "null", `{"trust_domain":"x","roots":[{"pem":"x"}]}`,
		strings.ReplaceAll(string(text), `"key":"`, `"key":"AAAA`)} {
		s := newStore(Options{Saved: []byte(broken)}, silent{})
		if _, err := s.Use("web", "x").Config(address, billing, ""); !errors.Is(err, ErrNotReady) {
			t.Errorf("%.30s: got %v", broken, err)
		}
	}
}
