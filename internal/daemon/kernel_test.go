package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/admin"
	"github.com/lictor-proxy/lictor/internal/kernel"
	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy"
)

// A noteKernel is a kernel path that only notes what it has.
type noteKernel struct {
	refuses error // what Set returns

	mu       sync.Mutex
	services map[string]kernel.Service
	sets     [][]string      // the endpoints of each Set of a service "web"
	counters kernel.Counters // of each service
	cut      []uint64        // keys of endpoints whose connections were cut
	closed   bool
	yielded  bool

	cannotCut       error // what CanCut returns
	changedProtocol bool  // a service changed its protocol, which is not allowed
	left            []kernel.EndpointCounters

	sockets    []kernel.Socket // what Sockets returns
	cannotList error
}

func (n *noteKernel) Set(s kernel.Service) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuses == nil {
		was, is := n.services[s.Name]
		n.changedProtocol = n.changedProtocol || is && was.UDP != s.UDP
		for _, e := range n.services[s.Name].Endpoints { // their counters stay
			n.left = append(n.left, kernel.EndpointCounters{Key: e.Key, Left: true})
		}
		n.services[s.Name] = s
		if s.Name == "web" {
			n.sets = append(n.sets, addressesOf(s))
		}
	}
	return n.refuses
}

func (n *noteKernel) Remove(service string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.services, service)
	return nil
}

func (n *noteKernel) Counters(service string) (kernel.Counters, []kernel.EndpointCounters) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, is := n.services[service]
	if !is {
		return kernel.Counters{}, nil
	}
	var each []kernel.EndpointCounters
	for _, e := range s.Endpoints {
		each = append(each, kernel.EndpointCounters{Key: e.Key, Counters: kernel.Counters{Open: 1, Picks: 2}})
	}
	return n.counters, append(each, n.left...)
}

func (n *noteKernel) Sockets(context.Context) ([]kernel.Socket, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sockets), n.cannotList
}

func (n *noteKernel) Cut(_ string, keys []uint64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = append(n.cut, keys...)
	return len(keys), nil
}

func (n *noteKernel) CanCut(bool) error { return n.cannotCut }

func (n *noteKernel) Yield() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.yielded = true
	return nil
}

func (n *noteKernel) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return nil
}

// has returns the endpoints of a service on the path, in order.
func (n *noteKernel) has(service string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return addressesOf(n.services[service])
}

func (n *noteKernel) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.sets)
}

func (n *noteKernel) setAt(i int) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sets[i]
}

func addressesOf(s kernel.Service) (addrs []string) {
	for _, e := range s.Endpoints {
		addrs = append(addrs, e.Addr.String())
	}
	slices.Sort(addrs)
	return addrs
}

// A keptKernel is a keeper with what is around it.
type keptKernel struct {
	*kernelKeeper
	note   *noteKernel
	opens  int
	failed error // what open returns
}

func keepKernel(t *testing.T) *keptKernel {
	t.Helper()
	b := lb.NewRoundRobin()
	p := lb.NewProber(b)
	t.Cleanup(p.Close)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	x := &keptKernel{kernelKeeper: &kernelKeeper{
		log: hclog.NewNullLogger(), balancer: b, resolver: p.Resolver, try: p.TryEjected,
		admit:     func(string, proxy.Protocol, lb.Endpoint, netip.AddrPort) error { return nil },
		start:     func(f func(context.Context)) { running.Go(func() { f(ctx) }) },
		earlier:   &ledger{},
		wake:      make(chan struct{}, 1),
		listeners: func() []proxy.Listener { return []proxy.Listener{listenerOf("web"), listenerOf("db")} },
		services:  map[string]*kernelService{}, off: map[string]string{}, told: map[string]bool{},
		looking: map[string]bool{}, past: map[string]kernel.Counters{}, cut: map[string]int64{},
	}}
	x.open = func(kernel.Options) (kernelPath, error) {
		if x.opens++; x.failed != nil {
			return nil, x.failed
		}
		x.note = &noteKernel{services: map[string]kernel.Service{}}
		return x.note, nil
	}
	b.NotifyChoices(x.changed)
	running.Go(func() { x.run(ctx) })
	return x
}

func listenerOf(service string) proxy.Listener {
	return proxy.Listener{Service: service, Addr: lb.Addr{AddrPort: netip.MustParseAddrPort("127.0.0.1:9000")}}
}

// use makes the keeper use a configuration, as the start and a reload do.
func (x *keptKernel) use(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg := mustParse(t, text)
	s, err := x.prepare(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Commit()
	return cfg
}

func (x *keptKernel) update(service string, endpoints ...lb.Endpoint) {
	x.balancer.OnUpdate([]lb.Endpoints{{Service: service, Endpoints: endpoints}})
}

func (x *keptKernel) await(t *testing.T, service string, want ...string) {
	t.Helper()
	has := func() bool { return slices.Equal(x.note.has(service), want) }
	testproc.Await(t, "the endpoints on the kernel path", has)
}

// key returns the key of an endpoint on the kernel path, by its ID.
func (x *keptKernel) key(service, id string) uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	for key, m := range x.services[service].members {
		if m.ID == id {
			return key
		}
	}
	return 0
}

