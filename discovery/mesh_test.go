package discovery

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// meshEntry returns an entry of an answer for the mesh. The argument service is the JSON of the service's fields.
func meshEntry(id string, service string) string {
	return fmt.Sprintf(`{"Node":{"Node":"n","Address":"10.0.0.1","Datacenter":"dc1"},"Service":{"ID":%q,"Port":%d,%s}}`,
		id, 20000+int(id[0]), service)
}

// The ways into the mesh, as JSON of a service's fields.
const (
	aSidecar = `"Kind":"connect-proxy","Service":"web-proxy","Proxy":{"DestinationServiceName":"web"},"Connect":{}`
	aNative  = `"Service":"web","Proxy":{"Mode":""},"Connect":{"Native":true}`
	aGateway = `"Kind":"terminating-gateway","Service":"gw","Proxy":null,"Connect":null`
)

// named returns an endpoint as text, with its names in the mesh.
func named(e lb.Endpoint) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", e.ID, e.Identity, e.ServerName))
}

func TestWhoAnInstanceOfTheMeshIs(t *testing.T) {
	const web = "/ns/default/dc/dc1/svc/web"
	for _, tt := range []struct {
		what, service string
		want          string // the endpoint, or a part of why there is none
		sni           string
	}{
		{"a sidecar", aSidecar, "n/a " + web, ""},
		{"a native instance", aNative, "n/a " + web, ""},
		{"a gateway", aGateway, "n/a " + web + " web.default.dc1.internal.td.consul", ""},
		{"a gateway of a chain", aGateway, "n/a " + web + " v1.web.x", "v1.web.x"},
		{"a sidecar of a chain", aSidecar, "n/a " + web + " v1.web.x", "v1.web.x"},
		{"a sidecar with a name that TLS cannot ask for", aSidecar, "n/a " + web, "a b"},
		{"a gateway with a name that TLS cannot ask for", aGateway, `"a b" cannot be asked for by name`, "a b"},
		{"another partition", aSidecar + `,"Partition":"east","Namespace":"team"`,
			"n/a /ap/east/ns/team/dc/dc1/svc/web", ""},
		{"the default partition", aNative + `,"Partition":"default","Namespace":"default"`, "n/a " + web, ""},
		{"a namespace with a slash", aNative + `,"Namespace":"a/b"`, "not a valid one", ""},
		{"outside the mesh", `"Service":"web","Connect":{}`, `its kind is ""`, ""},
		{"another gateway", `"Kind":"mesh-gateway","Service":"web","Connect":{"Native":true}`, `"mesh-gateway"`, ""},
		{"a sidecar of another service", strings.Replace(aSidecar, `"web"`, `"db"`, 1),
			`leads to the service "db"`, ""},
		{"a sidecar in another case", strings.Replace(aSidecar, `"web"`, `"WEB"`, 1), `leads to the service "WEB"`, ""},
		{"nothing", `"Tags":null`, `its kind is ""`, ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			body := []byte("[null," + meshEntry("a", tt.service) + "]")
			q := Query{Service: "web", Mesh: true, sni: tt.sni}.normalize("")
			once := func(body []byte) ([]*entry, error) { return decode(body, &q, nil) }
			for name, parse := range map[string]func([]byte) ([]*entry, error){
				"once": once, "short": newParser(q.fields()).entriesIn, "long": newParser(q.fields()).parse,
			} {
				entries, err := parse(body)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				a := answer{entries: entries, domain: "td.consul"}
				in := a.instances(&q)
				var got string
				switch {
				case len(in.endpoints) > 0:
					if got = named(in.endpoints[0]); got != tt.want {
						t.Errorf("%s: got %q, want %q", name, got, tt.want)
					}
				default:
					if got = in.bad["n/a"]; !strings.Contains(got, tt.want) {
						t.Errorf("%s: left out because %q, want %q", name, got, tt.want)
					}
				}
			}
		})
	}
}

