package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// startAgent starts a real agent, which signs as many certificates as it is asked for.
func startAgent(t testing.TB, o testconsul.Options) *testconsul.Agent {
	t.Helper()
	o.Binary, o.Dir = testconsul.Need(t), t.TempDir()
	if o.HCL == "" {
		o.HCL = signs("0")
	}
	a, err := testconsul.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	return a
}

// signs configures how many certificates an agent signs in a second; 0: as many as it is asked for.
func signs(rate string) string {
	return "connect { ca_config { csr_max_per_second = " + rate + " } }\n"
}

func newRealStore(t testing.TB, o consul.Options, report func(Report)) *Store {
	t.Helper()
	client, err := consul.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	return NewStore(Options{Consul: client, Report: report})
}

// rotate gives a Consul another authority.
func rotate(t testing.TB, a *testconsul.Agent, bits int) {
	t.Helper()
	body := fmt.Sprintf(`{"Provider":"consul","Config":{"PrivateKeyType":"ec","PrivateKeyBits":%d,"LeafCertTTL":"1h",`+
		`"CSRMaxPerSecond":0,"RotationPeriod":"2160h","IntermediateCertTTL":"8760h"}}`, bits)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+a.HTTP+"/v1/connect/ca/configuration",
		bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Consul-Token", a.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", resp.StatusCode, text)
	}
}

// Two identities of a real Consul trust each other, while its authority is replaced and its agent is killed.
func TestRealRotationAndOutage(t *testing.T) {
	t.Parallel()
	a := startAgent(t, testconsul.Options{})
	s := newRealStore(t, consul.Options{Address: a.HTTP}, nil)
	web, server := s.Use("web", "billing"), s.Use("billing", "server")
	run(t, s)
	awaitReady(t, web)
	awaitReady(t, server)
	shake := func() error {
		c := serverConfig(t, certificateOf(t, newStage(t).ca, "unused"))
		c.Certificates, c.Certificates[0] = c.Certificates[:1], server.current.Load().leaf.pair
		address, _ := serve(t, c)
		_, err := connect(address, mustConfig(t, web, address))
		return err
	}
	if err := shake(); err != nil {
		t.Fatal(err)
	}
	state := s.State()
	if want := "spiffe://" + state.TrustDomain + "/ns/default/dc/dc1/svc/web"; state.Identities[1].URI != want ||
		!strings.HasSuffix(state.TrustDomain, ".consul") || len(state.Roots) != 1 || state.Err != nil {
		t.Errorf("got %+v, want %q", state, want)
	}
	rotate(t, a, 384)
	testproc.Await(t, "two authorities", func() bool {
		if err := shake(); err != nil { // at each moment
			t.Errorf("during the rotation: %v", err)
		}
		return len(s.State().Roots) == 2
	})
	a.Kill()
	testproc.Await(t, "the error", func() bool { return s.State().Err != nil })
	if err := shake(); err != nil {
		t.Errorf("without Consul: %v", err)
	}
	former := s.State().TrustDomain
	if err := a.Restart(t.Context()); err != nil { // with another trust domain: a dev agent forgets everything
		t.Fatal(err)
	}
	testproc.Await(t, "the new trust domain", func() bool {
		state := s.State()
		return state.TrustDomain != former && state.Err == nil &&
			web.current.Load().roots.domain == state.TrustDomain &&
			server.current.Load().roots.domain == state.TrustDomain
	})
	if err := shake(); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}

// Without the right service:write there is no certificate. When a right is taken away, the former certificate stays in
// use. When it is given again, the next certificate comes. An agent takes up to 30 s to ask for the next certificates
// when the authority changes.
func TestRealRights(t *testing.T) {
	t.Parallel()
	a := startAgent(t, testconsul.Options{ACL: true})
	c, err := a.Client()
	if err != nil {
		t.Fatal(err)
	}
	const mayWrite, mayNot = `service "web" { policy = "write" }`, `service "web" { policy = "read" }`
	policy, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: "web", Rules: mayWrite}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newRealStore(t, consul.Options{Address: a.HTTP, Token: token.SecretID}, nil)
	web, other := s.Use("web", "billing"), s.Use("other", "billing")
	run(t, s)
	awaitReady(t, web)
	testproc.Await(t, "the error of the other identity", func() bool { return s.State().Identities[0].Err != nil })
	_, err = other.Config("127.0.0.1:1", billing, "")
	if !errors.Is(err, ErrNotReady) || !strings.Contains(err.Error(), `no certificate for identity "other" yet: consul`+
		` answered 403: Permission denied`) {
		t.Errorf("got %v", err)
	}
	write := func(rules string) {
		t.Helper()
		changed := &api.ACLPolicy{ID: policy.ID, Name: "web", Rules: rules}
		if _, _, err := c.ACL().PolicyUpdate(changed, nil); err != nil {
			t.Fatal(err)
		}
	}
	write(mayNot)
	first := s.State().Identities[1].Serial
	rotate(t, a, 384)
	testproc.Await(t, "the error", func() bool { return s.State().Identities[1].Err != nil })
	if state := s.State(); state.Identities[1].Serial != first ||
		!strings.Contains(state.Identities[1].Err.Error(), "Permission denied") {
		t.Errorf("got %+v", state.Identities[1])
	}
	if _, err := web.Config("127.0.0.1:1", billing, ""); err != nil {
		t.Errorf("the former certificate is not in use any more: %v", err)
	}
	write(mayWrite)
	testproc.Await(t, "the next certificate", func() bool {
		i := s.State().Identities[1]
		return i.Err == nil && i.Serial != first
	})
	if n := len(web.current.Load().leaf.pair.Certificate); n != 2 {
		t.Errorf("a chain of %d certificates after the rotation, want 2", n)
	}
}

