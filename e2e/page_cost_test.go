//go:build linux

package e2e

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

var pageCost = flag.Duration("page-cost", 0,
	"measure for so long each what the page costs lictor, closed and open; without -race")

// TestCostOfThePage measures what the page costs Lictor with 100 services of 3 instances each, while each service gets
// one client a second:
//
//	go test ./e2e -count 1 -v -run TestCostOfThePage -page-cost 1m
func TestCostOfThePage(t *testing.T) {
	anyEngine(t)
	t.Parallel()
	span := *pageCost
	if span == 0 {
		span = time.Second // the test checks that the measurement works; figures mean something after a minute
	}
	const services = 100
	c := startConsul(t, testconsul.Options{})
	instances := []*instance{startEcho(t, "a"), startEcho(t, "b"), startEcho(t, "c")}
	var config strings.Builder
	config.WriteString(adminBlock + consulBlock(c))
	for i := range services {
		name := fmt.Sprintf("service-%02d", i)
		config.WriteString(service(name))
		for _, one := range instances {
			c.register(t, name, name+"-"+one.name, one.addr)
		}
	}
	l := runLictor(t, config.String())
	address := l.adminAddress(t)
	l.awaitAnswer(t, "status -admin "+address, 0, "300 endpoints in")
	measure := func(what string) {
		before, _ := l.usage(t)
		end := time.Now().Add(span)
		next := time.NewTicker(time.Second / services)
		defer next.Stop()
		for i := 0; time.Now().Before(end); i++ {
			_, err := ask(t.Context(), l.addr(t, fmt.Sprintf("service-%02d", i%services)))
			must(t, err)
			<-next.C
		}
		after, memory := l.usage(t)
		t.Logf("%-12s %5.2f %% of a processor, %.1f MB resident",
			what, 100*(after-before).Seconds()/span.Seconds(), memory)
	}
	measure("page closed")
	p := openPage(t, l)
	p.shows(fmt.Sprintf("document.querySelectorAll('#services > li').length === %d", services))
	measure("page open")
}

// usage returns the processor time that Lictor has used, and its resident memory in MB.
func (l *lictor) usage(t testing.TB) (processor time.Duration, memory float64) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.Pid()))
	must(t, err)
	// The fields come after the name of the program, which may contain any character.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, ticks := range f[11:13] {
		n, err := strconv.Atoi(ticks)
		must(t, err)
		processor += time.Duration(n) * 10 * time.Millisecond
	}
	pages, err := strconv.Atoi(f[21])
	must(t, err)
	return processor, float64(pages*os.Getpagesize()) / 1e6
}
