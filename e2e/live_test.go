//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// validateLive runs validate -live on a configuration.
func validateLive(t *testing.T, config string, flags ...string) (code int, output string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "lictor.hcl"), []byte(config), 0o600))
	return lictorCommand(t, dir, append([]string{"validate", "-live", "lictor.hcl"}, flags...)...)
}

func wantTexts(t *testing.T, output string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(output, text) {
			t.Errorf("nothing of %q in:\n%s", text, output)
		}
	}
}

func TestValidateLiveSaysWhatWouldServe(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	a, b := startEcho(t, "a"), startEcho(t, "b")
	c.register(t, "web", "a", a.addr)
	c.register(t, "web", "b", b.addr, checked)
	c.setHealth(t, "b", api.HealthCritical)
	config := consulBlock(c) + service("web") + service("nobody") +
		fmt.Sprintf("service \"taken\" {\n  listen = %q\n  consul { service = \"web\" }\n}\n", a.addr)
	code, output := validateLive(t, config)
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantTexts(t, output, "web: 1 of 2 instances", "in   test/a  "+a.addr.String(), "out  test/b  status: check",
		"is critical: as the test wants it",
		"No instances", `Service "nobody"`, "Address in use", `Service "taken"`, "ok: 3 services")

	code, output = validateLive(t, consulBlock(c)+service("web", "consul { filter = \"Nope == 1\" }")+service("far",
		`consul { datacenter = "dc9" }`))
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	wantTexts(t, output, "Query refused by Consul", "lictor.hcl:6:", "Not answered by Consul", "No path to datacenter")
	c.Kill()
	code, output = validateLive(t, consulBlock(c)+service("web"))
	if code != 1 {
		t.Errorf("without consul: exit code %d, want 1", code)
	}
	wantTexts(t, output, "connection refused")
}

func TestValidateLiveSaysWhichRightIsMissing(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{ACL: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	policy, _, err := c.api.ACL().PolicyCreate(&api.ACLPolicy{Name: "services",
		Rules: `service_prefix "" { policy = "read" }`}, nil)
	must(t, err)
	token, _, err := c.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	must(t, err)
	code, output := validateLive(t, fmt.Sprintf("consul {\n  address = %q\n  token = %q\n}\n", c.HTTP,
		token.SecretID)+service("web"))
	if code != 1 || strings.Contains(output, token.SecretID) {
		t.Errorf("exit code %d, want 1 and no token in:\n%s", code, output)
	}
	wantTexts(t, output, "it lacks node:read")
}
