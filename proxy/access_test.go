package proxy

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Whoever wants to know is told of each connection, how long and how much it was, and who ended it.
func TestAccessIsToldOfEachConnection(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		var mu sync.Mutex
		var records []AccessRecord
		h.options.Access = func(r AccessRecord) {
			mu.Lock()
			defer mu.Unlock()
			records = append(records, r)
		}
		next := func() (r AccessRecord) {
			eventually(t, func() error {
				mu.Lock()
				defer mu.Unlock()
				if len(records) == 0 {
					return errors.New("no record")
				}
				r, records = records[0], records[1:]
				return nil
			})
			return r
		}
		server := tcpServer(t, func(c *net.TCPConn) {
			b := make([]byte, 5)
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if string(b) == "reset" {
				c.SetLinger(0)
				return
			}
			c.Write([]byte("thanks!"))
			io.Copy(io.Discard, c)
		})
		addr := h.serve(Service{}, server)

		c := dialTCP(t, addr)
		c.Write([]byte("12345"))
		if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		c.Close()
		r := next()
		if r.Service != "s" || r.Endpoint.Addr != server || r.Up != 5 || r.Down != 7 || !strings.HasPrefix(r.Reason, ReasonClientClosed) {
			t.Errorf("a client that leaves: got %+v", r)
		}
		if r.Client != c.LocalAddr().(*net.TCPAddr).AddrPort() || r.Connect <= 0 || r.Duration < r.Connect || r.Ended.IsZero() {
			t.Errorf("got %+v", r)
		}

		c = dialTCP(t, addr)
		c.Write([]byte("reset"))
		io.Copy(io.Discard, c)
		c.Close()
		if r = next(); !strings.HasPrefix(r.Reason, ReasonEndpointFailed) || r.Up != 5 {
			t.Errorf("an instance that resets: got %+v", r)
		}

		h.endpoints("s")
		// The reset may come before the client knows that it was connected.
		if refused, err := net.Dial("tcp", addr.String()); err == nil {
			io.Copy(io.Discard, refused)
			refused.Close()
		}
		if r = next(); r.Reason != ReasonUnserved || r.Endpoint.ID != "" || r.Connect != 0 {
			t.Errorf("no instance: got %+v", r)
		}

		h.endpoints("s", server)
		c = dialTCP(t, addr)
		c.Write([]byte("12345"))
		io.ReadFull(c, make([]byte, 7))
		h.Close()
		if r = next(); r.Reason != ReasonCut {
			t.Errorf("a shutdown: got %+v", r)
		}
	})
}
