package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lictor-proxy/lictor/internal/proxyproto"
)

// A load is a kind of work, with its measurement.
type load struct {
	name     string
	title    string
	unit     string
	perUnit  float64 // units of the generator in one unit of the report
	udp      bool
	one      bool // needs UDP sessions that end with the first answer
	sends    bool // needs PROXY headers for endpoints
	accepts  bool // needs PROXY headers from clients
	unix     bool // needs Unix sockets
	sni      bool // needs a choice by the name in a ClientHello
	tls      bool // needs TLS with clients
	mesh     bool // needs the TLS of Consul's mesh with endpoints
	hops     bool // needs both ends of a mesh
	follows  bool // needs a proxy that follows intentions
	bounded  bool // needs a limit of UDP sessions
	kernel   bool // needs a kernel path, and uses its control group itself
	fullOnly bool // left out of a quick run
	fresh    bool // each measurement needs a new process
	rounds   int  // largest number of rounds; zero: all
	main     string
	run      func(*bench, *target) (sample, error)
}

// A sample holds the values of one measurement, by metric.
type sample map[string]float64

// The metrics. Times are in microseconds, memory in bytes.
const (
	mCPU       = "cpu_us"           // processor time per unit
	mSchedstat = "schedstat_us"     // the same from schedstat, as a check
	mMachine   = "machine_us"       // processor time per unit of the load generator, the proxy and the backends
	mRate      = "rate"             // units per second
	mP50       = "p50_us"           // latency
	mP99       = "p99_us"           //
	mErrors    = "errors"           // units that failed
	mRSS       = "rss"              // resident, while the load's connections are open
	mPSS       = "pss"              // the same with shared pages counted once
	mFDs       = "descriptors"      // while the load's connections are open; for new UDP clients the maximum
	mPairRSS   = "rss_per_pair"     // per idle pair
	mPairPSS   = "pss_per_pair"     //
	mPairFDs   = "fds_per_pair"     //
	mPairs     = "pairs"            // number of idle pairs
	mIdleCPU   = "idle_cpu_us"      // processor time per second with all pairs idle
	mOpen      = "open_us"          // from the start of the process until all listeners are open
	mAdded     = "added_us"         // processor time that a kernel path adds to what others do
	mThreads   = "threads"          //
	mLongest   = "longest_us"       // the longest latency
	mP99Ratio  = "p99_ratio"        // p99 of the load during a flood, against p99 before it
	mFlood     = "flood_rate"       // handshakes per second of the clients of a flood
	gigabyte   = 1e9 / float64(mib) // in MiB
	oneWaySize = 1400               //
)

// loads returns all loads. The amounts of work make each measurement take about a second on the machine of the reported
// figures.
func loads() []*load {
	return slices.Concat(tcpLoads(), tlsLoads(), meshLoads(), udpLoads(), otherLoads())
}

func tcpLoads() []*load {
	return []*load{
		{name: "request-1", title: "request/response, 1 connection", unit: "request", perUnit: 1, main: mCPU,
			run: requests(webService, 1, 8_000, messageSize)},
		{name: "request-32", title: "request/response, 32 connections", unit: "request", perUnit: 1, main: mCPU,
			run: requests(webService, 32, 40_000, messageSize)},
		{name: "connect", title: "connect, request, close, 32 at a time", unit: "connection", perUnit: 1, main: mCPU,
			run: proxied(webService, nil, connections)},
		{name: "connect-send", title: "the same, a PROXY header for the endpoint", unit: "connection", perUnit: 1,
			sends: true, main: mCPU, run: proxied(sendService, nil, connections)},
		{name: "connect-accept", title: "the same, a PROXY header from the client", unit: "connection", perUnit: 1,
			accepts: true, main: mCPU, run: proxied(acceptService, proxyHeader(), connections)},
		{name: "bulk-up", title: "bulk up, 4 connections", unit: "GB",
			perUnit: gigabyte, main: mCPU, run: bulk(webService, opUp, 1024)},
		{name: "bulk-down", title: "bulk down, 4 connections", unit: "GB", perUnit: gigabyte, main: mCPU,
			run: bulk(webService, opDown, 1024)},
		{name: "unix-up", title: "bulk up from Unix sockets to TCP, 4 connections", unit: "GB", perUnit: gigabyte,
			unix: true, main: mCPU, run: bulk(fromUnixService, opUp, 1024)},
		{name: "unix-down", title: "bulk down from Unix sockets to TCP, 4 connections", unit: "GB", perUnit: gigabyte,
			unix: true, main: mCPU, run: bulk(toUnixService, opDown, 1024)},
		{name: "to-unix-up", title: "bulk up from TCP to Unix sockets, 4 connections", unit: "GB", perUnit: gigabyte,
			unix: true, main: mCPU, run: bulk(toUnixService, opUp, 1024)},
		{name: "transfer", title: "1 MiB on a new connection, 8 at a time", unit: "transfer", perUnit: 1, main: mCPU,
			run: proxied(webService, nil, transfers)},
		{name: "sni-transfer", title: "the same, a service chosen by SNI", unit: "transfer", perUnit: 1, sni: true,
			main: mCPU, run: proxied(sniService, clientHello(), transfers)},
		{name: "sni-connect", title: "connect, request, close, a service chosen by SNI", unit: "connection", perUnit: 1,
			sni: true, main: mCPU, run: proxied(sniService, clientHello(), connections)},
	}
}

