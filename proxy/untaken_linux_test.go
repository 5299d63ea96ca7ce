package proxy

import (
	"io"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/lictor-proxy/lictor/lb"
	"github.com/lictor-proxy/lictor/proxy/internal/sys"
)

// An endpoint resets a connection before it takes the bytes that the client has sent. The loop sends these bytes to
// another endpoint, and the client gets its answer. The event of the client comes before that of the reset, so the
// loop learns of the reset when it writes.
func TestLoopSendsUntakenBytesToAnotherEndpoint(t *testing.T) {
	if sys.Faults {
		t.Skip("injected faults change the order of events")
	}
	reset, done := make(chan struct{}), make(chan struct{})
	var connections atomic.Int32
	resetsFirst := func(c testConn) {
		if connections.Add(1) > 1 {
			echo(c)
			return
		}
		<-reset
		resetTCP(c)
		close(done)
	}
	l := newSteppedLoop(t, tcpServer(t, resetsFirst), tcpServer(t, resetsFirst))
	c, p := l.connected()
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	eventually(t, equals("bytes at the loop", func() int { return waiting(p.fd[clientSide]) }, 5))
	close(reset)
	<-done
	l.stepUntil("an answer, or the end", func() bool { return p.flows[serverSide].moved == 5 || p.state >= lingering })
	if p.state != relaying {
		t.Fatalf("the pair has ended: %v", syscall.Errno(p.errno))
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v, want hello", b, err)
	}
}

// The portable engine keeps bytes that an endpoint has not taken, and the next pair of the client begins with them.
func TestPortablePairKeepsUntakenBytes(t *testing.T) {
	s := newService(&Service{Name: "s"}, lb.NewRoundRobin(), hclog.NewNullLogger(), 1)
	denied := newDenials(hclog.NewNullLogger())
	connected, reset := make(chan struct{}), make(chan struct{})
	endpoint := func(at netip.AddrPort) testConn { return dialTCP(t, at) }
	failing := endpoint(tcpServer(t, func(c testConn) {
		<-connected
		resetTCP(c)
		close(reset)
	}))
	close(connected)
	<-reset
	var accepted testConn
	taken := make(chan struct{})
	client := dialTCP(t, tcpServer(t, func(c testConn) {
		accepted = c
		close(taken)
		<-t.Context().Done()
	}))
	<-taken
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p := newPortablePair(accepted, failing, s)
	p.upstream(newPipePool(0, denied)) // learns of the reset when it writes
	p.downstream(newPipePool(0, denied), make(chan struct{}))
	p.close()
	if !p.redial || p.lost {
		t.Fatalf("redial %v, lost %v; want another endpoint to take over", p.redial, p.lost)
	}
	next := newPortablePair(accepted, endpoint(tcpServer(t, echo)), s)
	next.untaken = p.untaken
	next.relay(newPipePool(0, denied))
	got, err := io.ReadAll(client)
	if err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v, want hello", got, err)
	}
}
