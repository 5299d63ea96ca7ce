package config

import (
	"slices"
	"testing"
)

// Services share a listener if all of them but one have sni. Names are compared without case and dots at the end.
func TestServicesShareAListener(t *testing.T) {
	cfg := mustLoad(t, `
service "db" {
  listen = ["127.0.0.1:5432", "unix:///run/shared.sock mode=0660"]
  sni    = ["DB.example.com.", "*.db.example.com", "localhost", "xn--bcher-kva.example", "_a.example"]
  accept_proxy { from = ["10.0.0.7"] }
}
service "rest" {
  listen = 5432
  accept_proxy { from = ["10.0.0.7/32"] }
}
service "reports" {
  listen = ["unix:///run/shared.sock mode=0660", ":5432", 0]
  sni    = ["reports.example.com", "*.example.com"]
  accept_proxy { from = ["10.0.0.7"] }
}
service "udp" {
  listen   = [5432, 0]
  protocol = "udp"
}
`, nil)
	want := []string{"db.example.com", "*.db.example.com", "localhost", "xn--bcher-kva.example", "_a.example"}
	if got := cfg.Services[0].SNI; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := cfg.Listeners(); got != 5 {
		t.Errorf("got %d listeners, want the address, the path, a port of the kernel, and two of UDP", got)
	}
}