// Instances of another datacenter are reached at the address that is meant for that.
func TestWhereInstancesOfAnotherDatacenterAre(t *testing.T) {
	const node, usual = "10.0.0.1:80", "10.0.0.2:80"
	for _, tt := range []struct{ address, tagged, near, far string }{
		{"", `null`, node, "192.0.2.9:80"},
		{"10.0.0.2", `null`, usual, usual},
		{"10.0.0.2", `{"wan_ipv4":{"Address":"192.0.2.1"}}`, usual, usual},
		{"10.0.0.2", `{"lan":{"Address":"10.0.0.3","Port":1},"wan":{"Address":"192.0.2.1","Port":81}}`,
			usual, "192.0.2.1:81"},
		{"", `{"wan":{"Address":"192.0.2.1"}}`, node, "192.0.2.1:80"},
	} {
		body := fmt.Sprintf(`[{"Node":{"Node":"n","Address":"10.0.0.1","Datacenter":"dc2","TaggedAddresses":`+
			`{"wan":"192.0.2.9"}},"Service":{"ID":"a","Port":80,%s,"Address":%q,"TaggedAddresses":%s}}]`,
			aNative, tt.address, tt.tagged)
		w := Watch{Service: "web", Query: Query{Mesh: true}}
		for remote, want := range map[bool]string{false: tt.near, true: tt.far} {
			q := w.chained([]target{{service: "web", remote: remote}})[0].Query.normalize("")
			entries, err := decode([]byte(body), &q, newParser(q.fields()))
			if err != nil {
				t.Fatal(err)
			}
			a := answer{entries: entries}
			if in := a.instances(&q); len(in.endpoints) != 1 || in.endpoints[0].Address() != want {
				t.Errorf("%+v, remote %v: got %+v, want %s", tt, remote, in.endpoints, want)
			}
		}
	}
}

func TestMeshAnswerThatCannotBeRead(t *testing.T) {
	q := Query{Service: "web", Mesh: true}
	body := []byte("[" + meshEntry("a", `"Kind":7`) + "]")
	for name, f := range map[string]*parser{"once": nil, "kept": newParser(q.fields())} {
		if _, err := decode(body, &q, f); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := newParser(q.fields()).parse(body); err == nil {
		t.Error("long: no error")
	}
}

func TestIdentities(t *testing.T) {
	for path, want := range map[string]bool{
		"/ns/default/dc/dc1/svc/web":         true,
		"/ap/east/ns/team-1/dc/d_c/svc/w.b":  true,
		"":                                   false,
		"/":                                  false,
		"ns/default/dc/dc1/svc/web":          false,
		"/ns/default/dc/dc1/svc/":            false,
		"/ns/default/dc/dc1/svc/web/":        false,
		"/ns/default/dc/dc1/svc/a/b":         false,
		"/ns/default/dc/../svc/web":          false,
		"/ns/default/dc/dc1/svc/a%2fb":       false,
		"/ns/default/dc/dc1/svc/a b":         false,
		"/ap//ns/default/dc/dc1/svc/web":     false,
		"/xx/x/ns/default/dc/dc1/svc/web":    false,
		"/gateway/mesh/dc/dc1":               false,
		"/agent/client/dc/dc1/id/x/y":        false,
		"/ns/default/dc/dc1/svc/" + longName: false,
	} {
		if got := isIdentity(path); got != want {
			t.Errorf("%q: got %v", path, got)
		}
	}
}

var longName = strings.Repeat("a", maxID)

// domain answers the agent's question for its authorities with a trust domain.
func domain(req *http.Request) (*http.Response, error) {
	if req.URL.Path != "/v1/agent/connect/ca/roots" {
		return status(404, "")(req)
	}
	return response(200, nil, strings.NewReader(`{"TrustDomain":"td.consul"}`)), nil
}

// set returns the endpoints of the first tier of web, each as text.
func (r *rig) set() (all []string) {
	s, _ := r.consul.byService.Load("web")
	f := s.(*selector)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.sent {
		all = append(all, named(e))
	}
	return all
}

func (r *rig) wantSet(t *testing.T, want ...string) {
	t.Helper()
	if got := r.set(); !slices.Equal(got, want) {
		t.Errorf("the set is %q, want %q", got, want)
	}
}

// Two services, one of them in the mesh, have different endpoints of one service of Consul.
func TestQueriesForTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{ping: domain, script: map[string][]reply{
			"mesh:web": {raw("20", "["+meshEntry("a", aSidecar)+","+meshEntry("b", aGateway)+"]")},
			"web":      {ok(20, "p 80")},
		}}
		r := start(t, f, ConsulOptions{Watches: []Watch{
			{Service: "web", Query: Query{Mesh: true}}, {Service: "plain", Query: Query{Service: "web"}}}})
		time.Sleep(time.Second)
		r.wantSet(t, "n/a /ns/default/dc/dc1/svc/web",
			"n/b /ns/default/dc/dc1/svc/web web.default.dc1.internal.td.consul")
		if got := r.got(); !slices.Contains(got, "plain: n/p=10.0.0.1:80") {
			t.Errorf("got %q", got)
		}
		if got := r.status().Query.String(); got != "web in the mesh" {
			t.Errorf("the query is shown as %q", got)
		}
		r.stop()
	})
}

