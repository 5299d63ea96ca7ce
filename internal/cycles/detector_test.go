package cycles

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lictor-proxy/lictor/lb"
)

// A world is a Detector and its environment.
type world struct {
	*testing.T
	*Detector
	names map[string]string // "host" to addresses

	mu    sync.Mutex
	addrs []netip.Prefix
	sets  map[string]lb.Endpoints // the present sets
	out   map[string]string       // "service/id" to the reason why the endpoint is out
}

func newWorld(t *testing.T, addrs ...string) *world {
	w := &world{T: t, names: map[string]string{}, sets: map[string]lb.Endpoints{}, out: map[string]string{}}
	w.setAddrs(addrs...)
	w.Detector = New(Options{
		Changed: func() { w.judge(slices.Collect(maps.Values(w.sets))...) },
		Addrs: func() ([]netip.Prefix, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.addrs, nil
		},
		Lookup: func(_ context.Context, host string) (addrs []netip.Addr, err error) {
			for _, a := range strings.Fields(w.names[host]) {
				addrs = append(addrs, netip.MustParseAddr(a))
			}
			if addrs == nil {
				err = errors.New("no such host")
			}
			return addrs, err
		},
	})
	return w
}

func (w *world) setAddrs(addrs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addrs = nil
	for _, a := range addrs {
		w.addrs = append(w.addrs, netip.MustParsePrefix(a))
	}
}

// listens parses one service a line, such as "web 127.0.0.1:80". A name like "web/udp" is a UDP service, and "admin" is
// the admin API.
func (w *world) listens(lines ...string) {
	w.Helper()
	var services []Service
	var admin []lb.Addr
	for _, line := range lines {
		f := strings.Fields(line)
		s := Service{}
		name, udp := strings.CutSuffix(f[0], "/udp")
		if s.Name = name; udp {
			s.Network = lb.UDP
		}
		for _, a := range f[1:] {
			if address, static := strings.CutPrefix(a, "static="); static {
				s.Static = append(s.Static, endpoint(w.T, address))
				continue
			}
			var addr lb.Addr
			if err := addr.UnmarshalText([]byte(a)); err != nil {
				w.Fatal(err)
			}
			s.Listen = append(s.Listen, addr)
		}
		if s.Name == "admin" {
			admin = s.Listen
			continue
		}
		services = append(services, s)
	}
	w.Listen(services, admin)
}

// endpoint returns an endpoint with its address as its ID.
func endpoint(t *testing.T, address string) lb.Endpoint {
	t.Helper()
	if path, is := lb.UnixPath(address); is {
		return lb.Endpoint{ID: address, Path: path}
	}
	if addr, err := netip.ParseAddrPort(address); err == nil {
		return lb.Endpoint{ID: address, Addr: addr}
	}
	host, port, _ := strings.Cut(address, ":")
	number := netip.MustParseAddrPort("0.0.0.0:" + port).Port()
	return lb.Endpoint{ID: address, Host: host, Addr: netip.AddrPortFrom(netip.Addr{}, number)}
}

// has replaces the endpoints of a service.
func (w *world) has(service string, addresses ...string) {
	w.Helper()
	set := lb.Endpoints{Service: service}
	for _, a := range addresses {
		set.Endpoints = append(set.Endpoints, endpoint(w.T, a))
	}
	w.sets[service] = set
	w.judge(set)
}

func (w *world) judge(updates ...lb.Endpoints) {
	for service, verdicts := range w.Judge(updates) {
		maps.DeleteFunc(w.out, func(key, _ string) bool { return strings.HasPrefix(key, service+" ") })
		for id, v := range verdicts {
			w.out[service+" "+id] = v.Reason + ": " + v.Text
		}
	}
}

// wants compares the left-out endpoints, each written as "service id loop: why".
func (w *world) wants(out ...string) {
	w.Helper()
	got := []string{}
	for key, why := range w.out {
		got = append(got, key+" "+why)
	}
	slices.Sort(got)
	if diff := cmp.Diff(append([]string{}, out...), got); diff != "" {
		w.Errorf("what is out differs (-want +got):\n%s", diff)
	}
}

