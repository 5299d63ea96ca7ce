package admin

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/lictor-proxy/lictor/proxy"
)

// A Connection is a TCP connection or a UDP session of a client. Up is the direction from client to instance.
type Connection struct {
	Service  string `json:"service"`
	Protocol string `json:"protocol"`
	State    string `json:"state"`
	Client   string `json:"client"`
	Listener string `json:"listener"`
	From     string `json:"from,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Address  string `json:"address,omitempty"`
	TLS      *TLS   `json:"tls,omitempty"`

	// Of connections on the kernel path only.
	Path    string `json:"path,omitempty"`    // PathKernel
	PID     uint32 `json:"pid,omitempty"`     // of the process that connected
	Program string `json:"program,omitempty"` // its name
	ID      uint64 `json:"-"`                 // of its socket; UDP sessions of one socket have the same

	Age           float64 `json:"age_seconds"`
	Idle          float64 `json:"idle_seconds"`
	BytesUp       int64   `json:"bytes_up"`
	BytesDown     int64   `json:"bytes_down"`
	DatagramsUp   int64   `json:"datagrams_up,omitempty"`
	DatagramsDown int64   `json:"datagrams_down,omitempty"`
}

// TLS is what the TLS handshake with a client has shown.
type TLS struct {
	Version string   `json:"version"`
	Cipher  string   `json:"cipher"`
	Resumed bool     `json:"resumed"`
	SNI     string   `json:"sni,omitempty"`
	ALPN    string   `json:"alpn,omitempty"`
	Subject string   `json:"client_subject,omitempty"`
	Names   []string `json:"client_names,omitempty"`

	Identity string `json:"client_identity,omitempty"` // SPIFFE ID in the client's certificate
}

// ConnectionsAnswer is the response body of /v1/connections.
type ConnectionsAnswer struct {
	Now         time.Time    `json:"now"`
	Connections []Connection `json:"connections"`
	Next        string       `json:"next,omitempty"`
}

// The number of connections on one page: the default, and the maximum.
const (
	connectionsPage = 100
	connectionsMost = 1000
)

func (s *Server) getConnections(w http.ResponseWriter, r *http.Request) {
	limit, err := number(r, "limit", connectionsPage)
	if err == nil && (limit == 0 || limit > connectionsMost) {
		err = fmt.Errorf("limit=%d is not from 1 to %d; use after=NEXT for the next page", limit, connectionsMost)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	q := proxy.ConnectionQuery{Service: r.FormValue("service"), Endpoint: r.FormValue("endpoint"),
		After: r.FormValue("after"), Limit: int(limit)}
	page, next, code, err := s.connections(r.Context(), q)
	if err != nil {
		refuse(w, code, err)
		return
	}
	reply(w, ConnectionsAnswer{Now: time.Now(), Connections: page, Next: next})
}

// connections returns one page of the connections of both paths: first those that Lictor forwards, and then those on
// the kernel path. If there is an error, code is the status of the answer.
func (s *Server) connections(
	ctx context.Context, q proxy.ConnectionQuery,
) (page []Connection, next string, code int, err error) {
	from, onKernel, err := parseKernelPlace(q.After)
	if err != nil {
		return nil, "", http.StatusBadRequest, err
	}
	page = []Connection{}
	if !onKernel {
		forwarded, next, err := s.o.State.Proxier.Connections(ctx, q)
		if err != nil {
			return nil, "", http.StatusBadRequest, err
		}
		for i := range forwarded {
			page = append(page, connectionOf(&forwarded[i]))
		}
		if next != "" {
			return page, next, 0, nil
		}
	}
	q.Limit -= len(page)
	more, next, err := s.kernel.page(ctx, from, q)
	if err != nil {
		return nil, "", http.StatusInternalServerError, err
	}
	return append(page, more...), next, 0, nil
}

func connectionOf(c *proxy.Connection) Connection {
	one := Connection{
		Service: c.Service, Protocol: c.Protocol.String(), State: string(c.State), Client: proxy.UnixClient,
		Listener: c.Listener.String(),
		Age:      c.Age.Seconds(), Idle: c.Idle.Seconds(), BytesUp: c.Up, BytesDown: c.Down, DatagramsUp: c.DatagramsUp,
		DatagramsDown: c.DatagramsDown,
	}
	if c.Client.IsValid() {
		one.Client = c.Client.String()
	}
	if c.Endpoint.ID != "" {
		one.Endpoint, one.Address = c.Endpoint.ID, c.Endpoint.Address()
	}
	if c.From != (netip.AddrPort{}) {
		one.From = c.From.String()
	}
	if p := c.TLS; p != nil {
		one.TLS = &TLS{Version: p.VersionNumber(), Cipher: tls.CipherSuiteName(p.CipherSuite), Resumed: p.Resumed,
			SNI: p.ServerName, ALPN: p.Protocol, Subject: p.Subject(), Names: p.Names(),
			Identity: p.Identity()}
	}
	return one
}
