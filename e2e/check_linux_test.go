package e2e

import (
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// A database is an instance at an address of its own, with an HTTP server beside it that says whether it is the
// primary. All databases have the same HTTP port.
type database struct {
	*instance
	status atomic.Int32 // 0: it closes the connection
	silent atomic.Int32 // how many requests it gave no answer
}

// startDatabase starts a database at 127.0.0.LAST, with its HTTP server at port; 0: a free one. It returns the port.
func startDatabase(t *testing.T, name string, last byte, port int, status int32) (*database, int) {
	t.Helper()
	ip := net.IPv4(127, 0, 0, last)
	d := &database{instance: startTCPAt(t, ip, name, echo)}
	d.status.Store(status)
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip, Port: port})
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := d.status.Load()
		if status == 0 || r.URL.Path != "/primary" {
			d.silent.Add(1)
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(int(status))
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return d, l.Addr().(*net.TCPAddr).Port
}

// startDatabases starts a, which is the primary, and b, which is not. Both are critical in Consul. It returns a
// configuration whose service db asks them.
func startDatabases(t *testing.T) (a, b *database, config string) {
	t.Helper()
	c := startConsul(t, testconsul.Options{})
	a, port := startDatabase(t, "a", 2, 0, 200)
	b, _ = startDatabase(t, "b", 3, port, 503)
	critical := func(r *api.AgentServiceRegistration) {
		r.Check = &api.AgentServiceCheck{TTL: "1h", Status: api.HealthCritical}
	}
	for name, d := range map[string]*database{"a": a, "b": b} {
		c.register(t, "db", name, d.addr, critical)
	}
	return a, b, consulBlock(c) + service("db", `on_leave = "cut"`,
		`consul { statuses = ["passing", "critical"] }`,
		fmt.Sprintf("check {\n    http = \"/primary\"\n    port = %d\n    interval = \"50ms\"\n  }", port))
}

// What instances say of themselves decides who gets clients, whatever Consul says.
func TestAnHTTPCheckDecidesWhoIsThePrimary(t *testing.T) {
	a, b, config := startDatabases(t)
	l := runLictor(t, config)
	db := l.addr(t, "db")
	awaitRotation(t, db, "a")
	l.awaitAnswer(t, "explain db", 0, "test/b", "/primary: status 503")
	client := reach(t, db, "a")
	client.mustEcho(t, "hello")

	a.status.Store(0) // its REST API restarts, and it goes on
	eventually(t, "three checks without an answer", func() error {
		if n := a.silent.Load(); n < 3 {
			return fmt.Errorf("there were %d", n)
		}
		return nil
	})
	l.awaitAnswer(t, "explain db", 0, "test/a", "healthy")
	client.mustEcho(t, "still there")
	wantCounts(t, db, map[string]int{"a": 5})

	a.status.Store(503)
	b.status.Store(200)
	client.awaitReset(t)
	awaitRotation(t, db, "b")
	l.awaitAnswer(t, "events db", 0, "test/a: GET http://127.0.0.2:", "test/b gets clients again")
}

// Connections that stay in the former process after an upgrade end as well when their endpoint fails its check.
func TestAnHTTPCheckHoldsForConnectionsFromBeforeAnUpgrade(t *testing.T) {
	a, b, config := startDatabases(t)
	d := found(t, config)
	awaitRotation(t, d.addr(t, "db"), "a")
	client := reach(t, d.addr(t, "db"), "a")
	d.upgrade(t)
	client.mustEcho(t, "hello")
	a.status.Store(503)
	b.status.Store(200)
	client.awaitReset(t)
	awaitRotation(t, d.addr(t, "db"), "b")
}
