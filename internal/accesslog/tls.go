package accesslog

import (
	"strings"

	"github.com/lictor-proxy/lictor/proxy"
)

// appendTLSText appends what is known of a client that speaks TLS.
func appendTLSText(b []byte, p *proxy.TLSPeer) []byte {
	b = append(append(b, " tls="...), p.VersionNumber()...)
	for _, f := range []struct{ name, value string }{
		{" sni=", p.ServerName}, {" alpn=", p.Protocol}, {" client_subject=", p.Subject()},
		{" client_names=", strings.Join(p.Names(), ",")}, {" client_identity=", p.Identity()},
	} {
		if f.value != "" {
			b = appendWord(append(b, f.name...), f.value)
		}
	}
	return b
}

// appendTLSJSON appends what is known of a client that speaks TLS.
func appendTLSJSON(b []byte, p *proxy.TLSPeer) []byte {
	for _, f := range []struct{ name, value string }{
		{`,"tls":`, p.VersionNumber()}, {`,"sni":`, p.ServerName}, {`,"alpn":`, p.Protocol},
		{`,"client_subject":`, p.Subject()},
	} {
		if f.value != "" {
			b = appendJSONString(append(b, f.name...), f.value)
		}
	}
	for i, name := range p.Names() {
		if i == 0 {
			b = append(b, `,"client_names":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendJSONString(b, name)
	}
	if len(p.Names()) > 0 {
		b = append(b, ']')
	}
	if id := p.Identity(); id != "" {
		b = appendJSONString(append(b, `,"client_identity":`...), id)
	}
	return b
}