// An endpoint that uses Consul's Go SDK asks about intentions only during full handshakes. So sessions must be short.
func TestRealDenialAfterSessions(t *testing.T) {
	t.Parallel()
	a := startAgent(t, testconsul.Options{})
	s := newRealStore(t, consul.Options{Address: a.HTTP}, nil)
	web := s.Use("web", "billing")
	run(t, s)
	behind := greet(t)
	port, err := testproc.FreePort(func(port int) bool {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		return err == nil && l.Close() == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprint("127.0.0.1:", port)
	proxy, err := testproc.Start(exec.Command(testconsul.Need(t), "connect", "proxy", "-http-addr", a.HTTP, "-service",
		"billing", "-service-addr", behind, "-listen", address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Kill)
	awaitReady(t, web)
	c := mustConfig(t, web, address)
	testproc.Await(t, "the proxy", func() bool { _, err := connect(address, c); return err == nil })
	client, err := a.Client()
	if err != nil {
		t.Fatal(err)
	}
	deny := &api.Intention{SourceName: "web", DestinationName: "billing", Action: api.IntentionActionDeny}
	if _, err := client.Connect().IntentionUpsert(deny, nil); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "the end of full handshakes", func() bool {
		full := c.Clone()
		full.ClientSessionCache = nil
		_, err := connect(address, full)
		return err != nil
	})
	if state, err := connect(address, c); err != nil || !state.DidResume {
		t.Errorf("resumed %v, %v: if the proxy denies resumed sessions now, they may live longer", state.DidResume, err)
	}
	c, err = web.current.Load().config(endpoint{address, billing, ""}, time.Now().Add(sessionLife+time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connect(address, c); err == nil {
		t.Error("the intention denies nothing after the session's life")
	}
}

// greet returns the address of a server that greets each client.
func greet(t testing.TB) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("hello\n"))
			_ = conn.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l.Addr().String()
}

// An agent that speaks HTTP/2 gives each identity a blocking question of its own.
func TestRealHTTP2(t *testing.T) {
	t.Parallel()
	a := startAgent(t, testconsul.Options{TLS: true})
	s := newRealStore(t, consul.Options{Address: "https://" + a.HTTPS, TLS: consul.TLSOptions{CAFile: a.CAFile}}, nil)
	all := useMany(s, 40)
	run(t, s)
	for _, i := range all {
		awaitReady(t, i)
	}
	if !s.source.multiplexes() {
		t.Error("the agent does not speak HTTP/2")
	}
	rotate(t, a, 384)
	testproc.Await(t, "two authorities", func() bool {
		for _, i := range all {
			if len(i.current.Load().roots.all) != 2 {
				return false
			}
		}
		return true
	})
}

func useMany(s *Store, n int) (all []*Identity) {
	for i := range n {
		all = append(all, s.Use(fmt.Sprint("id-", i), fmt.Sprint("service-", i)))
	}
	return all
}

// An instantSource gives each identity the same certificate at once, and nothing after that.
type instantSource struct {
	silent
	roots roots
	made  testcert.Certificate
}

func (s *instantSource) askRoots(ctx context.Context, q question) (roots, uint64, error) {
	if q.index != 0 {
		return s.silent.askRoots(ctx, q)
	}
	return s.roots, 1, nil
}

func (s *instantSource) askLeaf(ctx context.Context, name string, q question) (leaf, uint64, error) {
	if q.index != 0 {
		return s.silent.askLeaf(ctx, name, q)
	}
	l, err := newLeaf("web", s.made.Cert, s.made.Key, time.Now())
	return l, 1, err
}

// BenchmarkIdentities measures how long 1,000 identities take to get their certificates, and what they cost: with a
// source that needs no time, and with a real agent. LICTOR_MESH_SIGNS is how many certificates Consul signs in a
// second: empty for no limit.
func BenchmarkIdentities(b *testing.B) {
	b.Run("no_agent", func(b *testing.B) {
		g := newStage(b)
		from := &instantSource{roots: *g.store.known, made: certificateOf(b, g.ca, "web")}
		for b.Loop() {
			measure(b, func() *Store { return newStore(Options{}, from) })
		}
	})
	for _, tt := range []struct{ name, scheme string }{{"http", "http"}, {"http2", "https"}} {
		b.Run(tt.name, func(b *testing.B) {
			o := testconsul.Options{TLS: true}
			if rate := os.Getenv("LICTOR_MESH_SIGNS"); rate != "" {
				o.HCL = signs(rate)
			}
			for b.Loop() {
				b.StopTimer()
				a := startAgent(b, o)
				address := a.HTTP
				if tt.scheme == "https" {
					address = "https://" + a.HTTPS
				}
				b.StartTimer()
				measure(b, func() *Store {
					return newRealStore(b, consul.Options{Address: address,
						TLS: consul.TLSOptions{CAFile: a.CAFile}}, nil)
				})
				b.StopTimer()
				a.Kill()
				b.StartTimer()
			}
		})
	}
}

// measure waits until 1,000 identities of a new Store are ready, and reports what they cost.
func measure(b *testing.B, newStore func() *Store) {
	b.StopTimer()
	s := newStore()
	before := liveMemory()
	b.StartTimer()
	all := useMany(s, 1000)
	run(b, s)
	for _, i := range all {
		<-i.Ready()
	}
	b.StopTimer()
	b.ReportMetric(float64(liveMemory()-before)/1000/1024, "KB/identity")
	b.StartTimer()
}

// liveMemory returns the bytes of the heap and the stacks that are in use.
func liveMemory() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
