package discovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestPortAndTaggedAddressOfAnInstance(t *testing.T) {
	const ports = `,"Port":80,"Ports":[{"Name":"http","Port":80,"Default":true},{"Name":"metrics","Port":9100}]`
	const tagged = `,"Port":80,"TaggedAddresses":{"lan":{"Address":"10.1.0.1","Port":0},
		"wan":{"Address":" 192.0.2.1 ","Port":8080},"empty":{"Address":"","Port":1},"bad":{"Address":"a b","Port":80}}`
	for _, tt := range []struct {
		what, port, address string
		service             string // JSON
		want                string // the endpoint's address, or a part of the reason why there is none
	}{
		{"default port", "", "", ports, "10.0.0.1:80"},
		{"named port", "metrics", "", ports, "10.0.0.1:9100"},
		{"default port by its name", "http", "", ports, "10.0.0.1:80"},
		{"no such port", "grpc", "", ports, `it has no port "grpc", but "http", "metrics"`},
		{"another case", "Metrics", "", ports, `it has no port "Metrics"`},
		{"no named ports", "metrics", "", `,"Port":80`, "it registers no ports by name"},
		{"a Unix socket", "metrics", "", `,"SocketPath":"/run/a"`, "it listens on a Unix socket"},
		{"a bad number", "x", "", `,"Port":80,"Ports":[{"Name":"x","Port":70000}]`, "port 70000"},
		{"own port", "", "wan", tagged, "192.0.2.1:8080"},
		{"no own port", "", "lan", tagged, "10.1.0.1:80"},
		{"the node's", "", "lan_ipv4", tagged, "10.9.9.1:80"},
		{"the node's in place of an empty one", "", "empty", tagged, "10.9.9.2:80"},
		{"neither has it", "", "other", tagged, "10.0.0.1:80"},
		{"a bad one", "", "bad", tagged, `address "a b" is neither`},
		{"none at all", "", "other", `,"Port":80`, "10.0.0.1:80"},
		{"no object", "", "wan", `,"Port":80,"TaggedAddresses":[1]`, "10.9.9.3:80"},
		{"named port at a tagged address", "metrics", "wan", ports + strings.TrimPrefix(tagged, `,"Port":80`),
			"192.0.2.1:9100"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			body := `[{"Node":{"Node":"n","Address":"10.9.9.9","TaggedAddresses":{"lan_ipv4":"10.9.9.1",
				"empty":"10.9.9.2","wan":"10.9.9.3"}},
				"Service":{"ID":"a","Address":"10.0.0.1"` + tt.service + `}}]`
			q := Query{Port: tt.port, Address: tt.address, SocketPaths: []string{"/run/*"}}.normalize("")
			for range 2 { // the second time, the entry is known
				f := newParser(q.fields())
				entries, err := f.parse([]byte(body))
				if err != nil {
					t.Fatal(err)
				}
				checkAddress(t, (&answer{entries: entries}).instances(&q), tt.want)
			}
		})
	}
}

// checkAddress checks the only instance of in: want is its address, or a part of why it is out.
func checkAddress(t *testing.T, in instances, want string) {
	t.Helper()
	if len(in.endpoints) == 1 {
		if got := in.endpoints[0].Address(); got != want || in.bad != nil {
			t.Errorf("got %s, %v, want %s", got, in.bad, want)
		}
		return
	}
	one := in.all[0]
	isPort := strings.HasPrefix(want, "it ")
	if isPort != (one.Out == OutPort) || !strings.Contains(one.Detail, want) ||
		in.bad["n/a"] != one.Detail || one.Detail == "" {
		t.Errorf("got %+v, bad %v, want %q", one, in.bad, want)
	}
}

func TestManyPortsAreListedBriefly(t *testing.T) {
	e := instance("a", "10.0.0.1", 80)
	for i := range 50 {
		e.Service.Ports = append(e.Service.Ports, entryPort{strings.Repeat("p", 1000) + fmt.Sprint(i), 80})
	}
	e.trim()
	_, err := endpointOf(e, "x")
	if err == nil || len(err.Error()) > 700 || !strings.HasSuffix(err.Error(), " and 42 more") {
		t.Errorf("got %v", err)
	}
}

// Services with other ports or addresses of the same instances follow changes, explain what is out, and are saved.
func TestRealConsulWithPortsAndTaggedAddresses(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	dir := t.TempDir()
	watches := []Watch{
		{Service: "lan", Query: Query{Service: "web", Address: "lan_ipv4"}},
		{Service: "metrics", Query: Query{Service: "web", Port: "metrics"}, Guard: Guard{Hold: -1}},
		{Service: "wan", Query: Query{Service: "web", Address: "wan"}},
		{Service: "web", Guard: Guard{Hold: -1}},
	}
	r := followNew(t, ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: watches})
	two := &api.AgentServiceRegistration{Name: "web", ID: "two", Address: "10.0.0.2",
		Ports: api.ServicePorts{{Name: "http", Port: 80, Default: true}, {Name: "metrics", Port: 9100}},
		TaggedAddresses: map[string]api.ServiceAddress{
			"wan": {Address: "192.0.2.2", Port: 8080}, "lan_ipv4": {Address: "10.1.1.2"}}}
	a.register(two)
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "one", Address: "10.0.0.1", Port: 81})
	await := func(want ...string) {
		t.Helper()
		var got []string
		defer func() {
			if t.Failed() {
				t.Logf("got %q", got)
			}
		}()
		testproc.Await(t, fmt.Sprintf("%q", want), func() bool {
			got = nil
			for _, w := range watches {
				x, _ := r.consul.Explain(w.Service)
				line := w.Service + ":"
				for _, one := range x.Tiers[0].Instances {
					line += " " + one.Address()
					if one.Out != "" {
						line += " " + string(one.Out)
					}
				}
				got = append(got, line)
			}
			return slices.Equal(got, want)
		})
	}
	// The registrations have no tagged address "wan" of their own, so the node's counts.
	await("lan: 10.0.0.1:81 10.1.1.2:80", "metrics: invalid AddrPort port 10.0.0.2:9100",
		"wan: 127.0.0.1:81 192.0.2.2:8080", "web: 10.0.0.1:81 10.0.0.2:80")
	r.log.wantOnce(t, "it registers no ports by name")
	two.Ports[1].Port, two.TaggedAddresses = 9200, nil
	a.register(two)
	await("lan: 10.0.0.1:81 10.0.0.2:80", "metrics: invalid AddrPort port 10.0.0.2:9200",
		"wan: 127.0.0.1:81 127.0.0.1:80", "web: 10.0.0.1:81 10.0.0.2:80")
	look, err := r.consul.Look(t.Context(), Query{Service: "web", Port: "metrics", Address: "wan"})
	if err != nil || len(look) != 2 || look[0].Out != OutPort || look[1].Address() != "127.0.0.1:9200" {
		t.Errorf("look: got %+v, %v", look, err)
	}
	r.stop() // saves the sets
	offline := followNew(t, ConsulOptions{Address: a.HTTP, StateDir: dir, Watches: watches})
	if got := fmt.Sprint(offline.consul.Saved()); !strings.Contains(got, ":9200") {
		t.Errorf("saved: got %s", got)
	}
}
