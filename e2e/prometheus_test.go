//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lictor-proxy/lictor/internal/testproc"
)

// A prometheus is a running Prometheus that scrapes every second.
type prometheus struct{ url string }

// startPrometheus starts a Prometheus that scrapes the admin listeners in jobs, by the name of their job. Rules are the
// files for rule_files.
func startPrometheus(t testing.TB, jobs map[string]netip.AddrPort, rules ...string) *prometheus {
	t.Helper()
	var config strings.Builder
	config.WriteString("global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files:\n")
	for _, rule := range rules {
		fmt.Fprintf(&config, "  - %q\n", rule)
	}
	config.WriteString("scrape_configs:\n")
	for job, target := range jobs {
		fmt.Fprintf(&config, "  - { job_name: %q, static_configs: [{ targets: [%q] }] }\n", job, target)
	}
	return runPrometheus(t, config.String())
}

// runPrometheus starts a Prometheus with the text of a configuration.
func runPrometheus(t testing.TB, config string) *prometheus {
	t.Helper()
	binary, err := exec.LookPath("prometheus")
	if err != nil {
		testproc.Cannot(t, `Prometheus is missing ("make prometheus" installs it)`, err)
	}
	dir, listen := t.TempDir(), freePort(t).String()
	file := filepath.Join(dir, "prometheus.yml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	log := &testproc.Log{}
	cmd := exec.Command(binary, "--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", listen, "--log.level", "warn")
	cmd.Stdout, cmd.Stderr = log, log
	process, err := testproc.Start(cmd)
	must(t, err)
	t.Cleanup(func() { process.Stop(syscall.SIGTERM, 10*time.Second) })
	p := &prometheus{url: "http://" + listen}
	eventually(t, "Prometheus is ready", func() error {
		if !process.Running() {
			t.Fatalf("Prometheus has ended: %s", log)
		}
		answer, err := http.Get(p.url + "/-/ready")
		if err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", answer.StatusCode)
			}
		}
		return err
	})
	return p
}

// A point is one series of the result of a query, at one time.
type point struct {
	labels map[string]string
	value  float64
}

// query evaluates a query now.
func (p *prometheus) query(t testing.TB, expr string) []point {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any // time and value
		}
	}
	p.get(t, "/api/v1/query?query="+url.QueryEscape(expr), &data)
	var points []point
	for _, r := range data.Result {
		value, err := strconv.ParseFloat(fmt.Sprint(r.Value[1]), 64)
		must(t, err)
		points = append(points, point{r.Metric, value})
	}
	return points
}

// get reads the data of an answer, which must be a success.
func (p *prometheus) get(t testing.TB, path string, data any) {
	t.Helper()
	answer, err := http.Get(p.url + path)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	all := struct {
		Status, Error string
		Data          any
	}{Data: data}
	must(t, json.NewDecoder(answer.Body).Decode(&all))
	if all.Status != "success" {
		t.Fatalf("Prometheus says %s to %s", all.Error, path)
	}
}
