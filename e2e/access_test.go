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

const wrongToken = "00000000-1111-2222-3333-444444444444"

// newToken makes a token that permits reading of all services and nodes, and nothing else.
func (c *consul) newToken(t testing.TB) *api.ACLToken {
	t.Helper()
	policy, _, err := c.api.ACL().PolicyReadByName(readOnly, nil)
	if err != nil || policy == nil {
		policy, _, err = c.api.ACL().PolicyCreate(&api.ACLPolicy{
			Name:  readOnly,
			Rules: `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`,
		}, nil)
		must(t, err)
	}
	token, _, err := c.api.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	must(t, err)
	return token
}

const readOnly = "read-only"

func tokenFile(t testing.TB, token string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	writeToken(t, file, token)
	return file
}

func writeToken(t testing.TB, file, token string) {
	t.Helper()
	// Secret agents and editors replace a file in this way.
	must(t, os.WriteFile(file+".new", []byte(token+"\n"), 0o600))
	must(t, os.Rename(file+".new", file))
}

func TestTokenFromAFile(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{ACL: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	file := tokenFile(t, c.newToken(t).SecretID)
	l := runLictor(t, fmt.Sprintf("consul {\n  address = %q\n  token_file = %q\n}\n", c.HTTP, file)+service("web"))
	web := l.addr(t, "web")
	wantCounts(t, web, map[string]int{"a": 5})
	c.register(t, "web", "b", startEcho(t, "b").addr)
	awaitRotation(t, web, "a", "b")
}

func TestWrongTokenIsLoggedAndTheRightOneTakesEffect(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{ACL: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	file := tokenFile(t, wrongToken)
	l := startLictor(t, fmt.Sprintf("consul {\n  address = %q\n  token_file = %q\n}\n", c.HTTP, file)+service("web"))
	l.awaitLog(t, 0, complaint("token", "ACL"))
	l.wantSecret(t, wrongToken)

	writeToken(t, file, c.newToken(t).SecretID)
	awaitRotation(t, l.addr(t, "web"), "a")
	l.awaitReady(t)
}

func TestTokenThatGoesBadKeepsTheLastSet(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{ACL: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	c.register(t, "web", "b", startEcho(t, "b").addr)
	token := c.newToken(t)
	file := tokenFile(t, token.SecretID)
	l := runLictor(t, fmt.Sprintf("consul {\n  address = %q\n  token_file = %q\n}\n", c.HTTP, file)+service("web"))
	web := l.addr(t, "web")
	wantCounts(t, web, map[string]int{"a": 5, "b": 5})

	_, err := c.api.ACL().TokenDelete(token.AccessorID, nil)
	must(t, err)
	// The current query still has the permission of the deleted token. A change ends that query.
	c.register(t, "web", "c", startEcho(t, "c").addr)
	l.awaitLog(t, 0, complaint("token", "ACL"))
	l.wantSecret(t, token.SecretID)
	counts := count(t, web, 30)
	if counts["a"] < 10 || counts["b"] < 10 {
		t.Errorf("the last set was not kept: %v", counts)
	}

	writeToken(t, file, c.newToken(t).SecretID)
	awaitRotation(t, web, "a", "b", "c")
}

// While Lictor runs, the file gets a wrong token, and later the right one again.
func TestWrongTokenInTheFileKeepsTheLastSet(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{ACL: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	token := c.newToken(t)
	file := tokenFile(t, token.SecretID)
	l := runLictor(t, fmt.Sprintf("consul {\n  address = %q\n  token_file = %q\n}\n", c.HTTP, file)+service("web"))
	web := l.addr(t, "web")
	wantCounts(t, web, map[string]int{"a": 5})

	writeToken(t, file, wrongToken)
	// A change ends the query that still has the good token. The next query reads the file again.
	c.register(t, "web", "b", startEcho(t, "b").addr)
	l.awaitLog(t, 0, complaint("token", "ACL"))
	l.wantSecret(t, wrongToken)
	if counts := count(t, web, 30); counts["a"] < 15 {
		t.Errorf("the last set was not kept: %v", counts)
	}

	writeToken(t, file, token.SecretID)
	l.awaitLog(t, 0, func(e entry) bool { return strings.Contains(e.field("@message"), "permits access again") })
	awaitRotation(t, web, "a", "b")
}

// wantSecret fails the test if Lictor has printed the token.
func (l *lictor) wantSecret(t *testing.T, token string) {
	t.Helper()
	if strings.Contains(l.stdout.String()+l.stderr.String(), token) {
		t.Error("a token is in the log")
	}
}

func TestConsulOverTLSWithAPrivateCA(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{TLS: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	for _, tt := range []struct{ name, tls string }{
		{"by address", fmt.Sprintf("ca_file = %q", c.CAFile)},
		{"by server name", fmt.Sprintf("ca_file = %q\nserver_name = %q", c.CAFile, testconsul.ServerName)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := runLictor(t, fmt.Sprintf("consul {\naddress = %q\ntls {\n%s\n}\n}\n", "https://"+c.HTTPS,
				tt.tls)+service("web"))
			awaitRotation(t, l.addr(t, "web"), "a")
			id := "b " + tt.name
			c.register(t, "web", id, startEcho(t, id).addr)
			awaitRotation(t, l.addr(t, "web"), "a", id)
			c.deregister(t, id)
		})
	}
}

func TestConsulWithACertificateOfAnotherCAIsLogged(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{TLS: true})
	other := startConsul(t, testconsul.Options{TLS: true})
	l := startLictor(t, fmt.Sprintf("consul {\naddress = %q\ntls {\nca_file = %q\n}\n}\n", "https://"+c.HTTPS,
		other.CAFile)+service("web"))
	l.awaitLog(t, 0, complaint("certificate", "x509"))
	if !l.Running() {
		t.Error("lictor has ended")
	}
}

func TestConsulOverAUnixSocket(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{Unix: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := runLictor(t, fmt.Sprintf("consul { address = %q }\n", "unix://"+c.Socket)+service("web"))
	web := l.addr(t, "web")
	awaitRotation(t, web, "a")
	c.register(t, "web", "b", startEcho(t, "b").addr)
	awaitRotation(t, web, "a", "b")

	// A killed agent leaves the file of its socket behind. The next agent replaces it.
	c.Kill()
	wantCounts(t, web, map[string]int{"a": 5, "b": 5})
	must(t, c.Restart(t.Context()))
	for _, name := range []string{"c", "d"} { // as many as are held, so that the holds of a and b end
		c.register(t, "web", name, startEcho(t, name).addr)
	}
	awaitRotation(t, web, "c", "d")
}

func TestConsulFromTheEnvironment(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{ACL: true})
	c.register(t, "web", "a", startEcho(t, "a").addr)
	l := startLictor(t, service("web"), "env", "CONSUL_HTTP_ADDR="+c.HTTP, "CONSUL_HTTP_TOKEN="+c.newToken(t).SecretID)
	l.awaitReady(t)
	awaitRotation(t, l.addr(t, "web"), "a")
}