// Endpoints of the mesh are held like any others. Probes get their names, without which they cannot shake hands.
func TestEndpointsOfTheMeshAreHeldAndProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		well := "[" + meshEntry("a", aGateway) + "]"
		ill := raw("21", strings.Replace(well, `"Service":{`, `"Checks":[{"Status":"critical"}],"Service":{`, 1))
		p := &fakeProber{}
		f := &fake{ping: domain, script: map[string][]reply{"mesh:web": {raw("20", well), ill, ill, hang, ill}}}
		r := start(t, f, ConsulOptions{Prober: p,
			Watches: []Watch{{Service: "web", Query: Query{Mesh: true}}}})
		time.Sleep(30 * time.Second)
		const want = "n/a /ns/default/dc/dc1/svc/web web.default.dc1.internal.td.consul"
		r.wantSet(t, want)
		p.mu.Lock()
		last := p.last
		p.mu.Unlock()
		if got := named(last); got != want {
			t.Errorf("probed %q, want %q", got, want)
		}
		p.kill("n/a")
		time.Sleep(5 * time.Second)
		r.wantSet(t)
		r.stop()
	})
}

// While the agent does not name the trust domain, an answer with a gateway changes nothing.
func TestGatewayWithoutATrustDomain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := raw("21", "["+meshEntry("a", aSidecar)+","+meshEntry("b", aGateway)+"]")
		f := &fake{ping: status(500, "rpc error"), script: map[string][]reply{
			"mesh:web": {raw("20", "["+meshEntry("a", aSidecar)+"]"), both, both, both, both, both, both, both}}}
		r := start(t, f, ConsulOptions{ProbeInterval: -1, Watches: []Watch{{Service: "web", Query: Query{Mesh: true}}}})
		time.Sleep(500 * time.Millisecond)
		r.wantSet(t, "n/a /ns/default/dc/dc1/svc/web")
		if s := r.status(); !strings.Contains(s.Error, "trust domain") {
			t.Errorf("the error is %q", s.Error)
		}
		f.mu.Lock()
		f.ping = domain
		f.mu.Unlock()
		time.Sleep(20 * time.Second)
		if n := len(r.set()); n != 2 {
			t.Errorf("%d endpoints, want 2: %+v", n, r.status())
		}
		r.stop()
	})
}

// A saved set without identities is not of the mesh, whatever its key says.
func TestSavedSetOfTheMeshNeedsIdentities(t *testing.T) {
	plain := someSaved()[0]
	mesh := Query{Mesh: true}
	if plain.fits(&mesh) || !plain.fits(&Query{}) {
		t.Error("a set without identities is used for the mesh, or not at all")
	}
	for i := range plain.endpoints {
		plain.endpoints[i].Identity = "/ns/default/dc/dc1/svc/web"
	}
	if !plain.fits(&mesh) {
		t.Error("a set with identities is not used")
	}
}
