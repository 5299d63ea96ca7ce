package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/kernel"
)

// TestReplacedProcessWaitsForTheKernelPath checks for what a process that was replaced waits.
func TestReplacedProcessWaitsForTheKernelPath(t *testing.T) {
	x := keepKernel(t)
	x.use(t, pathOff)
	if x.anyOpen(true) {
		t.Error("something is open without a path")
	}
	x.update("web", at("127.0.0.1:1"))
	x.use(t, pathOfTwo)
	open := func(n uint64) {
		x.note.mu.Lock()
		defer x.note.mu.Unlock()
		x.note.counters.Open = n
	}
	open(1)
	if !x.anyOpen(false) {
		t.Error("a connection is open")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	x.awaitEnds(ctx) // returns, although the connection goes on
	open(0)
	if x.awaitEnds(t.Context()); x.anyOpen(true) {
		t.Error("no connection is open")
	}
	x.use(t, "service \"web\" {\nlisten = 9000\nprotocol = \"udp\"\nkernel_path = \"on\"\n}\n")
	if !x.anyOpen(true) || x.anyOpen(false) {
		t.Error("answers to UDP sockets are awaited always, or never")
	}
	for _, tt := range []struct {
		name    string
		sockets []kernel.Socket
		err     error
		want    bool
	}{
		{"none", nil, nil, false},
		{"connected", []kernel.Socket{{UDP: true, Idle: time.Second}, {UDP: true}}, nil, true},
		{"not connected", []kernel.Socket{{UDP: true, Idle: time.Second}, {}}, nil, false},
		{"not known", nil, errors.New("no CAP_PERFMON"), false},
	} {
		x.note.mu.Lock()
		x.note.sockets, x.note.cannotList = tt.sockets, tt.err
		x.note.mu.Unlock()
		if got := x.connectedUDP(t.Context()); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
	x.use(t, pathOff)
	if x.connectedUDP(t.Context()) {
		t.Error("a UDP socket is connected without a path")
	}
}
