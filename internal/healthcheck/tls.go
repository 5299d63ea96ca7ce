package healthcheck

import (
	"crypto/tls"
	"sync"

	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/lb"
)

// A tlsFiles caches the certificate files of HTTPS checks. The tlsFiles keeps those of former checks, which are few.
// The zero value is ready for use, and safe for concurrent use.
type tlsFiles struct {
	mu  sync.Mutex
	all map[certificates.Options]*certificates.Files // guarded by mu
}

// A filesError says that the files of a check cannot be used and have never been usable. The filesError says nothing
// about an endpoint.
type filesError struct{ err error }

// Error implements error.
func (e *filesError) Error() string { return e.err.Error() }

// tlsConfig returns the TLS configuration for a check of e. An error is a *filesError, or says that e has no ServerName
// and should have one.
func (c *Checker) tlsConfig(check *Check, e lb.Endpoint) (*tls.Config, error) {
	if check.NameFrom != "" && e.ServerName == "" {
		return nil, certificates.NoName(check.NameFrom)
	}
	o := check.TLS
	c.files.mu.Lock()
	defer c.files.mu.Unlock()
	files := c.files.all[o]
	if files == nil {
		var err error
		if files, err = certificates.New(o, c.log); err != nil {
			return nil, &filesError{err}
		}
		if c.files.all == nil {
			c.files.all = map[certificates.Options]*certificates.Files{}
		}
		c.files.all[o] = files
	}
	host := e.Host
	switch {
	case check.NameFrom != "":
		host = e.ServerName
	case e.Path != "":
		host = "localhost"
	case host == "":
		host = e.Addr.Addr().WithZone("").String()
	}
	return files.Config(host), nil
}
