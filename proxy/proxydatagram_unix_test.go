//go:build unix

package proxy

import (
	"slices"
	"testing"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// A session that another process takes over keeps its header, or that it has sent it.
func TestHandedSessionKeepsItsHeader(t *testing.T) {
	for _, first := range []bool{false, true} {
		forEachEngine(t, func(t *testing.T, h *house) {
			server, got := announcedServer(t)
			services := []Service{{Name: "s", Protocol: UDP, Listen: listen(loopback), SendProxy: proxyproto.V2,
				SendProxyFirst: first}}
			h.start()
			h.endpoints("s", server)
			if err := h.Apply(services); err != nil {
				t.Fatal(err)
			}
			c := dialUDP(t, h.Listeners()[0].Addr.AddrPort)
			before := bring(t, c, "before", got)
			next := succeed(t, h.Proxier, h.options, services)
			defer next.Close()
			if after := bring(t, c, "after", got); first != after.headless || !first && after.id != before.id {
				t.Errorf("got %+v after %+v", after, before)
			}
			services[0].SendProxy = proxyproto.None // as if the configuration had changed too
			last := succeed(t, next, h.options, services)
			defer last.Close()
			if a := bring(t, c, "last", got); !a.headless {
				t.Errorf("got %+v, want no header", a)
			}
		})
	}
}

// A session of a client behind a proxy goes on in another process: the client stays the same, and has its endpoint.
func TestHandedSessionKeepsItsClient(t *testing.T) {
	forEachEngine(t, func(t *testing.T, h *house) {
		one, two := whoServer(t), whoServer(t)
		services := []Service{{Name: "s", Protocol: UDP, Listen: listen(loopback), AcceptProxy: anyLocal,
			MaxPerClient: 1}}
		h.start()
		h.endpoints("s", one, two)
		if err := h.Apply(services); err != nil {
			t.Fatal(err)
		}
		c := dialUDP(t, h.Listeners()[0].Addr.AddrPort)
		answers := map[string]string{}
		clients := []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"}
		ask := func(client string) string {
			c.Write(introduce(client, "x"))
			return answerOf(t, c)
		}
		for _, client := range clients {
			answers[client] = ask(client)
		}
		next := succeed(t, h.Proxier, h.options, services)
		defer next.Close()
		for _, client := range clients {
			if got := ask(client); got != answers[client] {
				t.Errorf("%s: got %q, want %q as before", client, got, answers[client])
			}
		}
		if s := next.Snapshot()[0]; s.SessionsActive != 3 || s.Refused != 0 {
			t.Errorf("got %+v, want the three sessions", s)
		}
		list, _, _ := next.Connections(t.Context(), ConnectionQuery{Limit: 10})
		for _, one := range list {
			if !slices.Contains(clients, one.Client.String()) {
				t.Errorf("got the client %s", one.Client)
			}
		}
		if counts := next.ClientCounts()["s"]; len(counts) != 3 {
			t.Errorf("got %v, want three clients", counts)
		}
	})
}
