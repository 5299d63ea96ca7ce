//go:build unix

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/mesh"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A meshStage is a keyring for services of the mesh.
type meshStage struct {
	t    *testing.T
	keys *keyring
}

// newMeshStage returns a keyring whose Stores run until the test ends, if they run at all.
func newMeshStage(t *testing.T, runs bool) *meshStage {
	g := &meshStage{t, newKeyring(hclog.NewNullLogger(), nil)}
	g.keys.mesh.log, g.keys.mesh.report = hclog.NewNullLogger(), func(mesh.Report) {}
	g.keys.mesh.client = new(Daemon).clientOf
	if !runs {
		return g
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	g.keys.mesh.run = func(f func(context.Context)) { running.Go(func() { f(ctx) }) }
	t.Cleanup(func() { cancel(); running.Wait() })
	return g
}

// apply puts services in force that enter the mesh as these identities. The services are called a, b, and so on.
func (g *meshStage) apply(consul config.Consul, as ...string) []proxy.Service {
	g.t.Helper()
	cfg := &config.Config{Consul: consul}
	for i, name := range as {
		s := config.Service{Name: string(rune('a' + i))}
		if name != "" {
			s.Mesh = &config.Mesh{As: name}
		}
		cfg.Services = append(cfg.Services, s)
	}
	keys, s, err := prepareKeys(g.keys, cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	services := proxyServices(cfg, keys)
	s.Commit()
	return services
}

// identities returns the identities in force, as text.
func (g *meshStage) identities() string {
	var all []string
	for _, i := range g.keys.mesh.state().Identities {
		all = append(all, i.Name+"="+strings.Join(i.Services, ","))
	}
	return strings.Join(all, " ")
}

// sidecarEndpoint is an endpoint in the mesh.
func sidecarEndpoint() lb.Endpoint {
	return lb.Endpoint{Addr: netip.MustParseAddrPort("127.0.0.1:9"), Identity: "/ns/default/dc/dc1/svc/billing",
		ServerName: "billing.default.dc1.internal.td"}
}

// The proxier compares the ends of a service by their pointers. A reload must not touch identities that stay.
func TestIdentitiesStayOverReloads(t *testing.T) {
	g := newMeshStage(t, false)
	here, there := config.Consul{Address: "127.0.0.1:1"}, config.Consul{Address: "127.0.0.1:2"}
	now := g.apply(here, "web", "web", "api", "")
	if got := g.identities(); got != "api=c web=a,b" {
		t.Errorf("got %s", got)
	}
	if now[3].EndpointTLS != nil || now[0].EndpointTLS == nil {
		t.Error("the wrong services speak TLS")
	}
	if !now[0].EndpointTLS.Denies || !g.keys.inForce["a"].probe().Denies {
		t.Error("a denial by an intention counts against the endpoint")
	}
	for _, tt := range []struct {
		name   string
		consul config.Consul
		as     []string
		kept   []bool
		want   string
	}{
		{"the same", here, []string{"web", "web", "api"}, []bool{true, true, true}, "api=c web=a,b"},
		{"another identity", here, []string{"web", "other", "api"}, []bool{true, false, true}, "api=c other=b web=a"},
		{"a service less", here, []string{"web", "other"}, []bool{true, true}, "other=b web=a"},
		{"not in the mesh", here, []string{"", "other"}, []bool{false, true}, "other=b"},
		{"another agent", there, []string{"", "other"}, []bool{true, false}, "other=b"},
		{"none", there, nil, nil, ""},
		{"again", there, []string{"web"}, []bool{false}, "web=a"},
	} {
		next := g.apply(tt.consul, tt.as...)
		for i := range next {
			if kept := next[i].EndpointTLS == now[i].EndpointTLS; kept != tt.kept[i] {
				t.Errorf("%s: the end of service %d is the same: %v", tt.name, i, kept)
			}
		}
		if got := g.identities(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		if len(next) > 0 {
			now = next
		} else {
			now = make([]proxy.Service, 1)
		}
	}
}

// A dial without a certificate says nothing about the endpoint. A dial of an endpoint without an identity does.
func TestDialsWithoutCertificateAreNotTheEndpointsFault(t *testing.T) {
	end := newMeshStage(t, false).apply(config.Consul{}, "web")[0].EndpointTLS
	_, err := end.Config(sidecarEndpoint())
	want := `not ready to dial: no certificate for identity "web" yet`
	if _, local := lb.CauseOf(err); !local || err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	if _, err = end.Config(lb.Endpoint{}); err == nil || errors.Is(err, lb.ErrNotReady) {
		t.Errorf("got %v", err)
	}
}

func TestReloadThatFailsChangesNoIdentity(t *testing.T) {
	g := newMeshStage(t, false)
	g.apply(config.Consul{}, "web")
	for _, agent := range []config.Addresses{"", "127.0.0.1:2"} {
		settings := config.Consul{Address: agent}
		_, s, err := prepareKeys(g.keys, &config.Config{Consul: settings, Services: []config.Service{
			{Name: "a", Mesh: &config.Mesh{As: "web"}}, {Name: "b", Mesh: &config.Mesh{As: "other"}}}})
		if err != nil {
			t.Fatal(err)
		}
		s.Abort()
		if got := g.identities(); got != "web=a" {
			t.Errorf("got %q", got)
		}
	}
}

func TestConsulSettingsThatCannotBeUsed(t *testing.T) {
	k := newMeshStage(t, false).keys
	_, _, err := prepareKeys(k, &config.Config{Consul: config.Consul{TokenFile: "/nonexistent/token"},
		Services: []config.Service{{Name: "a", Mesh: &config.Mesh{As: "web"}}}})
	if err == nil || !strings.HasPrefix(err.Error(), "service mesh: token file") {
		t.Errorf("got %v", err)
	}
}

// A wait for certificates ends, and names the services that have none.
func TestAwaitIdentities(t *testing.T) {
	g, log := newMeshStage(t, true), &testproc.Log{}
	g.apply(config.Consul{Address: "127.0.0.1:1"}, "web", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	awaitIdentities(ctx, g.keys.inForce, hclog.New(&hclog.LoggerOptions{Output: log}))
	if text := log.String(); !strings.Contains(text, "no certificate of the service mesh yet") ||
		!strings.Contains(text, "services=a") {
		t.Errorf("got %s", text)
	}
	idle := newMeshStage(t, false) // nobody asks for its certificates
	idle.apply(config.Consul{}, "web")
	awaitIdentities(t.Context(), idle.keys.inForce, nil)
}

// When another agent, or another process, is to give certificates, those in use stay in use until then.
func TestCertificatesGoToTheNextStore(t *testing.T) {
	a, err := testconsul.Start(t.Context(), testconsul.Options{Binary: testconsul.Need(t), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	g := newMeshStage(t, true)
	first := g.apply(config.Consul{Address: config.Addresses(a.HTTP)}, "web")[0].EndpointTLS
	testproc.Await(t, "a certificate", func() bool {
		awaitIdentities(t.Context(), g.keys.inForce, hclog.NewNullLogger())
		_, err := first.Config(sidecarEndpoint())
		return err == nil
	})
	c, err := first.Config(sidecarEndpoint())
	if err != nil || c.ServerName != sidecarEndpoint().ServerName {
		t.Errorf("got %v, %v", c, err)
	}
	serial := g.keys.mesh.state().Identities[0].Serial
	next := g.apply(config.Consul{Address: "127.0.0.1:1"}, "web", "other")
	if _, err := next[0].EndpointTLS.Config(sidecarEndpoint()); err != nil {
		t.Errorf("the certificate of the former agent is not in use any more: %v", err)
	}
	if _, err := next[1].EndpointTLS.Config(sidecarEndpoint()); !errors.Is(err, lb.ErrNotReady) {
		t.Errorf("got %v", err)
	}
	if got := g.keys.mesh.state().Identities[1].Serial; got != serial {
		t.Errorf("got serial number %s, want %s", got, serial)
	}
	successor := newMeshStage(t, false)
	successor.keys.mesh.saved = g.keys.mesh.export()
	if _, err := successor.apply(config.Consul{}, "web")[0].EndpointTLS.Config(sidecarEndpoint()); err != nil {
		t.Errorf("the successor has no certificate: %v", err)
	}
}

// While Consul is away, the successor of an upgrade still has the certificates. They are in no file.
func TestSuccessorGetsCertificatesInMemory(t *testing.T) {
	a, err := testconsul.Start(t.Context(), testconsul.Options{Binary: testconsul.Need(t), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Kill)
	state, socket := t.TempDir(), filepath.Join(t.TempDir(), "admin.sock")
	src := fmt.Sprintf("state_dir = %q\nadmin {\n  listen = \"unix://%s\"\n}\nconsul {\n  address = %q\n}\n",
		state, socket, a.HTTP)
	s := replaceable(t, src+"service \"billing\" {\n  listen = \"127.0.0.1:0\"\n  mesh {\n    as = \"web\"\n  }\n}\n")
	testproc.Await(t, "a certificate", func() bool { return s.meshState().Identities[0].Serial != "" })
	before := s.meshState()
	a.Kill()
	by, err := s.Upgrade(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	defer end(t, by.PID)
	answers(t, socket, by.PID)
	client := admin.NewClient(admin.Address{Socket: socket}, "", admin.Chosen)
	defer client.Close()
	var after admin.MeshAnswer
	if err := client.Get(t.Context(), "/v1/mesh", &after); err != nil {
		t.Fatal(err)
	}
	if after.TrustDomain != before.TrustDomain || len(after.Roots) != 1 || len(after.Identities) != 1 ||
		after.Identities[0].Serial != before.Identities[0].Serial || !after.Identities[0].Usable() {
		t.Errorf("got %+v, want %+v", after, before)
	}
	files, err := filepath.Glob(filepath.Join(state, "*"))
	if err != nil || len(files) == 0 {
		t.Errorf("got files %v, %v", files, err)
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), "PRIVATE") {
			t.Errorf("%s: %v, or it has a key", file, err)
		}
	}
}

func TestMeshTexts(t *testing.T) {
	at := time.Unix(0, 0)
	for _, tt := range []struct {
		report mesh.Report
		want   string
	}{
		{mesh.Report{What: mesh.Issued}, "new connections use new authorities of the service mesh"},
		{mesh.Report{What: mesh.Issued, Identity: "web", Expires: at},
			`the certificate of identity "web": new connections use a new one, which expires at 1970-01-01T00:00:00Z`},
		{mesh.Report{What: mesh.Works, Identity: "web"}, `the certificate of identity "web": Consul answers again`},
		{mesh.Report{What: mesh.Failed, Identity: "web", Err: errors.New("no right")},
			`the certificate of identity "web": Consul gives none: no right`},
		{mesh.Report{What: mesh.Failed, Identity: "web", Expires: at, Err: errors.New("no right")},
			`the certificate of identity "web": Consul gives no new one, the former one stays in use until ` +
				`1970-01-01T00:00:00Z: no right`},
		{mesh.Report{What: mesh.Expiring, Expires: at},
			"the authorities of the service mesh: expires soon, at 1970-01-01T00:00:00Z"},
		{mesh.Report{What: mesh.Expired, Identity: "web", Expires: at, Err: errors.New("no right")},
			`the certificate of identity "web": has expired at 1970-01-01T00:00:00Z: no right`},
	} {
		if got := meshText(tt.report); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