func at(addr string) lb.Endpoint { return lb.Endpoint{ID: addr, Addr: netip.MustParseAddrPort(addr)} }

const (
	pathOfTwo = "kernel_path = \"auto\"\nservice \"web\" { listen = 9000 }\nservice \"db\" { listen = 9001 }\n"
	pathOfOne = "service \"web\" {\nlisten = 9000\nkernel_path = \"auto\"\n}\nservice \"db\" { listen = 9001 }\n"
	pathOff   = "service \"web\" { listen = 9000 }\nservice \"db\" { listen = 9001 }\n"
)

// TestKernelPathFollowsTheBalancer checks that the kernel path has what a pick could return, after updates, ejections
// and trials, and that failures on the kernel path eject.
func TestKernelPathFollowsTheBalancer(t *testing.T) {
	x := keepKernel(t)
	dead, live := "127.0.0.1:1", "127.0.0.1:2"
	x.update("web", at(dead), at(live))
	x.use(t, pathOfTwo)
	if got := x.note.has("web"); !slices.Equal(got, []string{dead, live}) {
		t.Errorf("after the start: %v", got)
	}
	x.update("db", at(live))
	x.await(t, "db", live)
	key := x.key("web", dead)
	x.event(kernel.Event{Service: "web", Key: key, Kind: kernel.Unreachable})
	x.event(kernel.Event{Service: "web", Key: key, Kind: kernel.Recovered})
	x.event(kernel.Event{Service: "web", Key: key, Kind: kernel.Unreachable}) // not two in a row
	if s := x.balancer.Snapshot()[1].Endpoints[0]; s.Failures != 2 || s.State != lb.StateTroubled {
		t.Errorf("after failures with a success between: %+v", s)
	}
	x.event(kernel.Event{Service: "web", Key: key, Kind: kernel.Refused})
	x.event(kernel.Event{Service: "none", Key: key, Kind: kernel.Refused})
	x.await(t, "web", live)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	again := l.Addr().String()
	x.update("web", at(live), at(again))
	x.await(t, "web", live, again)
	before, key := x.note.count(), x.key("web", again)
	x.event(kernel.Event{Service: "web", Key: x.key("web", again), Kind: kernel.Refused})
	testproc.Await(t, "the trial by Lictor", func() bool { return x.note.count() >= before+2 })
	x.await(t, "web", live, again)
	if got := x.key("web", again); got != key {
		t.Errorf("the key of an endpoint that came back is %d, was %d", got, key)
	}
	if got := x.note.setAt(before); !slices.Equal(got, []string{live}) {
		t.Errorf("after a refusal: %v", got)
	}
	x.update("web")
	x.await(t, "web")
	if p := x.shown()["web"]; !p.Kernel || !strings.Contains(p.Why, "no endpoint") {
		t.Errorf("without endpoints: %+v", p)
	}
}

// TestKernelPathComesAndGoes checks when the kernel path is opened and closed, and what becomes of the counters.
func TestKernelPathComesAndGoes(t *testing.T) {
	x := keepKernel(t)
	x.update("web", at("127.0.0.1:1"))
	x.use(t, pathOff)
	if x.opens != 0 {
		t.Error("opened, though no service asks for it")
	}
	if all := x.shown(); all != nil {
		t.Errorf("while it is off: %+v", all)
	}
	x.use(t, pathOfTwo)
	first := x.note
	first.counters = kernel.Counters{Connections: 5, Open: 2, Sent: 10, Received: 20, Refused: 1, TimedOut: 2}
	x.use(t, pathOfOne)
	if x.opens != 1 || len(first.services) != 1 {
		t.Errorf("opened %d times, has %v", x.opens, first.services)
	}
	want := admin.KernelCounters{Connections: 5, BytesUp: 10, BytesDown: 20, DialsFailed: 3, DialsRefused: 1,
		DialsTimedOut: 2}
	if p := x.shown()["db"]; p.Kernel || p.Asked != "off" || p.Why != "kernel_path is off" || p.Counters == nil ||
		*p.Counters != want {
		t.Errorf("after it has left the path: %+v, %+v", p, p.Counters)
	}
	want.ConnectionsActive = 2
	if p := x.shown()["web"]; !p.Kernel || *p.Counters != want || p.Active["127.0.0.1:1"] != 1 ||
		p.Picks["127.0.0.1:1"] != 2 {
		t.Errorf("on the path: %+v, %+v", p, p.Counters)
	}
	x.use(t, "kernel_path_cgroup = \"/other\"\n"+pathOfOne)
	if x.opens != 2 || !first.closed || x.note.closed {
		t.Error("another control group has no path of its own")
	}
	x.await(t, "web", "127.0.0.1:1")
	x.use(t, pathOff)
	if !x.note.closed {
		t.Error("not closed, though no service asks for it")
	}
	x.use(t, pathOfOne)
	if x.yield(); !x.note.yielded || x.note.closed || len(x.note.services) != 1 {
		t.Error("not left to the successor, or closed with it")
	}
	x.close()
	if x.close(); !x.note.closed || len(x.note.services) > 0 {
		t.Error("not closed at the end")
	}
}