// check returns the result of Check for one address of a name, as text.
func (w *world) check(service, address, addr string) string {
	e := endpoint(w.T, address)
	return fmt.Sprint(w.Check(service, lb.TCP, e, netip.AddrPortFrom(netip.MustParseAddr(addr), e.Addr.Port())))
}

func TestWhichAddressesLeadBack(t *testing.T) {
	const self = " is where this service listens"
	for _, tt := range []struct{ name, listen, endpoint, want string }{
		{"the very address", "127.0.0.1:80", "127.0.0.1:80", self},
		{"another port", "127.0.0.1:80", "127.0.0.1:81", ""},
		{"another address of loopback", "127.0.0.1:80", "127.0.0.2:80", ""},
		{"an address of an interface", "10.0.0.5:80", "10.0.0.5:80", self},
		{"another host", "10.0.0.5:80", "10.0.0.6:80", ""},
		{"IPv6", "[::1]:80", "[::1]:80", self},
		{"IPv4 in IPv6's clothes", "127.0.0.1:80", "[::ffff:127.0.0.1]:80", self},
		{"a wildcard and loopback", "0.0.0.0:80", "127.0.0.1:80", self},
		{"a wildcard and all of loopback", "0.0.0.0:80", "127.7.7.7:80", self},
		{"a wildcard and an interface", "0.0.0.0:80", "10.0.0.5:80", self},
		{"a wildcard and IPv4 in IPv6's clothes", "0.0.0.0:80", "[::ffff:10.0.0.5]:80", self},
		{"a wildcard and another host", "0.0.0.0:80", "10.0.0.6:80", ""},
		{"an IPv4 wildcard and IPv6", "0.0.0.0:80", "[::1]:80", ""},
		{"an IPv6 wildcard and IPv6", "[::]:80", "[2001:db8::5]:80", self},
		{"an IPv6 wildcard and loopback", "[::]:80", "[::1]:80", self},
		{"an IPv6 wildcard and IPv4", "[::]:80", "10.0.0.5:80", self},
		{"an IPv6 wildcard and another host", "[::]:80", "[2001:db8::6]:80", ""},
		{"one of several listeners", "10.0.0.5:80 127.0.0.1:8080", "127.0.0.1:8080", self},
		{"port 0 is none", "0.0.0.0:0", "127.0.0.1:80", ""},
		{"localhost", "127.0.0.1:80", "localhost:80", "localhost:80 is 127.0.0.1:80, which" + self},
		{"localhost as some write it", "[::1]:80", "LocalHost.:80", "LocalHost.:80 is [::1]:80, which" + self},
		{"localhost elsewhere", "127.0.0.1:80", "localhost:81", ""},
		{"localhost is not all of loopback", "127.0.0.2:80", "localhost:80", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, "127.0.0.1/8", "10.0.0.5/24", "::1/128", "2001:db8::5/64")
			w.listens("web "+tt.listen, "other 127.0.0.1:9999")
			w.has("web", tt.endpoint, "10.9.9.9:80")
			switch want := tt.want; {
			case want == "":
				w.wants()
			case want == self:
				want = unmapped(netip.MustParseAddrPort(tt.endpoint)).String() + self
				fallthrough
			default:
				w.wants("web " + tt.endpoint + " loop: " + want)
			}
		})
	}
}

