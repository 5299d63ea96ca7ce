package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// This program forwards a local port to the endpoints of one service.
func Example() {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello from the endpoint")
	}))
	defer backend.Close()

	balancer := lb.NewRoundRobin()
	balancer.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: []lb.Endpoint{
		{ID: "a", Addr: netip.MustParseAddrPort(backend.Listener.Addr().String())},
	}}})
	p, err := proxy.New(proxy.Options{LoadBalancer: balancer})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = p.Shutdown(context.Background()) }() // let open connections finish
	err = p.Apply([]proxy.Service{{Name: "web", Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ask(p.Listeners()[0].Addr.AddrPort))
	// Output: hello from the endpoint
}

// ask sends one HTTP request to addr and returns the body of the answer.
func ask(addr netip.AddrPort) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + addr.String())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}
