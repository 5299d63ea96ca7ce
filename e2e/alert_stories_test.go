//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

func alertStories(t *testing.T) []alertStory {
	t.Helper()
	good, other := startEcho(t, "good"), startEcho(t, "other")
	return append(append(clientStories(t, good.addr), endpointStories(t, good.addr, other.addr)...),
		processStories(t, good.addr)...)
}

// clientStories are those of alerts about clients that are refused or wait.
func clientStories(t *testing.T, good netip.AddrPort) []alertStory {
	t.Helper()
	one, two := newPort(t), newPort(t)
	var many strings.Builder
	for i := range 300 {
		many.WriteString(service(fmt.Sprintf("web-%d", i), at(one.addr, two.addr)))
	}
	dead := newPort(t)
	return []alertStory{
		{alert: "LictorServiceRefusesClients", config: service("web", at(dead.addr)),
			tell: func(t *testing.T, a *alerted) {
				a.awaitAlert(t, a.asks(t, "web"))
				a.only(t)
				dead.open(t)
				a.awaitEnd(t, a.asks(t, "web"))
			}},
		{alert: "LictorHostRefusesClients", config: many.String(), // two dead addresses are one alert
			tell: func(t *testing.T, a *alerted) {
				a.awaitAlert(t, a.asks(t, "web-7"))
				a.only(t)
				one.open(t)
				two.open(t)
				a.awaitEnd(t, a.asks(t, "web-7"))
			}},
		{alert: "LictorQueue", config: service("full", "max_connections = 1", `queue_timeout = "1m"`, at(good)),
			tell: func(t *testing.T, a *alerted) {
				stop := a.crowd(t, "full")
				a.awaitAlert(t, nil)
				a.p.awaitAlert(t, a.alert, "LictorSlowDials", nil)
				stop()
				a.awaitEnd(t, nil)
				a.p.awaitEnd(t, a.alert, "LictorSlowDials", nil)
			}},
	}
}

