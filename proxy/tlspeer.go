package proxy

import (
	"crypto/tls"
	"strings"
)

// Bounds of what a client's certificate may add to a log line, in bytes. A client chooses much of its certificate.
const (
	maxSubject = 512
	maxNames   = 1024
)

// VersionNumber returns the version of TLS as the configuration has it, such as "1.3".
func (p *TLSPeer) VersionNumber() string {
	return strings.TrimPrefix(tls.VersionName(p.Version), "TLS ")
}

// maxIdentity is how long a SPIFFE ID may be, in bytes (SPIFFE-ID, section 2.4).
const maxIdentity = 2048

// Identity returns the SPIFFE ID in the client's certificate, such as "spiffe://a.test/ns/default/dc/dc1/svc/web".
// Identity is empty if there is no certificate, or if its URIs are not exactly one SPIFFE ID (X509-SVID, section 2).
func (p *TLSPeer) Identity() string {
	if p.Certificate == nil || len(p.Certificate.URIs) != 1 {
		return ""
	}
	u := p.Certificate.URIs[0]
	if u.Scheme != "spiffe" || u.Host == "" {
		return ""
	}
	if id := u.String(); len(id) <= maxIdentity {
		return id
	}
	return ""
}

// Subject returns the subject of the client's certificate, such as "CN=app,O=Example". If it is longer than 512 bytes,
// Subject cuts it and adds three dots. Subject is empty if there is no certificate.
func (p *TLSPeer) Subject() string {
	if p.Certificate == nil {
		return ""
	}
	text := p.Certificate.Subject.String()
	if len(text) > maxSubject {
		text = strings.ToValidUTF8(text[:maxSubject], "") + "..."
	}
	return text
}

// Names returns the names in the client's certificate (SANs): host names, URIs such as SPIFFE IDs, IP addresses and
// mail addresses. If they have more than 1,024 bytes together, the last ones are left out, and the result ends with
// three dots.
func (p *TLSPeer) Names() (all []string) {
	c := p.Certificate
	if c == nil {
		return nil
	}
	all = append(all, c.DNSNames...)
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	all = append(all, c.EmailAddresses...)
	size := 0
	for i, name := range all {
		if size += len(name); size > maxNames {
			return append(all[:i:i], "...")
		}
	}
	return all
}
