package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// portable is the engine for all systems. portable uses goroutines and package net.
type portable struct {
	budget     *budget
	began      time.Time
	pipes      *pipePool
	resolver   *lb.Resolver
	denied     *sys.Denials
	roster     roster
	byEndpoint endpointIndex
	clients    atomic.Uint64 // TCP clients, and UDP sessions with headers, so far; gives each a number
	handshakes handshakes
	turns      turns               // of the goroutines that accept clients, to find stuck ones
	asks       []*pulse            // ask the locks that all connections share
	udp        register[udpSocket] // the open UDP sockets of the engine

	searching sync.Mutex // guards what follows: the position of the search in victim
	cursor    cursor
	found     *udpSocket
}

// portableCalls are the calls that the portable engine can do without if the system denies them.
var portableCalls = []sys.Call{
	sys.CallSplice, sys.CallPipe, sys.CallRoom, sys.CallWritable, sys.CallUnsent, sys.CallRecvmsg, sys.CallSendmsg,
	sys.CallAccept, sys.CallLocalAddr, sys.CallHopsLeft, sys.CallHops, sys.CallNoDelay, sys.CallKeepAlive,
	sys.CallUrgentInline, sys.CallBuffers,
}

func newPortableEngine(o Options, d *sys.Denials) (engine, *budget, error) {
	b := newBudget(o.MaxDescriptors, 0)
	_, b.ports = ephemeralPorts()
	d.Try(portableCalls)
	e := &portable{
		budget: b, began: time.Now(), pipes: newPipePool(b.pipes, d), resolver: o.Resolver, denied: d,
		handshakes: make(handshakes, handshakesAtOnce(o.loops())),
		byEndpoint: endpointIndex{all: map[lb.MemberKey]*portableEndpointPairs{}},
	}
	e.asks = []*pulse{
		lockPulse("the lock of connections by endpoint", &e.byEndpoint.mu),
		lockPulse("the lock of the list of connections", &e.roster.mu),
		lockPulse("the lock of the descriptors", &b.mu),
		lockPulse("the lock of the search for idle UDP sessions", &e.searching),
	}
	return e, b, nil
}

func (e *portable) pulses() []*pulse { return e.asks }

func (e *portable) stuck(patience time.Duration) []error { return e.turns.stuck(patience) }

func (e *portable) loopCount() int { return 1 }

// setForking does nothing. Package net removes each socket that it closes from epoll, or from what other systems have.
func (e *portable) setForking(bool) {}

func (e *portable) close() { e.pipes.close() }