func TestWhichAddressesAreUnfit(t *testing.T) {
	for address, want := range map[string]string{
		"224.0.0.1:80":        "224.0.0.1:80 is a multicast address",
		"[ff02::1]:80":        "[ff02::1]:80 is a multicast address",
		"0.0.0.0:80":          "0.0.0.0:80 is no host's address",
		"[::]:80":             "[::]:80 is no host's address",
		"[::ffff:0.0.0.0]:80": "0.0.0.0:80 is no host's address",
		"255.255.255.255:80":  "255.255.255.255:80 is a broadcast address",
		"10.0.0.255:80":       "10.0.0.255:80 is the broadcast address of a network of this host",
		"172.16.3.255:80":     "172.16.3.255:80 is the broadcast address of a network of this host",
		"172.16.1.255:80":     "",
		"192.0.2.1:80":        "", // a network of two hosts (RFC 3021)
		"203.0.113.7:80":      "", // a network of one host
		"10.0.1.255:80":       "",
		"[2001:db8::ffff]:80": "",
		"240.0.0.1:80":        "",
		"169.254.169.254:80":  "",
	} {
		w := newWorld(t, "10.0.0.5/24", "172.16.0.9/22", "192.0.2.0/31", "203.0.113.7/32", "2001:db8::5/112")
		w.listens("web 127.0.0.1:9000", "dns/udp 127.0.0.1:9000")
		for _, service := range []string{"web", "dns", "gone"} {
			w.has(service, address)
			if want == "" {
				w.wants()
			} else {
				w.wants(service + " " + address + " address: " + want)
			}
			w.has(service)
		}
	}
}

// A Unix socket at which this Lictor listens is found by any name of its folder.
func TestUnixSockets(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(real, 0o700), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	w.listens("a unix://"+real+"/a", "b 127.0.0.1:2", "admin unix://"+link+"/admin")
	w.has("a", "unix:///run/other")
	w.has("b", "unix://"+real+"/admin", "unix://"+link+"/a")
	w.wants("b unix://" + real + "/admin loop: unix://" + real + "/admin is the admin API of this Lictor")
	w.has("a", "127.0.0.1:2", "unix://"+link+"/a")
	w.wants(`a 127.0.0.1:2 loop: 127.0.0.1:2 is where service "b" listens, which leads back: a -> b -> a`,
		"a unix://"+link+"/a loop: unix://"+real+"/a is where this service listens",
		"b unix://"+real+"/admin loop: unix://"+real+"/admin is the admin API of this Lictor")
}

func TestChains(t *testing.T) {
	w := newWorld(t)
	w.listens("a 127.0.0.1:1", "b 127.0.0.1:2", "c 127.0.0.1:3", "u/udp 127.0.0.1:1", "admin 127.0.0.1:9")
	w.has("a", "127.0.0.1:2", "10.0.0.1:80")
	w.has("b", "127.0.0.1:3")
	w.has("c", "10.0.0.2:80")
	w.has("u", "127.0.0.1:2", "127.0.0.1:9") // a TCP listener
	w.wants()

	w.has("c", "127.0.0.1:1", "10.0.0.2:80")
	w.wants(`c 127.0.0.1:1 loop: 127.0.0.1:1 is where service "a" listens, which leads back: c -> a -> b -> c`)
	w.has("u", "127.0.0.1:1", "127.0.0.1:9")
	w.has("b", "127.0.0.1:3", "127.0.0.1:9")
	w.wants(
		"b 127.0.0.1:9 loop: 127.0.0.1:9 is the admin API of this Lictor",
		`c 127.0.0.1:1 loop: 127.0.0.1:1 is where service "a" listens, which leads back: c -> a -> b -> c`,
		"u 127.0.0.1:1 loop: 127.0.0.1:1 is where this service listens")

	w.has("a", "10.0.0.1:80") // the cause has gone
	w.listens("a 127.0.0.1:1", "b 127.0.0.1:2", "c 127.0.0.1:3", "u/udp 127.0.0.1:4")
	w.wants()
	w.listens("a 127.0.0.1:1 127.0.0.1:3", "b 127.0.0.1:2", "c 127.0.0.1:5", "admin 0.0.0.0:9")
	w.has("a", "127.0.0.1:2")
	w.wants(
		`b 127.0.0.1:3 loop: 127.0.0.1:3 is where service "a" listens, which leads back: b -> a -> b`,
		"b 127.0.0.1:9 loop: 127.0.0.1:9 is the admin API of this Lictor")
	w.judge(lb.Endpoints{Service: "b", Removed: true})
	w.wants()
}

