//go:build unix

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testconsul"
)

// BenchmarkConvergence measures the time from the HTTP answer to a registration until the first connection reaches
// the new instance, 100 times, each time for another service that has one instance already:
//
//	go test ./e2e -run '^$' -bench Convergence -benchtime 1x
func BenchmarkConvergence(b *testing.B) {
	const n = 100
	c := startConsul(b, testconsul.Options{})
	before, after := startEcho(b, "before").addr, startEcho(b, "after").addr
	var config strings.Builder
	config.WriteString(consulBlock(c))
	for i := range n {
		name := fmt.Sprintf("s%02d", i)
		config.WriteString(service(name))
		c.register(b, name, name+"-before", before)
	}
	l := runLictor(b, config.String())

	var took []time.Duration
	for b.Loop() {
		for i := range n {
			name := fmt.Sprintf("s%02d", i)
			addr := l.addr(b, name)
			c.register(b, name, name+"-after", after)
			registered := time.Now()
			for reached := ""; reached != "after"; {
				var err error
				reached, err = ask(b.Context(), addr)
				must(b, err)
			}
			took = append(took, time.Since(registered))
			c.deregister(b, name+"-after")
			awaitRotation(b, addr, "before")
		}
	}
	slices.Sort(took)
	b.ReportMetric(milliseconds(took[len(took)/2]), "ms-median")
	b.ReportMetric(milliseconds(took[(len(took)*99+99)/100-1]), "ms-p99")
	b.ReportMetric(milliseconds(took[len(took)-1]), "ms-max")
	b.ReportMetric(0, "ns/op")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
