package mesh

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

const (
	domain  = "11111111-2222-3333-4444-555555555555.consul"
	billing = "/ns/default/dc/dc1/svc/billing"
)

// idOf returns the SPIFFE ID of a service in the trust domain of the tests.
func idOf(service string) string { return "spiffe://" + domain + "/ns/default/dc/dc1/svc/" + service }

// certificateOf returns a certificate that ca has signed for the identity of a service.
func certificateOf(t testing.TB, ca *testcert.Authority, service string) testcert.Certificate {
	t.Helper()
	return ca.Issue(t, testcert.Request{URIs: []string{idOf(service)}})
}

// A scriptedAgent answers as an agent of Consul does, with what a test says. Blocking questions work.
type scriptedAgent struct {
	server *httptest.Server
	issuer *testcert.Authority // if it is set, each identity gets a certificate

	mu      sync.Mutex
	changed chan struct{}
	said    map[string]said // by path
	asked   map[string]int  // questions by path
	highest uint64          // index of all questions
	open    int             // questions that wait for an answer
	most    int             // most of them at once
}

type said struct {
	status int // zero: 200
	body   string
	index  uint64
	hangs  bool
	policy string // the default policy of ACLs
}

func newScriptedAgent(t testing.TB) *scriptedAgent {
	a := &scriptedAgent{changed: make(chan struct{}), said: map[string]said{}, asked: map[string]int{}}
	a.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.begun(1)
		one, answers := a.await(t, r)
		a.begun(-1) // before the answer, because the next question may follow at once
		if !answers {
			return
		}
		w.Header().Set("X-Consul-Index", strconv.FormatUint(one.index, 10))
		w.Header().Set("X-Consul-Default-ACL-Policy", one.policy)
		if one.status != 0 {
			w.WriteHeader(one.status)
		}
		_, _ = w.Write([]byte(one.body))
	}))
	t.Cleanup(a.server.Close)
	return a
}

const (
	rootsPath, leafPath      = "/v1/agent/connect/ca/roots", "/v1/agent/connect/ca/leaf/"
	matchPath, authorizePath = "/v1/connect/intentions/match?", "/v1/agent/connect/authorize"
)

// await waits until there is an answer, and returns it. It returns false if the question is given up before.
func (a *scriptedAgent) await(t testing.TB, r *http.Request) (said, bool) {
	index, _ := strconv.ParseUint(r.FormValue("index"), 10, 64)
	wait, _ := time.ParseDuration(r.FormValue("wait"))
	over := time.After(wait)
	path := r.URL.Path
	if name := r.FormValue("name"); name != "" {
		path += "?" + name
	}
	a.mu.Lock()
	a.asked[path]++
	a.highest = max(a.highest, index)
	for {
		s, is := a.said[path]
		if name, found := strings.CutPrefix(path, leafPath); found && !is && a.issuer != nil {
			s = said{body: leafJSON(certificateOf(t, a.issuer, name)), index: 7}
			a.said[path] = s
		}
		if !s.hangs && (s.index != index || wait == 0 || s.status != 0) {
			a.mu.Unlock()
			return s, true
		}
		changed := a.changed
		a.mu.Unlock()
		select {
		case <-changed:
		case <-over:
			index = s.index + 1
		case <-r.Context().Done():
			return said{}, false
		}
		a.mu.Lock()
	}
}

// begun counts questions that have begun, or ended.
func (a *scriptedAgent) begun(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open += n
	a.most = max(a.most, a.open)
}

// say changes the answer for a path.
func (a *scriptedAgent) say(path string, s said) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said[path] = s
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *scriptedAgent) questions(path string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[path]
}

