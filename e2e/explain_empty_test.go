//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A service without endpoints is explained in the same words by explain and by validate -live.
func TestExplainSaysWhyAServiceIsEmpty(t *testing.T) {
	anyEngine(t)
	c := startConsul(t, testconsul.Options{})
	c.register(t, "web", "a", startEcho(t, "a").addr, tags("v1"), meta("zone", "a"))
	c.register(t, "web", "b", startEcho(t, "b").addr, tags("v1", "blue"), meta("zone", "b"))
	config := consulBlock(c) + service("wbe") + service("web") +
		service("tagged", `consul {
    service = "web"
    tags    = ["v2"]
  }`) + service("filtered", `consul {
    service = "web"
    filter  = "Service.Meta.zone == c"
  }`)
	l := runLictor(t, config)
	want := map[string]string{
		"wbe":    `Consul knows no service of this name (consul service "wbe"). Did you mean "web"?`,
		"tagged": `Consul has 2 instances, but none has the tag "v2" (consul service "web").`,
		"filtered": `Consul has 2 instances, but none matches the filter "Service.Meta.zone == c" ` +
			`(consul service "web").`,
	}
	_, output := validateLive(t, config)
	output = strings.Join(strings.Fields(output), " ") // it is wrapped
	for name, text := range want {
		l.awaitAnswer(t, "explain "+name, 1, "\nNo instances: "+text+"\n")
		if whole := fmt.Sprintf("Service %q: %s", name, text); !strings.Contains(output, whole) {
			t.Errorf("validate -live does not say %q:\n%s", whole, output)
		}
	}
	l.awaitAnswer(t, "explain -json wbe", 1, `"problems": [`, "Consul knows no service of this name")
	if _, out := l.ask(t, "explain", "web"); strings.Contains(out, "No instances") {
		t.Errorf("a service with endpoints has a problem:\n%s", out)
	}
	c.Kill()
	l.awaitAnswer(t, "explain wbe", 1, "\nNot answered by Consul: ", "connection refused")
}

// A right that the token lacks is a reason, too.
func TestExplainSaysWhichRightIsMissing(t *testing.T) {
	anyEngine(t)
	c := startConsul(t, testconsul.Options{ACL: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	policy, _, err := c.api.ACL().PolicyCreate(&api.ACLPolicy{Name: "services",
		Rules: `service_prefix "" { policy = "read" }`}, nil)
	must(t, err)
	token, _, err := c.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	must(t, err)
	config := fmt.Sprintf("consul {\n  address = %q\n  token = %q\n}\n", c.HTTP, token.SecretID)
	l := startLictor(t, config+service("web"))
	l.awaitAnswer(t, "explain web", 1, "\nNot answered by Consul: ", "it lacks node:read")
	l.awaitAnswer(t, "events web", 0, "Consul denies access since ", "node:read")
}