// A user who may register one service cannot remove another service's endpoints.
func TestWhoComesFirst(t *testing.T) {
	const (
		aOut = `a 127.0.0.1:2 loop: 127.0.0.1:2 is where service "b" listens, which leads back: a -> b -> a`
		bOut = `b 127.0.0.1:1 loop: 127.0.0.1:1 is where service "a" listens, which leads back: b -> a -> b`
	)
	listeners := []string{"a 127.0.0.1:1", "b 127.0.0.1:2"}

	t.Run("what has been in", func(t *testing.T) {
		w := newWorld(t)
		w.listens(listeners...)
		w.has("b", "127.0.0.1:1")
		w.has("a", "127.0.0.1:2")
		w.wants(aOut)
		w.has("b", "127.0.0.1:1", "10.0.0.1:80")
		w.wants(aOut)
		w.listens(listeners...)
		w.wants(aOut)
	})
	t.Run("what comes back", func(t *testing.T) {
		w := newWorld(t)
		w.listens(listeners...)
		w.has("b", "127.0.0.1:1")
		w.has("a", "127.0.0.1:2")
		w.has("b") // the instance of b restarts
		w.wants()
		w.has("b", "127.0.0.1:1")
		w.wants(aOut)
	})
	t.Run("what the configuration names", func(t *testing.T) {
		w := newWorld(t)
		w.listens(listeners...)
		w.has("b", "127.0.0.1:1")
		w.wants()
		w.listens("a 127.0.0.1:1 static=127.0.0.1:2", "b 127.0.0.1:2")
		w.has("a", "127.0.0.1:2")
		w.wants(bOut)
	})
	t.Run("by name, of those that come together", func(t *testing.T) {
		w := newWorld(t)
		w.listens(listeners...)
		for service, address := range map[string]string{"a": "127.0.0.1:2", "b": "127.0.0.1:1"} {
			w.sets[service] = lb.Endpoints{Service: service, Endpoints: []lb.Endpoint{endpoint(t, address)}}
		}
		w.judge(w.sets["b"], w.sets["a"])
		w.wants(bOut)
	})
	t.Run("what another process has followed", func(t *testing.T) {
		first, second := newWorld(t), newWorld(t)
		first.listens(listeners...)
		first.has("b", "127.0.0.1:1")
		first.has("a", "127.0.0.1:2")
		second.Prefer(first.Links())
		second.listens(listeners...)
		second.judge(first.sets["a"], first.sets["b"])
		second.wants(aOut)
	})
}

