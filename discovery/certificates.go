package discovery

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
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

// config reads the files that o names.
func (o TLSOptions) config() (*tls.Config, error) {
	config, err := api.SetupTLSConfig(&api.TLSConfig{
		Address:            o.ServerName,
		CAFile:             o.CAFile,
		CAPath:             o.CAPath,
		CertFile:           o.CertFile,
		KeyFile:            o.KeyFile,
		InsecureSkipVerify: o.InsecureSkipVerify,
	})
	if err != nil {
		return nil, fmt.Errorf("TLS to consul: %w", err)
	}
	return config, nil
}
