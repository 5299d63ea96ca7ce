//go:build faults

package proxy

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/lb"
)

// If an endpoint resets the connection after a part of its header, the next endpoint gets a whole header, and then the
// client's bytes from the first one on.
func TestAPartOfAHeaderIsNotPassedOn(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		if h.options.Engine != EngineAuto {
			t.Skip("only the system calls of the loops misbehave")
		}
		var parts atomic.Int64
		bad := tcpServer(t, func(c testConn) {
			c.SetLinger(0)
			if n, _ := c.Read(make([]byte, 1000)); n < 16 { // the header has more
				parts.Add(1)
			}
		})
		good := tcpServer(t, func(c testConn) {
			if p, err := parseHeader(c); err == nil && p.Src != realClient {
				t.Errorf("the server got %+v, want a header of %s", p, realClient)
			} else if err != nil {
				t.Errorf("the server got no whole header: %v", err)
			}
			echo(c)
		})
		h.balancer.Configure("s", lb.Options{MaxFails: -1})
		addr := h.serve(Service{AcceptProxy: anyLocal, SendProxy: proxyproto.V2}, bad, good)
		clients, served := 0, 0
		eventually(t, func() error {
			c := dialTCP(t, addr)
			defer c.Close()
			c.Write(append(proxyproto.AppendV1(nil, realClient, realServer), "first"...))
			got := make([]byte, 5)
			switch _, err := io.ReadFull(c, got); {
			case err == nil && string(got) == "first":
				served++
			case !errors.Is(err, syscall.ECONNRESET): // the bad server may have taken "first"
				t.Fatalf("got %q, %v, want the first bytes or a reset", got, err)
			}
			if clients++; parts.Load() < 3 || h.stats().Retries < 3 {
				return errPending
			}
			return nil
		})
		t.Logf("%d of %d clients served, %d after a reset; %d headers arrived in part", served, clients,
			h.stats().Retries, parts.Load())
		eventually(t, equals("active", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}
