package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"
)

// A backend of the mesh shows the certificate with a name to those who ask for the name, and Consul's to all others.
func TestBackendsShowANameToThoseWhoAskForIt(t *testing.T) {
	dir := t.TempDir()
	consul, err := newAuthority(dir) // in its place
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNamed(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := listenMesh([]string{consul.files.Cert, consul.files.Key, consul.files.Cert, consul.files.Cert, n.TLS.Cert,
		n.TLS.Key})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake() // the clients of the test have no certificate
			_ = c.Close()
		}
	}()
	roots, err := os.ReadFile(n.Roots)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	d := &net.Dialer{Timeout: time.Minute}
	named, err := tls.DialWithDialer(d, "tcp", l.Addr().String(), &tls.Config{RootCAs: pool, ServerName: meshName})
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	if got := named.ConnectionState().PeerCertificates[0].URIs; len(got) != 1 || got[0].String() != namedURI {
		t.Errorf("the certificate with the name is for %v, want %s", got, namedURI)
	}
	for _, name := range []string{"", "mesh.default.dc1.internal.td.consul"} {
		config := &tls.Config{InsecureSkipVerify: true, ServerName: name}
		c, err := tls.DialWithDialer(d, "tcp", l.Addr().String(), config)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().PeerCertificates; len(got) != 1 || len(got[0].URIs) > 0 {
			t.Errorf("a client that asks for %q gets the certificate with the name", name)
		}
		c.Close()
	}
}
