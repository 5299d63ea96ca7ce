package discovery

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestRealConsulOverTLSCarriesAllWatchesOnFewConnections(t *testing.T) {
	t.Parallel()
	a := startAgentWith(t, testconsul.Options{TLS: true})
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})

	const n = 300 // Consul allows a client 200 connections
	address, connections := countConnections(t, a.HTTPS)
	o := ConsulOptions{
		Address: "https://" + address, Wait: 3 * time.Second,
		TLS: TLSOptions{CAFile: a.CAFile, ServerName: testconsul.ServerName},
	}.withDefaults()
	for i := range n {
		o.Watches = append(o.Watches, Watch{Service: fmt.Sprint("s", i),
			Query: Query{Service: "web", Filter: fmt.Sprintf("Service.Port != %d", 1000+i)}})
	}
	r := followNew(t, o)
	testproc.Await(t, "all sets", func() bool { return len(r.got()) == n })
	testproc.Await(t, "end of the first wait", func() bool { return r.consul.Snapshot()[n-1].Queries > 2 })
	for _, s := range r.consul.Snapshot() {
		if s.Errors != 0 || s.Endpoints != 1 {
			t.Errorf("status %+v", s)
		}
	}
	if got := connections.Load(); got < 1 || got > 150 {
		t.Errorf("%d connections for %d watches", got, n)
	}
	t.Logf("%d connections", connections.Load())

	strangers, err := NewConsul(ConsulOptions{Address: o.Address})
	if err != nil {
		t.Fatal(err)
	}
	// A busy agent may need longer for a handshake than its limit.
	testproc.Await(t, "word of the certificate", func() bool {
		err := strangers.Check(t.Context(), Query{Service: "web"})
		if err == nil {
			t.Fatal("served without the private CA")
		}
		return strings.Contains(err.Error(), "certificate")
	})
}

// countConnections forwards connections to the address to until the test ends. countConnections returns its own
// address, and a count of accepted connections.
func countConnections(t *testing.T, to string) (address string, accepted *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = &atomic.Int32{}
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	relay := func(client net.Conn) {
		server, err := net.Dial("tcp", to)
		if err != nil {
			_ = client.Close()
			return
		}
		closeBoth := sync.OnceFunc(func() { _, _ = client.Close(), server.Close() })
		defer context.AfterFunc(ctx, closeBoth)()
		running.Go(func() { defer closeBoth(); _, _ = io.Copy(server, client) })
		defer closeBoth()
		_, _ = io.Copy(client, server)
	}
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			running.Go(func() { relay(client) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		cancel()
		running.Wait()
	})
	return listener.Addr().String(), accepted
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

// A reload must not use up the agent's connections, whichever backend answers.
func TestRealConsulReloadedAHundredTimes(t *testing.T) {
	t.Parallel()
	for _, streaming := range []bool{true, false} {
		t.Run(fmt.Sprint("streaming ", streaming), func(t *testing.T) {
			t.Parallel()
			a := startAgent(t, fmt.Sprintf("use_streaming_backend = %v\n", streaming))
			a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
			watches := func(round int) (all []Watch) {
				for i := range 50 {
					n := i // each reload changes five of fifty services
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
