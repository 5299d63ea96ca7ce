//go:build unix

package e2e

import (
	"testing"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A reload gives services identities of the mesh, and takes them away. The commands and the metrics show them.
func TestMeshStatus(t *testing.T) {
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	base := consulBlock(c) + service("plain", `static { endpoints = ["127.0.0.1:1"] }`)
	billing := service("billing", `mesh { as = "web" }`)
	l := runLictor(t, base)
	l.awaitAnswer(t, "mesh status", 0, "no service uses the mesh")
	l.mustReload(t, base+billing)
	l.awaitAnswer(t, "mesh status", 0, "trust domain ", ".consul", "authority ", ", signs new certificates, expires",
		"web       fine ", "/ns/default/dc/dc1/svc/web  billing")
	l.awaitAnswer(t, "mesh status -json web", 0, `"state": "fine"`, `"spiffe_id": "spiffe://`, `"services": [`)
	l.awaitAnswer(t, "explain billing", 1, `consul service "billing" in the mesh, as "web"`,
		"dials in the mesh as web (spiffe://", "fine, certificate expires in ")
	l.awaitAnswer(t, "status -json billing", 4, `"identity": {`)
	l.awaitMetrics(t, `lictor_mesh_identity_state{identity="web",state="fine"} 1`)
	l.mustReload(t, base+billing+service("orders", `mesh { as = "api" }`)+service("stock", `mesh { as = "web" }`))
	l.awaitAnswer(t, "mesh status", 0, "/svc/api  orders", "/svc/web  billing,stock")
	l.mustReload(t, base)
	l.awaitAnswer(t, "mesh status", 0, "no service uses the mesh")
}