// TestKernelPathThatCannotBe checks what becomes of services when the host has no kernel path, or refuses one of them.
func TestKernelPathThatCannotBe(t *testing.T) {
	x := keepKernel(t)
	log := &testproc.Log{}
	x.log = hclog.New(&hclog.LoggerOptions{Output: log})
	x.failed = errors.New("CAP_BPF is missing")
	for range 2 {
		x.use(t, pathOfTwo)
	}
	if n := strings.Count(log.String(), "CAP_BPF is missing"); n != 1 {
		t.Errorf("the reason was logged %d times:\n%s", n, log)
	}
	if p := x.shown()["web"]; p.Kernel || p.Why != "CAP_BPF is missing" {
		t.Errorf("with auto: %+v", p)
	}
	_, err := x.prepare(mustParse(t, strings.Replace(pathOfTwo, "auto", "on", 1)))
	if err == nil || !strings.Contains(err.Error(), "CAP_BPF is missing") {
		t.Errorf("with on: %v", err)
	}
	x.failed = nil
	s, err := x.prepare(mustParse(t, pathOfTwo))
	if err != nil {
		t.Fatal(err)
	}
	if s.Abort(); !x.note.closed {
		t.Error("a reload that was aborted has left the path open")
	}
	x.use(t, pathOfTwo)
	x.note.mu.Lock()
	x.note.refuses = errors.New("no room")
	x.note.mu.Unlock()
	x.update("web", at("127.0.0.1:1"))
	testproc.Await(t, "the refusal of the service", func() bool { return !x.shown()["web"].Kernel })
	if p := x.shown(); p["web"].Why != "no room" || !p["db"].Kernel {
		t.Errorf("after a service was refused: %+v", p)
	}
	if !strings.Contains(log.String(), "no room") {
		t.Errorf("not logged:\n%s", log)
	}
}

// TestKernelPathHasAddressesOfNames checks that an endpoint with a host name has the address that answers.
func TestKernelPathHasAddressesOfNames(t *testing.T) {
	x := keepKernel(t)
	refused := netip.MustParseAddr("127.0.0.3")
	x.admit = func(_ string, _ proxy.Protocol, _ lb.Endpoint, addr netip.AddrPort) error {
		if addr.Addr() == refused {
			return errors.New("a loop")
		}
		return nil
	}
	x.resolver.SetNames([]lb.KnownName{{Host: "db.example", Addrs: []netip.Addr{refused,
		netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}}})
	x.use(t, pathOfTwo)
	db := lb.Endpoint{ID: "db", Host: "db.example", Addr: netip.AddrPortFrom(netip.Addr{}, 5432)}
	x.update("db", db, lb.Endpoint{ID: "none", Host: "does-not-exist.invalid", Addr: db.Addr})
	x.await(t, "db", "127.0.0.1:5432")
	x.event(kernel.Event{Service: "db", Key: x.key("db", "db"), Kind: kernel.Refused})
	x.await(t, "db", "127.0.0.2:5432")
	if s := x.balancer.Snapshot()[0].Endpoints[0]; s.Failures != 0 {
		t.Errorf("the endpoint has failed, though it has another address: %+v", s)
	}
	x.event(kernel.Event{Service: "db", Key: x.key("db", "db"), Kind: kernel.Recovered})
}

const pathWithCut = `
service "web" {
  listen      = 9000
  kernel_path = "auto"
  on_leave {
    critical     = "cut"
    deregistered = "20ms"
  }
}
`

