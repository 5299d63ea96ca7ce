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

// certificates are the files of a TLSOptions, read again for each new connection, of which there are few: certificates can be replaced
// while Lictor runs, and connections that are up stay so. While the files cannot be used, what was read last stays in use.
// Safe for concurrent use.
type certificates struct {
	options TLSOptions
	host    string // of the address
	log     hclog.Logger

	mu      sync.Mutex  // guards the following
	last    *tls.Config // what could be read last
	failing bool        // the files could not be used the last time
}

// newCertificates reads the files that o names for the first time.
func newCertificates(o TLSOptions, host string, log hclog.Logger) (*certificates, error) {
	c := &certificates{options: o, host: host, log: log}
	var err error
	c.last, err = o.config()
	return c, err
}

// config returns what connections are made with.
func (c *certificates) config() *tls.Config {
	config := c.last.Clone()
	config.Certificates, config.RootCAs = nil, nil
	config.GetClientCertificate = c.client
	if !c.options.InsecureSkipVerify {
		// Not skipped, but done in verify: the roots in a tls.Config cannot change.
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

// client implements tls.Config.GetClientCertificate.
func (c *certificates) client(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if config := c.current(); len(config.Certificates) > 0 {
		return &config.Certificates[0], nil
	}
	return &tls.Certificate{}, nil
}

// verify implements tls.Config.VerifyConnection: what crypto/tls does by itself, with the roots of now.
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

// maxPEM bounds a file of certificates or a key, in bytes. All authorities that browsers trust take 220 KB.
const maxPEM = 4 << 20

// config reads the files that o names, which must be regular ones, and returns what connections to Consul are made
// with.
func (o TLSOptions) config() (*tls.Config, error) {
	options := api.TLSConfig{Address: o.ServerName, InsecureSkipVerify: o.InsecureSkipVerify}
	var err error
	if o.CertFile != "" && o.KeyFile != "" {
		if options.CertPEM, err = regular.ReadFile(o.CertFile, maxPEM); err == nil {
			options.KeyPEM, err = regular.ReadFile(o.KeyFile, maxPEM)
		}
	} else { // one of them alone is an error, which SetupTLSConfig has the words for
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

// roots reads the certificates of those who may sign an agent's. Nil means the system's.
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