func (a *scriptedAgent) client(t testing.TB) *consul.Client {
	t.Helper()
	c, err := consul.New(consul.Options{Address: a.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// rootsJSON returns Consul's answer with these authorities. The first one is active.
func rootsJSON(of string, all ...*testcert.Authority) string {
	type root struct {
		ID, Name, RootCert string
		Active             bool
	}
	answer := struct {
		TrustDomain string
		Roots       []root
	}{TrustDomain: of, Roots: []root{}}
	for i, ca := range all {
		answer.Roots = append(answer.Roots, root{fmt.Sprint("id-", i), ca.Certificate.Subject.CommonName,
			string(ca.PEM()), i == 0})
	}
	text, _ := json.Marshal(answer) // it has only text
	return string(text)
}

func leafJSON(c testcert.Certificate) string {
	text, _ := json.Marshal(map[string]string{"CertPEM": string(c.Cert), "PrivateKeyPEM": string(c.Key)})
	return string(text)
}

// run runs s until the test ends.
func run(t testing.TB, s *Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// A stage is a Store with one identity, "web", and its certificate, without Consul.
type stage struct {
	store *Store
	ca    *testcert.Authority
	web   *Identity
}

func newStage(t testing.TB) *stage {
	t.Helper()
	g := &stage{ca: testcert.NewAuthority(t, "Consul CA 1")}
	g.store = newStore(Options{}, silent{})
	g.trust(t, g.ca)
	g.web = g.store.Use("web", "billing")
	g.give(t, g.web)
	return g
}

// trust makes these the authorities of the mesh.
func (g *stage) trust(t testing.TB, all ...*testcert.Authority) {
	t.Helper()
	var given []savedRoot
	for i, ca := range all {
		given = append(given, savedRoot{fmt.Sprint(i), ca.Certificate.Subject.CommonName, string(ca.PEM()), i == 0})
	}
	r, err := newRoots(domain, given)
	if err != nil {
		t.Fatal(err)
	}
	(&rootsNews{g.store, r}).use(false)
}

// give gives an identity a new certificate.
func (g *stage) give(t testing.TB, i *Identity) {
	t.Helper()
	c := certificateOf(t, g.ca, i.name)
	l, err := newLeaf(i.name, c.Cert, c.Key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	(&leafNews{i.identity, l}).use(false)
}

// silent is a source that never answers.
type silent struct{}

func (silent) multiplexes() bool { return true }

func (silent) askRoots(ctx context.Context, _ question) (roots, uint64, error) {
	<-ctx.Done()
	return roots{}, 0, ctx.Err()
}

func (silent) askLeaf(ctx context.Context, _ string, _ question) (leaf, uint64, error) {
	<-ctx.Done()
	return leaf{}, 0, ctx.Err()
}

func (silent) askIntentions(ctx context.Context, _ string, _ question, _ *rules) (*rules, uint64, error) {
	<-ctx.Done()
	return nil, 0, ctx.Err()
}

// serve returns the address of a TLS server that greets each client, and the states of its handshakes.
func serve(t testing.TB, c *tls.Config) (address string, shaken <-chan tls.ConnectionState) {
	t.Helper()
	states := make(chan tls.ConnectionState, 100)
	address = serveEach(t, func(c *tls.Conn) {
		if c.Handshake() == nil {
			states <- c.ConnectionState()
		}
	}, func() *tls.Config { return c })
	return address, states
}

// serveEach returns the address of a TLS server that greets each client after a call of shake, with the configuration
// that config returns for the client.
func serveEach(t testing.TB, shake func(*tls.Conn), config func() *tls.Config) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			plain, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				conn := tls.Server(plain, config())
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				shake(conn)
				if _, err := conn.Write([]byte("hello\n")); err == nil {
					_, _ = conn.Read(make([]byte, 1)) // until the client has left
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().String()
}

// serverConfig returns the configuration of an endpoint with this certificate.
func serverConfig(t testing.TB, c testcert.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.TLS(t)}, ClientAuth: tls.RequireAnyClientCert}
}

// connect shakes hands with the endpoint at address, and hears its greeting.
func connect(address string, c *tls.Config) (tls.ConnectionState, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", address, c)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = bufio.NewReader(conn).ReadString('\n')
	return conn.ConnectionState(), err
}

// mustConfig returns the configuration of i for billing at address.
func mustConfig(t testing.TB, i *Identity, address string) *tls.Config {
	t.Helper()
	c, err := i.Config(address, billing, "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// awaitReady waits until i has a certificate.
func awaitReady(t testing.TB, i *Identity) {
	t.Helper()
	testproc.Await(t, "a certificate for "+i.name, func() bool {
		_, err := i.Config("127.0.0.1:1", billing, "")
		return err == nil
	})
}
