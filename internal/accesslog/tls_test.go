package accesslog

import (
	"crypto/tls"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/internal/testcert"
	"github.com/lictor-proxy/lictor/proxy"
)

// A line says what the TLS handshake with the client has shown.
func TestAccessLinesOfTLS(t *testing.T) {
	cert := testcert.NewAuthority(t, "root").Issue(t, testcert.Request{CommonName: "an app",
		Names: []string{"app.test", "10.0.0.1"}}).TLS(t).Leaf
	web := testcert.NewAuthority(t, "root").Issue(t, testcert.Request{CommonName: "x",
		URIs: []string{"spiffe://test/web"}}).TLS(t).Leaf
	for _, tt := range []struct {
		peer       proxy.TLSPeer
		text, json string
	}{
		{proxy.TLSPeer{Version: tls.VersionTLS12}, " listener=127.0.0.1:9000 tls=1.2\n",
			`:34567","tls":"1.2","endpoint"`},
		{proxy.TLSPeer{Version: tls.VersionTLS13, ServerName: "web.test", Protocol: "h2", Certificate: cert},
			` tls=1.3 sni=web.test alpn=h2 client_subject="CN=an app" client_names=app.test,10.0.0.1` + "\n",
			`,"tls":"1.3","sni":"web.test","alpn":"h2","client_subject":"CN=an app",` +
				`"client_names":["app.test","10.0.0.1"],"endpoint"`},
		{proxy.TLSPeer{Version: tls.VersionTLS13, Certificate: web},
			` tls=1.3 client_subject="CN=x" client_names=spiffe://test/web client_identity=spiffe://test/web` + "\n",
			`,"client_subject":"CN=x","client_names":["spiffe://test/web"],` +
				`"client_identity":"spiffe://test/web","endpoint"`},
		{proxy.TLSPeer{Version: tls.VersionTLS13, ServerName: "a\nb c"}, ` tls=1.3 sni="a\nb c"` + "\n",
			`"tls":"1.3","sni":"a\nb c","endpoint"`},
	} {
		r := sampleRecord()
		r.TLS = &tt.peer
		if got := string(appendText(nil, &r)); !strings.HasSuffix(got, tt.text) {
			t.Errorf("got %s, want %s", got, tt.text)
		}
		if got := string(appendJSON(nil, &r)); !strings.Contains(got, tt.json) {
			t.Errorf("got %s, want %s", got, tt.json)
		}
	}
}
