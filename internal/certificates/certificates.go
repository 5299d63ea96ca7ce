// Package certificates makes TLS configurations from files that may be replaced while Lictor runs.
//
// For connections that Lictor makes seldom, [Files] are read again for each connection:
//
//	files, err := certificates.New(certificates.Options{CAFile: "/etc/lictor/ca.pem"}, log)
//	...
//	transport.TLSClientConfig = files.Config("10.0.0.7")
//
// For the clients and endpoints of services, a [Store] keeps the files in memory, and looks for changes in the
// background:
//
//	store := certificates.NewStore(log, nil)
//	go store.Run(ctx)
//	server, err := store.Server(certificates.ServerOptions{Service: "web", Certificates: pairs})
//	...
//	conn := tls.Server(accepted, server.Config())
//
// In both cases the last valid content of files stays in use while they cannot be used.
package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/regular"
)

// maxPEM is the maximum size of a file in bytes. All authorities that browsers trust need 220 KB.
const maxPEM = 4 << 20

// Options name the files, and configure how the server's certificate is verified. All files must be regular files in
// PEM format.
type Options struct {
	CAFile             string // file with root certificates; empty means those in CAPath
	CAPath             string // folder of files with root certificates; empty means the system's
	CertFile, KeyFile  string // client certificate and its key; both empty means none
	ServerName         string // expected name in the server's certificate; empty means the dialled host
	InsecureSkipVerify bool   // do not verify the server's certificate
}

// Files are the files that Options name. Files are safe for concurrent use.
type Files struct {
	options Options
	log     hclog.Logger

	mu      sync.Mutex // guards the fields below
	last    contents   // content when the files could be used last
	failing bool       // the last attempt to use the files failed
}

// contents are the content of the files.
type contents struct {
	roots *x509.CertPool   // nil means the system's roots
	own   *tls.Certificate // client certificate; an empty Certificate if there is none
}

// New reads the files. New returns an error if they cannot be used. The log receives warnings if the files become
// unusable later.
func New(o Options, log hclog.Logger) (*Files, error) {
	read, err := o.read()
	if err != nil {
		return nil, err
	}
	return &Files{options: o, log: log, last: read}, nil
}

// Config returns the TLS configuration for connections to host, a name or an IP address. Config remains valid when the
// files change.
func (f *Files) Config(host string) *tls.Config {
	name := f.options.ServerName
	if name == "" {
		name = host
	}
	return &tls.Config{
		ServerName: name,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return f.current().own, nil
		},
		InsecureSkipVerify: true, // VerifyConnection verifies instead, because the roots of a tls.Config cannot change
		VerifyConnection: func(state tls.ConnectionState) error {
			if f.options.InsecureSkipVerify {
				return nil
			}
			return verify(state.PeerCertificates, x509.VerifyOptions{Roots: f.current().roots, DNSName: name})
		},
	}
}

// verify verifies a peer's certificates as crypto/tls does.
func verify(peer []*x509.Certificate, options x509.VerifyOptions) error {
	if len(peer) == 0 {
		return errors.New("the peer has shown no certificate")
	}
	options.Intermediates = x509.NewCertPool()
	for _, cert := range peer[1:] {
		options.Intermediates.AddCert(cert)
	}
	if _, err := peer[0].Verify(options); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: peer, Err: err}
	}
	return nil
}

// current reads the files again and returns their content. If that fails, it returns the last valid content.
func (f *Files) current() contents {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.options.read()
	switch {
	case err == nil:
		if f.failing {
			f.log.Info("the certificate files can be used again")
		}
		f.last = now
	case !f.failing:
		f.log.Warn("the certificate files cannot be used, their last valid content stays in use", "error", err)
	}
	f.failing = err != nil
	return f.last
}

// read reads the files.
func (o Options) read() (c contents, err error) {
	if c.own, err = o.readOwn(); err != nil {
		return contents{}, err
	}
	c.roots, err = o.readRoots()
	return c, err
}

func (o Options) readOwn() (*tls.Certificate, error) {
	if o.CertFile == "" && o.KeyFile == "" {
		return &tls.Certificate{}, nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return nil, errors.New("a client certificate and its key must both be given")
	}
	cert, err := regular.ReadFile(o.CertFile, maxPEM)
	if err != nil {
		return nil, err
	}
	key, err := regular.ReadFile(o.KeyFile, maxPEM)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", o.CertFile, o.KeyFile, err)
	}
	return &pair, nil
}

// rootsPath returns the path of the root certificates: a file or a folder. It is empty for the system's.
func (o Options) rootsPath() string {
	if o.CAFile != "" {
		return o.CAFile
	}
	return o.CAPath
}

// readRoots returns the root certificates, or nil for the system's.
func (o Options) readRoots() (*x509.CertPool, error) {
	path := o.rootsPath()
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