func tlsLoads() []*load {
	return []*load{
		{name: "tls-request", title: "TLS with clients: request/response, 32 connections", unit: "request", perUnit: 1,
			tls: true, main: mCPU, run: tlsRequests(32, 30_000)},
		{name: "tls-up", title: "TLS with clients: bulk up, 4 connections", unit: "GB", perUnit: gigabyte, tls: true,
			main: mCPU, run: tlsBulk(opUp, 1024)},
		{name: "tls-down", title: "TLS with clients: bulk down, 4 connections", unit: "GB", perUnit: gigabyte,
			tls: true, main: mCPU, run: tlsBulk(opDown, 1024)},
		{name: "tls-connect", title: "TLS with clients: connect, request, close, full handshakes", unit: "connection",
			perUnit: 1, tls: true, main: mCPU, run: tlsConnects(false, 1_500)},
		{name: "tls-resume", title: "TLS with clients: the same, resumed sessions", unit: "connection",
			perUnit: 1, tls: true, main: mCPU, run: tlsConnects(true, 2_500)},
		{name: "tls-flood", title: "request/response, 32 connections, during a flood of full TLS handshakes",
			unit: "request", perUnit: 1, tls: true, fresh: true, main: mP99Ratio,
			run: tlsFlood(32, 30_000, fullHandshakes, 8)},
		{name: "tls-hellos", title: "the same, during a flood of prepared ClientHellos", unit: "request",
			perUnit: 1, tls: true, fresh: true, main: mP99Ratio, run: tlsFlood(32, 30_000, preparedHellos, 8)},
		{name: "tls-crowd", title: "the same, of 256 clients at a time", unit: "request", perUnit: 1, tls: true,
			fresh: true, rounds: 3, main: mP99Ratio, run: tlsFlood(32, 30_000, preparedHellos, 256)},
		{name: "tls-idle", title: "1,000 idle connections of TLS clients, after 20 KB each way", unit: "pair",
			tls: true, fresh: true, rounds: 3, main: mPairRSS, run: tlsIdle(1000)},
	}
}

func meshLoads() []*load {
	return []*load{
		{name: "mesh-request", title: "TLS of the mesh: request/response of 64 bytes, 32 connections", unit: "request",
			perUnit: 1, mesh: true, main: mCPU, run: requests(meshService, 32, 30_000, messageSize)},
		{name: "mesh-request-1k", title: "TLS of the mesh: request/response of 1 KB, 32 connections", unit: "request",
			perUnit: 1, mesh: true, main: mCPU, run: requests(meshService, 32, 30_000, 1024)},
		{name: "mesh-connect", title: "TLS of the mesh: connect, request, close, full handshakes", unit: "connection",
			perUnit: 1, mesh: true, main: mCPU, run: proxied(meshService, nil, handshakes)},
		{name: "mesh-up", title: "TLS of the mesh: bulk up, 4 connections", unit: "GB", perUnit: gigabyte, mesh: true,
			main: mCPU, run: bulk(meshService, opUp, 1024)},
		{name: "mesh-down", title: "TLS of the mesh: bulk down, 4 connections", unit: "GB", perUnit: gigabyte,
			mesh: true, main: mCPU, run: bulk(meshService, opDown, 1024)},
		{name: "hops-request", title: "both ends of the mesh: request/response of 64 bytes, 32 connections",
			unit: "request", perUnit: 1, hops: true, main: mCPU, run: requests(hopsService, 32, 30_000, messageSize)},
		{name: "hops-request-1k", title: "both ends of the mesh: request/response of 1 KB, 32 connections",
			unit: "request", perUnit: 1, hops: true, main: mCPU, run: requests(hopsService, 32, 30_000, 1024)},
		{name: "hops-connect", title: "both ends of the mesh: connect, request, close, 32 at a time",
			unit: "connection", perUnit: 1, hops: true, main: mCPU, run: proxied(hopsService, nil, handshakes)},
		{name: "hops-up", title: "both ends of the mesh: bulk up, 4 connections", unit: "GB", perUnit: gigabyte,
			hops: true, main: mCPU, run: bulk(hopsService, opUp, 1024)},
		{name: "hops-down", title: "both ends of the mesh: bulk down, 4 connections", unit: "GB", perUnit: gigabyte,
			hops: true, main: mCPU, run: bulk(hopsService, opDown, 1024)},
		{name: "hops-idle", title: "1,000 idle connections over both ends of the mesh, after 20 KB each way",
			unit: "pair", hops: true, fresh: true, rounds: 3, main: mPairRSS, run: hopsIdle(1000)},
		{name: "hops-intentions", title: "1,000 changes of an intention, 5,000 connections of another identity",
			unit: "change", hops: true, follows: true, fresh: true, rounds: 3, fullOnly: true, main: mLongest,
			run: intentions(5000, 1000)},
	}
}

