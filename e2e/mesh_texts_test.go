//go:build unix

package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// This file has what the commands say of services that Lictor serves to the mesh, word for word.

// variable are the parts of texts that differ from run to run, and the words that stand for them here.
var variable = []struct {
	part *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?`), "TIME"},
	{regexp.MustCompile(`\b\d+[smhd]\b`), "AGE"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.consul`), "TD"}, // the trust domain
	{regexp.MustCompile(`"seq":\d+`), `"seq":N`},
	{regexp.MustCompile(` {2,}`), "  "},
	{regexp.MustCompile(`(?m) +$`), ""},
}

// awaitText waits until a command prints a text and exits with a code. In the text, words stand for what is variable
// and for addresses. keep selects the lines to compare; nil selects all.
func (l *lictor) awaitText(
	t *testing.T, addresses map[string]netip.AddrPort, keep *regexp.Regexp, code int, want string, args ...string,
) {
	t.Helper()
	eventually(t, fmt.Sprintf("lictor %q", args), func() error {
		got, text := l.ask(t, args...)
		for word, at := range addresses {
			text = strings.ReplaceAll(text, at.String(), word)
		}
		for _, v := range variable {
			text = v.part.ReplaceAllString(text, v.word)
		}
		if keep != nil {
			text = strings.Join(slices.DeleteFunc(strings.SplitAfter(text, "\n"), func(line string) bool {
				return !keep.MatchString(line)
			}), "")
		}
		if got != code || text != want {
			return fmt.Errorf("exit code %d, want %d; got:\n%s\nwant:\n%s", got, code, text, want)
		}
		return nil
	})
}

const (
	meshHead = `trust domain TD
authority Consul CA Primary Cert, signs new certificates, expires in AGE

IDENTITY  STATE  LEFT  SPIFFE ID  SERVICES  NOTE
billing  fine  AGE  spiffe://TD/ns/default/dc/dc1/svc/billing  mesh:billing
web  fine  AGE  spiffe://TD/ns/default/dc/dc1/svc/web  billing

EXPOSED  STATE  LISTEN  LOCAL  ACTIVE  DENIED  NOTE
`
	exposedEvents = `TIME  exposed  mesh:billing  served to the mesh at AT, by LOCAL
TIME  forbidden  mesh:billing  spiffe://TD/ns/default/dc/dc1/svc/web may not use the service any more, ` +
		`and is cut off: intention "web" -> "billing" (precedence 9) denies
TIME  forbidden  mesh:billing  spiffe://TD/ns/default/dc/dc1/svc/web may not use the service: ` +
		`intention "web" -> "billing" (precedence 9) denies
TIME  exposed  mesh:billing  not served to the mesh any more
TIME  exposed  mesh:billing  not served to the mesh: no instance is registered at this agent
`
	exposedEventsJSON = `{"seq":N,"time":"TIME","kind":"exposed","service":"mesh:billing","endpoint":"billing",` +
		`"text":"served to the mesh at AT, by LOCAL"}
{"seq":N,"time":"TIME","kind":"forbidden","service":"mesh:billing","text":"spiffe://TD/ns/default/dc/dc1/svc/web ` +
		`may not use the service any more, and is cut off: ` +
		`intention \"web\" -\u003e \"billing\" (precedence 9) denies"}
{"seq":N,"time":"TIME","kind":"forbidden","service":"mesh:billing","text":"spiffe://TD/ns/default/dc/dc1/svc/web ` +
		`may not use the service: intention \"web\" -\u003e \"billing\" (precedence 9) denies"}
{"seq":N,"time":"TIME","kind":"exposed","service":"mesh:billing","endpoint":"billing",` +
		`"text":"not served to the mesh any more"}
{"seq":N,"time":"TIME","kind":"exposed","service":"mesh:billing",` +
		`"text":"not served to the mesh: no instance is registered at this agent"}
`
)

// accessOfWeb is what `lictor mesh explain` says of clients with the identity of web.
func accessOfWeb(verdict, because string) string {
	return "web -> billing  " + verdict + `
because  ` + because + `
according to  this Lictor, which exposes it
certificate of billing  fine
certificate of web  fine
dialled by  service billing at LISTEN: fine
  endpoint  test/billing-lictor-proxy at AT, must be /ns/default/dc/dc1/svc/billing: in
exposed here  fine
  instance  billing at AT
`
}

// The commands say which instances are served to the mesh, who is connected, who may not use them and by which
// intention, and that an instance is gone.
func TestMeshTextsOfExposedServices(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	instance := startEcho(t, "a")
	c.register(t, "billing", "billing", instance.addr)
	block, at := meshAt(t, 1)
	l := runLictor(t, consulBlock(c)+block+expose("billing")+meshService("billing"))
	c.awaitSidecars(t, "billing", 1)
	web := c.as(t, "web", "billing")
	awaitServed(t, at, web, "a")
	awaitRotation(t, l.addr(t, "billing"), "a")
	addresses := map[string]netip.AddrPort{"AT": at, "LOCAL": instance.addr, "LISTEN": l.addr(t, "billing")}
	live := mustDialMesh(t, at, web)

	l.awaitText(t, addresses, nil, 0, meshHead+
		"mesh:billing  fine  AT  LOCAL  1  0  most from spiffe://TD/ns/default/dc/dc1/svc/web\n", "mesh", "status")
	l.awaitText(t, addresses, nil, 0, accessOfWeb("allowed", "no intention is about it, and the default policy allows"),
		"mesh", "explain", "web", "->", "billing")

	c.configure(t, intentionsOf("billing", denies("web")))
	live.awaitReset(t)
	if name, err := askMesh(t.Context(), at, web); err == nil {
		t.Errorf("served by %q", name)
	}
	l.awaitText(t, addresses, nil, 0, meshHead+"mesh:billing  fine  AT  LOCAL  0  2\n", "mesh", "status")
	l.awaitText(t, addresses, nil, 4, accessOfWeb("denied", `intention "web" -> "billing" (precedence 9) denies`),
		"mesh", "explain", "web -> billing")

	must(t, c.api.Agent().ServiceDeregister("billing"))
	l.awaitText(t, addresses, nil, 1, meshHead+
		"billing  none  -  -  -  -  no instance is registered at this agent\n", "mesh", "status")
	about := regexp.MustCompile(`\b(exposed|forbidden)\b`)
	l.awaitText(t, addresses, about, 0, exposedEvents, "events")
	l.awaitText(t, addresses, about, 0, exposedEventsJSON, "events", "-json")
}