// An endpoint with a host name is judged by its addresses. Check judges an address before each dial. When all addresses
// lead back, the endpoint is out.
func TestHostNames(t *testing.T) {
	const (
		back   = "leads back to this Lictor: "
		whereA = `where service "a" listens, which leads back: b -> a -> b`
		viaA   = "127.0.0.1:1 is " + whereA
	)
	w := newWorld(t, "10.0.0.5/24")
	w.listens("a 127.0.0.1:1", "b 0.0.0.0:2", "c 127.0.0.1:3", "admin 127.0.0.1:9")
	w.has("a", "self.test:1", "b.test:2", "out.test:80", "admin.test:9", "both.test:1", "sink.test:80")
	w.has("b", "a.test:1")
	for _, tt := range []struct{ service, address, addr, want string }{
		{"a", "out.test:80", "192.0.2.1", "<nil>"},
		{"a", "self.test:1", "127.0.0.1", back + "127.0.0.1:1 is where this service listens"},
		{"a", "self.test:1", "::ffff:127.0.0.1", back + "127.0.0.1:1 is where this service listens"},
		{"a", "self.test:1", "127.0.0.2", "<nil>"},
		{"a", "admin.test:9", "127.0.0.1", back + "127.0.0.1:9 is the admin API of this Lictor"},
		{"a", "sink.test:80", "0.0.0.0", "no instance can have the address 0.0.0.0:80, no host's address"},
		{"a", "sink.test:80", "224.0.0.1", "no instance can have the address 224.0.0.1:80, a multicast address"},
		{"a", "b.test:2", "10.0.0.5", "<nil>"}, // a chain of services
		{"a", "b.test:2", "10.0.0.5", "<nil>"},
		{"b", "a.test:1", "127.0.0.1", back + viaA},
		{"c", "a.test:1", "127.0.0.1", "127.0.0.1:1 is a listener of this Lictor"}, // not an endpoint of c
	} {
		if got := w.check(tt.service, tt.address, tt.addr); got != tt.want {
			t.Errorf("%s to %s at %s: got %s, want %s", tt.service, tt.address, tt.addr, got, tt.want)
		}
	}
	w.wants() // a lookup must show first that there are no other addresses

	w.names = map[string]string{
		"self.test": "127.0.0.1", "admin.test": "127.0.0.1 127.0.0.1", "both.test": "127.0.0.1 192.0.2.1",
		"a.test": "127.0.0.1", "b.test": "10.0.0.5", "sink.test": "0.0.0.0",
	}
	w.check("a", "both.test:1", "127.0.0.1")
	w.lookUpNames(t.Context())
	w.wants(
		"a admin.test:9 loop: admin.test:9 is 127.0.0.1:9, which is the admin API of this Lictor",
		"a self.test:1 loop: self.test:1 is 127.0.0.1:1, which is where this service listens",
		"a sink.test:80 address: sink.test:80 is 0.0.0.0:80, which is no host's address",
		"b a.test:1 loop: a.test:1 is 127.0.0.1:1, which is "+whereA)

	w.names = map[string]string{"self.test": "192.0.2.7", "sink.test": "192.0.2.8"}
	w.lookUpNames(t.Context())
	w.wants( // nothing new is known of the other endpoints
		"a admin.test:9 loop: admin.test:9 is 127.0.0.1:9, which is the admin API of this Lictor",
		"b a.test:1 loop: a.test:1 is 127.0.0.1:1, which is "+whereA)
	w.has("a", "out.test:80")
	w.wants()
}

// A name of one service does not affect a service without that name.
func TestHostNamesOfTwoServices(t *testing.T) {
	w := newWorld(t)
	w.listens("a 127.0.0.1:1", "b 127.0.0.1:2")
	w.has("a", "a.test:1")
	w.has("b", "a.test:1")
	w.names["a.test"] = "127.0.0.1"
	if got := w.check("b", "a.test:1", "127.0.0.1"); got != "<nil>" {
		t.Error(got)
	}
	w.lookUpNames(t.Context())
	w.wants("a a.test:1 loop: a.test:1 is 127.0.0.1:1, which is where this service listens")
}

func TestAddressesOfTheHostChange(t *testing.T) {
	w := newWorld(t)
	w.listens("web 0.0.0.0:80")
	w.has("web", "10.0.0.5:80", "10.0.0.255:80")
	w.wants()
	w.setAddrs("10.0.0.5/24")
	w.readHost()
	w.wants("web 10.0.0.255:80 address: 10.0.0.255:80 is the broadcast address of a network of this host",
		"web 10.0.0.5:80 loop: 10.0.0.5:80 is where this service listens")
	w.setAddrs("10.0.0.6/24")
	w.readHost()
	w.wants("web 10.0.0.255:80 address: 10.0.0.255:80 is the broadcast address of a network of this host")
}

// Even with concurrent checks, two services never become each other's endpoints.
func TestChecksAtOnce(t *testing.T) {
	w := newWorld(t)
	w.listens("a 127.0.0.1:1", "b 127.0.0.1:2")
	w.has("a", "b.test:2")
	w.has("b", "a.test:1")
	var running sync.WaitGroup
	results := make(chan string, 200)
	for range 100 {
		running.Go(func() { results <- "a " + w.check("a", "b.test:2", "127.0.0.1") })
		running.Go(func() { results <- "b " + w.check("b", "a.test:1", "127.0.0.1") })
	}
	running.Wait()
	close(results)
	allowed := map[string]bool{}
	for r := range results {
		if service, passed := strings.CutSuffix(r, " <nil>"); passed {
			allowed[service] = true
		}
	}
	if len(allowed) != 1 {
		t.Errorf("dials were allowed to %v, want one of them", allowed)
	}
}
