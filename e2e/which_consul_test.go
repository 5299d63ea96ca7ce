//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
	"github.com/lictor-proxy/lictor/internal/testproc"
)

// serversBlock is a consul block with the servers as addresses, beginning with the given one.
func (c *cluster) serversBlock(first int) string {
	var all []string
	for i := range c.servers {
		all = append(all, fmt.Sprintf("%q", c.servers[(first+i)%len(c.servers)].HTTP))
	}
	return fmt.Sprintf("consul {\n  address = [%s]\n}\n", strings.Join(all, ", "))
}

// consulAt returns the address of Consul that l uses, as the API shows it.
func (l *lictor) consulAt(t *testing.T, address string) (at struct {
	Address, From, Why string
	Moves              int
}) {
	t.Helper()
	var all struct {
		Status struct{ Consul any }
	}
	all.Status.Consul = &at
	_, text := l.ask(t, "status", "-json", "-admin", address)
	must(t, json.Unmarshal([]byte(text), &all))
	return at
}

// awaitAt waits until l uses a server.
func (l *lictor) awaitAt(t *testing.T, address string, server *testconsul.Agent) {
	t.Helper()
	eventually(t, "lictor uses "+server.HTTP, func() error {
		if at := l.consulAt(t, address); at.Address != "http://"+server.HTTP {
			return fmt.Errorf("it uses %+v", at)
		}
		return nil
	})
}

// awaitName waits until the service at addr has the instance called name.
func awaitName(t *testing.T, addr netip.AddrPort, name string) {
	t.Helper()
	eventually(t, "a client of "+name, func() error {
		if got, err := ask(t.Context(), addr); err != nil || got != name {
			return fmt.Errorf("got %s, %v", got, err)
		}
		return nil
	})
}

// allServersVar makes TestServersInUseAreStopped stop each server, which takes more than a minute, and not only one.
const allServersVar = "LICTOR_E2E_ALL_SERVERS"

// outage kills or stops the server that l uses, and checks that l moves and finds a new instance, while clients work.
func (c *cluster) outage(t *testing.T, l *lictor, address string, server int, fault func(*testconsul.Agent)) {
	t.Helper()
	web, victim := l.addr(t, "web"), c.servers[server]
	l.awaitAt(t, address, victim)
	leads := c.leader(t) == server
	begun := time.Now()
	fault(victim)
	var at string
	within(t, patience, "lictor leaves "+victim.HTTP, func() error {
		now := l.consulAt(t, address)
		if at = now.Address; at == "http://"+victim.HTTP {
			return errors.New("it stays")
		}
		if now.From != "http://"+victim.HTTP || now.Why == "" || now.Moves == 0 {
			t.Errorf("status says %+v", now)
		}
		return nil
	})
	moved := time.Since(begun)
	name := fmt.Sprintf("new-%d", server)
	c.register(t, name, startEcho(t, name).addr)
	known := time.Now()
	awaitName(t, web, name)
	t.Logf("server %d (leader: %v): moved after %v, to %s; the new instance had a client %v after the agent knew it, "+
		"%v after the fault", server, leads, moved.Round(time.Millisecond), at,
		time.Since(known).Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
}

// Each of three servers, which Lictor uses without an agent of its own, is killed in turn. Lictor moves to another one,
// finds new instances there, and goes back when it is reloaded. No client notices.
func TestServersInUseAreKilled(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections")
	}
	c := startCluster(t)
	c.register(t, "a", startEcho(t, "a").addr)
	rest := adminBlock + service("web")
	l := runLictor(t, c.serversBlock(0)+rest)
	address := l.adminAddress(t)
	clients := startWorkers(t, l.addr(t, "web"), 10)
	for i := range c.servers {
		if i > 0 {
			l.mustReload(t, c.serversBlock(i)+rest)
		}
		c.outage(t, l, address, i, (*testconsul.Agent).Kill)
		must(t, c.servers[i].Restart(t.Context()))
		must(t, c.servers[i].Ready(t.Context()))
		before := l.consulAt(t, address)
		clients.awaitRounds(t, 10)
		if at := l.consulAt(t, address); at != before {
			t.Errorf("lictor went back by itself: %+v", at)
		}
		_, text := l.ask(t, "reload", "-admin", address)
		if !strings.Contains(text, "consul at http://"+c.servers[i].HTTP) {
			t.Errorf("reload says %q", text)
		}
		l.awaitAt(t, address, c.servers[i])
	}
	_, events := l.ask(t, "events", "-admin", address)
	for _, s := range c.servers {
		if want := "instead of http://" + s.HTTP; !strings.Contains(events, want) {
			t.Errorf("no %q in the events:\n%s", want, events)
		}
	}
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
}

// A server that is stopped accepts connections and never answers. The probe finds it.
func TestServersInUseAreStopped(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for probes")
	}
	c := startCluster(t)
	c.register(t, "a", startEcho(t, "a").addr)
	rest := adminBlock + service("web")
	l := runLictor(t, c.serversBlock(0)+rest)
	address := l.adminAddress(t)
	clients := startWorkers(t, l.addr(t, "web"), 10)
	victims := len(c.servers)
	if os.Getenv(allServersVar) == "" {
		victims = 1
	}
	for i := range victims {
		if i > 0 {
			l.mustReload(t, c.serversBlock(i)+rest)
		}
		c.outage(t, l, address, i, func(a *testconsul.Agent) { must(t, testproc.Freeze(a.Pid())) })
		must(t, c.servers[i].Signal(syscall.SIGCONT))
		must(t, c.servers[i].Ready(t.Context()))
	}
	clients.stop()
	if n := len(clients.errors); n > 0 {
		t.Fatalf("%d errors of clients, the first: %v", n, <-clients.errors)
	}
}
