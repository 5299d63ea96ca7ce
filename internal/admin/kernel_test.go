package admin

import (
	"strings"
	"testing"

	"github.com/lictor-proxy/lictor/proxy"
)

// pathOfWeb says that the service "web" is on the kernel path.
func pathOfWeb() map[string]Path {
	return map[string]Path{"web": {Asked: "auto", Kernel: true, Active: map[string]int64{"n/1": 3},
		Picks: map[string]int64{"n/1": 20}, Counters: &KernelCounters{Connections: 11, ConnectionsActive: 3,
			DialsFailed: 6, DialsRefused: 1, DialsUnreachable: 2, DialsTimedOut: 3, Abandoned: 4, BytesUp: 5,
			BytesDown: 6}}}
}

// TestBothPathsAreCounted checks that the counters of a service and of its endpoints include the kernel path.
func TestBothPathsAreCounted(t *testing.T) {
	h := busy(t)
	h.Server.o.State.Paths = pathOfWeb
	services := h.Server.o.State.services()
	web, dns := services[0], services[1]
	if c := web.Counters; c.Connections != 18 || c.ConnectionsActive != 5 || c.BytesDown != 106 || c.DialsFailed != 6 {
		t.Errorf("got %+v", c)
	}
	if c := web.Endpoints[0].Counters; c.Active != 5 || c.Picks != 25 {
		t.Errorf("the endpoint has %+v", c)
	}
	if !web.Path.Kernel || web.Kernel.Connections != 11 || dns.Path.Kernel || dns.Kernel != nil ||
		dns.Path.Why != "kernel_path is off" {
		t.Errorf("got the paths %+v and %+v", web.Path, dns.Path)
	}
	h.Server.o.State.eachActivity(func(service string, a proxy.Activity) {
		if service == "web" && (a.Clients < 11 || a.Active < 3 || a.Bytes < 11) {
			t.Errorf("the activity of %s is %+v", service, a)
		}
	})
	text := scrape(h)
	for _, want := range []string{
		`lictor_connections_total{service="web"} 18`, `lictor_kernel_path{service="web"} 1`,
		`lictor_kernel_path_connections_total{service="web"} 11`,
		`lictor_kernel_path_failures_total{cause="timed_out",service="web"} 3`,
		`lictor_kernel_path_bytes_total{direction="down",service="web"} 6`,
		`lictor_dial_failures_total{cause="refused",service="web"} 1`,
		`lictor_dial_failures_total{cause="unreachable",service="web"} 5`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, `lictor_kernel_path{service="dns"}`) {
		t.Error("a service that does not ask for the kernel path has series of it")
	}
}

func TestPathInWords(t *testing.T) {
	none := "no endpoint can be used now"
	for want, p := range map[string]Path{
		"Lictor forwards, not the kernel: kernel_path is off": {Why: "kernel_path is off"},
		"kernel, but " + none: {Kernel: true, Why: none},
		"kernel, clients on this host connect straight to the endpoints": {Kernel: true},
	} {
		if got := p.Text(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
