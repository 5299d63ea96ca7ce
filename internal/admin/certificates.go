package admin

import (
	"fmt"
	"time"
)

// A Certificate is a file with certificates that a service uses for TLS.
type Certificate struct {
	File        string    `json:"file"`
	Authorities bool      `json:"authorities"` // the file has authorities, and not a certificate of Lictor
	Expires     time.Time `json:"expires"`
	State       string    `json:"state"` // one of the constants below
	Error       string    `json:"error,omitempty"`
}

// The states of a certificate.
const (
	CertificateFine     = "fine"
	CertificateExpiring = "expiring" // it has to be replaced soon
	CertificateUnusable = "unusable" // the file has changed and cannot be used; its former content is in use
	CertificateExpired  = "expired"  // it is not valid any more
)

// KindCertificate is the kind of a reason for a service in StateDegraded: a certificate needs attention.
const KindCertificate = "certificate"

// trouble says in words what is wrong with c. It is empty if c is fine.
func (c *Certificate) trouble() string {
	what, at := "certificate", c.Expires.UTC().Format(time.RFC3339)
	if c.Authorities {
		what = "last authority"
	}
	switch c.State {
	case CertificateExpiring:
		return fmt.Sprintf("the %s in %s expires at %s", what, c.File, at)
	case CertificateExpired:
		return fmt.Sprintf("the %s in %s has expired at %s", what, c.File, at)
	case CertificateUnusable:
		return "a changed certificate file cannot be used, its former content stays in use: " + c.Error
	}
	return ""
}

// certificates sends the metrics of the certificates of a service.
func (e *exposition) certificates(s *Service) {
	for i := range s.Certificates {
		c := &s.Certificates[i]
		e.gauge("lictor_certificate_expiry_timestamp_seconds",
			"When the certificates that are in use expire, by the file that they are from.",
			float64(c.Expires.Unix()), "service", s.Name, "file", c.File)
		for _, state := range []string{CertificateFine, CertificateExpiring, CertificateUnusable, CertificateExpired} {
			e.gauge("lictor_certificate_state",
				"Whether the certificates of a file are in this state, 0 or 1: fine, expiring, unusable or expired.",
				truth(c.State == state), "service", s.Name, "file", c.File, "state", state)
		}
	}
}
