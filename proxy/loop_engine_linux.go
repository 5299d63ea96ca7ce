package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// loopEngine is the engine for Linux. By default it has one event loop for each processor that Go may use.
type loopEngine struct {
	budget    *budget
	resolver  *lb.Resolver
	denied    *sys.Denials
	loops     []*eventLoop
	asks      []*pulse           // pulses that check the loops, one for each
	udp       register[udpShard] // shards of the open UDP listeners
	running   sync.WaitGroup
	ctx       context.Context // cancels lookups of host names
	cancel    context.CancelFunc
	lookups   sync.WaitGroup // lookups and TLS handshakes
	shakers   [2]shakers     // by side
	began     time.Time      // when the clocks of the loops began
	once      sync.Once      // makes close run once
	ephemeral uint16         // the lowest ephemeral port, see ephemeralPorts
}

func newLoopEngine(o Options, d *sys.Denials) (engine, *budget, error) {
	n := o.loops()
	b := newBudget(o.MaxDescriptors, n)
	e := &loopEngine{budget: b, resolver: o.Resolver, denied: d, began: time.Now()}
	e.ephemeral, b.ports = ephemeralPorts()
	e.ctx, e.cancel = context.WithCancel(context.Background())
	for side := range e.shakers {
		e.shakers[side] = shakers{most: handshakesAtOnce(n), running: &e.lookups}
	}
	// Handshakes with endpoints do not give way: an endpoint that is late is ejected.
	e.shakers[clientSide].giveWay = e.giveWay
	tryLoopCalls(d)
	for i := range n {
		l, err := newLoop(i, b.pipes, e.began, o.Logger, d)
		if err != nil {
			e.close()
			return nil, nil, err
		}
		e.loops = append(e.loops, l)
		e.asks = append(e.asks, &pulse{what: fmt.Sprintf("event loop %d", i), request: l.post})
		e.running.Go(l.run)
	}
	return e, b, nil
}

// loopCalls are the calls that the loops prefer. The fallbacks recvmsg and sendmsg are not in the list.
var loopCalls = []sys.Call{
	sys.CallSplice, sys.CallPipe, sys.CallRoom, sys.CallWritable, sys.CallUnsent, sys.CallRecvmmsg, sys.CallSendmmsg,
	sys.CallJoin, sys.CallCut, sys.CallAccept, sys.CallExclusive, sys.CallSharePort, sys.CallReuseAddr,
	sys.CallLocalAddr, sys.CallHopsLeft, sys.CallHops, sys.CallLinger, sys.CallNoDelay, sys.CallKeepAlive,
	sys.CallUrgentInline, sys.CallOnlyIPv6, sys.CallBuffers,
}

// tryLoopCalls records in d which calls of the loops the system denies.
func tryLoopCalls(d *sys.Denials) {
	d.Try(loopCalls)
	if d.Has(sys.CallRecvmmsg) {
		d.Try([]sys.Call{sys.CallRecvmsg})
	}
	if d.Has(sys.CallSendmmsg) {
		d.Try([]sys.Call{sys.CallSendmsg})
	}
}

func (e *loopEngine) pulses() []*pulse { return e.asks }

// stuck returns nil: each loop has a pulse that checks it.
func (e *loopEngine) stuck(time.Duration) []error { return nil }

func (e *loopEngine) loopCount() int { return len(e.loops) }

// giveWay leaves the processor to relays that a flood of handshakes would delay, if there are any.
func (e *loopEngine) giveWay() {
	if e.relays() {
		sys.GiveWay(shakerRest)
	}
}

// relays reports whether a loop has relayed lately for others than those who have just shaken hands.
func (e *loopEngine) relays() bool {
	now := time.Since(e.began)
	for _, l := range e.loops {
		if at := time.Duration(l.relayed.Load()); at > 0 && now-at < relayedLately {
			return true
		}
	}
	return false
}

// relayedLately is how long ago a relay counts as one that goes on.
const relayedLately = 100 * time.Millisecond

// setForking returns only when every loop knows the new value, so that no close still runs under the old one.
func (e *loopEngine) setForking(on bool) {
	for _, l := range e.loops {
		l.forking.Store(on)
		l.do(func() {})
	}
}

// close ends the loops. All sockets of the loops must be closed before.
func (e *loopEngine) close() {
	e.once.Do(func() {
		e.cancel()
		e.lookups.Wait()
		for side := range e.shakers {
			e.shakers[side].close()
		}
		for _, l := range e.loops {
			l.post(func() { l.stopped = true })
		}
		e.running.Wait()
	})
}
