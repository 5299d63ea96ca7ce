package consul

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/lictor-proxy/lictor/internal/certificates"
	"github.com/lictor-proxy/lictor/internal/hostport"
)

// newTransport returns a transport to the agent a. Over TLS the agent speaks HTTP/2, so a few connections carry any
// number of queries. Without TLS each query needs a connection, and the agent allows 200 for each client address. The
// argument files is nil without TLS.
func newTransport(
	a hostport.Agent, files *certificates.Files, dial func(ctx context.Context, network, addr string) (net.Conn, error),
) *http.Transport {
	tr := &http.Transport{
		DialContext:         dial,
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
	}
	if a.URL.Scheme == "https" {
		tr.TLSClientConfig = files.Config(a.URL.Hostname())
	}
	return tr
}
