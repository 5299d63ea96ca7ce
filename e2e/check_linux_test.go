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

// A database is an instance with its own address. An HTTP server at that address says whether the database is the
// primary. All databases have the same HTTP port.
type database struct {
	*instance
	status atomic.Int32 // of the HTTP answers; 0: the server closes the connection instead
	silent atomic.Int32 // number of requests that got no answer
}

// startDatabase starts a database at 127.0.0.LAST, with its HTTP server at port, or at a free port if port is 0.
// startDatabase returns that port.
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

// databases are a, which is the primary, and b, which is not. Both are critical in Consul.
type databases struct {
	a, b   *database
	port   int // of their HTTP servers
	consul *consul
}

func startDatabases(t *testing.T) *databases {
	t.Helper()
	d := &databases{consul: startConsul(t, testconsul.Options{})}
	d.a, d.port = startDatabase(t, "a", 2, 0, 200)
	d.b, _ = startDatabase(t, "b", 3, d.port, 503)
	critical := func(r *api.AgentServiceRegistration) {
		r.Check = &api.AgentServiceCheck{TTL: "1h", Status: api.HealthCritical}
	}
	d.consul.register(t, "db", "a", d.a.addr, critical)
	d.consul.register(t, "db", "b", d.b.addr, critical)
	return d
}

// config returns a configuration whose service db checks the databases. The lines are added to the service.
func (d *databases) config(lines ...string) string {
	check := fmt.Sprintf("check {\n    http = \"/primary\"\n    port = %d\n    interval = \"50ms\"\n  }", d.port)
	lines = append(lines, `on_leave = "cut"`, `consul { statuses = ["passing", "critical"] }`, check)
	return consulBlock(d.consul) + service("db", lines...)
}

// While all instances of the first source fail their check, the next source serves. The service returns when one of
// them passes it.
func TestBackupServesWhileAllFailTheirHTTPCheck(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	d := startDatabases(t)
	backup, _ := startDatabase(t, "backup", 4, d.port, 200)
	l := runLictor(t, d.config(`failback_hold = "1s"`, static(backup.addr)))
	db := l.addr(t, "db")
	awaitRotation(t, db, "a")

	d.a.status.Store(503)
	awaitRotation(t, db, "backup")
	if served, failed := load(t, db, 100, nil); failed > 0 || served["backup"] != 100 {
		t.Errorf("%d of 100 clients failed, want none: %v", failed, served)
	}
	l.awaitAnswer(t, "status", 0, "served by static: all 2 endpoints of the agent's datacenter fail from here")
	d.b.status.Store(200)
	awaitRotation(t, db, "b")
	l.awaitAnswer(t, "explain db", 0, "source 2, static: not in use")
}

// The HTTP answers of the instances decide which one gets clients, whatever their status in Consul is.
func TestAnHTTPCheckDecidesWhoIsThePrimary(t *testing.T) {
	t.Parallel()
	all := startDatabases(t)
	a, b := all.a, all.b
	l := runLictor(t, all.config())
	db := l.addr(t, "db")
	awaitRotation(t, db, "a")
	l.awaitAnswer(t, "explain db", 0, "test/b", "/primary: status 503")
	client := reach(t, db, "a")
	client.mustEcho(t, "hello")

	a.status.Store(0) // the REST API restarts, and the database continues
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

// After an upgrade, the old process also ends its connections when their endpoint fails its check.
func TestAnHTTPCheckHoldsForConnectionsFromBeforeAnUpgrade(t *testing.T) {
	t.Parallel()
	all := startDatabases(t)
	a, b := all.a, all.b
	d := found(t, all.config())
	awaitRotation(t, d.addr(t, "db"), "a")
	client := reach(t, d.addr(t, "db"), "a")
	d.upgrade(t)
	client.mustEcho(t, "hello")
	a.status.Store(503)
	b.status.Store(200)
	client.awaitReset(t)
	awaitRotation(t, d.addr(t, "db"), "b")
}

// An instance whose HTTP server is silent for a while, as when Patroni restarts, keeps its clients over an upgrade.
func TestSilenceIsForgivenOverAnUpgrade(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	all := startDatabases(t)
	d := found(t, all.config())
	awaitRotation(t, d.addr(t, "db"), "a")
	(&lictor{runtime: d.runtime}).awaitAnswer(t, "explain db", 0, "test/b", "/primary: status 503")
	all.a.status.Store(0)
	all.b.status.Store(0)
	d.upgrade(t)
	before := all.a.silent.Load()
	eventually(t, "three checks of the new process", func() error {
		if n := all.a.silent.Load(); n < before+3 {
			return fmt.Errorf("there were %d", n-before)
		}
		return nil
	})
	wantCounts(t, d.addr(t, "db"), map[string]int{"a": 5})
}
