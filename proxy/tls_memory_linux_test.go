package proxy

import (
	"crypto/tls"
	"io"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// Two Lictors keep little for a connection between them that has carried little: mostly the buffers for its records.
func TestTLSConnectionsTakeLittleMemory(t *testing.T) {
	const connections, amount, most = 200, 20_000, 17 << 10
	onLoops(t, 1, func(t *testing.T, h *house) {
		answer := make([]byte, amount)
		behind := tcpServer(t, func(c testConn) {
			if _, err := io.CopyN(io.Discard, c, amount); err == nil {
				c.Write(answer)
				c.Read(make([]byte, 1))
			}
		})
		far := Service{Name: "far", Listen: []netip.AddrPort{loopback}, ConnectTimeout: 20 * time.Second,
			AcceptTLS: acceptTLS(fullRecords(serverConfig(0)))}
		config := fullRecords(clientConfig(0))
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		near := far
		near.Name, near.AcceptTLS, near.EndpointTLS = "near", nil, endpointTLS(config)
		h.start()
		if err := h.Apply([]Service{near, far}); err != nil {
			t.Fatal(err)
		}
		at := map[string]netip.AddrPort{}
		for _, l := range h.Listeners() {
			at[l.Service] = l.Addr.AddrPort
		}
		h.endpoints("near", at["far"])
		h.endpoints("far", behind)
		buf := make([]byte, amount)
		open := func(n int) {
			for range n {
				c := dialTCP(t, at["near"])
				c.Write(buf)
				if err := readExactly(c, buf); err != nil {
					t.Fatal(err)
				}
			}
		}
		open(10) // make what all share
		before := heapInUse()
		open(connections)
		if got := (heapInUse() - before) / (2 * connections); got > most {
			t.Errorf("a connection has %d bytes at each Lictor, want %d at most", got, most)
		}
	})
}

// heapInUse returns how many bytes of the heap are in use.
func heapInUse() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first one has kept what pools hold
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
