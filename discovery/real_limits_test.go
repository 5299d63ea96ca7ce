package discovery

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/consul"
	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestRealConsulOverTLSCarriesAllWatchesOnFewConnections(t *testing.T) {
	t.Parallel()
	a := startAgentWith(t, testconsul.Options{TLS: true})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})

	const n = 300 // Consul allows a client 200 connections
	o := ConsulOptions{
		Address: "https://" + a.HTTPS, Wait: 3 * time.Second,
		TLS: TLSOptions{CAFile: a.CAFile, ServerName: testconsul.ServerName},
	}.withDefaults()
	for i := range n {
		o.Watches = append(o.Watches, Watch{Service: fmt.Sprint("s", i),
			Query: Query{Service: "web", Filter: fmt.Sprintf("Service.Port != %d", 1000+i)}})
	}
	options := o.client()
	transport, err := consul.NewTransport(options)
	if err != nil {
		t.Fatal(err)
	}
	var dials atomic.Int32
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return dial(ctx, network, address)
	}
	options.Transport = transport
	client, err := consul.New(options)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newConsul(o, client)
	if err != nil {
		t.Fatal(err)
	}
	r := follow(t, c, &journal{})
	testproc.Await(t, "all sets", func() bool { return len(r.got()) == n })
	testproc.Await(t, "end of the first wait", func() bool { return c.Snapshot()[n-1].Queries > 2 })
	for _, s := range c.Snapshot() {
		if s.Errors != 0 || s.Endpoints != 1 {
			t.Errorf("status %+v", s)
		}
	}
	if got := dials.Load(); got > 150 {
		t.Errorf("%d connections for %d watches", got, n)
	}
	t.Logf("%d dials", dials.Load())

	strangers, err := NewConsul(ConsulOptions{Address: o.Address})
	if err != nil {
		t.Fatal(err)
	}
	// A busy agent may take longer for a handshake than it is given.
	testproc.Await(t, "word of the certificate", func() bool {
		err := strangers.Check(t.Context(), Query{Service: "web"})
		if err == nil {
			t.Fatal("served without the private CA")
		}
		return strings.Contains(err.Error(), "certificate")
	})
}

func TestRealConsulWithFewConnectionsAllowed(t *testing.T) {
	t.Parallel()
	a := startAgent(t, `limits { http_max_conns_per_client = 5 }`)
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	o := ConsulOptions{Address: a.HTTP}
	for i := range 40 {
		o.Watches = append(o.Watches, Watch{Service: fmt.Sprint("s", i),
			Query: Query{Service: "web", Filter: fmt.Sprintf("Service.Port != %d", 1000+i)}})
	}
	r := followNew(t, o)
	testproc.Await(t, "all sets", func() bool { return len(r.got()) == 40 })
	r.log.wantOnce(t, "http_max_conns_per_client")
	// The registrations of the test compete for the five connections.
	testproc.Await(t, "registration", func() bool {
		return a.api.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "web", ID: "b", Port: 81}) == nil
	})
	testproc.Await(t, "all changed sets", func() bool {
		for _, s := range r.consul.Snapshot() {
			if s.Endpoints != 2 {
				return false
			}
		}
		return true
	})
	r.log.wantOnce(t, "http_max_conns_per_client")
	t.Log(r.log)
}

// A reload must not use up the connections that the agent allows, whichever of its backends answers.
func TestRealConsulReloadedAHundredTimes(t *testing.T) {
	t.Parallel()
	for _, streaming := range []bool{true, false} {
		t.Run(fmt.Sprint("streaming ", streaming), func(t *testing.T) {
			t.Parallel()
			a := startAgent(t, fmt.Sprintf("use_streaming_backend = %v\n", streaming))
			a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
			watches := func(round int) (all []Watch) {
				for i := range 50 {
					n := i // of fifty services, five change with each reload
					if i < 5 {
						n = 100*round + i
					}
					all = append(all, Watch{Service: fmt.Sprint("s", i),
						Query: Query{Service: "web", Filter: fmt.Sprintf("Service.Port != %d", 1000+n)}})
				}
				return all
			}
			r := followNew(t, ConsulOptions{Address: a.HTTP, Wait: 3 * time.Second, Watches: watches(0)})
			for round := 1; round <= 100; round++ {
				if err := r.consul.Apply(watches(round)); err != nil {
					t.Fatal(err)
				}
				testproc.Await(t, "first answers", func() bool {
					for _, s := range r.consul.Snapshot()[:5] {
						if s.LastSuccess.IsZero() {
							return false
						}
					}
					return true
				})
			}
			for _, s := range r.consul.Snapshot() {
				if s.Errors != 0 || s.Endpoints != 1 {
					t.Errorf("status %+v", s)
				}
			}
			if strings.Contains(r.log.String(), "http_max_conns_per_client") {
				t.Error(r.log)
			}
		})
	}
}