func udpLoads() []*load {
	return []*load{
		{name: "udp-request", title: "UDP request/response, 32 sockets", unit: "exchange", perUnit: 1, udp: true,
			main: mCPU, run: datagrams(32, 40_000)},
		{name: "udp-unconnected", title: "the same, sockets that are not connected", unit: "exchange", perUnit: 1,
			udp: true, main: mCPU, run: unconnected(32, 40_000)},
		{name: "udp-oneway", title: "UDP one way, 1,400 bytes, 4 sockets", unit: "datagram", perUnit: 1, udp: true,
			main: mCPU, run: oneWay(4, 80_000)},
		{name: "udp-new", title: "a new UDP client per request, 20,000/s", unit: "exchange", perUnit: 1, udp: true,
			bounded: true, main: mCPU, run: newClients(newService, 40_000)},
		{name: "udp-new-one", title: "the same, sessions end with the answer", unit: "exchange", perUnit: 1,
			udp: true, one: true, bounded: true, main: mCPU, run: newClients(oneService, 40_000)},
	}
}

func otherLoads() []*load {
	return []*load{
		{name: "idle-3000", title: "3,000 idle connections", unit: "pair", fresh: true, rounds: 3, main: mPairRSS,
			run: idle(func() int { return 3000 })},
		{name: "idle-max", title: "as many idle connections as descriptors allow", unit: "pair", fresh: true,
			rounds: 2, fullOnly: true, main: mPairRSS, run: idle(mostPairs)},
		{name: "start-1000", title: "start with 1,000 services", fresh: true, rounds: 3, main: mOpen,
			run: startServices(1000)},
		{name: "elsewhere-connect", title: "a connection elsewhere on the host, 1,000 services", kernel: true,
			rounds: 3, main: mAdded, run: elsewhere(40_000, func() stranger { return &connector{} })},
		{name: "elsewhere-datagram", title: "a datagram elsewhere on the host, sent and received, 1,000 services",
			udp: true, kernel: true, rounds: 3, main: mAdded,
			run: elsewhere(200_000, func() stranger { return &sender{} })},
	}
}

// newRate is the number of new UDP clients per second.
const newRate = 20_000

// maxSessions limits sessions in the load of new UDP clients. Far more clients than that come within the lifetime of a
// session.
const maxSessions = 4096

// mostPairs returns the number of idle pairs to open. The descriptors of a proxy must suffice for them, minus those
// that the proxy may reserve for itself. An upper bound saves time.
func mostPairs() int { return min((descriptorLimit()-2000)/2, 20_000) }

// requests returns a load of n kept connections to a service. On each, requests and answers of size bytes alternate.
func requests(service string, n, work, size int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i, err := b.instance(t, service)
		if err != nil {
			return nil, err
		}
		fds, err := open(i.addrs(), n)
		if err != nil {
			return nil, err
		}
		defer closeAll(fds)
		slots := requestSlots(fds, n)
		for _, s := range slots {
			s.(*requestSlot).more = size - messageSize
		}
		return b.traffic(i, b.scaled(work), 1, slots)
	}
}

// requestSlots returns n slots, each of which uses its share of the connections in turn.
func requestSlots(fds []int, n int) []slot {
	n = min(n, len(fds))
	slots := make([]slot, n)
	for id := range slots {
		s := &requestSlot{}
		for i := id; i < len(fds); i += n {
			s.fds = append(s.fds, fds[i])
		}
		slots[id] = s
	}
	return slots
}

// connections, handshakes and transfers return arguments of proxied, for short requests and for 1 MiB.
func connections() (n, work int, op byte, answer int) { return 32, 6_000, opEcho, messageSize }
func handshakes() (n, work int, op byte, answer int)  { return 32, 1_500, opEcho, messageSize }
func transfers() (n, work int, op byte, answer int)   { return 8, 800, opDown, mib }

