package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// A listedConnection is a connection as lictor connections -json shows it.
type listedConnection struct {
	Service, Protocol, State, Client, Listener, Endpoint, Address, Path, Program string

	PID       int
	Age       float64 `json:"age_seconds"`
	BytesUp   int64   `json:"bytes_up"`
	BytesDown int64   `json:"bytes_down"`
}

// connections returns what lictor connections -json lists.
func (l *lictor) connections(t testing.TB, args ...string) []listedConnection {
	t.Helper()
	code, out := l.ask(t, append([]string{"connections", "-json"}, args...)...)
	var answer struct{ Connections []listedConnection }
	must(t, json.Unmarshal([]byte(out), &answer))
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	return answer.Connections
}

// Connections of both paths are listed, those on the kernel path with the process that has them, and with the bytes
// that they have moved. The flags select among all of them.
func TestConnectionsOfBothPathsAreListed(t *testing.T) {
	t.Parallel()
	group, ok := kernelPath(t)
	if !ok {
		return
	}
	a, b, d := startEcho(t, "a"), startEcho(t, "b"), startUDP(t, "d")
	l := runLictor(t, onPath(group, service("web", endpoints(a, b)), service("dns", udp, endpoints(d))))
	web := l.addr(t, "web")
	mustConnect(t, web).mustEcho(t, "forwarded")
	must(t, group.Enter())
	const onPath = 1200 // more than a page
	var last *client
	for range onPath {
		last = mustConnect(t, web)
	}
	last.mustEcho(t, "hello")
	question := dialUDP(t, l.addr(t, "dns"))
	question.awaitAnswer(t, "d")
	direct := mustConnect(t, a.addr)
	direct.mustEcho(t, "direct")

	// Two sockets that are connected to different addresses may have the same address.
	at, paths := map[string]listedConnection{}, map[string]int{}
	for _, c := range l.connections(t) {
		paths[c.Path+" "+c.Service]++
		at[c.Path+" "+c.Client+" "+c.Endpoint] = c
	}
	if want := map[string]int{" web": 1, "kernel web": onPath, "kernel dns": 1}; fmt.Sprint(paths) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", paths, want)
	}
	if len(at) != onPath+2 {
		t.Errorf("%d different connections, want %d", len(at), onPath+2)
	}
	instance := map[string]string{"a": a.addr.String(), "b": b.addr.String()}[last.name]
	got := at["kernel "+last.LocalAddr().String()+" "+instance]
	if got.State != "open" || got.Listener != web.String() || got.PID != os.Getpid() || got.Program == "" ||
		got.BytesUp != int64(len("hello\n")) || got.BytesDown < got.BytesUp || got.Age <= 0 || got.Address != instance {
		t.Errorf("got %+v", got)
	}
	got = at["kernel "+question.LocalAddr().String()+" "+d.addr.String()]
	if got.Protocol != "udp" || got.PID != os.Getpid() {
		t.Errorf("got %+v", got)
	}
	for args, want := range map[string]int{"web": onPath + 1, "dns": 1, "-endpoint " + d.addr.String(): 1, "-n 7": 7} {
		if got := l.connections(t, strings.Fields(args)...); len(got) != want {
			t.Errorf("%s: %d connections, want %d", args, len(got), want)
		}
	}
	ofA := l.connections(t, "-endpoint", a.addr.String(), "web")
	ofB := l.connections(t, "-endpoint", b.addr.String(), "web")
	if len(ofA)+len(ofB) != onPath+1 || len(ofA) < onPath/2 || len(ofB) < onPath/2 {
		t.Errorf("%d connections to a, %d to b", len(ofA), len(ofB))
	}
	if code, out := l.ask(t, "connections", "dns"); code != 0 || !strings.Contains(out, "PROGRAM") ||
		!strings.Contains(out, fmt.Sprintf("kernel  %s (%d)\n", got.Program, os.Getpid())) {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	l.awaitAnswer(t, "explain web", 0, fmt.Sprintf("\nkernel path: %d connections now, ", onPath))
}
