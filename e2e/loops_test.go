//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// leftOut returns the lines of the log about endpoints that are left out because they lead back.
func (l *lictor) leftOut() (lines []string) {
	for _, e := range l.log() {
		if strings.HasPrefix(e.field("@message"), "endpoint left out") {
			lines = append(lines, fmt.Sprintf("%s %s: %s", e.field("service"), e.field("endpoint"), e.field("reason")))
		}
	}
	return lines
}

// wantWarnings fails the test unless the log has one line for each endpoint that was left out. Each of want has the
// form "service endpoint: reason".
func (l *lictor) wantWarnings(t testing.TB, want ...string) {
	t.Helper()
	if got := l.leftOut(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("warnings:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// registerAt is register for an address that is not an IP address, such as a name.
func (c *consul) registerAt(t testing.TB, service, id, host string, port uint16) {
	t.Helper()
	there := func(r *api.AgentServiceRegistration) { r.Address = host }
	c.register(t, service, id, netip.AddrPortFrom(netip.IPv4Unspecified(), port), there)
}

// here is the reason for an endpoint that is a listener of its own service.
func here(addr netip.AddrPort) string { return addr.String() + " is where this service listens" }

// around returns the reason for an endpoint that is a listener of the service next, which leads back.
func around(addr netip.AddrPort, next, way string) string {
	return fmt.Sprintf("%s is where service %q listens, which leads back: %s", addr, next, way)
}

// An instance in Consul that is the service's own listener gets no clients, in whatever form its address is written.
// The other instance serves.
func TestInstanceAtTheListenerGetsNoClients(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, name := range []string{"tcp", "all", "name"} {
		c.register(t, name, name+"-good", startEcho(t, "good").addr)
	}
	c.register(t, "udp", "udp-good", startUDP(t, "good").addr)
	l := runLictor(t, consulBlock(c)+service("tcp")+service("udp", udp)+service("name")+
		serviceAt("all", netip.MustParseAddrPort("0.0.0.0:0")))
	tcp, datagrams, all, name := l.addr(t, "tcp"), l.addr(t, "udp"), l.addr(t, "all"), l.addr(t, "name")
	c.register(t, "tcp", "tcp-self", tcp)
	l.awaitAnswer(t, "explain tcp", 0, "tcp: 1 of 2 known endpoints gets clients",
		"OUT  test/tcp-self at "+tcp.String(), "     loop for ", ": "+here(tcp), "test/tcp-self: "+here(tcp))
	c.register(t, "udp", "udp-self", datagrams)
	l.awaitAnswer(t, "explain udp", 0, "OUT  test/udp-self", here(datagrams))
	near := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.77"), all.Port())
	c.register(t, "all", "all-self", near)
	l.awaitAnswer(t, "explain all", 0, "OUT  test/all-self", here(near))
	c.registerAt(t, "name", "name-self", "localhost", name.Port())
	byName := fmt.Sprintf("localhost:%d is %s, which is where this service listens", name.Port(), name)
	l.awaitAnswer(t, "explain name", 0, "OUT  test/name-self", byName)

	for _, addr := range []netip.AddrPort{tcp, near, name} {
		wantCounts(t, addr, map[string]int{"good": 6})
	}
	for range 6 {
		dialUDP(t, datagrams).awaitAnswer(t, "good")
	}
	l.wantWarnings(t, "tcp test/tcp-self: "+here(tcp), "udp test/udp-self: "+here(datagrams),
		"all test/all-self: "+here(near), "name test/name-self: "+byName)

	// Without another instance, clients are refused at once, and no connection goes round.
	c.deregister(t, "tcp-good")
	c.deregister(t, "udp-good")
	l.awaitAnswer(t, "explain tcp", 1, "0 of 1 known endpoint")
	l.awaitAnswer(t, "explain udp", 1, "0 of 1 known endpoint")
	if got, err := ask(t.Context(), tcp); err == nil {
		t.Errorf("%s answers", got)
	}
	_, _ = dialUDP(t, datagrams).Write(who)
	l.awaitAnswer(t, "status -json", 4, `"connections_active": 0`)
	c.deregister(t, "tcp-self")
	c.register(t, "tcp", "tcp-new", startEcho(t, "new").addr)
	awaitRotation(t, tcp, "new")
}

// Of two services that are each other's instances, the first one keeps its endpoint, and the later one loses it.
func TestTwoServicesThatAreEachOthersInstances(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	c.register(t, "a", "a-good", startEcho(t, "a-good").addr)
	end := endpoints(startEcho(t, "end"))
	l := runLictor(t, consulBlock(c)+service("a")+service("b")+service("chain")+service("first", end))
	a, b, chain := l.addr(t, "a"), l.addr(t, "b"), l.addr(t, "chain")
	c.register(t, "b", "b-to-a", a)
	awaitRotation(t, b, "a-good")
	c.register(t, "chain", "to-first", l.addr(t, "first"))
	awaitRotation(t, chain, "end")

	c.register(t, "a", "a-to-b", b)
	l.awaitAnswer(t, "explain a", 0, "OUT  test/a-to-b", around(b, "b", "a -> b -> a"))
	wantCounts(t, a, map[string]int{"a-good": 4})
	wantCounts(t, b, map[string]int{"a-good": 4})
	l.wantWarnings(t, "a test/a-to-b: "+around(b, "b", "a -> b -> a"))

	c.register(t, "b", "b-good", startEcho(t, "b-good").addr)
	c.deregister(t, "b-to-a") // without the cause, a's other endpoint gets clients again
	awaitRotation(t, a, "a-good", "b-good")
	wantCounts(t, chain, map[string]int{"end": 2})
}

// The addresses of a host name are checked before they are dialled. The first clients that meet a name that leads back
// get another instance, and then the endpoint is left out.
func TestHostNameThatLeadsBackGetsNoClients(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	must(t, err)
	addrs, err := net.DefaultResolver.LookupNetIP(t.Context(), "ip", host)
	if err != nil || strings.EqualFold(host, "localhost") {
		t.Skipf("this host's name, %s, tells nothing: %v", host, err)
	}
	c := startConsul(t, testconsul.Options{})
	for _, a := range addrs[1:] {
		if a.Unmap() != addrs[0].Unmap() {
			t.Skipf("%s has several addresses: %v", host, addrs)
		}
	}
	listen := netip.AddrPortFrom(addrs[0].Unmap(), 0)
	l := runLictor(t, consulBlock(c)+serviceAt("tcp", listen)+serviceAt("udp", listen, udp))
	tcp, datagrams := l.addr(t, "tcp"), l.addr(t, "udp")
	c.register(t, "tcp", "tcp-good", startEcho(t, "good").addr)
	c.register(t, "udp", "udp-good", startUDP(t, "good").addr)
	c.registerAt(t, "tcp", "tcp-named", host, tcp.Port())
	c.registerAt(t, "udp", "udp-named", host, datagrams.Port())
	for name, addr := range map[string]netip.AddrPort{"tcp": tcp, "udp": datagrams} {
		l.awaitAnswer(t, "explain "+name, 0, "test/"+name+"-named", "test/"+name+"-good")
		eventually(t, name+"-named is left out", func() error {
			if name == "tcp" {
				wantCounts(t, addr, map[string]int{"good": 2})
			} else {
				dialUDP(t, addr).awaitAnswer(t, "good")
			}
			_, text := l.ask(t, "explain", name)
			why := fmt.Sprintf("%s:%d is %s, which is where this service listens", host, addr.Port(), addr)
			for _, want := range []string{"OUT  test/" + name + "-named", why} {
				if !strings.Contains(text, want) {
					return fmt.Errorf("no %q in:\n%s", want, text)
				}
			}
			return nil
		})
	}
	if n := len(l.leftOut()); n != 2 {
		t.Errorf("%d warnings, want one for each:\n%v", n, l.leftOut())
	}
}

// A source whose only instance leads back counts as empty, so the next source is used.
func TestServiceFailsOverFromWhatLeadsBack(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	addr := freePort(t)
	c.register(t, "web", "self", addr)
	fallback := endpoints(startEcho(t, "fallback"))
	l := runLictor(t, consulBlock(c)+serviceAt("web", addr, "failback_hold = \"0s\"", "consul {}", fallback))
	awaitRotation(t, addr, "fallback")
	c.register(t, "web", "good", startEcho(t, "good").addr)
	eventually(t, "the first source is used again", func() error { return counted(t, addr, map[string]int{"good": 2}) })
	l.awaitAnswer(t, "explain web", 0, "IN   test/good", "OUT  test/self", here(addr))
}

// An instance whose address is the admin API gets no clients, so a registration does not open the API to them.
func TestAdminAPIIsNobodysInstance(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	admin := freePort(t)
	good := startEcho(t, "good")
	c.register(t, "web", "good", good.addr)
	c.register(t, "web", "admin", admin)
	c.registerAt(t, "web", "named", "localhost", admin.Port())
	config := consulBlock(c) + fmt.Sprintf("admin { listen = %q }\n", admin) + service("web")
	l := runLictor(t, config)
	code, out := l.ask(t, "explain", "web", "-admin", admin.String())
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	wantTexts(t, out, "1 of 3 known endpoints", "OUT  test/admin at "+admin.String(),
		admin.String()+" is the admin API",
		fmt.Sprintf("localhost:%d is %s, which is the admin API of this Lictor", admin.Port(), admin))
	wantCounts(t, l.addr(t, "web"), map[string]int{"good": 6})
	c.deregister(t, "good")
	eventually(t, "the good one is gone", func() error {
		if _, out := l.ask(t, "explain", "web", "-admin", admin.String()); !strings.Contains(out, "0 of 2") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	wantNothing(t, l.addr(t, "web"))

	// A reload moves the API to the address of an instance.
	other := freePort(t)
	c.register(t, "web", "other", other)
	l.mustReload(t, strings.Replace(config, admin.String(), other.String(), 1))
	_, out = l.ask(t, "explain", "web", "-admin", other.String())
	wantTexts(t, out, "OUT  test/other at "+other.String(), other.String()+" is the admin API",
		"IN   test/admin at "+admin.String())
	wantNothing(t, l.addr(t, "web"))
}

// wantNothing fails the test if a request over HTTP gets an answer.
func wantNothing(t testing.TB, addr netip.AddrPort) {
	t.Helper()
	conn, err := net.Dial("tcp", addr.String())
	if err != nil { // it was reset at once
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, "GET /healthz HTTP/1.0\r\n\r\n") // it fails after a reset
	if b, _ := io.ReadAll(conn); len(b) > 0 {
		t.Errorf("somebody answers: %q", b)
	}
}

// A reload may make an endpoint lead back, and a later one may end that, over TCP and UDP.
func TestReloadMakesAndUnmakesALoop(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for _, protocol := range []string{"tcp", "udp"} {
		t.Run(protocol, func(t *testing.T) {
			one, two := freePort(t), freePort(t)
			name := protocol
			spoken := fmt.Sprintf("protocol = %q", protocol)
			at := func(addr netip.AddrPort) string { return consulBlock(c) + serviceAt(name, addr, spoken) }
			c.register(t, name, name+"-two", two)
			l := runLictor(t, at(one))
			l.awaitAnswer(t, "explain "+name, 0, "IN   test/"+name+"-two")
			l.mustReload(t, at(two))
			l.awaitAnswer(t, "explain "+name, 1, "OUT  test/"+name+"-two", here(two))
			l.mustReload(t, at(one))
			l.awaitAnswer(t, "explain "+name, 0, "IN   test/"+name+"-two", "gets clients again")
			// The endpoints of the configuration come first.
			l.mustReload(t, at(one)+serviceAt("other", two, spoken, fmt.Sprintf("static { endpoints = [%q] }", one)))
			l.awaitAnswer(t, "explain other", 0, "IN   "+one.String())
			l.awaitAnswer(t, "explain "+name, 1, around(two, "other", name+" -> other -> "+name))
		})
	}
}

// A set that was saved or handed over is checked like any other, because the listener may have changed meanwhile.
func TestSavedAndHandedSetsMayLeadBack(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	one, two := freePort(t), freePort(t)
	good := startEcho(t, "good")
	c.register(t, "web", "two", two)
	c.register(t, "web", "good", good.addr)
	dir := filepath.Join(t.TempDir(), "state")
	at := func(addr netip.AddrPort) string {
		return fmt.Sprintf("state_dir = %q\n", dir) + consulBlock(c) + serviceAt("web", addr)
	}
	d := found(t, at(one))
	awaitSaved(t, dir, two.String(), good.addr.String())
	if code, out := d.command(t, "explain", "web"); code != 0 || !strings.Contains(out, "2 of 2") {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	c.pause(t) // from here on Lictor knows only what is saved
	d.configure(t, at(two))
	d.upgrade(t)
	_, out := d.command(t, "explain", "web")
	wantTexts(t, out, "1 of 2 known endpoints", "OUT  test/two", here(two))
	wantCounts(t, two, map[string]int{"good": 4})
	must(t, syscall.Kill(d.pid(t), syscall.SIGKILL))

	l := startLictor(t, at(two))
	l.awaitAnswer(t, "explain web", 0, "1 of 2 known endpoints", "OUT  test/two", here(two))
	wantCounts(t, two, map[string]int{"good": 4})
	c.resume(t)
	l.awaitReady(t)
	wantCounts(t, two, map[string]int{"good": 4})
	l.wantWarnings(t, "web test/two: "+here(two))
}

// An upgrade keeps the order in which the endpoints of two services came.
func TestUpgradeKeepsWhoWasFirst(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	a, b := freePort(t), freePort(t)
	c.register(t, "b", "b-to-a", a)
	d := found(t, consulBlock(c)+serviceAt("a", a)+serviceAt("b", b))
	c.register(t, "a", "a-to-b", b) // by its name it would come first
	out := func() string { _, out := d.command(t, "explain", "a"); return out }
	eventually(t, "it is left out", func() error {
		if text := out(); !strings.Contains(text, "OUT  test/a-to-b") {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	d.upgrade(t)
	wantTexts(t, out(), "OUT  test/a-to-b")
	_, text := d.command(t, "explain", "b")
	wantTexts(t, text, "IN   test/b-to-a")
}

func TestValidateLiveSaysWhatLeadsBack(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	web, admin := freePort(t), freePort(t)
	c.register(t, "web", "self", web)
	c.register(t, "web", "good", startEcho(t, "good").addr)
	c.registerAt(t, "web", "admin", "localhost", admin.Port())
	c.register(t, "back", "back", web)
	config := consulBlock(c) + fmt.Sprintf("admin { listen = %q }\n", admin) + serviceAt("web", web) +
		serviceAt("back", freePort(t))
	code, out := validateLive(t, config)
	if code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantTexts(t, out, "web: 1 of 3 instances", "in   test/good", "out  test/self  loop: "+here(web),
		"out  test/admin  loop: ", "the admin API of this Lictor", "back: 1 of 1 instance",
		"Endpoint left out", `Service "web": test/self gets no clients: `+here(web))
	_, out = validateLive(t, config, "-json")
	wantTexts(t, out, `"summary": "Endpoint left out"`, "test/self gets no clients")
}

// An endpoint with an address at which no instance can be gets no clients, and the log says so.
func TestAddressesThatAreNoInstances(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	c := startConsul(t, testconsul.Options{})
	for i, address := range []string{"224.0.0.1", "255.255.255.255", "ff02::1"} {
		c.registerAt(t, "web", fmt.Sprint("bad-", i), address, 80)
	}
	l := runLictor(t, consulBlock(c)+service("web"))
	l.awaitAnswer(t, "explain web", 1, "0 of 3 known endpoints", "address 224.0.0.1 is not that of a host",
		"address 255.255.255.255 is not that of a host", "address ff02::1 is not that of a host")
}
