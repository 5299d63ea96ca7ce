package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// maxPEM is the largest size of a file of certificates or a key, in bytes. The file of all authorities that browsers
// trust has 220 KB.
const maxPEM = 4 << 20

// tlsVariables names the environment variables that stand in for the arguments of a tls block. An empty name means that
// there is no such variable.
type tlsVariables struct{ caFile, caPath, certFile, keyFile, serverName, verify string }

// consulTLSVariables returns the environment variables of Consul's own tools.
func consulTLSVariables() tlsVariables {
	return tlsVariables{
		caFile: "CONSUL_CACERT", caPath: "CONSUL_CAPATH", certFile: "CONSUL_CLIENT_CERT", keyFile: "CONSUL_CLIENT_KEY",
		serverName: "CONSUL_TLS_SERVER_NAME", verify: "CONSUL_HTTP_SSL_VERIFY",
	}
}

// readTLS reads a tls block, which may be nil, and its environment variables. It also checks the files that they name.
func (r *settings) readTLS(b *block, t *TLS, v tlsVariables) {
	caFile, caPath := r.setting(b, "ca_file", v.caFile), r.setting(b, "ca_path", v.caPath)
	cert, key := r.setting(b, "cert_file", v.certFile), r.setting(b, "key_file", v.keyFile)
	t.CAFile, t.CAPath, t.CertFile, t.KeyFile = caFile.value, caPath.value, cert.value, key.value
	t.ServerName = r.setting(b, "server_name", v.serverName).value
	t.InsecureSkipVerify = !r.envBool(v.verify, true)
	if b != nil && b.attrs["insecure_skip_verify"] != nil {
		t.InsecureSkipVerify = b.boolean("insecure_skip_verify", false)
	}
	if caFile.set() {
		if err := checkCA(caFile.value); err != nil {
			r.bad(caFile, "Unusable file", "%v", err)
		}
	}
	if caPath.set() && !isDir(caPath.value) {
		r.bad(caPath, "Unreadable directory", "%s is not a directory. Name a directory of certificates, or use "+
			"ca_file", caPath.value)
	}
	r.keyPair(cert, key, "client certificate")
}

// keyPair checks that a certificate and its key are both present or both absent, can be read, and match. The noun says
// which certificate it is. keyPair warns of a certificate that is not valid now.
func (r *settings) keyPair(cert, key setting, noun string) {
	switch {
	case cert.set() && !key.set():
		r.bad(cert, "Certificate without a key",
			"a %s needs its key. Set key_file%s too", noun, key.orVariable())
	case key.set() && !cert.set():
		r.bad(key, "Key without a certificate",
			"a key needs its %s. Set cert_file%s too", noun, cert.orVariable())
	}
	var pem [2][]byte
	readable := true
	for i, s := range []setting{cert, key} {
		if s.set() {
			var err error
			if pem[i], err = regular.ReadFile(s.value, maxPEM); err != nil {
				r.bad(s, "Unreadable file", "%v", err)
				readable = false
			}
		}
	}
	if !readable || !cert.set() || !key.set() {
		return
	}
	pair, err := tls.X509KeyPair(pem[0], pem[1])
	if err != nil {
		r.bad(cert, "Unusable certificate", "%s and %s: %s", cert.value, key.value,
			strings.TrimPrefix(err.Error(), "tls: "))
		return
	}
	if broken := brokenChain(pair.Certificate); broken > 0 {
		r.doubt(cert, "Chain with a gap", "certificate %d in %s is not signed by the next one, so peers may not find "+
			"the authority. Put the certificate itself first, and each intermediate certificate after the one that "+
			"it has signed", broken, cert.value)
	}
	switch now, leaf := time.Now(), pair.Leaf; {
	case now.After(leaf.NotAfter):
		r.doubt(cert, "Expired certificate", "the certificate in %s has expired at %s. Peers will refuse it until the "+
			"file has another one", cert.value, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		r.doubt(cert, "Certificate of the future", "the certificate in %s is valid only from %s on. Peers will refuse "+
			"it until then. Is the clock of this host right", cert.value, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
}

// brokenChain returns the number of the first certificate in a chain that the next one has not signed, or zero if the
// chain has no gap. The first certificate has the number 1.
func brokenChain(chain [][]byte) int {
	var above *x509.Certificate
	for i, der := range slices.Backward(chain) {
		cert, err := x509.ParseCertificate(der)
		if err != nil || above != nil && cert.CheckSignatureFrom(above) != nil {
			return i + 1
		}
		above = cert
	}
	return 0
}

// checkCA returns an error if the file at path cannot be read or holds no certificate.
func checkCA(path string) error {
	pem, err := regular.ReadFile(path, maxPEM)
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return errors.New(path + " holds no certificate in PEM form")
	}
	return nil
}
