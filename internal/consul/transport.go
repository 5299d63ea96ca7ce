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

// newTransport returns a transport to the agent a. Over TLS the agent speaks HTTP/2, so a few connections carry any
// number of queries. Without TLS each query needs a connection, and the agent allows 200 for each client address.
func newTransport(a hostport.Agent, o TLSOptions, log hclog.Logger) (*http.Transport, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	tr := &http.Transport{
		DialContext:         dialer.DialContext,
		Proxy:               http.ProxyFromEnvironment, // as Consul's own tools do; loopback addresses need no proxy
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,

		// A blocking query ends after one wait at the latest. The query's connection is then idle for a moment, and
		// must stay open.
		MaxIdleConnsPerHost: maxIdleConns,

		// The agent closes connections that are idle for 120 s. The client closes them earlier, because otherwise it
		// could send a query on a connection that the agent is just closing.
		IdleConnTimeout: 90 * time.Second,

		// A query's deadline can be a minute away. Pings detect earlier that the agent hangs, or that the network drops
		// packets.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},

		// On one host, compression saves nothing. Compression would cost both sides processor time, and 40 KB for each
		// answer.
		DisableCompression: a.Local(),

		// There is no ResponseHeaderTimeout, because Consul sends the headers of a blocking query only when the query
		// ends.
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
