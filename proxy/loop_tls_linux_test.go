package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
)

// A transfer through ends that speak TLS arrives whole, and its end too.
func TestLoopsSpeakTLS(t *testing.T) {
	cert := testCertificate(t, "s.test")
	pool := trusting(cert)
	sc := &tls.Config{Certificates: []tls.Certificate{cert}}
	cc := &tls.Config{RootCAs: pool, ServerName: "s.test"}
	for _, tt := range []string{"in", "out", "both"} {
		t.Run(tt, func(t *testing.T) {
			h := &house{T: t, balancer: lb.NewRoundRobin()}
			h.options = Options{LoadBalancer: h.balancer, Loops: 2}
			t.Cleanup(func() { h.Proxier.Close() })
			s := Service{}
			if tt != "out" {
				s.AcceptTLS = &AcceptTLS{Config: func() *tls.Config { return sc }}
			}
			server := tcpServer(t, echo)
			if tt != "in" {
				s.EndpointTLS = &EndpointTLS{Config: func(lb.Endpoint) (*tls.Config, error) { return cc, nil }}
				server = tcpServer(t, func(c testConn) {
					x := tls.Server(c, sc)
					defer x.Close()
					io.Copy(x, x)
					x.CloseWrite()
				})
			}
			at := h.serve(s, server)
			for range 20 {
				var c interface {
					net.Conn
					CloseWrite() error
				} = dialTCP(t, at)
				if tt != "out" {
					c = tls.Client(c, cc)
				}
				c.SetDeadline(time.Now().Add(20 * time.Second))
				data := make([]byte, 3<<20+7)
				rand.Read(data)
				go func() {
					c.Write(data[:10])
					c.Write(data[10:])
					c.CloseWrite()
				}()
				got, err := io.ReadAll(c)
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("got %d bytes, %v", len(got), err)
				}
				c.Close()
			}
		})
	}
}
