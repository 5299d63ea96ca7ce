package consul

import (
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/certificates"
)

// Options configure how to reach an agent. The environment (CONSUL_HTTP_ADDR and others) is ignored.
type Options struct {
	// Address is the address of the agent's HTTP API, in one of these forms. Empty means "127.0.0.1:8500".
	//
	//	127.0.0.1:8500                       HTTP
	//	http://consul.example.com:8500       HTTP
	//	https://consul.example.com/prefix    HTTPS, here behind a reverse proxy
	//	unix:///run/consul.sock              HTTP over a Unix socket
	Address string

	// More holds further addresses of the same cluster, in order of preference. The client uses one of them when
	// Address does not answer: see Client.Run. All addresses must be https, or none.
	More []string

	// Token is the ACL token. If it is empty, the agent's default token applies.
	Token string

	// TokenFile names a file with the token, which takes precedence over Token. The file is read again for each
	// request, so that the token can be replaced. While the file cannot be read, the last token stays in use. Empty
	// means no file.
	TokenFile string

	// HTTPAuth is "user:password" for a reverse proxy with basic authentication. Empty means no authentication.
	HTTPAuth string

	// Namespace and Partition are sent with each request. Only Consul Enterprise accepts them. Empty means none.
	Namespace, Partition string

	// TLS applies only to an https:// address.
	TLS TLSOptions

	// Logger logs what operators should know. Logger never logs tokens. A nil Logger logs nothing.
	Logger hclog.Logger

	// Transport carries the requests to all addresses. A nil Transport means connections to them, configured by TLS.
	Transport http.RoundTripper

	// MaxBody is the maximum size of an answer, in bytes. Zero means the constant MaxBody.
	MaxBody int64
}

// TLSOptions configure TLS to an agent at an https:// address.
type TLSOptions = certificates.Options

const (
	// Grace is how much longer than its wait a blocking query may take. Without a leader, Consul's servers hold a query
	// for 7 s beyond its wait before they give up. An agent may need some seconds more to find a server.
	Grace = 15 * time.Second

	// MaxBody is the default maximum size of an answer, in bytes. 10,000 instances need about 20 MB.
	MaxBody = 64 << 20

	// SmallBody is the size in bytes up to which the number of answers in memory is not limited. A hundred instances
	// need about 200 KB.
	SmallBody = 256 << 10

	defaultAddress = "127.0.0.1:8500"

	maxIdleConns = 1000     // idle connections to an agent
	maxLongs     = 2        // answers longer than SmallBody in memory at once
	maxErrorBody = 4 << 10  // bytes read of an error's text
	maxTokenFile = 64 << 10 // maximum bytes of a token file
)

// withDefaults returns o with defaults in place of zero values.
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
