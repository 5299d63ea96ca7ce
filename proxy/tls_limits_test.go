package proxy

import (
	"io"
	"testing"
	"time"
)

// An old connection ends with close_notify, so that neither peer takes the end for a truncation.
func TestTLSMaxAge(t *testing.T) {
	forEachVersion(t, func(t *testing.T, h *house, version uint16) {
		got := make(chan string, 1)
		at := h.serve(Service{MaxAge: 10 * time.Millisecond, MaxAgeGrace: time.Minute,
			AcceptTLS:   acceptTLS(serverConfig(version)),
			EndpointTLS: endpointTLS(clientConfig(version))},
			tlsServer(t, serverConfig(version), func(c testConn) {
				io.WriteString(c, "hello")
				readsAll(got)(c)
			}))
		c := dialTLS(t, at, clientConfig(version))
		b, err := io.ReadAll(c)
		if string(b) != "hello" || err != nil {
			t.Errorf("the client got %q, %v, want hello and a proper end", b, err)
		}
		c.Close()
		if s := <-got; s != ", false" {
			t.Errorf("the endpoint got %q, want a proper end", s)
		}
		if s := h.stats(); s.EndedAged != 1 {
			t.Errorf("got %+v", s)
		}
	})
}

// A Close does not wait for peers that shake hands, and leaves nothing behind.
func TestTLSHandshakesAreCut(t *testing.T) {
	for _, side := range []string{"client", "endpoint"} {
		t.Run(side, func(t *testing.T) {
			forEachEngine(t, func(t *testing.T, h *house) {
				asked := make(chan bool, 1)
				silent := tcpServer(t, func(c testConn) {
					if readExactly(c, make([]byte, 5)) == nil {
						asked <- true
						io.Copy(io.Discard, c)
					}
				})
				s := Service{ConnectTimeout: time.Minute}
				if side == "client" {
					s.AcceptTLS = acceptTLS(serverConfig(0))
				} else {
					s.EndpointTLS = endpointTLS(clientConfig(0))
				}
				at := h.serve(s, silent)
				before := settledDescriptors()
				c := dialTCP(t, at)
				io.WriteString(c, "\x16\x03\x01\x02\x00\x01")
				if side == "endpoint" {
					<-asked
				} else {
					awaitState(t, h, ConnectionGreeting)
				}
				h.Close()
				_, err := io.Copy(io.Discard, c)
				wantReset(t, err)
				c.Close()
				eventually(t, noMoreDescriptors(before))
			})
		})
	}
}

// awaitState waits until there is one connection, in the given state.
func awaitState(t *testing.T, h *house, want ConnectionState) {
	t.Helper()
	eventually(t, func() error {
		page, _, err := h.Connections(t.Context(), ConnectionQuery{Limit: 2})
		if err == nil && (len(page) != 1 || page[0].State != want) {
			err = errPending
		}
		return err
	})
}
