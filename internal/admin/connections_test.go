package admin

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

func TestConnections(t *testing.T) {
	h := serve(t, Options{}, "web")
	addr := netip.MustParseAddrPort
	h.fake.set(func(f *fake) {
		f.next = "0-7"
		f.page = []proxy.Connection{
			{
				Service: "web", Client: addr("192.0.2.1:1234"), Listener: lb.Addr{AddrPort: addr("0.0.0.0:80")},
				Endpoint: lb.Endpoint{ID: "n/1", Addr: addr("10.0.0.1:80")}, From: addr("10.0.0.9:5555"),
				State: proxy.ConnectionOpen, Age: 1500 * time.Millisecond, Idle: time.Second, Up: 3, Down: 4,
			},
			{Service: "web", Client: addr("192.0.2.1:1235"), Listener: lb.Addr{AddrPort: addr("0.0.0.0:80")},
				State: proxy.ConnectionWaiting, TLS: &proxy.TLSPeer{Version: tls.VersionTLS13,
					CipherSuite: tls.TLS_AES_128_GCM_SHA256, ServerName: "web.test"}},
		}
	})
	var got ConnectionsAnswer
	h.get("/v1/connections?service=web&endpoint=n/1&after=0-3&limit=2", &got)
	if want := (proxy.ConnectionQuery{Service: "web", Endpoint: "n/1", After: "0-3", Limit: 2}); h.fake.query != want {
		t.Errorf("asked for %+v, want %+v", h.fake.query, want)
	}
	text, _ := json.Marshal(got.Connections)
	want := `[{"service":"web","protocol":"tcp","state":"open","client":"192.0.2.1:1234",` +
		`"listener":"0.0.0.0:80","from":"10.0.0.9:5555",` +
		`"endpoint":"n/1","address":"10.0.0.1:80",` +
		`"age_seconds":1.5,"idle_seconds":1,"bytes_up":3,"bytes_down":4},` +
		`{"service":"web","protocol":"tcp","state":"waiting","client":"192.0.2.1:1235","listener":"0.0.0.0:80",` +
		`"tls":{"version":"1.3","cipher":"TLS_AES_128_GCM_SHA256","resumed":false,"sni":"web.test"},` +
		`"age_seconds":0,"idle_seconds":0,"bytes_up":0,"bytes_down":0}]`
	if string(text) != want || got.Next != "0-7" || got.Now.IsZero() {
		t.Errorf("got  %s, next %q\nwant %s", text, got.Next, want)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	h := serve(t, Options{}, "web")
	for _, limit := range []string{"0", "1001", "-1", "x"} {
		if code, text := h.ask("GET", "/v1/connections?limit="+limit, ""); code != 400 ||
			!strings.Contains(text, "limit") {
			t.Errorf("limit %s: got %d %s", limit, code, text)
		}
	}
	if code, _ := h.ask("GET", "/v1/connections", ""); code != 200 || h.fake.query.Limit != 100 {
		t.Errorf("got %d, limit %d", code, h.fake.query.Limit)
	}
	h.fake.set(func(f *fake) { f.pageError = errors.New("no such place") })
	if code, text := h.ask("GET", "/v1/connections?after=x", ""); code != 400 ||
		!strings.Contains(text, "no such place") {
		t.Errorf("got %d %s", code, text)
	}
}
