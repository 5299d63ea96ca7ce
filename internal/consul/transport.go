package consul

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"
)

// NewTransport returns what a client of o uses, if o.Transport is nil.
func NewTransport(o Options) (*http.Transport, error) {
	o = o.withDefaults()
	t, err := parseTarget(o.Address)
	if err != nil {
		return nil, err
	}
	return newTransport(t, o.TLS, o.Logger)
}

// newTransport returns what carries queries to t. Over TLS the agent speaks HTTP/2, and a few
// connections carry any number of queries; without, each query holds a connection, and the agent allows a client 200.
func newTransport(t target, o TLSOptions, log hclog.Logger) (*http.Transport, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	tr := &http.Transport{
		DialContext:         dialer.DialContext,
		Proxy:               http.ProxyFromEnvironment, // as Consul's own tools do; never for loopback addresses
		TLSHandshakeTimeout: 5 * time.Second,
		ForceAttemptHTTP2:   true,

		// Blocking queries all end within one wait; each connection then has an idle moment, and must not be closed in it.
		MaxIdleConnsPerHost: maxConns,

		// The agent closes connections that are idle for 120 s. Close first, or a query could be sent into the closing.
		IdleConnTimeout: 90 * time.Second,

		// A query's deadline is most of a minute away; pings find out earlier that the agent hangs or that the network drops packets.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},

		// On one host, packing answers costs both sides processor time, and 40 KB for each that is being unpacked, to save what costs nothing.
		DisableCompression: t.local(),

		// No ResponseHeaderTimeout: Consul sends the headers of a blocking query when it ends.
	}
	if t.socket != "" {
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", t.socket)
		}
	}
	if t.base.Scheme == "https" {
		files, err := newCertificates(o, t.base.Hostname(), log)
		if err != nil {
			return nil, err
		}
		tr.TLSClientConfig = files.config()
	}
	return tr, nil
}
