package proxy

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"testing"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// A header of version 2 says what Lictor knows of a client that speaks TLS. No proxy before Lictor can say it instead.
func TestProxyHeaderOfATLSClient(t *testing.T) {
	theirs := proxyproto.TLVs(nil).Append(proxyproto.ALPN, []byte("theirs")).
		Append(proxyproto.Authority, []byte("theirs")).Append(proxyproto.SSL, []byte("theirs")).
		Append(proxyproto.Identity, []byte("theirs")).Append(0xe0, []byte("x"))
	me := &x509.Certificate{Subject: pkix.Name{CommonName: "me"}}
	web := &x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: "test", Path: "/web"}}}
	for _, tt := range []struct {
		name string
		peer *TLSPeer
		want proxyproto.TLVs // without the ID
	}{
		{"no TLS", nil, theirs},
		{"TLS", &TLSPeer{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256},
			proxyproto.TLVs(nil).AppendSSL(proxyproto.TLSClient{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256"}).
				Append(0xe0, []byte("x"))},
		{"all", &TLSPeer{Version: tls.VersionTLS12, CipherSuite: tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			ServerName: "web.test", Protocol: "h2", Certificate: me, Resumed: true},
			proxyproto.TLVs(nil).Append(proxyproto.ALPN, []byte("h2")).Append(proxyproto.Authority, []byte("web.test")).
				AppendSSL(proxyproto.TLSClient{Version: "TLSv1.2", Cipher: "ECDHE-RSA-AES256-GCM-SHA384",
					Certificate: true, Resumed: true, CommonName: "me"}).Append(0xe0, []byte("x"))},
		{"identity", &TLSPeer{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, Certificate: web},
			proxyproto.TLVs(nil).AppendSSL(proxyproto.TLSClient{Version: "TLSv1.3", Cipher: "TLS_AES_128_GCM_SHA256",
				Certificate: true}).Append(proxyproto.Identity, []byte("spiffe://test/web")).Append(0xe0, []byte("x"))},
	} {
		h, n, err := proxyproto.Parse(appendProxyHeader(nil, proxyproto.V2,
			&hop{client: realClient, server: realServer, tlvs: theirs, tls: tt.peer}))
		if err != nil || n == 0 {
			t.Fatal(tt.name, n, err)
		}
		got := proxyproto.TLVs(nil).AppendFrom(h.TLVs, func(t proxyproto.Type) bool { return t != proxyproto.UniqueID })
		if !bytes.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestOpenSSLNames(t *testing.T) {
	for id, want := range map[uint16]string{
		tls.TLS_AES_256_GCM_SHA384:                        "TLS_AES_256_GCM_SHA384",
		tls.TLS_CHACHA20_POLY1305_SHA256:                  "TLS_CHACHA20_POLY1305_SHA256",
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       "ECDHE-ECDSA-AES128-GCM-SHA256",
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:   "ECDHE-RSA-CHACHA20-POLY1305",
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA:            "ECDHE-RSA-AES128-SHA",
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256:         "ECDHE-RSA-AES128-SHA256",
		tls.TLS_RSA_WITH_AES_256_GCM_SHA384:               "AES256-GCM-SHA384",
	} {
		if got := openSSLName(tls.CipherSuiteName(id)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
