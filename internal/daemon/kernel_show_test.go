package daemon

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/kernel"
)

// TestConnectionsOnTheKernelPath checks that the API shows what the kernel path lists.
func TestConnectionsOnTheKernelPath(t *testing.T) {
	x := keepKernel(t)
	if all, err := x.connections(t.Context()); len(all) > 0 || err != nil {
		t.Errorf("without a kernel path: %v, %v", all, err)
	}
	web := at("127.0.0.1:1")
	web.ID = "n1/web"
	x.update("web", web)
	x.use(t, pathOfTwo)
	addr := netip.MustParseAddrPort
	one := kernel.Socket{ID: 7, Service: "web", Key: x.key("web", web.ID), Client: addr("127.0.0.1:4000"),
		Listener: addr("127.0.0.1:9000"), Endpoint: web.Addr, State: kernel.SocketHalfClosed, PID: 12, Program: "psql",
		Age: 1500 * time.Millisecond, Idle: time.Second, Sent: 3, Received: 4}
	two := kernel.Socket{ID: 8, Service: "gone", UDP: true, Client: one.Client, Endpoint: addr("127.0.0.1:2")}
	x.note.sockets = []kernel.Socket{one, two}
	got, err := x.connections(t.Context())
	want := []admin.Connection{
		{Path: admin.PathKernel, ID: 7, Service: "web", Protocol: "tcp", State: "half_closed", Client: "127.0.0.1:4000",
			Listener: "127.0.0.1:9000", From: "127.0.0.1:4000", Endpoint: "n1/web", Address: "127.0.0.1:1", PID: 12,
			Program: "psql", Age: 1.5, Idle: 1, BytesUp: 3, BytesDown: 4},
		{Path: admin.PathKernel, ID: 8, Service: "gone", Protocol: "udp", State: "open", Client: "127.0.0.1:4000",
			Listener: two.Listener.String(), From: "127.0.0.1:4000", Address: "127.0.0.1:2"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	x.note.cannotList = errors.New("not permitted")
	if _, err := x.connections(t.Context()); !errors.Is(err, x.note.cannotList) {
		t.Errorf("error %v, want %v", err, x.note.cannotList)
	}
	x.note.cannotList = os.ErrClosed
	if all, err := x.connections(t.Context()); len(all) > 0 || err != nil {
		t.Errorf("while it closes: %v, %v", all, err)
	}
}
