package proxy

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// A header is believed only if the peer is in from of the same configuration. A reload replaces the filter of peers a
// moment after the specification.
func TestAcceptProxyTrustsNobodyDuringAReload(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		addr := h.serve(Service{}, tcpServer(t, echo))
		s := h.services["s"]
		next := *s.spec.Load()
		next.AcceptProxy = &AcceptProxy{From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
		s.spec.Store(&next)
		c, err := net.Dial("tcp", addr.String()) // the reset may come so early that the dial already reports it
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			c.Write(proxyproto.AppendV1(nil, realClient, realServer))
			_, err = c.Read(make([]byte, 1))
		}
		wantReset(t, err)
	})
}
