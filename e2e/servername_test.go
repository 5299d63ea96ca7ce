//go:build unix

package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// named registers an instance with a name in its meta and in a tag.
func named(meta, tag string) func(*api.AgentServiceRegistration) {
	return func(r *api.AgentServiceRegistration) {
		if meta != "" {
			r.Meta = map[string]string{"tls_server_name": meta}
		}
		if tag != "" {
			r.Tags = []string{"first", "tls-name=" + tag}
		}
	}
}

// startNamed starts an instance whose certificate is only for name.
func (c *tlsCase) startNamed(t *testing.T, instance, name string) netip.AddrPort {
	t.Helper()
	return startTLSInstance(t, instance, c.ca.Issue(t, testcert.Request{Names: []string{name}}))
}

// Each instance must have the name that its meta or tag in Consul gives. An instance with another certificate, or
// without a name, gets no client, even if its certificate is good for its address.
func TestInstancesNameThemselves(t *testing.T) {
	t.Parallel()
	c, consul := newTLSCase(t), startConsul(t, testconsul.Options{})
	a, b := c.startNamed(t, "a", "a.test"), c.startNamed(t, "b", "b.test")
	consul.register(t, "web", "a", a, named("a.test", "a.test"))
	consul.register(t, "web", "b", b, named("b.test", "b.test"))
	consul.register(t, "web", "wrong", c.startNamed(t, "wrong", "wrong.test"), named("a.test", "a.test"))
	consul.register(t, "web", "unnamed", c.startNamed(t, "unnamed", "127.0.0.1"))
	consul.register(t, "lonely", "nameless", c.startNamed(t, "nameless", "127.0.0.1"))
	tls := func(more string) string {
		return fmt.Sprintf("endpoint_tls {\n ca_file = %q\n %s\n}", c.caFile, more)
	}
	l := runLictor(t, consulBlock(consul)+
		service("meta", `consul { service = "web" }`, tls(`server_name_meta = "tls_server_name"`))+
		service("tag", `consul { service = "web" }`, tls(`server_name_tag = "tls-name="`))+
		service("lonely", `consul { service = "lonely" }`, tls(`server_name_meta = "tls_server_name"`)))
	// Checks eject an address for all services of a Lictor, so those of this service need a Lictor of their own.
	checks := runLictor(t, consulBlock(consul)+
		service("checked", `consul { service = "web" }`, `check { interval = "100ms" }`,
			tls(`server_name_meta = "tls_server_name"`)))
	serving := map[string]*lictor{"meta": l, "tag": l, "checked": checks}
	for _, name := range []string{"meta", "tag", "checked"} {
		serving[name].awaitAnswer(t, "explain "+name, 0, "server name: a.test", "server name: b.test")
		for range 12 {
			if client := mustConnect(t, serving[name].addr(t, name)); client.name != "a" && client.name != "b" {
				t.Errorf("%s: served by %s", name, client.name)
			}
		}
	}
	for name, why := range map[string]string{"meta": `its meta has no "tls_server_name"`,
		"tag": `it has no tag that begins with "tls-name="`, "checked": `its meta has no "tls_server_name"`} {
		serving[name].awaitAnswer(t, "explain "+name, 0, "server name: none, "+why, "handshake")
		serving[name].awaitAnswer(t, "status -json "+name, 0, `"server_name": "a.test"`, `"no_server_name": `)
	}
	// Of a service with one instance, no line about another instance holds back the one that is wanted.
	l.awaitAnswer(t, "explain lonely", 0, "server name: none")
	if client, err := net.Dial("tcp", l.addr(t, "lonely").String()); err == nil {
		if n, err := client.Read(make([]byte, 1)); err == nil {
			t.Errorf("got %d bytes of an instance without a name", n)
		}
		_ = client.Close()
	}
	l.awaitLog(t, 0, func(e entry) bool {
		return strings.Contains(e.field("error"), `no valid server name in its meta "tls_server_name"`)
	})

	// A change of the name counts for new connections.
	consul.register(t, "web", "b", b, named("other.test", "b.test"))
	l.awaitAnswer(t, "explain meta", 0, "server name: other.test")
	for range 6 {
		if client := mustConnect(t, l.addr(t, "meta")); client.name != "a" {
			t.Errorf("served by %s", client.name)
		}
	}
	l.awaitAnswer(t, "events meta", 0, "server name other.test, was b.test")
}
