package consul

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/hostport"
)

// newTransport returns a transport for t. Over TLS the agent speaks HTTP/2, so that a few connections carry any
// number of queries. Without TLS each query holds a connection, and the agent allows a client 200.
func newTransport(a hostport.Agent, o TLSOptions, log hclog.Logger) (*http.Transport, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	tr := &http.Transport{
		DialContext:         dialer.DialContext,
		Proxy:               http.ProxyFromEnvironment, // as Consul's own tools do; loopback addresses are excepted
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,

		// Each blocking query ends within one wait. Its connection is idle for a moment then, and must stay open.
		MaxIdleConnsPerHost: maxIdleConns,

		// The agent closes connections that are idle for 120 s. Close them before that: a query could be sent on a
		// connection that the agent is just closing.
		IdleConnTimeout: 90 * time.Second,

		// A query's deadline is most of a minute away. Pings find out earlier that the agent hangs, or that the network
		// drops packets.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},

		// On one host, bytes cost nothing. Compression would cost both sides processor time, and 40 KB for each answer.
		DisableCompression: a.Local(),

		// There is no ResponseHeaderTimeout: Consul sends the headers of a blocking query when the query ends.
	}
	if a.Socket != "" {
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", a.Socket)
		}
	}
	if a.URL.Scheme == "https" {
		files, err := certificates.New(o, log)
		if err != nil {
			return nil, fmt.Errorf("TLS to consul: %w", err)
		}
		tr.TLSClientConfig = files.Config(a.URL.Hostname())
	}
	return tr, nil
}
