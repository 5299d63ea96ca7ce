package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/proxy"
)

// kernelConnections returns n connections of two services on the kernel path. Sockets have up to three of them.
func kernelConnections(n int) (all []Connection) {
	for i := range n {
		all = append(all, Connection{Path: PathKernel, ID: uint64(10 + i/3), Service: []string{"db", "web"}[i%2],
			Client: fmt.Sprint(i), Endpoint: "n/1", Address: "10.0.0.1:80"})
	}
	return all
}

// walk asks for all pages, and returns the clients and the number of pages.
func (h *house) walk(query string) (clients []string, pages int) {
	for after := ""; pages == 0 || after != ""; pages++ {
		var page ConnectionsAnswer
		h.get("/v1/connections?"+query+"&after="+after, &page)
		for i := range page.Connections {
			clients = append(clients, page.Connections[i].Client)
		}
		after = page.Next
	}
	return clients, pages
}

// TestPagesOfBothPaths checks that each connection is on one page, and that the connections on the kernel path are read
// once for all pages.
func TestPagesOfBothPaths(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.fake.set(func(f *fake) { f.page = []proxy.Connection{{Service: "web"}, {Service: "web"}} })
	reads := 0
	h.kernel.read = func(context.Context) ([]Connection, error) { reads++; return kernelConnections(20), nil }
	for limit := 3; limit < 25; limit++ {
		reads = 0
		clients, pages := h.walk(fmt.Sprintf("limit=%d", limit))
		clients = clients[min(2, len(clients)):] // forwarded
		for i := range 20 {
			if i >= len(clients) || clients[i] != fmt.Sprint(i) {
				t.Fatalf("limit %d: got %v", limit, clients)
			}
		}
		if len(clients) != 20 || pages != (22+limit-1)/limit || reads != 1 {
			t.Errorf("limit %d: %d connections on %d pages, read %d times", limit, len(clients), pages, reads)
		}
		if h.kernel.kept != nil {
			t.Errorf("limit %d: the list is kept after the last page", limit)
		}
	}
	h.fake.set(func(f *fake) { f.page = nil })
	if clients, _ := h.walk("limit=2&service=db"); len(clients) != 10 || slices.Contains(clients, "1") {
		t.Errorf("of db: %v", clients)
	}
	for endpoint, want := range map[string]int{"n/1": 20, "10.0.0.1:80": 20, "n/2": 0} {
		if clients, _ := h.walk("limit=100&endpoint=" + endpoint); len(clients) != want {
			t.Errorf("of %s: %d connections, want %d", endpoint, len(clients), want)
		}
	}
}

// TestPagesOfTheKernelPathThatIsFull checks that a page which is full already is followed by the kernel path's.
func TestPagesOfTheKernelPathThatIsFull(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.fake.set(func(f *fake) { f.page = []proxy.Connection{{Service: "web"}, {Service: "web"}} })
	h.kernel.read = func(context.Context) ([]Connection, error) { return kernelConnections(2), nil }
	if clients, pages := h.walk("limit=2"); len(clients) != 4 || pages != 2 {
		t.Errorf("%d connections on %d pages", len(clients), pages)
	}
}

func TestKernelConnectionsThatCannotBeRead(t *testing.T) {
	h := serve(t, Options{}, "web")
	h.kernel.read = func(context.Context) ([]Connection, error) { return nil, errors.New("no sock_diag") }
	if code, text := h.ask("GET", "/v1/connections", ""); code != 500 || !strings.Contains(text, "no sock_diag") {
		t.Errorf("got %d %s", code, text)
	}
	for _, after := range []string{"kernel-", "kernel-1", "kernel-1-x", "kernel-1--1", "kernel-1-1-1"} {
		code, text := h.ask("GET", "/v1/connections?after="+after, "")
		if code != 400 || !strings.Contains(text, after) {
			t.Errorf("%s: got %d %s", after, code, text)
		}
	}
}