// crowd makes three clients that take turns at a service, each for a while, until stop is called.
func (a *alerted) crowd(t *testing.T, service string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	addr := a.addr(t, service)
	for range 3 {
		running.Go(func() {
			for ctx.Err() == nil {
				c, err := connect(ctx, addr)
				if err != nil {
					continue
				}
				select {
				case <-ctx.Done():
				case <-time.After(400 * time.Millisecond):
				}
				_ = c.Close()
			}
		})
	}
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// endpointStories are those of alerts about endpoints and Consul.
func endpointStories(t *testing.T, good, other netip.AddrPort) []alertStory {
	t.Helper()
	flaps, failing, one, two := newPort(t), newPort(t), newPort(t), newPort(t)
	return []alertStory{
		staleStory(t, good),
		ejectedStory(t, good, other),
		{alert: "LictorEndpointsFlap", config: service("web", at(good, flaps.addr)),
			tell: func(t *testing.T, a *alerted) {
				turns, asks := 0, a.asks(t, "web")
				a.awaitAlert(t, func() {
					if turns++; turns%50 == 0 {
						flaps.close()
					} else if turns%50 == 25 {
						flaps.open(t)
					}
					asks()
				})
				if flaps.listener == nil {
					flaps.open(t)
				}
				a.awaitEnd(t, asks)
			}},
		{alert: "LictorPanic", config: service("web", at(good, one.addr, two.addr)),
			tell: func(t *testing.T, a *alerted) {
				a.awaitAlert(t, a.asks(t, "web"))
				a.only(t)
				one.open(t)
				two.open(t)
				a.awaitEnd(t, a.asks(t, "web"))
			}},
		{alert: "LictorDialFailures", config: service("web", `max_fails = "never"`, at(good, failing.addr)),
			tell: func(t *testing.T, a *alerted) {
				a.awaitAlert(t, a.asks(t, "web"))
				a.only(t)
				failing.open(t)
				a.awaitEnd(t, a.asks(t, "web"))
			}},
		{alert: "LictorDrained", config: service("web", at(good, other)), tell: func(t *testing.T, a *alerted) {
			a.post(t, "/v1/services/web/drain", fmt.Sprintf(`{"endpoint": %q}`, good))
			a.awaitAlert(t, nil)
			a.only(t)
			a.post(t, "/v1/services/web/undrain", fmt.Sprintf(`{"endpoint": %q}`, good))
			a.awaitEnd(t, nil)
		}},
		throttledStory(t),
	}
}

// staleStory has a Consul that is lost, which is one alert however many services it makes stale.
func staleStory(t *testing.T, good netip.AddrPort) alertStory {
	t.Helper()
	lost := startConsul(t, testconsul.Options{})
	lost.register(t, "web", "a", good)
	config := consulBlock(lost)
	for i := range 20 {
		config += service(fmt.Sprintf("web-%d", i), `consul { service = "web" }`)
	}
	return alertStory{alert: "LictorStale", config: config, tell: func(t *testing.T, a *alerted) {
		a.awaitReady(t)
		lost.Kill()
		a.awaitAlert(t, nil)
		a.only(t)
		must(t, lost.Restart(t.Context()))
		a.awaitEnd(t, nil)
	}}
}

// ejectedStory has an address that stays dead, which is news only once.
func ejectedStory(t *testing.T, good, other netip.AddrPort) alertStory {
	t.Helper()
	config := service("web", at(good, other, newPort(t).addr))
	return alertStory{alert: "LictorEndpointsEjected", config: config, tell: func(t *testing.T, a *alerted) {
		ejected := fmt.Sprintf("lictor_ejected_addresses{job=%q}", a.alert)
		eventually(t, "a scrape", func() error {
			if points := a.p.query(t, ejected); len(points) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		a.awaitAlert(t, a.asks(t, "web"))
		a.only(t)
		a.awaitEnd(t, a.asks(t, "web"))
		if points := a.p.query(t, ejected); len(points) != 1 || points[0].value != 1 {
			t.Errorf("got %v, want that the alert ends although the address stays dead", points)
		}
	}}
}

// throttledStory has a Consul that accepts few connections.
func throttledStory(t *testing.T) alertStory {
	t.Helper()
	c := startConsul(t, testconsul.Options{HCL: "limits { http_max_conns_per_client = 20 }"})
	config := consulBlock(c)
	for i := range 40 {
		config += service(fmt.Sprintf("web-%d", i))
	}
	return alertStory{alert: "LictorConsulThrottled", config: config, tell: func(t *testing.T, a *alerted) {
		a.awaitAlert(t, nil)
		a.awaitEnd(t, nil) // when the queries take turns
	}}
}

// processStories are those of alerts about the process, its configuration and its logs.
func processStories(t *testing.T, good netip.AddrPort) []alertStory {
	t.Helper()
	few := []string{"sh", "-c", `ulimit -n 256; exec "$@"`, "sh"}
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, syscall.Mkfifo(fifo, 0o600))
	web := service("web", at(good))
	return []alertStory{
		{alert: "LictorReloadFailed", config: web, tell: func(t *testing.T, a *alerted) {
			a.awaitReady(t)
			a.reload(t, a.config+"nonsense")
			a.awaitAlert(t, nil)
			a.only(t)
			a.mustReload(t, a.config)
			a.awaitEnd(t, nil)
		}},
		{alert: "LictorRestartPending", config: web, tell: func(t *testing.T, a *alerted) {
			a.awaitReady(t)
			a.mustReload(t, fmt.Sprintf("state_dir = %q\n", t.TempDir())+a.config)
			a.awaitAlert(t, nil)
			a.only(t)
			a.mustReload(t, a.config)
			a.awaitEnd(t, nil)
		}},
		{alert: "LictorDescriptors", config: web, wrapper: few, tell: func(t *testing.T, a *alerted) {
			var open []*client
			for range 75 { // 150 of the 170 descriptors for traffic
				open = append(open, mustConnect(t, a.addr(t, "web")))
			}
			a.awaitAlert(t, nil)
			a.only(t)
			for _, c := range open {
				_ = c.Close()
			}
			a.awaitEnd(t, nil)
		}},
		{alert: "LictorDescriptorWaits", config: web, wrapper: few, tell: func(t *testing.T, a *alerted) {
			a.awaitAlert(t, func() {
				a.burst(t, "web", 100)
				time.Sleep(time.Second) // longer than a scrape, so that most scrapes see no connection
			})
			a.only(t)
			a.awaitEnd(t, nil)
		}},
		{alert: "LictorAccessLogDrops", config: fmt.Sprintf("access_log { path = %q }\n", fifo) + web,
			tell: func(t *testing.T, a *alerted) {
				a.awaitAlert(t, a.asks(t, "web"))
				a.only(t)
				a.awaitEnd(t, nil)
			}},
		logDropsStory(t),
	}
}

// logDropsStory has a log that no process reads, until the alert fires.
func logDropsStory(t *testing.T) alertStory {
	t.Helper()
	out, in, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _, _ = out.Close(), in.Close() })
	config := "log_level = \"debug\"\n" + service("log", udp, "responses = 0", "requests = 1",
		endpoints(startUDP(t, "sink")))
	wrapper := []string{"sh", "-c", `exec "$@" 2>&3`, "sh"}
	return alertStory{alert: "LictorLogDrops", config: config, wrapper: wrapper, files: []*os.File{in},
		tell: func(t *testing.T, a *alerted) {
			client := dialUDP(t, a.addr(t, "log"))
			a.awaitAlert(t, func() {
				for range 500 { // each makes a line, and the queue of lines takes 4 MiB
					_, _ = client.Write(who)
				}
			})
			a.only(t)
			var reading sync.WaitGroup
			reading.Go(func() { _, _ = io.Copy(io.Discard, out) })
			a.awaitEnd(t, nil)
			a.Kill()
			_ = in.Close()
			reading.Wait()
		}}
}

// burst makes connections at once, and waits until they are closed.
func (a *alerted) burst(t *testing.T, service string, n int) {
	t.Helper()
	var running sync.WaitGroup
	addr := a.addr(t, service)
	for range n {
		running.Go(func() { _, _ = ask(t.Context(), addr) })
	}
	running.Wait()
}

// A Lictor that has ended is missed, whatever the name of its job. After a while without any Lictor that is another
// alert. Starts in a row are an alert, too.
func TestAlertsOfALostLictor(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	const job = "gate"
	admin := freePort(t)
	config := fmt.Sprintf("admin { listen = %q }\n", admin) + service("web", endpoints(startEcho(t, "a")))
	l := runLictor(t, config)
	p := startPrometheus(t, map[string]netip.AddrPort{job: admin}, hasty(t))
	restart := func() {
		l.terminate(t)
		l.exits(t, 0)
		l = runLictor(t, config)
	}
	eventually(t, "a scrape", func() error {
		if len(p.query(t, "lictor_build_info")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	l.terminate(t)
	l.exits(t, 0)
	p.awaitAlert(t, job, "LictorDown", nil)
	p.awaitAlert(t, "", "LictorAbsent", nil)
	p.awaitEnd(t, job, "LictorDown", nil)
	l = runLictor(t, config)
	p.awaitEnd(t, "", "LictorAbsent", nil)
	restarts := 0
	p.awaitAlert(t, job, "LictorRestarts", func() {
		if restarts++; restarts%20 == 0 { // each process is scraped
			restart()
		}
	})
	p.awaitEnd(t, job, "LictorRestarts", nil)
}
