//go:build unix

package daemon

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testproc"
	"github.com/lictor-proxy/lictor/lb"
)

// The latest committed client that has reported a service decides for that service.
func TestStandbysAreThoseOfTheLatestClient(t *testing.T) {
	var told []string
	all := newStandbys(func(service string, endpoints []lb.Endpoint) {
		for _, e := range endpoints {
			service += " " + e.ID
		}
		told = append(told, service)
	})
	set := func(one *standbyReports, service string, ids ...string) {
		var endpoints []lb.Endpoint
		for _, id := range ids {
			endpoints = append(endpoints, lb.Endpoint{ID: id})
		}
		one.Report(service, endpoints)
	}
	want := func(when string, lines ...string) {
		t.Helper()
		slices.Sort(told)
		if !slices.Equal(told, lines) {
			t.Errorf("%s: got %q, want %q", when, told, lines)
		}
		told = nil
	}
	first := all.newReports()
	set(first, "a", "1")
	want("before the commit")
	first.Commit([]string{"a", "b", "c"})
	want("the commit", "a 1")
	set(first, "b", "2")
	set(first, "c", "3")
	want("after it", "b 2", "c 3")

	aborted := all.newReports()
	set(aborted, "a")
	second := all.newReports()
	set(second, "a")
	want("of clients that are not committed")
	second.Commit([]string{"a", "b"})
	want("the commit of another client", "a", "c")
	set(first, "a", "1")
	set(first, "c", "3")
	want("of a client that has been replaced")
	set(first, "b", "2", "4")
	want("of a service that the later client has not told of", "b 2 4")
	set(second, "b")
	set(first, "b", "2")
	want("of one that it has told of", "b")
	all.newReports().Commit(nil)
	want("without a client", "a", "b", "c")
	set(second, "b", "2")
	want("of the last client")
}

// When the last service leaves Consul, its standby endpoints are not checked any more.
func TestStandbysEndWithTheirClient(t *testing.T) {
	consul, client := startConsul(t)
	var bad, good atomic.Int64
	registerInstance(t, client, "web", "bad", resetsConnections(t, &bad), api.HealthPassing)
	backup := service("web", "127.0.0.1:0", instance(t, "backup"), "check {\n    interval = \"50ms\"\n  }")
	other := service("other", "127.0.0.1:0", resetsConnections(t, &good), "check {\n    interval = \"50ms\"\n  }")
	head, services := inConsul(consul), strings.TrimSuffix(backup, "}\n")
	s := serveConfiguration(t, head+services+"  consul {}\n}\n"+other, nil)
	defer s.stop()
	testproc.Await(t, "the backup", func() bool {
		c, err := net.Dial("tcp", s.address("web"))
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		var name string
		_, err = fmt.Fscan(c, &name)
		return err == nil && name == "backup"
	})
	before := bad.Load()
	testproc.Await(t, "checks of the instance that stands by", func() bool { return bad.Load() > before+2 })
	s.mustReload(head+backup+other, "1 service changed")
	testproc.Await(t, "the end of the checks", func() bool {
		before, others := bad.Load(), good.Load()
		testproc.Await(t, "ten checks of another endpoint", func() bool { return good.Load() > others+10 })
		return bad.Load() == before
	})
}

// resetsConnections starts a server that counts connections and resets each of them.
func resetsConnections(t *testing.T, n *atomic.Int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = c.(*net.TCPConn).SetLinger(0) // makes Close send a reset
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return l.Addr().String()
}
