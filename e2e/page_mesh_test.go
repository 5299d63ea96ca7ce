//go:build unix

package e2e

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// The page shows of a service that is served to the mesh who is connected, who was refused, and that it is permissive.
func TestPageShowsExposedServices(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	needTool(t, "chromium", "chromium-browser", "google-chrome")
	c := startConsul(t, testconsul.Options{})
	c.register(t, "billing", "billing", startEcho(t, "a").addr)
	block, at := meshAt(t, 1)
	base := adminBlock + consulBlock(c) + block + meshService("billing")
	l := runLictor(t, base+expose("billing", `intentions = "permissive"`))
	clients := map[string]*tls.Config{}
	for _, name := range []string{"web", "api"} {
		clients[name] = c.as(t, name, "billing")
		awaitServed(t, at, clients[name], "a")
	}
	for _, name := range []string{"api", "web", "web"} {
		mustDialMesh(t, at, clients[name])
	}
	p := openPage(t, l)
	billing := row("mesh:billing")
	p.shows(billing + ".querySelector('.badge:not([hidden])')?.innerText === 'permissive' && " +
		row("billing") + ".querySelector('.badge').hidden")
	p.script(billing + ".querySelector('button').click()")
	p.shows(billing + ".innerText.includes('Is served to the mesh as') && " + billing + ".innerText.includes('" +
		"Peers connect to') && " + billing + ".innerText.includes('" + at.String() + "')")
	served := billing + ".querySelector('.served').innerText"
	const line = "[...document.querySelectorAll('.clients li')].map(l => l.innerText.replace(/spiffe:.*svc/, ''))" +
		".join(', ')"
	p.shows(line + " === '2 connections from /web, 1 connection from /api'")

	c.configure(t, intentionsOf("billing", denies("web")))
	awaitRefused(t, at, clients["web"])
	p.shows(line + " === '1 connection from /api' && " + served +
		".includes('Cut off when intentions changed: 2 connections.') && " +
		served + ".match(/Refused because of their identity: [1-9]/) !== null")
	p.shows("document.querySelector('.kind.forbidden') !== null")
	p.shows("document.getElementById('reasons').innerText.includes('degraded: mesh:billing')")

	plain, err := net.Dial("tcp", at.String())
	must(t, err)
	defer plain.Close()
	must(t, speakPlain(plain))
	p.shows(served + ".includes('1 connection without a certificate, or in a handshake.')")
	l.mustReload(t, base+expose("billing"))
	p.shows(billing + ".querySelector('.badge').hidden")
	p.script(row("billing") + ".querySelector('button').click()")
	p.shows(row("billing") + ".querySelector('.served').hidden && " +
		row("billing") + ".innerText.includes('Dials in the mesh as')")
}
