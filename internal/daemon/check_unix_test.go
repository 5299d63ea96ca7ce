//go:build unix

package daemon

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

// After a reload that adds tls to a check, instances are checked over HTTPS.
func TestReloadOfACheckToHTTPS(t *testing.T) {
	health := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer health.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: health.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	const check = "check {\n    http = \"/\"\n    port = %s\n    interval = \"50ms\"\n    %s\n  }"
	port, instance := health.URL[len("https://127.0.0.1:"):], instance(t, "a")
	over := func(tls string) string {
		return service("web", "127.0.0.1:0", instance, fmt.Sprintf(check, port, tls))
	}
	s := serveConfiguration(t, over(""), nil)
	defer s.stop()
	s.awaitLog("/: status 400")
	s.mustReload(over(fmt.Sprintf("tls { ca_file = %q }", ca)), "1 service changed")
	s.awaitLog("endpoint passes its check")
	reaches(t, s.address("web"), "a")
}
