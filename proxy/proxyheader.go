package proxy

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// An AcceptProxy says that the clients of a service are proxies that send the header of the PROXY protocol first. The
// address in the header is the client's address for everything that Lictor does.
type AcceptProxy struct {
	// From holds the addresses of the proxies. A connection from another address is reset, and a datagram is dropped,
	// because its header could name any client. An empty From trusts no proxy.
	From []netip.Prefix

	// Timeout is how long a TCP client may take to send its header. A zero or negative Timeout means 3 s.
	Timeout time.Duration
}

func (a *AcceptProxy) equal(o *AcceptProxy) bool {
	if a == nil || o == nil {
		return a == o
	}
	return slices.Equal(a.From, o.From) && a.Timeout == o.Timeout
}

// trusts reports whether the peer of a connection is one of the proxies.
func (a *AcceptProxy) trusts(peer netip.Addr) bool {
	return len(a.From) > 0 && (&clientFilter{allow: a.From}).admits(peer)
}

func (a *AcceptProxy) timeout() time.Duration {
	if a.Timeout <= 0 {
		return 3 * time.Second
	}
	return a.Timeout
}

// errProxyHeader refuses a client that has to send a PROXY header and does not.
var errProxyHeader = errors.New("accept_proxy")

// A strangerError refuses a peer that is no proxy of AcceptProxy. It wraps errProxyHeader.
type strangerError struct{ peer netip.Addr }

func (e *strangerError) Error() string {
	return fmt.Sprintf("%v: %s is not in from; add it if it is a proxy", errProxyHeader, e.peer)
}

func (e *strangerError) Unwrap() error { return errProxyHeader }

// A hop is what Lictor knows of a client's connection and passes on in a PROXY header.
type hop struct {
	client netip.AddrPort
	server netip.AddrPort  // the address that the client has dialled
	id     uint64          // unique in this process
	udp    bool            // whether client and server are addresses of UDP
	tlvs   proxyproto.TLVs // TLVs of the client's header; nil if there are none
	tls    *TLSPeer        // what the client's TLS handshake has shown; nil if there was none

	asksTLS bool // whether the client has sent PostgreSQL's sslRequest
}

// proxyHeader returns the header that an endpoint of s gets with the client's bytes. proxyHeader returns nil if
// endpoints get none, or got it with tlsRequest.
func (s *service) proxyHeader(h *hop) []byte {
	v := s.spec.Load().SendProxy
	if v == proxyproto.None || h.asksTLS {
		return nil
	}
	return appendProxyHeader(nil, v, h)
}

// appendProxyHeader appends the header for a TCP connection or a UDP session to b.
func appendProxyHeader(b []byte, v proxyproto.Version, h *hop) []byte {
	if v == proxyproto.V1 {
		return proxyproto.AppendV1(b, h.client, h.server)
	}
	id := uniqueIDs()
	binary.BigEndian.PutUint64(id[8:], h.id)
	var text [2 * len(id)]byte
	hex.Encode(text[:], id[:])
	tlvs := make(proxyproto.TLVs, 0, len(h.tlvs)+64)
	tlvs = tlvs.Append(proxyproto.UniqueID, text[:])
	if h.tls != nil {
		tlvs = appendTLS(tlvs, h.tls)
	}
	tlvs = tlvs.AppendFrom(h.tlvs, h.isPassedOn)
	return proxyproto.AppendV2(b, proxyproto.Header{Src: h.client, Dst: h.server, Datagram: h.udp, TLVs: tlvs})
}

// uniqueIDs begins the unique IDs of this process. The last 8 bytes are the connection's.
var uniqueIDs = sync.OnceValue(func() (id [16]byte) {
	_, _ = rand.Read(id[:8]) // never fails, see crypto/rand
	return id
})
