package admin

import (
	"strings"
	"testing"
	"time"
)

// A service whose certificate needs attention is degraded, and says which file it is.
func TestCertificatesOfAService(t *testing.T) {
	h := serve(t, Options{}, "web")
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct{ state, failure, want string }{
		{CertificateFine, "", ""},
		{CertificateExpiring, "", "the certificate in /etc/a.pem expires at 2030-01-02T03:04:05Z"},
		{CertificateExpired, "", "the certificate in /etc/a.pem has expired at 2030-01-02T03:04:05Z"},
		{CertificateUnusable, "no PEM",
			"a changed certificate file cannot be used, its former content stays in use: no PEM"},
	} {
		s := Service{Name: "web", Set: SetFresh, Endpoints: []Endpoint{{State: StateIn, Reason: ReasonHealthy}},
			Certificates: []Certificate{{File: "/etc/a.pem", Expires: at, State: tt.state, Error: tt.failure}}}
		s.judge(&Balanced{})
		if tt.want == "" {
			if s.State != StateFine {
				t.Errorf("%s: got %s, %v", tt.state, s.State, s.Reasons)
			}
			continue
		}
		if s.State != StateDegraded || len(s.Reasons) != 1 || s.Reasons[0].Kind != KindCertificate ||
			s.Reasons[0].Text != tt.want {
			t.Errorf("%s: got %s, %v", tt.state, s.State, s.Reasons)
		}
	}
	h.fake.set(func(f *fake) {
		f.certificates = []Certificate{{File: "/etc/a.pem", Expires: time.Unix(1.8e9, 0), State: CertificateExpiring}}
	})
	_, text := h.ask("GET", "/metrics", "")
	for _, line := range []string{
		`lictor_certificate_expiry_timestamp_seconds{file="/etc/a.pem",service="web"} 1.8e+09`,
		`lictor_certificate_state{file="/etc/a.pem",service="web",state="expiring"} 1`,
		`lictor_certificate_state{file="/etc/a.pem",service="web",state="expired"} 0`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is missing in\n%s", line, text)
		}
	}
}
