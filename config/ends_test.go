package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testcert"
)

func TestCertificatesOfAService(t *testing.T) {
	dir, ca := t.TempDir(), testcert.NewAuthority(t, "root")
	files := map[string]CertificateFiles{}
	for name, r := range map[string]testcert.Request{
		"one": {}, "two": {}, "expired": {To: time.Now().Add(-time.Minute)},
		"early": {From: time.Now().Add(time.Minute)},
	} {
		var f CertificateFiles
		f.CertFile, f.KeyFile = ca.Issue(t, r).Write(t, dir, name)
		files[name] = f
	}
	for name, above := range map[string]*testcert.Authority{"chain": ca, "gap": testcert.NewAuthority(t, "other")} {
		c := ca.Issue(t, testcert.Request{})
		c.Cert = append(c.Cert, above.PEM()...)
		var f CertificateFiles
		f.CertFile, f.KeyFile = c.Write(t, dir, name)
		files[name] = f
	}
	pair := func(cert, key string) string {
		return fmt.Sprintf("cert_file = %q\nkey_file = %q\n", files[cert].CertFile, files[key].KeyFile)
	}
	for _, tt := range []struct {
		name, block string
		want        []CertificateFiles // nil: the configuration is refused
		text        string             // in the only message
	}{
		{"one", pair("one", "one"), []CertificateFiles{files["one"]}, ""},
		{"one in a block", "certificate {\n" + pair("one", "one") + "}\n", []CertificateFiles{files["one"]}, ""},
		{"two", pair("two", "two") + "certificate {\n" + pair("one", "one") + "}\n",
			[]CertificateFiles{files["two"], files["one"]}, ""},
		{"another key", pair("one", "two"), nil, "private key does not match"},
		{"another key in a block", pair("one", "one") + "certificate {\n" + pair("one", "two") + "}\n", nil,
			"private key does not match"},
		{"chain", pair("chain", "chain"), []CertificateFiles{files["chain"]}, ""},
		{"gap", pair("gap", "gap"), []CertificateFiles{files["gap"]}, "certificate 1 in "},
		{"expired", pair("expired", "expired"), []CertificateFiles{files["expired"]}, "has expired at 20"},
		{"not valid yet", pair("early", "early"), []CertificateFiles{files["early"]}, "is valid only from 20"},
	} {
		cfg, diags := loadText("service \"web\" {\n listen = 9000\n tls {\n"+tt.block+"}\n}\n", nil)
		if got := textOf(diags); !strings.Contains(got, tt.text) || (tt.text == "") != (len(diags.Diagnostics) == 0) {
			t.Errorf("%s: got %s", tt.name, got)
		}
		if cfg == nil || tt.want == nil {
			if (cfg == nil) != (tt.want == nil) {
				t.Errorf("%s: accepted: %v", tt.name, cfg != nil)
			}
			continue
		}
		if got := cfg.Services[0].TLS.Certificates(); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}
