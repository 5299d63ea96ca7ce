//go:build unix

package discovery

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

func TestRealConsulStoppedIsNoticed(t *testing.T) {
	t.Parallel()
	a := startAgent(t, "")
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "a", Port: 80})
	r := followNew(t, ConsulOptions{Address: a.HTTP, ProbeInterval: time.Second, Watches: []Watch{{Service: "web"}}})
	r.wantLast(t, "web: n/a=127.0.0.1:80")
	if err := testproc.Freeze(a.Pid()); err != nil {
		t.Fatal(err)
	}
	testproc.Await(t, "log line", func() bool { return strings.Contains(r.log.String(), "consul is lost") })
	if err := a.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	a.register(&api.AgentServiceRegistration{Name: "web", ID: "b", Port: 81})
	r.wantLast(t, "web: n/a=127.0.0.1:80 n/b=127.0.0.1:81")
	r.want(t, "web: n/a=127.0.0.1:80", "web: n/a=127.0.0.1:80 n/b=127.0.0.1:81")
}
