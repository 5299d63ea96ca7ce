package consul

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// certificates are what is in the files of a TLSOptions. The files are read again for each new connection, so that
// they can be replaced while Lictor runs; there are few new connections, and those that are up stay up. While the
// files cannot be used, what was read last stays in use. Safe for concurrent use.
type certificates struct {
	options TLSOptions
	host    string // of the address
	log     hclog.Logger

	mu      sync.Mutex  // guards the following
	last    *tls.Config // what was in the files when they could be used last
	failing bool        // the files could not be used the last time
}

// newCertificates reads the files that o names for the first time. Host is that of the address.
func newCertificates(o TLSOptions, host string, log hclog.Logger) (*certificates, error) {
	c := &certificates{options: o, host: host, log: log}
	var err error
	c.last, err = o.config()
	return c, err
}

// config returns the TLS configuration of connections. It does not change when the files do.
func (c *certificates) config() *tls.Config {
	config := c.last.Clone()
	config.Certificates, config.RootCAs = nil, nil
	config.GetClientCertificate = c.client
	if !c.options.InsecureSkipVerify {
		// verify does it instead, because the roots in a tls.Config cannot change.
		config.InsecureSkipVerify = true
		config.VerifyConnection = c.verify
	}
	return config
}

// current returns what is in the files.
func (c *certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.options.config()
	switch {
	case err == nil:
		if c.failing {
			c.log.Info("certificate files can be used again")
		}
		c.last = now
	case !c.failing:
		c.log.Warn("certificate files cannot be used, those that were read last stay in use", "error", err)
	}
	c.failing = err != nil
	return c.last
}

// client returns the client certificate that is in the files now. It is a tls.Config.GetClientCertificate.
func (c *certificates) client(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if config := c.current(); len(config.Certificates) > 0 {
		return &config.Certificates[0], nil
	}
	return &tls.Certificate{}, nil
}

// verify verifies the agent's certificate as crypto/tls does, but with the roots that are in the files now. It is a
// tls.Config.VerifyConnection.
func (c *certificates) verify(state tls.ConnectionState) error {
	name := c.options.ServerName
	if name == "" {
		name = c.host
	}
	options := x509.VerifyOptions{Roots: c.current().RootCAs, DNSName: name, Intermediates: x509.NewCertPool()}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := state.PeerCertificates[0].Verify(options); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
	}
	return nil
}

// maxPEM is how many bytes a file with certificates or a key may have. All authorities that browsers trust take 220
// KB.
const maxPEM = 4 << 20

// config reads the files that o names, which must be regular files, and returns a TLS configuration with their
// contents.
func (o TLSOptions) config() (*tls.Config, error) {
	options := api.TLSConfig{Address: o.ServerName, InsecureSkipVerify: o.InsecureSkipVerify}
	var err error
	if o.CertFile != "" && o.KeyFile != "" {
		if options.CertPEM, err = regular.ReadFile(o.CertFile, maxPEM); err == nil {
			options.KeyPEM, err = regular.ReadFile(o.KeyFile, maxPEM)
		}
	} else { // SetupTLSConfig has the words for the error if only one of them is given
		options.CertFile, options.KeyFile = o.CertFile, o.KeyFile
	}
	var config *tls.Config
	if err == nil {
		config, err = api.SetupTLSConfig(&options)
	}
	if err == nil {
		config.RootCAs, err = o.roots()
	}
	if err != nil {
		return nil, fmt.Errorf("TLS to consul: %w", err)
	}
	return config, nil
}

// roots reads the certificates of the authorities that may sign the agent's. Nil means the system's roots.
func (o TLSOptions) roots() (*x509.CertPool, error) {
	path := o.CAFile
	if path == "" {
		path = o.CAPath
	}
	if path == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	err := filepath.WalkDir(path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		pem, err := regular.ReadFile(path, maxPEM)
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = fmt.Errorf("no certificate in PEM form in %s", path)
		}
		return err
	})
	return pool, err
}