// TestKernelPathCutsAsOnLeaveSays checks that connections to an endpoint that has left are cut at the right time, and
// no others.
func TestKernelPathCutsAsOnLeaveSays(t *testing.T) {
	x := keepKernel(t)
	x.balancer.NotifyGone(func(ms []*lb.Member) { x.changed(ms[0].Service()) })
	a, b, c, d := at("127.0.0.1:1"), at("127.0.0.1:2"), at("127.0.0.1:3"), at("127.0.0.1:4")
	x.update("web", a, b, c, d)
	x.use(t, pathWithCut)
	keys := map[string]uint64{}
	for _, e := range []lb.Endpoint{a, b, c, d} {
		keys[e.ID] = x.key("web", e.ID)
	}
	x.note.mu.Lock()
	for _, e := range []lb.Endpoint{a, b, c} {
		x.note.left = append(x.note.left, kernel.EndpointCounters{Key: keys[e.ID], Left: true,
			Counters: kernel.Counters{Open: 1}})
	}
	x.note.mu.Unlock()
	x.update("web", d) // why is known later, and not for c
	x.await(t, "web", d.Addr.String())
	x.balancer.OnUpdate([]lb.Endpoints{{Service: "web", Endpoints: []lb.Endpoint{d}, Left: []lb.Departure{
		{Endpoint: a, Why: lb.Critical}, {Endpoint: b, Why: lb.Deregistered}}}})
	cut := func() []uint64 {
		x.note.mu.Lock()
		defer x.note.mu.Unlock()
		return slices.Compact(slices.Sorted(slices.Values(x.note.cut)))
	}
	testproc.Await(t, "the end of two endpoints", func() bool { return len(cut()) == 2 })
	if got, want := cut(), []uint64{keys[a.ID], keys[b.ID]}; !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("cut the endpoints %v, want %v", got, want)
	}
	testproc.Await(t, "the count", func() bool { return x.shown()["web"].Counters.EndedLeft >= 2 })
}

// TestKernelPathThatCannotCut checks that a service with on_leave is not on a path that cannot cut.
func TestKernelPathThatCannotCut(t *testing.T) {
	x := keepKernel(t)
	x.open = func(kernel.Options) (kernelPath, error) {
		x.note = &noteKernel{services: map[string]kernel.Service{}, cannotCut: errors.New("CAP_PERFMON is missing")}
		return x.note, nil
	}
	x.use(t, pathWithCut)
	if p := x.shown()["web"]; p.Kernel || !strings.Contains(p.Why, "on_leave: CAP_PERFMON is missing") {
		t.Errorf("got %+v", p)
	}
	_, err := x.prepare(mustParse(t, strings.Replace(pathWithCut, "auto", "on", 1)))
	if err == nil || !strings.Contains(err.Error(), "CAP_PERFMON is missing") {
		t.Errorf("with on: %v", err)
	}
}

// TestUDPSocketsEndWhenTheirEndpointLeaves checks that sockets which are connected to an endpoint are ended once when
// no pick can return it any more, and again after it was back. Nobody needs to know why.
func TestUDPSocketsEndWhenTheirEndpointLeaves(t *testing.T) {
	x := keepKernel(t)
	a, b := at("127.0.0.1:1"), at("127.0.0.1:2")
	x.update("web", a, b)
	x.use(t, "service \"web\" {\nlisten = 9000\nprotocol = \"udp\"\nidle_timeout = \"5m\"\n"+
		"kernel_path = \"on\"\n}\n")
	x.await(t, "web", a.Addr.String(), b.Addr.String())
	x.note.mu.Lock()
	if s := x.note.services["web"]; !s.UDP || s.IdleTimeout != 5*time.Minute {
		t.Errorf("the kernel path has %+v", s)
	}
	x.note.mu.Unlock()
	for range 2 {
		key := x.key("web", a.ID)
		x.note.mu.Lock()
		x.note.cut = nil
		x.note.mu.Unlock()
		x.update("web", b)
		cut := func() []uint64 {
			x.note.mu.Lock()
			defer x.note.mu.Unlock()
			return slices.Clone(x.note.cut)
		}
		testproc.Await(t, "the end of its sockets", func() bool { return len(cut()) > 0 })
		x.changed("web")
		x.update("web", a, b)
		x.await(t, "web", a.Addr.String(), b.Addr.String())
		if got := cut(); !slices.Equal(got, []uint64{key}) {
			t.Errorf("ended the sockets of the endpoints %v, want %v once", got, key)
		}
	}
}

// TestServiceOnTheKernelPathChangesItsProtocol checks that such a service begins anew.
func TestServiceOnTheKernelPathChangesItsProtocol(t *testing.T) {
	x := keepKernel(t)
	x.update("web", at("127.0.0.1:1"))
	tcp := "service \"web\" {\nlisten = 9000\nkernel_path = \"on\"\n}\n"
	for _, text := range []string{tcp, strings.Replace(tcp, "{", "{\nprotocol = \"udp\"", 1), tcp} {
		x.use(t, text)
		x.await(t, "web", "127.0.0.1:1")
		x.note.mu.Lock()
		if got, want := x.note.services["web"].UDP, strings.Contains(text, "udp"); got != want {
			t.Errorf("UDP: %v, want %v", got, want)
		}
		if x.note.changedProtocol {
			t.Error("a service has changed its protocol without its removal")
		}
		x.note.mu.Unlock()
	}
}
