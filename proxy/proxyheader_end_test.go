package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
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
			if _, err = c.Write(proxyproto.AppendV1(nil, realClient, realServer)); err == nil {
				_, err = c.Read(make([]byte, 1))
			}
		}
		wantReset(t, err)
	})
}

// A client that waits in the queue leaves the queue when it resets its connection, even if the reset came together with
// its header and its first bytes. The portable engine does not see the reset of a queued client that has sent bytes.
func TestQueuedClientMayResetBehindItsHeader(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.balancer.Configure("s", lb.Options{MaxQueue: 100, EmptyWait: time.Hour})
		addr := h.serve(Service{AcceptProxy: anyLocal}, tcpServer(t, echo))
		h.endpoints("s")
		sends := proxyproto.AppendV1(nil, realClient, realServer)
		if h.options.Engine == EngineAuto && runtime.GOOS == "linux" {
			sends = append(sends, "first"...)
		}
		for range 100 {
			c := dialTCP(t, addr)
			c.Write(sends)
			abort(c)
		}
		eventually(t, equals("active", func() int64 { return h.stats().ConnectionsActive }, 0))
	})
}

// Clients without a header do not keep faults of the service out of the log.
func TestBadHeadersHideNoFault(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		log := &testproc.Log{}
		h.options.Logger = hclog.New(&hclog.LoggerOptions{Output: log})
		addr := h.serve(Service{AcceptProxy: anyLocal}, deadPort(t))
		for _, first := range []string{"GET / HTTP/1.1\r\n", string(proxyproto.AppendV1(nil, realClient, realServer))} {
			c := dialTCP(t, addr)
			io.WriteString(c, first)
			_, err := c.Read(make([]byte, 1))
			wantReset(t, err)
		}
		eventually(t, func() error {
			for _, want := range []string{"the first bytes are not those of a PROXY header", "dial failed"} {
				if !strings.Contains(log.String(), want) {
					return fmt.Errorf("no %q in the log:\n%s", want, log.String())
				}
			}
			return nil
		})
	})
}

// If a deadline passes before the header is written, the client has not failed: the pair checks its limits and goes on.
func TestDeadlineBeforeTheHeaderIsWritten(t *testing.T) {
	accepted := make(chan testConn, 1)
	server := tcpServer(t, func(c testConn) {
		accepted <- c
		<-t.Context().Done()
	})
	client := dialTCP(t, server)
	src := <-accepted
	if _, err := io.WriteString(client, "first"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { // connReadable knows only some systems
		if src.SetReadDeadline(time.Now().Add(time.Hour)); !connReadable(src) && runtime.GOOS != "windows" {
			return errPending
		}
		return nil
	})
	dst := dialTCP(t, server)
	p := newPortablePair(src, dst, newService(&Service{Name: "s"}, lb.NewRoundRobin(), hclog.NewNullLogger(), 1))
	p.header = []byte("header ")
	src.SetReadDeadline(time.Unix(1, 0))
	m := &mover{pair: p, src: src, dst: dst, moved: &p.up, total: &p.service.at(0).bytesUp}
	if err := m.announce(); err != nil {
		t.Errorf("got %v, want the client to go on", err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(src, got); err != nil || string(got) != "first" {
		t.Errorf("got %q, %v, want the client's bytes still to be there", got, err)
	}
}
