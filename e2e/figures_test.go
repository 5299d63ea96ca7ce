//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// The page, top, status and Prometheus say the same of one lictor at rest: how many services, endpoints, connections
// and sessions there are, and how many services refuse clients. TestFiguresAgree in cmd/lictor compares all counters.
func TestPageTopAndMetricsAgree(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	l := runLictor(t, adminBlock+service("web", endpoints(startEcho(t, "a"), startEcho(t, "b")))+
		service("dns", udp, `idle_timeout = "1h"`, endpoints(startUDP(t, "u")))+
		service("dead", at(deadAddr(t))))
	mustConnect(t, l.addr(t, "web"))
	mustConnect(t, l.addr(t, "web"))
	dialUDP(t, l.addr(t, "dns")).awaitAnswer(t, "u")
	for range 3 { // ejects the only endpoint
		if c, err := net.Dial("tcp", l.addr(t, "dead").String()); err == nil {
			_, _ = c.Read(make([]byte, 1))
			_ = c.Close()
		}
	}
	address := l.adminAddress(t)
	p := openPage(t, l)
	prom := startPrometheus(t, map[string]netip.AddrPort{"gate": netip.MustParseAddrPort(address)})
	eventually(t, "the same figures in all places", func() error {
		var all struct {
			Status struct {
				Services, Refusing, Connections int
				In                              int `json:"endpoints_in"`
				Out                             int `json:"endpoints_out"`
				Active                          int `json:"connections_active"`
				Sessions                        int `json:"sessions_active"`
			}
		}
		_, text := l.ask(t, "status", "-json", "-admin", address)
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return fmt.Errorf("%w: %s", err, text)
		}
		s := all.Status
		want := fmt.Sprintf("%d services, %d in, %d out, %d active, %d refusing", s.Services, s.In, s.Out,
			s.Active+s.Sessions, s.Refusing)
		const asText = "%s services, %s in, %s out, %s active, %s refusing"
		page := fmt.Sprintf(asText, p.text("#t-services"), p.text("#t-in"), p.text("#t-out"), p.text("#t-active"),
			p.eval(`document.querySelectorAll("#services .row.refusing").length`))
		sum := func(expr string) string {
			points := prom.query(t, "sum("+expr+")")
			if len(points) == 0 { // such as endpoints that are out, while there are none
				return "0"
			}
			return fmt.Sprint(points[0].value)
		}
		metrics := fmt.Sprintf(asText, sum("lictor_services"),
			sum(`lictor_endpoints{state="in"}`), sum(`lictor_endpoints{state="out"}`),
			sum("lictor_connections_active or lictor_sessions_active"), sum(`lictor_service_state{state="refusing"}`))
		_, top := l.ask(t, "top", "-once", "-interval", "100ms", "-admin", address)
		head := fmt.Sprintf("%d services, %d in, %d out  %d active", s.Services, s.In, s.Out, s.Active+s.Sessions)
		if page != want || metrics != want || !strings.Contains(top, head) {
			return fmt.Errorf("status: %s\npage: %s\nmetrics: %s\ntop:\n%s", want, page, metrics, top)
		}
		if s.Active != 2 || s.Sessions != 1 || s.Refusing != 1 {
			return fmt.Errorf("got %s", want)
		}
		return nil
	})
}

// text is the text of an element of the page.
func (p *page) text(selector string) string {
	p.Helper()
	return p.eval(fmt.Sprintf("document.querySelector(%q).textContent", selector))
}
