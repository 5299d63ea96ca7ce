package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The certificates of Consul have no host names, and ghostunnel verifies one. So there is one more certificate for the
// service of the mesh. It has a name, and an authority that only ghostunnel knows. A client that asks for the name gets
// it, and its handshake is as much work as that of others.

const (
	// meshName is the host name of the service of the mesh.
	meshName = "mesh.bench.test"

	// namedURI is the identity in the certificate with the name.
	namedURI = "spiffe://bench.test/ns/default/dc/dc1/svc/" + meshService
)

// named is a certificate with a host name.
type named struct {
	TLS   tlsFiles
	Roots string // path of the authority
}

// newNamed makes a certificate (ECDSA, P-256) with meshName and namedURI, and its authority, with their files in dir.
func newNamed(dir string) (n named, err error) {
	uri, err := url.Parse(namedURI)
	if err != nil {
		return n, err
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: to, DNSNames: []string{meshName},
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return n, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return n, err
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return n, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	if err != nil {
		return n, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	n = named{tlsFiles{Cert: filepath.Join(dir, "named.pem"), Key: filepath.Join(dir, "named-key.pem")},
		filepath.Join(dir, "named-roots.pem")}
	return n, errors.Join(err, writePEM(n.Roots, "CERTIFICATE", rootDER), writePEM(n.TLS.Cert, "CERTIFICATE", der),
		writePEM(n.TLS.Key, "PRIVATE KEY", secret))
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// ghostunnelPath returns the path of ghostunnel. Unless it is in PATH, it is what make bench-ghostunnel builds, beside
// this program.
func ghostunnelPath() string {
	const name = "ghostunnel"
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	own, _ := os.Executable() // an error makes a path that does not exist
	return filepath.Join(filepath.Dir(own), name)
}

// ghostunnel returns the command of ghostunnel for one end of a mesh. It has no more than one endpoint.
func ghostunnel(p *plan) ([]string, error) {
	argv := []string{ghostunnelPath(), "--quiet", "all"}
	if in := p.Inbound; in != nil {
		return append(argv, "--cert", p.Mesh.Named.TLS.Cert, "--key", p.Mesh.Named.TLS.Key, "--cacert", p.Mesh.Roots,
			"server", "--listen", in.Listen.String(), "--target", in.Local,
			"--allow-uri", "spiffe://*/ns/default/dc/dc1/svc/"+meshIdentity), nil
	}
	return append(argv, "--cert", p.Mesh.TLS.Cert, "--key", p.Mesh.TLS.Key, "--cacert", p.Mesh.Named.Roots,
		"client", "--listen", p.Listen(), "--target", p.Endpoints()[0], "--override-server-name", meshName,
		"--verify-uri", namedURI), nil
}
