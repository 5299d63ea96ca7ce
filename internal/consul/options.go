package consul

import (
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/certificates"
)

// Options say how to reach an agent. The environment (CONSUL_HTTP_ADDR and others) does not count.
type Options struct {
	// Address is that of the agent's HTTP API, in one of these forms. Empty means "127.0.0.1:8500".
	//
	//	127.0.0.1:8500                       HTTP
	//	http://consul.example.com:8500       HTTP
	//	https://consul.example.com/prefix    HTTPS, here behind a reverse proxy
	//	unix:///run/consul.sock              HTTP over a Unix socket
	Address string

	// Token is the ACL token. Empty means the agent's default token.
	Token string

	// TokenFile is a file with the token, which counts instead of Token. It is read again for each request, so that the
	// token can be replaced. While the file cannot be read, the last token stays in use. Empty means no file.
	TokenFile string

	// HTTPAuth is "user:password", for a reverse proxy with basic authentication. Empty means none.
	HTTPAuth string

	// Namespace and Partition are sent with each request. Only Consul Enterprise accepts them. Empty means none.
	Namespace, Partition string

	// TLS counts for an https:// address only.
	TLS TLSOptions

	// Logger takes what operators should know. Tokens never appear in it. Nil means no log.
	Logger hclog.Logger

	// Transport carries the requests. Nil means connections to Address, over TLS as TLS says.
	Transport http.RoundTripper

	// MaxBody is how many bytes an answer may have. Zero means the constant MaxBody.
	MaxBody int64
}

// TLSOptions are for an agent behind https://.
type TLSOptions = certificates.Options

const (
	// Grace is how much longer than its wait a query may take. Without a leader, Consul's servers hold a query for 7 s
	// beyond its wait before they give up. An agent may need some seconds more to find a server.
	Grace = 15 * time.Second

	// MaxBody is the usual bound of an answer, in bytes. 10,000 instances take about 20 MB.
	MaxBody = 64 << 20

	// SmallBody is the length up to which any number of answers may be in memory, in bytes. A hundred instances take
	// about 200 KB.
	SmallBody = 256 << 10

	defaultAddress = "127.0.0.1:8500"

	maxIdleConns = 1000     // to an agent
	maxLongs     = 2        // answers longer than SmallBody that may be in memory at once
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
