package consul

import (
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Options say how to reach an agent. The environment (CONSUL_HTTP_ADDR and its kin) is not looked at.
type Options struct {
	// Address of the agent's HTTP API: "host:port", "http://host:port", "https://host:port", each of the latter two with a path
	// if it is behind a reverse proxy, or "unix:///path" of a socket. Empty: "127.0.0.1:8500".
	Address string

	// Token is the ACL token; empty: the agent's default token. TokenFile, where not empty, is a file that holds it instead. It
	// is read again for each request, so that a token can be rotated; while it cannot be read, the last token stays in use.
	Token, TokenFile string

	// HTTPAuth is "user:password" for a reverse proxy that wants basic authentication. Empty: none.
	HTTPAuth string

	// Namespace and Partition are for Consul Enterprise; other Consuls refuse requests that have them.
	Namespace, Partition string

	// TLS counts only for an https:// address.
	TLS TLSOptions

	// Logger takes what operators should know. Nil: silence. Tokens never appear in it.
	Logger hclog.Logger

	// Transport carries the requests. Nil: what NewTransport returns.
	Transport http.RoundTripper

	// MaxBody is how many bytes an answer may have. Zero: 64 MiB.
	MaxBody int64
}

// TLSOptions are for an agent behind https://. Empty names mean: the system's roots, no client certificate, and the host of the
// address as the name to expect.
type TLSOptions struct {
	CAFile, CAPath     string // roots, in PEM: a file, or a folder of files
	CertFile, KeyFile  string // client certificate and key, in PEM: both or none
	ServerName         string // name to expect in the agent's certificate
	InsecureSkipVerify bool   // do not look at the agent's certificate at all
}

const (
	defaultAddress = "127.0.0.1:8500"

	// Grace is added to a query's wait. Without a leader, Consul's servers hold a query for 7 s beyond its wait before they
	// give up, and an agent may need some seconds more to find a server.
	Grace = 15 * time.Second

	// MaxBody is the default of Options.MaxBody; 10,000 instances take about 20 MB.
	MaxBody = 64 << 20

	// SmallBody are the bytes of an answer of which any number may be in memory; a hundred instances take about 200 KB.
	SmallBody = 256 << 10

	maxConns     = 1000     // to an agent that are kept while idle
	maxLong      = 2        // longer answers that may be in memory at once
	maxErrorBody = 4 << 10  // bytes of an error's text that are read
	maxTokenFile = 64 << 10 // bytes of a token file
)

// withDefaults returns o with defaults in place of zeros.
func (o Options) withDefaults() Options {
	if o.Address == "" {
		o.Address = defaultAddress
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.MaxBody == 0 {
		o.MaxBody = MaxBody
	}
	return o
}
