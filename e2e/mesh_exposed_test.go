//go:build unix

package e2e

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A sidecar, a client with Consul's Go SDK, a client of this test and another Lictor reach a service that Lictor serves
// to the mesh.
func TestMeshServesItsPeers(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "billing", "billing", startEcho(t, "a").addr)
	block, at := meshAt(t, 1)
	l := runLictor(t, consulBlock(c)+block+expose("billing"))
	for id, s := range c.awaitSidecars(t, "billing", 1) {
		if got := addressOf(t, s); got != at || s.Service.Proxy.DestinationServiceID != "billing" {
			t.Errorf("%s is at %s, for %q, want %s", id, got, s.Service.Proxy.DestinationServiceID, at)
		}
	}
	web := c.as(t, "web", "billing")
	web.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, resumed := range []bool{false, true} {
		client := mustDialMesh(t, at, web)
		must(t, client.echo("hello"))
		if got := client.ConnectionState().DidResume; got != resumed {
			t.Errorf("a session was resumed: %v, want %v", got, resumed)
		}
	}
	l.awaitAnswer(t, "mesh status -json", 0, `"listen": "`+at.String()+`"`, `"identity": "`, "/svc/web")

	awaitRotation(t, c.startUpstream(t, "api", "billing"), "a")
	if got, err := c.askNative(t, "native", "billing"); got != "a" {
		t.Errorf("a client with Consul's SDK got %q, %v", got, err)
	}
	out := runLictor(t, consulBlock(c)+meshService("billing"))
	awaitRotation(t, out.addr(t, "billing"), "a")
	kept := mustConnect(t, out.addr(t, "billing"))
	kept.mustEcho(t, "hello")
	must(t, kept.CloseWrite())
	_ = kept.SetReadDeadline(time.Now().Add(patience))
	if rest, err := io.ReadAll(kept.reader); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v after the half-close", rest, err)
	}
}

// One Lictor is at both ends of a connection. The instance does not see the client's identity, but Lictor has
// verified it.
func TestMeshThroughBothEndsOfOneLictor(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	instance := startEcho(t, "a")
	c.register(t, "billing", "billing", instance.addr)
	block, _ := meshAt(t, 1)
	l := runLictor(t, consulBlock(c)+block+expose("billing")+meshService("billing"))
	billing := l.addr(t, "billing")
	awaitRotation(t, billing, "a")
	client := mustConnect(t, billing)
	client.mustEcho(t, "hello")
	l.awaitAnswer(t, "mesh status", 0, "/svc/web", "/svc/billing")

	c.configure(t, intentionsOf("billing", denies("web")))
	client.awaitReset(t)
	l.awaitDenial(t, billing)
	c.configure(t, intentionsOf("billing", allows("web")))
	awaitRotation(t, billing, "a")

	client = mustConnect(t, billing)
	instance.close()
	if _, err := client.reader.ReadByte(); err == nil {
		t.Error("a connection goes on without its instance")
	}
}

// Whoever has no certificate of the mesh, or another one, is refused. So is plain text. Others are served meanwhile.
func TestMeshRefusesStrangers(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "billing", "billing", startEcho(t, "a").addr)
	block, at := meshAt(t, 1)
	runLictor(t, consulBlock(c)+block+expose("billing"))
	web := c.as(t, "web", "billing")
	awaitServed(t, at, web, "a")

	roots, _, err := c.api.Agent().ConnectCARoots(nil)
	must(t, err)
	same := testcert.Request{URIs: []string{"spiffe://" + roots.TrustDomain + "/ns/default/dc/dc1/svc/web"}}
	for _, tt := range []struct {
		name  string
		certs []tls.Certificate
	}{
		{"no certificate", nil},
		{"another authority's", []tls.Certificate{testcert.NewAuthority(t, "other").Issue(t, same).TLS(t)}},
	} {
		config := web.Clone()
		config.Certificates = tt.certs
		if name, err := askMesh(t.Context(), at, config); err == nil {
			t.Errorf("%s: served by %q", tt.name, name)
		}
	}
	conn, err := net.Dial("tcp", at.String())
	must(t, err)
	defer conn.Close()
	_, _ = io.WriteString(conn, "hello in plain text\n")
	_ = conn.SetDeadline(time.Now().Add(patience))
	if rest, _ := io.ReadAll(conn); strings.Contains(string(rest), "a\n") {
		t.Errorf("plain text is answered: %q", rest)
	}
	if name, err := askMesh(t.Context(), at, web); name != "a" {
		t.Errorf("got %q, %v", name, err)
	}
}

// While a service is permissive, clients without TLS are served, too. Intentions bind those with a certificate. That it
// is permissive is said in the log and in the status, until a reload ends it.
func TestMeshPermissiveServesPlainText(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "billing", "billing", startEcho(t, "a").addr)
	block, at := meshAt(t, 1)
	base := consulBlock(c) + block
	l := runLictor(t, base+expose("billing", `intentions = "permissive"`))
	web, api := c.as(t, "web", "billing"), c.as(t, "api", "billing")
	awaitServed(t, at, web, "a")
	eventually(t, "plain text is served", func() error { return askPlain(t, at) })
	open, err := net.Dial("tcp", at.String())
	must(t, err)
	defer open.Close()
	must(t, speakPlain(open))
	l.awaitLog(t, 0, complaint("permissive"))
	l.awaitAnswer(t, "mesh status -json", 0, `"permissive": true`)

	c.configure(t, intentionsOf("billing", denies("web")))
	awaitRefused(t, at, web)
	_, overTLS := askMesh(t.Context(), at, api)
	for _, err := range []error{askPlain(t, at), overTLS} {
		if err != nil {
			t.Errorf("a client that no intention denies: %v", err)
		}
	}
	l.mustReload(t, base+expose("billing"))
	eventually(t, "plain text is refused", func() error {
		if err := askPlain(t, at); err == nil {
			return errors.New("it is served")
		}
		return nil
	})
	awaitServed(t, at, api, "a")
	if _, err := io.WriteString(open, "still there?\n"); err != nil {
		t.Errorf("a connection in plain text that was open: %v", err)
	}
	if got, err := bufio.NewReader(open).ReadString('\n'); got != "still there?\n" {
		t.Errorf("a connection in plain text that was open: got %q, %v", got, err)
	}
}

// askPlain connects without TLS, and returns an error unless the instance answers.
func askPlain(t testing.TB, at netip.AddrPort) error {
	t.Helper()
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	return speakPlain(conn)
}

// speakPlain speaks first, and returns an error unless the instance greets and answers.
func speakPlain(conn net.Conn) error {
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	const want = "a\nhello\n"
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		return fmt.Errorf("got %q, %w", got[:n], err)
	}
	return nil
}
