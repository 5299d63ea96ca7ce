package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// An ownAgent is an agent that accepts every registration and records all requests.
type ownAgent struct {
	mu       sync.Mutex
	requests []string // "METHOD /path token"
	status   int      // status of all answers
}

func (a *ownAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Consul-Token"))
	w.WriteHeader(a.status)
}

// answer sets the status of all later answers, and returns the requests so far.
func (a *ownAgent) answer(status int) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status = status
	requests := a.requests
	a.requests = nil
	return requests
}

// tokens returns the tokens of the requests.
func tokens(requests []string) (all []string) {
	for _, r := range requests {
		all = append(all, r[strings.LastIndex(r, " ")+1:])
	}
	return slices.Compact(all)
}

// newOwn returns a registration with a TTL check that does not run.
func newOwn(t *testing.T, cfg config.Consul, log hclog.Logger) *registration {
	t.Helper()
	o := clientOptions(cfg)
	o.Logger = log
	client, err := consul.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	return newRegistration(cfg, client, "", "v1", log, func() bool { return true })
}

// stranger returns the PEM certificate of an authority that has signed nothing.
func stranger(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func writeOwn(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRegistrationReadsCertificatesAgain(t *testing.T) {
	agent := &ownAgent{status: http.StatusOK}
	server := httptest.NewTLSServer(agent)
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca")
	writeOwn(t, ca, stranger(t))
	cfg := config.Consul{Address: config.Addresses(server.URL), TLS: config.TLS{CAFile: ca}}
	r := newOwn(t, cfg, hclog.NewNullLogger())
	if err := r.beat(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("registered with an agent of an unknown authority: %v", err)
	}
	writeOwn(t, ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	if err := r.beat(t.Context()); err != nil {
		t.Errorf("not registered after the authority was replaced: %v", err)
	}
}

func TestRegistrationKeepsTheLastTokenThatCouldBeRead(t *testing.T) {
	agent := &ownAgent{status: http.StatusOK}
	server := httptest.NewServer(agent)
	defer server.Close()
	var log testproc.Log
	file := filepath.Join(t.TempDir(), "token")
	cfg := config.Consul{Address: config.Addresses(server.URL), TokenFile: file}
	_, err := consul.New(clientOptions(cfg))
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a token file that never could be read: %v", err)
	}
	want := func(token string) {
		t.Helper()
		if got := tokens(agent.answer(http.StatusOK)); len(got) != 1 || got[0] != token {
			t.Errorf("tokens %q, want %q only", got, token)
		}
	}
	writeOwn(t, file, []byte("one\n"))
	r := newOwn(t, cfg, hclog.New(&hclog.LoggerOptions{Output: &log}))
	for _, step := range []struct {
		name, token string
		change      func()
	}{
		{"first", "one", func() {}},
		{"removed", "one", func() { _ = os.Remove(file) }},
		{"empty", "one", func() { writeOwn(t, file, nil) }},
		{"replaced", "two", func() { writeOwn(t, file, []byte("two")) }},
	} {
		step.change()
		if err := r.beat(t.Context()); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		want(step.token)
	}
	if text := log.String(); strings.Count(text, "the last token stays in use") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

// The environment is used only where the configuration allows it, and never overrides the configuration.
func TestEnvironmentDoesNotOverrideTheRegistration(t *testing.T) {
	agent := &ownAgent{status: http.StatusOK}
	server := httptest.NewTLSServer(agent)
	defer server.Close()
	plain := httptest.NewServer(agent)
	defer plain.Close()
	ca := filepath.Join(t.TempDir(), "ca")
	writeOwn(t, ca, stranger(t))
	for name, value := range map[string]string{
		"CONSUL_HTTP_SSL": "true", "CONSUL_HTTP_SSL_VERIFY": "false", "CONSUL_HTTP_TOKEN": "environment",
		"CONSUL_NAMESPACE": "environment", "CONSUL_HTTP_AUTH": "environment:environment",
	} {
		t.Setenv(name, value)
	}
	cfg := config.Consul{Address: config.Addresses(server.URL), TLS: config.TLS{CAFile: ca}}
	r := newOwn(t, cfg, hclog.NewNullLogger())
	if err := r.beat(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the agent's certificate was not verified: %v", err)
	}
	if got := agent.answer(http.StatusOK); len(got) != 0 {
		t.Errorf("an agent of an unknown authority was asked %q", got)
	}
	r = newOwn(t, config.Consul{Address: config.Addresses(plain.URL)}, hclog.NewNullLogger())
	if err := r.beat(t.Context()); err != nil {
		t.Error(err)
	}
	if got := tokens(agent.answer(http.StatusOK)); len(got) != 1 || got[0] != "" {
		t.Errorf("tokens %q, want none", got)
	}
}

// If the agent does not know the check any more, Lictor registers again.
func TestRegistrationComesBack(t *testing.T) {
	const (
		register = "PUT /v1/agent/service/register "
		leave    = "PUT /v1/agent/service/maintenance/lictor "
		update   = "PUT /v1/agent/check/update/lictor:ready "
		find     = "GET /v1/agent/service/lictor "
	)
	for _, tt := range []struct {
		admin         string
		first, second []string
	}{
		{"", []string{register, leave, update}, []string{update, register}},
		{"127.0.0.1:8510", []string{register, leave}, []string{find, register}},
	} {
		agent := &ownAgent{status: http.StatusOK}
		server := httptest.NewServer(agent)
		defer server.Close()
		r := newOwn(t, config.Consul{Address: config.Addresses(server.URL)}, hclog.NewNullLogger())
		r.admin, r.readyAt = tt.admin, readyURL(config.Addresses(server.URL), tt.admin)
		if err := r.beat(t.Context()); err != nil {
			t.Error(err)
		}
		if got := agent.answer(http.StatusOK); !slices.Equal(got, tt.first) {
			t.Errorf("admin %q: first asked %q, want %q", tt.admin, got, tt.first)
		}
		for _, status := range []int{http.StatusNotFound, http.StatusInternalServerError} {
			agent.answer(status)
			if err := r.beat(t.Context()); err == nil {
				t.Errorf("admin %q: registered by an agent that answers %d", tt.admin, status)
			}
			if got := agent.answer(status); !slices.Equal(got, tt.second) {
				t.Errorf("admin %q, status %d: asked %q, want %q", tt.admin, status, got, tt.second)
			}
		}
	}
}

// A request without an answer ends, and is logged once.
func TestRegistrationIsLoggedOnceWhenItFails(t *testing.T) {
	var log testproc.Log
	r := newOwn(t, config.Consul{Address: "127.0.0.1:1"}, hclog.New(&hclog.LoggerOptions{Output: &log}))
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		r.note(ctx, r.beat(ctx))
		cancel()
	}
	r.note(t.Context(), nil)
	text := log.String()
	if strings.Count(text, "not registered in consul") != 1 || strings.Count(text, "registered in consul again") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

func TestReadyURL(t *testing.T) {
	for _, tt := range []struct{ consul, admin, want string }{
		{"127.0.0.1:8500", "127.0.0.1:8510", "http://127.0.0.1:8510/readyz"},
		{"https://localhost:8501", "0.0.0.0:8510", "http://127.0.0.1:8510/readyz"},
		{"unix:///run/consul.sock", "[::1]:8510", "http://[::1]:8510/readyz"},
		{"http://[::1]:8500", "10.0.0.5:8510", "http://10.0.0.5:8510/readyz"},
		{"consul.example.com:8500", "127.0.0.1:8510", ""}, // the API's 127.0.0.1 is on another host
		{"consul.example.com:8500", "10.0.0.5:8510", "http://10.0.0.5:8510/readyz"},
		{"127.0.0.1:8500\n127.0.0.1:8501", "10.0.0.5:8510", ""}, // only one of them is asked to check at a time
		{"127.0.0.1:8500", "unix:///run/lictor/admin.sock", ""},
		{"127.0.0.1:8500", "", ""},
	} {
		if got := readyURL(config.Addresses(tt.consul), tt.admin); got != tt.want {
			t.Errorf("consul %s, admin %s: got %q, want %q", tt.consul, tt.admin, got, tt.want)
		}
	}
}
