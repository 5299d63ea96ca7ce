package proxy

import (
	"crypto/tls"
	"slices"
	"strings"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// maxCommonName is the maximum size in bytes of a name that a PROXY header repeats. X.509 allows 64 characters.
const maxCommonName = 256

// appendTLS appends what an endpoint should know of a client that speaks TLS: the name that the client asked for, the
// protocol that was negotiated, a TLV of type SSL, and the client's identity.
func appendTLS(t proxyproto.TLVs, p *TLSPeer) proxyproto.TLVs {
	if p.Protocol != "" {
		t = t.Append(proxyproto.ALPN, []byte(p.Protocol))
	}
	if p.ServerName != "" {
		t = t.Append(proxyproto.Authority, []byte(p.ServerName))
	}
	c := proxyproto.TLSClient{Version: strings.Replace(tls.VersionName(p.Version), "TLS ", "TLSv", 1),
		Cipher: openSSLName(tls.CipherSuiteName(p.CipherSuite)), Resumed: p.Resumed}
	if p.Certificate != nil {
		c.Certificate = true
		if name := p.Certificate.Subject.CommonName; len(name) <= maxCommonName {
			c.CommonName = name
		}
	}
	t = t.AppendSSL(c)
	if id := p.Identity(); id != "" {
		t = t.Append(proxyproto.Identity, []byte(id))
	}
	return t
}

// openSSLName returns OpenSSL's name of a cipher suite, which servers know. The names of TLS 1.3 are the same.
func openSSLName(name string) string {
	keys, cipher, old := strings.Cut(name, "_WITH_")
	if !old {
		return name
	}
	if keys = strings.TrimPrefix(keys, "TLS_"); keys == "RSA" {
		keys = ""
	} else {
		keys += "_"
	}
	cipher = strings.NewReplacer("AES_", "AES", "_CBC_", "_", "POLY1305_SHA256", "POLY1305").Replace(cipher)
	return strings.ReplaceAll(keys+cipher, "_", "-")
}

// isPassedOn reports whether a TLV of a client's header goes to the endpoint. What Lictor writes itself must not come
// from outside. For a client that speaks TLS with Lictor, Lictor writes all that is about TLS.
func (h *hop) isPassedOn(t proxyproto.Type) bool {
	own := []proxyproto.Type{proxyproto.UniqueID}
	if h.tls != nil {
		own = append(own, proxyproto.ALPN, proxyproto.Authority, proxyproto.SSL, proxyproto.Identity)
	}
	return !slices.Contains(own, t)
}
