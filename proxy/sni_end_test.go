//go:build unix

package proxy

import (
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"
)

// Services share a Unix socket as they share an address, and its clients have no addresses.
func TestSNIAtAUnixSocket(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		h.start()
		path := socketPath(t)
		var all []Service
		for _, name := range []string{"a", "b"} {
			h.endpoints(name, tcpServer(t, repeats(name)))
			s := atSocket(path)
			s.Name, s.SNI, s.ConnectTimeout = name, []string{name + ".example"}, 20*time.Second
			all = append(all, s)
		}
		if err := h.Apply(all); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"b", "a"} {
			c := dialUnix(t, path)
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			exchangeAs(t, c, helloTo(name+".example"), name)
			exchange(t, c, "more")
		}
		if got := h.Listeners(); len(got) != 2 || got[0].Addr.Path != path || got[1].Addr != got[0].Addr {
			t.Errorf("got %+v, want two services at %s", got, path)
		}
	})
}

// A Close ends clients that have not chosen their service yet, and those whose endpoint has not accepted TLS yet. A
// listener that a reload has removed still serves them.
func TestSNIEndsWithinAnOpening(t *testing.T) {
	for _, removed := range []bool{false, true} {
		t.Run(fmt.Sprint("removed ", removed), func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				told, asked := records(h), make(chan struct{})
				h.start()
				h.endpoints("db", tcpServer(t, func(c testConn) {
					if readExactly(c, make([]byte, len(sslRequest))) == nil {
						close(asked)
						io.Copy(io.Discard, c)
					}
				}))
				h.endpoints("web", tcpServer(t, repeats("web")))
				at := freePort(t, TCP)
				all := []Service{
					{Name: "db", SNI: []string{"db.example"}, Listen: listen(at), ConnectTimeout: time.Minute},
					{Name: "web", SNI: []string{"web.example"}, Listen: listen(at), ConnectTimeout: time.Minute}}
				if err := h.Apply(all); err != nil {
					t.Fatal(err)
				}
				c := dialTCP(t, at)
				sendRequest(t, c, sslRequest, "S")
				io.WriteString(c, helloTo("db.example"))
				<-asked
				half, hello := dialTCP(t, at), helloTo("web.example")
				io.WriteString(half, hello[:100])
				eventually(t, func() error {
					list, _, err := h.Connections(t.Context(), ConnectionQuery{Limit: 10})
					if len(list) != 2 || list[0].State == list[1].State {
						return fmt.Errorf("got %+v, %w", list, err)
					}
					return nil
				})
				if removed {
					all[0].Listen, all[1].Listen = []netip.AddrPort{loopback}, []netip.AddrPort{loopback}
					if err := h.Apply(all); err != nil {
						t.Fatal(err)
					}
					io.WriteString(half, hello[100:])
					got := make([]byte, len("web:"+hello))
					if err := readExactly(half, got); err != nil || string(got) != "web:"+hello {
						t.Errorf("got %.40q, %v, want web", got, err)
					}
				}
				h.Close()
				for range 2 {
					if r := <-told; r.Reason != ReasonCut {
						t.Errorf("got %+v, want a connection that was cut", r)
					}
				}
				for _, conn := range []testConn{c, half} {
					_, err := io.Copy(io.Discard, conn)
					wantReset(t, err)
				}
			})
		})
	}
}