// proxied returns a load of new connections to a service, n at a time. Each gets an answer of the given size. Clients
// send header first; nil: none.
func proxied(
	service string, header []byte, load func() (n, work int, op byte, answer int),
) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i, err := b.instance(t, service)
		if err != nil {
			return nil, err
		}
		n, work, op, answer := load()
		slots := exchangeSlots(i.addrs(), n, op, answer)
		for _, s := range slots {
			s.(*exchangeSlot).header = slices.Clip(header)
		}
		return b.traffic(i, b.scaled(work), 1, slots)
	}
}

// proxyHeader returns the PROXY header of version 2 that clients send.
func proxyHeader() []byte {
	return proxyproto.AppendV2(nil, proxyproto.Header{
		Src: netip.MustParseAddrPort("192.0.2.7:4711"), Dst: netip.MustParseAddrPort("198.51.100.1:5432"),
	})
}

// serverName is the name in clientHello.
const serverName = "db.example.com"

// clientHello returns the first message of a TLS client. No handshake follows: what comes behind the message is opaque
// to proxies that choose by name.
var clientHello = sync.OnceValue(func() []byte {
	client, server := net.Pipe()
	defer server.Close()
	defer client.Close()
	go func() { _ = tls.Client(client, &tls.Config{ServerName: serverName}).Handshake() }() // nobody answers
	buf := make([]byte, 1<<16)
	n, err := io.ReadAtLeast(server, buf, recordHeader)
	if err == nil {
		_, err = io.ReadFull(server, buf[n:max(n, recordSize(buf))])
	}
	if err != nil {
		panic(err)
	}
	return buf[:recordSize(buf)]
})

func exchangeSlots(addrs []netip.AddrPort, n int, op byte, answer int) []slot {
	slots := make([]slot, n)
	for id := range slots {
		slots[id] = &exchangeSlot{addrs: addrs, op: op, answer: answer}
	}
	return slots
}

// bulk returns a load that moves work MiB over 4 connections to a service.
func bulk(service string, op byte, work int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		const n = 4
		i, err := b.instance(t, service)
		if err != nil {
			return nil, err
		}
		fds, err := i.open(n)
		if err != nil {
			return nil, err
		}
		defer closeAll(fds)
		share := b.scaled(work) / n
		var slots []slot
		for _, fd := range fds {
			slots = append(slots, &bulkSlot{fd: fd, op: op, share: share})
		}
		return b.traffic(i, share*n, gigabyte, slots)
	}
}

// datagrams returns a load of n UDP sockets. On each, requests and answers alternate.
func datagrams(n, work int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i := b.instances[place{t, udpService}]
		fds, err := openUDP(i.addrs(), n)
		if err != nil {
			return nil, err
		}
		defer closeAll(fds)
		var slots []slot
		for _, fd := range fds {
			slots = append(slots, &datagramSlot{fd: fd})
		}
		return b.traffic(i, b.scaled(work), 1, slots)
	}
}

// unconnected is datagrams with sockets that name the address with each datagram.
func unconnected(n, work int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i := b.instances[place{t, udpService}]
		var slots []slot
		for id := range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			defer unix.Close(fd)
			to := i.addrs()[id%len(i.addrs())]
			slots = append(slots, &datagramSlot{fd: fd,
				to: &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}})
		}
		return b.traffic(i, b.scaled(work), 1, slots)
	}
}

// openUDP opens n UDP sockets, connected to the addresses in turn.
func openUDP(addrs []netip.AddrPort, n int) ([]int, error) {
	var fds []int
	for id := range n {
		fd, err := dial(unix.SOCK_DGRAM, addrs[id%len(addrs)], 0)
		if err != nil {
			closeAll(fds)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// oneWay returns a load of datagrams from n sockets to the backends. Only datagrams that arrive count.
func oneWay(n, work int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i := b.instances[place{t, udpService}]
		fds, err := openUDP(i.addrs(), n)
		if err != nil {
			return nil, err
		}
		defer closeAll(fds)
		var slots []slot
		for _, fd := range fds {
			slots = append(slots, &oneWaySlot{fd: fd, size: oneWaySize})
		}
		before, err := b.backends.datagrams()
		if err != nil {
			return nil, err
		}
		return b.measure(i, b.scaled(work), 1, slots, func(l *loop, sent int) error {
			after, err := b.backends.datagrams()
			l.done = int(after - before)
			l.errors = sent - l.done
			return err
		})
	}
}

// newClients returns a load with a new UDP client for each request, at a steady rate.
func newClients(name string, work int) func(*bench, *target) (sample, error) {
	return func(b *bench, t *target) (sample, error) {
		i := b.instances[place{t, name}]
		slots := make([]slot, 256)
		for id := range slots {
			slots[id] = &newSlot{addr: i.addrs()[0]}
		}
		peak := watchDescriptors(i.group(), 50*time.Millisecond)
		s, err := b.traffic(i, b.scaled(work), 1, slots)
		most := peak()
		if err == nil {
			s[mFDs] = float64(most)
		}
		return s, err
	}
}
